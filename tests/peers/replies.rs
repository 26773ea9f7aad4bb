//! The replies and events that the published schema does not describe, held against those of the
//! reference gateway: the same fields, each of the same kind. A field that is null there may be
//! absent here.
//!
//! `fixtures/replies` has the shape of what it told `replies.mjs`, taken once.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Map, Value};

use crate::support::{Home, OurGateway, Peer, present, start_script};

/// How long the script may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What of theirs is not in ours, and why.
const LEFT_OUT: [(&str, &str); 27] = [
    // The desktop of its host, tasks, worker pools and the heap of a runtime that ours has not.
    ("status", "/hostDesktop"),
    ("status", "/tasks"),
    ("status", "/taskAudit"),
    ("status", "/workerPools"),
    ("status", "/shutdownBudget"),
    ("status", "/eventLoop"),
    ("status", "/modelRuntime"),
    ("status", "/processMemory/heapUsedBytes"),
    ("status", "/processMemory/heapTotalBytes"),
    ("status", "/processMemory/externalBytes"),
    ("status", "/processMemory/arrayBuffersBytes"),
    ("status", "/degradedSecretOwners"),
    ("status", "/degradedPlugins"),
    ("status", "/sqliteWal"),
    // Where each value was read from.
    ("config.get", "/runtimeConfig"),
    ("config.get", "/includedPaths"),
    ("config.get", "/includeProvenance"),
    ("config.get", "/agentRosterIncludeOwned"),
    ("config.get", "/bindingsIncludeOwned"),
    ("config.patch", "/changedPaths"),
    // It knows models.
    ("connect.challenge", "/capabilities"),
    // How the text of a command is to be read, and what its approval is bound to there.
    ("exec.approval.list", "/*/request/commandAnalysis"),
    ("exec.approval.list", "/*/request/systemRunBinding"),
    ("exec.approval.requested", "/request/commandAnalysis"),
    ("exec.approval.requested", "/request/systemRunBinding"),
    ("exec.approval.resolved allow-once", "/request/commandAnalysis"),
    ("exec.approval.resolved allow-once", "/request/systemRunBinding"),
];
/// What of ours is not in theirs.
const BEYOND: [(&str, &str); 17] = [
    ("status", "/uptimeMs"),
    ("status", "/clients"),
    ("config.patch", "/hash"),
    ("config.patch", "/reload"),
    ("config.set", "/reload"),
    ("config.apply", "/reload"),
    ("config.apply", "/noop"),
    ("device.pair.list", "/paired/*/tokens/*/lastUsedAtMs"),
    // What its plan says in parts, for clients that do not read plans.
    ("exec.approval.list", "/*/request/commandArgv"),
    ("exec.approval.list", "/*/request/commandPreview"),
    ("exec.approval.list", "/*/request/envKeys"),
    ("exec.approval.requested", "/request/commandArgv"),
    ("exec.approval.requested", "/request/commandPreview"),
    ("exec.approval.requested", "/request/envKeys"),
    ("exec.approval.resolved allow-once", "/request/commandArgv"),
    ("exec.approval.resolved allow-once", "/request/commandPreview"),
    ("exec.approval.resolved allow-once", "/request/envKeys"),
];
/// Where the kinds differ: no agent acts by itself here, and no model is chosen for one.
const OTHERWISE: [(&str, &str); 3] = [
    ("status", "/heartbeat/agents/*/everyMs"),
    ("status", "/sessions/defaults/model"),
    ("status", "/sessions/defaults/contextTokens"),
];

/// What was found at a place of a reply: theirs alone, ours alone, or of another kind.
type Found = BTreeSet<(String, String)>;

#[derive(Default)]
struct Differences {
    theirs: Found,
    ours: Found,
    kinds: Found,
}

impl Differences {
    fn hold(&mut self, method: &str, place: &str, theirs: &Value, ours: &Value) {
        let here = || (method.to_owned(), place.to_owned());
        match (theirs, ours) {
            (Value::Object(theirs), Value::Object(ours)) => {
                self.fields(method, place, theirs, ours);
            }
            (Value::Array(theirs), Value::Array(ours)) => {
                if let (Some(theirs), Some(ours)) = (theirs.first(), ours.first()) {
                    self.hold(method, &format!("{place}/*"), theirs, ours);
                }
            }
            // A refusal is taken down as it was said.
            (Value::String(_), Value::String(_)) if place == "/refused" && theirs == ours => {}
            (Value::String(kind), ours) if place != "/refused" && kind == kind_of(ours) => {}
            _ => {
                self.kinds.insert(here());
            }
        }
    }

    fn fields(
        &mut self,
        method: &str,
        place: &str,
        theirs: &Map<String, Value>,
        ours: &Map<String, Value>,
    ) {
        // What a configuration holds is not the shape of a reply.
        if theirs.is_empty() {
            return;
        }
        for (name, theirs) in theirs {
            let place = format!("{place}/{name}");
            match ours.get(name) {
                Some(ours) => self.hold(method, &place, theirs, ours),
                None if theirs == "null" => {}
                None => {
                    self.theirs.insert((method.to_owned(), place));
                }
            }
        }
        let alone = ours.keys().filter(|name| !theirs.contains_key(*name));
        self.ours.extend(alone.map(|name| (method.to_owned(), format!("{place}/{name}"))));
    }
}

/// The word for the kind of a value in the fixture.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What was found beside what is known of.
fn unknown(found: Found, known: &[(&str, &str)]) -> Vec<(String, String)> {
    let is_known = |(method, place): &(String, String)| known.contains(&(method, place));
    found.into_iter().filter(|found| !is_known(found)).collect()
}

#[test]
fn what_the_schema_does_not_describe_has_the_fields_of_the_reference_gateway() {
    if !present(&[Peer::OpenClaw]) {
        return;
    }
    let home = Home::new();
    let asks = "{gateway: {nodes: {pairing: {autoApproveLocal: false}}}}";
    home.write("home/.openclaw/openclaw.json", asks);
    let gateway = OurGateway::start(&home);
    let nothing = ("LANG", "C".to_owned());
    let mut script = start_script("replies.mjs", gateway.port(), &gateway.token(), nothing);
    if !script.prints("done\n", PATIENCE) {
        script.fail("did not come to its end");
    }
    let log = script.log();
    let said = log.lines().find(|line| line.starts_with('{')).expect("the replies");
    let ours: Value = serde_json::from_str(said).expect("the replies are JSON");
    let theirs: Value =
        serde_json::from_str(include_str!("../../fixtures/replies/openclaw-2026.9.6.json"))
            .expect("the fixture is JSON");
    let mut found = Differences::default();
    for part in ["replies", "events"] {
        for (name, theirs) in theirs[part].as_object().expect("an object") {
            found.hold(name, "", theirs, &ours[part][name]);
        }
    }
    let Differences { theirs, ours, kinds } = found;
    assert_eq!(unknown(theirs, &LEFT_OUT), [], "is not in ours");
    assert_eq!(unknown(ours, &BEYOND), [], "is not in theirs");
    assert_eq!(unknown(kinds, &OTHERWISE), [], "is of another kind");
}
