//! What a tunnel costs the far side while nobody uses it.

use std::{thread, time::Duration};

use crate::{
    net::Net,
    support::{OurGateway, Peer, Program, ReferenceGateway, Scene, openclaw, present},
    tier,
};

/// What a gateway says of itself, whoever is there.
const HOUSEKEEPING: &str = "database integrity verification passed";

/// Fails if a gateway wrote a line while the remote was idle.
fn says_nothing(gateway: &Program, idle: Duration) {
    let before = gateway.log();
    thread::sleep(idle);
    let after = gateway.log();
    let said = after.strip_prefix(&before).expect("a log grows");
    let heard: Vec<&str> = said.lines().filter(|line| !line.contains(HOUSEKEEPING)).collect();
    assert!(heard.is_empty(), "an idle tunnel is heard of: {heard:#?}");
}

#[test]
fn an_idle_tunnel_writes_no_line_into_the_log_of_our_gateway() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let gateway: &OurGateway = &scene.gateway;
    says_nothing(gateway.program(), tier::seconds(20, 600));
}

/// Long only: the reference gateway takes a core for its start, and the proofs are a minute apart.
/// In a network of its own, so that nobody else can be what the gateway hears of.
#[test]
fn an_idle_tunnel_writes_no_line_into_the_log_of_an_openclaw_gateway() {
    if !tier::is_long() || !present(&[Peer::OpenSsh, Peer::OpenClaw, Peer::Namespaces]) {
        return;
    }
    Net::new().inside(|| {
        let scene = Scene::new();
        let gateway = ReferenceGateway::start();
        let port = gateway.port().to_string();
        openclaw(&scene.laptop)
            .args(["remote", "connect", "--batch", "--name", "vps"])
            .args(scene.way_in())
            .args(["--remote-port", &port, "--token", ReferenceGateway::TOKEN])
            .arg(scene.sshd.target())
            .run()
            .exits(0);
        // What the login and the start still have to say.
        thread::sleep(Duration::from_secs(30));
        says_nothing(gateway.program(), Duration::from_secs(600));
        scene.laptop(&["health"]);
    });
}
