//! Decides what known_hosts files say about a host key, and writes new lines. Deciding is pure.
//!
//! The format is that of sshd(8), SSH_KNOWN_HOSTS FILE FORMAT. Stricter than OpenSSH in one point:
//! a host that is on file with any other key counts as changed, whatever the type of that key.

use std::{
    fs, io,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD, engine::general_purpose::STANDARD_NO_PAD};
use ring::{
    digest, hmac,
    rand::{SecureRandom, SystemRandom},
};

use super::pattern;

/// SSH's own port, which known_hosts does not write down.
const SSH_PORT: u16 = 22;
/// How much of a file is read.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;
/// How long another program may hold the folder's lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

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

    /// The entry that also counts for a host that is new at its own port.
    fn portless(&self) -> Option<&str> {
        (self.port != SSH_PORT && !self.alias).then_some(self.host.as_str())
    }
}

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
}

/// What the files say about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The key is on file for this host.
    Known,
    /// Nothing is on file for this host.
    Unknown,
    /// Only an authority is on file: the host should have shown a certificate.
    Authority(Entry),
    /// Another key is on file.
    Changed(Vec<Entry>),
    /// The key is marked as revoked.
    Revoked(Entry),
}

/// What a line says of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Plain,
    Authority,
    Revoked,
}

/// One readable line.
struct Line<'a> {
    mark: Mark,
    hosts: &'a str,
    algorithm: &'a str,
    key: Vec<u8>,
}

/// What `sources` say about `key` (the SSH wire form) shown by the host called `name`.
pub(crate) fn decide(sources: &[Source], name: &Name, key: &[u8]) -> Verdict {
    let verdict = decide_name(sources, &name.text(), key);
    if verdict != Verdict::Unknown {
        return verdict;
    }
    // OpenSSH too looks for a new host under its plain name, but only a match counts there.
    match name.portless().map(|plain| decide_name(sources, plain, key)) {
        Some(found @ (Verdict::Known | Verdict::Revoked(_))) => found,
        Some(Verdict::Unknown | Verdict::Authority(_) | Verdict::Changed(_)) | None => {
            Verdict::Unknown
        }
    }
}

/// What the files could check a host's answer against.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct OnFile {
    /// The types of its keys, in the order of the files.
    pub(crate) keys: Vec<String>,
    /// Whether an authority may vouch for it.
    pub(crate) authority: bool,
}

/// What is on file for the host, so that it can be asked for.
pub(crate) fn on_file(sources: &[Source], name: &Name) -> OnFile {
    let under = |name: &str| {
        let mut found = OnFile::default();
        for (_, _, line) in lines(sources).filter(|(_, _, line)| names_host(line.hosts, name)) {
            match line.mark {
                Mark::Authority => found.authority = true,
                Mark::Plain if !found.keys.iter().any(|known| known == line.algorithm) => {
                    found.keys.push(line.algorithm.to_owned());
                }
                Mark::Plain | Mark::Revoked => {}
            }
        }
        found
    };
    let found = under(&name.text());
    match name.portless() {
        Some(plain) if found == OnFile::default() => OnFile { authority: false, ..under(plain) },
        _ => found,
    }
}

/// `SHA256:…` of a key in its SSH wire form, as `ssh-keygen -l` prints it.
pub(crate) fn fingerprint(key: &[u8]) -> String {
    format!("SHA256:{}", STANDARD_NO_PAD.encode(digest::digest(&digest::SHA256, key)))
}

/// The type that a key in its SSH wire form names itself.
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
            format!("|1|{}|{}", STANDARD.encode(salt), STANDARD.encode(hash))
        }
    };
    format!("{host} {} {}", key_type(key).unwrap_or("?"), STANDARD.encode(key))
}

/// Twenty random bytes for a hashed line.
pub(crate) fn salt() -> Option<[u8; 20]> {
    let mut salt = [0; 20];
    SystemRandom::new().fill(&mut salt).ok().map(|()| salt)
}

/// Reads a file; one that is not there is empty, one that cannot be read is an error.
pub(crate) fn read(path: &Path) -> io::Result<Source> {
    let text = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
        Ok(file) => {
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

/// Adds a line for `key`: under the folder's lock, in one rename, keeping what stands there.
///
/// Waits up to five seconds for the lock, so it belongs on a blocking thread. Does nothing when the
/// key is on file by now or the file is not a regular one (`/dev/null`).
pub(crate) fn record(path: &Path, name: &Name, key: &[u8], hash: bool) -> io::Result<()> {
    // Through a link to the file that it stands for: a rename would replace the link.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().ok_or_else(|| io::Error::other("has no folder"))?;
    if !folder.exists() {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let _lock = lock(folder)?;
    let mode = match fs::metadata(&path) {
        Ok(found) if !found.is_file() => return Ok(()),
        Ok(found) => found.permissions().mode() & 0o777,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0o600,
        Err(error) => return Err(error),
    };
    let before = if path.exists() { fs::read(&path)? } else { Vec::new() };
    let source = Source { path: path.clone(), text: String::from_utf8_lossy(&before).into_owned() };
    if decide_name(std::slice::from_ref(&source), &name.text(), key) == Verdict::Known {
        return Ok(());
    }
    let salt = if hash { salt() } else { None };
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&before)?;
    if before.last().is_some_and(|last| *last != b'\n') {
        file.write_all(b"\n")?;
    }
    writeln!(file, "{}", line(name, key, salt.as_ref().map(<[u8; 20]>::as_slice)))?;
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(&path)?;
    Ok(())
}

/// An exclusive lock on a folder; ends when the handle is dropped.
fn lock(folder: &Path) -> io::Result<fs::File> {
    let handle = fs::File::open(folder)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match handle.try_lock() {
            Ok(()) => return Ok(handle),
            Err(fs::TryLockError::Error(error)) => return Err(error),
            Err(fs::TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "is locked by another program",
                ));
            }
            Err(fs::TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// What the files say under exactly this name.
fn decide_name(sources: &[Source], name: &str, key: &[u8]) -> Verdict {
    let mut known = false;
    let mut others = Vec::new();
    let mut authority = None;
    for (path, number, line) in lines(sources).filter(|(_, _, line)| names_host(line.hosts, name)) {
        let entry = || Entry {
            path: path.to_owned(),
            line: number,
            algorithm: line.algorithm.to_owned(),
            fingerprint: fingerprint(&line.key),
        };
        match line.mark {
            Mark::Revoked if line.key == key => return Verdict::Revoked(entry()),
            Mark::Revoked => {}
            Mark::Authority => authority = authority.or_else(|| Some(entry())),
            Mark::Plain if line.key == key => known = true,
            Mark::Plain => others.push(entry()),
        }
    }
    if known {
        Verdict::Known
    } else if !others.is_empty() {
        Verdict::Changed(others)
    } else {
        authority.map_or(Verdict::Unknown, Verdict::Authority)
    }
}

/// The first line that has `key` on file for the host.
pub(crate) fn line_of(sources: &[Source], name: &Name, key: &[u8]) -> Option<Entry> {
    let under = |name: &str| {
        let found = lines(sources).find(|(_, _, line)| {
            line.mark == Mark::Plain && line.key == key && names_host(line.hosts, name)
        });
        found.map(|(path, number, line)| Entry {
            path: path.to_owned(),
            line: number,
            algorithm: line.algorithm.to_owned(),
            fingerprint: fingerprint(&line.key),
        })
    };
    under(&name.text()).or_else(|| name.portless().and_then(under))
}

/// Every readable line with its file and number.
fn lines(sources: &[Source]) -> impl Iterator<Item = (&Path, usize, Line<'_>)> {
    sources.iter().flat_map(|source| {
        source.text.lines().enumerate().filter_map(|(index, text)| {
            parse(text).map(|line| (source.path.as_path(), index + 1, line))
        })
    })
}

/// One line; `None` for blanks, comments and what is no key of protocol 2 (OpenSSH skips it too).
fn parse(text: &str) -> Option<Line<'_>> {
    let text = text.trim();
    if text.is_empty() || text.starts_with('#') {
        return None;
    }
    let mut words = text.split_ascii_whitespace();
    let first = words.next()?;
    let (mark, hosts) = match first {
        "@revoked" => (Mark::Revoked, words.next()?),
        "@cert-authority" => (Mark::Authority, words.next()?),
        _ if first.starts_with('@') => return None,
        _ => (Mark::Plain, first),
    };
    let algorithm = words.next()?;
    let key = STANDARD.decode(words.next()?).ok()?;
    (key_type(&key) == Some(algorithm)).then_some(Line { mark, hosts, algorithm, key })
}

/// Whether the first field of a line means the host called `name`.
fn names_host(hosts: &str, name: &str) -> bool {
    if let Some(rest) = hosts.strip_prefix("|1|") {
        let Some((salt, hash)) = rest.split_once('|') else { return false };
        let (Ok(salt), Ok(hash)) = (STANDARD.decode(salt), STANDARD.decode(hash)) else {
            return false;
        };
        return hash == hashed(&salt, name);
    }
    let mut found = false;
    for pattern in hosts.to_ascii_lowercase().split(',') {
        match pattern.strip_prefix('!') {
            Some(pattern) if pattern::matches(pattern, name) => return false,
            Some(_) => {}
            None => found |= pattern::matches(pattern, name),
        }
    }
    found
}

/// HMAC-SHA1 of a host name, as hashed lines hold it.
fn hashed(salt: &[u8], name: &str) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, salt);
    hmac::sign(&key, name.as_bytes()).as_ref().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blank-separated columns of a table in `fixtures/known_hosts`, without comments.
    fn table(name: &str) -> Vec<Vec<String>> {
        let text = fs::read_to_string(fixture(name)).unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(str::to_owned).collect())
            .collect()
    }

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/known_hosts").join(name)
    }

    fn key(name: &str) -> Vec<u8> {
        let text = fs::read_to_string(fixture(&format!("key-{name}.pub"))).unwrap();
        STANDARD.decode(text.split_whitespace().nth(1).unwrap()).unwrap()
    }

    fn sources(names: &str) -> Vec<Source> {
        names.split(',').map(|name| read(&fixture(name)).unwrap()).collect()
    }

    fn shown(verdict: &Verdict) -> String {
        let place = |entry: &Entry| {
            format!(" {}:{}", entry.path.file_name().unwrap().display(), entry.line)
        };
        match verdict {
            Verdict::Known => "known".to_owned(),
            Verdict::Unknown => "unknown".to_owned(),
            Verdict::Authority(entry) => format!("authority{}", place(entry)),
            Verdict::Revoked(entry) => format!("revoked{}", place(entry)),
            Verdict::Changed(others) => {
                format!("changed{}", others.iter().map(place).collect::<String>())
            }
        }
    }

    #[test]
    fn decides_as_the_table_says() {
        let rows = table("verdicts.txt");
        assert!(rows.len() > 50);
        for row in rows {
            let [files, host, port, key_name, expected @ ..] = row.as_slice() else {
                panic!("{row:?}");
            };
            let name = Name::new(host, port.parse().unwrap(), None);
            let verdict = decide(&sources(files), &name, &key(key_name));
            assert_eq!(shown(&verdict), expected.join(" "), "{row:?}");
        }
    }

    #[test]
    fn an_alias_has_no_port_and_no_fall_back() {
        let name = Name::new("10.9.9.9", 2222, Some("Box.Example"));
        assert_eq!(name.text(), "box.example");
        assert_eq!(decide(&sources("plain"), &name, &key("a")), Verdict::Known);
    }

    #[test]
    fn asks_for_the_keys_on_file_first() {
        let cases = [
            ("two.example", 22, vec!["ssh-ed25519", "ecdsa-sha2-nistp256"]),
            ("rsa.example", 22, vec!["ssh-rsa"]),
            ("portless.example", 2222, vec!["ssh-ed25519"]),
            ("nowhere.example", 22, vec![]),
        ];
        for (host, port, expected) in cases {
            let name = Name::new(host, port, None);
            assert_eq!(on_file(&sources("plain"), &name).keys, expected, "{host}");
        }
    }

    #[test]
    fn what_is_written_is_found_again() {
        let name = Name::new("new.example", 2222, None);
        for salt in [None, Some([7; 20])] {
            let line = line(&name, &key("c"), salt.as_ref().map(<[u8; 20]>::as_slice));
            assert_eq!(line.contains("new.example"), salt.is_none());
            let source = Source { path: "x".into(), text: line };
            assert_eq!(decide(&[source], &name, &key("c")), Verdict::Known);
        }
    }

    #[test]
    fn records_once_keeping_the_file_its_mode_and_the_link_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "# mine").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let name = Name::new("new.example", 22, None);
        for _ in 0..2 {
            record(&link, &name, &key("a"), false).unwrap();
        }
        let line = line(&name, &key("a"), None);
        assert_eq!(fs::read_to_string(&real).unwrap(), format!("# mine\n{line}\n"));
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o644);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn records_into_a_new_private_file_in_a_new_private_folder() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ssh/known_hosts");
        record(&path, &Name::new("new.example", 22, None), &key("a"), true).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing left over");
    }

    #[test]
    fn two_writers_lose_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("known_hosts");
        thread::scope(|scope| {
            for number in 0..16 {
                let path = &path;
                scope.spawn(move || {
                    let name = Name::new(&format!("host{number}"), 22, None);
                    record(path, &name, &key("a"), false).unwrap();
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 16);
    }

    #[test]
    fn writes_nothing_where_no_file_can_be() {
        record(Path::new("/dev/null"), &Name::new("a", 22, None), &key("a"), false).unwrap();
        assert!(read(Path::new("/nonexistent/known_hosts")).unwrap().text.is_empty());
        assert!(read(Path::new("/")).is_err());
    }
}
