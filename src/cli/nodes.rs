//! `openclaw nodes`: who the nodes are, what they may do, and commands on them.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    Context,
    devices::{approval, shown},
    output::period,
    which::{Which, block_on, left, reach},
};
use crate::{
    client::{EVERYTHING, Reached},
    problem::{Class, Problem},
};

/// Beyond the node's own time, what an invocation may take on the way, milliseconds.
const ON_THE_WAY_MS: u64 = 10_000;
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
    with_gateway(context, &shown.which, 0, async |talk| {
        let mut reply = talk.call("node.list", json!({})).await?;
        if let Some(nodes) = reply.get_mut("nodes").and_then(Value::as_array_mut) {
            nodes.retain(|node| !shown.connected || is_connected(node));
        }
        if context.output.is_json() {
            return context.output.value(&reply);
        }
        table(context, items(&reply, "nodes"), "no nodes");
        Ok(())
    })
}

fn list(context: &Context, shown: &Shown) -> anyhow::Result<ExitCode> {
    with_gateway(context, &shown.which, 0, async |talk| {
        let nodes = talk.call("node.list", json!({})).await?;
        let pairing = talk.call("node.pair.list", json!({})).await?;
        let mut paired = items(&nodes, "nodes").to_vec();
        paired.retain(|node| !shown.connected || is_connected(node));
        let pending = items(&pairing, "pending");
        if context.output.is_json() {
            return context.output.value(&json!({"pending": pending, "paired": paired}));
        }
        table_of_requests(context, pending);
        table(context, &paired, "no paired nodes");
        Ok(())
    })
}

fn describe(context: &Context, one: &One) -> anyhow::Result<ExitCode> {
    with_gateway(context, &one.which, 0, async |talk| {
        let node = talk.find(&one.node).await?;
        let node = talk.call("node.describe", json!({"nodeId": node})).await?;
        if context.output.is_json() {
            return context.output.value(&node);
        }
        let list = |name: &str| items(&node, name).iter().map(text).collect::<Vec<_>>().join(", ");
        let or_none = |text: String| if text.is_empty() { "none".to_owned() } else { text };
        let of = |name: &str| node.get(name).map(text).unwrap_or_default();
        context.output.rows(&[
            ("Node", format!("{} · {}", name_of(&node), of("nodeId"))),
            ("State", state_of(&node)),
            ("Platform", format!("{} · version {}", of("platform"), of("version"))),
            ("May do", or_none(list("caps"))),
            ("Commands", or_none(list("commands"))),
            ("Asks for", or_none(list("pendingDeclaredCommands"))),
        ]);
        Ok(())
    })
}

fn pending(context: &Context, which: &Which) -> anyhow::Result<ExitCode> {
    with_gateway(context, which, 0, async |talk| {
        let pairing = talk.call("node.pair.list", json!({})).await?;
        let pending = items(&pairing, "pending");
        if context.output.is_json() {
            return context.output.value(&pending);
        }
        if pending.is_empty() {
            context.output.line("nothing waits for approval");
        }
        table_of_requests(context, pending);
        Ok(())
    })
}

fn decide(context: &Context, request: &Request, method: &str) -> anyhow::Result<ExitCode> {
    with_gateway(context, &request.which, 0, async |talk| {
        let reply = talk.call(method, json!({"requestId": request.request})).await?;
        if context.output.is_json() {
            return context.output.value(&reply);
        }
        let node = reply.get("node").unwrap_or(&reply);
        let word = if method.ends_with("approve") { "approved" } else { "rejected" };
        context.output.line(format!("{word} what {} asked to offer", name_of(node)));
        Ok(())
    })
}

fn remove(context: &Context, one: &One) -> anyhow::Result<ExitCode> {
    with_gateway(context, &one.which, 0, async |talk| {
        let node = talk.find(&one.node).await?;
        let reply = talk.call("node.pair.remove", json!({"nodeId": node})).await?;
        if context.output.is_json() {
            return context.output.value(&reply);
        }
        context.output.line(format!("{} is no node any more", one.node));
        Ok(())
    })
}

fn rename(context: &Context, rename: &Rename) -> anyhow::Result<ExitCode> {
    with_gateway(context, &rename.which, 0, async |talk| {
        let node = talk.find(&rename.node).await?;
        let params = json!({"nodeId": node, "displayName": rename.name});
        let reply = talk.call("node.rename", params).await?;
        if context.output.is_json() {
            return context.output.value(&reply);
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
    let patience = invoke.invoke_timeout + ON_THE_WAY_MS;
    with_gateway(context, &invoke.which, patience, async |talk| {
        let node = talk.find(&invoke.node).await?;
        let request = json!({
            "nodeId": node, "command": invoke.command, "params": params,
            "timeoutMs": invoke.invoke_timeout, "idempotencyKey": key,
        });
        let reply = talk.call("node.invoke", request).await?;
        if context.output.is_json() {
            return context.output.value(&reply);
        }
        let payload = reply.get("payload").unwrap_or(&Value::Null);
        context.output.line(serde_json::to_string_pretty(payload)?);
        Ok(())
    })
}

/// A gateway that has been reached, and until when it may answer.
struct Talk {
    reached: Reached,
    deadline: tokio::time::Instant,
}

impl Talk {
    async fn call(&self, method: &str, params: Value) -> anyhow::Result<Value> {
        Ok(self.reached.gateway.call(method, Some(params), left(self.deadline)).await?)
    }

    /// The id of the node that a person means.
    async fn find(&self, meant: &str) -> anyhow::Result<String> {
        let reply = self.call("node.list", json!({})).await?;
        Ok(find(items(&reply, "nodes"), meant)?)
    }
}

/// Reaches the gateway, and compares its identity before anything is asked of it.
fn with_gateway(
    context: &Context,
    which: &Which,
    at_least_ms: u64,
    work: impl AsyncFnOnce(&Talk) -> anyhow::Result<()>,
) -> anyhow::Result<ExitCode> {
    let plan = which.plan(context)?;
    block_on(async {
        let patience = which.patience().max(std::time::Duration::from_millis(at_least_ms));
        let deadline = tokio::time::Instant::now() + patience;
        let reached = reach(context, &plan, EVERYTHING, deadline).await?;
        reached.verify(left(deadline)).await?;
        let talk = Talk { reached, deadline };
        work(&talk).await?;
        talk.reached.gateway.close().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// An exact id or address first, then a name, then the beginning of an id; of several, those that
/// are connected.
fn find(nodes: &[Value], meant: &str) -> Result<String, Problem> {
    let is = |node: &Value, key: &str| node.get(key).and_then(Value::as_str) == Some(meant);
    let named = |node: &Value| {
        let name = node.get("displayName").and_then(Value::as_str);
        name.is_some_and(|name| name.eq_ignore_ascii_case(meant))
    };
    let begins = |node: &Value| {
        let id = node.get("nodeId").and_then(Value::as_str);
        meant.len() >= MIN_PREFIX && id.is_some_and(|id| id.starts_with(meant))
    };
    let pick = |fits: &dyn Fn(&Value) -> bool| -> Vec<&Value> {
        nodes.iter().filter(|node| fits(node)).collect()
    };
    let mut found = pick(&|node| is(node, "nodeId") || is(node, "remoteIp"));
    if found.is_empty() {
        found = pick(&named);
    }
    if found.is_empty() {
        found = pick(&begins);
    }
    if found.len() > 1 && found.iter().any(|node| is_connected(node)) {
        found.retain(|node| is_connected(node));
    }
    match found.as_slice() {
        [one] => {
            let id = one.get("nodeId").and_then(Value::as_str);
            Ok(id.unwrap_or_default().to_owned())
        }
        [] => {
            Err(Problem::new(Class::Usage, format!("no node {meant:?}"))
                .fix("openclaw nodes status"))
        }
        many => {
            let ids: Vec<_> = many.iter().filter_map(|node| node.get("nodeId")).map(text).collect();
            Err(Problem::new(
                Class::Usage,
                format!("several nodes are {meant:?}: {}", ids.join(", ")),
            )
            .fix("name one by its id"))
        }
    }
}

fn table_of_requests(context: &Context, pending: &[Value]) {
    for request in pending {
        let of = |name: &str| request.get(name).map(text).unwrap_or_default();
        let commands: Vec<_> = items(request, "commands").iter().map(text).collect();
        context.output.line(format!(
            "{}  {} ({}) asks to offer: {}",
            of("requestId"),
            name_of(request),
            of("platform"),
            commands.join(", ")
        ));
        context.output.note(approval("nodes", &of("requestId")));
    }
}

fn table(context: &Context, nodes: &[Value], none: &str) {
    if nodes.is_empty() {
        context.output.line(none);
    }
    for node in nodes {
        let of = |name: &str| node.get(name).map(text).unwrap_or_default();
        context.output.line(format!(
            "{}  {}  {}  {} commands  {}",
            name_of(node),
            of("platform"),
            state_of(node),
            items(node, "commands").len(),
            of("nodeId"),
        ));
    }
}

fn state_of(node: &Value) -> String {
    let approval = node.get("approvalState").map(text).unwrap_or_default();
    let ms = |key: &str| node.get(key).and_then(Value::as_u64);
    if is_connected(node) {
        return format!("connected, {approval}");
    }
    let since = ms("lastConnectedAtMs").map(|at| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
        period(now.saturating_sub(at))
    });
    match since {
        Some(since) => format!("away, last connected {since} ago, {approval}"),
        None => format!("never connected, {approval}"),
    }
}

fn is_connected(node: &Value) -> bool {
    node.get("connected").and_then(Value::as_bool).unwrap_or(false)
}

fn name_of(node: &Value) -> String {
    let name = node.get("displayName").or_else(|| node.get("nodeId"));
    name.map(text).unwrap_or_default()
}

fn items<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    shown(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_found_by_id_address_name_or_the_beginning_of_its_id() {
        let nodes = [
            json!({"nodeId": "abcdef0123", "displayName": "Desk", "connected": false}),
            json!({"nodeId": "abcdef9999", "displayName": "desk", "connected": true}),
            json!({"nodeId": "ffffff", "displayName": "abcdef0123", "remoteIp": "192.0.2.7"}),
        ];
        let found = |meant: &str| find(&nodes, meant).ok();
        assert_eq!(found("abcdef0123").as_deref(), Some("abcdef0123"), "an id goes before a name");
        assert_eq!(found("192.0.2.7").as_deref(), Some("ffffff"));
        assert_eq!(found("DESK").as_deref(), Some("abcdef9999"), "the connected one");
        assert_eq!(found("abcdef").as_deref(), Some("abcdef9999"));
        assert_eq!(found("ffff"), None, "too short a beginning");
        assert_eq!(find(&nodes, "nobody").unwrap_err().class, Class::Usage);
        let both = [
            json!({"nodeId": "a", "displayName": "x"}),
            json!({"nodeId": "b", "displayName": "x"}),
        ];
        assert!(find(&both, "x").unwrap_err().message.contains("a, b"));
    }
}
