//! Shapes of what methods take and hand on as it came: held against the published ones, and kept.
//!
//! Nobody here reads these fields. They are written down so that one that is not published is
//! refused by its name wherever it stands.

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned, de::Error};
use serde_json::{Map, Value};

/// Reads a value that has to be as `T` is, and keeps it as it came; null is nothing.
pub(super) fn shaped<'de, T, D>(deserializer: D) -> Result<Option<Value>, D::Error>
where
    T: DeserializeOwned,
    D: Deserializer<'de>,
{
    let value = Value::deserialize(deserializer)?;
    Option::<T>::deserialize(&value).map_err(D::Error::custom)?;
    Ok(Some(value).filter(|value| !value.is_null()))
}

/// Reads what is left of `ExecApprovalRequestParams`: published names only, and those of its parts
/// that are objects in their shapes.
pub(super) fn rest_of_ask<'de, D>(deserializer: D) -> Result<Map<String, Value>, D::Error>
where
    D: Deserializer<'de>,
{
    let rest = Map::<String, Value>::deserialize(deserializer)?;
    for (name, value) in &rest {
        let read = match name.as_str() {
            "scope" => Option::<ActionScope>::deserialize(value).map(drop),
            "commandSpans" => Option::<Vec<CommandSpan>>::deserialize(value).map(drop),
            known if ASK_FIELDS.contains(&known) => Ok(()),
            strange => Err(Error::custom(format!("at root: unexpected property {strange:?}"))),
        };
        read.map_err(D::Error::custom)?;
    }
    Ok(rest)
}

/// What `exec.approval.request` may carry besides what we read (`ExecApprovalRequestParams`).
const ASK_FIELDS: [&str; 22] = [
    "commandArgv",
    "cwd",
    "security",
    "ask",
    "warningText",
    "unavailableDecisions",
    "agentId",
    "resolvedPath",
    "sessionKey",
    "sessionId",
    "runId",
    "toolCallId",
    "turnSourceChannel",
    "turnSourceTo",
    "turnSourceAccountId",
    "turnSourceThreadId",
    "approvalReviewerDeviceIds",
    "requireDeliveryRoute",
    "suppressDelivery",
    "deliverToApprovalClientsOnly",
    "commandPreview",
    "reason",
];

/// `scope` of `ExecApprovalRequestParams`: what an action reaches.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[serde(deny_unknown_fields)]
enum ActionScope {
    /// Messages to people.
    MessageSend {
        target: String,
        recipient_count: u32,
        #[serde(default)]
        recipients: Option<Vec<String>>,
        #[serde(default)]
        audience: Option<String>,
    },
    /// Money.
    Payment { amount: String, currency: String, target: String },
    /// Something that others can read.
    ExternalPost { target: String, visibility: String },
    /// Leave for an automation.
    StandingGrant {
        automation: String,
        command: String,
        #[serde(default)]
        expires_in_days: Option<u32>,
    },
}

/// `commandSpans` of `ExecApprovalRequestParams`: a part of the command to set off.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CommandSpan {
    start_index: u64,
    end_index: u64,
}

/// `policySnapshot` of a plan: the node's rules when it was made.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct PolicySnapshot {
    security: String,
    ask: String,
    ask_fallback: String,
    auto_allow_skills: bool,
    allowlist_rules: Vec<AllowlistRule>,
}

/// A rule in such a snapshot.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AllowlistRule {
    pattern: String,
    #[serde(default)]
    arg_pattern: Option<String>,
    #[serde(default)]
    source: Option<String>,
}

/// `mutableFileOperand` of a plan: a file that would run, with its digest.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileOperand {
    argv_index: u64,
    path: String,
    sha256: String,
}

/// `reviewer` of `ExecApprovalResolveParams`: whom a channel names as the person.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Reviewer {
    channel: String,
    account_id: String,
    sender_id: String,
}

/// `native` of `ExecApprovalsNodeSetParams`: the rules of a node that has its own form of them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct NativeRules {
    #[serde(default)]
    default_action: Option<String>,
    rules: Vec<NativeRule>,
}

/// One of them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NativeRule {
    pattern: String,
    action: String,
    #[serde(default)]
    shells: Option<Vec<String>>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    enabled: Option<bool>,
}

/// `deliveryContext` of `ConfigPatchParams` and `ConfigApplyParams`: where to report a restart.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct DeliveryContext {
    #[serde(default)]
    channel: Option<String>,
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    account_id: Option<String>,
    #[serde(default)]
    thread_id: Option<Value>,
}
