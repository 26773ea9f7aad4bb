//! Every fixture frame is as published, and every method asks for the published scope.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says what it skipped"
)]

#[path = "support/mod.rs"]
mod support;

use std::{
    collections::BTreeSet,
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use nix::unistd::Pid;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use serde_json::{Value, json};
use support::{Behind, Home, OurGateway, Schema, Tap, openclaw};

/// Methods whose scope differs from the published list, since the running gateway differs from it:
/// `health` is answered to every client, whatever its role and scopes, who asks for more scopes need
/// hold none, and who may read may ask who he is.
const SCOPES: [(&str, &str); 4] = [
    ("users.self", "operator.read"),
    ("health", "-"),
    ("device.scopes.requestUpgrade", "operator"),
    ("device.scopes.waitUpgrade", "operator"),
];
/// Methods of which the schema describes no reply.
const UNDESCRIBED: [&str; 38] = [
    "status",
    "gateway.identity.get",
    "last-heartbeat",
    "config.get",
    "config.set",
    "config.patch",
    "config.apply",
    "voicewake.get",
    "voicewake.set",
    "voicewake.routing.get",
    "system-event",
    "users.self",
    "device.pair.list",
    "device.pair.approve",
    "device.pair.reject",
    "device.pair.remove",
    "device.pair.rename",
    "device.token.revoke",
    "node.list",
    "node.describe",
    "node.rename",
    "node.pair.list",
    "node.pair.approve",
    "node.pair.reject",
    "node.pair.remove",
    "node.invoke",
    "node.invoke.result",
    "node.invoke.progress",
    "node.pending.pull",
    "node.pending.ack",
    "node.pluginTools.update",
    "node.skills.update",
    "node.runnerInventory.update",
    "exec.approval.request",
    "exec.approval.get",
    "exec.approval.list",
    "exec.approval.waitDecision",
    "exec.approval.resolve",
];

/// Those of them that no gateway answers here, since nobody logs in as a person: what is held against
/// the reference gateway's is the refusal.
const REFUSED: [&str; 1] = ["users.self"];

fn schema() -> Option<&'static Schema> {
    let schema = Schema::published();
    if schema.is_none() {
        eprintln!("skipped: the published schema is not installed");
    }
    schema
}

fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    include_str!("../fixtures/methods.txt").lines().filter_map(|line| line.split_once(' '))
}

#[test]
fn every_method_is_published_and_asks_for_the_published_scope() {
    let Some(schema) = schema() else { return };
    let published = schema.methods();
    for (name, scope) in rows() {
        let known = SCOPES.iter().find(|(known, _)| *known == name).map(|(_, scope)| *scope);
        let expected = known.or_else(|| published.get(name).map(String::as_str));
        assert_eq!(Some(scope), expected, "{name}");
    }
}

#[test]
fn the_list_that_the_page_is_made_from_is_the_published_one() {
    let Some(schema) = schema() else { return };
    let published: BTreeSet<_> = schema.methods().into_iter().collect();
    let published: String =
        published.iter().map(|(name, scope)| format!("{name} {scope}\n")).collect();
    assert_eq!(published, include_str!("../fixtures/published.txt"));
}

#[test]
fn what_the_schema_does_not_describe_is_written_down() {
    let Some(schema) = schema() else { return };
    let rows = rows().map(|(name, _)| name);
    let silent: BTreeSet<_> = rows.filter(|name| !schema.knows_the_reply_of(name)).collect();
    let known = BTreeSet::from(UNDESCRIBED);
    let unknown: Vec<_> = silent.difference(&known).collect();
    assert!(unknown.is_empty(), "no definition found for {unknown:?}");
}

/// What was taken down of the reference gateway, which `tests/peers/replies.rs` holds ours against.
#[test]
fn what_the_schema_does_not_describe_was_taken_down_of_the_reference_gateway() {
    let Some(schema) = schema() else { return };
    let taken = read(&fixtures().join("replies/openclaw-2026.9.6.json"));
    let replies = taken["replies"].as_object().unwrap();
    let methods: BTreeSet<_> = replies.keys().map(String::as_str).collect();
    assert_eq!(methods, BTreeSet::from(UNDESCRIBED));
    let refused = replies.iter().filter(|(_, reply)| reply.get("refused").is_some());
    let refused: Vec<_> = refused.map(|(name, _)| name.as_str()).collect();
    assert_eq!(refused, REFUSED);
    // Where an event says how something ended, each end stands by itself.
    let events = taken["events"].as_object().unwrap().keys();
    let events: BTreeSet<_> = events.filter_map(|name| name.split(' ').next()).collect();
    let hello = read(&fixtures().join("frames/hello-ok.json"));
    let announced = hello.pointer("/payload/features/events").and_then(Value::as_array).unwrap();
    let announced = announced.iter().filter_map(Value::as_str);
    let silent: BTreeSet<_> = announced.filter(|it| !schema.knows_the_payload_of(it)).collect();
    assert_eq!(events, silent);
}

#[test]
fn every_event_that_is_announced_is_one_of_the_reference_gateway() {
    let hello = read(&fixtures().join("frames/hello-ok.json"));
    let ours = hello.pointer("/payload/features/events").and_then(Value::as_array).unwrap();
    assert!(ours.len() >= 12);
    for event in ours {
        assert!(Schema::events().contains(event.as_str().unwrap()), "{event}");
    }
}

#[test]
fn what_is_announced_is_what_the_table_has() {
    let hello = read(&fixtures().join("frames/hello-ok.json"));
    let announced = hello.pointer("/payload/features/methods").and_then(Value::as_array).unwrap();
    let announced: Vec<_> = announced.iter().filter_map(Value::as_str).collect();
    // A method of the test's own stands beside them.
    let table: Vec<_> = rows().map(|(name, _)| name).collect();
    assert_eq!(announced, table);
}

/// What the captured frames of the reference gateway hold beyond its own schema.
const BEYOND: [(&str, &str); 6] = [
    ("hello-ok", "/payload/auth/method"),
    ("hello-ok", "/payload/controlUiLinkReaders"),
    ("health", "/payload/modelRuntime"),
    ("health", "/payload/eventLoop/cpuBreakdown"),
    ("hello-ok", "/payload/snapshot/health/modelRuntime"),
    ("hello-ok", "/payload/snapshot/health/eventLoop/cpuBreakdown"),
];

/// Ours, and those that were captured from the reference gateway.
#[test]
fn every_fixture_frame_is_as_published() {
    let Some(schema) = schema() else { return };
    let frames = fixtures().join("frames");
    let mut held = 0;
    for path in files(&frames).into_iter().chain(files(&frames.join("openclaw-2026.9.6"))) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let is_theirs = path.parent() != Some(&frames);
        for mut frame in frames_in(read(&path)) {
            steady_again(&mut frame);
            if is_theirs {
                BEYOND.iter().filter(|(file, _)| *file == name).for_each(|(_, place)| {
                    take_out(&mut frame, place);
                });
            }
            let method = if name == "hello-ok" { "connect" } else { method_of(&name) };
            let flaws = schema.flaws(&frame, Some(method));
            assert!(flaws.is_empty(), "{}: {}", path.display(), flaws.join("\n"));
            held += 1;
        }
    }
    assert!(held >= 40, "only {held} frames were found");
}

/// Parameters of connects as other clients send them; some are wrong on purpose.
#[test]
fn every_connect_that_is_to_come_in_is_as_published_and_every_strange_one_is_not() {
    let Some(schema) = schema() else { return };
    let mut held = 0;
    for path in files(&fixtures().join("connect")) {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let fixture = read(&path);
        let frame =
            json!({ "type": "req", "id": "1", "method": "connect", "params": fixture["params"] });
        let flaws = schema.flaws(&frame, None);
        if fixture.get("refused").is_none() {
            assert!(flaws.is_empty(), "{name}: {}", flaws.join("\n"));
        } else if ["a-field-too-many", "an-unknown-client"].contains(&&*name) {
            assert!(!flaws.is_empty(), "{name}");
        }
        held += 1;
    }
    assert!(held >= 8, "only {held} frames were found");
}

/// Our program's own conversation with our gateway, heard on its way.
#[test]
fn what_our_gateway_says_to_our_own_commands_is_as_published() {
    if schema().is_none() {
        return;
    }
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    let port = gateway.port().to_string();
    for words in [
        &["health"][..],
        &["status", "--deep"],
        &["gateway", "probe"],
        &["gateway", "call", "config.get"],
        &["gateway", "call", "system-presence"],
        &["gateway", "call", "no.such.method"],
        &["devices", "list"],
        &["nodes", "list"],
    ] {
        openclaw(&home).args(words).env("OPENCLAW_GATEWAY_PORT", &port).run();
    }
    let held = gateway.held().unwrap();
    assert!(held >= 16, "only {held} frames were heard");
}

/// A gateway that says `frame` to whoever opens a WebSocket.
fn liar(frame: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut socket = tokio_tungstenite::tungstenite::accept(stream).unwrap();
        socket.send(frame.into()).unwrap();
        drop(socket.read());
    });
    port
}

#[test]
fn the_tap_hears_what_is_wrong() {
    if schema().is_none() {
        return;
    }
    for (frame, complaint) in [
        (r#"{"type":"event","event":"tick","payload":{"ts":"now"}}"#, "TickEvent"),
        (r#"{"type":"event","event":"made.up","payload":{}}"#, "nobody knows"),
        (r#"{"type":"res","id":"1","ok":"yes"}"#, "ResponseFrame"),
        ("{", "not JSON"),
    ] {
        // Stands for the gateway: the tap ends with it.
        let mut life = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pid = Pid::from_raw(i32::try_from(life.id()).unwrap());
        let port = listener.local_addr().unwrap().port();
        let behind = Behind { port: liar(frame), gateway: pid, tls: None };
        let tap = Tap::before(vec![listener], behind).unwrap();
        let url = format!("ws://127.0.0.1:{port}/");
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut socket, _) = tokio_tungstenite::tungstenite::client(url, stream).unwrap();
        assert_eq!(socket.read().unwrap().to_text().unwrap(), frame);
        let flaws = tap.flaws();
        assert!(flaws.iter().any(|flaw| flaw.contains(complaint)), "{frame}: {flaws:?}");
        drop((socket, life.stdin.take()));
        life.wait().unwrap();
    }
}

/// A certificate and its key, written into a folder as a gateway has them.
struct Pair {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Pair {
    fn made(folder: &Path) -> Self {
        let names = vec!["127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
        fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        Self { certificate: made.cert.der().clone(), key }
    }

    fn pin(&self) -> String {
        let print = ring::digest::digest(&ring::digest::SHA256, &self.certificate);
        let digits: String = print.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("sha256:{digits}")
    }

    /// A gateway that says `frame` inside TLS to whoever opens a WebSocket.
    fn liar(self, frame: &'static str) -> u16 {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate], self.key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let session = rustls::ServerConnection::new(Arc::new(config)).unwrap();
            let stream = rustls::StreamOwned::new(session, stream);
            // Who finds another certificate than it wants goes.
            let Ok(mut socket) = tokio_tungstenite::tungstenite::accept(stream) else { return };
            socket.send(frame.into()).unwrap();
            drop(socket.read());
        });
        port
    }
}

#[test]
fn the_tap_hears_what_is_wrong_inside_tls_and_shows_what_the_gateway_shows() {
    if schema().is_none() {
        return;
    }
    for is_renewed in [false, true] {
        let (home, folder) = (Home::new(), tempfile::tempdir().unwrap());
        let mut life = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let shown = Pair::made(folder.path());
        let pin = shown.pin();
        if is_renewed {
            Pair::made(folder.path());
        }
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("wss://{}", listener.local_addr().unwrap());
        let behind = Behind {
            port: shown.liar(r#"{"type":"event","event":"made.up","payload":{}}"#),
            gateway: Pid::from_raw(i32::try_from(life.id()).unwrap()),
            tls: Some(folder.path().to_owned()),
        };
        let tap = Tap::before(vec![listener], behind).unwrap();
        let asks = ["health", "--timeout", "2000", "--token", "x", "--tls-fingerprint"];
        let ran = openclaw(&home).args(asks).args([&pin, "--url", &url]).run();
        assert!(ran.code != 0 && ran.code != 5, "the pin holds: {ran}");
        let flaws = tap.flaws();
        let complaint = if is_renewed { "another certificate" } else { "nobody knows" };
        assert!(flaws.iter().any(|flaw| flaw.contains(complaint)), "{ran}\n{flaws:?}");
        drop(life.stdin.take());
        life.wait().unwrap();
    }
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The JSON files of a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|end| end == "json")).collect()
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// The frames in a fixture: itself, or those in it.
fn frames_in(fixture: Value) -> Vec<Value> {
    if fixture.get("type").is_some_and(Value::is_string) {
        return vec![fixture];
    }
    match fixture {
        Value::Array(items) => items.into_iter().flat_map(frames_in).collect(),
        Value::Object(keys) => keys.into_iter().flat_map(|(_, value)| frames_in(value)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// What a captured file answers: its name, without what tells one of a kind from another.
fn method_of(name: &str) -> &str {
    let name = name.strip_suffix(".reply").unwrap_or(name);
    name.strip_suffix(".request").unwrap_or(name)
}

fn take_out(value: &mut Value, place: &str) {
    let (parent, key) = place.rsplit_once('/').unwrap();
    if let Some(Value::Object(keys)) = value.pointer_mut(parent) {
        keys.remove(key);
    }
}

/// Puts a number where a golden file says that one stood.
fn steady_again(value: &mut Value) {
    match value {
        Value::String(text) if text == "NUMBER" => *value = 1.into(),
        Value::Array(items) => items.iter_mut().for_each(steady_again),
        Value::Object(keys) => keys.values_mut().for_each(steady_again),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
