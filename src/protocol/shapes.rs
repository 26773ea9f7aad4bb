//! Shapes of what methods take and hand on as it came: held against the published ones, and kept.
//!
//! Nobody here reads these fields. They are written down so that one that is not published, or whose
//! value is not as published, is refused by its name wherever it stands.

use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned, de::Error};
use serde_json::{Map, Number, Value};

use super::{
    exec_rules::{Ask, Filled, Remembered, Security},
    object::{Object, list, maybe, maybe_list},
};

/// Reads a value that has to be as `T` is, an object, and keeps it as it came; null is nothing.
pub(super) fn shaped<'de, T, D>(deserializer: D) -> Result<Option<Value>, D::Error>
where
    T: DeserializeOwned,
    D: Deserializer<'de>,
{
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(None);
    }
    serde_path_to_error::deserialize::<_, Object<T>>(&value).map_err(D::Error::custom)?;
    Ok(Some(value))
}

/// Reads what is left of `ExecApprovalRequestParams`, as published; null is nothing.
pub(super) fn rest_of_ask<'de, D>(deserializer: D) -> Result<Map<String, Value>, D::Error>
where
    D: Deserializer<'de>,
{
    let mut rest = Map::<String, Value>::deserialize(deserializer)?;
    rest.retain(|_, value| !value.is_null());
    serde_path_to_error::deserialize::<_, RestOfAsk>(&rest).map_err(D::Error::custom)?;
    Ok(rest)
}

/// What `exec.approval.request` may carry besides what we read (`ExecApprovalRequestParams`).
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct RestOfAsk {
    command_argv: Option<Vec<String>>,
    cwd: Option<String>,
    security: Option<String>,
    ask: Option<String>,
    warning_text: Option<String>,
    #[serde(deserialize_with = "maybe")]
    scope: Option<ActionScope>,
    /// One, and no other word.
    unavailable_decisions: Option<[Remembered; 1]>,
    #[serde(deserialize_with = "maybe_list")]
    command_spans: Option<Vec<CommandSpan>>,
    agent_id: Option<String>,
    resolved_path: Option<String>,
    session_key: Option<String>,
    session_id: Option<String>,
    run_id: Option<String>,
    tool_call_id: Option<String>,
    turn_source_channel: Option<String>,
    turn_source_to: Option<String>,
    turn_source_account_id: Option<String>,
    turn_source_thread_id: Option<ThreadId>,
    approval_reviewer_device_ids: Option<Vec<Filled>>,
    require_delivery_route: Option<bool>,
    suppress_delivery: Option<bool>,
    deliver_to_approval_clients_only: Option<bool>,
}

/// A thread of a channel: text or a number, as the channel has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a thread is text or a number")]
pub(crate) enum ThreadId {
    /// As text.
    Text(String),
    /// As a number.
    Number(Number),
}

/// `scope` of `ExecApprovalRequestParams`: what an action reaches.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[serde(deny_unknown_fields)]
enum ActionScope {
    /// Messages to people.
    MessageSend {
        target: String,
        recipient_count: NonZeroU32,
        #[serde(default)]
        recipients: Option<Vec<String>>,
        #[serde(default)]
        audience: Option<Audience>,
    },
    /// Money.
    Payment { amount: String, currency: String, target: String },
    /// Something that others can read.
    ExternalPost { target: String, visibility: Visibility },
    /// Leave for an automation.
    StandingGrant {
        automation: String,
        command: String,
        #[serde(default)]
        expires_in_days: Option<NonZeroU32>,
    },
}

/// Who reads a message.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Audience {
    Internal,
    External,
}

/// Who can read a post.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Visibility {
    Public,
    Restricted,
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
    security: Security,
    ask: Ask,
    ask_fallback: Security,
    auto_allow_skills: bool,
    #[serde(deserialize_with = "list")]
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
    source: Option<Remembered>,
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
    default_action: Option<NativeAction>,
    #[serde(deserialize_with = "list")]
    rules: Vec<NativeRule>,
}

/// One of them.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NativeRule {
    pattern: Filled,
    action: NativeAction,
    #[serde(default)]
    shells: Option<Vec<String>>,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    enabled: Option<bool>,
}

/// What such a node does with what a rule is about.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NativeAction {
    Allow,
    Deny,
    Prompt,
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
    thread_id: Option<ThreadId>,
}
