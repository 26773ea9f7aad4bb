//! Notices that the machine slept or was paused, that this process was stopped, or that the
//! machine's addresses changed.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    ifaddrs::getifaddrs,
    time::{ClockId, clock_gettime},
};

/// Between two looks at the clocks.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// How far the clocks may differ, or a look be late.
const GAP: Duration = Duration::from_secs(2);

/// The three clocks at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Clocks {
    /// Stands still while the machine sleeps.
    pub(super) monotonic: Instant,
    /// Runs on while the machine sleeps.
    pub(super) boot: Duration,
    /// What people's clocks say.
    pub(super) wall: SystemTime,
}

impl Clocks {
    /// The clocks now.
    pub(super) fn read() -> Self {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        let boot = ClockId::CLOCK_BOOTTIME;
        // macOS runs its CLOCK_MONOTONIC on while it sleeps.
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        let boot = ClockId::CLOCK_MONOTONIC;
        let boot = clock_gettime(boot).map(Duration::from).unwrap_or_default();
        Self { monotonic: Instant::now(), boot, wall: SystemTime::now() }
    }

    /// How long was slept, paused or stopped between `self` and `later`, if at all.
    pub(super) fn slept_until(&self, later: &Self) -> Option<Duration> {
        let ran = later.monotonic.saturating_duration_since(self.monotonic);
        let booted = later.boot.saturating_sub(self.boot);
        let walled = later.wall.duration_since(self.wall).unwrap_or_default();
        let late = ran.saturating_sub(INTERVAL);
        let slept = booted.max(walled).saturating_sub(ran).max(late);
        (slept >= GAP).then_some(slept)
    }
}

/// The machine's addresses apart from loopback and link-local ones.
pub(super) fn addresses() -> BTreeSet<IpAddr> {
    let Ok(interfaces) = getifaddrs() else { return BTreeSet::new() };
    let addresses = interfaces.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
    });
    addresses.filter(|address| is_routable(*address)).collect()
}

fn is_routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn after(clocks: Clocks, ran: u32, booted: u32, walled: u32) -> Option<Duration> {
        clocks.slept_until(&Clocks {
            monotonic: clocks.monotonic + SECOND * ran,
            boot: clocks.boot + SECOND * booted,
            wall: clocks.wall + SECOND * walled,
        })
    }

    #[test]
    fn tells_sleep_pause_and_stop_from_a_usual_second() {
        let clocks = Clocks::read();
        assert_eq!(after(clocks, 1, 1, 1), None);
        assert_eq!(after(clocks, 2, 2, 2), None, "a busy machine");
        assert_eq!(after(clocks, 1, 31, 31), Some(SECOND * 30), "sleep");
        assert_eq!(after(clocks, 1, 1, 11), Some(SECOND * 10), "a paused virtual machine");
        assert_eq!(after(clocks, 9, 9, 9), Some(SECOND * 8), "a stopped process");
    }

    #[test]
    fn a_wall_clock_set_back_is_no_sleep() {
        let clocks = Clocks::read();
        let later = Clocks { wall: clocks.wall - SECOND * 3600, ..clocks };
        assert_eq!(clocks.slept_until(&later), None);
    }
}
