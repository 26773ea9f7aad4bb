//! The server's process of a session is killed: when does the next request succeed, ours and autossh.

use std::{
    io::ErrorKind,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use crate::side_by_side::{Goal, Samples, Table, first_line, rounds};
use crate::support::{
    Peer, Scene, Sshd, answers, free_port, present, ssh_forward, status_of, wait_until,
};

/// How long everybody is left alone before each kill.
const CALM: Duration = Duration::from_millis(1300);
/// Our tunnels, each with a server of its own and killed in turn: so each has served for more than
/// five seconds when its turn comes, as after outages that are far apart.
const TUNNELS: usize = 4;
/// Of so many kills one is autossh's as well: it takes much longer.
const PEER_EVERY: usize = 7;
/// How often a client asks; each time on a new connection.
const PACE: Duration = Duration::from_millis(2);

/// What a client saw of one side.
#[derive(Default)]
struct Side {
    restored: Samples,
    refused: Samples,
    reset: Samples,
}

/// Measures, and says whether every goal was held.
pub(crate) fn run() -> ExitCode {
    if !present(&[Peer::OpenSsh, Peer::Autossh]) {
        return ExitCode::SUCCESS;
    }
    let scenes: Vec<Scene> = (0..TUNNELS).map(|_| Scene::new()).collect();
    scenes.iter().for_each(|scene| drop(scene.connect()));
    let server = Sshd::start(&[]);
    let [mut ours, mut theirs] = [Side::default(), Side::default()];
    for (round, scene) in (0..rounds(100)).zip(scenes.iter().cycle()) {
        thread::sleep(CALM);
        outage(&scene.sshd, scene.local_port, &mut ours);
        if round % PEER_EVERY > 0 {
            continue;
        }
        // A fresh one each time: after five deaths within minutes it waits longer and longer, which
        // outages that are far apart do not show.
        let port = free_port();
        let _autossh = ssh_forward("autossh", &server, &[(port, scene.gateway.port())]);
        wait_until("autossh leads to the gateway", Duration::from_secs(20), || {
            answers(port, "/healthz").then_some(())
        });
        thread::sleep(CALM);
        outage(&server, port, &mut theirs);
    }
    let name = "autossh";
    let peers = [("autossh", first_line("autossh", &["-V"])), ("ssh", first_line("ssh", &["-V"]))];
    Table::new("recovery", &peers)
        .compare("path back after the kill", "ms", &ours.restored, (name, &theirs.restored))
        .goal(Goal::RatioAtMost(0.5))
        .compare("new connections refused", "an outage", &ours.refused, (name, &theirs.refused))
        .goal(Goal::EachAtMost(0.0))
        .compare("new connections reset", "an outage", &ours.reset, (name, &theirs.reset))
        .goal(Goal::EachAtMost(0.0))
        .print()
}

/// Kills the sessions of `server` and asks through `port` until an answer comes.
fn outage(server: &Sshd, port: u16, side: &mut Side) {
    assert!(answers(port, "/healthz"), "the path is up before the kill");
    let killed = server.kill_sessions();
    let start = Instant::now();
    assert!(killed > 0, "no session to kill");
    let [mut refused, mut reset] = [0.0, 0.0];
    loop {
        match status_of(port, "/healthz", Duration::from_secs(30)) {
            Ok(200) => break,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => refused += 1.0,
            Ok(_) | Err(_) => reset += 1.0,
        }
        assert!(start.elapsed() < Duration::from_secs(120), "the path did not come back");
        thread::sleep(PACE);
    }
    side.restored.add_time(start.elapsed());
    side.refused.add(refused);
    side.reset.add(reset);
}
