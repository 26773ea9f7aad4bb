//! Forwards of a remote whose place on this machine is taken, and when each is tried again.

use std::time::Instant;

use super::unstarted::Entry;
use crate::{config::Listen, problem::Problem};

/// Why each of them is not bound. Pure: the clock is an argument.
#[derive(Debug, Default)]
pub(super) struct Unbound(Vec<(Listen, Entry)>);

impl Unbound {
    /// Notes why nothing listens at a place; `true` if that is news.
    pub(super) fn note(&mut self, at: &Listen, problem: Problem, now: Instant) -> bool {
        let (entry, is_news) = Entry::after(self.take(at), problem, now);
        self.0.push((at.clone(), entry));
        is_news
    }

    /// Something listens there, or nothing shall.
    pub(super) fn forget(&mut self, at: &Listen) {
        self.take(at);
    }

    /// Why nothing listens there.
    pub(super) fn problem(&self, at: &Listen) -> Option<&Problem> {
        self.0.iter().find(|(other, _)| other == at).map(|(_, entry)| &entry.problem)
    }

    /// Why one of them has no place.
    pub(super) fn first(&self) -> Option<&Problem> {
        self.0.first().map(|(_, entry)| &entry.problem)
    }

    /// All of them.
    pub(super) fn all(&self) -> Vec<Listen> {
        self.0.iter().map(|(at, _)| at.clone()).collect()
    }

    /// Those whose time has come.
    pub(super) fn due(&self, now: Instant) -> Vec<Listen> {
        let due = self.0.iter().filter(|(_, entry)| entry.next <= now);
        due.map(|(at, _)| at.clone()).collect()
    }

    /// When the next one is due; `None` if each has its place.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.iter().map(|(_, entry)| entry.next).min()
    }

    fn take(&mut self, at: &Listen) -> Option<Entry> {
        let place = self.0.iter().position(|(other, _)| other == at)?;
        Some(self.0.swap_remove(place).1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::problem::Class;

    #[test]
    fn each_place_has_a_wait_of_its_own_that_grows_to_half_a_minute() {
        let taken = || Problem::new(Class::PortInUse, "taken by nc (pid 7)");
        let [one, other] = [5432, 6379].map(Listen::loopback);
        let (mut unbound, begin) = (Unbound::default(), Instant::now());
        let mut now = begin;
        for (round, wait) in [1, 2, 4, 8, 16, 30, 30].into_iter().enumerate() {
            assert_eq!(unbound.note(&one, taken(), now), round == 0);
            assert!(unbound.due(now).is_empty());
            now += Duration::from_secs(wait);
            assert_eq!((unbound.next(), unbound.due(now)), (Some(now), vec![one.clone()]));
        }
        assert!(unbound.note(&other, taken(), begin));
        assert_eq!(unbound.next(), Some(begin + Duration::from_secs(1)));
        assert_eq!(unbound.all(), [one.clone(), other.clone()]);
        unbound.forget(&one);
        assert_eq!((unbound.problem(&one), unbound.problem(&other)), (None, Some(&taken())));
        unbound.forget(&other);
        assert_eq!(unbound.next(), None);
        unbound.note(&one, taken(), now);
        assert_eq!(unbound.next(), Some(now + Duration::from_secs(1)), "it begins anew");
    }
}
