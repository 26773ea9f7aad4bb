//! Devices that asked for more and wait for the answer: what became of each request, told to who
//! waits, and kept a while for who comes late.
//!
//! The requests themselves are in the store; what is here ends with the process, and whoever still
//! waits then asks again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::{protocol::Scope, store::Request};

/// How long the end of a request is remembered, milliseconds.
const GRACE_MS: u64 = 15_000;
/// How many requests of one device are remembered; only one of them can still be decided.
const PER_DEVICE: usize = 4;
/// How many requests are remembered: more than wait in the store at a time.
const MAX_UPGRADES: usize = 256;

/// What somebody decided about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decision {
    /// It was approved.
    Approved,
    /// It was turned down, or gave way to another request of its device.
    Rejected,
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Somebody decided.
    Decided(Decision),
    /// Nobody decided in time.
    Expired,
}

/// A request that its device may wait for.
#[derive(Debug, Clone)]
pub(super) struct Upgrade {
    /// What was asked for.
    pub(super) scopes: Vec<Scope>,
    /// Until when somebody may decide, milliseconds since 1970.
    pub(super) expires_at: u64,
    /// Its end, once it is there; closed when it is forgotten, or the gateway stops.
    pub(super) end: watch::Receiver<Option<End>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Upgrades(Mutex<Book>);

#[derive(Debug, Default)]
struct Book {
    kept: HashMap<String, Kept>,
    has_stopped: bool,
}

#[derive(Debug)]
struct Kept {
    device: String,
    scopes: Vec<Scope>,
    expires_at: u64,
    /// Until when it is remembered.
    until: u64,
    end: watch::Sender<Option<End>>,
}

impl Upgrades {
    /// Remembers a request that waits, or that it waits longer; `None` once the gateway stops.
    ///
    /// There is always room: what ended, and what nobody can decide any more, is forgotten for it,
    /// of the same device first.
    pub(super) fn keep(&self, request: &Request, now: u64) -> Option<Upgrade> {
        let mut book = self.lock();
        if book.has_stopped {
            return None;
        }
        book.kept.retain(|_, kept| now < kept.until);
        let device = &request.asked.device_id;
        if !book.kept.contains_key(&request.id) {
            book.make_room(PER_DEVICE, |kept| kept.device == *device);
            book.make_room(MAX_UPGRADES, |_| true);
        }
        let kept = book.kept.entry(request.id.clone()).or_insert_with(|| Kept {
            device: device.clone(),
            scopes: request.asked.scopes.clone(),
            expires_at: request.expires_at,
            until: 0,
            end: watch::Sender::new(None),
        });
        kept.waits(request.expires_at);
        Some(kept.shown())
    }

    /// The request of this id, if it is this device's.
    pub(super) fn find(&self, id: &str, device: &str, now: u64) -> Option<Upgrade> {
        let book = self.lock();
        let kept = book.kept.get(id).filter(|kept| kept.device == device && now < kept.until)?;
        Some(kept.shown())
    }

    /// A request is over; what somebody decided first stays.
    pub(super) fn ended(&self, id: &str, end: End, now: u64) {
        if let Some(kept) = self.lock().kept.get_mut(id) {
            kept.ended(end, now);
        }
    }

    /// A device is no more, and nothing that it asked for is to be had.
    pub(super) fn forget(&self, device: &str, now: u64) {
        let mut book = self.lock();
        let own = book.kept.values_mut().filter(|kept| kept.device == device);
        own.for_each(|kept| kept.ended(End::Decided(Decision::Rejected), now));
    }

    /// The gateway stops: nobody waits any longer.
    pub(super) fn stop(&self) {
        let mut book = self.lock();
        book.has_stopped = true;
        book.kept.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Leaves fewer than `most` of those that are meant.
    fn make_room(&mut self, most: usize, is_meant: impl Fn(&Kept) -> bool) {
        while self.kept.values().filter(|kept| is_meant(kept)).count() >= most {
            let meant = self.kept.iter().filter(|(_, kept)| is_meant(kept));
            let key = |kept: &Kept| (kept.end.borrow().is_none(), kept.until);
            let first = meant.min_by_key(|(_, kept)| key(kept)).map(|(id, _)| id.clone());
            let Some(first) = first else { return };
            self.kept.remove(&first);
        }
    }
}

impl Kept {
    /// It stands until then. That its time was over was wrong if it does: clocks are put back.
    fn waits(&mut self, expires_at: u64) {
        let end = *self.end.borrow();
        if matches!(end, None | Some(End::Expired)) {
            self.end.send_replace(None);
            (self.expires_at, self.until) = (expires_at, expires_at + GRACE_MS);
        }
    }

    fn ended(&mut self, end: End, now: u64) {
        let is_news = self.end.send_if_modified(|before| {
            let is_news = match before {
                None => true,
                Some(End::Expired) => end != End::Expired,
                Some(End::Decided(_)) => false,
            };
            if is_news {
                *before = Some(end);
            }
            is_news
        });
        if is_news {
            self.until = now + GRACE_MS;
        }
    }

    fn shown(&self) -> Upgrade {
        let (scopes, expires_at) = (self.scopes.clone(), self.expires_at);
        Upgrade { scopes, expires_at, end: self.end.subscribe() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::Role,
        store::{About, Asked},
    };

    const NOW: u64 = 1_795_486_176_838;

    fn request(id: &str) -> Request {
        of("a", id)
    }

    fn of(device: &str, id: &str) -> Request {
        let asked = Asked {
            device_id: device.to_owned(),
            public_key: "key".to_owned(),
            about: About::default(),
            role: Role::Operator,
            scopes: vec![Scope::Read, Scope::Write],
        };
        Request { id: id.to_owned(), asked, is_repair: true, at: NOW, expires_at: NOW + 10 }
    }

    #[test]
    fn an_end_is_told_to_its_device_alone_and_to_who_comes_a_little_late() {
        let upgrades = Upgrades::default();
        let waiting = upgrades.keep(&request("1"), NOW).unwrap();
        assert!(upgrades.find("1", "b", NOW).is_none() && upgrades.find("2", "a", NOW).is_none());
        assert_eq!(*waiting.end.borrow(), None);
        upgrades.ended("1", End::Decided(Decision::Approved), NOW + 5);
        upgrades.ended("1", End::Decided(Decision::Rejected), NOW + 6);
        upgrades.forget("a", NOW + 7);
        // Who looked before that, and comes to say that it waits.
        upgrades.keep(&request("1"), NOW + 7).unwrap();
        assert_eq!(*waiting.end.borrow(), Some(End::Decided(Decision::Approved)));
        let late = upgrades.find("1", "a", NOW + 4 + GRACE_MS).unwrap();
        assert_eq!(
            (*late.end.borrow(), late.scopes.len()),
            (Some(End::Decided(Decision::Approved)), 2)
        );
        assert!(upgrades.find("1", "a", NOW + 5 + GRACE_MS).is_none());
    }

    #[test]
    fn who_asks_again_waits_longer_and_a_device_that_is_removed_does_not() {
        let upgrades = Upgrades::default();
        upgrades.keep(&request("1"), NOW).unwrap();
        let longer = Request { expires_at: NOW + 20, ..request("1") };
        upgrades.keep(&longer, NOW).unwrap();
        let waiting = upgrades.find("1", "a", NOW + 19 + GRACE_MS).unwrap();
        assert_eq!(waiting.expires_at, NOW + 20);
        upgrades.forget("a", NOW);
        assert_eq!(*waiting.end.borrow(), Some(End::Decided(Decision::Rejected)));
    }

    #[test]
    fn what_was_over_by_a_wrong_clock_waits_again_and_can_be_decided() {
        let upgrades = Upgrades::default();
        let waiting = upgrades.keep(&request("1"), NOW).unwrap();
        upgrades.ended("1", End::Expired, NOW + 5);
        upgrades.keep(&request("1"), NOW).unwrap();
        assert_eq!(*waiting.end.borrow(), None);
        upgrades.ended("1", End::Expired, NOW + 5);
        upgrades.ended("1", End::Decided(Decision::Approved), NOW);
        upgrades.ended("1", End::Expired, NOW + 5);
        assert_eq!(*waiting.end.borrow(), Some(End::Decided(Decision::Approved)));
    }

    #[test]
    fn a_device_that_asks_over_and_over_takes_its_own_places_alone() {
        let upgrades = Upgrades::default();
        let other = upgrades.keep(&of("b", "other"), NOW).unwrap();
        let waiting = upgrades.keep(&request("waits"), NOW).unwrap();
        for number in 0..300 {
            let id = number.to_string();
            upgrades.keep(&request(&id), NOW).unwrap();
            upgrades.ended(&id, End::Decided(Decision::Rejected), NOW + number);
        }
        assert_eq!(upgrades.lock().kept.len(), PER_DEVICE + 1);
        assert!(upgrades.find("299", "a", NOW).is_some() && upgrades.find("0", "a", NOW).is_none());
        for waiting in [waiting, other] {
            assert!(waiting.end.has_changed().is_ok_and(|is_news| !is_news), "it was forgotten");
        }
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_stop_ends_every_wait() {
        let upgrades = Upgrades::default();
        for id in 0..MAX_UPGRADES {
            upgrades.keep(&of(&id.to_string(), &id.to_string()), NOW).unwrap();
        }
        // What ended goes first, and then what has the least time left.
        upgrades.ended("7", End::Decided(Decision::Rejected), NOW + 1_000);
        upgrades.keep(&Request { expires_at: NOW + 11, ..of("more", "more") }, NOW).unwrap();
        assert!(upgrades.find("7", "7", NOW).is_none());
        assert_eq!(upgrades.lock().kept.len(), MAX_UPGRADES);
        for id in 0..MAX_UPGRADES {
            let id = format!("later {id}");
            upgrades.keep(&Request { expires_at: NOW + 12, ..of(&id, &id) }, NOW).unwrap();
        }
        assert!(upgrades.find("more", "more", NOW).is_none());
        assert_eq!(upgrades.lock().kept.len(), MAX_UPGRADES);
        let waiting = upgrades.find("later 9", "later 9", NOW).unwrap();
        upgrades.stop();
        assert!(waiting.end.has_changed().is_err());
        assert!(upgrades.keep(&request("after"), NOW).is_none());
    }
}
