//! What nodes call: outcomes, progress, news, and the work that waits for them.

use serde_json::{Map, Value, json};

use crate::{
    gateway::{
        clock::now_ms,
        dispatch::{Call, Dispatcher, Outcome},
        nodes::{Heard as Hearing, Ran, Usage},
    },
    protocol::{
        ErrorShape, Heard, NodeEvent, NodeEventParams, NodeEventReply, NodeInvokeProgress,
        NodeInvokeProgressParams, NodeInvokeResult, NodeInvokeResultParams, NodePendingAck,
        NodePendingAckParams, NodePendingAcked, NodePendingActions, NodePendingDrain,
        NodePendingDrainParams, NodePendingDrained, NodePendingPull, NodePluginTools,
        NodePluginToolsKept, NodePluginToolsUpdate, NodeRunnerInventory, NodeRunnerInventoryKept,
        NodeRunnerInventoryUpdate, NodeSkills, NodeSkillsKept, NodeSkillsUpdate, Nothing,
    },
};

/// The longest piece of progress, bytes.
const MAX_CHUNK: usize = 16_384;
/// The answer to what cannot be read.
const INVALID: Hearing = (false, "invalid_payload");
/// The numbers of a machine that a node may tell.
const STATS: [&str; 6] = [
    "cpuCount",
    "loadAverage",
    "memoryTotalBytes",
    "memoryFreeBytes",
    "diskTotalBytes",
    "diskAvailableBytes",
];

/// When a node says that it is alive (`NodePresenceAliveReason`).
const OCCASIONS: [&str; 6] =
    ["background", "silent_push", "bg_app_refresh", "significant_location", "manual", "connect"];

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on::<NodeInvokeResult, _>(result);
    dispatcher.on::<NodeInvokeProgress, _>(progress);
    dispatcher.on::<NodeEvent, _>(event);
    dispatcher.on::<NodePendingPull, _>(pull);
    dispatcher.on::<NodePendingAck, _>(acknowledge);
    dispatcher.on::<NodePendingDrain, _>(drain);
    dispatcher.on::<NodePluginToolsUpdate, _>(plugin_tools);
    dispatcher.on::<NodeSkillsUpdate, _>(skills);
    dispatcher.on::<NodeRunnerInventoryUpdate, _>(runners);
}

async fn result(call: Call, params: NodeInvokeResultParams) -> Outcome<Heard> {
    let node = own(&call, Some(&params.node_id))?;
    let outcome = if params.ok {
        let (value, text) = (params.payload, params.payload_json);
        let payload_json = text.as_ref().and_then(|text| serde_json::from_str(text.get()).ok());
        let value = value.or(text.filter(|_| payload_json.is_none()));
        Ran::Done { payload: value.map(|value| value.get().to_owned()), payload_json }
    } else {
        let error = params.error.unwrap_or_default();
        Ran::Failed { code: error.code, message: error.message }
    };
    let heard = call.shared.nodes.ended(&params.id, node, call.caller.member, &outcome);
    if !heard {
        tracing::debug!(node, "a late outcome is dropped");
    }
    Ok(Heard { ok: true, ignored: (!heard).then_some(true) })
}

async fn progress(call: Call, params: NodeInvokeProgressParams) -> Outcome<Heard> {
    let node = own(&call, Some(&params.node_id))?;
    if params.chunk.len() > MAX_CHUNK {
        return Err(ErrorShape::invalid("progress chunk too large").into());
    }
    let (nodes, member) = (&call.shared.nodes, call.caller.member);
    let heard = nodes.progressed(&params.invoke_id, node, member, params.seq);
    Ok(Heard { ok: true, ignored: Some(!heard) })
}

async fn event(call: Call, params: NodeEventParams) -> Outcome<NodeEventReply> {
    let node = own(&call, None)?;
    let payload = match params.payload_json {
        Some(text) => serde_json::from_str(&text).map_err(|error| {
            ErrorShape::invalid(format!("invalid node.event params: payloadJSON: {error}"))
        })?,
        None => params.payload.unwrap_or(Value::Null),
    };
    let (handled, reason) = match params.event.as_str() {
        "node.host.stats" => stats(&payload).map_or(INVALID, |stats| {
            call.shared.nodes.told_stats(node, call.caller.member, &stats)
        }),
        "node.presence.activity" => Usage::read(&payload)
            .map_or(INVALID, |usage| call.shared.nodes.told_usage(node, call.caller.member, usage)),
        "node.presence.alive" => match occasion(&payload) {
            Some(occasion) => {
                let is_stored = call.shared.nodes.told_alive(node, occasion).await?;
                (true, if is_stored { "persisted" } else { "throttled" })
            }
            None => INVALID,
        },
        _ => (false, "unsupported event"),
    };
    let reason = Some(reason.to_owned());
    Ok(NodeEventReply { ok: true, event: params.event, handled, reason })
}

async fn pull(call: Call, _params: Nothing) -> Outcome<NodePendingActions> {
    let node = own(&call, None)?;
    let actions = call.shared.nodes.postponed(node);
    Ok(NodePendingActions { node_id: node.to_owned(), actions })
}

async fn acknowledge(call: Call, params: NodePendingAckParams) -> Outcome<NodePendingAcked> {
    let node = own(&call, None)?;
    if params.ids.is_empty() || params.ids.iter().any(String::is_empty) {
        let message = "invalid node.pending.ack params: ids must not be empty";
        return Err(ErrorShape::invalid(message).into());
    }
    let remaining_count = call.shared.nodes.acknowledged(node, &params.ids);
    Ok(NodePendingAcked { node_id: node.to_owned(), acked_ids: params.ids, remaining_count })
}

async fn drain(call: Call, params: NodePendingDrainParams) -> Outcome<NodePendingDrained> {
    let node = own(&call, None)?;
    if params.max_items.is_some_and(|most| !(1..=10).contains(&most)) {
        let message = "invalid node.pending.drain params: maxItems must be 1 to 10";
        return Err(ErrorShape::invalid(message).into());
    }
    let (nodes, member, receipts) = (&call.shared.nodes, call.caller.member, &call.caller.receipts);
    nodes.has_arrived(node, member, receipts.arrived()).await;
    // Nothing may be waited for from here on: the answer is the next that goes out.
    let (revision, items, has_more) = nodes.hand_work(node, (member, receipts), params.max_items);
    Ok(NodePendingDrained { node_id: node.to_owned(), revision, items, has_more })
}

async fn plugin_tools(call: Call, params: NodePluginTools) -> Outcome<NodePluginToolsKept> {
    let node = own(&call, None)?;
    let tools = call.shared.nodes.told_tools(node, call.caller.member, params.tools)?;
    Ok(NodePluginToolsKept { node_id: node.to_owned(), tools })
}

async fn skills(call: Call, params: NodeSkills) -> Outcome<NodeSkillsKept> {
    let node = own(&call, None)?;
    let skills = call.shared.nodes.told_skills(node, call.caller.member, params.skills)?;
    Ok(NodeSkillsKept { node_id: node.to_owned(), skills })
}

async fn runners(call: Call, params: NodeRunnerInventory) -> Outcome<NodeRunnerInventoryKept> {
    let node = own(&call, None)?;
    call.shared.nodes.told_runners(node, call.caller.member, params).await?;
    Ok(NodeRunnerInventoryKept { node_id: node.to_owned() })
}

/// The caller's own device: a node speaks for no other.
fn own<'a>(call: &'a Call, named: Option<&str>) -> Outcome<&'a str> {
    let own = call.caller.device_id.as_deref();
    let own = own.ok_or_else(|| ErrorShape::invalid("a device identity is required"))?;
    match named {
        Some(named) if named != own => Err(ErrorShape::invalid("nodeId mismatch").into()),
        Some(_) | None => Ok(own),
    }
}

/// On which of the known occasions a node says that it is alive; in the background if on another.
fn occasion(payload: &Value) -> Option<&str> {
    let said = payload.as_object()?.get("trigger").and_then(Value::as_str).unwrap_or_default();
    Some(OCCASIONS.into_iter().find(|known| *known == said).unwrap_or("background"))
}

/// The numbers among what a node tells of its machine, and when.
fn stats(payload: &Value) -> Option<Value> {
    let payload = payload.as_object()?;
    let mut stats = Map::new();
    for name in STATS {
        match payload.get(name) {
            None | Some(Value::Null) => {}
            Some(value) if value.is_number() => {
                stats.insert(name.to_owned(), value.clone());
            }
            Some(Value::Array(values))
                if values.len() <= 3 && values.iter().all(Value::is_number) =>
            {
                stats.insert(name.to_owned(), json!(values));
            }
            Some(_) => return None,
        }
    }
    if stats.is_empty() {
        return None;
    }
    stats.insert("updatedAtMs".to_owned(), now_ms().into());
    Some(Value::Object(stats))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_machine_only_numbers_are_kept() {
        let told = json!({"cpuCount": 2, "loadAverage": [1, 2, 3], "name": "x"});
        let stats = stats(&told).unwrap();
        assert_eq!((stats["cpuCount"].as_u64(), stats.get("name")), (Some(2), None));
        for bad in
            [json!({}), json!(null), json!({"cpuCount": "many"}), json!({"loadAverage": ["x"]})]
        {
            assert_eq!(super::stats(&bad), None, "{bad}");
        }
    }
}
