//! Failed attempts: wrong secrets are counted by who offers them, slowed, and shut out for a while.
//!
//! Behind a tunnel or a router everybody has one address, so a bad neighbour must not lock a good
//! one out: a device that is paired and signs stands for itself, and programs on this machine are
//! slowed and no more, unless the configuration says otherwise. A web page has no such privilege.
//! The same wrong secret again, from a client that was not told of a new one, is one guess.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, Instant},
};

use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};

use url::{Host, Url};

use super::admission::PeerInfo;
use crate::{config::RateLimit, protocol::Connect};

/// How often the same wrong secret may come within the window before it is slowed.
const FREE_REPEATS: u32 = 20;
/// How long a slowed failure waits for its answer.
const DELAY: Duration = Duration::from_secs(2);
/// Culprits remembered; the one quiet for longest is forgotten first, one that is shut out last.
const MAX_CULPRITS: usize = 1_024;
/// Secrets remembered of a culprit, beside the limit.
const MAX_SECRETS: usize = 64;

/// What to do with a failed attempt, the mildest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Verdict {
    /// Answer now.
    Answer,
    /// Answer after this long, and say so.
    Slow(Duration),
    /// Shut out for this long from now.
    Shut(Duration),
}

/// Whom a failed attempt counts against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Culprit {
    who: Who,
    with: With,
    /// Whether it is a program on this machine, which is slowed and not shut out.
    is_here: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Who {
    /// An address; of IPv6 the network of one subscriber.
    Address(IpAddr),
    /// A web page in a browser of this machine, by the host of its origin.
    Page(String),
    /// A paired device that signed.
    Device(String),
}

/// What it was tried with; each is counted on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum With {
    /// The gateway's secret.
    Shared,
    /// A device's token.
    DeviceToken,
    /// A setup code.
    Code,
}

/// A secret that was compared and was wrong, by the field of `connect.auth` that it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// `token`, compared with the gateway's secret.
    Token,
    /// `password`, compared with the gateway's secret.
    Password,
    /// `deviceToken`.
    DeviceToken,
    /// `bootstrapToken`.
    Code,
}

impl Wrong {
    /// What it was tried as.
    pub(super) fn with(self) -> With {
        match self {
            Self::Token | Self::Password => With::Shared,
            Self::DeviceToken => With::DeviceToken,
            Self::Code => With::Code,
        }
    }

    /// Its text in the `connect` that brought it.
    pub(super) fn text(self, connect: &Connect) -> &str {
        let secret = connect.auth.as_ref().and_then(|auth| match self {
            Self::Token => auth.token.as_ref(),
            Self::Password => auth.password.as_ref(),
            Self::DeviceToken => auth.device_token.as_ref(),
            Self::Code => auth.bootstrap_token.as_ref(),
        });
        secret.map(|secret| secret.expose()).unwrap_or_default()
    }
}

impl Culprit {
    /// Whoever comes from there.
    pub(super) fn at(peer: &PeerInfo, with: With) -> Self {
        let who = match &peer.origin {
            // Behind a proxy on this machine everybody may claim any origin.
            Some(origin) if peer.is_direct_loopback() => Who::Page(page(origin)),
            Some(_) | None => Who::Address(subscriber(peer.address)),
        };
        Self { who, with, is_here: peer.is_direct_loopback() && peer.origin.is_none() }
    }

    /// The same, known as the paired device whose key signed.
    pub(super) fn device(self, id: &str) -> Self {
        Self { who: Who::Device(id.to_owned()), ..self }
    }

    /// The same, trying it with something else.
    pub(super) fn trying(&self, with: With) -> Self {
        Self { with, ..self.clone() }
    }
}

/// The host of an origin. A page may choose the port and the name of this machine, so they are one;
/// other hosts are those of the configuration.
fn page(origin: &str) -> String {
    let url = Url::parse(origin).ok();
    match url.as_ref().and_then(Url::host) {
        Some(Host::Domain(name)) => name.to_ascii_lowercase(),
        Some(Host::Ipv4(address)) if !address.is_loopback() => address.to_string(),
        Some(Host::Ipv6(address)) if !address.is_loopback() => address.to_string(),
        Some(Host::Ipv4(_) | Host::Ipv6(_)) | None => "localhost".to_owned(),
    }
}

/// Whom an address stands for: the network that one subscriber usually has for himself, and this
/// machine, whose programs may choose among sixteen million addresses.
fn subscriber(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address if address.is_loopback() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        address @ IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// The failures within the window.
pub(super) struct Throttle {
    limit: RateLimit,
    /// Secrets are kept as digests under a key that dies with the process.
    key: hmac::Key,
    culprits: HashMap<Culprit, Failures>,
}

struct Failures {
    latest: Instant,
    /// Until when it is shut out.
    shut: Option<Instant>,
    secrets: HashMap<[u8; 8], (Instant, u32)>,
}

impl Throttle {
    /// Remembers nothing yet.
    pub(super) fn new(limit: RateLimit) -> Self {
        let mut seed = [0; 32];
        // Without random numbers the digests are guessable by who reads our memory, and no worse.
        let filled = SystemRandom::new().fill(&mut seed);
        tracing::trace!(filled = filled.is_ok(), "throttle keyed");
        let key = hmac::Key::new(hmac::HMAC_SHA256, &seed);
        Self { limit, key, culprits: HashMap::new() }
    }

    /// Counts by another limit from now on; who is shut out stays so for as long as he was told.
    pub(super) fn obey(&mut self, limit: RateLimit) {
        self.limit = limit;
    }

    /// How long this one is still shut out: what it offers is not even compared.
    pub(super) fn shut_out(&self, culprit: &Culprit, now: Instant) -> Option<Duration> {
        let until = self.culprits.get(culprit)?.shut?;
        until.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Counts a wrong `secret` of `culprit` at `now`.
    pub(super) fn failed(&mut self, culprit: &Culprit, secret: &str, now: Instant) -> Verdict {
        self.forget(now);
        let tag = hmac::sign(&self.key, secret.as_bytes());
        let mut digest = [0; 8];
        digest.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        let limit = self.limit;
        let is_exempt = culprit.is_here && limit.exempt_loopback;
        let failures = self.culprits.entry(culprit.clone()).or_insert_with(|| Failures {
            latest: now,
            shut: None,
            secrets: HashMap::new(),
        });
        failures.latest = now;
        let is_known = failures.secrets.contains_key(&digest);
        // One more than can be remembered is a guess all the same.
        let is_beyond = !is_known && failures.secrets.len() >= MAX_SECRETS.max(limit.attempts);
        let mut is_stubborn = false;
        if !is_beyond {
            let (seen, repeats) = failures.secrets.entry(digest).or_insert((now, 0));
            *seen = now;
            *repeats += 1;
            is_stubborn = *repeats > FREE_REPEATS;
        }
        let guesses = failures.secrets.len() + usize::from(is_beyond);
        if !is_known && guesses >= limit.attempts && !is_exempt && !limit.lockout.is_zero() {
            failures.shut = Some(now + limit.lockout);
            return Verdict::Shut(limit.lockout);
        }
        let is_guessing = !is_known && guesses > limit.attempts;
        if is_stubborn || is_guessing { Verdict::Slow(DELAY) } else { Verdict::Answer }
    }

    fn forget(&mut self, now: Instant) {
        let window = self.limit.window;
        self.culprits.retain(|_, failures| {
            failures.secrets.retain(|_, (seen, _)| now.duration_since(*seen) < window);
            failures.shut = failures.shut.filter(|until| *until > now);
            failures.shut.is_some() || !failures.secrets.is_empty()
        });
        while self.culprits.len() >= MAX_CULPRITS {
            let key = |failures: &Failures| (failures.shut.is_some(), failures.latest);
            let quietest = self.culprits.iter().min_by_key(|(_, failures)| key(failures));
            let Some(culprit) = quietest.map(|(culprit, _)| culprit.clone()) else { return };
            self.culprits.remove(&culprit);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FREE_GUESSES: usize = 10;
    const MINUTE: Duration = Duration::from_secs(60);

    fn peer(address: &str) -> PeerInfo {
        PeerInfo { address: address.parse().unwrap(), ..PeerInfo::loopback() }
    }

    fn at(address: &str) -> Culprit {
        Culprit::at(&peer(address), With::Shared)
    }

    fn throttle() -> (Throttle, Instant) {
        (Throttle::new(RateLimit::default()), Instant::now())
    }

    /// Guesses until it is shut out; how often it was answered before.
    fn guesses(throttle: &mut Throttle, culprit: &Culprit, now: Instant) -> usize {
        (0..1_000)
            .position(|guess| {
                matches!(throttle.failed(culprit, &guess.to_string(), now), Verdict::Shut(_))
            })
            .expect("it is shut out in the end")
    }

    #[test]
    fn programs_of_this_machine_are_slowed_and_never_shut_out() {
        let (mut throttle, now) = throttle();
        let here = at("127.0.0.1");
        for guess in 0..FREE_GUESSES {
            assert_eq!(throttle.failed(&here, &guess.to_string(), now), Verdict::Answer, "{guess}");
        }
        for guess in FREE_GUESSES..200 {
            let verdict = throttle.failed(&here, &guess.to_string(), now);
            assert_eq!(verdict, Verdict::Slow(DELAY), "{guess}");
        }
        assert_eq!(throttle.shut_out(&here, now), None);
    }

    #[test]
    fn others_are_shut_out_for_as_long_as_it_says_and_nobody_else_is() {
        let (mut throttle, now) = throttle();
        let there = at("192.0.2.1");
        assert_eq!(guesses(&mut throttle, &there, now), FREE_GUESSES - 1);
        let lockout = RateLimit::default().lockout;
        assert_eq!(throttle.shut_out(&there, now), Some(lockout));
        assert_eq!(throttle.shut_out(&there, now + lockout), None);
        // Another address, another kind of secret, and a paired device at the same address.
        assert_eq!(throttle.shut_out(&at("192.0.2.2"), now), None);
        let token = Culprit::at(&peer("192.0.2.1"), With::DeviceToken);
        assert_eq!(throttle.shut_out(&token, now), None);
        assert_eq!(throttle.shut_out(&there.clone().device("d1"), now), None);
        // A device is shut out by its own guesses alone.
        let device = there.device("d2");
        guesses(&mut throttle, &device, now);
        assert!(throttle.shut_out(&device, now).is_some());
    }

    #[test]
    fn a_page_is_throttled_on_loopback_too_and_by_its_origin() {
        let (mut throttle, now) = throttle();
        let page = |origin: &str| {
            let origin = Some(origin.to_owned());
            Culprit::at(&PeerInfo { origin, ..PeerInfo::loopback() }, With::Shared)
        };
        guesses(&mut throttle, &page("http://localhost:3000"), now);
        for here in
            ["http://LOCALHOST:4000", "http://127.0.0.1:1", "https://127.9.9.9", "http://[::1]"]
        {
            assert!(throttle.shut_out(&page(here), now).is_some(), "{here}");
        }
        assert_eq!(throttle.shut_out(&page("https://control.example.com"), now), None);
        assert_eq!(throttle.shut_out(&at("127.0.0.1"), now), None);
    }

    #[test]
    fn who_comes_through_a_proxy_on_this_machine_is_one_whatever_page_he_claims_to_be() {
        let page = |origin: &str| {
            let origin = Some(origin.to_owned());
            let peer = PeerInfo { origin, is_forwarded: true, ..PeerInfo::loopback() };
            Culprit::at(&peer, With::Shared)
        };
        assert_eq!(page("http://127.0.0.1:1"), page("https://control.example.com"));
        assert_ne!(
            page("http://127.0.0.1:1"),
            at("127.0.0.1"),
            "programs are not shut out with him"
        );
    }

    #[test]
    fn a_guesser_who_comes_again_after_each_lockout_is_shut_out_again_however_long() {
        let lockout = Duration::from_secs(1);
        let window = Duration::from_secs(3_600);
        let limit = RateLimit { lockout, window, attempts: 2, ..RateLimit::default() };
        let (mut throttle, now) = (Throttle::new(limit), Instant::now());
        for guess in 1..200_u32 {
            let verdict =
                throttle.failed(&at("192.0.2.1"), &guess.to_string(), now + lockout * guess);
            let expected = if guess < 2 { Verdict::Answer } else { Verdict::Shut(lockout) };
            assert_eq!(verdict, expected, "{guess}");
        }
    }

    #[test]
    fn loopback_counts_like_any_other_where_the_configuration_says_so() {
        let limit = RateLimit { exempt_loopback: false, attempts: 3, ..RateLimit::default() };
        let (mut throttle, now) = (Throttle::new(limit), Instant::now());
        assert_eq!(guesses(&mut throttle, &at("127.0.0.1"), now), 2);
        for address in ["127.0.0.1", "127.0.0.2", "127.255.0.9", "::1", "::ffff:127.0.0.3"] {
            assert!(throttle.shut_out(&at(address), now).is_some(), "{address}");
        }
        // What came through a proxy was never exempt.
        let forwarded = PeerInfo { is_forwarded: true, ..PeerInfo::loopback() };
        let forwarded = Culprit::at(&forwarded, With::Shared);
        let (mut throttle, now) = (Throttle::new(RateLimit::default()), Instant::now());
        guesses(&mut throttle, &forwarded, now);
        assert!(throttle.shut_out(&forwarded, now).is_some());
    }

    #[test]
    fn another_limit_counts_from_then_on_and_frees_nobody() {
        let (mut throttle, now) = throttle();
        guesses(&mut throttle, &at("192.0.2.1"), now);
        for guess in 0..4 {
            throttle.failed(&at("192.0.2.2"), &guess.to_string(), now);
        }
        let lockout = Duration::from_secs(7);
        throttle.obey(RateLimit { attempts: 3, lockout, ..RateLimit::default() });
        assert_eq!(throttle.shut_out(&at("192.0.2.1"), now), Some(RateLimit::default().lockout));
        assert_eq!(throttle.shut_out(&at("192.0.2.2"), now), None);
        let next = throttle.failed(&at("192.0.2.2"), "next", now);
        assert_eq!(next, Verdict::Shut(lockout), "what was counted before still is");
    }

    #[test]
    fn a_client_with_an_old_secret_slows_itself_and_no_neighbour() {
        let (mut throttle, now) = throttle();
        for _ in 0..FREE_REPEATS {
            assert_eq!(throttle.failed(&at("192.0.2.1"), "old", now), Verdict::Answer);
        }
        assert_eq!(throttle.failed(&at("192.0.2.1"), "old", now), Verdict::Slow(DELAY));
        assert_eq!(throttle.failed(&at("192.0.2.1"), "mistyped", now), Verdict::Answer);
    }

    #[test]
    fn forgets_after_the_window_and_never_grows_without_bound() {
        let (mut throttle, now) = throttle();
        for guess in 0..200 {
            throttle.failed(&at("127.0.0.1"), &guess.to_string(), now);
        }
        assert_eq!(throttle.failed(&at("127.0.0.1"), "next", now + MINUTE), Verdict::Answer);
        guesses(&mut throttle, &at("192.0.2.1"), now);
        for number in 0..3_000_u32 {
            let address = IpAddr::from((0x0a00_0000 + number).to_be_bytes()).to_string();
            throttle.failed(&at(&address), "x", now);
        }
        assert!(throttle.culprits.len() <= MAX_CULPRITS);
        assert!(throttle.shut_out(&at("192.0.2.1"), now).is_some(), "a flood frees nobody");
    }

    #[test]
    fn a_subscriber_of_ipv6_is_one_however_many_addresses_he_has() {
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:ffff::9"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
    }
}
