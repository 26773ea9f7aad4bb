//! What methods answer, and to whom.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use super::{
    devices::{Machine, answer_to, asks, event_of, with},
    *,
};

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
async fn only_an_administrator_is_told_how_the_gateway_asks_and_where_its_files_are() {
    let lab = Lab::new();
    let open = [
        (Guard::Token(Secret::new(TOKEN)), "token"),
        (Guard::Password(Secret::new(TOKEN)), "password"),
        (Guard::Open, "none"),
    ];
    for (guard, mode) in open {
        let live = (*lab.shared.live()).clone();
        lab.shared.set_live(Live { guard, ..live });
        let wants = with(&json!({"token": TOKEN}), &["operator.admin"]);
        let (_client, hello) = Machine::new(1).knocks(&lab, &wants).await;
        let snapshot = &hello["payload"]["snapshot"];
        let told = ["authMode", "configPath", "stateDir"].map(|name| snapshot[name].as_str());
        assert_eq!(told, [Some(mode), Some("/state/openclaw.json"), Some("/state")], "{hello}");
        let wants = with(&json!({"token": TOKEN}), &["operator.write", "operator.pairing"]);
        let (_client, hello) = Machine::new(2).knocks(&lab, &wants).await;
        assert_eq!(hello["payload"]["type"], "hello-ok", "{hello}");
        for name in ["authMode", "configPath", "stateDir"] {
            assert!(hello["payload"]["snapshot"].get(name).is_none(), "{name}: {hello}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn shows_an_administrator_who_is_paired_and_what_waits() {
    let lab = Lab::new();
    let (mut client, _) = lab.connected(&json!({"scopes": ["operator.admin"]})).await;
    for method in [
        "device.pair.list",
        "node.list",
        "node.pair.list",
        "exec.approval.list",
        "exec.approval.grants.list",
    ] {
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

#[tokio::test]
async fn wake_words_that_are_kept_are_told_though_whoever_set_them_has_gone() {
    let home = tempfile::tempdir().unwrap();
    let mut lab = Lab::new();
    // One in memory has kept them before anybody could go.
    let shared = Arc::get_mut(&mut lab.shared).expect("nobody else has it yet");
    shared.store = Store::open(home.path()).unwrap();
    let (mut writer, _) = lab.connected(&json!({"scopes": ["operator.write"]})).await;
    let mut reader = lab.admitted().await;
    asks(&mut writer, "1", "voicewake.set", json!({"triggers": ["x"]})).await;
    let Client { socket, served, .. } = writer;
    drop(socket);
    served.await.unwrap();
    let told = timeout(Duration::from_secs(10), event_of(&mut reader, "voicewake.changed"));
    assert_eq!(told.await.expect("nobody was told"), json!({"triggers": ["x"]}));
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
    let nobody = client.call("agent.identity.get", json!({"agentId": "nobody"})).await;
    let expected = json!({"agentId": "nobody", "name": "Assistant", "nameSource": "default",
        "avatar": "A"});
    assert_eq!(nobody["payload"], expected, "as the reference gateway answers");
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
async fn says_what_is_wrong_with_a_request_and_goes_on() {
    let lab = Lab::new();
    let mut client = lab.admitted().await;
    golden("error-unknown-method", client.call("no.such", json!({})).await);
    golden("error-connect-again", client.call("connect", json!({})).await);
    let answer = client.call("health", json!({"probe": "yes"})).await;
    assert_eq!(answer["error"]["code"], "INVALID_REQUEST");
    for (frame, id, why) in [
        (json!("text"), "invalid", "must be object"),
        (
            json!({"type": "req", "id": "mine", "method": "health", "zz": 1}),
            "mine",
            "at root: unexpected property 'zz'",
        ),
    ] {
        client.send(&frame).await;
        let answer = client.frame().await;
        assert_eq!(answer["id"], id);
        assert_eq!(answer["error"]["message"], format!("invalid request frame: {why}"));
    }
    let named = json!({"type": "req", "id": "1", "method": "no", "expectedProfileId": "p"});
    client.send(&named).await;
    let answer = client.frame().await;
    assert_eq!(answer["error"]["details"]["reason"], "EXPECTED_PROFILE_MISMATCH", "{answer}");
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
async fn what_events_leave_behind_is_bounded_in_every_part_and_in_all() {
    const FIELDS: [&str; 14] = [
        "sessionKey",
        "deviceId",
        "instanceId",
        "host",
        "ip",
        "mode",
        "version",
        "platform",
        "deviceFamily",
        "modelIdentifier",
        "reason",
        "roles",
        "scopes",
        "tags",
    ];
    let lab = Lab::new();
    let (mut client, _) = lab.connected(&json!({"scopes": ["operator.admin"]})).await;
    for field in FIELDS {
        let mut params = json!({"text": "x"});
        let long = "x".repeat(513);
        let is_list = ["roles", "scopes", "tags"].contains(&field);
        params[field] = if is_list { json!([long]) } else { json!(long) };
        let answer = client.call("system-event", params).await;
        assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
        assert!(answer["error"]["message"].as_str().unwrap().contains(field), "{answer}");
    }
    assert!(lab.shared.store.news().all().await.unwrap().is_empty());
    // As many sessions and lines as there may be and some more, each as long as it may be and longer.
    for session in 0..66 {
        for line in 0..22 {
            let text = format!("{line}{}", "\u{5b57}".repeat(5_000));
            let key = format!("{session:0512}");
            asks(&mut client, "1", "system-event", json!({"text": text, "sessionKey": key})).await;
            assert_eq!(answer_to(&mut client, "1").await["ok"], true);
        }
    }
    let kept = lab.shared.store.news().all().await.unwrap();
    let bytes: usize = kept.iter().map(|line| line.session.len() + line.text.len()).sum();
    assert_eq!(kept.len(), 64 * 20);
    assert!(bytes <= 64 * 20 * (512 + 3 * 4_096), "{bytes}");
    let shown = lab.shared.hub.presence(crate::gateway::clock::now_ms());
    assert!(shown.iter().all(|line| line.text.as_ref().is_none_or(|text| text.len() <= 3 * 4_096)));
}

#[tokio::test(start_paused = true)]
async fn who_asks_without_a_pause_is_answered_meanwhile() {
    const COUNT: usize = 20_000;
    let lab = Lab::new();
    let (mut sink, mut stream) = lab.admitted().await.socket.split();
    let asked = AtomicUsize::new(0);
    let asking = async {
        for id in 0..COUNT {
            let request = json!({"type": "req", "id": id.to_string(), "method": "health"});
            sink.feed(Message::text(request.to_string())).await.unwrap();
            asked.fetch_add(1, SeqCst);
        }
        sink.flush().await.unwrap();
    };
    let reading = async {
        for id in 0..COUNT {
            let answer = stream.next().await.unwrap().unwrap();
            assert!(answer.to_text().unwrap().contains(&format!(r#""id":"{id}""#)), "{answer}");
            if id == 0 {
                assert!(asked.load(SeqCst) < COUNT, "the first answer came after the last request");
            }
        }
    };
    tokio::join!(asking, reading);
}
