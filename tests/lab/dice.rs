//! Chance that can be had again: the same seed gives the same faults.

use std::{fmt, time::SystemTime};

use crate::tier;

/// The seed of the quick tier, so that a change and not the dice decides.
const QUICK: u64 = 4;

/// A sequence of numbers that a seed decides (`SplitMix64`).
pub(crate) struct Dice {
    seed: u64,
    state: u64,
}

impl Dice {
    /// From `OPENCLAW_LAB_SEED`, else a fixed seed in the quick tier and another one each time in
    /// the long tier; says which.
    pub(crate) fn cast(what: &str) -> Self {
        let chosen = std::env::var("OPENCLAW_LAB_SEED").ok();
        let chosen = chosen.map(|text| text.parse().expect("OPENCLAW_LAB_SEED is a number"));
        let seed = chosen.unwrap_or_else(|| if tier::is_long() { by_clock() } else { QUICK });
        let dice = Self { seed, state: seed };
        eprintln!("{what}: {dice}");
        dice
    }

    /// Dice of their own for somebody who throws at the same time.
    #[allow(dead_code, reason = "the laboratory throws one after another")]
    pub(crate) fn another(&mut self) -> Self {
        Self { seed: self.seed, state: self.below(u64::MAX) }
    }

    /// A number below `limit`.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit.max(1)
    }
}

fn by_clock() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    now.as_secs()
}

impl fmt::Display for Dice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OPENCLAW_LAB_SEED={}", self.seed)
    }
}
