//! Work that is left for nodes, which may be away: what there is of it, and what each was given.
//!
//! A node that was given something has it once the answer has arrived for certain; only then is it
//! gone. So an answer that was lost loses no work. Pure; what is kept of it is in the store.

use std::collections::BTreeMap;

use crate::{
    protocol::{Priority, Work, WorkKind},
    store::Left,
};

/// How long a piece of work is worth doing if nobody said, milliseconds.
const WORK_MS: u64 = 86_400_000;
/// How many nodes have something left for them.
const MAX_NODES: usize = 1_024;
/// How many pieces of work a node is given at a time if it does not say, and at most.
const DRAIN: (usize, usize) = (4, 10);
/// The work that is always there.
const BASELINE: &str = "baseline-status";

/// The work of every node.
#[derive(Debug, Default)]
pub(super) struct LeftWork {
    nodes: BTreeMap<String, OfNode>,
}

#[derive(Debug, Default)]
struct OfNode {
    revision: u64,
    pieces: Vec<Piece>,
}

/// One piece of work, at most one of each kind.
#[derive(Debug)]
struct Piece {
    work: Work,
    /// Where the node was given it.
    given: Option<Given>,
}

/// In which answer a node was given something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    /// The connection, by its number among all.
    pub(super) connection: u64,
    /// The answer, by its number among those of the connection whose arrival matters.
    pub(super) answer: u64,
}

/// What becomes of a piece of work that somebody leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leaving {
    /// The like waits already, at this revision.
    Known(u64, Work),
    /// It is to be stored, in place of the one of this id.
    New(Left, Option<String>),
    /// There is no room.
    Full,
}

impl LeftWork {
    /// What was kept.
    pub(super) fn open(kept: Vec<Left>) -> Self {
        let mut work = Self::default();
        for left in kept {
            work.keep(left);
        }
        work
    }

    /// A new piece of work.
    pub(super) fn work(
        id: String,
        kind: WorkKind,
        priority: Priority,
        lasts_ms: Option<u64>,
        now_ms: u64,
    ) -> Work {
        let until = now_ms.saturating_add(lasts_ms.unwrap_or(WORK_MS));
        Work { id, kind, priority, created_at_ms: now_ms, expires_at_ms: Some(until) }
    }

    /// What becomes of a piece of work. One of each kind is enough; one that the node was given
    /// already may be done by now, and the new one takes its place.
    pub(super) fn leave(&mut self, node: &str, work: Work, now_ms: u64) -> Leaving {
        self.forget_old(now_ms);
        let of_node = self.nodes.get(node);
        if of_node.is_none() && self.nodes.len() >= MAX_NODES {
            return Leaving::Full;
        }
        let like = of_node.and_then(|of| of.pieces.iter().find(|it| it.work.kind == work.kind));
        let revision = of_node.map_or(0, |of_node| of_node.revision);
        match like {
            Some(Piece { work, given: None }) => Leaving::Known(revision, work.clone()),
            given => {
                let before = given.map(|given| given.work.id.clone());
                let node = node.to_owned();
                Leaving::New(Left { node, revision: revision + 1, work }, before)
            }
        }
    }

    /// Takes up a piece of work that is stored; the only one of its kind.
    pub(super) fn keep(&mut self, left: Left) {
        let of_node = self.nodes.entry(left.node).or_default();
        of_node.revision = of_node.revision.max(left.revision);
        of_node.pieces.retain(|piece| piece.work.kind != left.work.kind);
        of_node.pieces.push(Piece { work: left.work, given: None });
    }

    /// Gives a node the most urgent work, with its revision and whether there is more; nothing twice
    /// on one connection.
    pub(super) fn give(
        &mut self,
        node: &str,
        given: Given,
        most: Option<usize>,
        now_ms: u64,
    ) -> (u64, Vec<Work>, bool) {
        self.forget_old(now_ms);
        let of_node = self.nodes.get_mut(node);
        let revision = of_node.as_ref().map_or(0, |of_node| of_node.revision);
        let mut pieces: Vec<&mut Piece> =
            of_node.into_iter().flat_map(|of_node| &mut of_node.pieces).collect();
        pieces.retain(|piece| piece.given.map(|it| it.connection) != Some(given.connection));
        pieces.sort_by_key(|it| (std::cmp::Reverse(it.work.priority), it.work.created_at_ms));
        let most = most.unwrap_or(DRAIN.0).clamp(1, DRAIN.1);
        let has_status = pieces.iter().any(|piece| piece.work.kind == WorkKind::Status);
        let has_more = pieces.len() + usize::from(!has_status) > most;
        pieces.truncate(most);
        let mut work: Vec<Work> = Vec::with_capacity(pieces.len() + 1);
        for piece in pieces {
            piece.given = Some(given);
            work.push(piece.work.clone());
        }
        if !has_status && work.len() < most {
            work.push(baseline(now_ms));
        }
        (revision, work, has_more)
    }

    /// What a node has for certain that has all of a connection's answers up to this one.
    pub(super) fn taken_up(&self, node: &str, last: Given) -> Vec<String> {
        let pieces = self.nodes.get(node).into_iter().flat_map(|of_node| &of_node.pieces);
        let has = |it: Given| it.connection == last.connection && it.answer <= last.answer;
        let taken_up = pieces.filter(|piece| piece.given.is_some_and(has));
        taken_up.map(|piece| piece.work.id.clone()).collect()
    }

    /// Takes out what a node has taken up.
    pub(super) fn take_out(&mut self, node: &str, ids: &[String]) {
        let Some(of_node) = self.nodes.get_mut(node) else { return };
        of_node.pieces.retain(|piece| !ids.contains(&piece.work.id));
        of_node.revision += 1;
        if of_node.pieces.is_empty() {
            self.nodes.remove(node);
        }
    }

    /// Nothing is left for a node that is no more.
    pub(super) fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    fn forget_old(&mut self, now_ms: u64) {
        self.nodes.retain(|_, of_node| {
            let before = of_node.pieces.len();
            let is_young = |work: &Work| work.expires_at_ms.is_none_or(|until| now_ms < until);
            of_node.pieces.retain(|piece| is_young(&piece.work));
            of_node.revision += u64::from(of_node.pieces.len() != before);
            !of_node.pieces.is_empty()
        });
    }
}

/// Whether somebody left it: that has its time, and what is always there has none.
pub(super) fn is_left(work: &Work) -> bool {
    work.expires_at_ms.is_some()
}

/// What every node may tell at any time.
fn baseline(now_ms: u64) -> Work {
    Work {
        id: BASELINE.to_owned(),
        kind: WorkKind::Status,
        priority: Priority::Default,
        created_at_ms: now_ms,
        expires_at_ms: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(id: &str, kind: WorkKind, priority: Priority) -> Work {
        LeftWork::work(id.to_owned(), kind, priority, Some(1_000), 5)
    }

    /// Leaves it as somebody does whose work is stored at once.
    fn leave(left: &mut LeftWork, node: &str, work: Work) -> Leaving {
        let leaving = left.leave(node, work, 5);
        if let Leaving::New(new, _) = &leaving {
            left.keep(new.clone());
        }
        leaving
    }

    /// The first answer on this connection.
    fn given(connection: u64) -> Given {
        Given { connection, answer: 1 }
    }

    fn ids(work: &[Work]) -> Vec<&str> {
        work.iter().map(|work| work.id.as_str()).collect()
    }

    #[test]
    fn work_comes_by_urgency_and_a_status_is_always_wanted() {
        let mut left = LeftWork::default();
        let (revision, items, has_more) = left.give("n", given(1), None, 5);
        assert_eq!((revision, ids(&items), has_more), (0, vec![BASELINE], false));
        leave(&mut left, "n", work("s", WorkKind::Status, Priority::Normal));
        leave(&mut left, "n", work("l", WorkKind::Location, Priority::High));
        let again = leave(&mut left, "n", work("t", WorkKind::Status, Priority::High));
        assert_eq!(again, Leaving::Known(2, work("s", WorkKind::Status, Priority::Normal)));
        let (_, items, has_more) = left.give("n", given(1), Some(1), 6);
        assert_eq!((ids(&items), has_more), (vec!["l"], true));
        let (_, items, has_more) = left.give("n", given(2), None, 6);
        assert_eq!((ids(&items), has_more), (vec!["l", "s"], false));
        let (_, items, has_more) = left.give("n", given(3), Some(1), 1_005);
        assert_eq!((ids(&items), has_more), (vec![BASELINE], false), "the old work is gone");
    }

    #[test]
    fn a_node_has_what_came_in_answers_that_arrived_and_another_connection_asks_anew() {
        let mut left = LeftWork::default();
        leave(&mut left, "n", work("l", WorkKind::Location, Priority::Normal));
        assert_eq!(ids(&left.give("n", given(1), None, 5).1), ["l", BASELINE]);
        assert_eq!(ids(&left.give("n", given(1), None, 5).1), [BASELINE], "nothing comes twice");
        // That connection broke, and whether the answer arrived is not known.
        assert!(left.taken_up("n", given(2)).is_empty());
        assert_eq!(ids(&left.give("n", given(2), None, 5).1), ["l", BASELINE]);
        assert!(left.taken_up("n", Given { answer: 0, ..given(2) }).is_empty());
        let has = left.taken_up("n", Given { answer: 2, ..given(2) });
        assert_eq!(has, ["l"]);
        left.take_out("n", &has);
        assert_eq!(ids(&left.give("n", given(3), None, 5).1), [BASELINE]);
    }

    #[test]
    fn what_is_left_while_the_like_may_be_done_already_takes_its_place() {
        let mut left = LeftWork::default();
        leave(&mut left, "n", work("l", WorkKind::Location, Priority::Normal));
        left.give("n", given(1), None, 5);
        let new = leave(&mut left, "n", work("m", WorkKind::Location, Priority::Normal));
        assert!(matches!(&new, Leaving::New(new, Some(old)) if new.revision == 2 && old == "l"));
        assert!(left.taken_up("n", given(1)).is_empty());
        assert_eq!(ids(&left.give("n", given(1), None, 5).1), ["m", BASELINE]);
    }

    #[test]
    fn what_was_kept_is_there_again_and_nodes_are_bounded() {
        let kept = |node: u64| Left {
            node: node.to_string(),
            revision: node + 1,
            work: work("s", WorkKind::Status, Priority::Normal),
        };
        let mut left = LeftWork::open((0..MAX_NODES as u64).map(kept).collect());
        let (revision, items, _) = left.give("1", given(1), None, 5);
        assert_eq!((revision, ids(&items)), (2, vec!["s"]));
        let more = || work("s", WorkKind::Status, Priority::Normal);
        assert_eq!(left.leave("more", more(), 5), Leaving::Full);
        left.forget("1");
        assert!(matches!(left.leave("more", more(), 5), Leaving::New(_, None)));
        assert!(matches!(left.leave("2", more(), 1_005), Leaving::New(_, None)), "all are old");
    }
}
