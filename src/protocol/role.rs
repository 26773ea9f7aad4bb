//! What a connection is for (`ConnectParams.role`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which side of the gateway a client stands on.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Asks and administers, within its scopes.
    #[default]
    Operator,
    /// Offers commands to be invoked; holds no scopes.
    Node,
}

impl Role {
    /// The role of this name; `None` for a name outside the set.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::Operator, Self::Node].into_iter().find(|role| role.name() == name)
    }

    /// `operator` or `node`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Node => "node",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_and_strangers_do_not() {
        for role in [Role::Operator, Role::Node] {
            assert_eq!(Role::parse(role.name()), Some(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.name());
        }
        assert_eq!(Role::parse("king"), None);
    }
}
