//! Which answers a client has for certain: a ping goes out behind each that matters, and its pong
//! comes back only from who has read that far.
//!
//! What else a client says proves nothing: it may have said so before it read.

use std::sync::atomic::{AtomicU64, Ordering};

/// The answers of one connection whose arrival matters, by their numbers from 1 on.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    /// The latest that was given.
    given: AtomicU64,
    /// The latest behind which a ping was queued.
    pinged: AtomicU64,
    /// The latest that has arrived.
    arrived: AtomicU64,
}

impl Receipts {
    /// The number of the next answer whose arrival matters, should there be one.
    pub(super) fn coming(&self) -> u64 {
        self.given.load(Ordering::SeqCst) + 1
    }

    /// The next one is given: it is queued before anything else is.
    pub(super) fn give(&self) {
        self.given.fetch_add(1, Ordering::SeqCst);
    }

    /// Whether a ping has to go out now, behind an answer that was just queued.
    pub(super) fn is_due(&self) -> bool {
        let given = self.given.load(Ordering::SeqCst);
        self.pinged.swap(given, Ordering::SeqCst) < given
    }

    /// What every ping carries from now on; a client may leave out the pong of any but the latest.
    pub(super) fn in_ping(&self) -> String {
        match self.given.load(Ordering::SeqCst) {
            0 => String::new(),
            given => given.to_string(),
        }
    }

    /// The number up to which everything has arrived, if this pong says that more has.
    pub(super) fn hear(&self, pong: &[u8]) -> Option<u64> {
        let number: u64 = std::str::from_utf8(pong).ok()?.parse().ok()?;
        let is_true = number <= self.pinged.load(Ordering::SeqCst);
        (is_true && self.arrived.fetch_max(number, Ordering::SeqCst) < number).then_some(number)
    }

    /// The number up to which everything has arrived.
    pub(super) fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_arrived_with_the_pong_of_a_ping_behind_it() {
        let receipts = Receipts::default();
        assert_eq!((receipts.is_due(), receipts.in_ping().as_str()), (false, ""));
        assert_eq!((receipts.hear(b""), receipts.hear(b"1")), (None, None), "of no ping of ours");
        assert_eq!(receipts.coming(), 1);
        receipts.give();
        assert_eq!(receipts.hear(b"1"), None, "the ping is not even queued");
        assert_eq!((receipts.is_due(), receipts.is_due()), (true, false));
        receipts.give();
        assert!(receipts.is_due());
        assert_eq!((receipts.in_ping().as_str(), receipts.arrived()), ("2", 0));
        assert_eq!(receipts.hear(b"2"), Some(2), "the pong of the latest is enough");
        assert_eq!((receipts.hear(b"1"), receipts.hear(b"2"), receipts.arrived()), (None, None, 2));
    }
}
