//! Bulk and small round trips through our tunnel and through `ssh -L`: on loopback and over a long path.

use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use crate::side_by_side::{Goal, Samples, Table, first_line, rounds};
use crate::support::{
    Meter, Peer, Program, Scene, dial, free_port, listens, present, ssh_forward_by, wait_until,
    way_in,
};

/// How much is carried on loopback, bytes.
const BULK: u64 = 512 << 20;
/// How much over the long path.
const LONG_BULK: u64 = 128 << 20;
/// One way on the long path; a round trip takes twice as long.
const ONE_WAY: Duration = Duration::from_millis(50);
/// How many small round trips follow one another in a turn.
const ECHOES: u32 = 2000;
/// How many turns of them each side has in a round, one after the other.
const TURNS: usize = 4;
/// How many downloads and uploads each side has in a round on loopback.
const BULKS: usize = 3;
/// What both sides are told to encrypt with, where they are told.
const CIPHER: &str = "Ciphers=aes128-gcm@openssh.com";
const LIMIT: Duration = Duration::from_secs(120);

/// The local ports that lead to the three servers through one tunnel.
#[derive(Clone, Copy)]
struct Way {
    source: u16,
    sink: u16,
    echo: u16,
}

/// What one side carried one way.
#[derive(Default)]
struct Side {
    download: Samples,
    upload: Samples,
    /// Small round trips, each.
    echo: Samples,
    /// The same, a turn's in a row, divided by their number.
    echo_in_a_row: Samples,
}

/// Measures, and says whether every goal was held.
pub(crate) fn run() -> ExitCode {
    if !present(&[Peer::OpenSsh]) {
        return ExitCode::SUCCESS;
    }
    let scene = Scene::new();
    let far = Way { source: serve(send), sink: serve(take), echo: serve(repeat) };
    let long = Meter::long(scene.sshd.port(), ONE_WAY);
    scene.sshd.know(&scene.sshd.known_hosts_line(long.port()));
    let near = scene.sshd.port();
    let mut table = Table::new("throughput", &[("ssh", first_line("ssh", &["-V"]))]);
    for (words, options) in [("default ciphers", [].as_slice()), ("the same cipher", &[CIPHER])] {
        let ours = connect(&scene, near, options, far);
        let (theirs, _ssh) = start_ssh(&scene, near, options, far);
        let [mut our_side, mut their_side] = [Side::default(), Side::default()];
        for _ in 0..rounds(5) {
            let mut sides = [(ours, &mut our_side), (theirs, &mut their_side)];
            for _ in 0..BULKS {
                sides.reverse();
                for (way, side) in &mut sides {
                    measure(*way, BULK, side);
                }
            }
            for _ in 0..TURNS {
                sides.reverse();
                for (way, side) in &mut sides {
                    turn(*way, ECHOES, side);
                }
            }
        }
        let peer = "ssh -L";
        table
            .compare(
                &format!("download, {words}"),
                "MiB/s",
                &our_side.download,
                (peer, &their_side.download),
            )
            .goal(Goal::RatioAtLeast(1.0))
            .compare(
                &format!("upload, {words}"),
                "MiB/s",
                &our_side.upload,
                (peer, &their_side.upload),
            )
            .goal(Goal::RatioAtLeast(1.0))
            .compare(
                &format!("64 bytes and back, {ECHOES} in a row, each, {words}"),
                "ms",
                &our_side.echo_in_a_row,
                (peer, &their_side.echo_in_a_row),
            )
            .goal(Goal::RatioAtMost(1.0))
            .compare(
                &format!("one of them, {words}"),
                "ms",
                &our_side.echo,
                (peer, &their_side.echo),
            );
        scene.laptop(&["remote", "remove", "vps"]);
    }
    let ours = connect(&scene, long.port(), &[], far);
    let (theirs, _ssh) = start_ssh(&scene, long.port(), &[], far);
    let [mut our_side, mut their_side] = [Side::default(), Side::default()];
    for _ in 0..rounds(5).min(3) {
        for (way, side) in [(ours, &mut our_side), (theirs, &mut their_side)] {
            measure(way, LONG_BULK, side);
            turn(way, 10, side);
        }
    }
    let peer = "ssh -L";
    table
        .compare("download at 100 ms", "MiB/s", &our_side.download, (peer, &their_side.download))
        .goal(Goal::RatioAtLeast(3.0))
        .compare("upload at 100 ms", "MiB/s", &our_side.upload, (peer, &their_side.upload))
        .compare("64 bytes and back at 100 ms", "ms", &our_side.echo, (peer, &their_side.echo))
        .print()
}

/// Our tunnel over `port`, with a forward to each server.
fn connect(scene: &Scene, port: u16, options: &[&str], far: Way) -> Way {
    let near = free_way();
    let mut run = scene
        .dialling_by(way_in(port, &scene.sshd.key(), &scene.sshd.known_hosts()))
        .args(["--batch", "--token-file"])
        .arg(scene.gateway.token_file());
    for (near, far) in pairs(near, far) {
        run = run.args(["-L", &format!("{near}:127.0.0.1:{far}")]);
    }
    options
        .iter()
        .fold(run, |run, option| run.args(["-o", option]))
        .arg(scene.sshd.target())
        .run()
        .exits(0);
    near
}

/// An `ssh -L` over `port`, with a forward to each server.
fn start_ssh(scene: &Scene, port: u16, options: &[&str], far: Way) -> (Way, Program) {
    let near = free_way();
    let program = ssh_forward_by("ssh", options, &scene.sshd, port, &pairs(near, far));
    wait_until("ssh listens", LIMIT, || listens(near.echo).then_some(()));
    (near, program)
}

fn free_way() -> Way {
    Way { source: free_port(), sink: free_port(), echo: free_port() }
}

fn pairs(near: Way, far: Way) -> [(u16, u16); 3] {
    [(near.source, far.source), (near.sink, far.sink), (near.echo, far.echo)]
}

/// One download and one upload, each on a path that has just carried a little.
fn measure(way: Way, bulk: u64, side: &mut Side) {
    download(way.source, 1);
    side.download.add(rate(bulk, download(way.source, bulk)));
    upload(way.sink, 1);
    side.upload.add(rate(bulk, upload(way.sink, bulk)));
}

/// So many small round trips in a row on one connection.
fn turn(way: Way, count: u32, side: &mut Side) {
    let mut echo = dial(way.echo, LIMIT).expect("reaching the echo");
    let mut once = || {
        let start = Instant::now();
        echo.write_all(&[7; 64]).expect("sending to the echo");
        echo.read_exact(&mut [0; 64]).expect("hearing from the echo");
        start.elapsed()
    };
    // The first one waits for the stream to be opened over there.
    once();
    let start = Instant::now();
    for _ in 0..count {
        side.echo.add_time(once());
    }
    side.echo_in_a_row.add_time(start.elapsed() / count);
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(bytes: u64, took: Duration) -> f64 {
    bytes as f64 / (1024.0 * 1024.0) / took.as_secs_f64()
}

/// Asks for `bytes` and reads them.
fn download(port: u16, bytes: u64) -> Duration {
    let start = Instant::now();
    let mut stream = dial(port, LIMIT).expect("reaching the source");
    stream.write_all(&bytes.to_le_bytes()).expect("asking for bytes");
    let mut buffer = vec![0; 256 * 1024];
    let mut all = 0;
    while let count @ 1.. = stream.read(&mut buffer).expect("reading the download") {
        all += count as u64;
    }
    assert_eq!(all, bytes, "the download lost bytes");
    start.elapsed()
}

/// Sends `bytes` and waits until all of them have arrived.
fn upload(port: u16, bytes: u64) -> Duration {
    let start = Instant::now();
    let mut stream = dial(port, LIMIT).expect("reaching the sink");
    stream.write_all(&bytes.to_le_bytes()).expect("announcing bytes");
    give(&mut stream, bytes).expect("writing the upload");
    let mut arrived = [0; 8];
    stream.read_exact(&mut arrived).expect("hearing from the sink");
    assert_eq!(u64::from_le_bytes(arrived), bytes, "the upload lost bytes");
    start.elapsed()
}

/// A server on loopback that does `work` with each connection; returns its port.
fn serve(work: fn(TcpStream) -> io::Result<()>) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binding a server");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            drop(stream.set_nodelay(true));
            // A connection that breaks is seen by the side that measures.
            thread::spawn(move || drop(work(stream)));
        }
    });
    port
}

/// Sends as many bytes as it is asked for.
fn send(mut stream: TcpStream) -> io::Result<()> {
    let bytes = number(&mut stream)?;
    give(&mut stream, bytes)
}

/// Takes as many bytes as were announced, and says how many came.
fn take(mut stream: TcpStream) -> io::Result<()> {
    let bytes = number(&mut stream)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut all = 0;
    while all < bytes {
        match stream.read(&mut buffer)? {
            0 => break,
            count => all += count as u64,
        }
    }
    stream.write_all(&all.to_le_bytes())
}

/// Sends back what comes.
fn repeat(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = [0; 4096];
    while let count @ 1.. = stream.read(&mut buffer)? {
        stream.write_all(buffer.get(..count).unwrap_or_default())?;
    }
    Ok(())
}

fn number(stream: &mut TcpStream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes)?;
    Ok(u64::from_le_bytes(bytes))
}

fn give(stream: &mut TcpStream, bytes: u64) -> io::Result<()> {
    let part = vec![7; 256 * 1024];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(part.len() as u64);
        stream.write_all(
            part.get(..usize::try_from(now).unwrap_or(part.len())).unwrap_or_default(),
        )?;
        left -= now;
    }
    Ok(())
}
