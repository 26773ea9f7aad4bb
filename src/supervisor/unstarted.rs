//! Saved remotes that are being started or could not be, and when one that time may help is tried
//! again.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use crate::{
    problem::{Class, Problem},
    tunnel::Phase,
};

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait.
const LONGEST: Duration = Duration::from_secs(30);

/// Why each of them is not at work. Pure: the clock is an argument.
#[derive(Debug, Default)]
pub(super) struct Unstarted {
    failed: HashMap<String, Entry>,
    /// Those whose first start is under way.
    starting: HashSet<String>,
}

/// What keeps something from its place, and when it is tried again.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) problem: Problem,
    wait: Duration,
    pub(super) next: Instant,
}

impl Unstarted {
    /// The start of `name` begins.
    pub(super) fn begin(&mut self, name: &str) {
        self.starting.insert(name.to_owned());
    }

    /// Whether a start is under way, or will be.
    pub(super) fn is_hopeful(&self) -> bool {
        !self.starting.is_empty() || self.next().is_some()
    }

    /// What is shown of `name`.
    pub(super) fn phase(&self, name: &str) -> Phase {
        match self.failed.get(name) {
            Some(entry) if entry.may_pass() => Phase::Waiting,
            Some(_) => Phase::Blocked,
            None if self.starting.contains(name) => Phase::Connecting,
            None => Phase::Down,
        }
    }

    /// Notes why `name` was not started; `true` if that is news.
    pub(super) fn note(&mut self, name: &str, problem: Problem, now: Instant) -> bool {
        self.starting.remove(name);
        let before = self.failed.remove(name);
        let (entry, is_news) = Entry::after(before, problem, now);
        self.failed.insert(name.to_owned(), entry);
        is_news
    }

    /// This is not the moment to try `name` again.
    pub(super) fn put_off(&mut self, name: &str, now: Instant) {
        if let Some(entry) = self.failed.get_mut(name) {
            entry.next = now + entry.wait;
        }
    }

    /// The network has changed: what could not be reached is tried again at once.
    pub(super) fn hasten(&mut self, now: Instant) {
        for entry in self.failed.values_mut() {
            if entry.problem.class == Class::Unreachable {
                (entry.wait, entry.next) = (FIRST, now);
            }
        }
    }

    /// It has been started, or is not wanted any more.
    pub(super) fn forget(&mut self, name: &str) {
        self.starting.remove(name);
        self.failed.remove(name);
    }

    /// It goes by another name.
    pub(super) fn rename(&mut self, name: &str, to: &str) {
        let entry = self.failed.remove(name);
        self.failed.extend(entry.map(|entry| (to.to_owned(), entry)));
    }

    /// All of them.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        let starting = self.starting.iter().filter(|name| !self.failed.contains_key(*name));
        self.failed.keys().chain(starting)
    }

    /// Why `name` is not at work.
    pub(super) fn problem(&self, name: &str) -> Option<&Problem> {
        self.failed.get(name).map(|entry| &entry.problem)
    }

    /// Those whose time has come.
    pub(super) fn due(&self, now: Instant) -> Vec<String> {
        let due = self.waiting().filter(|(_, entry)| entry.next <= now);
        due.map(|(name, _)| name.clone()).collect()
    }

    /// When the next one is due; `None` if none waits.
    pub(super) fn next(&self) -> Option<Instant> {
        self.waiting().map(|(_, entry)| entry.next).min()
    }

    /// Whether time may help `name`.
    pub(super) fn may_pass(&self, name: &str) -> bool {
        self.failed.get(name).is_some_and(Entry::may_pass)
    }

    fn waiting(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.failed.iter().filter(|(_, entry)| entry.may_pass())
    }
}

impl Entry {
    /// The one that follows `before`, after a wait twice as long; with whether its problem is news.
    pub(super) fn after(before: Option<Self>, problem: Problem, now: Instant) -> (Self, bool) {
        let is_news = before.as_ref().is_none_or(|before| before.problem != problem);
        let wait = before.map_or(FIRST, |before| (before.wait * 2).min(LONGEST));
        (Self { problem, wait, next: now + wait }, is_news)
    }

    /// Whether time may help: a port becomes free, and a name server comes back, without anybody
    /// saying so.
    fn may_pass(&self) -> bool {
        matches!(self.problem.class, Class::PortInUse | Class::Unreachable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken() -> Problem {
        Problem::new(Class::PortInUse, "taken by nc (pid 7)")
    }

    #[test]
    fn waits_longer_and_longer_for_a_port_and_not_for_ever() {
        let mut unstarted = Unstarted::default();
        let mut now = Instant::now();
        let mut waits = Vec::new();
        for round in 0..8 {
            assert_eq!(unstarted.note("vps", taken(), now), round == 0);
            let next = unstarted.next().unwrap();
            assert!(unstarted.due(next - Duration::from_millis(1)).is_empty());
            assert_eq!(unstarted.due(next), ["vps"]);
            waits.push((next - now).as_secs());
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        unstarted.forget("vps");
        assert_eq!(unstarted.next(), None);
        unstarted.note("vps", taken(), now);
        assert_eq!(unstarted.next(), Some(now + FIRST));
    }

    #[test]
    fn another_holder_is_news_and_another_name_the_same_remote() {
        let mut unstarted = Unstarted::default();
        let now = Instant::now();
        unstarted.note("vps", taken(), now);
        let other = Problem::new(Class::PortInUse, "taken by sh (pid 8)");
        assert!(unstarted.note("vps", other.clone(), now));
        unstarted.rename("vps", "box");
        assert_eq!(unstarted.problem("vps"), None);
        assert_eq!(unstarted.problem("box"), Some(&other));
    }

    #[test]
    fn what_could_not_be_reached_is_tried_again_and_at_once_when_the_network_changes() {
        let mut unstarted = Unstarted::default();
        let now = Instant::now();
        let away = Problem::new(Class::Unreachable, "no name server answers");
        for round in 0..4 {
            unstarted.note("vps", away.clone(), now);
            assert_eq!(unstarted.next(), Some(now + FIRST * (1 << round)));
        }
        unstarted.note("box", taken(), now);
        unstarted.hasten(now);
        assert_eq!(unstarted.due(now), ["vps"], "a port is not freed by a network");
        assert!(unstarted.may_pass("vps") && unstarted.may_pass("box"));
    }

    #[test]
    fn one_that_is_put_off_is_not_forgotten() {
        let mut unstarted = Unstarted::default();
        let now = Instant::now();
        unstarted.note("vps", taken(), now);
        unstarted.put_off("vps", now + FIRST);
        assert!(unstarted.due(now + FIRST).is_empty());
        assert_eq!(unstarted.due(now + FIRST + FIRST), ["vps"]);
    }

    #[test]
    fn one_that_is_being_started_is_not_shown_as_down() {
        let mut unstarted = Unstarted::default();
        assert_eq!(unstarted.phase("vps"), Phase::Down);
        unstarted.begin("vps");
        assert_eq!(unstarted.phase("vps"), Phase::Connecting);
        assert!(unstarted.is_hopeful());
        unstarted.note("vps", taken(), Instant::now());
        assert_eq!(unstarted.phase("vps"), Phase::Waiting);
        unstarted.note("vps", Problem::new(Class::Config, "line 3"), Instant::now());
        assert_eq!(unstarted.phase("vps"), Phase::Blocked);
        assert!(!unstarted.is_hopeful());
    }

    #[test]
    fn time_does_not_help_where_a_person_must_act() {
        let mut unstarted = Unstarted::default();
        let now = Instant::now();
        unstarted.note("vps", Problem::new(Class::Config, "line 3 is wrong"), now);
        assert_eq!(unstarted.next(), None);
        assert!(unstarted.due(now + LONGEST).is_empty());
    }
}
