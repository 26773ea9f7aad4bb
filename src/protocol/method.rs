//! What a method is: a name, the scope that it needs, its parameters and its reply, in one row.

use serde::{Serialize, de::DeserializeOwned};

use super::{
    Access, catalog, config, device_pair, device_scopes, exec_approval, exec_rules, health, logs,
    node, node_published, node_side, system, voicewake,
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
const FAMILIES: [&[Row]; 13] = [
    health::ROWS,
    system::ROWS,
    catalog::ROWS,
    config::ROWS,
    voicewake::ROWS,
    logs::ROWS,
    device_pair::ROWS,
    device_scopes::ROWS,
    node::ROWS,
    node_side::ROWS,
    node_published::ROWS,
    exec_approval::ROWS,
    exec_rules::ROWS,
];

/// Every row, in the order of the families.
pub(crate) fn rows() -> impl Iterator<Item = Row> {
    FAMILIES.into_iter().flatten().copied()
}

/// Makes a type for each row of a method family, and their table `ROWS`.
macro_rules! methods {
    ($($(#[doc = $doc:literal])+ $type:ident = $name:literal, $access:expr, $params:ty => $reply:ty;)+) => {
        $(
            $(#[doc = $doc])+
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

        /// What each does, for the page about them.
        #[cfg(test)]
        pub(super) const WORDS: &[(&str, &[&str])] = &[$(($name, &[$($doc),+])),+];
    };
}

pub(super) use methods;

#[cfg(test)]
mod tests {
    use super::*;

    /// The methods of a family, each with what it does.
    type Words = &'static [(&'static str, &'static [&'static str])];

    /// The families with their words, as the page has them.
    const FAMILIES: [(&str, Words); 13] = [
        ("Health", health::WORDS),
        ("Who is here", system::WORDS),
        ("What the configuration names", catalog::WORDS),
        ("Configuration", config::WORDS),
        ("Wake words", voicewake::WORDS),
        ("Logs", logs::WORDS),
        ("Devices", device_pair::WORDS),
        ("More scopes for a device", device_scopes::WORDS),
        ("Nodes, for operators", node::WORDS),
        ("Nodes, for themselves", node_side::WORDS),
        ("What nodes publish", node_published::WORDS),
        ("Approvals of commands", exec_approval::WORDS),
        ("Rules for programs on the gateway's own host", exec_rules::WORDS),
    ];

    /// The events that OpenClaw's gateway names in its `hello-ok`, apart from ours.
    fn missing_events() -> Vec<String> {
        let hello = include_str!("../../fixtures/frames/openclaw-2026.9.6/hello-ok.json");
        let hello: serde_json::Value = serde_json::from_str(hello).unwrap();
        let all = hello["payload"]["features"]["events"].as_array().unwrap().iter();
        let mut all: Vec<_> = all.map(|name| name.as_str().unwrap().to_owned()).collect();
        all.retain(|name| crate::protocol::event::EVENTS.iter().all(|kind| kind.name != name));
        all
    }

    /// Names by what they begin with, a line each.
    fn families(names: impl Iterator<Item = String>) -> String {
        let mut families = std::collections::BTreeMap::<String, Vec<String>>::new();
        for name in names {
            let family = name.split(['.', '-']).next().unwrap_or(&name).to_owned();
            families.entry(family).or_default().push(name);
        }
        let lines = families.iter();
        lines.map(|(family, names)| format!("- {family}: `{}`\n", names.join("`, `"))).collect()
    }

    /// The page as the table and the published list have it.
    fn page() -> String {
        let mut page = include_str!("page.md").to_owned();
        let table: Vec<_> = rows().collect();
        for (title, words) in FAMILIES {
            page.push_str(&format!("\n### {title}\n\n| method | scope | |\n|---|---|---|\n"));
            for (name, words) in words {
                let row = table.iter().find(|row| row.name == *name).unwrap();
                let words = words.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
                page.push_str(&format!("| `{name}` | {} | {words} |\n", row.access));
            }
        }
        page.push_str(
            "\n## Events that are there\n\nOf a request for approval only administrators hear, and the \
             device, or the connection without one, that asked.\n\n| event | who hears of it \
             |\n|---|---|\n",
        );
        for kind in crate::protocol::event::EVENTS {
            page.push_str(&format!("| `{}` | {} |\n", kind.name, kind.access));
        }
        let missing = missing_events();
        page.push_str(&format!(
            "\n## Events that are not there\n\n{} of those that OpenClaw's gateway has: nothing of \
             what they tell happens here. `node.invoke.input` is for commands that are fed while they \
             run, which only OpenClaw's own agents and plugins do.\n\n",
            missing.len(),
        ));
        page.push_str(&families(missing.into_iter()));
        let missing = include_str!("../../fixtures/published.txt").lines();
        let missing = missing.filter_map(|line| line.split_once(' '));
        let missing: Vec<_> =
            missing.filter(|(name, _)| !table.iter().any(|row| row.name == *name)).collect();
        page.push_str(&format!(
            "\n## Methods that are not there\n\n{} of the {} that are published. Each is answered \
             with `INVALID_REQUEST`, \"unknown method\".\n\n",
            missing.len(),
            missing.len() + table.len(),
        ));
        page.push_str(&families(missing.into_iter().map(|(name, _)| name.to_owned())));
        page
    }

    /// `OPENCLAW_WRITE_DOCS=1` writes the page anew.
    #[test]
    fn the_page_of_the_protocol_says_what_the_table_says() {
        let page = page();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/protocol.md");
        if std::env::var_os("OPENCLAW_WRITE_DOCS").is_some() {
            std::fs::write(file, &page).unwrap();
        }
        assert_eq!(page, std::fs::read_to_string(file).unwrap_or_default());
    }

    #[test]
    fn the_table_is_the_published_list() {
        let table: String = rows().map(|row| format!("{} {}\n", row.name, row.access)).collect();
        assert_eq!(table, include_str!("../../fixtures/methods.txt"));
    }
}
