//! The built binary against a scripted gateway, and what it says when things are wrong.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::{
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    process::Command,
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

/// No command may take longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A home of its own.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with_config(text: &str) -> Self {
        let home = Self::new();
        std::fs::create_dir(home.state()).unwrap();
        std::fs::write(home.state().join("openclaw.json"), text).unwrap();
        home
    }

    fn state(&self) -> PathBuf {
        self.0.path().join(".openclaw")
    }

    /// The binary with this home and nothing else of the environment.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw"));
        command
            .args(arguments)
            .env_clear()
            .env("HOME", self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Outcome {
        finish(self.command(arguments)).await
    }
}

/// What a command left behind.
struct Outcome {
    code: i32,
    out: String,
    err: String,
}

impl Outcome {
    fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {:?}, {:?}", self.out, self.err))
    }

    /// The exit code, and the class under `--json`.
    fn failed(&self, code: i32, class: &str) {
        assert_eq!(self.code, code, "{} {}", self.out, self.err);
        let value = self.json();
        assert_eq!(value["ok"], false);
        assert_eq!(value["error"]["class"], class);
        assert_eq!(value["error"]["exitCode"], code);
        assert!(value["error"]["message"].is_string());
    }
}

async fn finish(mut command: Command) -> Outcome {
    let Output { status, stdout, stderr } =
        timeout(PATIENCE, command.output()).await.expect("the command ends in time").unwrap();
    Outcome {
        code: status.code().expect("the command was not killed"),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// A gateway that admits one client with `token` and answers what it asks.
struct Scripted {
    port: u16,
    task: JoinHandle<Vec<Value>>,
}

impl Scripted {
    async fn start(token: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            serve(accept_async(stream).await.unwrap(), token).await
        });
        Self { port, task }
    }

    fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    /// Everything the client asked.
    async fn heard(self) -> Vec<Value> {
        timeout(PATIENCE, self.task).await.expect("the client hangs up").unwrap()
    }
}

async fn serve(mut socket: WebSocketStream<TcpStream>, token: &str) -> Vec<Value> {
    let mut heard = Vec::new();
    let challenge = json!({"type": "event", "event": "connect.challenge",
        "payload": {"nonce": "n", "ts": 1}});
    socket.send(Message::text(challenge.to_string())).await.unwrap();
    while let Some(Ok(message)) = socket.next().await {
        let Message::Text(text) = message else { continue };
        let request: Value = serde_json::from_str(&text).unwrap();
        let answer = match request["method"].as_str().unwrap() {
            "connect" if request["params"]["auth"]["token"] == token => json!({"payload": hello()}),
            "connect" => json!({"error": {"code": "INVALID_REQUEST", "message": "unauthorized",
                "details": {"code": "AUTH_TOKEN_MISMATCH"}}}),
            "health" => json!({"payload": {"ok": true, "agents": [], "evil": "\u{1b}[2J"}}),
            "echo" => json!({"payload": request["params"]}),
            other => json!({"error": {"code": "INVALID_REQUEST",
                "message": format!("unknown method: \u{1b}[2J{other}")}}),
        };
        let mut frame = json!({"type": "res", "id": request["id"],
            "ok": answer.get("payload").is_some()});
        frame.as_object_mut().unwrap().extend(answer.as_object().unwrap().clone());
        heard.push(request);
        socket.send(Message::text(frame.to_string())).await.unwrap();
    }
    heard
}

fn hello() -> Value {
    json!({
        "type": "hello-ok", "protocol": 4,
        "server": {"version": "2026.9.6", "connId": "c"},
        "features": {"methods": ["health"], "events": []},
        "snapshot": {"presence": [], "health": {}, "uptimeMs": 5,
            "stateVersion": {"presence": 1, "health": 1}},
        "auth": {"role": "operator", "scopes": ["operator.read"]},
        "policy": {"maxPayload": 1, "maxBufferedBytes": 1, "tickIntervalMs": 30000},
    })
}

/// A port where nothing listens.
async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn health_prints_what_the_gateway_says() {
    let gateway = Scripted::start("hunter2").await;
    let home = Home::new();
    let token = home.0.path().join("token");
    std::fs::write(&token, "hunter2\n").unwrap();
    let arguments =
        ["health", "--json", "--url", &gateway.url(), "--token-file", token.to_str().unwrap()];
    let outcome = home.run(&arguments).await;
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert_eq!(outcome.json(), json!({"ok": true, "agents": [], "evil": "\u{1b}[2J"}));
    assert_eq!(outcome.err, "");
    let heard = gateway.heard().await;
    assert_eq!(heard[0]["params"]["scopes"], json!(["operator.read"]));
    // A command that only asks leaves nothing behind.
    assert!(!home.state().exists());
}

#[tokio::test]
async fn call_passes_parameters_and_answers_through() {
    let gateway = Scripted::start("hunter2").await;
    let params = r#"{"limit": 3}"#;
    let url = gateway.url();
    let arguments =
        ["gateway", "call", "echo", "--params", params, "--url", &url, "--token", "hunter2"];
    let outcome = Home::new().run(&arguments).await;
    assert_eq!((outcome.code, outcome.json()), (0, json!({"limit": 3})));
}

#[tokio::test]
async fn a_failed_call_keeps_the_gateways_code() {
    let gateway = Scripted::start("hunter2").await;
    let url = gateway.url();
    let arguments = ["gateway", "call", "nope", "--json", "--url", &url, "--token", "hunter2"];
    let outcome = Home::new().run(&arguments).await;
    outcome.failed(1, "rpc");
    assert_eq!(outcome.json()["error"]["code"], "INVALID_REQUEST");
    assert_eq!(outcome.json()["error"]["type"], "gateway_request_error");

    let gateway = Scripted::start("hunter2").await;
    let url = gateway.url();
    let arguments = ["gateway", "call", "nope", "--url", &url, "--token", "hunter2"];
    let outcome = Home::new().run(&arguments).await;
    assert!(!outcome.err.contains('\u{1b}'), "a gateway's text steers the terminal");
}

#[tokio::test]
async fn the_local_gateway_gets_the_secret_of_the_file() {
    let gateway = Scripted::start("from-file").await;
    let home = Home::with_config(&format!(
        "{{gateway: {{port: {}, auth: {{token: 'from-file'}}, remote: {{token: 'other'}}}}}}",
        gateway.port
    ));
    let mut command = home.command(&["health"]);
    command.env("OPENCLAW_GATEWAY_TOKEN", "from-environment");
    let outcome = finish(command).await;
    assert_eq!(outcome.code, 0, "{}", outcome.err);
    assert!(outcome.out.contains("(local gateway)"), "{}", outcome.out);
}

#[tokio::test]
async fn a_secret_for_remotes_is_not_offered_to_the_local_gateway() {
    let gateway = Scripted::start("for-remotes").await;
    let home = Home::with_config(&format!(
        "{{gateway: {{port: {}, remote: {{token: 'for-remotes'}}}}}}",
        gateway.port
    ));
    home.run(&["health", "--json"]).await.failed(8, "gateway_refused");
    assert!(gateway.heard().await[0]["params"].get("auth").is_none());
}

#[tokio::test]
async fn a_url_takes_no_secret_from_elsewhere() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let home = Home::with_config("{gateway: {auth: {token: 'x'}, remote: {token: 'y'}}}");
    let mut command = home.command(&["health", "--json", "--url", &url]);
    command.env("OPENCLAW_GATEWAY_TOKEN", "z").env("OPENCLAW_GATEWAY_PASSWORD", "z");
    let outcome = finish(command).await;
    outcome.failed(2, "usage");
    assert_eq!(outcome.json()["error"]["type"], "gateway_credentials_required");
    let error = listener.accept().map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "nobody was called");
}

#[tokio::test]
async fn a_url_from_the_environment_takes_the_environments_secret() {
    let gateway = Scripted::start("from-environment").await;
    let home = Home::with_config("{gateway: {auth: {token: 'x'}, remote: {token: 'y'}}}");
    let mut command = home.command(&["health"]);
    command
        .env("OPENCLAW_GATEWAY_URL", gateway.url())
        .env("OPENCLAW_GATEWAY_TOKEN", "from-environment");
    let outcome = finish(command).await;
    assert_eq!(outcome.code, 0, "{}", outcome.err);
}

#[tokio::test]
async fn a_wrong_token_is_refused_and_never_shown() {
    for command in ["health", "status"] {
        let gateway = Scripted::start("right").await;
        let arguments = [command, "--json", "--url", &gateway.url(), "--token", "hunter2"];
        let outcome = Home::new().run(&arguments).await;
        outcome.failed(8, "gateway_refused");
        assert_eq!(outcome.json()["error"]["code"], "AUTH_TOKEN_MISMATCH");
        assert!(outcome.json()["error"]["fix"].as_str().unwrap().contains("auth-token"));
        assert!(!outcome.out.contains("hunter2") && !outcome.err.contains("hunter2"));
    }
}

#[tokio::test]
async fn where_nothing_listens_the_class_says_where() {
    let port = free_port().await.to_string();
    let home = Home::new();
    home.run(&["health", "--json", "--port", &port]).await.failed(7, "gateway_down");
    let url = format!("ws://127.0.0.1:{port}");
    let arguments = ["health", "--json", "--url", &url, "--token", "x"];
    home.run(&arguments).await.failed(3, "unreachable");
    let people = home.run(&["health", "--port", &port]).await;
    assert_eq!((people.code, people.out.as_str()), (7, ""));
    assert!(people.err.contains(&format!("try: openclaw gateway run --port {port}")));
}

#[tokio::test]
async fn what_is_no_gateway_or_says_nothing_is_told_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let arguments = ["health", "--json", "--port", &port, "--timeout", "300"];
    Home::new().run(&arguments).await.failed(7, "gateway_down");

    let closer = tokio::spawn(async move {
        listener.accept().await.map(drop).unwrap();
        let (second, _) = listener.accept().await.unwrap();
        drop(second);
    });
    Home::new().run(&["health", "--json", "--port", &port]).await.failed(7, "gateway_down");
    timeout(PATIENCE, closer).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_broken_configuration_is_told_with_every_problem() {
    let home = Home::with_config("{gateway: {port: 'abc', mode: 'both'}}");
    for command in ["health", "status"] {
        let outcome = home.run(&[command, "--json"]).await;
        outcome.failed(2, "config");
        let message = outcome.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(message.contains("gateway.port: must be 1..65535, found \"abc\""), "{message}");
        assert!(message.contains("gateway.mode: must be one of local, remote"), "{message}");
    }
    let home = Home::with_config("{gateway: ");
    let outcome = home.run(&["health", "--json"]).await;
    outcome.failed(2, "config");
    assert!(outcome.json()["error"]["message"].as_str().unwrap().contains("line 1"));
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_read_is_told() {
    let home = Home::new();
    std::fs::write(home.state(), "").unwrap();
    home.run(&["health", "--json"]).await.failed(2, "config");
}

#[tokio::test]
async fn wrong_arguments_fail_as_json_too() {
    let home = Home::new();
    for arguments in [
        &["health", "--json", "--timeout", "soon"][..],
        &["health", "--json", "--port", "0"],
        &["health", "--json", "--url", "ws://127.evil.com", "--token", "x"],
        &["health", "--json", "--url", "ws://8.8.8.8", "--token", "x"],
        &["health", "--json", "--remote", "nope"],
        &["health", "--json", "--token-file", "/nonexistent"],
        &["gateway", "call", "--json", "health", "--params", "{"],
        &["gateway", "auth-token", "--json"],
    ] {
        home.run(arguments).await.failed(2, "usage");
    }
}

#[tokio::test]
async fn status_says_which_rule_chose() {
    let port = free_port().await.to_string();
    let mut command = Home::new().command(&["status", "--json"]);
    command.env("OPENCLAW_GATEWAY_PORT", &port);
    let outcome = finish(command).await;
    assert_eq!(outcome.code, 7);
    let gateway = &outcome.json()["gateway"];
    assert_eq!(gateway["urlSource"], "env OPENCLAW_GATEWAY_PORT");
    assert_eq!(gateway["reachable"], false);
    assert_eq!(gateway["url"], format!("ws://127.0.0.1:{port}"));
}

#[tokio::test]
async fn the_token_is_shown_on_request_only() {
    let home = Home::with_config("{gateway: {auth: {token: 'hunter2'}}}");
    let outcome = home.run(&["gateway", "auth-token"]).await;
    assert_eq!(outcome.code, 2);
    assert!(!outcome.out.contains("hunter2") && !outcome.err.contains("hunter2"));
    let outcome = home.run(&["gateway", "auth-token", "--show"]).await;
    assert_eq!((outcome.code, outcome.out.as_str()), (0, "hunter2\n"));
}
