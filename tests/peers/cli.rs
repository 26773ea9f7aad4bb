//! The reference CLI, command by command: what it says of our gateway is what it says of its own.

use std::{collections::BTreeSet, thread};

use serde_json::Value;

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

use crate::support::{Peer, Ran, ReferenceCli, ReferenceGateway, Scene, present};

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
    Row {
        words: &["gateway", "status", "--url", "{url}", "--token", "{token}", "--json"],
        needs: &[],
        matters: Same(&["/rpc/ok", "/rpc/kind", "/rpc/capability", "/rpc/auth", "/service/loaded"]),
    },
    Row {
        words: &["gateway", "status", "--url", "{url}", "--token", "{token}", "--require-rpc"],
        needs: &[],
        matters: Words(&["Read probe: ok", "Capability: read-only", "Gateway version: "]),
    },
    Row {
        words: &["gateway", "probe", "--json"],
        needs: &["system-presence", "config.get"],
        matters: Same(&[
            "/ok",
            "/capability",
            "/targets/0/connect/ok",
            "/targets/0/connect/scopeLimited",
            "/targets/0/connect/error",
            "/targets/0/auth",
        ]),
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
    &["status", "--json"],
    &["status", "--deep", "--json"],
    &["gateway", "health", "--json"],
    &["gateway", "status", "--url", "{url}", "--token", "{token}", "--json"],
    &["gateway", "probe", "--json"],
    &["gateway", "call", "health", "--json"],
    &["logs", "--limit", "5"],
    &["devices", "list", "--json"],
    &["nodes", "list", "--json"],
    &["config", "get", "gateway.mode"],
];

/// The reference CLI, and the gateway that it is pointed at.
struct Side {
    cli: ReferenceCli,
    url: String,
    token: String,
}

impl Side {
    fn of(port: u16, token: &str) -> Self {
        let url = format!("ws://127.0.0.1:{port}");
        Self { cli: ReferenceCli::to(port, token), url, token: token.to_owned() }
    }

    /// Runs each row, and gives its exit code and essence.
    fn outcomes(&self, rows: &[&Row]) -> Vec<(String, i32, Vec<String>)> {
        let word = |word: &&'static str| match *word {
            "{url}" => self.url.clone(),
            "{token}" => self.token.clone(),
            word => word.to_owned(),
        };
        let outcome = |row: &&Row| {
            let words: Vec<String> = row.words.iter().map(word).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let ran = self.cli.attempt(&words);
            (row.words.join(" "), ran.code, row.essence(&ran))
        };
        rows.iter().map(outcome).collect()
    }
}

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

#[test]
fn each_command_says_of_our_gateway_what_it_says_of_its_own() {
    if !present(&[Peer::OpenClaw, Peer::OpenSsh]) {
        return;
    }
    let table = include_str!("../../fixtures/methods.txt");
    let methods: BTreeSet<_> =
        table.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let due: Vec<_> = ROWS.iter().filter(|row| row.is_due(&methods)).collect();
    let again: Vec<_> = due.iter().copied().filter(|row| THROUGH.contains(&row.words)).collect();

    let reference = ReferenceGateway::start();
    let scene = Scene::new();
    scene.connect();
    let token = scene.gateway.token();
    let theirs = Side::of(reference.port(), ReferenceGateway::TOKEN);
    let direct = Side::of(scene.gateway.port(), &token);
    let tunnelled = Side::of(scene.local_port, &token);
    let (theirs, ours) = thread::scope(|scope| {
        let theirs = scope.spawn(|| theirs.outcomes(&due));
        let tunnelled = scope.spawn(|| tunnelled.outcomes(&again));
        let mut ours = direct.outcomes(&due);
        ours.extend(tunnelled.join().expect("the tunnelled side"));
        (theirs.join().expect("the reference side"), ours)
    });
    assert_eq!(ours.len(), due.len() + THROUGH.len(), "each of THROUGH is a row that is due");
    for outcome in &ours {
        let expected = theirs.iter().find(|(words, ..)| *words == outcome.0);
        assert_eq!(Some(outcome), expected, "ours against theirs");
    }
}
