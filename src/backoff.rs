//! How long to wait before the next attempt: growing steps with full jitter from a seed.

use std::time::Duration;

/// The longest wait before attempt 1, 2, …; the last one for all that follow.
const STEPS: [Duration; 9] = [
    Duration::ZERO,
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
    Duration::from_secs(30),
];

/// The shortest wait from the tenth failure on: a host that stays away is dialled at most forty
/// times in ten minutes, the first quick tries included.
const FLOOR: Duration = Duration::from_secs(20);

/// Counts failures and names the wait before the next attempt.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    failures: usize,
    state: u64,
}

impl Backoff {
    /// Starts without failures; `seed` decides all jitter.
    pub(crate) fn new(seed: u64) -> Self {
        Self { failures: 0, state: seed }
    }

    /// Forgets the failures: the next wait is none.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait before the next attempt, evenly spread between nothing and the step's length;
    /// once the last step is behind, never less than [`FLOOR`].
    pub(crate) fn next_wait(&mut self) -> Duration {
        let step = STEPS.get(self.failures).or(STEPS.last()).copied().unwrap_or_default();
        let floor = if self.failures < STEPS.len() { Duration::ZERO } else { FLOOR };
        self.failures = self.failures.saturating_add(1);
        floor + step.saturating_sub(floor).mul_f64(self.fraction())
    }

    /// A number from 0 to 1 (SplitMix64, Steele et al. 2014).
    fn fraction(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        f64::from(u32::try_from(z >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_within_each_step_and_never_more_than_thirty_seconds() {
        for seed in 0..200 {
            let mut backoff = Backoff::new(seed);
            for attempt in 0..40 {
                let wait = backoff.next_wait();
                assert!(wait <= STEPS[attempt.min(STEPS.len() - 1)], "seed {seed}: {wait:?}");
                assert!(wait >= FLOOR || attempt < STEPS.len(), "seed {seed}: {wait:?}");
            }
            backoff.reset();
            assert_eq!(backoff.next_wait(), Duration::ZERO);
        }
    }

    #[test]
    fn spreads_its_waits() {
        let waits: Vec<_> = (0..50)
            .map(|seed| {
                let mut backoff = Backoff::new(seed);
                (0..9).map(|_| backoff.next_wait()).last().unwrap()
            })
            .collect();
        assert!(waits.iter().any(|wait| *wait < Duration::from_secs(8)));
        assert!(waits.iter().any(|wait| *wait > Duration::from_secs(22)));
    }
}
