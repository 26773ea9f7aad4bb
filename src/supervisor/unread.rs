//! Bytes that local readers have not taken yet: one backlog a stream, one bound over all of them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::{Buf, Bytes};
use tokio::sync::Notify;

use super::lock::locked;
use crate::config::{UNREAD_MIB, UNREAD_MIB_SHARED};

/// What the SSH library may hold of a stream that is left undrained, bytes.
const LIBRARY: usize = 2 << 20;
/// Unread bytes from which a stream counts as slow.
pub(super) const CLOGGED: usize = 4 << 20;
/// The same while memory is tight.
const CLOGGED_TIGHT: usize = 256 << 10;

/// All backlogs, and the bound on what they hold together.
///
/// When the bound is passed the stream with the most unread bytes pays for it: it is cut, and its
/// memory is free at once. Long before that, sessions whose readers are all slow are left undrained,
/// which costs nobody anything.
#[derive(Debug)]
pub(super) struct Unread {
    most: usize,
    total: AtomicUsize,
    backlogs: Mutex<(u64, HashMap<u64, Weak<Backlog>>)>,
}

impl Default for Unread {
    fn default() -> Self {
        Self::of_mib(UNREAD_MIB_SHARED)
    }
}

impl Unread {
    /// With another bound, as far as it can be meant.
    pub(super) fn of_mib(mib: u16) -> Self {
        Self::bounded(usize::from(mib.clamp(*UNREAD_MIB.start(), *UNREAD_MIB.end())) << 20)
    }

    /// With a bound in bytes.
    pub(super) fn bounded(most: usize) -> Self {
        Self { most, total: AtomicUsize::new(0), backlogs: Mutex::default() }
    }

    /// A backlog for one more stream; it leaves when it is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Arc<Backlog> {
        let mut backlogs = locked(&self.backlogs);
        let id = backlogs.0;
        backlogs.0 += 1;
        let backlog = Arc::new(Backlog {
            id,
            unread: Arc::clone(self),
            state: Mutex::default(),
            cut: Notify::new(),
        });
        backlogs.1.insert(id, Arc::downgrade(&backlog));
        backlog
    }

    /// The bound, MiB.
    pub(super) fn most_mib(&self) -> usize {
        self.most >> 20
    }

    /// Bytes held in all.
    #[cfg(test)]
    pub(super) fn total(&self) -> usize {
        self.total.load(Relaxed)
    }

    fn is_tight(&self) -> bool {
        self.total.load(Relaxed) >= self.most / 2
    }

    /// Counts bytes in; under the lock of their backlog, or a writer counts them out before.
    fn add(&self, count: usize) {
        self.total.fetch_add(count, Relaxed);
    }

    /// Cuts whoever holds most until the rest fits.
    fn fit(&self) {
        while self.total.load(Relaxed) > self.most {
            let backlogs: Vec<_> =
                locked(&self.backlogs).1.values().filter_map(Weak::upgrade).collect();
            let largest = backlogs.iter().max_by_key(|backlog| backlog.lock().held());
            let Some(largest) = largest.filter(|backlog| backlog.lock().held() > 0) else { return };
            largest.cut();
        }
    }

    fn remove(&self, count: usize) {
        self.total.fetch_sub(count, Relaxed);
    }
}

/// What one stream's local reader has not taken yet.
#[derive(Debug)]
pub(super) struct Backlog {
    id: u64,
    unread: Arc<Unread>,
    state: Mutex<State>,
    cut: Notify,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Bytes>,
    /// Bytes queued or being written.
    size: usize,
    /// What the library may hold beside them.
    reserved: usize,
    /// Bytes that ever came in, and that the reader took.
    taken: u64,
    given: u64,
    /// While the reader is slow: at what size it no longer is.
    clear: Option<usize>,
    is_cut: bool,
}

impl State {
    fn held(&self) -> usize {
        self.size + self.reserved
    }
}

/// What a push changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pushed {
    /// Bytes that wait now.
    pub(super) waiting: usize,
    /// Whether the reader is far behind.
    pub(super) is_clogged: bool,
    /// Whether that is new.
    pub(super) is_news: bool,
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    /// Adds bytes.
    pub(super) fn push(&self, bytes: Bytes) -> Pushed {
        let count = bytes.len();
        let bar = if self.unread.is_tight() { CLOGGED_TIGHT } else { CLOGGED };
        let pushed = {
            let mut state = self.lock();
            state.taken += count as u64;
            if state.is_cut {
                return Pushed { waiting: 0, is_clogged: false, is_news: false };
            }
            state.size += count;
            state.queue.push_back(bytes);
            self.unread.add(count);
            let is_news = state.size >= bar && state.clear.is_none();
            if is_news {
                state.clear = Some(bar / 4);
            }
            Pushed { waiting: state.size, is_clogged: state.clear.is_some(), is_news }
        };
        self.unread.fit();
        pushed
    }

    /// The pieces to write next; empty ones when there are no more.
    pub(super) fn first<const N: usize>(&self) -> [Bytes; N] {
        let state = self.lock();
        std::array::from_fn(|at| state.queue.get(at).cloned().unwrap_or_default())
    }

    /// Counts written bytes out; whether a reader that was far behind has caught up.
    pub(super) fn written(&self, count: usize) -> bool {
        let mut state = self.lock();
        state.given += count as u64;
        if state.is_cut {
            return false;
        }
        state.size -= count;
        self.unread.remove(count);
        let mut left = count;
        while left > 0
            && let Some(piece) = state.queue.front_mut()
        {
            let part = left.min(piece.len());
            piece.advance(part);
            left -= part;
            if piece.is_empty() {
                state.queue.pop_front();
            }
        }
        let has_caught_up = state.clear.is_some_and(|clear| state.size < clear);
        if has_caught_up {
            state.clear = None;
        }
        has_caught_up
    }

    /// Whether the reader is far behind.
    pub(super) fn is_clogged(&self) -> bool {
        self.lock().clear.is_some()
    }

    /// Whether the stream has to go, for the sake of the others.
    pub(super) fn is_cut(&self) -> bool {
        self.lock().is_cut
    }

    /// Counts what the library may hold while the stream is left undrained, until that is dropped.
    pub(super) fn undrained(&self) -> Undrained<'_> {
        Undrained::begin(self)
    }

    fn reserve(&self, count: usize) {
        {
            let mut state = self.lock();
            if state.is_cut {
                return;
            }
            let before = std::mem::replace(&mut state.reserved, count);
            self.unread.add(count);
            self.unread.remove(before);
        }
        self.unread.fit();
    }

    /// Waits until the stream has to go, for the sake of the others.
    pub(super) async fn until_cut(&self) {
        loop {
            let cut = self.cut.notified();
            if self.is_cut() {
                return;
            }
            cut.await;
        }
    }

    /// Drops what is unread: nobody will get it.
    fn cut(&self) {
        let mut state = self.lock();
        state.is_cut = true;
        state.queue.clear();
        let held = std::mem::take(&mut state.size) + std::mem::take(&mut state.reserved);
        self.unread.remove(held);
        self.cut.notify_one();
    }

    /// A stream that ends is slow no more; whether it was.
    pub(super) fn forget(&self) -> bool {
        self.lock().clear.take().is_some()
    }

    /// How many bytes ever came in, and how many of them the reader has not taken.
    pub(super) fn account(&self) -> (u64, u64) {
        let state = self.lock();
        (state.taken, state.taken - state.given)
    }

    /// The addresses of the first and the last byte that wait.
    #[cfg(test)]
    pub(super) fn ends(&self) -> (usize, usize) {
        let state = self.lock();
        let at = |bytes: Option<&Bytes>| bytes.unwrap().as_ptr() as usize;
        (at(state.queue.front()), at(state.queue.back()))
    }
}

/// While it exists, what the library may hold of an undrained stream counts.
pub(super) struct Undrained<'a>(&'a Backlog);

impl<'a> Undrained<'a> {
    fn begin(backlog: &'a Backlog) -> Self {
        backlog.reserve(LIBRARY);
        Self(backlog)
    }
}

impl Drop for Undrained<'_> {
    fn drop(&mut self) {
        self.0.reserve(0);
    }
}

impl Drop for Backlog {
    fn drop(&mut self) {
        self.unread.remove(self.lock().held());
        locked(&self.unread.backlogs).1.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn the_stream_with_most_unread_bytes_makes_room_and_the_books_balance() {
        let unread = Arc::new(Unread::bounded(1000));
        let (small, large) = (unread.enter(), unread.enter());
        large.push(Bytes::from(vec![0; 600]));
        small.push(Bytes::from(vec![0; 300]));
        assert!(large.until_cut().now_or_never().is_none());
        small.push(Bytes::from(vec![0; 200]));
        assert!(large.until_cut().now_or_never().is_some(), "the larger one is cut");
        assert!(small.until_cut().now_or_never().is_none(), "the smaller one goes on");
        assert_eq!(unread.total(), 500);
        // What was in the hands of a writer counts no more.
        assert!(!large.written(100));
        assert_eq!(large.account(), (600, 500));
        assert_eq!(large.push(Bytes::from(vec![0; 50])).waiting, 0);
        small.written(300);
        assert_eq!(unread.total(), 200);
        drop((small, large));
        assert_eq!(unread.total(), 0);
    }

    #[test]
    fn what_was_written_is_gone_and_the_rest_keeps_its_order() {
        let unread = Arc::new(Unread::default());
        let backlog = unread.enter();
        for piece in ["one", "two", "three"] {
            backlog.push(Bytes::from_static(piece.as_bytes()));
        }
        assert_eq!(backlog.first::<2>(), ["one", "two"].map(Bytes::from));
        backlog.written(5);
        assert_eq!(backlog.first::<3>(), ["o", "three", ""].map(Bytes::from));
        assert_eq!(unread.total(), 6);
        backlog.written(6);
        assert_eq!(backlog.first::<1>(), [Bytes::new()]);
    }

    #[test]
    fn readers_count_as_slow_sooner_while_memory_is_tight() {
        let unread = Arc::new(Unread::bounded(8 * CLOGGED_TIGHT));
        let (first, second) = (unread.enter(), unread.enter());
        assert!(!second.push(Bytes::from(vec![0; CLOGGED_TIGHT])).is_clogged);
        assert!(!first.push(Bytes::from(vec![0; 4 * CLOGGED_TIGHT])).is_clogged);
        let pushed = second.push(Bytes::from_static(b"more"));
        assert!(pushed.is_clogged && pushed.is_news);
        assert!(!second.push(Bytes::from_static(b"more")).is_news, "said once");
        assert!(second.written(CLOGGED_TIGHT));
    }

    #[test]
    fn a_stream_left_undrained_counts_what_the_library_holds_of_it() {
        let unread = Arc::new(Unread::default());
        let backlog = unread.enter();
        assert!(backlog.push(Bytes::from(vec![0; CLOGGED])).is_clogged);
        {
            let _undrained = backlog.undrained();
            assert_eq!(unread.total(), CLOGGED + LIBRARY);
        }
        assert_eq!(unread.total(), CLOGGED, "nor any longer than the wait");
        assert!(backlog.written(CLOGGED));
        assert!(!backlog.is_clogged());
        assert_eq!(unread.total(), 0);
    }
}
