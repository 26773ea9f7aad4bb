//! What a method is: a name, the scope that it needs, its parameters and its reply, in one row.

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Access, catalog, config, device_pair, exec_approval, health, logs, node, node_published,
    node_side, system,
};

/// A method as a type, made by [`methods!`].
pub(crate) trait Method {
    /// Its row without the types.
    const ROW: Row;
    /// What it takes; absent parameters read as `{}`.
    type Params: DeserializeOwned + Send + 'static;
    /// What it answers.
    type Reply: Serialize;
}

/// The part of a method that is no type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// `health`, `gateway.identity.get`, …
    pub(crate) name: &'static str,
    /// Who may ask.
    pub(crate) access: Access,
}

/// The methods that we speak, a family a file.
const FAMILIES: [&[Row]; 10] = [
    health::ROWS,
    system::ROWS,
    catalog::ROWS,
    config::ROWS,
    logs::ROWS,
    device_pair::ROWS,
    node::ROWS,
    node_side::ROWS,
    node_published::ROWS,
    exec_approval::ROWS,
];

/// Every row, in the order of the families.
pub(crate) fn rows() -> impl Iterator<Item = Row> {
    FAMILIES.into_iter().flatten().copied()
}

/// Makes a type for each row of a method family, and their table `ROWS`.
macro_rules! methods {
    ($($(#[$doc:meta])* $type:ident = $name:literal, $access:expr, $params:ty => $reply:ty;)+) => {
        $(
            $(#[$doc])*
            pub(crate) enum $type {}

            impl $crate::protocol::Method for $type {
                const ROW: $crate::protocol::Row =
                    $crate::protocol::Row { name: $name, access: $access };
                type Params = $params;
                type Reply = $reply;
            }
        )+

        /// The rows of this family.
        pub(super) const ROWS: &[$crate::protocol::Row] =
            &[$(<$type as $crate::protocol::Method>::ROW),+];
    };
}

pub(super) use methods;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_the_published_list() {
        let table: String = rows().map(|row| format!("{} {}\n", row.name, row.access)).collect();
        assert_eq!(table, include_str!("../../fixtures/methods.txt"));
    }
}
