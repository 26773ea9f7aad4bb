//! The sockets on which commands find the supervisor: bound anew when somebody takes them away.

use std::{
    fs::{self, DirBuilder, Permissions},
    future::poll_fn,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, MetadataExt, PermissionsExt},
            net::UnixListener as StdUnixListener,
        },
    },
    path::{Path, PathBuf},
    task::Poll,
};

use tokio::net::{UnixListener, UnixStream};
use tracing::{debug, info};

use super::{port::BACKLOG, process::wrong};
use crate::{config::Paths, problem::Problem};

/// The sockets of one supervisor: the first in the runtime folder, if there is one, and one in our
/// own folder, for commands that have no runtime folder (cron, `sudo`) or another one; and those
/// of a predecessor, if it had others.
pub(super) struct Doors(Vec<Door>);

impl Doors {
    /// Binds those that did not come from a predecessor; what a dead supervisor left is removed,
    /// since the lock is ours.
    pub(super) fn open(paths: &Paths, inherited: Vec<StdUnixListener>) -> Result<Self, Problem> {
        let endpoint = paths.endpoint();
        let mut doors: Vec<Door> = inherited.into_iter().filter_map(Door::of).collect();
        for path in endpoint.sockets() {
            if doors.iter().any(|door| door.path == path) {
                continue;
            }
            match Door::open(path) {
                Ok(door) => doors.push(door),
                Err(error) if *path == endpoint.socket => return Err(wrong(path, &error)),
                // Only a convenience: a folder whose path is too long for a socket can do without.
                Err(error) => debug!(%error, "one control socket was not made"),
            }
        }
        Ok(Self(doors))
    }

    /// The next command, at whichever door. May be dropped and called again.
    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        poll_fn(|context| {
            let accepted = self.0.iter().map(|door| door.listener.poll_accept(context));
            let first = accepted.into_iter().find(Poll::is_ready);
            first.unwrap_or(Poll::Pending).map_ok(|(stream, _)| stream)
        })
        .await
    }

    /// Descriptors of those that are in their places, for a successor.
    pub(super) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let there = self.0.iter().filter(|door| door.is_there());
        there.map(|door| door.listener.as_fd().try_clone_to_owned()).collect()
    }

    /// Binds anew what is gone: the runtime folder is emptied when its user's last login ends.
    pub(super) fn mend(&mut self) {
        for door in &mut self.0 {
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
        for door in &self.0 {
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
        rustix::net::listen(&listener, BACKLOG)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        let facts = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), listener, file: (facts.dev(), facts.ino()) })
    }

    /// One that listens already; `None` if its file is gone.
    fn of(listener: StdUnixListener) -> Option<Self> {
        let path = listener.local_addr().ok()?.as_pathname()?.to_owned();
        let facts = fs::symlink_metadata(&path).ok()?;
        listener.set_nonblocking(true).ok()?;
        let listener = UnixListener::from_std(listener).ok()?;
        Some(Self { path, listener, file: (facts.dev(), facts.ino()) })
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
        let mut doors = Doors::open(&paths, Vec::new()).unwrap();
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
        let old = Doors::open(&paths, Vec::new()).unwrap();
        let new = Doors::open(&paths, Vec::new()).unwrap();
        old.close();
        Command::connect(&paths.socket).unwrap();
        new.close();
        assert!(!paths.socket.exists());
    }

    #[tokio::test]
    async fn go_to_a_successor_and_were_never_shut() {
        let (_home, paths) = Paths::temporary();
        let old = Doors::open(&paths, Vec::new()).unwrap();
        let inherited = old.descriptors().unwrap().into_iter().map(StdUnixListener::from).collect();
        // It waits in the backlog that both have.
        let _waiting = Command::connect(&paths.socket).unwrap();
        let new = Doors::open(&paths, inherited).unwrap();
        drop(old);
        new.accept().await.unwrap();
        new.close();
        assert!(!paths.socket.exists());
    }
}
