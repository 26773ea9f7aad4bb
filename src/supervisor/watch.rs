//! Waits for what the operating system says of sleep, clocks and the network.
//!
//! On Linux nothing is asked again and again: a timer on the boot clock fires at resume, one on the
//! wall clock is cancelled by every step of it (timerfd_create(2)), a stopped process is told when
//! it goes on, and the kernel sends news of addresses and routes (rtnetlink(7)). A look at the
//! clocks every other minute stands behind them. Where there is a logind, it says beforehand that the
//! machine goes to sleep, and afterwards that it woke. Elsewhere it is one look a second.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::sleep_until,
};

use super::wake::{Clocks, Network};

#[cfg(target_os = "linux")]
mod kernel;
#[cfg(not(target_os = "linux"))]
mod kernel {
    //! No news from this system's kernel.

    /// Never there.
    pub(super) enum Kernel {}

    impl Kernel {
        pub(super) fn listen(_: std::time::Duration) -> Option<Self> {
            None
        }

        pub(super) async fn news(&mut self) {
            std::future::pending().await
        }
    }
}

#[cfg(target_os = "linux")]
mod logind;
#[cfg(not(target_os = "linux"))]
mod logind {
    //! No logind on this system.

    /// Never said.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    #[expect(dead_code, reason = "the other systems say neither")]
    pub(super) enum Word {
        Sleeps,
        Wakes,
    }

    pub(super) struct Logind;

    impl Logind {
        pub(super) fn listen() -> Self {
            Self
        }

        pub(super) fn look(&mut self) {}

        pub(super) async fn word(&mut self) -> Word {
            std::future::pending().await
        }
    }
}

use kernel::Kernel;
use logind::{Logind, Word};

/// Between two looks at the clocks where the kernel tells what happens in between.
const LOOK_BEHIND: Duration = Duration::from_secs(120);
/// Between two looks where it does not.
const LOOK_ALONE: Duration = Duration::from_secs(1);
/// Within which two sources tell of the same wake: services start again before logind speaks.
const SAME_WAKE: Duration = Duration::from_secs(30);

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Notice {
    /// The machine is about to sleep.
    pub(super) sleeps: bool,
    /// The machine or this process was away.
    pub(super) woke: Option<Wake>,
    /// Routes or addresses changed, and whether the machine has any now.
    pub(super) network: Option<bool>,
}

/// How it was away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wake {
    /// The clocks differ by so much: the machine slept or was paused, or this process was stopped.
    Slept(Duration),
    /// This process was stopped, too short for the clocks to show it.
    Continued,
    /// logind says that the machine woke, and the clocks show nothing: a sleep that was short, or
    /// that was given up once everything had been made ready for it.
    Told,
}

/// Makes one wake of what several sources tell of it.
#[derive(Debug, Default)]
struct Wakes {
    /// When the last one was noticed, unless the machine was about to sleep since.
    noticed: Option<Instant>,
}

impl Wakes {
    /// What is new at `now`, after the clocks or a signal showed `seen` and logind said `word`.
    fn news(&mut self, seen: Option<Wake>, word: Option<Word>, now: Instant) -> Option<Wake> {
        if word == Some(Word::Sleeps) {
            self.noticed = None;
        }
        let is_known = self.noticed.is_some_and(|at| now.duration_since(at) < SAME_WAKE);
        let told = (word == Some(Word::Wakes) && !is_known).then_some(Wake::Told);
        let woke = seen.or(told);
        if woke.is_some() {
            self.noticed = Some(now);
        }
        woke
    }
}

/// Why a look is made.
enum Reason {
    Continued,
    Said(Word),
    Other,
}

/// The watch over one machine.
pub(super) struct Watch {
    clocks: Clocks,
    network: Network,
    period: Duration,
    look: Instant,
    continued: Option<Signal>,
    kernel: Option<Kernel>,
    logind: Logind,
    wakes: Wakes,
}

impl Watch {
    /// Begins to watch; a source that cannot be had is done without.
    pub(super) fn start() -> Self {
        let kernel = Kernel::listen(LOOK_BEHIND);
        let period = if kernel.is_some() { LOOK_BEHIND } else { LOOK_ALONE };
        Self {
            clocks: Clocks::read(),
            network: Network::read(),
            period,
            look: Instant::now() + period,
            continued: signal(SignalKind::from_raw(nix::sys::signal::Signal::SIGCONT as i32)).ok(),
            kernel,
            logind: Logind::listen(),
            wakes: Wakes::default(),
        }
    }

    /// Whether anything but this machine could be reached at the last look.
    pub(super) fn is_up(&self) -> bool {
        self.network.is_up()
    }

    /// Waits for the next reason to look, and looks. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Notice {
        let reason = tokio::select! {
            () = told(&mut self.continued) => Reason::Continued,
            word = self.logind.word() => Reason::Said(word),
            () = news(&mut self.kernel) => Reason::Other,
            // The kernel's timer is the look where there is one.
            () = sleep_until(self.look.into()), if self.kernel.is_none() => Reason::Other,
        };
        self.logind.look();
        let now = Clocks::read();
        let slept = self.clocks.slept_until(&now, self.period).map(Wake::Slept);
        self.clocks = now;
        self.look = Instant::now() + self.period;
        let network = Network::read();
        let changed = network != self.network;
        self.network = network;
        let (continued, word) = match reason {
            Reason::Continued => (Some(Wake::Continued), None),
            Reason::Said(word) => (None, Some(word)),
            Reason::Other => (None, None),
        };
        Notice {
            sleeps: word == Some(Word::Sleeps),
            woke: self.wakes.news(slept.or(continued), word, now.monotonic),
            network: changed.then(|| self.network.is_up()),
        }
    }
}

async fn told(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => pending().await,
    }
}

async fn news(kernel: &mut Option<Kernel>) {
    match kernel {
        Some(kernel) => kernel.news().await,
        None => pending().await,
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
