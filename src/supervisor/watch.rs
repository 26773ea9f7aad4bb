//! Waits for what the operating system says of sleep, clocks and the network.
//!
//! On Linux nothing is asked again and again: a timer on the boot clock fires at resume, one on the
//! wall clock is cancelled by every step of it (timerfd_create(2)), a stopped process is told when
//! it goes on, and the kernel sends news of addresses and routes (rtnetlink(7)). A look at the
//! clocks every half minute stands behind them. Elsewhere it is one look a second.

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

use kernel::Kernel;

/// Between two looks at the clocks where the kernel tells what happens in between.
const LOOK_BEHIND: Duration = Duration::from_secs(30);
/// Between two looks where it does not.
const LOOK_ALONE: Duration = Duration::from_secs(1);

/// What a look found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Notice {
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
}

/// The watch over one machine.
pub(super) struct Watch {
    clocks: Clocks,
    network: Network,
    period: Duration,
    look: Instant,
    continued: Option<Signal>,
    kernel: Option<Kernel>,
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
        }
    }

    /// Waits for the next reason to look, and looks. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Notice {
        let continued = tokio::select! {
            () = told(&mut self.continued) => true,
            () = news(&mut self.kernel) => false,
            // The kernel's timer is the look where there is one.
            () = sleep_until(self.look.into()), if self.kernel.is_none() => false,
        };
        let now = Clocks::read();
        let slept = self.clocks.slept_until(&now, self.period).map(Wake::Slept);
        self.clocks = now;
        self.look = Instant::now() + self.period;
        let network = Network::read();
        let changed = network != self.network;
        self.network = network;
        Notice {
            woke: slept.or(continued.then_some(Wake::Continued)),
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
