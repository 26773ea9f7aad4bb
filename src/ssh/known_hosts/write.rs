//! Writes known_hosts files: under the folder's lock, in one rename, keeping what stands there.

use std::{
    fs::{self, Metadata},
    io,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use ring::rand::{SecureRandom, SystemRandom};

use super::{
    decide::{Known, Verdict, decide, keys_on_file},
    line::{Name, Source, line},
};

/// How long another program may hold the folder's lock.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// What becomes of a host's lines in one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Change {
    /// Keys to add, in the SSH wire form.
    pub(crate) add: Vec<Vec<u8>>,
    /// Keys whose lines go, in the SSH wire form.
    pub(crate) remove: Vec<Vec<u8>>,
    /// Whether new lines hide the host's name.
    pub(crate) hash: bool,
}

/// Adds a line for `key`, unless it is on file under this name.
///
/// Waits up to five seconds for the lock, so it belongs on a blocking thread. Does nothing where
/// the file is not a regular one (`/dev/null`).
pub(crate) fn record(path: &Path, name: &Name, key: &[u8], hash: bool) -> io::Result<()> {
    change(path, name, &Change { add: vec![key.to_vec()], remove: Vec::new(), hash })
}

/// Changes the lines of one host; every other line stays as it is, byte for byte.
///
/// Only unmarked lines that name this host alone are removed. Waits like [`record`].
pub(crate) fn change(path: &Path, name: &Name, change: &Change) -> io::Result<()> {
    let path = destination(path);
    let folder = path.parent().ok_or_else(|| io::Error::other("has no folder"))?;
    if !folder.exists() {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let _lock = lock(folder)?;
    let old = match fs::metadata(&path) {
        Ok(found) if !found.is_file() => return Ok(()),
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let before = if path.exists() { fs::read(&path)? } else { Vec::new() };
    match changed(&before, &path, name, change)? {
        None => Ok(()),
        Some(text) => replace(&path, folder, old.as_ref(), &text),
    }
}

/// The file that a link stands for, there or not: a rename would replace the link.
fn destination(path: &Path) -> PathBuf {
    let beside = |to: PathBuf| path.parent().map_or_else(|| to.clone(), |folder| folder.join(&to));
    fs::canonicalize(path)
        .or_else(|_| fs::read_link(path).map(beside))
        .unwrap_or_else(|_| path.to_owned())
}

/// What the file holds after the change; `None` if that is what it held before.
fn changed(
    before: &[u8],
    path: &Path,
    name: &Name,
    change: &Change,
) -> io::Result<Option<Vec<u8>>> {
    let text = String::from_utf8_lossy(before).into_owned();
    let source = [Source { path: path.to_owned(), text }];
    let goes = |known: &Known| !known.marked && known.alone && change.remove.contains(&known.key);
    let gone: Vec<usize> = keys_on_file(&source, &name.text())
        .iter()
        .filter(|known| goes(known))
        .map(|known| known.entry.line)
        .collect();
    let mut after: Vec<u8> = Vec::with_capacity(before.len());
    for (index, line) in before.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if !gone.contains(&(index + 1)) {
            after.extend_from_slice(line);
        }
    }
    for key in &change.add {
        // Under the plain name alone it may be the key of another port.
        let there = Name::new(&name.text(), 22, Some(&name.text()));
        if matches!(decide(&source, &there, key), Verdict::Known(_)) {
            continue;
        }
        let salt = change.hash.then(salt).transpose()?;
        if after.last().is_some_and(|last| *last != b'\n') {
            after.push(b'\n');
        }
        after.extend(line(name, key, salt.as_ref().map(<[u8; 20]>::as_slice)).into_bytes());
        after.push(b'\n');
    }
    Ok((after != before).then_some(after))
}

/// Puts a file with the owner and the permissions of the `old` one in its place.
fn replace(path: &Path, folder: &Path, old: Option<&Metadata>, text: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text)?;
    let made = file.as_file().metadata()?;
    if let Some(old) = old.filter(|old| (old.uid(), old.gid()) != (made.uid(), made.gid())) {
        fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
    }
    let mode = old.map_or(0o600, |old| old.permissions().mode() & 0o777);
    file.as_file().set_permissions(fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Twenty random bytes for a hashed line.
fn salt() -> io::Result<[u8; 20]> {
    let mut salt = [0; 20];
    let filled = SystemRandom::new().fill(&mut salt);
    filled.map(|()| salt).map_err(|_| io::Error::other("no random bytes to hide the name with"))
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
