//! Runs a proxy command, whose standard input and output stand in for a TCP connection
//! (ssh_config(5), `ProxyCommand`).
//!
//! The command is a process group of its own and ends with the stream: what it started ends with it.

use std::{
    collections::VecDeque,
    fmt, io,
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    pin::Pin,
    process::{ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use super::{dial::plain, resolve::Hop};
use crate::tunnel::{Cause, Failure};

/// How long a command that has closed its output may take to end by itself.
const OWN_END: Duration = Duration::from_millis(500);
/// How long it may take to end once it is told to.
const HANGUP: Duration = Duration::from_secs(1);
/// How long a failure waits for the command's last words.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How many of its complaints are kept, and how much of each.
const COMPLAINTS: usize = 4;
const COMPLAINT_LENGTH: usize = 300;
/// How many of its complaints are logged.
const LOGGED: usize = 200;
/// What a shell answers for a program that it cannot run or find.
const NOT_RUN: [i32; 2] = [126, 127];

/// A command to run, every token filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProxyCommand {
    /// What the shell gets.
    pub(crate) line: String,
    /// The user's shell.
    pub(crate) shell: PathBuf,
    /// `SSH_AUTH_SOCK` of the command that asks for the connection.
    pub(crate) agent: Option<PathBuf>,
    /// Where it was said, for people.
    pub(crate) origin: String,
}

impl fmt::Display for ProxyCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line)
    }
}

/// A running command as a byte stream; dropping it ends the command.
#[derive(Debug)]
pub(super) struct Proxy {
    /// Dropped first: that its pipes close is then no end of its own.
    _over: DropGuard,
    input: ChildStdin,
    output: ChildStdout,
    record: Arc<Record>,
}

/// What is known of a command whose stream somebody else has.
#[derive(Debug)]
pub(super) struct Witness {
    origin: String,
    record: Arc<Record>,
    settled: watch::Receiver<Option<Outcome>>,
}

/// How a command went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// By itself.
    Ended(ExitStatus),
    /// By us, or nobody knows.
    Stopped,
}

/// What a command shows of itself while it runs.
#[derive(Debug, Default)]
struct Record {
    /// Whether it reads or writes no more.
    closed: AtomicBool,
    complaints: Mutex<Complaints>,
}

impl Proxy {
    /// Has the user's shell become `command`; must be called within the runtime.
    pub(super) fn start(command: &ProxyCommand) -> Result<(Self, Witness), Failure> {
        let mut shell = Command::new(&command.shell);
        shell.arg("-c").arg(format!("exec {}", command.line)).process_group(0);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        match &command.agent {
            Some(socket) => shell.env("SSH_AUTH_SOCK", socket),
            None => shell.env_remove("SSH_AUTH_SOCK"),
        };
        let mut child = shell.spawn().map_err(|error| command.cannot_start(&error))?;
        let group = Group::of(&child);
        let streams = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = streams else {
            return Err(command.cannot_start(&io::Error::other("it has no streams")));
        };
        let record = Arc::new(Record::default());
        let over = CancellationToken::new();
        let (settle, settled) = watch::channel(None);
        let keeper = Keeper { group, record: Arc::clone(&record), over: over.clone(), settle };
        // It ends soon after the stream, and at the latest with the runtime; both end the group.
        tokio::spawn(keeper.keep(child, errors));
        let witness =
            Witness { origin: command.origin.clone(), record: Arc::clone(&record), settled };
        Ok((Self { _over: over.drop_guard(), input, output, record }, witness))
    }

    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(polled, Poll::Ready(Err(_))) {
            self.record.closed.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl ProxyCommand {
    fn cannot_start(&self, error: &io::Error) -> Failure {
        let shell = self.shell.display();
        Failure::new(
            Cause::Configuration,
            format!("cannot run {shell} for the ProxyCommand ({}): {}", self.origin, plain(error)),
        )
        .fix("set SHELL to a shell that is there")
    }
}

impl AsyncRead for Proxy {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.output).poll_read(context, buffer);
        if polled.is_ready() && buffer.filled().len() == before && buffer.remaining() > 0 {
            self.record.closed.store(true, Ordering::Relaxed);
        }
        self.note(polled)
    }
}

impl AsyncWrite for Proxy {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.input).poll_write(context, bytes);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.input).poll_shutdown(context)
    }
}

/// The processes of a command; dropping it kills those that are left.
#[derive(Debug)]
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // A group that has ended by itself is what is wanted.
            let _ended = killpg(group, signal);
        }
    }

    /// Forgets a group of which nobody is left: its number may be given to others.
    fn look(&mut self) {
        self.0 = self.0.filter(|group| killpg(*group, None).is_ok());
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Waits beside a command for its end or ours.
struct Keeper {
    group: Group,
    record: Arc<Record>,
    over: CancellationToken,
    settle: watch::Sender<Option<Outcome>>,
}

impl Keeper {
    /// Listens to the command until it and its stream have ended; nothing of it is left then.
    async fn keep(mut self, mut child: Child, errors: ChildStderr) {
        let mut listener = JoinSet::new();
        listener.spawn(listen(errors, Arc::clone(&self.record)));
        let outcome = tokio::select! {
            biased;
            () = self.over.cancelled() => self.stop(&mut child).await,
            status = child.wait() => self.judge(status),
        };
        self.group.look();
        // Its last words are still in the pipe, which what it started may hold open.
        let _heard = timeout(OWN_END, listener.join_next()).await;
        debug!(?outcome, "a proxy command ended");
        self.settle.send_replace(Some(outcome));
        // What it left behind may still carry the stream.
        self.over.cancelled().await;
    }

    /// How a command went that has ended. One whose stream was over before its output was has
    /// probably died of the closed pipe, so that its status says nothing.
    fn judge(&self, status: io::Result<ExitStatus>) -> Outcome {
        if self.over.is_cancelled() && !self.record.closed.load(Ordering::Relaxed) {
            return Outcome::Stopped;
        }
        Outcome::of(status)
    }

    async fn stop(&self, child: &mut Child) -> Outcome {
        // The end of its output comes before its status.
        if self.record.closed.load(Ordering::Relaxed)
            && let Ok(status) = timeout(OWN_END, child.wait()).await
        {
            return Outcome::of(status);
        }
        // As ssh does; and since some start us with hangups ignored, which is inherited:
        self.group.signal(Signal::SIGHUP);
        self.group.signal(Signal::SIGTERM);
        if timeout(HANGUP, child.wait()).await.is_err() {
            self.group.signal(Signal::SIGKILL);
            let _buried = timeout(HANGUP, child.wait()).await;
        }
        Outcome::Stopped
    }
}

impl Outcome {
    fn of(status: io::Result<ExitStatus>) -> Self {
        status.map_or(Self::Stopped, Self::Ended)
    }
}

/// Logs and keeps what the command complains about.
async fn listen(mut errors: ChildStderr, record: Arc<Record>) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = errors.read(&mut buffer).await {
        let bytes = buffer.get(..length).unwrap_or_default();
        record.complaints.lock().unwrap_or_else(PoisonError::into_inner).hear(bytes);
    }
}

/// The last lines of a command's standard error, bounded.
#[derive(Debug, Default)]
struct Complaints {
    lines: VecDeque<String>,
    begun: Vec<u8>,
    logged: usize,
}

impl Complaints {
    fn hear(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line();
            } else if self.begun.len() < COMPLAINT_LENGTH {
                self.begun.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&std::mem::take(&mut self.begun)).trim().to_owned();
        if line.is_empty() {
            return;
        }
        let line: String = line.escape_debug().collect();
        if self.logged < LOGGED {
            self.logged += 1;
            debug!(line, "a proxy command says");
        }
        if self.lines.len() == COMPLAINTS {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// The lines, the begun one as well, for a sentence.
    fn text(&mut self) -> Option<String> {
        self.end_line();
        (!self.lines.is_empty()).then(|| Vec::from(self.lines.clone()).join("; "))
    }
}

impl Witness {
    /// `failure` of a handshake over the command, with what the command itself says of it.
    pub(super) async fn explain(mut self, hop: &Hop, failure: Failure) -> Failure {
        let is_ours = matches!(
            failure.cause,
            Cause::LinkLost
                | Cause::ClosedBeforeBanner { .. }
                | Cause::HandshakeTimedOut
                | Cause::Protocol
        );
        if !is_ours {
            return failure;
        }
        let settled = timeout(LAST_WORDS, self.settled.wait_for(Option::is_some)).await;
        let outcome = settled.ok().and_then(Result::ok).and_then(|outcome| *outcome);
        let complaints = &self.record.complaints;
        let said = complaints.lock().unwrap_or_else(PoisonError::into_inner).text();
        describe(hop, &self.origin, outcome, said.as_deref(), failure)
    }
}

/// What a failed handshake over a command means, given how the command went and what it `said`.
fn describe(
    hop: &Hop,
    origin: &str,
    outcome: Option<Outcome>,
    said: Option<&str>,
    failure: Failure,
) -> Failure {
    let said = said.map(|said| format!(": {said}")).unwrap_or_default();
    let look = format!("look at the ProxyCommand ({origin}), or run it by hand");
    let (cause, how) = match outcome {
        Some(Outcome::Ended(status)) if !status.success() => {
            let is_missing = status.code().is_some_and(|code| NOT_RUN.contains(&code));
            let cause = if is_missing { Cause::Configuration } else { Cause::Refused };
            (cause, ended(status))
        }
        Some(Outcome::Ended(_)) => {
            (failure.cause, "ended without an error before the handshake was done".to_owned())
        }
        Some(Outcome::Stopped) | None if failure.cause == Cause::HandshakeTimedOut => {
            let limit = hop.connect_timeout.as_secs();
            (failure.cause, format!("brought no answer of an SSH server within {limit} s"))
        }
        Some(Outcome::Stopped) | None => {
            let fix = failure.fix.unwrap_or(look);
            return Failure {
                message: format!("{}{said}", failure.message),
                fix: Some(fix),
                ..failure
            };
        }
    };
    Failure::new(cause, format!("the ProxyCommand for {} {how}{said}", hop.place())).fix(look)
}

fn ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Long enough for a loaded machine, short enough to fail a test.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn command(line: &str) -> ProxyCommand {
        ProxyCommand {
            line: line.to_owned(),
            shell: "/bin/sh".into(),
            agent: None,
            origin: "-o".to_owned(),
        }
    }

    async fn within<T>(future: impl Future<Output = T>) -> T {
        timeout(PATIENCE, future).await.expect("took too long")
    }

    async fn settled(witness: &mut Witness) -> Outcome {
        let outcome = within(witness.settled.wait_for(Option::is_some)).await;
        outcome.unwrap().unwrap()
    }

    fn broken() -> Failure {
        Failure::new(Cause::LinkLost, "the connection broke")
    }

    #[tokio::test]
    async fn carries_bytes_both_ways_and_has_the_agent_of_the_caller() {
        let with_agent = ProxyCommand {
            agent: Some("/run/agent".into()),
            ..command("sh -c 'echo $SSH_AUTH_SOCK; cat'")
        };
        let (mut proxy, _witness) = Proxy::start(&with_agent).unwrap();
        within(proxy.write_all(b"hello")).await.unwrap();
        let mut heard = [0; 16];
        within(proxy.read_exact(&mut heard)).await.unwrap();
        assert_eq!(&heard, b"/run/agent\nhello");
    }

    #[tokio::test]
    async fn ends_with_its_stream_and_takes_its_children_along() {
        let folder = tempfile::tempdir().unwrap();
        let alive = folder.path().join("alive");
        nix::unistd::mkfifo(&alive, nix::sys::stat::Mode::S_IRWXU).unwrap();
        // Two processes that ignore being asked to end, and hold a pipe open for as long as they live.
        let line = format!(
            "sh -c 'trap \"\" HUP TERM; exec 3>{}; sleep 1000 & echo ready; wait'",
            alive.display()
        );
        let (mut proxy, mut witness) = Proxy::start(&command(&line)).unwrap();
        let last_breath = tokio::task::spawn_blocking(move || std::fs::read(alive));
        let mut ready = [0; 6];
        within(proxy.read_exact(&mut ready)).await.unwrap();
        drop(proxy);
        assert_eq!(settled(&mut witness).await, Outcome::Stopped);
        within(last_breath).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_command_that_fails_is_quoted_with_its_status() {
        let (mut proxy, witness) =
            Proxy::start(&command("sh -c 'echo first >&2; printf \"no\\033 way\" >&2; exit 3'"))
                .unwrap();
        let mut nothing = Vec::new();
        within(proxy.read_to_end(&mut nothing)).await.unwrap();
        drop(proxy);
        let failure = within(witness.explain(&Hop::example("box"), broken())).await;
        assert_eq!(failure.cause, Cause::Refused);
        assert_eq!(
            failure.message,
            "the ProxyCommand for box port 22 ended with status 3: first; no\\u{1b} way"
        );
        assert!(failure.fix.unwrap().contains("(-o)"));
    }

    #[tokio::test]
    async fn a_command_that_is_not_there_is_a_matter_of_configuration() {
        for line in ["/nonexistent/program", "/"] {
            let (mut proxy, witness) = Proxy::start(&command(line)).unwrap();
            let mut nothing = Vec::new();
            within(proxy.read_to_end(&mut nothing)).await.unwrap();
            drop(proxy);
            let failure = within(witness.explain(&Hop::example("box"), broken())).await;
            assert_eq!(failure.cause, Cause::Configuration, "{failure}");
        }
        let no_shell = ProxyCommand { shell: "/nonexistent/shell".into(), ..command("true") };
        let failure = Proxy::start(&no_shell).unwrap_err();
        assert_eq!(failure.cause, Cause::Configuration);
        assert!(failure.message.contains("/nonexistent/shell"), "{failure}");
    }

    #[tokio::test]
    async fn a_command_that_hangs_is_not_blamed_for_being_ended() {
        let (proxy, witness) = Proxy::start(&command("sleep 1000")).unwrap();
        drop(proxy);
        let silent = Failure::new(Cause::HandshakeTimedOut, "silent");
        let failure = within(witness.explain(&Hop::example("box"), silent)).await;
        assert_eq!(failure.cause, Cause::HandshakeTimedOut);
        assert!(failure.message.contains("within 10 s"), "{failure}");
        let (proxy, witness) = Proxy::start(&command("sleep 1000")).unwrap();
        drop(proxy);
        let refused = Failure::new(Cause::Authentication, "no key fits");
        assert_eq!(within(witness.explain(&Hop::example("box"), refused.clone())).await, refused);
    }

    /// `yes garbage`, whose stream we close because it does not speak SSH, dies of the closed pipe.
    #[tokio::test]
    async fn a_command_that_dies_of_the_pipe_that_we_close_is_not_blamed_for_it() {
        for _ in 0..20 {
            let mut yes = Command::new("yes");
            yes.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = yes.process_group(0).spawn().unwrap();
            let errors = child.stderr.take().unwrap();
            let (over, record) = (CancellationToken::new(), Arc::default());
            let (settle, settled) = watch::channel(None);
            let group = Group::of(&child);
            over.cancel();
            drop(child.stdout.take());
            assert_eq!(within(child.wait()).await.unwrap().signal(), Some(Signal::SIGPIPE as i32));
            let keeper = Keeper { group, record, over, settle };
            within(keeper.keep(child, errors)).await;
            assert_eq!(*settled.borrow(), Some(Outcome::Stopped));
        }
    }

    #[test]
    fn complaints_are_bounded() {
        let mut complaints = Complaints::default();
        for number in 0..100 {
            complaints.hear(format!("{number} {}\n\n", "x".repeat(5000)).as_bytes());
        }
        let text = complaints.text().unwrap();
        assert!(text.starts_with("96 x") && text.len() < 4 * 310, "{text}");
        assert_eq!(Complaints::default().text(), None);
    }
}
