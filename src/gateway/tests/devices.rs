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
    pub(super) async fn knocks(&self, lab: &Lab, changes: &Value) -> (Client, Value) {
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
        self.is_refused_at(lab, PeerInfo::loopback(), changes).await
    }

    /// The same where nothing is approved silently.
    async fn is_refused_elsewhere(&self, lab: &Lab, changes: &Value) -> (String, Value) {
        let address = std::net::Ipv4Addr::new(192, 0, 2, 7);
        let elsewhere = PeerInfo { address: address.into(), ..PeerInfo::loopback() };
        self.is_refused_at(lab, elsewhere, changes).await
    }

    async fn is_refused_at(&self, lab: &Lab, peer: PeerInfo, changes: &Value) -> (String, Value) {
        let (client, answer) = self.knocks_from(lab, peer, &[], changes).await;
        let details = answer["error"]["details"].clone();
        let code = details["code"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        client.closed().await;
        (code, details)
    }
}

pub(super) fn with(auth: &Value, scopes: &[&str]) -> Value {
    json!({"auth": auth, "scopes": scopes})
}

const NODE: &str = r#"{"role": "node", "scopes": [],
    "client": {"id": "node-host", "version": "1", "platform": "linux", "mode": "node"}}"#;

pub(super) fn node(auth: &Value) -> Value {
    let mut changes: Value = serde_json::from_str(NODE).unwrap();
    changes["auth"] = auth.clone();
    changes
}

pub(super) async fn administrator(lab: &Lab) -> Client {
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
    assert_eq!(answer["error"]["details"]["code"], "DEVICE_IDENTITY_REQUIRED");
    client.closed().await;
}

#[tokio::test(start_paused = true)]
async fn one_device_takes_only_so_many_places_and_its_words_are_short_in_presence() {
    let lab = Lab::new();
    let machine = Machine::new(1);
    let long = json!({"client": {"id": "openclaw-macos", "version": "1", "platform": "p".repeat(9_000),
        "mode": "ui", "displayName": "n".repeat(9_000)}});
    let mut here = Vec::new();
    for _ in 0..128 {
        here.push(machine.enters(&lab, &long).await.0);
    }
    let (one_more, answer) = machine.knocks(&lab, &long).await;
    assert_eq!(answer["error"]["code"], "UNAVAILABLE", "{answer}");
    one_more.closed().await;
    // Others come in, and are told of it in few words.
    let (_other, hello) = lab.connected(&json!({})).await;
    let presence = hello["payload"]["snapshot"]["presence"].as_array().unwrap();
    let line = presence.iter().find(|line| line["deviceId"] == machine.id()).unwrap();
    assert_eq!(line["host"], "n".repeat(128), "{line}");
    assert_eq!(line["platform"], "p".repeat(128), "{line}");
}

#[tokio::test(start_paused = true)]
async fn a_token_holds_what_was_approved_and_an_upgrade_asks_with_its_reason() {
    let lab = Lab::new();
    let machine = Machine::new(1);
    let (_client, token) = machine.enters(&lab, &json!({})).await;
    let more = |auth: &Value| with(auth, &["operator.admin"]);
    let (code, _) = machine.is_refused(&lab, &more(&json!({"deviceToken": token}))).await;
    assert_eq!(code, "AUTH_SCOPE_MISMATCH", "a token asks for nothing");
    let (code, details) = machine.is_refused_elsewhere(&lab, &more(&json!({"token": TOKEN}))).await;
    assert_eq!((code.as_str(), &details["reason"]), ("PAIRING_REQUIRED", &json!("scope-upgrade")));
    assert_eq!(details["approvedScopes"], json!(["operator.read"]));
    let (code, details) = machine.is_refused(&lab, &node(&json!({"deviceToken": token}))).await;
    assert_eq!(code, "AUTH_DEVICE_TOKEN_MISMATCH", "{details}");
    let (code, details) = machine.is_refused(&lab, &node(&json!({"token": TOKEN}))).await;
    assert_eq!((code.as_str(), &details["reason"]), ("PAIRING_REQUIRED", &json!("role-upgrade")));
}

#[tokio::test(start_paused = true)]
async fn only_what_people_look_at_is_told_to_try_again_while_its_request_waits() {
    let lab = Lab::new();
    let waiting = json!(["wait_then_retry", true, false]);
    let nothing = json!([null, null, null]);
    let address = std::net::Ipv4Addr::new(192, 0, 2, 7);
    let elsewhere = PeerInfo { address: address.into(), ..PeerInfo::loopback() };
    for (seed, role, id, mode, expected) in [
        (1, "operator", "openclaw-tui", "ui", &waiting),
        (2, "operator", "openclaw-control-ui", "ui", &waiting),
        (3, "operator", "cli", "cli", &nothing),
        (4, "operator", "openclaw-browser-copilot", "ui", &nothing),
        (5, "node", "openclaw-tui", "node", &nothing),
    ] {
        let client = json!({"id": id, "version": "1", "platform": "linux", "mode": mode});
        let scopes = if role == "node" { json!([]) } else { json!(["operator.read"]) };
        let wants =
            json!({"auth": {"token": TOKEN}, "role": role, "scopes": scopes, "client": client});
        let is_page = id == "openclaw-control-ui";
        let origin = is_page.then_some(("origin", "http://127.0.0.1:18789"));
        let (machine, headers) = (Machine::new(seed), Vec::from_iter(origin));
        let knocks = machine.knocks_from(&lab, elsewhere.clone(), &headers, &wants);
        let (client, answer) = knocks.await;
        let details = &answer["error"]["details"];
        assert_eq!(details["code"], "PAIRING_REQUIRED", "{answer}");
        let step = ["recommendedNextStep", "retryable", "pauseReconnect"];
        let told = json!(step.map(|name| details[name].clone()));
        assert_eq!(&told, expected, "{id}: {details}");
        client.closed().await;
    }
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
    let (mut client, token) = machine.enters(&lab, &node(&auth)).await;
    assert_eq!(other.is_refused(&lab, &node(&auth)).await.0, "AUTH_BOOTSTRAP_TOKEN_INVALID");
    assert_eq!(admin.frame().await["event"], "device.pair.resolved");
    assert_eq!(admin.frame().await["event"], "node.pair.requested");
    // Whether it has read that is not known before it says so.
    let what = json!({"setupId": issued["setupId"]});
    asks(&mut admin, "early", "device.pair.setupStatus", what.clone()).await;
    let status = answer_to(&mut admin, "early").await["payload"].clone();
    assert_eq!(status["deliveryUncertain"]["deviceId"], json!(machine.id()), "{status}");
    asks(&mut client, "pull", "node.pending.pull", json!({})).await;
    answer_to(&mut client, "pull").await;
    asks(&mut client, "pull", "node.pending.pull", json!({})).await;
    let told = event_of(&mut admin, "device.pair.setup.completed").await;
    asks(&mut admin, "late", "device.pair.setupStatus", what).await;
    let status = answer_to(&mut admin, "late").await["payload"].clone();
    assert_eq!((&status, &told["deviceId"]), (&json!({"completion": told}), &json!(machine.id())));
    machine.enters(&lab, &node(&json!({"deviceToken": token}))).await;
}

#[tokio::test(start_paused = true)]
async fn who_removes_every_device_lets_nobody_back_in_by_a_setup_code() {
    let lab = Lab::new();
    let (machine, other) = (Machine::new(1), Machine::new(2));
    let mut admin = administrator(&lab).await;
    machine.enters(&lab, &json!({})).await;
    let params = json!({"bootstrapProfile": "node", "publicUrl": "ws://127.0.0.1:18789"});
    asks(&mut admin, "code", "device.pair.setupCode", params).await;
    let issued = answer_to(&mut admin, "code").await["payload"].clone();
    let code = URL_SAFE_NO_PAD.decode(issued["setupCode"].as_str().unwrap()).unwrap();
    let code: Value = serde_json::from_slice(&code).unwrap();
    asks(&mut admin, "gone", "device.pair.remove", json!({"deviceId": machine.id()})).await;
    assert_eq!(answer_to(&mut admin, "gone").await["ok"], true);
    let auth = node(&json!({"bootstrapToken": code["bootstrapToken"]}));
    assert_eq!(other.is_refused(&lab, &auth).await.0, "AUTH_BOOTSTRAP_TOKEN_INVALID");
}

/// The payload of the next event of this name.
pub(super) async fn event_of(client: &mut Client, event: &str) -> Value {
    loop {
        let frame = client.frame().await;
        if frame["event"] == event {
            return frame["payload"].clone();
        }
    }
}

/// What a telephone says of itself, with this way in.
fn phone(auth: &Value) -> Value {
    let client = json!({"id": "openclaw-ios", "version": "1", "platform": "iOS 19.1",
        "deviceFamily": "iPhone", "mode": "node"});
    json!({"role": "node", "scopes": [], "client": client, "auth": auth})
}

#[tokio::test(start_paused = true)]
async fn a_setup_code_for_a_telephone_gives_what_it_says_to_a_telephone_alone() {
    let lab = Lab::new();
    let mut admin = administrator(&lab).await;
    for (number, asked, url, access) in [
        (1, json!({}), "wss://gw.example", "full"),
        (2, json!({}), "ws://192.168.1.7:1", "limited"),
        (3, json!({"bootstrapProfile": "limited"}), "wss://gw.example", "limited"),
    ] {
        let mut asked = asked;
        asked["publicUrl"] = json!(url);
        asks(&mut admin, "code", "device.pair.setupCode", asked).await;
        let issued = answer_to(&mut admin, "code").await["payload"].clone();
        assert_eq!(issued["access"], access, "{issued}");
        assert_eq!(issued["accessDowngraded"] == true, number == 2, "{issued}");
        assert!(issued["qrDataUrl"].as_str().unwrap().starts_with("data:image/png;base64,"));
        let code = URL_SAFE_NO_PAD.decode(issued["setupCode"].as_str().unwrap()).unwrap();
        let code: Value = serde_json::from_slice(&code).unwrap();
        let auth = json!({"bootstrapToken": code["bootstrapToken"]});
        let (machine, other) = (Machine::new(number), Machine::new(100 + number));
        // No other program, and nobody who wants more in the first place.
        let mut operator = phone(&auth);
        operator["role"] = json!("operator");
        for changes in [node(&auth), with(&auth, &["operator.read"]), operator] {
            let (code, _) = machine.is_refused(&lab, &changes).await;
            assert_eq!(code, "AUTH_BOOTSTRAP_TOKEN_INVALID", "{changes}");
        }
        let (client, hello) = machine.knocks(&lab, &phone(&auth)).await;
        let given = hello["payload"]["auth"]["deviceTokens"].clone();
        let [token] = given.as_array().unwrap().as_slice() else { panic!("{hello}") };
        let scopes: Vec<&str> =
            token["scopes"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
        assert_eq!(
            (&token["role"], scopes.contains(&"operator.admin")),
            (&json!("operator"), access == "full")
        );
        assert_eq!(scopes.len(), if access == "full" { 6 } else { 5 });
        assert!(!scopes.contains(&"operator.pairing"));
        assert_eq!(other.is_refused(&lab, &phone(&auth)).await.0, "AUTH_BOOTSTRAP_TOKEN_INVALID");
        // It leaves before anybody knows whether it has that, and asks once more.
        drop(client);
        let told = event_of(&mut admin, "device.pair.setup.deliveryUncertain").await;
        assert_eq!(told["setupId"], issued["setupId"]);
        let (_client, again) = machine.knocks(&lab, &phone(&auth)).await;
        assert_eq!(again["payload"]["auth"]["deviceTokens"], given, "{again}");
        let own = json!({"deviceToken": token["deviceToken"]});
        let (_client, hello) = machine.knocks(&lab, &with(&own, &scopes)).await;
        assert_eq!(hello["payload"]["auth"]["role"], "operator", "{hello}");
        let more = with(&own, &["operator.pairing"]);
        if access == "limited" {
            assert_eq!(machine.is_refused(&lab, &more).await.0, "AUTH_SCOPE_MISMATCH");
        }
    }
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

/// Asks for more under `id`, so that several requests can be told apart.
pub(super) async fn asks(client: &mut Client, id: &str, method: &str, params: Value) {
    client.send(&json!({"type": "req", "id": id, "method": method, "params": params})).await;
}

/// The answer to `id`, whatever is told before.
pub(super) async fn answer_to(client: &mut Client, id: &str) -> Value {
    loop {
        let frame = client.frame().await;
        if frame["id"] == id {
            return frame;
        }
    }
}

const REQUEST: &str = "device.scopes.requestUpgrade";
const WAIT: &str = "device.scopes.waitUpgrade";

#[tokio::test(start_paused = true)]
async fn a_device_that_is_in_asks_for_more_and_waits_for_its_token() {
    let lab = Lab::new();
    let (machine, other) = (Machine::new(1), Machine::new(2));
    let mut admin = administrator(&lab).await;
    let (mut client, token) = machine.enters(&lab, &json!({})).await;
    let (mut stranger, _) = other.enters(&lab, &json!({})).await;
    let wants = json!({"scopes": ["operator.read", "operator.write"]});
    let asked = client.call(REQUEST, wants.clone()).await;
    let request = asked["payload"].clone();
    let requested = loop {
        let frame = admin.frame().await;
        if frame["event"] == "device.pair.requested" {
            break frame["payload"].clone();
        }
    };
    assert_eq!(requested["requestId"], request["requestId"], "{asked}");
    assert_eq!((&requested["isRepair"], &requested["scopes"]), (&json!(true), &wants["scopes"]));
    // The same again is the same request, which nobody else may wait for.
    assert_eq!(client.call(REQUEST, wants).await["payload"], request);
    let not_found = stranger.call(WAIT, request.clone()).await;
    assert_eq!(not_found["error"]["message"], "scope upgrade expired or not found", "{not_found}");
    asks(&mut client, WAIT, WAIT, request.clone()).await;
    asks(&mut admin, "approve", "device.pair.approve", request.clone()).await;
    assert_eq!(answer_to(&mut admin, "approve").await["ok"], true);
    let approved = client.frame().await["payload"].clone();
    assert_eq!(approved["status"], "approved", "{approved}");
    assert_eq!(approved["scopes"], json!(["operator.read", "operator.write"]));
    let fresh = approved["deviceToken"].as_str().unwrap().to_owned();
    assert_ne!(fresh, token, "a token never comes to hold more");
    // Whoever asks a little later hears the same; this connection stays what it was.
    assert_eq!(client.call(WAIT, request).await["payload"]["status"], "approved");
    let routing = json!({"triggers": ["x"]});
    assert_eq!(client.call("voicewake.set", routing).await["error"]["code"], "FORBIDDEN");
    let with_token = |token: &str| with(&json!({"deviceToken": token}), &["operator.read"]);
    let (_client, again) = machine.enters(&lab, &with_token(&fresh)).await;
    assert_eq!(again, fresh, "the new one stays");
    let (code, _) = machine.is_refused(&lab, &with_token(&token)).await;
    assert_eq!(code, "AUTH_DEVICE_TOKEN_MISMATCH", "and the old one is worth nothing any more");
    machine.enters(&lab, &with(&json!({"deviceToken": fresh}), &["operator.write"])).await;
}

/// A device that was let in to read, and was approved to write while nobody told it.
async fn with_a_lost_answer(lab: &Lab, machine: &Machine, admin: &mut Client) -> String {
    let (mut client, token) = machine.enters(lab, &json!({})).await;
    let wants = json!({"scopes": ["operator.read", "operator.write"]});
    approves(admin, client.call(REQUEST, wants).await["payload"].clone()).await;
    token
}

async fn approves(admin: &mut Client, request: Value) {
    asks(admin, "approve", "device.pair.approve", request).await;
    let approved = answer_to(admin, "approve").await;
    assert_eq!(approved["ok"], true, "{approved}");
}

fn by_token(token: &str, scope: &str) -> Value {
    with(&json!({"deviceToken": token}), &[scope])
}

#[tokio::test(start_paused = true)]
async fn an_approval_whose_answer_is_lost_locks_nobody_out_and_its_token_comes_with_the_next_hello()
{
    let lab = Lab::new();
    let (machine, other) = (Machine::new(1), Machine::new(2));
    let mut admin = administrator(&lab).await;
    let token = with_a_lost_answer(&lab, &machine, &mut admin).await;
    // The secret says nothing about which token the device has.
    let secret = with(&json!({"token": TOKEN}), &["operator.write"]);
    let (_, fresh) = machine.enters(&lab, &secret).await;
    // What the device still has is good for what it was, in either field, and for it alone.
    for auth in [json!({"deviceToken": token}), json!({"token": token})] {
        let (_, hello) = machine.knocks(&lab, &with(&auth, &["operator.read"])).await;
        let auth = &hello["payload"]["auth"];
        assert_eq!(auth["scopes"], json!(["operator.read"]), "{hello}");
        assert_eq!(auth["deviceToken"], fresh, "the lost one: {hello}");
    }
    let (code, _) = machine.is_refused(&lab, &by_token(&token, "operator.write")).await;
    assert_eq!(code, "AUTH_SCOPE_MISMATCH", "a token never comes to hold more");
    let (code, _) = other.is_refused(&lab, &by_token(&token, "operator.read")).await;
    assert_eq!(code, "AUTH_DEVICE_TOKEN_MISMATCH", "it is another's");
    let (code, _) = machine.is_refused(&lab, &node(&json!({"deviceToken": token}))).await;
    assert_eq!(code, "AUTH_DEVICE_TOKEN_MISMATCH", "it is for another role");
    // With the new one shown, it is over.
    machine.enters(&lab, &by_token(&fresh, "operator.write")).await;
    let (code, _) = machine.is_refused(&lab, &by_token(&token, "operator.read")).await;
    assert_eq!(code, "AUTH_DEVICE_TOKEN_MISMATCH");
}

#[tokio::test(start_paused = true)]
async fn a_second_upgrade_before_the_first_use_leaves_both_tokens_before_it_good() {
    let lab = Lab::new();
    let machine = Machine::new(1);
    let mut admin = administrator(&lab).await;
    let first = with_a_lost_answer(&lab, &machine, &mut admin).await;
    let (mut client, second) = machine.enters(&lab, &by_token(&first, "operator.read")).await;
    let wants = json!({"scopes": ["operator.read", "operator.approvals"]});
    approves(&mut admin, client.call(REQUEST, wants).await["payload"].clone()).await;
    let (_, third) = machine.enters(&lab, &by_token(&first, "operator.read")).await;
    let (_, same) = machine.enters(&lab, &by_token(&second, "operator.write")).await;
    assert!(third == same && third != second && second != first);
    // Who shows the second has no more use for the first.
    let (code, _) = machine.is_refused(&lab, &by_token(&first, "operator.read")).await;
    assert_eq!(code, "AUTH_DEVICE_TOKEN_MISMATCH");
    let (code, _) = machine.is_refused(&lab, &by_token(&second, "operator.approvals")).await;
    assert_eq!(code, "AUTH_SCOPE_MISMATCH");
    machine.enters(&lab, &by_token(&third, "operator.approvals")).await;
    let (code, _) = machine.is_refused(&lab, &by_token(&second, "operator.write")).await;
    assert_eq!(code, "AUTH_DEVICE_TOKEN_MISMATCH");
}

#[tokio::test(start_paused = true)]
async fn what_takes_a_right_away_ends_the_token_before_as_well() {
    for method in ["device.token.rotate", "device.token.revoke", "device.pair.remove"] {
        let lab = Lab::new();
        let machine = Machine::new(1);
        let mut admin = administrator(&lab).await;
        let token = with_a_lost_answer(&lab, &machine, &mut admin).await;
        let own = by_token(&token, "operator.read");
        let (client, fresh) = machine.enters(&lab, &own).await;
        let mut params = json!({"deviceId": machine.id()});
        if method != "device.pair.remove" {
            params["role"] = json!("operator");
        }
        let answer = admin.call(method, params).await;
        assert_eq!(answer["ok"], true, "{answer}");
        assert_eq!(client.closed().await.0, 1008, "{method}");
        for token in [&token, &fresh] {
            let (code, _) = machine.is_refused(&lab, &by_token(token, "operator.read")).await;
            assert_eq!(code, "AUTH_DEVICE_TOKEN_MISMATCH", "{method}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_comes_in_with_more_by_the_secret_gets_another_token_with_its_time() {
    let lab = Lab::new();
    let machine = Machine::new(1);
    let auth = async |scopes: &[&str]| {
        let (_, hello) = machine.knocks(&lab, &with(&json!({"token": TOKEN}), scopes)).await;
        hello["payload"]["auth"].clone()
    };
    let before = auth(&["operator.read"]).await;
    assert!(before["issuedAtMs"].as_u64().is_some_and(|at| at <= now_ms()), "{before}");
    assert_eq!(auth(&["operator.read"]).await, before);
    let after = auth(&["operator.write"]).await;
    assert_ne!(after["deviceToken"], before["deviceToken"]);
    assert!(after["issuedAtMs"].as_u64() >= before["issuedAtMs"].as_u64(), "{after}");
    // Who asks for less has the same token.
    assert_eq!(auth(&["operator.read"]).await["deviceToken"], after["deviceToken"]);
    let old = with(&json!({"deviceToken": before["deviceToken"]}), &["operator.read"]);
    // The answer may have been lost: the old one is good until the new one is shown.
    assert_eq!(machine.enters(&lab, &old).await.1, after["deviceToken"]);
    let fresh = with(&json!({"deviceToken": after["deviceToken"]}), &["operator.write"]);
    machine.enters(&lab, &fresh).await;
    assert_eq!(machine.is_refused(&lab, &old).await.0, "AUTH_DEVICE_TOKEN_MISMATCH");
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_turned_down_by_whom_may_by_another_request_or_by_time() {
    let lab = Lab::new();
    let machine = Machine::new(1);
    let mut admin = administrator(&lab).await;
    let (mut client, _) = machine.enters(&lab, &json!({})).await;
    let wants = |scope: &str| json!({"scopes": ["operator.read", scope]});
    let rejected = client.call(REQUEST, wants("operator.write")).await["payload"].clone();
    asks(&mut client, WAIT, WAIT, rejected.clone()).await;
    asks(&mut admin, "reject", "device.pair.reject", rejected).await;
    assert_eq!(client.frame().await["payload"]["status"], "rejected");
    // A second request of the device, by whichever way, takes the place of the first.
    let first = client.call(REQUEST, wants("operator.write")).await["payload"].clone();
    asks(&mut client, "first", WAIT, first.clone()).await;
    let second = client.call(REQUEST, wants("operator.approvals")).await;
    let (gone, second) = if second["id"] == "first" {
        (second, client.frame().await)
    } else {
        (client.frame().await, second)
    };
    assert_eq!(
        (&gone["payload"]["status"], &gone["payload"]["requestId"]),
        (&json!("rejected"), &first["requestId"])
    );
    let second = second["payload"].clone();
    asks(&mut client, WAIT, WAIT, second).await;
    let more = with(&json!({"token": TOKEN}), &["operator.admin"]);
    assert_eq!(machine.is_refused_elsewhere(&lab, &more).await.0, "PAIRING_REQUIRED");
    assert_eq!(client.frame().await["payload"]["status"], "rejected");
    let third = client.call(REQUEST, wants("operator.write")).await["payload"].clone();
    let since = Instant::now();
    asks(&mut client, WAIT, WAIT, third.clone()).await;
    assert_eq!(client.call("health", json!({})).await["ok"], true, "it waits");
    // The store goes by the clock on the wall, and somebody comes when that is five minutes on.
    let later = now_ms() + 300_000;
    let id = uuid::Uuid::new_v4().to_string();
    lab.shared.store.devices().ask(id, upgrades::stranger(9), later).await.unwrap();
    let expired = loop {
        let frame = client.frame().await;
        if frame["type"] == "res" {
            break frame["payload"].clone();
        }
    };
    assert_eq!(expired, json!({"status": "expired", "requestId": third["requestId"]}));
    assert_eq!(since.elapsed().as_secs().div_ceil(10), 30, "it waits five minutes");
}

#[tokio::test(start_paused = true)]
async fn a_request_as_a_node_outlives_what_its_device_asks_as_an_operator() {
    let lab = Lab::new();
    let machine = Machine::new(1);
    let mut admin = administrator(&lab).await;
    let (_, details) = machine.is_refused(&lab, &node(&json!({"token": TOKEN}))).await;
    let (mut client, _) = machine.enters(&lab, &json!({})).await;
    let wants = json!({"scopes": ["operator.read", "operator.write"]});
    let asked = client.call(REQUEST, wants).await["payload"].clone();
    // Who asks for less when it comes in hears of the request that is there, and all that it grants.
    let less = with(&json!({"token": TOKEN}), &["operator.write"]);
    let (_, covered) = machine.is_refused_elsewhere(&lab, &less).await;
    assert_eq!(covered["requestId"], asked["requestId"]);
    assert_eq!(covered["requestedScopes"], json!(["operator.read", "operator.write"]));
    for (id, request) in [("o", &asked["requestId"]), ("n", &details["requestId"])] {
        asks(&mut admin, id, "device.pair.approve", json!({"requestId": request})).await;
        let approved = answer_to(&mut admin, id).await;
        assert_eq!(approved["ok"], true, "{approved}");
    }
    machine.enters(&lab, &node(&json!({"token": TOKEN}))).await;
}

#[tokio::test(start_paused = true)]
async fn an_upgrade_is_for_a_paired_device_that_names_what_it_holds_and_nothing_strange() {
    let lab = Lab::new();
    let machine = Machine::new(1);
    // An operator without a device, and one that holds nothing.
    let (mut plain, _) = lab.connected(&json!({})).await;
    let wants = json!({"scopes": ["operator.read", "operator.write"]});
    let answer = plain.call(REQUEST, wants.clone()).await;
    let details = &answer["error"]["details"];
    assert_eq!(details["code"], "DEVICE_IDENTITY_REQUIRED", "{answer}");
    assert_eq!(details["recommendedNextStep"], "reopen_control_ui_securely", "{answer}");
    let answer = plain.call(WAIT, json!({"requestId": "x"})).await;
    assert_eq!(answer["error"]["details"]["code"], "DEVICE_IDENTITY_REQUIRED", "{answer}");
    let (mut client, _) = machine.enters(&lab, &with(&json!({"token": TOKEN}), &[])).await;
    assert_eq!(client.call(REQUEST, wants).await["ok"], true, "no scope is needed to ask");
    let (mut client, _) = machine.enters(&lab, &json!({})).await;
    for (params, words) in [
        (json!({"scopes": []}), "1 to 8 different"),
        (json!({"scopes": ["operator.read", "operator.read"]}), "1 to 8 different"),
        (json!({"scopes": ["operator.read", "operator.zap"]}), "unknown operator scope"),
        (json!({"scopes": ["operator.pairing"]}), "the connection's current scopes"),
        (json!({"scopes": ["operator.read"], "deviceId": "x"}), "deviceId"),
    ] {
        let answer = client.call(REQUEST, params).await;
        let message = answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}"));
        assert!(message.contains(words), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_an_upgrade_of_a_gateway_that_stops() {
    let lab = Lab::new();
    let (mut client, _) = Machine::new(1).enters(&lab, &json!({})).await;
    let request =
        client.call(REQUEST, json!({"scopes": ["operator.admin"]})).await["payload"].clone();
    asks(&mut client, WAIT, WAIT, request).await;
    assert_eq!(client.call("health", json!({})).await["ok"], true, "others are answered meanwhile");
    lab.shared.upgrades.stop();
    assert_eq!(client.frame().await["error"]["code"], "UNAVAILABLE");
    // Nor does anybody begin to.
    let late = client.call(REQUEST, json!({"scopes": ["operator.admin"]})).await;
    assert_eq!(late["error"]["message"], "the gateway is stopping", "{late}");
}
