//! The methods `exec.approvals.get` and `exec.approvals.set`: the rules by which programs may run on
//! the gateway's own host.
//!
//! A node's rules have the same form, and pass through here as they came.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Number;

use super::{
    Access, Nothing, Scope,
    method::methods,
    object::{maybe, maybe_list, maybe_named, one},
};
use crate::secret::Secret;

methods! {
    /// The rules by which programs may run on the gateway's own host, without the socket's token.
    ExecApprovalsGet = "exec.approvals.get", Access::Holder(Scope::Admin), Nothing => HostRulesShown;
    /// Puts others in their place; once there are any, only for who names those that it read.
    ExecApprovalsSet =
        "exec.approvals.set", Access::Holder(Scope::Admin), ExecApprovalsSetParams => HostRulesShown;
}

/// `ExecApprovalsSetParams`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ExecApprovalsSetParams {
    /// The rules, all of them.
    #[serde(deserialize_with = "one")]
    pub(crate) file: HostRules,
    /// The hash of the rules that the caller read.
    #[serde(default)]
    pub(crate) base_hash: Option<Filled>,
}

/// Reply of both (`ExecApprovalsSnapshot`).
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct HostRulesShown {
    /// Where they are kept, for people.
    pub(crate) path: String,
    /// Whether anybody ever gave any.
    pub(crate) exists: bool,
    /// What a change must name.
    pub(crate) hash: String,
    /// The rules, without the socket's token.
    pub(crate) file: HostRules,
    /// What holds where they say nothing of an agent.
    pub(crate) resolved_defaults: ResolvedRules,
}

/// A document of rules (`file` in `ExecApprovalsSnapshot` and `ExecApprovalsNodeSetParams`). The
/// schema takes any text for its words; one that nobody knows is refused, since whoever drops it
/// falls back to what allows more.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HostRules {
    /// The form of the document.
    pub(crate) version: FirstForm,
    /// Where a program asks that shows requests on this host.
    #[serde(deserialize_with = "maybe")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) socket: Option<RulesSocket>,
    /// What holds where an agent has nothing else.
    #[serde(deserialize_with = "maybe")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) defaults: Option<DefaultRules>,
    /// What holds for an agent; `*` is every one.
    #[serde(deserialize_with = "maybe_named")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) agents: Option<BTreeMap<String, AgentRules>>,
}

/// The number 1, the only form that there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub(crate) struct FirstForm;

impl TryFrom<u64> for FirstForm {
    type Error = &'static str;

    fn try_from(version: u64) -> Result<Self, Self::Error> {
        if version == 1 { Ok(Self) } else { Err("version must be 1") }
    }
}

impl From<FirstForm> for u64 {
    fn from(FirstForm: FirstForm) -> Self {
        1
    }
}

/// Where a program asks, and how it shows who it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RulesSocket {
    /// The socket's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    /// What opens it; never in a reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Secret>,
}

/// What holds where an agent has nothing else.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DefaultRules {
    /// Which programs may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) security: Option<Security>,
    /// When a person is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ask: Option<Ask>,
    /// Which programs may run where nobody can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ask_fallback: Option<Security>,
    /// Whether the programs of skills count as listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) auto_allow_skills: Option<bool>,
}

/// What holds for an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct AgentRules {
    /// Which programs may run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) security: Option<Security>,
    /// When a person is asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ask: Option<Ask>,
    /// Which programs may run where nobody can be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ask_fallback: Option<Security>,
    /// Whether the programs of skills count as listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) auto_allow_skills: Option<bool>,
    /// The listed programs.
    #[serde(deserialize_with = "maybe_list")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) allowlist: Option<Vec<Listed>>,
    /// Tools of MCP servers that a person allowed for good.
    #[serde(deserialize_with = "maybe_list")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mcp_tools: Option<Vec<McpGrant>>,
}

/// Which programs may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Security {
    /// None.
    Deny,
    /// The listed ones.
    Allowlist,
    /// All.
    Full,
}

/// When a person is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// Never.
    Off,
    /// Where a program is not listed.
    OnMiss,
    /// Each time.
    Always,
}

/// A listed program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Listed {
    /// Its own; one is made where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<Filled>,
    /// A name, or a path with `*` and `**`.
    pub(crate) pattern: String,
    /// Where it came from; left out for a person's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<Remembered>,
    /// The command in older documents; not kept.
    #[serde(default, skip_serializing)]
    pub(crate) command_text: Option<String>,
    /// Which arguments it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) arg_pattern: Option<String>,
    /// When it was last used, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_used_at: Option<Millis>,
    /// For which command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_used_command: Option<String>,
    /// For which file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_resolved_path: Option<String>,
}

/// A tool of an MCP server that a person allowed for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct McpGrant {
    /// The server.
    pub(crate) server: Filled,
    /// Its tool.
    pub(crate) tool: Filled,
    /// Where it came from.
    pub(crate) source: Remembered,
    /// When, milliseconds since 1970.
    pub(crate) added_at: Millis,
    /// When it was last used, milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_used_at: Option<Millis>,
}

/// A decision for good, which made an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Remembered {
    /// The only one.
    AllowAlways,
}

/// Text that says something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Filled(pub(crate) String);

impl TryFrom<String> for Filled {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text.trim().is_empty() { Err("a text must not be blank") } else { Ok(Self(text)) }
    }
}

/// A number of milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Number")]
pub(crate) struct Millis(Number);

impl TryFrom<Number> for Millis {
    type Error = &'static str;

    fn try_from(number: Number) -> Result<Self, Self::Error> {
        let is_one = number.as_f64().is_some_and(|number| number >= 0.0);
        if is_one { Ok(Self(number)) } else { Err("a time must not be negative") }
    }
}

/// Rules with nothing left out (`resolvedDefaults` in `ExecApprovalsSnapshot`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ResolvedRules {
    /// Which programs may run.
    pub(crate) security: Security,
    /// When a person is asked.
    pub(crate) ask: Ask,
    /// Which programs may run where nobody can be asked.
    pub(crate) ask_fallback: Security,
    /// Whether the programs of skills count as listed.
    pub(crate) auto_allow_skills: bool,
}

impl HostRules {
    /// What holds where an agent has nothing else; unsaid, what the reference gateway takes.
    pub(crate) fn resolved(&self) -> ResolvedRules {
        let said = self.defaults.clone().unwrap_or_default();
        ResolvedRules {
            security: said.security.unwrap_or(Security::Full),
            ask: said.ask.unwrap_or(Ask::Off),
            ask_fallback: said.ask_fallback.unwrap_or(Security::Deny),
            auto_allow_skills: said.auto_allow_skills.unwrap_or(false),
        }
    }
}
