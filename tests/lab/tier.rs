//! How much is tried: a quick tier for every change, a long one by one word.

use std::time::Duration;

/// Whether `OPENCLAW_LAB` asks for the long tier.
pub(crate) fn is_long() -> bool {
    std::env::var("OPENCLAW_LAB").as_deref() == Ok("long")
}

/// A count or another measure of this tier.
pub(crate) fn of<T>(quick: T, long: T) -> T {
    if is_long() { long } else { quick }
}

/// So many seconds of this tier.
pub(crate) fn seconds(quick: u64, long: u64) -> Duration {
    Duration::from_secs(of(quick, long))
}
