//! Sockets that say nothing, or make a long business of what they say.

use std::{net::Ipv4Addr, time::Duration};

use futures_util::future::join_all;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use crate::{
    siege::{MEMORY, PATIENCE, Siege, from, raise_limit, turned_away},
    support::Wire,
};

/// The head of a request that never ends.
const HALF_A_HEAD: &[u8] = b"GET / HTTP/1.1\r\nHo";

#[tokio::test]
async fn slow_handshakes_end_after_fifteen_seconds_and_lock_nobody_out() {
    let mut siege = Siege::begin().await;
    let port = siege.port();
    let [heads, connects] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];
    let mut streams = Vec::new();
    for _ in 0..40 {
        let mut stream = from(heads, port).await.unwrap();
        stream.write_all(HALF_A_HEAD).await.unwrap();
        streams.push((stream, false));
        let mut stream = from(connects, port).await.unwrap();
        let upgrade = format!(
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(upgrade.as_bytes()).await.unwrap();
        // The head of a masked frame of 100 bytes, and its first byte.
        stream.write_all(&[0x81, 0x80 | 100, 1, 2, 3, 4, b'{']).await.unwrap();
        streams.push((stream, true));
    }
    assert_eq!(siege.login().await.call("health", json!({})).await.unwrap()["ok"], true);
    let ends = streams.iter_mut().map(|(stream, is_upgraded)| async {
        let mut rest = Vec::new();
        let ended = stream.read_to_end(&mut rest).await;
        // 1000, "handshake timeout", as OpenClaw says it.
        let close = [&[0x88, 19, 0x03, 0xe8], b"handshake timeout".as_slice()].concat();
        ended.is_ok() && (!*is_upgraded || rest.ends_with(&close))
    });
    let ended = timeout(PATIENCE, join_all(ends)).await.expect("each is closed");
    assert!(ended.iter().all(|is_as_documented| *is_as_documented), "{ended:?}");
    assert_eq!(siege.metric(&turned_away("too_late")).await, 80);
    siege.goes_unnoticed().await;
    siege.end().await;
}

#[tokio::test]
async fn five_thousand_silent_sockets_take_no_place_and_hold_nobody_up() {
    const COUNT: u64 = 5_000;
    /// Sockets without a place that the gateway keeps.
    const LOBBY: u64 = 2_048;
    raise_limit();
    let mut siege = Siege::begin().await;
    let mut silent = Vec::new();
    for number in 0..COUNT {
        // Every other one stands where honest clients do, as all do behind a tunnel.
        let last = if number % 2 == 0 { 1 } else { u8::try_from(number % 100).unwrap() + 2 };
        silent.push(from(Ipv4Addr::new(127, 0, 0, last), siege.port()).await.unwrap());
    }
    // Whoever speaks is let in beside them, at the first try.
    for _ in 0..20 {
        siege.login().await;
    }
    siege.goes_unnoticed().await;
    // Who speaks is heard first, so some may still have to be told to go. On a busy machine the first
    // ones' 15 s are over before the last ones come.
    let told = async {
        loop {
            let mut turned = 0;
            for reason in ["no_place", "too_late"] {
                turned += siege.metric(&turned_away(reason)).await;
            }
            if turned >= COUNT - LOBBY {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, told).await.expect("whoever has no place is told to go");
    siege.login().await;
    let mut hung_up = 0;
    for stream in &mut silent {
        let mut byte = [0];
        if let Ok(Ok(0) | Err(_)) = timeout(Duration::from_millis(1), stream.read(&mut byte)).await
        {
            hung_up += 1;
        }
    }
    assert!(hung_up >= COUNT - LOBBY, "{hung_up} were hung up on");
    assert!(siege.grown() < MEMORY, "grown by {} bytes", siege.grown());
    drop(silent);
    siege.end().await;
}

#[tokio::test]
async fn a_thousand_clients_behind_one_address_are_let_in_at_the_first_try() {
    const COUNT: usize = 1_000;
    raise_limit();
    let siege = Siege::begin().await;
    let everybody = (0..COUNT).map(|_| Wire::login(siege.port(), &siege.token));
    let inside = timeout(PATIENCE, join_all(everybody)).await.expect("everybody is answered");
    let refused = inside.iter().filter(|login| login.is_err()).count();
    assert_eq!(refused, 0, "{:?}", inside.iter().find_map(|login| login.as_ref().err()));
    drop(inside);
    // A thousand who are let in are no attack: each may cost 64 KiB.
    siege.end_within(MEMORY + COUNT as u64 * (64 << 10)).await;
}

#[tokio::test]
async fn half_a_handshake_holds_a_place_for_three_seconds_once_others_wait() {
    let mut siege = Siege::begin().await;
    let mut slow = Vec::new();
    for _ in 0..64 {
        let mut stream = from(Ipv4Addr::LOCALHOST, siege.port()).await.unwrap();
        stream.write_all(HALF_A_HEAD).await.unwrap();
        slow.push(stream);
    }
    // On a busy machine the first newcomers are in before all of these have their places.
    let newcomers = async {
        while siege.metric(&turned_away("no_place")).await == 0 {
            siege.login().await;
        }
    };
    timeout(PATIENCE, newcomers).await.expect("somebody has to go");
    let mut byte = [0];
    let ended = timeout(PATIENCE, slow[0].read(&mut byte)).await.expect("the first one is closed");
    assert!(matches!(ended, Ok(0) | Err(_)));
    siege.goes_unnoticed().await;
    siege.end().await;
}
