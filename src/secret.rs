//! Text that is wiped from memory when dropped and prints as `***`.

use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A token, password or passphrase.
///
/// Serialising writes the text itself: only credential files and the control socket may do so.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes the text over.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// A new one of 32 random bytes in base64url; `None` where the system has no random numbers.
    pub(crate) fn random() -> Option<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        loop {
            SystemRandom::new().fill(bytes.as_mut_slice()).ok()?;
            let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
            // On a command line it would read as an option.
            if !text.starts_with('-') {
                return Some(Self::new(text.as_str()));
            }
        }
    }

    /// The text, for the one place that must send or store it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }

    /// Whether `other` is the same text; takes the same time wherever they differ.
    pub(crate) fn matches(&self, other: &str) -> bool {
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_prints_its_text() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "***");
    }

    #[test]
    fn a_random_one_never_reads_as_an_option() {
        assert!((0..1_000).all(|_| !Secret::random().unwrap().expose().starts_with('-')));
    }

    #[test]
    fn a_random_one_is_long_and_never_the_same() {
        let (one, other) = (Secret::random().unwrap(), Secret::random().unwrap());
        assert_eq!(one.expose().len(), 43);
        assert!(!one.matches(other.expose()));
    }

    #[test]
    fn matches_only_the_same_text() {
        let secret = Secret::new("hunter2");
        assert!(secret.matches("hunter2"));
        assert!(!secret.matches("hunter") && !secret.matches("hunter22") && !secret.matches(""));
    }
}
