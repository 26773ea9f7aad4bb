//! Proofs that prove nothing, pages and names of others, and secrets where none belong.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::{
    siege::{Siege, asked, refused, turned_away},
    support::{Asked, Device, Wire, connect},
};

/// `connect` with a good secret and a signature of `device` for `asked`.
fn signed(device: &Device, token: &str, asked: &Asked) -> Value {
    let mut connect = connect(&json!({ "token": token }));
    device.sign(&mut connect, asked);
    connect
}

#[tokio::test]
async fn a_device_that_proves_nothing_is_refused_by_name() {
    let siege = Siege::begin().await;
    let (device, other) = (Device::new(1), Device::new(2));
    let (_listening, old) = siege.open().await;
    let cases = [
        ("a replayed challenge", "DEVICE_AUTH_NONCE_MISMATCH"),
        ("a stale signature", "DEVICE_AUTH_SIGNATURE_EXPIRED"),
        ("another key's signature", "DEVICE_AUTH_SIGNATURE_INVALID"),
        ("another key's name", "DEVICE_AUTH_DEVICE_ID_MISMATCH"),
    ];
    let mut rounds = 0;
    while !siege.was_noticed_by_nobody() {
        rounds += 1;
        for (case, code) in cases {
            let (mut wire, asked) = siege.open().await;
            let mut connect = signed(&device, &siege.token, &asked);
            match case {
                "a replayed challenge" => connect = signed(&device, &siege.token, &old),
                "a stale signature" => {
                    let stale = Asked { ts: asked.ts - 3_600_000, ..asked };
                    connect = signed(&device, &siege.token, &stale);
                }
                "another key's signature" => {
                    let theirs = signed(&other, &siege.token, &asked);
                    connect["device"]["signature"] = theirs["device"]["signature"].clone();
                }
                _ => connect["device"]["id"] = json!(other.id()),
            }
            let answer = wire.call("connect", connect).await.unwrap();
            assert_eq!(answer["error"]["details"]["code"], code, "{case}: {answer}");
            assert_eq!(wire.closed().await, 1008, "{case}");
            assert_eq!(siege.metric(&refused(code)).await, rounds, "{case}");
        }
    }
    siege.end().await;
}

#[tokio::test]
async fn pages_of_others_and_names_of_others_are_turned_away_at_every_door() {
    let siege = Siege::begin().await;
    let port = siege.port();
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let here = format!("Host: 127.0.0.1:{port}\r\n");
    let cases = [
        ("Host: evil.example\r\n".to_owned(), "host"),
        (format!("Host: 127.0.0.1.evil.example:{port}\r\n"), "host"),
        (format!("{here}Origin: https://evil.example\r\n"), "origin"),
        (format!("{here}Origin: null\r\n"), "origin"),
    ];
    while !siege.was_noticed_by_nobody() {
        for (head, reason) in &cases {
            let plain = ["/healthz", "/readyz", "/startupz", "/metrics", "/j/code"];
            let doors = plain.into_iter().map(|path| (path, "")).chain([("/", upgrade)]);
            for (path, more) in doors {
                // A page is told why in the answer to its `connect`.
                if *reason == "origin" && path == "/" {
                    continue;
                }
                let before = siege.metric(&turned_away(reason)).await;
                let answer = asked(port, path, &format!("{head}{more}")).await;
                assert!(answer.starts_with("HTTP/1.1 403 "), "{head}{path}: {answer}");
                assert_eq!(siege.metric(&turned_away(reason)).await, before + 1, "{head}{path}");
            }
        }
        for origin in ["https://evil.example", "null"] {
            let before = siege.metric(&turned_away("origin")).await;
            let code = "CONTROL_UI_ORIGIN_NOT_ALLOWED";
            let known = siege.metric(&refused(code)).await;
            let (mut wire, _) = Wire::open_with(port, &[("origin", origin)]).await.unwrap();
            let good = connect(&json!({ "token": siege.token }));
            let answer = wire.call("connect", good).await.unwrap();
            assert_eq!(answer["error"]["details"]["code"], code, "{origin}: {answer}");
            assert_eq!(wire.closed().await, 1008, "{origin}");
            assert_eq!(siege.metric(&turned_away("origin")).await, before + 1, "{origin}");
            assert_eq!(siege.metric(&refused(code)).await, known + 1, "{origin}");
        }
    }
    siege.end().await;
}

#[tokio::test]
async fn a_token_in_the_address_opens_nothing() {
    let siege = Siege::begin().await;
    let port = siege.port();
    let mut rounds = 0;
    while !siege.was_noticed_by_nobody() {
        rounds += 1;
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let url = format!("ws://127.0.0.1:{port}/?token={token}&auth={token}", token = siege.token);
        let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
        let mut wire = Wire::of(socket);
        assert_eq!(wire.frame().await.unwrap()["event"], "connect.challenge");
        let answer = wire.call("connect", connect(&Value::Null)).await.unwrap();
        let code = &answer["error"]["details"]["code"];
        assert_eq!(
            (&answer["ok"], code),
            (&json!(false), &json!("DEVICE_IDENTITY_REQUIRED")),
            "{answer}"
        );
        assert_eq!(wire.closed().await, 1008);
        assert_eq!(siege.metric(&refused("DEVICE_IDENTITY_REQUIRED")).await, rounds);
        let path = format!("/metrics?token={}", siege.token);
        let answer = asked(port, &path, "Host: localhost\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert_eq!(siege.metric(&turned_away("scrape_without_token")).await, rounds);
    }
    siege.end().await;
}

#[tokio::test]
async fn a_wrong_secret_is_refused_by_name_and_counted() {
    let siege = Siege::begin().await;
    let mut rounds = 0;
    while !siege.was_noticed_by_nobody() {
        rounds += 1;
        let (mut wire, _) = siege.open().await;
        let wrong = connect(&json!({ "token": format!("wrong-{rounds}") }));
        let answer = wire.call("connect", wrong).await.unwrap();
        let code = &answer["error"]["details"]["code"];
        assert_eq!(code, "AUTH_TOKEN_MISMATCH", "{answer}");
        assert_eq!(wire.closed().await, 1008);
        assert_eq!(siege.metric(&refused("AUTH_TOKEN_MISMATCH")).await, rounds);
    }
    siege.end().await;
}
