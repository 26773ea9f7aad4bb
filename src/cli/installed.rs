//! A service of ours as the machine has it: where its file is, whose it is, and how it comes up.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{Uid, User, geteuid};
use tokio::time::{Instant, sleep};

use super::{
    Context,
    systemd::{self, Systemd, Unit},
};
use crate::{
    config::Paths,
    problem::{Class, Problem},
    service::{self, Manager, Owner, Part, Service, Starter, Work},
};

/// Variables that say where our files are, and stay in the service.
const KEPT: [&str; 2] = ["OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH"];
/// Between two looks at a unit that starts.
const LOOK: Duration = Duration::from_millis(200);

/// Whose service it is.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Whose {
    /// A service of the machine, from boot on, rather than of your logins (as root)
    #[arg(long)]
    pub(super) system: bool,
    /// The user as whom it runs, with --system; under sudo the one who called it
    #[arg(long, value_name = "USER", requires = "system")]
    pub(super) user: Option<String>,
}

/// Everything about one service.
pub(super) struct Place {
    pub(super) part: Part,
    pub(super) manager: Manager,
    pub(super) starter: Starter,
    pub(super) user: String,
    pub(super) owner: Uid,
    pub(super) paths: Paths,
    pub(super) unit: String,
    pub(super) file: PathBuf,
}

/// A unit that was written.
pub(super) struct Written {
    /// Whether it differs from what was there.
    pub(super) is_new: bool,
    /// The text of the one that was there.
    pub(super) former: Option<String>,
}

impl Place {
    /// The place of the service of `part` that `whose` and the profile mean; `verb` is the command.
    pub(super) fn find(
        context: &Context,
        whose: &Whose,
        part: Part,
        verb: &str,
    ) -> Result<Self, Problem> {
        let profile = context.globals.profile.as_deref();
        let caller = std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty());
        if !whose.system {
            return Self::of_user(context, caller, part, verb);
        }
        let name = whose.user.clone().or(caller).unwrap_or_else(|| "root".to_owned());
        if !geteuid().is_root() {
            let user = whose.user.clone().or_else(|| own_user().map(|user| user.name));
            let user = user.unwrap_or(name);
            return Err(Problem::new(Class::Usage, "--system wants root")
                .fix(format!("sudo {} --system --user {user}", line_of(profile, part, verb))));
        }
        Self::of_machine(profile, part, &name)
    }

    /// The same for whoever only looks: without the right to write it, under sudo as well.
    pub(super) fn looked_at(context: &Context, whose: &Whose, part: Part) -> Result<Self, Problem> {
        match &whose.user {
            Some(name) => Self::of_machine(context.globals.profile.as_deref(), part, name),
            None => Self::of_user(context, None, part, "status"),
        }
    }

    fn of_machine(profile: Option<&str>, part: Part, name: &str) -> Result<Self, Problem> {
        let user = User::from_name(name).ok().flatten().ok_or_else(|| {
            Problem::new(Class::Usage, format!("there is no user `{}`", name.escape_debug()))
                .fix("name one with --user")
        })?;
        let paths = Paths::of_user(profile, &user.dir)?;
        let starter = Starter::System { user: user.name.clone() };
        let unit = service::unit_name(part, &starter, paths.profile.as_deref());
        let file = Path::new("/etc/systemd/system").join(&unit);
        let (manager, owner) = (Manager::System, user.uid);
        Ok(Self { part, manager, starter, user: user.name, owner, paths, unit, file })
    }

    fn of_user(
        context: &Context,
        caller: Option<String>,
        part: Part,
        verb: &str,
    ) -> Result<Self, Problem> {
        if let Some(caller) = caller.filter(|_| geteuid().is_root()) {
            return Err(Problem::new(Class::Usage, "under sudo this would be a service of root")
                .fix(format!(
                    "without sudo for your own, or: sudo {} --system --user {caller}",
                    line_of(context.globals.profile.as_deref(), part, verb)
                )));
        }
        let user = own_user()
            .ok_or_else(|| Problem::new(Class::Config, "this user has no name").fix("id -un"))?;
        let paths = context.paths.clone();
        let unit = service::unit_name(part, &Starter::User, paths.profile.as_deref());
        let home = std::env::var_os("HOME").map_or_else(|| user.dir.clone(), PathBuf::from);
        let file = if cfg!(target_os = "macos") {
            let label = service::label(part, paths.profile.as_deref());
            home.join("Library/LaunchAgents").join(format!("{label}.plist"))
        } else {
            let folder = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
            let folder = folder.filter(|folder| folder.is_absolute());
            folder.unwrap_or_else(|| home.join(".config")).join("systemd/user").join(&unit)
        };
        let (manager, starter, owner) = (Manager::User, Starter::User, user.uid);
        Ok(Self { part, manager, starter, user: user.name, owner, paths, unit, file })
    }

    /// A service of this program that does `work` and writes to `own` alone.
    pub(super) fn running(&self, work: Work, own: PathBuf) -> Result<Service, Problem> {
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
            work,
            environment: environment.collect(),
            own,
            manager: self.starter.clone(),
        })
    }

    /// Whose the file is, if it is there.
    pub(super) fn owner(&self) -> Result<Option<Owner>, Problem> {
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
    pub(super) fn write(&self, text: &str) -> Result<Written, Problem> {
        let old = match self.owner()? {
            Some(owner @ (Owner::Edited | Owner::Foreign)) => return Err(self.not_ours(owner)),
            Some(Owner::Ours) => std::fs::read_to_string(&self.file).ok(),
            None => None,
        };
        let is_new = old.as_deref() != Some(text);
        if is_new {
            systemd::write(&self.file, text)?;
        }
        Ok(Written { is_new, former: old })
    }

    /// Removes the unit, and the folders of units if they are empty then.
    pub(super) fn remove(&self) -> Result<(), Problem> {
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

    pub(super) fn not_ours(&self, owner: Owner) -> Problem {
        let (path, words) = (self.file.display(), Systemd(self.manager).words());
        let why = match owner {
            Owner::Edited => "was changed since it was installed, and is not touched",
            Owner::Ours | Owner::Foreign => "was not written by us, and is not touched",
        };
        Problem::new(Class::Config, format!("{path} {why}")).fix(format!(
            "keep your changes in a drop-in ({words} edit {unit}); to be rid of it: \
             {words} disable --now {unit}; rm {path}",
            unit = self.unit
        ))
    }
}

/// Waits until the unit is active, has given up, or was started again more than `restarts` times;
/// whether it was the last.
pub(super) async fn settled(
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

/// The unit of systemd that a process belongs to, and whether a user's manager runs it.
pub(super) fn unit_in(cgroup: &str) -> Option<(&str, Manager)> {
    let path = cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    let (_, unit) = path.rsplit_once('/')?;
    let is_user = path.contains("/user@");
    unit.ends_with(".service")
        .then_some((unit, if is_user { Manager::User } else { Manager::System }))
}

/// What to type for a profile.
fn line_of(profile: Option<&str>, part: Part, verb: &str) -> String {
    let profile = profile.map(|name| format!(" --profile {name}")).unwrap_or_default();
    format!("openclaw{profile} {} {verb}", part.group())
}

/// The user of this process, by the user database.
pub(super) fn own_user() -> Option<User> {
    User::from_uid(geteuid()).ok().flatten()
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
        assert_eq!(line_of(None, Part::Remotes, "install"), "openclaw remote install");
        let line = "openclaw --profile work remote uninstall";
        assert_eq!(line_of(Some("work"), Part::Remotes, "uninstall"), line);
    }
}
