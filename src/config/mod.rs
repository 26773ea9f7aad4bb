//! The files: where they are, what stands in them, and how they are written.

mod openclaw;
mod paths;
mod remotes;

pub(crate) use openclaw::{
    AuthMode, Bind, HostKeyPolicy, Mode, OpenClaw, RemoteGateway, SecretInput, Transport,
};
pub(crate) use paths::Paths;
pub(crate) use remotes::{Family, Forward, Remote, Remotes, SshOptions};
