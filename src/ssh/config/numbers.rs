//! Numbers as OpenSSH reads them: ports, times, bytes, permission bits. Pure.

/// The most seconds of a time, and the largest number.
const LARGEST: u64 = i32::MAX as u64;

/// A number as strtonum(3) takes it: blanks in front and a plus sign are fine.
pub(super) fn number(word: &str) -> Option<u64> {
    let digits = word.trim_start_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c']);
    let digits = digits.strip_prefix('+').unwrap_or(digits);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().filter(|number| *number <= LARGEST)
}

/// A port that is not 0.
pub(super) fn port(word: &str) -> Option<String> {
    let port = number(word).filter(|port| (1..=65535).contains(port));
    port.map(|port| port.to_string())
}

/// Seconds of a time such as `90`, `1h30m` or `2w`.
pub(super) fn seconds(word: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut rest = word;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at_checked(end)?;
        let unit = after.chars().next();
        let factor = match unit.map(|c| c.to_ascii_lowercase()) {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 60 * 60,
            Some('d') => 24 * 60 * 60,
            Some('w') => 7 * 24 * 60 * 60,
            Some(_) => return None,
        };
        let part = digits.parse::<u64>().ok()?.checked_mul(factor)?;
        total = total.checked_add(part).filter(|total| *total <= LARGEST)?;
        rest = after.get(unit.map_or(0, char::len_utf8)..)?;
    }
    (!word.is_empty()).then_some(total)
}

/// A number of bytes with a unit, and perhaps a fraction before it.
pub(super) fn scaled(word: &str) -> Option<u64> {
    let (digits, shift) = match word.char_indices().next_back()? {
        (at, unit) if unit.is_ascii_alphabetic() => {
            (word.get(..at)?, "bkmgtpe".find(unit.to_ascii_lowercase())? * 10)
        }
        _ => (word, 0),
    };
    let digits = digits.trim_start().strip_prefix('+').unwrap_or(digits.trim_start());
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let is_number = |text: &str| text.len() <= 18 && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(fraction) || digits.is_empty() {
        return None;
    }
    let parsed = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let unit = 1_u128 << shift;
    let parts = parsed(fraction)?.checked_mul(unit)? / 10_u128.checked_pow(fraction.len() as u32)?;
    let bytes = parsed(whole)?.checked_mul(unit)?.checked_add(parts)?;
    u64::try_from(bytes).ok().filter(|bytes| i64::try_from(*bytes).is_ok())
}

/// Permission bits.
pub(super) fn mask(word: &str) -> Option<String> {
    let digits: String = word.chars().take_while(|c| ('0'..='7').contains(c)).collect();
    let mask = u32::from_str_radix(&digits, 8).ok().filter(|mask| *mask <= 0o777)?;
    Some(format!("0{mask:o}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_a_limit() {
        for (text, expected) in [
            ("0", Some(0)),
            ("90", Some(90)),
            ("1h30M5s", Some(5405)),
            ("2w1d", Some(15 * 24 * 60 * 60)),
            ("2147483647", Some(LARGEST)),
            ("2147483648", None),
            ("4000w", None),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1 m", None),
            ("1y", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn bytes_have_units_and_fractions() {
        for (text, expected) in [
            ("16", Some(16)),
            ("1k", Some(1024)),
            ("1.5M", Some(3 << 19)),
            ("4G", Some(4 << 30)),
            ("9999999E", None),
            ("1kk", None),
            ("1.2.3", None),
            ("", None),
            ("k", None),
        ] {
            assert_eq!(scaled(text), expected, "{text}");
        }
    }

    #[test]
    fn numbers_ports_and_masks_keep_their_limits() {
        assert_eq!(number(" +010"), Some(10));
        assert_eq!((number("-1"), number("1x"), number("")), (None, None, None));
        assert_eq!(port("65535").as_deref(), Some("65535"));
        assert_eq!((port("0"), port("65536")), (None, None));
        assert_eq!(mask("0177").as_deref(), Some("0177"));
        assert_eq!((mask("1777"), mask("9")), (None, None));
    }
}
