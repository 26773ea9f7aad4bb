//! Failed attempts: wrong secrets are counted by address and by secret, and slowed.
//!
//! Every secret is compared, so a good one is never locked out by a bad neighbour on the same
//! address (behind a tunnel everybody is 127.0.0.1); what grows is the time until a wrong one is
//! answered. The same wrong secret again, from a client that was not told of a new one, is one
//! guess, not many.

use std::{
    collections::HashMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

/// Different wrong secrets that an address may offer in [`WINDOW`] before it is slowed.
const FREE_GUESSES: usize = 10;
/// How often the same wrong secret may come in [`WINDOW`] before it is slowed.
const FREE_REPEATS: u32 = 20;
/// How long a failure is remembered.
const WINDOW: Duration = Duration::from_secs(60);
/// How long a slowed failure waits for its answer.
const DELAY: Duration = Duration::from_secs(2);
/// Addresses remembered; the one quiet for longest is forgotten first.
const MAX_ADDRESSES: usize = 1_024;
/// Secrets remembered an address.
const MAX_SECRETS: usize = 64;

/// What to do with a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Answer now.
    Answer,
    /// Answer after this long, and say so.
    Slow(Duration),
}

/// The failures of the last minute.
pub(super) struct Throttle {
    /// Secrets are kept as digests under a key that dies with the process.
    key: hmac::Key,
    addresses: HashMap<IpAddr, Failures>,
}

struct Failures {
    latest: Instant,
    secrets: HashMap<[u8; 8], (Instant, u32)>,
}

impl Throttle {
    /// Remembers nothing yet.
    pub(super) fn new() -> Self {
        let mut seed = [0; 32];
        // Without random numbers the digests are guessable by who reads our memory, and no worse.
        let filled = SystemRandom::new().fill(&mut seed);
        tracing::trace!(filled = filled.is_ok(), "throttle keyed");
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &seed), addresses: HashMap::new() }
    }

    /// Counts a wrong `secret` from `address` at `now`.
    pub(super) fn failed(&mut self, address: IpAddr, secret: &str, now: Instant) -> Verdict {
        self.forget(now);
        let tag = hmac::sign(&self.key, secret.as_bytes());
        let mut digest = [0; 8];
        digest.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        let failures = self
            .addresses
            .entry(address.to_canonical())
            .or_insert_with(|| Failures { latest: now, secrets: HashMap::new() });
        failures.latest = now;
        let is_known = failures.secrets.contains_key(&digest);
        if !is_known && failures.secrets.len() >= MAX_SECRETS {
            return Verdict::Slow(DELAY);
        }
        let (seen, repeats) = failures.secrets.entry(digest).or_insert((now, 0));
        *seen = now;
        *repeats += 1;
        let is_slowed =
            *repeats > FREE_REPEATS || (failures.secrets.len() > FREE_GUESSES && !is_known);
        if is_slowed { Verdict::Slow(DELAY) } else { Verdict::Answer }
    }

    fn forget(&mut self, now: Instant) {
        self.addresses.retain(|_, failures| {
            failures.secrets.retain(|_, (seen, _)| now.duration_since(*seen) < WINDOW);
            !failures.secrets.is_empty()
        });
        while self.addresses.len() >= MAX_ADDRESSES {
            let quietest = self.addresses.iter().min_by_key(|(_, failures)| failures.latest);
            let Some(address) = quietest.map(|(address, _)| *address) else { return };
            self.addresses.remove(&address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn slows_guessing_but_not_the_first_mistakes_or_another_address() {
        let (mut throttle, now) = (Throttle::new(), Instant::now());
        for guess in 0..FREE_GUESSES {
            let verdict = throttle.failed(address(1), &guess.to_string(), now);
            assert_eq!(verdict, Verdict::Answer, "{guess}");
        }
        assert_eq!(throttle.failed(address(1), "one more", now), Verdict::Slow(DELAY));
        assert_eq!(throttle.failed(address(2), "one more", now), Verdict::Answer);
    }

    #[test]
    fn a_client_with_an_old_secret_slows_itself_and_no_neighbour() {
        let (mut throttle, now) = (Throttle::new(), Instant::now());
        for _ in 0..FREE_REPEATS {
            assert_eq!(throttle.failed(address(1), "old", now), Verdict::Answer);
        }
        assert_eq!(throttle.failed(address(1), "old", now), Verdict::Slow(DELAY));
        assert_eq!(throttle.failed(address(1), "mistyped", now), Verdict::Answer);
    }

    #[test]
    fn forgets_after_a_minute_and_never_grows_without_bound() {
        let (mut throttle, now) = (Throttle::new(), Instant::now());
        for guess in 0..200 {
            throttle.failed(address(1), &guess.to_string(), now);
        }
        assert_eq!(throttle.failed(address(1), "next", now + WINDOW), Verdict::Answer);
        for number in 0..3_000_u32 {
            throttle.failed(IpAddr::from(number.to_be_bytes()), "x", now);
        }
        assert!(throttle.addresses.len() <= MAX_ADDRESSES);
    }
}
