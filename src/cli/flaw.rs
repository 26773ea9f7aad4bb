//! What makes a secret weak. Pure.

use std::fmt;

/// A token or password shorter than this can be guessed by whoever may try for a while.
const SHORTEST: usize = 16;
/// What people type when they mean to change it later.
const KNOWN: [&str; 12] = [
    "changeme",
    "change-me",
    "token",
    "password",
    "secret",
    "openclaw",
    "admin",
    "test",
    "gateway",
    "default",
    "example",
    "123456",
];

/// Why a secret is weak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Nothing is there.
    Empty,
    /// It has only so many characters.
    Short(usize),
    /// Everybody tries it first.
    Known,
    /// It is made of a few characters.
    Monotone,
}

/// Why a secret is weak, if it is.
pub(super) fn flaw(secret: &str) -> Option<Flaw> {
    let lower = secret.trim().to_ascii_lowercase();
    if KNOWN.iter().any(|known| lower == *known || lower == format!("my-{known}")) {
        return Some(Flaw::Known);
    }
    if lower.is_empty() {
        return Some(Flaw::Empty);
    }
    if lower.len() < SHORTEST {
        return Some(Flaw::Short(lower.len()));
    }
    let mut letters: Vec<char> = lower.chars().collect();
    letters.sort_unstable();
    letters.dedup();
    (letters.len() < 6).then_some(Flaw::Monotone)
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("is empty"),
            Self::Short(length) => write!(f, "has only {length} characters"),
            Self::Known => f.write_str("is one that everybody tries first"),
            Self::Monotone => f.write_str("is made of a few characters only"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_guessed_is_weak() {
        assert_eq!(flaw("changeme"), Some(Flaw::Known));
        assert_eq!(flaw("Password\n"), Some(Flaw::Known));
        assert_eq!(flaw("short"), Some(Flaw::Short(5)));
        assert_eq!(flaw("\n"), Some(Flaw::Empty));
        assert_eq!(flaw("aaaaaaaaaaaaaaaaaaaaaaaa"), Some(Flaw::Monotone));
        assert_eq!(flaw("KqHk0JX5rn1F4pO9mQ2c"), None);
    }
}
