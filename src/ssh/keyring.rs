//! What a supervisor remembers between logins, in memory only: unlocked keys and what is known of
//! the servers.

use std::{
    collections::HashMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use russh::keys::PrivateKey;

/// Unlocked keys, wiped when they are dropped, and what earlier logins showed; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Keyring(Arc<Mutex<Memory>>);

#[derive(Default)]
struct Memory {
    keys: HashMap<PathBuf, (Option<SystemTime>, Arc<PrivateKey>)>,
    servers: HashMap<String, Server>,
}

/// What is known of one SSH server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Server {
    /// Its last identification.
    pub(crate) banner: Option<String>,
    /// The shortest time from an open stream to its banner.
    pub(crate) rtt: Option<Duration>,
    /// What let us in last time.
    pub(super) way_in: WayIn,
}

/// The keys and certificates that let us in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct WayIn {
    /// Their wire forms, in the order in which the server took them.
    pub(super) blobs: Vec<Vec<u8>>,
    /// Whether the agent signed.
    pub(super) by_agent: bool,
}

impl Keyring {
    /// The unlocked key of `path`, if the file is still the one that was unlocked.
    pub(super) fn key(&self, path: &Path, modified: Option<SystemTime>) -> Option<Arc<PrivateKey>> {
        let memory = self.memory();
        let (then, key) = memory.keys.get(path)?;
        (*then == modified).then(|| Arc::clone(key))
    }

    /// Keeps an unlocked key.
    pub(super) fn keep(&self, path: &Path, modified: Option<SystemTime>, key: &Arc<PrivateKey>) {
        self.memory().keys.insert(path.to_owned(), (modified, Arc::clone(key)));
    }

    /// Whether a person unlocked a key, which no other process has.
    pub(crate) fn is_unlocked(&self) -> bool {
        !self.memory().keys.is_empty()
    }

    /// What is known of the server called `label`.
    pub(super) fn server(&self, label: &str) -> Server {
        self.memory().servers.get(label).cloned().unwrap_or_default()
    }

    /// Notes what the server called `label` showed.
    pub(super) fn note_server(&self, label: &str, banner: &str, rtt: Option<Duration>) {
        let mut memory = self.memory();
        let server = memory.servers.entry(label.to_owned()).or_default();
        server.banner = Some(banner.to_owned());
        server.rtt = match (server.rtt, rtt) {
            (Some(before), Some(now)) => Some(before.min(now)),
            (before, now) => now.or(before),
        };
    }

    /// Notes what the server called `label` was content with.
    pub(super) fn note_way_in(&self, label: &str, way_in: WayIn) {
        self.memory().servers.entry(label.to_owned()).or_default().way_in = way_in;
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring")
    }
}

/// Whether a server with this identification punishes aborted logins: OpenSSH 9.8 and later
/// (`PerSourcePenalties`, sshd_config(5)).
pub(super) fn punishes(banner: &str) -> bool {
    let Some((_, version)) = banner.split_once("OpenSSH_") else { return false };
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return false;
    };
    (major, minor) >= (9, 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_which_servers_punish() {
        let cases = [
            ("SSH-2.0-OpenSSH_9.2p1 Debian-2", false),
            ("SSH-2.0-OpenSSH_9.8p1", true),
            ("SSH-2.0-OpenSSH_9.10", true),
            ("SSH-2.0-OpenSSH_10.0p2 Debian-7", true),
            ("SSH-2.0-OpenSSH_for_Windows_9.5", false),
            ("SSH-2.0-dropbear_2022.83", false),
            ("SSH-2.0-OpenSSH_", false),
        ];
        for (banner, expected) in cases {
            assert_eq!(punishes(banner), expected, "{banner}");
        }
    }

    #[test]
    fn keeps_the_shortest_round_trip_and_the_last_banner() {
        let keyring = Keyring::default();
        keyring.note_server("a", "one", Some(Duration::from_millis(90)));
        keyring.note_server("a", "two", Some(Duration::from_millis(100)));
        let server = keyring.server("a");
        assert_eq!(server.banner.as_deref(), Some("two"));
        assert_eq!(server.rtt, Some(Duration::from_millis(90)));
        assert_eq!(keyring.server("b"), Server::default());
    }
}
