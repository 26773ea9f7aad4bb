//! `exec.approvals.get` and `exec.approvals.set`: who may, what is refused, what comes back.

use std::{io, sync::Mutex};

use super::{devices::Machine, *};

/// What was logged.
#[derive(Clone, Default)]
pub(super) struct Log(pub(super) Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

async fn owner(lab: &Lab) -> Client {
    lab.connected(&json!({"scopes": ["operator.admin"]})).await.0
}

/// The reply to a change of the rules that names what was there.
async fn set(client: &mut Client, file: Value) -> Value {
    let known = client.call("exec.approvals.get", json!({})).await;
    let params = json!({"file": file, "baseHash": known["payload"]["hash"]});
    let answer = client.call("exec.approvals.set", params).await;
    assert_eq!(answer["ok"], true, "{answer}");
    answer["payload"].clone()
}

#[tokio::test(start_paused = true)]
async fn rules_that_nobody_gave_are_empty_and_say_what_holds() {
    let lab = Lab::new();
    let answer = owner(&lab).await.call("exec.approvals.get", json!({})).await;
    let told = &answer["payload"];
    assert_eq!((&told["exists"], &told["hash"]), (&json!(false), &json!("missing")), "{answer}");
    assert_eq!(told["file"], json!({"version": 1, "defaults": {}, "agents": {}}));
    let holds =
        json!({"security": "full", "ask": "off", "askFallback": "deny", "autoAllowSkills": false});
    assert_eq!(told["resolvedDefaults"], holds);
    assert!(told["path"].as_str().unwrap().ends_with("/rs/state.sqlite#host_rules"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn rules_are_changed_only_by_who_names_those_that_are_there() {
    let lab = Lab::new();
    let mut client = owner(&lab).await;
    let file = json!({"version": 1, "defaults": {"security": "deny"}});
    let early = json!({"file": file, "baseHash": "of something else"});
    let refused = client.call("exec.approvals.set", early).await;
    let changed = "exec approvals changed since last load; re-run exec.approvals.get and retry";
    assert_eq!(refused["error"]["message"], changed, "{refused}");
    let first = client.call("exec.approvals.set", json!({"file": file})).await;
    assert_eq!(first["payload"]["resolvedDefaults"]["security"], "deny", "{first}");
    let hash = first["payload"]["hash"].clone();
    let blind = client.call("exec.approvals.set", json!({"file": {"version": 1}})).await;
    let wanted = "exec approvals base hash required; re-run exec.approvals.get and retry";
    assert_eq!(blind["error"]["message"], wanted, "{blind}");
    let told = client.call("exec.approvals.get", json!({})).await;
    assert_eq!(told["payload"], first["payload"], "a reading changes nothing");
    let second = json!({"file": {"version": 1}, "baseHash": hash});
    let answer = client.call("exec.approvals.set", second.clone()).await;
    assert_eq!(answer["payload"]["resolvedDefaults"]["security"], "full", "{answer}");
    assert_ne!(answer["payload"]["hash"], hash);
    let stale = client.call("exec.approvals.set", second).await;
    assert_eq!(stale["error"]["message"], changed, "{stale}");
}

#[tokio::test(start_paused = true)]
async fn what_the_schema_does_not_have_is_refused_and_a_word_that_nobody_knows_as_well() {
    let lab = Lab::new();
    let mut client = owner(&lab).await;
    let agent = |rules: Value| json!({"version": 1, "agents": {"main": rules}});
    for file in [
        json!({}),
        json!({"version": 2}),
        json!({"version": 1, "rules": []}),
        json!({"version": 1, "defaults": {"mode": "full"}}),
        json!({"version": 1, "defaults": {"security": "alowlist"}}),
        json!({"version": 1, "defaults": {"ask": "sometimes"}}),
        json!({"version": 1, "socket": {"path": "/s", "mode": 384}}),
        agent(json!({"allowlist": ["rg"]})),
        agent(json!({"allowlist": [{"id": "a"}]})),
        agent(json!({"allowlist": [{"pattern": "rg", "id": ""}]})),
        agent(json!({"allowlist": [{"pattern": "rg", "source": "me"}]})),
        agent(json!({"allowlist": [{"pattern": "rg", "lastUsedAt": -1}]})),
        agent(
            json!({"mcpTools": [{"server": " ", "tool": "t", "source": "allow-always", "addedAt": 1}]}),
        ),
        agent(json!({"allowlist": [{"pattern": "x".repeat(1 << 20)}]})),
    ] {
        let answer = client.call("exec.approvals.set", json!({"file": file})).await;
        assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
    }
    for params in [
        json!({}),
        json!({"file": {"version": 1}, "baseHash": ""}),
        json!({"file": {"version": 1}, "force": true}),
    ] {
        let answer = client.call("exec.approvals.set", params).await;
        assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
    }
    let answer = client.call("exec.approvals.get", json!({"nodeId": "box"})).await;
    assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
    let told = client.call("exec.approvals.get", json!({})).await;
    assert_eq!(told["payload"]["exists"], false, "nothing was kept: {told}");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_shown_the_sockets_token_and_who_sends_none_leaves_it() {
    let lab = Lab::new();
    let mut client = owner(&lab).await;
    let socket = json!({"path": "/run/approvals.sock", "token": "a-token-of-a-socket"});
    let told = set(&mut client, json!({"version": 1, "socket": socket})).await;
    assert_eq!(told["file"]["socket"], json!({"path": "/run/approvals.sock"}), "{told}");
    let again = set(&mut client, told["file"].clone()).await;
    assert!(!again.to_string().contains("a-token-of-a-socket"), "{again}");
    let kept = lab.shared.store.host_rules().text().await.unwrap().unwrap();
    assert!(kept.contains("a-token-of-a-socket"), "{kept}");
}

#[tokio::test(start_paused = true)]
async fn only_an_administrator_reads_and_changes_the_rules() {
    let lab = Lab::new();
    let (mut weak, _) = lab.connected(&json!({"scopes": ["operator.approvals"]})).await;
    for (method, params) in
        [("exec.approvals.get", json!({})), ("exec.approvals.set", json!({"file": {"version": 1}}))]
    {
        let refused = weak.call(method, params).await;
        assert_eq!(refused["error"]["details"]["missingScope"], "operator.admin", "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_names_the_device_and_the_connection_that_changed_the_rules() {
    let log = Log::default();
    let writer = log.clone();
    let lines = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let _heard = tracing::subscriber::set_default(lines.finish());
    let (lab, machine) = (Lab::new(), Machine::new(9));
    let (mut client, hello) = machine.knocks(&lab, &json!({"scopes": ["operator.admin"]})).await;
    let connection = hello["payload"]["server"]["connId"].as_str().unwrap().to_owned();
    set(&mut client, json!({"version": 1})).await;
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let line = log.lines().find(|line| line.contains("the rules for programs")).unwrap();
    assert!(line.contains(&machine.id()) && line.contains(&connection), "{line}");
}
