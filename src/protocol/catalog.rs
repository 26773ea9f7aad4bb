//! What there is to choose from: agents, models, commands, tools, channels, as configured here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Access, Scope, method::methods};

methods! {
    /// The latest scheduled turn; `null`, since none has run.
    LastHeartbeat = "last-heartbeat", Access::Holder(Scope::Read), super::NoParams => Option<Value>;
    /// The configured models.
    ModelsList = "models.list", Access::Holder(Scope::Read), ModelsListParams => ModelsListResult;
    /// The configured agents.
    AgentsList = "agents.list", Access::Holder(Scope::Read), AgentsListParams => AgentsListResult;
    /// How an agent calls itself.
    AgentIdentityGet = "agent.identity.get", Access::Holder(Scope::Read),
        AgentIdentityParams => AgentIdentityResult;
    /// The slash commands of chats.
    CommandsList = "commands.list", Access::Holder(Scope::Read),
        CommandsListParams => CommandsListResult;
    /// The tools of an agent.
    ToolsCatalog = "tools.catalog", Access::Holder(Scope::Read),
        ToolsCatalogParams => ToolsCatalogResult;
    /// How the channels are.
    ChannelsStatus = "channels.status", Access::Holder(Scope::Read),
        ChannelsStatusParams => ChannelsStatusResult;
}

/// Parameters of `models.list` (`ModelsListParams`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ModelsListParams {
    /// For which agent; all of ours see the same.
    pub(crate) agent_id: Option<String>,
    /// More about the providers, of which nothing more is known.
    pub(crate) include_provider_capabilities: bool,
    /// Only what needs no asking around; everything here is.
    pub(crate) prepared_only: bool,
    /// Ask around again; there is nothing to ask.
    pub(crate) refresh: bool,
    /// Which part; only configured models are known here, in every view.
    pub(crate) view: Option<ModelsView>,
}

/// Which part of the models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ModelsView {
    /// The usable ones.
    Default,
    /// The configured ones.
    Configured,
    /// Those of the providers in the file.
    ProviderConfig,
    /// All.
    All,
}

/// Reply of `models.list` (`ModelsListResult`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ModelsListResult {
    /// In the file's order.
    pub(crate) models: Vec<Model>,
}

/// One model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Model {
    /// The provider's name for it.
    pub(crate) id: String,
    /// For people.
    pub(crate) name: String,
    /// The provider's key.
    pub(crate) provider: String,
    /// Tokens that it reads at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) context_window: Option<u64>,
    /// Whether it thinks first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reasoning: Option<bool>,
}

/// Parameters of `agents.list` (`AgentsListParams`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgentsListParams {}

/// Reply of `agents.list` (`AgentsListResult`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentsListResult {
    /// The agent that answers where none is named; where one has to be named, the first.
    pub(crate) default_id: String,
    /// `sole`, `legacy`, `explicit`: how that one is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ownership: Option<String>,
    /// Whether one has to be named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) selection_required: Option<bool>,
    /// The key of its main session.
    pub(crate) main_key: String,
    /// `per-sender` or `global`.
    pub(crate) scope: String,
    /// Every agent.
    pub(crate) agents: Vec<Agent>,
}

/// One agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agent {
    /// Its key.
    pub(crate) id: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// How it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<AgentIdentity>,
    /// Its folder, where one is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) workspace: Option<String>,
    /// Its models, where they are configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model: Option<AgentModel>,
}

/// How an agent calls itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgentIdentity {
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Its manner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) theme: Option<String>,
    /// Its sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) emoji: Option<String>,
    /// Its picture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) avatar: Option<String>,
}

/// The models of an agent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AgentModel {
    /// The first choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) primary: Option<String>,
    /// The others, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) fallbacks: Vec<String>,
}

/// Parameters of `agent.identity.get` (`AgentIdentityParams`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct AgentIdentityParams {
    /// Which agent; the default one if it is not said.
    pub(crate) agent_id: Option<String>,
    /// A session of the agent: `agent:ID:…`.
    pub(crate) session_key: Option<String>,
}

/// Reply of `agent.identity.get` (`AgentIdentityResult`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentIdentityResult {
    /// Its key.
    pub(crate) agent_id: String,
    /// Its name.
    pub(crate) name: String,
    /// `config`, or `default` where none is configured.
    pub(crate) name_source: String,
    /// Its picture, or a letter.
    pub(crate) avatar: String,
    /// Its sign.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) emoji: Option<String>,
}

/// Parameters of `commands.list` (`CommandsListParams`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct CommandsListParams {
    /// For which session.
    pub(crate) session_key: Option<String>,
    /// For which agent.
    pub(crate) agent_id: Option<String>,
    /// For which channel.
    pub(crate) provider: Option<String>,
    /// `text`, `native` or `both`.
    pub(crate) scope: Option<CommandScope>,
    /// Whether arguments are told too.
    pub(crate) include_args: Option<bool>,
}

/// How a command is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CommandScope {
    /// As text.
    Text,
    /// In the chat's own way.
    Native,
    /// In both.
    Both,
}

/// Reply of `commands.list` (`CommandsListResult`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CommandsListResult {
    /// None: there are no chats here.
    pub(crate) commands: Vec<Value>,
}

/// Parameters of `tools.catalog` (`ToolsCatalogParams`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ToolsCatalogParams {
    /// Which agent; the default one if it is not said.
    pub(crate) agent_id: Option<String>,
    /// Whether tools of plugins count.
    pub(crate) include_plugins: Option<bool>,
}

/// Reply of `tools.catalog` (`ToolsCatalogResult`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToolsCatalogResult {
    /// The agent.
    pub(crate) agent_id: String,
    /// Sets of tools; none.
    pub(crate) profiles: Vec<Value>,
    /// Tools; none, since no agent runs here.
    pub(crate) groups: Vec<Value>,
}

/// Parameters of `channels.status` (`ChannelsStatusParams`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct ChannelsStatusParams {
    /// Look again now.
    pub(crate) probe: Option<bool>,
    /// How long that may take.
    pub(crate) timeout_ms: Option<u64>,
    /// Only this one.
    pub(crate) channel: Option<String>,
}

/// Reply of `channels.status` (`ChannelsStatusResult`): no channel runs here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChannelsStatusResult {
    /// When it was taken, milliseconds since 1970.
    pub(crate) ts: u64,
    /// The order to show them in.
    pub(crate) channel_order: Vec<String>,
    /// Their names for people.
    pub(crate) channel_labels: BTreeMap<String, String>,
    /// State of each.
    pub(crate) channels: BTreeMap<String, Value>,
    /// Accounts of each.
    pub(crate) channel_accounts: BTreeMap<String, Value>,
    /// The account to use where none is named.
    pub(crate) channel_default_account_id: BTreeMap<String, String>,
}
