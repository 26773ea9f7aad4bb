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
/// How many requests are remembered.
const MAX_UPGRADES: usize = 256;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Somebody approved it.
    Approved,
    /// Somebody turned it down, or it gave way to another request of its device.
    Rejected,
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
    /// Its end, once it is there; closed when the gateway stops.
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
    /// Remembers a request that waits, or that it waits longer; false where there is no room.
    pub(super) fn keep(&self, request: &Request, now: u64) -> bool {
        let mut book = self.lock();
        book.kept.retain(|_, kept| now < kept.until);
        let until = request.expires_at + GRACE_MS;
        if let Some(kept) = book.kept.get_mut(&request.id) {
            if kept.end.borrow().is_none() {
                (kept.expires_at, kept.until) = (request.expires_at, until);
            }
            return true;
        }
        if book.has_stopped || book.kept.len() >= MAX_UPGRADES {
            return false;
        }
        let kept = Kept {
            device: request.asked.device_id.clone(),
            scopes: request.asked.scopes.clone(),
            expires_at: request.expires_at,
            until,
            end: watch::Sender::new(None),
        };
        book.kept.insert(request.id.clone(), kept);
        true
    }

    /// The request of this id, if it is this device's.
    pub(super) fn find(&self, id: &str, device: &str, now: u64) -> Option<Upgrade> {
        let book = self.lock();
        let kept = book.kept.get(id).filter(|kept| kept.device == device && now < kept.until)?;
        let end = kept.end.subscribe();
        Some(Upgrade { scopes: kept.scopes.clone(), expires_at: kept.expires_at, end })
    }

    /// A request is over; what it ended as first stays.
    pub(super) fn ended(&self, id: &str, end: End, now: u64) {
        if let Some(kept) = self.lock().kept.get_mut(id) {
            kept.ended(end, now);
        }
    }

    /// A device is no more, and nothing that it asked for is to be had.
    pub(super) fn forget(&self, device: &str, now: u64) {
        let mut book = self.lock();
        let own = book.kept.values_mut().filter(|kept| kept.device == device);
        own.for_each(|kept| kept.ended(End::Rejected, now));
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

impl Kept {
    fn ended(&mut self, end: End, now: u64) {
        let is_first = self.end.send_if_modified(|before| {
            let is_first = before.is_none();
            before.get_or_insert(end);
            is_first
        });
        if is_first {
            self.until = now + GRACE_MS;
        }
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
        let asked = Asked {
            device_id: "a".to_owned(),
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
        assert!(upgrades.keep(&request("1"), NOW));
        assert!(upgrades.find("1", "b", NOW).is_none() && upgrades.find("2", "a", NOW).is_none());
        let waiting = upgrades.find("1", "a", NOW).unwrap();
        assert_eq!(*waiting.end.borrow(), None);
        upgrades.ended("1", End::Approved, NOW + 5);
        upgrades.ended("1", End::Rejected, NOW + 6);
        upgrades.forget("a", NOW + 7);
        assert_eq!(*waiting.end.borrow(), Some(End::Approved));
        let late = upgrades.find("1", "a", NOW + 4 + GRACE_MS).unwrap();
        assert_eq!((*late.end.borrow(), late.scopes.len()), (Some(End::Approved), 2));
        assert!(upgrades.find("1", "a", NOW + 5 + GRACE_MS).is_none());
    }

    #[test]
    fn who_asks_again_waits_longer_and_a_device_that_is_removed_does_not() {
        let upgrades = Upgrades::default();
        assert!(upgrades.keep(&request("1"), NOW));
        assert!(upgrades.keep(&Request { expires_at: NOW + 20, ..request("1") }, NOW));
        let waiting = upgrades.find("1", "a", NOW).unwrap();
        assert_eq!(waiting.expires_at, NOW + 20);
        upgrades.forget("a", NOW);
        assert_eq!(*waiting.end.borrow(), Some(End::Rejected));
    }

    #[test]
    fn what_is_remembered_is_bounded_and_a_stop_ends_every_wait() {
        let upgrades = Upgrades::default();
        for id in 0..MAX_UPGRADES {
            assert!(upgrades.keep(&request(&id.to_string()), NOW));
        }
        assert!(!upgrades.keep(&request("more"), NOW));
        assert!(upgrades.keep(&request("more"), NOW + 10 + GRACE_MS));
        let waiting = upgrades.find("more", "a", NOW).unwrap();
        upgrades.stop();
        assert!(waiting.end.has_changed().is_err());
        assert!(!upgrades.keep(&request("later"), NOW));
    }
}
