//! `openclaw remote`: list, look at and change the remotes; `connect` has a file of its own.

use std::{process::ExitCode, time::Duration};

use serde_json::{Value, json};

use super::{
    Context, check, connect, expose, logs, order,
    output::Tone,
    phrases::{bytes, places, span},
    remote_install, watch,
};
use crate::{
    config::{Kind, OpenClaw, Paths, Remotes, check_name, leads_nowhere},
    control::{self, Connection, Request, Start},
    logfile::Writer,
    problem::{Class, Problem},
    supervisor,
};

/// The gateway on this machine, as `remote use` calls it.
pub(super) const LOCAL: &str = "local";

/// Arguments of `remote`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Bring a remote up, save it and make it the default
    Connect(Box<order::Arguments>),
    /// Publish this machine's gateway on the loopback of a jump host, for machines that reach that
    ///
    /// For a gateway behind NAT: the jump host listens on a port of its own loopback, and what comes
    /// there is led back here. The other machines connect to the jump host with that port; the
    /// command that they type is printed. Kept up like every remote; no command of this machine goes
    /// there.
    Expose(Box<expose::Arguments>),
    /// Try every step of a connect, and say what came of it; keeps nothing
    ///
    /// Takes the options of `remote connect` and goes the same way, in one connection a hop. Opens no
    /// local port, starts nothing, and saves nothing but a host key that you accept.
    Check(Box<check::Arguments>),
    /// Show how the remotes are
    Status {
        #[command(flatten)]
        named: Named,
        /// Go on showing it, live on a terminal; elsewhere, and with --json, at each change
        #[arg(short, long)]
        watch: bool,
    },
    /// List the remotes
    List,
    /// Choose the remote that commands mean, or `local`
    Use {
        /// Its name, or `local`
        name: String,
    },
    /// Give a remote another name
    Rename {
        /// Its name so far
        name: String,
        /// Its name from now on
        to: String,
    },
    /// Take a remote down and keep its definition
    Disconnect(Named),
    /// Take a remote down and forget it with its saved secret
    Remove {
        /// Its name
        name: String,
    },
    /// Keep the remotes up as a service of systemd or launchd
    ///
    /// Writes a unit of the user's service manager, or with --system of the machine's, starts it
    /// and waits until the path is live. Says what a logout does to it. `uninstall` removes
    /// exactly what was written.
    Install(remote_install::Install),
    /// End that service, and remove what was installed
    Uninstall(remote_install::Uninstall),
    /// Tell what happened: why a remote was out of reach, since when, and how it came back
    ///
    /// In the time of this machine. The history survives restarts of the supervisor and of the machine.
    Logs(logs::Arguments),
}

impl Arguments {
    /// Whether this process is to be the supervisor.
    pub(super) fn is_foreground(&self) -> bool {
        matches!(&self.command, Command::Connect(arguments) if arguments.foreground)
            || matches!(&self.command, Command::Expose(arguments) if arguments.foreground)
    }
}

/// A remote, or the default one.
#[derive(Debug, clap::Args)]
struct Named {
    /// Its name
    name: Option<String>,
}

/// Runs one of the `remote` commands.
pub(super) fn run(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Connect(arguments) => {
                return Box::pin(connect::run(context, *arguments)).await;
            }
            Command::Expose(arguments) => return expose::run(context, *arguments).await,
            Command::Check(arguments) => return check::run(context, *arguments).await,
            Command::Install(arguments) => {
                return remote_install::install(context, arguments).await;
            }
            Command::Uninstall(arguments) => {
                return remote_install::uninstall(context, arguments).await;
            }
            Command::Status { named, watch: true } => {
                return watch::run(context, named.name.as_deref()).await;
            }
            Command::Status { named, watch: false } => status(context, named.name).await?,
            Command::List => list(context).await?,
            Command::Use { name } => choose(context, &name)?,
            Command::Rename { name, to } => {
                Remotes::load(&context.paths)?.named(&name)?;
                check_name(&to).map_err(|problem| {
                    problem.fix(format!("openclaw remote rename {name} ANOTHER"))
                })?;
                change(context, Request::Rename { name, to: to.clone() }).await?;
                report(context, &to, "renamed")?;
            }
            Command::Disconnect(named) => {
                let name = named_or_default(&context.paths, named.name)?;
                disconnect(context, &name).await?;
                report(context, &name, "disconnected")?;
            }
            Command::Remove { name } => {
                let port = Remotes::load(&context.paths)?.named(&name)?.local_port;
                change(context, Request::Remove { name: name.clone() }).await?;
                report(context, &name, "removed")?;
                warn_of_config(context, &name, port);
            }
            Command::Logs(arguments) => logs::run(context, &arguments).await?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// The remote meant: the one named, or the default one.
pub(super) fn named_or_default(paths: &Paths, name: Option<String>) -> Result<String, Problem> {
    match name {
        Some(name) => Ok(name),
        None => Remotes::load(paths)?.default.filter(|name| name != LOCAL).ok_or_else(|| {
            Problem::new(Class::Usage, "no remote is named, and there is no default one")
                .fix("openclaw remote list")
        }),
    }
}

/// Has the supervisor change something.
async fn change(context: &Context, request: Request) -> Result<(), Problem> {
    let mut connection = control::started(&context.paths.endpoint()).await?;
    connection.request(request).await?;
    connection.done().await
}

/// Without a supervisor there is only the wish to take back.
async fn disconnect(context: &Context, name: &str) -> Result<(), Problem> {
    if Connection::dial(&context.paths.endpoint(), Start::Never).await?.is_some() {
        return change(context, Request::Disconnect { name: name.to_owned() }).await;
    }
    Remotes::update(&context.paths, |remotes| {
        remotes.named(name)?;
        if let Some(remote) = remotes.remotes.get_mut(name) {
            remote.wanted = false;
        }
        Ok(())
    })
}

/// Says so where `openclaw.json` goes on leading to the port of a remote that is gone
/// (`remote connect --write-config`); that file belongs to its owner.
fn warn_of_config(context: &Context, name: &str, port: u16) {
    let Ok(config) = OpenClaw::load(&context.paths) else { return };
    let remote = &config.gateway.remote;
    let led = remote.url.as_deref().is_some_and(|url| {
        ["ws", "wss"].iter().any(|scheme| url == format!("{scheme}://127.0.0.1:{port}"))
    });
    if led {
        let secret = match remote.token.is_some() || remote.password.is_some() {
            true => ", and holds its secret",
            false => "",
        };
        context.output.note(format!(
            "note: {} still leads to `{name}`{secret}\n  try: openclaw config unset gateway.remote, \
             and openclaw config set gateway.mode local where a gateway is to run here",
            context.paths.config.display()
        ));
    }
}

fn report(context: &Context, name: &str, done: &str) -> anyhow::Result<()> {
    if context.output.is_json() {
        return context.output.value(&json!({"ok": true, "name": name}));
    }
    context.output.line(format!("{name}: {done}"));
    Ok(())
}

/// The status objects; the supervisor is started if a remote is wanted and none runs.
async fn statuses(paths: &Paths, name: Option<&str>) -> Result<Vec<Value>, Problem> {
    let saved = Remotes::load(paths)?;
    let endpoint = paths.endpoint();
    let start = match saved.remotes.values().any(|remote| remote.wanted) {
        true => Start::IfNeeded,
        false => Start::Never,
    };
    if let Some(mut connection) = Connection::dial(&endpoint, start).await? {
        connection.request(Request::Status { name: name.map(str::to_owned) }).await?;
        return connection.statuses().await;
    }
    at_rest(paths, name)
}

/// The status objects where no supervisor runs.
pub(super) fn at_rest(paths: &Paths, name: Option<&str>) -> Result<Vec<Value>, Problem> {
    let saved = Remotes::load(paths)?;
    if let Some(name) = name {
        let definition = saved.named_or_configured(paths, name)?;
        return Ok(vec![supervisor::resting(name, &definition, &saved)]);
    }
    let all = saved.remotes.iter();
    Ok(all.map(|(name, remote)| supervisor::resting(name, remote, &saved)).collect())
}

async fn status(context: &Context, name: Option<String>) -> anyhow::Result<()> {
    let remotes = statuses(&context.paths, name.as_deref()).await?;
    if context.output.is_json() {
        return context.output.value(&remotes);
    }
    if remotes.is_empty() {
        context.output.line("no remotes yet; openclaw remote connect user@host makes the first");
    }
    for remote in &remotes {
        for line in describe(context, remote) {
            context.output.line(line);
        }
    }
    Ok(())
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let remotes = statuses(&context.paths, None).await?;
    if context.output.is_json() {
        return context.output.value(&remotes);
    }
    if remotes.is_empty() {
        context.output.line("no remotes yet; openclaw remote connect user@host makes the first");
    }
    let width = remotes.iter().map(|remote| text(remote, "/name").len()).max().unwrap_or(0);
    for remote in &remotes {
        let mark = if remote.pointer("/default") == Some(&json!(true)) { "*" } else { " " };
        let phase = format!("{:<13}", text(remote, "/phase"));
        context.output.line(format!(
            "{mark} {:<width$}  {} {}  {}",
            text(remote, "/name"),
            context.output.paint(tone(&text(remote, "/phase")), &phase),
            way(remote),
            text(remote, "/target"),
        ));
    }
    Ok(())
}

/// Where a remote leads, in a word.
fn way(remote: &Value) -> String {
    if text(remote, "/kind") == "exposed" {
        let port = number(remote, "/remotePort");
        return format!("published at port {port} of");
    }
    text(remote, "/localUrl")
}

/// What a person wants to know of one remote.
pub(super) fn describe(context: &Context, remote: &Value) -> Vec<String> {
    let phase = text(remote, "/phase");
    let painted = context.output.paint(tone(&phase), &phase.replace('_', " "));
    let default = if remote.pointer("/default") == Some(&json!(true)) { " (default)" } else { "" };
    let mut lines = vec![format!("{}{default}: {painted}", text(remote, "/name"))];
    let mut add = |label: &str, value: String| {
        if !value.is_empty() {
            lines.push(format!("  {label:<9} {value}"));
        }
    };
    let hops = remote.pointer("/via").and_then(Value::as_array).cloned().unwrap_or_default();
    let hops: Vec<_> = hops.iter().filter_map(Value::as_str).collect();
    let via = if hops.is_empty() { String::new() } else { format!(" via {}", hops.join(", ")) };
    add("target", format!("{}{via}", text(remote, "/target")));
    if text(remote, "/kind") == "exposed" {
        let (here, there) = (number(remote, "/localPort"), number(remote, "/remotePort"));
        let there = if there == 0 { "a port".to_owned() } else { format!("127.0.0.1:{there}") };
        add("published", format!("{there} over there, the gateway on port {here} here"));
        add("others", text(remote, "/othersType"));
    } else {
        add("local", text(remote, "/localUrl"));
    }
    add("TLS", text(remote, "/tlsFingerprint"));
    if let Some(proof) = remote.pointer("/proof").filter(|proof| !proof.is_null()) {
        let who =
            if text(proof, "/kind") == "gateway" { "gateway answered" } else { "SSH answered" };
        let age = Duration::from_millis(number(proof, "/ageMs"));
        add("proof", format!("{who} {} ago in {} ms", span(age), text(proof, "/rttMs")));
    }
    if remote.pointer("/lowPower") == Some(&json!(true)) {
        add("power", "low: asked for signs of life every 30 s while idle".to_owned());
    }
    if let (hold @ 1.., most) = (number(remote, "/holdSeconds"), number(remote, "/heldMost"))
        && (hold, most) != (30, 256)
    {
        add("waiting", format!("up to {hold} s for a path, {most} at a port"));
    }
    if let Some(most) = remote.pointer("/unreadMostMib").filter(|most| **most != json!(64)) {
        add("unread", format!("up to {most} MiB while local readers are slow"));
    }
    let version = text(remote, "/gateway/version");
    if !version.is_empty() {
        add("gateway", format!("{version}, protocol {}", text(remote, "/gateway/protocol")));
    }
    let moved = format!(
        "{} open, {} held, {} in, {} out",
        number(remote, "/streams"),
        number(remote, "/held"),
        bytes(number(remote, "/bytesIn")),
        bytes(number(remote, "/bytesOut"))
    );
    if phase != "down" {
        add("streams", moved);
    }
    for forward in remote.pointer("/forwards").and_then(Value::as_array).into_iter().flatten() {
        add("forward", forward_line(forward));
        add("try", text(forward, "/failure/fix"));
    }
    if let Some(outage) = remote.pointer("/lastOutage").filter(|outage| !outage.is_null()) {
        let back = match outage.pointer("/restoredMs").and_then(Value::as_u64) {
            Some(ms) => format!("back {} after it was noticed", span(Duration::from_millis(ms))),
            None => "not back yet".to_owned(),
        };
        add(
            "outage",
            format!("{}: {}; {back}", text(outage, "/startedAt"), text(outage, "/cause")),
        );
    }
    if phase != "live" {
        add("failure", text(remote, "/failure/message"));
        add("try", text(remote, "/failure/fix"));
    }
    lines
}

/// One forward in a line.
fn forward_line(forward: &Value) -> String {
    let is_remote = text(forward, "/kind") == "remote";
    let (from, to) = places(forward);
    let phase = text(forward, "/phase");
    let state = match (forward.pointer("/failure/message").and_then(Value::as_str), &*phase) {
        (Some(why), "live") => format!("live; {why}"),
        (Some(why), _) => why.to_owned(),
        (None, "down") if !is_remote => "opened when first used".to_owned(),
        (None, phase) => phase.replace('_', " "),
    };
    let (received, sent) = (number(forward, "/bytesIn"), number(forward, "/bytesOut"));
    let moved = if received + sent == 0 {
        String::new()
    } else {
        format!(", {} in, {} out", bytes(received), bytes(sent))
    };
    format!("{from} to {to}, {state}{moved}")
}

fn choose(context: &Context, name: &str) -> anyhow::Result<()> {
    Remotes::update(&context.paths, |remotes| {
        if name != LOCAL {
            let remote = remotes.named_or_configured(&context.paths, name)?;
            if remote.kind == Kind::Exposed {
                return Err(leads_nowhere(name));
            }
        }
        remotes.default = Some(name.to_owned());
        Ok(())
    })?;
    report(context, name, "commands mean this one from now on")
}

/// Runs the supervisor of this profile; its starter waits for one line on our standard output.
pub(super) fn supervise(context: &Context) -> anyhow::Result<ExitCode> {
    supervisor::detach();
    let outcome = prepare(context);
    // The log is written to its end when this one goes.
    let (seat, _log) = match outcome {
        Ok(Some(begun)) => begun,
        Ok(None) => {
            // Of two that start at once the other one is about to listen.
            context.output.page(&format!("{}\n", control::READY));
            return Ok(ExitCode::SUCCESS);
        }
        Err(problem) => {
            context.output.page(&format!("{}\n", serde_json::to_string(&problem)?));
            return Ok(ExitCode::from(problem.class.exit_code()));
        }
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let output = context.output.clone();
    let ready = move || {
        output.page(&format!("{}\n", control::READY));
        output.close();
    };
    let paths = context.paths.clone();
    let run = async move { supervisor::run(&paths, seat, supervisor::Scope::Wanted, ready).await };
    // In a task: this thread, which the runtime would have to wake for each event, sleeps on.
    let ended = runtime.block_on(async { tokio::spawn(run).await })?;
    if let Err(problem) = ended {
        // The starter still reads if it never got ready.
        context.output.page(&format!("{}\n", serde_json::to_string(&problem)?));
        return Ok(ExitCode::from(problem.class.exit_code()));
    }
    runtime.shutdown_timeout(Duration::from_secs(2));
    Ok(ExitCode::SUCCESS)
}

/// The seat of this profile's supervisor and who writes its log; `None` where another one sits.
fn prepare(context: &Context) -> Result<Option<(supervisor::Seat, Writer)>, Problem> {
    let supervisor::Place::Ours(seat) = supervisor::take_place(&context.paths, false)? else {
        return Ok(None);
    };
    let (lines, writer) = supervisor::begin_log(&context.paths, None)?;
    super::log_to(move || lines.clone(), context.globals.verbose);
    Ok(Some((seat, writer)))
}

/// A field as text; empty if it is missing.
fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn tone(phase: &str) -> Tone {
    match phase {
        "live" => Tone::Good,
        "down" => Tone::Quiet,
        "blocked" | "gateway_down" => Tone::Bad,
        _ => Tone::Odd,
    }
}
