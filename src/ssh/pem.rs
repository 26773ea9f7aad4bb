//! Private keys in the encrypted PEM of old OpenSSL (`DEK-Info`), made plain for the library, which
//! reads none but AES-128 and RSA.

use aes::cipher::{BlockModeDecrypt, KeyIvInit, block_padding::Pkcs7};
use base64::{Engine, prelude::BASE64_STANDARD};
use zeroize::Zeroizing;

/// How much of the initialisation vector salts the passphrase.
const SALT: usize = 8;
/// Characters on a line of the plain text.
const LINE: usize = 64;

/// How a text is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cipher {
    Aes128,
    Aes192,
    Aes256,
    TripleDes,
}

impl Cipher {
    fn named(name: &str) -> Option<Self> {
        match name {
            "AES-128-CBC" => Some(Self::Aes128),
            "AES-192-CBC" => Some(Self::Aes192),
            "AES-256-CBC" => Some(Self::Aes256),
            "DES-EDE3-CBC" => Some(Self::TripleDes),
            _ => None,
        }
    }

    fn key_length(self) -> usize {
        match self {
            Self::Aes128 => 16,
            Self::Aes192 | Self::TripleDes => 24,
            Self::Aes256 => 32,
        }
    }

    fn decrypt(self, key: &[u8], iv: &[u8], text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        macro_rules! plain {
            ($cipher:ty) => {
                cbc::Decryptor::<$cipher>::new_from_slices(key, iv)
                    .ok()?
                    .decrypt_padded_vec::<Pkcs7>(text)
                    .ok()
                    .map(Zeroizing::new)
            };
        }
        match self {
            Self::Aes128 => plain!(aes::Aes128),
            Self::Aes192 => plain!(aes::Aes192),
            Self::Aes256 => plain!(aes::Aes256),
            Self::TripleDes => plain!(des::TdesEde3),
        }
    }
}

/// The parts of an encrypted PEM text.
#[derive(Debug)]
struct Parts<'a> {
    /// `RSA PRIVATE KEY` and the like.
    label: &'a str,
    /// `DEK-Info`: the cipher's name and the initialisation vector in hexadecimal.
    cipher: &'a str,
    iv: &'a str,
    body: String,
}

/// Whether a text is encrypted in this way.
pub(super) fn is_encrypted(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("Proc-Type:") && line.contains("ENCRYPTED"))
}

/// Whether the cipher of an encrypted text is one of ours.
pub(super) fn is_understood(text: &str) -> bool {
    parts(text).is_some_and(|parts| Cipher::named(parts.cipher).is_some())
}

/// The same key in plain PEM; `None` if the passphrase is wrong.
pub(super) fn decrypt(text: &str, passphrase: &str) -> Option<Zeroizing<String>> {
    let parts = parts(text)?;
    let cipher = Cipher::named(parts.cipher)?;
    let iv = unhex(parts.iv)?;
    let key = stretch(passphrase, iv.get(..SALT)?, cipher.key_length());
    let secret = BASE64_STANDARD.decode(&parts.body).ok()?;
    let plain = cipher.decrypt(&key, &iv, &secret)?;
    let encoded = Zeroizing::new(BASE64_STANDARD.encode(&*plain));
    let mut text = Zeroizing::new(String::with_capacity(encoded.len() + encoded.len() / LINE + 80));
    text.push_str(&format!("-----BEGIN {}-----\n", parts.label));
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str(&format!("-----END {}-----\n", parts.label));
    Some(text)
}

fn parts(text: &str) -> Option<Parts<'_>> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("-----BEGIN "));
    let label = lines.next()?.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
    let mut info = None;
    let mut body = String::new();
    for line in lines.take_while(|line| !line.starts_with("-----END ")) {
        if let Some(value) = line.strip_prefix("DEK-Info:") {
            info = value.trim().split_once(',');
        } else if !line.contains(':') {
            body.push_str(line);
        }
    }
    let (cipher, iv) = info?;
    Some(Parts { label, cipher, iv, body })
}

/// The key of a passphrase as old OpenSSL makes it: MD5, once (`EVP_BytesToKey`).
fn stretch(passphrase: &str, salt: &[u8], length: usize) -> Zeroizing<Vec<u8>> {
    let mut key = Zeroizing::new(Vec::with_capacity(length + 16));
    let mut last: Zeroizing<Vec<u8>> = Zeroizing::default();
    while key.len() < length {
        let mut hash = md5::Context::new();
        hash.consume(&*last);
        hash.consume(passphrase);
        hash.consume(salt);
        last = Zeroizing::new(hash.finalize().0.to_vec());
        key.extend_from_slice(&last);
    }
    key.truncate(length);
    key
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.trim().chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    digits
        .chunks(2)
        .map(|pair| u8::try_from(pair.iter().fold(0, |byte, d| byte * 16 + d)).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n";

    #[test]
    fn a_cipher_that_nobody_has_is_told_from_one_of_ours() {
        for (name, ours) in [("AES-256-CBC", true), ("CAMELLIA-128-CBC", false), ("", false)] {
            let text = format!("{HEAD}DEK-Info: {name},00\n\nAA==\n-----END EC PRIVATE KEY-----\n");
            assert!(is_encrypted(&text));
            assert_eq!(is_understood(&text), ours, "{name}");
            assert!(decrypt(&text, "x").is_none());
        }
        assert!(!is_encrypted("-----BEGIN EC PRIVATE KEY-----\nAA==\n"));
    }

    #[test]
    fn broken_texts_are_refused() {
        for (iv, body) in [
            ("0", "AA=="),
            ("zz", "AA=="),
            ("0011", "AA=="),
            ("00112233445566778899aabbccddeeff", "?"),
        ] {
            let text = format!("{HEAD}DEK-Info: AES-128-CBC,{iv}\n\n{body}\n");
            assert!(decrypt(&text, "x").is_none(), "{iv} {body}");
        }
    }
}
