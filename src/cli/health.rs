//! `openclaw health`: the gateway's own account of how it is.

use std::process::ExitCode;

use serde_json::Value;

use super::{
    Context,
    output::{Tone, milliseconds, period},
    which::{Which, ask, block_on, read},
};
use crate::client::{READ, Reached};

/// Arguments of `health`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: Which,
}

/// Runs `health`.
pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let plan = arguments.which.plan(context)?;
    block_on(async {
        let deadline = arguments.which.deadline();
        let (reached, health) = ask(context, &plan, READ, deadline, async |reached| {
            read(reached, "health", deadline).await
        })
        .await?;
        if context.output.is_json() {
            context.output.value(&health)?;
        } else {
            let rule = plan.target.rule;
            let place = format!("{} ({rule})", plan.target.place);
            let mut rows = vec![gateway_row(context, &reached, &health), ("Reached", place)];
            rows.extend(rows_of(context, &health));
            context.output.rows(&rows);
        }
        reached.gateway.close().await;
        Ok(ExitCode::SUCCESS)
    })
}

fn gateway_row(context: &Context, reached: &Reached, health: &Value) -> (&'static str, String) {
    let word = match health.get("ok").and_then(Value::as_bool) {
        Some(true) => context.output.paint(Tone::Good, "ok"),
        // As published it is true, or not there.
        Some(false) | None => context.output.paint(Tone::Odd, "not well, see its /readyz"),
    };
    let version = &reached.gateway.hello.server.version;
    ("Gateway", format!("{word} · version {version} · reached in {}", milliseconds(reached.took)))
}

/// What a `health` summary says to a person; what it does not hold is left out.
pub(super) fn rows_of(context: &Context, health: &Value) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(event_loop) = health.get("eventLoop") {
        rows.push(("Event loop", event_loop_text(context, event_loop)));
    }
    let agents = health.get("agents").and_then(Value::as_array);
    if let Some(agents) = agents {
        rows.push(("Agents", or_none(joined(agents, agent_text))));
        let beats = joined(agents, heartbeat_text);
        rows.push(("Heartbeat", if beats.is_empty() { "off".to_owned() } else { beats }));
    }
    if let Some(count) = health.pointer("/sessions/count").and_then(Value::as_u64) {
        rows.push(("Sessions", count.to_string()));
    }
    if let Some(order) = health.get("channelOrder").and_then(Value::as_array) {
        let names = joined(order, |name| name.as_str().map(str::to_owned));
        rows.push(("Channels", or_none(names)));
    }
    rows
}

fn event_loop_text(context: &Context, event_loop: &Value) -> String {
    let number = |key: &str| event_loop.get(key).and_then(Value::as_f64).unwrap_or_default();
    let degraded = event_loop.get("degraded").and_then(Value::as_bool).unwrap_or(false);
    let word = if degraded {
        context.output.paint(Tone::Odd, "behind")
    } else {
        context.output.paint(Tone::Good, "ok")
    };
    format!(
        "{word} · delay {:.0} ms at most · busy {:.1} %",
        number("delayMaxMs"),
        number("utilization") * 100.0
    )
}

fn agent_text(agent: &Value) -> Option<String> {
    let id = agent.get("agentId")?.as_str()?;
    let default = agent.get("isDefault").and_then(Value::as_bool).unwrap_or(false);
    Some(if default { format!("{id} (default)") } else { id.to_owned() })
}

fn heartbeat_text(agent: &Value) -> Option<String> {
    let every = agent.pointer("/heartbeat/everyMs").and_then(Value::as_u64).filter(|ms| *ms > 0)?;
    let id = agent.get("agentId")?.as_str()?;
    Some(format!("every {} ({id})", period(every)))
}

fn joined(items: &[Value], text: impl Fn(&Value) -> Option<String>) -> String {
    items.iter().filter_map(text).collect::<Vec<_>>().join(", ")
}

fn or_none(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}
