//! The reference CLI, command by command: what it says of our gateway is what it says of its own.

#[path = "support/mod.rs"]
mod support;

use std::{collections::BTreeSet, thread};

use serde_json::Value;
use support::{Peer, Ran, ReferenceCli, ReferenceGateway, Scene, present};

/// One command, the methods that it calls, and what matters in what it prints.
struct Row {
    words: &'static [&'static str],
    needs: &'static [&'static str],
    matters: Matters,
}

/// What has to be the same of both gateways, besides the exit code.
enum Matters {
    /// The values at these pointers into the JSON that it prints.
    Same(&'static [&'static str]),
    /// The kinds of the values at these pointers, none of them null.
    Kinds(&'static [&'static str]),
    /// These words stand in its text.
    Words(&'static [&'static str]),
}

use Matters::{Kinds, Same, Words};

/// Rules for programs on a gateway's host.
const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/host_rules.json5");
/// What they list, in what is printed.
const RULE: &str = "/file/agents/main/allowlist/0/pattern";

const ROWS: &[Row] = &[
    Row { words: &["health", "--json"], needs: &[], matters: Same(&["/ok", "/defaultAgentId"]) },
    Row { words: &["health"], needs: &[], matters: Words(&["Agents: main (default)"]) },
    Row {
        words: &["status", "--json"],
        needs: &[],
        matters: Same(&["/gateway/reachable", "/gateway/error", "/gateway/misconfigured"]),
    },
    Row { words: &["status"], needs: &[], matters: Words(&["reachable", "auth token"]) },
    Row {
        words: &["status", "--deep", "--json"],
        needs: &["last-heartbeat"],
        matters: Same(&["/gateway/reachable", "/health/ok", "/lastHeartbeat", "/health/channels"]),
    },
    Row {
        words: &["status", "--deep"],
        needs: &["channels.status", "last-heartbeat"],
        matters: Words(&["reachable"]),
    },
    Row { words: &["gateway", "health", "--json"], needs: &[], matters: Same(&["/ok"]) },
    Row { words: &["gateway", "health"], needs: &[], matters: Words(&["Gateway Health", "OK ("]) },
    Row {
        words: &["gateway", "call", "health", "--json"],
        needs: &[],
        matters: Kinds(&["/ok", "/ts", "/durationMs", "/channels", "/agents", "/sessions/count"]),
    },
    Row {
        words: &["gateway", "call", "no.such.method", "--json"],
        needs: &[],
        matters: Same(&["/ok", "/error/type"]),
    },
    Row {
        words: &["devices", "list", "--json"],
        needs: &["device.pair.list"],
        matters: Kinds(&["/pending", "/paired"]),
    },
    Row {
        words: &["devices", "approve", "no-such", "--json"],
        needs: &["device.pair.list", "device.pair.approve"],
        matters: Words(&[]),
    },
    Row {
        words: &["nodes", "list", "--json"],
        needs: &["node.list", "node.pair.list"],
        matters: Same(&["/pending", "/paired"]),
    },
    Row {
        words: &["nodes", "status", "--json"],
        needs: &["node.list"],
        matters: Same(&["/nodes"]),
    },
    Row {
        words: &["nodes", "describe", "--node", "nobody", "--json"],
        needs: &["node.list"],
        matters: Same(&["/ok", "/error/message"]),
    },
    Row {
        words: &["nodes", "invoke", "--node", "nobody", "--command", "system.which", "--json"],
        needs: &["node.list"],
        matters: Same(&["/ok", "/error/message"]),
    },
    Row { words: &["logs", "--limit", "5"], needs: &["logs.tail"], matters: Words(&["Log file:"]) },
    Row {
        words: &["approvals", "set", "--gateway", "--file", RULES, "--json"],
        needs: &["exec.approvals.get", "exec.approvals.set"],
        matters: Same(&["/exists", "/file/version", "/file/defaults", RULE]),
    },
    Row {
        words: &["approvals", "get", "--gateway", "--json"],
        needs: &["exec.approvals.get", "config.get"],
        matters: Same(&[
            "/exists",
            RULE,
            "/resolvedDefaults",
            "/effectivePolicy/scopes/0/mode/effective",
            "/effectivePolicy/scopes/0/security/effective",
            "/effectivePolicy/scopes/0/ask/effective",
        ]),
    },
    Row {
        words: &["approvals", "allowlist", "add", "--gateway", "/usr/bin/uptime", "--json"],
        needs: &["exec.approvals.get", "exec.approvals.set"],
        matters: Same(&[RULE, "/file/agents/*/allowlist/0/pattern"]),
    },
    Row {
        words: &["approvals", "get", "--gateway"],
        needs: &["exec.approvals.get", "config.get"],
        matters: Words(&["stored", "security=allowlist", "/usr/bin/uptime", "/usr/bin/uname"]),
    },
    Row {
        words: &["approvals", "allowlist", "remove", "--gateway", "/usr/bin/uptime", "--json"],
        needs: &["exec.approvals.get", "exec.approvals.set"],
        matters: Same(&[RULE, "/file/agents/*"]),
    },
    Row {
        words: &["approvals", "grants", "list", "--json"],
        needs: &["exec.approval.grants.list"],
        matters: Same(&["/grants"]),
    },
    Row {
        words: &["approvals", "grants", "revoke", "nobody"],
        needs: &["exec.approval.grants.revoke"],
        matters: Words(&["not found"]),
    },
    Row { words: &["config", "get", "gateway.mode"], needs: &[], matters: Words(&["remote"]) },
];

/// Commands that also go through our tunnel's local port.
const THROUGH: &[&[&str]] = &[
    &["health", "--json"],
    &["status", "--deep", "--json"],
    &["devices", "list", "--json"],
    &["nodes", "list", "--json"],
    &["gateway", "call", "health", "--json"],
];

impl Row {
    /// Whether our gateway has every method that the command calls.
    fn is_due(&self, methods: &BTreeSet<&str>) -> bool {
        self.needs.iter().all(|method| methods.contains(method))
    }

    /// What matters in what was printed.
    fn essence(&self, ran: &Ran) -> Vec<String> {
        let at = |pointer: &&str| {
            let value = ran.json();
            (**pointer).to_owned()
                + " "
                + &value.pointer(pointer).unwrap_or(&Value::Null).to_string()
        };
        match self.matters {
            Same(pointers) => pointers.iter().map(at).collect(),
            Kinds(pointers) => pointers
                .iter()
                .map(|pointer| {
                    let value = ran.json();
                    format!("{pointer} {}", kind(value.pointer(pointer).unwrap_or(&Value::Null)))
                })
                .collect(),
            Words(words) => {
                words.iter().map(|word| format!("{word}: {}", ran.stdout.contains(word))).collect()
            }
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Runs every row that is due, and gives its exit code and essence.
fn outcomes(cli: &ReferenceCli, rows: &[&Row]) -> Vec<(String, i32, Vec<String>)> {
    let outcome = |row: &&Row| {
        let ran = cli.attempt(row.words);
        (row.words.join(" "), ran.code, row.essence(&ran))
    };
    rows.iter().map(outcome).collect()
}

#[test]
fn each_command_says_of_our_gateway_what_it_says_of_its_own() {
    if !present(&[Peer::OpenClaw, Peer::OpenSsh]) {
        return;
    }
    let table = include_str!("../fixtures/methods.txt");
    let methods: BTreeSet<_> =
        table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let due: Vec<_> = ROWS.iter().filter(|row| row.is_due(&methods)).collect();
    let again: Vec<_> = due.iter().copied().filter(|row| THROUGH.contains(&row.words)).collect();

    let reference = ReferenceGateway::start();
    let scene = Scene::new();
    scene.connect();
    let token = scene.gateway.token();
    let theirs = ReferenceCli::through(reference.port());
    let ours = ReferenceCli::to(scene.gateway.port(), &token);
    let tunnelled = ReferenceCli::to(scene.local_port, &token);
    let (theirs, ours) = thread::scope(|scope| {
        let theirs = scope.spawn(|| outcomes(&theirs, &due));
        let mut ours = outcomes(&ours, &due);
        ours.extend(outcomes(&tunnelled, &again));
        (theirs.join().expect("the reference side"), ours)
    });
    for outcome in &ours {
        let expected = theirs.iter().find(|(words, ..)| *words == outcome.0);
        assert_eq!(Some(outcome), expected, "ours against theirs");
    }
}
