//! The files: where they are, what stands in them, and how they are written.

mod configured;
mod credentials;
pub(crate) mod file;
mod forward;
pub(crate) mod handed;
mod openclaw;
mod paths;
mod remotes;

pub(crate) use configured::plain_token;
pub(crate) use credentials::{Bound, Credential, Credentials};
pub(crate) use forward::{Destination, Forward, Listen};
pub(crate) use handed::Handed;
#[cfg(test)]
pub(crate) use openclaw::Auth;
pub(crate) use openclaw::{
    AuthMode, Bind, DEFAULT_PORT, Gateway, HostKeyPolicy, Mode, OpenClaw, RemoteGateway,
    SecretInput, Transport,
};
pub(crate) use paths::Paths;
pub(crate) use remotes::{
    CONFIG_REMOTE, Family, Kind, Remote, Remotes, SshOptions, check_name, leads_nowhere,
};
