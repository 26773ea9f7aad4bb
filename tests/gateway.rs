//! `openclaw gateway run` as a program: its files, its refusals, its end.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may panic, and says what it skipped"
)]

#[path = "support/mod.rs"]
mod support;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use support::{Behind, Schema, Tap};
use tokio_tungstenite::tungstenite::Message;

/// How long any of the waits here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A state directory of its own.
struct Home(tempfile::TempDir);

/// A running gateway; killed when dropped.
struct Gateway {
    child: Child,
    port: u16,
    /// What it writes to standard error.
    notes: mpsc::Receiver<String>,
    /// Ends after the gateway.
    tap: Option<Tap>,
}

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn config(&self, text: &str) {
        std::fs::create_dir_all(self.state()).unwrap();
        std::fs::write(self.state().join("openclaw.json"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw"));
        command.env_clear().env("HOME", self.0.path()).env("OPENCLAW_STATE_DIR", self.state());
        command.args(["gateway", "run"]).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a start that is to be refused.
    fn refused(&self, arguments: &[&str]) -> Output {
        finish(self.command(arguments))
    }

    fn start(&self, port: u16) -> Gateway {
        Self::started(self.command(&["--port", &port.to_string()]), port)
    }

    fn started(mut command: Command, port: u16) -> Gateway {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let notes = lines_of(child.stderr.take().unwrap());
        let Ok(ready) = lines.recv_timeout(PATIENCE) else {
            child.kill().unwrap();
            panic!("it did not get ready: {}", text_of(&notes));
        };
        let place = format!("://127.0.0.1:{port}");
        assert!(ready.starts_with("gateway ready on ws") && ready.ends_with(&place), "{ready}");
        Gateway { child, port, notes, tap: None }
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.state().join("rs/gateway-token")).unwrap()
    }
}

impl Gateway {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A port where all that it says is held against the published schema on its way; `tls` is the
    /// folder with its certificate and key, where it speaks TLS.
    fn overheard(&mut self, tls: Option<PathBuf>) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap());
        self.tap = Tap::before(vec![listener], Behind { port: self.port, gateway: pid, tls });
        if self.tap.is_some() { port } else { self.port }
    }

    /// Sends `signal`; the exit code, and all that was written to standard error.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        let pid = i32::try_from(self.pid()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        // The end of its standard error is the end of the process.
        let notes = text_of(&self.notes);
        (self.child.wait().unwrap().code(), notes)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait().map(drop));
        drop(killed);
    }
}

/// The lines of a stream as they come.
fn lines_of(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

/// All lines until the stream ends.
fn text_of(lines: &mpsc::Receiver<String>) -> String {
    let mut text = String::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => text.push_str(&line),
            Err(mpsc::RecvTimeoutError::Disconnected) => return text,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("it did not end: {text}"),
        }
        text.push('\n');
    }
}

/// Runs `command` to its end.
fn finish(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (done, ended) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output().unwrap()));
    ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        kill(pid, Signal::SIGKILL).unwrap();
        panic!("it did not end");
    })
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The `error` of a refusal under `--json`, after its exit code has been checked.
fn error(output: &Output, exit: i32) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let notes = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{text}{notes}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["ok"], false);
    assert_eq!(value["error"]["exitCode"], exit);
    assert!(value["error"]["fix"].is_string(), "{value}");
    value["error"].clone()
}

fn message(error: &Value) -> &str {
    error["message"].as_str().unwrap()
}

/// Whether `GET /healthz` is answered.
fn is_live(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request =
        format!("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.ends_with(r#"{"ok":true,"status":"live"}"#)
}

#[test]
fn the_first_start_makes_a_token_that_stays_and_is_never_told() {
    let home = Home::new();
    let port = free_port();
    let gateway = home.start(port);
    assert!(is_live(port));
    let token = home.token();
    assert_eq!(token.len(), 43, "32 bytes in base64url");
    let own = home.state().join("rs");
    for (path, expected) in [
        (home.state(), 0o700),
        (own.clone(), 0o700),
        (own.join("gateway-token"), 0o600),
        (own.join("gateway.lock"), 0o600),
        (own.join("identity"), 0o700),
        (own.join("identity/device.json"), 0o600),
    ] {
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    let (code, notes) = gateway.end(Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(notes.contains("rs/gateway-token"), "{notes}");
    assert!(!notes.contains(&token));
    assert!(!is_live(port));

    let again = home.start(port);
    assert_eq!(home.token(), token);
    let (code, notes) = again.end(Signal::SIGINT);
    assert_eq!(code, Some(0));
    assert!(!notes.contains("made a token"), "{notes}");
}

#[test]
fn a_killed_gateway_leaves_nothing_in_the_way() {
    let home = Home::new();
    let port = free_port();
    for _ in 0..3 {
        home.start(port).end(Signal::SIGKILL);
    }
    assert!(is_live(home.start(port).port));
}

/// The end of an HTTP request on a fresh connection.
fn asked(port: u16, request: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// What the gateway says to a first frame, to its close.
fn told(port: u16, frame: &str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let talk = async {
        let url = format!("ws://127.0.0.1:{port}/?token=TOKEN-IN-URL");
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        let mut answers = vec![socket.next().await.unwrap().unwrap().to_string()];
        socket.send(Message::text(frame)).await.unwrap();
        while let Some(Ok(message)) = socket.next().await {
            if let (Some(schema), Message::Text(text)) = (Schema::published(), &message) {
                let method = if answers.len() == 1 { "connect" } else { "health" };
                schema.hold(&serde_json::from_str(text).unwrap(), Some(method));
            }
            answers.push(message.to_string());
            if answers.len() == 2 && answers[1].contains("hello-ok") {
                let call = r#"{"type":"req","id":"1","method":"health","params":{"apiKey":"KEY-IN-PARAMS"}}"#;
                socket.send(Message::text(call)).await.unwrap();
            } else if message.is_text() {
                socket.close(None).await.unwrap();
            }
        }
        answers
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, talk).await.unwrap() })
}

#[test]
fn the_log_of_a_session_tells_what_happened_and_holds_no_secret() {
    let home = Home::new();
    let port = free_port();
    let mut command = home.command(&["--port", &port.to_string()]);
    command.env("OPENCLAW_GATEWAY_TOKEN", "the-right-token").env("OPENCLAW_LOG_LEVEL", "trace");
    let gateway = Home::started(command, port);
    let connect = |auth: &str| {
        format!(
            r#"{{"type":"req","id":"1","method":"connect","params":{{"minProtocol":4,"maxProtocol":4,"client":{{"id":"cli","version":"1","platform":"linux","mode":"cli"}},"role":"operator","scopes":["operator.read"],"auth":{auth}}}}}"#
        )
    };
    assert!(told(port, &connect(r#"{"token":"the-right-token"}"#)).len() >= 3);
    for auth in [
        r#"{"token":"WRONG-TOKEN"}"#,
        r#"{"password":"WRONG-PASSWORD"}"#,
        r#"{"deviceToken":"DEVICE-TOKEN"}"#,
        r#"{"token":["ODD-TOKEN"]}"#,
        r#""TEXT-FOR-OBJECT""#,
        r#"{"SECRET-AS-FIELD":1}"#,
    ] {
        told(port, &connect(auth));
    }
    told(port, "NOT-JSON token=TOKEN-IN-NOISE");
    let token = std::fs::read_to_string(home.state().join("rs/metrics-token")).unwrap();
    for secret in [token.as_str(), "WRONG-BEARER", "the-right-token"] {
        asked(
            port,
            &format!(
                "GET /metrics?token=QUERY-TOKEN HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {secret}\r\nConnection: close\r\n\r\n"
            ),
        );
    }
    let (code, notes) = gateway.end(Signal::SIGTERM);
    assert_eq!(code, Some(0), "{notes}");
    let folder = home.state().join("rs/logs");
    let mut files = std::fs::read_dir(&folder).unwrap();
    let path = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    assert_eq!((mode(&folder), mode(&path)), (0o700, 0o600));
    let log = std::fs::read_to_string(&path).unwrap();
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line["time"].is_string() && line["level"].is_string(), "{line}");
    }
    for news in ["gateway started", "refused a client", "gateway stopped", "answered"] {
        assert!(log.contains(news), "{news}: {log}");
    }
    for secret in [
        "the-right-token",
        token.trim(),
        "WRONG-",
        "DEVICE-TOKEN",
        "ODD-TOKEN",
        "QUERY-TOKEN",
        "TOKEN-IN-NOISE",
        "TEXT-FOR-OBJECT",
        "SECRET-AS-FIELD",
        "KEY-IN-PARAMS",
    ] {
        assert!(!log.contains(secret) && !notes.contains(secret), "{secret}: {log}{notes}");
    }
}

#[test]
fn gateways_of_several_profiles_run_side_by_side_each_by_its_own_files() {
    let home = Home::new();
    let command = |profile: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw"));
        command.env_clear().env("HOME", home.0.path()).stdin(Stdio::null());
        command.args(profile).args(["gateway", "run"]);
        command
    };
    let [first, second, third] = std::array::from_fn(|_| free_port());
    let work = home.0.path().join(".openclaw-work");
    std::fs::create_dir(&work).unwrap();
    let file = format!("{{gateway: {{port: {second}, auth: {{token: 'of work'}}}}}}");
    std::fs::write(work.join("openclaw.json"), file).unwrap();
    let mut usual = command(&[]);
    usual.env("OPENCLAW_GATEWAY_PORT", first.to_string());
    let mut usual = Home::started(usual, first);
    let mut named = Home::started(command(&["--profile", "work"]), second);
    // Everything said by the environment, as a container does.
    let mut said = command(&[]);
    let config = home.0.path().join("elsewhere.json");
    std::fs::write(&config, format!("{{gateway: {{port: {third}}}}}")).unwrap();
    said.env("OPENCLAW_PROFILE", "rescue").env("OPENCLAW_CONFIG_PATH", &config);
    said.env("OPENCLAW_STATE_DIR", home.state()).env("OPENCLAW_GATEWAY_PASSWORD", "of rescue");
    let mut said = Home::started(said, third);
    let ask = |port: u16, secret: (&str, &str)| {
        let mut call = Command::new(env!("CARGO_BIN_EXE_openclaw"));
        call.env_clear().env("HOME", home.0.path()).args(["gateway", "call", "health"]);
        call.args(["--url", &format!("ws://127.0.0.1:{port}"), secret.0, secret.1]);
        finish(call).status.code()
    };
    let own = std::fs::read_to_string(home.0.path().join(".openclaw/rs/gateway-token")).unwrap();
    let secrets = [("--token", own.trim()), ("--token", "of work"), ("--password", "of rescue")];
    let ports = [&mut usual, &mut named, &mut said].map(|gateway| gateway.overheard(None));
    for (at, port) in ports.into_iter().enumerate() {
        for (owner, secret) in secrets.into_iter().enumerate() {
            let expected = if at == owner { 0 } else { 8 };
            assert_eq!(ask(port, secret), Some(expected), "{port} with {secret:?}");
        }
    }
    for folder in [home.0.path().join(".openclaw"), work, home.state()] {
        assert!(folder.join("rs/gateway.lock").exists(), "{}", folder.display());
    }
    assert!(!home.0.path().join(".openclaw-rescue").exists());
    drop((usual, named, said));
}

#[test]
fn a_log_that_cannot_be_written_keeps_nobody_from_the_gateway() {
    let home = Home::new();
    std::fs::create_dir_all(home.state().join("rs")).unwrap();
    std::fs::write(home.state().join("rs/logs"), "").unwrap();
    let gateway = home.start(free_port());
    assert!(is_live(gateway.port));
    let (code, notes) = gateway.end(Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(notes.contains("warning: no log file in"), "{notes}");
}

#[test]
fn the_second_start_says_who_is_there() {
    let home = Home::new();
    let port = free_port();
    let gateway = home.start(port);
    let other = free_port().to_string();
    let error = error(&home.refused(&["--json", "--port", &other]), 2);
    assert_eq!(error["class"], "config");
    let expected = format!("openclaw, pid {}, port {port}", gateway.pid());
    assert!(message(&error).contains(&expected), "{error}");
}

#[test]
fn a_taken_port_names_its_holder() {
    let (first, second) = (Home::new(), Home::new());
    let gateway = first.start(free_port());
    let taken = second.refused(&["--json", "--port", &gateway.port.to_string()]);
    let error = error(&taken, 6);
    assert_eq!(error["class"], "port_in_use");
    let expected = format!("openclaw (pid {})", gateway.pid());
    assert!(message(&error).contains(&expected), "{error}");
    assert!(!second.state().join("rs/gateway-token").exists());
}

#[test]
fn a_secret_for_calling_others_opens_nothing_here() {
    let home = Home::new();
    home.config("{ gateway: { bind: 'lan', remote: { token: 'abc', password: 'def' } } }");
    let output = home.refused(&["--json", "--port", &free_port().to_string()]);
    let error = error(&output, 2);
    assert_eq!(error["class"], "config");
    assert!(message(&error).contains("gateway.remote"), "{error}");
    assert!(!home.state().join("rs").exists());
}

#[test]
fn a_gateway_that_runs_elsewhere_does_not_start_here() {
    let home = Home::new();
    home.config("{ gateway: { mode: 'remote' } }");
    let error = error(&home.refused(&["--json"]), 2);
    assert_eq!(error["class"], "config");
    assert!(message(&error).contains("gateway.mode"), "{error}");
}

#[test]
fn a_service_manager_is_told_not_to_try_again() {
    let home = Home::new();
    home.config("{ gateway: { mode: 'remote' } }");
    let mut command = home.command(&["--json"]);
    command.env("INVOCATION_ID", "1");
    assert_eq!(error(&finish(command), 78)["class"], "config");
}

#[test]
fn a_state_directory_that_is_none_is_told() {
    let home = Home::new();
    std::fs::write(home.state(), "").unwrap();
    let error = error(&home.refused(&["--json"]), 2);
    assert_eq!(error["class"], "config");
    let state = home.state().display().to_string();
    assert!(message(&error).contains(&state), "{error}");
}

#[test]
fn a_service_manager_tries_again_where_the_system_denied_a_file_for_now() {
    let home = Home::new();
    std::fs::write(home.state(), "").unwrap();
    let mut command = home.command(&["--json"]);
    command.env("INVOCATION_ID", "1");
    assert_eq!(error(&finish(command), 2)["class"], "config");
}

#[test]
fn an_empty_token_file_is_no_token() {
    let home = Home::new();
    let file = home.0.path().join("token");
    std::fs::write(&file, "\n").unwrap();
    let file = file.display().to_string();
    let error = error(&home.refused(&["--json", "--token-file", &file]), 2);
    assert_eq!(error["class"], "config");
}

/// What a program says on its standard output, its input being empty; `None` where it is missing.
fn says(program: &str, arguments: &[&str]) -> Option<String> {
    let found = Command::new(program).arg("version").output();
    if found.is_err() {
        assert_ne!(std::env::var("OPENCLAW_TEST_PEERS").as_deref(), Ok("required"), "{program}");
        eprintln!("skipped: no {program}");
        return None;
    }
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    Some(String::from_utf8_lossy(&finish(command).stdout).into_owned())
}

#[test]
fn speaks_tls_as_openssl_and_curl_know_it_and_our_own_client_compares_the_certificate() {
    let home = Home::new();
    let port = free_port();
    home.config("{gateway: {tls: {enabled: true}}}");
    let mut gateway = home.start(port);
    let place = format!("127.0.0.1:{port}");

    let healthz = format!("https://{place}/healthz");
    if let Some(answer) = says("curl", &["--silent", "--insecure", "--max-time", "15", &healthz]) {
        assert_eq!(answer, r#"{"ok":true,"status":"live"}"#);
    }
    let certificate = home.state().join("rs/tls/cert.pem");
    let file = certificate.to_str().unwrap();
    let print = ["x509", "-in", file, "-noout", "-fingerprint", "-sha256"];
    let Some(print) = says("openssl", &print) else { return };
    let pin = print.trim().split_once('=').unwrap().1;
    let shown = says("openssl", &["s_client", "-connect", &place, "-CAfile", file]).unwrap();
    assert!(shown.contains("Verify return code: 0 (ok)"), "{shown}");

    let health = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw"));
        command.env_clear().env("HOME", home.0.path()).env("OPENCLAW_STATE_DIR", home.state());
        finish({
            command.args(["health", "--json"]).args(arguments).stdin(Stdio::null());
            command
        })
    };
    let overheard = gateway.overheard(Some(home.state().join("rs/tls")));
    let url = format!("wss://127.0.0.1:{overheard}");
    let token = home.state().join("rs/gateway-token");
    let there = ["--url", &url, "--token-file", token.to_str().unwrap()];
    let pinned = health(&[there.as_slice(), &["--tls-fingerprint", pin]].concat());
    assert!(pinned.status.success(), "{}", String::from_utf8_lossy(&pinned.stdout));
    let other = pin.replace(|digit: char| digit.is_ascii_hexdigit(), "0");
    let refused = health(&[there.as_slice(), &["--tls-fingerprint", &other]].concat());
    assert_eq!(error(&refused, 5)["code"], "TLS_PIN_MISMATCH");
    assert_eq!(error(&health(&there), 5)["code"], "TLS_UNTRUSTED");
    let local = health(&["--port", &overheard.to_string()]);
    assert!(local.status.success(), "{}", String::from_utf8_lossy(&local.stdout));
    drop(gateway);
}
