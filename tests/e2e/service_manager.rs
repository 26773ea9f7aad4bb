//! Under a service manager: what it is told, a reload, and who makes place for whom.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixDatagram,
    process::Command,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::support::{
    Home, Peer, Program, Scene, alive, answers, descendants, free_port, guarded, listens, openclaw,
    present, signal, wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);

/// The service manager's end of sd_notify(3).
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(home: &Home) -> Self {
        let socket = UnixDatagram::bind(home.path("notify")).expect("a notify socket");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a time limit");
        Self { socket, heard: Vec::new() }
    }

    /// Starts the program as a service in `home`.
    fn start(&self, home: &Home, arguments: &[&str]) -> Program {
        let mut command: Command = guarded(crate::support::built());
        home.furnish(&mut command);
        command.env("NOTIFY_SOCKET", home.path("notify"));
        command.env("WATCHDOG_USEC", "600000").args(arguments);
        Program::start("a service", command)
    }

    /// Waits for a line that begins with `wanted` among those not waited for yet.
    #[track_caller]
    fn hears(&mut self, wanted: &str) -> String {
        let start = Instant::now();
        let mut buffer = [0; 4096];
        while start.elapsed() < LIMIT {
            if let Some(place) = self.heard.iter().position(|line| line.starts_with(wanted)) {
                return self.heard.drain(..=place).next_back().expect("at least one");
            }
            if let Ok(count) = self.socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(buffer.get(..count).unwrap_or_default());
                self.heard.extend(text.lines().map(str::to_owned));
            }
        }
        panic!("no `{wanted}` among {:?}", self.heard);
    }

    /// Whether such a line has come and was not waited for.
    fn has_heard(&self, line: &str) -> bool {
        self.heard.iter().any(|heard| heard.starts_with(line))
    }
}

/// Saves `vps` as connected, with no supervisor left.
fn saved(scene: &Scene) {
    scene.connect();
    scene.laptop.stop_supervisor().expect("the supervisor ends");
}

#[test]
fn is_ready_when_the_path_is_live_and_not_before() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut scene = Scene::new();
    saved(&scene);
    scene.sshd.stop();
    let mut manager = Manager::new(&scene.laptop);
    let mut service = manager.start(&scene.laptop, &["supervisor", "--foreground"]);
    manager.hears("STATUS=vps: waiting");
    manager.hears("EXTEND_TIMEOUT_USEC=");
    assert!(!manager.has_heard("READY=1"), "{:?}", manager.heard);
    scene.sshd.restart();
    manager.hears("STATUS=vps: live");
    manager.hears("READY=1");
    assert!(answers(scene.local_port, "/healthz"));
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    assert!(signal(service.pid(), Signal::SIGTERM));
    manager.hears("STOPPING=1");
    wait_until("the service ends", LIMIT, || service.has_ended().then_some(()));
    assert!(scene.laptop.logs().contains("asked to end"), "the log file is written as well");
}

#[test]
fn a_reload_takes_edits_up_and_drops_no_stream() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    saved(&scene);
    let mut manager = Manager::new(&scene.laptop);
    let service = manager.start(&scene.laptop, &["supervisor", "--foreground"]);
    manager.hears("READY=1");
    let mut stream = TcpStream::connect(("127.0.0.1", scene.local_port)).expect("a stream");
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n").expect("half a request");

    // A further forward, written by hand.
    let path = scene.laptop.state().join("rs/remotes.json");
    let mut remotes = scene.laptop.remotes();
    let port = free_port();
    let forward = serde_json::json!({
        "bind": null, "port": port, "host": "127.0.0.1", "hostPort": scene.gateway.port(),
    });
    let vps = remotes.pointer_mut("/remotes/vps").expect("the remote");
    vps.as_object_mut().expect("an object").insert("forwards".into(), [forward].into());
    fs::write(&path, remotes.to_string()).expect("editing the file");
    assert!(signal(service.pid(), Signal::SIGHUP));
    manager.hears("RELOADING=1");
    manager.hears("MONOTONIC_USEC=");
    manager.hears("READY=1");
    wait_until("the new forward answers", LIMIT, || answers(port, "/healthz").then_some(()));

    // A broken file changes nothing.
    fs::write(&path, "{ broken").expect("breaking the file");
    assert!(signal(service.pid(), Signal::SIGHUP));
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
    assert!(answers(scene.local_port, "/healthz") && answers(port, "/healthz"));

    // An edit that cannot work leaves what works.
    let vps = remotes.pointer_mut("/remotes/vps/ssh").expect("its options");
    let stranger = scene.sshd.stranger_key();
    let own = vps["identities"].clone();
    vps.as_object_mut().expect("an object").insert("identities".into(), [stranger.to_str()].into());
    fs::write(&path, remotes.to_string()).expect("editing the file");
    assert!(signal(service.pid(), Signal::SIGHUP));
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
    assert!(answers(scene.local_port, "/healthz") && answers(port, "/healthz"));
    let refused = |times| {
        let logs = || scene.laptop.logs().matches("an edit was not taken up").count() == times;
        wait_until("the log says so", LIMIT, || logs().then_some(()));
    };
    refused(1);

    // Neither does one whose place is taken.
    let thief = TcpListener::bind(("127.0.0.1", 0)).expect("a port of another program");
    let taken = thief.local_addr().expect("its port").port();
    let vps = remotes.pointer_mut("/remotes/vps").expect("the remote");
    vps["ssh"]["identities"] = own;
    vps["forwards"][0]["port"] = taken.into();
    fs::write(&path, remotes.to_string()).expect("editing the file");
    assert!(signal(service.pid(), Signal::SIGHUP));
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
    assert!(answers(scene.local_port, "/healthz") && answers(port, "/healthz"));
    refused(2);

    stream.write_all(b"Connection: close\r\n\r\n").expect("the other half");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_reload_takes_up_the_ssh_configuration() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let block = scene.sshd.block("far");
    let config = scene.laptop.write("home/config", &block);
    scene
        .dialling_by_file(&config)
        .args(["--name", "vps", "--local-port", &scene.local_port.to_string(), "far"])
        .run()
        .exits(0);
    scene.laptop.stop_supervisor().expect("the supervisor ends");
    let mut manager = Manager::new(&scene.laptop);
    let service = manager.start(&scene.laptop, &["supervisor", "--foreground"]);
    manager.hears("READY=1");
    let logins = || scene.sshd.log().matches("Accepted publickey").count();
    let before = logins();
    assert!(signal(service.pid(), Signal::SIGHUP));
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
    assert_eq!(logins(), before, "nothing was edited");
    scene.laptop.write("home/config", &format!("{block}  Compression yes\n"));
    assert!(signal(service.pid(), Signal::SIGHUP));
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
    assert_eq!(logins(), before + 1, "{}", scene.sshd.log());
    assert!(answers(scene.local_port, "/healthz"));
    assert!(alive(service.pid()));
}

#[test]
fn the_supervisor_of_one_remote_ends_with_its_code_when_a_person_is_needed() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut scene = Scene::new();
    saved(&scene);
    let mut manager = Manager::new(&scene.laptop);
    let words = ["remote", "connect", "--foreground", "--batch", "--no-default", "vps"];
    let service = openclaw(&scene.laptop).args(words);
    let service = service.env("NOTIFY_SOCKET", scene.laptop.path("notify")).limit(LIMIT).start();
    manager.hears("READY=1");
    scene.sshd.change_host_key();
    manager.hears("STATUS=ended: host_key");
    service.end().exits(5);
}

#[test]
fn a_service_takes_over_from_the_background_and_not_from_another_service() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let background = scene.laptop.supervisor().expect("a supervisor in the background");
    let mut manager = Manager::new(&scene.laptop);
    let service = manager.start(&scene.laptop, &["supervisor", "--foreground"]);
    manager.hears("READY=1");
    wait_until("the one in the background ends", LIMIT, || (!alive(background)).then_some(()));
    scene.laptop(&["health"]);
    assert_eq!(scene.laptop.supervisor(), Some(service.pid()));
    let other = openclaw(&scene.laptop).args(["supervisor", "--foreground"]).run().exits(2);
    assert!(other.stderr.contains("runs in the foreground already"), "{other}");
    scene.laptop(&["remote", "disconnect", "vps"]);
    manager.hears("STATUS=no remote is wanted");
    assert!(!listens(scene.local_port));
    scene.connect();
    manager.hears("STATUS=vps: live");
}

#[test]
fn a_service_shows_life_while_what_it_handed_over_ends() {
    if !cfg!(debug_assertions) || !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    saved(&scene);
    let mut manager = Manager::new(&scene.laptop);
    let mut service = manager.start(&scene.laptop, &["supervisor", "--foreground"]);
    manager.hears("READY=1");
    let mut stream = TcpStream::connect(("127.0.0.1", scene.local_port)).expect("a stream");
    stream.set_read_timeout(Some(LIMIT)).expect("a time limit");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").expect("a request");
    assert!(stream.read(&mut [0; 4096]).expect("an answer") > 0);
    let newer = openclaw(&scene.laptop).args(["remote", "status", "--json"]);
    newer.env("OPENCLAW_TEST_PROGRAM_VERSION", "0.2.0").run().exits(0);
    manager.hears("STATUS=handed over");
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    assert!(!manager.has_heard("STOPPING=1"), "{:?}", manager.heard);
    assert!(alive(service.pid()));
    drop(stream);
    manager.hears("STOPPING=1");
    wait_until("the service ends", LIMIT, || service.has_ended().then_some(()));
}

#[test]
fn ends_with_its_signal_as_the_first_process_of_a_container() {
    if !present(&[Peer::OpenSsh, Peer::Namespaces]) {
        return;
    }
    let scene = Scene::new();
    let mut command: Command = guarded("unshare");
    scene.laptop.furnish(&mut command);
    // A state directory of its own: its process is the first one there, and another one here.
    command.env("OPENCLAW_STATE_DIR", scene.laptop.path("container"));
    command.args(["--pid", "--fork", "--kill-child"]).arg(crate::support::built());
    command.args(["remote", "connect", "--foreground", "--batch", "--name", "vps"]);
    command.args(scene.way_in()).args(["--remote-port", &scene.gateway.port().to_string()]);
    command.args(["--local-port", &scene.local_port.to_string()]).arg(scene.sshd.target());
    let mut container = Program::start("a container", command);
    assert!(container.prints("live: ", LIMIT), "{}", container.log());
    let first = descendants(container.pid()).into_iter().find(|pid| {
        let name = fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim() == "openclaw")
    });
    assert!(signal(first.expect("the first process"), Signal::SIGTERM));
    wait_until("the container ends", LIMIT, || container.has_ended().then_some(()));
    assert!(container.log().contains("supervisor ended"), "{}", container.log());
}

#[test]
fn a_gateway_says_when_it_is_ready_that_it_lives_and_that_it_ends() {
    let home = Home::new();
    let mut manager = Manager::new(&home);
    let port = free_port();
    let mut service = manager.start(&home, &["gateway", "run", "--port", &port.to_string()]);
    manager.hears("READY=1");
    assert!(answers(port, "/healthz"));
    manager.hears(&format!("STATUS=ready on ws://127.0.0.1:{port}"));
    for _ in 0..3 {
        manager.hears("WATCHDOG=1");
    }
    assert!(signal(service.pid(), Signal::SIGTERM));
    manager.hears("STOPPING=1");
    wait_until("the service ends", LIMIT, || service.has_ended().then_some(()));
}

#[test]
fn a_gateway_in_the_foreground_is_named_where_a_service_is_meant() {
    let home = Home::new();
    let port = free_port();
    let mut command: Command = guarded(crate::support::built());
    home.furnish(&mut command);
    command.args(["gateway", "run", "--port", &port.to_string()]);
    let mut gateway = Program::start("a gateway", command);
    assert!(gateway.prints("gateway ready", LIMIT), "{}", gateway.log());
    let named = format!("runs in the foreground (pid {}, port {port})", gateway.pid());
    for verb in ["stop", "restart", "start"] {
        let ran = openclaw(&home).args(["gateway", verb]).run().exits(2);
        assert!(ran.stderr.contains(&named), "{verb}: {ran}");
        assert!(ran.stderr.contains(&format!("kill {}", gateway.pid())), "{verb}: {ran}");
    }
    let status = openclaw(&home).args(["gateway", "status", "--json", "--no-probe"]);
    let status = status.args(["--port", &port.to_string()]).run().exits(0);
    let status: serde_json::Value = serde_json::from_str(&status.stdout).expect("a report");
    assert_eq!(status["service"]["loaded"], false);
    assert_eq!(status["service"]["foreground"]["pid"], gateway.pid().as_raw());
    drop(gateway);
    let ran = openclaw(&home).args(["gateway", "stop", "--json"]).run().exits(0);
    assert!(ran.stdout.contains(r#""result": "not-loaded""#), "{ran}");
    let ran = openclaw(&home).args(["gateway", "start"]).run().exits(2);
    assert!(ran.stderr.contains("openclaw gateway install"), "{ran}");
}

#[test]
fn a_service_does_not_loop_on_a_broken_file() {
    let home = Home::new();
    home.write("home/.openclaw/rs/remotes.json", "{ broken");
    let ran = openclaw(&home).args(["supervisor", "--foreground"]).run().exits(78);
    assert!(ran.stderr.contains("remotes.json is broken"), "{ran}");
}

#[test]
fn a_service_is_tried_again_where_the_system_denied_a_file_for_now() {
    let home = Home::new();
    // What stands in the way can go, as a disk can be full and then not.
    home.write("home/.openclaw/rs", "");
    let words = [
        ["supervisor", "--foreground"].as_slice(),
        &["remote", "connect", "--foreground", "--batch", "me@127.0.0.1"],
    ];
    for words in words {
        openclaw(&home).args(words).run().exits(2);
    }
}
