//! The certificate and the key of a gateway: where they are, made once, and read.

use std::{
    fs::{self, Metadata},
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{
    config::{Paths, Tls},
    gateway::private,
    problem::{Class, Problem},
};

/// How long a made certificate is valid. Clients know it by its fingerprint, which a renewal
/// changes.
const YEARS: i16 = 10;

/// The files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Files {
    certificate: PathBuf,
    key: PathBuf,
    authorities: Option<PathBuf>,
    /// Whether missing ones are made.
    make: bool,
    /// Whether they are in our own folder, whose modes are ours to keep.
    are_ours: bool,
}

/// How the files looked at some moment.
pub(super) type Stamp = [Option<(u64, u64, u64, (i64, i64), (i64, i64))>; 3];

/// What stood in the files.
#[derive(Debug)]
pub(super) struct Material {
    /// The gateway's certificate and those that lead to its authority.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// The key of the first.
    pub(super) key: PrivateKeyDer<'static>,
    /// The files, for messages.
    pub(super) names: String,
}

impl Files {
    /// Where `gateway.tls` says, else in `rs/tls/`; class `config` for half a pair.
    pub(crate) fn decide(tls: &Tls, paths: &Paths) -> Result<Self, Problem> {
        let own = paths.tls();
        let (certificate, key, are_ours) = match (&tls.certificate, &tls.key) {
            (Some(certificate), Some(key)) => (certificate.clone(), key.clone(), false),
            (None, None) => (own.join("cert.pem"), own.join("key.pem"), true),
            (Some(_), None) => return Err(half("certPath", "keyPath")),
            (None, Some(_)) => return Err(half("keyPath", "certPath")),
        };
        let authorities = tls.authorities.clone();
        Ok(Self { certificate, key, authorities, make: tls.auto_generate, are_ours })
    }

    /// Makes a certificate that signs itself where there is neither file. Blocks.
    pub(super) fn make_missing(&self) -> Result<(), Problem> {
        match (self.certificate.exists(), self.key.exists()) {
            (true, true) => Ok(()),
            // One file may hold both, and is then made elsewhere.
            (false, false) if self.certificate == self.key => Err(Problem::new(
                Class::Config,
                format!(
                    "gateway.tls.certPath and keyPath both name {}, which is not there",
                    self.key.display()
                ),
            )
            .fix("openclaw config set gateway.tls.keyPath FILE, with another file")),
            (false, false) if self.make => self.make(),
            (false, false) => Err(Problem::new(
                Class::Config,
                format!(
                    "neither {} nor {} is there, and gateway.tls.autoGenerate is false",
                    self.certificate.display(),
                    self.key.display()
                ),
            )
            .fix("openclaw config set gateway.tls.autoGenerate true")),
            (has_certificate, _) => {
                let (there, missing) = if has_certificate {
                    (&self.certificate, &self.key)
                } else {
                    (&self.key, &self.certificate)
                };
                Err(Problem::new(
                    Class::Config,
                    format!("{} is there, but {} is missing", there.display(), missing.display()),
                )
                .fix(format!(
                    "put the missing file there, or remove {} too: the next start makes both",
                    there.display()
                )))
            }
        }
    }

    /// Why a start would find the files of no use. Blocks; makes none.
    pub(crate) fn refused(&self) -> Option<Problem> {
        match (self.certificate.exists(), self.key.exists()) {
            (false, false) if self.make => None,
            (true, true) => self.read().and_then(super::configure).err(),
            (false, _) | (true, false) => self.make_missing().err(),
        }
    }

    fn make(&self) -> Result<(), Problem> {
        let (certificate, key) = self_signed().map_err(|error| {
            Problem::new(Class::Internal, format!("cannot make a certificate: {error}"))
        })?;
        let write = if self.are_ours { private::create } else { private::create_beside };
        write(&self.key, &key)?;
        write(&self.certificate, &certificate)
    }

    /// How the files look now. Blocks.
    pub(super) fn stamp(&self) -> Stamp {
        let of = |file: &Path| fs::metadata(file).ok().map(|metadata| stamp(&metadata));
        [of(&self.certificate), of(&self.key), self.authorities.as_deref().and_then(of)]
    }

    /// Reads the files; class `config` if that fails. Blocks.
    pub(super) fn read(&self) -> Result<Material, Problem> {
        let mut chain = certificates(&self.certificate)?;
        if let Some(file) = &self.authorities {
            let more = certificates(file)?.into_iter().filter(|one| !chain.contains(one));
            let more: Vec<_> = more.collect();
            chain.extend(more);
        }
        let text = text_of(&self.key)?;
        let key = PrivateKeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| unusable(&self.key, &error.to_string()))?;
        if self.are_ours {
            private::narrow(&self.key, 0o600)
                .map_err(|error| unusable(&self.key, &error.to_string()).denied(&error))?;
        } else if is_open(&self.key) {
            tracing::warn!(file = %self.key.display(), "others can read the TLS key: chmod 600");
        }
        let names = format!("{} {}", self.certificate.display(), self.key.display());
        Ok(Material { chain, key, names })
    }
}

fn half(there: &str, missing: &str) -> Problem {
    Problem::new(
        Class::Config,
        format!("gateway.tls.{there} is set, but gateway.tls.{missing} is not"),
    )
    .fix(format!("openclaw config set gateway.tls.{missing} FILE"))
}

fn stamp(metadata: &Metadata) -> (u64, u64, u64, (i64, i64), (i64, i64)) {
    let modified = (metadata.mtime(), metadata.mtime_nsec());
    let changed = (metadata.ctime(), metadata.ctime_nsec());
    (metadata.dev(), metadata.ino(), metadata.len(), modified, changed)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let text = text_of(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let all = all.map_err(|error| unusable(file, &error.to_string()))?;
    if all.is_empty() { Err(unusable(file, "there is no certificate in it")) } else { Ok(all) }
}

fn text_of(file: &Path) -> Result<zeroize::Zeroizing<String>, Problem> {
    fs::read_to_string(file).map(zeroize::Zeroizing::new).map_err(|error: io::Error| {
        let problem = unusable(file, &error.to_string());
        // A name that leads nowhere is a wrong one.
        if error.kind() == io::ErrorKind::NotFound { problem } else { problem.denied(&error) }
    })
}

fn unusable(file: &Path, why: &str) -> Problem {
    Problem::new(Class::Config, format!("cannot use {} for TLS: {why}", file.display()))
        .fix(format!("ls -l {}", file.display()))
}

fn is_open(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.mode() & 0o077 != 0)
}

/// A certificate for the names of this machine and its key, as PEM.
fn self_signed() -> Result<(String, zeroize::Zeroizing<String>), rcgen::Error> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    // A name that no certificate may bear is left out rather than a reason not to start.
    let host = host.filter(|name| {
        !name.is_empty()
            && name.parse::<IpAddr>().is_err()
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b))
    });
    names.extend(host.filter(|name| name != "localhost"));
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "openclaw gateway");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    // A day back, for clients whose clocks are behind.
    let today = jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::now()).date();
    let begin = today.yesterday().unwrap_or(today);
    let day = |date: jiff::civil::Date, years: i16| {
        let (month, day) = (date.month().unsigned_abs(), date.day().unsigned_abs().min(28));
        date_time_ymd(i32::from(date.year() + years), month, day)
    };
    params.not_before = day(begin, 0);
    params.not_after = day(begin, YEARS);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok((certificate.pem(), zeroize::Zeroizing::new(key.serialize_pem())))
}
