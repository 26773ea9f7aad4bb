//! What goes wrong has a class, an exit code and a way on, in time, and leaves nothing behind.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    Home, Peer, Ran, Run, Scene, Sshd, dialling, free_port, listens, openclaw, present, way_in,
};

/// A timeout that no test lives to see: what waits for its end fails at the limit of a run.
const FOR_EVER: [&str; 2] = ["--timeout", "86400"];

/// The error that a command printed, checked for its class and exit code.
#[track_caller]
fn fails(run: Run, code: i32, class: &str) -> Value {
    error_of(&run.arg("--json").run(), code, class)
}

#[track_caller]
fn error_of(ran: &Ran, code: i32, class: &str) -> Value {
    assert_eq!(ran.code, code, "exit code of {ran}");
    let value = ran.json();
    let error = &value["error"];
    assert_eq!(value["ok"], false, "{ran}");
    assert_eq!(error["class"], class, "{ran}");
    assert_eq!(error["exitCode"], code, "{ran}");
    assert!(error["type"].is_string(), "{ran}");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(!message.is_empty() && !message.contains("Os {"), "{ran}");
    error.clone()
}

/// The way on that an error names.
#[track_caller]
fn fix(error: &Value) -> &str {
    let fix = error["fix"].as_str().unwrap_or_default();
    assert!(!fix.is_empty(), "no way on in {error:#}");
    fix
}

/// Fails unless a connect that failed left neither a remote nor a port.
#[track_caller]
fn left_nothing(home: &Home, port: u16) {
    let remotes = home.remotes();
    let count = remotes["remotes"].as_object().map_or(0, |remotes| remotes.len());
    assert_eq!(count, 0, "{remotes:#}");
    assert!(remotes["default"].is_null(), "{remotes:#}");
    assert!(!listens(port), "the port is still open");
    assert!(
        !fs::read_to_string(home.state().join("rs/credentials.json"))
            .is_ok_and(|text| text.contains("vps"))
    );
}

/// A connect that fails on the way to `sshd`, where no gateway is needed.
struct Way {
    home: Home,
    sshd: Sshd,
    local_port: u16,
}

impl Way {
    fn new(lines: &[&str]) -> Self {
        Self { home: Home::new(), sshd: Sshd::start(lines), local_port: free_port() }
    }

    /// `remote connect`, complete but for the target, that could wait for ever.
    fn dialling(&self) -> Run {
        self.dialling_to(free_port())
    }

    /// The same to a port on the far side that something listens on.
    fn dialling_to(&self, port: u16) -> Run {
        let token = self.home.write("token", "a-token");
        openclaw(&self.home)
            .args(dialling(&self.sshd, port, &token))
            .args(["--name", "vps", "--local-port", &self.local_port.to_string()])
            .args(FOR_EVER)
    }

    /// `remote connect` with a key of ours.
    fn dialling_with(&self, key: &Path) -> Run {
        openclaw(&self.home)
            .args(["remote", "connect", "--batch", "--name", "vps", "--token", "a-token"])
            .args(way_in(self.sshd.port(), key, &self.sshd.known_hosts()))
            .args(["--local-port", &self.local_port.to_string()])
            .args(FOR_EVER)
            .arg(self.sshd.target())
    }

    #[track_caller]
    fn fails(&self, run: Run, code: i32, class: &str) -> Value {
        let error = fails(run, code, class);
        left_nothing(&self.home, self.local_port);
        error
    }
}

#[test]
fn an_unknown_host_key_in_batch_mode() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let way = Way::new(&[]);
    fs::write(way.sshd.known_hosts(), "").expect("known_hosts");
    let error = way.fails(way.dialling().arg(way.sshd.target()), 5, "host_key");
    assert!(fix(&error).contains(&way.sshd.fingerprint()), "{error:#}");
    let pinned = way
        .dialling()
        .args(["--accept-host-key", "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"]);
    way.fails(pinned.arg(way.sshd.target()), 5, "host_key");
}

#[test]
fn a_changed_host_key() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut way = Way::new(&[]);
    let old = way.sshd.fingerprint();
    way.sshd.change_host_key();
    let error = way.fails(way.dialling().arg(way.sshd.target()), 5, "host_key");
    let message = error["message"].as_str().unwrap_or_default();
    let place = format!("{} line 1", way.sshd.known_hosts().display());
    for part in ["changed", &old, &way.sshd.fingerprint(), &place] {
        assert!(message.contains(part), "{part} in {error:#}");
    }
    assert_eq!(way.sshd.log().matches("Connection from").count(), 1, "{}", way.sshd.log());
    // The one command that it names does what it says.
    let fix = fix(&error);
    let command = fix.find("ssh-keygen -R").and_then(|at| fix.get(at..)).expect("a command");
    let done = Command::new("sh").args(["-c", command]).output().expect("running sh");
    assert!(done.status.success(), "{command}: {done:?}");
    let error = way.fails(way.dialling().arg(way.sshd.target()), 5, "host_key");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("is not on file"), "{error:#}");
}

#[test]
fn a_wrong_key() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let way = Way::new(&[]);
    let error = way.fails(way.dialling_with(&way.sshd.stranger_key()), 4, "ssh_auth");
    fix(&error);
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("it offers publickey; refused: "), "{error:#}");
    let log = way.sshd.log();
    assert_eq!(log.matches("Connection from ").count(), 1, "one attempt, and no other: {log}");
}

#[test]
fn a_key_that_is_not_there() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let way = Way::new(&[]);
    let ran = way.dialling_with(&way.home.path("no_such_key")).arg("--json").run();
    assert!([2, 4].contains(&ran.code), "{ran}");
    let error = ran.json()["error"].clone();
    assert!(error["message"].as_str().is_some_and(|it| it.contains("no_such_key")), "{ran}");
    left_nothing(&way.home, way.local_port);
}

#[test]
fn a_closed_port() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut way = Way::new(&[]);
    way.sshd.stop();
    way.fails(way.dialling().arg(way.sshd.target()), 3, "unreachable");
}

#[test]
fn a_name_that_does_not_resolve() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let way = Way::new(&[]);
    let error = way.fails(way.dialling().arg("root@nowhere.invalid"), 3, "unreachable");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("nowhere.invalid")), "{error:#}");
}

#[test]
fn a_port_that_does_not_speak_ssh() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let run = openclaw(&scene.laptop)
        .args(["remote", "connect", "--batch", "--name", "vps", "--token", "a-token", "-p"])
        .arg(scene.gateway.port().to_string())
        .args(["--local-port", &scene.local_port.to_string()])
        .args(["--timeout", "10", "--json"])
        .arg(scene.sshd.target())
        .run();
    error_of(&run, 3, "unreachable");
    left_nothing(&scene.laptop, scene.local_port);
}

#[test]
fn a_local_port_that_another_program_holds() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, scene.local_port)).expect("binding");
    let run = scene.dialling().args(["--name", "vps"]).args(FOR_EVER).arg(scene.sshd.target());
    let error = fails(run, 6, "port_in_use");
    let message = error["message"].as_str().unwrap_or_default();
    let pid = std::process::id().to_string();
    assert!(message.contains("e2e") && message.contains(&pid), "names its holder: {error:#}");
    fix(&error);
    drop(holder);
    left_nothing(&scene.laptop, scene.local_port);
    scene.connect();
}

#[test]
fn a_forward_that_the_server_refuses() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let way = Way::new(&["AllowTcpForwarding no"]);
    let error = way.fails(way.dialling().arg(way.sshd.target()), 9, "forward_refused");
    assert!(fix(&error).contains("AllowTcpForwarding"), "{error:#}");
}

#[test]
fn no_gateway_behind_the_tunnel() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let way = Way::new(&[]);
    let error = way.fails(way.dialling().arg(way.sshd.target()), 7, "gateway_down");
    assert!(fix(&error).contains("openclaw gateway"), "{error:#}");
}

#[test]
fn something_else_behind_the_tunnel() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let way = Way::new(&[]);
    let other = Sshd::start(&[]);
    let error = way.fails(way.dialling_to(other.port()).arg(way.sshd.target()), 7, "gateway_down");
    assert!(error["message"].as_str().is_some_and(|it| it.contains("speak HTTP")), "{error:#}");
}

#[test]
fn a_wrong_token_and_none() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let connect = |more: &[&str]| {
        let run = scene.dialling_by(scene.way_in()).arg("--batch").args(FOR_EVER);
        run.args(more).arg(scene.sshd.target())
    };
    let wrong = scene.laptop.write("wrong", "not-the-token");
    let wrong = wrong.display().to_string();
    let error = fails(connect(&["--token-file", &wrong]), 8, "gateway_refused");
    fix(&error);
    left_nothing(&scene.laptop, scene.local_port);
    let error = fails(connect(&[]), 8, "gateway_refused");
    assert!(fix(&error).contains("token"), "{error:#}");
    left_nothing(&scene.laptop, scene.local_port);
}

#[test]
fn a_supervisor_that_does_not_start() {
    let home = Home::new();
    let logs = home.state().join("rs/logs");
    fs::create_dir_all(&logs).expect("making the folder of the logs");
    // A disk that does not answer: whoever opens the log waits until somebody reads it.
    let today = jiff::Timestamp::now();
    let days = [today, today + Duration::from_secs(86_400)];
    let stuck = days.map(|day| logs.join(format!("supervisor.{}.log", day.strftime("%Y-%m-%d"))));
    for file in &stuck {
        nix::unistd::mkfifo(file, nix::sys::stat::Mode::S_IRWXU).expect("making a pipe");
    }
    let run = openclaw(&home).args(["remote", "connect", "--batch", "--token", "a-token"]);
    let error = fails(run.args(FOR_EVER).arg("root@nowhere.invalid"), 1, "internal");
    let message = error["message"].as_str().unwrap_or_default();
    assert!(message.contains("did not start"), "{error:#}");
    assert!(fix(&error).contains("openclaw remote logs"), "{error:#}");
    // It starts after all once the disk answers.
    let _readers = stuck.map(|file| {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).open(file).expect("opening a pipe")
    });
    let run = openclaw(&home).args(["remote", "connect", "--batch", "--token", "a-token"]);
    fails(run.args(FOR_EVER).arg("root@nowhere.invalid"), 3, "unreachable");
}

#[test]
fn an_edit_that_fails_keeps_the_old_definition() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let before = scene.laptop.remotes();
    let wrong = scene.laptop.write("wrong", "not-the-token");
    let edit = openclaw(&scene.laptop)
        .args(dialling(&scene.sshd, scene.gateway.port(), &wrong))
        .args(["--name", "vps", "--local-port", &free_port().to_string()])
        .args(FOR_EVER)
        .arg(scene.sshd.target());
    fails(edit, 8, "gateway_refused");
    assert_eq!(scene.laptop.remotes(), before);
    let edit = openclaw(&scene.laptop)
        .args(dialling(&scene.sshd, scene.gateway.port(), scene.gateway.token_file()))
        .args(["--name", "vps", "--local-port", &scene.local_port.to_string()])
        .args(FOR_EVER)
        .arg("root@nowhere.invalid");
    fails(edit, 3, "unreachable");
    assert_eq!(scene.laptop.remotes(), before);
    scene.laptop(&["health"]);
}

#[test]
fn targets_that_are_no_targets() {
    let home = Home::new();
    let port = free_port();
    let bad = ["-oProxyCommand=true", "two words", "a;b", "a$(b)", "a\nb", "user@", "a:b:c", ""];
    for target in bad {
        let run = openclaw(&home)
            .args(["remote", "connect", "--batch", "--token", "a-token", "--local-port"])
            .args([&port.to_string(), "--json", "--", target])
            .run();
        error_of(&run, 2, "usage");
        left_nothing(&home, port);
    }
}

#[test]
fn options_that_are_no_options() {
    let home = Home::new();
    let bad: [&[&str]; 6] = [
        &["-A", "host"],
        &["-o", "NoSuchOption=yes", "host"],
        &["-L", "nonsense", "host"],
        &["-p", "0", "host"],
        &["--no-such-option", "host"],
        &["--accept-host-key", "nonsense", "host"],
    ];
    for words in bad {
        let run =
            openclaw(&home).args(["remote", "connect", "--batch", "--json"]).args(words).run();
        error_of(&run, 2, "usage");
    }
}

#[test]
fn a_url_without_credentials_of_its_own() {
    let scene = Home::new();
    let url = format!("ws://127.0.0.1:{}", free_port());
    for command in ["health", "status"] {
        let run = openclaw(&scene)
            .args([command, "--url", &url])
            .env("OPENCLAW_GATEWAY_TOKEN", "a-token")
            .env("OPENCLAW_GATEWAY_PASSWORD", "a-password");
        let error = fails(run, 2, "usage");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains("--token"), "{error:#}");
    }
}

#[test]
fn a_broken_configuration() {
    let home = Home::new();
    home.write("home/.openclaw/openclaw.json", "{ gateway: { port: }");
    for words in [["health"].as_slice(), &["status"], &["gateway", "run"]] {
        let error = fails(openclaw(&home).args(words), 2, "config");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.contains("openclaw.json"), "{error:#}");
    }
    let before = fs::read_to_string(home.state().join("openclaw.json")).expect("reading it");
    assert_eq!(before, "{ gateway: { port: }", "nothing is lost");
}

#[test]
fn a_state_directory_that_cannot_be_read() {
    let home = Home::new();
    let file = home.write("file", "not a folder");
    for state in [file.clone(), file.join("below")] {
        for words in [["gateway", "run"].as_slice(), &["remote", "connect", "--batch", "host"]] {
            let run = openclaw(&home).args(words).env("OPENCLAW_STATE_DIR", &state);
            let error = fails(run, 2, "config");
            let message = error["message"].as_str().unwrap_or_default();
            assert!(message.contains("file"), "{error:#}");
        }
    }
    assert_eq!(fs::read_to_string(&file).expect("the file"), "not a folder");
}

#[test]
fn the_secret_for_remotes_opens_no_gateway() {
    let home = Home::new();
    home.write(
        "home/.openclaw/openclaw.json",
        "{ gateway: { bind: 'lan', remote: { token: 'for-calling', password: 'for-calling' } } }",
    );
    let port = free_port();
    let run = openclaw(&home).args(["gateway", "run", "--port", &port.to_string()]);
    let error = fails(run, 2, "config");
    assert!(fix(&error).contains("gateway.auth") || fix(&error).contains("token"), "{error:#}");
    assert!(!listens(port));
}
