//! `tailscale serve` or `funnel` in the foreground: ours, watched, started again, ended with us.
//!
//! The way exists as long as that process does. It hangs on a shell that ends it when our end of a
//! pipe is closed, so that not even `kill -9` of the gateway leaves a way behind.

use std::{
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, ChildStdin, Command},
    sync::oneshot,
    time::{Instant, sleep, timeout},
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::AbortOnDropHandle,
};

use super::{
    answers::{self, Backend},
    ask, keep_secrets_from, program,
};
use crate::{
    backoff::Backoff,
    problem::{Class, Problem},
};

/// How long a daemon may take that is on its way up, as OpenClaw waits.
const DAEMON_LIMIT: Duration = Duration::from_secs(90);
/// Between two looks at it.
const DAEMON_LOOK: Duration = Duration::from_secs(1);
/// How long the program may take until the way is open.
const READY_LIMIT: Duration = Duration::from_secs(15);
/// How long it may take to give the way back.
const END_LIMIT: Duration = Duration::from_secs(4);
/// How long its last words may take to come once it has ended.
const WORDS_LIMIT: Duration = Duration::from_secs(1);
/// What is kept of the words of one stream, bytes.
const WORDS: usize = 16 * 1024;
/// A way that was open for so long starts the waits over.
const STEADY: Duration = Duration::from_secs(60);
/// Runs its arguments, and ends them once its standard input is closed.
const GUARD: &str = "exec 3<&0; \"$@\" 3<&- </dev/null & it=$!; \
    { cat <&3 >/dev/null 2>&1; kill \"$it\" 2>/dev/null; } & guard=$!; \
    exec 3<&-; wait \"$it\"; code=$?; kill \"$guard\" 2>/dev/null; exit $code";

/// What is to be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) struct Plan {
    /// Whether for everybody, and not for the tailnet alone.
    pub(in crate::gateway) is_public: bool,
    /// The port of this machine that it leads to.
    pub(in crate::gateway) port: u16,
}

/// A way that is open, or being opened again. Dropped, it is given back.
pub(in crate::gateway) struct Route {
    /// The machine's name on the tailnet, if it could be told.
    pub(in crate::gateway) name: Option<String>,
    stop: CancellationToken,
    _stop: DropGuard,
    task: AbortOnDropHandle<()>,
}

impl Route {
    /// Gives the way back, and waits until that is done.
    pub(in crate::gateway) async fn end(self) {
        self.stop.cancel();
        if timeout(END_LIMIT * 2, self.task).await.is_err() {
            tracing::warn!("tailscale did not give the way back in time");
        }
    }
}

/// Opens the way; returns once it is open. Class `unreachable` for a daemon that is not up in time,
/// `config` for what a person must see to.
pub(in crate::gateway) async fn claim(plan: Plan) -> Result<Route, Problem> {
    let name = daemon().await?;
    let running = start(plan).await?;
    let stop = CancellationToken::new();
    let task = tokio::spawn(hold(plan, running, stop.clone()));
    tracing::info!(public = plan.is_public, "tailscale leads to this gateway");
    let task = AbortOnDropHandle::new(task);
    Ok(Route { name, _stop: stop.clone().drop_guard(), stop, task })
}

/// Waits for the daemon; the machine's name.
async fn daemon() -> Result<Option<String>, Problem> {
    let (program, until) = (program(), Instant::now() + DAEMON_LIMIT);
    let mut said = None;
    loop {
        let why = match ask(&program, &["status", "--json"]).await {
            Ok(answer) => match answers::backend(&answer.out, &answer.err) {
                Backend::Running(name) => return Ok(name),
                Backend::Starting(why) => why,
                Backend::Stuck(why) => return Err(stuck(&why).fix("tailscale up")),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(stuck("its program `tailscale` is not on the PATH")
                    .fix("install it, or: openclaw config set gateway.tailscale.mode off"));
            }
            Err(error) => error.to_string(),
        };
        if Instant::now() >= until {
            let message = format!("tailscale is not up: {why}");
            return Err(Problem::new(Class::Unreachable, message).fix("tailscale status"));
        }
        if said.as_ref() != Some(&why) {
            tracing::info!(why, "waiting for tailscale");
            said = Some(why);
        }
        sleep(DAEMON_LOOK).await;
    }
}

fn stuck(why: &str) -> Problem {
    Problem::new(Class::Config, format!("gateway.tailscale.mode wants tailscale, and {why}"))
}

/// One run of the program.
struct Run {
    child: Child,
    /// Closed, it ends the program.
    hold: Option<ChildStdin>,
    group: Option<Pid>,
    /// Its standard output and error: read as long as it runs, since it must not stop at a full pipe.
    heard: [Heard; 2],
}

/// What one of its streams said, and who reads that to the end.
struct Heard {
    words: Arc<Mutex<Vec<u8>>>,
    task: AbortOnDropHandle<()>,
}

impl Heard {
    /// Reads `from`; tells `ready` when it says that the way is open.
    fn of(
        from: impl AsyncRead + Unpin + Send + 'static,
        ready: Option<oneshot::Sender<()>>,
    ) -> Self {
        let words = Arc::new(Mutex::new(Vec::new()));
        let task = AbortOnDropHandle::new(tokio::spawn(hear(from, Arc::clone(&words), ready)));
        Self { words, task }
    }

    /// All that is kept, once the stream has ended or [`WORDS_LIMIT`] is over.
    async fn words(&mut self) -> String {
        let ended = timeout(WORDS_LIMIT, &mut self.task).await;
        tracing::trace!(ended = ended.is_ok(), "tailscale's words");
        let words = self.words.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&words).into_owned()
    }
}

impl Run {
    /// Starts the program, and tells when the way is open.
    fn spawn(plan: Plan) -> Result<(Self, oneshot::Receiver<()>), Problem> {
        let word = if plan.is_public { "funnel" } else { "serve" };
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh"]).arg(program());
        command.args([word, "--yes", "--bg=false", &format!("http://127.0.0.1:{}", plan.port)]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        keep_secrets_from(&mut command);
        let failed = |error: std::io::Error| stuck(&format!("it cannot be started: {error}"));
        let mut child = command.spawn().map_err(failed)?;
        let hold = child.stdin.take();
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let (Some(out), Some(err)) = (child.stdout.take(), child.stderr.take()) else {
            return Err(stuck("its output cannot be read"));
        };
        let (ready, is_ready) = oneshot::channel();
        let heard = [Heard::of(out, Some(ready)), Heard::of(err, None)];
        Ok((Self { child, hold, group, heard }, is_ready))
    }

    /// Waits for its end.
    async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Has it give the way back; insists after [`END_LIMIT`].
    async fn end(&mut self) {
        drop(self.hold.take());
        if timeout(END_LIMIT, self.child.wait()).await.is_err() {
            tracing::warn!("tailscale does not end by itself");
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Whatever of it is left; mostly there is nobody any more.
        let left = self.child.id().and(self.group).map(|group| killpg(group, Signal::SIGKILL));
        tracing::trace!(insisted = left.is_some(), "a run of tailscale is over");
    }
}

/// Starts the program and waits until the way is open.
async fn start(plan: Plan) -> Result<Run, Problem> {
    let (mut run, ready) = Run::spawn(plan)?;
    if matches!(timeout(READY_LIMIT, ready).await, Ok(Ok(()))) {
        return Ok(run);
    }
    run.end().await;
    let [out, err] = &mut run.heard;
    let words = [out.words().await, err.words().await].join("\n");
    let (why, fix) = answers::advice(&words);
    Err(stuck(&format!("it opens no way: {why}"))
        .fix(fix.unwrap_or("tailscale serve status --json, and openclaw gateway status")))
}

/// Reads to the end and keeps the first [`WORDS`] bytes; ends with the program.
async fn hear(
    mut from: impl AsyncRead + Unpin,
    words: Arc<Mutex<Vec<u8>>>,
    mut ready: Option<oneshot::Sender<()>>,
) {
    let mut chunk = vec![0; 4_096];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let mut words = words.lock().unwrap_or_else(PoisonError::into_inner);
        let room = WORDS.saturating_sub(words.len());
        words.extend(chunk.iter().take(length.min(room)));
        if ready.is_some() && String::from_utf8_lossy(&words).lines().any(answers::is_ready) {
            // Who waited for it may have given up.
            let told = ready.take().map(|ready| ready.send(()));
            tracing::trace!(?told, "the way is open");
        }
    }
}

/// Keeps the way open until it is to stop.
async fn hold(plan: Plan, first: Run, stop: CancellationToken) {
    let mut run = Some(first);
    let mut waits = Backoff::new(uuid::Uuid::new_v4().as_u64_pair().0);
    loop {
        if let Some(mut open) = run.take() {
            let since = Instant::now();
            tokio::select! {
                ended = open.ended() => {
                    let status = ended.map(|status| status.to_string()).unwrap_or_default();
                    tracing::warn!(status, "tailscale's way ended; opening it again");
                }
                () = stop.cancelled() => return open.end().await,
            }
            if since.elapsed() >= STEADY {
                waits.reset();
            }
        }
        tokio::select! {
            () = sleep(waits.next_wait().max(Duration::from_millis(200))) => {}
            () = stop.cancelled() => return,
        }
        let started = tokio::select! {
            started = start(plan) => started,
            () = stop.cancelled() => return,
        };
        match started {
            Ok(open) => {
                tracing::info!("tailscale leads to this gateway again");
                run = Some(open);
            }
            Err(problem) => tracing::warn!(why = problem.message, "no way by tailscale yet"),
        }
    }
}
