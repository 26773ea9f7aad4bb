//! Turns a hop's algorithm names into what the SSH library asks for, and holds the server to it.

use std::{borrow::Cow, fmt};

use russh::{
    Names, Preferred, cipher,
    compression::{self, Compression},
    kex,
    keys::{Algorithm, EcdsaCurve, HashAlg, PublicKeyOrCertificate},
    mac,
};

use super::{
    algorithms::{Keyword, or_own},
    known_hosts::OnFile,
    resolve::Algorithms,
};

/// How the name of an algorithm ends that signs with a certified key.
const CERTIFICATE: &str = "-cert-v01@openssh.com";
/// Extensions that travel as key exchanges: signature algorithms, and strict key exchange.
const EXTENSIONS: [kex::Name; 2] =
    [kex::EXTENSION_SUPPORT_AS_CLIENT, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT];

/// What both sides agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Negotiated {
    /// The key exchange.
    pub(crate) kex: String,
    /// What the host key signs with.
    pub(crate) host_key: String,
    /// The cipher, the same both ways.
    pub(crate) cipher: String,
    /// The code for ciphers that do not authenticate by themselves.
    pub(crate) mac: Option<String>,
    /// Whether sequence numbers start anew (the answer to the Terrapin attack).
    pub(crate) strict: bool,
    /// Whether what goes over the session is compressed.
    pub(crate) compressed: bool,
}

impl fmt::Display for Negotiated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kex, host_key, cipher, mac, strict, compressed } = self;
        write!(f, "{kex}, {host_key}, {cipher}")?;
        if let Some(mac) = mac {
            write!(f, ", {mac}")?;
        }
        for (holds, word) in [(*strict, ", strict"), (*compressed, ", compressed")] {
            if holds {
                f.write_str(word)?;
            }
        }
        Ok(())
    }
}

impl From<&Names> for Negotiated {
    fn from(names: &Names) -> Self {
        let mac = names.client_mac.as_ref();
        let authenticates = [cipher::AES_128_GCM, cipher::AES_256_GCM, cipher::CHACHA20_POLY1305]
            .contains(&names.cipher);
        Self {
            kex: names.kex.as_ref().to_owned(),
            host_key: names.key.to_string(),
            cipher: names.cipher.as_ref().to_owned(),
            mac: (!authenticates).then(|| mac.to_owned()),
            strict: names.strict_kex(),
            compressed: !matches!(names.client_compression, Compression::None),
        }
    }
}

/// What to ask the server for: the types of the host keys on file first, certificates only where
/// an authority is on file that could vouch for them.
pub(super) fn preferred(wanted: &Algorithms, on_file: &OnFile) -> Preferred {
    let names = |keyword, given: &[String]| or_own(keyword, given).into_iter();
    let host_keys: Vec<String> = names(Keyword::HostKey, &wanted.host_key).collect();
    let (certificates, plain): (Vec<&str>, Vec<&str>) =
        host_keys.iter().map(String::as_str).partition(|name| name.ends_with(CERTIFICATE));
    let (mut key, rest): (Vec<Algorithm>, Vec<Algorithm>) = plain
        .into_iter()
        .filter_map(algorithm)
        .partition(|algorithm| on_file.keys.iter().any(|kind| kind == kind_of(algorithm)));
    key.extend(rest);
    let certificates: Vec<Algorithm> = certificates
        .into_iter()
        .filter_map(|name| algorithm(name.strip_suffix(CERTIFICATE)?))
        .filter(|_| on_file.authority || key.is_empty())
        .collect();
    let kex = names(Keyword::Kex, &wanted.kex);
    let kex = kex.filter_map(|name| kex::Name::try_from(name.as_str()).ok()).chain(EXTENSIONS);
    let cipher = names(Keyword::Ciphers, &wanted.ciphers);
    let cipher = cipher.filter_map(|name| cipher::Name::try_from(name.as_str()).ok());
    let mac = names(Keyword::Macs, &wanted.macs);
    let mac = mac.filter_map(|name| mac::Name::try_from(name.as_str()).ok());
    Preferred {
        kex: Cow::Owned(kex.collect()),
        key: Cow::Owned(key),
        host_key_certificates: Cow::Owned(certificates),
        cipher: Cow::Owned(cipher.collect()),
        mac: Cow::Owned(mac.collect()),
        ..Preferred::DEFAULT
    }
}

/// The types of the plain keys that are asked for.
pub(super) fn kinds(preferred: &Preferred) -> Vec<String> {
    preferred.key.iter().map(|algorithm| kind_of(algorithm).to_owned()).collect()
}

/// What to ask for as compression: that of OpenSSH, which begins after the login, or none.
pub(super) fn compressions(wanted: bool) -> &'static [compression::Name] {
    if wanted { &[compression::ZLIB_LEGACY, compression::NONE] } else { &[compression::NONE] }
}

/// Whether the server shows a key of a type that was asked for: the library takes any.
pub(super) fn was_asked_for(preferred: &Preferred, shown: &PublicKeyOrCertificate) -> bool {
    let (asked, kind) = match shown.certificate() {
        Some(certificate) => (&preferred.host_key_certificates, certificate.algorithm()),
        None => (&preferred.key, shown.public_key().algorithm()),
    };
    asked.iter().any(|algorithm| kind_of(algorithm) == kind_of(&kind))
}

/// Whether the host signed with the agreed algorithm: the library takes SHA-1 from any RSA key.
///
/// `signature` is in its SSH wire form (RFC 4253, section 6.6).
pub(super) fn signed_as_agreed(negotiated: &Negotiated, signature: &[u8]) -> bool {
    super::known_hosts::key_type(signature) == Some(negotiated.host_key.as_str())
}

/// The library's name of a host key algorithm.
fn algorithm(name: &str) -> Option<Algorithm> {
    let rsa = |hash| Algorithm::Rsa { hash };
    Some(match name {
        "ssh-ed25519" => Algorithm::Ed25519,
        "ecdsa-sha2-nistp256" => Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
        "ecdsa-sha2-nistp384" => Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
        "ecdsa-sha2-nistp521" => Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
        "rsa-sha2-512" => rsa(Some(HashAlg::Sha512)),
        "rsa-sha2-256" => rsa(Some(HashAlg::Sha256)),
        "ssh-rsa" => rsa(None),
        _ => return None,
    })
}

/// The type of the keys that sign with `algorithm`.
fn kind_of(algorithm: &Algorithm) -> &str {
    if algorithm.clone().is_rsa() { "ssh-rsa" } else { algorithm.as_str() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::algorithms::{choose, own};

    fn wanted(keyword: Keyword, list: &str) -> Algorithms {
        let names = choose(keyword, list).unwrap().names;
        match keyword {
            Keyword::Kex => Algorithms { kex: names, ..Algorithms::default() },
            Keyword::Ciphers => Algorithms { ciphers: names, ..Algorithms::default() },
            Keyword::Macs => Algorithms { macs: names, ..Algorithms::default() },
            Keyword::HostKey | Keyword::PublicKey | Keyword::CaSignature => {
                Algorithms { host_key: names, ..Algorithms::default() }
            }
        }
    }

    fn texts<T: ToString>(list: &[T]) -> String {
        list.iter().map(T::to_string).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn every_name_of_ours_is_one_of_the_library() {
        let on_file = OnFile { keys: Vec::new(), authority: true };
        let asked = preferred(&Algorithms::default(), &on_file);
        let counts = [
            (Keyword::Kex, asked.kex.len() - EXTENSIONS.len()),
            (Keyword::Ciphers, asked.cipher.len()),
            (Keyword::Macs, asked.mac.len()),
            (Keyword::HostKey, asked.key.len() + asked.host_key_certificates.len()),
        ];
        for (keyword, count) in counts {
            assert_eq!(own(keyword).len(), count, "{}", keyword.name());
        }
        let weak = [
            (Keyword::Kex, "diffie-hellman-group14-sha1,diffie-hellman-group1-sha1"),
            (Keyword::Ciphers, "aes256-cbc,aes192-cbc,aes128-cbc"),
            (Keyword::Macs, "hmac-sha1,hmac-sha1-etm@openssh.com"),
            (Keyword::HostKey, "ssh-rsa"),
        ];
        for (keyword, list) in weak {
            let asked = preferred(&wanted(keyword, list), &on_file);
            let count = match keyword {
                Keyword::Kex => asked.kex.len() - EXTENSIONS.len(),
                Keyword::Ciphers => asked.cipher.len(),
                Keyword::Macs => asked.mac.len(),
                Keyword::HostKey | Keyword::PublicKey | Keyword::CaSignature => asked.key.len(),
            };
            assert_eq!(count, list.split(',').count(), "{list}");
        }
    }

    #[test]
    fn strict_key_exchange_is_asked_for_whatever_the_list() {
        let on_file = OnFile::default();
        let asked = preferred(&wanted(Keyword::Kex, "curve25519-sha256"), &on_file);
        assert_eq!(asked.kex.first().unwrap().as_ref(), "curve25519-sha256");
        assert!(asked.kex.contains(&kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT));
    }

    #[test]
    fn the_types_on_file_come_first_within_the_users_list() {
        let keys = vec!["ssh-rsa".to_owned()];
        let on_file = OnFile { keys, authority: false };
        let asked = preferred(&Algorithms::default(), &on_file);
        assert!(texts(&asked.key).starts_with("rsa-sha2-512,rsa-sha2-256,ssh-ed25519"));
        assert!(asked.host_key_certificates.is_empty());
        let asked = preferred(&wanted(Keyword::HostKey, "ssh-ed25519"), &on_file);
        assert_eq!(texts(&asked.key), "ssh-ed25519");
    }

    #[test]
    fn certificates_are_asked_for_where_an_authority_is_on_file() {
        let on_file = OnFile { keys: Vec::new(), authority: true };
        let asked = preferred(&Algorithms::default(), &on_file);
        assert_eq!(asked.host_key_certificates.len(), 6);
        let asked = preferred(&wanted(Keyword::HostKey, "-*cert*"), &on_file);
        assert!(asked.host_key_certificates.is_empty());
    }

    #[test]
    fn a_key_of_a_type_that_was_not_asked_for_is_noticed() {
        let key =
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDqzxTaiggEUUYyrUfcHgXE+t7GM42MjaavVKtsTRhCJ";
        let shown: PublicKeyOrCertificate =
            russh::keys::PublicKey::from_openssh(key).unwrap().into();
        let asked = |list| preferred(&wanted(Keyword::HostKey, list), &OnFile::default());
        assert!(was_asked_for(&asked("ssh-ed25519"), &shown));
        assert!(!was_asked_for(&asked("rsa-sha2-512,ecdsa*"), &shown));
    }

    #[test]
    fn a_signature_of_another_algorithm_is_noticed() {
        let agreed = Negotiated {
            kex: "curve25519-sha256".into(),
            host_key: "rsa-sha2-512".into(),
            cipher: "aes256-ctr".into(),
            mac: Some("hmac-sha2-256".into()),
            strict: true,
            compressed: true,
        };
        assert_eq!(
            agreed.to_string(),
            "curve25519-sha256, rsa-sha2-512, aes256-ctr, hmac-sha2-256, strict, compressed"
        );
        let blob = |name: &str| [&[0, 0, 0, name.len() as u8], name.as_bytes(), b"rest"].concat();
        assert!(signed_as_agreed(&agreed, &blob("rsa-sha2-512")));
        assert!(!signed_as_agreed(&agreed, &blob("ssh-rsa")));
        assert!(!signed_as_agreed(&agreed, b""));
    }
}
