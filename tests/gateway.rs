//! `openclaw gateway run` as a program: its files, its refusals, its end.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may panic, and says what it skipped"
)]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

/// How long any of the waits here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A state directory of its own.
struct Home(tempfile::TempDir);

/// A running gateway; killed when dropped.
struct Gateway {
    child: Child,
    port: u16,
    /// What it writes to standard error.
    notes: mpsc::Receiver<String>,
}

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    fn config(&self, text: &str) {
        std::fs::create_dir_all(self.state()).unwrap();
        std::fs::write(self.state().join("openclaw.json"), text).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw"));
        command.env_clear().env("HOME", self.0.path()).env("OPENCLAW_STATE_DIR", self.state());
        command.args(["gateway", "run"]).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a start that is to be refused.
    fn refused(&self, arguments: &[&str]) -> Output {
        finish(self.command(arguments))
    }

    fn start(&self, port: u16) -> Gateway {
        let mut command = self.command(&["--port", &port.to_string()]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let notes = lines_of(child.stderr.take().unwrap());
        let Ok(ready) = lines.recv_timeout(PATIENCE) else {
            child.kill().unwrap();
            panic!("it did not get ready: {}", text_of(&notes));
        };
        assert_eq!(ready, format!("gateway ready on ws://127.0.0.1:{port}"));
        Gateway { child, port, notes }
    }

    fn token(&self) -> String {
        std::fs::read_to_string(self.state().join("rs/gateway-token")).unwrap()
    }
}

impl Gateway {
    fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends `signal`; the exit code, and all that was written to standard error.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        let pid = i32::try_from(self.pid()).unwrap();
        kill(Pid::from_raw(pid), signal).unwrap();
        // The end of its standard error is the end of the process.
        let notes = text_of(&self.notes);
        (self.child.wait().unwrap().code(), notes)
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait().map(drop));
        drop(killed);
    }
}

/// The lines of a stream as they come.
fn lines_of(stream: impl Read + Send + 'static) -> mpsc::Receiver<String> {
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

/// All lines until the stream ends.
fn text_of(lines: &mpsc::Receiver<String>) -> String {
    let mut text = String::new();
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => text.push_str(&line),
            Err(mpsc::RecvTimeoutError::Disconnected) => return text,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("it did not end: {text}"),
        }
        text.push('\n');
    }
}

/// Runs `command` to its end.
fn finish(mut command: Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
    let (done, ended) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output().unwrap()));
    ended.recv_timeout(PATIENCE).unwrap_or_else(|_| {
        kill(pid, Signal::SIGKILL).unwrap();
        panic!("it did not end");
    })
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// The `error` of a refusal under `--json`, after its exit code has been checked.
fn error(output: &Output, exit: i32) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let notes = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(exit), "{text}{notes}");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value["ok"], false);
    assert_eq!(value["error"]["exitCode"], exit);
    assert!(value["error"]["fix"].is_string(), "{value}");
    value["error"].clone()
}

fn message(error: &Value) -> &str {
    error["message"].as_str().unwrap()
}

/// Whether `GET /healthz` is answered.
fn is_live(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request =
        format!("GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.ends_with(r#"{"ok":true,"status":"live"}"#)
}

#[test]
fn the_first_start_makes_a_token_that_stays_and_is_never_told() {
    let home = Home::new();
    let port = free_port();
    let gateway = home.start(port);
    assert!(is_live(port));
    let token = home.token();
    assert_eq!(token.len(), 43, "32 bytes in base64url");
    let own = home.state().join("rs");
    for (path, expected) in [
        (home.state(), 0o700),
        (own.clone(), 0o700),
        (own.join("gateway-token"), 0o600),
        (own.join("gateway.lock"), 0o600),
        (own.join("identity"), 0o700),
        (own.join("identity/device.json"), 0o600),
    ] {
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    let (code, notes) = gateway.end(Signal::SIGTERM);
    assert_eq!(code, Some(0));
    assert!(notes.contains("rs/gateway-token"), "{notes}");
    assert!(!notes.contains(&token));
    assert!(!is_live(port));

    let again = home.start(port);
    assert_eq!(home.token(), token);
    let (code, notes) = again.end(Signal::SIGINT);
    assert_eq!(code, Some(0));
    assert!(!notes.contains("made a token"), "{notes}");
}

#[test]
fn a_killed_gateway_leaves_nothing_in_the_way() {
    let home = Home::new();
    let port = free_port();
    for _ in 0..3 {
        home.start(port).end(Signal::SIGKILL);
    }
    assert!(is_live(home.start(port).port));
}

#[test]
fn the_second_start_says_who_is_there() {
    let home = Home::new();
    let port = free_port();
    let gateway = home.start(port);
    let other = free_port().to_string();
    let error = error(&home.refused(&["--json", "--port", &other]), 2);
    assert_eq!(error["class"], "config");
    let expected = format!("openclaw, pid {}, port {port}", gateway.pid());
    assert!(message(&error).contains(&expected), "{error}");
}

#[test]
fn a_taken_port_names_its_holder() {
    let (first, second) = (Home::new(), Home::new());
    let gateway = first.start(free_port());
    let taken = second.refused(&["--json", "--port", &gateway.port.to_string()]);
    let error = error(&taken, 6);
    assert_eq!(error["class"], "port_in_use");
    let expected = format!("openclaw (pid {})", gateway.pid());
    assert!(message(&error).contains(&expected), "{error}");
    assert!(!second.state().join("rs/gateway-token").exists());
}

#[test]
fn a_secret_for_calling_others_opens_nothing_here() {
    let home = Home::new();
    home.config("{ gateway: { bind: 'lan', remote: { token: 'abc', password: 'def' } } }");
    let output = home.refused(&["--json", "--port", &free_port().to_string()]);
    let error = error(&output, 2);
    assert_eq!(error["class"], "config");
    assert!(message(&error).contains("gateway.remote"), "{error}");
    assert!(!home.state().join("rs").exists());
}

#[test]
fn a_gateway_that_runs_elsewhere_does_not_start_here() {
    let home = Home::new();
    home.config("{ gateway: { mode: 'remote' } }");
    let error = error(&home.refused(&["--json"]), 2);
    assert_eq!(error["class"], "config");
    assert!(message(&error).contains("gateway.mode"), "{error}");
}

#[test]
fn a_service_manager_is_told_not_to_try_again() {
    let home = Home::new();
    home.config("{ gateway: { mode: 'remote' } }");
    let mut command = home.command(&["--json"]);
    command.env("INVOCATION_ID", "1");
    assert_eq!(error(&finish(command), 78)["class"], "config");
}

#[test]
fn a_state_directory_that_is_none_is_told() {
    let home = Home::new();
    std::fs::write(home.state(), "").unwrap();
    let error = error(&home.refused(&["--json"]), 2);
    assert_eq!(error["class"], "config");
    let state = home.state().display().to_string();
    assert!(message(&error).contains(&state), "{error}");
}

#[test]
fn an_empty_token_file_is_no_token() {
    let home = Home::new();
    let file = home.0.path().join("token");
    std::fs::write(&file, "\n").unwrap();
    let file = file.display().to_string();
    let error = error(&home.refused(&["--json", "--token-file", &file]), 2);
    assert_eq!(error["class"], "config");
}
