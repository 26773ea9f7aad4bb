//! The first frames of the phone and desktop apps, as files, against a running gateway.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "support/mod.rs"]
mod support;

use std::path::PathBuf;

use serde_json::{Value, json};
use support::{Device, Home, OurGateway, Wire};

/// The frames in `fixtures/connect`, with their names.
fn frames() -> Vec<(String, Value)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/connect");
    let mut paths: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let frame = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        (path.display().to_string(), serde_json::from_str(&text).unwrap())
    };
    paths.into_iter().map(frame).collect()
}

/// The code that a refusal is known by: the one in its details, else its own.
fn code(answer: &Value) -> Option<&str> {
    let error = &answer["error"];
    error["details"]["code"].as_str().or_else(|| error["code"].as_str())
}

#[tokio::test]
async fn apps_are_let_in_or_refused_by_what_they_are() {
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    let frames = frames();
    assert!(frames.len() >= 11, "{} frames", frames.len());
    for (seed, (name, frame)) in (1..).zip(&frames) {
        let (mut wire, asked) = Wire::open(gateway.port()).await.unwrap();
        let mut connect = frame["params"].clone();
        connect["auth"] = json!({ "token": gateway.token() });
        if frame["signs"] == true {
            Device::new(seed).sign(&mut connect, &asked);
        }
        let answer = wire.call("connect", connect).await.unwrap();
        assert_eq!(code(&answer), frame["refused"].as_str(), "{name}: {answer}");
        if answer["ok"] == true {
            let granted = &answer["payload"]["auth"];
            assert_eq!(granted["role"], frame["params"]["role"], "{name}");
            assert_eq!(granted["scopes"], frame["params"]["scopes"], "{name}");
        } else {
            let close = if code(&answer) == Some("PROTOCOL_MISMATCH") { 1002 } else { 1008 };
            assert_eq!(wire.closed().await, close, "{name}");
        }
    }
}

#[tokio::test]
async fn a_client_of_the_version_before_is_told_which_side_to_update() {
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    let (mut wire, _) = Wire::open(gateway.port()).await.unwrap();
    let mut connect = support::connect(&json!({ "token": gateway.token() }));
    connect["minProtocol"] = json!(3);
    connect["maxProtocol"] = json!(3);
    let answer = wire.call("connect", connect).await.unwrap();
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.ends_with("update the client"), "{answer}");
    assert_eq!(answer["error"]["details"]["expectedProtocol"], 4, "{answer}");
}

/// A telephone: its key, and the frame that its app sends.
struct Phone {
    device: Device,
    connect: Value,
}

impl Phone {
    /// The app whose frame has this name.
    fn new(seed: u8, name: &str) -> Self {
        let found = frames().into_iter().find(|(path, _)| path.ends_with(&format!("/{name}.json")));
        let (_, frame) = found.unwrap();
        Self { device: Device::new(seed), connect: frame["params"].clone() }
    }

    /// What it is answered with these credentials; the connection is open where that is `ok`.
    async fn knocks(&self, gateway: &OurGateway, auth: Value) -> (Wire, Value) {
        let (mut wire, asked) = Wire::open(gateway.port()).await.unwrap();
        let mut connect = self.connect.clone();
        connect["auth"] = auth;
        self.device.sign(&mut connect, &asked);
        let answer = wire.call("connect", connect).await.unwrap();
        (wire, answer)
    }

    /// Asks with the gateway's secret, is let in by somebody there, and gets in; the token that it
    /// is given.
    async fn is_paired(&self, home: &Home, gateway: &OurGateway) -> (Wire, String) {
        let secret = || json!({ "token": gateway.token() });
        let (wire, refused) = self.knocks(gateway, secret()).await;
        assert_eq!(code(&refused), Some("PAIRING_REQUIRED"), "{refused}");
        assert_eq!(wire.closed().await, 1008);
        let request = refused["error"]["details"]["requestId"].as_str().unwrap();
        owner(home, gateway, &["devices", "approve", request]);
        let (wire, answer) = self.knocks(gateway, secret()).await;
        let granted = &answer["payload"]["auth"];
        assert_eq!(granted["role"], self.connect["role"], "{answer}");
        assert_eq!(granted["scopes"], self.connect["scopes"], "{answer}");
        let token = granted["deviceToken"].as_str().unwrap().to_owned();
        (wire, token)
    }
}

/// What the gateway's owner types on its machine; what that prints.
fn owner(home: &Home, gateway: &OurGateway, words: &[&str]) -> Value {
    let port = gateway.port().to_string();
    let words = [words, &["--port", &port, "--json"]].concat();
    support::openclaw(home).args(words).run().exits(0).json()
}

#[tokio::test]
async fn telephones_are_paired_approved_and_come_back_with_their_own_token() {
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    for (seed, name) in [(41, "ios-node"), (42, "android-node")] {
        let phone = Phone::new(seed, name);
        let id = phone.device.id();
        let describe = || owner(&home, &gateway, &["nodes", "describe", "--node", &id]);
        let (wire, token) = phone.is_paired(&home, &gateway).await;
        let node = describe();
        assert_eq!(node["approvalState"], "pending-approval", "{name}: {node}");
        assert_eq!((&node["connected"], &node["commands"]), (&json!(true), &json!([])), "{node}");
        let pending = owner(&home, &gateway, &["nodes", "pending"]);
        let display = phone.connect["client"]["displayName"].as_str().unwrap();
        owner(&home, &gateway, &["nodes", "approve", support::request_of(&pending, display)]);
        let node = describe();
        assert_eq!(node["approvalState"], "approved", "{name}: {node}");
        assert_eq!(node["caps"], phone.connect["caps"], "{name}: {node}");
        let commands = node["commands"].as_array().unwrap();
        assert!(commands.contains(&json!("device.info")), "{name}: {node}");
        drop(wire);

        let (_wire, back) = phone.knocks(&gateway, json!({ "deviceToken": token })).await;
        assert_eq!(back["ok"], true, "{name}: {back}");
        let node = describe();
        assert_eq!(node["approvalState"], "approved", "{name}: {node}");
        assert_eq!(node["commands"].as_array().unwrap(), commands, "{name}");
    }
}

#[tokio::test]
async fn with_the_switch_off_an_app_asks_and_is_let_in_by_somebody() {
    let home = Home::new();
    let off = "{gateway: {nodes: {pairing: {autoApproveLocal: false}}}}";
    home.write("home/.openclaw/openclaw.json", off);
    let gateway = OurGateway::start(&home);
    for (seed, name) in [(51, "ios-operator"), (52, "android-operator")] {
        let phone = Phone::new(seed, name);
        let (_wire, token) = phone.is_paired(&home, &gateway).await;
        let (_wire, back) = phone.knocks(&gateway, json!({ "deviceToken": token })).await;
        assert_eq!(back["ok"], true, "{name}: {back}");
    }
    let stranger = Phone::new(53, "ios-operator");
    let (wire, refused) = stranger.knocks(&gateway, json!({ "token": gateway.token() })).await;
    assert_eq!(code(&refused), Some("PAIRING_REQUIRED"), "{refused}");
    assert_eq!(wire.closed().await, 1008);
}
