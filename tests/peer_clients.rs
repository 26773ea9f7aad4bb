//! The reference CLI and the reference client against our gateway.
#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test may panic, and says what it skipped"
)]

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// How long the reference programs may take; they need seconds to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The methods that `fixtures/methods.txt` lists, in its order.
fn methods() -> String {
    let lines = include_str!("../fixtures/methods.txt").lines();
    lines.filter_map(|line| line.split_whitespace().next()).collect::<Vec<_>>().join(",")
}

/// Where the reference programs are installed; `None`, and a word about it, without them.
fn peers() -> Option<PathBuf> {
    let folder = std::env::var_os("OPENCLAW_PEERS").filter(|folder| !folder.is_empty());
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder.unwrap_or(".peers".into()));
    if folder.join("client/node_modules/@openclaw/gateway-client").is_dir()
        && folder.join("openclaw/node_modules/openclaw").is_dir()
    {
        return Some(folder);
    }
    let missing = format!("the reference programs are missing from {}", folder.display());
    assert!(std::env::var("OPENCLAW_TEST_PEERS").as_deref() != Ok("required"), "{missing}");
    eprintln!("skipped: {missing}");
    None
}

/// Our gateway with a state directory of its own; killed when dropped.
struct Gateway {
    child: Child,
    home: tempfile::TempDir,
    port: u16,
}

impl Gateway {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw"));
        command.env_clear().env("HOME", home.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        command.args(["gateway", "run", "--port", &port.to_string()]);
        let mut child = command.spawn().unwrap();
        let lines = lines(child.stdout.take().unwrap());
        let gateway = Self { child, home, port };
        assert!(next(&lines).starts_with("gateway ready"));
        gateway
    }

    fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port)
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.home.path().join(".openclaw/rs/gateway-token")).unwrap()
    }

    fn terminate(&self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait().map(drop));
        drop(killed);
    }
}

fn node(peers: &Path) -> Command {
    let mut command = Command::new(peers.join("node/node_modules/.bin/node"));
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

fn lines(stream: ChildStdout) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn next(lines: &mpsc::Receiver<String>) -> String {
    lines.recv_timeout(PATIENCE).expect("another line of output")
}

/// What the reference CLI prints as JSON for `arguments`, with our gateway as its target.
fn cli(peers: &Path, gateway: &Gateway, arguments: &[&str]) -> Value {
    let home = tempfile::tempdir().unwrap();
    let mut command = node(peers);
    command
        .arg(peers.join("openclaw/node_modules/openclaw/openclaw.mjs"))
        .args(arguments)
        .env("HOME", home.path())
        .env("OPENCLAW_STATE_DIR", home.path())
        .env("OPENCLAW_GATEWAY_URL", gateway.url())
        .env("OPENCLAW_GATEWAY_TOKEN", gateway.token())
        .env("PATH", peers.join("node/node_modules/.bin"));
    let child = command.spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (done, ended) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output().unwrap()));
    let output = ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        kill(pid, Signal::SIGKILL).unwrap();
        panic!("{arguments:?} did not end");
    });
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
}

#[test]
fn the_reference_client_finds_what_it_expects() {
    let Some(peers) = peers() else { return };
    let gateway = Gateway::start();
    let mut child = node(&peers)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peer_clients.mjs"))
        .env("PEERS", &peers)
        .env("URL", gateway.url())
        .env("TOKEN", gateway.token())
        .env("METHODS", methods())
        .spawn()
        .unwrap();
    let lines = lines(child.stdout.take().unwrap());
    assert_eq!(next(&lines), "ready");
    gateway.terminate();
    assert_eq!(next(&lines), "done");
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_reference_cli_finds_our_gateway_well() {
    let Some(peers) = peers() else { return };
    let gateway = Gateway::start();
    assert_eq!(cli(&peers, &gateway, &["health", "--json"])["ok"], true);
    let url = gateway.url();
    let token = gateway.token();
    let target = ["--url", &url, "--token", &token, "--json"];
    let call = |method: &'static str| {
        cli(&peers, &gateway, &[&["gateway", "call", method], &target[..]].concat())
    };
    assert_eq!(call("status")["pid"], gateway.child.id());
    assert_eq!(call("system-presence")[0]["mode"], "gateway");
    assert_eq!(call("gateway.identity.get")["deviceId"].as_str().map(str::len), Some(64));
    let probe = cli(&peers, &gateway, &[&["gateway", "probe"], &target[..]].concat());
    assert_eq!(probe["targets"][0]["connect"]["ok"], true, "{probe}");
}
