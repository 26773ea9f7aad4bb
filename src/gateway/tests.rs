//! Connections over in-memory streams, on a stopped clock.

#[path = "../../tests/support/schema.rs"]
#[allow(dead_code, reason = "other programs use the rest")]
mod schema;

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderName},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Shared,
    admission::PeerInfo,
    device_token::Mint,
    dispatch::{Call, Outcome},
    http,
    reload::Live,
    scrape::Scrapes,
    settings::Guard,
};
use crate::{
    config::Paths,
    protocol::{Access, GatewayIdentity, Method, NoParams, Row},
    secret::Secret,
    store::Store,
};

mod approvals;
mod devices;
mod fuzz;
mod nodes;
mod upgrades;
mod ways;

const TOKEN: &str = "the token";
const SCRAPES: &str = "opens the metrics";

/// The files of the default profile in `state`.
pub(super) fn paths(state: &Path) -> Paths {
    Paths {
        state: state.to_owned(),
        config: state.join("openclaw.json"),
        socket: state.join("socket"),
        profile: None,
    }
}

/// A gateway without files or sockets.
struct Lab {
    shared: Arc<Shared>,
    stop: CancellationToken,
    _rounds: AbortOnDropHandle<()>,
}

/// A client of the lab, with the task that serves it.
struct Client {
    socket: WebSocketStream<DuplexStream>,
    served: JoinHandle<()>,
    /// Which method each request asked for.
    asked: HashMap<String, String>,
}

/// A method that never answers.
enum Never {}

impl Method for Never {
    const ROW: Row = Row { name: "test.never", access: Access::Anyone };
    type Params = NoParams;
    type Reply = Value;
}

async fn never(_call: Call, _params: NoParams) -> Outcome<Value> {
    std::future::pending().await
}

impl Lab {
    fn new() -> Self {
        Self::at(Path::new("/state"))
    }

    /// One whose files would be in `state`.
    fn at(state: &Path) -> Self {
        let paths = paths(state);
        let identity = GatewayIdentity { device_id: "id".to_owned(), public_key: "key".to_owned() };
        let guard = Guard::Token(Secret::new(TOKEN));
        let scrapes = Scrapes::new(Secret::new(SCRAPES), crate::logfile::Handle::default());
        let live = Live { guard, allowed_origins: Vec::new(), pair_local: None };
        let mut shared = Shared::new(
            paths,
            live,
            identity,
            (Store::in_memory(), Mint::new(&Secret::new("mint"))),
            scrapes,
        );
        shared.dispatcher.on::<Never, _>(never);
        let hub = Arc::clone(&shared.hub);
        let rounds = AbortOnDropHandle::new(tokio::spawn(async move { hub.tell_rounds().await }));
        Self { shared: Arc::new(shared), stop: CancellationToken::new(), _rounds: rounds }
    }

    fn serve(&self) -> (DuplexStream, JoinHandle<()>) {
        self.serve_from(PeerInfo::loopback())
    }

    fn serve_from(&self, peer: PeerInfo) -> (DuplexStream, JoinHandle<()>) {
        let (ours, theirs) = duplex(256 * 1024);
        let slot = self.shared.slots.enter(peer.door, peer.address).unwrap();
        let stop = self.stop.clone();
        let serve = http::serve(Arc::clone(&self.shared), theirs, peer, slot, stop);
        (ours, tokio::spawn(serve))
    }

    /// A client that has been challenged.
    async fn challenged(&self) -> Client {
        let (stream, served) = self.serve();
        let (socket, _) = client_async("ws://127.0.0.1:18789/", stream).await.unwrap();
        let mut client = Client { socket, served, asked: HashMap::new() };
        assert_eq!(client.frame().await["event"], "connect.challenge");
        client
    }

    /// The same of a client elsewhere whose request has these headers.
    async fn challenged_from(&self, peer: PeerInfo, headers: &[(&str, &str)]) -> Client {
        let (client, challenge) = self.knocked_from(peer, headers).await;
        assert_eq!(challenge["event"], "connect.challenge");
        client
    }

    /// The same with the challenge.
    async fn knocked_from(&self, peer: PeerInfo, headers: &[(&str, &str)]) -> (Client, Value) {
        let (stream, served) = self.serve_from(peer);
        let mut request = IntoClientRequest::into_client_request("ws://127.0.0.1:18789/").unwrap();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let (socket, _) = client_async(request, stream).await.unwrap();
        let mut client = Client { socket, served, asked: HashMap::new() };
        let challenge = client.frame().await;
        (client, challenge)
    }

    /// A client that has said `connect`, and the answer.
    async fn connected(&self, changes: &Value) -> (Client, Value) {
        let mut client = self.challenged().await;
        client.send(&connect(changes)).await;
        let answer = client.frame().await;
        (client, answer)
    }

    async fn admitted(&self) -> Client {
        let (client, answer) = self.connected(&json!({})).await;
        assert_eq!(answer["payload"]["type"], "hello-ok", "{answer}");
        client
    }
}

impl Client {
    async fn send(&mut self, frame: &Value) {
        if let (Some(id), Some(method)) = (frame["id"].as_str(), frame["method"].as_str()) {
            self.asked.insert(id.to_owned(), method.to_owned());
        }
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.send(&json!({"type": "req", "id": method, "method": method, "params": params})).await;
        self.frame().await
    }

    async fn message(&mut self) -> Message {
        loop {
            let message = timeout(Duration::from_secs(3_600), self.socket.next());
            match message.await.expect("nothing came for an hour").unwrap().unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message @ (Message::Text(_)
                | Message::Binary(_)
                | Message::Close(_)
                | Message::Frame(_)) => return message,
            }
        }
    }

    async fn frame(&mut self) -> Value {
        let message = self.message().await;
        let frame: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        // Whatever a gateway says in any of these tests is as published.
        if let Some(schema) = schema::Schema::published() {
            let method = frame["id"].as_str().and_then(|id| self.asked.get(id));
            schema.hold(&frame, method.map(String::as_str));
        }
        frame
    }

    /// The close code and reason, once the connection has ended on both sides.
    async fn closed(mut self) -> (u16, String) {
        let message = self.message().await;
        let Message::Close(Some(frame)) = message else { panic!("not a close: {message}") };
        let code: u16 = frame.code.into();
        // Reading on sends our half of the farewell.
        assert!(!matches!(self.socket.next().await, Some(Ok(_))));
        self.served.await.unwrap();
        (code, frame.reason.to_string())
    }
}

fn connect(changes: &Value) -> Value {
    let mut params = json!({
        "minProtocol": 4, "maxProtocol": 4,
        "client": {"id": "cli", "version": "1.0.0", "platform": "linux", "mode": "cli"},
        "role": "operator", "scopes": ["operator.read"], "auth": {"token": TOKEN},
    });
    for (key, value) in changes.as_object().unwrap() {
        params[key] = value.clone();
    }
    json!({"type": "req", "id": "1", "method": "connect", "params": params})
}

/// `value` with what differs from run to run replaced by its kind.
fn steady(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match key.as_str() {
                    "ts" | "uptimeMs" | "pid" | "rssBytes" => *value = json!("NUMBER"),
                    "file" | "hash" | "connId" | "bootId" | "instanceId" | "host" | "text"
                    | "version" | "runtimeVersion" | "platform" | "nonce" => *value = json!("TEXT"),
                    _ => steady(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(steady),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Holds a frame against its golden file; `UPDATE_GOLDEN=1` writes the file instead.
fn golden(name: &str, mut frame: Value) {
    steady(&mut frame);
    let file = format!("{}/fixtures/frames/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = format!("{frame:#}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&file).unwrap_or_default(), "{file}");
}

#[tokio::test(start_paused = true)]
async fn says_hello_and_answers_what_it_lists() {
    let lab = Lab::new();
    let (mut client, hello) = lab.connected(&json!({})).await;
    let methods = hello["payload"]["features"]["methods"].as_array().unwrap().clone();
    golden("hello-ok", hello);
    for method in methods {
        let method = method.as_str().unwrap();
        // Others have stories of their own, and want something to speak of.
        let families = ["config.", "device.", "node.", "exec.", "system-event", "users."];
        let is_other = families.iter().any(|family| method.starts_with(family));
        if (is_other && method != "config.get") || method == "voicewake.set" {
            continue;
        }
        let answer = client.call(method, json!({})).await;
        assert_eq!(answer["ok"], true, "{answer}");
        golden(method, answer);
    }
}

#[tokio::test(start_paused = true)]
async fn shows_an_administrator_who_is_paired_and_what_waits() {
    let lab = Lab::new();
    let (mut client, _) = lab.connected(&json!({"scopes": ["operator.admin"]})).await;
    for method in ["device.pair.list", "node.list", "node.pair.list", "exec.approval.list"] {
        golden(method, client.call(method, json!({})).await);
    }
}

#[tokio::test(start_paused = true)]
async fn wake_words_are_kept_and_told_to_who_may_read() {
    let lab = Lab::new();
    let (mut writer, _) = lab.connected(&json!({"scopes": ["operator.write"]})).await;
    let mut reader = lab.admitted().await;
    let (mut other, _) = lab.connected(&json!({"scopes": ["operator.pairing"]})).await;
    let changed = json!({"triggers": ["Hey", "you"]});
    let params = json!({"triggers": [" Hey ", "", 5, "you"]});
    writer
        .send(&json!({"type": "req", "id": "1", "method": "voicewake.set", "params": params}))
        .await;
    for client in [&mut writer, &mut reader] {
        let event = client.frame().await;
        assert_eq!(event["event"], "voicewake.changed", "{event}");
        assert_eq!(event["payload"], changed);
    }
    assert_eq!(writer.frame().await["payload"], changed);
    assert_eq!(reader.call("voicewake.get", json!({})).await["payload"], changed);
    assert_eq!(reader.call("voicewake.set", changed.clone()).await["error"]["code"], "FORBIDDEN");
    assert_eq!(other.call("health", json!({})).await["ok"], true);
    for wrong in [json!({}), json!({"triggers": "x"})] {
        let answer = writer.call("voicewake.set", wrong).await;
        assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_system_event_is_seen_in_presence_and_waits_for_the_session() {
    let lab = Lab::new();
    let (mut client, _) = lab.connected(&json!({"scopes": ["operator.admin"]})).await;
    let line = "Node: box (1.2.3.4) · app 1.0 · last input 5s ago · mode ui · reason launch";
    let told = client.call("system-event", json!({"text": line})).await;
    let (told, news) = if told["type"] == "event" {
        (client.frame().await, told)
    } else {
        (told, client.frame().await)
    };
    assert_eq!(told["payload"], json!({"ok": true}), "{told}");
    assert_eq!(
        (&news["event"], &news["stateVersion"]["presence"]),
        (&json!("presence"), &json!(2))
    );
    let line = &news["payload"]["presence"][1];
    assert_eq!((&line["host"], &line["lastInputSeconds"]), (&json!("box"), &json!(5)), "{news}");
    for (params, code) in [
        (json!({"text": " "}), "INVALID_REQUEST"),
        (json!({"text": "x", "unknown": 1}), "INVALID_REQUEST"),
        (json!({"text": "Node: x", "wake": true}), "INVALID_REQUEST"),
        (json!({"text": "x", "wake": true}), "UNAVAILABLE"),
    ] {
        let answer = client.call("system-event", params).await;
        assert_eq!(answer["error"]["code"], code, "{answer}");
    }
    let status = client.call("status", json!({"includeCliProjection": true})).await;
    assert_eq!(
        status["payload"]["queuedSystemEvents"],
        json!(["Node: box (1.2.3.4) · app 1.0 · mode ui"])
    );
    assert_eq!(status["payload"]["cliProjection"]["agents"]["rows"], json!([{"id": "main"}]));
    let answer = client.call("users.self", json!({})).await;
    assert_eq!(answer["error"]["message"], "users.self requires an authenticated user");
}

#[tokio::test(start_paused = true)]
async fn a_key_is_good_for_one_request_and_its_answer() {
    let lab = Lab::new();
    let (mut client, _) = lab.connected(&json!({"scopes": ["operator.admin"]})).await;
    let event = |text: &str| json!({"text": text, "idempotencyKey": "k"});
    for _ in 0..3 {
        client.send(&json!({"type": "req", "id": "1", "method": "system-event", "params": event("once")})).await;
        loop {
            let frame = client.frame().await;
            if frame["type"] == "res" {
                assert_eq!(frame["payload"], json!({"ok": true}), "{frame}");
                break;
            }
        }
    }
    let answer = client.call("system-event", event("another")).await;
    assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
    let long = json!({"text": "x", "idempotencyKey": "k".repeat(257)});
    assert_eq!(client.call("system-event", long).await["error"]["code"], "INVALID_REQUEST");
    let status = client.call("status", json!({})).await;
    assert_eq!(status["payload"]["queuedSystemEvents"], json!(["once"]));
}

#[tokio::test(start_paused = true)]
async fn the_schema_of_the_configuration_is_given_whole_and_by_place() {
    let lab = Lab::new();
    let mut client = lab.admitted().await;
    let whole = client.call("config.schema", json!({})).await;
    let token =
        whole["payload"]["schema"].pointer("/properties/gateway/properties/auth/properties/token");
    assert!(token.is_some(), "{whole}");
    assert_eq!(whole["payload"]["uiHints"]["gateway.auth.token"]["sensitive"], true);
    let place = client.call("config.schema.lookup", json!({"path": "gateway.auth"})).await;
    assert_eq!(place["payload"]["reloadKind"], "restart", "{place}");
    let children = place["payload"]["children"].as_array().unwrap();
    let token = children.iter().find(|child| child["key"] == "token").unwrap();
    assert_eq!((&token["reloadKind"], &token["hasChildren"]), (&json!("hot"), &json!(false)));
    assert_eq!(client.call("config.schema.lookup", json!({"path": "."})).await["ok"], true);
    let answer = client.call("config.schema.lookup", json!({"path": "gateway.nope"})).await;
    assert_eq!(answer["error"]["message"], "config schema path not found");
}

#[tokio::test(start_paused = true)]
async fn ticks_and_counts_its_events() {
    let lab = Lab::new();
    let since = Instant::now();
    let mut client = lab.admitted().await;
    for seq in 1..=5 {
        let tick = client.frame().await;
        assert_eq!((&tick["event"], &tick["seq"]), (&json!("tick"), &json!(seq)), "{tick}");
    }
    assert_eq!(since.elapsed().as_secs(), 150);
    let answer = client.call("health", json!({"probe": true})).await;
    assert_eq!((&answer["event"], &answer["seq"]), (&json!("health"), &json!(6)), "{answer}");
    assert_eq!(answer["stateVersion"], json!({"presence": 1, "health": 2}));
    assert_eq!(client.frame().await["id"], "health");
}

#[tokio::test(start_paused = true)]
async fn who_does_not_connect_in_time_is_closed() {
    let lab = Lab::new();
    let since = Instant::now();
    let client = lab.challenged().await;
    assert_eq!(client.closed().await, (1000, "handshake timeout".to_owned()));
    assert_eq!(since.elapsed().as_secs(), 15);
}

#[tokio::test(start_paused = true)]
async fn who_sends_half_a_head_or_idles_between_requests_is_closed() {
    let lab = Lab::new();
    for bytes in ["GET /healthz HT", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"] {
        let (since, (mut stream, served)) = (Instant::now(), lab.serve());
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        served.await.unwrap();
        assert!(since.elapsed().as_secs() <= 15, "{bytes}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_wrong_token_is_told_why_and_closed() {
    let lab = Lab::new();
    let (client, answer) = lab.connected(&json!({"auth": {"token": "no"}})).await;
    golden("error-token-mismatch", answer);
    assert_eq!(client.closed().await, (1008, "unauthorized: gateway token mismatch".to_owned()));
    let (client, answer) = lab.connected(&json!({"auth": {}})).await;
    golden("error-token-missing", answer);
    client.closed().await;
    let (client, answer) = lab.connected(&json!({"minProtocol": 3, "maxProtocol": 3})).await;
    golden("error-protocol-mismatch", answer);
    assert_eq!(client.closed().await.0, 1002);
}

#[tokio::test(start_paused = true)]
async fn guessing_is_slowed_and_a_good_token_is_not() {
    let lab = Lab::new();
    let mut last = Value::Null;
    for guess in 0..11 {
        let guess = format!("guess {guess}");
        let (client, answer) = lab.connected(&json!({"auth": {"token": guess}})).await;
        last = answer;
        client.closed().await;
    }
    assert_eq!(last["error"]["details"]["code"], "AUTH_RATE_LIMITED", "{last}");
    let since = Instant::now();
    lab.admitted().await;
    assert!(since.elapsed() < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_before_connect() {
    let lab = Lab::new();
    for frame in [
        json!({"type": "req", "id": "1", "method": "health"}),
        json!({"type": "req", "id": "1", "method": "connect", "params": {"minProtocol": 4}}),
        json!({"type": "req", "id": "1", "method": "connect"}),
    ] {
        let mut client = lab.challenged().await;
        client.send(&frame).await;
        let answer = client.frame().await;
        assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
        assert_eq!(client.closed().await.0, 1008);
    }
    for frame in [json!({"type": "event", "event": "x"}), json!("text"), json!({"type": "req"})] {
        let mut client = lab.challenged().await;
        client.send(&frame).await;
        assert_eq!(client.closed().await, (1008, "invalid request frame".to_owned()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_before_authentication_is_cut() {
    let lab = Lab::new();
    let mut client = lab.challenged().await;
    client.send(&connect(&json!({"userAgent": "x".repeat(70_000)}))).await;
    assert_eq!(client.closed().await.0, 1009);
    let mut client = lab.admitted().await;
    let large = client.call("health", json!({"pad": "x".repeat(70_000)})).await;
    assert_eq!(large["ok"], true);
}

#[tokio::test(start_paused = true)]
async fn says_what_is_wrong_with_a_request_and_goes_on() {
    let lab = Lab::new();
    let mut client = lab.admitted().await;
    golden("error-unknown-method", client.call("no.such", json!({})).await);
    golden("error-connect-again", client.call("connect", json!({})).await);
    let answer = client.call("health", json!({"probe": "yes"})).await;
    assert_eq!(answer["error"]["code"], "INVALID_REQUEST");
    client.send(&json!("text")).await;
    assert_eq!(client.frame().await["error"]["message"], "invalid request frame");
    assert_eq!(client.call("status", json!(null)).await["ok"], true);
}

#[tokio::test(start_paused = true)]
async fn a_missing_scope_is_named() {
    let lab = Lab::new();
    let (mut client, _) = lab.connected(&json!({"scopes": []})).await;
    golden("error-missing-scope", client.call("status", json!({})).await);
    assert_eq!(client.call("health", json!({})).await["ok"], true);
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_under_way_are_refused_and_the_rest_is_answered() {
    let lab = Lab::new();
    let mut client = lab.admitted().await;
    for id in 0..129 {
        let id = id.to_string();
        client.send(&json!({"type": "req", "id": id, "method": "test.never"})).await;
    }
    let refused = client.frame().await;
    assert_eq!(refused["id"], "128");
    assert_eq!(refused["error"]["code"], "UNAVAILABLE");
    assert_eq!(refused["error"]["retryable"], true);
}

#[tokio::test(start_paused = true)]
async fn tells_clients_that_it_goes() {
    let lab = Lab::new();
    let mut client = lab.admitted().await;
    let waiting = lab.challenged().await;
    lab.stop.cancel();
    let event = client.frame().await;
    assert_eq!((&event["event"], &event["seq"]), (&json!("shutdown"), &json!(1)));
    assert_eq!(client.closed().await, (1012, "service restart".to_owned()));
    assert_eq!(waiting.closed().await.0, 1012);
    let (mut stream, served) = lab.serve();
    served.await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_answers_no_ping_is_let_go() {
    let lab = Lab::new();
    let since = Instant::now();
    let client = lab.admitted().await;
    // The client's library answers pings when it reads, and it does not read.
    client.served.await.unwrap();
    let took = since.elapsed().as_secs();
    assert!((55..=58).contains(&took), "{took}");
    assert_eq!(lab.shared.hub.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn presence_tells_of_those_who_stay() {
    let lab = Lab::new();
    let mut watcher = lab.admitted().await;
    let ui = json!({"id": "openclaw-tui", "version": "1", "platform": "linux", "mode": "ui"});
    let (client, hello) = lab.connected(&json!({"client": ui})).await;
    assert_eq!(hello["payload"]["snapshot"]["presence"].as_array().unwrap().len(), 2);
    let news = watcher.frame().await;
    assert_eq!(news["event"], "presence");
    assert_eq!(news["payload"]["presence"][1]["mode"], "ui");
    assert_eq!(news["stateVersion"]["presence"], 2);
    drop(client);
    let news = watcher.frame().await;
    assert_eq!(news["payload"]["presence"].as_array().unwrap().len(), 1);
}

/// The status line and body of one plain request.
async fn plain(lab: &Lab, head: &str) -> (String, String) {
    let (mut stream, served) = lab.serve();
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    served.await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test(start_paused = true)]
async fn machines_may_ask_whether_it_lives() {
    let lab = Lab::new();
    let live = ("HTTP/1.1 200 OK".to_owned(), r#"{"ok":true,"status":"live"}"#.to_owned());
    assert_eq!(plain(&lab, "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:9").await, live);
    let (status, body) = plain(&lab, "GET /readyz HTTP/1.1\r\nHost: [::1]").await;
    assert!(status.contains("200") && body.starts_with(r#"{"ready":true"#), "{body}");
    for (head, code) in [
        ("GET / HTTP/1.1\r\nHost: localhost", "200"),
        ("GET /nothing HTTP/1.1\r\nHost: localhost", "404"),
        ("POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0", "405"),
        ("GET /healthz HTTP/1.1\r\nHost: evil.example", "403"),
        ("GET /healthz HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example", "403"),
        ("GET /healthz HTTP/1.0", "403"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade", "426"),
    ] {
        let (status, _) = plain(&lab, head).await;
        assert!(status.contains(code), "{head}: {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_is_counted_and_told_to_whoever_has_the_token_of_the_metrics() {
    let lab = Lab::new();
    let mut client = lab.admitted().await;
    client.call("health", json!({})).await;
    client.call("no.such", json!({})).await;
    client.socket.send(Message::text("{")).await.unwrap();
    client.frame().await;
    let (_, answer) = lab.connected(&json!({"auth": {"token": "no"}})).await;
    assert_eq!(answer["ok"], false);
    let head = "GET /metrics HTTP/1.1\r\nHost: localhost";
    for wrong in ["", "\r\nAuthorization: Bearer no", &format!("\r\nAuthorization: Bearer {TOKEN}")]
    {
        let (status, _) = plain(&lab, &format!("{head}{wrong}")).await;
        assert!(status.contains("401"), "{wrong}: {status}");
    }
    let page = format!("{head}\r\nAuthorization: Bearer {SCRAPES}\r\nOrigin: http://evil.example");
    assert!(plain(&lab, &page).await.0.contains("403"));
    let (status, text) = plain(&lab, &format!("{head}\r\nAuthorization: Bearer {SCRAPES}")).await;
    assert!(status.contains("200"), "{status}");
    for line in [
        r#"requests_total{method="health",outcome="ok"} 1"#,
        r#"requests_total{method="unknown",outcome="INVALID_REQUEST"} 1"#,
        r#"malformed_total{kind="frame"} 1"#,
        r#"refused_total{reason="AUTH_TOKEN_MISMATCH"} 1"#,
        r#"turned_away_total{reason="scrape_without_token"} 3"#,
        r#"turned_away_total{reason="origin"} 1"#,
        "admitted_total 1",
        "clients 1",
    ] {
        let line = format!("openclaw_gateway_{line}");
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_of_another_origin_gets_no_websocket() {
    let lab = Lab::new();
    for (header, value) in [("Origin", "http://evil.example"), ("Host", "evil.example")] {
        let mut request = IntoClientRequest::into_client_request("ws://127.0.0.1:18789/").unwrap();
        request.headers_mut().insert(header, value.parse().unwrap());
        let (stream, _served) = lab.serve();
        let error = client_async(request, stream).await.unwrap_err();
        assert!(error.to_string().contains("403"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxys_word_cancels_what_loopback_gives() {
    let lab = Lab::new();
    let mut request = IntoClientRequest::into_client_request("ws://127.0.0.1:18789/").unwrap();
    request.headers_mut().insert("x-forwarded-for", "127.0.0.1".parse().unwrap());
    let (stream, served) = lab.serve();
    let (socket, _) = client_async(request, stream).await.unwrap();
    let mut client = Client { socket, served, asked: HashMap::new() };
    client.frame().await;
    client.send(&connect(&json!({}))).await;
    assert_eq!(client.frame().await["error"]["code"], "NOT_PAIRED");
    client.closed().await;
}
