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

/// A device asks to be paired (`DevicePairRequestedEvent`).
pub(crate) const DEVICE_PAIR_REQUESTED: Kind = Kind {
    name: "device.pair.requested",
    access: Access::Holder(Scope::Pairing),
    drop_if_slow: true,
};
/// Such a request is over (`DevicePairResolvedEvent`).
pub(crate) const DEVICE_PAIR_RESOLVED: Kind = Kind {
    name: "device.pair.resolved",
    access: Access::Holder(Scope::Pairing),
    drop_if_slow: true,
};
/// What people see of a paired device is something else; `device.pair.list` says what.
pub(crate) const DEVICE_PAIR_CHANGED: Kind = Kind {
    name: "device.pair.changed",
    access: Access::Holder(Scope::Pairing),
    drop_if_slow: true,
};
/// A device redeemed a setup code and has what it was given (`DevicePairSetupCompletedEvent`).
pub(crate) const SETUP_COMPLETED: Kind = Kind {
    name: "device.pair.setup.completed",
    access: Access::Holder(Scope::Pairing),
    drop_if_slow: true,
};
/// It may not have got that (`DevicePairSetupDeliveryUncertainEvent`).
pub(crate) const SETUP_UNCERTAIN: Kind = Kind {
    name: "device.pair.setup.deliveryUncertain",
    access: Access::Holder(Scope::Pairing),
    drop_if_slow: true,
};
/// A node asks to offer something (`NodePairRequest`).
pub(crate) const NODE_PAIR_REQUESTED: Kind = Kind {
    name: "node.pair.requested",
    access: Access::Holder(Scope::Pairing),
    drop_if_slow: true,
};
/// Such a request is over (`NodePairResolved`); its node is told as well.
pub(crate) const NODE_PAIR_RESOLVED: Kind =
    Kind { name: "node.pair.resolved", access: Access::Holder(Scope::Pairing), drop_if_slow: true };
/// A node's machine was used, or nothing more is told of that ([`super::NodePresenceChange`]).
pub(crate) const NODE_PRESENCE: Kind =
    Kind { name: "node.presence", access: Access::Holder(Scope::Read), drop_if_slow: true };
/// Load and memory of a node's machine ([`super::NodeHostStatsChange`]).
pub(crate) const NODE_HOST_STATS: Kind =
    Kind { name: "node.hostStats", access: Access::Holder(Scope::Read), drop_if_slow: true };
/// A node takes workers, or others than before, or none any longer ([`super::NodeRunnersChange`]).
pub(crate) const NODE_RUNNERS_CHANGED: Kind = Kind {
    name: "node.runnerInventory.changed",
    access: Access::Holder(Scope::Read),
    drop_if_slow: true,
};
/// A command for the one node that gets it (`NodeInvokeRequest`).
pub(crate) const NODE_INVOKE_REQUEST: Kind =
    Kind { name: "node.invoke.request", access: Access::Node, drop_if_slow: false };
/// The one node that got it is to stop a command ([`super::NodeInvokeCancel`]).
pub(crate) const NODE_INVOKE_CANCEL: Kind =
    Kind { name: "node.invoke.cancel", access: Access::Node, drop_if_slow: false };
/// A command waits for a decision (`ExecApprovalPending`): for who asked and administrators alone.
pub(crate) const EXEC_APPROVAL_REQUESTED: Kind = Kind {
    name: "exec.approval.requested",
    access: Access::Holder(Scope::Approvals),
    drop_if_slow: true,
};
/// It waits no longer (`ExecApprovalResolved`): for the same.
pub(crate) const EXEC_APPROVAL_RESOLVED: Kind = Kind {
    name: "exec.approval.resolved",
    access: Access::Holder(Scope::Approvals),
    drop_if_slow: true,
};

/// The wake words are others ([`super::WakeWords`]); a node hears it as it comes, too.
pub(crate) const VOICEWAKE_CHANGED: Kind = Kind {
    name: "voicewake.changed",
    access: Access::HolderOrNode(Scope::Read),
    drop_if_slow: true,
};
/// Where a wake word leads ([`super::WakeRoutingReply`]): told to a node as it comes.
pub(crate) const VOICEWAKE_ROUTING_CHANGED: Kind = Kind {
    name: "voicewake.routing.changed",
    access: Access::HolderOrNode(Scope::Read),
    drop_if_slow: true,
};
/// `openclaw.json` was written or read anew ([`ConfigChange`]).
pub(crate) const CONFIG_CHANGED: Kind =
    Kind { name: "config.changed", access: Access::Holder(Scope::Read), drop_if_slow: true };

/// Everything that `hello-ok.features.events` lists.
pub(crate) const EVENTS: &[Kind] = &[
    CHALLENGE,
    TICK,
    PRESENCE,
    HEALTH,
    SHUTDOWN,
    DEVICE_PAIR_REQUESTED,
    DEVICE_PAIR_RESOLVED,
    DEVICE_PAIR_CHANGED,
    SETUP_COMPLETED,
    SETUP_UNCERTAIN,
    NODE_PAIR_REQUESTED,
    NODE_PAIR_RESOLVED,
    NODE_PRESENCE,
    NODE_HOST_STATS,
    NODE_RUNNERS_CHANGED,
    NODE_INVOKE_REQUEST,
    NODE_INVOKE_CANCEL,
    EXEC_APPROVAL_REQUESTED,
    EXEC_APPROVAL_RESOLVED,
    VOICEWAKE_CHANGED,
    VOICEWAKE_ROUTING_CHANGED,
    CONFIG_CHANGED,
];

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

/// Payload of `config.changed`; what stands in the file is not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ConfigChange {
    /// The file.
    pub(crate) path: String,
    /// Its revision now.
    pub(crate) hash: String,
    /// Milliseconds since 1970.
    pub(crate) ts: u64,
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
