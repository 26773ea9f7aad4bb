//! `openclaw remote install` and `uninstall`: the supervisor as a service of systemd or launchd.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use nix::unistd::geteuid;
use serde_json::json;

use super::{
    Context, ask,
    installed::{Place, Whose, settled, unit_in},
    launchd,
    output::Tone,
    systemd::{self, Systemd, Unit},
};
use crate::{
    config::{Kind, Remotes, check_name},
    control,
    problem::{Class, Problem},
    service::{self, Kept, Logout, Manager, Owner, Part, Service, Work},
};

/// Arguments of `remote install`.
#[derive(Debug, clap::Args)]
pub(super) struct Install {
    /// Keep this one remote; every remote that is wanted otherwise
    pub(super) name: Option<String>,
    #[command(flatten)]
    whose: Whose,
    /// How long to wait for a live path, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
}

/// Arguments of `remote uninstall`.
#[derive(Debug, clap::Args)]
pub(super) struct Uninstall {
    #[command(flatten)]
    whose: Whose,
}

/// Installs the service, starts it and waits until it is live.
pub(super) async fn install(context: &Context, arguments: Install) -> anyhow::Result<ExitCode> {
    let place = Place::find(context, &arguments.whose, Part::Remotes, "install")?;
    let service = place.service(arguments.name)?;
    if cfg!(target_os = "macos") {
        return launchd::install(context, &service, &place).await;
    }
    let spinner = context.output.spinner();
    spinner.stage("asking systemd");
    let systemd = Systemd(place.manager);
    let version = systemd.version().await?;
    let text = service::unit(&service, version)
        .map_err(|why| Problem::new(Class::Config, why).fix("move it to a plainer path"))?;
    let unit = place.unit.as_str();
    let before = systemd.unit(unit).await?;
    place.refuse_beside_another(before.pid).await?;
    let written = place.write(&text)?;
    let former = written.former.as_deref().and_then(service::kept);
    if let Some(former) = former.and_then(|former| left(&former, &service)) {
        context.output.note(format!("note: until now {unit} kept {former}; it does not any more"));
    }
    systemd.systemctl(&["daemon-reload"]).await?;
    systemd.systemctl(&["enable", "--quiet", unit]).await?;
    // One that waits for a remote is at work for the others.
    let is_at_work = matches!(before.active.as_str(), "active" | "activating" | "reloading");
    if written.is_new || !is_at_work {
        systemd.systemctl(&["restart", "--no-block", unit]).await?;
    }
    spinner.stage("waiting for a live path");
    let limit = Duration::from_secs(arguments.timeout);
    let (outcome, is_looping) = settled(systemd, unit, before.restarts, limit).await?;
    drop(spinner);
    let logout = systemd::logout(&place.user).await;
    if outcome.active != "active" {
        return Err(place.why_not(systemd, &outcome, is_looping).await.into());
    }
    place.report(context, &outcome, logout)?;
    Ok(ExitCode::SUCCESS)
}

/// Ends the service and removes exactly what `install` wrote.
pub(super) async fn uninstall(context: &Context, arguments: Uninstall) -> anyhow::Result<ExitCode> {
    let place = Place::find(context, &arguments.whose, Part::Remotes, "uninstall")?;
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
        context.output.value(&json!({
            "ok": true, "unit": place.unit, "path": place.file, "removed": is_there,
        }))?;
    } else if is_there {
        context.output.line(format!("{}: stopped and removed", place.unit));
    } else {
        context.output.line(format!("{}: was not installed", place.unit));
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks once, after a `remote connect` on a terminal, whether the path shall be kept by a service.
/// The path works, so whatever goes wrong here is said and no more.
pub(super) async fn offer(context: &Context) {
    if let Err(error) = try_offer(context).await {
        context.output.note(format!("note: {error:#}; later: openclaw remote install"));
    }
}

async fn try_offer(context: &Context) -> anyhow::Result<()> {
    let is_watched = io::stdin().is_terminal() && io::stderr().is_terminal();
    if !is_watched || context.output.is_json() || !ask::is_possible() {
        return Ok(());
    }
    let whose = Whose { system: false, user: None };
    let Ok(place) = Place::find(context, &whose, Part::Remotes, "install") else { return Ok(()) };
    if place.owner()?.is_some() || !has_user_manager() {
        return Ok(());
    }
    // Another service keeps it already.
    if place.refuse_beside_another(0).await.is_err() {
        return Ok(());
    }
    let is_asked = Remotes::update(&context.paths, |remotes| {
        Ok(std::mem::replace(&mut remotes.service_offered, true))
    })?;
    if is_asked {
        return Ok(());
    }
    let logout = systemd::logout(&place.user).await;
    if let Some(why) = logout.background() {
        context.output.note(why);
    }
    let text = "Keep it up as a service of yours, after a restart as well? [y/N] ";
    let yes = match tokio::task::spawn_blocking(move || ask::yes(text, false)).await? {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
        answer => answer?,
    };
    if yes {
        let timeout = 30;
        install(context, Install { name: None, whose, timeout }).await?;
    } else {
        context.output.note("not asked again; later: openclaw remote install");
    }
    Ok(())
}

/// Whether a service manager of this user runs.
fn has_user_manager() -> bool {
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).unwrap_or_default();
    cfg!(target_os = "macos") || folder.join("systemd/private").exists()
}

/// What a unit kept and the new one does not.
fn left(former: &Kept, service: &Service) -> Option<String> {
    let (Work::Remote(now) | Work::Exposed(now)) = &service.work else { return None };
    match former {
        Kept::All => Some("every remote that is wanted".to_owned()),
        Kept::One(name) => (name != now).then(|| format!("`{name}`")),
    }
}

impl Place {
    /// What the service runs.
    fn service(&self, name: Option<String>) -> Result<Service, Problem> {
        let remotes = Remotes::load_of(&self.paths, self.owner)?;
        let work = match name {
            Some(name) => {
                check_name(&name)?;
                match remotes.named(&name)?.kind {
                    Kind::Exposed => Work::Exposed(name),
                    _ => Work::Remote(name),
                }
            }
            None if remotes.remotes.is_empty() => {
                let as_whom = if self.owner == geteuid() { "" } else { "as that user: " };
                return Err(Problem::new(Class::Usage, format!("{} has no remote yet", self.user))
                    .fix(format!("{as_whom}openclaw remote connect user@host")));
            }
            None => Work::Remotes,
        };
        self.running(work, self.paths.own())
    }

    /// Two in the foreground give way to each other for ever; `own` is the process of our unit.
    async fn refuse_beside_another(&self, own: u32) -> Result<(), Problem> {
        let greeting = control::met(&self.paths.endpoint(), self.owner).await;
        let Some(other) = greeting.filter(|it| it.foreground && it.pid != own) else {
            return Ok(());
        };
        let pid = other.pid;
        let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let (who, fix) = match unit_in(&cgroup) {
            Some((unit, manager)) => {
                let sudo = if manager == Manager::System { "sudo " } else { "" };
                let words = Systemd(manager).words();
                (format!("{unit} (pid {pid})"), format!("{sudo}{words} disable --now {unit}"))
            }
            None => (format!("process {pid}"), format!("kill {pid}")),
        };
        let what = format!("{who} supervises this profile in the foreground already");
        Err(Problem::new(Class::Config, what)
            .fix(format!("leave it at that, or end it first: {fix}; or use another --profile")))
    }

    /// Why the service is not up.
    async fn why_not(&self, systemd: Systemd, unit: &Unit, is_looping: bool) -> Problem {
        let logs = match self.manager {
            Manager::User => format!("journalctl --user -u {}", self.unit),
            Manager::System => format!("journalctl -u {}", self.unit),
        };
        if is_looping || unit.active == "failed" || unit.active == "inactive" {
            let why = systemd.why(&self.unit).await.unwrap_or_else(|| unit.status.clone());
            let (class, code) = (class_of(unit.code), unit.code);
            let again = if is_looping { ", and is started again and again" } else { "" };
            let message =
                format!("{} is installed and has ended with code {code}{again}: {why}", self.unit);
            return Problem::new(class, message).fix(format!(
                "see {logs}; mend it, then: {} restart {}",
                systemd.words(),
                self.unit
            ));
        }
        // Of another user's supervisor only the service manager may ask.
        let statuses = match self.manager {
            Manager::User => control::statuses(&self.paths.endpoint(), None).await,
            Manager::System => Ok(Vec::new()),
        };
        let told = statuses.unwrap_or_default().into_iter().find_map(|status| {
            serde_json::from_value::<Problem>(status.get("failure")?.clone()).ok()
        });
        let status = if unit.status.is_empty() { "it says nothing yet" } else { &unit.status };
        let message = format!("{} is installed and runs, and is not live yet: {status}", self.unit);
        match (told, blocked_class(&unit.status)) {
            (Some(told), _) => Problem { message: format!("{message}: {}", told.message), ..told },
            (None, Some(class)) => Problem::new(class, message)
                .fix(format!("as {}: openclaw remote status; and {logs}", self.user)),
            (None, None) => Problem::new(Class::Unreachable, message)
                .fix(format!("it goes on trying; see openclaw remote status, and {logs}")),
        }
    }

    fn report(&self, context: &Context, unit: &Unit, logout: Logout) -> anyhow::Result<()> {
        if context.output.is_json() {
            return context.output.value(&json!({
                "ok": true, "unit": self.unit, "path": self.file,
                "scope": match self.manager { Manager::User => "user", Manager::System => "system" },
                "user": self.user, "active": unit.active, "status": unit.status,
                "lingers": logout.lingers, "killUserProcesses": logout.kills,
            }));
        }
        let active = context.output.paint(Tone::Good, &unit.active);
        context.output.line(format!("{}: {active}, {}", self.unit, unit.status));
        context.output.line(format!("  written to {}", self.file.display()));
        for line in logout.told(self.manager, &self.user) {
            context.output.line(format!("  {line}"));
        }
        Ok(())
    }
}

/// The class in the status of a supervisor whose remotes all wait for a person.
fn blocked_class(status: &str) -> Option<Class> {
    let (_, class) = status.split_once(" (")?;
    serde_json::from_value(class.split(';').next()?.into()).ok()
}

/// The class of a service's exit code.
fn class_of(code: u8) -> Class {
    match code {
        3 => Class::Unreachable,
        4 => Class::SshAuth,
        5 => Class::HostKey,
        6 => Class::PortInUse,
        7 => Class::GatewayDown,
        9 => Class::ForwardRefused,
        2 | 78 => Class::Config,
        _ => Class::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_supervisor_says_of_itself() {
        let blocked = "vps: blocked (ssh_auth; see: openclaw remote status vps)";
        assert_eq!(blocked_class(blocked), Some(Class::SshAuth));
        assert_eq!(blocked_class("vps: waiting"), None);
        assert_eq!(blocked_class(""), None);
    }
}
