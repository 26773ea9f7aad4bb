//! A link falls silent without a word: when is that noticed, idle and with an answer awaited.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use crate::side_by_side::{
    Goal, Samples, Table, first_line,
    noticing::{noticed_after, reconnects, wait_until_live},
    rounds,
};
use crate::support::{
    Freezer, KEEPALIVE, Peer, Scene, Sshd, answers, dial, free_port, present, ssh_forward_by,
    wait_until, way_in,
};

/// How much longer each round leaves the path alone: so it freezes at any point between two pings.
const STEP: Duration = Duration::from_millis(1500);
/// After so many it is the shortest again: two pings take 9.6 s.
const CALMS: u32 = 6;
const LIMIT: Duration = Duration::from_secs(120);

/// Who waits for an answer when the link freezes.
#[derive(Clone, Copy)]
enum Waiting {
    Nobody,
    OnAnOpenStream,
    OnANewOne,
}

/// Measures, and says whether every goal was held.
pub(crate) fn run() -> ExitCode {
    if !present(&[Peer::OpenSsh]) {
        return ExitCode::SUCCESS;
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
    let [mut idle, mut awaited] = [Samples::default(), Samples::default()];
    let gateway = scene.gateway.port();
    let theirs = thread::scope(|scope| {
        // They take a minute, and nothing but time.
        let theirs = [false, true].map(|asks| scope.spawn(move || ssh_ends_after(gateway, asks)));
        for round in 0..u32::try_from(rounds(6)).expect("few rounds") {
            let calm = STEP * (round % CALMS);
            let how = if round % 2 == 0 { Waiting::OnAnOpenStream } else { Waiting::OnANewOne };
            idle.add_time(freeze(&scene, &freezer, calm, Waiting::Nobody));
            awaited.add_time(freeze(&scene, &freezer, calm, how));
        }
        theirs.map(|theirs| theirs.join().expect("the peer's thread"))
    });
    let [their_idle, their_awaited] = theirs.map(|time| {
        let mut samples = Samples::default();
        samples.add_time(time);
        samples
    });
    let name = "ssh, ServerAlive 15 × 3";
    Table::new("frozen_link", &[("ssh", first_line("ssh", &["-V"]))])
        .compare("noticed, an answer awaited", "ms", &awaited, (name, &their_awaited))
        .goal(Goal::EachAtMost(3000.0))
        .compare("noticed, idle", "ms", &idle, (name, &their_idle))
        .goal(Goal::EachAtMost(10_000.0))
        .print()
}

/// Leaves a live path alone for `calm`, freezes it, and says when that showed; live again at the end.
fn freeze(scene: &Scene, freezer: &Freezer, calm: Duration, waiting: Waiting) -> Duration {
    wait_until_live(&scene.laptop, "vps");
    let before = reconnects(&scene.laptop, "vps");
    let mut open = dial(scene.local_port, LIMIT).expect("reaching the gateway");
    ask(&mut open);
    assert!(open.read(&mut [0; 4096]).is_ok_and(|count| count > 0), "the gateway answers");
    thread::sleep(calm);
    freezer.freeze();
    let since = Instant::now();
    let mut asking = match waiting {
        Waiting::Nobody => None,
        Waiting::OnAnOpenStream => Some(open),
        Waiting::OnANewOne => Some(dial(scene.local_port, LIMIT).expect("the port accepts")),
    };
    asking.as_mut().map(ask);
    let took = noticed_after(&scene.laptop, "vps", before, since);
    freezer.thaw();
    wait_until_live(&scene.laptop, "vps");
    took
}

/// Asks, and leaves the connection open for more.
fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").expect("asking");
}

/// Freezes the path of an `ssh -L` with a keepalive, and says when it gave up.
fn ssh_ends_after(gateway: u16, asks: bool) -> Duration {
    let sshd = Sshd::start(&[]);
    let freezer = Freezer::before(sshd.port());
    sshd.know(&sshd.known_hosts_line(freezer.port()));
    let port = free_port();
    let mut ssh = ssh_forward_by("ssh", &KEEPALIVE, &sshd, freezer.port(), &[(port, gateway)]);
    wait_until("ssh leads to the gateway", LIMIT, || answers(port, "/healthz").then_some(()));
    freezer.freeze();
    let since = Instant::now();
    let mut asking = asks.then(|| dial(port, LIMIT).expect("ssh accepts"));
    asking.as_mut().map(ask);
    wait_until("ssh gives up", LIMIT, || ssh.has_ended().then_some(()));
    since.elapsed()
}
