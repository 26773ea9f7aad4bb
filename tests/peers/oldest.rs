//! The oldest OpenClaw that speaks our version of the protocol, in the long tier: its CLI, its node
//! host and its client against our gateway, and ours against its gateway, directly and through our
//! tunnel.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Home, OurGateway, Peer, ReferenceCli, ReferenceGateway, ReferenceNode, Scene, Sshd, dialling,
    free_port, openclaw, present, request_of, run_script_of_the_oldest, wait_until,
};

/// How long a node host may take for its next word; it needs seconds to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Commands with what its program must print of a gateway without nodes: a pointer into its JSON with
/// the value there, or words.
const COMMANDS: &[(&[&str], &str, &str)] = &[
    (&["health", "--json"], "/ok", "true"),
    (&["health"], "", "Agents: main (default)"),
    (&["status", "--json"], "/gateway/reachable", "true"),
    (&["status"], "", "reachable"),
    (&["status", "--deep", "--json"], "/health/ok", "true"),
    (&["status", "--deep"], "", "reachable"),
    (&["gateway", "health"], "", "OK ("),
    (&["gateway", "status", "--json"], "/cli/version", "\"2026.5.12\""),
    (&["gateway", "probe", "--json"], "/targets/0/connect/ok", "true"),
    (&["gateway", "call", "health", "--json"], "/ok", "true"),
    (&["devices", "list", "--json"], "/pending", "[]"),
    (&["nodes", "list", "--json"], "/paired", "[]"),
    (&["nodes", "status", "--json"], "/nodes", "[]"),
    (&["logs", "--limit", "5"], "", "Log file:"),
    (&["config", "get", "gateway.mode"], "", "remote"),
];
/// Commands that fail, and what they say.
const FAILING: &[(&[&str], &str)] = &[
    (&["gateway", "call", "no.such.method"], "unknown method: no.such.method"),
    (&["devices", "approve", "no-such"], "unknown requestId"),
    (&["nodes", "describe", "--node", "nobody"], "unknown node: nobody"),
    (&["nodes", "invoke", "--node", "nobody", "--command", "a.b"], "unknown node: nobody"),
];
/// Commands that also go through our tunnel.
const THROUGH: usize = 5;

/// Whether the test is to be run here and now.
fn is_due(peers: &[Peer]) -> bool {
    if crate::tier::is_long() {
        return present(peers);
    }
    crate::support::skipped("the oldest OpenClaw is for the long tier (OPENCLAW_LAB=long)");
    false
}

fn prints(cli: &ReferenceCli, (words, pointer, expected): (&[&str], &str, &str)) {
    let ran = cli.attempt(words).exits(0);
    if pointer.is_empty() {
        assert!(ran.stdout.contains(expected), "{words:?}: {ran}");
    } else {
        let json = ran.json();
        let found = json.pointer(pointer).unwrap_or(&Value::Null).to_string();
        assert_eq!(found, expected, "{words:?} at {pointer}: {ran}");
    }
}

#[test]
fn its_cli_finds_our_gateway_well_directly_and_through_the_tunnel() {
    if !is_due(&[Peer::OldestOpenClaw, Peer::OpenClaw, Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let token = scene.gateway.token();
    let direct = ReferenceCli::to(scene.gateway.port(), &token).oldest();
    let through = ReferenceCli::to(scene.local_port, &token).oldest();
    for command in COMMANDS {
        prints(&direct, *command);
    }
    for command in COMMANDS.iter().take(THROUGH) {
        prints(&through, *command);
    }
    for (words, said) in FAILING {
        let ran = direct.attempt(words);
        assert!(ran.code != 0 && (ran.stderr.contains(said) || ran.stdout.contains(said)), "{ran}");
    }
}

/// Its node host says of its machine no more than `linux`; what that machine is follows from it.
#[test]
fn its_node_host_is_paired_approved_and_asked_for_what_it_offers() {
    if !is_due(&[Peer::OldestOpenClaw, Peer::OpenClaw, Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let token = scene.gateway.token();
    let cli = ReferenceCli::to(scene.local_port, &token).oldest();
    let node = ReferenceNode::new("old").oldest();

    let turned_away = node.run(scene.local_port, &token);
    let asking = wait_until("the node asks to be paired", PATIENCE, || {
        let pending = scene.ours(&["devices", "list"]).json()["pending"].clone();
        (pending != json!([])).then_some(pending)
    });
    drop(turned_away);
    cli.theirs(&["devices", "approve", request_of(&asking, "old")]);
    let _runs = node.run(scene.local_port, &token);
    let pending = wait_until("the node offers its commands", PATIENCE, || {
        let pending = scene.ours(&["nodes", "pending"]).json();
        (pending != json!([])).then_some(pending)
    });
    let offered = &pending[0]["commands"];
    assert!(offered.as_array().is_some_and(|all| all.contains(&json!("system.run"))), "{pending}");
    // Its own CLI asks for too little to approve programs.
    scene.ours(&["nodes", "approve", request_of(&pending, "old")]);

    let which = ["nodes", "invoke", "--node", "old", "--command", "system.which", "--params"];
    let which = [&which[..], &[r#"{"bins": ["sh"]}"#]].concat();
    for found in [cli.theirs(&which), scene.ours(&which).json()] {
        assert!(found["payload"]["bins"]["sh"].is_string(), "{found}");
    }
    let id = cli.theirs(&["nodes", "describe", "--node", "old"])["nodeId"].clone();
    let echo = json!({"nodeId": id, "command": "system.run", "idempotencyKey": "one",
        "params": {"command": ["/bin/echo", "one"]}});
    // It is asked, and decides by its own rules, which want a person's word for each program.
    let words = ["gateway", "call", "node.invoke", "--params", &echo.to_string(), "--json"];
    let ran = cli.attempt(&words);
    assert!(ran.code == 1 && ran.stderr.contains("SYSTEM_RUN_DENIED"), "{ran}");
}

#[test]
fn its_client_is_an_operator_and_a_node_of_our_gateway() {
    if !is_due(&[Peer::OldestOpenClaw, Peer::OpenClaw]) {
        return;
    }
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    let output = run_script_of_the_oldest("nodes.mjs", gateway.port(), &gateway.token());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// What our program does with its gateway, whichever way it gets there.
fn our_program_finds_it_well(home: &Home, way: &[&str]) {
    let run = |words: &[&str]| openclaw(home).args([words, way].concat()).limit(PATIENCE).run();
    assert_eq!(run(&["health", "--json"]).exits(0).json()["ok"], true);
    assert!(run(&["status"]).exits(0).stdout.contains("2026.5.12"));
    assert!(run(&["status", "--deep"]).exits(0).stdout.contains("Agents"));
    let devices = run(&["devices", "list", "--json"]).exits(0).json();
    assert_ne!(devices["paired"], json!([]), "{devices}");
    assert_eq!(run(&["nodes", "list", "--json"]).exits(0).json()["paired"], json!([]));
    let probe = run(&["gateway", "probe", "--json"]).exits(0).json();
    assert_eq!(probe["ok"], true, "{probe}");
    let config = run(&["gateway", "call", "config.get", "--json"]).exits(0).json();
    assert_eq!(config["parsed"]["gateway"]["mode"], "local", "{config}");
}

/// It lets a device read without a word, and asks its owner for everything beyond that.
fn its_owner_lets_us_do_more(home: &Home, gateway: &ReferenceGateway) {
    let words = ["devices", "list", "--json"];
    let refused = openclaw(home).args(words).limit(PATIENCE).run().exits(8).json();
    assert_eq!(refused["error"]["code"], "PAIRING_REQUIRED", "{refused}");
    let fix = refused["error"]["fix"].as_str().expect("what to type");
    let id = fix.rsplit(' ').next().expect("the request");
    ReferenceCli::beside(gateway).oldest().run(&["devices", "approve", id]);
}

#[test]
fn our_program_finds_its_gateway_well_directly_and_through_the_tunnel() {
    if !is_due(&[Peer::OldestOpenClaw, Peer::OpenClaw, Peer::OpenSsh]) {
        return;
    }
    let gateway = ReferenceGateway::start_oldest();
    let direct = Home::new();
    let token = direct.write("token", ReferenceGateway::TOKEN);
    let url = format!("ws://127.0.0.1:{}", gateway.port());
    let remote = json!({"url": url, "token": ReferenceGateway::TOKEN});
    let config = json!({"gateway": {"mode": "remote", "remote": remote}});
    direct.write("home/.openclaw/openclaw.json", &config.to_string());
    openclaw(&direct).args(["health"]).limit(PATIENCE).run().exits(0);
    its_owner_lets_us_do_more(&direct, &gateway);
    our_program_finds_it_well(&direct, &[]);

    let (laptop, sshd) = (Home::new(), Sshd::start(&[]));
    let connect = openclaw(&laptop)
        .args(dialling(&sshd, gateway.port(), &token))
        .args(["--local-port", &free_port().to_string(), "--name", "vps", "--json"])
        .arg(sshd.target());
    let live = connect.limit(PATIENCE).run().exits(0).json();
    assert_eq!(live["gateway"]["version"], "2026.5.12", "{live}");
    its_owner_lets_us_do_more(&laptop, &gateway);
    our_program_finds_it_well(&laptop, &["--remote", "vps"]);
}
