//! One fault after the other, chosen by dice, while callers count every request.

use std::{
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    callers::Callers,
    dice::Dice,
    ground::{FAR_V4, FAR_V6, Ground, Loss},
    support::{Peer, answers, free_port, present, signal, user, wait_until},
    tier,
};

/// Longer than any outage here and what comes after it; connections are held for 30 s.
const LIMIT: Duration = Duration::from_secs(28);
/// The longest that a fault lasts.
const LONGEST_MS: u64 = 4000;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    BlackHole,
    OneWayOut,
    OneWayIn,
    Unplugged,
    Unrouted,
    Moved(u8),
    SessionsKilled,
    ServerRestarted,
    ServerAway,
    Stopped,
    StoppedAndMoved(u8),
}

impl Fault {
    fn thrown(dice: &mut Dice) -> Self {
        let host = 10 + u8::try_from(dice.below(200)).expect("below 200");
        match dice.below(11) {
            0 => Self::BlackHole,
            1 => Self::OneWayOut,
            2 => Self::OneWayIn,
            3 => Self::Unplugged,
            4 => Self::Unrouted,
            5 => Self::Moved(host),
            6 => Self::SessionsKilled,
            7 => Self::ServerRestarted,
            8 => Self::ServerAway,
            9 => Self::Stopped,
            _ => Self::StoppedAndMoved(host),
        }
    }

    /// Breaks what can be broken on `ground`.
    fn begin(self, ground: &mut Ground) {
        match self {
            Self::BlackHole => ground.lose(Loss::Both),
            Self::OneWayOut => ground.lose(Loss::Out),
            Self::OneWayIn => ground.lose(Loss::In),
            Self::Unplugged => ground.unplug(),
            Self::Unrouted => ground.unroute(),
            Self::Moved(host) => ground.move_to(host),
            // There may be none: the last fault may have left nothing yet.
            Self::SessionsKilled => {
                ground.scene.sshd.kill_sessions();
            }
            Self::ServerRestarted => ground.far.inside(|| ground.scene.sshd.restart()),
            Self::ServerAway => ground.scene.sshd.stop(),
            Self::Stopped => to_supervisor(ground, Signal::SIGSTOP),
            Self::StoppedAndMoved(host) => {
                to_supervisor(ground, Signal::SIGSTOP);
                ground.move_to(host);
            }
        }
    }

    /// Mends it again.
    fn end(self, ground: &mut Ground) {
        match self {
            Self::BlackHole | Self::OneWayOut | Self::OneWayIn => ground.pass(),
            Self::Unplugged => ground.plug(),
            Self::Unrouted => ground.route(),
            Self::ServerAway => ground.far.inside(|| ground.scene.sshd.restart()),
            Self::Stopped | Self::StoppedAndMoved(_) => {
                to_supervisor(ground, Signal::SIGCONT);
            }
            Self::Moved(_) | Self::SessionsKilled | Self::ServerRestarted => {}
        }
    }
}

fn to_supervisor(ground: &Ground, what: Signal) {
    let pid = ground.scene.laptop.supervisor().expect("a supervisor");
    assert!(signal(pid, what), "{what} to the supervisor");
}

#[test]
fn whatever_happens_every_request_is_served() {
    if !present(&[Peer::OpenSsh, Peer::Namespaces]) {
        return;
    }
    let mut dice = Dice::cast("chaos");
    let mut ground = Ground::connected();
    let callers = ground.callers();
    let mut breaks = Vec::new();
    let mut worst = Duration::ZERO;
    for cycle in 0..tier::of(15, 500) {
        let fault = Fault::thrown(&mut dice);
        let lasts = Duration::from_millis(dice.below(LONGEST_MS));
        let before = Instant::now();
        fault.begin(&mut ground);
        let after = Instant::now();
        breaks.push((before, after));
        thread::sleep(lasts);
        fault.end(&mut ground);
        let mended = Instant::now();
        let Some(served) = callers.succeeded_after(mended, LIMIT) else {
            panic!(
                "nobody is served {LIMIT:?} after {fault:?} of {lasts:?} in cycle {cycle}; {dice}\n{:#}",
                ground.status()
            );
        };
        worst = worst.max(served);
        eprintln!("{cycle}: {fault:?} for {lasts:?}, served {served:?} after its end");
    }
    let account = callers.end();
    let wrong = account.wrong_but_in_flight_at(&breaks);
    assert!(wrong.is_empty(), "{account}; {dice}; wrong: {wrong:#?}");
    eprintln!("{account}; at the latest {worst:?} after a fault");
}

/// A service that answers every question, wherever it is started.
fn answering() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Whoever was cut off may be silent for long.
            thread::spawn(move || answer(stream));
        }
    });
    port
}

fn answer(stream: TcpStream) -> io::Result<()> {
    let mut question = BufReader::new(stream);
    let mut line = String::new();
    while question.read_line(&mut line)? > 2 {
        line.clear();
    }
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    question.get_mut().write_all(answer)
}

/// The server keeps the listener of a session that it does not know to be dead, for four seconds
/// here, so who begins over there is served again after each fault, and not through all of it.
#[test]
fn whatever_happens_forwards_come_back_and_the_ones_from_here_serve_every_request() {
    if !present(&[Peer::OpenSsh, Peer::Namespaces]) {
        return;
    }
    let mut dice = Dice::cast("chaos of forwards");
    let [v4, v6] = [FAR_V4, FAR_V6].map(|address| format!("ListenAddress {address}"));
    let mut ground = Ground::with(&["ClientAliveInterval 2", "ClientAliveCountMax 2", &v4, &v6]);
    let (near, there) = (free_port(), free_port());
    let services = [ground.far.inside(answering), ground.laptop.inside(answering)];
    let [out, back] = [(near, services[0]), (there, services[1])]
        .map(|(port, to)| format!("{port}:127.0.0.1:{to}"));
    let run = ground.scene.dialling().args(["--name", "vps", "-L", &out, "-R", &back]);
    ground.run(run.arg(format!("{}@{FAR_V4}", user()))).exits(0);
    let callers = Callers::start(&ground.laptop, near);
    callers.succeed_after(Instant::now(), LIMIT);
    let mut breaks = Vec::new();
    for cycle in 0..tier::of(6, 100) {
        let fault = Fault::thrown(&mut dice);
        let lasts = Duration::from_millis(dice.below(LONGEST_MS));
        let before = Instant::now();
        fault.begin(&mut ground);
        breaks.push((before, Instant::now()));
        thread::sleep(lasts);
        fault.end(&mut ground);
        let mended = Instant::now();
        let story = format!("after {fault:?} of {lasts:?} in cycle {cycle}; {dice}");
        let served = callers.succeeded_after(mended, LIMIT);
        let served = served.unwrap_or_else(|| panic!("no -L {story}\n{:#}", ground.status()));
        wait_until(&format!("a -R {story}"), LIMIT * 2, || {
            ground.far.inside(|| answers(there, "/healthz")).then_some(())
        });
        eprintln!(
            "{cycle}: {fault:?} for {lasts:?}, -L {served:?}, -R {:?} after",
            mended.elapsed()
        );
    }
    let account = callers.end();
    let wrong = account.wrong_but_in_flight_at(&breaks);
    assert!(wrong.is_empty(), "{account}; {dice}; wrong: {wrong:#?}");
    eprintln!("{account}");
}

/// What the kernel had received before the stop is read after it.
#[test]
fn a_session_that_died_while_the_program_was_stopped_is_not_believed() {
    if !present(&[Peer::OpenSsh, Peer::Namespaces]) {
        return;
    }
    let mut ground = Ground::connected();
    let callers = ground.callers();
    let mut breaks = Vec::new();
    for host in 100..tier::of(103, 130) {
        for (fault, lasts) in [(Fault::BlackHole, 1950), (Fault::StoppedAndMoved(host), 600)] {
            let before = Instant::now();
            fault.begin(&mut ground);
            breaks.push((before, Instant::now()));
            thread::sleep(Duration::from_millis(lasts));
            fault.end(&mut ground);
            let served = callers.succeed_after(Instant::now(), LIMIT);
            eprintln!("{fault:?}: served {served:?} after its end");
        }
    }
    callers.end().all_served_but_those_in_flight_at(&breaks);
}
