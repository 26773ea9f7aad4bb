//! `openclaw remote install` and `uninstall`: the supervisor as a service of systemd or launchd.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use nix::unistd::{Uid, User, geteuid};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    Context, ask, launchd,
    output::Tone,
    systemd::{self, Systemd, Unit},
};
use crate::{
    config::{Kind, Paths, Remotes, check_name},
    control,
    problem::{Class, Problem},
    service::{self, Kept, Logout, Manager, Owner, Service, Starter},
};

/// Variables that say where our files are, and stay in the service.
const KEPT: [&str; 2] = ["OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH"];
/// Between two looks at a unit that starts.
const LOOK: Duration = Duration::from_millis(200);

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

/// Whose service it is.
#[derive(Debug, Clone, clap::Args)]
struct Whose {
    /// A service of the machine, from boot on, rather than of your logins (as root)
    #[arg(long)]
    system: bool,
    /// The user as whom it runs, with --system; under sudo the one who called it
    #[arg(long, value_name = "USER", requires = "system")]
    user: Option<String>,
}

/// Everything about one service.
struct Place {
    manager: Manager,
    starter: Starter,
    user: String,
    owner: Uid,
    paths: Paths,
    unit: String,
    file: PathBuf,
}

/// Installs the service, starts it and waits until it is live.
pub(super) async fn install(context: &Context, arguments: Install) -> anyhow::Result<ExitCode> {
    let place = Place::find(context, &arguments.whose, "install")?;
    let service = place.service(arguments.name)?;
    if cfg!(target_os = "macos") {
        return launchd::install(context, &service, &place.file).await;
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
    let is_new = place.write(&text)?;
    if let Some(former) = is_new.former.as_ref().and_then(|former| left(former, &service)) {
        context.output.note(format!("note: until now {unit} kept {former}; it does not any more"));
    }
    systemd.systemctl(&["daemon-reload"]).await?;
    systemd.systemctl(&["enable", "--quiet", unit]).await?;
    // One that waits for a remote is at work for the others.
    let is_at_work = matches!(before.active.as_str(), "active" | "activating" | "reloading");
    if is_new.is_new || !is_at_work {
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
    let place = Place::find(context, &arguments.whose, "uninstall")?;
    let is_there = match place.owner()? {
        Some(Owner::Ours) => true,
        Some(owner @ (Owner::Edited | Owner::Foreign)) => return Err(place.not_ours(owner).into()),
        None => false,
    };
    if cfg!(target_os = "macos") {
        launchd::uninstall(&place.file, place.paths.profile.as_deref()).await?;
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
    let Ok(place) = Place::find(context, &whose, "install") else { return Ok(()) };
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

/// Waits until the unit is active, has given up, or was started again more than `restarts` times;
/// whether it was the last.
async fn settled(
    systemd: Systemd,
    name: &str,
    restarts: u32,
    limit: Duration,
) -> Result<(Unit, bool), Problem> {
    let until = Instant::now() + limit;
    let mut end = End { restarts, code: 0 };
    loop {
        let unit = systemd.unit(name).await?;
        if end.has_come(&unit) || Instant::now() >= until {
            // The next process has no code yet.
            let code = if unit.code == 0 { end.code } else { unit.code };
            let is_looping = unit.active != "active" && unit.restarts > end.restarts;
            return Ok((Unit { code, ..unit }, is_looping));
        }
        sleep(LOOK).await;
    }
}

/// What has been seen of a unit that starts.
struct End {
    /// The fewest restarts: the count begins anew when somebody starts the unit.
    restarts: u32,
    /// The last code of a process that failed.
    code: u8,
}

impl End {
    /// Whether there is nothing more to wait for.
    fn has_come(&mut self, unit: &Unit) -> bool {
        self.restarts = self.restarts.min(unit.restarts);
        if unit.code != 0 {
            self.code = unit.code;
        }
        // Before a job is done the unit is as it was before.
        let is_settled =
            !unit.has_job && matches!(unit.active.as_str(), "active" | "failed" | "inactive");
        is_settled || unit.restarts > self.restarts
    }
}

/// What a unit kept and the new one does not.
fn left(former: &Kept, service: &Service) -> Option<String> {
    let now = service.remote.as_ref()?;
    match former {
        Kept::All => Some("every remote that is wanted".to_owned()),
        Kept::One(name) => (name != now).then(|| format!("`{name}`")),
    }
}

/// A unit that was written.
struct Written {
    /// Whether it differs from what was there.
    is_new: bool,
    /// What the one that was there kept.
    former: Option<Kept>,
}

/// The unit of systemd that a process belongs to, and whether a user's manager runs it.
fn unit_in(cgroup: &str) -> Option<(&str, Manager)> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (_, unit) = path.rsplit_once('/')?;
    let is_user = path.contains("/user@");
    unit.ends_with(".service")
        .then_some((unit, if is_user { Manager::User } else { Manager::System }))
}

impl Place {
    fn find(context: &Context, whose: &Whose, verb: &str) -> Result<Self, Problem> {
        let profile = context.globals.profile.as_deref();
        let caller = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty());
        if !whose.system {
            return Self::of_user(context, caller, verb);
        }
        let name = whose.user.clone().or(caller).unwrap_or_else(|| "root".to_owned());
        if !geteuid().is_root() {
            let user = whose.user.clone().or_else(|| own_user().map(|user| user.name));
            let user = user.unwrap_or(name);
            return Err(Problem::new(Class::Usage, "--system wants root")
                .fix(format!("sudo {} --system --user {user}", line_of(profile, verb))));
        }
        let user = User::from_name(&name).ok().flatten().ok_or_else(|| {
            Problem::new(Class::Usage, format!("there is no user `{}`", name.escape_debug()))
                .fix("name one with --user")
        })?;
        let paths = Paths::of_user(profile, &user.dir)?;
        let starter = Starter::System { user: user.name.clone() };
        let unit = service::unit_name(&starter, paths.profile.as_deref());
        let file = Path::new("/etc/systemd/system").join(&unit);
        let (manager, owner) = (Manager::System, user.uid);
        Ok(Self { manager, starter, user: user.name, owner, paths, unit, file })
    }

    fn of_user(context: &Context, caller: Option<String>, verb: &str) -> Result<Self, Problem> {
        if let Some(caller) = caller.filter(|_| geteuid().is_root()) {
            return Err(Problem::new(Class::Usage, "under sudo this would be a service of root")
                .fix(format!(
                    "without sudo for your own, or: sudo {} --system --user {caller}",
                    line_of(context.globals.profile.as_deref(), verb)
                )));
        }
        let user = own_user()
            .ok_or_else(|| Problem::new(Class::Config, "this user has no name").fix("id -un"))?;
        let paths = context.paths.clone();
        let unit = service::unit_name(&Starter::User, paths.profile.as_deref());
        let home = std::env::var_os("HOME").map_or_else(|| user.dir.clone(), PathBuf::from);
        let file = if cfg!(target_os = "macos") {
            let label = service::label(paths.profile.as_deref());
            home.join("Library/LaunchAgents").join(format!("{label}.plist"))
        } else {
            let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
            let folder = folder.filter(|folder| folder.is_absolute());
            folder.unwrap_or_else(|| home.join(".config")).join("systemd/user").join(&unit)
        };
        let (manager, starter, owner) = (Manager::User, Starter::User, user.uid);
        Ok(Self { manager, starter, user: user.name, owner, paths, unit, file })
    }

    /// What the service runs.
    fn service(&self, name: Option<String>) -> Result<Service, Problem> {
        let remotes = Remotes::load_of(&self.paths, self.owner)?;
        let mut is_exposed = false;
        match &name {
            Some(name) => {
                check_name(name)?;
                is_exposed = remotes.named(name)?.kind == Kind::Exposed;
            }
            None if remotes.remotes.is_empty() => {
                return Err(Problem::new(Class::Usage, format!("{} has no remote yet", self.user))
                    .fix("as that user: openclaw remote connect user@host"));
            }
            None => {}
        }
        let program = std::env::current_exe().map_err(|error| {
            Problem::new(Class::Internal, format!("finding our own program: {error}"))
        })?;
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let environment = KEPT.iter().filter_map(|name| {
            let path = std::path::absolute(set(name)?).ok()?;
            Some(((*name).to_owned(), path))
        });
        Ok(Service {
            program,
            profile: self.paths.profile.clone(),
            remote: name,
            is_exposed,
            environment: environment.collect(),
            own: self.paths.own(),
            manager: self.starter.clone(),
        })
    }

    /// Whose the file is, if it is there.
    fn owner(&self) -> Result<Option<Owner>, Problem> {
        match std::fs::read(&self.file) {
            Ok(bytes) => Ok(Some(service::judge(&String::from_utf8_lossy(&bytes)))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let shown = self.file.display();
                Err(Problem::new(Class::Config, format!("cannot read {shown}: {error}"))
                    .fix(format!("ls -l {shown}")))
            }
        }
    }

    /// Writes the unit, if it is not there already, word for word.
    fn write(&self, text: &str) -> Result<Written, Problem> {
        let old = match self.owner()? {
            Some(owner @ (Owner::Edited | Owner::Foreign)) => return Err(self.not_ours(owner)),
            Some(Owner::Ours) => std::fs::read_to_string(&self.file).ok(),
            None => None,
        };
        let is_new = old.as_deref() != Some(text);
        if is_new {
            systemd::write(&self.file, text)?;
        }
        Ok(Written { is_new, former: old.as_deref().and_then(service::kept) })
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

    /// Removes the unit, and the folders of units if they are empty then.
    fn remove(&self) -> Result<(), Problem> {
        std::fs::remove_file(&self.file).map_err(|error| {
            Problem::new(Class::Config, format!("cannot remove {}: {error}", self.file.display()))
        })?;
        if self.manager == Manager::User {
            for folder in self.file.ancestors().skip(1).take(2) {
                // What holds anything else stays.
                let _kept = std::fs::remove_dir(folder);
            }
        }
        Ok(())
    }

    fn not_ours(&self, owner: Owner) -> Problem {
        let (path, words) = (self.file.display(), Systemd(self.manager).words());
        let why = match owner {
            Owner::Edited => "was changed since it was installed, and is not touched",
            Owner::Ours | Owner::Foreign => {
                "was not written by `remote install`, and is not touched"
            }
        };
        Problem::new(Class::Config, format!("{path} {why}")).fix(format!(
            "keep your changes in a drop-in ({words} edit {unit}); to be rid of it: \
             {words} disable --now {unit}; rm {path}",
            unit = self.unit
        ))
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

/// What to type for a profile.
fn line_of(profile: Option<&str>, verb: &str) -> String {
    let profile = profile.map(|name| format!(" --profile {name}")).unwrap_or_default();
    format!("openclaw{profile} remote {verb}")
}

/// The user of this process, by the user database.
fn own_user() -> Option<User> {
    User::from_uid(geteuid()).ok().flatten()
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

    fn unit(active: &str, restarts: u32, has_job: bool) -> Unit {
        Unit { active: active.to_owned(), restarts, has_job, ..Unit::default() }
    }

    #[test]
    fn a_unit_that_waits_for_its_job_has_not_ended() {
        let mut end = End { restarts: 0, code: 0 };
        for active in ["inactive", "failed", "active"] {
            assert!(!end.has_come(&unit(active, 0, true)), "{active}");
            assert!(end.has_come(&unit(active, 0, false)), "{active}");
        }
        assert!(!end.has_come(&unit("activating", 0, false)));
    }

    #[test]
    fn a_unit_that_fails_and_is_started_again_has_ended() {
        let mut end = End { restarts: 5, code: 0 };
        assert!(!end.has_come(&unit("activating", 5, true)));
        // Started by us, it counts anew.
        assert!(!end.has_come(&Unit { code: 6, ..unit("activating", 0, false) }));
        assert!(end.has_come(&unit("activating", 1, true)));
        assert_eq!(end.code, 6);
    }

    #[test]
    fn finds_the_unit_of_a_process() {
        let user = "0::/user.slice/user-7.slice/user@7.service/app.slice/a.service\n";
        assert_eq!(unit_in(user), Some(("a.service", Manager::User)));
        assert_eq!(unit_in("0::/system.slice/b.service\n"), Some(("b.service", Manager::System)));
        assert_eq!(unit_in("0::/user.slice/user-7.slice/session-3.scope\n"), None);
        assert_eq!(unit_in(""), None);
    }

    #[test]
    fn says_what_to_type_with_the_profile() {
        assert_eq!(line_of(None, "install"), "openclaw remote install");
        let line = "openclaw --profile work remote uninstall";
        assert_eq!(line_of(Some("work"), "uninstall"), line);
    }

    #[test]
    fn reads_what_a_supervisor_says_of_itself() {
        let blocked = "vps: blocked (ssh_auth; see: openclaw remote status vps)";
        assert_eq!(blocked_class(blocked), Some(Class::SshAuth));
        assert_eq!(blocked_class("vps: waiting"), None);
        assert_eq!(blocked_class(""), None);
    }
}
