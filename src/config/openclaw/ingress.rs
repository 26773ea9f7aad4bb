//! The keys of `openclaw.json` about the ways into a gateway: TLS, proxies, Tailscale, rate limits.

use std::{
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use ipnet::{IpNet, Ipv4Net};

use super::walk::{Section, Walk};

/// The shortest time that a rate limit may name, milliseconds: with less it would limit nothing.
const SHORTEST_MS: u64 = 1_000;
/// The longest, milliseconds: thirty days.
const LONGEST_MS: u64 = 30 * 24 * 3_600 * 1_000;
/// The most attempts that a rate limit may name; each is remembered.
const MOST_ATTEMPTS: u64 = 1_000;

/// `gateway.tls`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tls {
    /// `gateway.tls.enabled`.
    pub(crate) enabled: bool,
    /// `gateway.tls.autoGenerate`: whether missing files are made.
    pub(crate) auto_generate: bool,
    /// `gateway.tls.certPath`.
    pub(crate) certificate: Option<PathBuf>,
    /// `gateway.tls.keyPath`.
    pub(crate) key: Option<PathBuf>,
    /// `gateway.tls.caPath`.
    pub(crate) authorities: Option<PathBuf>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            enabled: false,
            auto_generate: true,
            certificate: None,
            key: None,
            authorities: None,
        }
    }
}

/// `gateway.tailscale`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tailscale {
    /// `gateway.tailscale.mode`.
    pub(crate) mode: TailscaleMode,
}

/// `gateway.tailscale.mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum TailscaleMode {
    /// Nothing is published.
    #[default]
    Off,
    /// HTTPS for the tailnet.
    Serve,
    /// HTTPS for everybody.
    Funnel,
}

/// `gateway.auth.trustedProxy`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ProxyAuth {
    /// `userHeader`: the header that names the user; must be there to use the mode.
    pub(crate) user_header: Option<String>,
    /// `requiredHeaders`: what else must be there.
    pub(crate) required_headers: Vec<String>,
    /// `allowUsers`: who may come in; everybody whom the proxy names if empty.
    pub(crate) allow_users: Vec<String>,
    /// `allowLoopback`: whether the proxy may run on this machine.
    pub(crate) allow_loopback: bool,
    /// `deviceAutoApprove.enabled`, which this gateway does not do: devices ask.
    pub(crate) auto_approve: bool,
}

/// `gateway.auth.rateLimit`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RateLimit {
    /// `maxAttempts`: wrong secrets within the window until the lockout.
    pub(crate) attempts: usize,
    /// `windowMs`: how long a failure counts.
    pub(crate) window: Duration,
    /// `lockoutMs`: how long a lockout lasts.
    pub(crate) lockout: Duration,
    /// `exemptLoopback`: whether programs on this machine are only slowed, never locked out.
    pub(crate) exempt_loopback: bool,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self {
            attempts: 10,
            window: Duration::from_secs(60),
            lockout: Duration::from_secs(300),
            exempt_loopback: true,
        }
    }
}

pub(super) fn tls(walk: &mut Walk<'_>, section: &mut Section) -> Tls {
    let mut path =
        |key| walk.text(section, key).map(|path| super::super::configured::expand(&path));
    let (certificate, key, authorities) = (path("certPath"), path("keyPath"), path("caPath"));
    Tls {
        enabled: walk.flag(section, "enabled").unwrap_or(false),
        auto_generate: walk.flag(section, "autoGenerate").unwrap_or(true),
        certificate,
        key,
        authorities,
    }
}

pub(super) fn tailscale(walk: &mut Walk<'_>, section: &mut Section) -> Tailscale {
    let modes = [
        ("off", TailscaleMode::Off),
        ("serve", TailscaleMode::Serve),
        ("funnel", TailscaleMode::Funnel),
    ];
    Tailscale { mode: walk.choice(section, "mode", &modes).unwrap_or_default() }
}

pub(super) fn proxy_auth(walk: &mut Walk<'_>, section: &mut Section) -> Option<ProxyAuth> {
    Some(ProxyAuth {
        user_header: walk.text(section, "userHeader"),
        required_headers: walk.texts(section, "requiredHeaders"),
        allow_users: walk.texts(section, "allowUsers"),
        allow_loopback: walk.flag(section, "allowLoopback").unwrap_or(false),
        auto_approve: walk
            .within(section, "deviceAutoApprove", |walk, section| walk.flag(section, "enabled"))
            .unwrap_or(false),
    })
}

pub(super) fn rate_limit(walk: &mut Walk<'_>, section: &mut Section) -> RateLimit {
    let usual = RateLimit::default();
    let attempts = walk.number(section, "maxAttempts", 1, MOST_ATTEMPTS);
    let mut time =
        |key| walk.number(section, key, SHORTEST_MS, LONGEST_MS).map(Duration::from_millis);
    let (window, lockout) = (time("windowMs"), time("lockoutMs"));
    RateLimit {
        attempts: attempts.map_or(usual.attempts, |n| usize::try_from(n).unwrap_or(usize::MAX)),
        window: window.unwrap_or(usual.window),
        lockout: lockout.unwrap_or(usual.lockout),
        exempt_loopback: walk.flag(section, "exemptLoopback").unwrap_or(usual.exempt_loopback),
    }
}

impl Walk<'_> {
    /// Addresses and ranges of addresses; a mapped range stands for the IPv4 range in it.
    pub(super) fn networks(&mut self, section: &mut Section, key: &str) -> Vec<IpNet> {
        let path = section.path(key);
        let texts = self.texts(section, key).into_iter().enumerate();
        let networks = texts.filter_map(|(i, text)| {
            let network = network(text.trim());
            if network.is_none() {
                let path = format!("{path}[{i}]");
                self.wrong::<()>(&path, "an address or a range (10.0.0.0/8)", &text.into());
            }
            network
        });
        networks.collect()
    }

    fn number(&mut self, section: &mut Section, key: &str, min: u64, max: u64) -> Option<u64> {
        let value = section.take(key)?;
        match value.as_u64().filter(|number| (min..=max).contains(number)) {
            Some(number) => Some(number),
            None => self.wrong(&section.path(key), &format!("{min}..{max}"), &value),
        }
    }
}

fn network(text: &str) -> Option<IpNet> {
    let network = match text.parse::<IpNet>() {
        Ok(network) => network.trunc(),
        Err(_) => IpNet::from(text.parse::<IpAddr>().ok()?.to_canonical()),
    };
    let IpNet::V6(mapped) = network else { return Some(network) };
    let Some(address) = Ipv6Addr::to_ipv4_mapped(&mapped.addr()) else { return Some(network) };
    match mapped.prefix_len().checked_sub(96) {
        Some(length) => Ipv4Net::new(address, length).ok().map(IpNet::V4),
        None => Some(network),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{
        super::{Review, World},
        *,
    };

    #[test]
    fn a_limit_that_would_limit_nothing_is_an_issue_at_its_key() {
        let find = |_: &Path, name: &str| Err(format!("cannot read {name}"));
        let world = World { variable: &|_| None, find: &find };
        let issues = |key: &str, value: u64| {
            let text = format!("{{gateway: {{auth: {{rateLimit: {{{key}: {value}}}}}}}}}");
            let issues = Review::of(&text, Path::new("openclaw.json"), &world).issues;
            issues.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        for (key, value, is_right) in [
            ("windowMs", 0, false),
            ("windowMs", 999, false),
            ("windowMs", 1_000, true),
            ("lockoutMs", 0, false),
            ("lockoutMs", 1_000, true),
            ("lockoutMs", LONGEST_MS, true),
            ("lockoutMs", LONGEST_MS + 1, false),
            ("maxAttempts", 0, false),
            ("maxAttempts", 1, true),
            ("maxAttempts", 1_000, true),
            ("maxAttempts", 1_001, false),
        ] {
            let found = issues(key, value);
            let path = format!("gateway.auth.rateLimit.{key}");
            assert_eq!(found.is_empty(), is_right, "{key} {value}: {found}");
            assert!(is_right || found.contains(&path), "{found}");
        }
    }

    #[test]
    fn ranges_are_parsed_and_a_mapped_one_is_the_range_in_it() {
        let shown = |text: &str| network(text).map(|network| network.to_string());
        for (text, expected) in [
            ("10.0.0.1", Some("10.0.0.1/32")),
            ("10.1.2.3/8", Some("10.0.0.0/8")),
            ("::ffff:10.0.0.0/104", Some("10.0.0.0/8")),
            ("::ffff:10.0.0.1", Some("10.0.0.1/32")),
            ("::ffff:0:0/96", Some("0.0.0.0/0")),
            ("fd00::/8", Some("fd00::/8")),
            ("::1", Some("::1/128")),
            ("0x7f.1", None),
            ("10.0.0.0/33", None),
            ("localhost", None),
            ("", None),
        ] {
            assert_eq!(shown(text).as_deref(), expected, "{text}");
        }
    }
}
