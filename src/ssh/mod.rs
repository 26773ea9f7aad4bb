//! One SSH connection: resolve a target, dial, check the host key, authenticate, jump.
//!
//! Reading order: `target` and `resolve` (what to do), `dial`, `proxy` and `link` (bytes),
//! `known_hosts` and `host_key` (who answers), `agent`, `keys` and `auth` (who we are), `session` and `stream` (what
//! is made of it), `ask` and `observe` (whom it talks to meanwhile); `server` is the other end, for
//! the demo and for tests.

mod agent;
mod algorithms;
mod ask;
mod auth;
mod cipher_speed;
mod connect;
mod dial;
mod host_certificate;
mod host_key;
mod host_key_refusal;
mod keyring;
mod keys;
mod known_hosts;
mod link;
mod near;
mod observe;
mod pattern;
mod preferred;
mod proxy;
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
mod tests;
