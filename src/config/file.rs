//! Private files, written whole or not at all, by one process at a time.
//!
//! Everything here blocks; a lock is held for the length of one read and one write.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
    time::{Duration, Instant},
};

use serde::{Serialize, de::DeserializeOwned};

use crate::problem::{Class, Problem};

/// How long another process may hold a lock before we give up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Makes the folder and its missing parents, readable by their owner alone.
pub(crate) fn make_folder(folder: &Path) -> Result<(), Problem> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|error| broken("cannot make the folder", folder, &error))
}

/// Replaces the file's content: a temporary file beside it, synced, renamed; mode 0600. Makes the
/// folder if needed.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Problem> {
    let folder = path.parent().unwrap_or(Path::new("."));
    make_folder(folder)?;
    replace(folder, path, bytes).map_err(|error| broken("cannot write", path, &error))
}

fn replace(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    // The rename itself lasts only once the folder is on disk.
    File::open(folder)?.sync_all()
}

/// The file's text, `None` without one. Class `config` if it cannot be read.
pub(crate) fn read(path: &Path) -> Result<Option<String>, Problem> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(broken("cannot read", path, &error)),
    }
}

/// As [`read`], and refuses a file that is not ours or that others may read or write.
pub(crate) fn read_private(path: &Path) -> Result<Option<String>, Problem> {
    let facts = match std::fs::metadata(path) {
        Ok(facts) => facts,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(broken("cannot read", path, &error)),
    };
    let shown = path.display();
    if facts.uid() != nix::unistd::Uid::effective().as_raw() {
        return Err(Problem::new(
            Class::Config,
            format!("{shown} holds secrets and belongs to another user"),
        )
        .fix(format!("ls -l {shown}")));
    }
    if facts.mode() & 0o077 != 0 {
        return Err(Problem::new(
            Class::Config,
            format!("{shown} holds secrets and is open to other users"),
        )
        .fix(format!("chmod 600 {shown}")));
    }
    read(path)
}

/// The JSON value that `text`, the content of `path`, stands for; a broken one names the file.
pub(super) fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, Problem> {
    serde_json::from_str(text).map_err(|error| {
        Problem::new(Class::Config, format!("{} is broken: {error}", path.display()))
            .fix(format!("mend or move away {}", path.display()))
    })
}

/// Writes `value` as JSON for people and programs, as [`write()`] does.
pub(super) fn store(path: &Path, value: &impl Serialize) -> Result<(), Problem> {
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
                ));
            }
            Err(TryLockError::Error(error)) => return Err(broken("cannot lock", path, &error)),
        }
    }
}

fn broken(what: &str, path: &Path, error: &io::Error) -> Problem {
    Problem::new(Class::Config, format!("{what} {}: {error}", path.display()))
        .fix(format!("ls -ld {}", path.parent().unwrap_or(path).display()))
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
    fn refuses_a_secret_that_others_can_read() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("secret");
        write(&path, b"one").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        let problem = read_private(&path).unwrap_err();
        assert_eq!(problem.class, Class::Config);
        assert!(problem.fix.unwrap().starts_with("chmod 600 "));
        read(&path).unwrap();
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
