//! The methods that only nodes call: answers to what they were asked, news, and work left for them.

use serde::{Deserialize, Serialize};
use serde_json::{Value, value::RawValue};

use super::{Access, Nothing, Work, method::methods, object::maybe};

methods! {
    /// How a command ended.
    NodeInvokeResult = "node.invoke.result", Access::Node, NodeInvokeResultParams => Heard;
    /// What a command has said so far.
    NodeInvokeProgress = "node.invoke.progress", Access::Node, NodeInvokeProgressParams => Heard;
    /// News from a node.
    NodeEvent = "node.event", Access::Node, NodeEventParams => NodeEventReply;
    /// Actions that wait for the node's foreground.
    NodePendingPull = "node.pending.pull", Access::Node, Nothing => NodePendingActions;
    /// Actions that the node has done.
    NodePendingAck = "node.pending.ack", Access::Node, NodePendingAckParams => NodePendingAcked;
    /// Work left for the node.
    NodePendingDrain = "node.pending.drain", Access::Node, NodePendingDrainParams => NodePendingDrained;
}

/// `NodeInvokeResultParams`; `null` is as good as absent.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NodeInvokeResultParams {
    /// The invocation.
    pub(crate) id: String,
    /// The node's own device.
    pub(crate) node_id: String,
    /// Whether it did it.
    pub(crate) ok: bool,
    /// What came of it.
    #[serde(default)]
    pub(crate) payload: Option<Box<RawValue>>,
    /// The same as JSON text; some nodes write the value where its text belongs.
    #[serde(default, rename = "payloadJSON")]
    pub(crate) payload_json: Option<Box<RawValue>>,
    /// Why it did not.
    #[serde(default, deserialize_with = "maybe")]
    pub(crate) error: Option<NodeError>,
}

/// Why a node did not do something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeError {
    /// The node's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

/// `NodeInvokeProgressParams`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NodeInvokeProgressParams {
    /// The invocation.
    pub(crate) invoke_id: String,
    /// The node's own device.
    pub(crate) node_id: String,
    /// Counts upwards.
    pub(crate) seq: u64,
    /// What it said; at most 16 KiB.
    pub(crate) chunk: String,
}

/// Reply of `node.invoke.result` and `.progress`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct Heard {
    /// Always true.
    pub(crate) ok: bool,
    /// Whether it came too late to matter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ignored: Option<bool>,
}

/// `NodeEventParams`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeEventParams {
    /// `node.host.stats`, `node.presence.alive`, …
    pub(crate) event: String,
    /// What happened.
    #[serde(default)]
    pub(crate) payload: Option<Value>,
    /// The same as JSON text.
    #[serde(default, rename = "payloadJSON")]
    pub(crate) payload_json: Option<String>,
}

/// Reply of `node.event` (`NodeEventResult`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct NodeEventReply {
    /// Always true.
    pub(crate) ok: bool,
    /// The event.
    pub(crate) event: String,
    /// Whether it meant something to this gateway.
    pub(crate) handled: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

/// Reply of `node.pending.pull`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodePendingActions {
    /// The node's device.
    pub(crate) node_id: String,
    /// What to do.
    pub(crate) actions: Vec<PendingAction>,
}

/// A command that waits for the node's foreground.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PendingAction {
    /// Its id.
    pub(crate) id: String,
    /// `camera.snap`, …
    pub(crate) command: String,
    /// Its parameters as JSON text.
    #[serde(rename = "paramsJSON")]
    pub(crate) params_json: Option<String>,
    /// Milliseconds since 1970.
    pub(crate) enqueued_at_ms: u64,
}

/// `NodePendingAckParams`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodePendingAckParams {
    /// What was done.
    pub(crate) ids: Vec<String>,
}

/// Reply of `node.pending.ack`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodePendingAcked {
    /// The node's device.
    pub(crate) node_id: String,
    /// What was done.
    pub(crate) acked_ids: Vec<String>,
    /// How much is left.
    pub(crate) remaining_count: usize,
}

/// `NodePendingDrainParams`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct NodePendingDrainParams {
    /// At most this many, 1 to 10; 4 if not said.
    #[serde(default)]
    pub(crate) max_items: Option<usize>,
}

/// Reply of `node.pending.drain` (`NodePendingDrainResult`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodePendingDrained {
    /// The node's device.
    pub(crate) node_id: String,
    /// Grows with every change of the node's work.
    pub(crate) revision: u64,
    /// What to do, the most urgent first.
    pub(crate) items: Vec<Work>,
    /// Whether there is more.
    pub(crate) has_more: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::protocol::{Connect, NodeInvokeRequest, NodePairResolved, RunPlan};

    /// A frame of the reference gateway and its headless node host.
    macro_rules! captured {
        ($name:literal) => {
            serde_json::from_str::<Value>(include_str!(concat!(
                "../../fixtures/frames/openclaw-2026.9.6/",
                $name,
                ".json"
            )))
            .unwrap()
        };
    }

    fn names(value: &Value) -> Vec<&String> {
        value.as_object().unwrap().keys().collect()
    }

    #[test]
    fn reads_what_the_reference_node_says() {
        let connect: Connect =
            serde_json::from_value(captured!("node-connect")["params"].clone()).unwrap();
        assert_eq!(connect.role.as_deref(), Some("node"));
        assert!(connect.commands.unwrap().iter().any(|command| command == "system.run"));
        let told: NodeEventParams =
            serde_json::from_value(captured!("node.event")["params"].clone()).unwrap();
        assert_eq!(told.event, "node.host.stats");
        let result: NodeInvokeResultParams =
            serde_json::from_value(captured!("node.invoke.result")["params"].clone()).unwrap();
        assert!(result.ok && result.payload_json.unwrap().get().starts_with('"'));
    }

    #[test]
    fn says_to_nodes_what_the_reference_gateway_says() {
        let request = NodeInvokeRequest {
            id: "i".to_owned(),
            node_id: "n".to_owned(),
            command: "system.which".to_owned(),
            params_json: Some("{}".to_owned()),
            timeout_ms: 1,
            idempotency_key: Some("k".to_owned()),
        };
        let theirs = captured!("node.invoke.request.system.which");
        assert_eq!(names(&json!(request)), names(&theirs["payload"]));
        let resolved = NodePairResolved {
            request_id: "r".to_owned(),
            node_id: "n".to_owned(),
            decision: "approved",
            ts: 1,
        };
        let theirs = captured!("node.pair.resolved");
        assert_eq!(names(&json!(resolved)), names(&theirs["payload"]));
    }

    #[test]
    fn a_plan_comes_back_as_the_reference_node_made_it() {
        let plan = json!({
            "argv": ["/usr/bin/echo", "hi"], "cwd": "/home/node", "commandText": "/usr/bin/echo hi",
            "commandPreview": null, "agentId": "main", "sessionKey": "agent:main:main",
            "mutableFileOperand": {"argvIndex": 0, "path": "/usr/bin/echo", "sha256": "00"},
            "policySnapshot": {"security": "full", "ask": "off", "askFallback": "deny",
                "autoAllowSkills": false, "allowlistRules": []},
        });
        let read: RunPlan = serde_json::from_value(plan.clone()).unwrap();
        assert_eq!(json!(read), plan);
    }

    #[test]
    fn the_captured_replies_have_the_fields_of_ours() {
        let listed = captured!("node.list.reply");
        let node = &listed["payload"]["nodes"][0];
        for name in ["nodeId", "caps", "commands", "approvalState", "paired", "connected"] {
            assert!(node.get(name).is_some(), "{name}");
        }
        let pairing = captured!("node.pair.list.reply");
        let asked = &pairing["payload"]["pending"][0];
        for name in ["requestId", "nodeId", "caps", "commands", "requiredApproveScopes", "ts"] {
            assert!(asked.get(name).is_some(), "{name}");
        }
        let approved = captured!("node.pair.approve.reply");
        assert!(approved["payload"]["node"]["approvedAtMs"].is_u64());
        let invoked = captured!("node.invoke.reply");
        assert_eq!(invoked["payload"]["command"], "system.which");
    }
}
