//! `node.*` for operators: lists, pairing, names, and commands on nodes.

use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use tokio_util::sync::CancellationToken;

use super::device::{cut, minds};

use crate::{
    gateway::{
        caller::Caller,
        clock::now_ms,
        dispatch::{Call, Dispatcher, Outcome, Written, encode, unwritten},
        nodes::{Asker, Paired, Postponed, Ran, Task, is_admin_only, is_private, key_taken},
        repeats::{Ended, Meanwhile, Repeat, once},
    },
    protocol::{
        ErrorShape, NodeDescribe, NodeDescribeReply, NodeEntry, NodeError, NodeId, NodeInvoke,
        NodeInvokeParams, NodeInvoked, NodeList, NodeListReply, NodePairApprove, NodePairApproved,
        NodePairList, NodePairListReply, NodePairReject, NodePairRejected, NodePairRemove,
        NodePendingEnqueue, NodePendingEnqueueParams, NodePendingEnqueued, NodeRemoved, NodeRename,
        NodeRenameParams, NodeRenamed, Nothing, RequestId, Role, Scope, code,
    },
    store::Error,
};

/// The longest that a piece of work may wait, milliseconds, and the shortest.
const WORK_LIFE_MS: std::ops::RangeInclusive<u64> = 1_000..=86_400_000;
/// How long a client should wait when there is no room, milliseconds.
const FULL_RETRY_MS: u64 = 5_000;

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on::<NodeList, _>(list);
    dispatcher.on::<NodeDescribe, _>(describe);
    dispatcher.on_change::<NodeRename, _>(rename);
    dispatcher.on::<NodePairList, _>(pairings);
    dispatcher.on_change::<NodePairApprove, _>(approve);
    dispatcher.on_change::<NodePairReject, _>(reject);
    dispatcher.on_change::<NodePairRemove, _>(remove);
    dispatcher.on_written::<NodeInvoke, _>(invoke);
    dispatcher.on_change::<NodePendingEnqueue, _>(enqueue);
}

async fn list(call: Call, _params: Nothing) -> Outcome<NodeListReply> {
    let nodes = entries(&call).await?;
    let active = nodes.iter().find(|node| node.active);
    let active_node_id = active.map(|node| node.node_id.clone());
    Ok(NodeListReply { ts: now_ms(), active_node_id, nodes })
}

async fn describe(call: Call, params: NodeId) -> Outcome<NodeDescribeReply> {
    let nodes = entries(&call).await?;
    let node = nodes.into_iter().find(|node| node.node_id == params.node_id.trim());
    let node = node.ok_or_else(|| ErrorShape::invalid("unknown nodeId"))?;
    let node_skills = call.shared.nodes.skills_of(&node.node_id);
    Ok(NodeDescribeReply { ts: now_ms(), node, node_skills })
}

async fn rename(call: Call, params: NodeRenameParams) -> Outcome<NodeRenamed> {
    own(&call, Some(&params.node_id), "node rename denied")?;
    let name = params.display_name.trim();
    call.shared.nodes.rename(&params.node_id, name).await?;
    Ok(NodeRenamed { node_id: params.node_id.clone(), display_name: name.to_owned() })
}

async fn pairings(call: Call, _params: Nothing) -> Outcome<NodePairListReply> {
    let mut reply = call.shared.nodes.pairings().await;
    reply.pending.retain(|request| minds(&call.caller, &request.node.node_id));
    reply.paired.retain(|node| minds(&call.caller, &node.node_id));
    Ok(reply)
}

async fn approve(call: Call, params: RequestId) -> Outcome<NodePairApproved> {
    let (shared, caller) = (&call.shared, &call.caller);
    let whose = shared.nodes.whose(&params.request_id).await;
    own(&call, whose.as_deref(), "node pairing approval denied")?;
    shared.nodes.approve(&shared.hub, caller, &params.request_id).await
}

async fn reject(call: Call, params: RequestId) -> Outcome<NodePairRejected> {
    let shared = &call.shared;
    let whose = shared.nodes.whose(&params.request_id).await;
    own(&call, whose.as_deref(), "node pairing rejection denied")?;
    let node_id = shared.nodes.reject(&shared.hub, &params.request_id).await?;
    Ok(NodePairRejected { request_id: params.request_id, node_id })
}

async fn remove(call: Call, params: NodeId) -> Outcome<NodeRemoved> {
    let (shared, node_id) = (&call.shared, params.node_id.trim().to_owned());
    own(&call, Some(&node_id), "node pairing removal denied")?;
    let devices = shared.store.devices();
    let device = devices.find(&node_id).await.map_err(|error| unavailable(&error))?;
    let device = device.filter(|device| device.grant(Role::Node).is_some());
    if let Some(device) = &device {
        // A device that is nothing but a node is forgotten; another one stays what else it is.
        if device.grants.iter().all(|grant| grant.role == Role::Node) {
            devices.remove(&node_id).await.map_err(|error| unavailable(&error))?;
            shared.upgrades.forget(&node_id, now_ms());
        } else {
            devices
                .revoke(&node_id, Role::Node, now_ms())
                .await
                .map_err(|error| unavailable(&error))?;
        }
    }
    if let Some(device) = &device {
        cut(&call, &node_id, Some(Role::Node), "the node was removed");
        if device.grants.iter().all(|grant| grant.role == Role::Node) {
            shared.nodes.forget_asker(&node_id).await;
        }
    }
    let was_known = shared.nodes.forget(&shared.hub, &node_id).await?;
    if device.is_none() && !was_known {
        return Err(ErrorShape::invalid("unknown nodeId").into());
    }
    Ok(NodeRemoved { node_id })
}

async fn invoke(call: Call, params: NodeInvokeParams) -> Outcome<Written> {
    let (node, command) = (params.node_id.trim(), params.command.trim());
    check(&call.caller, node, command, &params.idempotency_key)?;
    let key = params.idempotency_key.clone();
    let request = json!([node, command, params.params]).to_string();
    let repeat =
        Repeat { method: "node.invoke", key: &key, request: &request, meanwhile: Meanwhile::Join };
    // The work goes on without this wait: when the connection ends, it hears of that here.
    let gone = CancellationToken::new();
    let _leaves = gone.clone().drop_guard();
    once(&call, repeat, run(call.clone(), params, gone)).await
}

async fn run(call: Call, mut params: NodeInvokeParams, gone: CancellationToken) -> Ended {
    let (node, command) = (params.node_id.trim(), params.command.trim());
    let mut run_params = params.params.take();
    if command == "system.run"
        && let Some(Value::Object(params)) = &mut run_params
        && params.get("runId").is_none_or(Value::is_null)
        && !params.contains_key("approved")
    {
        params.insert("runId".to_owned(), uuid::Uuid::new_v4().to_string().into());
    }
    let task = Task {
        node,
        command,
        params: run_params.map(|params| params.to_string()),
        timeout_ms: params.timeout_ms,
        asker: asker(&call.caller),
        key: Some(params.idempotency_key),
        gone,
    };
    let nodes = &call.shared.nodes;
    if let Some(before) = nodes.postponed_before(&task) {
        return Ended::Void(queued(node, command, &before));
    }
    let outcome = match nodes.run(&task).await {
        Ok(outcome) => outcome,
        Err(error) => return Ended::Void(error),
    };
    if nodes.wants_foreground(node, command, &outcome)
        && let Some(kept) = nodes.postpone(&task)
    {
        return Ended::Void(queued(node, command, &kept));
    }
    let has_begun = !outcome.is_not_ready();
    let (node_id, command) = (node.to_owned(), command.to_owned());
    let answer = answered(outcome).and_then(|(payload, payload_json)| {
        encode(&NodeInvoked { ok: true, node_id, command, payload, payload_json })
    });
    match answer {
        Err(error) if !has_begun => Ended::Void(error),
        answer => Ended::Final(answer),
    }
}

async fn enqueue(call: Call, params: NodePendingEnqueueParams) -> Outcome<NodePendingEnqueued> {
    let node_id = params.node_id.trim().to_owned();
    if params.expires_in_ms.is_some_and(|life| !WORK_LIFE_MS.contains(&life)) {
        let message = "invalid node.pending.enqueue params: expiresInMs must be 1000 to 86400000";
        return Err(ErrorShape::invalid(message).into());
    }
    if !entries(&call).await?.iter().any(|node| node.node_id == node_id) {
        return Err(ErrorShape::invalid("unknown nodeId").into());
    }
    let NodePendingEnqueueParams { kind, priority, expires_in_ms, .. } = params;
    let left = call.shared.nodes.leave_work(&node_id, kind, priority, expires_in_ms).await;
    let (revision, queued) = left?;
    Ok(NodePendingEnqueued { node_id, revision, queued, wake_triggered: false })
}

/// The nodes as the caller may see them.
async fn entries(call: &Call) -> Outcome<Vec<NodeEntry>> {
    let pairing =
        call.shared.store.devices().list(now_ms()).await.map_err(|error| unavailable(&error))?;
    let paired = pairing.paired.into_iter().filter_map(|device| {
        device.grant(Role::Node).filter(|grant| grant.revoked_at.is_none())?;
        Some(Paired {
            node_id: device.id,
            name: device.label,
            platform: device.about.platform,
            approved_at_ms: device.approved_at,
        })
    });
    let (may_decide, own) = (call.caller.holds(Scope::Pairing), call.caller.device_id.as_deref());
    Ok(call.shared.nodes.list(paired.collect(), may_decide, own).await)
}

/// A caller with a device's token minds that device alone, unless it is an administrator.
fn own(call: &Call, node: Option<&str>, denial: &str) -> Outcome<()> {
    // One that is not known is not to be told from another's.
    if minds(&call.caller, node.unwrap_or_default()) {
        return Ok(());
    }
    Err(ErrorShape::invalid(denial).into())
}

/// Who asks, for approvals and repeated keys.
pub(super) fn asker(caller: &Caller) -> Asker {
    Asker { device: caller.device_id.clone(), connection: caller.connection.clone() }
}

/// What a node answered, as a value and as its text.
pub(super) fn answered(outcome: Ran) -> Outcome<(Option<Box<RawValue>>, Option<String>)> {
    match outcome {
        Ran::Done { payload, payload_json } => {
            let text = payload_json.as_ref().or(payload.as_ref());
            let value = text.map(|text| readable(text)).transpose();
            Ok((value.map_err(|error| unwritten(&error))?, payload_json))
        }
        Ran::Failed { code, message } => {
            let text = message.as_deref().unwrap_or("node invoke failed");
            let text =
                code.as_ref().map_or_else(|| text.to_owned(), |code| format!("{code}: {text}"));
            let details = json!({
                "nodeError": NodeError { code, message }, "nodeCommandDispatched": true,
            });
            Err(ErrorShape::new(code::UNAVAILABLE, text).details(details).into())
        }
    }
}

/// A node's JSON as it is, if whoever asked can read it; what is none, or is too deep, as its text.
fn readable(text: &str) -> serde_json::Result<Box<RawValue>> {
    match serde_json::from_str::<Value>(text) {
        Ok(_) => RawValue::from_string(text.to_owned()),
        Err(_) => to_raw_value(&json!({"payloadJSON": text})),
    }
}

/// What can be refused without a look at the node.
fn check(caller: &Caller, node: &str, command: &str, key: &str) -> Outcome<()> {
    if node.is_empty() || command.is_empty() || key.is_empty() {
        return Err(ErrorShape::invalid(
            "invalid node.invoke params: nodeId, command and idempotencyKey must not be empty",
        )
        .into());
    }
    let needed = if is_admin_only(command) { Scope::Admin } else { Scope::Write };
    if !caller.holds(needed) {
        return Err(ErrorShape::missing_scope(needed).into());
    }
    let refusal = if is_private(command) {
        "node.invoke does not allow private node controls"
    } else if command.starts_with("system.execApprovals.") {
        "node.invoke does not allow system.execApprovals.*; use exec.approvals.node.*"
    } else {
        return Ok(());
    };
    Err(ErrorShape::invalid(refusal).details(json!({ "command": command })).into())
}

/// The answer to what waits for the foreground; the same key for something else is refused.
fn queued(node: &str, command: &str, kept: &Postponed) -> Box<ErrorShape> {
    match kept {
        Postponed::Same(id) => postponed(node, command, id).into(),
        Postponed::Other => key_taken().into(),
    }
}

fn postponed(node: &str, command: &str, id: &str) -> ErrorShape {
    let message = "node command queued until iOS returns to foreground";
    ErrorShape { retryable: Some(true), ..ErrorShape::new(code::UNAVAILABLE, message) }.details(
        json!({
            "code": "QUEUED_UNTIL_FOREGROUND", "queuedActionId": id, "nodeId": node,
            "command": command,
        }),
    )
}

fn unavailable(error: &Error) -> ErrorShape {
    tracing::warn!(%error, "the paired devices could not be read");
    ErrorShape::unavailable(error.to_string(), FULL_RETRY_MS)
}
