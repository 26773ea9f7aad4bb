//! Lists of patterns with negation, and of networks, as ssh_config(5) has them. Pure.

use std::net::IpAddr;

pub(super) use crate::ssh::pattern::matches;

/// The longest pattern of a list that OpenSSH looks at, bytes.
const LONGEST: usize = 1022;

/// How a list of patterns judges a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A pattern with `!` matches.
    Excluded,
    /// No pattern matches.
    Unknown,
    /// A pattern matches, and none with `!`.
    Included,
}

/// Judges `text` by patterns with commas between.
pub(super) fn judge(text: &str, patterns: &str) -> Verdict {
    let mut verdict = Verdict::Unknown;
    for pattern in patterns.split(',') {
        let (negated, pattern) = match pattern.strip_prefix('!') {
            Some(pattern) => (true, pattern),
            None => (false, pattern),
        };
        if pattern.len() > LONGEST {
            return Verdict::Unknown;
        }
        if matches(pattern, text) {
            if negated {
                return Verdict::Excluded;
            }
            verdict = Verdict::Included;
        }
    }
    verdict
}

/// Whether `text` is in a list of patterns.
pub(super) fn includes(patterns: &str, text: &str) -> bool {
    judge(text, patterns) == Verdict::Included
}

/// A network: an address and how many of its bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Network {
    base: IpAddr,
    bits: u32,
}

impl Network {
    /// Reads `address` or `address/bits`; bits that do not count must be zero.
    fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let base: IpAddr = address.parse().ok()?;
        let most = if base.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => most,
        };
        (bits <= most && masked(base, bits) == number(base)).then_some(Self { base, bits })
    }

    fn holds(self, address: IpAddr) -> bool {
        self.base.is_ipv4() == address.is_ipv4() && masked(address, self.bits) == number(self.base)
    }
}

/// Networks with commas between; the error names the one that is none.
pub(super) fn networks(text: &str) -> Result<Vec<Network>, String> {
    text.split(',')
        .map(|network| {
            Network::parse(network)
                .ok_or_else(|| format!("`{}` is no network", network.escape_debug()))
        })
        .collect()
}

/// Whether one of `addresses` is in one of `networks`.
pub(super) fn any_in(networks: &[Network], addresses: &[IpAddr]) -> bool {
    addresses.iter().any(|address| networks.iter().any(|network| network.holds(*address)))
}

/// The address as a number whose highest bit is the address's first.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()) << 96,
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn masked(address: IpAddr, bits: u32) -> u128 {
    number(address) & u128::MAX.checked_shl(128 - bits).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_full_of_stars_takes_no_time() {
        assert!(!matches(&format!("{}b", "*a".repeat(500)), &"a".repeat(5000)));
    }

    #[test]
    fn a_negated_pattern_beats_the_others() {
        assert_eq!(judge("a.b", "*.b,!a.*"), Verdict::Excluded);
        assert_eq!(judge("a.b", "!x,*.b"), Verdict::Included);
        assert_eq!(judge("a.b", "!x"), Verdict::Unknown);
        assert_eq!(judge("a", "b,,c"), Verdict::Unknown);
    }

    #[test]
    fn networks_need_consistent_masks() {
        let ours: Vec<IpAddr> =
            ["10.1.2.3", "fe80::1"].iter().map(|a| a.parse().expect("an address")).collect();
        for (text, expected) in
            [("10.0.0.0/8", true), ("10.1.2.3", true), ("10.2.0.0/16", false), ("fe80::/10", true)]
        {
            assert_eq!(any_in(&networks(text).expect("networks"), &ours), expected, "{text}");
        }
        assert!(any_in(&networks("0.0.0.0/0").expect("networks"), &ours));
        for text in ["10.0.0.1/8", "10.0.0.0/33", "", "10.0.0.0/8,", "!10.0.0.0/8", "x", "::/+1"] {
            assert!(networks(text).is_err(), "{text}");
        }
    }
}
