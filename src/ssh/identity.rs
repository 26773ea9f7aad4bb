//! What is shown to a server: a public key, or a certificate of one. Pure.

use base64::{Engine, prelude::BASE64_STANDARD};
use russh::keys::{
    Algorithm, Certificate, PublicKey, agent::AgentIdentity, key::parse_public_key,
    ssh_encoding::Decode, ssh_key::certificate::CertType,
};

use super::known_hosts;

/// How the name of a certificate's type ends.
const CERTIFICATE: &str = "-cert-v01@openssh.com";

/// A public key or a certificate; the library names it after the agent that lists them.
pub(super) type Identity = AgentIdentity;

/// The identity in its SSH wire form; `None` if it cannot be read.
pub(super) fn of_blob(blob: &[u8], comment: &str) -> Option<Identity> {
    let comment = comment.to_owned();
    // Refuses blobs that are built to overflow the stack, before the certificate is read.
    let key = parse_public_key(blob).ok()?;
    if known_hosts::key_type(blob)?.ends_with(CERTIFICATE) {
        let certificate = Certificate::decode(&mut &*blob).ok()?;
        return Some(Identity::Certificate { certificate, comment });
    }
    Some(Identity::PublicKey { key, comment })
}

/// The identity on the first line of a `.pub` file: type, base64, comment.
pub(super) fn of_text(text: &str) -> Option<Identity> {
    let mut words = text.trim().lines().next()?.splitn(3, [' ', '\t']);
    let (kind, encoded) = (words.next()?, words.next()?);
    let blob = BASE64_STANDARD.decode(encoded).ok()?;
    if known_hosts::key_type(&blob)? != kind {
        return None;
    }
    of_blob(&blob, words.next().unwrap_or_default().trim())
}

/// The SSH wire form.
pub(super) fn blob(identity: &Identity) -> Option<Vec<u8>> {
    match identity {
        Identity::PublicKey { key, .. } => key.to_bytes().ok(),
        Identity::Certificate { certificate, .. } => certificate.to_bytes().ok(),
    }
}

/// The public key, of which the certificate may speak.
pub(super) fn key(identity: &Identity) -> PublicKey {
    identity.public_key().into_owned()
}

/// The name of its type: `ssh-ed25519`, `ssh-ed25519-cert-v01@openssh.com`.
pub(super) fn algorithm(identity: &Identity) -> String {
    let algorithm = key(identity).algorithm();
    if is_certificate(identity) { algorithm.to_certificate_type() } else { algorithm.to_string() }
}

/// Whether both are about the same key.
pub(super) fn same_key(one: &Identity, other: &Identity) -> bool {
    one.public_key().key_data() == other.public_key().key_data()
}

/// Whether it is a certificate.
pub(super) fn is_certificate(identity: &Identity) -> bool {
    matches!(identity, Identity::Certificate { .. })
}

/// Whether signing needs a device that a person touches.
pub(super) fn needs_touch(identity: &Identity) -> bool {
    matches!(key(identity).algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256)
}

/// Why a certificate lets nobody in at `now` (seconds since 1970); `None` for one that may, and for
/// plain keys.
pub(super) fn flaw(identity: &Identity, now: u64) -> Option<&'static str> {
    let Identity::Certificate { certificate, .. } = identity else { return None };
    if certificate.cert_type() != CertType::User {
        return Some("is for hosts, not for users");
    }
    if now < certificate.valid_after() {
        return Some("is not valid yet");
    }
    (now >= certificate.valid_before()).then_some("has expired")
}

/// For people: the type and the fingerprint.
pub(super) fn shown(identity: &Identity) -> String {
    let key = key(identity);
    let fingerprint = key.to_bytes().map(|blob| known_hosts::fingerprint(&blob));
    let what = if is_certificate(identity) { "certificate of " } else { "" };
    format!("{what}{} {}", key.algorithm(), fingerprint.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH me@here";

    #[test]
    fn reads_the_line_of_a_public_key() {
        let identity = of_text(&format!("{KEY}\nanother line\n")).unwrap();
        assert_eq!(identity.comment(), "me@here");
        assert!(!is_certificate(&identity) && !needs_touch(&identity));
        assert_eq!(flaw(&identity, 0), None);
        assert!(shown(&identity).starts_with("ssh-ed25519 SHA256:"));
        assert_eq!(
            of_blob(&blob(&identity).unwrap(), "").map(|it| same_key(&it, &identity)),
            Some(true)
        );
    }

    #[test]
    fn what_is_no_public_key_is_refused() {
        let other = KEY.replace("ssh-ed25519 ", "ssh-rsa ");
        for text in ["", "ssh-ed25519", "ssh-ed25519 !!", other.as_str(), "a b c"] {
            assert!(of_text(text).is_none(), "{text}");
        }
    }
}
