//! The path breaks, and whoever uses it hardly notices.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Freezer, Peer, Scene, dial, listens, openclaw, present, signal, status_of, wait_until, way_in,
};

/// Shorter than a connection waits unless told otherwise.
const LIMIT: Duration = Duration::from_secs(28);

/// One request on a connection of its own.
struct Request {
    began: Instant,
    ended: Instant,
    outcome: io::Result<u16>,
}

/// A client that asks again and again through a local port, each time on a new connection.
struct Client {
    asked: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Client {
    fn of(port: u16) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let began = Instant::now();
                let outcome = status_of(port, "/healthz", Duration::from_secs(20));
                let request = Request { began, ended: Instant::now(), outcome };
                log.lock().expect("the log").push(request);
            }
        });
        Self { asked, stop, thread }
    }

    /// Waits until a request has succeeded that began after `instant`.
    fn succeeds_after(&self, instant: Instant) {
        wait_until("a request succeeds", Duration::from_secs(20), || {
            let asked = self.asked.lock().expect("the log");
            let good =
                |request: &Request| request.began >= instant && matches!(request.outcome, Ok(200));
            asked.iter().any(good).then_some(())
        });
    }

    fn end(self) -> Vec<Request> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the client's thread");
        Arc::into_inner(self.asked).expect("the client has ended").into_inner().expect("the log")
    }
}

#[test]
fn no_new_connection_is_refused_or_reset_while_the_far_session_is_killed() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let client = Client::of(scene.local_port);
    client.succeeds_after(Instant::now());
    let mut kills = Vec::new();
    for _ in 0..5 {
        let before = Instant::now();
        assert!(scene.sshd.kill_sessions() > 0, "no session to kill\n{}", scene.sshd.log());
        let after = Instant::now();
        kills.push((before, after));
        client.succeeds_after(after);
    }
    let asked = client.end();
    for request in asked.iter().filter(|request| !matches!(request.outcome, Ok(200))) {
        // A connection that was confirmed before its session died cannot be brought back yet.
        let in_flight = |(before, after): &(Instant, Instant)| {
            request.began <= *after && request.ended >= *before
        };
        let outcome = &request.outcome;
        assert!(kills.iter().any(in_flight), "a new connection failed: {outcome:?}");
        let refused = outcome.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
        assert!(!refused, "the port was closed");
    }
    scene.sshd.kill_sessions();
    scene.laptop(&["health"]);
    let status = scene.laptop(&["remote", "status", "--json"]).json();
    assert!(status[0]["reconnects"].as_u64().is_some_and(|count| count >= 5), "{status:#}");
    let outage = &status[0]["lastOutage"];
    assert!(outage["cause"].is_string() && outage["restoredMs"].is_number(), "{status:#}");
}

#[test]
fn how_long_and_how_many_wait_for_a_path_is_a_matter_of_choice() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut scene = Scene::new();
    let shown = |scene: &Scene| {
        let status = scene.laptop(&["remote", "status", "--json"]).json();
        (status[0]["holdSeconds"].as_u64(), status[0]["heldMost"].as_u64())
    };
    scene.connect();
    assert_eq!(shown(&scene), (Some(30), Some(256)));
    let run = scene.dialling().args(["--name", "vps", "--hold", "20", "--held-most", "1"]);
    run.arg(scene.sshd.target()).run().exits(0);
    assert_eq!(shown(&scene), (Some(20), Some(1)));
    scene.sshd.stop();
    let ask = |first: bool| {
        let mut stream = dial(scene.local_port, LIMIT).expect("the port");
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("asking");
        if first {
            wait_until("one waits", LIMIT, || {
                let status = scene.laptop(&["remote", "status", "--json"]).json();
                (status[0]["held"] == 1).then_some(())
            });
        }
        stream
    };
    let answer = |mut stream: TcpStream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer to its end");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    };
    let waits = ask(true);
    answer(ask(false));
    let status = scene.laptop(&["remote", "status", "--json"]).json();
    assert_eq!(status[0]["held"], 1, "the first one waits still");
    // Long before it would by itself.
    answer(waits);
    for (words, message) in [
        (["--hold", "0"], "1..=300"),
        (["--hold", "301"], "1..=300"),
        (["--held-most", "1025"], "1..=1024"),
    ] {
        let refused = openclaw(&scene.laptop).args(["remote", "connect", "vps"]).args(words).run();
        let refused = refused.exits(2);
        assert!(refused.stderr.contains(message), "{refused}");
    }
}

#[test]
fn whoever_waits_to_the_end_is_told_why_and_so_is_the_log() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut scene = Scene::new();
    let run = scene.dialling().args(["--name", "vps", "--hold", "2"]);
    run.arg(scene.sshd.target()).run().exits(0);
    scene.sshd.stop();
    wait_until("the outage is seen", LIMIT, || {
        let status = scene.laptop(&["remote", "status", "--json"]).json();
        (status.pointer("/0/failure/class")? == "unreachable").then_some(())
    });
    let says = |words: &[u8]| {
        let mut stream = dial(scene.local_port, LIMIT).expect("the port");
        stream.write_all(words).expect("saying it");
        stream
    };
    // More than is looked at, so that a careless close would be a reset.
    let others = [says(b"SSH-2.0-something that waits for an answer\r\n"), says(b"")];
    let mut asking = says(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for mut other in others {
        let mut answer = Vec::new();
        other.read_to_end(&mut answer).expect("a clean end");
        assert!(answer.is_empty(), "{answer:?}");
    }
    let mut answer = String::new();
    asking.read_to_string(&mut answer).expect("an answer to its end");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.starts_with("HTTP/1.1 503 "), "{answer}");
    let body: Value = serde_json::from_str(body).expect("a JSON body");
    assert_eq!((&body["ok"], &body["error"]["class"]), (&false.into(), &"unreachable".into()));
    let reason = body["error"]["message"].as_str().expect("a reason");
    assert!(reason.contains("refused the connection"), "{answer}");
    let log = scene.laptop.logs();
    let unserved = log.lines().filter(|line| line.contains("connections were not served"));
    let because: Vec<_> = unserved.filter(|line| line.contains("cause=Refused")).collect();
    assert!(!because.is_empty(), "{log}");
    let told = scene.laptop(&["remote", "logs", "vps"]).stdout;
    assert!(told.contains(&format!("a connection waited in vain: {reason}")), "{told}");
    scene.sshd.restart();
    scene.laptop(&["health"]);
    let told = scene.laptop(&["remote", "logs", "vps"]).stdout;
    assert!(told.contains("3 connections had waited in vain"), "{told}");
}

#[test]
fn a_restarted_server_is_found_again_and_the_port_holds_meanwhile() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut scene = Scene::new();
    scene.connect();
    scene.sshd.stop();
    assert!(listens(scene.local_port));
    let mut asking = openclaw(&scene.laptop).args(["health", "--timeout", "30000"]).start();
    wait_until("the outage is seen", Duration::from_secs(20), || {
        let status = scene.laptop(&["remote", "status", "--json"]).json();
        (status[0]["phase"] != "live").then_some(())
    });
    assert!(asking.is_running(), "the call did not wait for the path");
    scene.sshd.restart();
    asking.end().exits(0);
    scene.laptop(&["health"]);
}

#[test]
fn a_frozen_path_holds_calls_and_serves_them_when_it_thaws() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let freezer = Freezer::before(scene.sshd.port());
    scene.sshd.know(&scene.sshd.known_hosts_line(freezer.port()));
    scene
        .dialling_by(way_in(freezer.port(), &scene.sshd.key(), &scene.sshd.known_hosts()))
        .args(["--batch", "--token-file"])
        .arg(scene.gateway.token_file())
        .arg(scene.sshd.target())
        .run()
        .exits(0);
    freezer.freeze();
    let mut asking = openclaw(&scene.laptop).args(["health", "--timeout", "30000"]).start();
    // Longer than a silence that is only slow.
    wait_until("the silence is noticed and the call held", Duration::from_secs(20), || {
        let status = scene.laptop(&["--json", "remote", "status", "vps"]).json();
        (status[0]["phase"] != "live" && status[0]["held"] == 1).then_some(())
    });
    assert!(asking.is_running(), "answered through a frozen path");
    assert!(listens(scene.local_port));
    freezer.thaw();
    asking.end().exits(0);
    scene.laptop(&["health"]);
}

#[test]
fn connect_judges_by_what_is_now_and_not_by_what_failed_before() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut scene = Scene::new();
    scene.connect();
    scene.sshd.stop();
    wait_until("the outage is noticed", Duration::from_secs(20), || {
        let status = scene.laptop(&["--json", "remote", "status", "vps"]).json();
        (status.pointer("/0/failure/class")? == "unreachable").then_some(())
    });
    scene.sshd.restart();
    scene.laptop(&["remote", "connect", "vps", "--batch"]);
}

#[test]
fn a_gateway_that_is_gone_is_noticed_by_the_first_who_asks() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    signal(scene.gateway.program().pid(), Signal::SIGKILL);
    wait_until("the gateway is gone", Duration::from_secs(10), || {
        (!listens(scene.gateway.port())).then_some(())
    });
    let ran = openclaw(&scene.laptop).args(["--json", "health"]).run().exits(7);
    let fix = ran.json().pointer("/error/fix").cloned();
    assert!(fix.is_some_and(|fix| fix.to_string().contains("gateway run")), "{}", ran.json());
    let status = scene.laptop(&["--json", "remote", "status", "vps"]).json();
    assert_eq!(status.pointer("/0/phase").unwrap(), "gateway_down");
}
