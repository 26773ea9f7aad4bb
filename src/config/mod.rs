//! The files: where they are, what stands in them, and how they are written.

mod paths;
mod remotes;

pub(crate) use paths::Paths;
pub(crate) use remotes::{Family, Forward, Remote, Remotes, SshOptions};
