//! `openclaw nodes`: who the nodes are, what they may do, and commands on them.

use std::{process::ExitCode, time::Duration};

use serde_json::{Value, json};

use super::{
    Context,
    devices::{approval, shown as words},
    output::period,
    talk::{Talk, typed, with_gateway},
    which::Which,
};
use crate::{
    problem::{Class, Problem},
    protocol::{
        NodeDescribeReply, NodeEntry, NodeListReply, NodePairListReply, NodePairRequest,
        NodeSkillName,
    },
};

/// The method that lists the nodes.
const LIST: &str = "node.list";
/// The method that lists what they ask to offer.
const PAIR_LIST: &str = "node.pair.list";
/// Beyond the node's own time, what an invocation may take on the way.
const ON_THE_WAY: Duration = Duration::from_secs(10);
/// The shortest beginning of an id that names a node.
const MIN_PREFIX: usize = 6;

/// Arguments of `nodes`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Show the nodes, whether they are connected, and what they may do
    Status(Shown),
    /// Show what waits for approval, and the paired nodes
    List(Shown),
    /// Show one node
    Describe(One),
    /// Show what waits for approval
    Pending(Plain),
    /// Approve what a node asks to offer
    Approve(Request),
    /// Refuse what a node asks to offer
    Reject(Request),
    /// Make a device no node any more
    Remove(One),
    /// Give a node a name
    Rename(Rename),
    /// Run a command on a node
    Invoke(Invoke),
}

#[derive(Debug, clap::Args)]
struct Plain {
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Shown {
    /// Only those that are connected
    #[arg(long)]
    connected: bool,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Request {
    /// The request, as `nodes pending` names it
    #[arg(value_name = "REQUEST")]
    request: String,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct One {
    /// The node: its id, the beginning of its id, its name or its address
    #[arg(long, value_name = "NODE")]
    node: String,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Rename {
    /// The node: its id, the beginning of its id, its name or its address
    #[arg(long, value_name = "NODE")]
    node: String,
    /// Its new name
    #[arg(long, value_name = "NAME")]
    name: String,
    #[command(flatten)]
    which: Which,
}

#[derive(Debug, clap::Args)]
struct Invoke {
    /// The node: its id, the beginning of its id, its name or its address
    #[arg(long, value_name = "NODE")]
    node: String,
    /// The command: `system.which`, …
    #[arg(long, value_name = "COMMAND")]
    command: String,
    /// Its parameters
    #[arg(long, value_name = "JSON", default_value = "{}", hide_default_value = true)]
    params: String,
    /// How long the node may take, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 15_000,
        value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    invoke_timeout: u64,
    /// A key under which the command runs only once, however often it is sent
    #[arg(long, value_name = "KEY", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    idempotency_key: Option<String>,
    #[command(flatten)]
    which: Which,
}

/// Runs one of the `nodes` commands.
pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.command {
        Command::Status(it) => status(context, it),
        Command::List(it) => list(context, it),
        Command::Describe(it) => describe(context, it),
        Command::Pending(it) => pending(context, &it.which),
        Command::Approve(it) => decide(context, it, "node.pair.approve"),
        Command::Reject(it) => decide(context, it, "node.pair.reject"),
        Command::Remove(it) => remove(context, it),
        Command::Rename(it) => rename(context, it),
        Command::Invoke(it) => invoke(context, it),
    }
}

fn status(context: &Context, shown: &Shown) -> anyhow::Result<ExitCode> {
    with_gateway(context, &shown.which, Duration::ZERO, async |talk| {
        let mut answer = talk.call(LIST, json!({})).await?;
        let NodeListReply { mut nodes, .. } = typed(LIST, &answer)?;
        if context.output.is_json() {
            if let Some(nodes) = answer.get_mut("nodes").and_then(Value::as_array_mut) {
                nodes.retain(|node| !shown.connected || is_connected(node));
            }
            return context.output.value(&answer);
        }
        nodes.retain(|node| !shown.connected || node.connected);
        table(context, &nodes, "no nodes");
        Ok(())
    })
}

fn list(context: &Context, shown: &Shown) -> anyhow::Result<ExitCode> {
    with_gateway(context, &shown.which, Duration::ZERO, async |talk| {
        let answer = talk.call(LIST, json!({})).await?;
        let pairing = talk.call(PAIR_LIST, json!({})).await?;
        if context.output.is_json() {
            // Another gateway's lists may hold more than we know of.
            let mut paired = items(&answer, "nodes").to_vec();
            paired.retain(|node| !shown.connected || is_connected(node));
            let pending = items(&pairing, "pending");
            return context.output.value(&json!({"pending": pending, "paired": paired}));
        }
        let NodeListReply { mut nodes, .. } = typed(LIST, &answer)?;
        nodes.retain(|node| !shown.connected || node.connected);
        let NodePairListReply { pending, .. } = typed(PAIR_LIST, &pairing)?;
        table_of_requests(context, &pending);
        table(context, &nodes, "no paired nodes");
        Ok(())
    })
}

fn describe(context: &Context, one: &One) -> anyhow::Result<ExitCode> {
    const METHOD: &str = "node.describe";
    with_gateway(context, &one.which, Duration::ZERO, async |talk| {
        let node = meant(talk, &one.node).await?;
        let answer = talk.call(METHOD, json!({"nodeId": node})).await?;
        if context.output.is_json() {
            return context.output.value(&answer);
        }
        let NodeDescribeReply { node, node_skills, .. } = typed(METHOD, &answer)?;
        context.output.rows(&description(&node, &node_skills));
        Ok(())
    })
}

fn description(node: &NodeEntry, skills: &[NodeSkillName]) -> Vec<(&'static str, String)> {
    let list = |names: Option<&Vec<String>>| match names {
        Some(names) if !names.is_empty() => {
            names.iter().map(|name| words(name)).collect::<Vec<_>>().join(", ")
        }
        Some(_) | None => "none".to_owned(),
    };
    let or_unknown = |text: &Option<String>| words(text.as_deref().unwrap_or("unknown"));
    let mut rows = vec![
        ("Node", format!("{} · {}", name_of(node), words(&node.node_id))),
        ("State", state_of(node)),
        (
            "Platform",
            format!("{} · version {}", or_unknown(&node.platform), or_unknown(&node.version)),
        ),
        ("May do", list(Some(&node.caps))),
        ("Commands", list(Some(&node.commands))),
        ("Asks for", list(node.pending_declared_commands.as_ref())),
    ];
    let tools = node.node_plugin_tools.iter().flatten().map(|tool| words(&tool.name));
    let skills = skills.iter().map(|skill| words(&skill.name));
    let hosting = node.worker_slots.map(|slots| format!("{} of {}", slots.available, slots.total));
    for (title, names) in [
        ("Tools", tools.collect::<Vec<_>>()),
        ("Skills", skills.collect()),
        ("Free workers", hosting.into_iter().collect()),
        ("To do", node.issues.iter().flatten().map(|issue| words(&issue.update_command)).collect()),
    ] {
        if !names.is_empty() {
            rows.push((title, names.join(", ")));
        }
    }
    rows
}

fn pending(context: &Context, which: &Which) -> anyhow::Result<ExitCode> {
    with_gateway(context, which, Duration::ZERO, async |talk| {
        let pairing = talk.call(PAIR_LIST, json!({})).await?;
        if context.output.is_json() {
            return context.output.value(&items(&pairing, "pending"));
        }
        let NodePairListReply { pending, .. } = typed(PAIR_LIST, &pairing)?;
        if pending.is_empty() {
            context.output.line("nothing waits for approval");
        }
        table_of_requests(context, &pending);
        Ok(())
    })
}

fn decide(context: &Context, request: &Request, method: &str) -> anyhow::Result<ExitCode> {
    with_gateway(context, &request.which, Duration::ZERO, async |talk| {
        let answer = talk.call(method, json!({"requestId": request.request})).await?;
        if context.output.is_json() {
            return context.output.value(&answer);
        }
        let of = |pointer: &str| answer.pointer(pointer).and_then(Value::as_str);
        let name = of("/node/displayName").or_else(|| of("/node/nodeId")).or_else(|| of("/nodeId"));
        let word = if method.ends_with("approve") { "approved" } else { "rejected" };
        context.output.line(format!("{word} what {} asked to offer", words(name.unwrap_or("it"))));
        Ok(())
    })
}

fn remove(context: &Context, one: &One) -> anyhow::Result<ExitCode> {
    with_gateway(context, &one.which, Duration::ZERO, async |talk| {
        let node = meant(talk, &one.node).await?;
        let answer = talk.call("node.pair.remove", json!({"nodeId": node})).await?;
        if context.output.is_json() {
            return context.output.value(&answer);
        }
        context.output.line(format!("{} is no node any more", one.node));
        Ok(())
    })
}

fn rename(context: &Context, rename: &Rename) -> anyhow::Result<ExitCode> {
    with_gateway(context, &rename.which, Duration::ZERO, async |talk| {
        let node = meant(talk, &rename.node).await?;
        let params = json!({"nodeId": node, "displayName": rename.name});
        let answer = talk.call("node.rename", params).await?;
        if context.output.is_json() {
            return context.output.value(&answer);
        }
        context.output.line(format!("{} is now called {}", rename.node, rename.name));
        Ok(())
    })
}

fn invoke(context: &Context, invoke: &Invoke) -> anyhow::Result<ExitCode> {
    let params: Value = serde_json::from_str(&invoke.params).map_err(|error| {
        Problem::new(Class::Usage, format!("--params is not valid JSON: {error}"))
            .fix(r#"--params '{"bins": ["uname"]}'"#)
    })?;
    if matches!(invoke.command.as_str(), "system.run" | "system.run.prepare") {
        let message = format!("{} does not run from here: it wants an approval", invoke.command);
        return Err(Problem::new(Class::Usage, message)
            .fix("openclaw gateway call exec.approval.request --params JSON")
            .into());
    }
    let key = invoke.idempotency_key.clone();
    let key = key.unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    let patience = Duration::from_millis(invoke.invoke_timeout) + ON_THE_WAY;
    with_gateway(context, &invoke.which, patience, async |talk| {
        let node = meant(talk, &invoke.node).await?;
        let request = json!({
            "nodeId": node, "command": invoke.command, "params": params,
            "timeoutMs": invoke.invoke_timeout, "idempotencyKey": key,
        });
        let answer = talk.call("node.invoke", request).await?;
        if context.output.is_json() {
            return context.output.value(&answer);
        }
        let payload = answer.get("payload").unwrap_or(&Value::Null);
        context.output.line(serde_json::to_string_pretty(payload)?);
        Ok(())
    })
}

/// Every node, as the gateway tells of it.
async fn nodes(talk: &Talk) -> Result<Vec<NodeEntry>, Problem> {
    let answer = talk.call(LIST, json!({})).await?;
    Ok(typed::<NodeListReply>(LIST, &answer)?.nodes)
}

/// The id of the node that a person means.
async fn meant(talk: &Talk, words: &str) -> Result<String, Problem> {
    find(&nodes(talk).await?, words)
}

/// An exact id or address first, then a name, then the beginning of an id; of several, those that
/// are connected.
fn find(nodes: &[NodeEntry], meant: &str) -> Result<String, Problem> {
    let pick = |fits: &dyn Fn(&NodeEntry) -> bool| -> Vec<&NodeEntry> {
        nodes.iter().filter(|node| fits(node)).collect()
    };
    let is_named = |node: &NodeEntry| {
        node.display_name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(meant))
    };
    let mut found = pick(&|node| node.node_id == meant || node.remote_ip.as_deref() == Some(meant));
    if found.is_empty() {
        found = pick(&is_named);
    }
    if found.is_empty() && meant.len() >= MIN_PREFIX {
        found = pick(&|node| node.node_id.starts_with(meant));
    }
    if found.len() > 1 && found.iter().any(|node| node.connected) {
        found.retain(|node| node.connected);
    }
    match found.as_slice() {
        [one] => Ok(one.node_id.clone()),
        [] => {
            Err(Problem::new(Class::Usage, format!("no node {meant:?}"))
                .fix("openclaw nodes status"))
        }
        many => {
            let ids: Vec<_> = many.iter().map(|node| words(&node.node_id)).collect();
            let message = format!("several nodes are {meant:?}: {}", ids.join(", "));
            Err(Problem::new(Class::Usage, message).fix("name one by its id"))
        }
    }
}

fn table_of_requests(context: &Context, pending: &[NodePairRequest]) {
    for NodePairRequest { request_id, node, .. } in pending {
        let commands: Vec<_> = node.commands.iter().map(|command| words(command)).collect();
        let name = node.display_name.as_ref().unwrap_or(&node.node_id);
        context.output.line(format!(
            "{}  {} ({}) asks to offer: {}",
            words(request_id),
            words(name),
            words(&node.platform),
            commands.join(", ")
        ));
        context.output.note(approval("nodes", request_id));
    }
}

fn table(context: &Context, nodes: &[NodeEntry], none: &str) {
    if nodes.is_empty() {
        context.output.line(none);
    }
    for node in nodes {
        context.output.line(format!(
            "{}  {}  {}  {} commands  {}",
            name_of(node),
            words(node.platform.as_deref().unwrap_or("unknown")),
            state_of(node),
            node.commands.len(),
            words(&node.node_id),
        ));
    }
}

fn state_of(node: &NodeEntry) -> String {
    let approval = node.approval_state.name();
    if node.connected {
        return format!("connected, {approval}");
    }
    let Some(at) = node.last_connected_at_ms else {
        return format!("never connected, {approval}");
    };
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
    format!("away, last connected {} ago, {approval}", period(now.saturating_sub(at)))
}

fn is_connected(node: &Value) -> bool {
    node.get("connected").and_then(Value::as_bool).unwrap_or(false)
}

fn name_of(node: &NodeEntry) -> String {
    words(node.display_name.as_ref().unwrap_or(&node.node_id))
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str, name: &str, connected: bool) -> NodeEntry {
        let (node_id, display_name) = (id.to_owned(), Some(name.to_owned()));
        NodeEntry { node_id, display_name, connected, ..NodeEntry::default() }
    }

    #[test]
    fn a_node_is_found_by_id_address_name_or_the_beginning_of_its_id() {
        let elsewhere = NodeEntry {
            remote_ip: Some("192.0.2.7".to_owned()),
            ..node("ffffff", "abcdef0123", false)
        };
        let nodes =
            [node("abcdef0123", "Desk", false), node("abcdef9999", "desk", true), elsewhere];
        let found = |meant: &str| find(&nodes, meant).ok();
        assert_eq!(found("abcdef0123").as_deref(), Some("abcdef0123"), "an id goes before a name");
        assert_eq!(found("192.0.2.7").as_deref(), Some("ffffff"));
        assert_eq!(found("DESK").as_deref(), Some("abcdef9999"), "the connected one");
        assert_eq!(found("abcdef").as_deref(), Some("abcdef9999"));
        assert_eq!(found("ffff"), None, "too short a beginning");
        assert_eq!(find(&nodes, "nobody").unwrap_err().class, Class::Usage);
        let both = [node("a", "x", false), node("b", "x", false)];
        assert!(find(&both, "x").unwrap_err().message.contains("a, b"));
    }

    #[test]
    fn a_nodes_own_words_do_not_reach_the_terminal_as_commands() {
        let evil = NodeEntry {
            platform: Some("lin\u{1b}[31mux".to_owned()),
            pending_declared_commands: Some(vec!["a\nb".to_owned()]),
            ..node("id\r", "evil\u{1b}[2J\nname", true)
        };
        let shown: String = description(&evil, &[]).into_iter().map(|(_, text)| text).collect();
        assert!(!shown.contains(char::is_control), "{shown:?}");
        assert!(shown.contains("evil[2Jname"), "{shown}");
    }

    #[test]
    fn another_gateways_words_for_a_node_are_read_as_far_as_they_are_known() {
        let told = json!({"ts": 1, "nodes": [
            {"nodeId": "a", "approvalState": "something-new", "paired": true, "active": true},
            {"nodeId": "b", "approvalState": "pending-reapproval", "connected": true},
        ]});
        let NodeListReply { nodes, .. } = typed(LIST, &told).unwrap();
        let states: Vec<_> = nodes.iter().map(|node| node.approval_state.name()).collect();
        assert_eq!(states, ["unapproved", "pending-reapproval"]);
    }
}
