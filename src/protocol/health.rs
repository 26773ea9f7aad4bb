//! The methods `health` and `status`: how the gateway is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Access, Scope, method::methods};

methods! {
    /// The health summary, also the payload of the event `health`.
    HealthMethod = "health", Access::Anyone, HealthParams => Health;
    /// Versions, sessions and resources.
    StatusMethod = "status", Access::Holder(Scope::Read), StatusParams => Status;
}

/// Parameters of `health`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct HealthParams {
    /// Look again now, and tell every client.
    pub(crate) probe: bool,
}

/// Parameters of `status`; others are ignored, as the reference gateway does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StatusParams {
    /// Whether to say what the command line would read from the configuration.
    pub(crate) include_cli_projection: bool,
}

/// The health summary (`Snapshot.health`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Health {
    /// True while what is to last is stored; as published it is never false, so that it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ok: Option<bool>,
    /// When it was taken, milliseconds since 1970.
    pub(crate) ts: u64,
    /// How long it took, milliseconds.
    pub(crate) duration_ms: u64,
    /// Plugins.
    pub(crate) plugins: Plugins,
    /// State of each channel.
    pub(crate) channels: BTreeMap<String, serde_json::Value>,
    /// The order to show them in.
    pub(crate) channel_order: Vec<String>,
    /// Their names for people.
    pub(crate) channel_labels: BTreeMap<String, String>,
    /// The agent that answers where none is named.
    pub(crate) default_agent_id: String,
    /// Every agent.
    pub(crate) agents: Vec<AgentHealth>,
    /// Chat sessions of the default agent.
    pub(crate) sessions: SessionSummary,
}

/// One agent in the health summary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AgentHealth {
    /// Its id.
    pub(crate) agent_id: String,
    /// Its name, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// Whether it answers where none is named.
    pub(crate) is_default: bool,
    /// When it acts by itself.
    pub(crate) heartbeat: HealthBeat,
    /// Its chat sessions.
    pub(crate) sessions: SessionSummary,
}

/// When an agent acts by itself, by what words and for whom: here none does, by no words, for nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct HealthBeat {
    /// When.
    #[serde(flatten)]
    pub(crate) beat: Beat,
    /// What it is told.
    pub(crate) prompt: String,
    /// Who hears of it.
    pub(crate) target: String,
    /// How many characters it may say where there is nothing to say.
    pub(crate) ack_max_chars: u64,
}

impl Default for HealthBeat {
    fn default() -> Self {
        Self {
            beat: Beat::default(),
            prompt: String::new(),
            target: "none".to_owned(),
            ack_max_chars: 0,
        }
    }
}

/// When an agent acts by itself. Here none does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Beat {
    /// Whether it does.
    pub(crate) enabled: bool,
    /// How often, for people; `disabled` where it does not.
    pub(crate) every: String,
    /// The same in milliseconds; null where it does not.
    pub(crate) every_ms: Option<u64>,
}

impl Default for Beat {
    fn default() -> Self {
        Self { enabled: false, every: "disabled".to_owned(), every_ms: None }
    }
}

/// Plugins: we have none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plugins {
    /// Names of the loaded ones.
    pub(crate) loaded: Vec<String>,
    /// Those that failed.
    pub(crate) errors: Vec<serde_json::Value>,
}

/// Chat sessions at a glance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct SessionSummary {
    /// Where they are stored.
    pub(crate) path: String,
    /// How many there are.
    pub(crate) count: u64,
    /// The latest.
    pub(crate) recent: Vec<serde_json::Value>,
}

/// Reply of `status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Status {
    /// The gateway's version.
    pub(crate) runtime_version: String,
    /// Its process.
    pub(crate) pid: u32,
    /// Since its start, milliseconds.
    #[serde(default)]
    pub(crate) uptime_ms: u64,
    /// Connected clients.
    #[serde(default)]
    pub(crate) clients: u64,
    /// What the command line would read from the configuration, where it asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cli_projection: Option<CliProjection>,
    /// Scheduled turns.
    pub(crate) heartbeat: Heartbeat,
    /// One line a channel.
    pub(crate) channel_summary: Vec<String>,
    /// Events that wait for the next turn.
    pub(crate) queued_system_events: Vec<String>,
    /// Chat sessions.
    pub(crate) sessions: StatusSessions,
    /// Memory of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) process_memory: Option<ProcessMemory>,
}

/// What the command line would read from the gateway's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CliProjection {
    /// The agents.
    pub(crate) agents: ProjectedAgents,
    /// `update.channel`.
    pub(crate) update_channel: Option<String>,
    /// The plugin that remembers.
    pub(crate) memory_plugin: MemoryPlugin,
}

/// The agents, as the command line shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProjectedAgents {
    /// Which answers where none is named; `null` where one has to be named.
    pub(crate) default_id: Option<String>,
    /// `sole`, `legacy`, `explicit`: how that one is found.
    pub(crate) ownership: String,
    /// Whether one has to be named.
    pub(crate) selection_required: bool,
    /// Each.
    pub(crate) rows: Vec<ProjectedAgent>,
}

/// An agent, as the command line shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProjectedAgent {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
}

/// The plugin that remembers; this gateway runs no plugins.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemoryPlugin {
    /// Whether it runs.
    pub(crate) enabled: bool,
    /// Its name.
    pub(crate) slot: Option<String>,
}

/// Scheduled turns.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Heartbeat {
    /// The agent that answers where none is named.
    pub(crate) default_agent_id: String,
    /// Each agent's schedule.
    pub(crate) agents: Vec<AgentBeat>,
}

/// When one agent acts by itself, in `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AgentBeat {
    /// The agent.
    pub(crate) agent_id: String,
    /// When.
    #[serde(flatten)]
    pub(crate) beat: Beat,
    /// Whether it would, and does not know whom to tell.
    pub(crate) waiting_for_route: bool,
}

/// Chat sessions in `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StatusSessions {
    /// Where they are stored.
    pub(crate) paths: Vec<String>,
    /// How many there are.
    pub(crate) count: u64,
    /// What a new one starts with.
    pub(crate) defaults: SessionDefaults,
    /// The latest.
    pub(crate) recent: Vec<serde_json::Value>,
    /// The same, an agent at a time.
    pub(crate) by_agent: Vec<AgentSessions>,
}

/// One agent's chat sessions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AgentSessions {
    /// The agent.
    pub(crate) agent_id: String,
    /// The sessions.
    #[serde(flatten)]
    pub(crate) sessions: SessionSummary,
}

/// What a new chat session starts with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SessionDefaults {
    /// The model, if one is configured.
    pub(crate) model: Option<String>,
    /// Its context, if known.
    pub(crate) context_tokens: Option<u64>,
}

/// Memory of the gateway's process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessMemory {
    /// Resident, bytes.
    pub(crate) rss_bytes: u64,
}
