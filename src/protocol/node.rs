//! The methods by which operators list, pair, name and invoke nodes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{
    Access, NodeIssue, NodeSkillName, NodeTool, Scope, WorkerSlots, method::methods,
    shapes::ThreadId,
};

methods! {
    /// Every node that is paired or connected.
    NodeList = "node.list", Access::Holder(Scope::Read), Nothing => NodeListReply;
    /// One node.
    NodeDescribe = "node.describe", Access::Holder(Scope::Read), NodeId => NodeDescribeReply;
    /// Gives a node the name that people see.
    NodeRename = "node.rename", Access::Holder(Scope::Pairing), NodeRenameParams => NodeRenamed;
    /// What nodes ask to offer, and what they were approved for.
    NodePairList = "node.pair.list", Access::Holder(Scope::Pairing), Nothing => NodePairListReply;
    /// Approves what a node asks to offer; also wants the scopes that the request names.
    NodePairApprove = "node.pair.approve", Access::Holder(Scope::Pairing), RequestId => NodePairApproved;
    /// Refuses what a node asks to offer.
    NodePairReject = "node.pair.reject", Access::Holder(Scope::Pairing), RequestId => NodePairRejected;
    /// Takes the role of a node from a device, and closes its connection.
    NodePairRemove = "node.pair.remove", Access::Holder(Scope::Pairing), NodeId => NodeRemoved;
    /// Runs a command on a node and waits for its outcome; some commands want an administrator.
    NodeInvoke = "node.invoke", Access::Dynamic, NodeInvokeParams => NodeInvoked;
    /// Leaves word for a node that may be away.
    NodePendingEnqueue =
        "node.pending.enqueue", Access::Holder(Scope::Write), NodePendingEnqueueParams => NodePendingEnqueued;
}

/// A method that takes no parameters, and says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// `NodeDescribeParams`, `NodePairRemoveParams`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NodeId {
    /// The node's device.
    pub(crate) node_id: String,
}

/// `NodePairApproveParams`, `NodePairRejectParams`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RequestId {
    /// As `node.pair.list` names it.
    pub(crate) request_id: String,
}

/// `NodeRenameParams`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NodeRenameParams {
    /// The node's device.
    pub(crate) node_id: String,
    /// Its new name.
    pub(crate) display_name: String,
}

/// `NodeInvokeParams`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NodeInvokeParams {
    /// The node's device.
    pub(crate) node_id: String,
    /// `system.which`, …
    pub(crate) command: String,
    /// The command's parameters.
    #[serde(default)]
    pub(crate) params: Option<Value>,
    /// How long to wait, milliseconds.
    #[serde(default)]
    pub(crate) timeout_ms: Option<u64>,
    /// Who repeats it gets the first answer.
    pub(crate) idempotency_key: String,
    /// The chat session for which it runs.
    #[serde(default)]
    pub(crate) session_key: Option<String>,
    /// Where the turn came from; of no use here.
    #[serde(default)]
    pub(crate) turn_source_channel: Option<String>,
    /// Likewise.
    #[serde(default)]
    pub(crate) turn_source_to: Option<String>,
    /// Likewise.
    #[serde(default)]
    pub(crate) turn_source_account_id: Option<String>,
    /// Likewise.
    #[serde(default)]
    pub(crate) turn_source_thread_id: Option<ThreadId>,
}

/// `NodePendingEnqueueParams`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NodePendingEnqueueParams {
    /// The node's device.
    pub(crate) node_id: String,
    /// What the node is to do.
    #[serde(rename = "type")]
    pub(crate) kind: WorkKind,
    /// How soon.
    #[serde(default)]
    pub(crate) priority: Priority,
    /// For how long it is worth doing, milliseconds; a day if not said.
    #[serde(default)]
    pub(crate) expires_in_ms: Option<u64>,
    /// Whether to wake the node; there is no way to do so here.
    #[serde(default)]
    pub(crate) wake: Option<bool>,
}

/// What a node can be left word of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WorkKind {
    /// How it is.
    #[serde(rename = "status.request")]
    Status,
    /// Where it is.
    #[serde(rename = "location.request")]
    Location,
}

/// How soon a piece of work is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Priority {
    /// Nobody asked; it is always there. Never chosen by a caller.
    #[serde(skip_deserializing)]
    Default,
    /// In its turn.
    #[default]
    Normal,
    /// Before the others.
    High,
}

/// One piece of work for a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Work {
    /// Its id.
    pub(crate) id: String,
    /// What to do.
    #[serde(rename = "type")]
    pub(crate) kind: WorkKind,
    /// How soon.
    pub(crate) priority: Priority,
    /// Milliseconds since 1970.
    pub(crate) created_at_ms: u64,
    /// Milliseconds since 1970; `None` for what is always there.
    pub(crate) expires_at_ms: Option<u64>,
}

/// `NodePendingEnqueueResult`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodePendingEnqueued {
    /// The node's device.
    pub(crate) node_id: String,
    /// Grows with every change of the node's work.
    pub(crate) revision: u64,
    /// What waits now.
    pub(crate) queued: Work,
    /// Whether the node was woken.
    pub(crate) wake_triggered: bool,
}

/// How what a node offers stands with the people who approve it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ApprovalState {
    /// Everything is approved.
    Approved,
    /// Nothing is yet, and it asks.
    PendingApproval,
    /// Something is, and it asks for more.
    PendingReapproval,
    /// Nothing is, and it does not ask; also what another gateway says in words unknown here.
    #[default]
    #[serde(other)]
    Unapproved,
}

impl ApprovalState {
    /// As the wire has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::PendingApproval => "pending-approval",
            Self::PendingReapproval => "pending-reapproval",
            Self::Unapproved => "unapproved",
        }
    }
}

/// One line of `node.list`, as the reference gateway has it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodeEntry {
    /// The node's device.
    pub(crate) node_id: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) display_name: Option<String>,
    /// `linux`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<String>,
    /// Its program's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// Its program.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
    /// `node`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_mode: Option<String>,
    /// The kind of device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_family: Option<String>,
    /// The hardware's model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) model_identifier: Option<String>,
    /// From where it came, if not from this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remote_ip: Option<String>,
    /// What it may do.
    pub(crate) caps: Vec<String>,
    /// The commands that it may be given.
    pub(crate) commands: Vec<String>,
    /// What its owner let it do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) permissions: Option<BTreeMap<String, bool>>,
    /// Its machine's load and memory, as it last told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) host_stats: Option<Value>,
    /// Whether it hosts workers, or did when it was here last.
    pub(crate) session_host: bool,
    /// How many of them, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) worker_slots: Option<WorkerSlots>,
    /// What a person should do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) issues: Option<Vec<NodeIssue>>,
    /// The tools that it has and that can be called; only while it is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node_plugin_tools: Option<Vec<NodeTool>>,
    /// Its PATH.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) path_env: Option<String>,
    /// Whether people approved what it offers.
    pub(crate) approval_state: ApprovalState,
    /// The request that waits; only for those who may decide it, and for the node's own device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pending_request_id: Option<String>,
    /// What it asks to offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pending_declared_caps: Option<Vec<String>>,
    /// Likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pending_declared_commands: Option<Vec<String>>,
    /// Likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pending_declared_permissions: Option<BTreeMap<String, bool>>,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connected_at_ms: Option<u64>,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_connected_at_ms: Option<u64>,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_disconnected_at_ms: Option<u64>,
    /// When its machine was last used, if it tells; milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_active_at_ms: Option<u64>,
    /// When it told that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) presence_updated_at_ms: Option<u64>,
    /// Whether no machine of those that are here and tell was used later.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) active: bool,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen_at_ms: Option<u64>,
    /// `connect`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen_reason: Option<String>,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) approved_at_ms: Option<u64>,
    /// Whether its device may come as a node.
    pub(crate) paired: bool,
    /// Whether it is here.
    pub(crate) connected: bool,
}

/// Reply of `node.list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeListReply {
    /// Milliseconds since 1970.
    pub(crate) ts: u64,
    /// The one whose machine was used last, where any tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) active_node_id: Option<String>,
    /// Those that are here first, then by name.
    pub(crate) nodes: Vec<NodeEntry>,
}

/// Reply of `node.describe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeDescribeReply {
    /// Milliseconds since 1970.
    pub(crate) ts: u64,
    /// The node.
    #[serde(flatten)]
    pub(crate) node: NodeEntry,
    /// The skills that it has, without their content.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) node_skills: Vec<NodeSkillName>,
}

/// Reply of `node.rename`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRenamed {
    /// The node's device.
    pub(crate) node_id: String,
    /// Its name now.
    pub(crate) display_name: String,
}

/// What a node asks to offer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodePairRequest {
    /// What `node.pair.approve` takes.
    pub(crate) request_id: String,
    /// Who asks, and for what.
    #[serde(flatten)]
    pub(crate) node: NodePairing,
    /// What a person must hold to approve it; for who gives it, not for who reads it.
    #[serde(skip_deserializing)]
    pub(crate) required_approve_scopes: Vec<Scope>,
    /// Milliseconds since 1970.
    pub(crate) ts: u64,
}

/// A node with what it offers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NodePairing {
    /// The node's device.
    pub(crate) node_id: String,
    /// Its program.
    pub(crate) client_id: String,
    /// `node`.
    pub(crate) client_mode: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) display_name: Option<String>,
    /// `linux`, …
    pub(crate) platform: String,
    /// Its program's version.
    pub(crate) version: String,
    /// The kind of device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_family: Option<String>,
    /// From where it came, if not from this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remote_ip: Option<String>,
    /// Its capabilities.
    pub(crate) caps: Vec<String>,
    /// Its commands.
    pub(crate) commands: Vec<String>,
    /// What its owner let it do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) permissions: Option<BTreeMap<String, bool>>,
    /// The first approval, milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) created_at_ms: Option<u64>,
    /// The last approval.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) approved_at_ms: Option<u64>,
    /// Milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen_at_ms: Option<u64>,
    /// `connect`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen_reason: Option<String>,
}

/// Reply of `node.pair.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodePairListReply {
    /// What waits for a person.
    pub(crate) pending: Vec<NodePairRequest>,
    /// What was approved.
    pub(crate) paired: Vec<NodePairing>,
}

/// Reply of `node.pair.approve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodePairApproved {
    /// The request.
    pub(crate) request_id: String,
    /// The node as approved.
    pub(crate) node: NodePairing,
}

/// Reply of `node.pair.reject`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodePairRejected {
    /// The request.
    pub(crate) request_id: String,
    /// Whose it was.
    pub(crate) node_id: String,
}

/// Reply of `node.pair.remove`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRemoved {
    /// Which node is no more.
    pub(crate) node_id: String,
}

/// Reply of `node.invoke`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeInvoked {
    /// Always true; failures are errors.
    pub(crate) ok: bool,
    /// The node's device.
    pub(crate) node_id: String,
    /// What it did.
    pub(crate) command: String,
    /// What came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<Box<RawValue>>,
    /// The same as the node wrote it.
    #[serde(rename = "payloadJSON")]
    pub(crate) payload_json: Option<String>,
}

/// Payload of `node.presence`: when a node's machine was last used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodePresenceChange<'a> {
    /// The node's device.
    pub(crate) node_id: &'a str,
    /// Milliseconds since 1970; `null` where nothing is told any longer.
    pub(crate) last_active_at_ms: Option<u64>,
    /// Likewise, when that was told.
    pub(crate) presence_updated_at_ms: Option<u64>,
}

/// Payload of `node.hostStats`: load and memory of a node's machine.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeHostStatsChange<'a> {
    /// The node's device.
    pub(crate) node_id: &'a str,
    /// As `node.list` has them.
    pub(crate) host_stats: &'a Value,
}

/// Payload of `node.runnerInventory.changed`; `node.list` says what is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRunnersChange<'a> {
    /// The node's device.
    pub(crate) node_id: &'a str,
}

/// Payload of `node.invoke.cancel`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeInvokeCancel<'a> {
    /// Of the `node.invoke.request` that is over.
    pub(crate) invoke_id: &'a str,
    /// The node's device.
    pub(crate) node_id: &'a str,
}

/// Payload of `node.invoke.request` (`NodeInvokeRequestEvent`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeInvokeRequest {
    /// What the node answers with.
    pub(crate) id: String,
    /// The node's device.
    pub(crate) node_id: String,
    /// `system.which`, …
    pub(crate) command: String,
    /// Its parameters as JSON text.
    #[serde(rename = "paramsJSON", skip_serializing_if = "Option::is_none")]
    pub(crate) params_json: Option<String>,
    /// How long the gateway waits, milliseconds.
    pub(crate) timeout_ms: u64,
    /// The caller's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idempotency_key: Option<String>,
}

/// Payload of `node.pair.resolved`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodePairResolved {
    /// The request; empty where a node was removed.
    pub(crate) request_id: String,
    /// Whose it was.
    pub(crate) node_id: String,
    /// `approved`, `rejected`, `removed`, `superseded`.
    pub(crate) decision: &'static str,
    /// Milliseconds since 1970.
    pub(crate) ts: u64,
}
