//! `tailscale serve` or `funnel` in the foreground: ours, watched, started again, ended with us.
//!
//! The way exists as long as that process does. It hangs on a shell that ends it when our end of a
//! pipe is closed, so that not even `kill -9` of the gateway leaves a way behind.

use std::{
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
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
/// What is kept of its words, bytes.
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
}

impl Run {
    fn spawn(plan: Plan) -> Result<(Self, ChildStdout), Problem> {
        let word = if plan.is_public { "funnel" } else { "serve" };
        let mut command = Command::new("sh");
        command.args(["-c", GUARD, "sh"]).arg(program());
        command.args([word, "--yes", "--bg=false", &format!("http://127.0.0.1:{}", plan.port)]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        keep_secrets_from(&mut command);
        let failed = |error: std::io::Error| stuck(&format!("it cannot be started: {error}"));
        let mut child = command.spawn().map_err(failed)?;
        let (hold, out) = (child.stdin.take(), child.stdout.take());
        let group = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        let out = out.ok_or_else(|| stuck("its output cannot be read"))?;
        Ok((Self { child, hold, group }, out))
    }

    /// Waits for its end.
    async fn ended(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Has it give the way back; insists after [`END_LIMIT`].
    async fn end(mut self) {
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
    let (mut run, out) = Run::spawn(plan)?;
    let mut words = String::new();
    let mut lines = BufReader::new(out.take(WORDS as u64)).lines();
    let ready = async {
        while let Ok(Some(line)) = lines.next_line().await {
            if answers::is_ready(&line) {
                return true;
            }
            words.push_str(&line);
            words.push('\n');
        }
        false
    };
    let is_ready = timeout(READY_LIMIT, ready).await.unwrap_or(false);
    if is_ready {
        // It may go on talking, and must not stop at a full pipe.
        tokio::spawn(drain(lines.into_inner().into_inner().into_inner()));
        if let Some(err) = run.child.stderr.take() {
            tokio::spawn(drain(err));
        }
        return Ok(run);
    }
    let err = run.child.stderr.take();
    run.end().await;
    if let Some(err) = err {
        let mut err = err.take(WORDS as u64);
        let read = err.read_to_string(&mut words);
        // What can be read by then is all that is told.
        let _read = timeout(Duration::from_secs(1), read).await;
    }
    let (why, fix) = answers::advice(&words);
    Err(stuck(&format!("it opens no way: {why}"))
        .fix(fix.unwrap_or("tailscale serve status --json, and openclaw gateway status")))
}

/// Reads to the end, for nobody; ends with the program.
async fn drain(mut from: impl AsyncRead + Unpin) {
    let read = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    tracing::trace!(is_ok = read.is_ok(), "tailscale's words ended");
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
