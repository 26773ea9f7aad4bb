//! The supervisor is killed, and others take what it held.

use std::{
    net::{Ipv4Addr, TcpListener},
    thread,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};

use crate::{
    dice::Dice,
    support::{Peer, Scene, alive, answers, listens, openclaw, present, signal, wait_until},
    tier,
};

const LIMIT: Duration = Duration::from_secs(20);

/// Kills the supervisor, and waits until its port is free.
fn kill(scene: &Scene) {
    let pid: Pid = scene.laptop.supervisor().expect("a supervisor");
    assert!(signal(pid, Signal::SIGKILL));
    wait_until("the supervisor is gone", LIMIT, || (!alive(pid)).then_some(()));
    wait_until("the port is free", LIMIT, || (!listens(scene.local_port)).then_some(()));
}

#[test]
fn a_supervisor_killed_at_any_moment_leaves_nothing_that_the_next_trips_over() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut dice = Dice::cast("crashes");
    let scene = Scene::new();
    scene.connect();
    let saved = scene.laptop.remotes();
    for round in 0..tier::of(10, 100) {
        kill(&scene);
        // It is killed again while it starts, dials, proves or serves.
        let asking = openclaw(&scene.laptop).args(["health"]).limit(LIMIT * 2).start();
        thread::sleep(Duration::from_millis(dice.below(250)));
        if let Some(pid) = scene.laptop.supervisor() {
            signal(pid, Signal::SIGKILL);
            wait_until("the supervisor is gone", LIMIT, || (!alive(pid)).then_some(()));
        }
        // It may have been answered before, found another supervisor, or lost the one it talked to.
        let asked = asking.end();
        assert!([0, 1, 3, 7].contains(&asked.code), "round {round}, {dice}: {asked}");
        scene.laptop(&["health"]);
        assert!(answers(scene.local_port, "/healthz"), "round {round}, {dice}");
        let running = scene.laptop.processes();
        assert_eq!(running.len(), 1, "round {round}, {dice}: {running:?}");
        assert_eq!(scene.laptop.remotes(), saved, "round {round}, {dice}");
    }
    let sessions = || scene.sshd.sessions();
    wait_until("the sessions of the dead end", LIMIT, || (sessions() <= 2).then_some(()));
}

#[test]
fn a_thief_of_the_port_is_named_and_the_port_taken_back_when_it_goes() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    kill(&scene);
    let thief = TcpListener::bind((Ipv4Addr::LOCALHOST, scene.local_port)).expect("the port");
    let failed = openclaw(&scene.laptop).args(["--json", "health"]).run().exits(6);
    let message = failed.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert!(message.contains(&format!("pid {}", std::process::id())), "{failed}");
    let status = scene.laptop(&["remote", "status", "--json"]).json();
    assert_eq!(status[0]["failure"]["class"], "port_in_use", "{status:#}");
    drop(thief);
    scene.laptop(&["remote", "connect", "vps", "--batch"]);
    scene.laptop(&["health"]);
    assert!(answers(scene.local_port, "/healthz"));
}
