//! Devices: silent pairing, requests, tokens and what ends them, setup codes.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::*;
use crate::{
    gateway::clock::now_ms,
    protocol::{
        self, Connect,
        device::{TextVersion, device_id, signed_text},
    },
};

/// A machine with a key.
pub(super) struct Machine(Ed25519KeyPair);

impl Machine {
    pub(super) fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    pub(super) fn id(&self) -> String {
        device_id(self.0.public_key().as_ref())
    }

    /// The device that a `connect` offers at this time, for a challenge of `nonce`.
    pub(super) fn signs(&self, connect: &Connect, nonce: &str, now: u64) -> protocol::Device {
        let text = signed_text(TextVersion::V3, connect, &self.id(), now, nonce);
        protocol::Device {
            id: self.id(),
            public_key: URL_SAFE_NO_PAD.encode(self.0.public_key()),
            signature: URL_SAFE_NO_PAD.encode(self.0.sign(text.as_bytes())),
            signed_at: now,
            nonce: nonce.to_owned(),
        }
    }

    /// Signs and sends `connect`; the answer.
    async fn knocks(&self, lab: &Lab, changes: &Value) -> (Client, Value) {
        self.knocks_from(lab, PeerInfo::loopback(), &[], changes).await
    }

    /// The same from elsewhere, with these headers.
    pub(super) async fn knocks_from(
        &self,
        lab: &Lab,
        peer: PeerInfo,
        headers: &[(&str, &str)],
        changes: &Value,
    ) -> (Client, Value) {
        let (mut client, challenge) = lab.knocked_from(peer, headers).await;
        let nonce = challenge["payload"]["nonce"].as_str().unwrap();
        let mut frame = connect(changes);
        let parsed: Connect = serde_json::from_value(frame["params"].clone()).unwrap();
        frame["params"]["device"] = json!(self.signs(&parsed, nonce, now_ms()));
        client.send(&frame).await;
        let answer = client.frame().await;
        (client, answer)
    }

    /// Comes in, and the token that it was given.
    pub(super) async fn enters(&self, lab: &Lab, changes: &Value) -> (Client, String) {
        let (client, answer) = self.knocks(lab, changes).await;
        let token = answer["payload"]["auth"]["deviceToken"].as_str();
        (client, token.unwrap_or_else(|| panic!("{answer}")).to_owned())
    }

    /// The code of the refusal.
    async fn is_refused(&self, lab: &Lab, changes: &Value) -> (String, Value) {
        let (client, answer) = self.knocks(lab, changes).await;
        let details = answer["error"]["details"].clone();
        let code = details["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        client.closed().await;
        (code, details)
    }
}

fn with(auth: &Value, scopes: &[&str]) -> Value {
    json!({"auth": auth, "scopes": scopes})
}

const NODE: &str = r#"{"role": "node", "scopes": [],
    "client": {"id": "node-host", "version": "1", "platform": "linux", "mode": "node"}}"#;

fn node(auth: &Value) -> Value {
    let mut changes: Value = serde_json::from_str(NODE).unwrap();
    changes["auth"] = auth.clone();
    changes
}

async fn administrator(lab: &Lab) -> Client {
    lab.connected(&json!({"scopes": ["operator.admin"]})).await.0
}

#[tokio::test(start_paused = true)]
async fn a_device_on_this_machine_is_paired_silently_and_comes_back_with_its_token() {
    let lab = Lab::new();
    let (machine, other) = (Machine::new(1), Machine::new(2));
    let (_client, token) = machine.enters(&lab, &json!({})).await;
    // The same token each time, in whichever field a client keeps it.
    for auth in [json!({"deviceToken": token}), json!({"token": token}), json!({"token": TOKEN})] {
        let (_, again) = machine.enters(&lab, &with(&auth, &["operator.read"])).await;
        assert_eq!(again, token);
    }
    // It is bound to its device, and its presence alone buys nothing.
    for (who, auth, code) in [
        (&other, json!({"deviceToken": token}), "AUTH_DEVICE_TOKEN_MISMATCH"),
        (&other, json!({"token": token}), "AUTH_TOKEN_MISMATCH"),
        (&machine, json!({"deviceToken": "no"}), "AUTH_DEVICE_TOKEN_MISMATCH"),
        (&machine, json!({"deviceToken": ""}), "AUTH_DEVICE_TOKEN_MISMATCH"),
    ] {
        assert_eq!(who.is_refused(&lab, &with(&auth, &[])).await.0, code, "{auth}");
    }
    let (client, answer) = lab.connected(&with(&json!({"deviceToken": token}), &[])).await;
    assert_eq!(answer["error"]["details"]["code"], "AUTH_TOKEN_MISSING");
    client.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_token_holds_what_was_approved_and_an_upgrade_asks_with_its_reason() {
    let lab = Lab::new();
    let machine = Machine::new(1);
    let (_client, token) = machine.enters(&lab, &json!({})).await;
    let more = with(&json!({"deviceToken": token}), &["operator.admin"]);
    let (code, details) = machine.is_refused(&lab, &more).await;
    assert_eq!((code.as_str(), &details["reason"]), ("PAIRING_REQUIRED", &json!("scope-upgrade")));
    assert_eq!(details["approvedScopes"], json!(["operator.read"]));
    let (code, details) = machine.is_refused(&lab, &node(&json!({"deviceToken": token}))).await;
    assert_eq!(code, "AUTH_DEVICE_TOKEN_MISMATCH", "{details}");
    let (code, details) = machine.is_refused(&lab, &node(&json!({"token": TOKEN}))).await;
    assert_eq!((code.as_str(), &details["reason"]), ("PAIRING_REQUIRED", &json!("role-upgrade")));
}

#[tokio::test(start_paused = true)]
async fn a_node_waits_until_somebody_who_may_approves_it() {
    let lab = Lab::new();
    let machine = Machine::new(1);
    let mut admin = administrator(&lab).await;
    let (mut weak, _) = lab.connected(&json!({"scopes": ["operator.pairing"]})).await;
    let (code, details) = machine.is_refused(&lab, &node(&json!({"token": TOKEN}))).await;
    assert_eq!(code, "PAIRING_REQUIRED");
    let event = weak.frame().await;
    assert_eq!(event["event"], "device.pair.requested");
    assert_eq!(event["payload"]["requestId"], details["requestId"]);
    assert_eq!(admin.frame().await["payload"]["deviceId"], json!(machine.id()));
    // The same again is the same request.
    let (_, again) = machine.is_refused(&lab, &node(&json!({"token": TOKEN}))).await;
    assert_eq!(again["requestId"], details["requestId"]);
    let request = json!({"requestId": details["requestId"]});
    let denied = weak.call("device.pair.approve", request.clone()).await;
    assert_eq!(denied["error"]["message"], "device pairing approval denied", "{denied}");
    admin
        .send(
            &json!({"type": "req", "id": "1", "method": "device.pair.approve", "params": request}),
        )
        .await;
    assert_eq!(admin.frame().await["event"], "device.pair.resolved");
    let approved = admin.frame().await;
    assert_eq!(approved["payload"]["device"]["roles"], json!(["node"]), "{approved}");
    let (_client, token) = machine.enters(&lab, &node(&json!({"token": TOKEN}))).await;
    let (_client, answer) = machine.knocks(&lab, &node(&json!({"deviceToken": token}))).await;
    assert_eq!(answer["payload"]["auth"]["role"], "node");
}

#[tokio::test(start_paused = true)]
async fn with_the_switch_off_operators_ask_too_and_nobody_approves_more_than_they_hold() {
    let lab = Lab::new();
    let live = (*lab.shared.live()).clone();
    lab.shared.set_live(Live { pair_local: Some(false), ..live });
    let machine = Machine::new(1);
    let (mut weak, _) = lab.connected(&json!({"scopes": ["operator.pairing"]})).await;
    let wants = with(&json!({"token": TOKEN}), &["operator.admin"]);
    let (code, details) = machine.is_refused(&lab, &wants).await;
    assert_eq!(code, "PAIRING_REQUIRED");
    assert_eq!(weak.frame().await["event"], "device.pair.requested");
    let request = json!({"requestId": details["requestId"]});
    let denied = weak.call("device.pair.approve", request).await;
    assert_eq!(denied["error"]["details"]["missingScope"], "operator.admin", "{denied}");
}

#[tokio::test(start_paused = true)]
async fn what_takes_a_right_away_ends_the_connection_and_the_token() {
    for (method, params) in [
        ("device.token.rotate", json!({"role": "operator"})),
        ("device.token.revoke", json!({"role": "operator"})),
        ("device.pair.remove", json!({})),
    ] {
        let lab = Lab::new();
        let machine = Machine::new(1);
        let mut admin = administrator(&lab).await;
        let (client, token) = machine.enters(&lab, &json!({})).await;
        assert_eq!(admin.frame().await["event"], "device.pair.resolved");
        let mut params = params;
        params["deviceId"] = json!(machine.id());
        let answer = admin.call(method, params).await;
        assert_eq!(answer["ok"], true, "{answer}");
        assert!(answer["payload"]["token"].is_null(), "the token went to somebody else");
        assert_eq!(client.closed().await.0, 1008, "{method}");
        let old = with(&json!({"deviceToken": token}), &["operator.read"]);
        let (code, _) = machine.is_refused(&lab, &old).await;
        assert_eq!(code, "AUTH_DEVICE_TOKEN_MISMATCH", "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_with_its_own_token_minds_itself_alone() {
    let lab = Lab::new();
    let (machine, other) = (Machine::new(1), Machine::new(2));
    let scopes = ["operator.pairing"];
    let (_client, token) = machine.enters(&lab, &with(&json!({"token": TOKEN}), &scopes)).await;
    let (_other, _) = other.enters(&lab, &json!({})).await;
    let own = with(&json!({"deviceToken": token}), &scopes);
    let (mut client, _) = machine.enters(&lab, &own).await;
    let list = client.call("device.pair.list", json!({})).await;
    assert_eq!(list["payload"]["paired"].as_array().unwrap().len(), 1, "{list}");
    for (method, mut params) in [
        ("device.pair.remove", json!({})),
        ("device.pair.rename", json!({"label": "mine"})),
        ("device.token.rotate", json!({"role": "operator"})),
        ("device.token.revoke", json!({"role": "operator"})),
    ] {
        params["deviceId"] = json!(other.id());
        assert_eq!(client.call(method, params).await["ok"], false, "{method}");
    }
    let rotate = json!({"deviceId": machine.id(), "role": "operator"});
    let answer = client.call("device.token.rotate", rotate).await;
    let fresh = answer["payload"]["token"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert_ne!(fresh, token);
    assert_eq!(client.closed().await.0, 1008, "the old token's connection went on");
    machine.enters(&lab, &with(&json!({"deviceToken": fresh}), &scopes)).await;
}

#[tokio::test(start_paused = true)]
async fn a_setup_code_pairs_one_node_and_no_other() {
    let lab = Lab::new();
    let (machine, other) = (Machine::new(1), Machine::new(2));
    let mut admin = administrator(&lab).await;
    let params =
        json!({"bootstrapProfile": "node", "joinUrl": true, "publicUrl": "ws://127.0.0.1:18789"});
    let issued = admin.call("device.pair.setupCode", params).await["payload"].clone();
    let join = issued["joinUrl"].as_str().unwrap_or_else(|| panic!("{issued}"));
    let path = join.strip_prefix("http://127.0.0.1:18789").unwrap();
    let look = plain(&lab, &format!("HEAD {path} HTTP/1.1\r\nHost: 127.0.0.1")).await;
    assert!(look.0.contains("404"), "a look used the code up");
    let head = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1");
    let (status, body) = plain(&lab, &head).await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    assert!(plain(&lab, &head).await.0.contains("404"), "a join URL gave its code twice");
    let payload: Value = serde_json::from_str(&body).unwrap();
    let code = URL_SAFE_NO_PAD.decode(issued["setupCode"].as_str().unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&code).unwrap(), payload);
    let auth = json!({"bootstrapToken": payload["bootstrapToken"]});
    // It makes nodes, and no operators.
    let operator = with(&auth, &["operator.read"]);
    assert_eq!(machine.is_refused(&lab, &operator).await.0, "AUTH_BOOTSTRAP_TOKEN_INVALID");
    let (_client, token) = machine.enters(&lab, &node(&auth)).await;
    assert_eq!(other.is_refused(&lab, &node(&auth)).await.0, "AUTH_BOOTSTRAP_TOKEN_INVALID");
    machine.enters(&lab, &node(&json!({"deviceToken": token}))).await;
    assert_eq!(admin.frame().await["event"], "device.pair.resolved");
    assert_eq!(admin.frame().await["event"], "node.pair.requested");
    let status = json!({"setupId": issued["setupId"]});
    let mut status = admin.call("device.pair.setupStatus", status).await;
    while status["type"] == "event" {
        status = admin.frame().await;
    }
    assert_eq!(status["payload"]["completion"]["deviceId"], json!(machine.id()), "{status}");
}

#[tokio::test(start_paused = true)]
async fn who_was_removed_and_takes_nothing_is_closed_all_the_same() {
    let lab = Lab::new();
    let machine = Machine::new(1);
    let mut admin = administrator(&lab).await;
    let (mut client, _) = machine.enters(&lab, &json!({})).await;
    assert_eq!(admin.frame().await["event"], "device.pair.resolved");
    // It asks and never reads, until nothing more goes out to it.
    let ask = json!({"type": "req", "id": "1", "method": "status", "params": {}});
    for _ in 0..2_000 {
        client.send(&ask).await;
    }
    let answer = admin.call("device.pair.remove", json!({"deviceId": machine.id()})).await;
    assert_eq!(answer["ok"], true, "{answer}");
    // Long before a write that stands still would end it.
    let Client { socket, served, .. } = client;
    timeout(Duration::from_secs(35), served).await.expect("it lives on").unwrap();
    drop(socket);
    assert_eq!(lab.shared.hub.count(), 1);
}

/// Has `admin` approve the machine as a node; what it then connects with.
async fn approved_node(lab: &Lab, machine: &Machine, admin: &mut Client) -> Value {
    let secret = node(&json!({"token": TOKEN}));
    let (_, details) = machine.is_refused(lab, &secret).await;
    admin.frame().await;
    let approve = json!({"requestId": details["requestId"]});
    admin.call("device.pair.approve", approve).await;
    secret
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_removed_while_it_comes_in_does_not_get_in() {
    let lab = Lab::new();
    let machine = Machine::new(1);
    let mut admin = administrator(&lab).await;
    let secret = approved_node(&lab, &machine, &mut admin).await;
    admin.frame().await;
    // Everything that has to do with the nodes' records waits, as while the disk is slow.
    let busy = lab.shared.nodes.busy().await;
    let remove = json!({"type": "req", "id": "r", "method": "device.pair.remove",
        "params": {"deviceId": machine.id()}});
    let removal = async {
        // The node is known to be paired, and waits for its record.
        tokio::time::sleep(Duration::from_secs(1)).await;
        admin.send(&remove).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(busy);
    };
    let ((client, answer), ()) = tokio::join!(machine.knocks(&lab, &secret), removal);
    assert_eq!(answer["error"]["message"], "pairing changed; connect again", "{answer}");
    client.closed().await;
    let mut last = admin.frame().await;
    while last["id"] != "r" {
        last = admin.frame().await;
    }
    assert_eq!(last["ok"], true, "{last}");
    let list = admin.call("node.pair.list", json!({})).await;
    assert_eq!(list["payload"], json!({"pending": [], "paired": []}), "{list}");
}

#[tokio::test(start_paused = true)]
async fn a_removal_comes_to_its_end_though_the_caller_leaves() {
    let lab = Lab::new();
    let machine = Machine::new(1);
    let mut admin = administrator(&lab).await;
    let secret = approved_node(&lab, &machine, &mut admin).await;
    let (_client, answer) = machine.knocks(&lab, &secret).await;
    assert_eq!(answer["ok"], true, "{answer}");
    let list = administrator(&lab).await.call("node.pair.list", json!({})).await;
    assert_ne!(list["payload"], json!({"pending": [], "paired": []}), "{list}");
    // Everything that has to do with the nodes' records waits, as while the disk is slow.
    let busy = lab.shared.nodes.busy().await;
    let remove = json!({"type": "req", "id": "r", "method": "device.pair.remove",
        "params": {"deviceId": machine.id()}});
    admin.send(&remove).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(admin);
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(busy);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let list = administrator(&lab).await.call("node.pair.list", json!({})).await;
    assert_eq!(list["payload"], json!({"pending": [], "paired": []}), "{list}");
}
