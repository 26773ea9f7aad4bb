//! Programs that nobody here wrote, and what happens where one is missing.

use std::path::PathBuf;

use nix::unistd::geteuid;

/// A program that a test needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// `sshd`, `ssh`, `ssh-keygen`, `ssh-agent`.
    OpenSsh,
    /// `autossh`.
    Autossh,
    /// The reference gateway and CLI, installed by `tests/peers/install`.
    OpenClaw,
    /// The oldest OpenClaw with our version of the protocol, by `tests/peers/install --oldest`.
    OldestOpenClaw,
    /// `nc`, which leads its input and output to a port.
    Netcat,
    /// Prometheus's own reader of OpenMetrics, in Python.
    Prometheus,
    /// A system bus, and a logind on it that does as a test says.
    Logind,
    /// `script`, which runs a program on a terminal of its own.
    Script,
    /// Networks and mounts of a test's own: root, `ip` and `nft`.
    Namespaces,
    /// A booted machine of a test's own: root, `debootstrap`, `unshare` and `nsenter`.
    Machine,
}

impl Peer {
    fn is_there(self) -> bool {
        match self {
            Self::OpenSsh => sshd().is_some() && found("ssh").is_some(),
            Self::Autossh => found("autossh").is_some(),
            Self::OpenClaw => folder().join("openclaw/node_modules/openclaw").is_dir(),
            Self::OldestOpenClaw => ["oldest/node_modules/openclaw", "oldest-client/node_modules"]
                .iter()
                .all(|part| folder().join(part).is_dir()),
            Self::Netcat => found("nc").is_some(),
            Self::Prometheus => imports("prometheus_client.openmetrics.parser"),
            Self::Logind => found("dbus-daemon").is_some() && imports("dbusmock"),
            Self::Script => found("script").is_some(),
            Self::Namespaces => {
                geteuid().is_root() && ["ip", "nft"].iter().all(|name| system(name).is_some())
            }
            Self::Machine => {
                let programs = ["debootstrap", "unshare", "nsenter", "ip"];
                geteuid().is_root() && programs.iter().all(|name| system(name).is_some())
            }
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::OpenSsh => "apt-get install openssh-server",
            Self::Autossh => "apt-get install autossh",
            Self::OpenClaw => "tests/peers/install",
            Self::OldestOpenClaw => "tests/peers/install --oldest",
            Self::Netcat => "apt-get install netcat-openbsd",
            Self::Prometheus => "apt-get install python3-prometheus-client",
            Self::Logind => "apt-get install dbus python3-dbusmock",
            Self::Script => "apt-get install bsdutils",
            Self::Namespaces => "run as root; apt-get install iproute2 nftables",
            Self::Machine => "run as root; apt-get install debootstrap iproute2 util-linux",
        }
    }
}

/// Whether all of `peers` are there. If not, says so and lets the caller skip its test; fails
/// where `OPENCLAW_TEST_PEERS` is `required`.
pub(crate) fn present(peers: &[Peer]) -> bool {
    let missing = peers.iter().filter(|peer| !peer.is_there());
    let missing: Vec<String> =
        missing.map(|peer| format!("{peer:?} is missing ({})", peer.remedy())).collect();
    if missing.is_empty() {
        return true;
    }
    let missing = missing.join(", ");
    assert!(std::env::var("OPENCLAW_TEST_PEERS").as_deref() != Ok("required"), "{missing}");
    eprintln!("skipped: {missing}");
    false
}

/// A starter below `tests/peers`.
pub(super) fn starter(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

/// Where `tests/peers/install` put what it installed.
pub(super) fn folder() -> PathBuf {
    let named = std::env::var_os("OPENCLAW_PEERS").filter(|folder| !folder.is_empty());
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(named.unwrap_or_else(|| ".peers".into()))
}

/// The OpenSSH server, which must be started by its full path and is rarely on a user's PATH.
pub(super) fn sshd() -> Option<PathBuf> {
    system("sshd")
}

/// Whether the distribution's Python has a module.
fn imports(module: &str) -> bool {
    let mut python = std::process::Command::new("/usr/bin/python3");
    python.args(["-c", &format!("import {module}")]).stderr(std::process::Stdio::null());
    python.status().is_ok_and(|status| status.success())
}

/// A program that may be where only the system's own users look.
fn system(name: &str) -> Option<PathBuf> {
    found(name).or_else(|| Some(PathBuf::from("/usr/sbin").join(name)).filter(|it| it.is_file()))
}

fn found(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Says why a test that this person cannot run is skipped.
pub(crate) fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}
