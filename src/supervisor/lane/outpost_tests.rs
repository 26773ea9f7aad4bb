//! A lane that listens over there, with the embedded SSH server at the other end.

use std::{
    fs,
    path::Path as FilePath,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixListener},
};

use super::*;
use crate::{
    history::Book,
    ssh::server::{Embedded, Login, Options as Serving, generate_client_key},
    supervisor::{
        account::Scribe,
        lane::{Command, Lane, Limits, Purpose, State},
    },
    tunnel::{Cause, Options, Wish},
};

/// Long enough for a loaded machine, short enough to fail a test.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server, and a lane that may go to it.
pub(in crate::supervisor::lane) struct Bench {
    _folder: tempfile::TempDir,
    server: Embedded,
    pub(in crate::supervisor::lane) dialer: Arc<dyn crate::supervisor::link::Dial>,
}

impl Bench {
    pub(in crate::supervisor::lane) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let key = generate_client_key(FilePath::new(&at("key"))).unwrap();
        let options = Serving { login: Login::Key(key), ..Serving::default() };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Embedded::start(listener, options).unwrap();
        let port = server.address().port();
        fs::write(at("known_hosts"), server.known_hosts_line(port)).unwrap();
        let definition = json!({
            "target": format!("127.0.0.1:{port}"), "remotePort": 1, "localPort": 1,
            "ssh": {"configFile": "none", "identities": [at("key")], "options": [
                ["UserKnownHostsFile", at("known_hosts")], ["GlobalKnownHostsFile", "none"],
                ["IdentityAgent", "none"],
            ]},
        });
        let definition = serde_json::from_value(definition).unwrap();
        let way = crate::supervisor::dialer::find(&definition, Arc::default(), 18789).await;
        Self { server, dialer: way.unwrap().dialer, _folder: folder }
    }

    /// A lane that is wanted up.
    async fn lane(&self, listen: Listen, to: Destination, proves: bool) -> Lane {
        self.lane_for(Reverse { listen, to, proves, pin: None }).await
    }

    async fn lane_for(&self, reverse: Reverse) -> Lane {
        let options = Options { proof: ProofKind::Ssh, alive: None, seed: 1 };
        let purpose = Purpose::Reverse(reverse);
        let span = Span::none();
        let lane = Lane::start(
            span,
            options,
            purpose,
            &Limits { hold: PATIENCE, ..Limits::default() },
            Arc::clone(&self.dialer),
            Scribe::new(Arc::new(Book::unwritten()), "vps"),
        );
        lane.tell(Command::Wish(Wish::Up)).await;
        lane
    }
}

async fn until(lane: &mut Lane, what: &str, is: impl Fn(&State) -> bool) -> State {
    let reached = timeout(PATIENCE, lane.state.wait_for(is)).await;
    reached.unwrap_or_else(|_| panic!("in vain: {what}")).unwrap().clone()
}

async fn live(lane: &mut Lane) -> u16 {
    let state = until(lane, "it is live", |state| state.phase == Phase::Live).await;
    state.port.expect("a port")
}

/// A server that sends back what it gets.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await.ok();
            });
        }
    });
    port
}

/// What comes back of `text` from `port` over there, both ends closed.
async fn said(port: u16, text: &str) -> std::io::Result<String> {
    let asking = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    timeout(PATIENCE, asking).await.expect("an answer, or an end")
}

/// Answers one request as a gateway that is well.
async fn be_healthy(mut stream: impl AsyncRead + AsyncWrite + Send + Unpin) {
    let mut request = [0; 1024];
    drop(stream.read(&mut request).await);
    let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                  content-length: 27\r\n\r\n{\"ok\":true,\"status\":\"live\"}";
    drop(stream.write_all(answer.as_bytes()).await);
    drop(stream.flush().await);
}

/// A port over there that nobody listens on.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn connections_from_over_there_reach_a_port_or_a_socket_here() {
    let bench = Bench::new().await;
    let to = Destination::loopback(echo().await);
    let mut lane = bench.lane(Listen::loopback(0), to, false).await;
    let port = live(&mut lane).await;
    assert_eq!(said(port, "all of it").await.unwrap(), "all of it");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let to = Destination::Socket(path.display().to_string());
    let mut lane = bench.lane(Listen::loopback(free_port()), to, false).await;
    let port = live(&mut lane).await;
    let asking = tokio::spawn(async move { said(port, "question").await });
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    // The other direction is open still.
    stream.write_all(b"answer").await.unwrap();
    drop(stream);
    assert_eq!((text.as_str(), asking.await.unwrap().unwrap().as_str()), ("question", "answer"));
}

#[tokio::test]
async fn a_port_that_the_server_chose_is_another_one_while_the_first_is_held() {
    let bench = Bench::new().await;
    let mut lane = bench.lane(Listen::loopback(0), Destination::loopback(1), false).await;
    let first = live(&mut lane).await;
    bench.server.drop_sessions();
    until(&mut lane, "the loss is told", |state| state.phase != Phase::Live).await;
    assert_eq!(live(&mut lane).await, first, "what others may have been told is asked for again");
    bench.server.keep_listeners(true);
    bench.server.drop_sessions();
    let moved = |state: &State| state.phase == Phase::Live && state.port != Some(first);
    until(&mut lane, "another port", moved).await;
}

#[tokio::test]
async fn a_listener_that_a_dead_session_holds_is_waited_out() {
    let bench = Bench::new().await;
    bench.server.keep_listeners(true);
    let wanted = free_port();
    let to = Destination::loopback(echo().await);
    let mut lane = bench.lane(Listen::loopback(wanted), to, false).await;
    assert_eq!(live(&mut lane).await, wanted);
    bench.server.drop_sessions();
    let state = until(&mut lane, "the stale listener is told", |state| {
        state.failure.as_ref().is_some_and(|it| it.cause == Cause::PlaceTaken)
    })
    .await;
    assert_eq!(state.phase, Phase::Waiting);
    let failure = state.failure.unwrap();
    assert!(failure.message.contains(&format!("still holds port {wanted}")), "{failure}");
    bench.server.keep_listeners(false);
    assert_eq!(live(&mut lane).await, wanted);
    assert_eq!(said(wanted, "again").await.unwrap(), "again");
}

#[tokio::test]
async fn a_refusal_is_told_from_a_port_that_is_taken() {
    let bench = Bench::new().await;
    let to = || Destination::loopback(1);
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut lane = bench.lane(Listen::loopback(port), to(), false).await;
    let state = until(&mut lane, "it is refused", |state| state.failure.is_some()).await;
    assert_eq!(state.failure.unwrap().cause, Cause::PlaceTaken);
    drop(taken);
    assert_eq!(live(&mut lane).await, port);

    bench.server.refuse_listeners(true);
    for listen in [Listen::loopback(free_port()), Listen::loopback(0)] {
        let mut lane = bench.lane(listen, to(), false).await;
        let blocked = |state: &State| state.phase == Phase::Blocked;
        let state = until(&mut lane, "it is blocked", blocked).await;
        let failure = state.failure.unwrap();
        assert_eq!(failure.cause, Cause::ForwardRefused);
        assert!(failure.fix.is_some_and(|fix| fix.contains("PermitListen")));
    }
    // Nobody can look: it is said that there are two reasons, and it is tried again.
    bench.server.refuse_forwards(true);
    let mut lane = bench.lane(Listen::loopback(free_port()), to(), false).await;
    let state = until(&mut lane, "it is refused", |state| state.failure.is_some()).await;
    assert!(state.failure.unwrap().message.contains("or the place is taken"));
    bench.server.refuse_listeners(false);
    live(&mut lane).await;
}

#[tokio::test]
async fn what_does_not_answer_here_is_refused_there_and_said() {
    let bench = Bench::new().await;
    let port = free_port();
    let mut lane = bench.lane(Listen::loopback(0), Destination::loopback(port), false).await;
    let there = live(&mut lane).await;
    assert_eq!(said(there, "anybody?").await.map_or(String::new(), |text| text), "");
    let state = until(&mut lane, "the trouble is told", |state| state.failure.is_some()).await;
    assert_eq!(state.phase, Phase::Live, "the listener itself is well");
    assert!(state.failure.unwrap().message.contains(&format!("127.0.0.1:{port}")));
    let _listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    let _stream = TcpStream::connect(("127.0.0.1", there)).await.unwrap();
    until(&mut lane, "the trouble is over", |state| state.failure.is_none()).await;
}

#[tokio::test]
async fn a_listener_is_given_back_before_another_lane_asks_for_it() {
    let bench = Bench::new().await;
    let to = || Destination::loopback(1);
    let wanted = free_port();
    let mut old = bench.lane(Listen::loopback(wanted), to(), false).await;
    live(&mut old).await;
    let (done, released) = oneshot::channel();
    old.tell(Command::Release(done)).await;
    drop(timeout(PATIENCE, released).await.unwrap());
    let mut new = bench.lane(Listen::loopback(wanted), to(), false).await;
    assert_eq!(live(&mut new).await, wanted);
    assert!(new.state.borrow().failure.is_none());
}

#[tokio::test]
async fn a_published_gateway_is_live_when_it_answers_through_the_port_over_there() {
    let bench = Bench::new().await;
    let port = free_port();
    let mut lane = bench.lane(Listen::loopback(0), Destination::loopback(port), true).await;
    let down = |state: &State| state.phase == Phase::GatewayDown;
    let state = until(&mut lane, "no gateway is here", down).await;
    let failure = state.failure.unwrap();
    assert_eq!(failure.cause, Cause::GatewayAbsent);
    assert_eq!(failure.fix, Some(format!("openclaw gateway run --port {port}")));
    let gateway = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = gateway.accept().await {
            be_healthy(stream).await;
        }
    });
    live(&mut lane).await;
    assert_eq!(lane.state.borrow().proof.map(|proof| proof.kind), Some(ProofKind::Gateway));
    assert!(lane.totals.bytes_in.load(Relaxed) > 0, "it was seen through the listener");
}

/// What a look at a gateway in TLS meets that goes through the port over there.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Through {
    BrokenOff,
    AnotherCertificate,
    PlainText,
}

/// A gateway in TLS: every first look, the one from here, meets it; every second, through the port
/// over there, meets `through`, until `is_mended`.
async fn behind(through: Through, is_mended: Arc<AtomicBool>) -> (u16, Fingerprint) {
    let (pin, own) = client::far_with_tls();
    let (_, another) = client::far_with_tls();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut is_from_here = false;
        while let Ok((mut stream, _)) = listener.accept().await {
            is_from_here = !is_from_here;
            let is_good = is_from_here || is_mended.load(Relaxed);
            let acceptor = match through {
                _ if is_good => &own,
                Through::BrokenOff => continue,
                Through::AnotherCertificate => &another,
                Through::PlainText => {
                    drop(stream.write_all(b"220 mail.example ESMTP\r\n").await);
                    // Until the other side has had enough of it.
                    drop(stream.read_to_end(&mut Vec::new()).await);
                    continue;
                }
            };
            if let Ok(stream) = acceptor.accept(stream).await {
                be_healthy(stream).await;
            }
        }
    });
    (port, pin)
}

#[tokio::test]
async fn only_somebody_else_behind_the_port_over_there_means_that_it_is_taken() {
    for (through, cause) in [
        (Through::BrokenOff, Cause::GatewayStarting),
        (Through::AnotherCertificate, Cause::PlaceTaken),
        (Through::PlainText, Cause::PlaceTaken),
    ] {
        let bench = Bench::new().await;
        let is_mended = Arc::new(AtomicBool::new(false));
        let (port, pin) = behind(through, Arc::clone(&is_mended)).await;
        let reverse = Reverse {
            listen: Listen::loopback(free_port()),
            to: Destination::loopback(port),
            proves: true,
            pin: Some(pin),
        };
        let mut lane = bench.lane_for(reverse).await;
        let state = until(&mut lane, "it is not live", |state| state.failure.is_some()).await;
        assert_eq!(state.failure.unwrap().cause, cause, "{through:?}");
        is_mended.store(true, Relaxed);
        live(&mut lane).await;
    }
}
