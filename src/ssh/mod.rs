//! One SSH connection: resolve a target, dial, check the host key, authenticate, jump.
//!
//! Reading order: `target` and `resolve` (what to do), `dial` and `link` (bytes), `known_hosts` and
//! `host_key` (who answers), `agent`, `keys` and `auth` (who we are), `session` and `stream` (what
//! is made of it); `server` is the other end, for the demo and for tests.

mod agent;
mod ask;
mod auth;
#[allow(dead_code, unused_imports, reason = "what of the settings a plan does not ask for yet")]
pub(crate) mod config;
mod connect;
mod dial;
mod host_key;
mod keyring;
mod keys;
mod known_hosts;
mod link;
mod resolve;
pub(crate) mod server;
mod session;
mod stream;
mod target;
mod wire;

pub(crate) use ask::{Asker, Question, Stage};
pub(crate) use connect::connect;
pub(crate) use keyring::Keyring;
pub(crate) use resolve::{Environment, Plan, anchor, resolve};
pub(crate) use session::{OpenFailure, Session};

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
