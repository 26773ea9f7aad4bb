//! Programs here that read too little or not at all, and ends that only one side has reached.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use crate::support::{
    Peer, Run, Scene, dial, dialling, free_port, openclaw, peak_bytes, present, resident_bytes,
    wait_until,
};

const LIMIT: Duration = Duration::from_secs(40);
/// What a flood consists of: more than one stream or all of them together may leave unread here and
/// in the buffers of the kernel.
const FLOOD: usize = 48 << 20;
/// What one consists of that has to fit in only because there are so many: more than a stream may
/// leave unread while memory is tight, less than it may with neighbours.
const SURGE: usize = 12 << 20;
/// What all streams together may have unread (architecture: design 2).
const UNREAD_MOST: u64 = 64 << 20;
/// What else a supervisor may come to need for that many sessions under way, in this build.
const MARGIN: u64 = 48 << 20;

/// A service that floods whoever says `f` or, with less, `s`, and sends back what anybody else says.
fn service() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            thread::spawn(move || -> io::Result<()> {
                let mut word = [0];
                stream.read_exact(&mut word)?;
                let size = match word {
                    [b'f'] => FLOOD,
                    [b's'] => SURGE,
                    _ => return io::copy(&mut &stream, &mut &stream).map(drop),
                };
                (0..size / PART.len()).try_for_each(|_| stream.write_all(&PART))?;
                stream.shutdown(Shutdown::Write)
            });
        }
    });
    port
}

/// A piece of a flood.
static PART: [u8; 64 * 1024] = [7; 64 * 1024];

/// Says a first word at a port.
fn says(word: u8, port: u16) -> TcpStream {
    let mut stream = dial(port, LIMIT).expect("the forward");
    stream.write_all(&[word]).expect("the first word");
    stream
}

/// Whether what is said comes back.
fn comes_back(stream: &mut TcpStream) -> bool {
    let mut answer = [0; 64];
    stream.write_all(&[9; 64]).and_then(|()| stream.read_exact(&mut answer)).is_ok()
        && answer == [9; 64]
}

/// Reads to the end: how much came, or how much before a reset.
fn read_all(mut stream: TcpStream) -> Result<usize, usize> {
    let mut part = vec![0; 1 << 20];
    let mut count = 0;
    loop {
        match stream.read(&mut part) {
            Ok(0) => return Ok(count),
            Ok(read) => count += read,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionReset, "after {count} bytes");
                return Err(count);
            }
        }
    }
}

/// The same of many.
fn read_at_once(streams: Vec<TcpStream>) -> Vec<Result<usize, usize>> {
    let read = |stream| thread::spawn(move || read_all(stream));
    let readers: Vec<_> = streams.into_iter().map(read).collect();
    readers.into_iter().map(|reader| reader.join().expect("a reader")).collect()
}

/// The lines of the log that tell of streams that were cut.
fn cuts(scene: &Scene) -> Vec<String> {
    let log = scene.laptop.logs();
    log.lines().filter(|line| line.contains("a stream was cut")).map(str::to_owned).collect()
}

/// A number of a line of the log.
fn field(line: &str, name: &str) -> usize {
    let value = line.split_once(&format!(" {name}=")).map(|(_, rest)| rest).unwrap_or_default();
    let digits = value.split(|letter: char| !letter.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no {name} in {line}"))
}

#[test]
fn a_reader_far_behind_is_reset_the_log_says_so_and_its_neighbour_goes_on() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let near = free_port();
    let spec = format!("{near}:127.0.0.1:{}", service());
    scene.dialling().args(["--name", "vps", "-L", &spec]).arg(scene.sshd.target()).run().exits(0);
    let mut neighbour = says(b'e', near);
    assert!(comes_back(&mut neighbour));
    let flooded = says(b'f', near);
    let line = wait_until("the flood is cut", LIMIT, || {
        assert!(comes_back(&mut neighbour), "the neighbour is served meanwhile");
        cuts(&scene).pop()
    });
    assert!(comes_back(&mut neighbour), "and afterwards");
    for word in ["\"vps\"", &format!("at={near}"), "its local reader is too far behind"] {
        assert!(line.contains(word), "{word} is not in {line}");
    }
    assert_eq!(field(&line, "sent"), 1, "{line}");
    let [received, undelivered] = ["received", "undelivered"].map(|name| field(&line, name));
    assert!(undelivered >= 16 << 20 && received < FLOOD, "{line}");
    // The kernel may drop what it has when the connection is reset.
    let read = read_all(flooded).expect_err("no end that looks like that of the flood");
    assert!(read <= received - undelivered, "{read} of {line}");
}

#[test]
fn what_many_readers_leave_unread_stays_within_its_bound_and_nothing_is_lost_in_silence() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let to = service();
    let ports: Vec<u16> = (0..4).map(|_| free_port()).collect();
    let specs: Vec<String> = ports.iter().map(|port| format!("{port}:127.0.0.1:{to}")).collect();
    let forwards = specs.iter().flat_map(|spec| ["-L", spec]);
    scene.dialling().args(["--name", "vps"]).args(forwards).arg(scene.sshd.target()).run().exits(0);
    let supervisor = scene.laptop.supervisor().expect("a supervisor");
    let before = resident_bytes(supervisor).expect("its memory");
    let floods: Vec<TcpStream> =
        (0..16).flat_map(|_| &ports).map(|port| says(b's', *port)).collect();
    wait_until("the bound is reached", LIMIT, || (!cuts(&scene).is_empty()).then_some(()));
    // Those that were not cut stand still, undrained, and lose nothing.
    let outcomes = read_at_once(floods);
    let peak = peak_bytes(supervisor).expect("its memory at most");
    assert!(peak - before <= UNREAD_MOST + MARGIN, "{before} bytes before, {peak} at most");
    let whole = outcomes.iter().filter(|outcome| **outcome == Ok(SURGE)).count();
    let reset = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert_eq!(whole + reset, outcomes.len(), "an end before its time: {outcomes:?}");
    assert!(whole >= outcomes.len() / 2, "{outcomes:?}");
    let told = wait_until("each reset is told", LIMIT, || {
        Some(cuts(&scene)).filter(|told| told.len() >= reset)
    });
    assert_eq!(told.len(), reset, "{told:#?}");
    assert!(told.iter().all(|line| line.contains("the bounds of memory")), "{told:#?}");
}

#[test]
fn a_remote_may_leave_as_little_unread_as_it_says_and_the_others_do_not_pay() {
    const READERS: usize = 8;
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let to = service();
    // A forward each, so that nobody is behind anybody's unread bytes.
    let connect = |name: &str, dialling: Run, words: &[&str]| {
        let ports: Vec<u16> = (0..READERS).map(|_| free_port()).collect();
        let specs = ports.iter().flat_map(|port| ["-L".into(), format!("{port}:127.0.0.1:{to}")]);
        let run = dialling.args(["--name", name]).args(specs).args(words);
        run.arg(scene.sshd.target()).run().exits(0);
        ports
    };
    let flood = |ports: Vec<u16>| ports.into_iter().map(|port| says(b's', port)).collect();
    let shown = |name: &str| {
        let status = scene.laptop(&["remote", "status", name, "--json"]).json();
        status[0]["unreadMostMib"].as_u64()
    };
    let wide = connect("vps", scene.dialling(), &[]);
    assert_eq!(shown("vps"), Some(64));
    let wide: Vec<TcpStream> = flood(wide);
    let narrow = dialling(&scene.sshd, scene.gateway.port(), scene.gateway.token_file());
    let narrow = connect("small", openclaw(&scene.laptop).args(narrow), &["--unread-most", "16"]);
    assert_eq!(shown("small"), Some(16));
    let told = scene.laptop(&["remote", "status", "small"]).stdout;
    assert!(told.contains("up to 16 MiB while local readers are slow"), "{told}");
    let narrow: Vec<TcpStream> = flood(narrow);
    wait_until("the bound is reached", LIMIT, || (!cuts(&scene).is_empty()).then_some(()));
    let outcomes = read_at_once(narrow);
    let reset = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert!((1..READERS).contains(&reset), "{outcomes:?}");
    assert_eq!(read_at_once(wide), [Ok(SURGE); READERS], "the other one has room");
    for line in cuts(&scene) {
        assert!(line.contains("\"small\"") && line.contains("the bounds of memory"), "{line}");
    }
    for most in ["15", "1025"] {
        let refused = ["remote", "connect", "small", "--unread-most", most];
        let refused = openclaw(&scene.laptop).args(refused).run().exits(2);
        assert!(refused.stderr.contains("16..=1024"), "{refused}");
    }
}

#[test]
fn readers_of_one_forward_that_fall_behind_together_all_get_everything() {
    const READERS: usize = 8;
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let near = free_port();
    let spec = format!("{near}:127.0.0.1:{}", service());
    scene.dialling().args(["--name", "vps", "-L", &spec]).arg(scene.sshd.target()).run().exits(0);
    // At once, so that one session carries them.
    let floods: Vec<TcpStream> = (0..READERS).map(|_| says(b's', near)).collect();
    let received = || {
        let run = openclaw(&scene.laptop).args(["remote", "status", "--json"]).run().exits(0);
        run.json()[0]["bytesIn"].as_u64().expect("a count")
    };
    let mut before = 0;
    wait_until("nothing comes in any more", LIMIT, || {
        thread::sleep(Duration::from_millis(500));
        let now = received();
        (std::mem::replace(&mut before, now) == now && now > 0).then_some(())
    });
    let outcomes = read_at_once(floods);
    assert_eq!(outcomes, [Ok(SURGE); READERS], "{:#?}", cuts(&scene));
}

#[test]
fn each_side_may_end_first_and_still_hear_the_other() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let (near, there) = (free_port(), free_port());
    let to = listener.local_addr().expect("its address").port();
    let specs = [format!("{near}:127.0.0.1:{to}"), format!("{there}:127.0.0.1:{to}")];
    scene
        .dialling()
        .args(["--name", "vps", "-L", &specs[0], "-R", &specs[1]])
        .arg(scene.sshd.target())
        .run()
        .exits(0);
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            tell.send(stream).expect("somebody who listens");
        }
    });
    for port in [near, there] {
        for caller_first in [true, false] {
            let caller = dial(port, LIMIT).expect("the forward");
            let called = told.recv_timeout(LIMIT).expect("the other end");
            called.set_read_timeout(Some(LIMIT)).expect("a limit");
            let (mut first, mut second) =
                if caller_first { (caller, called) } else { (called, caller) };
            first.write_all(b"question").expect("sending");
            first.shutdown(Shutdown::Write).expect("an end");
            let mut heard = Vec::new();
            second.read_to_end(&mut heard).expect("the question to its end");
            assert_eq!(heard, b"question");
            second.write_all(&vec![7; 1 << 20]).expect("a long answer");
            second.shutdown(Shutdown::Write).expect("an end");
            heard.clear();
            first.read_to_end(&mut heard).expect("the answer to its end");
            assert_eq!(heard.len(), 1 << 20);
        }
    }
    assert_eq!(cuts(&scene), [""; 0], "nothing was cut");
}
