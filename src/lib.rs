//! Reach your own agent from anywhere: a self-healing tunnel, a client and a gateway.
//!
//! The modules in reading order; `docs/architecture.md` says who may use whom.

/// How long to wait before the next attempt.
mod backoff;
/// How many files and sockets this process may have open.
mod descriptors;
/// The SHA-256 of a TLS certificate.
mod fingerprint;
/// Log files by day: bounded, without secrets, never waited for.
mod logfile;
/// Messages to the service manager.
mod notice;
/// Where a gateway may be spoken to in plain text.
mod plaintext;
/// What went wrong, as people, scripts and exit codes see it.
mod problem;
/// Text that is wiped from memory and never printed.
mod secret;

/// The wire: frames, connect, errors, one file a method family. Pure data.
#[deny(clippy::disallowed_methods, reason = "pure: the clock is an argument, nothing is started")]
mod protocol;
/// What a tunnel does: phases, failures, backoff. Pure.
#[deny(clippy::disallowed_methods, reason = "pure: the clock is an argument, nothing is started")]
mod tunnel;

/// Arguments and printing.
mod cli;
/// Talks to a gateway: which one, with which secret, and calls.
mod client;
/// The files: `openclaw.json`, remotes, credentials, and where they are.
mod config;
/// The control socket's messages and its client end.
mod control;
/// Throws mutations of a corpus at a reader.
#[cfg(test)]
mod fuzz;
/// Answers clients: listener, handshake, methods, HTTP.
mod gateway;
/// What happened to the remotes, kept for those who ask later.
mod history;
/// Who of two programs of this name serves a profile.
mod meeting;
/// What the operating system's service manager is told: units and agents. Pure.
mod service;
/// One SSH connection: resolve, dial, host key, authenticate, jump; the demo's server.
mod ssh;
/// What lasts: the one database, its migrations, and what the gateway keeps in it.
mod store;
/// Runs the tunnels: listeners, sessions, the control socket's server end.
mod supervisor;

pub use cli::run;
