//! The methods `exec.approval.*` and `exec.approvals.node.*`: a person decides what a node runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{
    Access, Connect, NoParams, NodeId, Scope,
    exec_rules::{Filled, HostRules},
    method::methods,
    object::maybe,
    shapes::{FileOperand, NativeRules, PolicySnapshot, Reviewer, rest_of_ask, shaped},
};

methods! {
    /// Asks a person for a decision.
    ExecApprovalRequest =
        "exec.approval.request", Access::Holder(Scope::Approvals), ExecApprovalAsk => ExecApprovalAsked;
    /// One request that waits.
    ExecApprovalGet =
        "exec.approval.get", Access::Holder(Scope::Approvals), ExecApprovalId => ExecApprovalShown;
    /// The requests that wait and that the caller may see.
    ExecApprovalList =
        "exec.approval.list", Access::Holder(Scope::Approvals), NoParams => Vec<ExecApprovalPending>;
    /// Waits for a decision.
    ExecApprovalWait =
        "exec.approval.waitDecision", Access::Holder(Scope::Approvals), ExecApprovalAwaited => ExecApprovalEnded;
    /// Decides.
    ExecApprovalResolve =
        "exec.approval.resolve", Access::Holder(Scope::Approvals), ExecApprovalDecide => Done;
    /// The standing grants of automations; none, since none runs here that could be given one.
    ExecApprovalGrantsList = "exec.approval.grants.list", Access::Holder(Scope::Approvals),
        ExecApprovalGrantsListParams => ExecApprovalGrants;
    /// Takes one back; `not-found`, since there is none.
    ExecApprovalGrantsRevoke = "exec.approval.grants.revoke", Access::Holder(Scope::Approvals),
        ExecApprovalGrantsRevokeParams => ExecApprovalGrantRevoked;
    /// The rules by which a node itself asks before it runs something.
    ExecApprovalsNodeGet = "exec.approvals.node.get", Access::Holder(Scope::Admin), NodeId => Value;
    /// Replaces them.
    ExecApprovalsNodeSet =
        "exec.approvals.node.set", Access::Holder(Scope::Admin), ExecApprovalsNodeSetParams => Value;
}

/// Clients that show requests to a person whatever they say of themselves.
const SHOWING: [&str; 4] =
    ["openclaw-control-ui", "openclaw-macos", "openclaw-ios", "openclaw-android"];
/// Capabilities by which any other says that it does.
const SHOWS: [&str; 2] = ["approvals", "exec-approvals"];

/// Whether a client that connects so shows requests to a person, as the reference gateway tells.
pub(crate) fn shows_approvals(connect: &Connect) -> bool {
    SHOWING.contains(&connect.client.id.as_str())
        || connect.caps.iter().any(|cap| SHOWS.contains(&cap.as_str()))
}

/// What a person decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Decision {
    /// This once.
    AllowOnce,
    /// This once, and the node may remember it.
    AllowAlways,
    /// No.
    Deny,
}

impl Decision {
    /// Its name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AllowOnce => "allow-once",
            Self::AllowAlways => "allow-always",
            Self::Deny => "deny",
        }
    }

    /// The decision of this name.
    pub(crate) fn of(name: &str) -> Option<Self> {
        [Self::AllowOnce, Self::AllowAlways, Self::Deny].into_iter().find(|it| it.name() == name)
    }
}

/// What exactly a node runs, made by the node itself (`systemRunPlan`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RunPlan {
    /// The one argument vector.
    pub(crate) argv: Vec<String>,
    /// Where.
    pub(crate) cwd: Option<String>,
    /// The vector as it is shown.
    pub(crate) command_text: String,
    /// A shorter form.
    #[serde(default)]
    pub(crate) command_preview: Option<String>,
    /// For which agent.
    pub(crate) agent_id: Option<String>,
    /// For which chat session.
    pub(crate) session_key: Option<String>,
    /// The file that would run, with its digest; the node checks it again.
    #[serde(default, deserialize_with = "shaped::<FileOperand, _>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mutable_file_operand: Option<Value>,
    /// The node's rules at that time.
    #[serde(default, deserialize_with = "shaped::<PolicySnapshot, _>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy_snapshot: Option<Value>,
}

impl RunPlan {
    /// Whether what `params` of `system.run` say of command, place, agent and session is this.
    pub(crate) fn agrees_with(&self, params: &Map<String, Value>) -> bool {
        [
            ("command", json!(self.argv)),
            ("cwd", json!(self.cwd)),
            ("agentId", json!(self.agent_id)),
            ("sessionKey", json!(self.session_key)),
        ]
        .into_iter()
        .all(|(name, own)| params.get(name).is_none_or(|said| said.is_null() || *said == own))
    }

    /// Puts the plan, and nothing else, into the parameters of `system.run`.
    pub(crate) fn write_to(&self, params: &mut Map<String, Value>) {
        for (name, own) in [
            ("command", json!(self.argv)),
            ("rawCommand", json!(self.command_text)),
            ("systemRunPlan", json!(self)),
            ("cwd", json!(self.cwd)),
            ("agentId", json!(self.agent_id)),
            ("sessionKey", json!(self.session_key)),
        ] {
            if own.is_null() {
                params.remove(name);
            } else {
                params.insert(name.to_owned(), own);
            }
        }
    }
}

/// `ExecApprovalRequestParams`; what only decorates a request is kept as it came.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecApprovalAsk {
    /// Chosen by the caller, or made here.
    #[serde(default)]
    pub(crate) id: Option<String>,
    /// The command as it is shown, where there is no plan.
    #[serde(default)]
    pub(crate) command: Option<String>,
    /// What exactly runs; needed for `host: "node"`.
    #[serde(default, deserialize_with = "maybe")]
    pub(crate) system_run_plan: Option<RunPlan>,
    /// With which environment.
    #[serde(default)]
    pub(crate) env: Option<BTreeMap<String, String>>,
    /// On which node; needed for `host: "node"`.
    #[serde(default)]
    pub(crate) node_id: Option<String>,
    /// `node`, `gateway`, …
    #[serde(default)]
    pub(crate) host: Option<String>,
    /// How long to wait, milliseconds.
    #[serde(default)]
    pub(crate) timeout_ms: Option<u64>,
    /// Answer at once, and let the caller wait with `exec.approval.waitDecision`.
    #[serde(default)]
    pub(crate) two_phase: Option<bool>,
    /// The rest; published names only.
    #[serde(flatten, deserialize_with = "rest_of_ask")]
    pub(crate) rest: Map<String, Value>,
}

/// `ExecApprovalGetParams`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecApprovalId {
    /// The request.
    pub(crate) id: String,
}

/// Parameters of `exec.approval.waitDecision`, of which the schema says nothing; strangers are
/// ignored, as the reference gateway does.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ExecApprovalAwaited {
    /// The request.
    pub(crate) id: String,
}

/// `ExecApprovalResolveParams`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExecApprovalDecide {
    /// The request.
    pub(crate) id: String,
    /// `allow-once`, `allow-always`, `deny`.
    pub(crate) decision: String,
    /// Whom a channel names as the person; not believed, not used.
    #[serde(default, deserialize_with = "shaped::<Reviewer, _>")]
    pub(crate) reviewer: Option<Value>,
    /// For how long an automation keeps what it is granted; none runs here.
    #[serde(default)]
    pub(crate) grant_expires_in_days: Option<u32>,
}

/// `ExecApprovalsNodeSetParams`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExecApprovalsNodeSetParams {
    /// The node's device.
    pub(crate) node_id: String,
    /// The rules; the node reads them.
    #[serde(default, deserialize_with = "shaped::<HostRules, _>")]
    pub(crate) file: Option<Value>,
    /// The rules of a node that has its own form of them.
    #[serde(default, deserialize_with = "shaped::<NativeRules, _>")]
    pub(crate) native: Option<Value>,
    /// What the caller believes they are now.
    #[serde(default)]
    pub(crate) base_hash: Option<Filled>,
}

/// Reply of `exec.approval.request`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum ExecApprovalAsked {
    /// The caller waits by itself.
    Accepted(ExecApprovalAccepted),
    /// It is over.
    Answered(ExecApprovalAnswer),
}

/// A request that waits from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecApprovalAccepted {
    /// `accepted`.
    pub(crate) status: &'static str,
    /// The request.
    pub(crate) id: String,
    /// `approval-client` where somebody else was told of it who shows such requests to a person,
    /// `none` where nobody was.
    pub(crate) delivery_route: &'static str,
    /// Milliseconds since 1970.
    pub(crate) created_at_ms: u64,
    /// Milliseconds since 1970.
    pub(crate) expires_at_ms: u64,
}

/// How a request ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecApprovalAnswer {
    /// The request.
    pub(crate) id: String,
    /// `None` where nobody decided in time.
    pub(crate) decision: Option<Decision>,
    /// Milliseconds since 1970.
    pub(crate) created_at_ms: u64,
    /// Milliseconds since 1970.
    pub(crate) expires_at_ms: u64,
}

/// Reply of `exec.approval.waitDecision`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecApprovalEnded {
    /// How it ended.
    #[serde(flatten)]
    pub(crate) answer: ExecApprovalAnswer,
    /// `user` where somebody decided, `timeout` where nobody did in time.
    pub(crate) terminal_reason: &'static str,
}

/// A request that waits, and payload of `exec.approval.requested`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecApprovalPending {
    /// `exec`: the reference gateway lists requests of other kinds beside these.
    pub(crate) approval_kind: &'static str,
    /// The request.
    pub(crate) id: String,
    /// What it is about.
    pub(crate) request: Value,
    /// Milliseconds since 1970.
    pub(crate) created_at_ms: u64,
    /// Milliseconds since 1970.
    pub(crate) expires_at_ms: u64,
}

/// Reply of `exec.approval.get`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecApprovalShown {
    /// The request.
    pub(crate) id: String,
    /// What would run.
    pub(crate) command_text: Value,
    /// A shorter form.
    pub(crate) command_preview: Value,
    /// What may be decided.
    pub(crate) allowed_decisions: Vec<Decision>,
    /// `node`, …
    pub(crate) host: Value,
    /// On which node.
    pub(crate) node_id: Value,
    /// For which agent.
    pub(crate) agent_id: Value,
    /// Milliseconds since 1970.
    pub(crate) expires_at_ms: u64,
}

/// Payload of `exec.approval.resolved`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ExecApprovalResolved {
    /// The request.
    pub(crate) id: String,
    /// What was decided; `None` where nobody did in time.
    pub(crate) decision: Option<Decision>,
    /// By which client.
    pub(crate) resolved_by: Option<String>,
    /// Milliseconds since 1970.
    pub(crate) ts: u64,
    /// What it was about.
    pub(crate) request: Value,
}

/// `ExecApprovalGrantsListParams`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecApprovalGrantsListParams {
    /// How many at most.
    #[serde(default)]
    pub(crate) limit: Option<GrantLimit>,
}

/// How many grants at most, 1 to 500.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u64")]
pub(crate) struct GrantLimit;

impl TryFrom<u64> for GrantLimit {
    type Error = &'static str;

    fn try_from(limit: u64) -> Result<Self, Self::Error> {
        if (1..=500).contains(&limit) { Ok(Self) } else { Err("limit must be 1 to 500") }
    }
}

/// Reply of `exec.approval.grants.list` (`ExecApprovalGrantsListResult`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct ExecApprovalGrants {
    /// None: a grant belongs to an automation, and no automation runs here.
    pub(crate) grants: Vec<Value>,
}

/// `ExecApprovalGrantsRevokeParams`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExecApprovalGrantsRevokeParams {
    /// The grant.
    pub(crate) grant_id: Filled,
}

/// Reply of `exec.approval.grants.revoke` (`ExecApprovalGrantsRevokeResult`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct ExecApprovalGrantRevoked {
    /// What came of it.
    pub(crate) outcome: GrantOutcome,
}

/// What came of taking a grant back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum GrantOutcome {
    /// There is none of this id.
    NotFound,
}

/// Done, with nothing more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Done {
    /// Always true.
    pub(crate) ok: bool,
}
