//! The wall clock as the wire writes it.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970; 0 on a clock that stands before it.
pub(super) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A clock that is never behind the wall clock, nor behind the time that has passed since it was
/// first read: by it nothing lives longer where the wall clock is set back or the machine sleeps.
#[derive(Debug, Default)]
pub(super) struct SteadyClock {
    last: Option<(Instant, u64)>,
}

impl SteadyClock {
    /// Milliseconds since 1970.
    pub(super) fn read(&mut self, at: Instant, wall_ms: u64) -> u64 {
        let by_itself = self.last.map_or(0, |(since, then_ms)| {
            let passed = at.saturating_duration_since(since).as_millis();
            then_ms.saturating_add(u64::try_from(passed).unwrap_or(u64::MAX))
        });
        if self.last.is_none() || wall_ms > by_itself {
            self.last = Some((at, wall_ms));
        }
        by_itself.max(wall_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_steady_clock_is_behind_neither_the_wall_clock_nor_the_time_that_has_passed() {
        let (mut clock, start) = (SteadyClock::default(), tokio::time::Instant::now().into_std());
        let mut read = |seconds, wall| clock.read(start + Duration::from_secs(seconds), wall);
        assert_eq!(read(0, 100_000), 100_000);
        assert_eq!(read(1, 101_000), 101_000);
        assert_eq!(read(2, 50_000), 102_000, "set back");
        assert_eq!(read(3, 51_000), 103_000, "it goes on all the same");
        assert_eq!(read(3, 500_000), 500_000, "set, or the machine slept");
        assert_eq!(read(4, 104_000), 501_000);
    }
}
