//! Device identity: the id of a key, and the text that a client signs to prove that it holds it.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest::{SHA256, digest},
    signature::{ED25519, UnparsedPublicKey},
};
use serde::{Deserialize, Serialize};

use super::Connect;

/// How far `signedAt` may be from the gateway's clock, milliseconds.
const SKEW_MS: u64 = 120_000;

/// A client's device, as offered in `connect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Device {
    /// [`device_id`] of the public key.
    pub(crate) id: String,
    /// The raw Ed25519 public key, base64url without padding.
    pub(crate) public_key: String,
    /// Over [`signed_text`], base64url without padding.
    pub(crate) signature: String,
    /// The challenge's `ts`.
    pub(crate) signed_at: u64,
    /// The challenge's nonce.
    pub(crate) nonce: String,
}

/// Why a device was not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// The key cannot be read, or `id` is not its digest.
    IdMismatch,
    /// Signed too long ago, or in the future.
    Expired,
    /// The nonce is not the one of this connection.
    NonceMismatch,
    /// The signature is not over this `connect` by this key.
    BadSignature,
}

/// Which text was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextVersion {
    /// Without platform and device family; accepted, never made.
    V2,
    /// With both.
    V3,
}

/// SHA-256 of the raw public key, in lower-case hexadecimal.
pub(crate) fn device_id(public_key: &[u8]) -> String {
    digest(&SHA256, public_key).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text that the device in `connect` signs for a challenge of `nonce`.
pub(crate) fn signed_text(
    version: TextVersion,
    connect: &Connect,
    id: &str,
    signed_at: u64,
    nonce: &str,
) -> String {
    let client = &connect.client;
    let token = connect.auth.as_ref().and_then(|auth| {
        auth.token
            .as_ref()
            .or(auth.device_token.as_ref())
            .or(auth.bootstrap_token.as_ref())
            .map(|secret| secret.expose().to_owned())
    });
    let mut parts = vec![
        match version {
            TextVersion::V2 => "v2".to_owned(),
            TextVersion::V3 => "v3".to_owned(),
        },
        id.to_owned(),
        client.id.clone(),
        client.mode.clone(),
        connect.role.clone().unwrap_or_else(|| "operator".to_owned()),
        connect.scopes.as_deref().unwrap_or_default().join(","),
        signed_at.to_string(),
        token.unwrap_or_default(),
        nonce.to_owned(),
    ];
    if version == TextVersion::V3 {
        parts.push(plain(Some(&client.platform)));
        parts.push(plain(client.device_family.as_deref()));
    }
    parts.join("|")
}

/// Believes the device in `connect` only if its key signed this very connection, about `now_ms`.
pub(crate) fn verify(
    device: &Device,
    connect: &Connect,
    nonce: &str,
    now_ms: u64,
) -> Result<(), Flaw> {
    let key = URL_SAFE_NO_PAD.decode(&device.public_key).map_err(|_| Flaw::IdMismatch)?;
    if key.len() != 32 || device_id(&key) != device.id {
        return Err(Flaw::IdMismatch);
    }
    if device.signed_at.abs_diff(now_ms) > SKEW_MS {
        return Err(Flaw::Expired);
    }
    if device.nonce != nonce {
        return Err(Flaw::NonceMismatch);
    }
    let signature = URL_SAFE_NO_PAD.decode(&device.signature).map_err(|_| Flaw::BadSignature)?;
    let key = UnparsedPublicKey::new(&ED25519, key);
    let is_signed = [TextVersion::V3, TextVersion::V2].into_iter().any(|version| {
        let text = signed_text(version, connect, &device.id, device.signed_at, nonce);
        key.verify(text.as_bytes(), &signature).is_ok()
    });
    if is_signed { Ok(()) } else { Err(Flaw::BadSignature) }
}

/// Metadata as it is signed: trimmed, ASCII letters in lower case.
fn plain(text: Option<&str>) -> String {
    text.unwrap_or_default().trim().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_795_486_176_838;

    fn connect() -> Connect {
        serde_json::from_value(json!({
            "minProtocol": 4, "maxProtocol": 4, "role": "operator",
            "client": {"id": "cli", "version": "1", "platform": " Linux ", "mode": "cli"},
            "scopes": ["operator.read", "operator.write"], "auth": {"token": "t"},
        }))
        .unwrap()
    }

    fn signed(version: TextVersion, connect: &Connect) -> Device {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let id = device_id(key.public_key().as_ref());
        let text = signed_text(version, connect, &id, NOW, "nonce");
        Device {
            id,
            public_key: URL_SAFE_NO_PAD.encode(key.public_key()),
            signature: URL_SAFE_NO_PAD.encode(key.sign(text.as_bytes())),
            signed_at: NOW,
            nonce: "nonce".to_owned(),
        }
    }

    #[test]
    fn the_third_text_holds_every_part_in_order() {
        assert_eq!(
            signed_text(TextVersion::V3, &connect(), "id", 5, "n"),
            "v3|id|cli|cli|operator|operator.read,operator.write|5|t|n|linux|"
        );
        assert_eq!(
            signed_text(TextVersion::V2, &connect(), "id", 5, "n"),
            "v2|id|cli|cli|operator|operator.read,operator.write|5|t|n"
        );
    }

    #[test]
    fn believes_both_texts() {
        for version in [TextVersion::V2, TextVersion::V3] {
            let connect = connect();
            let device = signed(version, &connect);
            assert_eq!(verify(&device, &connect, "nonce", NOW + 1_000), Ok(()));
        }
    }

    #[test]
    fn names_what_is_wrong() {
        let connect = connect();
        let good = signed(TextVersion::V3, &connect);
        let cases = [
            (Device { id: "00".to_owned(), ..good.clone() }, Flaw::IdMismatch),
            (Device { public_key: "!".to_owned(), ..good.clone() }, Flaw::IdMismatch),
            (Device { signed_at: NOW - 600_000, ..good.clone() }, Flaw::Expired),
            (Device { nonce: "other".to_owned(), ..good.clone() }, Flaw::NonceMismatch),
            (Device { signature: "AAAA".to_owned(), ..good.clone() }, Flaw::BadSignature),
            (Device { signed_at: NOW + 1, ..good.clone() }, Flaw::BadSignature),
        ];
        for (device, flaw) in cases {
            assert_eq!(verify(&device, &connect, "nonce", NOW), Err(flaw));
        }
        let scopes = Some(vec!["operator.admin".to_owned()]);
        let other = Connect { scopes, ..connect };
        assert_eq!(verify(&good, &other, "nonce", NOW), Err(Flaw::BadSignature));
    }
}
