//! What a check found, as data: the steps in their order, what is behind them, and the failure.

use std::{path::PathBuf, time::Duration};

use serde_json::{Map, Value, json};

use crate::{
    cli::{output::error_value, status::tenths},
    problem::Problem,
};

/// Everything that a check found.
#[derive(Debug, Clone, Default)]
pub(super) struct Report {
    /// What was to be checked, as it was typed or saved.
    pub(super) target: String,
    /// The saved remote that was meant, if it was one.
    pub(super) remote: Option<String>,
    /// The hops, the target last; empty if the configuration is wrong.
    pub(super) hops: Vec<HopLabel>,
    /// The steps in the order in which they are made.
    pub(super) steps: Vec<Step>,
    /// What the configuration says and we do not do.
    pub(super) not_honoured: Vec<NotHonoured>,
    /// Why the check ended early.
    pub(super) problem: Option<Problem>,
    /// How long all of it took, questions to a person apart.
    pub(super) took: Duration,
}

/// A hop by its names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct HopLabel {
    /// As it was written.
    pub(super) named: String,
    /// `user@host:port`.
    pub(super) label: String,
}

/// Something that must work for the remote to work.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Step {
    pub(super) kind: Kind,
    /// The hop's number, from 0; `None` for what is not about one.
    pub(super) hop: Option<usize>,
    pub(super) verdict: Verdict,
    /// How long it took; `None` if it was not reached or takes no time.
    pub(super) took: Option<Duration>,
    /// What came of it, in a few words.
    pub(super) text: String,
    /// What else people want to see.
    pub(super) lines: Vec<Line>,
    /// The same for scripts.
    pub(super) detail: Map<String, Value>,
    /// What the configuration says about it, defaults apart.
    pub(super) settings: Vec<Setting>,
}

/// The steps by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Resolve,
    Name,
    Connect,
    Server,
    HostKey,
    Login,
    Forward,
    Gateway,
    Secret,
    Forwards,
}

/// What came of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Ok,
    Failed,
    NotReached,
}

/// A line below a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// `None` for what is neither good nor bad.
    pub(super) verdict: Option<Verdict>,
    pub(super) text: String,
}

/// A value of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) keyword: String,
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    CommandLine,
    File { path: PathBuf, line: usize },
}

/// A keyword that is on file and does nothing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotHonoured {
    pub(super) keyword: String,
    pub(super) origin: Origin,
    pub(super) reason: String,
}

impl Kind {
    /// The name as people read it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::HostKey => "host key",
            Self::Resolve
            | Self::Name
            | Self::Connect
            | Self::Server
            | Self::Login
            | Self::Forward
            | Self::Gateway
            | Self::Secret
            | Self::Forwards => self.name(),
        }
    }

    /// The name as scripts read it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Name => "name",
            Self::Connect => "connect",
            Self::Server => "server",
            Self::HostKey => "host_key",
            Self::Login => "login",
            Self::Forward => "forward",
            Self::Gateway => "gateway",
            Self::Secret => "secret",
            Self::Forwards => "forwards",
        }
    }
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::NotReached => "not_reached",
        }
    }
}

impl Step {
    /// A step of which nothing is known yet.
    pub(super) fn not_reached(kind: Kind, hop: Option<usize>) -> Self {
        Self {
            kind,
            hop,
            verdict: Verdict::NotReached,
            took: None,
            text: "not reached".to_owned(),
            lines: Vec::new(),
            detail: Map::new(),
            settings: Vec::new(),
        }
    }

    /// A step that ended well.
    pub(super) fn ok(kind: Kind, took: Option<Duration>, text: impl Into<String>) -> Self {
        let step = Self::not_reached(kind, None);
        Self { verdict: Verdict::Ok, took, text: text.into(), ..step }
    }

    /// A step that ended badly.
    pub(super) fn failed(kind: Kind, took: Option<Duration>, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, ..Self::ok(kind, took, text) }
    }

    /// The same with a further fact for scripts.
    #[must_use]
    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(key.to_owned(), value.into());
        self
    }

    fn json(&self) -> Value {
        json!({
            "step": self.kind.name(),
            "hop": self.hop.map(|number| number + 1),
            "verdict": self.verdict.name(),
            "tookMs": self.took.map(tenths),
            "text": self.text,
            "detail": self.detail,
            "settings": self.settings.iter().map(Setting::json).collect::<Vec<_>>(),
        })
    }
}

impl Line {
    /// A line that is neither good nor bad.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self { verdict: None, text: text.into() }
    }
}

impl Setting {
    pub(super) fn json(&self) -> Value {
        json!({"keyword": self.keyword, "value": self.value, "origin": self.origin.json()})
    }
}

impl Origin {
    pub(super) fn json(&self) -> Value {
        match self {
            Self::CommandLine => json!({"kind": "command_line"}),
            Self::File { path, line } => json!({"kind": "file", "path": path, "line": line}),
        }
    }
}

impl Report {
    /// The one object of `--json`.
    pub(super) fn json(&self) -> Value {
        let hops =
            self.hops.iter().enumerate().map(
                |(index, hop)| json!({"hop": index + 1, "named": hop.named, "target": hop.label}),
            );
        let not_honoured = self.not_honoured.iter().map(
            |it| json!({"keyword": it.keyword, "origin": it.origin.json(), "reason": it.reason}),
        );
        json!({
            "ok": self.problem.is_none(),
            "target": self.target,
            "remote": self.remote,
            "tookMs": tenths(self.took),
            "hops": hops.collect::<Vec<_>>(),
            "steps": self.steps.iter().map(Step::json).collect::<Vec<_>>(),
            "notHonoured": not_honoured.collect::<Vec<_>>(),
            "error": self.problem.as_ref().map(error_value),
        })
    }
}
