//! A program on a node, approved for one run: however often the gateway dies, it runs once.

use std::{io, pin::pin};

use serde_json::{Value, json};

use super::{
    Dice, Kept,
    door::{Door, ask, find, request_in, text},
};
use crate::support::{Device, Wire};

/// The node that runs it, and the device that asks: an approval belongs to the device.
const NODE: u8 = 50;
const ASKER: u8 = 51;
const SCOPES: [&str; 2] = ["operator.admin", "operator.approvals"];

/// How many there are: a gateway keeps 512 requests, and these for a while after each start.
const MOST: u64 = 200;

/// The beginning of the ids of requests, which other parts pass over.
pub(super) const PREFIX: &str = "run-";

/// How far the last request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Asked,
    Allowed,
    /// The node has heard of it.
    Used,
}

/// The requests, one after the other, each with its number.
#[derive(Default)]
pub(super) struct Runs {
    last: Kept<Option<(u64, Stage)>>,
    number: u64,
}

impl Runs {
    /// Finds out by trying to run what was asked for last, which uses it up where it is allowed.
    pub(super) async fn hold(&mut self, door: &Door) {
        let mut stage = Stage::Used;
        let number = self.number;
        if number > 0 {
            let mut asker = enter(door).await.unwrap();
            let waiting = ask(&mut asker, "exec.approval.list", json!({})).await.unwrap();
            if find(&waiting, "id", &id(number)).is_some() {
                stage = Stage::Asked;
            } else {
                let mut node = ready(door, &mut asker).await.unwrap();
                if run(&mut asker, &mut node, number, || {}).await.unwrap() {
                    stage = Stage::Allowed;
                    let again = run(&mut asker, &mut node, number, || {}).await.unwrap();
                    assert!(!again, "it ran twice");
                }
            }
        }
        let found = (number > 0).then_some((number, stage));
        if stage == Stage::Used && self.last.may_be(&Some((number, Stage::Asked))) {
            // Nobody was told that there is such a request, and there is none.
            self.last.is(found);
        }
        self.last.hold(found, "a run");
        if stage == Stage::Allowed {
            self.last.is(Some((number, Stage::Used)));
        }
    }

    pub(super) async fn change(
        &mut self,
        door: &Door,
        _dice: &mut Dice,
        _count: u64,
    ) -> io::Result<()> {
        let mut asker = enter(door).await?;
        match self.last.known {
            None | Some((_, Stage::Used)) if self.number == MOST => {
                ask(&mut asker, "exec.approval.list", json!({})).await?;
                return Ok(());
            }
            None | Some((_, Stage::Used)) => {
                self.number += 1;
                self.last.asked(Some((self.number, Stage::Asked)));
                ready(door, &mut asker).await?;
                let params = json!({
                    "id": id(self.number), "host": "node", "nodeId": Device::new(NODE).id(),
                    "systemRunPlan": plan(), "twoPhase": true, "requireDeliveryRoute": false,
                    "timeoutMs": 3_600_000,
                });
                ask(&mut asker, "exec.approval.request", params).await?;
            }
            Some((number, Stage::Asked)) => {
                self.last.asked(Some((number, Stage::Allowed)));
                let params = json!({ "id": id(number), "decision": "allow-once" });
                ask(&mut asker, "exec.approval.resolve", params).await?;
            }
            Some((number, Stage::Allowed)) => {
                let mut node = ready(door, &mut asker).await?;
                let used = Some((number, Stage::Used));
                self.last.asked(used);
                // From the moment when the node hears of it there is no second time.
                let last = &mut self.last;
                assert!(run(&mut asker, &mut node, number, || last.is(used)).await?, "refused");
                let again = run(&mut asker, &mut node, number, || panic!("it ran twice")).await?;
                assert!(!again, "it ran twice");
                return Ok(());
            }
        }
        self.last.confirmed();
        Ok(())
    }
}

fn id(number: u64) -> String {
    format!("{PREFIX}{number}")
}

fn plan() -> Value {
    json!({
        "argv": ["/bin/id", "-u"], "cwd": null, "commandText": "/bin/id -u", "agentId": null,
        "sessionKey": null,
    })
}

async fn enter(door: &Door) -> io::Result<Wire> {
    let (wire, hello) = door.operator(&Device::new(ASKER), &door.secret(), &SCOPES).await?;
    assert_eq!(hello["ok"], true, "{hello}");
    Ok(wire)
}

/// The node, connected and allowed to run programs.
async fn ready(door: &Door, asker: &mut Wire) -> io::Result<Wire> {
    let come = async || door.node(&Device::new(NODE), &door.secret(), &["system.run"]).await;
    let (mut node, mut hello) = come().await?;
    if hello["ok"] != true {
        let request = json!({ "requestId": request_in(&hello) });
        ask(asker, "device.pair.approve", request).await?;
        (node, hello) = come().await?;
        assert_eq!(hello["ok"], true, "{hello}");
    }
    let list = ask(asker, "node.pair.list", json!({})).await?;
    if let Some(request) = find(&list["pending"], "nodeId", &Device::new(NODE).id()) {
        let request = json!({ "requestId": request["requestId"] });
        ask(asker, "node.pair.approve", request).await?;
    }
    Ok(node)
}

/// Has the node run it; `false` where there is no approval for it. `heard` is called once the node has
/// been told.
async fn run(
    asker: &mut Wire,
    node: &mut Wire,
    number: u64,
    heard: impl FnOnce(),
) -> io::Result<bool> {
    let run = json!({
        "command": plan()["argv"], "runId": id(number), "approved": true,
        "approvalDecision": "allow-once",
    });
    let params = json!({
        "nodeId": Device::new(NODE).id(), "command": "system.run", "params": run,
        "idempotencyKey": uuid::Uuid::new_v4().to_string(),
    });
    asker.ask("node.invoke", params).await?;
    let invocation = {
        let mut told = pin!(async {
            loop {
                let frame = node.frame().await?;
                if frame["event"] == "node.invoke.request" {
                    return io::Result::Ok(text(&frame["payload"]["id"]));
                }
            }
        });
        tokio::select! {
            biased;
            invocation = &mut told => invocation?,
            answer = asker.answer() => {
                if answer.is_err() && told.await.is_ok() {
                    // It was told before the gateway died.
                    heard();
                }
                let answer = answer?;
                let code = &answer["error"]["details"]["code"];
                assert!(code == "APPROVAL_REQUIRED" || code == "UNKNOWN_APPROVAL_ID", "{answer}");
                return Ok(false);
            }
        }
    };
    heard();
    let result = json!({
        "id": invocation, "nodeId": Device::new(NODE).id(), "ok": true, "payload": { "done": true },
    });
    ask(node, "node.invoke.result", result).await?;
    let answer = asker.answer().await?;
    assert_eq!(answer["ok"], true, "{answer}");
    Ok(true)
}
