//! A real OpenSSH server on loopback, with fresh keys.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::{
    sys::signal::Signal,
    unistd::{Pid, User, geteuid},
};
use tempfile::TempDir;

use super::{
    net::{free_port, wait_until},
    peers,
    processes::{descendants, is_running, signal},
    program::{Program, guarded, run_to_end},
};

/// The user that runs the tests and so may log in.
pub(crate) fn user() -> String {
    User::from_uid(geteuid()).ok().flatten().expect("the user of this process").name
}

/// An OpenSSH server; its listener and its sessions end with it.
pub(crate) struct Sshd {
    folder: TempDir,
    port: u16,
    listener: Option<Program>,
}

impl Sshd {
    /// Starts a server that lets the current user in with [`Sshd::key`]; `lines` of sshd_config
    /// come before ours, so they win.
    pub(crate) fn start(lines: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("sshd-").tempdir().expect("making a folder");
        let mut sshd = Self { folder, port: free_port(), listener: None };
        sshd.make_key("host_key", "");
        sshd.make_key("client_key", "");
        sshd.allow("client_key");
        fs::write(sshd.known_hosts(), sshd.known_hosts_line(sshd.port)).expect("known_hosts");
        fs::write(sshd.path("sshd_config"), sshd.config(lines)).expect("writing sshd_config");
        sshd.restart();
        sshd
    }

    /// The port it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// A private key that opens it.
    pub(crate) fn key(&self) -> PathBuf {
        self.path("client_key")
    }

    /// A known_hosts file with its host key under 127.0.0.1 and its port.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.path("known_hosts")
    }

    /// `user@127.0.0.1`.
    pub(crate) fn target(&self) -> String {
        format!("{}@127.0.0.1", user())
    }

    /// The SHA256 fingerprint of its host key.
    pub(crate) fn fingerprint(&self) -> String {
        self.fingerprint_of("host_key.pub")
    }

    /// The SHA256 fingerprint of [`Sshd::key`].
    pub(crate) fn client_fingerprint(&self) -> String {
        self.fingerprint_of("client_key.pub")
    }

    fn fingerprint_of(&self, name: &str) -> String {
        let mut command = Command::new("ssh-keygen");
        command.arg("-lf").arg(self.path(name));
        let output = run_to_end(command, Duration::from_secs(10));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace().nth(1).expect("a fingerprint").to_owned()
    }

    /// Makes a key with a passphrase that opens it as well.
    pub(crate) fn encrypted_key(&self, passphrase: &str) -> PathBuf {
        self.make_key("encrypted_key", passphrase);
        self.allow("encrypted_key");
        self.path("encrypted_key")
    }

    /// Makes a key that does not open it.
    pub(crate) fn stranger_key(&self) -> PathBuf {
        self.make_key("stranger_key", "");
        self.path("stranger_key")
    }

    /// Lets the owner of another server's [`Sshd::key`] in.
    pub(crate) fn allow_key_of(&self, other: &Self) {
        let public = fs::read_to_string(other.path("client_key.pub")).expect("a public key");
        self.allow_line(&public);
    }

    /// Takes all keys back: from now on nobody is let in.
    pub(crate) fn allow_nobody(&self) {
        fs::write(self.path("authorized_keys"), "").expect("authorized_keys");
    }

    /// The block of an ssh configuration file that leads to it as `name`, with its own key and known
    /// hosts.
    pub(crate) fn block(&self, name: &str) -> String {
        format!(
            "Host {name}\n  HostName 127.0.0.1\n  Port {}\n  User {}\n  IdentityFile {}\n  \
             IdentitiesOnly yes\n  IdentityAgent none\n  UserKnownHostsFile {}\n  \
             GlobalKnownHostsFile none\n",
            self.port,
            user(),
            self.key().display(),
            self.known_hosts().display()
        )
    }

    /// The known_hosts line for its host key, as seen through `port`.
    pub(crate) fn known_hosts_line(&self, port: u16) -> String {
        self.known_hosts_line_at("127.0.0.1", port)
    }

    /// The same for another address or name of it.
    pub(crate) fn known_hosts_line_at(&self, host: &str, port: u16) -> String {
        let public = fs::read_to_string(self.path("host_key.pub")).expect("a public key");
        let mut fields = public.split_whitespace();
        let (kind, key) = (fields.next().expect("a kind"), fields.next().expect("a key"));
        format!("[{host}]:{port} {kind} {key}\n")
    }

    /// Adds a line to the known_hosts file.
    pub(crate) fn know(&self, line: &str) {
        let known = fs::read_to_string(self.known_hosts()).expect("known_hosts");
        fs::write(self.known_hosts(), known + line).expect("known_hosts");
    }

    /// Gives the server another host key; known_hosts keeps the old one.
    pub(crate) fn change_host_key(&mut self) {
        self.stop();
        fs::remove_file(self.path("host_key")).expect("removing the host key");
        self.make_key("host_key", "");
        self.restart();
    }

    /// The processes of the sessions.
    pub(crate) fn session_pids(&self) -> Vec<Pid> {
        self.listener.as_ref().map_or_else(Vec::new, |it| sessions_of(it.pid()))
    }

    /// Kills the processes of the sessions, not the listener; returns how many there were.
    pub(crate) fn kill_sessions(&self) -> usize {
        self.session_pids().iter().filter(|pid| signal(**pid, Signal::SIGKILL)).count()
    }

    /// How many processes serve sessions; a login has one or two.
    pub(crate) fn sessions(&self) -> usize {
        self.listener.as_ref().map_or(0, |it| sessions_of(it.pid()).len())
    }

    /// Ends listener and sessions.
    pub(crate) fn stop(&mut self) {
        if let Some(listener) = self.listener.take() {
            // Stopped, it starts no further session. Sessions have process groups of their own, and
            // a young one still holds the listening socket.
            signal(listener.pid(), Signal::SIGSTOP);
            ends("the listener", listener.pid());
            for pid in sessions_of(listener.pid()) {
                signal(pid, Signal::SIGKILL);
                ends("a session", pid);
            }
        }
    }

    /// Starts the listener (again) at the same port, and waits until it listens.
    pub(crate) fn restart(&mut self) {
        self.stop();
        // sshd insists on this folder where it separates privileges.
        drop(fs::create_dir_all("/run/sshd"));
        let mut command = guarded(peers::sshd().expect("an OpenSSH server"));
        command.args(["-D", "-e", "-f"]).arg(self.path("sshd_config"));
        let mut listener = Program::start("sshd", command);
        if !listener.prints("Server listening on", Duration::from_secs(20)) {
            listener.fail("does not listen");
        }
        self.listener = Some(listener);
    }

    /// What it has logged since it was started.
    pub(crate) fn log(&self) -> String {
        self.listener.as_ref().map(Program::log).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn make_key(&self, name: &str, passphrase: &str) {
        let mut command = Command::new("ssh-keygen");
        command.args(["-q", "-t", "ed25519", "-C", "test", "-N", passphrase, "-f"]);
        let output = run_to_end_of_keygen(command, &self.path(name));
        assert!(output.status.success(), "ssh-keygen: {output:?}");
    }

    fn allow(&self, name: &str) {
        let public = fs::read_to_string(self.path(name).with_extension("pub"));
        self.allow_line(&public.expect("a public key"));
    }

    fn allow_line(&self, line: &str) {
        let path = self.path("authorized_keys");
        let allowed = fs::read_to_string(&path).unwrap_or_default();
        fs::write(&path, allowed + line).expect("authorized_keys");
    }

    fn config(&self, lines: &[&str]) -> String {
        let mut config = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let path = |name| self.path(name).display().to_string();
        config += &format!("Port {}\nListenAddress 127.0.0.1\n", self.port);
        config += &format!("HostKey {}\n", path("host_key"));
        config += &format!("AuthorizedKeysFile {}\n", path("authorized_keys"));
        config += "StrictModes no\nUsePAM no\nPidFile none\nMaxStartups 200\nLogLevel VERBOSE\n";
        config += "PasswordAuthentication no\nKbdInteractiveAuthentication no\n";
        config += "PermitRootLogin yes\nAllowTcpForwarding yes\n";
        if punishes() {
            // Killed sessions and refused keys are what the tests are made of.
            config += "PerSourcePenalties no\n";
        }
        config
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Waits until a process runs no more; its parent has been stopped and cannot bury it.
fn ends(what: &str, pid: Pid) {
    wait_until(&format!("{what} ends"), Duration::from_secs(5), || {
        (!is_running(pid)).then_some(())
    });
}

/// The processes below a listener; its guard has not become an sshd and is none of them.
fn sessions_of(listener: Pid) -> Vec<Pid> {
    let is_sshd = |pid: &Pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("sshd"))
    };
    descendants(listener).into_iter().filter(is_sshd).collect()
}

/// Whether the installed server knows `PerSourcePenalties` (OpenSSH 9.8).
fn punishes() -> bool {
    let mut command = Command::new("ssh");
    command.arg("-V");
    let output = run_to_end(command, Duration::from_secs(10));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let version = text.strip_prefix("OpenSSH_").unwrap_or_default();
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    let version: Option<(u32, u32)> = numbers.next().flatten().zip(numbers.next().flatten());
    version.is_some_and(|version| version >= (9, 8))
}

fn run_to_end_of_keygen(mut command: Command, path: &Path) -> std::process::Output {
    command.arg(path);
    run_to_end(command, Duration::from_secs(10))
}
