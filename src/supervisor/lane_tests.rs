//! A lane over scripted sessions, on tokio's stopped clock, and one over a real login.

use std::sync::atomic::Ordering::SeqCst;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    scripted::{Bench, LONG, opened, scribe},
    *,
};
use crate::{
    client::far_with_tls,
    control::{self, Reply},
    problem::Class,
    tunnel::Cause,
};

#[test]
fn a_remote_with_a_bound_on_what_is_unread_has_it_for_itself_and_the_others_share_one() {
    let all = Limits::default();
    let of = |most| {
        all.of(&config::Remote { unread_most_mib: most, ..config::Remote::new("me@vps") }).unread
    };
    assert!(Arc::ptr_eq(&of(None), &all.unread), "they share");
    assert_eq!(all.unread.most_mib(), 64);
    let own = of(Some(20));
    assert_eq!(own.most_mib(), 20);
    let shared = of(None).enter();
    shared.push(vec![0; 1 << 20].into());
    assert_eq!((all.unread.total(), own.total()), (1 << 20, 0), "each counts its own");
    // A file that somebody has written.
    assert_eq!([0, u16::MAX].map(|most| of(Some(most)).most_mib()), [16, 1024]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_waits_for_the_path_and_is_then_served() {
    let mut bench = Bench::new().await;
    let mut local = bench.command(LONG).await;
    bench.lane.state.wait_for(|state| state.held == 1).await.unwrap();
    bench.session().await;
    let mut far = bench.far().await;
    opened(&mut local).await;
    local.write_all(b"ping").await.unwrap();
    let mut seen = [0; 4];
    far.read_exact(&mut seen).await.unwrap();
    far.write_all(b"pong").await.unwrap();
    local.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"pong");
    assert_eq!(bench.lane.state.borrow().held, 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_not_yet_confirmed_waits_again_when_its_session_dies() {
    let mut bench = Bench::new().await;
    let first = bench.session().await;
    bench.phase(Phase::Live).await;
    first.opens.store(false, SeqCst);
    let mut local = bench.command(LONG).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    first.die();
    bench.session().await;
    bench.far().await;
    opened(&mut local).await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_not_yet_confirmed_waits_again_when_its_path_is_doubted() {
    let mut bench = Bench::new().await;
    let first = bench.session().await;
    bench.phase(Phase::Live).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    first.answers.store(false, SeqCst);
    let begun = clock();
    let mut local = bench.command(LONG).await;
    let held = bench.lane.state.wait_for(|state| state.held == 1);
    timeout(LONG, held).await.expect("it is held again").unwrap();
    assert!(clock() - begun <= Duration::from_secs(2), "{:?}", clock() - begun);
    assert!(!first.is_closed());
    bench.session().await;
    bench.far().await;
    opened(&mut local).await;
}

#[tokio::test(start_paused = true)]
async fn the_connection_that_finds_the_gateway_away_waits_for_it_like_those_after_it() {
    let mut bench = Bench::new().await;
    let session = bench.session().await;
    bench.phase(Phase::Live).await;
    session.refuses.store(true, SeqCst);
    let mut local = bench.command(LONG).await;
    bench.phase(Phase::GatewayDown).await;
    assert_eq!(bench.lane.state.borrow().held, 1);
    *session.proofs.lock().unwrap() = 0;
    session.refuses.store(false, SeqCst);
    bench.far().await;
    opened(&mut local).await;
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_the_session_survives_is_no_reconnect() {
    let mut bench = Bench::new().await;
    let first = bench.session().await;
    bench.phase(Phase::Live).await;
    *first.proofs.lock().unwrap() = 0;
    bench.lane.tell(Command::Woke { slept: Duration::from_secs(60) }).await;
    let is_over = |state: &State| state.outage.as_ref().is_some_and(|it| it.restored.is_some());
    timeout(LONG, bench.lane.state.wait_for(is_over)).await.unwrap().unwrap();
    assert_eq!(bench.lane.state.borrow().reconnects, 0);
    first.die();
    bench.session().await;
    timeout(LONG, bench.lane.state.wait_for(|state| state.reconnects == 1)).await.unwrap().unwrap();
}

/// A connection of some program, as the port accepted it.
async fn accepted() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

#[tokio::test(start_paused = true)]
async fn of_a_flood_of_connections_as_many_are_held_as_may_be_and_the_rest_is_turned_away() {
    let mut bench = Bench::new().await;
    let mut near = Vec::new();
    for _ in 0..HELD_MOST + 40 {
        let (ours, theirs) = accepted().await;
        near.push(ours);
        bench.lane.accepted.send(Local::Tcp(theirs)).await.unwrap();
    }
    bench.lane.state.wait_for(|state| state.held == HELD_MOST).await.unwrap();
    for stream in &mut near[HELD_MOST..] {
        let read = timeout(LONG, stream.read(&mut [0; 16])).await.unwrap().unwrap();
        assert_eq!(read, 0, "a clean close");
    }
    drop(near.split_off(HELD_MOST));
    bench.session().await;
    for _ in 0..HELD_MOST {
        bench.far().await;
    }
    assert_eq!(bench.lane.state.borrow().held, 0);
}

#[tokio::test(start_paused = true)]
async fn callers_who_hang_on_to_their_refusal_keep_no_others_waiting_for_long() {
    let bench = Bench::new().await;
    let mut near = Vec::new();
    let begun = clock();
    for _ in 0..HELD_MOST + 4 * REFUSALS_MOST {
        let (ours, theirs) = accepted().await;
        near.push(ours);
        bench.lane.accepted.send(Local::Tcp(theirs)).await.unwrap();
    }
    for stream in &mut near[HELD_MOST..] {
        let read = timeout(LONG, stream.read(&mut [0; 16])).await.unwrap().unwrap();
        assert_eq!(read, 0, "a clean close");
    }
    assert!(clock() - begun < Duration::from_secs(4), "{:?}", clock() - begun);
}

#[tokio::test(start_paused = true)]
async fn streams_are_bounded_and_the_next_waits_for_room() {
    let mut bench = Bench::new().await;
    bench.session().await;
    bench.phase(Phase::Live).await;
    let mut streams = VecDeque::new();
    for _ in 0..STREAMS_MOST {
        let near = bench.command(LONG).await;
        streams.push_back((near, bench.far().await));
    }
    let mut waiting = bench.command(LONG).await;
    bench.lane.state.wait_for(|state| state.held == 1).await.unwrap();
    assert_eq!(bench.lane.state.borrow().phase, Phase::Live);
    streams.pop_front();
    bench.far().await;
    opened(&mut waiting).await;
    // One that nobody makes room for is told so: the path is live all the time.
    let mut late = bench.command(Duration::from_secs(5)).await;
    let reply = timeout(LONG, control::read::<Reply>(&mut late)).await.unwrap().unwrap();
    let Reply::Failed(problem) = reply else { panic!("{reply:?}") };
    assert!(problem.message.contains("are open already"), "{}", problem.message);
}

#[tokio::test(start_paused = true)]
async fn the_far_end_of_a_stream_is_its_local_end() {
    let mut bench = Bench::new().await;
    bench.session().await;
    bench.phase(Phase::Live).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    bench.lane.accepted.send(Local::Tcp(listener.accept().await.unwrap().0)).await.unwrap();
    let mut far = bench.far().await;
    far.write_all(b"half").await.unwrap();
    far.shutdown().await.unwrap();
    let mut text = String::new();
    near.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "half");
    near.write_all(b"and back").await.unwrap();
    near.shutdown().await.unwrap();
    text.clear();
    far.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "and back", "the other half stays open");
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_ends_says_why() {
    let bench = Bench::new().await;
    let mut local = bench.command(Duration::from_secs(5)).await;
    let reply = timeout(LONG, control::read::<Reply>(&mut local)).await.unwrap().unwrap();
    let Reply::Failed(problem) = reply else { panic!("{reply:?}") };
    assert_eq!(problem.class, Class::Unreachable);
}

#[tokio::test(start_paused = true)]
async fn http_is_answered_with_503_at_the_end_of_its_wait() {
    let bench = Bench::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    near.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    near.shutdown().await.unwrap();
    bench.lane.accepted.send(Local::Tcp(listener.accept().await.unwrap().0)).await.unwrap();
    let mut text = String::new();
    timeout(LONG, near.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    assert!(text.contains(r#""class":"unreachable""#), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_unanswered_ping_brings_a_replacement_and_newcomers_wait_for_it() {
    let mut bench = Bench::new().await;
    let first = bench.session().await;
    bench.phase(Phase::Live).await;
    let mut old = bench.command(LONG).await;
    let _far = bench.far().await;
    opened(&mut old).await;
    first.answers.store(false, SeqCst);
    bench.phase(Phase::Suspect).await;
    let mut local = bench.command(LONG).await;
    bench.session().await;
    bench.phase(Phase::Live).await;
    bench.far().await;
    opened(&mut local).await;
    assert!(!first.is_closed(), "the old session drains");
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_noted_with_its_times() {
    let mut bench = Bench::new().await;
    let first = bench.session().await;
    bench.phase(Phase::Live).await;
    first.die();
    bench.phase(Phase::Connecting).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    bench.session().await;
    bench.phase(Phase::Live).await;
    let state = bench.lane.state.borrow().clone();
    let outage = state.outage.unwrap();
    assert_eq!(state.reconnects, 1);
    assert_eq!(outage.detected, Duration::ZERO);
    assert!(outage.restored.unwrap() >= Duration::from_millis(300));
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_a_wake_or_a_new_network_revealed_has_words_for_it() {
    let woke = Command::Woke { slept: Duration::from_secs(5) };
    for (command, expected) in [(woke, "asleep"), (Command::Network { up: true }, "changed")] {
        let mut bench = Bench::new().await;
        bench.session().await;
        bench.phase(Phase::Live).await;
        bench.lane.tell(command).await;
        let lost = bench.lane.state.wait_for(|state| state.outage.is_some());
        let state = timeout(LONG, lost).await.expect("a doubt").unwrap().clone();
        let cause = state.outage.unwrap().cause;
        assert!(cause.contains(expected), "{cause}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_renewed_certificate_blocks_who_comes_says_what_to_type_and_leaves_open_streams_their_time()
 {
    let mut bench = Bench::pinned().await;
    let session = bench.session().await;
    bench.phase(Phase::Live).await;
    let mut local = bench.command(LONG).await;
    let mut far = bench.far().await;
    opened(&mut local).await;
    // A wake has the gateway proved again, which was renewed meanwhile.
    bench.lane.tell(Command::Woke { slept: Duration::from_secs(5) }).await;
    let proof = bench.far().await;
    let (renewed, tls) = far_with_tls();
    assert!(tls.accept(proof).await.is_err(), "nothing is sent to it");
    bench.phase(Phase::Blocked).await;
    let failure = bench.lane.state.borrow().failure.clone().unwrap();
    assert_eq!((failure.cause, failure.cause.class()), (Cause::OtherCertificate, Class::HostKey));
    let fix = failure.fix.unwrap();
    assert!(fix.ends_with(&format!("--tls-fingerprint {renewed}")), "{fix}");
    let mut newcomer = bench.command(LONG).await;
    let reply = timeout(LONG, control::read::<Reply>(&mut newcomer)).await.unwrap().unwrap();
    let Reply::Failed(problem) = reply else { panic!("{reply:?}") };
    assert_eq!(problem.fix, Some(fix));

    // What was open was opened to the right one.
    far.write_all(b"on").await.unwrap();
    let mut seen = [0; 2];
    local.read_exact(&mut seen).await.unwrap();
    local.write_all(&seen).await.unwrap();
    far.read_exact(&mut seen).await.unwrap();
    assert_eq!(&seen, b"on");
    assert!(!session.is_closed());
    let begun = clock();
    timeout(SILENCE + LONG, session.until_dead()).await.expect("its time is up");
    assert!(clock() - begun > SILENCE - Duration::from_secs(5), "{:?}", clock() - begun);
    assert_eq!(timeout(LONG, local.read(&mut seen)).await.expect("an end").unwrap(), 0);
    assert!(bench.dials.try_recv().is_err(), "nobody dials until somebody says which one counts");
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_address_is_gone_frees_its_streams_once_it_is_replaced() {
    let mut bench = Bench::new().await;
    let first = bench.session().await;
    bench.phase(Phase::Live).await;
    let mut local = bench.command(LONG).await;
    let _far = bench.far().await;
    opened(&mut local).await;
    first.answers.store(false, SeqCst);
    let start = clock();
    bench.lane.tell(Command::Network { up: true }).await;
    bench.session().await;
    timeout(LONG, first.until_dead()).await.expect("the session ends");
    assert!(clock() - start < Duration::from_secs(2), "{:?}", clock() - start);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_kept_of_a_session_that_died() {
    let mut bench = Bench::new().await;
    let first = bench.session().await;
    bench.phase(Phase::Live).await;
    first.die();
    bench.phase(Phase::Connecting).await;
    bench.session().await;
    bench.phase(Phase::Live).await;
    // The stopped clock moves on once every task rests.
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(Arc::strong_count(&first), 1, "somebody still holds the dead session");
}

#[tokio::test(start_paused = true)]
async fn a_disconnect_turns_everybody_away() {
    let mut bench = Bench::new().await;
    let mut local = bench.command(LONG).await;
    bench.lane.state.wait_for(|state| state.held == 1).await.unwrap();
    bench.lane.tell(Command::Wish(Wish::Down)).await;
    let reply = timeout(LONG, control::read::<Reply>(&mut local)).await.unwrap().unwrap();
    assert!(matches!(reply, Reply::Failed(_)), "{reply:?}");
    bench.phase(Phase::Down).await;
}

#[tokio::test]
async fn a_login_that_needed_a_code_is_not_repeated_without_a_person() {
    use crate::ssh::server;
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let key = server::generate_client_key(&folder.path().join("key")).unwrap();
    let code = server::Round { instructions: "", prompts: vec![("Code: ", false, "123456")] };
    let login = server::Login::Rounds { key: Some(key), rounds: vec![code] };
    let options = server::Options { login, ..server::Options::default() };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let server = server::Embedded::start(listener, options).unwrap();
    let port = server.address().port();
    std::fs::write(at("known_hosts"), server.known_hosts_line(port)).unwrap();
    let definition = serde_json::from_value(serde_json::json!({
        "target": format!("127.0.0.1:{port}"),
        "remotePort": 18789,
        "localPort": 18789,
        "ssh": {
            "identities": [at("key")],
            "options": [
                ["UserKnownHostsFile", at("known_hosts")],
                ["GlobalKnownHostsFile", "none"],
                ["IdentityAgent", "none"],
            ],
        },
    }));
    let way =
        crate::supervisor::dialer::find(&definition.unwrap(), Arc::default(), 18789).await.unwrap();
    let (desk, dialer) = (way.desk, way.dialer);
    let options = Options { proof: ProofKind::Ssh, alive: None, seed: 1 };
    let purpose = Purpose::Forward(Destination::loopback(18789));
    let limits = Limits { hold: LONG, ..Limits::default() };
    let span = tracing::Span::none();
    let mut lane = Lane::start(span, options, purpose, &limits, dialer, scribe());
    let mut person = desk.sit();
    lane.tell(Command::Wish(Wish::Up)).await;
    let reached = async |lane: &mut Lane, phase: Phase| {
        let reached = lane.state.wait_for(|state| state.phase == phase);
        timeout(LONG, reached).await.expect("the phase is reached").unwrap().clone()
    };
    let answer = async |person: &mut mpsc::Receiver<crate::supervisor::desk::Asked>| {
        let (question, answer) = timeout(LONG, person.recv()).await.unwrap().unwrap();
        assert!(question.text.ends_with("(127.0.0.1) Code: "), "{}", question.text);
        answer.send(Some(crate::secret::Secret::new("123456"))).unwrap();
    };
    answer(&mut person).await;
    let live = reached(&mut lane, Phase::Live).await;
    assert!(live.facts.is_some_and(|facts| facts.needs_person));
    // The person has gone when the connection breaks.
    drop(person);
    server.drop_sessions();
    let blocked = reached(&mut lane, Phase::Blocked).await;
    let failure = blocked.failure.unwrap();
    assert_eq!(failure.cause, Cause::NeedsPerson, "{failure}");
    assert_eq!(blocked.attempts, 1, "one connection found out, and no other follows");
    let mut person = desk.sit();
    lane.tell(Command::Wish(Wish::Up)).await;
    answer(&mut person).await;
    reached(&mut lane, Phase::Live).await;
}
