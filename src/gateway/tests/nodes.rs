//! Commands on a node, from an operator's connection to the node's and back.

use super::{
    devices::{Machine, administrator, answer_to, asks, event_of},
    *,
};

const CAMERA: &str = "camera.list";

/// What a telephone says of itself.
fn offer() -> Value {
    let client = json!({"id": "openclaw-ios", "version": "1", "platform": "ios",
        "deviceFamily": "iPhone", "mode": "node"});
    json!({"role": "node", "scopes": [], "client": client, "caps": ["camera"],
        "commands": [CAMERA]})
}

/// A telephone that may list its cameras.
async fn telephone(lab: &Lab, admin: &mut Client) -> (Client, Value) {
    node_that(lab, admin, offer()).await
}

/// A node that may do what it offers, as its `connect` says, and its device.
pub(super) async fn node_that(lab: &Lab, admin: &mut Client, offer: Value) -> (Client, Value) {
    let (machine, node) = (Machine::new(7), offer);
    let (_, refused) = machine.knocks(lab, &node).await;
    let request = json!({"requestId": refused["error"]["details"]["requestId"]});
    asks(admin, "pair", "device.pair.approve", request).await;
    assert_eq!(answer_to(admin, "pair").await["ok"], true);
    let (client, hello) = machine.knocks(lab, &node).await;
    assert_eq!(hello["ok"], true, "{hello}");
    asks(admin, "list", "node.pair.list", json!({})).await;
    let pending = answer_to(admin, "list").await["payload"]["pending"].clone();
    let request = json!({"requestId": pending[0]["requestId"]});
    asks(admin, "approve", "node.pair.approve", request).await;
    assert_eq!(answer_to(admin, "approve").await["ok"], true);
    (client, json!(machine.id()))
}

/// Has the node asked, and answer so; what the operator hears.
async fn invokes(
    (admin, phone): (&mut Client, &mut Client),
    node: &Value,
    key: &str,
    answer: &Value,
) -> Value {
    let params = json!({"nodeId": node, "command": CAMERA, "idempotencyKey": key});
    asks(admin, key, "node.invoke", params).await;
    let mut result = answer.clone();
    result["id"] = loop {
        let frame = phone.frame().await;
        if frame["event"] == "node.invoke.request" {
            break frame["payload"]["id"].clone();
        }
    };
    result["nodeId"] = node.clone();
    asks(phone, "result", "node.invoke.result", result).await;
    assert_eq!(answer_to(phone, "result").await["payload"], json!({"ok": true}));
    answer_to(admin, key).await
}

#[tokio::test(start_paused = true)]
async fn a_command_that_waits_for_the_foreground_is_queued_once_however_often_it_is_asked_for() {
    let lab = Lab::new();
    let mut admin = administrator(&lab).await;
    let (mut phone, node) = telephone(&lab, &mut admin).await;
    let error = json!({"code": "NODE_BACKGROUND_UNAVAILABLE", "message": "in the background"});
    let refused = json!({"ok": false, "error": error});
    let queued =
        invokes((&mut admin, &mut phone), &node, "k", &refused).await["error"]["details"].clone();
    assert_eq!(queued["code"], "QUEUED_UNTIL_FOREGROUND", "{queued}");
    let again = json!({"nodeId": node, "command": CAMERA, "idempotencyKey": "k"});
    for is_done in [false, true] {
        asks(&mut admin, "again", "node.invoke", again.clone()).await;
        let details = answer_to(&mut admin, "again").await["error"]["details"].clone();
        assert_eq!(details["queuedActionId"], queued["queuedActionId"], "{details}");
        asks(&mut phone, "pull", "node.pending.pull", json!({})).await;
        let actions = answer_to(&mut phone, "pull").await["payload"]["actions"].clone();
        assert_eq!(actions.as_array().unwrap().len(), usize::from(!is_done), "{actions}");
        let ids = json!({"ids": [queued["queuedActionId"]]});
        asks(&mut phone, "done", "node.pending.ack", ids).await;
        assert_eq!(answer_to(&mut phone, "done").await["ok"], true);
    }
    let other = json!({"nodeId": node, "command": "camera.snap", "idempotencyKey": "k"});
    let mut back = again.clone();
    back["params"] = json!({"facing": "back"});
    for other in [other, back] {
        asks(&mut admin, "other", "node.invoke", other).await;
        let refused = answer_to(&mut admin, "other").await;
        assert_eq!(refused["error"]["code"], "INVALID_REQUEST", "{refused}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_node_answers_is_passed_on_as_it_is_and_what_cannot_be_read_as_its_text() {
    let lab = Lab::new();
    let mut admin = administrator(&lab).await;
    let (mut phone, node) = telephone(&lab, &mut admin).await;
    let deep = "[".repeat(500) + &"]".repeat(500);
    for (number, (result, payload)) in [
        (json!({"payload": {"b": 1, "a": [2.50]}}), json!({"b": 1, "a": [2.5]})),
        (json!({"payloadJSON": r#"{"b": 1}"#, "payload": 5}), json!({"b": 1})),
        (json!({"payloadJSON": {"b": 1}}), json!({"b": 1})),
        (json!({"payloadJSON": null, "payload": 5}), json!(5)),
        (json!({"payloadJSON": "{"}), json!({"payloadJSON": "{"})),
        (json!({"payloadJSON": deep}), json!({"payloadJSON": deep})),
        (json!({}), Value::Null),
    ]
    .into_iter()
    .enumerate()
    {
        let mut result = result;
        result["ok"] = json!(true);
        let key = number.to_string();
        let heard = invokes((&mut admin, &mut phone), &node, &key, &result).await;
        assert_eq!(heard["payload"]["payload"], payload, "{heard}");
        let text = result["payloadJSON"].as_str().map(str::to_owned);
        assert_eq!(heard["payload"]["payloadJSON"], json!(text), "{heard}");
    }
}

/// The ids of the work that a telephone is given.
async fn drains(phone: &mut Client) -> Vec<String> {
    asks(phone, "drain", "node.pending.drain", json!({})).await;
    let drained = answer_to(phone, "drain").await["payload"]["items"].clone();
    let ids =
        drained.as_array().unwrap().iter().map(|item| item["id"].as_str().unwrap().to_owned());
    ids.collect()
}

#[tokio::test(start_paused = true)]
async fn work_is_stored_before_it_is_confirmed_and_comes_again_only_while_its_answer_may_be_lost() {
    let lab = Lab::new();
    let mut admin = administrator(&lab).await;
    let (mut phone, node) = telephone(&lab, &mut admin).await;
    let leave = json!({"nodeId": node, "type": "location.request", "wake": false});
    asks(&mut admin, "leave", "node.pending.enqueue", leave.clone()).await;
    let left = answer_to(&mut admin, "leave").await["payload"].clone();
    let id = left["queued"]["id"].as_str().unwrap();
    let stored = lab.shared.store.node_work().all(0).await.unwrap();
    assert_eq!((stored.len(), stored[0].work.id.as_str()), (1, id));
    assert_eq!(drains(&mut phone).await, [id, "baseline-status"]);
    // It left without another word, and whether it heard is not known.
    let (mut phone, _) = Machine::new(7).knocks(&lab, &offer()).await;
    assert_eq!(drains(&mut phone).await, [id, "baseline-status"]);
    // It reads on, and so comes to the ping behind what it was given; its pong goes ahead of all that
    // it says after that.
    asks(&mut phone, "pull", "node.pending.pull", json!({})).await;
    assert_eq!(answer_to(&mut phone, "pull").await["ok"], true);
    assert_eq!(drains(&mut phone).await, ["baseline-status"]);
    assert!(lab.shared.store.node_work().all(0).await.unwrap().is_empty());
    let (mut phone, _) = Machine::new(7).knocks(&lab, &offer()).await;
    assert_eq!(drains(&mut phone).await, ["baseline-status"]);
    // What is left for a node goes with it.
    asks(&mut admin, "leave", "node.pending.enqueue", leave.clone()).await;
    assert_eq!(answer_to(&mut admin, "leave").await["ok"], true);
    asks(&mut admin, "remove", "node.pair.remove", json!({"nodeId": node})).await;
    assert_eq!(answer_to(&mut admin, "remove").await["ok"], true);
    assert!(lab.shared.store.node_work().all(0).await.unwrap().is_empty());
    asks(&mut admin, "leave", "node.pending.enqueue", leave).await;
    assert_eq!(answer_to(&mut admin, "leave").await["error"]["message"], "unknown nodeId");
}

#[tokio::test(start_paused = true)]
async fn what_a_node_says_before_it_has_read_what_it_was_given_takes_no_work_from_it() {
    let lab = Lab::new();
    let mut admin = administrator(&lab).await;
    let (mut phone, node) = telephone(&lab, &mut admin).await;
    let leave = json!({"nodeId": node, "type": "location.request", "wake": false});
    asks(&mut admin, "leave", "node.pending.enqueue", leave).await;
    let left = answer_to(&mut admin, "leave").await["payload"]["queued"]["id"].clone();
    for method in ["node.pending.pull", "node.pending.drain"] {
        for (id, method) in [("1", "node.pending.drain"), ("2", method)] {
            let frame = json!({"type": "req", "id": id, "method": method, "params": {}});
            phone.socket.feed(Message::text(frame.to_string())).await.unwrap();
        }
        // Both leave at once, and nothing is read of what comes back.
        phone.socket.flush().await.unwrap();
        let Client { socket, served, .. } = phone;
        drop(socket);
        served.await.unwrap();
        lab.shared.finishing.close();
        lab.shared.finishing.wait().await;
        assert_eq!(lab.shared.store.node_work().all(0).await.unwrap().len(), 1, "{method}");
        (phone, _) = Machine::new(7).knocks(&lab, &offer()).await;
    }
    assert_eq!(drains(&mut phone).await, [left.as_str().unwrap(), "baseline-status"]);
}

#[tokio::test(start_paused = true)]
async fn a_program_on_a_node_is_stopped_when_whoever_wanted_it_goes() {
    let lab = Lab::new();
    let (mut admin, mut other) = (administrator(&lab).await, administrator(&lab).await);
    let client = json!({"id": "node-host", "version": "1", "platform": "linux", "mode": "node"});
    let offer = json!({"role": "node", "scopes": [], "client": client, "caps": ["system"],
        "commands": ["system.which"]});
    let (mut host, node) = node_that(&lab, &mut admin, offer).await;
    let params = json!({"nodeId": node, "command": "system.which", "idempotencyKey": "k"});
    asks(&mut other, "k", "node.invoke", params.clone()).await;
    let id = event_of(&mut host, "node.invoke.request").await["id"].clone();
    drop(other);
    let stopped = event_of(&mut host, "node.invoke.cancel").await;
    assert_eq!(stopped, json!({"invokeId": id, "nodeId": node}));
    // It is not begun a second time under its key, by whoever has the same secret.
    lab.shared.finishing.close();
    lab.shared.finishing.wait().await;
    asks(&mut admin, "again", "node.invoke", params).await;
    let again = answer_to(&mut admin, "again").await;
    assert_eq!(again["error"]["details"]["nodeError"]["code"], "ABORTED", "{again}");
}

#[tokio::test(start_paused = true)]
async fn what_a_telephone_does_is_kept_though_whoever_wanted_it_has_gone() {
    let lab = Lab::new();
    let (mut admin, mut other) = (administrator(&lab).await, administrator(&lab).await);
    let (mut phone, node) = telephone(&lab, &mut admin).await;
    let params = json!({"nodeId": node, "command": CAMERA, "idempotencyKey": "k"});
    asks(&mut other, "k", "node.invoke", params.clone()).await;
    let id = event_of(&mut phone, "node.invoke.request").await["id"].clone();
    let Client { socket, served, .. } = other;
    drop(socket);
    served.await.unwrap();
    let result = json!({"id": id, "nodeId": node, "ok": true, "payload": {"cameras": 2}});
    asks(&mut phone, "result", "node.invoke.result", result).await;
    assert_eq!(answer_to(&mut phone, "result").await["payload"], json!({"ok": true}));
    lab.shared.finishing.close();
    lab.shared.finishing.wait().await;
    asks(&mut admin, "again", "node.invoke", params).await;
    let again = answer_to(&mut admin, "again").await;
    assert_eq!(again["payload"]["payload"]["cameras"], 2, "{again}");
}

#[tokio::test(start_paused = true)]
async fn what_a_node_tells_of_its_machine_is_told_to_those_who_may_see_it() {
    let lab = Lab::new();
    let mut admin = administrator(&lab).await;
    let client = json!({"id": "node-host", "version": "1", "platform": "darwin", "mode": "node"});
    let offer = json!({"role": "node", "scopes": [], "client": client, "caps": ["system"],
        "commands": ["system.which"], "permissions": {"accessibility": true}});
    let (mut host, node) = node_that(&lab, &mut admin, offer).await;
    let (mut reader, _) = lab.connected(&json!({"scopes": ["operator.read"]})).await;
    let mut tells = async |event: &str, payload: Value| {
        asks(&mut host, "e", "node.event", json!({"event": event, "payload": payload})).await;
        let payload = answer_to(&mut host, "e").await["payload"].clone();
        (payload["handled"].clone(), payload["reason"].clone())
    };
    let stats = json!({"cpuCount": 2, "memoryTotalBytes": 2, "memoryFreeBytes": 1});
    let heard = tells("node.host.stats", stats).await;
    assert_eq!(heard, (json!(true), json!("updated")));
    let told = event_of(&mut reader, "node.hostStats").await;
    assert_eq!((&told["nodeId"], &told["hostStats"]["cpuCount"]), (&node, &json!(2)));
    let heard = tells("node.presence.activity", json!({"idleSeconds": 5})).await;
    assert_eq!(heard, (json!(true), json!("updated")));
    let told = event_of(&mut reader, "node.presence").await;
    let idle =
        told["presenceUpdatedAtMs"].as_u64().unwrap() - told["lastActiveAtMs"].as_u64().unwrap();
    assert_eq!((&told["nodeId"], idle), (&node, 5_000));
    asks(&mut reader, "list", "node.list", json!({})).await;
    let list = answer_to(&mut reader, "list").await["payload"].clone();
    let listed = &list["nodes"][0];
    assert_eq!(listed["lastActiveAtMs"], told["lastActiveAtMs"], "{listed}");
    assert_eq!((&list["activeNodeId"], &listed["active"]), (&node, &json!(true)), "{list}");
    asks(&mut reader, "one", "node.describe", json!({"nodeId": node})).await;
    assert_eq!(answer_to(&mut reader, "one").await["payload"]["active"], true);
    let heard = tells("node.presence.activity", json!({"idleSeconds": 5, "source": "app"})).await;
    assert_eq!(heard, (json!(false), json!("permission_required")), "it is not that program");
    let heard = tells("node.presence.activity", json!({"action": "clear"})).await;
    assert_eq!(heard, (json!(true), json!("cleared")));
    assert!(event_of(&mut reader, "node.presence").await["lastActiveAtMs"].is_null());
    asks(&mut reader, "list", "node.list", json!({})).await;
    let list = answer_to(&mut reader, "list").await["payload"].clone();
    assert!(list["activeNodeId"].is_null() && list["nodes"][0]["active"].is_null(), "{list}");
    let heard = tells("node.presence.activity", json!({"action": "clear"})).await;
    assert_eq!(heard, (json!(true), json!("already_clear")));
    let heard = tells("node.presence.activity", json!({"idleSeconds": "5"})).await;
    assert_eq!(heard, (json!(false), json!("invalid_payload")));
    let inventory = json!({"protocolFeatures": ["node-worker-supervisor-v6"],
        "workerHost": {"enabled": true, "capacity": {"total": 2, "available": 1}}});
    asks(&mut host, "i", "node.runnerInventory.update", inventory).await;
    assert_eq!(answer_to(&mut host, "i").await["ok"], true);
    let told = event_of(&mut reader, "node.runnerInventory.changed").await;
    assert_eq!(told, json!({"nodeId": node}));
    drop(host);
    assert_eq!(event_of(&mut reader, "node.runnerInventory.changed").await["nodeId"], node);
}
