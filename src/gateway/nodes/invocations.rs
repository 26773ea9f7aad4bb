//! Commands under way on nodes: who waits for which, until when, and what a late word is worth.
//!
//! A machine without a clock, a socket or a lock: `W` is whoever waits for an outcome.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

/// How many commands may be under way on one node.
const MAX_PER_NODE: usize = 32;
/// How many may be under way in all.
const MAX_IN_ALL: usize = 512;
/// How many callers may wait for one command with the same idempotency key.
const MAX_WAITERS: usize = 16;
/// How long the outcome of a command answers a repeated key.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How many outcomes are remembered.
const MAX_REMEMBERED: usize = 256;
/// The longest outcome that is remembered, bytes; a longer one is told once.
const MAX_REMEMBERED_BYTES: usize = 64 * 1024;

/// A caller's idempotency key: keys of different callers never meet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// The device, or the connection of a caller without one.
    pub(super) caller: String,
    /// What the caller chose.
    pub(super) key: String,
}

/// A command for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Order {
    /// The invocation's id on the wire; unique.
    pub(super) id: String,
    /// The node's device.
    pub(super) node: String,
    /// The connection that the command goes out on.
    pub(super) connection: u64,
    /// `system.which`, …
    pub(super) command: String,
    /// Until when it must have come back.
    pub(super) deadline: Instant,
    /// Who repeats it gets the first outcome.
    pub(super) key: Option<Key>,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::gateway) enum Outcome {
    /// The node did it.
    Done {
        /// The value, as its JSON text: parsed it takes many times that.
        payload: Option<String>,
        /// The text that stands for it, the way most nodes answer.
        payload_json: Option<String>,
    },
    /// The node could not, or nobody heard from it.
    Failed {
        /// `TIMEOUT`, `ABORTED`, `DISCONNECTED`, or the node's own.
        code: Option<String>,
        /// For people.
        message: Option<String>,
    },
}

/// What became of a new order.
#[derive(Debug, PartialEq)]
pub(super) enum Begun<W> {
    /// Send it; the waiter is kept.
    Started,
    /// The same is under way; the waiter is kept.
    Joined,
    /// The same has ended so; nothing is sent.
    Known(W, Outcome),
    /// The key was used for something else.
    Taken(W),
    /// Too much is under way.
    Full(W),
}

/// Everybody who is told how a command ended.
pub(super) type Told<W> = Vec<(W, Outcome)>;

/// What ended before its node had answered.
#[derive(Debug, PartialEq)]
pub(super) struct Over<W> {
    /// Everybody who is told.
    pub(super) told: Told<W>,
    /// What the nodes may still be doing, and are to stop.
    pub(super) stopped: Vec<Order>,
}

/// All commands under way.
#[derive(Debug)]
pub(super) struct Invocations<W> {
    running: HashMap<String, Running<W>>,
    keys: HashMap<Key, String>,
    remembered: VecDeque<Remembered>,
    has_stopped: bool,
}

#[derive(Debug)]
struct Running<W> {
    order: Order,
    waiters: Vec<W>,
    /// The number that the next piece of progress must carry at least.
    next: u64,
}

#[derive(Debug)]
struct Remembered {
    key: Key,
    node: String,
    command: String,
    outcome: Outcome,
    until: Instant,
}

impl<W> Default for Invocations<W> {
    fn default() -> Self {
        Self {
            running: HashMap::new(),
            keys: HashMap::new(),
            remembered: VecDeque::new(),
            has_stopped: false,
        }
    }
}

impl<W> Invocations<W> {
    /// Takes up an order, or says why nothing is to be sent.
    pub(super) fn begin(&mut self, order: Order, waiter: W, now: Instant) -> Begun<W> {
        self.remembered.retain(|known| known.until > now);
        if self.has_stopped {
            return Begun::Known(waiter, stopped());
        }
        if let Some(key) = &order.key {
            if let Some(known) = self.remembered.iter().find(|known| known.key == *key) {
                return if known.node == order.node && known.command == order.command {
                    Begun::Known(waiter, known.outcome.clone())
                } else {
                    Begun::Taken(waiter)
                };
            }
            let running = self.keys.get(key).and_then(|id| self.running.get_mut(id));
            if let Some(running) = running {
                if running.order.node != order.node || running.order.command != order.command {
                    return Begun::Taken(waiter);
                }
                if running.waiters.len() >= MAX_WAITERS {
                    return Begun::Full(waiter);
                }
                running.waiters.push(waiter);
                return Begun::Joined;
            }
        }
        let of_node = self.running.values().filter(|it| it.order.node == order.node).count();
        if of_node >= MAX_PER_NODE || self.running.len() >= MAX_IN_ALL {
            return Begun::Full(waiter);
        }
        if let Some(key) = order.key.clone() {
            self.keys.insert(key, order.id.clone());
        }
        self.running.insert(order.id.clone(), Running { order, waiters: vec![waiter], next: 0 });
        Begun::Started
    }

    /// Hears of progress; false if it is late, out of order, or not this connection's.
    pub(super) fn progress(&mut self, id: &str, node: &str, connection: u64, number: u64) -> bool {
        let Some(running) = self.mine(id, node, connection) else { return false };
        if number < running.next {
            return false;
        }
        running.next = number.saturating_add(1);
        true
    }

    /// Hears how a command ended; `None` if it is late or not this connection's. Only who has said
    /// nothing of it yet is believed that it was not ready for it.
    pub(super) fn result(
        &mut self,
        id: &str,
        node: &str,
        connection: u64,
        outcome: &Outcome,
        now: Instant,
    ) -> Option<Told<W>> {
        let running = self.mine(id, node, connection)?;
        if outcome.is_not_ready() && running.next > 0 {
            return Some(self.end(id, &begun_after_all(), now).1);
        }
        Some(self.end(id, outcome, now).1)
    }

    /// Whether a command is still waited for.
    pub(super) fn is_running(&self, id: &str) -> bool {
        self.running.contains_key(id)
    }

    /// Ends what should have come back by `now`.
    pub(super) fn due(&mut self, now: Instant) -> Over<W> {
        self.end_where(|running| running.order.deadline <= now, &Outcome::timed_out(), now)
    }

    /// Ends what nobody waits for any longer. What cannot be stopped runs to its result, which whoever
    /// repeats its key is told.
    pub(super) fn unwanted(
        &mut self,
        has_gone: impl Fn(&W) -> bool,
        can_be_stopped: impl Fn(&Order) -> bool,
        now: Instant,
    ) -> Over<W> {
        let is_over = |running: &Running<W>| {
            running.waiters.iter().all(&has_gone)
                && (running.order.key.is_none() || can_be_stopped(&running.order))
        };
        self.end_where(is_over, &Outcome::aborted(), now)
    }

    /// Ends what may not run any longer.
    pub(super) fn forbid(&mut self, is_allowed: impl Fn(&Order) -> bool, now: Instant) -> Over<W> {
        let outcome = failed("POLICY_CHANGED", "node command is no longer allowed");
        self.end_where(|running| !is_allowed(&running.order), &outcome, now)
    }

    /// A node's connection is gone: what was sent on it will not come back.
    pub(super) fn gone(&mut self, connection: u64, now: Instant) -> Told<W> {
        let outcome = failed("DISCONNECTED", "the node disconnected before it answered");
        self.end_where(|running| running.order.connection == connection, &outcome, now).told
    }

    /// The gateway stops: everything ends, and nothing begins any more.
    pub(super) fn stop(&mut self, now: Instant) -> Over<W> {
        self.has_stopped = true;
        self.end_where(|_| true, &stopped(), now)
    }

    /// Takes back an order that was not sent after all; nobody hears of it.
    pub(super) fn abandon(&mut self, id: &str) {
        if let Some(Running { order: Order { key: Some(key), .. }, .. }) = self.running.remove(id) {
            self.keys.remove(&key);
        }
    }

    /// How many are under way.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.running.len()
    }

    fn mine(&mut self, id: &str, node: &str, connection: u64) -> Option<&mut Running<W>> {
        let running = self.running.get_mut(id)?;
        let is_mine = running.order.node == node && running.order.connection == connection;
        is_mine.then_some(running)
    }

    fn end_where(
        &mut self,
        has_ended: impl Fn(&Running<W>) -> bool,
        outcome: &Outcome,
        now: Instant,
    ) -> Over<W> {
        let ended = self.running.values().filter(|running| has_ended(running));
        let ids: Vec<String> = ended.map(|running| running.order.id.clone()).collect();
        let mut over = Over { told: Vec::new(), stopped: Vec::new() };
        for id in ids {
            let (order, told) = self.end(&id, outcome, now);
            over.stopped.extend(order);
            over.told.extend(told);
        }
        over
    }

    fn end(&mut self, id: &str, outcome: &Outcome, now: Instant) -> (Option<Order>, Told<W>) {
        let Some(Running { order, waiters, .. }) = self.running.remove(id) else {
            return (None, Vec::new());
        };
        if let Some(key) = &order.key {
            self.keys.remove(key);
            if !outcome.is_not_ready() {
                self.remember(key.clone(), &order, outcome, now);
            }
        }
        (Some(order), waiters.into_iter().map(|waiter| (waiter, outcome.clone())).collect())
    }

    fn remember(&mut self, key: Key, order: &Order, outcome: &Outcome, now: Instant) {
        // Whatever is remembered: a repetition must not have it done a second time.
        let is_short = outcome.size() <= MAX_REMEMBERED_BYTES;
        let outcome = if is_short { outcome.clone() } else { too_long() };
        if self.remembered.len() >= MAX_REMEMBERED {
            self.remembered.pop_front();
        }
        let until = now + REMEMBERED;
        let (node, command) = (order.node.clone(), order.command.clone());
        self.remembered.push_back(Remembered { key, node, command, outcome, until });
    }
}

impl Outcome {
    /// Nothing came back in time.
    pub(super) fn timed_out() -> Self {
        failed("TIMEOUT", "node invoke timed out")
    }

    /// Whoever wanted it has gone.
    pub(super) fn aborted() -> Self {
        failed("ABORTED", "node invoke cancelled")
    }

    /// Whether the node has not begun, and may be asked again.
    pub(in crate::gateway) fn is_not_ready(&self) -> bool {
        matches!(self, Self::Failed { code: Some(code), .. } if code == "NODE_NOT_READY")
    }

    fn size(&self) -> usize {
        match self {
            Self::Done { payload: one, payload_json: other }
            | Self::Failed { code: one, message: other } => {
                [one, other].into_iter().flatten().map(String::len).sum()
            }
        }
    }
}

fn failed(code: &str, message: &str) -> Outcome {
    Outcome::Failed { code: Some(code.to_owned()), message: Some(message.to_owned()) }
}

fn too_long() -> Outcome {
    failed("ANSWER_TOO_LONG", "this was done before, and its answer was too long to be kept")
}

fn begun_after_all() -> Outcome {
    failed("UNAVAILABLE", "the node said that it was not ready, after it had begun")
}

fn stopped() -> Outcome {
    failed("GATEWAY_STOPPING", "the gateway stops")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A_WHILE: Duration = Duration::from_secs(15);

    fn order(id: &str, now: Instant) -> Order {
        Order {
            id: id.to_owned(),
            node: "node".to_owned(),
            connection: 1,
            command: "system.which".to_owned(),
            deadline: now + A_WHILE,
            key: None,
        }
    }

    fn keyed(id: &str, now: Instant) -> Order {
        let key = Key { caller: "me".to_owned(), key: "k".to_owned() };
        Order { key: Some(key), ..order(id, now) }
    }

    fn done(text: &str) -> Outcome {
        Outcome::Done { payload: None, payload_json: Some(text.to_owned()) }
    }

    #[test]
    fn an_outcome_goes_to_the_one_who_waits_and_a_second_one_to_nobody() {
        let now = Instant::now();
        let mut invocations = Invocations::default();
        assert_eq!(invocations.begin(order("1", now), 'a', now), Begun::Started);
        assert_eq!(invocations.begin(order("2", now), 'b', now), Begun::Started);
        let told = invocations.result("1", "node", 1, &done("x"), now);
        assert_eq!(told, Some(vec![('a', done("x"))]));
        assert_eq!(invocations.result("1", "node", 1, &done("y"), now), None);
        assert_eq!(invocations.len(), 1);
    }

    #[test]
    fn nobody_answers_for_another_node_or_an_older_connection() {
        let now = Instant::now();
        let mut invocations = Invocations::default();
        assert_eq!(invocations.begin(order("1", now), 'a', now), Begun::Started);
        assert_eq!(invocations.result("1", "other", 1, &done("x"), now), None);
        assert_eq!(invocations.result("1", "node", 2, &done("x"), now), None);
        assert!(!invocations.progress("1", "node", 2, 0));
        assert!(invocations.progress("1", "node", 1, 0));
    }

    #[test]
    fn progress_counts_upwards_and_ends_with_the_command() {
        let now = Instant::now();
        let mut invocations = Invocations::default();
        assert_eq!(invocations.begin(order("1", now), 'a', now), Begun::Started);
        let heard = [0, 1, 1, 5, 4].map(|number| invocations.progress("1", "node", 1, number));
        assert_eq!(heard, [true, true, false, true, false]);
        assert!(invocations.result("1", "node", 1, &done("x"), now).is_some());
        assert!(!invocations.progress("1", "node", 1, 6));
    }

    #[test]
    fn a_command_ends_at_its_deadline_and_not_before() {
        let now = Instant::now();
        let mut invocations = Invocations::default();
        assert_eq!(invocations.begin(order("1", now), 'a', now), Begun::Started);
        let early = invocations.due(now + A_WHILE - Duration::from_millis(1));
        assert_eq!(early, Over { told: vec![], stopped: vec![] });
        let over = invocations.due(now + A_WHILE);
        assert_eq!(over.told, [('a', Outcome::timed_out())]);
        assert_eq!(over.stopped, [order("1", now)], "its node is to stop it");
        assert_eq!(invocations.result("1", "node", 1, &done("late"), now), None);
    }

    #[test]
    fn a_repeated_key_runs_once_and_gets_the_first_outcome() {
        let now = Instant::now();
        let mut invocations = Invocations::default();
        assert_eq!(invocations.begin(keyed("1", now), 'a', now), Begun::Started);
        assert_eq!(invocations.begin(keyed("2", now), 'b', now), Begun::Joined);
        let told = invocations.result("1", "node", 1, &done("x"), now);
        assert_eq!(told, Some(vec![('a', done("x")), ('b', done("x"))]));
        assert_eq!(invocations.begin(keyed("3", now), 'c', now), Begun::Known('c', done("x")));
        let other = Order { command: "system.run".to_owned(), ..keyed("4", now) };
        assert_eq!(invocations.begin(other, 'd', now), Begun::Taken('d'));
        let later = now + REMEMBERED;
        assert_eq!(invocations.begin(keyed("5", later), 'e', later), Begun::Started);
    }

    #[test]
    fn what_the_last_one_gave_up_is_stopped_and_not_done_again_under_its_key() {
        let now = Instant::now();
        let mut invocations = Invocations::default();
        assert_eq!(invocations.begin(keyed("1", now), 'a', now), Begun::Started);
        assert_eq!(invocations.begin(keyed("2", now), 'b', now), Begun::Joined);
        assert_eq!(invocations.begin(order("3", now), 'c', now), Begun::Started);
        let over = invocations.unwanted(|waiter| *waiter == 'a', |_| true, now);
        assert_eq!(over, Over { told: vec![], stopped: vec![] }, "another one waits for the same");
        let over = invocations.unwanted(|waiter| *waiter != 'c', |_| false, now);
        assert_eq!(over, Over { told: vec![], stopped: vec![] }, "it is done all the same");
        let over = invocations.unwanted(|waiter| *waiter != 'c', |_| true, now);
        assert_eq!(over.stopped, [keyed("1", now)]);
        assert_eq!(over.told, [('a', Outcome::aborted()), ('b', Outcome::aborted())]);
        assert!(!invocations.is_running("1") && invocations.is_running("3"));
        let again = invocations.begin(keyed("4", now), 'd', now);
        assert_eq!(again, Begun::Known('d', Outcome::aborted()));
    }

    #[test]
    fn what_may_not_run_any_longer_is_stopped() {
        let now = Instant::now();
        let mut invocations = Invocations::default();
        assert_eq!(invocations.begin(order("1", now), 'a', now), Begun::Started);
        assert!(invocations.forbid(|_| true, now).stopped.is_empty());
        let over = invocations.forbid(|order| order.command != "system.which", now);
        assert_eq!(over.stopped, [order("1", now)]);
        let [('a', Outcome::Failed { code, .. })] = over.told.as_slice() else {
            panic!("{over:?}")
        };
        assert_eq!(code.as_deref(), Some("POLICY_CHANGED"));
    }

    #[test]
    fn a_node_that_is_not_ready_may_be_asked_again_unless_it_had_begun() {
        let now = Instant::now();
        let mut invocations = Invocations::default();
        let not_ready = failed("NODE_NOT_READY", "later");
        assert_eq!(invocations.begin(keyed("1", now), 'a', now), Begun::Started);
        let told = invocations.result("1", "node", 1, &not_ready, now);
        assert_eq!(told, Some(vec![('a', not_ready.clone())]));
        assert_eq!(invocations.begin(keyed("2", now), 'a', now), Begun::Started, "the key is free");
        assert!(invocations.progress("2", "node", 1, 0));
        let told = invocations.result("2", "node", 1, &not_ready, now);
        assert_eq!(told, Some(vec![('a', begun_after_all())]));
        let again = invocations.begin(keyed("3", now), 'a', now);
        assert_eq!(again, Begun::Known('a', begun_after_all()));
    }

    #[test]
    fn an_order_that_was_not_sent_leaves_its_key_free() {
        let now = Instant::now();
        let mut invocations = Invocations::default();
        assert_eq!(invocations.begin(keyed("1", now), 'a', now), Begun::Started);
        invocations.abandon("1");
        assert_eq!(invocations.begin(keyed("2", now), 'b', now), Begun::Started);
        assert_eq!(invocations.len(), 1);
    }

    #[test]
    fn keys_of_different_callers_do_not_meet() {
        let now = Instant::now();
        let mut invocations = Invocations::default();
        assert_eq!(invocations.begin(keyed("1", now), 'a', now), Begun::Started);
        let key = Key { caller: "you".to_owned(), key: "k".to_owned() };
        let other = Order { key: Some(key), ..order("2", now) };
        assert_eq!(invocations.begin(other, 'b', now), Begun::Started);
    }

    #[test]
    fn a_node_that_goes_and_a_gateway_that_stops_end_what_is_under_way() {
        let now = Instant::now();
        let mut invocations = Invocations::default();
        assert_eq!(invocations.begin(order("1", now), 'a', now), Begun::Started);
        let other = Order { connection: 2, node: "other".to_owned(), ..order("2", now) };
        assert_eq!(invocations.begin(other.clone(), 'b', now), Begun::Started);
        let told = invocations.gone(1, now);
        assert!(matches!(told.as_slice(), [('a', Outcome::Failed { .. })]));
        let over = invocations.stop(now);
        assert_eq!((over.told, over.stopped), (vec![('b', stopped())], vec![other]));
        assert_eq!(invocations.begin(order("3", now), 'c', now), Begun::Known('c', stopped()));
    }

    #[test]
    fn what_is_under_way_is_bounded_per_node_and_in_all() {
        let now = Instant::now();
        let mut invocations = Invocations::default();
        for number in 0..MAX_PER_NODE {
            assert_eq!(invocations.begin(order(&number.to_string(), now), 0, now), Begun::Started);
        }
        assert_eq!(invocations.begin(order("more", now), 1, now), Begun::Full(1));
        let elsewhere = |number: usize| Order {
            node: format!("node {}", number / MAX_PER_NODE),
            ..order(&format!("x{number}"), now)
        };
        for number in MAX_PER_NODE..MAX_IN_ALL {
            assert_eq!(invocations.begin(elsewhere(number), 0, now), Begun::Started);
        }
        assert_eq!(invocations.begin(elsewhere(MAX_IN_ALL), 1, now), Begun::Full(1));
    }

    #[test]
    fn the_waiters_of_one_key_and_the_memory_are_bounded() {
        let now = Instant::now();
        let mut invocations = Invocations::default();
        assert_eq!(invocations.begin(keyed("1", now), 0, now), Begun::Started);
        for _ in 1..MAX_WAITERS {
            assert_eq!(invocations.begin(keyed("1", now), 0, now), Begun::Joined);
        }
        assert_eq!(invocations.begin(keyed("1", now), 1, now), Begun::Full(1));
        let long = done(&"x".repeat(MAX_REMEMBERED_BYTES + 1));
        assert!(invocations.result("1", "node", 1, &long, now).is_some());
        let again = invocations.begin(keyed("2", now), 0, now);
        assert_eq!(again, Begun::Known(0, too_long()), "not done a second time");
        assert_eq!(too_long().size(), 15 + 60, "both parts count");
    }
}
