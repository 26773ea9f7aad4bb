//! The gateway protocol, version 4: what stands on the wire, as data.

mod access;
mod catalog;
mod channel_pairing;
mod config;
mod connect;
pub(crate) mod device;
mod device_pair;
mod device_scopes;
mod error;
pub(crate) mod event;
mod exec_approval;
mod exec_rules;
mod flawed;
mod frame;
#[cfg(test)]
mod fuzz;
mod health;
mod logs;
mod method;
mod node;
mod node_published;
mod node_side;
mod object;
mod role;
mod scope;
mod shapes;
mod system;
mod voicewake;

pub(crate) use access::Access;
pub(crate) use catalog::{
    Agent, AgentIdentity, AgentIdentityGet, AgentIdentityParams, AgentIdentityResult, AgentModel,
    AgentsList, AgentsListParams, AgentsListResult, ChannelsStatus, ChannelsStatusParams,
    ChannelsStatusResult, CommandsList, CommandsListParams, CommandsListResult, LastHeartbeat,
    Model, ModelsList, ModelsListParams, ModelsListResult, ToolsCatalog, ToolsCatalogParams,
    ToolsCatalogResult,
};
#[cfg(test)]
pub(crate) use channel_pairing::PairingAccount;
pub(crate) use channel_pairing::{
    ChannelPairing, ChannelPairingAsk, SenderApproved, SenderDecision, SenderRequest,
};
pub(crate) use config::{
    ConfigApply, ConfigApplyParams, ConfigGet, ConfigGetParams, ConfigIssue, ConfigPatch,
    ConfigPatchParams, ConfigSchema, ConfigSchemaLookup, ConfigSchemaLookupParams,
    ConfigSchemaReply, ConfigSet, ConfigSetParams, ConfigSnapshot, ConfigWritten, Hint, Reloaded,
    SchemaChild, SchemaPlace, Sentinel, SentinelPayload, SentinelStats,
};
pub(crate) use connect::{
    Auth, Challenge, Client, Connect, Features, Granted, GrantedToken, HelloOk, NamelessSession,
    Policy, Server, Snapshot, StateVersion,
};
pub(crate) use device::Device;
pub(crate) use device_pair::{
    ApprovedDevice, DeviceAbout, DeviceId, DeviceLabel, DevicePairApprove, DevicePairList,
    DevicePairListParams, DevicePairReject, DevicePairRemove, DevicePairRename,
    DevicePairSetupCode, DevicePairSetupCodeParams, DevicePairSetupStatus,
    DevicePairSetupStatusParams, DevicePairing, DeviceRequest, DeviceRequestId, DeviceResolved,
    DeviceToken, DeviceTokenRevoke, DeviceTokenRevokeParams, DeviceTokenRotate,
    DeviceTokenRotateParams, IssuedSetupCode, PairedDevice, RejectedDevice, RevokedToken,
    RotatedToken, SetupCompletion, SetupPayload, SetupStatus,
};
pub(crate) use device_scopes::{
    DeviceScopesRequest, DeviceScopesWait, ScopeUpgradeRegistration, ScopeUpgradeRequest,
    ScopeUpgradeResult, ScopeUpgradeWait,
};
pub(crate) use error::{close, code, detail};
pub(crate) use exec_approval::{
    Decision, Done, ExecApprovalAccepted, ExecApprovalAnswer, ExecApprovalAsk, ExecApprovalAsked,
    ExecApprovalAwaited, ExecApprovalDecide, ExecApprovalEnded, ExecApprovalGet,
    ExecApprovalGrantRevoked, ExecApprovalGrants, ExecApprovalGrantsList,
    ExecApprovalGrantsListParams, ExecApprovalGrantsRevoke, ExecApprovalGrantsRevokeParams,
    ExecApprovalId, ExecApprovalList, ExecApprovalPending, ExecApprovalRequest,
    ExecApprovalResolve, ExecApprovalResolved, ExecApprovalShown, ExecApprovalWait,
    ExecApprovalsNodeGet, ExecApprovalsNodeSet, ExecApprovalsNodeSetParams, GrantOutcome, RunPlan,
    shows_approvals,
};
pub(crate) use exec_rules::{
    AgentRules, ExecApprovalsGet, ExecApprovalsSet, ExecApprovalsSetParams, Filled, HostRules,
    HostRulesShown, Listed, RulesSocket,
};
pub(crate) use flawed::Flawed;
pub(crate) use frame::{Asked, ErrorShape, Event, Frame, Request, Response, success_text};
pub(crate) use health::{
    AgentBeat, AgentHealth, AgentSessions, CliProjection, Health, HealthBeat, HealthMethod,
    HealthParams, Heartbeat, MemoryPlugin, Plugins, ProcessMemory, ProjectedAgent, ProjectedAgents,
    SessionDefaults, SessionSummary, Status, StatusMethod, StatusParams, StatusSessions,
};
pub(crate) use logs::{LogsTail, LogsTailParams, LogsTailResult};
pub(crate) use method::{Method, Row, rows};
pub(crate) use node::{
    ApprovalState, NodeDescribe, NodeDescribeReply, NodeEntry, NodeHostStatsChange, NodeId,
    NodeInvoke, NodeInvokeCancel, NodeInvokeParams, NodeInvokeRequest, NodeInvoked, NodeList,
    NodeListReply, NodePairApprove, NodePairApproved, NodePairList, NodePairListReply,
    NodePairReject, NodePairRejected, NodePairRemove, NodePairRequest, NodePairResolved,
    NodePairing, NodePendingEnqueue, NodePendingEnqueueParams, NodePendingEnqueued,
    NodePresenceChange, NodeRemoved, NodeRename, NodeRenameParams, NodeRenamed, NodeRunnersChange,
    Nothing, Priority, RequestId, Work, WorkKind,
};
pub(crate) use node_published::{
    NodeIssue, NodePluginTools, NodePluginToolsKept, NodePluginToolsUpdate, NodeRunnerInventory,
    NodeRunnerInventoryKept, NodeRunnerInventoryUpdate, NodeSkill, NodeSkillName, NodeSkills,
    NodeSkillsKept, NodeSkillsUpdate, NodeTool, WorkerHost, WorkerSlots,
};
pub(crate) use node_side::{
    Heard, NodeError, NodeEvent, NodeEventParams, NodeEventReply, NodeInvokeProgress,
    NodeInvokeProgressParams, NodeInvokeResult, NodeInvokeResultParams, NodePendingAck,
    NodePendingAckParams, NodePendingAcked, NodePendingActions, NodePendingDrain,
    NodePendingDrainParams, NodePendingDrained, NodePendingPull, PendingAction,
};
pub(crate) use object::Object;
pub(crate) use role::Role;
pub(crate) use scope::Scope;
pub(crate) use system::{
    GatewayIdentity, GatewayIdentityGet, NoParams, Nobody, PresenceEntry, Strictly, SystemEvent,
    SystemEventParams, SystemPresence, UsersSelf,
};
pub(crate) use voicewake::{
    VoicewakeGet, VoicewakeRoutingGet, VoicewakeSet, VoicewakeSetParams, WakeRoutingReply,
    WakeWords,
};

/// The protocol version we speak.
pub(crate) const VERSION: u32 = 4;
/// The oldest version that a node or a probe may offer alone.
pub(crate) const OLDEST_VERSION: u32 = 3;
