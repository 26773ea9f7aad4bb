//! Approvals and the rules for programs on a gateway's own host: what our gateway answers is what the
//! reference gateway answers.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::{Value, json};

use crate::support::{Home, OurGateway, Peer, ReferenceGateway, Wire, connect, present};

/// The rules that are given, with what a gateway tidies.
fn rules() -> Value {
    json!({
        "version": 1,
        "socket": {"path": " /run/rules.sock ", "token": "a-token-of-a-socket"},
        "defaults": {"security": "allowlist", "ask": "on-miss"},
        "agents": {
            "default": {"ask": "off", "allowlist": [{"pattern": "UNAME"}]},
            "main": {"security": "deny", "allowlist": [
                {"id": "one", "pattern": "uname", "commandText": "uname -a"},
                {"pattern": "  "},
                {"id": "two", "pattern": "uptime", "source": "allow-always",
                    "argPattern": "^-p$", "lastUsedAt": 1.5},
            ]},
            "nothing": {"allowlist": []},
            "blank": {"allowlist": [{"pattern": " "}]},
            "tools": {"mcpTools": [
                {"server": "s", "tool": "t", "source": "allow-always", "addedAt": 7}]},
        },
    })
}

async fn enter(port: u16, token: &str) -> Wire {
    let mut wire = Wire::open(port).await.unwrap().0.unheld();
    let mut params = connect(&json!({ "token": token }));
    params["scopes"] = json!(["operator.admin", "operator.approvals"]);
    let hello = wire.call("connect", params).await.unwrap();
    assert_eq!(hello["ok"], true, "{hello}");
    wire
}

/// A conversation, and what was answered, in order.
struct Story {
    owner: Wire,
    /// Each asks for one decision: the reference gateway answers it a second time, once it is taken.
    askers: Vec<Wire>,
    told: Vec<(String, Value)>,
}

impl Story {
    async fn of(port: u16, token: &str) -> Self {
        let owner = enter(port, token).await;
        let askers = vec![enter(port, token).await, enter(port, token).await];
        let mut story = Self { owner, askers, told: Vec::new() };
        story.approvals().await;
        story.rules().await;
        story
    }

    /// Calls, keeps what matters of the answer, and gives back all of it.
    async fn call(&mut self, method: &str, params: Value) -> Value {
        let answer = self.owner.call(method, params.clone()).await.unwrap();
        self.told.push((format!("{method} {params}"), essence(&answer)));
        answer
    }

    async fn ask(&mut self, params: Value) {
        let mut asker = self.askers.remove(0);
        let answer = asker.call("exec.approval.request", params).await.unwrap();
        self.askers.push(asker);
        self.told.push(("exec.approval.request".to_owned(), essence(&answer)));
    }

    async fn approvals(&mut self) {
        let ask = |id: &str| {
            json!({"id": id, "command": "id -u", "host": "gateway", "runId": "run-1",
                "twoPhase": true, "requireDeliveryRoute": false, "timeoutMs": 60_000})
        };
        let decide = |id: &str, decision: &str| json!({"id": id, "decision": decision});
        self.call("exec.approval.grants.list", json!({})).await;
        // For good, of a run that is no automation's: no standing grant comes of it.
        self.ask(ask("one")).await;
        self.call("exec.approval.get", json!({"id": "one"})).await;
        let mut always = decide("one", "allow-always");
        always["grantExpiresInDays"] = json!(30);
        self.call("exec.approval.resolve", always).await;
        self.call("exec.approval.waitDecision", json!({"id": "one"})).await;
        self.call("exec.approval.waitDecision", json!({"id": "nobody"})).await;
        self.call("exec.approval.resolve", decide("one", "allow-always")).await;
        self.call("exec.approval.resolve", decide("one", "deny")).await;
        self.call("exec.approval.resolve", decide("nobody", "deny")).await;
        self.call("exec.approval.get", json!({"id": "one"})).await;
        self.call("exec.approval.list", json!({})).await;
        self.call("exec.approval.grants.list", json!({"limit": 500})).await;
        for id in ["one", "nobody"] {
            self.call("exec.approval.grants.revoke", json!({"grantId": id})).await;
        }
        let mut each_time = ask("two");
        each_time["ask"] = json!("always");
        self.ask(each_time).await;
        self.call("exec.approval.get", json!({"id": "two"})).await;
        self.call("exec.approval.resolve", decide("two", "allow-always")).await;
        self.call("exec.approval.resolve", decide("two", "deny")).await;
        for (method, params) in [
            ("exec.approval.grants.list", json!({"limit": 0})),
            ("exec.approval.grants.list", json!({"limit": 501})),
            ("exec.approval.grants.list", json!({"all": true})),
            ("exec.approval.grants.revoke", json!({})),
            ("exec.approval.grants.revoke", json!({"grantId": ""})),
        ] {
            self.call(method, params).await;
        }
    }

    async fn rules(&mut self) {
        // Theirs makes a document, with a socket of its own in it, as soon as it is asked for one.
        let first = self.owner.call("exec.approvals.get", json!({})).await.unwrap();
        let defaults = first["payload"]["resolvedDefaults"].clone();
        self.told.push(("what holds unsaid".to_owned(), defaults));
        let with = |file: Value, base: &Value| json!({"file": file, "baseHash": base});
        let base = &first["payload"]["hash"];
        self.call("exec.approvals.set", with(rules(), &json!("of another"))).await;
        let set = self.owner.call("exec.approvals.set", with(rules(), base)).await.unwrap();
        self.told.push(("the rules are given".to_owned(), essence(&set)));
        self.call("exec.approvals.set", json!({"file": {"version": 1}})).await;
        let stale = self.owner.call("exec.approvals.set", with(rules(), base)).await.unwrap();
        self.told.push(("they are given again".to_owned(), essence(&stale)));
        for params in [
            json!({"file": {"version": 2}}),
            json!({"file": {"version": 1, "more": 1}}),
            json!({"file": {"version": 1, "agents": {"main": {"allowlist": ["rg"]}}}}),
            json!({"file": {"version": 1}, "baseHash": ""}),
            json!({}),
        ] {
            self.call("exec.approvals.set", params).await;
        }
        self.call("exec.approvals.get", json!({"more": 1})).await;
        let kept = self.call("exec.approvals.get", json!({})).await;
        assert!(!kept.to_string().contains("a-token-of-a-socket"), "{kept}");
    }
}

/// An answer without what is a gateway's own: places, hashes, times, and its words for parameters
/// that are not as published.
fn essence(answer: &Value) -> Value {
    let Some(error) = answer.get("error") else {
        let mut payload = answer["payload"].clone();
        if let Some(fields) = payload.as_object_mut() {
            // Theirs tells of requests only whoever says in `connect` that it shows them.
            for own in ["path", "hash", "createdAtMs", "expiresAtMs", "deliveryRoute"] {
                fields.remove(own);
            }
        }
        return payload;
    };
    let message = error["message"].as_str().unwrap_or_default();
    let message = if message.starts_with("invalid exec.") { "invalid params" } else { message };
    let mut details = error["details"].clone();
    if let Some(remedy) = details.get_mut("remediation") {
        // In words of its own, too.
        *remedy = json!("said");
    }
    json!({"code": error["code"], "details": details, "message": message})
}

#[tokio::test]
async fn our_gateway_answers_about_approvals_what_the_reference_gateway_answers() {
    if !present(&[Peer::OpenClaw]) {
        return;
    }
    let reference = ReferenceGateway::start();
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    let theirs = Story::of(reference.port(), ReferenceGateway::TOKEN).await.told;
    let ours = Story::of(gateway.port(), &gateway.token()).await.told;
    let differ = ours.iter().zip(&theirs).filter(|(ours, theirs)| ours != theirs);
    let differ: Vec<_> = differ.map(|(ours, theirs)| format!("{ours:?}\n{theirs:?}")).collect();
    assert!(differ.is_empty(), "ours, then theirs:\n{}", differ.join("\n"));
    assert_eq!((ours.len(), theirs.len()), (35, 35));
}
