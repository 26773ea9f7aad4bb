//! A Unix socket that a forward listens on: made as ssh_config(5) says, and gone when it is closed.

use std::{
    fs::{self, Metadata, Permissions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener as StdListener, UnixStream as StdStream},
        },
    },
    path::{Path, PathBuf},
};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
use tokio::net::UnixListener;

use crate::{
    problem::{Class, Problem},
    ssh::SocketRule,
};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// The file of a socket that is ours; removed when dropped, unless it is another one by then.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Its device and its number there.
    place: (u64, u64),
    is_left: bool,
}

impl SocketFile {
    /// Leaves the file to whoever listens on it from now on.
    pub(super) fn leave(mut self) {
        self.is_left = true;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_left {
            return;
        }
        let is_ours = fs::symlink_metadata(&self.path).is_ok_and(|it| place(&it) == self.place);
        if is_ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket of a forward was not removed");
        }
    }
}

fn place(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Listens on `path`, on what `came` from a predecessor already; class `port_in_use` if something is in
/// the way that `rule` does not remove.
pub(super) fn bind(
    path: &str,
    rule: SocketRule,
    came: Option<StdListener>,
) -> Result<(UnixListener, SocketFile), Problem> {
    let path = Path::new(path);
    let bound = match came {
        Some(listener) => take(listener, path),
        None => {
            clear(path, rule)?;
            listen(path, rule)
        }
    };
    bound.map_err(|error| {
        Problem::new(Class::PortInUse, format!("listening on {}: {error}", path.display()))
            .fix("name a socket in a folder that is there and yours")
    })
}

/// Removes what may be removed of what is in the way: a socket, and only one that is ours and that
/// nobody listens on, unless the user said otherwise.
fn clear(path: &Path, rule: SocketRule) -> Result<(), Problem> {
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    let shown = path.display();
    if !metadata.file_type().is_socket() {
        return Err(Problem::new(
            Class::PortInUse,
            format!("{shown} is in the way of a forward, and is no socket"),
        )
        .fix("name another socket, or move that file away"));
    }
    let is_dead = StdStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused);
    let is_own = metadata.uid() == nix::unistd::getuid().as_raw();
    let may_go = rule.unlink || is_dead && is_own;
    if !may_go {
        return Err(Problem::new(
            Class::PortInUse,
            format!("the socket {shown} is taken by another program"),
        )
        .fix("name another socket, or take it over with -o StreamLocalBindUnlink=yes"));
    }
    fs::remove_file(path).map_err(|error| {
        Problem::new(Class::PortInUse, format!("removing the old socket {shown}: {error}"))
    })
}

fn listen(path: &Path, rule: SocketRule) -> io::Result<(UnixListener, SocketFile)> {
    let descriptor =
        socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::empty(), None)?;
    nix::fcntl::fcntl(&descriptor, nix::fcntl::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC))?;
    socket::bind(descriptor.as_raw_fd(), &UnixAddr::new(path)?)?;
    // Nobody can connect before it listens, so its first mode does not matter.
    fs::set_permissions(path, Permissions::from_mode(0o777 & !rule.mask))?;
    socket::listen(&descriptor, Backlog::new(BACKLOG)?)?;
    take(StdListener::from(descriptor), path)
}

fn take(listener: StdListener, path: &Path) -> io::Result<(UnixListener, SocketFile)> {
    listener.set_nonblocking(true)?;
    let place = place(&fs::symlink_metadata(path)?);
    let file = SocketFile { path: path.to_owned(), place, is_left: false };
    Ok((UnixListener::from_std(listener)?, file))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(path: &str, rule: SocketRule) -> Result<(UnixListener, SocketFile), Problem> {
        super::bind(path, rule, None)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[tokio::test]
    async fn a_socket_is_its_owners_and_goes_with_its_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let text = path.to_str().unwrap();
        let bound = bind(text, SocketRule::default()).unwrap();
        assert_eq!(mode(&path), 0o600);
        StdStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists());
        let open = SocketRule { mask: 0o111, unlink: false };
        let bound = bind(text, open).unwrap();
        assert_eq!(mode(&path), 0o666);
        // Somebody else's by now: it stays.
        fs::remove_file(&path).unwrap();
        let other = StdListener::bind(&path).unwrap();
        drop(bound);
        assert!(path.exists());
        drop(other);
    }

    #[tokio::test]
    async fn only_a_dead_socket_makes_way() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s");
        let text = path.to_str().unwrap();
        let rule = SocketRule::default();
        let held = StdListener::bind(&path).unwrap();
        assert_eq!(bind(text, rule).unwrap_err().class, Class::PortInUse);
        drop(held);
        drop(bind(text, rule).unwrap());
        let held = StdListener::bind(&path).unwrap();
        drop(bind(text, SocketRule { unlink: true, ..rule }).unwrap());
        drop(held);
        fs::write(&path, "a letter").unwrap();
        for unlink in [false, true] {
            let problem = bind(text, SocketRule { unlink, ..rule }).unwrap_err();
            assert!(problem.message.contains("no socket"), "{problem}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "a letter");
        let nowhere = folder.path().join("no/s");
        assert_eq!(bind(nowhere.to_str().unwrap(), rule).unwrap_err().class, Class::PortInUse);
    }
}
