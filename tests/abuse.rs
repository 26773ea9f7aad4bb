//! Bad input and bad manners against a running gateway: refused, counted, cheap, and unnoticed by
//! a client beside it. No tap stands in between, since the gateway's own sockets are the subject.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

#[path = "support/mod.rs"]
mod support;

use std::{io, net::Ipv4Addr, time::Duration};

use futures_util::{SinkExt, StreamExt, future::join_all};
use serde_json::{Value, json};
use support::{Asked, Device, Home, OurGateway, Wire, connect, resident_bytes};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

/// How long any wait here may take: longer than the gateway's own 15 s.
const PATIENCE: Duration = Duration::from_secs(60);
/// What an attack may cost the gateway beyond what it has afterwards anyway.
const MEMORY: u64 = 32 << 20;

/// A gateway under attack, with a calm client beside the attacker.
struct Siege {
    gateway: OurGateway,
    home: Home,
    token: String,
    calm: JoinHandle<u64>,
    over: oneshot::Sender<()>,
    before: u64,
}

impl Siege {
    async fn begin() -> Self {
        let home = Home::new();
        let gateway = OurGateway::start_bare(&home);
        let token = gateway.token();
        let (over, mut ended) = oneshot::channel();
        let mut wire = Wire::login(gateway.port(), &token).await.unwrap();
        let calm = tokio::spawn(async move {
            let mut answers = 0;
            while ended.try_recv().is_err() {
                let answer = wire.call("health", json!({})).await.expect("the calm client");
                assert_eq!(answer["ok"], true, "{answer}");
                answers += 1;
            }
            answers
        });
        let before = resident_bytes(gateway.program().pid()).unwrap();
        Self { gateway, home, token, calm, over, before }
    }

    fn port(&self) -> u16 {
        self.gateway.port()
    }

    async fn open(&self) -> (Wire, Asked) {
        Wire::open(self.port()).await.unwrap()
    }

    async fn login(&self) -> Wire {
        Wire::login(self.port(), &self.token).await.unwrap()
    }

    /// The value of a series of `/metrics`; 0 where it is not there yet.
    async fn metric(&self, series: &str) -> u64 {
        let file = self.home.state().join("rs/metrics-token");
        let token = std::fs::read_to_string(file).unwrap();
        let head = format!("Host: localhost\r\nAuthorization: Bearer {}\r\n", token.trim());
        let text = asked(self.port(), "/metrics", &head).await;
        assert!(text.contains("# EOF"), "{text}");
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// How much the gateway has grown since the beginning.
    fn grown(&self) -> u64 {
        resident_bytes(self.gateway.program().pid()).unwrap().saturating_sub(self.before)
    }

    /// The calm client was answered all the time, a newcomer gets in, and memory is bounded.
    async fn end(self) {
        let mut newcomer = self.login().await;
        assert_eq!(newcomer.call("health", json!({})).await.unwrap()["ok"], true);
        assert!(self.grown() < MEMORY, "grown by {} bytes", self.grown());
        self.over.send(()).unwrap();
        let answers = timeout(PATIENCE, self.calm).await.unwrap().unwrap();
        assert!(answers > 0);
    }
}

/// All of the answer to `GET path` with these lines in its head.
async fn asked(port: u16, path: &str, head: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\n{head}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

/// Lets this process have as many descriptors as the system allows.
fn raise_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// A connection from an address of loopback of the caller's choice.
async fn from(address: Ipv4Addr, port: u16) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((address, 0).into())?;
    socket.connect((Ipv4Addr::LOCALHOST, port).into()).await
}

/// Text number `number` that is no frame.
fn malformed(number: usize) -> String {
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_malformed_frames_are_each_answered_and_counted() {
    const COUNT: usize = 10_000;
    let siege = Siege::begin().await;
    let (mut sink, mut stream) = siege.login().await.socket.split();
    let write = async {
        for number in 0..COUNT {
            sink.send(Message::text(malformed(number))).await.unwrap();
        }
    };
    let read = async {
        let mut refused = 0;
        while refused < COUNT {
            let message = stream.next().await.unwrap().unwrap();
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["type"] == "res" {
                assert_eq!(frame["error"]["code"], "INVALID_REQUEST", "{frame}");
                refused += 1;
            }
        }
    };
    timeout(PATIENCE, async { tokio::join!(write, read) }).await.expect("all are answered");
    assert_eq!(siege.metric(r#"openclaw_gateway_malformed_total{kind="frame"}"#).await, 10_000);
    siege.end().await;
}

#[tokio::test]
async fn a_first_frame_that_is_none_ends_the_connection() {
    let siege = Siege::begin().await;
    for number in 0..100 {
        let (mut wire, _) = siege.open().await;
        wire.say(malformed(number)).await.unwrap();
        assert_eq!(wire.closed().await, 1008, "{}", malformed(number));
    }
    assert_eq!(siege.metric(r#"openclaw_gateway_malformed_total{kind="frame"}"#).await, 100);
    siege.end().await;
}

#[tokio::test]
async fn slow_handshakes_end_after_fifteen_seconds_and_lock_nobody_out() {
    let siege = Siege::begin().await;
    let port = siege.port();
    let [heads, connects] = [Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::new(127, 0, 0, 3)];
    let mut streams = Vec::new();
    for _ in 0..40 {
        let mut stream = from(heads, port).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        streams.push(stream);
        let mut stream = from(connects, port).await.unwrap();
        let upgrade = format!(
            "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(upgrade.as_bytes()).await.unwrap();
        // The head of a masked frame of 100 bytes, and its first byte.
        stream.write_all(&[0x81, 0x80 | 100, 1, 2, 3, 4, b'{']).await.unwrap();
        streams.push(stream);
    }
    assert!(siege.login().await.call("health", json!({})).await.unwrap()["ok"] == true);
    let ends = streams.iter_mut().map(|stream| async {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.is_ok()
    });
    timeout(PATIENCE, join_all(ends)).await.expect("each is closed");
    assert_eq!(siege.metric(r#"openclaw_gateway_turned_away_total{reason="too_late"}"#).await, 80);
    siege.end().await;
}

#[tokio::test]
async fn five_thousand_silent_sockets_take_no_place_and_hold_nobody_up() {
    const COUNT: u64 = 5_000;
    /// Sockets without a place that the gateway keeps.
    const LOBBY: u64 = 2_048;
    raise_limit();
    let siege = Siege::begin().await;
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
    // On a busy machine the first ones' 15 s are over before the last ones come.
    let mut turned = 0;
    for reason in ["no_place", "too_late"] {
        let series = format!(r#"openclaw_gateway_turned_away_total{{reason="{reason}"}}"#);
        turned += siege.metric(&series).await;
    }
    assert!(turned >= COUNT - LOBBY, "{turned}");
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
    siege.end().await;
}

#[tokio::test]
async fn half_a_handshake_holds_a_place_for_three_seconds_once_others_wait() {
    let siege = Siege::begin().await;
    let mut slow = Vec::new();
    for _ in 0..64 {
        let mut stream = from(Ipv4Addr::LOCALHOST, siege.port()).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        slow.push(stream);
    }
    siege.login().await;
    let mut byte = [0];
    let ended = timeout(PATIENCE, slow[0].read(&mut byte)).await.expect("the first one is closed");
    assert!(matches!(ended, Ok(0) | Err(_)));
    siege.end().await;
}

#[tokio::test]
async fn frames_beyond_the_limits_end_the_connection_before_they_cost_memory() {
    let siege = Siege::begin().await;
    for (wire, length, code, kind) in [
        (siege.open().await.0, 65_u64 << 10, 1009, "too_much_before_auth"),
        (siege.login().await, (25 << 20) + 1, 1009, "too_large"),
        (siege.login().await, u64::MAX >> 1, 1009, "too_large"),
    ] {
        let series = format!(r#"openclaw_gateway_malformed_total{{kind="{kind}"}}"#);
        let before = siege.metric(&series).await;
        let mut wire = wire;
        let mut head = vec![0x81, 0xff];
        head.extend(length.to_be_bytes());
        head.extend([0; 4]);
        let stream = wire.socket.get_mut();
        stream.write_all(&head).await.unwrap();
        // As much as was promised, up to what is surely refused; the other end may be gone.
        let _sent = stream.write_all(&vec![b' '; 80 << 10]).await.is_ok();
        let closed = wire.closed().await;
        assert!(closed == code || closed == 0, "{kind}: {closed}");
        assert_eq!(siege.metric(&series).await, before + 1, "{kind} of {length}");
    }
    siege.end().await;
}

#[tokio::test]
async fn text_that_is_not_utf_8_and_binary_frames_end_the_connection() {
    let siege = Siege::begin().await;
    for is_in in [false, true] {
        for (kind, data, code) in [("utf8", Data::Text, 1007), ("binary", Data::Binary, 1008)] {
            let series = format!(r#"openclaw_gateway_malformed_total{{kind="{kind}"}}"#);
            let before = siege.metric(&series).await;
            let mut wire = if is_in { siege.login().await } else { siege.open().await.0 };
            let bytes = b"{\"type\":\"req\xff\"}".as_slice();
            let frame = Frame::message(bytes, OpCode::Data(data), true);
            wire.socket.send(Message::Frame(frame)).await.unwrap();
            assert_eq!(wire.closed().await, code, "{kind}");
            assert_eq!(siege.metric(&series).await, before + 1, "{kind}");
        }
    }
    siege.end().await;
}

#[tokio::test]
async fn deep_json_is_refused_without_a_deep_stack() {
    let siege = Siege::begin().await;
    let mut wire = siege.login().await;
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for depth in [200, 100_000] {
            let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
            let inside =
                r#"{"type":"req","id":"1","method":"system-presence","params":"#.to_owned();
            // Parameters that nobody asked for are passed over, not descended into.
            for (text, id) in [(deep.clone(), "invalid"), (inside + &deep + "}", "1")] {
                wire.say(text).await.unwrap();
                let answer = loop {
                    let frame = wire.frame().await.unwrap();
                    if frame["type"] == "res" {
                        break frame;
                    }
                };
                assert_eq!(answer["id"], id, "{answer}");
                assert!(id == "1" || answer["error"]["code"] == "INVALID_REQUEST", "{answer}");
            }
        }
    }
    let (mut wire, _) = siege.open().await;
    wire.say("[".repeat(60_000)).await.unwrap();
    assert_eq!(wire.closed().await, 1008);
    siege.end().await;
}

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
        let series = format!(r#"openclaw_gateway_refused_total{{reason="{code}"}}"#);
        assert_eq!(siege.metric(&series).await, 1, "{case}");
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
    for (head, reason) in cases {
        for (path, more) in [("/", upgrade), ("/healthz", ""), ("/metrics", "")] {
            let series = format!(r#"openclaw_gateway_turned_away_total{{reason="{reason}"}}"#);
            let before = siege.metric(&series).await;
            let answer = asked(port, path, &format!("{head}{more}")).await;
            assert!(answer.starts_with("HTTP/1.1 403 "), "{head}{path}: {answer}");
            assert_eq!(siege.metric(&series).await, before + 1, "{head}{path}");
        }
    }
    siege.end().await;
}

#[tokio::test]
async fn a_token_in_the_address_opens_nothing() {
    let siege = Siege::begin().await;
    let port = siege.port();
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let url = format!("ws://127.0.0.1:{port}/?token={token}&auth={token}", token = siege.token);
    let (socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    let mut wire = Wire::of(socket);
    assert_eq!(wire.frame().await.unwrap()["event"], "connect.challenge");
    let answer = wire.call("connect", connect(&Value::Null)).await.unwrap();
    assert_eq!(answer["ok"], false, "{answer}");
    let path = format!("/metrics?token={}", siege.token);
    let answer = asked(port, &path, "Host: localhost\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    siege.end().await;
}
