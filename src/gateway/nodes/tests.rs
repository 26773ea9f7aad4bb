//! A node from its first connect to a command, on a stopped clock and a store in memory.

use std::{sync::Arc, time::Duration};

use futures_util::sink;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot::error::TryRecvError},
    time::{sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

use super::{
    Arriving, Ask, Asker, Nodes, NotAsked, NotDecided, Paired, Ran, Rules, Seat, Task, Viewer,
    shell::{Waiter, locked},
};
use crate::{
    gateway::{caller::Caller, clock::now_ms, hub::Hub, outbox::Outbox, tally::Tally},
    protocol::{
        Connect, Decision, ErrorShape, NodeEntry, NodeRunnerInventory, NodeSkill, NodeTool,
        PresenceEntry, Role, Scope,
    },
    store::{About, KeptApproval, Store},
};

const NODE: &str = "the device of the node";
const ADMIN: Viewer<'static> =
    Viewer { scopes: &[Scope::Admin], device: None, connection: "another" };

/// A gateway's nodes, with one node that is there.
struct Place {
    nodes: Arc<Nodes>,
    hub: Arc<Hub>,
    store: Store,
}

/// The node's end of its connection.
struct Node {
    seat: Seat,
    frames: mpsc::UnboundedReceiver<Value>,
}

impl Place {
    fn new() -> Self {
        let store = Store::in_memory();
        let hub = Arc::new(Hub::new(PresenceEntry::default()));
        let nodes = Arc::new(Nodes::new(store.clone(), Arc::clone(&hub)));
        Self { nodes, hub, store }
    }

    /// What the next process has of it.
    async fn next_process(&self) -> Self {
        let nodes = Arc::new(Nodes::new(self.store.clone(), Arc::clone(&self.hub)));
        nodes.load().await.unwrap();
        Self { nodes, hub: Arc::clone(&self.hub), store: self.store.clone() }
    }

    async fn connect(&self, member: u64) -> Node {
        let arriving = self.arrive().await;
        self.seat(arriving, member).await.unwrap()
    }

    async fn arrive(&self) -> Arriving {
        self.nodes.arrived(&self.hub, NODE, &connect(), None).await.unwrap()
    }

    async fn seat(&self, arriving: Arriving, member: u64) -> Option<Node> {
        let outbox = Arc::new(Outbox::new(1 << 20, Arc::new(Tally::new())));
        let seat = self.nodes.seat(arriving, member, Arc::clone(&outbox)).await?;
        let (sender, frames) = mpsc::unbounded_channel();
        let sink = sink::unfold(sender, |sender, message: Message| async move {
            if let Message::Text(text) = message {
                sender.send(serde_json::from_str(&text).unwrap()).unwrap();
            }
            Ok(sender)
        });
        tokio::spawn(async move { outbox.write_to(Box::pin(sink)).await });
        Some(Node { seat, frames })
    }

    async fn approve(&self) {
        let pending = self.nodes.pairings().await.pending;
        let request = &pending[0].request_id;
        self.nodes.approve(&self.hub, &caller(&[Scope::Admin]), request).await.unwrap();
    }

    /// The node as operators see it.
    async fn shown(&self) -> NodeEntry {
        let paired = Paired { node_id: NODE.to_owned(), ..Paired::default() };
        self.nodes.list(vec![paired], true, None).await.remove(0)
    }

    async fn run(&self, command: &str, params: Value, key: &str) -> Result<Ran, Box<ErrorShape>> {
        let (asker, key) = (asker(), Some(key.to_owned()));
        let params = Some(params.to_string());
        let gone = CancellationToken::new();
        let task = Task { node: NODE, command, params, timeout_ms: Some(5_000), asker, key, gone };
        self.nodes.run(&task).await
    }

    /// The same of somebody who says when he goes.
    async fn run_until(&self, gone: &CancellationToken, key: &str) -> Ran {
        let (asker, key, gone) = (asker(), Some(key.to_owned()), gone.clone());
        let command = "system.which";
        let task =
            Task { node: NODE, command, params: None, timeout_ms: Some(5_000), asker, key, gone };
        self.nodes.run(&task).await.unwrap()
    }
}

impl Node {
    /// The next command that the node gets.
    async fn command(&mut self) -> Value {
        self.hears("node.invoke.request").await
    }

    /// The payload of the next event of this name.
    async fn hears(&mut self, event: &str) -> Value {
        loop {
            let frame = self.frames.recv().await.unwrap();
            if frame["event"] == event {
                return frame["payload"].clone();
            }
        }
    }
}

fn connect() -> Connect {
    serde_json::from_value(json!({
        "minProtocol": 4, "maxProtocol": 4, "role": "node", "caps": ["system"],
        "client": {"id": "node-host", "version": "1", "platform": "linux", "mode": "node",
            "deviceFamily": "Linux", "displayName": "Box"},
        "commands": ["system.run", "system.which", "dir.list"],
    }))
    .unwrap()
}

fn asker() -> Asker {
    Asker { device: None, connection: "c".to_owned() }
}

fn caller(scopes: &[Scope]) -> Caller {
    Caller {
        connection: "c".to_owned(),
        member: 9,
        role: Role::Operator,
        client: connect().client,
        about: About::default(),
        device_id: None,
        by_device_token: false,
        scopes: scopes.to_vec(),
        farewell: std::sync::OnceLock::new(),
        receipts: Arc::default(),
    }
}

fn done(text: &str) -> Ran {
    Ran::Done { payload: None, payload_json: Some(text.to_owned()) }
}

#[tokio::test(start_paused = true)]
async fn a_node_runs_nothing_before_a_person_approved_it() {
    let place = Place::new();
    let mut node = place.connect(1).await;
    let refused = place.run("system.which", json!({}), "1").await.unwrap_err();
    assert!(refused.message.contains("nodes approve"), "{}", refused.message);
    let request = place.nodes.pairings().await.pending[0].request_id.clone();
    let reader = caller(&[Scope::Pairing, Scope::Write]);
    let missing = place.nodes.approve(&place.hub, &reader, &request).await.unwrap_err();
    assert_eq!(missing.code, "FORBIDDEN", "system.run wants an administrator");
    place.approve().await;
    let (ran, ()) = tokio::join!(place.run("system.which", json!({"bins": ["a"]}), "2"), async {
        let command = node.command().await;
        assert_eq!(command["paramsJSON"], r#"{"bins":["a"]}"#);
        let id = command["id"].as_str().unwrap();
        assert!(place.nodes.ended(id, NODE, 1, &done("{}")));
        assert!(!place.nodes.ended(id, NODE, 1, &done("late")), "a late outcome is dropped");
    });
    assert_eq!(ran.unwrap(), done("{}"));
    assert_eq!(place.run("system.which", json!({}), "2").await.unwrap(), done("{}"));
}

#[tokio::test(start_paused = true)]
async fn silence_a_lost_node_and_the_gateways_end_are_answers() {
    let place = Place::new();
    let mut node = place.connect(1).await;
    place.approve().await;
    let silent = place.run("system.which", json!({}), "1").await.unwrap();
    assert!(matches!(silent, Ran::Failed { code: Some(code), .. } if code == "TIMEOUT"));
    let (lost, ()) = tokio::join!(place.run("system.which", json!({}), "2"), async {
        node.command().await;
        node.command().await;
        drop(node.seat);
    });
    assert!(
        matches!(lost.unwrap(), Ran::Failed { code: Some(code), .. } if code == "DISCONNECTED")
    );
    let away = place.run("system.which", json!({}), "3").await.unwrap_err();
    assert_eq!(away.details.unwrap()["code"], "NOT_CONNECTED");
    let mut node = place.connect(2).await;
    let (ended, ()) = tokio::join!(place.run("system.which", json!({}), "4"), async {
        node.command().await;
        place.nodes.stop();
    });
    assert!(matches!(ended.unwrap(), Ran::Failed { .. }));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_waits_for_is_stopped_and_takes_no_place() {
    let place = Place::new();
    let mut node = place.connect(1).await;
    place.approve().await;
    // One whose time is over, and more of those who left than there are places.
    place.run("system.which", json!({}), "late").await.unwrap();
    let late = node.command().await["id"].clone();
    assert_eq!(
        node.hears("node.invoke.cancel").await,
        json!({"invokeId": late, "nodeId": NODE}),
        "its time is over"
    );
    for key in 0..40 {
        let key = key.to_string();
        let run = place.run("system.which", json!({}), &key);
        timeout(Duration::from_secs(1), run).await.unwrap_err();
        let id = node.command().await["id"].clone();
        assert_eq!(node.hears("node.invoke.cancel").await["invokeId"], id);
    }
    let (ran, ()) = tokio::join!(place.run("system.which", json!({}), "later"), async {
        let command = node.command().await;
        assert!(place.nodes.ended(command["id"].as_str().unwrap(), NODE, 1, &done("{}")));
    });
    assert_eq!(ran.unwrap(), done("{}"));
}

#[tokio::test(start_paused = true)]
async fn a_command_that_two_wait_for_is_stopped_when_both_have_gone() {
    let place = Place::new();
    let mut node = place.connect(1).await;
    place.approve().await;
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let (one, other, ()) =
        tokio::join!(place.run_until(&first, "k"), place.run_until(&second, "k"), async {
            let id = node.command().await["id"].clone();
            first.cancel();
            sleep(Duration::from_secs(1)).await;
            assert!(node.frames.try_recv().is_err(), "the second still waits");
            second.cancel();
            assert_eq!(node.hears("node.invoke.cancel").await["invokeId"], id);
        });
    for outcome in [one, other, place.run_until(&CancellationToken::new(), "k").await] {
        assert!(matches!(outcome, Ran::Failed { code: Some(code), .. } if code == "ABORTED"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_the_configuration_forbids_is_stopped() {
    let place = Place::new();
    let mut node = place.connect(1).await;
    place.approve().await;
    let (ran, ()) = tokio::join!(place.run("system.which", json!({}), "1"), async {
        let id = node.command().await["id"].clone();
        let deny = std::iter::once("system.which".to_owned()).collect();
        place.nodes.obey(Rules { deny, ..Rules::default() });
        assert_eq!(node.hears("node.invoke.cancel").await["invokeId"], id);
    });
    let ran = ran.unwrap();
    assert!(matches!(ran, Ran::Failed { code: Some(code), .. } if code == "POLICY_CHANGED"));
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_not_ready_is_asked_again_four_times_within_the_time() {
    let place = Place::new();
    let mut node = place.connect(1).await;
    place.approve().await;
    let not_ready = Ran::Failed { code: Some("NODE_NOT_READY".to_owned()), message: None };
    let start = tokio::time::Instant::now();
    let (ran, ()) = tokio::join!(place.run("system.which", json!({}), "1"), async {
        for (pause, left) in [(0, 5_000), (100, 4_900), (250, 4_650), (500, 4_150), (1_000, 3_150)]
        {
            let before = tokio::time::Instant::now();
            let command = node.command().await;
            assert!(before.elapsed() >= Duration::from_millis(pause));
            assert!(command["timeoutMs"].as_u64().unwrap() <= left, "{command}");
            let id = command["id"].as_str().unwrap();
            assert!(place.nodes.ended(id, NODE, 1, &not_ready));
        }
    });
    assert_eq!(ran.unwrap(), not_ready);
    assert!(start.elapsed() < Duration::from_secs(2));
    let (ran, ()) = tokio::join!(place.run("system.which", json!({}), "1"), async {
        for outcome in [not_ready, done("{}")] {
            let command = node.command().await;
            assert!(place.nodes.ended(command["id"].as_str().unwrap(), NODE, 1, &outcome));
        }
    });
    assert_eq!(ran.unwrap(), done("{}"), "nothing was done before, and the key is free");
}

#[tokio::test(start_paused = true)]
async fn a_command_for_a_node_that_has_just_left_is_answered_at_once_and_may_come_again() {
    let place = Place::new();
    let node = place.connect(1).await;
    place.approve().await;
    let left = locked(&place.nodes.present).find(NODE).cloned().unwrap();
    drop(node);
    let again = place.connect(2).await;
    let asker = asker();
    let key = Some("1".to_owned());
    let (command, gone) = ("system.which", CancellationToken::new());
    let task = Task { node: NODE, command, params: None, timeout_ms: None, asker, key, gone };
    let now = tokio::time::Instant::now().into_std();
    let (waiter, mut answer) = Waiter::new(CancellationToken::new());
    let error = place.nodes.start(&left, &task, None, now, waiter).await.unwrap_err();
    assert_eq!(error.details.unwrap()["code"], "NOT_CONNECTED");
    assert!(answer.try_recv().is_err_and(|error| error == TryRecvError::Closed));
    drop(again);
    let away = place.nodes.run(&task).await.unwrap_err();
    assert_eq!(away.message, "node not connected", "the key is free");
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_while_the_parameters_of_a_program_are_read() {
    let place = Place::new();
    let _node = place.connect(1).await;
    let live = locked(&place.nodes.present).find(NODE).cloned().unwrap();
    let nodes = Arc::clone(&place.nodes);
    let (told, read) = std::sync::mpsc::channel();
    let held = place.nodes.hold_commands();
    std::thread::spawn(move || {
        let params = Some("{".to_owned());
        let (asker, now) = (asker(), std::time::Instant::now());
        let (command, gone) = ("system.run", CancellationToken::new());
        let task = Task { node: NODE, command, params, timeout_ms: None, asker, key: None, gone };
        let (waiter, _answer) = Waiter::new(CancellationToken::new());
        let alone = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let begun = alone.block_on(nodes.start(&live, &task, None, now, waiter));
        told.send(begun.unwrap_err().message).unwrap();
    });
    let read = read.recv_timeout(Duration::from_secs(10));
    drop(held);
    assert!(read.expect("it waits for others").contains("invalid node.invoke params"));
}

/// A request to run `id` on the node.
fn ask() -> Ask {
    let plan = json!({
        "argv": ["/bin/id"], "cwd": null, "commandText": "/bin/id", "agentId": null,
        "sessionKey": "s",
    });
    Ask {
        id: "a".to_owned(),
        request: json!({ "systemRunPlan": plan }),
        node: Some(NODE.to_owned()),
        env: std::collections::BTreeMap::new(),
        asker: asker(),
        wait_ms: Some(60_000),
    }
}

/// Runs it, as somebody approved.
fn run_id() -> Value {
    json!({"command": ["/bin/id"], "runId": "a", "approved": true, "sessionKey": "s"})
}

#[tokio::test(start_paused = true)]
async fn a_decision_lets_one_command_through_once() {
    let place = Place::new();
    let mut node = place.connect(1).await;
    place.approve().await;
    place.nodes.ask(ask()).await.unwrap();
    let params = run_id();
    let early = place.run("system.run", params.clone(), "1").await.unwrap_err();
    assert_eq!(early.details.unwrap()["code"], "APPROVAL_REQUIRED");
    let (standing, ()) = tokio::join!(place.nodes.decision("a"), async {
        place.nodes.decide("a", Decision::AllowOnce).await.unwrap();
    });
    assert_eq!(standing.unwrap().unwrap().decision, Some(Decision::AllowOnce));
    let (ran, ()) = tokio::join!(place.run("system.run", params.clone(), "1"), async {
        let command = node.command().await;
        let sent: Value = serde_json::from_str(command["paramsJSON"].as_str().unwrap()).unwrap();
        assert_eq!(sent["command"], json!(["/bin/id"]));
        assert_eq!(sent["approvalDecision"], "allow-once");
        assert!(place.nodes.ended(command["id"].as_str().unwrap(), NODE, 1, &done("{}")));
    });
    assert_eq!(ran.unwrap(), done("{}"));
    let again = place.run("system.run", params, "2").await.unwrap_err();
    assert_eq!(again.details.unwrap()["code"], "APPROVAL_REQUIRED");
}

#[tokio::test(start_paused = true)]
async fn who_may_decide_nothing_finds_the_request_of_its_own_device_alone() {
    let place = Place::new();
    let _node = place.connect(1).await;
    let pending = place.nodes.pairings().await.pending;
    let request = Some(pending[0].request_id.as_str());
    for (own, expected) in [(Some(NODE), request), (Some("another"), None), (None, None)] {
        let paired = Paired { node_id: NODE.to_owned(), ..Paired::default() };
        let shown = place.nodes.list(vec![paired], false, own).await.remove(0);
        assert_eq!(shown.pending_request_id.as_deref(), expected, "{own:?}");
        assert_eq!((shown.pending_declared_caps, shown.pending_declared_commands), (None, None));
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_process_knows_every_request_decision_and_use() {
    let place = Place::new();
    place.connect(1).await;
    place.approve().await;
    place.nodes.ask(ask()).await.unwrap();
    let second = place.next_process().await;
    let waits = second.nodes.undecided(ADMIN);
    assert_eq!(waits.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(second.nodes.ask(ask()).await, Err(NotAsked::Taken));
    let (standing, ()) = tokio::join!(second.nodes.decision("a"), async {
        second.nodes.decide("a", Decision::AllowOnce).await.unwrap();
    });
    assert_eq!(standing.unwrap().unwrap().decision, Some(Decision::AllowOnce));
    let third = place.next_process().await;
    let again = third.nodes.decision("a").await.unwrap().unwrap();
    assert_eq!(again.decision, Some(Decision::AllowOnce), "whoever waited asks again");
    let mut node = third.connect(3).await;
    // The process ends with the command on its way, and nobody knows whether it ran.
    let sent = tokio::select! {
        ran = third.run("system.run", run_id(), "1") => panic!("{ran:?}"),
        command = node.command() => command,
    };
    assert_eq!(sent["command"], "system.run");
    let fourth = place.next_process().await;
    let _node = fourth.connect(4).await;
    let refused = fourth.run("system.run", run_id(), "2").await.unwrap_err();
    assert_eq!(refused.details.unwrap()["code"], "APPROVAL_REQUIRED");
}

#[tokio::test(start_paused = true)]
async fn nothing_of_an_approval_counts_that_could_not_be_stored() {
    let place = Place::new();
    let mut node = place.connect(1).await;
    place.approve().await;
    place.store.refuse_writes(true).await;
    assert!(matches!(place.nodes.ask(ask()).await, Err(NotAsked::Unkept(_))));
    place.store.refuse_writes(false).await;
    place.nodes.ask(ask()).await.unwrap();
    place.store.refuse_writes(true).await;
    let decided = place.nodes.decide("a", Decision::AllowOnce).await;
    assert!(matches!(decided, Err(NotDecided::Unkept(_))));
    assert!(place.nodes.undecided(ADMIN).len() == 1, "it waits");
    place.store.refuse_writes(false).await;
    place.nodes.decide("a", Decision::AllowOnce).await.unwrap();
    place.store.refuse_writes(true).await;
    let refused = place.run("system.run", run_id(), "1").await.unwrap_err();
    assert_eq!(refused.code, "UNAVAILABLE");
    assert!(node.frames.try_recv().is_err(), "the node hears nothing of it");
    place.store.refuse_writes(false).await;
    let (ran, ()) = tokio::join!(place.run("system.run", run_id(), "1"), async {
        let command = node.command().await;
        assert!(place.nodes.ended(command["id"].as_str().unwrap(), NODE, 1, &done("{}")));
    });
    assert_eq!(ran.unwrap(), done("{}"), "the same again, under the same key");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_approved_for_a_node_or_a_device_that_is_no_more() {
    let place = Place::new();
    for is_node in [true, false] {
        let asker = Asker { device: Some("laptop".to_owned()), connection: "c".to_owned() };
        place.nodes.ask(Ask { asker, ..ask() }).await.unwrap();
        place.nodes.decide("a", Decision::AllowAlways).await.unwrap();
        if is_node {
            place.nodes.forget(&place.hub, NODE).await.unwrap();
        } else {
            place.nodes.forget_asker("phone").await;
            assert!(place.nodes.decision("a").await.unwrap().is_some(), "it asked for nothing");
            place.nodes.forget_asker("laptop").await;
        }
        for place in [&place, &place.next_process().await] {
            assert_eq!(place.nodes.decision("a").await, Ok(None));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_waits_no_longer_for_the_foreground_where_the_clock_is_set_back() {
    let nodes = Place::new().nodes;
    let (asker, gone) = (asker(), CancellationToken::new());
    let key = Some("k".to_owned());
    let command = "camera.list";
    let task = Task { node: NODE, command, params: None, timeout_ms: None, asker, key, gone };
    assert!(nodes.postpone(&task).is_some());
    assert_eq!(nodes.acknowledged(NODE, &[]), 1);
    // Ten minutes of which the clock on the wall shows nothing.
    sleep(Duration::from_secs(600)).await;
    assert_eq!(nodes.acknowledged(NODE, &[]), 0);
    assert_eq!(nodes.postponed_before(&task), None);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_ended_while_no_gateway_ran_is_kept_no_longer() {
    let place = Place::new();
    place.nodes.ask(ask()).await.unwrap();
    let approvals = place.store.approvals();
    let kept = approvals.all(now_ms()).await.unwrap().remove(0);
    let old = KeptApproval { id: "old".to_owned(), created_at_ms: 1, expires_at_ms: 2, ..kept };
    approvals.keep(old, Vec::new()).await.unwrap();
    place.next_process().await;
    let left = approvals.all(now_ms()).await.unwrap();
    assert_eq!(left.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_approved_outlives_the_gateway_and_a_removal_ends_it() {
    let place = Place::new();
    let node = place.connect(1).await;
    place.approve().await;
    place.nodes.rename(NODE, "Desk").await.unwrap();
    for name in ["", "two\nlines", "\u{1b}[31mred", "\u{7}", &"x".repeat(201)] {
        place.nodes.rename(NODE, name).await.unwrap_err();
    }
    assert_eq!(place.nodes.rename("nobody", "x").await.unwrap_err().message, "unknown nodeId");
    drop(node);
    let nodes = Arc::new(Nodes::new(place.store.clone(), Arc::clone(&place.hub)));
    let later = Place { nodes, ..Place::new() };
    later.nodes.load().await.unwrap();
    let _node = later.connect(2).await;
    assert!(later.nodes.pairings().await.pending.is_empty());
    let shown = later.nodes.list(Vec::new(), true, None).await;
    assert_eq!(shown[0].display_name.as_deref(), Some("Desk"));
    assert_eq!((shown[0].approval_state.name(), shown[0].connected), ("approved", true));
    assert_eq!(shown[0].commands, ["system.run", "system.which"]);
    assert!(later.nodes.forget(&later.hub, NODE).await.unwrap());
    assert!(later.nodes.list(Vec::new(), true, None).await.is_empty());
    assert!(!later.nodes.forget(&later.hub, NODE).await.unwrap());
    later.nodes.load().await.unwrap();
    assert!(later.nodes.pairings().await.paired.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_approval_counts_for_a_node_that_is_just_coming_in_and_so_does_a_removal() {
    let place = Place::new();
    let arriving = place.arrive().await;
    place.approve().await;
    let mut node = place.seat(arriving, 1).await.unwrap();
    assert_eq!(place.shown().await.commands, ["system.run", "system.which"]);
    let (ran, ()) = tokio::join!(place.run("system.which", json!({}), "1"), async {
        let command = node.command().await;
        assert!(place.nodes.ended(command["id"].as_str().unwrap(), NODE, 1, &done("{}")));
    });
    assert_eq!(ran.unwrap(), done("{}"));
    let arriving = place.arrive().await;
    assert!(place.nodes.forget(&place.hub, NODE).await.unwrap());
    assert!(place.seat(arriving, 2).await.is_none(), "a node that was removed has no seat");
}

fn tool() -> Vec<NodeTool> {
    let tool = json!([{"pluginId": "p", "name": "look", "description": "looks",
        "command": "system.which"}]);
    serde_json::from_value(tool).unwrap()
}

fn runners(feature: &str) -> NodeRunnerInventory {
    let told = json!({"protocolFeatures": [feature],
        "workerHost": {"enabled": true, "capacity": {"total": 2, "available": 1}}});
    serde_json::from_value(told).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_a_node_publishes_counts_as_far_as_it_is_approved_and_while_it_is_here() {
    const FEATURE: &str = "node-worker-supervisor-v6";
    let place = Place::new();
    let node = place.connect(1).await;
    assert!(place.nodes.told_tools(NODE, 1, tool()).unwrap().is_empty(), "nothing is approved");
    let early = place.nodes.told_runners(NODE, 1, runners(FEATURE)).await.unwrap_err();
    assert_eq!((early.code.as_str(), early.retryable), ("UNAVAILABLE", Some(true)));
    assert!(early.message.contains("openclaw nodes approve"), "{}", early.message);
    assert!(!place.shown().await.session_host);
    place.approve().await;
    place.nodes.told_runners(NODE, 1, runners(FEATURE)).await.unwrap();
    let shown = place.shown().await;
    assert_eq!(shown.node_plugin_tools.unwrap()[0].name, "look");
    assert_eq!((shown.session_host, shown.worker_slots.unwrap().available), (true, 1));
    for error in [
        place.nodes.told_tools(NODE, 2, tool()).map(drop).unwrap_err(),
        place.nodes.told_skills(NODE, 2, Vec::new()).map(drop).unwrap_err(),
        place.nodes.told_runners(NODE, 2, runners(FEATURE)).await.unwrap_err(),
    ] {
        assert_eq!(error.message, "unknown nodeId", "an older connection is not believed");
    }
    let old = place.nodes.told_runners(NODE, 1, runners("node-worker-supervisor-v2")).await;
    assert!(old.unwrap_err().message.contains("openclaw update"));
    assert_eq!(place.shown().await.issues.unwrap()[0].code, "update-required");
    place.nodes.obey(Rules { without_tools: true, ..Rules::default() });
    assert_eq!(place.shown().await.node_plugin_tools, Some(Vec::new()));
    drop(node);
    let shown = place.shown().await;
    assert_eq!((shown.node_plugin_tools, shown.worker_slots, shown.issues), (None, None, None));
    assert!(shown.session_host, "what it said last");
}

#[tokio::test(start_paused = true)]
async fn skills_are_shown_by_name_and_can_be_switched_off() {
    let place = Place::new();
    let _node = place.connect(1).await;
    let skills = json!([{"name": "b", "description": "d", "content": "c"},
        {"name": "a", "description": "d", "content": "c"}]);
    let skills: Vec<NodeSkill> = serde_json::from_value(skills).unwrap();
    let kept = place.nodes.told_skills(NODE, 1, skills.clone()).unwrap();
    assert_eq!((kept.len(), kept[0].content.as_str()), (2, "c"));
    assert_eq!(place.nodes.skills_of(NODE)[0].name, "a");
    let flaw = NodeSkill { name: "A".to_owned(), ..kept[0].clone() };
    let refused = place.nodes.told_skills(NODE, 1, vec![flaw]).unwrap_err();
    assert!(refused.message.contains("skills[0].name"), "{}", refused.message);
    place.nodes.obey(Rules { without_skills: true, ..Rules::default() });
    assert!(place.nodes.told_skills(NODE, 1, skills).unwrap().is_empty());
    assert!(place.nodes.skills_of(NODE).is_empty());
}
