//! Clients that ask again and again through the local port, and count every request.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{net::Net, support::status_of};

/// How many ask at once.
const CALLERS: usize = 4;
/// How long each rests between two requests.
const PACE: Duration = Duration::from_millis(20);
/// Longer than the 30 s for which a connection is held.
const PATIENCE: Duration = Duration::from_secs(45);
/// A connection that waited less was turned away too early.
const HOLD: Duration = Duration::from_secs(29);

/// One request on a connection of its own.
struct Request {
    began: Instant,
    ended: Instant,
    outcome: io::Result<u16>,
}

/// Callers at work.
pub(crate) struct Callers {
    net: Net,
    port: u16,
    asked: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Callers {
    /// Callers in `net` that ask the gateway behind `port`.
    pub(crate) fn start(net: &Net, port: u16) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..CALLERS).map(|_| {
            let (log, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
            net.spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let request = Request::made(port, PATIENCE);
                    locked(&log).push(request);
                    thread::sleep(PACE);
                }
            })
        });
        let threads = threads.collect();
        Self { net: net.share(), port, asked, stop, threads }
    }

    /// Asks anew until a request succeeds; says how long after `instant` that was.
    #[track_caller]
    pub(crate) fn succeed_after(&self, instant: Instant, limit: Duration) -> Duration {
        let success = self.succeeded_after(instant, limit);
        success.unwrap_or_else(|| panic!("no request succeeds within {limit:?}"))
    }

    /// The same, but `None` if the time is up before.
    ///
    /// The callers themselves may all hang in connections that were open before something broke.
    pub(crate) fn succeeded_after(&self, instant: Instant, limit: Duration) -> Option<Duration> {
        let start = Instant::now();
        while start.elapsed() < limit {
            let request = self.net.inside(|| Request::made(self.port, limit));
            let success = request.is_served().then(|| request.ended - instant);
            locked(&self.asked).push(request);
            if success.is_some() {
                return success;
            }
        }
        None
    }

    /// Stops asking, and waits for the last answers.
    pub(crate) fn end(self) -> Account {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a caller's thread");
        }
        let asked = std::mem::take(&mut *locked(&self.asked));
        Account(asked)
    }
}

/// All that was asked, and what came of it.
pub(crate) struct Account(Vec<Request>);

/// The moments at which open connections may have been cut: from just before to just after.
pub(crate) type Breaks = [(Instant, Instant)];

impl Account {
    /// Fails unless every request was served, but for those that were in flight at a break.
    #[track_caller]
    pub(crate) fn all_served_but_those_in_flight_at(&self, breaks: &Breaks) {
        let bad = self.wrong_but_in_flight_at(breaks);
        assert!(bad.is_empty(), "{self}; wrong: {bad:#?}");
    }

    /// The same where the outage was longer than the hold: a refusal at its end is right.
    #[track_caller]
    pub(crate) fn all_served_or_held_to_the_end(&self, breaks: &Breaks) {
        let held_out = |it: &Request| matches!(it.outcome, Ok(503)) && it.ended - it.began >= HOLD;
        let bad = self.wrong(breaks, held_out);
        assert!(bad.is_empty(), "{self}; wrong: {bad:#?}");
    }

    /// The requests that were not served and not in flight at a break.
    pub(crate) fn wrong_but_in_flight_at(&self, breaks: &Breaks) -> Vec<String> {
        self.wrong(breaks, |_| false)
    }

    fn wrong(&self, breaks: &Breaks, allowed: impl Fn(&Request) -> bool) -> Vec<String> {
        let first = self.0.first().map(|request| request.began);
        let wrong = self.0.iter().filter(|request| {
            let in_flight = breaks
                .iter()
                .any(|(before, after)| request.began <= *after && request.ended >= *before);
            let excused = in_flight && !request.is_refused();
            !(request.is_served() || excused || allowed(request))
        });
        let at = |instant: Instant| first.map(|first| instant - first).unwrap_or_default();
        wrong
            .map(|it| format!("{:?} from {:?} to {:?}", it.outcome, at(it.began), at(it.ended)))
            .collect()
    }
}

impl Request {
    /// Asks the gateway behind `port`.
    fn made(port: u16, limit: Duration) -> Self {
        let began = Instant::now();
        let outcome = status_of(port, "/healthz", limit);
        Self { began, ended: Instant::now(), outcome }
    }

    fn is_served(&self) -> bool {
        matches!(self.outcome, Ok(200))
    }

    fn is_refused(&self) -> bool {
        self.outcome.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let served = self.0.iter().filter(|it| it.is_served()).count();
        let refused = self.0.iter().filter(|it| it.is_refused()).count();
        let longest = self.0.iter().map(|it| it.ended - it.began).max().unwrap_or_default();
        let asked = self.0.len();
        write!(f, "{asked} requests, {served} served, {refused} refused, longest {longest:?}")
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
