//! Why an attempt or a proof failed, and whether trying again can help.

use serde::{Deserialize, Serialize};

use crate::problem::{Class, Problem};

/// The code under which scripts find [`Cause::PlaceTaken`].
pub(crate) const PLACE_TAKEN: &str = "REMOTE_LISTENER_UNAVAILABLE";

/// What went wrong with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Cause {
    /// The host name did not resolve.
    NameNotFound,
    /// The host refused the TCP connection.
    Refused,
    /// The host did not answer in time.
    ConnectTimedOut,
    /// The machine has no route to the host.
    NoRoute,
    /// The connection was closed before the server's SSH banner. `penalty` tells that the server
    /// may be punishing this address (OpenSSH 9.8 and later, `PerSourcePenalties`).
    ClosedBeforeBanner {
        /// Whether the server's last banner was of a version that punishes.
        penalty: bool,
    },
    /// The server was silent during a stage of the SSH handshake.
    HandshakeTimedOut,
    /// The link broke: reset, closed, or silent for too long.
    LinkLost,
    /// The machine was away or its network changed, so that what was proved may no longer hold.
    Doubted,
    /// What answered does not speak SSH 2, or no common algorithm was found.
    Protocol,
    /// The server accepted none of the keys and answers offered.
    Authentication,
    /// A question (passphrase, host key, code) needs a person, and nobody is there.
    NeedsPerson,
    /// The agent is locked, gone, or refused to sign.
    Agent,
    /// The host key is not on file.
    HostKeyUnknown,
    /// Another host key is on file.
    HostKeyChanged,
    /// The host key is marked as revoked.
    HostKeyRevoked,
    /// The server refused the forward by policy.
    ForwardRefused,
    /// Somebody has the place over there where a remote forward should listen.
    PlaceTaken,
    /// Nothing listens on the gateway's port over there.
    GatewayAbsent,
    /// Something listens but does not answer yet.
    GatewayStarting,
    /// What answers is not a gateway.
    NotAGateway,
    /// The gateway shows another TLS certificate than the pinned one.
    OtherCertificate,
    /// The gateway speaks TLS, and no certificate is pinned.
    NoPin,
    /// A local file or option is wrong: key unreadable, bad permissions, unknown option.
    Configuration,
}

impl Cause {
    /// Whether trying again without a person's help can succeed.
    pub(crate) fn is_transient(self) -> bool {
        match self {
            Self::NameNotFound
            | Self::Refused
            | Self::ConnectTimedOut
            | Self::NoRoute
            | Self::ClosedBeforeBanner { .. }
            | Self::HandshakeTimedOut
            | Self::LinkLost
            | Self::Doubted
            | Self::PlaceTaken
            | Self::GatewayAbsent
            | Self::GatewayStarting
            | Self::NotAGateway => true,
            Self::Protocol
            | Self::Authentication
            | Self::NeedsPerson
            | Self::Agent
            | Self::HostKeyUnknown
            | Self::HostKeyChanged
            | Self::HostKeyRevoked
            | Self::ForwardRefused
            | Self::OtherCertificate
            | Self::NoPin
            | Self::Configuration => false,
        }
    }

    /// The code under which scripts find it, where the class alone does not tell.
    fn code(self) -> Option<&'static str> {
        if self == Self::PlaceTaken {
            Some(PLACE_TAKEN)
        } else if self == Self::OtherCertificate {
            Some("TLS_PIN_MISMATCH")
        } else if self == Self::NoPin {
            Some("TLS_UNTRUSTED")
        } else {
            None
        }
    }

    /// The class, and so the exit code, of this cause.
    pub(crate) fn class(self) -> Class {
        match self {
            Self::NameNotFound
            | Self::Refused
            | Self::ConnectTimedOut
            | Self::NoRoute
            | Self::ClosedBeforeBanner { .. }
            | Self::HandshakeTimedOut
            | Self::LinkLost
            | Self::Doubted
            | Self::Protocol => Class::Unreachable,
            Self::Authentication | Self::NeedsPerson | Self::Agent => Class::SshAuth,
            Self::HostKeyUnknown
            | Self::HostKeyChanged
            | Self::HostKeyRevoked
            | Self::OtherCertificate
            | Self::NoPin => Class::HostKey,
            Self::ForwardRefused | Self::PlaceTaken => Class::ForwardRefused,
            Self::GatewayAbsent | Self::GatewayStarting | Self::NotAGateway => Class::GatewayDown,
            Self::Configuration => Class::Config,
        }
    }
}

/// A cause with what to tell the person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// What went wrong.
    pub(crate) cause: Cause,
    /// What failed and why: a lower-case fragment.
    pub(crate) message: String,
    /// What to type next.
    pub(crate) fix: Option<String>,
}

impl Failure {
    /// A failure that says what failed and why.
    pub(crate) fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self { cause, message: message.into(), fix: None }
    }

    /// The same failure with what to type next.
    #[must_use]
    pub(crate) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self {
            class: failure.cause.class(),
            code: failure.cause.code().map(str::to_owned),
            message: failure.message,
            fix: failure.fix,
        }
    }
}
