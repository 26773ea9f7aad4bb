//! The reference node host against our gateway: paired on purpose, approved, and made to run things,
//! by our CLI and by its own, directly and through our tunnel.

use std::{fs, thread, time::Duration};

use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{
    Home, Peer, Program, ReferenceCli, ReferenceNode, Scene, descendants, openclaw, present,
    request_of, wait_until,
};

/// How long a node host may take for its next word; it needs seconds to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// A server of the Model Context Protocol with one tool, on standard input and output.
const MCP_SERVER: &str = r#"
import { createInterface } from "node:readline";
const tools = [{ name: "echo", description: "Says it again", inputSchema: { type: "object" } }];
for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) continue;
  const result =
    method === "initialize"
      ? { protocolVersion: params.protocolVersion, capabilities: { tools: {} },
          serverInfo: { name: "parrot", version: "1" } }
      : method === "tools/list"
        ? { tools }
        : { content: [{ type: "text", text: JSON.stringify(params.arguments ?? {}) }] };
  console.log(JSON.stringify({ jsonrpc: "2.0", id, result }));
}
"#;
const SKILL: &str = "---\nname: tea\ndescription: How to make tea here\n---\n\nBoil water.\n";

fn says(program: &mut Program, words: &str) {
    if !program.prints(words, PATIENCE) {
        program.fail(&format!("did not say {words:?}"));
    }
}

/// The parameters of `node.invoke` that make a node say a word by `system.run`.
fn echo(node: &Value, word: &str) -> String {
    json!({"nodeId": node["nodeId"], "command": "system.run", "idempotencyKey": word,
        "params": {"command": ["/bin/echo", word]}})
    .to_string()
}

#[test]
fn a_node_host_is_paired_approved_and_runs_what_it_is_told() {
    if !present(&[Peer::OpenClaw, Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let token = scene.gateway.token();
    let cli = ReferenceCli::to(scene.local_port, &token);
    let (near, far) = (ReferenceNode::new("near"), ReferenceNode::new("far"));
    near.write("skills/tea/SKILL.md", SKILL);
    let server = near.write("parrot.mjs", MCP_SERVER);
    let config = json!({"nodeHost": {"mcp": {"servers": {
        "parrot": {"command": "node", "args": [server]}}}}});
    near.write("openclaw.json", &config.to_string());

    // Each comes, is turned away, and waits for a person.
    let start = || (near.run(scene.gateway.port(), &token), far.run(scene.local_port, &token));
    let (mut first, mut second) = start();
    says(&mut first, "PAIRING_REQUIRED");
    says(&mut second, "PAIRING_REQUIRED");
    drop((first, second));

    // By our program on the gateway's machine, and by theirs through the tunnel.
    let asking = scene.ours(&["devices", "list"]).json()["pending"].clone();
    scene.ours(&["devices", "approve", request_of(&asking, "near")]);
    let asking = cli.theirs(&["devices", "list"])["pending"].clone();
    cli.theirs(&["devices", "approve", request_of(&asking, "far")]);

    // Paired, they offer what they have, and may nothing yet.
    let (mut first, mut second) = start();
    says(&mut first, "node host gateway connected");
    says(&mut second, "node host gateway connected");
    let asking = scene.ours(&["nodes", "pending"]).json();
    let near_node = scene.ours(&["nodes", "describe", "--node", "near"]).json();
    assert_eq!(near_node["approvalState"], "pending-approval", "{near_node}");
    assert_eq!(near_node["commands"], json!([]), "{near_node}");
    scene.ours(&["nodes", "approve", request_of(&asking, "near")]);
    cli.theirs(&["nodes", "approve", request_of(&asking, "far")]);

    let host = first.pid();
    thread::scope(|scope| {
        scope.spawn(|| {
            told_by_ours(&scene);
            what_nobody_waits_for_ends(&scene, host);
        });
        told_by_theirs(&cli);
    });

    // Theirs sends one away, ours the other.
    cli.theirs(&["nodes", "remove", "--node", "far"]);
    says(&mut second, "node host gateway closed (1008)");
    scene.ours(&["devices", "remove", near_node["nodeId"].as_str().expect("an id")]);
    says(&mut first, "node host gateway closed (1008)");
    assert_eq!(scene.ours(&["nodes", "list"]).json(), json!({"pending": [], "paired": []}));
}

/// Our program, directly and through the tunnel, with the node that is directly there.
fn told_by_ours(scene: &Scene) {
    let node = wait_until("the node publishes its tools", PATIENCE, || {
        let node = scene.ours(&["nodes", "describe", "--node", "near"]).json();
        (node["nodePluginTools"] != json!([]) && !node["nodeSkills"].is_null()).then_some(node)
    });
    assert_eq!(node["approvalState"], "approved", "{node}");
    assert_eq!(node["sessionHost"], false, "{node}");
    assert_eq!(node["nodeSkills"][0]["name"], "tea", "{node}");
    let tool = &node["nodePluginTools"][0];
    assert_eq!(tool["command"], "mcp.tools.call.v1", "{node}");
    assert_eq!(tool["mcp"], json!({"server": "parrot", "tool": "echo"}), "{node}");

    let which = ["nodes", "invoke", "--node", "near", "--command", "system.which", "--params"];
    let which = [&which[..], &[r#"{"bins": ["sh", "no-such-program"]}"#]].concat();
    for found in
        [scene.ours(&which).json(), scene.laptop(&[&which[..], &["--json"]].concat()).json()]
    {
        let bins = found["payload"]["bins"].as_object().expect("programs by name");
        assert!(bins["sh"].is_string() && bins.len() == 1, "{found}");
    }
    let ran = scene.ours(&["gateway", "call", "node.invoke", "--params", &echo(&node, "one")]);
    assert_eq!(ran.json()["payload"]["stdout"], "one\n", "{ran}");
    let call = json!({"nodeId": node["nodeId"], "command": "mcp.tools.call.v1",
        "idempotencyKey": "mcp", "params":
            {"server": "parrot", "tool": "echo", "arguments": {"word": "polly"}}});
    let ran = scene.ours(&["gateway", "call", "node.invoke", "--params", &call.to_string()]);
    assert!(ran.stdout.contains("polly"), "{ran}");
    let rules = json!({"nodeId": node["nodeId"]}).to_string();
    let rules = scene.ours(&["gateway", "call", "exec.approvals.node.get", "--params", &rules]);
    assert_eq!(rules.json()["file"]["version"], 1, "{rules}");
}

/// A program on the node ends with the time it was given, and with whoever wanted it.
fn what_nobody_waits_for_ends(scene: &Scene, host: Pid) {
    let port = scene.gateway.port().to_string();
    let node = scene.ours(&["nodes", "describe", "--node", "near"]).json()["nodeId"].clone();
    let sleeps = |seconds: &str, timeout_ms: u64| {
        let params = json!({"nodeId": node, "command": "system.run", "idempotencyKey": seconds,
            "timeoutMs": timeout_ms, "params": {"command": ["/bin/sleep", seconds]}});
        let words = ["gateway", "call", "node.invoke", "--timeout", "600000", "--json"];
        openclaw(&scene.far).args(words).args(["--port", &port, "--params", &params.to_string()])
    };
    let (started, ended) = (
        |seconds: &str| {
            wait_until("the program starts", PATIENCE, || runs(host, seconds).then_some(()));
        },
        |seconds: &str| {
            wait_until("the program ends", PATIENCE, || (!runs(host, seconds)).then_some(()));
        },
    );
    let late = sleeps("3171", 5_000).start();
    started("3171");
    let late = late.end();
    assert!(late.code == 1 && late.stdout.contains("TIMEOUT"), "{late}");
    ended("3171");
    let left = sleeps("3172", 600_000).start();
    started("3172");
    left.terminate();
    ended("3172");
}

/// Whether `sleep` runs for so many seconds below a process.
fn runs(below: Pid, seconds: &str) -> bool {
    let wanted = format!("/bin/sleep\0{seconds}\0");
    descendants(below).into_iter().any(|pid| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes())
    })
}

/// Their program through the tunnel, with the node that is there through the tunnel as well.
fn told_by_theirs(cli: &ReferenceCli) {
    let list = cli.theirs(&["nodes", "list"]);
    let paired = list["paired"].as_array().expect("the paired nodes");
    assert_eq!(paired.len(), 2, "{list}");
    let node = cli.theirs(&["nodes", "describe", "--node", "far"]);
    assert_eq!((&node["approvalState"], &node["connected"]), (&json!("approved"), &json!(true)));
    let which = ["nodes", "invoke", "--node", "far", "--command", "system.which", "--params"];
    let found = cli.theirs(&[&which[..], &[r#"{"bins": ["sh"]}"#]].concat());
    assert!(found["payload"]["bins"]["sh"].is_string(), "{found}");
    let ran = cli.theirs(&["gateway", "call", "node.invoke", "--params", &echo(&node, "two")]);
    assert_eq!(ran["payload"]["stdout"], "two\n", "{ran}");
}

#[test]
fn a_join_code_lets_one_machine_in_once() {
    if !present(&[Peer::OpenClaw]) {
        return;
    }
    let home = Home::new();
    let gateway = crate::support::OurGateway::start(&home);
    let port = gateway.port().to_string();
    let ours =
        |words: &[&str]| openclaw(&home).args([words, &["--port", &port]].concat()).run().exits(0);
    let url = format!("ws://127.0.0.1:{port}");
    let printed = ours(&["devices", "join-code", "--public-url", &url]).stdout;
    let target = printed.lines().find_map(|line| line.trim().strip_prefix("npx openclaw connect "));
    let target = target.unwrap_or_else(|| panic!("no command in {printed:?}"));
    let (invited, late) = (ReferenceNode::new("invited"), ReferenceNode::new("late"));
    says(&mut invited.join(target), "node host gateway connected");
    let shown = ours(&["nodes", "pending"]).stdout;
    assert!(shown.contains("invited"), "{shown}");
    let mut late = late.join(target);
    wait_until("the second machine is turned away", PATIENCE, || late.has_ended().then_some(()));
    assert_ne!(late.code(), Some(0), "{}", late.log());
    assert!(!ours(&["devices", "list"]).stdout.contains("late"));
}

/// The same script passes at OpenClaw's gateway, where a picture and what it gives were looked up.
#[test]
fn the_reference_client_is_set_up_as_a_telephone_directly_and_through_the_tunnel() {
    if !present(&[Peer::OpenClaw, Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    for port in [scene.gateway.port(), scene.local_port] {
        let output = crate::support::run_script("setup.mjs", port, &scene.gateway.token());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    }
}

#[test]
fn the_reference_client_is_a_node_on_version_3_and_on_4_directly_and_through_the_tunnel() {
    if !present(&[Peer::OpenClaw, Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    for port in [scene.gateway.port(), scene.local_port] {
        let output = crate::support::run_script("nodes.mjs", port, &scene.gateway.token());
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    }
}
