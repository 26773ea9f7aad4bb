//! Decides what known_hosts files say about a host key. Pure.
//!
//! Stricter than OpenSSH in three points: a host that is on file with any other key counts as
//! changed, whatever the type of that key; a revocation counts under the plain name as well as
//! under that with the port; and a revocation that cannot be read stops everything.

use std::path::{Path, PathBuf};

use super::line::{Line, Mark, Name, Source, fingerprint, lines};

/// A line that speaks of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The file.
    pub(crate) path: PathBuf,
    /// The line's number, from 1.
    pub(crate) line: usize,
    /// `ssh-ed25519` and the like.
    pub(crate) algorithm: String,
    /// `SHA256:…`.
    pub(crate) fingerprint: String,
    /// Whether the line names hosts outright, without wildcard or negation.
    pub(crate) literal: bool,
}

/// What the files say about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The key is on file for this host.
    Known(Entry),
    /// Nothing is on file for this host.
    Unknown,
    /// Only an authority is on file: the host should have shown a certificate.
    Authority(Entry),
    /// Another key is on file.
    Changed(Vec<Entry>),
    /// The key is marked as revoked.
    Revoked(Entry),
    /// A line revokes a key of this host, and which one cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
    },
}

/// What the files could check a host's answer against.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OnFile {
    /// The types of its keys, in the order of the files.
    pub(crate) keys: Vec<String>,
    /// Whether an authority may vouch for it.
    pub(crate) authority: bool,
}

/// An authority that may vouch for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Voucher {
    /// Its line.
    pub(crate) entry: Entry,
    /// Its key in the SSH wire form.
    pub(crate) key: Vec<u8>,
}

/// A key that is on file for the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    /// The key in its SSH wire form.
    pub(crate) key: Vec<u8>,
    /// Its line.
    pub(crate) entry: Entry,
    /// Whether an authority or a revocation stands there instead of a key.
    pub(crate) marked: bool,
    /// Whether the line names this host alone, perhaps with its addresses.
    pub(crate) alone: bool,
}

/// What `sources` say about `key` (the SSH wire form) shown by the host called `name`.
pub(crate) fn decide(sources: &[Source], name: &Name, key: &[u8]) -> Verdict {
    if let Some(refusal) = revocation(sources, name, &[key]) {
        return refusal;
    }
    let verdict = decide_name(sources, &name.text(), key);
    if verdict != Verdict::Unknown {
        return verdict;
    }
    // OpenSSH too looks for a new host under its plain name, but only a match counts there.
    match name.portless().map(|plain| decide_name(sources, plain, key)) {
        Some(known @ Verdict::Known(_)) => known,
        _ => Verdict::Unknown,
    }
}

/// Whether a line takes back one of `keys`, or one that nobody can read; nothing beats that.
pub(crate) fn revocation(sources: &[Source], name: &Name, keys: &[&[u8]]) -> Option<Verdict> {
    let full = name.text();
    let mut unreadable = None;
    for (path, number, line) in all(sources).filter(|(_, _, line)| line.mark == Mark::Revoked) {
        if !line.names(&full) && !name.portless().is_some_and(|plain| line.names(plain)) {
            continue;
        }
        match &line.key {
            Some(key) if keys.contains(&key.blob.as_slice()) => {
                return entry(path, number, &line).map(Verdict::Revoked);
            }
            Some(_) => {}
            None => {
                unreadable = unreadable
                    .or_else(|| Some(Verdict::Unreadable { path: path.to_owned(), line: number }));
            }
        }
    }
    unreadable
}

/// The authorities that may vouch for the host, those of its own port before those of its name.
pub(crate) fn authorities(sources: &[Source], name: &Name) -> Vec<Voucher> {
    let under = |name: &str| -> Vec<Voucher> {
        all(sources)
            .filter(|(_, _, line)| line.mark == Mark::Authority && line.names(name))
            .filter_map(|(path, number, line)| {
                let entry = entry(path, number, &line)?;
                line.key.map(|key| Voucher { entry, key: key.blob })
            })
            .collect()
    };
    let mut found = under(&name.text());
    found.extend(name.portless().map(under).unwrap_or_default());
    found
}

/// What is on file for the host, so that it can be asked for.
pub(crate) fn on_file(sources: &[Source], name: &Name) -> OnFile {
    let under = |name: &str| {
        let mut kinds: Vec<String> = Vec::new();
        let plain = all(sources).filter(|(_, _, line)| line.mark == Mark::Plain);
        for (_, _, line) in plain.filter(|(_, _, line)| line.names(name)) {
            if let Some(key) = &line.key
                && !kinds.iter().any(|known| known == key.algorithm)
            {
                kinds.push(key.algorithm.to_owned());
            }
        }
        kinds
    };
    let mut keys = under(&name.text());
    if keys.is_empty() {
        keys = name.portless().map(under).unwrap_or_default();
    }
    OnFile { keys, authority: !authorities(sources, name).is_empty() }
}

/// Every line that names the host, whatever its mark.
pub(crate) fn keys_on_file(sources: &[Source], name: &str) -> Vec<Known> {
    all(sources)
        .filter(|(_, _, line)| line.names(name))
        .filter_map(|(path, number, line)| {
            let entry = entry(path, number, &line)?;
            let (marked, alone) = (line.mark != Mark::Plain, line.is_alone(name));
            line.key.map(|key| Known { key: key.blob, entry, marked, alone })
        })
        .collect()
}

/// Whether `key` stands in any line for any host.
pub(crate) fn is_anywhere(sources: &[Source], key: &[u8]) -> bool {
    all(sources).any(|(_, _, line)| line.key.is_some_and(|on_file| on_file.blob == key))
}

/// What the files say under exactly this name, revocations apart.
fn decide_name(sources: &[Source], name: &str, key: &[u8]) -> Verdict {
    let mut others = Vec::new();
    let mut authority = None;
    for (path, number, line) in all(sources).filter(|(_, _, line)| line.names(name)) {
        let is_it = line.key.as_ref().is_some_and(|on_file| on_file.blob == key);
        let Some(entry) = entry(path, number, &line) else { continue };
        match line.mark {
            Mark::Revoked => {}
            Mark::Authority => authority = authority.or(Some(entry)),
            Mark::Plain if is_it => return Verdict::Known(entry),
            Mark::Plain => others.push(entry),
        }
    }
    if others.is_empty() {
        authority.map_or(Verdict::Unknown, Verdict::Authority)
    } else {
        Verdict::Changed(others)
    }
}

fn entry(path: &Path, number: usize, line: &Line<'_>) -> Option<Entry> {
    let key = line.key.as_ref()?;
    Some(Entry {
        path: path.to_owned(),
        line: number,
        algorithm: key.algorithm.to_owned(),
        fingerprint: fingerprint(&key.blob),
        literal: line.is_literal(),
    })
}

/// Every line with its file and number.
fn all(sources: &[Source]) -> impl Iterator<Item = (&Path, usize, Line<'_>)> {
    sources.iter().flat_map(|source| {
        lines(&source.text).map(|(number, line)| (source.path.as_path(), number, line))
    })
}
