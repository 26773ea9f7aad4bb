//! One supervisor follows another while everything goes on: upgrades, services, many at once.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};

use crate::support::{
    Home, Peer, Program, Run, Scene, Terminal, alive, answers, built, dial, free_port, guarded,
    listens, openclaw, present, signal, status_of, wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);
/// What a development build takes for the version of its program.
const PRETEND: &str = "OPENCLAW_TEST_PROGRAM_VERSION";
/// The same for the version of the control socket's messages.
const PRETEND_CONTROL: &str = "OPENCLAW_TEST_CONTROL_VERSION";

/// Whether servers are there, and the program can be told to pretend.
fn ready() -> bool {
    cfg!(debug_assertions) && present(&[Peer::OpenSsh])
}

fn pid(home: &Home) -> Pid {
    home.supervisor().expect("a supervisor")
}

/// Waits until one process is left of all that ran in a home.
fn alone(home: &Home) {
    wait_until("the former supervisors have drained", LIMIT, || {
        (home.processes().len() == 1).then_some(())
    });
}

/// Clients that ask the gateway through a port, again and again, each on a new connection.
struct Callers {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<String>>>,
}

impl Callers {
    fn start(port: u16) -> Self {
        let (stop, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let threads = (0..3).map(|_| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(SeqCst) {
                    match status_of(port, "/healthz", LIMIT) {
                        Ok(200) => drop(answered.fetch_add(1, SeqCst)),
                        Ok(status) => failures.push(format!("status {status}")),
                        Err(error) => failures.push(error.to_string()),
                    }
                }
                failures
            })
        });
        let threads = threads.collect();
        Self { stop, answered, threads }
    }

    /// Waits until more were answered than so far.
    fn go_on(&self) {
        let so_far = self.answered.load(SeqCst);
        wait_until("callers are answered", LIMIT, || {
            (self.answered.load(SeqCst) > so_far + 30).then_some(())
        });
    }

    /// How many were answered, and why the others were not.
    fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, SeqCst);
        let each = self.threads.into_iter().map(|thread| thread.join().expect("a caller"));
        let failures = each.flatten().collect();
        (self.answered.load(SeqCst), failures)
    }
}

/// A connection on which one request follows another.
struct Stream(TcpStream);

impl Stream {
    fn open(port: u16) -> Self {
        let mut stream = Self(dial(port, LIMIT).expect("connecting"));
        stream.asks();
        stream
    }

    /// Reads once; a signal to this process is no news of the stream.
    fn reads(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                outcome => return outcome,
            }
        }
    }

    /// Waits for its end.
    #[track_caller]
    fn ends(&mut self) {
        let outcome = self.reads(&mut [0; 16]);
        let is_late = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        assert!(
            !matches!(&outcome, Ok(1..)) && !outcome.as_ref().is_err_and(is_late),
            "{outcome:?}"
        );
    }

    #[track_caller]
    fn asks(&mut self) {
        let request = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
        self.0.write_all(request).expect("asking on an open stream");
        let mut answer = vec![0; 4096];
        let count = self.reads(&mut answer).expect("an answer on an open stream");
        let answer = String::from_utf8_lossy(answer.get(..count).unwrap_or_default()).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer:?}");
    }
}

fn status(scene: &Scene) -> Run {
    openclaw(&scene.laptop).args(["remote", "status", "--json"])
}

#[test]
fn nobody_is_refused_over_five_upgrades_and_what_is_open_stays() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let mut stream = Stream::open(scene.local_port);
    let callers = Callers::start(scene.local_port);
    for round in 1..=5 {
        callers.go_on();
        let former = pid(&scene.laptop);
        let version = format!("0.1.{round}");
        let shown = status(&scene).env(PRETEND, &version).run().exits(0).json();
        assert_eq!(shown[0]["localPort"], scene.local_port, "{shown}");
        assert_ne!(pid(&scene.laptop), former, "round {round}");
        stream.asks();
    }
    callers.go_on();
    let (answered, failures) = callers.end();
    assert!(failures.is_empty(), "{answered} answered\n{}", failures.join("\n"));
    // The newest serves everybody, older programs included.
    let newest = pid(&scene.laptop);
    scene.laptop(&["health"]);
    assert_eq!(pid(&scene.laptop), newest);
    // The first one stays for the one stream that it carries.
    wait_until("all others have drained", LIMIT, || {
        (scene.laptop.processes().len() == 2).then_some(())
    });
    stream.asks();
    drop(stream);
    alone(&scene.laptop);
}

#[test]
fn a_connection_that_waits_is_served_by_the_next_one() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    scene.connect();
    scene.sshd.stop();
    scene.sshd.kill_sessions();
    wait_until("the path is gone", LIMIT, || {
        let shown = status(&scene).run().json();
        (shown[0]["phase"] != "live").then_some(())
    });
    let port = scene.local_port;
    let waiting: Vec<_> =
        (0..5).map(|_| thread::spawn(move || status_of(port, "/healthz", LIMIT))).collect();
    wait_until("five wait", LIMIT, || (status(&scene).run().json()[0]["held"] == 5).then_some(()));
    let former = pid(&scene.laptop);
    status(&scene).env(PRETEND, "0.2.0").run().exits(0);
    assert_ne!(pid(&scene.laptop), former);
    alone(&scene.laptop);
    wait_until("five wait at the next one", LIMIT, || {
        (status(&scene).run().json()[0]["held"] == 5).then_some(())
    });
    scene.sshd.restart();
    for waiting in waiting {
        assert_eq!(waiting.join().expect("a caller").expect("an answer"), 200);
    }
}

#[test]
fn one_that_speaks_another_language_is_followed_by_one_that_is_understood() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let mut stream = Stream::open(scene.local_port);
    let former = pid(&scene.laptop);
    // Newer or older: a command that cannot talk to the supervisor has no other way.
    openclaw(&scene.laptop).arg("health").env(PRETEND_CONTROL, "9").run().exits(0);
    let newer = pid(&scene.laptop);
    assert_ne!(newer, former);
    scene.laptop(&["health"]);
    assert_ne!(pid(&scene.laptop), newer);
    stream.asks();
    drop(stream);
    alone(&scene.laptop);
}

#[test]
fn an_upgrade_of_the_file_is_taken_up_by_the_next_command() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let file = scene.laptop.path("openclaw");
    fs::copy(built(), &file).expect("copying the program");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&file);
        scene.laptop.furnish(&mut command);
        let output = crate::support::run_to_end(
            {
                command.args(arguments);
                command
            },
            LIMIT,
        );
        assert!(output.status.success(), "{output:?}");
    };
    scene.connect();
    scene.laptop.stop_supervisor();
    run(&["health"]);
    let former = pid(&scene.laptop);
    run(&["health"]);
    assert_eq!(pid(&scene.laptop), former);
    let next = scene.laptop.path("openclaw.next");
    fs::copy(built(), &next).expect("copying the program");
    fs::rename(&next, &file).expect("replacing the program");
    run(&["health"]);
    let now = pid(&scene.laptop);
    assert_ne!(now, former);
    alone(&scene.laptop);
    assert!(answers(scene.local_port, "/healthz"));
    run(&["health"]);
    assert_eq!(pid(&scene.laptop), now);
}

#[test]
fn twenty_commands_of_another_version_at_once_make_one_supervisor() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let former = pid(&scene.laptop);
    let commands: Vec<_> =
        (0..20).map(|_| status(&scene).env(PRETEND, "0.3.0").limit(LIMIT).start()).collect();
    for command in commands {
        let shown = command.end().exits(0).json();
        assert_eq!(shown[0]["localPort"], scene.local_port, "{shown}");
    }
    assert_ne!(pid(&scene.laptop), former);
    alone(&scene.laptop);
    assert!(answers(scene.local_port, "/healthz"));
}

#[test]
fn twenty_commands_that_find_nobody_start_one_supervisor() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    scene.laptop.stop_supervisor();
    let commands: Vec<_> = (0..20).map(|_| status(&scene).limit(LIMIT).start()).collect();
    for command in commands {
        command.end().exits(0);
    }
    alone(&scene.laptop);
    assert!(alive(pid(&scene.laptop)));
    scene.laptop(&["health"]);
}

#[test]
fn a_signal_ends_one_that_only_drains_and_nobody_else() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let mut stream = Stream::open(scene.local_port);
    let former = pid(&scene.laptop);
    status(&scene).env(PRETEND, "0.2.0").run().exits(0);
    stream.asks();
    let mut other = Stream::open(scene.local_port);
    assert!(signal(former, Signal::SIGTERM));
    wait_until("the former one has ended", LIMIT, || (!alive(former)).then_some(()));
    stream.ends();
    other.asks();
}

#[test]
fn the_end_reaches_one_that_drains_though_the_one_in_between_is_gone() {
    if !ready() {
        return;
    }
    for words in [None, Some(["remote", "disconnect"])] {
        let scene = Scene::new();
        scene.connect();
        let drains = pid(&scene.laptop);
        let mut stream = Stream::open(scene.local_port);
        for version in ["0.2.0", "0.3.0", "0.4.0"] {
            status(&scene).env(PRETEND, version).run().exits(0);
        }
        wait_until("those in between have drained", LIMIT, || {
            (scene.laptop.processes().len() == 2).then_some(())
        });
        stream.asks();
        match words {
            Some(words) => drop(scene.laptop(&words)),
            None => assert!(signal(pid(&scene.laptop), Signal::SIGTERM)),
        }
        stream.ends();
        wait_until("the one that drained has ended", LIMIT, || (!alive(drains)).then_some(()));
    }
}

#[test]
fn a_newcomer_takes_more_connections_than_its_shell_lets_it_open() {
    if !ready() {
        return;
    }
    let mut scene = Scene::new();
    scene.connect();
    scene.sshd.stop();
    scene.sshd.kill_sessions();
    wait_until("the path is gone", LIMIT, || {
        (status(&scene).run().json()[0]["phase"] != "live").then_some(())
    });
    let streams: Vec<TcpStream> =
        (0..100).map(|_| dial(scene.local_port, LIMIT).expect("connecting")).collect();
    let all_wait = || (status(&scene).run().json()[0]["held"] == streams.len()).then_some(());
    wait_until("they wait", LIMIT, all_wait);
    let former = pid(&scene.laptop);
    let mut command = Command::new("sh");
    scene.laptop.furnish(&mut command);
    let script = "ulimit -S -n 64; exec \"$0\" remote status";
    command.args(["-c", script]).arg(built()).env(PRETEND, "0.2.0");
    let output = crate::support::run_to_end(command, LIMIT);
    assert!(output.status.success(), "{output:?}");
    assert_ne!(pid(&scene.laptop), former);
    wait_until("they wait at the next one", LIMIT, all_wait);
}

#[test]
fn ends_with_all_its_predecessors_when_told_to() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let _stream = Stream::open(scene.local_port);
    status(&scene).env(PRETEND, "0.2.0").run().exits(0);
    let _other = Stream::open(scene.local_port);
    status(&scene).env(PRETEND, "0.3.0").run().exits(0);
    assert_eq!(scene.laptop.processes().len(), 3);
    assert!(signal(pid(&scene.laptop), Signal::SIGTERM));
    wait_until("all of them have ended", LIMIT, || {
        scene.laptop.processes().is_empty().then_some(())
    });
    assert!(!listens(scene.local_port));
}

#[test]
fn a_remote_that_is_taken_down_is_down_at_its_predecessors_too() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let mut first = Stream::open(scene.local_port);
    status(&scene).env(PRETEND, "0.2.0").run().exits(0);
    let mut second = Stream::open(scene.local_port);
    status(&scene).env(PRETEND, "0.3.0").run().exits(0);
    scene.laptop(&["remote", "disconnect"]);
    for stream in [&mut first, &mut second] {
        stream.ends();
    }
    alone(&scene.laptop);
}

/// `remote connect --foreground` for a remote of its own.
fn service(scene: &Scene, name: &str, port: u16) -> Program {
    let mut command: Command = guarded(built());
    scene.laptop.furnish(&mut command);
    command.args(["remote", "connect", "--foreground", "--batch", "--name", name]);
    command.args(scene.way_in());
    command.args(["--remote-port", &scene.gateway.port().to_string()]);
    command.args(["--local-port", &port.to_string()]).arg(scene.sshd.target());
    Program::start("openclaw remote connect --foreground", command)
}

#[test]
fn a_service_follows_a_detached_one_and_keeps_all_its_remotes() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let callers = Callers::start(scene.local_port);
    callers.go_on();
    let former = pid(&scene.laptop);
    let mut first = service(&scene, "other", free_port());
    assert!(first.prints("live: ", LIMIT), "{}", first.log());
    callers.go_on();
    let (answered, failures) = callers.end();
    assert!(failures.is_empty(), "{answered} answered\n{}", failures.join("\n"));
    assert_eq!(pid(&scene.laptop), first.pid());
    wait_until("the detached one is gone", LIMIT, || (!alive(former)).then_some(()));
    // Of two services the second gives way, and says so.
    let mut second = service(&scene, "third", free_port());
    wait_until("the second service ends", LIMIT, || second.has_ended().then_some(()));
    assert!(second.log().contains("in the foreground already"), "{}", second.log());
    assert!(answers(scene.local_port, "/healthz"));
    assert!(signal(first.pid(), Signal::SIGTERM));
    wait_until("the service ends", LIMIT, || first.has_ended().then_some(()));
}

#[test]
fn a_service_that_was_upgraded_asks_to_be_started_again() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let mut old = service(&scene, "vps", scene.local_port);
    assert!(old.prints("live: ", LIMIT), "{}", old.log());
    status(&scene).env(PRETEND, "0.2.0").run().exits(0);
    wait_until("the service ends", LIMIT, || old.has_ended().then_some(()));
    assert_eq!(old.code(), Some(75), "{}", old.log());
    assert!(answers(scene.local_port, "/healthz"));
    // Its service manager does that, and it is the supervisor again.
    let mut again = service(&scene, "vps", scene.local_port);
    assert!(again.prints("live: ", LIMIT), "{}", again.log());
    assert_eq!(pid(&scene.laptop), again.pid());
    assert!(signal(again.pid(), Signal::SIGTERM));
    wait_until("the service ends", LIMIT, || again.has_ended().then_some(()));
}

#[test]
fn a_newcomer_that_is_killed_or_frozen_leaves_everything_as_it_was() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let former = pid(&scene.laptop);
    let callers = Callers::start(scene.local_port);
    for how in ["die", "freeze"] {
        callers.go_on();
        let mut newcomer = Asker::meet(&scene);
        newcomer.asks();
        if how == "die" {
            drop(newcomer);
        } else {
            // It holds all of it, and says nothing more.
            newcomer.waits_for_the_end();
        }
        scene.laptop(&["health"]);
        assert_eq!(pid(&scene.laptop), former, "{how}");
    }
    callers.go_on();
    let (answered, failures) = callers.end();
    assert!(failures.is_empty(), "{answered} answered\n{}", failures.join("\n"));
}

#[test]
fn a_newcomer_that_cannot_read_the_remotes_leaves_what_works_as_it_was() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let mut stream = Stream::open(scene.local_port);
    let former = pid(&scene.laptop);
    let file = scene.laptop.state().join("rs/remotes.json");
    let whole = fs::read(&file).expect("the remotes");
    fs::write(&file, "{ broken").expect("breaking the file");
    let newcomer = openclaw(&scene.laptop).arg("supervisor").env(PRETEND, "0.2.0");
    let ran = newcomer.limit(LIMIT).run().exits(2);
    assert!(ran.stdout.contains("remotes.json is broken"), "{ran}");
    wait_until("the former one has its place again", LIMIT, || {
        (scene.laptop.supervisor() == Some(former)).then_some(())
    });
    assert!(answers(scene.local_port, "/healthz"));
    stream.asks();
    fs::write(&file, whole).expect("mending the file");
    status(&scene).env(PRETEND, "0.2.0").run().exits(0);
    assert_ne!(pid(&scene.laptop), former);
    assert!(answers(scene.local_port, "/healthz"));
    stream.asks();
}

#[test]
fn a_typo_in_the_ssh_configuration_closes_no_port_over_an_upgrade() {
    if !ready() {
        return;
    }
    let scene = Scene::new();
    let block = scene.sshd.block("far");
    let config = scene.laptop.write("home/config", &block);
    let port = scene.local_port.to_string();
    let connect = scene.dialling_by_file(&config).args(["--name", "vps", "--local-port", &port]);
    connect.arg("far").run().exits(0);
    scene.laptop.write("home/config", &format!("{block}  NoSuchKeyword yes\n"));
    let former = pid(&scene.laptop);
    status(&scene).env(PRETEND, "0.2.0").run().exits(0);
    assert_ne!(pid(&scene.laptop), former);
    wait_until("the next one cannot start it", LIMIT, || {
        (status(&scene).run().json()[0]["phase"] == "blocked").then_some(())
    });
    // Whoever comes now waits, over another upgrade too, and is served once the file is mended.
    let mut stream = Stream(dial(scene.local_port, LIMIT).expect("a port that listens"));
    status(&scene).env(PRETEND, "0.3.0").run().exits(0);
    scene.laptop.write("home/config", &block);
    scene.laptop(&["remote", "connect", "vps", "--batch"]);
    stream.asks();
    assert!(answers(scene.local_port, "/healthz"));
}

#[test]
fn a_path_that_a_person_unlocked_is_not_taken_away_without_need() {
    if !ready() || !present(&[Peer::Script]) {
        return;
    }
    let scene = Scene::new();
    let key = scene.sshd.encrypted_key("open sesame");
    let way = crate::support::way_in(scene.sshd.port(), &key, &scene.sshd.known_hosts());
    let run = scene.dialling_by(way).arg("--token-file").arg(scene.gateway.token_file());
    let mut terminal = Terminal::start(run.arg(scene.sshd.target()));
    terminal.shows("Passphrase");
    terminal.types("open sesame");
    let (code, screen) = terminal.end();
    assert_eq!(code, 0, "{screen}");
    let former = pid(&scene.laptop);
    let token = scene.gateway.token_file().to_string_lossy().into_owned();
    // A newer program does with the older one, which has the key.
    let health = || openclaw(&scene.laptop).args(["health", "--token-file", &token]);
    health().env(PRETEND, "0.2.0").run().exits(0);
    assert_eq!(pid(&scene.laptop), former);
    let mut stream = Stream::open(scene.local_port);
    // One that cannot takes over, and says what to type.
    let ran = health().arg("--json").env(PRETEND_CONTROL, "9").run().exits(4);
    assert!(ran.json()["error"]["fix"].is_string(), "{ran}");
    assert_ne!(pid(&scene.laptop), former);
    stream.asks();
}

/// One that asks for the place and does not take it.
struct Asker(std::os::unix::net::UnixStream);

impl Asker {
    fn meet(scene: &Scene) -> Self {
        let folder = fs::read_dir(scene.laptop.path("run/openclaw")).expect("the runtime folder");
        let socket = folder.map(|entry| entry.expect("an entry").path()).next().expect("a socket");
        let stream = std::os::unix::net::UnixStream::connect(socket).expect("connecting");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        Self(stream)
    }

    fn asks(&mut self) {
        let call = br#"{"handover":1,"must":false}"#;
        let length = u32::try_from(call.len()).expect("short").to_be_bytes();
        self.0.write_all(&length).expect("asking");
        self.0.write_all(call).expect("asking");
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !String::from_utf8_lossy(&seen).contains(r#"{"item":"lock"}"#) {
            let count = self.0.read(&mut buffer).expect("what is handed over");
            assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend(buffer.iter().take(count));
        }
    }

    fn waits_for_the_end(&mut self) {
        assert_eq!(self.0.read(&mut [0; 64]).expect("the end"), 0);
    }
}
