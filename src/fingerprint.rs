//! The SHA-256 of a TLS certificate, by which a gateway is known without any authority.

use std::fmt;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

/// The SHA-256 of a certificate in DER.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a certificate in DER.
    pub(crate) fn of(certificate: &[u8]) -> Self {
        let mut bytes = [0; 32];
        let hash = digest(&SHA256, certificate);
        bytes.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// Reads 64 hex digits as `openssl x509 -fingerprint`, OpenClaw and people write them: with or
    /// without colons, of either case, with or without `sha256:` before or `=` between.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        let text = text.strip_prefix("sha256 fingerprint=").unwrap_or(&text);
        let text = text.strip_prefix("sha256:").or(text.strip_prefix("sha256=")).unwrap_or(text);
        let text = text.strip_prefix("sha-256:").unwrap_or(text);
        let digits: Vec<u8> = text
            .chars()
            .filter(|letter| !matches!(letter, ':' | ' '))
            .map(|letter| letter.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect::<Option<_>>()?;
        let mut bytes = [0; 32];
        if digits.len() != bytes.len() * 2 {
            return None;
        }
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |value, digit| value << 4 | digit);
        }
        Some(Self(bytes))
    }
}

impl From<Fingerprint> for String {
    fn from(fingerprint: Fingerprint) -> Self {
        fingerprint.to_string()
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("no SHA-256 of a certificate")
    }
}

/// `sha256:` and 64 hex digits, as OpenClaw writes it.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_openssl_and_people_write_and_nothing_else() {
        let ours = Fingerprint::of(b"certificate");
        let plain = ours.to_string();
        let digits = plain.strip_prefix("sha256:").unwrap();
        let pairs: Vec<_> = digits.as_bytes().chunks(2).map(String::from_utf8_lossy).collect();
        let colons = pairs.join(":").to_ascii_uppercase();
        for text in [
            plain.clone(),
            digits.to_owned(),
            colons.clone(),
            format!("SHA256:{colons}"),
            format!("sha256 Fingerprint={colons}\n"),
        ] {
            assert_eq!(Fingerprint::parse(&text), Some(ours), "{text}");
        }
        for text in ["", "sha256:", &digits[1..], "sha1:00", &digits.replace('a', "g")[..63]] {
            assert_eq!(Fingerprint::parse(text), None, "{text}");
        }
    }
}
