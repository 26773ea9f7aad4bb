//! `openclaw gateway install`, `uninstall`, `start`, `stop` and `restart`: the gateway as a service.

use std::{
    path::PathBuf,
    process::{Command, ExitCode},
    time::Duration,
};

use anyhow::Context as _;
use nix::unistd::User;
use serde_json::{Value, json};

use super::{
    Context,
    gateway_neighbours::{in_the_foreground, refuse_beside_another},
    installed::{Place, Whose, settled},
    launchd,
    output::Tone,
    systemd::{self, Systemd, Unit},
};
use crate::{
    config::{Handed, OpenClaw, port_variable},
    gateway::{self, Flags, Machine, Settings},
    problem::{Class, Problem},
    secret::Secret,
    service::{self, Manager, Owner, Part, Service, Work},
};

/// How long a start may take: a database is looked through, a port comes free.
const START: Duration = Duration::from_secs(60);

/// Arguments of `gateway install`.
#[derive(Debug, clap::Args)]
pub(super) struct Install {
    #[command(flatten)]
    whose: Whose,
    /// The port that the service listens on (also OPENCLAW_GATEWAY_PORT, gateway.port, or the profile's)
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Have systemd hand this file to the service as the token; it stays where it is
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The same as the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Start it again even if nothing has changed
    #[arg(long)]
    force: bool,
}

/// Arguments of `gateway uninstall`, `start`, `stop` and `restart`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    whose: Whose,
    /// Accepted for OpenClaw's sake
    #[arg(long, hide = true)]
    force: bool,
}

/// What is done to a service that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Start,
    Stop,
    Restart,
}

impl Verb {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
        }
    }
}

/// Installs the service, starts it and waits until it is ready.
pub(super) async fn install(context: &Context, arguments: Install) -> anyhow::Result<ExitCode> {
    let place = Place::find(context, &arguments.whose, Part::Gateway, "install")?;
    let credentials = credentials(&arguments)?;
    let port = checked(context, &place, arguments.port, &credentials)?;
    let work = Work::Gateway { port, credentials };
    let service = place.running(work, place.paths.state.clone())?;
    if cfg!(target_os = "macos") {
        return launchd::install(context, &service, &place).await;
    }
    let systemd = Systemd(place.manager);
    let version = systemd.version().await.map_err(|problem| without_systemd(problem, &place))?;
    let text = service::unit(&service, version)
        .map_err(|why| Problem::new(Class::Config, why).fix("move it to a plainer path"))?;
    let before = systemd.unit(&place.unit).await?;
    refuse_beside_another(&place, port, before.pid)?;
    make_folder(&place)?;
    let written = place.write(&text)?;
    let spinner = context.output.spinner();
    spinner.stage("waiting for the gateway");
    systemd.systemctl(&["daemon-reload"]).await?;
    systemd.systemctl(&["enable", "--quiet", &place.unit]).await?;
    if written.is_new || arguments.force || before.active != "active" {
        systemd.systemctl(&["restart", "--no-block", &place.unit]).await?;
    }
    let unit = up(&place, &service, before.restarts).await?;
    drop(spinner);
    let logout = systemd::logout(&place.user).await;
    if context.output.is_json() {
        let mut report = report(&place, "install", "installed", Some(&unit), Some(port));
        merge(&mut report, json!({"path": place.file, "lingers": logout.lingers}));
        context.output.value(&report)?;
        return Ok(ExitCode::SUCCESS);
    }
    let active = context.output.paint(Tone::Good, &unit.active);
    context.output.line(format!("{}: {active}, {}", place.unit, unit.status));
    context.output.line(format!("  written to {}", place.file.display()));
    for line in logout.told(place.manager, &place.user) {
        context.output.line(format!("  {line}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Ends the service and removes exactly what `install` wrote; what the gateway keeps stays.
pub(super) async fn uninstall(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let place = Place::find(context, &arguments.whose, Part::Gateway, "uninstall")?;
    let is_there = match place.owner()? {
        Some(Owner::Ours) => true,
        Some(owner @ (Owner::Edited | Owner::Foreign)) => return Err(place.not_ours(owner).into()),
        None => false,
    };
    if cfg!(target_os = "macos") {
        launchd::uninstall(&place).await?;
    } else if is_there {
        let systemd = Systemd(place.manager);
        systemd.version().await?;
        systemd.systemctl(&["disable", "--quiet", "--now", &place.unit]).await?;
        place.remove()?;
        systemd.systemctl(&["daemon-reload"]).await?;
        // Only a unit that failed has something to be forgotten.
        let _nothing = systemd.systemctl(&["reset-failed", &place.unit]).await;
    }
    let drop_ins = PathBuf::from(format!("{}.d", place.file.display()));
    if drop_ins.is_dir() {
        context.output.note(format!("note: {} is yours and was left", drop_ins.display()));
    }
    if context.output.is_json() {
        let result = if is_there { "uninstalled" } else { "not-loaded" };
        let mut report = report(&place, "uninstall", result, None, None);
        merge(&mut report, json!({"path": place.file, "removed": is_there}));
        context.output.value(&report)?;
    } else if is_there {
        context.output.line(format!("{}: stopped and removed", place.unit));
    } else {
        context.output.line(format!("{}: was not installed", place.unit));
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts, stops or restarts the service.
pub(super) async fn control(
    context: &Context,
    verb: Verb,
    arguments: Arguments,
) -> anyhow::Result<ExitCode> {
    let place = Place::find(context, &arguments.whose, Part::Gateway, verb.word())?;
    if place.owner()? == Some(Owner::Foreign) {
        return Err(place.not_ours(Owner::Foreign).into());
    }
    let (result, unit) = if cfg!(target_os = "macos") {
        (launchd::control(&place, verb).await?, None)
    } else {
        by_systemd(&place, verb).await?
    };
    if context.output.is_json() {
        let port = installed_port(&place);
        context.output.value(&report(&place, verb.word(), result, unit.as_ref(), port))?;
        return Ok(ExitCode::SUCCESS);
    }
    let how = unit.filter(|unit| !unit.status.is_empty() && verb != Verb::Stop);
    let how = how.map(|unit| format!(": {}", unit.status)).unwrap_or_default();
    let text = match result {
        "not-loaded" => "was not running".to_owned(),
        "already-running" => format!("runs already{how}"),
        word => format!("{word}{how}"),
    };
    context.output.line(format!("{} {text}", place.unit));
    Ok(ExitCode::SUCCESS)
}

/// What was done, in OpenClaw's word, and how the unit is then.
async fn by_systemd(place: &Place, verb: Verb) -> Result<(&'static str, Option<Unit>), Problem> {
    let systemd = Systemd(place.manager);
    let is_installed = place.owner()?.is_some();
    let unit = match systemd.version().await {
        Ok(_) => systemd.unit(&place.unit).await?,
        // Where there is no service manager, a gateway can still run in the foreground.
        Err(_) if !is_installed => Unit::default(),
        Err(problem) => return Err(problem),
    };
    let is_up = matches!(unit.active.as_str(), "active" | "activating" | "reloading");
    if !is_up && let Some(runner) = gateway::running(&place.paths) {
        return Err(in_the_foreground(&runner, verb));
    }
    match verb {
        Verb::Stop if !is_up => return Ok(("not-loaded", None)),
        Verb::Stop => {
            systemd.systemctl(&["stop", &place.unit]).await?;
            return Ok(("stopped", Some(systemd.unit(&place.unit).await?)));
        }
        Verb::Start | Verb::Restart if !is_installed => return Err(not_installed(place)),
        Verb::Start if unit.active == "active" => return Ok(("already-running", Some(unit))),
        Verb::Start | Verb::Restart => {}
    }
    systemd.systemctl(&[verb.word(), "--no-block", &place.unit]).await?;
    let port = installed_port(place).unwrap_or_default();
    let service = place.running(Work::Gateway { port, credentials: Vec::new() }, PathBuf::new())?;
    let unit = up(place, &service, unit.restarts).await?;
    Ok((if verb == Verb::Start { "started" } else { "restarted" }, Some(unit)))
}

/// Waits until the unit is up; an error with the reason if it does not come up.
async fn up(place: &Place, service: &Service, restarts: u32) -> Result<Unit, Problem> {
    let systemd = Systemd(place.manager);
    let (unit, is_looping) = settled(systemd, &place.unit, restarts, START).await?;
    if unit.active == "active" {
        return Ok(unit);
    }
    let why = systemd.why(&place.unit).await.unwrap_or_else(|| unit.status.clone());
    let again = if is_looping { ", and is started again and again" } else { "" };
    let class = match unit.code {
        2 | 78 => Class::Config,
        6 => Class::PortInUse,
        3 => Class::Unreachable,
        _ => Class::Internal,
    };
    let scope = if place.manager == Manager::User { "--user " } else { "" };
    let profile = service.profile.iter().map(|name| format!(" --profile {name}"));
    Err(Problem::new(
        class,
        format!("{} is installed and ended with code {}{again}: {why}", place.unit, unit.code),
    )
    .fix(format!(
        "see journalctl {scope}-u {}; mend it, then: openclaw{} gateway restart",
        place.unit,
        profile.collect::<String>()
    )))
}

/// The port that the service of these settings will have. Everything that would keep it from starting
/// is said now.
fn checked(
    context: &Context,
    place: &Place,
    port: Option<u16>,
    credentials: &[(&'static str, PathBuf)],
) -> Result<u16, Problem> {
    let said = std::env::var("OPENCLAW_GATEWAY_PORT").ok().filter(|text| !text.is_empty());
    let port = match (port, said) {
        (Some(port), _) => Some(port),
        (None, Some(text)) => Some(port_variable(&text).ok_or_else(|| {
            Problem::new(Class::Config, format!("OPENCLAW_GATEWAY_PORT is no port: {text:?}"))
                .fix("--port PORT")
        })?),
        (None, None) => None,
    };
    for name in ["OPENCLAW_GATEWAY_TOKEN", "OPENCLAW_GATEWAY_PASSWORD"] {
        if std::env::var_os(name).is_some_and(|value| !value.is_empty()) {
            context.output.note(format!(
                "note: {name} of this shell does not reach the service; --token-file or \
                 --password-file does, or: openclaw config set gateway.auth"
            ));
        }
    }
    let config = OpenClaw::load(&place.paths)?;
    // What is in the files may be anybody's; that there is something decides here.
    let handed = |name: &str| {
        let kind = match name {
            "OPENCLAW_GATEWAY_TOKEN" => Handed::GatewayToken,
            "OPENCLAW_GATEWAY_PASSWORD" => Handed::GatewayPassword,
            _ => return None,
        };
        let is_handed = credentials.iter().any(|(given, _)| *given == kind.name());
        is_handed.then(|| "handed over".to_owned())
    };
    let flags = Flags { port, ..Flags::default() };
    Settings::decide(&flags, handed, &config, place.paths.clone(), &Machine::look())
        .map(|settings| settings.port)
}

fn credentials(arguments: &Install) -> Result<Vec<(&'static str, PathBuf)>, Problem> {
    let files = [
        (Handed::GatewayToken, &arguments.token_file),
        (Handed::GatewayPassword, &arguments.password_file),
    ];
    let mut found = Vec::new();
    for (kind, file) in files {
        let Some(file) = file else { continue };
        let read = std::path::absolute(file)
            .and_then(|path| Ok((std::fs::read_to_string(&path)?, path)))
            .map_err(|error| {
                Problem::new(Class::Usage, format!("cannot read {}: {error}", file.display()))
                    .fix(format!("ls -l {}", file.display()))
            });
        let (text, path) = read?;
        if Secret::new(text).expose().trim().is_empty() {
            return Err(Problem::new(Class::Usage, format!("{} is empty", file.display()))
                .fix("openssl rand -base64 32 >FILE; chmod 600 FILE"));
        }
        found.push((kind.name(), path));
    }
    Ok(found)
}

fn not_installed(place: &Place) -> Problem {
    let profile = place.paths.profile.iter().map(|name| format!(" --profile {name}"));
    let scope = if place.manager == Manager::System { " --system" } else { "" };
    Problem::new(Class::Config, format!("the gateway is not installed ({})", place.unit))
        .fix(format!("openclaw{} gateway install{scope}", profile.collect::<String>()))
}

fn without_systemd(problem: Problem, place: &Place) -> Problem {
    match place.manager {
        Manager::User => problem.fix(
            "log in as this user (not by su or sudo), or: openclaw gateway install --system; where \
             there is no systemd, run `openclaw gateway run` under what there is",
        ),
        Manager::System => {
            problem.fix("where there is no systemd, run `openclaw gateway run` under what there is")
        }
    }
}

/// Makes the folder that the unit may write to, as the user who owns it.
fn make_folder(place: &Place) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    let folder = place.paths.own();
    if folder.is_dir() {
        return Ok(());
    }
    if place.manager == Manager::User {
        return Ok(crate::config::file::make_folder(&folder)?);
    }
    // Not by root: the way there may lead through links of that user.
    let user = User::from_uid(place.owner).ok().flatten().context("finding the user")?;
    let mut make = Command::new("mkdir");
    make.args(["-m", "700", "-p"]).arg(&place.paths.state).arg(&folder);
    make.uid(user.uid.as_raw()).gid(user.gid.as_raw()).current_dir("/");
    let made = make.output().context("making the state directory")?;
    if !made.status.success() {
        let said = String::from_utf8_lossy(&made.stderr).trim().to_owned();
        let shown = folder.display();
        return Err(Problem::new(
            Class::Config,
            format!("{} cannot make {shown}: {said}", user.name),
        )
        .fix(format!("ls -ld {}", place.paths.state.display()))
        .into());
    }
    Ok(())
}

/// The port in the unit that is there.
pub(super) fn installed_port(place: &Place) -> Option<u16> {
    port_in(&installed_command(place)?)
}

/// The command of the unit that is there.
pub(super) fn installed_command(place: &Place) -> Option<Vec<String>> {
    service::command_of(&std::fs::read_to_string(&place.file).ok()?)
}

fn port_in(words: &[String]) -> Option<u16> {
    let at = words.iter().position(|word| word == "--port")?;
    words.get(at + 1)?.parse().ok()
}

/// OpenClaw's shape of what was done, and our own fields.
fn report(
    place: &Place,
    action: &str,
    result: &str,
    unit: Option<&Unit>,
    port: Option<u16>,
) -> Value {
    json!({
        "ok": true, "action": action, "result": result,
        "service": {
            "label": if cfg!(target_os = "macos") { "LaunchAgent" } else { "systemd" },
            "loaded": action != "uninstall" && place.file.exists(),
            "loadedText": "enabled", "notLoadedText": "disabled",
        },
        "unit": place.unit,
        "scope": match place.manager { Manager::User => "user", Manager::System => "system" },
        "user": place.user,
        "active": unit.map(|unit| &unit.active), "status": unit.map(|unit| &unit.status),
        "pid": unit.map(|unit| unit.pid).filter(|pid| *pid != 0), "port": port,
    })
}

fn merge(to: &mut Value, more: Value) {
    if let (Value::Object(to), Value::Object(more)) = (to, more) {
        to.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_the_command_of_a_unit() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(port_in(&words("openclaw gateway run --port 7")), Some(7));
        assert_eq!(port_in(&words("openclaw gateway run --port")), None);
        assert_eq!(port_in(&words("openclaw gateway run")), None);
    }
}
