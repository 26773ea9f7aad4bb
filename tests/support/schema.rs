//! Holds frames against the published schema of the protocol, each definition compiled once.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::{Mutex, OnceLock},
};

use jsonschema::Validator;
use serde_json::{Value, json};

/// Methods whose reply has another name than the rule makes, as pointers into the schema.
const REPLIES: [(&str, &str); 9] = [
    ("config.schema", "/definitions/ConfigSchemaResponse"),
    ("connect", "/definitions/HelloOk"),
    ("health", "/definitions/HelloOk/properties/snapshot/properties/health"),
    ("device.scopes.requestUpgrade", "/definitions/ScopeUpgradeRegistration"),
    ("device.scopes.waitUpgrade", "/definitions/ScopeUpgradeResult"),
    ("exec.approvals.get", "/definitions/ExecApprovalsSnapshot"),
    ("exec.approvals.set", "/definitions/ExecApprovalsSnapshot"),
    ("exec.approvals.node.get", "/definitions/ExecApprovalsNodeSnapshot"),
    ("exec.approvals.node.set", "/definitions/ExecApprovalsNodeSnapshot"),
];
/// Events whose payload has another name than the rule makes.
const PAYLOADS: [(&str, &str); 1] =
    [("health", "/definitions/HelloOk/properties/snapshot/properties/health")];
/// Methods whose parameters have another name than the rule makes.
const PARAMS: [(&str, &str); 3] = [
    ("connect", "/definitions/ConnectParams"),
    ("device.scopes.requestUpgrade", "/definitions/ScopeUpgradeRequest"),
    ("device.scopes.waitUpgrade", "/definitions/ScopeUpgradeWait"),
];
/// Methods whose reply is a list of a definition.
const LISTS: [(&str, &str); 1] = [("system-presence", "PresenceEntry")];

/// What the reference gateway said to a client that came in; it names its events.
const HELLO: &str = include_str!("../../fixtures/frames/openclaw-2026.9.6/hello-ok.json");
/// Events that its documents have, that it sends, and that its list leaves out.
const UNLISTED: [&str; 1] = ["config.changed"];

/// The schema, and what has been compiled of it.
pub(crate) struct Schema {
    document: Value,
    compiled: Mutex<HashMap<String, Option<&'static Validator>>>,
}

impl Schema {
    /// The published one; `None` without the package, which is a failure where peers are required,
    /// and in a measurement, which holding each frame against it would slow.
    pub(crate) fn published() -> Option<&'static Self> {
        static SCHEMA: OnceLock<Option<Schema>> = OnceLock::new();
        SCHEMA.get_or_init(Self::load).as_ref()
    }

    fn load() -> Option<Self> {
        // A benchmark is built as a test is; cargo says in its arguments that it is to measure.
        if std::env::args().any(|argument| argument == "--bench") {
            return None;
        }
        let folder = std::env::var_os("OPENCLAW_PEERS").filter(|folder| !folder.is_empty());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder.unwrap_or(".peers".into()));
        let file =
            folder.join("client/node_modules/@openclaw/gateway-protocol/protocol.schema.json");
        let Ok(text) = std::fs::read_to_string(&file) else {
            let is_required = std::env::var("OPENCLAW_TEST_PEERS").as_deref() == Ok("required");
            assert!(!is_required, "{} is missing", file.display());
            return None;
        };
        let document = serde_json::from_str(&text).expect("the schema is JSON");
        Some(Self { document, compiled: Mutex::default() })
    }

    /// The published methods with their scopes.
    pub(crate) fn methods(&self) -> HashMap<String, String> {
        let methods = self.document.get("methods").and_then(Value::as_object);
        let scope = |row: &Value| row.get("scope")?.as_str().map(str::to_owned);
        let rows = methods.into_iter().flatten();
        rows.filter_map(|(name, row)| Some((name.clone(), scope(row)?))).collect()
    }

    /// The events that a gateway may send: those of the reference gateway.
    pub(crate) fn events() -> &'static BTreeSet<String> {
        static EVENTS: OnceLock<BTreeSet<String>> = OnceLock::new();
        EVENTS.get_or_init(|| {
            let hello: Value = serde_json::from_str(HELLO).expect("the fixture is JSON");
            let listed = hello.pointer("/payload/features/events").and_then(Value::as_array);
            let listed = listed.into_iter().flatten().filter_map(Value::as_str);
            listed.chain(UNLISTED).map(str::to_owned).collect()
        })
    }

    /// Panics unless `frame`, which a gateway sent, is as published; `method` is what it answers.
    pub(crate) fn hold(&self, frame: &Value, method: Option<&str>) {
        let flaws = self.flaws(frame, method);
        assert!(flaws.is_empty(), "{}", flaws.join("\n"));
    }

    /// What is not as published of `frame`, which a gateway sent; `method` is what it answers.
    pub(crate) fn flaws(&self, frame: &Value, method: Option<&str>) -> Vec<String> {
        let word = |key| frame.get(key).and_then(Value::as_str);
        let kind = match word("type") {
            Some("res") => "ResponseFrame",
            Some("event") => "EventFrame",
            Some("req") => "RequestFrame",
            other => return vec![format!("a frame of type {other:?}: {frame}")],
        };
        let mut flaws = self.flaws_by(&format!("/definitions/{kind}"), frame, kind);
        let payload = frame.get("payload").unwrap_or(&Value::Null);
        match (kind, method.or_else(|| word("method")), word("event")) {
            ("ResponseFrame", Some(method), _) if frame.get("ok") == Some(&Value::Bool(true)) => {
                if let Some((_, item)) = LISTS.iter().find(|(name, _)| *name == method) {
                    flaws.extend(self.flaws_of_list(item, payload, method));
                } else if let Some(pointer) = self.pointer(&REPLIES, method, "Result") {
                    flaws.extend(self.flaws_by(&pointer, payload, method));
                }
            }
            ("EventFrame", _, Some("presence")) => {
                let list = payload.get("presence").unwrap_or(&Value::Null);
                flaws.extend(self.flaws_of_list("PresenceEntry", list, "presence"));
            }
            ("EventFrame", _, Some(event)) if !Self::events().contains(event) => {
                flaws.push(format!("an event that nobody knows: {event}"));
            }
            ("EventFrame", _, Some(event)) => {
                if let Some(pointer) = self.pointer(&PAYLOADS, event, "Event") {
                    flaws.extend(self.flaws_by(&pointer, payload, event));
                }
            }
            ("RequestFrame", Some(method), _) => {
                if let Some(pointer) = self.pointer(&PARAMS, method, "Params") {
                    let params = frame.get("params").cloned().unwrap_or_else(|| json!({}));
                    flaws.extend(self.flaws_by(&pointer, &params, method));
                }
            }
            _ => {}
        }
        flaws
    }

    /// What the schema says of the parameters of `method`, if it says anything.
    pub(crate) fn params_of(&self, method: &str) -> Option<&Value> {
        self.document.pointer(&self.pointer(&PARAMS, method, "Params")?)
    }

    /// Whether the schema says anything of the reply of `method`.
    pub(crate) fn knows_the_reply_of(&self, method: &str) -> bool {
        LISTS.iter().any(|(name, _)| *name == method)
            || self.pointer(&REPLIES, method, "Result").is_some()
    }

    /// Whether the schema says anything of the payload of `event`.
    pub(crate) fn knows_the_payload_of(&self, event: &str) -> bool {
        event == "presence" || self.pointer(&PAYLOADS, event, "Event").is_some()
    }

    /// Where the definition is: an exception, or the name in capitals with its ending, with `.get`
    /// left out if that is how it is called.
    fn pointer(&self, exceptions: &[(&str, &str)], name: &str, ending: &str) -> Option<String> {
        if let Some((_, pointer)) = exceptions.iter().find(|(known, _)| *known == name) {
            return Some((*pointer).to_owned());
        }
        let short = name.strip_suffix(".get").unwrap_or(name);
        [name, short].iter().find_map(|name| {
            let words = name.split(['.', '-']);
            let name: String = words.map(capital).collect();
            let pointer = format!("/definitions/{name}{ending}");
            self.document.pointer(&pointer).map(|_| pointer)
        })
    }

    fn flaws_of_list(&self, item: &str, list: &Value, what: &str) -> Vec<String> {
        let Some(items) = list.as_array() else { return vec![format!("{what}: no list: {list}")] };
        let pointer = format!("/definitions/{item}");
        items.iter().flat_map(|item| self.flaws_by(&pointer, item, what)).collect()
    }

    fn flaws_by(&self, pointer: &str, value: &Value, what: &str) -> Vec<String> {
        let Some(validator) = self.validator(pointer) else { return Vec::new() };
        let told = |flaw: jsonschema::ValidationError<'_>| {
            let place = flaw.instance_path();
            format!("{what} is not as published ({pointer}): {flaw} at {place}\n{value:#}")
        };
        validator.iter_errors(value).map(told).collect()
    }

    fn validator(&self, pointer: &str) -> Option<&'static Validator> {
        let mut compiled = self.compiled.lock().unwrap_or_else(|broken| broken.into_inner());
        *compiled.entry(pointer.to_owned()).or_insert_with(|| {
            let part = self.document.pointer(pointer)?;
            let validator = jsonschema::draft7::new(part).expect("the schema compiles");
            // One for each definition that is used, for the length of the process.
            Some(Box::leak(Box::new(validator)))
        })
    }
}

fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters
        .next()
        .map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
        .unwrap_or_default()
}
