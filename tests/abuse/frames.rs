//! What is no frame, is too large or too deep, or is no text.

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, time::timeout};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::{
    siege::{PATIENCE, Siege, malformed},
    support::connect,
};

/// Text number `number` that is no frame.
fn nonsense(number: usize) -> String {
    let start = [
        "",
        "{",
        "null",
        "[]",
        "\u{0}",
        "{\"type\":\"req\"}",
        "{\"type\":\"res\",\"id\":1}",
        "{\"type\":\"event\"}",
        "{\"type\":\"req\",\"id\":1,\"method\":\"health\"}",
        "{\"type\":\"req\",\"id\":\"1\",\"method\":[]}",
        "{\"type\":\"zap\",\"id\":\"1\"}",
        "{\"type\":\"req\",\"id\":\"\",\"method\":\"health\"}",
        "{\"type\":\"req\",\"id\":\"1\",\"method\":\"\"}",
        "\"req\"",
        "1e999",
        "{\"type\":}",
    ];
    let noise = ["", " ", "\u{fffd}", "]", "{\"a\":", "\\u0000", "\"", "😀"];
    format!("{}{}", start[number % start.len()], noise[(number / start.len()) % noise.len()])
}

/// The id under which a text is answered: its own if it is an object and has one that is text.
fn id(text: &str) -> String {
    let frame: Value = serde_json::from_str(text).unwrap_or_default();
    let id = frame["id"].as_str().filter(|id| !id.is_empty());
    id.unwrap_or("invalid").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_malformed_frames_are_each_answered_and_counted() {
    const BATCH: usize = 100;
    let siege = Siege::begin().await;
    let mut wire = siege.login().await;
    let attack = async {
        for batch in 0..10_000 / BATCH {
            for number in 0..BATCH {
                wire.say(nonsense(batch * BATCH + number)).await.unwrap();
            }
            for number in 0..BATCH {
                let answer = wire.answer().await.unwrap();
                assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
                assert_eq!(answer["id"], id(&nonsense(batch * BATCH + number)), "{answer}");
            }
        }
    };
    timeout(PATIENCE, attack).await.expect("all are answered");
    assert_eq!(siege.metric(&malformed("frame")).await, 10_000);
    assert_eq!(wire.call("health", json!({})).await.unwrap()["ok"], true, "it may go on");
    siege.end().await;
}

#[tokio::test]
async fn a_first_frame_that_is_none_ends_the_connection() {
    let siege = Siege::begin().await;
    let mut number = 0;
    while number < 100 || !siege.was_noticed_by_nobody() {
        let (mut wire, _) = siege.open().await;
        wire.say(nonsense(number)).await.unwrap();
        assert_eq!(wire.closed().await, 1008, "{}", nonsense(number));
        number += 1;
    }
    assert_eq!(siege.metric(&malformed("frame")).await, number as u64);
    siege.end().await;
}

#[tokio::test]
async fn frames_beyond_the_limits_end_the_connection_before_they_cost_memory() {
    let siege = Siege::begin().await;
    while !siege.was_noticed_by_nobody() {
        for (mut wire, length, kind) in [
            (siege.open().await.0, 65_u64 << 10, "too_much_before_auth"),
            (siege.login().await, (25 << 20) + 1, "too_large"),
            (siege.login().await, u64::MAX >> 1, "too_large"),
        ] {
            let before = siege.metric(&malformed(kind)).await;
            let mut head = vec![0x81, 0xff];
            head.extend(length.to_be_bytes());
            head.extend([0; 4]);
            let stream = wire.socket.get_mut();
            stream.write_all(&head).await.unwrap();
            // As much as was promised, up to what is surely refused.
            stream.write_all(&vec![b' '; 80 << 10]).await.unwrap();
            assert_eq!(wire.closed().await, 1009, "{kind}");
            assert_eq!(siege.metric(&malformed(kind)).await, before + 1, "{kind} of {length}");
        }
    }
    siege.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_a_frame_that_is_too_large_to_its_end_hears_why_it_is_closed() {
    let siege = Siege::begin().await;
    for length in [(25 << 20) + 1, 26_300_000, 30_000_000] {
        for _ in 0..4 {
            let mut wire = siege.login().await;
            wire.say(" ".repeat(length)).await.unwrap();
            assert_eq!(wire.closed().await, 1009, "{length}");
        }
    }
    siege.end().await;
}

#[tokio::test]
async fn text_that_is_not_utf_8_and_binary_frames_end_the_connection() {
    let siege = Siege::begin().await;
    while !siege.was_noticed_by_nobody() {
        for is_in in [false, true] {
            for (kind, data, code) in [("utf8", Data::Text, 1007), ("binary", Data::Binary, 1008)] {
                let before = siege.metric(&malformed(kind)).await;
                let mut wire = if is_in { siege.login().await } else { siege.open().await.0 };
                let bytes = b"{\"type\":\"req\xff\"}".as_slice();
                let frame = Frame::message(bytes, OpCode::Data(data), true);
                wire.socket.send(Message::Frame(frame)).await.unwrap();
                assert_eq!(wire.closed().await, code, "{kind}");
                assert_eq!(siege.metric(&malformed(kind)).await, before + 1, "{kind}");
            }
        }
    }
    siege.end().await;
}

/// A request with these parameters as they are.
fn request(method: &str, params: &str) -> String {
    format!(r#"{{"type":"req","id":"1","method":"{method}","params":{params}}}"#)
}

#[tokio::test]
async fn deep_json_is_refused_without_a_deep_stack() {
    let siege = Siege::begin().await;
    let mut params = connect(&json!({ "token": siege.token }));
    params["scopes"] = json!(["operator.admin"]);
    let mut wire = siege.open().await.0;
    assert_eq!(wire.call("connect", params).await.unwrap()["ok"], true);
    let mut rounds = 0;
    while !siege.was_noticed_by_nobody() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            for depth in [200, 100_000] {
                let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
                wire.say(deep.clone()).await.unwrap();
                let answer = wire.answer().await.unwrap();
                assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{answer}");
                let patch = format!(r#"{{"raw":"{{}}","deliveryContext":{{"threadId":{deep}}}}}"#);
                for (method, params) in [("config.get", &deep), ("config.patch", &patch)] {
                    wire.say(request(method, params)).await.unwrap();
                    let answer = wire.answer().await.unwrap();
                    assert_eq!(answer["error"]["code"], "INVALID_REQUEST", "{method}: {answer}");
                }
                // Parameters that nobody asked for are passed over, not descended into.
                if open != "[" {
                    wire.say(request("system-presence", &deep)).await.unwrap();
                    assert_eq!(wire.answer().await.unwrap()["ok"], true);
                }
            }
        }
        rounds += 1;
    }
    assert_eq!(siege.metric(&malformed("frame")).await, 4 * rounds);
    for method in ["config.get", "config.patch"] {
        let refused = format!(
            r#"openclaw_gateway_requests_total{{method="{method}",outcome="INVALID_REQUEST"}}"#
        );
        assert_eq!(siege.metric(&refused).await, 4 * rounds, "{method}");
    }
    let (mut wire, _) = siege.open().await;
    wire.say("[".repeat(60_000)).await.unwrap();
    assert_eq!(wire.closed().await, 1008);
    assert_eq!(siege.metric(&malformed("frame")).await, 4 * rounds + 1);
    siege.end().await;
}
