//! `openclaw demo`: the whole story on one machine, with real processes in a temporary home.

use std::{
    path::Path,
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
    time::{sleep, timeout},
};

use super::{Context, output::Tone, phrases::span};
use crate::{
    client::{Credential, Gateway, Login, READ, Source},
    control::{self, Connection, Endpoint, Request, Start},
    secret::Secret,
    ssh::server::{self, Embedded},
};

/// How long the path stays frozen.
const FROZEN: Duration = Duration::from_secs(4);
/// Between two calls of the client.
const CALL_INTERVAL: Duration = Duration::from_millis(100);
/// How long any one step may take.
const STEP_LIMIT: Duration = Duration::from_secs(20);

/// How long a supervisor may take from its start until it listens.
const LAUNCHED: Duration = Duration::from_secs(2);
/// What a shell says of a program that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

/// Runs the demo.
pub(super) fn run(context: &Context, _: Arguments) -> anyhow::Result<ExitCode> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome = runtime.block_on(story(context));
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Who may end the demo before its end.
struct Interruption {
    terminate: Signal,
    interrupt: Signal,
}

impl Interruption {
    fn new() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    /// What `work` comes to; `None` if somebody ends it.
    async fn until<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            outcome = work => Some(outcome),
            _ = self.terminate.recv() => None,
            _ = self.interrupt.recv() => None,
        }
    }
}

/// Prints what happens with the time at which it did.
struct Clock<'a> {
    context: &'a Context,
    begun: Instant,
}

impl Clock<'_> {
    fn say(&self, who: &str, tone: Tone, what: impl AsRef<str>) {
        let at = format!("{:5.1} s", self.begun.elapsed().as_secs_f64());
        let at = self.context.output.paint(Tone::Quiet, &at);
        let who = self.context.output.paint(tone, &format!("{who:<14}"));
        self.context.output.line(format!("{at}  {who} {}", what.as_ref()));
    }
}

/// The folders, ports and processes of the demo; dropping it ends and removes them.
struct Stage {
    home: tempfile::TempDir,
    gateway_port: u16,
    local_port: u16,
    gateway: Child,
    server: Embedded,
}

async fn story(context: &Context) -> anyhow::Result<ExitCode> {
    let clock = Clock { context, begun: Instant::now() };
    let home = tempfile::Builder::new().prefix("openclaw-demo-").tempdir()?;
    context.output.line(format!(
        "everything happens in {}; nothing of yours is touched\n",
        home.path().display()
    ));
    let mut interruption = Interruption::new()?;
    let interrupted = Ok(ExitCode::from(INTERRUPTED));
    // What is set up so far goes with it.
    let Some(stage) = interruption.until(set_up(&clock, home)).await else { return interrupted };
    let stage = stage?;
    let near = stage.home.path().join("near");
    let outcome = interruption.until(play(&clock, &stage)).await;
    let endpoint = Endpoint { socket: near.join("rs/supervisor.sock"), other: None, profile: None };
    if outcome.is_none() {
        // It may just have been started, and not listen yet.
        let listens = async {
            while !endpoint.socket.exists() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let _not_begun = timeout(LAUNCHED, listens).await;
    }
    stop_supervisor(&endpoint).await?;
    let summary = outcome.transpose()?;
    end_gateway(stage.gateway).await?;
    drop((stage.server, stage.home));
    clock.say("done", Tone::Quiet, "everything is ended and removed");
    let Some(summary) = summary else { return interrupted };
    if context.output.is_json() {
        context.output.value(&summary)?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn set_up(clock: &Clock<'_>, home: tempfile::TempDir) -> anyhow::Result<Stage> {
    let [gateway_port, local_port] = free_ports()?;
    let begun = Instant::now();
    let mut gateway = program(home.path(), "far")?
        .args(["gateway", "run", "--port", &gateway_port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting the gateway")?;
    wait_for_gateway(&mut gateway, gateway_port).await?;
    clock.say(
        "gateway",
        Tone::Good,
        format!("ready on 127.0.0.1:{gateway_port} after {}", span(begun.elapsed())),
    );
    let key = home.path().join("key");
    let public = server::generate_client_key(&key)?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let options =
        server::Options { login: server::Login::Key(public), ..server::Options::default() };
    let server = Embedded::start(listener, options)?;
    let port = server.address().port();
    std::fs::write(home.path().join("known_hosts"), server.known_hosts_line(port))?;
    clock.say("ssh server", Tone::Good, format!("embedded, on 127.0.0.1:{port}"));
    Ok(Stage { home, gateway_port, local_port, gateway, server })
}

async fn play(clock: &Clock<'_>, stage: &Stage) -> anyhow::Result<Value> {
    let live = connect(clock, stage).await?;
    let health = Instant::now();
    let said = run_json(program(stage.home.path(), "near")?.args(["health", "--json"])).await?;
    ensure!(said.get("ok") == Some(&Value::Bool(true)), "health did not answer ok: {said}");
    let health = health.elapsed();
    clock.say("health", Tone::Good, format!("ok through the tunnel in {}", span(health)));

    let token = std::fs::read_to_string(stage.home.path().join("far/rs/gateway-token"))?;
    let credential = Credential::new(Some(Secret::new(token.trim())), None, Source::Given);
    let (stop, stopped) = watch::channel(false);
    let client = tokio::spawn(keep_calling(stage.local_port, credential, stopped));
    clock.say("client", Tone::Good, "calls `health` through the local port, again and again");
    sleep(Duration::from_secs(1)).await;

    stage.server.stall(true);
    clock.say("path", Tone::Bad, "frozen: nothing gets through, nothing is closed");
    let frozen = Instant::now();
    let endpoint = Endpoint {
        socket: stage.home.path().join("near/rs/supervisor.sock"),
        other: None,
        profile: None,
    };
    let phase = until_phase(&endpoint, |phase| phase != "live").await?;
    let noticed = frozen.elapsed();
    clock.say("supervisor", Tone::Odd, format!("{phase}: noticed after {}", span(noticed)));
    sleep(FROZEN.saturating_sub(noticed)).await;

    stage.server.stall(false);
    clock.say("path", Tone::Good, "restored");
    let thawed = Instant::now();
    until_phase(&endpoint, |phase| phase == "live").await?;
    let restored = thawed.elapsed();
    clock.say("supervisor", Tone::Good, format!("live again after {}", span(restored)));
    sleep(Duration::from_secs(1)).await;

    stop.send_replace(true);
    let calls = timeout(STEP_LIMIT, client).await.context("the client did not end")??;
    let tone = if calls.failed.is_empty() { Tone::Good } else { Tone::Bad };
    clock.say(
        "client",
        tone,
        format!(
            "{} calls, {} failed; usually {}, the longest waited {}",
            calls.count,
            calls.failed.len(),
            span(calls.median()),
            span(calls.longest())
        ),
    );
    if let Some(first) = calls.failed.first() {
        bail!("a call failed: {first}");
    }
    Ok(serde_json::json!({
        "ok": true, "connectMs": millis(live), "healthMs": millis(health),
        "noticedMs": millis(noticed), "restoredMs": millis(restored),
        "calls": calls.count, "failed": calls.failed.len(),
        "medianCallMs": millis(calls.median()), "longestCallMs": millis(calls.longest()),
    }))
}

async fn connect(clock: &Clock<'_>, stage: &Stage) -> anyhow::Result<Duration> {
    let home = stage.home.path();
    let known_hosts = format!("UserKnownHostsFile={}", home.join("known_hosts").display());
    let begun = Instant::now();
    let mut command = program(home, "near")?;
    command
        .args(["remote", "connect", "--json", "--batch", "--name", "demo", "-F", "none", "-i"])
        .arg(home.join("key"))
        .args(["-o", &known_hosts, "-o", "GlobalKnownHostsFile=/dev/null"])
        .args(["-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none"])
        .args(["-p", &stage.server.address().port().to_string()])
        .args(["--remote-port", &stage.gateway_port.to_string()])
        .args(["--local-port", &stage.local_port.to_string(), "--token-file"])
        .arg(home.join("far/rs/gateway-token"))
        .arg("demo@127.0.0.1");
    let status = run_json(&mut command).await?;
    let took = begun.elapsed();
    let url = status.get("localUrl").and_then(Value::as_str).unwrap_or_default();
    clock.say("remote connect", Tone::Good, format!("live after {}: {url}", span(took)));
    Ok(took)
}

/// This program, with a state directory of its own and nothing inherited that could lead elsewhere.
fn program(home: &Path, state: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe().context("finding our own program")?);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("OPENCLAW_") || text == "SSH_AUTH_SOCK" || text == "XDG_RUNTIME_DIR" {
            command.env_remove(&name);
        }
    }
    command
        .env("HOME", home)
        .env("OPENCLAW_STATE_DIR", home.join(state))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    Ok(command)
}

/// Runs a command of ours and returns the JSON that it prints.
async fn run_json(command: &mut Command) -> anyhow::Result<Value> {
    let output = timeout(STEP_LIMIT, command.output()).await.context("a command hangs")??;
    let text = String::from_utf8_lossy(&output.stdout);
    let value = serde_json::from_str(&text).context("a command printed no JSON");
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        bail!("a command failed: {}{errors}", text.trim());
    }
    value
}

async fn wait_for_gateway(gateway: &mut Child, port: u16) -> anyhow::Result<()> {
    let answered = async {
        loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await
                && crate::client::healthz(stream, STEP_LIMIT).await.is_ok()
            {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        answered = timeout(STEP_LIMIT, answered) => answered.context("the gateway does not answer"),
        ended = gateway.wait() => bail!("the gateway ended: {}", ended?),
    }
}

async fn until_phase(endpoint: &Endpoint, wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
    let reached = async {
        loop {
            let remotes = control::statuses(endpoint, None).await?;
            let phase = remotes.first().and_then(|remote| remote.get("phase")?.as_str());
            match phase {
                Some(phase) if wanted(phase) => return anyhow::Ok(phase.to_owned()),
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(STEP_LIMIT, reached).await.context("the tunnel did not change its phase")?
}

async fn stop_supervisor(endpoint: &Endpoint) -> anyhow::Result<()> {
    let Some(mut connection) = Connection::dial(endpoint, Start::Never).await? else {
        return Ok(());
    };
    connection.request(Request::Stop).await?;
    connection.reply().await?;
    // The supervisor removes its socket as one of its last acts.
    let gone = async {
        while endpoint.socket.exists() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(STEP_LIMIT, gone).await.context("the supervisor did not end")
}

/// Ends the gateway as a service manager would.
async fn end_gateway(mut gateway: Child) -> anyhow::Result<()> {
    if let Some(pid) = gateway.id().and_then(|pid| i32::try_from(pid).ok()) {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGTERM)?;
    }
    timeout(STEP_LIMIT, gateway.wait()).await.context("the gateway does not end")??;
    Ok(())
}

/// What became of the client's calls.
#[derive(Default)]
struct Calls {
    count: usize,
    times: Vec<Duration>,
    failed: Vec<String>,
}

impl Calls {
    fn median(&self) -> Duration {
        let mut times = self.times.clone();
        times.sort();
        times.get(times.len() / 2).copied().unwrap_or_default()
    }

    fn longest(&self) -> Duration {
        self.times.iter().max().copied().unwrap_or_default()
    }
}

/// Calls `health` over a new connection each time, as any program would.
async fn keep_calling(port: u16, credential: Credential, stopped: watch::Receiver<bool>) -> Calls {
    let mut calls = Calls::default();
    while !*stopped.borrow() {
        let begun = Instant::now();
        calls.count += 1;
        match call(port, &credential).await {
            Ok(()) => calls.times.push(begun.elapsed()),
            Err(error) => calls.failed.push(format!("{error:#}")),
        }
        sleep(CALL_INTERVAL).await;
    }
    calls
}

async fn call(port: u16, credential: &Credential) -> anyhow::Result<()> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let url = format!("ws://127.0.0.1:{port}");
    let login = Login { url: &url, name: "demo", credential, scopes: READ, device: None };
    let deadline = tokio::time::Instant::now() + STEP_LIMIT;
    let gateway = Gateway::log_in(stream, login, deadline).await?;
    gateway.call("health", None, STEP_LIMIT).await?;
    gateway.close().await;
    Ok(())
}

/// Two ports that are free now; whoever takes one first makes the demo fail with its own message.
fn free_ports() -> anyhow::Result<[u16; 2]> {
    let first = std::net::TcpListener::bind("127.0.0.1:0")?;
    let second = std::net::TcpListener::bind("127.0.0.1:0")?;
    Ok([first.local_addr()?.port(), second.local_addr()?.port()])
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
