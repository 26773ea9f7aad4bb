//! A program that runs beside a test, and ends with it however the test ends.

use std::{
    ffi::OsStr,
    io::Read,
    os::unix::process::CommandExt,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::processes::signal;

/// Becomes the program; a child of it waits for the end of our pipe, and then kills the group.
const GUARD: &str = "exec 3<&0; (read -r _ <&3; kill -s KILL -- -$$) >/dev/null 2>&1 & \
                     exec \"$@\" 3<&- </dev/null";

/// A command whose process group dies when the pipe at its standard input closes.
pub(crate) fn guarded(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", GUARD, "guarded"]).arg(program).process_group(0);
    command
}

/// A running program, its output read all the time.
pub(crate) struct Program {
    name: String,
    child: Child,
    log: Log,
}

impl Program {
    /// Starts a command made by [`guarded`].
    pub(crate) fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let spawned = command.spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("starting {name}: {error}"));
        let log = Log::default();
        log.follow(child.stdout.take().expect("piped"));
        log.follow(child.stderr.take().expect("piped"));
        Self { name: name.to_owned(), child, log }
    }

    /// Its process id, and the id of its process group.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    /// What it has printed so far.
    pub(crate) fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until it has printed `text`; `false` if it ended or the time is up before.
    pub(crate) fn prints(&mut self, text: &str, limit: Duration) -> bool {
        let start = Instant::now();
        while start.elapsed() < limit {
            if self.log.waits_for(text, Duration::from_millis(100)) {
                return true;
            }
            if self.has_ended() {
                // Its last words may still be on their way through the pipe.
                return self.log.waits_for(text, Duration::from_secs(1));
            }
        }
        false
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("asking for a child").is_some()
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) fn code(&mut self) -> Option<i32> {
        self.child.try_wait().expect("asking for a child")?.code()
    }

    /// Fails with what it printed.
    pub(crate) fn fail(&self, what: &str) -> ! {
        panic!("{}: {what}\n--- its output\n{}", self.name, self.log());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // The guard is in the group, so the group exists even when the program has ended.
        let group = Pid::from_raw(-self.pid().as_raw());
        signal(group, Signal::SIGKILL);
        drop(self.child.wait());
        // The rest of the group is buried by the system.
        let start = Instant::now();
        while kill(group, None).is_ok() && start.elapsed() < Duration::from_secs(5) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// What a program has printed so far.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<(Mutex<Vec<u8>>, Condvar)>);

impl Log {
    /// Reads `stream` to its end on a thread of its own.
    pub(super) fn follow(&self, mut stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut buffer) {
                log.bytes().extend(buffer.iter().take(count));
                log.0.1.notify_all();
            }
        })
    }

    /// Everything so far.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// Waits until the text holds `wanted`; `false` when the time is up.
    pub(super) fn waits_for(&self, wanted: &str, limit: Duration) -> bool {
        let lacks = |bytes: &mut Vec<u8>| !String::from_utf8_lossy(bytes).contains(wanted);
        let waited = self.0.1.wait_timeout_while(self.bytes(), limit, lacks);
        let (_bytes, end) = waited.unwrap_or_else(PoisonError::into_inner);
        !end.timed_out()
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs a command until it has ended and closed its output; kills it and fails at the limit.
pub(crate) fn run_to_end(mut command: Command, limit: Duration) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let spawned = command.spawn();
    let child = spawned.unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
    end_of(child, limit, &format!("{command:?}"))
}

/// Waits until `child` has ended and closed its output; kills it and fails at the limit.
pub(crate) fn end_of(mut child: Child, limit: Duration, name: &str) -> Output {
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a process id"));
    let output = child.stdout.take().map(read_all);
    let errors = child.stderr.take().map(read_all);
    let (ended, end) = mpsc::channel::<ExitStatus>();
    thread::spawn(move || child.wait().map(|status| ended.send(status)));
    let deadline = Instant::now() + limit;
    let status = end.recv_timeout(limit).ok();
    if status.is_none() {
        signal(pid, Signal::SIGKILL);
    }
    let grace = if status.is_some() {
        deadline.saturating_duration_since(Instant::now())
    } else {
        Duration::ZERO
    };
    let grace = grace.max(Duration::from_secs(1));
    let stdout = output.map(|read| read.recv_timeout(grace));
    let stderr = errors.map(|read| read.recv_timeout(grace));
    let closed = |stream: &Option<Result<Vec<u8>, _>>| stream.as_ref().is_none_or(Result::is_ok);
    let all_closed = closed(&stdout) && closed(&stderr);
    let stdout = stdout.and_then(Result::ok).unwrap_or_default();
    let stderr = stderr.and_then(Result::ok).unwrap_or_default();
    let printed =
        || format!("{}\n{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let Some(status) = status else {
        panic!("still running after {limit:?}: {name}\n{}", printed());
    };
    assert!(all_closed, "something holds the standard streams of {name}\n{}", printed());
    Output { status, stdout, stderr }
}

fn read_all(mut stream: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (done, read) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if stream.read_to_end(&mut bytes).is_ok() {
            drop(done.send(bytes));
        }
    });
    read
}
