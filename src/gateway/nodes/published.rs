//! What a node publishes beside its commands: tools, skills, and whether it hosts workers.
//!
//! Held for its connection alone, bounded, and believed only as far as its commands are approved.
//! Pure.

use std::{collections::BTreeMap, sync::Arc};

use crate::protocol::{NodeRunnerInventory, NodeSkill, NodeTool, WorkerHost, WorkerSlots};

/// How many tools of a node are shown.
const MAX_TOOLS: usize = 128;
/// How many a node may tell of; beyond it only a frame's size would bound them.
const MAX_TOLD: usize = 1_024;
/// What is kept of a tool's description, characters.
const MAX_DESCRIPTION: usize = 1_024;
/// How many skills a node may have.
const MAX_SKILLS: usize = 64;
/// The longest skill, bytes.
const MAX_SKILL: usize = 65_536;
/// What the tools, and the skills, of one node come to at most, bytes.
const MAX_BYTES: usize = 524_288;
/// How many workers a node hosts at most.
const MAX_WORKERS: u32 = 1_024;
/// The plugin of a node's own MCP servers, and the command that calls their tools.
const MCP: (&str, &str) = ("node-mcp", "mcp.tools.call.v1");
/// How a supervisor of workers speaks today; those before it end in smaller numbers.
const SUPERVISOR: (&str, u8) = ("node-worker-supervisor-v", 6);

/// What a node has published on its connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Published {
    /// As it told, in order.
    tools: Arc<[NodeTool]>,
    skills: Arc<[NodeSkill]>,
    pub(super) runners: Runners,
}

/// Whether a node hosts workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Runners {
    /// It has not said so.
    #[default]
    Unsaid,
    /// It has none, and will not.
    Without,
    /// It does, so many.
    Hosting(WorkerSlots),
    /// It would, and is too old.
    Outdated,
}

impl Published {
    /// Takes tools in place of those before; says what is wrong with one.
    pub(super) fn take_tools(&mut self, mut tools: Vec<NodeTool>) -> Result<(), String> {
        if tools.len() > MAX_TOLD {
            return Err(format!("tools must be at most {MAX_TOLD}"));
        }
        for (index, tool) in tools.iter_mut().enumerate() {
            check_tool(tool).map_err(|flaw| format!("tools[{index}].{flaw}"))?;
            tool.plugin_id = tool.plugin_id.trim().to_owned();
            tool.command = tool.command.take().map(|command| command.trim().to_owned());
            tool.description = tool.description.trim().chars().take(MAX_DESCRIPTION).collect();
        }
        tools.retain(|tool| !tool.plugin_id.is_empty() && !tool.description.is_empty());
        tools.sort_by(|a, b| {
            (&a.plugin_id, &a.name, &a.command).cmp(&(&b.plugin_id, &b.name, &b.command))
        });
        self.tools = within(tools, size_of_tool).into();
        Ok(())
    }

    /// The tools that can be called, given which commands can: one of each name.
    pub(super) fn tools(&self, may: impl Fn(&str) -> bool) -> Vec<NodeTool> {
        let mut usable: BTreeMap<(&str, &str), &NodeTool> = BTreeMap::new();
        for tool in self.tools.iter() {
            let Some(command) = tool.command.as_deref().filter(|command| may(command)) else {
                continue;
            };
            // Nobody else's tool goes by the name of the node's own servers.
            if tool.plugin_id == MCP.0 && (command != MCP.1 || tool.mcp.is_none()) {
                continue;
            }
            usable.entry((&tool.plugin_id, &tool.name)).or_insert(tool);
        }
        usable.into_values().take(MAX_TOOLS).cloned().collect()
    }

    /// Takes skills in place of those before; says what is wrong with one.
    pub(super) fn take_skills(&mut self, skills: Vec<NodeSkill>) -> Result<(), String> {
        if skills.len() > MAX_SKILLS {
            return Err(format!("skills must be at most {MAX_SKILLS}"));
        }
        let mut kept: BTreeMap<String, NodeSkill> = BTreeMap::new();
        for (index, mut skill) in skills.into_iter().enumerate() {
            check_skill(&skill).map_err(|flaw| format!("skills[{index}].{flaw}"))?;
            skill.description = skill.description.trim().to_owned();
            if skill.description.is_empty() || skill.content.len() > MAX_SKILL {
                continue;
            }
            kept.entry(skill.name.clone()).or_insert(skill);
        }
        self.skills = within(kept.into_values().collect(), |skill| skill.content.len()).into();
        Ok(())
    }

    /// The skills, by name.
    pub(super) fn skills(&self) -> &[NodeSkill] {
        &self.skills
    }
}

impl Runners {
    /// Reads what a node says of itself; `None` where that makes no sense.
    pub(super) fn read(told: NodeRunnerInventory) -> Option<Self> {
        let NodeRunnerInventory { protocol_features, worker_host, worker_runs } = told;
        let feature = match protocol_features.as_slice() {
            [] => return (worker_host.is_none() && worker_runs.is_none()).then_some(Self::Unsaid),
            [feature] => feature,
            _ => return None,
        };
        let version: u8 = feature.strip_prefix(SUPERVISOR.0)?.parse().ok()?;
        if (1..SUPERVISOR.1).contains(&version) {
            return Some(Self::Outdated);
        }
        if version != SUPERVISOR.1 || worker_runs.is_some() {
            return None;
        }
        let host: WorkerHost = serde_json::from_value(worker_host?).ok()?;
        let abilities = [
            host.bundle_prewarm,
            host.bundle_retention,
            host.bundle_status,
            host.portal_stream,
            host.environment_session,
            host.prepared_workspace,
        ];
        let has_policy = host.captured_exec_policy;
        if !host.enabled {
            let is_bare = abilities.iter().all(Option::is_none) && has_policy.is_none();
            return (is_bare && host.capacity.is_none()).then_some(Self::Without);
        }
        let slots = host.capacity?;
        let is_sound = (1..=MAX_WORKERS).contains(&slots.total)
            && slots.available <= slots.total
            && abilities.iter().all(|it| it.is_none_or(|it| it == 1))
            && has_policy != Some(false);
        is_sound.then_some(Self::Hosting(slots))
    }

    /// How many workers fit, where it hosts them.
    pub(super) fn slots(self) -> Option<WorkerSlots> {
        match self {
            Self::Hosting(slots) => Some(slots),
            Self::Unsaid | Self::Without | Self::Outdated => None,
        }
    }
}

/// What the schema says of a tool beyond its types.
fn check_tool(tool: &NodeTool) -> Result<(), &'static str> {
    let mut letters = tool.name.chars();
    let is_name = letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
        && tool.name.len() <= 64;
    let mcp = tool.mcp.as_ref();
    if tool.plugin_id.is_empty() {
        Err("pluginId must not be empty")
    } else if !is_name {
        Err("name must be a letter, then at most 63 letters, digits, _ and -")
    } else if tool.description.is_empty() {
        Err("description must not be empty")
    } else if tool.command.as_deref() == Some("") {
        Err("command must not be empty")
    } else if mcp.is_some_and(|mcp| mcp.server.is_empty() || mcp.tool.is_empty()) {
        Err("mcp.server and mcp.tool must not be empty")
    } else {
        Ok(())
    }
}

/// What the schema says of a skill beyond its types.
fn check_skill(skill: &NodeSkill) -> Result<(), &'static str> {
    let name = &skill.name;
    let is_name = !name.is_empty()
        && name.len() <= 64
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--");
    if !is_name {
        Err("name must be small letters and digits with single - between, at most 64")
    } else if skill.description.is_empty() || skill.description.chars().count() > MAX_DESCRIPTION {
        Err("description must have 1 to 1024 characters")
    } else if skill.content.is_empty() || skill.content.chars().count() > MAX_SKILL {
        Err("content must have 1 to 65536 characters")
    } else {
        Ok(())
    }
}

fn size_of_tool(tool: &NodeTool) -> usize {
    serde_json::to_string(tool).map_or(MAX_BYTES, |text| text.len())
}

/// Those that fit, in their order; a large one keeps no smaller one out.
fn within<T>(all: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<T> {
    let told = all.len();
    let mut bytes = 0;
    let fits = |it: &T| {
        let more = bytes + size(it);
        let fits = more <= MAX_BYTES;
        if fits {
            bytes = more;
        }
        fits
    };
    let kept: Vec<T> = all.into_iter().filter(fits).collect();
    if kept.len() < told {
        tracing::warn!(told, kept = kept.len(), "a node published more than is kept");
    }
    kept
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn tool(changes: &Value) -> NodeTool {
        let mut value = json!({"pluginId": "p", "name": "look", "description": "looks",
            "command": "system.which"});
        for (name, change) in changes.as_object().unwrap() {
            value[name] = change.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn skill(name: &str, content: &str) -> NodeSkill {
        let (description, content) = ("d".to_owned(), content.to_owned());
        NodeSkill { name: name.to_owned(), description, content }
    }

    fn names(published: &Published, commands: &[&str]) -> Vec<String> {
        let usable = published.tools(|command| commands.contains(&command));
        usable.into_iter().map(|tool| format!("{}/{}", tool.plugin_id, tool.name)).collect()
    }

    #[test]
    fn a_tool_can_be_called_as_far_as_its_command_can() {
        let mut published = Published::default();
        let told = vec![
            tool(&json!({"name": "z"})),
            tool(&json!({"name": "a", "command": "system.run"})),
            tool(&json!({"name": "none", "command": null})),
            tool(&json!({"pluginId": "node-mcp", "name": "posing"})),
            tool(&json!({"pluginId": "node-mcp", "name": "own", "command": "mcp.tools.call.v1",
                "mcp": {"server": "s", "tool": "t"}})),
            tool(&json!({"pluginId": "node-mcp", "name": "no-server",
                "command": "mcp.tools.call.v1"})),
        ];
        published.take_tools(told).unwrap();
        assert_eq!(names(&published, &["system.which"]), ["p/z"]);
        let all = ["system.which", "system.run", "mcp.tools.call.v1"];
        assert_eq!(names(&published, &all), ["node-mcp/own", "p/a", "p/z"]);
        assert!(names(&published, &[]).is_empty());
        let parameters = &published.tools(|_| true)[0].parameters;
        assert_eq!(parameters["type"], "object", "a tool that says nothing takes an object");
    }

    #[test]
    fn the_first_tool_of_a_name_counts_and_their_number_and_size_are_bounded() {
        let mut published = Published::default();
        let told = vec![
            tool(&json!({"command": "b"})),
            tool(&json!({"command": "a", "description": "x".repeat(2_000)})),
        ];
        published.take_tools(told).unwrap();
        let usable = published.tools(|_| true);
        assert_eq!(usable.len(), 1);
        assert_eq!(usable[0].command.as_deref(), Some("a"));
        assert_eq!(usable[0].description.len(), MAX_DESCRIPTION);
        let many = |number: usize| -> Vec<NodeTool> {
            (0..number).map(|number| tool(&json!({"name": format!("t{number}")}))).collect()
        };
        published.take_tools(many(MAX_TOLD)).unwrap();
        assert_eq!(published.tools(|_| true).len(), MAX_TOOLS);
        published.take_tools(many(MAX_TOLD + 1)).unwrap_err();
        let fat =
            |name: &str| tool(&json!({"name": name, "parameters": {"x": "x".repeat(300_000)}}));
        published.take_tools(vec![fat("a"), fat("b"), tool(&json!({"name": "c"}))]).unwrap();
        assert_eq!(names(&published, &["system.which"]), ["p/a", "p/c"]);
    }

    #[test]
    fn what_the_schema_forbids_of_a_tool_is_said() {
        for (change, flaw) in [
            (json!({"name": "1st"}), "tools[0].name"),
            (json!({"name": "x".repeat(65)}), "tools[0].name"),
            (json!({"pluginId": ""}), "tools[0].pluginId"),
            (json!({"description": ""}), "tools[0].description"),
            (json!({"command": ""}), "tools[0].command"),
            (json!({"mcp": {"server": "", "tool": "t"}}), "tools[0].mcp"),
        ] {
            let said = Published::default().take_tools(vec![tool(&change)]).unwrap_err();
            assert!(said.starts_with(flaw), "{said}");
        }
    }

    #[test]
    fn skills_come_by_name_once_each_and_bounded() {
        let mut published = Published::default();
        published.take_skills(vec![skill("b", "1"), skill("a", "2"), skill("b", "3")]).unwrap();
        let kept: Vec<_> =
            published.skills().iter().map(|it| (it.name.as_str(), it.content.as_str())).collect();
        assert_eq!(kept, [("a", "2"), ("b", "1")]);
        let fat = "x".repeat(MAX_SKILL);
        let many: Vec<_> = (0..10).map(|number| skill(&format!("s{number}"), &fat)).collect();
        published.take_skills(many).unwrap();
        assert_eq!(published.skills().len(), 8, "half a megabyte in all");
        let wide = "\u{e9}".repeat(MAX_SKILL);
        published.take_skills(vec![skill("wide", &wide)]).unwrap();
        assert!(published.skills().is_empty(), "65,536 characters, and twice the bytes");
        for name in ["", "-a", "a-", "a--b", "A", "a_b", &"a".repeat(65)] {
            published.take_skills(vec![skill(name, "x")]).unwrap_err();
        }
        published.take_skills(vec![skill("a", "")]).unwrap_err();
        let many: Vec<_> = (0..65).map(|number| skill(&format!("s{number}"), "x")).collect();
        published.take_skills(many).unwrap_err();
    }

    #[test]
    fn a_node_says_whether_it_hosts_workers_in_closed_words() {
        let read = |told: Value| Runners::read(serde_json::from_value(told).ok()?);
        let v6 = "node-worker-supervisor-v6";
        let slots = WorkerSlots { total: 4, available: 1 };
        for (told, expected) in [
            (json!({"protocolFeatures": []}), Some(Runners::Unsaid)),
            (json!({"protocolFeatures": [], "workerHost": {"enabled": false}}), None),
            (
                json!({"protocolFeatures": [v6], "workerHost": {"enabled": false}}),
                Some(Runners::Without),
            ),
            (
                json!({"protocolFeatures": [v6], "workerHost": {"enabled": true,
                    "capacity": {"total": 4, "available": 1}, "bundleStatus": 1,
                    "capturedExecPolicy": true}}),
                Some(Runners::Hosting(slots)),
            ),
            (
                json!({"protocolFeatures": ["node-worker-supervisor-v3"], "workerRuns": 1}),
                Some(Runners::Outdated),
            ),
            (json!({"protocolFeatures": ["node-worker-supervisor-v7"]}), None),
            (json!({"protocolFeatures": ["node-worker-supervisor-v0"]}), None),
            (json!({"protocolFeatures": [v6, v6]}), None),
            (json!({"protocolFeatures": [v6]}), None),
            (json!({"protocolFeatures": [v6], "workerHost": {"enabled": true}}), None),
            (
                json!({"protocolFeatures": [v6], "workerHost": {"enabled": true,
                    "capacity": {"total": 1, "available": 2}}}),
                None,
            ),
            (
                json!({"protocolFeatures": [v6], "workerHost": {"enabled": true,
                    "capacity": {"total": 1_025, "available": 2}}}),
                None,
            ),
            (
                json!({"protocolFeatures": [v6], "workerHost": {"enabled": true,
                    "capacity": {"total": 1, "available": 1}, "portalStream": 2}}),
                None,
            ),
            (
                json!({"protocolFeatures": [v6], "workerHost": {"enabled": false,
                    "capacity": {"total": 1, "available": 1}}}),
                None,
            ),
            (json!({"protocolFeatures": [], "else": 1}), None),
        ] {
            assert_eq!(read(told.clone()), expected, "{told}");
        }
    }
}
