//! Holds RSA keys to `RequiredRSASize` of ssh_config(5). Pure.

use super::resolve::Hop;

/// `RequiredRSASize` when nobody says otherwise.
const LEAST: u64 = 1024;
/// The type of a plain RSA key on the wire (RFC 4253 section 6.6).
const RSA: &[u8] = b"ssh-rsa";

/// Why a key is too short for `hop`; `None` for one that is long enough, and for keys of other types.
pub(super) fn flaw(hop: &Hop, key: &[u8]) -> Option<String> {
    let least = hop.said.number("RequiredRSASize").unwrap_or(LEAST);
    let bits = bits(key)?;
    (bits < least).then(|| {
        let place = hop.said.origin("RequiredRSASize").map(ToString::to_string).unwrap_or_default();
        format!("has {bits} bits, and RequiredRSASize asks for {least} ({place})")
    })
}

/// The bits of the modulus of an RSA key in its wire form: type, exponent, modulus.
fn bits(key: &[u8]) -> Option<u64> {
    let (kind, rest) = string(key)?;
    let (_, rest) = string(rest).filter(|_| kind == RSA)?;
    let (modulus, _) = string(rest)?;
    let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
    let first = modulus.get(zeros)?;
    let whole = u64::try_from(modulus.len() - zeros).ok()?.checked_mul(8)?;
    Some(whole - u64::from(first.leading_zeros()))
}

/// The string in front (RFC 4251 section 5), and what follows.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ssh::config::{self, Request};

    fn key(kind: &str, modulus: &[u8]) -> Vec<u8> {
        let string = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
        [string(kind.as_bytes()), string(&[1, 0, 1]), string(modulus)].concat()
    }

    fn hop(least: &str) -> Hop {
        let options = [("RequiredRSASize".to_owned(), least.to_owned())];
        let request = Request {
            host: "box",
            options: &options,
            file: Some("none".as_ref()),
            ..Request::default()
        };
        let said = config::resolve(&request, &config::Machine::default()).unwrap();
        Hop { said: Arc::new(said), ..Hop::example("box") }
    }

    #[test]
    fn counts_the_bits_of_rsa_keys_alone() {
        let full = [&[0][..], &[0x80; 256]].concat();
        assert_eq!(bits(&key("ssh-rsa", &full)), Some(2048));
        assert_eq!(bits(&key("ssh-rsa", &[1, 0])), Some(9));
        assert_eq!(bits(&key("ssh-ed25519", &full)), None);
        for broken in [&[][..], &[0, 0, 0, 9, 1], &key("ssh-rsa", &[0; 4])] {
            assert_eq!(bits(broken), None);
        }
    }

    #[test]
    fn a_short_key_is_refused_by_whoever_asks_for_more() {
        let short = key("ssh-rsa", &[0x80; 128]);
        assert_eq!(flaw(&Hop::example("box"), &short), None);
        assert_eq!(flaw(&hop("1024"), &short), None);
        let flaw = flaw(&hop("3072"), &short).unwrap();
        assert_eq!(flaw, "has 1024 bits, and RequiredRSASize asks for 3072 (the command line)");
        assert!(super::flaw(&Hop::example("box"), &key("ssh-rsa", &[0x7f; 128])).is_some());
    }
}
