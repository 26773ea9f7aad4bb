//! Upgrades of scopes where something goes wrong: floods, clocks, decisions that nobody told.

use super::{
    devices::{Machine, administrator, answer_to, asks, node, with},
    *,
};
use crate::{
    gateway::{clock::now_ms, ingress::Door},
    protocol::{Role, Scope},
    store::{About, Asked, Filed},
};

const REQUEST: &str = "device.scopes.requestUpgrade";
const WAIT: &str = "device.scopes.waitUpgrade";
/// How many requests wait at a time.
const TOO_MANY: usize = 64;
/// Longer than a request waits, milliseconds.
const LONG_MS: u64 = 301_000;

/// What a device wants that holds `operator.read`.
fn more() -> Value {
    json!({"scopes": ["operator.read", "operator.write"]})
}

/// A device that came in to read, and what it was answered when it asked for more.
async fn asking(lab: &Lab, machine: &Machine) -> (Client, Value) {
    let (mut client, _) = machine.enters(lab, &json!({})).await;
    let asked = client.call(REQUEST, more()).await;
    assert_eq!(asked["ok"], true, "{asked}");
    (client, asked["payload"].clone())
}

async fn calls(client: &mut Client, method: &str, params: Value) -> Value {
    asks(client, method, method, params).await;
    answer_to(client, method).await
}

/// A program that only looks: it comes in whatever its device is, and holds nothing.
fn probe() -> Value {
    let mut looks = with(&json!({"token": TOKEN}), &[]);
    looks["client"] = json!({"id": "cli", "version": "1", "platform": "linux", "mode": "probe"});
    looks
}

/// Comes in anew with the gateway's secret, and what it hears of a request.
async fn comes_back(lab: &Lab, machine: &Machine, scopes: &[&str], request: &Value) -> Value {
    let (mut client, _) = machine.enters(lab, &with(&json!({"token": TOKEN}), scopes)).await;
    client.call(WAIT, request.clone()).await["payload"]["status"].clone()
}

/// A device that asks to be paired.
pub(super) fn stranger(number: usize) -> Asked {
    Asked {
        device_id: number.to_string(),
        public_key: "key".to_owned(),
        about: About::default(),
        role: Role::Operator,
        scopes: vec![Scope::Read],
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_asks_over_and_over_keeps_nobody_else_from_asking() {
    let lab = Lab::new();
    let scopes = ["operator.read", "operator.pairing"];
    let mut admin = administrator(&lab).await;
    let weak = with(&json!({"token": TOKEN}), &scopes);
    let (mut weak, _) = Machine::new(1).enters(&lab, &weak).await;
    let wants = json!({"scopes": ["operator.read", "operator.pairing", "operator.write"]});
    for _ in 0..300 {
        let asked = calls(&mut weak, REQUEST, wants.clone()).await;
        let rejected = calls(&mut weak, "device.pair.reject", asked["payload"].clone()).await;
        assert_eq!(rejected["ok"], true, "{asked} {rejected}");
        // Its events are read, so that it is not taken for somebody who is slow.
        while timeout(Duration::ZERO, admin.frame()).await.is_ok() {}
    }
    let (mut client, request) = asking(&lab, &Machine::new(2)).await;
    asks(&mut client, WAIT, WAIT, request.clone()).await;
    assert_eq!(calls(&mut admin, "device.pair.approve", request).await["ok"], true);
    assert_eq!(client.frame().await["payload"]["status"], "approved");
}

#[tokio::test(start_paused = true)]
async fn an_approver_sees_where_it_is_that_asks_and_not_who_came_last() {
    let lab = Lab::new();
    let mut admin = administrator(&lab).await;
    let machine = Machine::new(1);
    machine.enters(&lab, &json!({})).await;
    let elsewhere = PeerInfo::at([192, 0, 2, 7].into(), None, Door::Ordinary);
    let named = json!({"client": {"id": "cli", "version": "1", "platform": "linux",
        "mode": "cli", "displayName": "Far"}});
    let (mut far, hello) = machine.knocks_from(&lab, elsewhere, &[], &named).await;
    assert_eq!(hello["ok"], true, "{hello}");
    // Another program of the device comes in afterwards, and here.
    let (mut near, _) = machine.enters(&lab, &json!({})).await;
    let seen = async |admin: &mut Client| {
        let list = calls(admin, "device.pair.list", json!({})).await;
        let pending = &list["payload"]["pending"][0];
        (pending["remoteIp"].clone(), pending["displayName"].clone())
    };
    assert_eq!(calls(&mut far, REQUEST, more()).await["ok"], true);
    assert_eq!(seen(&mut admin).await, (json!("192.0.2.7"), json!("Far")));
    assert_eq!(calls(&mut near, REQUEST, more()).await["ok"], true);
    assert_eq!(seen(&mut admin).await, (Value::Null, Value::Null));
}

#[tokio::test(start_paused = true)]
async fn a_request_for_which_there_is_no_room_is_neither_kept_nor_told() {
    let lab = Lab::new();
    let mut admin = administrator(&lab).await;
    let (mut client, _) = Machine::new(1).enters(&lab, &json!({})).await;
    for number in 0..TOO_MANY {
        let asked = stranger(number);
        lab.shared.store.devices().ask(number.to_string(), asked, now_ms()).await.unwrap();
    }
    let refused = client.call(REQUEST, more()).await;
    assert_eq!(refused["error"]["code"], "UNAVAILABLE", "{refused}");
    let list = calls(&mut admin, "device.pair.list", json!({})).await;
    assert_eq!(list["payload"]["pending"].as_array().unwrap().len(), TOO_MANY);
    assert!(timeout(Duration::from_secs(1), admin.frame()).await.is_err(), "somebody was told");
}

#[tokio::test(start_paused = true)]
async fn an_approval_that_nobody_told_is_found_before_the_wait_and_at_its_end() {
    let lab = Lab::new();
    let (early, late) = (Machine::new(1), Machine::new(2));
    let approves = async |machine: &Machine, request: &Value| {
        let id = request["requestId"].as_str().unwrap();
        let devices = lab.shared.store.devices();
        let minted = lab.shared.mint.mint(&machine.id(), Role::Operator);
        assert!(devices.approve(id, "owner", minted, now_ms()).await.unwrap().is_some());
    };
    let (mut client, request) = asking(&lab, &early).await;
    approves(&early, &request).await;
    let since = Instant::now();
    let told = client.call(WAIT, request).await;
    assert_eq!(told["payload"]["status"], "approved", "{told}");
    assert_eq!(since.elapsed().as_secs(), 0, "it was known");
    let (mut client, request) = asking(&lab, &late).await;
    asks(&mut client, WAIT, WAIT, request.clone()).await;
    assert_eq!(client.call("health", json!({})).await["ok"], true, "it waits");
    approves(&late, &request).await;
    let told = answer_to(&mut client, WAIT).await;
    assert_eq!(told["payload"]["status"], "approved", "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_nobody_told_is_no_expiry() {
    let lab = Lab::new();
    let (mut client, request) = asking(&lab, &Machine::new(1)).await;
    let id = request["requestId"].as_str().unwrap();
    assert!(lab.shared.store.devices().reject(id, now_ms()).await.unwrap().is_some());
    let told = client.call(WAIT, request).await;
    assert_eq!(told["payload"]["status"], "rejected", "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_lasts_as_long_as_its_request_stands_whatever_the_clock_does() {
    let lab = Lab::new();
    let (mut client, request) = asking(&lab, &Machine::new(1)).await;
    asks(&mut client, WAIT, WAIT, request.clone()).await;
    // By the clock on the wall its time is not over, as when that was put back.
    let told = timeout(Duration::from_millis(LONG_MS), answer_to(&mut client, WAIT)).await;
    assert!(told.is_err(), "it gave up: {told:?}");
    // Somebody asks after a sleep of the machine, and what was remembered of it goes.
    let other = lab.shared.store.devices().ask("o".to_owned(), stranger(7), now_ms()).await;
    let Filed::New(other, _) = other.unwrap() else { panic!("it was there") };
    lab.shared.upgrades.keep(&other, now_ms() + 2 * LONG_MS).unwrap();
    let mut admin = administrator(&lab).await;
    asks(&mut client, "health", "health", json!({})).await;
    let next = loop {
        let frame = client.frame().await;
        if frame["type"] == "res" {
            break frame;
        }
    };
    assert_eq!(next["id"], "health", "it gave up: {next}");
    assert_eq!(calls(&mut admin, "device.pair.approve", request).await["ok"], true);
    let told = answer_to(&mut client, WAIT).await;
    assert_eq!(told["payload"]["status"], "approved", "{told}");
}

#[tokio::test(start_paused = true)]
async fn what_was_approved_and_taken_back_since_is_not_told_as_approved() {
    let lab = Lab::new();
    let mut admin = administrator(&lab).await;
    for (seed, method, params) in [
        (1, "device.token.rotate", json!({"role": "operator", "scopes": ["operator.read"]})),
        (2, "device.token.revoke", json!({"role": "operator"})),
    ] {
        let machine = Machine::new(seed);
        let (_client, request) = asking(&lab, &machine).await;
        let approved = calls(&mut admin, "device.pair.approve", request.clone()).await;
        assert_eq!(approved["ok"], true, "{approved}");
        assert_eq!(comes_back(&lab, &machine, &["operator.read"], &request).await, "approved");
        let mut params = params;
        params["deviceId"] = json!(machine.id());
        assert_eq!(calls(&mut admin, method, params).await["ok"], true);
        let (mut client, hello) = machine.knocks(&lab, &probe()).await;
        assert_eq!(hello["ok"], true, "{hello}");
        let told = client.call(WAIT, request).await;
        assert_eq!(told["payload"]["status"], "rejected", "{method}: {told}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_was_removed_gets_nothing_of_what_it_asked_before() {
    let lab = Lab::new();
    let mut admin = administrator(&lab).await;
    let machine = Machine::new(1);
    let (_client, request) = asking(&lab, &machine).await;
    let remove = json!({"deviceId": machine.id()});
    assert_eq!(calls(&mut admin, "device.pair.remove", remove).await["ok"], true);
    // Paired anew it holds as much, and not by that request.
    let scopes = ["operator.read", "operator.write"];
    assert_eq!(comes_back(&lab, &machine, &scopes, &request).await, "rejected");
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_node_that_is_removed_hears_so_at_once() {
    let lab = Lab::new();
    let mut admin = administrator(&lab).await;
    let machine = Machine::new(1);
    let (_, refused) = machine.knocks(&lab, &node(&json!({"token": TOKEN}))).await;
    let request = json!({"requestId": refused["error"]["details"]["requestId"]});
    assert_eq!(calls(&mut admin, "device.pair.approve", request).await["ok"], true);
    let (mut client, hello) = machine.knocks(&lab, &probe()).await;
    assert_eq!(hello["ok"], true, "{hello}");
    let asked = client.call(REQUEST, more()).await["payload"].clone();
    asks(&mut client, WAIT, WAIT, asked).await;
    assert_eq!(client.call("health", json!({})).await["ok"], true, "it waits");
    let since = Instant::now();
    let remove = json!({"nodeId": machine.id()});
    assert_eq!(calls(&mut admin, "node.pair.remove", remove).await["ok"], true);
    assert_eq!(client.frame().await["payload"]["status"], "rejected");
    assert_eq!(since.elapsed().as_secs(), 0, "it waited for the end of its time");
}
