//! The reference CLI and the reference client against our gateway.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Home, OurGateway, Peer, ReferenceCli, Scene, present, signal, start_script, wait_until,
};

/// How long the reference programs may take; they need seconds to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The methods that `fixtures/methods.txt` lists, in its order.
fn methods() -> String {
    let lines = include_str!("../../fixtures/methods.txt").lines();
    lines.filter_map(|line| line.split_whitespace().next()).collect::<Vec<_>>().join(",")
}

/// The reference client at a local port of `gateway`, with a device and without, until the gateway
/// goes.
fn finds_what_it_expects(gateway: &OurGateway, port: u16) {
    let methods = ("METHODS", methods());
    let mut client = start_script("clients.mjs", port, &gateway.token(), methods);
    if !client.prints("ready\n", PATIENCE) {
        client.fail("did not get ready");
    }
    signal(gateway.program().pid(), Signal::SIGTERM);
    if !client.prints("done\n", PATIENCE) {
        client.fail("did not hear of the gateway's end");
    }
    let code = wait_until("the client ends", PATIENCE, || client.code());
    assert_eq!(code, 0, "{}", client.log());
}

#[test]
fn the_reference_client_finds_what_it_expects() {
    if !present(&[Peer::OpenClaw]) {
        return;
    }
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    finds_what_it_expects(&gateway, gateway.port());
}

#[test]
fn the_reference_client_finds_the_same_through_the_tunnel() {
    if !present(&[Peer::OpenClaw, Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    finds_what_it_expects(&scene.gateway, scene.local_port);
}

#[test]
fn the_reference_cli_finds_our_gateway_well() {
    if !present(&[Peer::OpenClaw]) {
        return;
    }
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    let token = gateway.token();
    let cli = ReferenceCli::by_environment(gateway.port(), &token);
    let prints = |words: &[&str]| cli.attempt(words).exits(0).json();
    assert_eq!(at(&prints(&["health", "--json"]), "/ok"), true);
    let url = format!("ws://127.0.0.1:{}", gateway.port());
    let target = ["--url", &url, "--token", &token, "--json"];
    let call = |method: &str| prints(&[&["gateway", "call", method], &target[..]].concat());
    assert_eq!(at(&call("status"), "/pid"), gateway.program().pid().as_raw());
    assert_eq!(at(&call("system-presence"), "/0/mode"), "gateway");
    let id = at(&call("gateway.identity.get"), "/deviceId");
    assert_eq!(id.as_str().map(str::len), Some(64));
    let probe = prints(&[&["gateway", "probe"], &target[..]].concat());
    assert_eq!(at(&probe, "/targets/0/connect/ok"), true, "{probe}");
}

fn at(value: &Value, pointer: &str) -> Value {
    value.pointer(pointer).cloned().unwrap_or_default()
}
