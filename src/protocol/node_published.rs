//! The methods by which a node publishes what it has beside its commands: tools, skills, and whether
//! it hosts workers.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    Access,
    method::methods,
    object::{list, maybe},
};

methods! {
    /// The tools that the node's plugins and MCP servers have, in place of those told before.
    NodePluginToolsUpdate = "node.pluginTools.update", Access::Node, NodePluginTools => NodePluginToolsKept;
    /// The skills that the node has, in place of those told before.
    NodeSkillsUpdate = "node.skills.update", Access::Node, NodeSkills => NodeSkillsKept;
    /// Whether the node hosts workers, in place of what it told before.
    NodeRunnerInventoryUpdate =
        "node.runnerInventory.update", Access::Node, NodeRunnerInventory => NodeRunnerInventoryKept;
}

/// `NodePluginToolsUpdateParams`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodePluginTools {
    /// All of them.
    #[serde(deserialize_with = "list")]
    pub(crate) tools: Vec<NodeTool>,
}

/// A tool of a node, which is called by a command of the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NodeTool {
    /// Whose tool it is; `node-mcp` for the node's own MCP servers.
    pub(crate) plugin_id: String,
    /// A letter, then letters, digits, `_` and `-`; at most 64.
    pub(crate) name: String,
    /// For who chooses among tools.
    pub(crate) description: String,
    /// A JSON schema of what it takes.
    #[serde(default = "any_parameters")]
    pub(crate) parameters: Map<String, Value>,
    /// The command that calls it; without one nobody can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) command: Option<String>,
    /// Which tool of which MCP server it is.
    #[serde(deserialize_with = "maybe")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mcp: Option<McpTool>,
}

/// A tool of an MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct McpTool {
    /// The server's name on the node.
    pub(crate) server: String,
    /// The tool's name on the server.
    pub(crate) tool: String,
}

fn any_parameters() -> Map<String, Value> {
    Map::from_iter([
        ("type".to_owned(), "object".into()),
        ("properties".to_owned(), Value::Object(Map::new())),
        ("additionalProperties".to_owned(), true.into()),
    ])
}

/// Reply of `node.pluginTools.update`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodePluginToolsKept {
    /// The node's device.
    pub(crate) node_id: String,
    /// Those that can be called now.
    pub(crate) tools: Vec<NodeTool>,
}

/// `NodeSkillsUpdateParams`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeSkills {
    /// All of them, at most 64.
    #[serde(deserialize_with = "list")]
    pub(crate) skills: Vec<NodeSkill>,
}

/// A skill of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeSkill {
    /// Small letters and digits with single `-` between them; at most 64.
    pub(crate) name: String,
    /// For who chooses among skills; at most 1,024 characters.
    pub(crate) description: String,
    /// The skill itself; at most 65,536 characters.
    pub(crate) content: String,
}

/// Reply of `node.skills.update`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeSkillsKept {
    /// The node's device.
    pub(crate) node_id: String,
    /// What was kept, by name.
    pub(crate) skills: Vec<NodeSkill>,
}

/// A skill without its content, as `node.describe` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeSkillName {
    /// Its name.
    pub(crate) name: String,
    /// What it is for.
    pub(crate) description: String,
}

/// Params of `node.runnerInventory.update`; the published schema has no definition of them, the
/// running gateway reads them so.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NodeRunnerInventory {
    /// How its supervisor of workers speaks: one word, or none.
    pub(crate) protocol_features: Vec<String>,
    /// Whether it hosts workers, in the words of today.
    #[serde(default)]
    pub(crate) worker_host: Option<Value>,
    /// The same in older words.
    #[serde(default)]
    pub(crate) worker_runs: Option<Value>,
}

/// `workerHost` of `node.runnerInventory.update`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct WorkerHost {
    /// Whether it does.
    pub(crate) enabled: bool,
    /// How many; only where it does.
    #[serde(default)]
    pub(crate) capacity: Option<WorkerSlots>,
    /// Abilities of the supervisor, 1 where it has one.
    #[serde(default)]
    pub(crate) bundle_prewarm: Option<u8>,
    /// Likewise.
    #[serde(default)]
    pub(crate) bundle_retention: Option<u8>,
    /// Likewise.
    #[serde(default)]
    pub(crate) bundle_status: Option<u8>,
    /// Likewise.
    #[serde(default)]
    pub(crate) portal_stream: Option<u8>,
    /// Likewise.
    #[serde(default)]
    pub(crate) environment_session: Option<u8>,
    /// Likewise.
    #[serde(default)]
    pub(crate) prepared_workspace: Option<u8>,
    /// Likewise, `true` where it has it.
    #[serde(default)]
    pub(crate) captured_exec_policy: Option<bool>,
}

/// How many workers fit on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WorkerSlots {
    /// In all, 1 to 1,024.
    pub(crate) total: u32,
    /// Now.
    pub(crate) available: u32,
}

/// Reply of `node.runnerInventory.update`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRunnerInventoryKept {
    /// The node's device.
    pub(crate) node_id: String,
}

/// What a person should do about a node, as `node.list` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeIssue {
    /// `update-required`.
    pub(crate) code: String,
    /// `update-and-reconnect`.
    pub(crate) action: String,
    /// What to type on the node.
    pub(crate) update_command: String,
    /// What to type there afterwards.
    pub(crate) headless_reconnect_command: String,
}

impl NodeIssue {
    /// The node's supervisor of workers is too old.
    pub(crate) fn outdated() -> Self {
        Self {
            code: "update-required".to_owned(),
            action: "update-and-reconnect".to_owned(),
            update_command: "openclaw update".to_owned(),
            headless_reconnect_command: "openclaw node restart".to_owned(),
        }
    }
}
