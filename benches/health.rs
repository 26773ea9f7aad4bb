//! `openclaw health` and `status --deep` through our tunnel, against OpenClaw's own through `ssh -L`.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use crate::side_by_side::{Goal, Samples, Table, first_line, rounds};
use crate::support::{
    Peer, ReferenceCli, ReferenceGateway, Scene, answers, dialling, free_port, openclaw, present,
    reference_version, ssh_forward, wait_until,
};

/// How often our side is asked for each time the other one is: it is that much quicker.
const OURS_A_ROUND: usize = 10;

/// Measures, and says whether every goal was held.
pub(crate) fn run() -> ExitCode {
    if !present(&[Peer::OpenSsh, Peer::OpenClaw]) {
        return ExitCode::SUCCESS;
    }
    let gateway = ReferenceGateway::start();
    let scene = Scene::new();
    scene.connect();
    let token = scene.laptop.write("reference-token", ReferenceGateway::TOKEN);
    openclaw(&scene.laptop)
        .args(dialling(&scene.sshd, gateway.port(), &token))
        .args(["--name", "reference", "--local-port", &free_port().to_string()])
        .arg(scene.sshd.target())
        .run()
        .exits(0);
    let port = free_port();
    let _ssh = ssh_forward("ssh", &scene.sshd, &[(port, gateway.port())]);
    wait_until("ssh leads to the gateway", Duration::from_secs(20), || {
        answers(port, "/healthz").then_some(())
    });
    let cli = ReferenceCli::through(port);

    let mut table = Table::new(
        "health",
        &[("OpenClaw", reference_version()), ("ssh", first_line("ssh", &["-V"]))],
    );
    for (words, goal) in
        [(["health", "--json"].as_slice(), 50.0), (&["status", "--deep", "--json"], 200.0)]
    {
        let [mut to_ours, mut to_reference, mut theirs] = [const { Vec::new() }; 3];
        for _ in 0..rounds(5) {
            for _ in 0..OURS_A_ROUND {
                to_ours.push(timed(|| drop(scene.laptop(&[&["--remote", "vps"], words].concat()))));
                let words = [&["--remote", "reference"], words].concat();
                to_reference.push(timed(|| drop(scene.laptop(&words))));
            }
            theirs.push(timed(|| drop(cli.run(words))));
        }
        let [to_ours, to_reference, theirs] = [to_ours, to_reference, theirs].map(samples);
        let what = words.join(" ");
        let goal = Goal::MedianAtMost(goal);
        let peer = ("OpenClaw through ssh -L", &theirs);
        table.compare(&format!("{what}, our gateway"), "ms", &to_ours, peer).goal(goal);
        table.compare(&format!("{what}, OpenClaw gateway"), "ms", &to_reference, peer).goal(goal);
    }
    table.print()
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn samples(times: Vec<Duration>) -> Samples {
    let mut samples = Samples::default();
    times.into_iter().for_each(|time| samples.add_time(time));
    samples
}
