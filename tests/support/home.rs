//! A person's home with nothing in it, and the program run in it.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::Value;
use tempfile::TempDir;

use super::{
    net::wait_until,
    processes::{alive, signal, with_variable},
    program::{end_of, run_to_end},
    sshd::user,
};

/// The built program.
const OPENCLAW: &str = env!("CARGO_BIN_EXE_openclaw");

/// How long a command may take when nothing else is said.
const LIMIT: Duration = Duration::from_secs(60);

/// A temporary home; when it ends, so does the supervisor in it, and nothing else may be left.
pub(crate) struct Home {
    folder: TempDir,
    guard: Child,
}

/// Waits for the end of our pipe, which comes early only when the test was killed, and then ends
/// the supervisor.
const GUARD: &str = "read -r _; kill -s TERM \"$(cat \"$0\")\"";

impl Home {
    /// An empty home.
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("openclaw-").tempdir();
        let folder = folder.expect("making a folder");
        let mut guard = Command::new("sh");
        guard.args(["-c", GUARD]).arg(folder.path().join("home/.openclaw/rs/supervisor.pid"));
        guard.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let guard = guard.spawn().expect("starting the guard of a home");
        let home = Self { folder, guard };
        fs::create_dir(home.path("home")).expect("making the home");
        fs::create_dir(home.path("run")).expect("making the runtime folder");
        home
    }

    /// `name` in the folder that holds everything of this home.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The state directory.
    pub(crate) fn state(&self) -> PathBuf {
        self.path("home/.openclaw")
    }

    /// Writes a file that only its owner may read, and the folders above it.
    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the folder")).expect("making folders");
        fs::write(&path, text).expect("writing a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        path
    }

    /// Makes `command` run as in a login of this home: nothing of ours, and no agent, is inherited.
    pub(crate) fn furnish(&self, command: &mut Command) {
        command.env_clear().current_dir(self.path("home"));
        for name in ["PATH", "LANG", "LLVM_PROFILE_FILE", "OPENCLAW_LOG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.env("HOME", self.path("home")).env("XDG_RUNTIME_DIR", self.path("run"));
        command.env("OPENCLAW_STATE_DIR", self.state()).env("RUST_BACKTRACE", "1");
        command.env("USER", user()).env("LOGNAME", user()).env("TERM", "xterm");
    }

    /// `rs/remotes.json`; null if there is none.
    pub(crate) fn remotes(&self) -> Value {
        match fs::read_to_string(self.state().join("rs/remotes.json")) {
            Ok(text) => serde_json::from_str(&text).expect("remotes.json is JSON"),
            Err(_) => Value::Null,
        }
    }

    /// The supervisor of this home, if one runs.
    pub(crate) fn supervisor(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.state().join("rs/supervisor.pid")).ok()?;
        let pid = Pid::from_raw(text.trim().parse().ok()?);
        alive(pid).then_some(pid)
    }

    /// The processes that run with this home's state directory, with their arguments.
    pub(crate) fn processes(&self) -> Vec<(Pid, String)> {
        with_variable("OPENCLAW_STATE_DIR", &self.state())
    }

    /// Asks the supervisor to end, and waits until it has; `None` if it does not.
    pub(crate) fn stop_supervisor(&self) -> Option<()> {
        let Some(pid) = self.supervisor() else { return Some(()) };
        signal(pid, Signal::SIGTERM);
        let start = std::time::Instant::now();
        while alive(pid) {
            if start.elapsed() > Duration::from_secs(10) {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(())
    }

    /// What the supervisor wrote down, for the message of a failed test.
    pub(crate) fn logs(&self) -> String {
        let Ok(entries) = fs::read_dir(self.state().join("rs/logs")) else { return String::new() };
        let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
        paths.filter_map(|path| fs::read_to_string(path).ok()).collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        drop(self.guard.kill());
        drop(self.guard.wait());
        let stopped = self.stop_supervisor();
        let left = self.processes();
        for (pid, _) in &left {
            signal(*pid, Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- the supervisor's log\n{}", self.logs());
            return;
        }
        assert!(stopped.is_some(), "the supervisor did not end when asked to\n{}", self.logs());
        assert!(left.is_empty(), "left behind in {}: {left:?}", self.state().display());
    }
}

/// The program in a home, ready to be given arguments.
pub(crate) fn openclaw(home: &Home) -> Run {
    let mut command = Command::new(OPENCLAW);
    home.furnish(&mut command);
    Run { command, limit: LIMIT }
}

/// The path of the built program.
pub(crate) fn built() -> &'static Path {
    Path::new(OPENCLAW)
}

/// One run of the program.
pub(crate) struct Run {
    command: Command,
    limit: Duration,
}

impl Run {
    /// Adds arguments.
    pub(crate) fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Adds an argument.
    pub(crate) fn arg(self, argument: impl AsRef<OsStr>) -> Self {
        self.args([argument])
    }

    /// Sets a variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Unsets a variable of the environment.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Sets the time after which the run has failed.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// The program and its arguments, for a terminal.
    pub(super) fn into_command(self) -> Command {
        self.command
    }

    /// Runs it to its end; kills it and fails when the time is up.
    pub(crate) fn run(self) -> Ran {
        let name = words(&self.command);
        Ran::of(name, run_to_end(self.command, self.limit))
    }

    /// Starts it; [`Started::end`] waits.
    pub(crate) fn start(mut self) -> Started {
        let name = words(&self.command);
        self.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.command.spawn().expect("starting the program");
        Started { name, child, limit: self.limit }
    }
}

/// A run under way.
pub(crate) struct Started {
    name: String,
    child: Child,
    limit: Duration,
}

impl Started {
    /// Waits until it has ended; kills it and fails when the time is up.
    pub(crate) fn end(self) -> Ran {
        let output = end_of(self.child, self.limit, &self.name);
        Ran::of(self.name, output)
    }

    /// Ends it as a person would (Ctrl-C), and waits until it has ended. A program without a handler
    /// inherits from a shell's background job that it ignores this: see [`terminate`](Self::terminate).
    pub(crate) fn interrupt(self) -> Ran {
        self.signalled(Signal::SIGINT)
    }

    /// Ends it as a service manager would, and waits until it has ended.
    pub(crate) fn terminate(self) -> Ran {
        self.signalled(Signal::SIGTERM)
    }

    fn signalled(self, by: Signal) -> Ran {
        signal(Pid::from_raw(i32::try_from(self.child.id()).expect("a process id")), by);
        self.end()
    }

    /// Whether it has not ended yet.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("asking for a child").is_none()
    }
}

/// What came of a run.
pub(crate) struct Ran {
    pub(crate) name: String,
    /// The exit code; -1 after a signal.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(super) fn of(name: String, output: std::process::Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            name,
            code: output.status.code().unwrap_or(-1),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Fails unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "exit code of {self}");
        self
    }

    /// Standard output as the one JSON value that it must be.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let parsed = serde_json::from_str(&self.stdout);
        parsed.unwrap_or_else(|error| panic!("not one JSON value: {error}\n{self}"))
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { name, code, stdout, stderr } = self;
        write!(f, "{name}\n--- code {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}")
    }
}

/// The arguments of a command, as a person would type them.
fn words(command: &Command) -> String {
    let arguments: Vec<OsString> = command.get_args().map(OsStr::to_owned).collect();
    let arguments: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
    format!("openclaw {}", arguments.join(" "))
}

/// Waits until a home has a supervisor other than `former`.
pub(crate) fn supervisor_after(home: &Home, former: Option<Pid>) -> Pid {
    wait_until("a supervisor starts", Duration::from_secs(10), || {
        home.supervisor().filter(|pid| Some(*pid) != former)
    })
}
