//! The sockets on which commands find the supervisor: bound anew when somebody takes them away.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, info};

use super::process::wrong;
use crate::{config::Paths, problem::Problem};

/// The sockets of one supervisor: the first in the runtime folder, if there is one, and one in our
/// own folder, for commands that have no runtime folder (cron, `sudo`) or another one.
pub(super) struct Doors {
    first: Door,
    second: Option<Door>,
}

impl Doors {
    /// Binds them; what a dead supervisor left is removed, since the lock is ours.
    pub(super) fn open(paths: &Paths) -> Result<Self, Problem> {
        let endpoint = paths.endpoint();
        let first = Door::open(&endpoint.socket).map_err(|e| wrong(&endpoint.socket, &e))?;
        // Only a convenience: a folder whose path is too long for a socket can do without.
        let second = endpoint.other.as_deref().and_then(|path| Door::open(path).ok());
        Ok(Self { first, second })
    }

    /// The next command, at whichever door.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        let second = async {
            match &self.second {
                Some(door) => door.listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = self.first.listener.accept() => accepted.map(|(stream, _)| stream),
            accepted = second => accepted.map(|(stream, _)| stream),
        }
    }

    /// Binds anew what is gone: the runtime folder is emptied when its user's last login ends.
    pub(super) fn mend(&mut self) {
        for door in std::iter::once(&mut self.first).chain(&mut self.second) {
            if door.is_there() {
                continue;
            }
            match Door::open(&door.path) {
                Ok(fresh) => {
                    info!("the control socket was gone and is back");
                    *door = fresh;
                }
                Err(error) => debug!(%error, "the control socket is gone"),
            }
        }
    }

    /// Removes them; another supervisor's stay.
    pub(super) fn close(&self) {
        for door in std::iter::once(&self.first).chain(&self.second) {
            if door.is_there() {
                let _gone = fs::remove_file(&door.path);
            }
        }
    }
}

struct Door {
    path: PathBuf,
    listener: UnixListener,
    /// Which file it is: another one at the same path is not ours.
    file: (u64, u64),
}

impl Door {
    /// Binds the socket with mode 0600, in a folder of mode 0700.
    fn open(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let facts = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), listener, file: (facts.dev(), facts.ino()) })
    }

    fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|f| (f.dev(), f.ino()) == self.file)
    }
}

#[cfg(test)]
mod tests {
    use std::{io::ErrorKind, os::unix::net::UnixStream as Command};

    use super::*;

    #[tokio::test]
    async fn are_mended_when_somebody_takes_one_away_and_leave_nothing() {
        let (home, mut paths) = Paths::temporary();
        paths.socket = home.path().join("run/openclaw/default.sock");
        let other = paths.own().join("supervisor.sock");
        let mut doors = Doors::open(&paths).unwrap();
        Command::connect(&other).unwrap();
        fs::remove_dir_all(home.path().join("run")).unwrap();
        assert_eq!(Command::connect(&paths.socket).unwrap_err().kind(), ErrorKind::NotFound);
        doors.mend();
        Command::connect(&paths.socket).unwrap();
        assert_eq!(fs::metadata(&paths.socket).unwrap().mode() & 0o777, 0o600);
        doors.close();
        assert!(!paths.socket.exists() && !other.exists());
    }

    #[tokio::test]
    async fn one_that_is_another_supervisors_stays() {
        let (_home, paths) = Paths::temporary();
        let old = Doors::open(&paths).unwrap();
        let new = Doors::open(&paths).unwrap();
        old.close();
        Command::connect(&paths.socket).unwrap();
        new.close();
        assert!(!paths.socket.exists());
    }
}
