//! Reads the lines of known_hosts files, and makes new ones. Pure, but for the reading itself.
//!
//! The reader is our own: that of `ssh-key` takes one blank between two words and no other, cuts a
//! line at any `#`, and says of a bad line neither which one it is nor whether it revokes a key.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::STANDARD_NO_PAD};
use ring::{digest, hmac};

use super::super::pattern;

/// SSH's own port, which known_hosts does not write down.
const SSH_PORT: u16 = 22;
/// How much of a file is read.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;
/// The one device that people name as a file.
const NOTHING: &str = "/dev/null";
/// How a field begins that hides the host's name.
const HASHED: &str = "|1|";

/// One known_hosts file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Source {
    /// Where it stands.
    pub(crate) path: PathBuf,
    /// What stands in it.
    pub(crate) text: String,
}

/// Under which name a host stands in the files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    host: String,
    port: u16,
    alias: bool,
}

impl Name {
    /// The name of `host` at `port`, or `alias` (`HostKeyAlias`), which has no port.
    pub(crate) fn new(host: &str, port: u16, alias: Option<&str>) -> Self {
        Self {
            host: alias.unwrap_or(host).to_ascii_lowercase(),
            port: if alias.is_some() { SSH_PORT } else { port },
            alias: alias.is_some(),
        }
    }

    /// As a known_hosts line writes it: `host`, or `[host]:port` for another port than 22.
    pub(crate) fn text(&self) -> String {
        if self.port == SSH_PORT {
            self.host.clone()
        } else {
            format!("[{}]:{}", self.host, self.port)
        }
    }

    /// The host alone, as a certificate names it.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// The entry that also counts for a host that is new at its own port.
    pub(super) fn portless(&self) -> Option<&str> {
        (self.port != SSH_PORT && !self.alias).then_some(self.host.as_str())
    }
}

/// What a line says of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Plain,
    Authority,
    Revoked,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) mark: Mark,
    /// The first field, or nothing where a revoked line ends before it.
    pub(super) hosts: &'a str,
    /// The key, if it can be read.
    pub(super) key: Option<Key<'a>>,
}

/// The key of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key<'a> {
    pub(super) algorithm: &'a str,
    /// The SSH wire form.
    pub(super) blob: Vec<u8>,
}

impl Line<'_> {
    /// Whether the line means the host called `name`; one without hosts means every host.
    pub(super) fn names(&self, name: &str) -> bool {
        self.hosts.is_empty() || names_host(self.hosts, name)
    }

    /// Whether nothing but names stand in front: no wildcard and no negation.
    pub(super) fn is_literal(&self) -> bool {
        !self.hosts.contains(['*', '?', '!'])
    }

    /// Whether the line names nobody but the host called `name`, perhaps with its addresses.
    pub(super) fn is_alone(&self, name: &str) -> bool {
        let is_address = |part: &str| {
            let host = part.strip_prefix('[').and_then(|part| part.split_once(']'));
            host.map_or(part, |(host, _)| host).parse::<IpAddr>().is_ok()
        };
        self.hosts.starts_with(HASHED)
            || self.hosts.split(',').all(|part| part.eq_ignore_ascii_case(name) || is_address(part))
    }
}

/// Every line of `text` that says something, with its number. Lines without a readable key are
/// skipped, as OpenSSH skips them, unless they revoke one: that must not get lost.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, Line<'_>)> {
    text.lines().enumerate().filter_map(|(index, text)| parse(text).map(|line| (index + 1, line)))
}

/// One line; `None` for blanks, comments and what OpenSSH skips, too.
fn parse(text: &str) -> Option<Line<'_>> {
    let text = text.trim();
    if text.starts_with('#') {
        return None;
    }
    let mut words = text.split_ascii_whitespace();
    let first = words.next()?;
    let (mark, hosts) = match first {
        "@cert-authority" => (Mark::Authority, words.next()?),
        // OpenSSH knows only small letters, but whoever wrote this wanted a key gone.
        _ if first.eq_ignore_ascii_case("@revoked") => {
            (Mark::Revoked, words.next().unwrap_or_default())
        }
        _ if first.starts_with('@') => return None,
        _ => (Mark::Plain, first),
    };
    let key = key(words.next(), words.next());
    (key.is_some() || mark == Mark::Revoked).then_some(Line { mark, hosts, key })
}

/// The key of a line's last two fields, if it is one and of the type that it says.
fn key<'a>(algorithm: Option<&'a str>, blob: Option<&str>) -> Option<Key<'a>> {
    let (algorithm, blob) = (algorithm?, STANDARD.decode(blob?).ok()?);
    (key_type(&blob) == Some(algorithm) && is_whole(&blob)).then_some(Key { algorithm, blob })
}

/// Whether a key in its SSH wire form is made of whole fields, and more than its type.
fn is_whole(mut blob: &[u8]) -> bool {
    let mut fields = 0;
    while let Some((length, rest)) = blob.split_at_checked(4) {
        let Ok(length) = <[u8; 4]>::try_from(length) else { return false };
        let Some((_, rest)) = rest.split_at_checked(u32::from_be_bytes(length) as usize) else {
            return false;
        };
        (blob, fields) = (rest, fields + 1);
    }
    blob.is_empty() && fields > 1
}

/// Whether the first field of a line means the host called `name`.
fn names_host(hosts: &str, name: &str) -> bool {
    if let Some(rest) = hosts.strip_prefix(HASHED) {
        let Some((salt, hash)) = rest.split_once('|') else { return false };
        let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else {
            return false;
        };
        return hash == hashed(&salt, name);
    }
    let mut found = false;
    for part in hosts.to_ascii_lowercase().split(',') {
        match part.strip_prefix('!') {
            Some(part) if pattern::matches(part, name) => return false,
            Some(_) => {}
            None => found |= pattern::matches(part, name),
        }
    }
    found
}

/// HMAC-SHA1 of a host name, as hashed lines hold it.
fn hashed(salt: &[u8], name: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
    hmac::sign(&key, name.as_bytes()).as_ref().to_vec()
}

/// `SHA256:…` of a key in its SSH wire form, as `ssh-keygen -l` prints it.
pub(crate) fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(digest::digest(&digest::SHA256, key)))
}

/// The type that a key (or a signature) in its SSH wire form names itself.
pub(crate) fn key_type(key: &[u8]) -> Option<&str> {
    let length = u32::from_be_bytes(key.get(..4)?.try_into().ok()?) as usize;
    std::str::from_utf8(key.get(4..4_usize.checked_add(length)?)?).ok()
}

/// The line that records `key` for the host, hashed if `salt` is given; without a line end.
pub(crate) fn line(name: &Name, key: &[u8], salt: Option<&[u8]>) -> String {
    let host = match salt {
        None => name.text(),
        Some(salt) => {
            let hash = hashed(salt, &name.text());
            format!("{HASHED}{}|{}", STANDARD.encode(salt), STANDARD.encode(hash))
        }
    };
    format!("{host} {} {}", key_type(key).unwrap_or("?"), STANDARD.encode(key))
}

/// Reads a file; one that is not there is empty, one that cannot be read is an error, and so is a
/// pipe, which might never end.
pub(crate) fn read(path: &Path) -> io::Result<Source> {
    let text = match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
        Ok(found) if !found.is_file() && path != Path::new(NOTHING) => {
            return Err(io::Error::other("is not a file"));
        }
        Ok(_) => {
            let file = fs::File::open(path)?;
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut io::Read::take(file, FILE_LIMIT + 1), &mut bytes)?;
            if bytes.len() as u64 > FILE_LIMIT {
                return Err(io::Error::other("is larger than 16 MiB"));
            }
            String::from_utf8_lossy(&bytes).into_owned()
        }
    };
    Ok(Source { path: path.to_owned(), text })
}
