//! From `remote connect` to live, against `ssh -N -L` from its start to its first listening port.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use crate::side_by_side::{Goal, Samples, Table, first_line, rounds};
use crate::support::{Peer, Scene, answers, free_port, listens, openclaw, present, ssh_forward};

/// Measures, and says whether every goal was held.
pub(crate) fn run() -> ExitCode {
    if !present(&[Peer::OpenSsh]) {
        return ExitCode::SUCCESS;
    }
    let scene = Scene::new();
    let [mut cold, mut warm, mut listening, mut answered] = [const { Vec::new() }; 4];
    for _ in 0..rounds(20) {
        // Both sides alternate, so that the machine's moods fall on both.
        let start = Instant::now();
        scene.connect();
        cold.push(start.elapsed());
        scene.laptop(&["remote", "disconnect"]);
        let start = Instant::now();
        openclaw(&scene.laptop).args(["remote", "connect", "--batch", "vps"]).run().exits(0);
        warm.push(start.elapsed());
        scene.laptop(&["remote", "remove", "vps"]);
        scene.laptop.stop_supervisor().expect("the supervisor ends");

        let port = free_port();
        let start = Instant::now();
        let mut ssh = ssh_forward("ssh", &scene.sshd, &[(port, scene.gateway.port())]);
        spin(|| listens(port) || ssh.has_ended());
        listening.push(start.elapsed());
        spin(|| answers(port, "/healthz") || ssh.has_ended());
        answered.push(start.elapsed());
        assert!(!ssh.has_ended(), "ssh ended: {}", ssh.log());
    }
    let [cold, warm, listening, answered] =
        [cold, warm, listening, answered].map(|times: Vec<Duration>| {
            times.into_iter().fold(Samples::default(), |mut samples, time| {
                samples.add_time(time);
                samples
            })
        });
    Table::new("connect", &[("ssh", first_line("ssh", &["-V"]))])
        .compare("connect, supervisor started as well", "ms", &cold, ("ssh listens", &listening))
        .goal(Goal::RatioAtMost(1.0))
        .compare("connect, supervisor running", "ms", &warm, ("ssh listens", &listening))
        .goal(Goal::RatioAtMost(1.0))
        .compare("the gateway has answered", "ms", &cold, ("ssh, /healthz", &answered))
        .print()
}

/// Looks again and again: a pause would be measured.
fn spin(mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "nothing listens");
        std::thread::sleep(Duration::from_micros(500));
    }
}
