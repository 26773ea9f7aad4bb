//! What a person, a script and a scraper see of the remotes while things happen to them.

use std::{
    io::{BufRead, BufReader, Write},
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
    // Nobody else can see in whose name the remote was out of reach: the way is not in the file.
    let target = scene.sshd.target();
    let file = std::fs::read_to_string(scene.laptop.state().join("rs/logs/history.jsonl"));
    assert!(!file.expect("the history").contains(&target));
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
    command.args(["-c", "stty rows 24 cols 80; exec \"$0\" remote status --watch"]).arg(built());
    Terminal::of(&command)
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
    assert!(screen.contains("\u{1b}[?1049h") && screen.contains("\u{1b}[?1049l"), "{screen}");

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
    assert!(screen.contains("\u{1b}[?1049l"), "{screen}");
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
