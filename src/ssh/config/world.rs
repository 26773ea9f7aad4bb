//! What a configuration may ask about the machine; the resolver is pure given this.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::config::Family;

/// How long a command of `Match exec` may take.
pub(super) const EXEC_TIMEOUT: Duration = Duration::from_secs(10);

/// A file as it was opened: what it holds, and who may change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// What it holds; nothing for a directory.
    pub(crate) bytes: Vec<u8>,
    /// The user it belongs to.
    pub(crate) owner: u32,
    /// Its permission bits.
    pub(crate) mode: u32,
}

/// What the look-up of a host name found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The name that the answer stands under, if it says so.
    pub(crate) canonical: Option<String>,
}

/// Everything outside that a configuration may ask about. Calls may block.
pub(crate) trait World {
    /// The file at `path`; `None` if there is none; the error says why it cannot be read.
    fn read(&self, path: &Path) -> Result<Option<Source>, String>;
    /// The paths that match an absolute glob(7) pattern, sorted.
    fn glob(&self, pattern: &str) -> Result<Vec<PathBuf>, String>;
    /// An environment variable.
    fn variable(&self, name: &str) -> Option<String>;
    /// Whether `command` ends with status 0 in the user's shell; `None` if it takes longer than
    /// [`EXEC_TIMEOUT`].
    fn succeeds(&self, command: &str) -> Result<Option<bool>, String>;
    /// The addresses of the interfaces that are up.
    fn addresses(&self) -> Vec<IpAddr>;
    /// Looks up a host name; `None` if it is unknown.
    fn look_up(&self, name: &str, family: Family) -> Option<Found>;
    /// The name of this machine.
    fn local_host(&self) -> String;
    /// The home of a user in the password database; of ours for `None`.
    fn home(&self, user: Option<&str>) -> Option<PathBuf>;
    /// The account that runs us.
    fn user(&self) -> String;
    /// Its number.
    fn uid(&self) -> u32;
}
