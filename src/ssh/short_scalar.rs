//! Keys of the curve P-256 whose private number is shorter than 32 bytes: one in 256 begins with a
//! zero byte, which OpenSSH's form leaves out and the library's reader insists on. Pure.

use base64::{Engine, prelude::BASE64_STANDARD};
use russh::keys::{
    PrivateKey,
    ssh_encoding::Decode,
    ssh_key::{
        Cipher, EcdsaCurve, Kdf,
        cipher::Tag,
        private::{EcdsaKeypair, KeypairData},
        public::EcdsaPublicKey,
    },
};
use zeroize::Zeroizing;

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
/// How the form begins (OpenSSH's `PROTOCOL.key`).
const MAGIC: &[u8] = b"openssh-key-v1\0";
/// Bytes of a private number on this curve.
const SIZE: usize = 32;

/// The key in `text`, if it is such a one; `passphrase` opens what is locked.
pub(super) fn read(text: &str, passphrase: Option<&str>) -> Option<PrivateKey> {
    let body = text.split_once(BEGIN)?.1.split_once(END)?.0;
    // One that grew would leave pieces behind.
    let mut encoded = Zeroizing::new(String::with_capacity(body.len()));
    encoded.extend(body.split_ascii_whitespace());
    let bytes = Zeroizing::new(BASE64_STANDARD.decode(&*encoded).ok()?);
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let rest = &mut rest;
    let cipher: Cipher = String::decode(rest).ok()?.parse().ok()?;
    let kdf = Kdf::decode(rest).ok()?;
    if u32::decode(rest).ok()? != 1 {
        return None;
    }
    let public = Vec::<u8>::decode(rest).ok()?;
    let mut secret = Zeroizing::new(Vec::<u8>::decode(rest).ok()?);
    if cipher != Cipher::None {
        let tag = if cipher.has_tag() { Some(Tag::try_from(*rest).ok()?) } else { None };
        let (key, iv) = kdf.derive_key_and_iv(cipher, passphrase?).ok()?;
        cipher.decrypt(&key, &iv, &mut secret, tag).ok()?;
    }
    let key = read_secret(&secret)?;
    (key.public_key().to_bytes().ok()? == public).then_some(key)
}

/// The private half: two equal numbers that prove the passphrase, the public key, the number.
fn read_secret(mut secret: &[u8]) -> Option<PrivateKey> {
    let secret = &mut secret;
    if u32::decode(secret).ok()? != u32::decode(secret).ok()? {
        return None;
    }
    let name = String::decode(secret).ok()?;
    let curve: EcdsaCurve = String::decode(secret).ok()?.parse().ok()?;
    if name != "ecdsa-sha2-nistp256" || curve != EcdsaCurve::NistP256 {
        return None;
    }
    let point = Vec::<u8>::decode(secret).ok()?;
    let EcdsaPublicKey::NistP256(public) = EcdsaPublicKey::from_sec1_bytes(&point).ok()? else {
        return None;
    };
    let number = Zeroizing::new(Vec::<u8>::decode(secret).ok()?);
    let mut padded = Zeroizing::new([0; SIZE]);
    padded.get_mut(SIZE.checked_sub(number.len())?..)?.copy_from_slice(&number);
    let comment = String::decode(secret).ok()?;
    let pair = EcdsaKeypair::NistP256 { public, private: (*padded).into() };
    PrivateKey::new(KeypairData::Ecdsa(pair), comment).ok()
}
