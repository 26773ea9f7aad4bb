//! Runs the tunnels: listeners, sessions, and the server end of the control socket.
//!
//! ```text
//! process ── server ──┬── remote ──┬── lane (gateway) ──┬── machine (tunnel/)
//!   lock     commands │            │                    ├── sessions (ssh/), one path each
//!   socket            │            ├── lane (-L)        └── streams (pump), held connections
//!   log               │            └── ports, turned to their lane
//!                     └── trials: remotes that a `remote connect` has not kept yet
//! ```

mod account;
mod alarm;
mod answers;
mod audience;
mod changes;
mod connecting;
mod course;
mod desk;
mod dialer;
mod door;
mod handover;
mod herald;
mod incoming;
mod lane;
mod link;
mod lock;
mod metrics;
mod path;
mod place;
mod port;
mod process;
mod program;
mod pump;
mod reload;
mod remote;
mod scrapes;
mod server;
mod socket;
mod standing;
mod starting;
mod succession;
mod surroundings;
mod token;
mod trial;
mod unbound;
mod unread;
mod unstarted;
mod wake;
mod watch;

use serde_json::Value;

use crate::config::{Remote, Remotes};

/// The status object of a remote that is saved and not at work.
pub(crate) fn resting(name: &str, definition: &Remote, saved: &Remotes) -> Value {
    remote::resting(
        name,
        definition,
        saved.default.as_deref() == Some(name),
        &unstarted::Unstarted::default(),
    )
}

pub(crate) use audience::is_other;
pub(crate) use dialer::{fetch_token, worded};
pub(crate) use herald::last_words;
pub(crate) use lane::{absent, prohibited};
pub(crate) use place::{Place, Seat, take_place};
pub(crate) use process::{Ended, LOG_PREFIX, Scope, begin_log, detach, run};
