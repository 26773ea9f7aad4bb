//! One gateway per host and profile: our own lock, OpenClaw's, and who holds the port.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::private;
use crate::{
    config::Paths,
    problem::{Class, Problem},
};

/// The most that a lock file is read of; OpenClaw pads its own with blanks.
const MAX_LOCK: u64 = 64 * 1024;

/// This state directory, ours until dropped.
#[derive(Debug)]
pub(super) struct Claim {
    file: File,
    path: PathBuf,
}

/// Who holds a lock, as its file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Holder {
    pid: u32,
    #[serde(default)]
    port: Option<u16>,
    /// When the process started, in the system's own count; tells a reused pid apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    start_time: Option<u64>,
}

impl Claim {
    /// Takes the state directory, or says who has it.
    pub(super) fn take(paths: &Paths) -> Result<Self, Problem> {
        if let Some(holder) = openclaw_holder(&paths.state) {
            return Err(taken("an OpenClaw gateway", &holder));
        }
        let path = paths.own().join("gateway.lock");
        private::make_folder(&paths.own())?;
        let unusable = |error: std::io::Error| {
            Problem::new(Class::Config, format!("cannot use {}: {error}", path.display()))
                .fix(format!("ls -l {}", path.display()))
                .denied(&error)
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { file, path }),
            Err(TryLockError::WouldBlock) => Err(match read_holder(&mut file) {
                Some(holder) => taken("a gateway", &holder),
                None => Problem::new(
                    Class::Config,
                    "a gateway of this profile is just starting".to_owned(),
                )
                .fix("openclaw gateway status"),
            }),
            Err(TryLockError::Error(error)) => Err(unusable(error)),
        }
    }

    /// Writes down who we are, for the next one that comes.
    pub(super) fn announce(&mut self, port: u16) -> Result<(), Problem> {
        let holder = Holder {
            pid: std::process::id(),
            port: Some(port),
            start_time: start_time(std::process::id()),
        };
        let mut write = || {
            let text = serde_json::to_string(&holder)?;
            self.file.set_len(0)?;
            self.file.rewind()?;
            self.file.write_all(text.as_bytes())
        };
        write().map_err(|error: std::io::Error| {
            Problem::new(Class::Config, format!("cannot write {}: {error}", self.path.display()))
                .denied(&error)
        })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // The file stays: removing it would let a second gateway lock a new one beside it.
        let emptied = self.file.set_len(0);
        tracing::trace!(emptied = emptied.is_ok(), "gave the state directory back");
    }
}

/// A gateway that has a state directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Runner {
    /// Its process.
    pub(crate) pid: u32,
    /// Where it listens, if it has said so.
    pub(crate) port: Option<u16>,
    /// Whether it is one of ours, and not OpenClaw's.
    pub(crate) is_ours: bool,
}

/// The gateway that has the state directory of `paths`, if one is alive; asks nobody.
pub(crate) fn running(paths: &Paths) -> Option<Runner> {
    let own = File::open(paths.own().join("gateway.lock")).ok();
    let own = own.and_then(|mut file| read_holder(&mut file)).filter(is_alive);
    let runner = |holder: Holder, is_ours| Runner { pid: holder.pid, port: holder.port, is_ours };
    own.map(|holder| runner(holder, true))
        .or_else(|| openclaw_holder(&paths.state).map(|holder| runner(holder, false)))
}

/// The problem of a port that another program has, with its name and pid where the system tells.
pub(super) fn port_taken(port: u16) -> Problem {
    let holder = listeners::get_process_by_port(port, listeners::Protocol::TCP).ok();
    let who = holder.map_or_else(
        || "another user's program".to_owned(),
        |process| format!("{} (pid {})", process.name, process.pid),
    );
    Problem::new(Class::PortInUse, format!("port {port} is taken by {who}"))
        .fix("openclaw gateway run --port PORT (another one), or stop that program")
}

fn taken(what: &str, holder: &Holder) -> Problem {
    let name = process_name(holder.pid).map(|name| format!("{name}, ")).unwrap_or_default();
    let port = holder.port.map(|port| format!(", port {port}")).unwrap_or_default();
    Problem::new(
        Class::Config,
        format!("{what} of this profile is already running: {name}pid {}{port}", holder.pid),
    )
    .fix(format!("kill {} (to stop it), or start another with --profile NAME", holder.pid))
}

/// The OpenClaw gateway that owns this state directory, if one is alive. Its files are only read.
fn openclaw_holder(state: &Path) -> Option<Holder> {
    let folder = state.join("tmp").join(format!("openclaw-{}", nix::unistd::getuid()));
    let mut file = File::open(folder.join("gateway.state.lock")).ok()?;
    read_holder(&mut file).filter(is_alive)
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(MAX_LOCK).read_to_string(&mut text).ok()?;
    serde_json::from_str(text.trim()).ok()
}

/// Whether the process that wrote the lock still runs, and is not another one with its pid.
fn is_alive(holder: &Holder) -> bool {
    match (start_time(holder.pid), holder.start_time) {
        (Some(now), Some(then)) => now == then,
        (Some(_), None) => true,
        (None, _) => {
            let exists = i32::try_from(holder.pid)
                .map(|pid| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), None));
            // Without a start time to compare, only another system's process counts as alive.
            !cfg!(target_os = "linux") && matches!(exists, Ok(Ok(())))
        }
    }
}

/// When a process started, in clock ticks since boot; Linux only.
fn start_time(pid: u32) -> Option<u64> {
    started(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The same of the text of its `stat`. One that has ended, and that nobody has waited for yet (in a
/// container perhaps for ever), has none.
fn started(stat: &str) -> Option<u64> {
    // The name in parentheses may hold blanks; the state follows it, and field 22 is the 20th.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn process_name(pid: u32) -> Option<String> {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::paths;

    #[test]
    fn the_second_claim_says_who_has_the_first() {
        let home = tempfile::tempdir().unwrap();
        let paths = paths(home.path());
        let mut first = Claim::take(&paths).unwrap();
        assert_eq!(running(&paths), None);
        first.announce(4_711).unwrap();
        let runner = Runner { pid: std::process::id(), port: Some(4_711), is_ours: true };
        assert_eq!(running(&paths), Some(runner));
        let problem = Claim::take(&paths).unwrap_err();
        let pid = std::process::id();
        assert!(problem.message.contains(&format!("pid {pid}, port 4711")), "{problem}");
        drop(first);
        assert_eq!(running(&paths), None);
        Claim::take(&paths).unwrap();
    }

    #[test]
    fn a_process_that_has_ended_counts_for_nothing_before_somebody_waits_for_it() {
        let stat = |state: &str| {
            format!("7 (a ) b) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4321 0 0")
        };
        assert_eq!(started(&stat("S")), Some(4321));
        assert_eq!((started(&stat("Z")), started(&stat("X"))), (None, None));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while start_time(pid).is_some() {
            assert!(std::time::Instant::now() < deadline, "it never ends");
            std::thread::yield_now();
        }
        assert!(Path::new(&format!("/proc/{pid}")).exists(), "nobody has waited for it");
        child.wait().unwrap();
    }

    #[test]
    fn an_openclaw_gateway_counts_only_while_it_lives_and_its_lock_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let paths = paths(home.path());
        let folder = home.path().join(format!("tmp/openclaw-{}", nix::unistd::getuid()));
        std::fs::create_dir_all(&folder).unwrap();
        let lock = folder.join("gateway.state.lock");
        let pid = std::process::id();
        let write = |start: u64| {
            let text = format!("{{\"pid\":{pid},\"port\":1,\"startTime\":{start}}}\n \t\t ");
            std::fs::write(&lock, &text).unwrap();
            text
        };
        let text = write(start_time(pid).unwrap());
        let problem = Claim::take(&paths).unwrap_err();
        assert!(problem.message.starts_with("an OpenClaw gateway"), "{problem}");
        assert_eq!(running(&paths), Some(Runner { pid, port: Some(1), is_ours: false }));
        assert_eq!(std::fs::read_to_string(&lock).unwrap(), text);
        assert!(!home.path().join("rs").exists());
        write(1);
        Claim::take(&paths).unwrap();
    }
}
