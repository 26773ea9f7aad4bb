//! The messages of the control socket: what a command asks, and what the supervisor answers.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    fingerprint::Fingerprint,
    problem::{Class, Problem},
    secret::Secret,
};

/// The version of these messages, the greeting apart; the two ends must agree.
pub(crate) const VERSION: u32 = 1;

/// What a command asks, with what it lends.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Call {
    /// The command's current `SSH_AUTH_SOCK`.
    pub(crate) agent: Option<PathBuf>,
    /// What it asks.
    pub(crate) request: Request,
}

/// What a command can ask of the supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Request {
    /// Bring a remote up on trial. Answers: stages and questions, then `Live` or `Failed`. After
    /// `Live` the command says [`Note::Keep`]; a command that goes away first takes all of it back.
    Connect {
        /// The remote's name.
        name: String,
        /// Its definition, as in `rs/remotes.json`; `None` brings the saved one up.
        definition: Option<Value>,
        /// Never ask a person.
        batch: bool,
        /// Make it the default once it is kept.
        make_default: bool,
        /// How long the command waits, milliseconds.
        timeout_ms: u64,
    },
    /// Turn this connection into a byte stream to the remote's gateway. Answers `Opened`, then
    /// bytes; or `Failed`.
    Open {
        /// The remote's name.
        name: String,
        /// Which of the two, while it is being edited.
        edition: Edition,
        /// How long to wait for a live path, milliseconds.
        timeout_ms: u64,
    },
    /// Answers `Statuses`.
    Status {
        /// One remote, or all.
        name: Option<String>,
    },
    /// Who listens on a port of this machine, of us: those on trial or not started yet as well.
    /// Answers `Held`; a supervisor that does not know the question hangs up.
    Holder {
        /// The port.
        port: u16,
    },
    /// Answers `Watched` at once, and again whenever something of it has changed, until the command
    /// goes away; or `Failed`.
    Watch {
        /// One remote, or all.
        name: Option<String>,
    },
    /// Answer scrapes of the metrics at an address from now on, or no more. Answers `Done`.
    Metrics {
        /// `ADDRESS:PORT`; `None` for nowhere.
        address: Option<SocketAddr>,
        /// Whether the next supervisor shall do so as well.
        keep: bool,
    },
    /// Take up a saved remote without waiting for it. Answers `Done`.
    Resume {
        /// The remote's name.
        name: String,
    },
    /// Take a remote down and keep its definition. Answers `Done`.
    Disconnect {
        /// The remote's name.
        name: String,
    },
    /// Take a remote down and forget it. Answers `Done`.
    Remove {
        /// The remote's name.
        name: String,
    },
    /// Rename a remote. Answers `Done`.
    Rename {
        /// Its name so far.
        name: String,
        /// Its name from now on.
        to: String,
    },
    /// Read the far gateway's token over the login. Answers `Token` or `Failed`.
    FetchToken {
        /// The remote's name.
        name: String,
    },
    /// End the supervisor. Answers `Done`.
    Stop,
}

/// Which of two remotes of one name is meant, while a `remote connect` edits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Edition {
    /// The one that is saved.
    Kept,
    /// The one on trial; the saved one if nothing is.
    Trial,
}

/// What a command adds while the supervisor is at work on its request.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "note", rename_all = "camelCase")]
pub(crate) enum Note {
    /// The answer to a question; `None` declines.
    Answer {
        /// What the person typed.
        text: Option<Secret>,
    },
    /// The remote that is up on trial is good: save it.
    Keep {
        /// What the gateway said of itself, for `remote status`.
        gateway: Option<Value>,
    },
}

/// What the supervisor answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "camelCase")]
pub(crate) enum Reply {
    /// What it is at.
    Stage {
        /// A short phrase.
        text: String,
    },
    /// A question for the person at the command; wants [`Note::Answer`].
    Question(Question),
    /// The remote's gateway has answered; the status as `remote status --json` has it.
    Live {
        /// The status object.
        status: Value,
        /// What the transport proved.
        opened: Opened,
    },
    /// From here on the connection is the stream.
    Opened(Opened),
    /// The status objects.
    Statuses {
        /// One a remote, by name.
        remotes: Vec<Value>,
    },
    /// The remote that a port of this machine leads to, or will in a moment.
    Held {
        /// Its name; `None` if we do not listen there.
        remote: Option<String>,
    },
    /// How the remotes that are watched are now.
    Watched(Watched),
    /// The far gateway's token.
    Token {
        /// The token.
        token: Secret,
        /// The file over there that it stood in.
        source: String,
    },
    /// Done as asked.
    Done,
    /// Nothing was done: another supervisor serves by now.
    Moved,
    /// Not done.
    Failed(Problem),
}

/// What one who watches is told: all of it each time, so that what came in between may be left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Watched {
    /// The status objects, one a remote, by name.
    pub(crate) remotes: Vec<Value>,
    /// The last round trips of each remote by its name, milliseconds, the oldest first.
    pub(crate) round_trips: BTreeMap<String, Vec<f64>>,
    /// The last entries of the history, as its files have them.
    pub(crate) history: Vec<Value>,
}

/// A question for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Question {
    /// How it is answered.
    pub(crate) kind: Answer,
    /// What is asked, complete with punctuation.
    pub(crate) text: String,
}

/// How a question is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Answer {
    /// With `yes` or `no`.
    YesNo,
    /// With text that is shown while it is typed.
    Shown,
    /// With text that is not shown.
    Hidden,
}

/// What the transport of an opened stream proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Opened {
    /// The last hop's host key, `SHA256:…`.
    pub(crate) host_key: Option<String>,
    /// The gateway's port on the far side.
    pub(crate) remote_port: u16,
    /// The gateway's certificate, where it speaks TLS: whoever has the stream shakes hands first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls_fingerprint: Option<Fingerprint>,
}

/// The problem in a reply that was not the one awaited.
pub(crate) fn refused(reply: Reply) -> Problem {
    match reply {
        Reply::Failed(problem) => problem,
        Reply::Stage { .. }
        | Reply::Question(_)
        | Reply::Live { .. }
        | Reply::Opened(_)
        | Reply::Statuses { .. }
        | Reply::Held { .. }
        | Reply::Watched(_)
        | Reply::Token { .. }
        | Reply::Done => Problem::new(Class::Internal, "the supervisor gave an unexpected answer"),
        Reply::Moved => Problem::new(Class::Internal, "the supervisor was replaced just now")
            .fix("the same command again"),
    }
}
