//! Connections that are cut, torn, stalled or slow where only a proxy can do it.

use std::{
    io::{ErrorKind, Read, Write},
    time::{Duration, Instant},
};

use crate::{
    support::{
        Freezer, Moment, Peer, Scene, answers, dial, openclaw, present, status_of, wait_until,
        way_in,
    },
    tier,
};

/// Far above what the benches hold the program to: busy machines are no fault.
const LIMIT: Duration = Duration::from_secs(30);

/// A remote that is live through a proxy.
fn connected(scene: &Scene, freezer: &Freezer) {
    scene.sshd.know(&scene.sshd.known_hosts_line(freezer.port()));
    scene
        .dialling_by(way_in(freezer.port(), &scene.sshd.key(), &scene.sshd.known_hosts()))
        .args(["--batch", "-oConnectTimeout=3", "--token-file"])
        .arg(scene.gateway.token_file())
        .arg(scene.sshd.target())
        .run()
        .exits(0);
}

/// Waits until a request is served that begins from now on.
fn is_served(scene: &Scene) {
    let status = status_of(scene.local_port, "/healthz", LIMIT).expect("an answer");
    assert_eq!(status, 200);
}

#[test]
fn a_connection_cut_at_any_moment_is_made_again_and_nothing_is_blocked() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let freezer = Freezer::before(scene.sshd.port());
    connected(&scene, &freezer);
    for moment in
        [Moment::InBanner, Moment::AfterBanner, Moment::KeyExchange, Moment::Authentication]
    {
        for _ in 0..tier::of(1, 10) {
            let before = freezer.accepted();
            freezer.cut_next(moment);
            freezer.cut();
            // It waits for the connection after the one that is cut.
            is_served(&scene);
            assert_eq!(freezer.accepted() - before, 2, "{moment:?}\n{}", scene.sshd.log());
            let status = scene.laptop(&["remote", "status", "--json"]).json();
            assert_eq!(status[0]["phase"], "live", "{moment:?}: {status:#}");
        }
    }
    // As the server saw it: one login a moment that came to an end, and one that did not.
    let accepted = scene.sshd.log().matches("Accepted publickey").count();
    assert_eq!(accepted, 1 + 4 * tier::of(1, 10), "{}", scene.sshd.log());
}

#[test]
fn a_handshake_that_stalls_is_given_up_and_made_again() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let freezer = Freezer::before(scene.sshd.port());
    connected(&scene, &freezer);
    for moment in [Moment::AfterBanner, Moment::KeyExchange, Moment::Authentication] {
        freezer.stall_next(moment);
        freezer.cut();
        let cut = Instant::now();
        is_served(&scene);
        eprintln!("{moment:?}: served after {:?}", cut.elapsed());
    }
}

/// A client that has half of an answer must not take it for a whole one.
#[test]
fn a_connection_torn_in_the_middle_of_a_frame_resets_its_streams() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let freezer = Freezer::before(scene.sshd.port());
    connected(&scene, &freezer);
    let mut stream = dial(scene.local_port, LIMIT).expect("the local port");
    let ask = format!("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n\r\n", scene.local_port);
    stream.write_all(ask.as_bytes()).expect("asking");
    let mut answer = [0; 4096];
    assert!(stream.read(&mut answer).expect("an answer") > 0);
    freezer.tear();
    stream.write_all(ask.as_bytes()).expect("asking again");
    let end = wait_until("the stream ends", LIMIT, || match stream.read(&mut answer) {
        Ok(0) => Some(None),
        Ok(_) => None,
        Err(error) => Some(Some(error.kind())),
    });
    assert_eq!(end, Some(ErrorKind::ConnectionReset), "a clean end of half an answer");
    is_served(&scene);
}

#[test]
fn a_round_trip_of_two_hundred_milliseconds_is_no_fault() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let freezer = Freezer::slow(scene.sshd.port(), Duration::from_millis(100));
    connected(&scene, &freezer);
    let start = Instant::now();
    while start.elapsed() < tier::seconds(8, 120) {
        assert!(answers(scene.local_port, "/healthz"));
        openclaw(&scene.laptop).args(["health"]).run().exits(0);
    }
    let status = scene.laptop(&["remote", "status", "--json"]).json();
    assert_eq!(status[0]["lastOutage"], serde_json::Value::Null, "{status:#}");
    assert_eq!(freezer.accepted(), 1, "one session is enough");
}
