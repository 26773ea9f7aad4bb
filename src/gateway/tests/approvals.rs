//! `exec.approval*` through the dispatcher: who may ask, see and decide, and what is refused.

use super::{
    devices::{Machine, administrator, answer_to, asks, with},
    nodes::node_that,
    *,
};

const SCOPES: [&str; 2] = ["operator.approvals", "operator.admin"];

async fn approver(lab: &Lab) -> Client {
    lab.connected(&json!({"scopes": SCOPES})).await.0
}

fn request(changes: &Value) -> Value {
    let mut params = json!({
        "id": "a", "host": "node", "nodeId": "box", "twoPhase": true, "timeoutMs": 60_000,
        "systemRunPlan": {"argv": ["/bin/id", "-u"], "cwd": null, "commandText": "/bin/id -u",
            "agentId": null, "sessionKey": null},
    });
    for (name, change) in changes.as_object().unwrap() {
        params[name] = change.clone();
    }
    params
}

impl Client {
    /// The answer to a call, whatever events come before it.
    async fn answer(&mut self, method: &str, params: Value) -> Value {
        let mut answer = self.call(method, params).await;
        while answer["type"] == "event" {
            answer = self.frame().await;
        }
        answer
    }

    /// Waits for an event of this name.
    async fn hears(&mut self, event: &str) {
        while self.frame().await["event"] != event {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_seen_decided_once_and_told_of() {
    let lab = Lab::new();
    let (mut asker, mut other) = (approver(&lab).await, approver(&lab).await);
    let accepted = asker.answer("exec.approval.request", request(&json!({}))).await;
    assert_eq!(accepted["payload"]["status"], "accepted", "{accepted}");
    let told = other.frame().await;
    assert_eq!(told["event"], "exec.approval.requested");
    assert_eq!(told["payload"]["request"]["command"], "/bin/id -u");
    let list = other.answer("exec.approval.list", json!({})).await;
    assert_eq!(list["payload"][0]["id"], "a", "{list}");
    let shown = other.answer("exec.approval.get", json!({"id": "a"})).await;
    assert_eq!(shown["payload"]["commandText"], "/bin/id -u", "{shown}");
    let waits = json!({"type": "req", "id": "w", "method": "exec.approval.waitDecision",
        "params": {"id": "a"}});
    asker.send(&waits).await;
    let decide = |decision: &str| json!({"id": "a", "decision": decision});
    let decided = other.answer("exec.approval.resolve", decide("deny")).await;
    assert_eq!(decided["payload"], json!({"ok": true}), "{decided}");
    let mut heard = vec![asker.frame().await, asker.frame().await];
    heard.sort_by_key(|frame| frame["type"].to_string());
    assert_eq!(heard[0]["payload"]["decision"], "deny", "{heard:?}");
    assert_eq!(heard[1]["payload"]["decision"], "deny", "{heard:?}");
    assert_eq!(heard[1]["payload"]["terminalReason"], "user", "{heard:?}");
    let again = asker.call("exec.approval.resolve", decide("deny")).await;
    assert_eq!(again["payload"], json!({"ok": true}), "nobody hears of it again: {again}");
    let late = asker.answer("exec.approval.resolve", decide("allow-once")).await;
    assert_eq!(late["error"]["details"]["reason"], "APPROVAL_ALREADY_RESOLVED", "{late}");
    let gone = asker.answer("exec.approval.get", json!({"id": "a"})).await;
    assert_eq!(gone["error"]["details"]["reason"], "APPROVAL_NOT_FOUND", "{gone}");
    assert_eq!(asker.answer("exec.approval.list", json!({})).await["payload"], json!([]));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_approved_as_it_is_shown_is_not_taken_up() {
    let lab = Lab::new();
    let mut client = approver(&lab).await;
    let plan = |text: &str, argv: Value| {
        json!({"systemRunPlan": {"argv": argv, "cwd": null, "commandText": text,
            "agentId": null, "sessionKey": null}})
    };
    for (changes, said) in [
        (plan("/bin/ls", json!(["/bin/rm"])), "commandText"),
        (plan("", json!([])), "commandArgv"),
        (json!({"systemRunPlan": null}), "systemRunPlan is required"),
        (json!({"nodeId": null}), "nodeId is required"),
        (json!({"id": "plugin:x"}), "plugin:"),
        (json!({"id": ""}), "must not be empty"),
        (json!({"approved": true}), "approved"),
        (json!({"host": "gateway", "systemRunPlan": null, "command": " "}), "command must have"),
        (
            json!({"host": "gateway", "systemRunPlan": null, "command": "x".repeat(65_537)}),
            "command must have",
        ),
        (json!({"warningText": "x".repeat(262_144)}), "at most 262144 bytes"),
        (json!({"env": {"A": "x".repeat(262_144)}}), "at most 262144 bytes"),
    ] {
        let answer = client.answer("exec.approval.request", request(&changes)).await;
        let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert!(message.contains(said), "{said}: {message}");
    }
    assert_eq!(client.answer("exec.approval.list", json!({})).await["payload"], json!([]));
    client.answer("exec.approval.request", request(&json!({}))).await;
    let taken = client.answer("exec.approval.request", request(&json!({}))).await;
    assert_eq!(taken["error"]["message"], "approval id already pending", "{taken}");
    for (params, said) in [
        (json!({"id": "a", "decision": "maybe"}), "invalid decision"),
        (json!({"id": "b", "decision": "deny"}), "unknown or expired approval id"),
    ] {
        let answer = client.answer("exec.approval.resolve", params).await;
        assert_eq!(answer["error"]["message"], said, "{answer}");
    }
    let unknown = client.answer("exec.approval.waitDecision", json!({"id": "b"})).await;
    assert_eq!(unknown["error"]["message"], "approval expired or not found", "{unknown}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_learns_that_the_time_is_over() {
    let lab = Lab::new();
    let mut client = approver(&lab).await;
    client.answer("exec.approval.request", request(&json!({}))).await;
    let over = client.answer("exec.approval.waitDecision", json!({"id": "a"})).await;
    let told = &over["payload"];
    assert_eq!((&told["decision"], &told["terminalReason"]), (&json!(null), &json!("timeout")));
}

#[tokio::test(start_paused = true)]
async fn what_a_device_asked_for_ends_with_its_right_to_ask() {
    for (method, params) in
        [("device.token.revoke", json!({"role": "operator"})), ("device.pair.remove", json!({}))]
    {
        let lab = Lab::new();
        let (machine, mut admin) = (Machine::new(1), approver(&lab).await);
        let (mut asker, _) = machine.enters(&lab, &with(&json!({"token": TOKEN}), &SCOPES)).await;
        asker.answer("exec.approval.request", request(&json!({}))).await;
        admin.answer("exec.approval.request", request(&json!({"id": "b"}))).await;
        let mut params = params;
        params["deviceId"] = json!(machine.id());
        let answer = admin.answer(method, params).await;
        assert_eq!(answer["ok"], true, "{answer}");
        let left = admin.answer("exec.approval.list", json!({})).await;
        let left: Vec<_> = left["payload"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
        assert_eq!(left, ["b"], "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_allowed_for_good_where_each_run_is_asked_about() {
    let lab = Lab::new();
    let mut client = approver(&lab).await;
    for (id, changes) in [
        ("a", json!({"ask": " Always"})),
        ("b", json!({"unavailableDecisions": ["allow-always"]})),
        ("c", json!({"ask": "on-miss"})),
    ] {
        let mut changes = changes;
        changes["id"] = json!(id);
        client.answer("exec.approval.request", request(&changes)).await;
        let shown = client.answer("exec.approval.get", json!({"id": id})).await;
        let allowed = shown["payload"]["allowedDecisions"].as_array().unwrap().len();
        let decide = json!({"id": id, "decision": "allow-always"});
        let answer = client.answer("exec.approval.resolve", decide).await;
        if id == "c" {
            assert_eq!((allowed, &answer["ok"]), (3, &json!(true)), "{answer}");
            continue;
        }
        let reason = &answer["error"]["details"]["reason"];
        assert_eq!((allowed, reason), (2, &json!("APPROVAL_ALLOW_ALWAYS_UNAVAILABLE")));
        let once = json!({"id": id, "decision": "allow-once"});
        let answer = client.answer("exec.approval.resolve", once).await;
        assert_eq!(answer["ok"], true, "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_for_good_is_no_standing_grant_where_no_automation_asked() {
    let lab = Lab::new();
    let mut client = approver(&lab).await;
    for (id, host) in [("a", "node"), ("b", "gateway")] {
        let changes = json!({"id": id, "host": host, "command": "id -u", "runId": "run-1"});
        client.answer("exec.approval.request", request(&changes)).await;
        let decide = json!({"id": id, "decision": "allow-always", "grantExpiresInDays": 30});
        let answer = client.answer("exec.approval.resolve", decide).await;
        assert_eq!(answer["payload"], json!({"ok": true}), "{answer}");
    }
    let list = client.answer("exec.approval.grants.list", json!({"limit": 500})).await;
    assert_eq!(list["payload"], json!({"grants": []}), "{list}");
    for id in ["a", "b", "nope"] {
        let gone = client.answer("exec.approval.grants.revoke", json!({"grantId": id})).await;
        assert_eq!(gone["payload"], json!({"outcome": "not-found"}), "{gone}");
    }
    for (method, params) in [
        ("exec.approval.grants.list", json!({"limit": 0})),
        ("exec.approval.grants.list", json!({"limit": 501})),
        ("exec.approval.grants.list", json!({"limit": 1.5})),
        ("exec.approval.grants.list", json!({"all": true})),
        ("exec.approval.grants.revoke", json!({})),
        ("exec.approval.grants.revoke", json!({"grantId": ""})),
        ("exec.approval.grants.revoke", json!({"grantId": "a", "force": true})),
    ] {
        let refused = client.answer(method, params).await;
        assert_eq!(refused["error"]["code"], "INVALID_REQUEST", "{method}: {refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_who_asked_and_administrators_see_a_request_and_decide_it() {
    let lab = Lab::new();
    let mut admin = approver(&lab).await;
    let wants = with(&json!({"token": TOKEN}), &["operator.approvals"]);
    let machine = Machine::new(1);
    let (mut asker, _) = machine.enters(&lab, &wants).await;
    let (mut beside, _) = machine.enters(&lab, &wants).await;
    let (mut other, _) = Machine::new(2).enters(&lab, &wants).await;
    let (mut nobody, _) = lab.connected(&json!({"scopes": ["operator.approvals"]})).await;
    let decide = |id: &str| json!({"id": id, "decision": "allow-once"});
    let mine = asker.answer("exec.approval.request", request(&json!({}))).await;
    assert_eq!(mine["ok"], true, "{mine}");
    for stranger in [&mut other, &mut nobody] {
        let list = stranger.call("exec.approval.list", json!({})).await;
        assert_eq!(list["payload"], json!([]), "it heard nothing before either: {list}");
        for (method, params) in
            [("exec.approval.get", json!({"id": "a"})), ("exec.approval.resolve", decide("a"))]
        {
            let refused = stranger.call(method, params).await;
            let reason = &refused["error"]["details"]["reason"];
            assert_eq!(reason, "APPROVAL_NOT_FOUND", "{method}: {refused}");
        }
        let waits = stranger.call("exec.approval.waitDecision", json!({"id": "a"})).await;
        assert_eq!(waits["error"]["message"], "approval expired or not found", "{waits}");
    }
    for shown in [&mut admin, &mut beside] {
        shown.hears("exec.approval.requested").await;
        let list = shown.answer("exec.approval.list", json!({})).await;
        assert_eq!(list["payload"][0]["id"], "a", "{list}");
    }
    let decided = beside.answer("exec.approval.resolve", decide("a")).await;
    assert_eq!(decided["ok"], true, "{decided}");
    admin.hears("exec.approval.resolved").await;
    let repeated = other.call("exec.approval.resolve", decide("a")).await;
    assert_eq!(repeated["error"]["details"]["reason"], "APPROVAL_NOT_FOUND", "{repeated}");
    // Who has no device is known by its connection alone.
    nobody.answer("exec.approval.request", request(&json!({"id": "b"}))).await;
    let (mut again, _) = lab.connected(&json!({"scopes": ["operator.approvals"]})).await;
    let list = again.call("exec.approval.list", json!({})).await;
    assert_eq!(list["payload"], json!([]), "{list}");
    let decided = nobody.answer("exec.approval.resolve", decide("b")).await;
    assert_eq!(decided["ok"], true, "{decided}");
}

#[tokio::test(start_paused = true)]
async fn only_those_who_may_decide_reach_requests_and_the_nodes_rules() {
    let lab = Lab::new();
    let mut reader = lab.admitted().await;
    let (mut weak, _) = lab.connected(&json!({"scopes": ["operator.approvals"]})).await;
    let mut client = approver(&lab).await;
    client.answer("exec.approval.request", request(&json!({}))).await;
    for (method, params) in [
        ("exec.approval.request", request(&json!({"id": "b"}))),
        ("exec.approval.get", json!({"id": "a"})),
        ("exec.approval.list", json!({})),
        ("exec.approval.waitDecision", json!({"id": "a"})),
        ("exec.approval.resolve", json!({"id": "a", "decision": "allow-once"})),
        ("exec.approval.grants.list", json!({})),
        ("exec.approval.grants.revoke", json!({"grantId": "a"})),
    ] {
        let refused = reader.call(method, params).await;
        assert_eq!(refused["error"]["details"]["missingScope"], "operator.approvals", "{refused}");
    }
    let rules = json!({"nodeId": "box", "file": {"version": 1}});
    let refused = weak.call("exec.approvals.node.set", rules.clone()).await;
    assert_eq!(refused["error"]["details"]["missingScope"], "operator.admin", "{refused}");
    let away = client.answer("exec.approvals.node.get", json!({"nodeId": "box"})).await;
    assert_eq!(away["error"]["details"]["code"], "NOT_CONNECTED", "{away}");
    let mut both = rules;
    both["native"] = json!({"rules": []});
    both["baseHash"] = json!("h");
    for params in [both, json!({"nodeId": "box"})] {
        let refused = client.answer("exec.approvals.node.set", params).await;
        let message = refused["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("file or native"), "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_of_another_shape_is_refused_by_the_field_and_never_offered_for_good() {
    let lab = Lab::new();
    let mut client = approver(&lab).await;
    for (name, value) in [
        ("ask", json!(["always"])),
        ("unavailableDecisions", json!("allow-always")),
        ("unavailableDecisions", json!(["allow-always", "allow-always"])),
        ("unavailableDecisions", json!(["deny"])),
        ("cwd", json!({"path": "/"})),
        ("warningText", json!(["careful"])),
        ("turnSourceThreadId", json!(true)),
        ("requireDeliveryRoute", json!("yes")),
        ("commandSpans", json!([[0, 1]])),
        ("scope", json!(["payment", "1", "EUR", "shop"])),
        ("systemRunPlan", json!([["/bin/id"], null, "/bin/id", null, null, null, null, null])),
    ] {
        let answer = client.answer("exec.approval.request", request(&json!({ name: value }))).await;
        let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
        assert!(message.contains(name), "{name}: {message}");
    }
    let word = |path: &str, word: &str| {
        let mut snapshot = json!({"security": "full", "ask": "off", "askFallback": "deny",
            "autoAllowSkills": false, "allowlistRules": [{"pattern": "id"}]});
        *snapshot.pointer_mut(path).unwrap() = json!(word);
        let mut params = request(&json!({}));
        params["systemRunPlan"]["policySnapshot"] = snapshot;
        params
    };
    for path in ["security", "ask", "askFallback"] {
        let params = word(&format!("/{path}"), "sometimes");
        let answer = client.answer("exec.approval.request", params).await;
        let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert!(message.contains(path) && message.contains("sometimes"), "{message}");
    }
    assert_eq!(client.answer("exec.approval.list", json!({})).await["payload"], json!([]));
    // Null is nothing, and nobody is sent it.
    let empty = json!({"ask": null, "unavailableDecisions": null, "turnSourceThreadId": 7});
    client.answer("exec.approval.request", request(&empty)).await;
    let list = client.answer("exec.approval.list", json!({})).await;
    let kept = list["payload"][0]["request"].as_object().unwrap();
    assert!(!kept.contains_key("ask") && kept["turnSourceThreadId"] == 7, "{list}");
}

#[tokio::test(start_paused = true)]
async fn only_who_shows_requests_to_a_person_is_a_way_to_one() {
    let lab = Lab::new();
    let with = |changes: Value| {
        let mut all = json!({ "scopes": SCOPES });
        all.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        all
    };
    let shows = with(json!({"caps": ["exec-approvals"]}));
    let (mut asker, _) = lab.connected(&shows).await;
    let _follower = approver(&lab).await;
    let app = json!({"id": "openclaw-ios", "version": "1", "platform": "ios", "mode": "ui"});
    let powerless = json!({"client": app, "scopes": ["operator.read"]});
    let _powerless = lab.connected(&powerless).await;
    let mut route = async |id: &str| {
        let accepted = asker.answer("exec.approval.request", request(&json!({"id": id}))).await;
        accepted["payload"]["deliveryRoute"].clone()
    };
    assert_eq!(route("nobody").await, "none");
    for (number, changes) in
        [json!({"client": app}), json!({"caps": ["approvals"]}), shows].iter().enumerate()
    {
        let shown = lab.connected(&with(changes.clone())).await;
        assert_eq!(route(&format!("{number}")).await, "approval-client", "{changes}");
        drop(shown);
        // Its place is free as soon as the gateway has seen the end of its connection.
        while lab.shared.hub.count() > 3 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(route("nobody again").await, "none");
}

#[tokio::test(start_paused = true)]
async fn a_node_is_told_of_other_rules_only_with_the_hash_that_they_need() {
    let lab = Lab::new();
    let mut admin = administrator(&lab).await;
    let client = json!({"id": "node-host", "version": "1", "platform": "linux",
        "deviceFamily": "Linux", "mode": "node"});
    let offer = json!({"role": "node", "scopes": [], "client": client, "caps": ["system"],
        "commands": ["system.execApprovals.get", "system.execApprovals.set"]});
    let (mut node, id) = node_that(&lab, &mut admin, offer).await;
    let native = json!({"rules": [{"pattern": "id", "action": "allow"}]});
    let refused = json!({"nodeId": id, "native": native});
    asks(&mut admin, "unguarded", "exec.approvals.node.set", refused).await;
    let refused = answer_to(&mut admin, "unguarded").await;
    assert_eq!(refused["error"]["code"], "INVALID_REQUEST", "{refused}");
    assert!(refused["error"]["message"].as_str().unwrap().contains("baseHash"), "{refused}");
    let action = json!({"nodeId": id, "baseHash": "h",
        "native": {"rules": [{"pattern": "id", "action": "permit"}]}});
    asks(&mut admin, "word", "exec.approvals.node.set", action).await;
    let refused = answer_to(&mut admin, "word").await;
    assert!(refused["error"]["message"].as_str().unwrap().contains("action"), "{refused}");
    let file = json!({"file": {"version": 1}});
    let guarded = json!({"file": {"version": 1}, "baseHash": "h"});
    let mut among = native.clone();
    among["baseHash"] = json!("h");
    for (mut params, change) in [
        (file.clone(), file),
        (guarded.clone(), guarded),
        (json!({"native": native, "baseHash": "h"}), among),
    ] {
        params["nodeId"] = id.clone();
        asks(&mut admin, "set", "exec.approvals.node.set", params).await;
        let asked = loop {
            let frame = node.frame().await;
            if frame["event"] == "node.invoke.request" {
                break frame["payload"].clone();
            }
        };
        let told: Value = serde_json::from_str(asked["paramsJSON"].as_str().unwrap()).unwrap();
        assert_eq!(told, change);
        let rules = json!({"path": "p", "exists": true, "hash": "n", "file": {"version": 1}});
        let done = json!({"id": asked["id"], "nodeId": id, "ok": true, "payload": rules});
        asks(&mut node, "done", "node.invoke.result", done).await;
        assert_eq!(answer_to(&mut admin, "set").await["payload"]["hash"], "n");
    }
}

#[tokio::test(start_paused = true)]
async fn only_openclaws_program_for_macos_is_asked_what_holds_where_its_rules_say_nothing() {
    for (id, platform, family, expected) in [
        ("openclaw-macos", "macOS 26.3.1", "Mac", json!({"includeResolvedDefaults": true})),
        ("node-host", "linux", "Linux", json!({})),
    ] {
        let lab = Lab::new();
        let mut admin = administrator(&lab).await;
        let client = json!({"id": id, "version": "1", "platform": platform,
            "deviceFamily": family, "mode": "node"});
        let offer = json!({"role": "node", "scopes": [], "client": client, "caps": ["system"],
            "commands": ["system.execApprovals.get"]});
        let (mut node, id) = node_that(&lab, &mut admin, offer).await;
        asks(&mut admin, "get", "exec.approvals.node.get", json!({"nodeId": id})).await;
        let asked = loop {
            let frame = node.frame().await;
            if frame["event"] == "node.invoke.request" {
                break frame["payload"].clone();
            }
        };
        let told: Value = serde_json::from_str(asked["paramsJSON"].as_str().unwrap()).unwrap();
        assert_eq!(told, expected);
        let rules = json!({"path": "p", "exists": true, "hash": "n", "file": {"version": 1}});
        let done = json!({"id": asked["id"], "nodeId": id, "ok": true, "payload": rules});
        asks(&mut node, "done", "node.invoke.result", done).await;
        assert_eq!(answer_to(&mut admin, "get").await["payload"]["hash"], "n");
    }
}

#[tokio::test(start_paused = true)]
async fn the_beginning_of_an_id_is_enough_to_see_and_decide_and_not_to_wait() {
    let lab = Lab::new();
    let mut client = approver(&lab).await;
    for id in ["alpha-1", "alpha-2", "beta"] {
        let taken = client.answer("exec.approval.request", request(&json!({"id": id}))).await;
        assert_eq!(taken["ok"], true, "{taken}");
    }
    let decide = |id: &str| json!({"id": id, "decision": "deny"});
    for (method, params) in
        [("exec.approval.get", json!({"id": "alpha"})), ("exec.approval.resolve", decide("ALPHA"))]
    {
        let refused = client.answer(method, params).await;
        let message = "ambiguous approval id prefix; use the full id";
        assert_eq!(refused["error"]["message"], message, "{refused}");
    }
    let shown = client.answer("exec.approval.get", json!({"id": "B"})).await;
    assert_eq!(shown["payload"]["id"], "beta", "{shown}");
    for id in ["be", "bet"] {
        let decided = client.answer("exec.approval.resolve", decide(id)).await;
        assert_eq!(decided["payload"], json!({"ok": true}), "{decided}");
    }
    // A decision that is sent again is about no request that came meanwhile.
    client.answer("exec.approval.request", request(&json!({"id": "best"}))).await;
    let again = client.answer("exec.approval.resolve", decide("be")).await;
    let message = "ambiguous approval id prefix; use the full id";
    assert_eq!(again["error"]["message"], message, "{again}");
    let waits = client.answer("exec.approval.get", json!({"id": "be"})).await;
    assert_eq!(waits["payload"]["id"], "best", "{waits}");
    let decided = client.answer("exec.approval.resolve", decide("best")).await;
    assert_eq!(decided["payload"], json!({"ok": true}), "{decided}");
    let gone = client.answer("exec.approval.get", json!({"id": "be"})).await;
    assert_eq!(gone["error"]["details"]["reason"], "APPROVAL_NOT_FOUND", "{gone}");
    let waits = client.answer("exec.approval.waitDecision", json!({"id": "be"})).await;
    assert_eq!(waits["error"]["message"], "approval expired or not found", "{waits}");
}
