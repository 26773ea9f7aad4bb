//! Talks to systemd by its own commands, each with a deadline.

use std::{
    collections::HashMap, io::Write, os::unix::fs::PermissionsExt, path::Path, time::Duration,
};

use tokio::{process::Command, time::timeout};

use crate::{
    problem::{Class, Problem},
    service::{Logout, Manager},
};

/// How long one of systemd's commands may take; stopping a service is the longest.
const LIMIT: Duration = Duration::from_secs(30);
/// Lines of the journal that are looked through for the reason.
const JOURNAL_LINES: &str = "30";

/// One of the service managers of this machine.
#[derive(Debug, Clone, Copy)]
pub(super) struct Systemd(pub(super) Manager);

/// How a unit is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Unit {
    /// `active`, `activating`, `failed`, `inactive`, …
    pub(super) active: String,
    /// What it last said of itself.
    pub(super) status: String,
    /// The exit code of its last process.
    pub(super) code: u8,
    /// How often it has been started again.
    pub(super) restarts: u32,
    /// Its process; 0 if none runs.
    pub(super) pid: u32,
    /// Whether systemd has something to do with it still: a start, a stop.
    pub(super) has_job: bool,
}

impl Systemd {
    /// The words that choose this manager, for people.
    pub(super) fn words(self) -> &'static str {
        match self.0 {
            Manager::User => "systemctl --user",
            Manager::System => "systemctl",
        }
    }

    /// Its version, if it answers.
    pub(super) async fn version(self) -> Result<u32, Problem> {
        let answer = self.systemctl(&["show", "-p", "Version", "--value"]).await;
        let text = answer.map_err(|problem| self.absent(&problem.message))?;
        // `252.39-1~deb12u1`, and on other systems `257 (257.5-2)` or `v254`.
        let digits = text.trim_start_matches(|c: char| !c.is_ascii_digit());
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        let version = digits.get(..end).and_then(|number| number.parse().ok());
        version.ok_or_else(|| self.absent("it does not say its version"))
    }

    fn absent(self, why: &str) -> Problem {
        let (whose, fix) = match self.0 {
            Manager::User => (
                "the service manager of this user",
                "log in as this user (not by su or sudo), or: openclaw remote install --system",
            ),
            Manager::System => (
                "the machine's service manager",
                "where there is no systemd, run `openclaw remote connect --foreground --batch NAME` \
                 under what there is",
            ),
        };
        Problem::new(Class::Config, format!("{whose} does not answer: {why}")).fix(fix)
    }

    /// Runs `systemctl` and returns what it printed.
    pub(super) async fn systemctl(self, words: &[&str]) -> Result<String, Problem> {
        run("systemctl", self.0, words).await
    }

    /// How a unit is.
    pub(super) async fn unit(self, name: &str) -> Result<Unit, Problem> {
        let wanted = "ActiveState,StatusText,ExecMainStatus,NRestarts,MainPID,Job";
        Ok(parsed(&self.systemctl(&["show", "-p", wanted, name]).await?))
    }

    /// The last line of its log that says why, or the last one at all.
    pub(super) async fn why(self, name: &str) -> Option<String> {
        let which = if matches!(self.0, Manager::User) { "--user-unit" } else { "--unit" };
        let words = [which, name, "-n", JOURNAL_LINES, "-o", "cat", "--no-pager", "-q"];
        let text = run("journalctl", Manager::System, &words).await.ok()?;
        let own = text.lines().rev().find_map(|line| line.strip_prefix("openclaw: "));
        own.or(text.lines().rev().find(|line| !line.trim().is_empty())).map(str::to_owned)
    }
}

/// What logind says of a user; what it does not say is not known.
pub(super) async fn logout(user: &str) -> Logout {
    let words = ["show-user", user, "-p", "Linger", "--value"];
    let lingers = match run("loginctl", Manager::System, &words).await {
        Ok(text) => flag(text.trim()),
        // Of somebody who is neither logged in nor lingers logind knows nothing.
        Err(_) => Some(Path::new("/var/lib/systemd/linger").join(user).exists()),
    };
    let manager = "org.freedesktop.login1";
    let words = [
        "--system",
        "get-property",
        manager,
        "/org/freedesktop/login1",
        "org.freedesktop.login1.Manager",
        "KillUserProcesses",
    ];
    let kills = run("busctl", Manager::System, &words).await.ok();
    Logout { lingers, kills: kills.and_then(|text| flag(text.trim().strip_prefix("b ")?)) }
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "yes" | "true" => Some(true),
        "no" | "false" => Some(false),
        _ => None,
    }
}

fn parsed(text: &str) -> Unit {
    let fields: HashMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once('=')).collect();
    let field = |name| fields.get(name).copied().unwrap_or_default();
    Unit {
        active: field("ActiveState").to_owned(),
        status: field("StatusText").to_owned(),
        code: field("ExecMainStatus").parse().unwrap_or(0),
        restarts: field("NRestarts").parse().unwrap_or(0),
        pid: field("MainPID").parse().unwrap_or(0),
        has_job: !matches!(field("Job"), "" | "0"),
    }
}

async fn run(program: &str, manager: Manager, words: &[&str]) -> Result<String, Problem> {
    let mut command = Command::new(program);
    if matches!(manager, Manager::User) {
        command.arg("--user");
    }
    command.args(words).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let line = format!("{program} {}", words.join(" "));
    let failed = |why: String| Problem::new(Class::Config, format!("{line}: {why}"));
    let output = match timeout(LIMIT, command.output()).await {
        Ok(Ok(output)) => output,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(_) => return Err(failed(format!("no end within {} s", LIMIT.as_secs()))),
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(failed(if said.is_empty() { output.status.to_string() } else { said }));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Writes a file that everybody may read, whole or not at all, and the folders above it.
pub(super) fn write(path: &Path, text: &str) -> Result<(), Problem> {
    let write = || {
        let folder = path.parent().unwrap_or(Path::new("/"));
        std::fs::create_dir_all(folder)?;
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        std::fs::File::open(folder)?.sync_all()
    };
    write().map_err(|error: std::io::Error| {
        Problem::new(Class::Config, format!("cannot write {}: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_systemctl_shows() {
        let unit = parsed(
            "ActiveState=failed\nStatusText=ended: a=b\nExecMainStatus=78\nNRestarts=2\nMainPID=7\nJob=12\nX\n",
        );
        let expected = Unit {
            active: "failed".into(),
            status: "ended: a=b".into(),
            code: 78,
            restarts: 2,
            pid: 7,
            has_job: true,
        };
        assert_eq!(unit, expected);
        assert!(!parsed("Job=0\n").has_job && !parsed("Job=\n").has_job);
        assert_eq!(parsed(""), Unit::default());
    }
}
