//! The files: where they are, what stands in them, and how they are written.

mod change;
mod configured;
mod credentials;
mod edit;
pub(crate) mod file;
mod forward;
#[cfg(test)]
mod fuzz;
pub(crate) mod handed;
mod include;
mod issue;
mod keys;
mod openclaw;
mod own_port;
mod path;
mod paths;
mod redact;
mod remotes;
mod revise;
pub(crate) mod schema;
mod syntax;

pub(crate) use change::{
    Current, Outcome, REFUSED, Reading, Run, Unchanged, change, change_if, merge, reading,
};
pub(crate) use configured::plain_token;
pub(crate) use credentials::{Bound, Credential, Credentials};
pub(crate) use edit::Edit;
pub(crate) use forward::{Destination, Forward, Listen};
pub(crate) use handed::Handed;
pub(crate) use issue::Issue;
pub(crate) use keys::{Form, KEYS, Key, ReloadKind, reload_of};
#[cfg(test)]
pub(crate) use openclaw::{Auth, ProxyAuth};
pub(crate) use openclaw::{
    AuthMode, Bind, Gateway, HostKeyPolicy, Logging, Mode, Nodes, OpenClaw, RateLimit, ReloadMode,
    RemoteGateway, Review, SecretInput, TailscaleMode, Tls, Transport,
};
pub(crate) use own_port::{DEFAULT_PORT, port_variable, profile_port};
pub(crate) use path::KeyPath;
pub(crate) use paths::Paths;
pub(crate) use redact::{redacted, redacted_text};
pub(crate) use remotes::{
    CONFIG_REMOTE, Family, HELD_MOST_MOST, HOLD_SECONDS_MOST, Kind, Remote, Remotes, SshOptions,
    UNREAD_MIB, UNREAD_MIB_SHARED, check_name, leads_nowhere,
};
pub(crate) use revise::{is_of_preferences, lost_agents, patched, replaced};
pub(crate) use schema::changed;
pub(crate) use syntax::parse as parse_json5;
