//! What went wrong: a class with its exit code, a message, and what to type next.

use std::io;

use serde::{Deserialize, Serialize};

/// OpenClaw's code for what may be otherwise when it is tried again.
pub(crate) const UNAVAILABLE: &str = "UNAVAILABLE";

/// The class of a failure: decides the exit code, and is `class` under `--json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Class {
    /// Ours to mend.
    Internal,
    /// An RPC that got no answer in time.
    Timeout,
    /// The gateway answered with an error.
    Rpc,
    /// Wrong arguments.
    Usage,
    /// Wrong configuration; every problem is listed.
    Config,
    /// DNS, refused, connect timed out, no network, link down.
    Unreachable,
    /// SSH authentication failed.
    SshAuth,
    /// Host key unknown in batch mode, changed or revoked.
    HostKey,
    /// The local port is taken; the message says by whom.
    PortInUse,
    /// The tunnel is up, no gateway answers behind it.
    GatewayDown,
    /// The gateway refused: token, password, pairing, scope, protocol version.
    GatewayRefused,
    /// The SSH server refused the forward.
    ForwardRefused,
}

impl Class {
    /// The process exit code of this class.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Internal | Self::Timeout | Self::Rpc => 1,
            Self::Usage | Self::Config => 2,
            Self::Unreachable => 3,
            Self::SshAuth => 4,
            Self::HostKey => 5,
            Self::PortInUse => 6,
            Self::GatewayDown => 7,
            Self::GatewayRefused => 8,
            Self::ForwardRefused => 9,
        }
    }
}

/// A failure as a person and a script see it; travels over the control socket as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub(crate) struct Problem {
    /// Decides the exit code.
    pub(crate) class: Class,
    /// OpenClaw's own error code where it has one (`UNAVAILABLE`, `AUTH_TOKEN_MISMATCH`, …).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<String>,
    /// What failed and why: a lower-case fragment.
    pub(crate) message: String,
    /// What to type next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

impl Problem {
    /// A problem of `class` that says what failed and why.
    pub(crate) fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, code: None, message: message.into(), fix: None }
    }

    /// The same problem with what to type next.
    #[must_use]
    pub(crate) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    /// One problem that says all of several, each with what to type next, of the first one's class;
    /// `None` of none.
    pub(crate) fn of_all(problems: Vec<Self>) -> Option<Self> {
        let mut problems = problems.into_iter();
        let mut whole = problems.next()?;
        let mut fixes: Vec<String> = whole.fix.take().into_iter().collect();
        for problem in problems {
            whole.message = format!("{}; {}", whole.message, problem.message);
            fixes.extend(problem.fix.filter(|fix| !fixes.contains(fix)));
        }
        whole.fix = (!fixes.is_empty()).then(|| fixes.join("; "));
        Some(whole)
    }

    /// The same problem with OpenClaw's code for it.
    #[must_use]
    pub(crate) fn code(self, code: impl Into<String>) -> Self {
        Self { code: Some(code.into()), ..self }
    }

    /// The same problem as the doing of the system, which said `error`: code [`UNAVAILABLE`], but
    /// for what is no text and stays none.
    #[must_use]
    pub(crate) fn denied(self, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::InvalidData { self } else { self.code(UNAVAILABLE) }
    }

    /// Whether what was typed or is configured is wrong, and stays so until a person mends it; a
    /// full disk, or a file that cannot be read now, may be otherwise at the next try.
    pub(crate) fn is_lasting(&self) -> bool {
        matches!(self.class, Class::Usage | Class::Config)
            && self.code.as_deref() != Some(UNAVAILABLE)
    }
}

/// A word as a shell takes it, for what to type next.
pub(crate) fn shell_word(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@%+,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
