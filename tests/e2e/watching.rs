//! What a person, a script and a scraper see of the remotes while things happen to them.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Home, Peer, Scene, Terminal, alive, built, dial, end_of, free_port, openclaw, present, signal,
    wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);

/// `remote status --watch --json` in a home.
struct Watching {
    child: Option<std::process::Child>,
    lines: mpsc::Receiver<Value>,
}

impl Watching {
    fn of(home: &Home) -> Self {
        let mut child = watching(home).spawn().expect("starting it");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let value = serde_json::from_str(&line).expect("one JSON value a line");
                if sender.send(value).is_err() {
                    return;
                }
            }
        });
        Self { child: Some(child), lines }
    }

    /// Waits for an object that is as wanted.
    #[track_caller]
    fn says(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok(object) if is_it(&object) => return object,
                Ok(_) => {}
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn watching(home: &Home) -> Command {
    let mut command = Command::new(built());
    home.furnish(&mut command);
    command.args(["remote", "status", "--watch", "--json"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

/// The answer to a scrape: status and text.
fn scrape(port: u16, host: &str) -> String {
    let mut stream = dial(port, LIMIT).expect("the metrics are answered");
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("asking");
    std::io::read_to_string(stream).expect("an answer")
}

#[test]
fn a_cut_path_is_pushed_told_and_counted() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let port = free_port();
    scene
        .dialling()
        .args(["--name", "vps", "--metrics", &port.to_string()])
        .arg(scene.sshd.target())
        .run()
        .exits(0);
    let watching = Watching::of(&scene.laptop);
    watching.says("live", |object| object["phase"] == "live");
    assert!(scene.sshd.kill_sessions() > 0, "no session to kill\n{}", scene.sshd.log());
    let back = watching.says("back", |object| {
        object["phase"] == "live" && object["reconnects"].as_u64() >= Some(1)
    });
    assert!(back["proof"]["at"].is_string() && back["roundTripMs"].is_number(), "{back:#}");

    let told = scene.laptop(&["remote", "logs", "vps"]).stdout;
    let order: Vec<_> =
        ["the supervisor started", "live", "lost: ", "redialled", "live again after"]
            .iter()
            .map(|part| told.find(part).unwrap_or_else(|| panic!("no `{part}` in:\n{told}")))
            .collect();
    assert!(order.is_sorted(), "{told}");
    let entries = scene.laptop(&["remote", "logs", "vps", "--json"]).json();
    let lost = |entry: &&Value| entry["event"] == "lost" && entry["remote"] == "vps";
    let entries = entries.as_array().expect("an array").clone();
    assert!(entries.iter().any(|entry| lost(&entry)), "{entries:#?}");
    let at = entries.iter().find(lost).expect("lost")["at"].as_str().expect("a time").to_owned();
    let verdict = scene.laptop(&["remote", "logs", "vps", "--at", &at]).stdout;
    assert!(verdict.contains("vps was out of reach from"), "{verdict}");

    let metrics = scrape(port, "localhost");
    assert!(metrics.contains("openclaw_remote_up{remote=\"vps\"} 1"), "{metrics}");
    assert!(!metrics.contains("openclaw_remote_reconnects_total{remote=\"vps\"} 0"), "{metrics}");
    assert!(scrape(port, "evil.example").starts_with("HTTP/1.1 403"));
}

#[test]
fn a_killed_supervisor_is_missed_and_found_again() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let watching = Watching::of(&scene.laptop);
    watching.says("live", |object| object["phase"] == "live");
    let pid = scene.laptop.supervisor().expect("a supervisor");
    assert!(signal(pid, Signal::SIGKILL));
    wait_until("the supervisor is gone", LIMIT, || (!alive(pid)).then_some(()));
    watching.says("down", |object| object["phase"] == "down");
    scene.laptop(&["health"]);
    watching.says("live again", |object| object["phase"] == "live");
    let told = scene.laptop(&["remote", "logs"]).stdout;
    assert!(told.contains("the one before it was killed, or crashed"), "{told}");
    // Where the remote is and when its user was away is nobody else's business.
    let logs = scene.laptop.state().join("rs/logs");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").mode() & 0o777;
    assert_eq!((mode(&logs), mode(&logs.join("history.jsonl"))), (0o700, 0o600));
}

#[test]
fn a_handover_is_no_outage_to_whoever_watches() {
    if !cfg!(debug_assertions) || !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let watching = Watching::of(&scene.laptop);
    let before = watching.says("live", |object| object["phase"] == "live");
    let former = scene.laptop.supervisor().expect("a supervisor");
    let status = openclaw(&scene.laptop).args(["remote", "status"]);
    status.env("OPENCLAW_TEST_PROGRAM_VERSION", "0.2.0").run().exits(0);
    watching.says("live at the next one", |object| {
        assert_ne!(object["phase"], "down", "{object:#}");
        object["phase"] == "live" && object["since"] != before["since"]
    });
    wait_until("the former one has ended", LIMIT, || (!alive(former)).then_some(()));
}

#[test]
fn metrics_are_taken_up_by_the_next_supervisor_until_they_are_switched_off() {
    if !present(&[Peer::OpenSsh, Peer::Prometheus]) {
        return;
    }
    let scene = Scene::new();
    let port = free_port();
    let connect = |address: &str| {
        let ran = scene.dialling().args(["--name", "vps", "--metrics", address]);
        ran.arg(scene.sshd.target()).run()
    };
    let open = connect(&format!("0.0.0.0:{port}")).exits(0);
    assert!(open.stderr.contains("other machines can read the metrics"), "{open}");
    let closed = connect(&format!("localhost:{port}")).exits(0);
    assert!(!closed.stderr.contains("other machines"), "{closed}");
    scene.laptop.stop_supervisor().expect("the supervisor ends");
    scene.laptop(&["health"]);
    wait_until("the metrics are back", LIMIT, || dial(port, LIMIT).ok());

    let answer = scrape(port, "127.0.0.1");
    let (_, text) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let names = families(text);
    for name in ["openclaw_remote_up", "openclaw_remote_rtt_seconds", "openclaw_remote_reconnects"]
    {
        assert!(names.contains(name), "no {name} in {names}");
    }
    connect("off").exits(0);
    assert!(dial(port, LIMIT).is_err());
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let refused = connect(&port.to_string()).exits(6);
    assert!(refused.stderr.contains("the metrics cannot listen"), "{refused}");
    // Nor is anything kept of a remote whose metrics cannot be answered.
    let other = openclaw(&scene.laptop).args(["remote", "connect", "--batch", "--name", "other"]);
    let other = other.args(scene.way_in()).args(["--metrics", &port.to_string()]);
    let other = other.args(["--remote-port", &scene.gateway.port().to_string()]);
    let other = other.args(["--local-port", &free_port().to_string()]);
    let other = other.arg("--token-file").arg(scene.gateway.token_file());
    let other = other.arg(scene.sshd.target());
    other.run().exits(6);
    openclaw(&scene.laptop).args(["remote", "status", "other"]).run().exits(2);
    drop(taken);
    connect("nowhere").exits(2);
}

/// The families that Prometheus's own reader finds; it fails at the first thing amiss.
fn families(text: &str) -> String {
    let script = "import sys\n\
        from prometheus_client.openmetrics.parser import text_string_to_metric_families as read\n\
        for family in read(sys.stdin.read()): print(family.name)";
    let mut reader = Command::new("/usr/bin/python3")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starting python3");
    reader.stdin.take().expect("piped").write_all(text.as_bytes()).expect("telling");
    let output = end_of(reader, LIMIT, "python3");
    assert!(output.status.success(), "not OpenMetrics:\n{text}");
    String::from_utf8(output.stdout).expect("names")
}

#[test]
fn watching_ends_with_its_reader_though_nothing_happens() {
    let home = Home::new();
    home.write("home/.openclaw/rs/remotes.json", RESTING);
    for words in [["remote", "status", "--watch"].as_slice(), &["remote", "logs", "-f"]] {
        let mut command = Command::new(built());
        home.furnish(&mut command);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starting it");
        let mut output = child.stdout.take().expect("piped");
        if words.contains(&"--watch") {
            assert!(first_line(&mut output).contains("vps"));
        }
        drop(output);
        let ended = end_of(child, LIMIT, "openclaw");
        assert_eq!(ended.status.code(), Some(0), "{words:?}");
    }
}

fn first_line(output: &mut ChildStdout) -> String {
    let mut line = String::new();
    BufReader::new(output).read_line(&mut line).expect("a line");
    line
}

/// A remote that nobody wants up.
const RESTING: &str = r#"{"default":"vps","remotes":{"vps":{"target":"me@host.example",
    "remotePort":18789,"localPort":18789,"wanted":false}}}"#;

/// The view on a terminal of a usual size.
fn view(home: &Home) -> Terminal {
    let mut command = Command::new("sh");
    home.furnish(&mut command);
    let script = "stty rows 24 cols 80; \"$0\" remote status --watch; code=$?; stty -a; exit $code";
    command.args(["-c", script]).arg(built());
    Terminal::of(&command)
}

/// Whether the last that was shown is a terminal as a shell needs it.
fn is_usual(screen: &str) -> bool {
    let (_, after) = screen.rsplit_once("\u{1b}[?1049l").unwrap_or(("", ""));
    let settings: Vec<&str> = after.split_whitespace().collect();
    ["icanon", "echo", "isig"].iter().all(|setting| settings.contains(setting))
}

#[test]
fn the_view_gives_the_terminal_back() {
    if !present(&[Peer::Script]) {
        return;
    }
    let home = Home::new();
    home.write("home/.openclaw/rs/remotes.json", RESTING);
    let mut terminal = view(&home);
    terminal.shows("ws://127.0.0.1:18789");
    terminal.types("q");
    let (code, screen) = terminal.end();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("\u{1b}[?1049h") && is_usual(&screen), "{screen}");

    let terminal = view(&home);
    terminal.shows("ws://127.0.0.1:18789");
    let pid = wait_until("the view runs", LIMIT, || {
        let mut running = home.processes().into_iter();
        let is_view = |words: &str| words.starts_with(&*built().to_string_lossy());
        running.find(|(_, words)| is_view(words)).map(|(pid, _)| pid)
    });
    signal(pid, Signal::SIGTERM);
    let (code, screen) = terminal.end();
    assert_eq!(code, 143, "{screen}");
    assert!(is_usual(&screen), "{screen}");
}

/// What stands on a terminal of the view's size after all that was written on it.
fn standing(written: &str) -> String {
    let mut cells = vec![[' '; 80]; 24];
    let (mut row, mut column) = (0, 0);
    let mut written = written.chars();
    while let Some(sign) = written.next() {
        if sign != '\u{1b}' {
            if sign.is_control() {
                continue;
            }
            if let Some(cell) = cells.get_mut(row).and_then(|cells| cells.get_mut(column)) {
                *cell = sign;
            }
            column += 1;
            continue;
        }
        // A control sequence ends with a letter (ECMA-48, 5.4).
        let mut numbers = String::new();
        let end = written.by_ref().find(|sign| {
            numbers.push(*sign);
            sign.is_ascii_alphabetic()
        });
        let numbers = numbers.trim_start_matches('[').trim_end_matches(char::is_alphabetic);
        let place = numbers.split_once(';').map(|(row, column)| (row.parse(), column.parse()));
        match (end, place) {
            (Some('H'), Some((Ok::<usize, _>(down), Ok::<usize, _>(right)))) => {
                (row, column) = (down - 1, right - 1);
            }
            (Some('J'), _) => cells.fill([' '; 80]),
            _ => {}
        }
    }
    cells
        .iter()
        .map(|cells| cells.iter().collect::<String>().trim_end().to_owned() + "\n")
        .collect()
}

#[test]
fn the_view_shows_a_path_that_is_live_and_what_it_went_through() {
    if !present(&[Peer::OpenSsh, Peer::Script]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    assert!(scene.sshd.kill_sessions() > 0, "no session to kill\n{}", scene.sshd.log());
    let cause = wait_until("it is back", LIMIT, || {
        let status = scene.laptop(&["remote", "status", "vps", "--json"]).json();
        let outage = &status[0]["lastOutage"];
        outage["restoredMs"].is_number().then(|| outage["cause"].as_str().expect("why").to_owned())
    });
    let mut terminal = view(&scene.laptop);
    let local = format!("local     ws://127.0.0.1:{}", scene.local_port);
    let wanted = [
        "── vps (default) ──",
        "phase     ● live for ",
        ", reconnected once",
        "proof     gateway ",
        "route     here → ",
        &local,
        "trips     ",
        "streams   0 open, 0 held",
        "── outages ──",
        &cause,
    ];
    let is_whole = |screen: &str| wanted.iter().all(|part| screen.contains(part));
    let begun = std::time::Instant::now();
    let screen = wait_until("all of it", LIMIT * 2, || {
        let screen = standing(&terminal.written());
        (is_whole(&screen) || begun.elapsed() > LIMIT).then_some(screen)
    });
    let order: Vec<_> = wanted.iter().map(|part| screen.find(part)).collect();
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?} on:\n{screen}");
    terminal.types("q");
    let (code, written) = terminal.end();
    assert_eq!(code, 0, "{written}");
}

#[test]
fn the_view_stops_with_all_that_its_shell_waits_for() {
    if !present(&[Peer::Script]) {
        return;
    }
    let home = Home::new();
    home.write("home/.openclaw/rs/remotes.json", RESTING);
    let mut terminal = view(&home);
    terminal.shows("ws://127.0.0.1:18789");
    let is_stopped = |pid: &nix::unistd::Pid| {
        let facts = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        facts.rsplit_once(") ").is_some_and(|(_, facts)| facts.starts_with('T'))
    };
    // The view and the shell between it and the terminal; `script` itself stops as it likes.
    let group = || {
        let all = home.processes().into_iter();
        let mut group: Vec<_> =
            all.filter(|(_, words)| !words.starts_with("script")).map(|(pid, _)| pid).collect();
        group.sort();
        group
    };
    terminal.types("\u{1a}");
    wait_until("both have stopped", LIMIT, || {
        let group = group();
        (group.len() >= 2 && group.iter().all(is_stopped)).then_some(())
    });
    for (pid, _) in home.processes() {
        signal(pid, Signal::SIGCONT);
    }
    terminal.types("q");
    let (code, screen) = terminal.end();
    assert_eq!(code, 0, "{screen}");
    assert!(is_usual(&screen), "{screen}");
}

#[test]
fn an_unknown_remote_cannot_be_watched() {
    let home = Home::new();
    openclaw(&home).args(["remote", "status", "nope", "--watch"]).run().exits(2);
    openclaw(&home).args(["remote", "logs", "nope"]).run().exits(2);
    openclaw(&home).args(["remote", "logs", "--since", "soon"]).run().exits(2);
    let nothing = openclaw(&home).args(["remote", "logs"]).run().exits(0);
    assert!(nothing.stdout.contains("nothing has happened yet"), "{nothing}");
}
