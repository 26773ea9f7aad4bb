//! The real [`World`]: this machine's files, accounts, programs and names. Every call may block.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read as _},
    net::{IpAddr, SocketAddr},
    os::unix::{
        fs::MetadataExt as _,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use dns_lookup::AddrInfoHints;
use nix::{
    ifaddrs::getifaddrs,
    libc::AI_CANONNAME,
    net::if_::InterfaceFlags,
    sys::signal::{Signal, killpg},
    unistd::{Pid, Uid, User, gethostname},
};

use super::world::{EXEC_TIMEOUT, Found, Source, World};
use crate::config::Family;

/// The longest file that is read.
const LONGEST_FILE: u64 = 4 * 1024 * 1024;
/// The shell of `Match exec` where `SHELL` names none.
const SHELL: &str = "/bin/sh";
/// The one device that people name as a file: `-F /dev/null` reads nothing.
const NOTHING: &str = "/dev/null";

/// This machine as one process sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    /// Variables that another process has, or has not, in place of ours.
    variables: BTreeMap<String, Option<String>>,
}

impl Machine {
    /// The same machine where `name` is `value`, or not set.
    #[must_use]
    pub(crate) fn with_variable(mut self, name: &str, value: Option<String>) -> Self {
        self.variables.insert(name.to_owned(), value);
        self
    }
}

impl World for Machine {
    fn read(&self, path: &Path) -> Result<Option<Source>, String> {
        match read(path) {
            Ok(source) => Ok(Some(source)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }

    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, String> {
        // In the shell's patterns two stars are one.
        let mut pattern = pattern.to_owned();
        while pattern.contains("**") {
            pattern = pattern.replace("**", "*");
        }
        let options = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: true,
        };
        let paths = glob::glob_with(&pattern, options).map_err(|error| error.to_string())?;
        Ok(paths.filter_map(Result::ok).collect())
    }

    fn variable(&self, name: &str) -> Option<String> {
        match self.variables.get(name) {
            Some(value) => value.clone(),
            None if name.is_empty() || name.contains(['=', '\0']) => None,
            None => std::env::var(name).ok(),
        }
    }

    fn succeeds(&self, command: &str) -> Result<Option<bool>, String> {
        let shell = self.variable("SHELL").filter(|shell| !shell.is_empty());
        let child = Command::new(shell.as_deref().unwrap_or(SHELL))
            .arg("-c")
            .arg(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| error.to_string())?;
        within(child, EXEC_TIMEOUT)
    }

    fn addresses(&self) -> Vec<IpAddr> {
        let Ok(interfaces) = getifaddrs() else { return Vec::new() };
        interfaces
            .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
            .filter_map(|interface| {
                let address = interface.address?;
                let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
                v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
            })
            .collect()
    }

    fn look_up(&self, name: &str, family: Family) -> Option<Found> {
        let hints = AddrInfoHints { flags: AI_CANONNAME, ..AddrInfoHints::default() };
        let is_wanted = |address: &SocketAddr| match family {
            Family::Any => true,
            Family::V4 => address.is_ipv4(),
            Family::V6 => address.is_ipv6(),
        };
        let answers = dns_lookup::getaddrinfo(Some(name), None, Some(hints)).ok()?;
        let answers: Vec<_> = answers.filter_map(Result::ok).collect();
        let canonical = answers.iter().find_map(|answer| answer.canonname.clone());
        let is_known = answers.iter().any(|answer| is_wanted(&answer.sockaddr));
        is_known.then_some(Found { canonical })
    }

    fn local_host(&self) -> String {
        gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
    }

    fn home(&self, user: Option<&str>) -> Option<PathBuf> {
        let entry = match user {
            Some(name) => User::from_name(name),
            None => User::from_uid(Uid::current()),
        };
        entry.ok().flatten().map(|user| user.dir)
    }

    fn user(&self) -> String {
        let entry = User::from_uid(Uid::current()).ok().flatten();
        entry.map_or_else(|| self.uid().to_string(), |user| user.name)
    }

    fn uid(&self) -> u32 {
        Uid::current().as_raw()
    }
}

/// What stands in the opened file, and whose it is; a directory and `/dev/null` hold nothing.
fn read(path: &Path) -> io::Result<Source> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() && !metadata.is_dir() && path != Path::new(NOTHING) {
        return Err(io::Error::other("it is neither a file nor a folder"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut bytes = Vec::new();
    if metadata.is_file() {
        (&file).take(LONGEST_FILE + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(io::Error::other(format!("it is longer than {LONGEST_FILE} bytes")));
    }
    Ok(Source { bytes, owner: metadata.uid(), mode: metadata.mode() })
}

/// Whether `child` ends with status 0; one that takes too long is killed with all it started.
fn within(mut child: Child, limit: Duration) -> Result<Option<bool>, String> {
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    let (ended, end) = mpsc::channel();
    let waiter = thread::spawn(move || ended.send(child.wait()));
    let status = end.recv_timeout(limit);
    if status.is_err()
        && let Ok(group) = group
    {
        // It may have ended a moment ago, which is as good.
        killpg(group, Signal::SIGKILL).ok();
        waiter.join().ok();
    }
    match status {
        Ok(Ok(status)) if status.signal().is_none() => Ok(Some(status.success())),
        Ok(Ok(_)) => Err("it was killed".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn files_come_with_their_owner_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, "Port 1\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        let machine = Machine::default();
        let source = machine.read(&file).unwrap().unwrap();
        assert_eq!((source.bytes.as_slice(), source.mode & 0o7777), (&b"Port 1\n"[..], 0o640));
        assert_eq!(source.owner, machine.uid());
        assert_eq!(machine.read(&folder.path().join("none")), Ok(None));
        assert!(machine.read(folder.path()).unwrap().unwrap().bytes.is_empty());
        assert!(machine.read(Path::new("/dev/zero")).is_err());
        assert!(machine.read(Path::new(NOTHING)).unwrap().unwrap().bytes.is_empty());
        fs::write(&file, vec![b' '; LONGEST_FILE as usize + 1]).unwrap();
        assert!(machine.read(&file).is_err_and(|why| why.contains("longer")));
    }

    #[test]
    fn wildcards_find_what_a_shell_finds() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b.conf", "a.conf", ".hidden.conf", "c.other"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = |pattern: &str| -> Vec<String> {
            let pattern = format!("{}/{pattern}", folder.path().display());
            let paths = Machine::default().glob(&pattern).unwrap();
            let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            paths.into_iter().map(name).collect()
        };
        assert_eq!(found("*.conf"), ["a.conf", "b.conf"]);
        assert_eq!(found("**.conf"), ["a.conf", "b.conf"]);
        assert_eq!(found("[bc].*"), ["b.conf", "c.other"]);
        assert_eq!(found("c.other"), ["c.other"]);
        assert!(found("none").is_empty());
    }

    #[test]
    fn commands_answer_and_those_that_hang_are_killed_with_all_they_started() {
        let machine = Machine::default();
        assert_eq!(machine.succeeds("exit 0"), Ok(Some(true)));
        assert_eq!(machine.succeeds("echo loud; exit 3"), Ok(Some(false)));
        assert!(machine.succeeds("kill -9 $$").is_err());
        let shell = machine.with_variable("SHELL", Some("/none".into()));
        assert!(shell.succeeds("exit 0").is_err());

        let mut child = Command::new("/bin/sh")
            .args(["-c", "sleep 600 & wait"])
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        assert_eq!(within(child, Duration::from_millis(50)), Ok(None));
        // The pipe ends once nobody of them is left.
        let (ended, end) = mpsc::channel();
        thread::spawn(move || ended.send(output.read_to_end(&mut Vec::new()).is_ok()));
        assert_eq!(end.recv_timeout(Duration::from_secs(30)), Ok(true), "something still runs");
    }

    #[test]
    fn variables_of_another_process_replace_ours() {
        let machine = Machine::default().with_variable("PATH", None);
        assert_eq!(machine.variable("PATH"), None);
        assert_eq!(
            machine.with_variable("PATH", Some("x".into())).variable("PATH").as_deref(),
            Some("x")
        );
        assert_eq!(Machine::default().variable("A=B"), None);
    }

    #[test]
    fn the_machine_knows_itself() {
        let machine = Machine::default();
        assert!(machine.addresses().iter().any(IpAddr::is_loopback));
        assert!(machine.look_up("localhost", Family::Any).is_some());
        assert_eq!(machine.look_up("no-such-host.invalid", Family::Any), None);
        assert!(machine.home(Some("root")).is_some());
        assert_eq!(machine.home(Some("nobody has this name")), None);
        assert!(!machine.user().is_empty() && !machine.local_host().is_empty());
    }
}
