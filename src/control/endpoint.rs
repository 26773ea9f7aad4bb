//! Where the supervisor of a profile listens, and what it means when nobody is met there.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    net::UnixStream,
    time::{Instant, sleep},
};

use crate::problem::{Class, Problem};

/// The code of a supervisor that went away in the middle of a command.
pub(crate) const SUPERVISOR_GONE: &str = "SUPERVISOR_GONE";
/// How long a running supervisor may take to greet; it hangs up on those who say nothing sooner.
pub(super) const GREETING_LIMIT: Duration = Duration::from_secs(10);
/// Between two tries to get into a queue that is full.
const QUEUE_PAUSE: Duration = Duration::from_millis(20);

/// Where the supervisor of one profile is, and how it is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Its socket.
    pub(crate) socket: PathBuf,
    /// Where it listens as well, if anywhere.
    pub(crate) other: Option<PathBuf>,
    /// The profile that it serves.
    pub(crate) profile: Option<String>,
}

impl Endpoint {
    /// All its sockets, the usual one first.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(self.socket.as_path()).chain(self.other.as_deref())
    }

    /// Connects to the first that somebody listens on; the error is that of the usual one.
    pub(super) async fn connect(&self) -> io::Result<UnixStream> {
        let usual = queue_up(&self.socket).await;
        match (&usual, &self.other) {
            (Err(error), Some(other)) if is_absent(error) => queue_up(other).await.or(usual),
            _ => usual,
        }
    }
}

/// Connects; a queue of commands that is full at the moment is waited for.
async fn queue_up(socket: &Path) -> io::Result<UnixStream> {
    let until = Instant::now() + GREETING_LIMIT;
    loop {
        match UnixStream::connect(socket).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until => {
                sleep(QUEUE_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// Whether a failed connect means that nobody listens.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

pub(super) fn unreachable_socket(socket: &Path, error: &io::Error) -> Problem {
    if error.kind() == io::ErrorKind::InvalidInput {
        let shown = socket.display();
        return Problem::new(Class::Config, format!("no socket can be made at {shown}: {error}"))
            .fix("set OPENCLAW_STATE_DIR or XDG_RUNTIME_DIR to a folder with a shorter path");
    }
    let class = if error.kind() == io::ErrorKind::NotADirectory
        || error.kind() == io::ErrorKind::PermissionDenied
    {
        Class::Config
    } else {
        Class::Internal
    };
    Problem::new(class, format!("connecting to the supervisor at {}: {error}", socket.display()))
}

pub(super) fn broken(error: &io::Error) -> Problem {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) {
        return gone();
    }
    Problem::new(Class::Internal, format!("the connection to the supervisor broke: {error}"))
        .fix("openclaw remote logs")
}

/// The supervisor ended before the answer. Nothing is known of the network or the gateway.
pub(super) fn gone() -> Problem {
    Problem::new(Class::Internal, "the supervisor went away before there was an answer")
        .code(SUPERVISOR_GONE)
        .fix(
            "the same command again, which starts it anew (what was asked for may have been done); \
             why it went: openclaw remote logs",
        )
}
