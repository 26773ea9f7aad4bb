//! A small frame's round trip beside a flood on another forward, unread and then read, and beside
//! one on its own forward whose reader sleeps.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::side_by_side::{Goal, Samples, Table, first_line, rounds};
use crate::support::{Peer, Scene, dial, free_port, listens, present, ssh_forward, wait_until};

/// The size of a flood; far more than any window or socket buffer.
const FLOOD: u64 = 512 * 1024 * 1024;
/// A counter's worth of bytes, so that a lost, doubled or moved byte shows.
const WORD: u64 = 8;
/// What is written and read at once; a multiple of [`WORD`].
const PART: usize = 64 * 1024;
/// How many round trips are timed beside an unread flood.
const ECHOES: usize = 3000;
/// Asks a server that sends back what it gets for a flood instead.
const FLOOD_WORD: u8 = 255;
/// How many floods of its own forward a round trip is timed beside, and how often beside each.
const OWN_FLOODS: usize = 20;
const OWN_ECHOES: usize = ECHOES / OWN_FLOODS;
/// By how much a flood may delay a small frame, at the 99th percentile of a round, milliseconds.
const DELAY: Goal = Goal::EachAtMost(5.0);
const LIMIT: Duration = Duration::from_secs(60);

/// What was measured on one side.
#[derive(Default)]
struct Side {
    beside_unread: Samples,
    beside_read: Samples,
    rate: Samples,
    worst_unread: Samples,
    worst_read: Samples,
    beside_own: Samples,
    worst_own: Samples,
}

/// The ports of one side that lead to the echo, to the flood, and to the echo that floods as well.
type Ports = [u16; 3];

/// Measures, and says whether every goal was held.
pub(crate) fn run() -> ExitCode {
    if !present(&[Peer::OpenSsh]) {
        return ExitCode::SUCCESS;
    }
    let scene = Scene::new();
    let flood = Flood::start();
    let echo = start_echo();
    let far = [echo, flood.port, echo];
    let ours: Ports = far.map(|_| free_port());
    let specs: Vec<String> =
        ours.iter().zip(far).map(|(near, far)| format!("{near}:127.0.0.1:{far}")).collect();
    let forwards = specs.iter().flat_map(|spec| ["-L", spec]);
    let run = scene.dialling().args(["--name", "vps"]).args(forwards);
    run.arg(scene.sshd.target()).run().exits(0);
    let theirs: Ports = far.map(|_| free_port());
    let pairs: Vec<_> = theirs.into_iter().zip(far).collect();
    let _ssh = ssh_forward("ssh", &scene.sshd, &pairs);
    wait_until("ssh listens", LIMIT, || listens(theirs[2]).then_some(()));

    let [mut our_side, mut their_side] = [Side::default(), Side::default()];
    for _ in 0..rounds(3) {
        measure(ours, &flood, &mut our_side);
        measure(theirs, &flood, &mut their_side);
    }
    let name = "ssh -L";
    let pairs = |of: fn(&Side) -> &Samples| (of(&our_side).clone(), of(&their_side).clone());
    let mut table = Table::new("echo_beside_flood", &[("ssh", first_line("ssh", &["-V"]))]);
    for (what, unit, goal, (ours, theirs)) in [
        ("echo beside an unread flood", "ms", None, pairs(|side| &side.beside_unread)),
        ("its 99th percentile", "ms", Some(DELAY), pairs(|side| &side.worst_unread)),
        ("echo beside a flood that is read", "ms", None, pairs(|side| &side.beside_read)),
        ("its 99th percentile", "ms", Some(DELAY), pairs(|side| &side.worst_read)),
        ("the flood, read to its end", "MiB/s", None, pairs(|side| &side.rate)),
        ("echo beside an unread flood of its forward", "ms", None, pairs(|it| &it.beside_own)),
        ("its 99th percentile", "ms", Some(DELAY), pairs(|side| &side.worst_own)),
    ] {
        table.compare(what, unit, &ours, (name, &theirs));
        goal.map(|goal| table.goal(goal));
    }
    table.print()
}

/// Lets a flood stand unread, times echoes beside it, then reads it to its end beside others.
fn measure([echo, bulk, both]: Ports, flood: &Flood, side: &mut Side) {
    let mut echo = dial(echo, LIMIT).expect("reaching the echo");
    round_trip(&mut echo);
    let unread = dial(bulk, LIMIT).expect("reaching the flood");
    flood.wait_until_stalled();

    let mut beside_unread = Samples::default();
    (0..ECHOES).for_each(|_| beside_unread.add_time(round_trip(&mut echo)));
    side.worst_unread.add(beside_unread.at(0.99));
    side.beside_unread.extend(&beside_unread);

    let done = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&done);
    let start = Instant::now();
    let reader = thread::spawn(move || {
        let bytes = read_all(unread);
        ended.store(true, Ordering::Relaxed);
        bytes
    });
    let mut beside_read = Samples::default();
    while !done.load(Ordering::Relaxed) {
        beside_read.add_time(round_trip(&mut echo));
    }
    let took = start.elapsed();
    assert_eq!(reader.join().expect("the reader"), FLOOD, "the flood lost bytes");
    side.worst_read.add(beside_read.at(0.99));
    side.beside_read.extend(&beside_read);
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    side.rate.add(FLOOD as f64 / (1024.0 * 1024.0) / took.as_secs_f64());
    beside_own(both, side);
}

/// Times echoes beside floods of the same forward that nobody reads, from the moment they begin.
fn beside_own(both: u16, side: &mut Side) {
    let mut beside = Samples::default();
    for _ in 0..OWN_FLOODS {
        let mut echo = dial(both, LIMIT).expect("reaching both");
        round_trip(&mut echo);
        let mut unread = dial(both, LIMIT).expect("reaching both");
        unread.write_all(&[FLOOD_WORD]).expect("asking for the flood");
        (0..OWN_ECHOES).for_each(|_| beside.add_time(round_trip(&mut echo)));
    }
    side.worst_own.add(beside.at(0.99));
    side.beside_own.extend(&beside);
}

/// Sends 64 bytes and waits for them.
fn round_trip(stream: &mut TcpStream) -> Duration {
    let start = Instant::now();
    stream.write_all(&[7; 64]).expect("sending to the echo");
    stream.read_exact(&mut [0; 64]).expect("hearing from the echo");
    start.elapsed()
}

/// Reads to the end, checks each byte, and returns how many there were.
fn read_all(mut stream: TcpStream) -> u64 {
    let mut part = vec![0; PART];
    let mut kept = 0;
    let mut words = 0_u64;
    loop {
        let free = part.get_mut(kept..).expect("less than a word is kept");
        let count = stream.read(free).expect("reading the flood");
        if count == 0 {
            assert_eq!(kept, 0, "the flood ends within a word");
            return words * WORD;
        }
        let filled = kept + count;
        let whole = filled - filled % 8;
        for word in part.get(..whole).expect("filled").chunks_exact(8) {
            assert_eq!(word, words.to_le_bytes(), "the flood is not what was sent");
            words += 1;
        }
        part.copy_within(whole..filled, 0);
        kept = filled - whole;
    }
}

/// A server that sends [`FLOOD`] bytes to whoever connects, as fast as they are taken.
struct Flood {
    port: u16,
    sent: Arc<AtomicU64>,
}

impl Flood {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binding the flood");
        let port = listener.local_addr().expect("its address").port();
        let sent = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&sent);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                counter.store(0, Ordering::Relaxed);
                let counter = Arc::clone(&counter);
                thread::spawn(move || send_all(stream, &counter));
            }
        });
        Self { port, sent }
    }

    /// Waits until nobody takes any more, and fails if somebody took it all.
    fn wait_until_stalled(&self) {
        let mut seen = (0, Instant::now());
        wait_until("the unread flood stalls", LIMIT, || {
            let sent = self.sent.load(Ordering::Relaxed);
            if sent != seen.0 {
                seen = (sent, Instant::now());
            }
            (sent > 0 && seen.1.elapsed() > Duration::from_millis(500)).then_some(())
        });
        assert!(seen.0 < FLOOD, "an unread flood of {FLOOD} bytes was swallowed whole");
    }
}

fn send_all(mut stream: TcpStream, sent: &AtomicU64) {
    let mut part = Vec::with_capacity(PART);
    let mut word = 0_u64;
    while word * WORD < FLOOD {
        part.clear();
        while part.len() < PART {
            part.extend(word.to_le_bytes());
            word += 1;
        }
        if stream.write_all(&part).is_err() {
            return;
        }
        sent.store(word * WORD, Ordering::Relaxed);
    }
}

/// A server that sends back what it gets, and floods whoever begins with [`FLOOD_WORD`]; returns its
/// port.
fn start_echo() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binding the echo");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            drop(stream.set_nodelay(true));
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer) {
                    if buffer[0] == FLOOD_WORD {
                        return send_all(stream, &AtomicU64::new(0));
                    }
                    if buffer.get(..count).is_none_or(|part| stream.write_all(part).is_err()) {
                        return;
                    }
                }
            });
        }
    });
    port
}
