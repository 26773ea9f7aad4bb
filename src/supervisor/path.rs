//! One session while it carries streams: its counters, and the news they make.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicU64, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::{link::Link, unread::Unread};
use crate::tunnel::{News, Number};

/// Round trips that are kept for who watches: five minutes of an idle path.
const ROUND_TRIPS: usize = 60;
/// Inbound bytes are news at most this often.
pub(super) const HEARD_INTERVAL: Duration = Duration::from_millis(250);

/// The clock of lanes: tokio's, so that tests can stop it.
pub(super) fn clock() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// A stream, and a listener over there, in what a session carries.
const STREAM: u64 = 1;
const LISTENER: u64 = 1 << 32;

/// Nobody listens for signs of life.
const DEAF: u64 = u64::MAX;

/// What a lane is told by its tasks.
pub(super) type Report = (Number, News);

/// Bytes and streams of a lane, over all its sessions.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) streams: AtomicUsize,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// Of all lanes of the supervisor.
    pub(super) unread: Arc<Unread>,
    /// Of the supervisor: who watches its remotes.
    watchers: Arc<AtomicUsize>,
    round_trips: Mutex<VecDeque<Duration>>,
}

impl Totals {
    /// Of a lane whose readers' unread bytes count in `unread`.
    pub(super) fn new(unread: Arc<Unread>, watchers: Arc<AtomicUsize>) -> Self {
        Self { unread, watchers, ..Self::default() }
    }

    /// Whether anybody watches how the remotes are.
    pub(super) fn is_watched(&self) -> bool {
        self.watchers.load(Relaxed) > 0
    }

    /// The SSH server answered a ping.
    pub(super) fn answered_after(&self, round_trip: Duration) {
        let mut last = self.round_trips.lock().unwrap_or_else(PoisonError::into_inner);
        if last.len() >= ROUND_TRIPS {
            last.pop_front();
        }
        last.push_back(round_trip);
    }

    /// The last round trips to the SSH server, the oldest first.
    pub(super) fn round_trips(&self) -> Vec<Duration> {
        let last = self.round_trips.lock().unwrap_or_else(PoisonError::into_inner);
        last.iter().copied().collect()
    }
}

/// A session with its streams.
pub(super) struct Path {
    pub(super) number: Number,
    pub(super) link: Arc<dyn Link>,
    /// Cancelled when new connections no longer go here.
    pub(super) retired: CancellationToken,
    /// Cancelled when whatever is still carried has to end.
    pub(super) ended: CancellationToken,
    /// Cancelled, and replaced, when what is not confirmed yet should wait elsewhere.
    trust: Mutex<CancellationToken>,
    totals: Arc<Totals>,
    news: mpsc::Sender<Report>,
    /// Streams, and in the upper half listeners over there whose connections come here: in one, so
    /// that of the last two that go at once exactly one leaves it empty.
    carried: AtomicU64,
    /// Told whenever a stream comes in, and whenever a slow reader has caught up or gone.
    company: Notify,
    /// Streams whose local reader is far behind.
    clogged: AtomicUsize,
    awaited: AtomicBool,
    /// Whether the lane believes so.
    told_awaited: AtomicBool,
    /// Milliseconds from `born` to inbound bytes that the lane does not know of; 0 if it knows all.
    untold: AtomicU64,
    /// Whether the lane was too far behind for news that is said once.
    missed: AtomicBool,
    /// Milliseconds from `born` to the last time inbound bytes were news.
    told: AtomicU64,
    born: Instant,
    /// What the link had heard when last asked, while a ping is under way.
    heard: AtomicU64,
}

impl Path {
    pub(super) fn new(
        number: Number,
        link: Arc<dyn Link>,
        totals: Arc<Totals>,
        news: mpsc::Sender<Report>,
    ) -> Self {
        let retired = CancellationToken::new();
        Self {
            number,
            link,
            trust: Mutex::new(retired.child_token()),
            retired,
            ended: CancellationToken::new(),
            totals,
            news,
            carried: AtomicU64::new(0),
            company: Notify::new(),
            clogged: AtomicUsize::new(0),
            awaited: AtomicBool::new(false),
            told_awaited: AtomicBool::new(false),
            untold: AtomicU64::new(0),
            missed: AtomicBool::new(false),
            told: AtomicU64::new(0),
            born: clock(),
            heard: AtomicU64::new(DEAF),
        }
    }

    /// Is cancelled once the path, trusted now, is doubted or retired.
    pub(super) fn trust(&self) -> CancellationToken {
        self.trust.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the connections whose streams are not confirmed yet wait elsewhere.
    pub(super) fn doubt(&self) {
        let mut trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        trust.cancel();
        *trust = self.retired.child_token();
    }

    /// What of the far side's bytes nobody has taken yet.
    pub(super) fn unread(&self) -> &Arc<Unread> {
        &self.totals.unread
    }

    /// How many streams it carries.
    pub(super) fn streams(&self) -> usize {
        usize::try_from(self.carried.load(SeqCst) % LISTENER).unwrap_or(usize::MAX)
    }

    /// Whether nothing would be lost if it ended now.
    pub(super) fn is_empty(&self) -> bool {
        self.carried.load(SeqCst) == 0
    }

    /// Counts a stream in until the guard is dropped.
    pub(super) fn enter(self: &Arc<Self>) -> Guest {
        self.totals.streams.fetch_add(1, Relaxed);
        Guest { company: self.accompany() }
    }

    /// Has a slow reader that is alone drained like one with neighbours until the guard is dropped:
    /// something else has to move on the session.
    pub(super) fn accompany(self: &Arc<Self>) -> Company {
        self.carried.fetch_add(STREAM, SeqCst);
        self.company.notify_waiters();
        Company(Arc::clone(self))
    }

    /// Counts a listener over there until the guard is dropped: connections may come.
    pub(super) fn attend(self: &Arc<Self>) -> Attendance {
        self.carried.fetch_add(LISTENER, SeqCst);
        Attendance(Arc::clone(self))
    }

    /// Counts a stream or a listener out.
    fn let_go(&self, one: u64) {
        if self.carried.fetch_sub(one, SeqCst) == one {
            self.tell(News::Empty);
        }
    }

    /// Bytes came in from the far side.
    pub(super) fn received(&self, count: usize) {
        self.totals.bytes_in.fetch_add(count as u64, Relaxed);
        let now = u64::try_from((clock() - self.born).as_millis()).unwrap_or(u64::MAX);
        let interval = u64::try_from(HEARD_INTERVAL.as_millis()).unwrap_or(u64::MAX);
        self.awaited.store(false, Relaxed);
        if now < self.told.load(Relaxed) + interval {
            // News for each answer would cost more than the answer: the lane asks before it judges.
            self.untold.store(now.max(1), Relaxed);
        } else {
            self.told.store(now, Relaxed);
            self.untold.store(0, Relaxed);
            self.told_awaited.store(false, Relaxed);
            self.tell(News::Heard);
        }
        if self.link.is_stalled() {
            // What comes in says nothing of the way out.
            self.asked();
        }
    }

    /// The server answered the wish for a stream.
    pub(super) fn answered(&self) {
        if self.awaited.swap(false, Relaxed) {
            self.told_awaited.store(false, Relaxed);
            self.tell(News::Answered);
        }
    }

    /// Bytes went out to the far side.
    pub(super) fn sent(&self, count: usize) {
        self.totals.bytes_out.fetch_add(count as u64, Relaxed);
        self.asked();
    }

    /// Something went out that wants an answer.
    pub(super) fn asked(&self) {
        self.awaited.store(true, Relaxed);
        if !self.told_awaited.swap(true, Relaxed) {
            self.tell(News::Awaited);
        }
    }

    /// When bytes last came in that the lane was not told of, and whether more are awaited since.
    pub(super) fn late_news(&self) -> Option<(Instant, bool)> {
        let heard = self.untold.swap(0, Relaxed);
        if heard == 0 {
            return None;
        }
        // Before the look: whoever asks from here on tells.
        self.told_awaited.store(false, Relaxed);
        let is_awaited = self.awaited.load(Relaxed);
        if is_awaited {
            self.told_awaited.store(true, Relaxed);
        }
        Some((self.born + Duration::from_millis(heard), is_awaited))
    }

    /// A stream's local reader fell far behind, or caught up.
    pub(super) fn clogged(&self, is_clogged: bool) {
        if is_clogged {
            if self.clogged.fetch_add(1, Relaxed) == 0 {
                self.tell(News::Parked(true));
            }
        } else {
            if self.clogged.fetch_sub(1, Relaxed) == 1 {
                self.tell(News::Parked(false));
            }
            self.company.notify_waiters();
        }
    }

    /// Whether the readers of all streams are far behind: nobody else waits for the session. Of
    /// newcomers that a listener over there may bring, only a single reader keeps it.
    pub(super) fn is_stuck(&self) -> bool {
        let carried = self.carried.load(SeqCst);
        let streams = carried % LISTENER;
        streams <= 1 || (carried < LISTENER && self.clogged.load(Relaxed) as u64 >= streams)
    }

    /// Waits until somebody wants more of the session.
    pub(super) async fn until_wanted(&self) {
        loop {
            let company = self.company.notified();
            if !self.is_stuck() {
                return;
            }
            company.await;
        }
    }

    /// From now on bytes of any kind are a sign of life: a ping is under way.
    pub(super) fn listen(&self) {
        self.heard.store(self.link.heard(), Relaxed);
    }

    /// The ping was answered.
    pub(super) fn stop_listening(&self) {
        self.heard.store(DEAF, Relaxed);
    }

    /// Whether bytes of any kind came in since a ping went out, or since this was last asked; a
    /// parked session is not expected to say anything.
    pub(super) fn has_heard(&self) -> bool {
        if self.link.is_parked() {
            return true;
        }
        let (before, heard) = (self.heard.load(Relaxed), self.link.heard());
        if before == DEAF || before == heard {
            return false;
        }
        self.heard.store(heard, Relaxed);
        true
    }

    /// Whether the session has died.
    pub(super) fn link_is_lost(&self) -> bool {
        self.link.is_closed()
    }

    /// A lane that is behind with its news gets the next; what is not repeated it looks up itself.
    pub(super) fn tell(&self, news: News) {
        let is_said_once = matches!(news, News::Empty | News::Parked(_));
        if self.news.try_send((self.number, news.clone())).is_ok() || !is_said_once {
            return;
        }
        self.missed.store(true, SeqCst);
        // The lane may have heard all of it between the two: then nothing would have it look. If
        // there is still no room, it looks with what it hears next.
        let _full = self.news.try_send((self.number, news));
    }

    /// Whether a stream came in after the end of the last was told; its end will be told as well.
    pub(super) fn is_outdated(&self, news: &News) -> bool {
        *news == News::Empty && !self.is_empty()
    }

    /// Whether a slow reader blocks the session.
    pub(super) fn is_clogged(&self) -> bool {
        self.clogged.load(Relaxed) > 0
    }

    /// Whether news that is said once was lost since this was last asked.
    pub(super) fn has_missed(&self) -> bool {
        self.missed.swap(false, SeqCst)
    }
}

/// A stream's place in its session.
pub(super) struct Guest {
    company: Company,
}

impl Guest {
    /// The session.
    pub(super) fn path(&self) -> &Arc<Path> {
        self.company.path()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.path().totals.streams.fetch_sub(1, Relaxed);
    }
}

/// Something beside the streams of a session.
pub(super) struct Company(Arc<Path>);

impl Company {
    /// The session.
    pub(super) fn path(&self) -> &Arc<Path> {
        &self.0
    }
}

impl Drop for Company {
    fn drop(&mut self) {
        self.0.let_go(STREAM);
    }
}

/// A listener's place in its session.
pub(super) struct Attendance(Arc<Path>);

impl Drop for Attendance {
    fn drop(&mut self) {
        self.0.let_go(LISTENER);
    }
}
