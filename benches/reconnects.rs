//! A day of broken links: what the supervisor keeps in memory after 10,000 reconnects, and after 100.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};

use crate::side_by_side::{Goal, Samples, Table, first_line, noticing::reconnects, rounds, say};
use crate::support::{
    Meter, Peer, Scene, free_port, openclaw, present, resident_bytes, signal, status_of, way_in,
};

/// Tunnels that are cut at once.
const TUNNELS: usize = 4;
/// Reconnects before the first look, and between two later ones.
const FIRST: usize = 100;
/// How long the supervisor is left alone before its memory is read.
const CALM: Duration = Duration::from_secs(3);
/// By how much the memory may differ at the end: noise, MiB.
const NOISE: f64 = 1.0;
const LIMIT: Duration = Duration::from_secs(60);

/// Measures, and says whether every goal was held.
pub(crate) fn run() -> ExitCode {
    if !present(&[Peer::OpenSsh]) {
        return ExitCode::SUCCESS;
    }
    // What a login costs the server is not the question.
    let scene = Scene::with(&["KexAlgorithms curve25519-sha256"]);
    let way = Meter::before(scene.sshd.port());
    scene.sshd.know(&scene.sshd.known_hosts_line(way.port()));
    let ports: Vec<u16> = (0..TUNNELS).map(|number| connect(&scene, &way, number)).collect();
    let supervisor = scene.laptop.supervisor().expect("a supervisor");

    let all = rounds(10_000).max(2 * FIRST);
    let mut memory = Vec::new();
    let mut done = 0;
    let start = Instant::now();
    for until in looks(all) {
        while done < until {
            break_all(&way, supervisor, &ports);
            done += TUNNELS;
        }
        thread::sleep(CALM);
        let bytes = resident_bytes(supervisor).expect("its memory");
        let mebibytes = bytes as f64 / (1024.0 * 1024.0);
        say(&format!("after {done} reconnects: {mebibytes:.2} MiB, {:.0?}", start.elapsed()));
        memory.push(mebibytes);
    }
    let counted: u64 = (0..TUNNELS).map(|number| reconnects(&scene.laptop, &name(number))).sum();
    let [early, late] =
        [memory.first(), memory.last()].map(|it| *it.expect("looked at least once"));
    Table::new("reconnects", &[("sshd", first_line("ssh", &["-V"]))])
        .alone("reconnects, by remote status", "of all tunnels", &Samples::of([counted as f64]))
        .compare(
            "memory at the end",
            "MiB",
            &Samples::of([late]),
            ("after 100", &Samples::of([early])),
        )
        .goal(Goal::EachAtMost(early + NOISE))
        .print()
}

/// After how many reconnects the memory is read.
fn looks(all: usize) -> impl Iterator<Item = usize> {
    std::iter::once(FIRST)
        .chain((1..=10).map(move |tenth| all * tenth / 10))
        .filter(|at| *at >= FIRST)
}

fn name(number: usize) -> String {
    format!("vps{number}")
}

/// Brings up a remote over `way`, and returns its local port.
fn connect(scene: &Scene, way: &Meter, number: usize) -> u16 {
    let port = free_port();
    openclaw(&scene.laptop)
        .args(["remote", "connect", "--batch", "--name", &name(number)])
        .args(way_in(way.port(), &scene.sshd.key(), &scene.sshd.known_hosts()))
        .args(["--local-port", &port.to_string()])
        .args(["--remote-port", &scene.gateway.port().to_string()])
        .arg("--token-file")
        .arg(scene.gateway.token_file())
        .arg(scene.sshd.target())
        .run()
        .exits(0);
    port
}

/// Cuts every path, and waits until a request has come through each new one.
fn break_all(way: &Meter, supervisor: Pid, ports: &[u16]) {
    way.cut();
    // As after a wake it then dials at once, however often it had to before.
    signal(supervisor, Signal::SIGCONT);
    for port in ports {
        let answer = status_of(*port, "/healthz", LIMIT);
        assert!(matches!(answer, Ok(200)), "no answer after a cut: {answer:?}");
    }
}
