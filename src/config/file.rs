//! Private files, written whole or not at all, by one process at a time.
//!
//! Everything here blocks; a lock is held for the length of one read and one write.

use std::{
    fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::unistd::Uid;
use serde::{Serialize, de::DeserializeOwned};

use crate::problem::{Class, Problem, UNAVAILABLE};

/// How long another process may hold a lock before we give up.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the system's words mean for a file of ours.
const WORDS: [(io::ErrorKind, &str); 6] = [
    (io::ErrorKind::StorageFull, "the disk is full"),
    (io::ErrorKind::QuotaExceeded, "your share of the disk is full"),
    (io::ErrorKind::ReadOnlyFilesystem, "the file system is read-only"),
    (io::ErrorKind::PermissionDenied, "permission denied"),
    (io::ErrorKind::NotADirectory, "something on the way there is no folder"),
    (io::ErrorKind::InvalidData, "it is not text"),
];

/// Makes the folder and its missing parents, readable by their owner alone.
pub(crate) fn make_folder(folder: &Path) -> Result<(), Problem> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| broken("cannot make the folder", folder, &error))
}

/// Replaces the file's content: a temporary file beside it, synced, renamed; mode 0600. Makes the
/// folder if needed; a link stays one, and what it leads to is replaced. Whatever goes wrong, the
/// old content is still there.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    let path = &destination(path);
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folder(folder)?;
    replace(folder, path, bytes).map_err(|error| broken("cannot write", path, &error))
}

/// The file that a link stands for, there or not: a rename would replace the link.
fn destination(path: &Path) -> PathBuf {
    let beside = |to: PathBuf| path.parent().map_or_else(|| to.clone(), |folder| folder.join(&to));
    let there = std::fs::canonicalize(path);
    there.or_else(|_| std::fs::read_link(path).map(beside)).unwrap_or_else(|_| path.to_owned())
}

fn replace(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The rename itself lasts only once the folder is on disk.
    File::open(folder)?.sync_all()
}

/// The file's text, `None` without one. Class `config` if it cannot be read, or if it is not
/// its owner's or root's alone to write: what stands there may name programs to run.
pub(super) fn read(path: &Path, owner: Uid) -> Result<Option<String>, Problem> {
    let Some(facts) = facts(path)? else { return Ok(None) };
    let shown = path.display();
    if ![0, owner.as_raw()].contains(&facts.uid()) {
        return Err(Problem::new(Class::Config, format!("{shown} belongs to another user"))
            .fix(format!("ls -lL {shown}; make it yours, or move it away")));
    }
    if facts.mode() & 0o022 != 0 {
        return Err(Problem::new(Class::Config, format!("{shown} can be written by other users"))
            .fix(format!("chmod go-w {shown}")));
    }
    text(path)
}

/// As [`read()`], and refuses a file that others may read.
pub(crate) fn read_private(path: &Path) -> Result<Option<String>, Problem> {
    let Some(facts) = facts(path)? else { return Ok(None) };
    let shown = path.display();
    if facts.uid() != Uid::effective().as_raw() {
        return Err(Problem::new(
            Class::Config,
            format!("{shown} holds secrets and belongs to another user"),
        )
        .fix(format!("ls -lL {shown}; make it yours, or move it away")));
    }
    if facts.mode() & 0o077 != 0 {
        return Err(Problem::new(
            Class::Config,
            format!("{shown} holds secrets and is open to other users"),
        )
        .fix(format!("chmod 600 {shown}")));
    }
    text(path)
}

/// What is at `path`, links followed; `None` if nothing is. A pipe would be waited for.
fn facts(path: &Path) -> Result<Option<Metadata>, Problem> {
    match std::fs::metadata(path) {
        Ok(facts) if facts.is_file() => Ok(Some(facts)),
        Ok(_) => Err(Problem::new(Class::Config, format!("{} is not a file", path.display()))
            .fix(format!("move it away: mv {0} {0}.old", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(broken("cannot read", path, &error)),
    }
}

fn text(path: &Path) -> Result<Option<String>, Problem> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(broken("cannot read", path, &error)),
    }
}

/// The JSON value that `text`, the content of `path`, stands for; a broken one names the file.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| {
        Problem::new(Class::Config, format!("{} is broken: {error}", path.display()))
            .fix(format!("mend or move away {}", path.display()))
    })
}

/// Writes `value` as JSON for people and programs, as [`write()`] does.
pub(crate) fn store(path: &Path, value: &impl Serialize) -> Result<(), Problem> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| {
        Problem::new(Class::Internal, format!("cannot write {}: {error}", path.display()))
    })?;
    text.push('\n');
    write(path, text.as_bytes())
}

/// Takes the lock at `path`, made if missing; released when the file is dropped. Class `config` if
/// another process holds it for too long.
pub(crate) fn lock(path: &Path) -> Result<File, Problem> {
    lock_within(path, PATIENCE)
}

fn lock_within(path: &Path, patience: Duration) -> Result<File, Problem> {
    if let Some(folder) = path.parent() {
        make_folder(folder)?;
    }
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| broken("cannot open", path, &error))?;
    let give_up = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < give_up => {
                // An advisory lock has no wait with a deadline.
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Problem::new(
                    Class::Config,
                    format!("another process holds {} for too long", path.display()),
                )
                .code(UNAVAILABLE));
            }
            Err(TryLockError::Error(error)) => return Err(broken("cannot lock", path, &error)),
        }
    }
}

/// What the system says, and what a person can do about it.
pub(crate) fn broken(what: &str, path: &Path, error: &io::Error) -> Problem {
    let (shown, folder) = (path.display(), path.parent().unwrap_or(path).display());
    let kind = error.kind();
    let known = WORDS.iter().find(|(known, _)| *known == kind);
    let why = known.map_or_else(|| error.to_string(), |(_, words)| (*words).to_owned());
    let fix = if matches!(kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        format!("make room and repeat the command: df -h {folder}")
    } else if kind == io::ErrorKind::InvalidData {
        format!("mend it, or move it away: mv {shown} {shown}.old")
    } else if what == "cannot read" {
        format!("make it readable for you: ls -l {shown}")
    } else {
        format!("make {folder} writable for you, or set OPENCLAW_STATE_DIR to a folder that is")
    };
    Problem::new(Class::Config, format!("{what} {shown}: {why}")).fix(fix).denied(error)
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn writes_private_files_in_private_folders() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("state/rs/secret");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(read_private(&path).unwrap().as_deref(), Some("two"));
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(&home.path().join("state/rs")), 0o700);
        assert_eq!(mode(&home.path().join("state")), 0o700);
        assert_eq!(std::fs::read_dir(home.path().join("state/rs")).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_a_link() {
        let home = tempfile::tempdir().unwrap();
        let link = home.path().join("remotes.json");
        std::os::unix::fs::symlink("dotfiles/remotes.json", &link).unwrap();
        write(&link, b"one").unwrap();
        write(&link, b"two").unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        let real = home.path().join("dotfiles/remotes.json");
        assert_eq!(std::fs::read_to_string(real).unwrap(), "two");
        assert_eq!(read(&link, Uid::effective()).unwrap().as_deref(), Some("two"));
    }

    #[test]
    fn refuses_what_others_can_write() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("remotes.json");
        write(&path, b"{}").unwrap();
        for mode in [0o664, 0o646] {
            std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let problem = read(&path, Uid::effective()).unwrap_err();
            assert_eq!(problem.class, Class::Config);
            assert!(problem.fix.unwrap().starts_with("chmod go-w "));
        }
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        read(&path, Uid::effective()).unwrap();
    }

    #[test]
    fn refuses_what_is_no_file_without_waiting_for_it() {
        let home = tempfile::tempdir().unwrap();
        let pipe = home.path().join("remotes.json");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), home.path()] {
            for problem in
                [read(path, Uid::effective()).unwrap_err(), read_private(path).unwrap_err()]
            {
                assert_eq!(problem.class, Class::Config);
                assert!(problem.message.ends_with("is not a file"), "{problem}");
            }
        }
    }

    #[test]
    fn what_cannot_be_written_leaves_the_old_file() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("rs/remotes.json");
        write(&path, b"old").unwrap();
        // A folder that takes no file: the name is not even begun.
        let folder = path.parent().unwrap();
        replace(Path::new("/proc"), &path, b"new").unwrap_err();
        assert_eq!(read(&path, Uid::effective()).unwrap().as_deref(), Some("old"));
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1);
    }

    #[test]
    fn says_what_a_person_can_do_about_a_disk() {
        let path = Path::new("/home/me/.openclaw/rs/remotes.json");
        let says = |errno: nix::errno::Errno| broken("cannot write", path, &errno.into());
        let full = says(nix::errno::Errno::ENOSPC);
        assert_eq!(full.class, Class::Config);
        assert!(full.message.ends_with("remotes.json: the disk is full"), "{full}");
        let fix = full.fix.unwrap();
        assert!(fix.ends_with("df -h /home/me/.openclaw/rs"), "{fix}");
        let read_only = says(nix::errno::Errno::EROFS);
        assert!(read_only.message.ends_with("the file system is read-only"), "{read_only}");
        assert!(read_only.fix.as_ref().unwrap().contains("OPENCLAW_STATE_DIR"));
        let unread = broken("cannot read", path, &nix::errno::Errno::EACCES.into());
        assert!(unread.fix.unwrap().contains("readable"), "what is there must be read");
        assert!(says(nix::errno::Errno::EDQUOT).message.contains("share"));
        let broken_disk = says(nix::errno::Errno::EIO);
        assert!(broken_disk.message.contains("Input/output error"));
        for problem in [read_only, broken_disk] {
            assert!(!problem.is_lasting(), "{problem}");
        }
        let no_text = io::Error::from(io::ErrorKind::InvalidData);
        assert!(broken("cannot read", path, &no_text).is_lasting());
    }

    #[test]
    fn refuses_a_secret_that_others_can_read() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("secret");
        write(&path, b"one").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let problem = read_private(&path).unwrap_err();
        assert_eq!(problem.class, Class::Config);
        assert!(problem.fix.unwrap().starts_with("chmod 600 "));
    }

    #[test]
    fn gives_up_on_a_lock_that_is_never_released() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("rs/remotes.lock");
        let held = lock(&path).unwrap();
        let problem = lock_within(&path, Duration::ZERO).unwrap_err();
        assert!(problem.message.contains("remotes.lock"), "{}", problem.message);
        drop(held);
        lock_within(&path, Duration::ZERO).unwrap();
    }

    #[test]
    fn tells_that_a_folder_cannot_be_made() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("file"), "").unwrap();
        let problem = write(&home.path().join("file/rs/remotes.json"), b"").unwrap_err();
        assert_eq!(problem.class, Class::Config);
    }
}
