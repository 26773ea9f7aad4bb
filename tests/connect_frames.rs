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
