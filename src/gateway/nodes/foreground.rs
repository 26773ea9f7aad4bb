//! Commands that wait for a node's foreground.
//!
//! Held in memory, bounded for each node and in all, and old after ten minutes: whoever asked for
//! one heard that it is not done yet. Pure.

use std::collections::BTreeMap;

use super::invocations::Key;
use crate::{gateway::repeats::digest, protocol::PendingAction};

/// How long a command waits for the foreground, milliseconds.
const ACTION_MS: u64 = 600_000;
/// How many commands wait for one node.
const MAX_ACTIONS: usize = 64;
/// The longest parameters of a command that waits, bytes.
const MAX_PARAMS: usize = 64 * 1024;
/// How many commands of one node are known by their keys.
const MAX_KEYS: usize = 256;
/// How many nodes have something that waits.
const MAX_NODES: usize = 1_024;

/// What waits, by node.
#[derive(Debug, Default)]
pub(super) struct Foreground {
    nodes: BTreeMap<String, OfNode>,
}

#[derive(Debug, Default)]
struct OfNode {
    actions: Vec<PendingAction>,
    /// The commands of the last while, done or not, by who asked for them.
    keys: Vec<Known>,
}

/// A command that was to wait, as long as it might have.
#[derive(Debug)]
struct Known {
    key: Key,
    id: String,
    /// A digest of the command and its parameters.
    asked: [u8; 32],
    since_ms: u64,
}

/// What a key was used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum Postponed {
    /// The same command, which is to wait under this id.
    Same(String),
    /// Another command, or the same with other parameters.
    Other,
}

impl Known {
    fn is_for(&self, asked: &[u8; 32]) -> Postponed {
        if self.asked == *asked { Postponed::Same(self.id.clone()) } else { Postponed::Other }
    }
}

fn asked(command: &str, params: Option<&str>) -> [u8; 32] {
    let texts: Vec<&str> = std::iter::once(command).chain(params).collect();
    digest(&texts)
}

impl Foreground {
    /// Keeps a command until the node's foreground, or finds what is kept under the same key. `None`
    /// where there is no room.
    pub(super) fn postpone(
        &mut self,
        node: &str,
        action: PendingAction,
        key: Option<Key>,
        now_ms: u64,
    ) -> Option<Postponed> {
        if action.params_json.as_ref().is_some_and(|params| params.len() > MAX_PARAMS) {
            return None;
        }
        let of_node = self.room_for(node, now_ms)?;
        let asked = asked(&action.command, action.params_json.as_deref());
        if let Some(known) = of_node.keys.iter().find(|known| Some(&known.key) == key.as_ref()) {
            return Some(known.is_for(&asked));
        }
        if of_node.actions.len() >= MAX_ACTIONS || of_node.keys.len() >= MAX_KEYS {
            return None;
        }
        let id = action.id.clone();
        if let Some(key) = key {
            of_node.keys.push(Known { key, id: id.clone(), asked, since_ms: now_ms });
        }
        of_node.actions.push(action);
        Some(Postponed::Same(id))
    }

    /// What this key was used for, if it was for a command that was to wait, and not long ago.
    pub(super) fn postponed_before(
        &mut self,
        node: &str,
        (command, params): (&str, Option<&str>),
        key: &Key,
        now_ms: u64,
    ) -> Option<Postponed> {
        self.forget_old(now_ms);
        let known = self.nodes.get(node)?.keys.iter().find(|known| known.key == *key)?;
        // What waits is shorter.
        let is_longer = params.is_some_and(|params| params.len() > MAX_PARAMS);
        Some(if is_longer { Postponed::Other } else { known.is_for(&asked(command, params)) })
    }

    /// The commands that wait for the node's foreground.
    pub(super) fn postponed(&mut self, node: &str, now_ms: u64) -> Vec<PendingAction> {
        self.forget_old(now_ms);
        self.nodes.get(node).map(|of_node| of_node.actions.clone()).unwrap_or_default()
    }

    /// Takes out what the node has done; how many commands are left.
    pub(super) fn done(&mut self, node: &str, ids: &[String], now_ms: u64) -> usize {
        self.forget_old(now_ms);
        let Some(of_node) = self.nodes.get_mut(node) else { return 0 };
        of_node.actions.retain(|action| !ids.contains(&action.id));
        of_node.actions.len()
    }

    /// Nothing waits for a node that is no more.
    pub(super) fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    fn room_for(&mut self, node: &str, now_ms: u64) -> Option<&mut OfNode> {
        self.forget_old(now_ms);
        if !self.nodes.contains_key(node) && self.nodes.len() >= MAX_NODES {
            return None;
        }
        Some(self.nodes.entry(node.to_owned()).or_default())
    }

    fn forget_old(&mut self, now_ms: u64) {
        for of_node in self.nodes.values_mut() {
            of_node.actions.retain(|action| now_ms < action.enqueued_at_ms + ACTION_MS);
            of_node.keys.retain(|known| now_ms < known.since_ms + ACTION_MS);
        }
        self.nodes.retain(|_, of_node| !(of_node.actions.is_empty() && of_node.keys.is_empty()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn action(id: &str) -> PendingAction {
        PendingAction {
            id: id.to_owned(),
            command: "camera.snap".to_owned(),
            params_json: None,
            enqueued_at_ms: 5,
        }
    }

    #[test]
    fn commands_wait_until_they_are_done_or_old() {
        let mut waiting = Foreground::default();
        waiting.postpone("n", action("a"), None, 5).unwrap();
        waiting.postpone("n", action("b"), None, 5).unwrap();
        assert_eq!(waiting.postponed("n", 6).len(), 2);
        assert_eq!(waiting.done("n", &["a".to_owned()], 6), 1);
        assert!(waiting.postponed("other", 6).is_empty());
        assert!(waiting.postponed("n", 5 + ACTION_MS).is_empty());
    }

    #[test]
    fn a_command_under_the_same_key_waits_once_and_is_not_queued_again_when_it_is_done() {
        let mut waiting = Foreground::default();
        let key = |caller: &str| Key { caller: caller.to_owned(), key: "k".to_owned() };
        let same = |id: &str| Some(Postponed::Same(id.to_owned()));
        assert_eq!(waiting.postpone("n", action("a"), Some(key("me")), 5), same("a"));
        assert_eq!(waiting.postpone("n", action("b"), Some(key("me")), 6), same("a"));
        let back = PendingAction { params_json: Some("back".to_owned()), ..action("b") };
        assert_eq!(waiting.postpone("n", back, Some(key("me")), 6), Some(Postponed::Other));
        assert_eq!(waiting.postpone("n", action("c"), Some(key("you")), 6), same("c"));
        assert_eq!(waiting.done("n", &["a".to_owned(), "c".to_owned()], 7), 0);
        let mut before = |asked, now| waiting.postponed_before("n", asked, &key("me"), now);
        assert_eq!(before(("camera.snap", None), 8), same("a"));
        assert_eq!(before(("screen.record", None), 8), Some(Postponed::Other));
        assert_eq!(before(("camera.snap", Some("back")), 8), Some(Postponed::Other));
        assert_eq!(before(("camera.snap", None), 5 + ACTION_MS), None);
        for number in 0..MAX_KEYS {
            let key = Key { caller: number.to_string(), key: "k".to_owned() };
            waiting.postpone("m", action("a"), Some(key), 5).unwrap();
            waiting.done("m", &["a".to_owned()], 5);
        }
        assert!(waiting.postpone("m", action("more"), Some(key("me")), 5).is_none());
    }

    #[test]
    fn what_waits_is_bounded() {
        let mut waiting = Foreground::default();
        for number in 0..MAX_ACTIONS {
            waiting.postpone("n", action(&number.to_string()), None, 5).unwrap();
        }
        assert!(waiting.postpone("n", action("more"), None, 5).is_none());
        let params_json = Some("x".repeat(MAX_PARAMS + 1));
        let long = PendingAction { params_json, ..action("long") };
        assert!(waiting.postpone("other", long, None, 5).is_none());
        for number in 1..MAX_NODES {
            let node = number.to_string();
            waiting.postpone(&node, action("a"), None, 5).unwrap();
        }
        assert!(waiting.postpone("more", action("a"), None, 5).is_none());
        waiting.forget("n");
        assert!(waiting.postpone("more", action("a"), None, 5).is_some());
    }
}
