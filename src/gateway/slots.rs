//! How many sockets may wait unauthenticated, per address and in all, and how many clients there are.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::time::Instant;

/// Unauthenticated sockets of one address.
const PER_ADDRESS: usize = 64;
/// Unauthenticated sockets in all.
const IN_ALL: usize = 256;
/// Sockets in all, authenticated ones included.
const SOCKETS: usize = 4_096;

/// The places that are taken.
#[derive(Debug, Default)]
pub(super) struct Slots(Mutex<Taken>);

#[derive(Debug, Default)]
struct Taken {
    waiting: HashMap<IpAddr, usize>,
    waiting_in_all: usize,
    sockets: usize,
}

/// One socket's place; freed when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    address: IpAddr,
    is_waiting: bool,
    since: Instant,
}

impl Slots {
    /// A place for a socket from `address`; `None` when there is none left.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Slot> {
        let address = address.to_canonical();
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let here = taken.waiting.get(&address).copied().unwrap_or_default();
        if here >= PER_ADDRESS || taken.waiting_in_all >= IN_ALL || taken.sockets >= SOCKETS {
            return None;
        }
        taken.waiting.insert(address, here + 1);
        taken.waiting_in_all += 1;
        taken.sockets += 1;
        drop(taken);
        let slots = Arc::clone(self);
        Some(Slot { slots, address, is_waiting: true, since: Instant::now() })
    }

    /// How many sockets there are, and how many of them wait unauthenticated.
    pub(super) fn counts(&self) -> (usize, usize) {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (taken.sockets, taken.waiting_in_all)
    }
}

impl Slot {
    /// When the place was taken.
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    /// Frees the place among the waiting: the client is authenticated.
    pub(super) fn admitted(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            let mut taken = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
            taken.waiting_in_all -= 1;
            if let Some(here) = taken.waiting.get_mut(&self.address) {
                *here -= 1;
                if *here == 0 {
                    taken.waiting.remove(&self.address);
                }
            }
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.admitted();
        self.slots.0.lock().unwrap_or_else(PoisonError::into_inner).sockets -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_runs_out_before_its_neighbours_do() {
        let slots = Arc::new(Slots::default());
        let here = IpAddr::from([127, 0, 0, 1]);
        let mut held: Vec<_> = (0..PER_ADDRESS).map(|_| slots.take(here).unwrap()).collect();
        assert!(slots.take(here).is_none());
        assert!(slots.take(IpAddr::from([192, 0, 2, 1])).is_some());
        held[0].admitted();
        assert!(slots.take(here).is_some());
        drop(held);
        let taken = slots.0.lock().unwrap();
        assert_eq!((taken.waiting.len(), taken.waiting_in_all, taken.sockets), (0, 0, 0));
    }
}
