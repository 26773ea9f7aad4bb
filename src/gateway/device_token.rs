//! Tokens of devices: made from a key and a serial number, so that only digests need to be kept.
//!
//! The database holds the serial and the token's digest, the key lies in a file of its own: neither
//! alone is worth a token, and a device that comes again with the shared secret gets the token that
//! it has, not another one.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest::{SHA256, digest as digest_of},
    hmac,
};
use subtle::ConstantTimeEq;

use crate::{protocol::Role, secret::Secret, store::Minted};

/// Makes tokens.
pub(super) struct Mint {
    key: hmac::Key,
}

impl Mint {
    /// A mint whose tokens follow from `secret`.
    pub(super) fn new(secret: &Secret) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes()) }
    }

    /// A new token of a device in a role.
    pub(super) fn mint(&self, device: &str, role: Role) -> Minted {
        let serial = uuid::Uuid::new_v4().simple().to_string();
        let digest = digest(self.token(device, role, &serial).expose());
        Minted { serial, digest }
    }

    /// The token that was made with this serial.
    pub(super) fn token(&self, device: &str, role: Role, serial: &str) -> Secret {
        let text = format!("device-token|{device}|{role}|{serial}");
        Secret::new(URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, text.as_bytes())))
    }

    /// The token of a setup code.
    pub(super) fn setup_token(&self, id: &str) -> Secret {
        let text = format!("setup-code|{id}");
        Secret::new(URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, text.as_bytes())))
    }
}

/// What is kept of a token.
pub(super) fn digest(token: &str) -> Vec<u8> {
    digest_of(&SHA256, token.as_bytes()).as_ref().to_vec()
}

/// Whether `token` is the one of this digest; takes the same time wherever they differ.
pub(super) fn is_token_of(kept: &[u8], token: &str) -> bool {
    digest(token).ct_eq(kept).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_follows_from_device_role_serial_and_key_and_is_not_in_what_is_kept() {
        let mint = Mint::new(&Secret::new("key"));
        let minted = mint.mint("a", Role::Operator);
        let token = mint.token("a", Role::Operator, &minted.serial);
        assert!(is_token_of(&minted.digest, token.expose()));
        for other in [
            mint.token("b", Role::Operator, &minted.serial),
            mint.token("a", Role::Node, &minted.serial),
            mint.token("a", Role::Operator, "another"),
            Mint::new(&Secret::new("other")).token("a", Role::Operator, &minted.serial),
            Secret::new(""),
        ] {
            assert!(!is_token_of(&minted.digest, other.expose()));
        }
        assert_ne!(mint.mint("a", Role::Operator).serial, minted.serial);
    }
}
