//! What a gateway acknowledged lasts, what it was told anew counts: kills, repeated keys, edits of
//! its files.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may panic, and says which chances it took"
)]

#[path = "../lab/dice.rs"]
mod dice;
mod kills;
#[path = "../support/mod.rs"]
mod support;
#[path = "../lab/tier.rs"]
#[allow(dead_code, reason = "the laboratory uses the rest")]
mod tier;

use std::{fs, io, net::Ipv4Addr, time::Duration};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{Device, Home, OurGateway, Wire, connect, signal, wait_until};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// How long a change of a file may take to count.
const LIMIT: Duration = Duration::from_secs(20);

fn admin(token: &str) -> Value {
    let mut params = connect(&json!({ "token": token }));
    params["scopes"] = json!(["operator.admin"]);
    params
}

/// Opens a connection that may do everything.
async fn enter(gateway: &OurGateway, token: &str) -> io::Result<Wire> {
    let (mut wire, _) = Wire::open(gateway.port()).await?;
    let answer = wire.call("connect", admin(token)).await?;
    if answer["ok"] == true { Ok(wire) } else { Err(io::Error::other(answer.to_string())) }
}

/// Calls, and fails unless it is answered with a reply.
async fn ok(wire: &mut Wire, method: &str, params: Value) -> Value {
    let answer = wire.call(method, params).await.unwrap();
    assert_eq!(answer["ok"], true, "{method}: {answer}");
    answer["payload"].clone()
}

fn kill(gateway: OurGateway) {
    signal(gateway.program().pid(), Signal::SIGKILL);
    drop(gateway);
}

/// A node that can find programs, approved by the operator.
async fn node(gateway: &OurGateway, operator: &mut Wire) -> Wire {
    let (mut wire, asked) = Wire::open(gateway.port()).await.unwrap();
    let mut params = json!({
        "minProtocol": 4, "maxProtocol": 4, "role": "node", "scopes": [],
        "client": { "id": "node-host", "version": "1", "platform": "linux", "deviceFamily": "Linux",
                    "mode": "node" },
        "caps": ["system"], "commands": ["system.which"], "auth": { "token": gateway.token() },
    });
    Device::new(9).sign(&mut params, &asked);
    let answer = wire.call("connect", params).await.unwrap();
    assert_eq!(answer["ok"], true, "{answer}");
    let list = ok(operator, "node.pair.list", json!({})).await;
    if let Some(request) = list["pending"][0]["requestId"].as_str() {
        ok(operator, "node.pair.approve", json!({ "requestId": request })).await;
    }
    wire
}

fn which() -> Value {
    json!({
        "nodeId": Device::new(9).id(), "command": "system.which", "params": { "bins": ["sh"] },
        "idempotencyKey": "the one key",
    })
}

/// Asks for a command, and says under which id the node hears of it.
async fn invoked(operator: &mut Wire, node: &mut Wire) -> Value {
    let request = json!({ "type": "req", "id": "1", "method": "node.invoke", "params": which() });
    operator.say(request.to_string()).await.unwrap();
    loop {
        tokio::select! {
            frame = node.frame() => {
                let frame = frame.unwrap();
                if frame["event"] == "node.invoke.request" {
                    return frame["payload"]["id"].clone();
                }
            }
            frame = operator.frame() => {
                let frame = frame.unwrap();
                assert_ne!(frame["type"], "res", "{frame}");
            }
        }
    }
}

fn nodes_come_in(home: &Home) {
    let text = "{gateway: {nodes: {pairing: {autoApproveLocal: true}}}}";
    home.write("home/.openclaw/openclaw.json", text);
}

#[tokio::test]
async fn a_repeated_key_gets_the_first_answer_after_a_kill_and_runs_nothing() {
    let home = Home::new();
    nodes_come_in(&home);
    let gateway = OurGateway::start(&home);
    let mut operator = enter(&gateway, &gateway.token()).await.unwrap();
    let mut runs = node(&gateway, &mut operator).await;
    let id = invoked(&mut operator, &mut runs).await;
    let result = json!({
        "id": id, "nodeId": Device::new(9).id(), "ok": true, "payloadJSON": r#"{"sh":"/bin/sh"}"#,
    });
    ok(&mut runs, "node.invoke.result", result).await;
    let first = loop {
        let frame = operator.frame().await.unwrap();
        if frame["id"] == "1" {
            break frame["payload"].clone();
        }
    };
    assert_eq!(first["payload"]["sh"], "/bin/sh", "{first}");
    kill(gateway);
    // No node is here now, and none is needed.
    let gateway = OurGateway::start(&home);
    let mut operator = enter(&gateway, &gateway.token()).await.unwrap();
    assert_eq!(ok(&mut operator, "node.invoke", which()).await, first);
    let mut other = which();
    other["params"] = json!({ "bins": ["ls"] });
    let answer = operator.call("node.invoke", other).await.unwrap();
    assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
}

#[tokio::test]
async fn what_was_under_way_in_a_killed_gateway_is_not_run_again() {
    let home = Home::new();
    nodes_come_in(&home);
    let gateway = OurGateway::start(&home);
    let mut operator = enter(&gateway, &gateway.token()).await.unwrap();
    let mut runs = node(&gateway, &mut operator).await;
    invoked(&mut operator, &mut runs).await;
    kill(gateway);
    let gateway = OurGateway::start(&home);
    let mut operator = enter(&gateway, &gateway.token()).await.unwrap();
    let _runs = node(&gateway, &mut operator).await;
    let answer = operator.call("node.invoke", which()).await.unwrap();
    assert_eq!(answer["error"]["details"]["code"], "OUTCOME_UNKNOWN", "{answer}");
}

/// Waits for a word of the gateway's log.
fn says(gateway: &mut OurGateway, text: &str) {
    assert!(gateway.program_mut().prints(text, LIMIT), "{}", gateway.program().log());
}

#[tokio::test]
async fn an_edit_of_the_file_counts_at_once_and_what_needs_a_restart_is_named() {
    let home = Home::new();
    let file =
        home.write("home/.openclaw/openclaw.json", "{gateway: {auth: {token: 'the first'}}}");
    let mut gateway = OurGateway::start(&home);
    let mut before = enter(&gateway, "the first").await.unwrap();
    let text = "{gateway: {auth: {token: 'the second', rateLimit: {maxAttempts: 7}}, bind: 'lan'}, logging: {consoleLevel: 'debug'}}";
    fs::write(&file, text).unwrap();
    // Who may read is told before the old token's connections end.
    loop {
        let frame = before.frame().await.unwrap();
        if frame["event"] == "config.changed" {
            break;
        }
    }
    assert_eq!(before.closed().await, 1012);
    says(&mut gateway, "gateway.bind");
    says(&mut gateway, "gateway.auth.token");
    says(&mut gateway, "gateway.auth.rateLimit.maxAttempts");
    assert!(enter(&gateway, "the first").await.is_err());
    enter(&gateway, "the second").await.unwrap();
    says(&mut gateway, "DEBUG");
    // So does a file of a secret.
    let metrics = home.state().join("rs/metrics-token");
    let old = fs::read_to_string(&metrics).unwrap();
    assert!(is_scraped(&gateway, &old).await);
    fs::write(&metrics, "another for the scraper\n").unwrap();
    says(&mut gateway, "the token of the metrics");
    assert!(!is_scraped(&gateway, &old).await);
    assert!(is_scraped(&gateway, "another for the scraper").await);
    // A file that is wrong changes nothing.
    fs::write(&file, "{gateway: {port: 'x'}}").unwrap();
    says(&mut gateway, "was not taken up");
    says(&mut gateway, "openclaw config validate");
    enter(&gateway, "the second").await.unwrap();
}

#[tokio::test]
async fn an_edit_of_the_limits_shuts_out_who_guesses_from_then_on() {
    let home = Home::new();
    let text = |limits: &str| {
        format!("{{gateway: {{auth: {{token: 'the token', rateLimit: {{{limits}}}}}}}}}")
    };
    let loose = "exemptLoopback: false, maxAttempts: 1000";
    let file = home.write("home/.openclaw/openclaw.json", &text(loose));
    let mut gateway = OurGateway::start(&home);
    assert!(enter(&gateway, "guess").await.is_err());
    enter(&gateway, "the token").await.unwrap();
    fs::write(&file, text("exemptLoopback: false, maxAttempts: 4")).unwrap();
    says(&mut gateway, "gateway.auth.rateLimit.maxAttempts");
    // One wrong secret was counted before the limit was there.
    assert_eq!(is_shut_out_after(&gateway).await, 3);
    assert!(enter(&gateway, "the token").await.is_err());
}

/// Whether the metrics open for this token.
async fn is_scraped(gateway: &OurGateway, token: &str) -> bool {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, gateway.port())).await.unwrap();
    let request = format!(
        "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\r\n",
        token.trim()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LIMIT, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer.starts_with("HTTP/1.1 200")
}

/// Guesses until it is shut out; after how many wrong secrets.
async fn is_shut_out_after(gateway: &OurGateway) -> usize {
    for guesses in 1..=20 {
        let refused = enter(gateway, &format!("guess {guesses}")).await.err().unwrap().to_string();
        if refused.contains("AUTH_RATE_LIMITED") {
            return guesses;
        }
    }
    panic!("nobody is shut out");
}

#[tokio::test]
async fn a_hangup_reads_files_of_secrets_again_and_ends_nothing() {
    let home = Home::new();
    let mut gateway = OurGateway::start(&home);
    let first = gateway.token();
    fs::write(gateway.token_file(), "another token that somebody wrote\n").unwrap();
    signal(gateway.program().pid(), Signal::SIGHUP);
    says(&mut gateway, "the gateway's token");
    assert!(enter(&gateway, &first).await.is_err());
    enter(&gateway, "another token that somebody wrote").await.unwrap();
    fs::write(home.state().join("rs/metrics-token"), "another for the scraper\n").unwrap();
    signal(gateway.program().pid(), Signal::SIGHUP);
    says(&mut gateway, "the token of the metrics");
}

#[tokio::test]
async fn who_applies_a_configuration_hears_what_became_of_it() {
    let home = Home::new();
    home.write("home/.openclaw/openclaw.json", "{\n  // mine\n  gateway: {port: 18789},\n}\n");
    let gateway = OurGateway::start(&home);
    let mut wire = enter(&gateway, &gateway.token()).await.unwrap();
    let got = ok(&mut wire, "config.get", json!({})).await;
    let raw = json!({ "gateway": {
        "port": 18790, "nodes": { "commands": { "deny": ["x.y"] } },
    }, "env": { "vars": { "A": "b" } } });
    let params = json!({ "raw": raw.to_string(), "baseHash": got["hash"], "note": "why" });
    let stale = json!({ "raw": raw.to_string(), "baseHash": "hmac-sha256:v1:0" });
    let answer = wire.call("config.apply", stale).await.unwrap();
    assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
    let is_applied = |got: &Value| got["configRevisionHash"] == got["appliedConfigHash"];
    assert!(got["appliedConfigHash"].is_string() && is_applied(&got), "{got}");
    let applied = ok(&mut wire, "config.apply", params).await;
    // A flag said which port, so the next start has the same one.
    assert_eq!(applied["reload"]["needsRestart"], json!(["env"]), "{applied}");
    assert_eq!(applied["reload"]["applied"], json!(["gateway.nodes.commands.deny"]));
    assert_eq!(applied["sentinel"]["payload"]["stats"]["requiresRestart"], true);
    let text = fs::read_to_string(home.state().join("openclaw.json")).unwrap();
    assert!(text.contains("// mine"), "{text}");
    // A part waits for the next start, also after a change of something else, until it is taken back.
    for (raw, expected) in [
        (r#"{gateway: {nodes: {commands: {deny: ["x.z"]}}}}"#, false),
        ("{env: null}", true),
        ("{env: {vars: {A: 'c'}}}", false),
        ("{env: null}", true),
    ] {
        let got = ok(&mut wire, "config.get", json!({})).await;
        let params = json!({ "raw": raw, "baseHash": got["hash"],
            "replacePaths": ["gateway.nodes.commands.deny"] });
        ok(&mut wire, "config.patch", params).await;
        let got = ok(&mut wire, "config.get", json!({})).await;
        assert_eq!((&got["valid"], is_applied(&got)), (&json!(true), expected), "{raw}: {got}");
    }
    // Turned off, edits wait for the next start.
    let base = ok(&mut wire, "config.get", json!({})).await["hash"].clone();
    let raw =
        r#"{gateway: {reload: {mode: "off"}, controlUi: {allowedOrigins: ["https://a.example"]}}}"#;
    let params = json!({ "raw": raw, "baseHash": base });
    let reload = ok(&mut wire, "config.patch", params).await["reload"].clone();
    assert!(reload["refused"].as_str().unwrap().contains("gateway.reload.mode"), "{reload}");
}

/// Waits until the log has said so often that what changed waits for the next start.
fn leaves_alone(gateway: &OurGateway, times: usize) {
    wait_until("it says that it leaves everything as it is", LIMIT, || {
        let said = gateway.program().log().matches("gateway.reload.mode is off").count();
        assert!(said <= times, "it says so more often than it has a reason to");
        (said == times).then_some(())
    });
}

#[tokio::test]
async fn turned_off_nothing_counts_before_the_next_start_whatever_is_touched() {
    let home = Home::new();
    let text = |token: &str| {
        format!("{{gateway: {{reload: {{mode: 'off'}}, auth: {{token: '{token}'}}}}}}\n")
    };
    let file = home.write("home/.openclaw/openclaw.json", &text("the first"));
    let mut gateway = OurGateway::start(&home);
    let mut before = enter(&gateway, "the first").await.unwrap();
    let scraper = home.state().join("rs/metrics-token");
    let metrics = fs::read_to_string(&scraper).unwrap();
    fs::write(&scraper, "another for the scraper\n").unwrap();
    leaves_alone(&gateway, 1);
    fs::write(&file, text("the second")).unwrap();
    leaves_alone(&gateway, 2);
    // Another look at what was left alone, since a file beside it changes.
    fs::write(&scraper, "a third for the scraper\n").unwrap();
    leaves_alone(&gateway, 3);
    for other in ["another for the scraper", "a third for the scraper"] {
        assert!(!is_scraped(&gateway, other).await);
    }
    assert!(is_scraped(&gateway, &metrics).await);
    assert!(enter(&gateway, "the second").await.is_err());
    enter(&gateway, "the first").await.unwrap();
    ok(&mut before, "health", json!({})).await;
    // Whoever asks for it by a signal gets it.
    signal(gateway.program().pid(), Signal::SIGHUP);
    says(&mut gateway, "gateway.auth.token");
    assert_eq!(before.closed().await, 1012);
    enter(&gateway, "the second").await.unwrap();
    assert!(is_scraped(&gateway, "a third for the scraper").await);
}
