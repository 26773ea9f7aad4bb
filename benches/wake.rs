//! The program stops for a while, as it does while a laptop sleeps, and its path is gone when it
//! goes on: when is that noticed, and when does the next request succeed.

use std::{
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};

use crate::side_by_side::{
    Goal, Samples, Table, first_line,
    noticing::{noticed_after, reconnects, wait_until_live},
    rounds,
};
use crate::support::{
    Meter, Peer, Scene, Sshd, answers, descendants, free_port, openclaw, present, signal,
    ssh_forward_by, status_of, wait_until, way_in,
};

/// How long it sleeps.
const ASLEEP: Duration = Duration::from_secs(5);
/// How long it is awake before.
const AWAKE: Duration = Duration::from_secs(2);
/// How soon after waking the loss must be noticed, and how soon, one handshake apart, the first good
/// answer must come; milliseconds.
const SOON: f64 = 1000.0;
const PACE: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(120);

/// What has become of the path when it wakes.
#[derive(Clone, Copy, PartialEq)]
enum Path {
    /// The server has ended it.
    Cut,
    /// Something in between has forgotten it: nothing comes through, and nobody says so.
    Forgotten,
}

/// What was seen after one kind of sleep.
#[derive(Default)]
struct Side {
    noticed: Samples,
    answered: Samples,
}

/// Measures, and says whether every goal was held.
pub(crate) fn run() -> ExitCode {
    if !present(&[Peer::OpenSsh, Peer::Autossh]) {
        return ExitCode::SUCCESS;
    }
    let scene = Scene::new();
    let way = Meter::before(scene.sshd.port());
    scene.sshd.know(&scene.sshd.known_hosts_line(way.port()));
    scene
        .dialling_by(way_in(way.port(), &scene.sshd.key(), &scene.sshd.known_hosts()))
        .args(["--batch", "--token-file"])
        .arg(scene.gateway.token_file())
        .arg(scene.sshd.target())
        .run()
        .exits(0);
    let [mut cut, mut forgotten] = [Side::default(), Side::default()];
    let [mut handshake, mut their_cut] = [Samples::default(), Samples::default()];
    let gateway = scene.gateway.port();
    let their_forgotten = thread::scope(|scope| {
        // It takes a minute, and nothing but time.
        let theirs = scope.spawn(move || {
            let mut answered = Samples::default();
            autossh_sleeps(gateway, Path::Forgotten, &mut answered);
            answered
        });
        for _ in 0..rounds(6) {
            sleep(&scene, &way, Path::Cut, &mut cut);
            sleep(&scene, &way, Path::Forgotten, &mut forgotten);
            // Also lets the next replacement be dialled at once.
            scene.laptop(&["remote", "disconnect"]);
            let start = Instant::now();
            openclaw(&scene.laptop).args(["remote", "connect", "--batch", "vps"]).run().exits(0);
            handshake.add_time(start.elapsed());
            autossh_sleeps(gateway, Path::Cut, &mut their_cut);
        }
        theirs.join().expect("the peer's thread")
    });
    let name = "autossh";
    let peers = [("autossh", first_line("autossh", &["-V"])), ("ssh", first_line("ssh", &["-V"]))];
    let answer = Goal::EachAtMost(SOON + handshake.median());
    Table::new("wake", &peers)
        .alone("one handshake: remote connect, supervisor running", "ms", &handshake)
        .alone("path cut while asleep: noticed", "ms", &cut.noticed)
        .goal(Goal::EachAtMost(SOON))
        .compare("path cut while asleep: first answer", "ms", &cut.answered, (name, &their_cut))
        .goal(answer)
        .alone("path forgotten while asleep: noticed", "ms", &forgotten.noticed)
        .goal(Goal::EachAtMost(SOON))
        .compare(
            "path forgotten while asleep: first answer",
            "ms",
            &forgotten.answered,
            (name, &their_forgotten),
        )
        .goal(answer)
        .print()
}

/// Stops the supervisor, loses its path, lets it go on, and watches it come back.
fn sleep(scene: &Scene, way: &Meter, path: Path, side: &mut Side) {
    wait_until_live(&scene.laptop, "vps");
    thread::sleep(AWAKE);
    let before = reconnects(&scene.laptop, "vps");
    let supervisor = scene.laptop.supervisor().expect("a supervisor");
    signal(supervisor, Signal::SIGSTOP);
    thread::sleep(ASLEEP);
    lose(way, path);
    signal(supervisor, Signal::SIGCONT);
    let woke = Instant::now();
    let (noticed, answered) = thread::scope(|scope| {
        let noticing = scope.spawn(|| noticed_after(&scene.laptop, "vps", before, woke));
        let answered = answered_after(scene.local_port, woke);
        (noticing.join().expect("the watching thread"), answered)
    });
    side.noticed.add_time(noticed);
    side.answered.add_time(answered);
}

/// The same for an autossh of its own; nobody can be asked when it notices.
fn autossh_sleeps(gateway: u16, path: Path, answered: &mut Samples) {
    let sshd = Sshd::start(&[]);
    let way = Meter::before(sshd.port());
    sshd.know(&sshd.known_hosts_line(way.port()));
    let port = free_port();
    let autossh = ssh_forward_by("autossh", &[], &sshd, way.port(), &[(port, gateway)]);
    wait_until("autossh leads to the gateway", LIMIT, || answers(port, "/healthz").then_some(()));
    thread::sleep(AWAKE);
    let all: Vec<Pid> = std::iter::once(autossh.pid()).chain(descendants(autossh.pid())).collect();
    assert!(all.iter().all(|pid| signal(*pid, Signal::SIGSTOP)), "autossh runs");
    thread::sleep(ASLEEP);
    lose(&way, path);
    assert!(all.iter().all(|pid| signal(*pid, Signal::SIGCONT)), "autossh runs");
    answered.add_time(answered_after(port, Instant::now()));
}

fn lose(way: &Meter, path: Path) {
    match path {
        Path::Cut => way.cut(),
        Path::Forgotten => way.strand(),
    }
}

/// Asks on one connection after another until a good answer comes.
fn answered_after(port: u16, since: Instant) -> Duration {
    while !matches!(status_of(port, "/healthz", LIMIT), Ok(200)) {
        assert!(since.elapsed() < LIMIT, "the path did not come back");
        thread::sleep(PACE);
    }
    since.elapsed()
}
