//! What came of every way to log in, and why the rest was not tried. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    report::{Line, Step, Verdict},
    steps::HopPlan,
};
use crate::ssh::{Answer, Fact, Key};

/// What a login told.
#[derive(Debug, Default)]
pub(super) struct Logins {
    offered: Vec<String>,
    keys: Vec<(Key, Answer)>,
    methods: Vec<(&'static str, Answer)>,
    agent: Option<Agent>,
}

#[derive(Debug)]
struct Agent {
    socket: String,
    outcome: Result<usize, String>,
}

/// Whether the server let us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    In,
    NotIn,
}

impl Logins {
    /// Takes a fact about the login.
    pub(super) fn note(&mut self, fact: &Fact) {
        match fact {
            Fact::Methods(offered) => {
                for name in offered {
                    if !self.offered.contains(name) {
                        self.offered.push(name.clone());
                    }
                }
            }
            Fact::Agent { socket, keys } => {
                let socket = socket.display().to_string();
                self.agent = Some(Agent { socket, outcome: Ok(*keys) });
            }
            Fact::AgentFailed { socket, why } => {
                let socket = socket.display().to_string();
                self.agent = Some(Agent { socket, outcome: Err(why.clone()) });
            }
            Fact::Key { key, answer } => self.keys.push((key.clone(), answer.clone())),
            Fact::Method { name, answer } => self.methods.push((name, answer.clone())),
            Fact::Hop(_)
            | Fact::Addresses(_)
            | Fact::NotConnected { .. }
            | Fact::Connected { .. }
            | Fact::Proxied { .. }
            | Fact::Through { .. }
            | Fact::Banner { .. }
            | Fact::Algorithms(_)
            | Fact::HostKey { .. }
            | Fact::HostKeyRecorded(_)
            | Fact::LoggedIn { .. } => {}
        }
    }

    /// Adds what was offered and what was not to the step.
    pub(super) fn describe(&self, mut step: Step, hop: &HopPlan, outcome: Outcome) -> Step {
        if !self.offered.is_empty() {
            step.lines.push(Line::plain(format!("the server takes {}", self.offered.join(", "))));
        }
        step.lines.extend(self.agent.iter().map(Agent::line));
        step.lines.extend(self.keys.iter().map(|(key, answer)| line(&shown(key), answer)));
        let methods = self.methods(hop, outcome);
        step.lines.extend(methods.iter().map(|(name, answer)| line(name, answer)));
        let keys: Vec<Value> =
            self.keys.iter().map(|(key, answer)| key_json(key, answer)).collect();
        let methods: Vec<Value> = methods
            .iter()
            .map(|(name, answer)| {
                let (answer, why) = words(answer);
                json!({"method": name, "answer": answer, "why": why})
            })
            .collect();
        step.with("offered", self.offered.clone())
            .with("agent", self.agent.as_ref().map(Agent::json))
            .with("keys", keys)
            .with("methods", methods)
    }

    /// What came of the methods beside keys that were shown above.
    fn methods(&self, hop: &HopPlan, outcome: Outcome) -> Vec<(String, Answer)> {
        let mut told: Vec<(String, Answer)> = self
            .methods
            .iter()
            .map(|(name, answer)| ((*name).to_owned(), answer.clone()))
            .collect();
        let mut done: BTreeSet<&str> = self.methods.iter().map(|(name, _)| *name).collect();
        let has_tried_key =
            self.keys.iter().any(|(_, answer)| !matches!(answer, Answer::NotTried(_)));
        if has_tried_key {
            done.insert("publickey");
        }
        for name in self.offered.iter().filter(|name| !done.contains(name.as_str())) {
            let why = match untried(name, hop, outcome) {
                Some(why) => why,
                None if self.keys.is_empty() => "there is no key to offer".to_owned(),
                None => "no key could be offered".to_owned(),
            };
            told.push((name.clone(), Answer::NotTried(why)));
        }
        told
    }
}

/// Why a method that the server takes was not tried; `None` where it is for want of a key.
fn untried(name: &str, hop: &HopPlan, outcome: Outcome) -> Option<String> {
    let known = ["publickey", "keyboard-interactive", "password"];
    let switched_off = hop.switched_off.iter().find(|(method, _)| *method == name);
    let why = if !known.contains(&name) {
        "not known here"
    } else if let Some((_, why)) = switched_off {
        why
    } else if outcome == Outcome::In {
        "not needed"
    } else if name == "publickey" {
        return None;
    } else if hop.batch {
        "nobody may be asked"
    } else {
        "the login ended before"
    };
    Some(why.to_owned())
}

fn line(what: &str, answer: &Answer) -> Line {
    let verdict = match answer {
        Answer::Accepted | Answer::Partly => Verdict::Ok,
        Answer::Refused => Verdict::Failed,
        Answer::NotTried(_) => Verdict::NotReached,
    };
    let (word, why) = match answer {
        Answer::Accepted => ("accepted", None),
        Answer::Partly => ("accepted", Some("the server wants more")),
        Answer::Refused => ("refused", None),
        Answer::NotTried(why) => ("not tried", Some(why.as_str())),
    };
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    Line { verdict: Some(verdict), text: format!("{word:<9}  {what}{why}") }
}

/// A key as people tell it from others.
fn shown(key: &Key) -> String {
    let place = match (&key.file, key.in_agent) {
        (Some(file), false) => file.display().to_string(),
        (Some(file), true) => format!("{} (agent)", file.display()),
        (None, _) => "agent".to_owned(),
    };
    let fingerprint = key.fingerprint.as_deref().map(|it| format!(" {it}")).unwrap_or_default();
    let algorithm = key.algorithm.as_deref().map(|it| it.strip_prefix("ssh-").unwrap_or(it));
    let algorithm = algorithm.map(|it| format!(" {it}")).unwrap_or_default();
    format!("{place}{algorithm}{fingerprint}")
}

fn key_json(key: &Key, answer: &Answer) -> Value {
    let (answer, why) = words(answer);
    json!({
        "algorithm": key.algorithm, "fingerprint": key.fingerprint, "file": key.file,
        "agent": key.in_agent, "answer": answer, "why": why,
    })
}

/// An answer as scripts read it, and its reason.
fn words(answer: &Answer) -> (&'static str, Option<&str>) {
    match answer {
        Answer::Accepted => ("accepted", None),
        Answer::Partly => ("partly", None),
        Answer::Refused => ("refused", None),
        Answer::NotTried(why) => ("not_tried", Some(why)),
    }
}

impl Agent {
    fn line(&self) -> Line {
        let Self { socket, outcome } = self;
        match outcome {
            Ok(1) => Line::plain(format!("the agent at {socket} holds 1 key")),
            Ok(count) => Line::plain(format!("the agent at {socket} holds {count} keys")),
            Err(why) => Line {
                verdict: Some(Verdict::Failed),
                text: format!("the agent at {socket}: {why}"),
            },
        }
    }

    fn json(&self) -> Value {
        let (keys, error) = match &self.outcome {
            Ok(count) => (Some(count), None),
            Err(why) => (None, Some(why)),
        };
        json!({"socket": self.socket, "keys": keys, "error": error})
    }
}
