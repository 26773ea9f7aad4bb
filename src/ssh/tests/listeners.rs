//! Listeners at a real OpenSSH server that go from one session to the next while somebody connects.

use std::{
    io::ErrorKind,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use tokio::{net::TcpStream, task::JoinSet};

use super::{real::Sshd, *};
use crate::config::Listen;

/// How often the listener changes hands.
const ROUNDS: usize = 20;

/// What came of connecting again and again.
#[derive(Debug, Default)]
struct Tally {
    greeted: usize,
    /// The kernel over there said that nobody listens.
    refused: usize,
    /// It was accepted, and closed without a word.
    dropped: usize,
}

/// Connects to `port` until told to stop, and waits for the greeting each time.
async fn call(port: u16, is_over: &AtomicBool) -> Tally {
    let mut tally = Tally::default();
    while !is_over.load(Relaxed) {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)).await else {
            tally.refused += 1;
            continue;
        };
        let mut text = String::new();
        match within(stream.read_to_string(&mut text)).await {
            Ok(_) if text == "hello" => tally.greeted += 1,
            Ok(_) => tally.dropped += 1,
            // Still in the kernel's queue as the server closed its listener.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => tally.refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    tally
}

/// Greets whoever comes to `session`'s listener at `at`; ends once the listener was given back and
/// everybody was greeted.
async fn greet(session: Session, at: Listen) {
    let mut listening = within(session.listen(&at)).await.unwrap();
    let mut greetings = JoinSet::new();
    while let Some((knock, is_welcome)) = listening.next().await {
        assert!(is_welcome);
        greetings.spawn(async move {
            let mut stream = knock.accept().await;
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            drop(stream.read_to_end(&mut Vec::new()).await);
        });
    }
    within(greetings.join_all()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_was_let_in_is_served_though_the_listener_is_given_back() {
    let Some(sshd) = Sshd::start(&[]).await else { return };
    let (options, script) = (sshd.options(), Script::default());
    let sessions =
        [connect(&options, &script).await.unwrap(), connect(&options, &script).await.unwrap()];
    let at = Listen::loopback(closed_port());
    let port = at.port().unwrap();
    let is_over = AtomicBool::new(false);
    let changing_hands = async {
        for round in 0..ROUNDS {
            let session = &sessions[round % 2];
            let greeting = tokio::spawn(greet(session.clone(), at.clone()));
            // One who is greeted shows that the listener is there.
            while call_once(port).await.is_err() {}
            within(session.unlisten(&at)).await;
            within(greeting).await.unwrap();
        }
        is_over.store(true, Relaxed);
    };
    let calls = async {
        let callers = (0..8).map(|_| call(port, &is_over));
        futures_util::future::join_all(callers).await
    };
    let (tallies, ()) = tokio::join!(calls, changing_hands);
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    assert!(sum(|tally| tally.greeted) > 0, "{tallies:?}");
    assert_eq!(sum(|tally| tally.dropped), 0, "{tallies:?}");
}

async fn call_once(port: u16) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut text = String::new();
    within(stream.read_to_string(&mut text)).await?;
    if text == "hello" { Ok(()) } else { Err(ErrorKind::UnexpectedEof.into()) }
}
