//! What a session carries: forwards, their ends, jumps, and the kill switch.

use std::{io::ErrorKind, pin::pin, time::Instant};

use futures_util::FutureExt;

use super::*;
use crate::{ssh::OpenFailure, tunnel::Cause};

/// What a kill may take; it is well below a millisecond on an idle machine.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test]
async fn carries_bytes_and_tells_the_end_of_a_channel_from_the_end_of_a_session() {
    let lab = Lab::known();
    let session = connect(&lab.options(), &Script::default()).await.unwrap();
    let (listener, port) = far_side().await;
    let mut polite = open(&session, port).await;
    let (mut far, _) = within(listener.accept()).await.unwrap();
    let mut cut = open(&session, port).await;
    let (mut far_cut, _) = within(listener.accept()).await.unwrap();

    far.write_all(b"all of it").await.unwrap();
    far.shutdown().await.unwrap();
    let mut text = String::new();
    within(polite.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "all of it");
    // The other direction is still open.
    within(polite.write_all(b"answer")).await.unwrap();
    within(polite.shutdown()).await.unwrap();
    text.clear();
    within(far.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "answer");

    far_cut.write_all(b"half").await.unwrap();
    let mut half = [0; 4];
    within(cut.read_exact(&mut half)).await.unwrap();
    let pinging = session.ping();
    lab.server.drop_sessions();
    assert_eq!(within(cut.read_u8()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert!(within(cut.write_all(b"more")).await.is_err());
    assert_eq!(within(session.closed()).await.cause, Cause::LinkLost);
    assert!(within(pinging).await.is_err());
    assert!(session.is_closed());
    let late = within(session.open("127.0.0.1", port)).await;
    assert_eq!(late.unwrap_err(), OpenFailure::SessionLost);
}

#[tokio::test]
async fn tells_the_close_that_follows_the_end_of_file_from_the_end_of_the_session() {
    let lab = Lab::known();
    let session = connect(&lab.options(), &Script::default()).await.unwrap();
    let (listener, port) = far_side().await;
    for is_polite in [true, false] {
        let mut stream = open(&session, port).await;
        let (mut far, _) = within(listener.accept()).await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(within(stream.read(&mut [0])).await.unwrap(), 0);
        let mut closed = pin!(stream.until_closed());
        assert!(closed.as_mut().now_or_never().is_none(), "it still listens");
        if is_polite {
            drop(far);
            // Whoever writes to a socket that is gone is told so, at the second time at the latest.
            let writing = async {
                while stream.write_all(b"more").await.is_ok() {
                    tokio::task::yield_now().await;
                }
            };
            let outcome = tokio::select! {
                outcome = within(&mut closed) => outcome,
                () = writing => within(&mut closed).await,
            };
            outcome.unwrap();
            let late = within(stream.write_all(b"late")).await;
            assert_eq!(late.unwrap_err().kind(), ErrorKind::BrokenPipe);
        } else {
            lab.server.drop_sessions();
            let lost = within(closed).await;
            assert_eq!(lost.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
    }
}

#[tokio::test]
async fn dropping_a_stream_closes_the_far_connection() {
    let lab = Lab::known();
    let session = connect(&lab.options(), &Script::default()).await.unwrap();
    let (listener, port) = far_side().await;
    let mut stream = open(&session, port).await;
    let (mut far, _) = within(listener.accept()).await.unwrap();
    within(stream.write_all(b"last words")).await.unwrap();
    assert_eq!(session.streams(), 1);
    drop(stream);
    let mut text = String::new();
    within(far.read_to_string(&mut text)).await.unwrap();
    assert_eq!((text.as_str(), session.streams()), ("last words", 0));
}

#[tokio::test]
async fn says_why_a_forward_is_refused() {
    let lab = Lab::known();
    let session = connect(&lab.options(), &Script::default()).await.unwrap();
    let refused = within(session.open("127.0.0.1", closed_port())).await.unwrap_err();
    assert!(matches!(&refused, OpenFailure::Refused(why) if why.contains("nothing answers")));
    let elsewhere = within(session.open("192.0.2.1", 80)).await.unwrap_err();
    assert_eq!(elsewhere, OpenFailure::Prohibited);
    lab.server.refuse_forwards(true);
    let prohibited = within(session.open("127.0.0.1", echo().await)).await.unwrap_err();
    assert_eq!(prohibited, OpenFailure::Prohibited);
    assert!(within(session.ping()).await.is_ok());
}

#[tokio::test]
async fn a_kill_frees_twelve_writers_on_a_frozen_link_at_once() {
    let lab = Lab::known();
    let session = connect(&lab.options(), &Script::default()).await.unwrap();
    let (listener, port) = far_side().await;
    let mut streams = Vec::new();
    let mut far = Vec::new();
    for _ in 0..12 {
        streams.push(open(&session, port).await);
        far.push(within(listener.accept()).await.unwrap().0);
    }
    lab.server.stall(true);
    let writers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| {
            tokio::spawn(async move {
                let chunk = vec![7; 64 * 1024];
                loop {
                    if let Err(error) = stream.write_all(&chunk).await {
                        return error.kind();
                    }
                }
            })
        })
        .collect();
    standstill(&session).await;
    let started = Instant::now();
    session.kill();
    for writer in writers {
        assert_eq!(within(writer).await.unwrap(), ErrorKind::ConnectionReset);
    }
    within(session.closed()).await;
    assert!(started.elapsed() < AT_ONCE, "took {:?}", started.elapsed());
}

#[tokio::test]
async fn a_stream_that_nobody_reads_parks_its_session_and_a_kill_frees_it() {
    let lab = Lab::known();
    let session = connect(&lab.options(), &Script::default()).await.unwrap();
    let (listener, port) = far_side().await;
    let unread = open(&session, port).await;
    let (far, _) = within(listener.accept()).await.unwrap();
    let flood = tokio::spawn(async move {
        let mut far = far;
        let chunk = vec![7; 64 * 1024];
        while far.write_all(&chunk).await.is_ok() {}
    });
    standstill(&session).await;
    assert!(session.is_parked());
    let received = session.traffic().0;
    assert!(received < 16 << 20, "{received} bytes were taken though nobody reads");
    let started = Instant::now();
    session.kill();
    within(session.closed()).await;
    assert!(started.elapsed() < AT_ONCE, "took {:?}", started.elapsed());
    within(flood).await.unwrap();
    drop(unread);
}

#[tokio::test]
async fn an_unread_stream_goes_on_without_loss_when_it_is_read() {
    let lab = Lab::known();
    let session = connect(&lab.options(), &Script::default()).await.unwrap();
    let (listener, port) = far_side().await;
    let mut late = open(&session, port).await;
    let (mut far, _) = within(listener.accept()).await.unwrap();
    let total = 24 << 20;
    let source = tokio::spawn(async move {
        let bytes: Vec<u8> = (0..total).map(|number| (number / 7) as u8).collect();
        far.write_all(&bytes).await.unwrap();
        far.shutdown().await.unwrap();
    });
    standstill(&session).await;
    assert!(session.is_parked());
    let mut bytes = Vec::new();
    within(late.read_to_end(&mut bytes)).await.unwrap();
    within(source).await.unwrap();
    assert_eq!(bytes.len(), total);
    assert!(!session.is_parked());
    assert!(bytes.iter().enumerate().all(|(number, byte)| *byte == (number / 7) as u8));
}

#[tokio::test]
async fn a_write_that_was_given_up_never_becomes_other_bytes() {
    let lab = Lab::known();
    let session = connect(&lab.options(), &Script::default()).await.unwrap();
    let (listener, port) = far_side().await;
    let mut stream = open(&session, port).await;
    let (_far, _) = within(listener.accept()).await.unwrap();
    lab.server.stall(true);
    let chunk = vec![1; 64 * 1024];
    let filling = async {
        loop {
            stream.write_all(&chunk).await.unwrap();
        }
    };
    tokio::select! {
        () = filling => {}
        () = standstill(&session) => {}
    }
    lab.server.stall(false);
    assert!(within(stream.write(&[2; 8])).await.is_err());
}

#[tokio::test]
async fn jumps_through_a_host_with_a_check_and_a_login_at_each() {
    let target = Lab::known();
    let jump = Lab::start();
    let options = target.behind(&jump);
    // The jump host's key is new: it is asked about like any other.
    let script = Script::of(&["yes"]);
    let session = connect(&options, &script).await.unwrap();
    assert!(matches!(
        script.asked().as_slice(),
        [Question::HostKey { fingerprint, .. }] if *fingerprint == jump.server.host_key_fingerprint()
    ));
    assert_eq!(session.facts().host_key, target.server.host_key_fingerprint());
    let mut stream = open(&session, echo().await).await;
    shout(&mut stream).await;

    let started = Instant::now();
    jump.server.stall(true);
    session.kill();
    assert_eq!(within(stream.read_u8()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    within(session.closed()).await;
    assert!(started.elapsed() < AT_ONCE, "took {:?}", started.elapsed());
}

#[tokio::test]
async fn what_to_type_about_the_unknown_key_of_a_jump_host_is_not_what_means_the_target() {
    let target = Lab::known();
    let jump = Lab::start();
    let mut options = target.behind(&jump);
    let failure = connect(&options, &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::HostKeyUnknown);
    let fix = failure.fix.unwrap();
    assert!(fix.contains("means the target alone") && fix.contains("@jump"), "{fix}");
    // It would not help: the key of the jump host is still asked about.
    options.host_key_pin = Some(jump.server.host_key_fingerprint());
    let failure = connect(&options, &Script::default()).await.unwrap_err();
    assert_eq!(failure.cause, Cause::HostKeyUnknown);
}

#[tokio::test]
async fn the_end_of_the_jump_host_is_the_end_of_the_session() {
    let target = Lab::known();
    let jump = Lab::start();
    let options = target.behind(&jump);
    let session = connect(&options, &Script::of(&["yes"])).await.unwrap();
    let mut stream = open(&session, echo().await).await;
    shout(&mut stream).await;
    jump.server.drop_sessions();
    assert_eq!(within(stream.read_u8()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(within(session.closed()).await.cause, Cause::LinkLost);
}

#[tokio::test]
async fn dropping_the_last_session_ends_the_connection() {
    let lab = Lab::known();
    let session = connect(&lab.options(), &Script::default()).await.unwrap();
    let mut stream = open(&session, echo().await).await;
    let second = session.clone();
    drop(session);
    shout(&mut stream).await;
    drop(second);
    assert_eq!(within(stream.read_u8()).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_close_is_polite_and_bounded() {
    let lab = Lab::known();
    let session = connect(&lab.options(), &Script::default()).await.unwrap();
    within(session.close()).await;
    assert!(session.is_closed());
    let frozen = connect(&lab.options(), &Script::default()).await.unwrap();
    lab.server.stall(true);
    within(frozen.close()).await;
    assert!(frozen.is_closed());
}

/// A server that lets everybody in and then opens channels of its own.
struct Pushy;

impl russh::server::Handler for Pushy {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<russh::server::Auth, Self::Error> {
        Ok(russh::server::Auth::Accept)
    }
}

#[tokio::test]
async fn channels_that_the_server_opens_are_refused() {
    let lab = Lab::start();
    let (listener, port) = far_side().await;
    let key = lab.at("host_key");
    generate_client_key(&key).unwrap();
    let config = russh::server::Config {
        keys: vec![russh::keys::load_secret_key(&key, None).unwrap()],
        methods: russh::MethodSet::from(&[russh::MethodKind::None][..]),
        ..russh::server::Config::default()
    };
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let running = russh::server::run_stream(config.into(), stream, Pushy).await.unwrap();
        (running.handle(), running)
    });
    let options = options(port, &lab.at("client_key"), &lab.at("known_hosts"));
    let session = connect(&options, &Script::of(&["yes"])).await.unwrap();
    let (server, _running) = within(serving).await.unwrap();
    let opened = [
        within(server.channel_open_session()).await.err(),
        within(server.channel_open_agent()).await.err(),
        within(server.channel_open_x11("127.0.0.1", 1)).await.err(),
        within(server.channel_open_direct_tcpip("127.0.0.1", 22, "127.0.0.1", 1)).await.err(),
        within(server.channel_open_forwarded_tcpip("127.0.0.1", 22, "127.0.0.1", 1)).await.err(),
        within(server.channel_open_forwarded_streamlocal("/x")).await.err(),
    ];
    for error in opened {
        assert!(matches!(error, Some(russh::Error::ChannelOpenFailure(_))), "{error:?}");
    }
    assert!(within(session.ping()).await.is_ok());
}
