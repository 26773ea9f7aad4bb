//! A gateway that speaks TLS behind a tunnel: known by its certificate, or not spoken to.

use std::{
    ffi::OsString,
    fs,
    io::Read,
    net::TcpListener,
    process::{Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};

use crate::support::{
    Home, OurGateway, Peer, ReferenceCli, ReferenceGateway, Sshd, dialling, free_port, openclaw,
    present,
};

/// How long a gateway may take for its next word.
const LIMIT: Duration = Duration::from_secs(20);

/// A laptop, and a machine whose gateway speaks TLS.
struct Far {
    laptop: Home,
    sshd: Sshd,
    port: u16,
    token: std::path::PathBuf,
}

impl Far {
    /// The way to one of ours.
    fn of(gateway: &OurGateway) -> Self {
        Self {
            laptop: Home::new(),
            sshd: Sshd::start(&[]),
            port: gateway.port(),
            token: gateway.token_file().to_owned(),
        }
    }

    /// `remote connect --name vps` with more words.
    fn connect(&self, more: &[&str]) -> crate::support::Run {
        let words = dialling(&self.sshd, self.port, &self.token);
        let target: OsString = self.sshd.target().into();
        let words = words.into_iter().chain(more.iter().map(OsString::from)).chain([target]);
        openclaw(&self.laptop).args(["--json"]).args(words).args(["--name", "vps"])
    }

    /// What a connect without a pin says of the certificate.
    fn shown(&self) -> String {
        let refused = self.connect(&[]).run().exits(5).json();
        let error = &refused["error"];
        assert_eq!((error["class"].as_str(), error["code"].as_str()), HOST_KEY, "{refused:#}");
        let fix = error["fix"].as_str().expect("what to type");
        assert!(fix.contains("openclaw gateway status --port"), "{fix}");
        let list = openclaw(&self.laptop).args(["remote", "list", "--json"]).run().exits(0).json();
        assert_eq!(list, Value::Array(Vec::new()), "a remote that failed is not saved");
        fix.rsplit(' ').next().expect("the fingerprint").to_owned()
    }

    /// Everything a person does once the certificate is known.
    fn live_with(&self, pin: &str) {
        let (local, laptop) = (free_port(), &self.laptop);
        let port = local.to_string();
        let pinned = ["--tls-fingerprint", pin, "--local-port", &port];
        let status = self.connect(&pinned).run().exits(0).json();
        assert_eq!(status["phase"], "live", "{status:#}");
        assert_eq!(status["proof"]["kind"], "gateway", "{status:#}");
        assert_eq!(status["localUrl"], format!("wss://127.0.0.1:{local}"), "{status:#}");
        assert_eq!(status["tlsFingerprint"], pin, "{status:#}");
        assert_eq!(laptop.remotes()["remotes"]["vps"]["tlsFingerprint"], pin);
        let text = openclaw(laptop).args(["remote", "status"]).run().exits(0);
        assert!(text.stdout.contains("wss://127.0.0.1"), "{}", text.stdout);
        assert!(text.stdout.contains(pin), "{}", text.stdout);
        let health = openclaw(laptop).args(["health", "--json"]).run().exits(0).json();
        assert_eq!(health["ok"], true, "{health:#}");
        openclaw(laptop).args(["status", "--deep", "--json"]).run().exits(0);
        let check = openclaw(laptop).args(["remote", "check", "--batch", "vps"]).run();
        check.exits(0);
    }

    /// Another certificate than the pinned one is spoken to by nobody.
    fn refuses_another(&self) {
        let other = format!("sha256:{}", "0".repeat(64));
        let refused = self.connect(&["--tls-fingerprint", &other]).run().exits(5).json();
        assert_eq!(refused["error"]["code"], "TLS_PIN_MISMATCH", "{refused:#}");
        // What worked before works on.
        openclaw(&self.laptop).args(["health", "--json"]).run().exits(0);
    }
}

const HOST_KEY: (Option<&str>, Option<&str>) = (Some("host_key"), Some("TLS_UNTRUSTED"));

/// What openssl says of a certificate in a file.
fn openssl(file: &std::path::Path) -> Option<String> {
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(file);
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let digits = text.trim().split_once('=')?.1.replace(':', "").to_lowercase();
    Some(format!("sha256:{digits}"))
}

#[test]
fn our_gateway_with_tls_is_reached_by_its_certificate_and_by_nothing_else() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let home = Home::new();
    let mut gateway = OurGateway::start_with_tls(&home);
    let far = Far::of(&gateway);
    let pin = far.shown();
    let told = format!("TLS certificate {pin}");
    assert!(gateway.program_mut().prints(&told, LIMIT), "{}", gateway.program().log());
    // The command that is named prints the same on the other side.
    let port = gateway.port().to_string();
    let told = openclaw(&home).args(["gateway", "status", "--port", &port]).run().exits(0);
    assert!(told.stdout.contains(&pin), "{}", told.stdout);
    let told = openclaw(&home).args(["gateway", "status", "--json", "--port", &port]).run();
    let told = told.exits(0).json();
    assert_eq!(told["gateway"]["tls"]["fingerprint"], pin.as_str(), "{told:#}");
    assert_eq!(told["gateway"]["probeUrl"], format!("wss://127.0.0.1:{port}"), "{told:#}");
    if let Some(theirs) = openssl(&home.state().join("rs/tls/cert.pem")) {
        assert_eq!(theirs, pin);
    }

    far.live_with(&pin);
    far.refuses_another();
    // TLS is not left out for a gateway that has it, and a wrong word is no pin.
    let plain = far.connect(&["--tls-fingerprint", "none"]).run().exits(5).json();
    assert_eq!(plain["error"]["code"], "TLS_UNTRUSTED", "{plain:#}");
    far.connect(&["--tls-fingerprint", "sha256:abc"]).run().exits(2);
    assert!(gateway.held().is_none_or(|held| held >= 10), "{:?} frames", gateway.held());
}

#[test]
fn a_pinned_remote_never_speaks_plain_to_a_gateway_that_lost_its_tls() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    let far = Far::of(&gateway);
    let pin = format!("sha256:{}", "0".repeat(64));
    let refused = far.connect(&["--tls-fingerprint", &pin]).run().exits(7).json();
    let error = &refused["error"];
    assert_eq!(error["class"], "gateway_down", "{refused:#}");
    let fix = error["fix"].as_str().expect("what to type");
    assert!(fix.contains("--tls-fingerprint none"), "{fix}");
    let again = far.connect(&["--tls-fingerprint", "none"]).run().exits(0).json();
    assert!(again["localUrl"].as_str().is_some_and(|url| url.starts_with("ws://")), "{again:#}");
}

#[test]
fn the_reference_gateway_with_tls_is_reached_alike_and_its_own_cli_uses_the_tunnel() {
    if !present(&[Peer::OpenSsh, Peer::OpenClaw]) {
        return;
    }
    let gateway = ReferenceGateway::start_with_tls();
    let laptop = Home::new();
    let token = laptop.write("token", ReferenceGateway::TOKEN);
    let far = Far { laptop, sshd: Sshd::start(&[]), port: gateway.port(), token };
    let pin = far.shown();
    let certificate = gateway.home().join(".openclaw/gateway/tls/gateway-cert.pem");
    if let Some(theirs) = openssl(&certificate) {
        assert_eq!(theirs, pin);
    }
    far.live_with(&pin);
    far.connect(&["--tls-fingerprint", &pin, "--write-config"]).run().exits(0);
    let config = fs::read_to_string(far.laptop.state().join("openclaw.json")).expect("written");
    assert!(config.contains("wss://127.0.0.1") && config.contains(&pin), "{config}");
    let cli = ReferenceCli::of(&far.laptop);
    let health = cli.run(&["health", "--json"]);
    assert!(String::from_utf8_lossy(&health.stdout).contains("\"ok\": true"), "{health:?}");
}

#[test]
fn the_reference_cli_knows_our_gateway_by_its_certificate_directly_and_through_the_tunnel() {
    if !present(&[Peer::OpenSsh, Peer::OpenClaw]) {
        return;
    }
    let home = Home::new();
    let gateway = OurGateway::start_with_tls(&home);
    let far = Far::of(&gateway);
    let pin = far.shown();
    let told = |pin: &str| {
        let url = format!("wss://127.0.0.1:{}", gateway.port());
        let remote = json!({"url": url, "token": gateway.token(), "tlsFingerprint": pin});
        let config = json!({"gateway": {"mode": "remote", "remote": remote}});
        far.laptop.write("home/.openclaw/openclaw.json", &config.to_string());
        ReferenceCli::of(&far.laptop)
    };
    let health = told(&pin).theirs(&["health"]);
    assert_eq!(health["ok"], true, "{health:#}");
    let other = format!("sha256:{}", "0".repeat(64));
    let refused = told(&other).attempt(&["health", "--json"]);
    assert!(refused.code != 0 && !refused.stdout.contains("\"ok\": true"), "{refused}");

    far.connect(&["--tls-fingerprint", &pin, "--write-config"]).run().exits(0);
    let config = fs::read_to_string(far.laptop.state().join("openclaw.json")).expect("written");
    let direct = format!(":{}", gateway.port());
    assert!(config.contains(&pin) && !config.contains(&direct), "{config}");
    let health = ReferenceCli::of(&far.laptop).theirs(&["health"]);
    assert_eq!(health["ok"], true, "{health:#}");
}

#[test]
fn a_gateway_with_tls_that_is_exposed_tells_others_its_certificate() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let owner = Home::new();
    let gateway = OurGateway::start_with_tls(&owner);
    let jump = Sshd::start(&[]);
    let way = crate::support::way_in(jump.port(), &jump.key(), &jump.known_hosts());
    let status = openclaw(&owner)
        .args(["--json", "remote", "expose", "--batch", "--name", "home"])
        .args(way)
        .args(["--gateway-port", &gateway.port().to_string(), &jump.target()])
        .run()
        .exits(0)
        .json();
    assert_eq!((&status["phase"], &status["proof"]["kind"]), (&"live".into(), &"gateway".into()));
    let pin = status["tlsFingerprint"].as_str().expect("its certificate");
    let typed = status["othersType"].as_str().expect("what others type");
    assert!(typed.contains(&format!("--tls-fingerprint {pin}")), "{typed}");
    let published = u16::try_from(status["remotePort"].as_u64().expect("a port")).expect("a port");
    let token = gateway.token_file().to_owned();
    let far = Far { laptop: Home::new(), sshd: jump, port: published, token };
    far.live_with(pin);
}

#[test]
fn a_renewed_certificate_is_served_to_the_next_and_stops_who_pinned_the_old_one() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let home = Home::new();
    let gateway = OurGateway::start_with_tls(&home);
    let far = Far::of(&gateway);
    let old = far.shown();
    far.live_with(&old);
    // Another pair takes the files' place, as renewals do: the key first, each in one step.
    let other = Home::new();
    drop(OurGateway::start_with_tls(&other));
    let (here, there) = (other.state().join("rs/tls"), home.state().join("rs/tls"));
    for name in ["key.pem", "cert.pem"] {
        fs::rename(here.join(name), there.join(name)).expect("renewing");
    }
    let port = gateway.port().to_string();
    let told = openclaw(&home).args(["gateway", "status", "--json", "--port", &port]).run();
    let new = told.exits(0).json()["gateway"]["tls"]["fingerprint"].clone();
    let new = new.as_str().expect("a fingerprint");
    assert_ne!(new, old);
    // The path works on; who shakes hands anew with the old pin is told, and sends nothing.
    let refused = openclaw(&far.laptop).args(["health", "--json"]).run().exits(5).json();
    assert_eq!(refused["error"]["code"], "TLS_PIN_MISMATCH", "{refused:#}");
    let fix = refused["error"]["fix"].as_str().expect("what to type");
    assert!(fix.ends_with(&format!("--tls-fingerprint {new}")), "{fix}");
    far.live_with(new);
}

/// Somebody with a certificate who tells what he hears inside TLS from whoever calls, and never
/// answers.
struct Listener {
    port: u16,
    pin: String,
    /// The first byte of a call, and the beginning of what came inside TLS.
    heard: mpsc::Receiver<(u8, Vec<u8>)>,
}

impl Listener {
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).expect("keys");
        let digest = ring::digest::digest(&ring::digest::SHA256, made.cert.der());
        let digits: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("its key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("the certificate");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its port").port();
        let (tell, heard) = mpsc::channel();
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let mut first = [0];
                let _peeked = stream.peek(&mut first);
                let session = rustls::ServerConnection::new(Arc::clone(&config)).expect("TLS");
                let mut inside = Vec::new();
                let _ended =
                    rustls::StreamOwned::new(session, stream).take(64).read_to_end(&mut inside);
                if tell.send((first[0], inside)).is_err() {
                    return;
                }
            }
        });
        Self { port, pin: format!("sha256:{digits}"), heard }
    }

    fn hears(&self) -> (u8, Vec<u8>) {
        self.heard.recv_timeout(Duration::from_secs(30)).expect("a call")
    }
}

/// A laptop whose `openclaw.json` names a gateway and the certificate that it has to show.
fn configured(port: u16, pin: &str, token: &str) -> Home {
    let laptop = Home::new();
    let remote = json!({
        "url": format!("wss://127.0.0.1:{port}"), "token": token, "tlsFingerprint": pin,
    });
    let file = json!({ "gateway": { "mode": "remote", "remote": remote } });
    laptop.write("home/.openclaw/openclaw.json", &file.to_string());
    laptop
}

#[test]
fn the_pin_in_openclaw_json_lets_its_certificate_in_and_one_from_the_command_line_comes_first() {
    let home = Home::new();
    let gateway = OurGateway::start_with_tls(&home);
    let (port, token) = (gateway.port(), gateway.token());
    let told = ["gateway", "status", "--json", "--port", &port.to_string()];
    let told = openclaw(&home).args(told).run().exits(0).json();
    let right = told["gateway"]["tls"]["fingerprint"].as_str().expect("its fingerprint");
    let digits = right.trim_start_matches("sha256:").as_bytes().chunks(2);
    let pairs: Vec<_> = digits.map(|pair| String::from_utf8_lossy(pair).to_uppercase()).collect();
    let as_openssl = pairs.join(":");
    let wrong = format!("sha256:{}", "0".repeat(64));
    let health = |pin: &str, more: &[&str]| {
        let laptop = configured(port, pin, &token);
        openclaw(&laptop).args(["health", "--json"]).args(more).run()
    };
    for pin in [right, &as_openssl] {
        assert_eq!(health(pin, &[]).exits(0).json()["ok"], true, "{pin}");
    }
    let refused = health(&wrong, &[]).exits(5).json();
    assert_eq!(refused["error"]["code"], "TLS_PIN_MISMATCH", "{refused:#}");
    // The one that is typed comes first, whatever stands in the file.
    for written in [&wrong, "sha256:abc"] {
        health(written, &["--tls-fingerprint", right]).exits(0);
    }
    let refused = health(right, &["--tls-fingerprint", &wrong]).exits(5).json();
    assert_eq!(refused["error"]["code"], "TLS_PIN_MISMATCH", "{refused:#}");
    // What is no fingerprint is a mistake in the file, and never left out.
    for bad in ["sha256:abc", "sha1:00", "zz"] {
        let error = health(bad, &[]).exits(2).json()["error"].clone();
        assert_eq!(error["class"], "config", "{error:#}");
        let message = error["message"].as_str().expect("a message");
        assert!(message.contains("gateway.remote.tlsFingerprint"), "{message}");
    }
}

#[test]
fn whoever_shows_another_certificate_than_openclaw_json_names_sees_only_tls() {
    let listener = Listener::start();
    let wrong = format!("sha256:{}", "0".repeat(64));
    let health = ["health", "--json", "--timeout", "3000"];
    let laptop = configured(listener.port, &wrong, "a secret");
    let refused = openclaw(&laptop).args(health).run().exits(5).json();
    assert_eq!(refused["error"]["code"], "TLS_PIN_MISMATCH", "{refused:#}");
    let (first, inside) = listener.hears();
    assert_eq!(first, 0x16, "a TLS handshake");
    assert_eq!(inside, b"", "nothing inside it");
    // The same with the right pin: now the request is there.
    let laptop = configured(listener.port, &listener.pin, "a secret");
    openclaw(&laptop).args(health).run();
    let (first, inside) = listener.hears();
    assert_eq!(first, 0x16, "a TLS handshake");
    assert!(inside.starts_with(b"GET / HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&inside));
}
