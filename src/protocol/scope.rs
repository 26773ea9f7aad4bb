//! Operator scopes: what a connection may do, and which scope contains which.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One permission of an operator; the closed set of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Scope {
    /// Status, lists, reads.
    #[serde(rename = "operator.read")]
    Read,
    /// Sending, invoking, changing; contains `read` and `talk`.
    #[serde(rename = "operator.write")]
    Write,
    /// Configuration and everything else; contains every scope.
    #[serde(rename = "operator.admin")]
    Admin,
    /// Approvals of commands.
    #[serde(rename = "operator.approvals")]
    Approvals,
    /// Interactive questions.
    #[serde(rename = "operator.questions")]
    Questions,
    /// Devices and nodes.
    #[serde(rename = "operator.pairing")]
    Pairing,
    /// Talk sessions.
    #[serde(rename = "operator.talk")]
    Talk,
    /// Talk configuration with its secrets.
    #[serde(rename = "operator.talk.secrets")]
    TalkSecrets,
}

impl Scope {
    /// Every scope.
    pub(crate) const ALL: [Self; 8] = [
        Self::Read,
        Self::Write,
        Self::Admin,
        Self::Approvals,
        Self::Questions,
        Self::Pairing,
        Self::Talk,
        Self::TalkSecrets,
    ];

    /// The scope of this name; `None` for a name outside the set.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// `operator.read` and so on.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Read => "operator.read",
            Self::Write => "operator.write",
            Self::Admin => "operator.admin",
            Self::Approvals => "operator.approvals",
            Self::Questions => "operator.questions",
            Self::Pairing => "operator.pairing",
            Self::Talk => "operator.talk",
            Self::TalkSecrets => "operator.talk.secrets",
        }
    }

    /// Whether a holder of `held` may do what needs this scope.
    pub(crate) fn is_within(self, held: &[Self]) -> bool {
        held.iter().any(|&scope| match scope {
            Self::Admin => true,
            Self::Write => matches!(self, Self::Write | Self::Read | Self::Talk),
            other @ (Self::Read
            | Self::Approvals
            | Self::Questions
            | Self::Pairing
            | Self::Talk
            | Self::TalkSecrets) => other == self,
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_contains_every_scope_and_write_contains_read_and_talk() {
        assert!(Scope::ALL.into_iter().all(|scope| scope.is_within(&[Scope::Admin])));
        let written: Vec<_> =
            Scope::ALL.into_iter().filter(|scope| scope.is_within(&[Scope::Write])).collect();
        assert_eq!(written, [Scope::Read, Scope::Write, Scope::Talk]);
        assert!(!Scope::Read.is_within(&[Scope::Pairing, Scope::TalkSecrets]));
        assert!(!Scope::Read.is_within(&[]));
    }

    #[test]
    fn names_read_back_and_strangers_do_not() {
        for scope in Scope::ALL {
            assert_eq!(Scope::parse(scope.name()), Some(scope));
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.name());
        }
        assert_eq!(Scope::parse("operator.everything"), None);
    }
}
