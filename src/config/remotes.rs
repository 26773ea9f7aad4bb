//! `rs/remotes.json`: our remotes and the default one.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Remotes {
    /// The remote that commands mean when nothing else is said; `None` after `remote use local`.
    pub(crate) default: Option<String>,
    /// Definitions by name.
    pub(crate) remotes: BTreeMap<String, Remote>,
}

/// One remote: what `remote connect` was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remote {
    /// `[user@]host[:port]` or an `ssh://` URL, as typed.
    pub(crate) target: String,
    /// The ssh options, as typed.
    #[serde(default)]
    pub(crate) ssh: SshOptions,
    /// The gateway's port on the far side.
    pub(crate) remote_port: u16,
    /// The port of ours that leads there; never moves.
    pub(crate) local_port: u16,
    /// Further `-L` forwards.
    #[serde(default)]
    pub(crate) forwards: Vec<Forward>,
    /// Whether the user wants it up.
    #[serde(default)]
    pub(crate) wanted: bool,
}

/// OpenSSH options of one remote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SshOptions {
    /// `-p`.
    pub(crate) port: Option<u16>,
    /// `-l`.
    pub(crate) user: Option<String>,
    /// `-i`, in order; absolute.
    pub(crate) identities: Vec<PathBuf>,
    /// `-J`: the hops in order, each `[user@]host[:port]`.
    pub(crate) jumps: Vec<String>,
    /// `-o Key=Value`, in order.
    pub(crate) options: Vec<(String, String)>,
    /// `-4` or `-6`.
    pub(crate) family: Family,
    /// `--accept-host-key`: the last hop's key as `SHA256:…`.
    pub(crate) host_key_pin: Option<String>,
}

/// Which addresses to dial.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Family {
    /// Both.
    #[default]
    Any,
    /// `-4`.
    V4,
    /// `-6`.
    V6,
}

/// One `-L [bind:]port:host:hostport`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Forward {
    /// The local address; loopback (127.0.0.1 and ::1) if `None`.
    pub(crate) bind: Option<String>,
    /// The local port.
    pub(crate) port: u16,
    /// The host as the far side sees it.
    pub(crate) host: String,
    /// Its port.
    pub(crate) host_port: u16,
}
