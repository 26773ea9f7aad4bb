//! A session dies with twelve streams in the middle of writing: when is the last of them reset.

use std::{
    collections::VecDeque,
    io::Write,
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::AsFd,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::side_by_side::{Goal, Samples, Table, first_line, rounds};
use crate::support::{
    Meter, Peer, Scene, Sshd, dial, free_port, listens, present, ssh_forward_by, wait_until, way_in,
};

const STREAMS: usize = 12;
/// Of so many rounds one freezes the link as well: a silent session is kept for 15 s.
const FROZEN_EVERY: usize = 10;
/// The longest that a dead session may hold its streams, milliseconds.
const BOUND: Goal = Goal::EachAtMost(5.0);
/// For how long nothing may move before the streams count as stuck in their writes.
const STILL: Duration = Duration::from_millis(300);
const LIMIT: Duration = Duration::from_secs(120);

/// Measures, and says whether every goal was held.
pub(crate) fn run() -> ExitCode {
    if !present(&[Peer::OpenSsh]) {
        return ExitCode::SUCCESS;
    }
    let sink = Sink::start();
    let scene = Scene::new();
    let way = Meter::before(scene.sshd.port());
    scene.sshd.know(&scene.sshd.known_hosts_line(way.port()));
    let ours = free_port();
    scene
        .dialling_by(way_in(way.port(), &scene.sshd.key(), &scene.sshd.known_hosts()))
        .args(["--batch", "-L", &format!("{ours}:127.0.0.1:{}", sink.port), "--token-file"])
        .arg(scene.gateway.token_file())
        .arg(scene.sshd.target())
        .run()
        .exits(0);
    let server = Sshd::start(&[]);
    let their_way = Meter::before(server.port());
    server.know(&server.known_hosts_line(their_way.port()));

    let [mut killed, mut cut, mut frozen] =
        [Samples::default(), Samples::default(), Samples::default()];
    let [mut their_killed, mut their_cut] = [Samples::default(), Samples::default()];
    for round in 0..rounds(20) {
        killed.add_time(last_after(ours, &sink, || kill(&scene.sshd)));
        cut.add_time(last_after(ours, &sink, || way.hang_up()));
        way.bury();
        if round % FROZEN_EVERY == 0 {
            frozen.add_time(spread(ours, &sink, || way.strand()));
        }
        // A fresh one each time: it ends with its session.
        for (theirs, death) in [
            (&mut their_killed, &(|| kill(&server)) as &dyn Fn()),
            (&mut their_cut, &|| their_way.hang_up()),
        ] {
            let port = free_port();
            let _ssh = ssh_forward_by("ssh", &[], &server, their_way.port(), &[(port, sink.port)]);
            wait_until("ssh listens", LIMIT, || listens(port).then_some(()));
            theirs.add_time(last_after(port, &sink, death));
            their_way.bury();
        }
    }
    let name = "ssh -L";
    Table::new("teardown", &[("ssh", first_line("ssh", &["-V"]))])
        // When a killed process lets go of its sockets is its kernel's business, so no goal. A server
        // that notices the end takes one of our processors for its own streams' sake: on a closed
        // connection it notices only after the measurement, as one on another machine would.
        .compare("server's process killed: last of 12 reset", "ms", &killed, (name, &their_killed))
        .compare("connection closed: last of 12 reset", "ms", &cut, (name, &their_cut))
        .goal(BOUND)
        .alone("frozen and replaced: from the first to the last", "ms", &frozen)
        .goal(BOUND)
        .print()
}

fn kill(server: &Sshd) {
    assert!(server.kill_sessions() > 0, "no session to kill");
}

/// From the session's death until the last of its streams was reset.
fn last_after(port: u16, sink: &Sink, death: impl FnOnce()) -> Duration {
    let streams = Streams::open(port, sink);
    let start = Instant::now();
    death();
    let ends = streams.ends();
    let last = ends.iter().max().expect("twelve streams");
    last.saturating_duration_since(start)
}

/// From the first stream's reset to the last one's: when a silent session is given up nobody but the
/// program knows. A forward is replaced when somebody comes to it, and somebody does.
fn spread(port: u16, sink: &Sink, silence: impl FnOnce()) -> Duration {
    let streams = Streams::open(port, sink);
    silence();
    let _newcomer = dial(port, LIMIT).expect("the port accepts");
    let ends = streams.ends();
    let first = ends.iter().min().expect("twelve streams");
    let last = ends.iter().max().expect("twelve streams");
    last.saturating_duration_since(*first)
}

/// Streams that are stuck in a write each, because the far end does not read.
struct Streams(Vec<TcpStream>);

impl Streams {
    fn open(port: u16, sink: &Sink) -> Self {
        let before = sink.taken();
        let streams: Vec<TcpStream> = (0..STREAMS)
            .map(|_| {
                let stream = dial(port, LIMIT).expect("the port accepts");
                stream.set_nonblocking(true).expect("writing without waiting");
                stream
            })
            .collect();
        wait_until("all streams are through", LIMIT, || {
            for stream in &streams {
                fill(stream);
            }
            // Whoever asked whether the port listens may be one more.
            (sink.taken() - before >= STREAMS as u64).then_some(())
        });
        let mut moved = Instant::now();
        wait_until("nobody can write any more", LIMIT, || {
            if streams.iter().map(fill).sum::<usize>() > 0 {
                moved = Instant::now();
            }
            (moved.elapsed() > STILL).then_some(())
        });
        Self(streams)
    }

    /// When each of them ended. One thread looks at all: twelve that are woken at once would tell
    /// when they were given a processor.
    fn ends(self) -> Vec<Instant> {
        let mut streams = self.0;
        let mut ends = Vec::new();
        while !streams.is_empty() {
            let mut looks: Vec<PollFd<'_>> = streams
                .iter()
                .map(|stream| PollFd::new(stream.as_fd(), PollFlags::empty()))
                .collect();
            assert!(
                poll(&mut looks, PollTimeout::from(60_000_u16)).expect("waiting") > 0,
                "no end"
            );
            let now = Instant::now();
            let mut is_over = looks.iter().map(|look| look.any() == Some(true)).collect::<Vec<_>>();
            streams.retain(|_| !is_over.remove(0));
            ends.resize(STREAMS - streams.len(), now);
        }
        ends
    }
}

/// Writes until that would wait, and says how much.
fn fill(mut stream: &TcpStream) -> usize {
    let part = [7; 64 * 1024];
    let mut written = 0;
    while let Ok(count @ 1..) = stream.write(&part) {
        written += count;
    }
    written
}

/// A server that takes connections, keeps them, and never reads.
struct Sink {
    port: u16,
    taken: Arc<AtomicU64>,
}

impl Sink {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binding the sink");
        let port = listener.local_addr().expect("its address").port();
        let taken = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&taken);
        thread::spawn(move || {
            let mut kept = VecDeque::new();
            for stream in listener.incoming().map_while(Result::ok) {
                counter.fetch_add(1, Ordering::Relaxed);
                kept.push_back(stream);
                // Those of earlier rounds have ended.
                kept.drain(..kept.len().saturating_sub(2 * STREAMS));
            }
        });
        Self { port, taken }
    }

    /// Connections that it has taken.
    fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}
