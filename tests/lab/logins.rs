//! Connections that are cut, torn, stalled or slow where only a proxy can do it.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    support::{
        Freezer, Meter, Moment, Peer, Scene, answers, dial, free_port, openclaw, present,
        status_of, wait_until, way_in,
    },
    tier,
};

/// Far above what the benches hold the program to: busy machines are no fault.
const LIMIT: Duration = Duration::from_secs(30);
/// How soon a silence is noticed while an answer is awaited; judged in the long tier.
const AWAITED: Duration = Duration::from_secs(3);

/// A remote that is live through a proxy.
fn connected(scene: &Scene, freezer: &Freezer) {
    connected_with(scene, freezer.port(), &[]);
}

/// The same with more options.
fn connected_with(scene: &Scene, port: u16, words: &[&str]) {
    scene.sshd.know(&scene.sshd.known_hosts_line(port));
    scene
        .dialling_by(way_in(port, &scene.sshd.key(), &scene.sshd.known_hosts()))
        .args(["--batch", "-oConnectTimeout=3", "--token-file"])
        .arg(scene.gateway.token_file())
        .args(words)
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

/// A service that reads all that it is told; how much that is so far.
fn sink() -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    let heard = Arc::new(AtomicU64::new(0));
    let hears = Arc::clone(&heard);
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut part = vec![0; 64 * 1024];
            while let Ok(count @ 1..) = stream.read(&mut part) {
                hears.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
    });
    (port, heard)
}

/// Nothing else tells of it: a path on which nobody waits is asked every five minutes here.
#[test]
fn an_upload_that_stands_still_is_noticed_by_that() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let freezer = Freezer::before(scene.sshd.port());
    let (near, (to, heard)) = (free_port(), sink());
    let spec = format!("{near}:127.0.0.1:{to}");
    connected_with(&scene, freezer.port(), &["-oServerAliveInterval=300", "-L", &spec]);
    let forward = || {
        let status = scene.laptop(&["remote", "status", "--json"]).json();
        status[0]["forwards"][0].clone()
    };
    let mut upload = dial(near, LIMIT).expect("the forward");
    thread::spawn(move || -> io::Result<()> {
        loop {
            upload.write_all(&[7; 64 * 1024])?;
        }
    });
    let goes_on = |what: &str| {
        let before = heard.load(Ordering::Relaxed);
        wait_until(what, LIMIT, || {
            (heard.load(Ordering::Relaxed) > before + (16 << 20)).then_some(())
        });
    };
    for _ in 0..tier::of(1, 10) {
        goes_on("the upload is under way");
        assert_eq!(forward()["phase"], "live");
        freezer.freeze();
        let frozen = Instant::now();
        wait_until("the silence is noticed", LIMIT, || {
            (forward()["phase"] != "live").then_some(())
        });
        let noticed = frozen.elapsed();
        eprintln!("noticed after {noticed:?}");
        assert!(!tier::is_long() || noticed <= AWAITED, "{noticed:?}");
        freezer.thaw();
        goes_on("it goes on where it stood");
        wait_until("live again", LIMIT, || (forward()["phase"] == "live").then_some(()));
    }
}

/// Long only: it takes minutes to see what seldom happens.
#[test]
fn a_path_that_is_spared_is_asked_every_half_minute() {
    if !tier::is_long() || !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let meter = Meter::before(scene.sshd.port());
    connected_with(&scene, meter.port(), &["--low-power"]);
    // What the login and the first proofs still have to say.
    thread::sleep(Duration::from_secs(60));
    let (mut before, mut speaks, mut talks, mut bytes) = (meter.passed(), false, 0, 0);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(600) {
        thread::sleep(Duration::from_millis(500));
        let passed = meter.passed();
        talks += u32::from(passed != before && !speaks);
        speaks = passed != before;
        bytes += passed - before;
        before = passed;
    }
    eprintln!("asked {talks} times in ten minutes, {bytes} bytes");
    // Every half minute, and a proof by the gateway every three.
    assert!((18..=25).contains(&talks), "asked {talks} times");
}
