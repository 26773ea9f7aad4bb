//! The events that we send, with the scope that a client must hold to get them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Access, Scope};

/// An event's name and who gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// On the wire.
    pub(crate) name: &'static str,
    /// Who hears of it.
    pub(crate) access: Access,
    /// Whether a client with much unread misses it rather than being closed.
    pub(crate) drop_if_slow: bool,
}

/// The first frame of a connection, before authentication.
pub(crate) const CHALLENGE: Kind =
    Kind { name: "connect.challenge", access: Access::Anyone, drop_if_slow: false };
/// A sign of life ([`Tick`]).
pub(crate) const TICK: Kind = Kind { name: "tick", access: Access::Anyone, drop_if_slow: true };
/// Who is here changed ([`PresenceChange`]).
pub(crate) const PRESENCE: Kind =
    Kind { name: "presence", access: Access::Holder(Scope::Read), drop_if_slow: true };
/// A new health summary (`Health`).
pub(crate) const HEALTH: Kind = Kind { name: "health", access: Access::Anyone, drop_if_slow: true };
/// The gateway goes ([`Shutdown`]); the close follows.
pub(crate) const SHUTDOWN: Kind =
    Kind { name: "shutdown", access: Access::Anyone, drop_if_slow: false };

/// Everything that `hello-ok.features.events` lists.
pub(crate) const EVENTS: &[Kind] = &[CHALLENGE, TICK, PRESENCE, HEALTH, SHUTDOWN];

/// Payload of `tick` (`TickEvent`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tick {
    /// Milliseconds since 1970.
    pub(crate) ts: u64,
}

/// Payload of `presence`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PresenceChange {
    /// Everybody (`PresenceEntry`), as they are written.
    pub(crate) presence: Vec<Box<RawValue>>,
}

/// Payload of `shutdown` (`ShutdownEvent`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shutdown {
    /// For people.
    pub(crate) reason: String,
    /// When it is expected back, if it is, milliseconds from now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) restart_expected_ms: Option<u64>,
}
