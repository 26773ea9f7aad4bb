//! Checks the certificate that a host shows against the authorities on file. Pure.
//!
//! The format is that of OpenSSH's PROTOCOL.certkeys, names are read as since OpenSSH 10.3: none at
//! all holds nowhere, and a wildcard is one. That the host holds the certified key is
//! proved by the key exchange; that somebody vouches for it is proved here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use russh::keys::{Certificate, HashAlg, PublicKey};

use super::{
    known_hosts::{Entry, Voucher, key_type},
    pattern,
};

/// What a certificate must fulfil.
#[derive(Debug, Clone, Copy)]
pub(super) struct Demands<'a> {
    /// The name by which the host was asked for: the alias, or the host as dialled.
    pub(super) host: &'a str,
    /// What time it is.
    pub(super) now: SystemTime,
    /// By which algorithms an authority may sign.
    pub(super) signatures: &'a [String],
}

/// What a certificate is worth.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Vouched {
    /// An authority on file vouches for the host.
    Yes(Entry),
    /// An authority on file signed it, and it does not hold here.
    Flawed(Entry, Flaw),
    /// No authority on file signed it.
    ByStranger,
}

/// Why a certificate of the right authority does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Flaw {
    /// It is one for a user.
    #[error("it is a user's certificate, not a host's")]
    NotOfAHost,
    /// The signature is broken.
    #[error("the authority's signature is not right")]
    Signature,
    /// The authority signed by an algorithm that is not taken.
    #[error("its authority signed with {0}, which is not taken")]
    Algorithm(String),
    /// It names other hosts, or none.
    #[error("it is not for this name but for {0}")]
    Name(String),
    /// Its time has not come.
    #[error("it is not valid yet (from {0})")]
    Early(String),
    /// Its time is over.
    #[error("it has expired (at {0})")]
    Late(String),
    /// It holds a condition that is not understood.
    #[error("it has a critical option: {0}")]
    Option(String),
}

/// Whether one of `authorities` vouches by `certificate` for the host; the first one that signed it
/// decides.
pub(super) fn vouched(
    certificate: &Certificate,
    authorities: &[Voucher],
    demands: &Demands<'_>,
) -> Vouched {
    let signer = PublicKey::new(certificate.signature_key().clone(), "");
    let Ok(blob) = signer.to_bytes() else { return Vouched::ByStranger };
    // A key that is itself certified is no authority.
    if key_type(&blob).is_none_or(|kind| kind.contains("-cert-v0")) {
        return Vouched::ByStranger;
    }
    let Some(authority) = authorities.iter().find(|authority| authority.key == blob) else {
        return Vouched::ByStranger;
    };
    match flaw(certificate, &signer, demands) {
        None => Vouched::Yes(authority.entry.clone()),
        Some(flaw) => Vouched::Flawed(authority.entry.clone(), flaw),
    }
}

/// The key of the authority that signed, in its SSH wire form.
pub(super) fn signer(certificate: &Certificate) -> Option<Vec<u8>> {
    PublicKey::new(certificate.signature_key().clone(), "").to_bytes().ok()
}

fn flaw(certificate: &Certificate, signer: &PublicKey, demands: &Demands<'_>) -> Option<Flaw> {
    let now = demands.now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (from, until) = (certificate.valid_after(), certificate.valid_before());
    let algorithm = certificate.signature().algorithm().to_string();
    let names = certificate.valid_principals();
    if !certificate.cert_type().is_host() {
        return Some(Flaw::NotOfAHost);
    }
    if !demands.signatures.contains(&algorithm) {
        return Some(Flaw::Algorithm(algorithm));
    }
    if !names.iter().any(|name| pattern::matches(&name.to_ascii_lowercase(), demands.host)) {
        let names = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
        return Some(Flaw::Name(names.escape_debug().to_string()));
    }
    if now < from {
        return Some(Flaw::Early(date(from)));
    }
    if now >= until {
        return Some(Flaw::Late(date(until)));
    }
    if let Some(option) = certificate.critical_options().keys().next() {
        return Some(Flaw::Option(option.escape_debug().to_string()));
    }
    // The signature and the time once more, by the library.
    let right = certificate.validate_at(now, [&signer.fingerprint(HashAlg::Sha256)]);
    right.is_err().then_some(Flaw::Signature)
}

/// A time of a certificate for people.
fn date(seconds: u64) -> String {
    let time = UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
    time.and_then(|time| jiff::Timestamp::try_from(time).ok())
        .map_or_else(|| "the end of time".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path, process::Command};

    use super::*;
    use crate::ssh::{
        algorithms::{Keyword, own},
        known_hosts::{Name, Source, authorities},
    };

    /// Keys and certificates made by the real `ssh-keygen`.
    struct Office(tempfile::TempDir);

    impl Office {
        fn open() -> Option<Self> {
            crate::ssh::tests::installed("ssh-keygen")?;
            let office = Self(tempfile::tempdir().unwrap());
            for (name, kind) in [("ca", "ed25519"), ("other", "ed25519"), ("rsa", "rsa")] {
                crate::ssh::tests::keygen(&office.at(name), kind, "");
            }
            crate::ssh::tests::keygen(&office.at("host"), "ed25519", "");
            Some(office)
        }

        fn at(&self, name: &str) -> std::path::PathBuf {
            self.0.path().join(name)
        }

        fn certificate(&self, authority: &str, words: &[&str]) -> Certificate {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-s"])
                .arg(self.at(authority))
                .args(["-I", "identity"])
                .args(words)
                .arg(self.at("host.pub"))
                .status()
                .unwrap();
            assert!(made.success());
            Certificate::read_file(&self.at("host-cert.pub")).unwrap()
        }

        fn authorities(&self, name: &str, hosts: &str, host: &Name) -> Vec<Voucher> {
            let public = fs::read_to_string(self.at(&format!("{name}.pub"))).unwrap();
            let text = format!("@cert-authority {hosts} {public}");
            authorities(&[Source { path: Path::new("known").to_owned(), text }], host)
        }

        /// What comes of a certificate for `box.example` that `ca` signed.
        fn outcome(&self, certificate: &Certificate, now: SystemTime) -> Vouched {
            let name = Name::new("box.example", 22, None);
            let signatures = own(Keyword::CaSignature);
            let demands = Demands { host: name.host(), now, signatures: &signatures };
            vouched(certificate, &self.authorities("ca", "*.example", &name), &demands)
        }
    }

    fn flaw_of(vouched: &Vouched) -> String {
        match vouched {
            Vouched::Flawed(entry, flaw) => format!("{} {flaw}", entry.line),
            Vouched::Yes(_) | Vouched::ByStranger => format!("{vouched:?}"),
        }
    }

    #[test]
    fn one_that_fits_in_every_way_holds() {
        let Some(office) = Office::open() else { return };
        let now = SystemTime::now();
        for names in ["box.example", "a,box.example", "*.example", "BOX.example"] {
            let certificate = office.certificate("ca", &["-h", "-n", names]);
            let outcome = office.outcome(&certificate, now);
            assert!(matches!(&outcome, Vouched::Yes(entry) if entry.line == 1), "{outcome:?}");
        }
    }

    #[test]
    fn the_time_is_what_the_caller_says() {
        let Some(office) = Office::open() else { return };
        let words = ["-h", "-n", "box.example", "-V", "20200101000000Z:20200102000000Z"];
        let certificate = office.certificate("ca", &words);
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let first = 1_577_836_800;
        let early = office.outcome(&certificate, at(first - 1));
        assert_eq!(flaw_of(&early), "1 it is not valid yet (from 2020-01-01T00:00:00Z)");
        for second in [first, first + 86_399] {
            assert!(matches!(office.outcome(&certificate, at(second)), Vouched::Yes(_)));
        }
        let late = office.outcome(&certificate, at(first + 86_400));
        assert_eq!(flaw_of(&late), "1 it has expired (at 2020-01-02T00:00:00Z)");
    }

    #[test]
    fn each_flaw_is_named() {
        let Some(office) = Office::open() else { return };
        let now = SystemTime::now();
        let cases: [(&[&str], &str); 4] = [
            (&["-h", "-n", "other.example"], "1 it is not for this name but for other.example"),
            (&["-h"], "1 it is not for this name but for nobody"),
            (&["-n", "box.example"], "1 it is a user's certificate, not a host's"),
            (
                &["-h", "-n", "box.example", "-O", "critical:what@example=ever"],
                "1 it has a critical option: what@example",
            ),
        ];
        for (words, expected) in cases {
            let certificate = office.certificate("ca", words);
            assert_eq!(flaw_of(&office.outcome(&certificate, now)), expected, "{words:?}");
        }
    }

    #[test]
    fn other_authorities_and_other_patterns_do_not_count() {
        let Some(office) = Office::open() else { return };
        let now = SystemTime::now();
        let certificate = office.certificate("other", &["-h", "-n", "box.example"]);
        assert_eq!(office.outcome(&certificate, now), Vouched::ByStranger);
        let name = Name::new("box.example", 2222, None);
        for (hosts, counts) in [
            ("*.example", true),
            ("[*.example]:2222", true),
            ("box.example", true),
            ("[box.example]:2223", false),
            ("*.other", false),
            ("!box.example,*", true),
            ("!*box.example*,*", false),
        ] {
            let found = office.authorities("ca", hosts, &name);
            assert_eq!(!found.is_empty(), counts, "{hosts}");
        }
    }

    #[test]
    fn sha1_is_not_taken_of_an_authority() {
        let Some(office) = Office::open() else { return };
        let name = Name::new("box.example", 22, None);
        let found = office.authorities("rsa", "*", &name);
        let signatures = own(Keyword::CaSignature);
        let demands =
            Demands { host: name.host(), now: SystemTime::now(), signatures: &signatures };
        for (algorithm, holds) in
            [("rsa-sha2-512", true), ("rsa-sha2-256", true), ("ssh-rsa", false)]
        {
            let words = ["-t", algorithm, "-h", "-n", "box.example"];
            let certificate = office.certificate("rsa", &words);
            let outcome = vouched(&certificate, &found, &demands);
            assert_eq!(matches!(outcome, Vouched::Yes(_)), holds, "{outcome:?}");
        }
    }

    #[test]
    fn a_signature_that_was_tampered_with_is_noticed() {
        let Some(office) = Office::open() else { return };
        let certificate = office.certificate("ca", &["-h", "-n", "box.example"]);
        let mut bytes = certificate.to_bytes().unwrap();
        let place = bytes.windows(11).position(|part| part == b"box.example").unwrap();
        // Another name of the same length, for which nobody signed.
        bytes[place] = b'f';
        let forged = Certificate::from_bytes(&bytes).unwrap();
        let name = Name::new("fox.example", 22, None);
        let signatures = own(Keyword::CaSignature);
        let demands =
            Demands { host: name.host(), now: SystemTime::now(), signatures: &signatures };
        let outcome = vouched(&forged, &office.authorities("ca", "*", &name), &demands);
        assert_eq!(flaw_of(&outcome), "1 the authority's signature is not right");
    }
}
