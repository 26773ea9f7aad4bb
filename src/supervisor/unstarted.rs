//! Saved remotes that could not be started, and when one whose port was taken is tried again.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::problem::{Class, Problem};

/// The first wait for a port.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait for a port.
const LONGEST: Duration = Duration::from_secs(30);

/// Why each of them is not at work. Pure: the clock is an argument.
#[derive(Debug, Default)]
pub(super) struct Unstarted(HashMap<String, Entry>);

#[derive(Debug)]
struct Entry {
    problem: Problem,
    wait: Duration,
    next: Instant,
}

impl Unstarted {
    /// Notes why `name` was not started; `true` if that is news.
    pub(super) fn note(&mut self, name: &str, problem: Problem, now: Instant) -> bool {
        let before = self.0.remove(name);
        let is_news = before.as_ref().is_none_or(|before| before.problem != problem);
        let wait = before.map_or(FIRST, |before| (before.wait * 2).min(LONGEST));
        self.0.insert(name.to_owned(), Entry { problem, wait, next: now + wait });
        is_news
    }

    /// It has been started, or is not wanted any more.
    pub(super) fn forget(&mut self, name: &str) {
        self.0.remove(name);
    }

    /// It goes by another name.
    pub(super) fn rename(&mut self, name: &str, to: &str) {
        let entry = self.0.remove(name);
        self.0.extend(entry.map(|entry| (to.to_owned(), entry)));
    }

    /// All of them, with the reason.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Problem)> {
        self.0.iter().map(|(name, entry)| (name, &entry.problem))
    }

    /// Why `name` is not at work.
    pub(super) fn problem(&self, name: &str) -> Option<&Problem> {
        self.0.get(name).map(|entry| &entry.problem)
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

    /// Those that time may help: a port becomes free without anybody saying so.
    fn waiting(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.0.iter().filter(|(_, entry)| entry.problem.class == Class::PortInUse)
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
    fn time_does_not_help_where_a_person_must_act() {
        let mut unstarted = Unstarted::default();
        let now = Instant::now();
        unstarted.note("vps", Problem::new(Class::Config, "line 3 is wrong"), now);
        assert_eq!(unstarted.next(), None);
        assert!(unstarted.due(now + LONGEST).is_empty());
    }
}
