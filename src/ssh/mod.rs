//! One SSH connection: resolve a target, dial, check the host key, authenticate, jump.
//!
//! Reading order: `target`, `config` and `resolve` (what to do), `dial`, `proxy` and `link` (bytes),
//! `algorithms` and `preferred` (how they are hidden), `known_hosts` and `host_key` (who answers),
//! `identity`, `agent`, `keys` and `auth` (who we are), `session`, `stream` and `inbound` (what is made of it),
//! `ask` and `observe` (whom it talks to meanwhile); `server` is the other end, for the demo and for
//! tests.

mod agent;
mod algorithms;
mod ask;
mod auth;
mod cipher_speed;
pub(crate) mod config;
mod connect;
mod dial;
mod forwards;
mod hop;
mod host_certificate;
mod host_key;
mod host_key_refusal;
mod identity;
mod inbound;
mod keyring;
mod keys;
mod known_hosts;
mod link;
mod near;
mod observe;
mod options;
mod pattern;
mod pem;
mod preferred;
mod proxy;
mod resolve;
mod rotation;
mod route;
mod rsa_size;
pub(crate) mod server;
mod session;
mod short_scalar;
mod stream;
mod target;
mod watcher;
mod wire;

pub(crate) use algorithms::is_weak;
pub(crate) use ask::{Asker, Question, Stage};
pub(crate) use connect::connect;
pub(crate) use forwards::{Forwards, SocketRule, read_local, read_remote};
pub(crate) use inbound::{Knock, ListenFailure, Listening};
pub(crate) use keyring::Keyring;
pub(crate) use observe::{Answer, Fact, Key, Line, Observer, Standing};
pub(crate) use options::anchor;
pub(crate) use preferred::Negotiated;
pub(crate) use resolve::{Environment, Hop, Plan, resolve, settings};
pub(crate) use session::{OpenFailure, Session};
pub(crate) use stream::Stream;
pub(crate) use target::Target;

#[cfg(test)]
mod tests;
