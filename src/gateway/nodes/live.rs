//! The nodes that are here: one connection a device, the newest.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;

use super::{
    activity::{Activity, Seen, Source},
    book::{Facts, Surface},
    policy::Platform,
    published::Published,
};
use crate::{
    gateway::outbox::{Ending, Outbox},
    protocol::close,
};

/// A node that is connected.
#[derive(Debug, Clone)]
pub(super) struct Live {
    /// Its number among the hub's members; no other connection ever has it.
    pub(super) member: u64,
    pub(super) outbox: Arc<Outbox>,
    pub(super) facts: Facts,
    pub(super) platform: Platform,
    /// What it says it can do, as far as it may say so.
    pub(super) declared: Surface,
    /// What of that is approved.
    pub(super) effective: Surface,
    pub(super) path_env: Option<String>,
    pub(super) connected_at_ms: u64,
    /// When its machine was last used, if it told.
    pub(super) activity: Option<Activity>,
    /// Its machine's load and memory, as it last told.
    pub(super) host_stats: Option<Value>,
    /// What it has beside its commands.
    pub(super) published: Published,
}

/// All of them, and when the others went.
#[derive(Debug, Default)]
pub(super) struct Present {
    nodes: BTreeMap<String, Live>,
    departed: BTreeMap<String, u64>,
}

impl Live {
    /// Whether it is one of OpenClaw's programs that run others' programs and can stop them, and not
    /// a telephone.
    pub(super) fn is_host(&self) -> bool {
        let Facts { client_id, client_mode, .. } = &self.facts;
        matches!(client_id.as_str(), "node-host" | "openclaw-macos") && client_mode == "node"
    }

    /// Whether it is OpenClaw's program for macOS as a node.
    pub(super) fn is_mac_app(&self) -> bool {
        let Facts { client_id, client_mode, platform, .. } = &self.facts;
        let platform = platform.trim().to_lowercase();
        let is_mac = platform == "macos" || platform.starts_with("macos ");
        is_mac && client_id == "openclaw-macos" && client_mode == "node"
    }

    /// Whether it may tell that its machine was used, and this way.
    pub(super) fn may_tell(&self, seen: Seen) -> bool {
        match seen.source() {
            Source::System => self.effective.permissions.get("accessibility") == Some(&true),
            Source::App => {
                self.facts.client_id == "openclaw-macos"
                    && self.facts.client_mode == "node"
                    && self.platform == Platform::Macos
            }
        }
    }

    /// Whether it takes workers now.
    pub(super) fn takes_workers(&self) -> bool {
        self.published.runners.slots().is_some()
    }

    /// Sends the node away.
    pub(super) fn dismiss(&self, reason: &str) {
        self.outbox.end(Ending::close(close::POLICY, reason));
    }
}

impl Present {
    /// Takes a node in; an older connection of the same device is sent away and returned.
    pub(super) fn arrive(&mut self, node: &str, live: Live) -> Option<Live> {
        let before = self.nodes.insert(node.to_owned(), live)?;
        before.dismiss("the same node connected again");
        Some(before)
    }

    /// A connection ended; whether it was still the node's.
    pub(super) fn leave(&mut self, node: &str, member: u64, now_ms: u64) -> bool {
        let is_current = self.nodes.get(node).is_some_and(|live| live.member == member);
        if is_current {
            self.nodes.remove(node);
            self.departed.insert(node.to_owned(), now_ms);
        }
        is_current
    }

    /// When the node went, if it has been here since the gateway's start.
    pub(super) fn departed(&self, node: &str) -> Option<u64> {
        self.departed.get(node).copied()
    }

    /// The node of this device.
    pub(super) fn find(&self, node: &str) -> Option<&Live> {
        self.nodes.get(node)
    }

    /// The same, to be changed.
    pub(super) fn find_mut(&mut self, node: &str) -> Option<&mut Live> {
        self.nodes.get_mut(node)
    }

    /// Takes out a node that is no more.
    pub(super) fn remove(&mut self, node: &str) -> Option<Live> {
        self.departed.remove(node);
        self.nodes.remove(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tally::Tally;

    #[test]
    fn a_mac_app_says_by_three_words_that_it_is_one() {
        for (client_id, client_mode, platform, expected) in [
            ("openclaw-macos", "node", "macOS 26.3.1", true),
            ("openclaw-macos", "node", " macos", true),
            ("openclaw-macos", "ui", "macos", false),
            ("node-host", "node", "macos", false),
            ("openclaw-macos", "node", "macosx", false),
            ("openclaw-macos", "node", "linux", false),
        ] {
            let [client_id, client_mode, platform] =
                [client_id, client_mode, platform].map(str::to_owned);
            let shown = format!("{client_id} {client_mode} {platform}");
            let facts = Facts { client_id, client_mode, platform, ..Facts::default() };
            assert_eq!(Live { facts, ..live(1) }.is_mac_app(), expected, "{shown}");
        }
    }

    fn live(member: u64) -> Live {
        Live {
            member,
            outbox: Arc::new(Outbox::new(1 << 16, Arc::new(Tally::new()))),
            facts: Facts::default(),
            platform: Platform::Linux,
            declared: Surface::default(),
            effective: Surface::default(),
            path_env: None,
            connected_at_ms: 5,
            activity: None,
            host_stats: None,
            published: Published::default(),
        }
    }

    #[test]
    fn a_second_connection_takes_the_place_of_the_first() {
        let mut present = Present::default();
        assert!(present.arrive("n", live(1)).is_none());
        let first = present.arrive("n", live(2)).unwrap();
        assert!(first.outbox.ending().is_some());
        assert!(!present.leave("n", 1, 9), "the end of the first does not remove the second");
        assert!(present.find("n").is_some());
        assert!(present.leave("n", 2, 9));
        assert!(present.find("n").is_none());
    }
}
