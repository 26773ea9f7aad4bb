//! Addresses as the system's resolver reads them, short and odd forms included. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::Family;

/// Whether `name` can only be an address.
pub(super) fn is_one(name: &str, family: Family) -> bool {
    looks_like_one(name) || normal(name, family).is_some()
}

/// Whether no name looks like this, though it may be no good address either.
fn looks_like_one(name: &str) -> bool {
    name.contains(['%', ':']) || name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

/// The one form of an address; `None` for what is none, or none of that family.
pub(super) fn normal(name: &str, family: Family) -> Option<String> {
    let v4 = || short_v4(name).map(|address| address.to_string());
    let v6 = || name.parse::<Ipv6Addr>().ok().map(|address| address.to_string());
    match family {
        Family::V4 => v4(),
        Family::V6 => v6(),
        Family::Any => v4().or_else(v6),
    }
}

/// One to four numbers, each decimal, octal (`0` in front) or hexadecimal; the last fills what is
/// left.
fn short_v4(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u32> = text.split('.').map(part).collect::<Option<_>>()?;
    let (last, before) = parts.split_last()?;
    if before.len() > 3 || before.iter().any(|part| *part > 255) {
        return None;
    }
    let left = 32 - 8 * before.len() as u32;
    if u64::from(*last) >= 1_u64 << left {
        return None;
    }
    let front = before.iter().fold(0_u64, |number, part| number << 8 | u64::from(*part));
    u32::try_from(front << left | u64::from(*last)).ok().map(Ipv4Addr::from_bits)
}

fn part(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0x") {
        return u32::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with('+'));
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let radix = if text.len() > 1 && text.starts_with('0') { 8 } else { 10 };
    u32::from_str_radix(text, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brings_addresses_into_one_form() {
        for (name, expected) in [
            ("127.0.0.1", Some("127.0.0.1")),
            ("127.1", Some("127.0.0.1")),
            ("0x7f.1", Some("127.0.0.1")),
            ("2130706433", Some("127.0.0.1")),
            ("010.0.0.1", Some("8.0.0.1")),
            ("0:0:0:0:0:0:0:1", Some("::1")),
            ("::FFFF:1.2.3.4", Some("::ffff:1.2.3.4")),
            ("127.evil.com", None),
            ("256.1.1.1", None),
            ("1.2.3.4.5", None),
            ("1.2.3.256", None),
            ("", None),
            ("box", None),
        ] {
            assert_eq!(normal(name, Family::Any).as_deref(), expected, "{name}");
        }
        assert_eq!(normal("::1", Family::V4), None);
        assert!(is_one("fe80::1%eth0", Family::Any));
        assert!(!is_one("1.2.3.x", Family::Any));
    }
}
