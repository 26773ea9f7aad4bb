//! Who may ask for a method, and who hears of an event.

use std::fmt;

use super::{Role, Scope};

/// The circle of clients that a method or an event is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Every authenticated client of either role.
    Anyone,
    /// Operators that hold this scope.
    Holder(Scope),
    /// Operators that hold this scope, and every node.
    HolderOrNode(Scope),
    /// Nodes.
    Node,
    /// Operators, whatever they hold.
    Operator,
    /// Operators; the handler looks at the parameters and decides which scope it takes.
    Dynamic,
}

impl Access {
    /// Whether a client of `role` with `scopes` is within.
    pub(crate) fn admits(self, role: Role, scopes: &[Scope]) -> bool {
        match self {
            Self::Anyone => true,
            Self::Holder(scope) => role == Role::Operator && scope.is_within(scopes),
            Self::HolderOrNode(scope) => role == Role::Node || scope.is_within(scopes),
            Self::Node => role == Role::Node,
            Self::Operator | Self::Dynamic => role == Role::Operator,
        }
    }

    /// Whether it is for clients of `role` at all.
    pub(crate) fn is_for(self, role: Role) -> bool {
        match self {
            Self::Anyone | Self::HolderOrNode(_) => true,
            Self::Holder(_) | Self::Operator | Self::Dynamic => role == Role::Operator,
            Self::Node => role == Role::Node,
        }
    }
}

/// As the published list has it; `-` for everybody, `operator` for every operator.
impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("-"),
            Self::Holder(scope) => f.write_str(scope.name()),
            Self::HolderOrNode(scope) => write!(f, "{}|node", scope.name()),
            Self::Node => f.write_str("node"),
            Self::Operator => f.write_str("operator"),
            Self::Dynamic => f.write_str("dynamic"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_counts_for_operators_alone() {
        let read = Access::Holder(Scope::Read);
        assert!(read.admits(Role::Operator, &[Scope::Write]));
        assert!(!read.admits(Role::Operator, &[Scope::Pairing]));
        assert!(!read.admits(Role::Node, &[Scope::Admin]));
        assert!(Access::Node.admits(Role::Node, &[]));
        let both = Access::HolderOrNode(Scope::Read);
        assert!(both.admits(Role::Node, &[]) && both.admits(Role::Operator, &[Scope::Read]));
        assert!(!both.admits(Role::Operator, &[Scope::Pairing]));
        assert!(!Access::Node.admits(Role::Operator, &[Scope::Admin]));
        let any = Access::Operator;
        assert!(any.admits(Role::Operator, &[]) && !any.admits(Role::Node, &[Scope::Admin]));
        assert!(Access::Anyone.admits(Role::Node, &[]) && Access::Anyone.is_for(Role::Node));
    }
}
