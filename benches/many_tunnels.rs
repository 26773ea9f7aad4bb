//! What one supervisor costs with 1 to 200 idle tunnels to one real SSH server.

use std::{process::ExitCode, thread, time::Duration};

use nix::unistd::Pid;

use crate::side_by_side::{Goal, Samples, Table, first_line, rounds};
use crate::support::{
    Peer, Program, Scene, cpu_time, dialling, free_port, listens, openclaw, present,
    proportional_bytes, resident_bytes, ssh_forward, switches, wait_until,
};

/// So many tunnels, the largest last.
const STEPS: [usize; 5] = [1, 10, 50, 100, 200];
/// The step that has a goal of its own, and is watched for longer.
const FEW: usize = 10;
/// How long the supervisor is left alone after connecting.
const CALM: Duration = Duration::from_secs(10);
/// How long a step is watched: each tunnel proves itself once in that time, and pings eight times.
const WATCHED: Duration = Duration::from_secs(60);
/// How long the step with the goal is watched.
const WATCHED_FEW: Duration = Duration::from_secs(120);
/// How much dearer than the hundred before the last hundred may be for the cost to count as growing
/// in a line.
const LINE: f64 = 1.3;
const LIMIT: Duration = Duration::from_secs(60);

/// What so many tunnels cost.
struct Cost {
    tunnels: f64,
    mebibytes: f64,
    /// Processor time, percent of one core.
    percent: f64,
    /// Wake-ups a minute.
    wakes: f64,
}

/// Measures, and says whether every goal was held.
pub(crate) fn run() -> ExitCode {
    if !present(&[Peer::OpenSsh]) {
        return ExitCode::SUCCESS;
    }
    let scene = Scene::with(&["MaxSessions 1000"]);
    let mut costs: Vec<Cost> = Vec::new();
    let most = *STEPS.get(rounds(STEPS.len()).clamp(1, STEPS.len()) - 1).expect("a step");
    for tunnel in 1..=most {
        connect(&scene, tunnel);
        if STEPS.contains(&tunnel) {
            thread::sleep(CALM);
            let supervisor = scene.laptop.supervisor().expect("a supervisor");
            costs.push(watch(supervisor, tunnel));
        }
    }
    let theirs = ssh_costs(&scene);
    print(&costs, &theirs)
}

fn print(costs: &[Cost], theirs: &Cost) -> ExitCode {
    let mut table = Table::new("many_tunnels", &[("ssh", first_line("ssh", &["-V"]))]);
    for cost in costs {
        let name = |what: &str| format!("{what}, {} tunnels", cost.tunnels);
        let sample = |value: f64| Samples::of([value]);
        if cost.tunnels == theirs.tunnels {
            let peer = "10 × ssh -N -L";
            table
                .compare(
                    &name("memory"),
                    "MiB",
                    &sample(cost.mebibytes),
                    (peer, &sample(theirs.mebibytes)),
                )
                .goal(Goal::EachAtMost(20.0))
                .compare(
                    &name("processor"),
                    "% of a core",
                    &sample(cost.percent),
                    (peer, &sample(theirs.percent)),
                )
                .goal(Goal::EachAtMost(0.5));
        } else {
            table.alone(&name("memory"), "MiB", &sample(cost.mebibytes)).alone(
                &name("processor"),
                "% of a core",
                &sample(cost.percent),
            );
        }
        table.alone(&name("wake-ups"), "a minute", &sample(cost.wakes));
    }
    line(&mut table, costs);
    table.print()
}

/// The last hundred tunnels against those before.
fn line(table: &mut Table, costs: &[Cost]) {
    let [first, .., middle, last] = costs else { return };
    for (what, unit, of) in [
        ("memory of one more tunnel", "KiB", (|cost| cost.mebibytes * 1024.0) as fn(&Cost) -> f64),
        ("processor for one more tunnel", "‰ of a core", |cost| cost.percent * 10.0),
    ] {
        let slope = |from: &Cost, to: &Cost| {
            Samples::of([(of(to) - of(from)) / (to.tunnels - from.tunnels)])
        };
        let peer = ("the hundred before", &slope(first, middle));
        table.compare(what, unit, &slope(middle, last), peer).goal(Goal::RatioAtMost(LINE));
    }
}

/// Brings up one more remote, live.
fn connect(scene: &Scene, number: usize) {
    let gateway = &scene.gateway;
    openclaw(&scene.laptop)
        .args(dialling(&scene.sshd, gateway.port(), gateway.token_file()))
        .args(["--name", &format!("vps{number}"), "--local-port", &free_port().to_string()])
        .arg(scene.sshd.target())
        .run()
        .exits(0);
}

/// What a supervisor takes while nothing happens.
fn watch(supervisor: Pid, tunnels: usize) -> Cost {
    let watched = if tunnels == FEW { WATCHED_FEW } else { WATCHED };
    let before = (cpu_time(supervisor), switches(supervisor));
    thread::sleep(watched);
    let cpu = cpu_time(supervisor) - before.0;
    let wakes = switches(supervisor).saturating_sub(before.1);
    Cost {
        tunnels: float(tunnels as u64),
        mebibytes: mebibytes(resident_bytes(supervisor).expect("its memory")),
        percent: cpu.as_secs_f64() / watched.as_secs_f64() * 100.0,
        wakes: float(wakes) / watched.as_secs_f64() * 60.0,
    }
}

/// What the same number of plain `ssh -N -L` takes; what they share is counted once.
fn ssh_costs(scene: &Scene) -> Cost {
    let programs: Vec<Program> = (0..FEW)
        .map(|_| {
            let port = free_port();
            let ssh = ssh_forward("ssh", &scene.sshd, &[(port, scene.gateway.port())]);
            wait_until("ssh listens", LIMIT, || listens(port).then_some(()));
            ssh
        })
        .collect();
    thread::sleep(CALM);
    let pids = || programs.iter().map(Program::pid);
    let before: Duration = pids().map(cpu_time).sum();
    thread::sleep(WATCHED);
    let cpu = pids().map(cpu_time).sum::<Duration>() - before;
    Cost {
        tunnels: float(FEW as u64),
        mebibytes: mebibytes(pids().filter_map(proportional_bytes).sum()),
        percent: cpu.as_secs_f64() / WATCHED.as_secs_f64() * 100.0,
        wakes: 0.0,
    }
}

fn mebibytes(bytes: u64) -> f64 {
    float(bytes) / (1024.0 * 1024.0)
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn float(value: u64) -> f64 {
    value as f64
}
