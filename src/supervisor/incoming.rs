//! A connection that wants a path: from a local port, or from one of our own commands.

use std::{
    io::{self, IoSlice},
    os::fd::{AsFd, OwnedFd},
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use crate::{
    control::{self, Opened, Reply},
    problem::Problem,
};

/// How long a refusal may take to be written and read.
const REFUSAL_LIMIT: Duration = Duration::from_secs(2);
/// The same while many are turned away: whoever hangs on to it keeps others waiting at the door.
const REFUSAL_LIMIT_CROWDED: Duration = Duration::from_millis(250);
/// How long the first bytes of a connection that is turned away may take.
const PEEK_LIMIT: Duration = Duration::from_millis(100);
/// First bytes of the HTTP methods that a gateway's clients use.
const HTTP: [&[u8]; 4] = [b"GET ", b"POST ", b"HEAD ", b"OPTIONS "];

/// The local end.
#[derive(Debug)]
pub(super) enum Local {
    /// Of any program, through a port of ours.
    Tcp(TcpStream),
    /// Of any program, through a socket of ours.
    Unix(UnixStream),
    /// Of one of our commands; it is told [`Reply::Opened`] before the bytes.
    Command(UnixStream),
}

/// A connection with the end of its patience.
#[derive(Debug)]
pub(super) struct Incoming {
    local: Local,
    /// When waiting ends.
    pub(super) until: Instant,
    /// It was taken in before, and is not turned away for the number of those that wait.
    is_promised: bool,
}

impl Incoming {
    pub(super) fn new(local: Local, until: Instant) -> Self {
        Self { local, until, is_promised: false }
    }

    /// It is taken in; when waiting ends stays as it is.
    pub(super) fn promise(&mut self) {
        self.is_promised = true;
    }

    /// Whether it was taken in before.
    pub(super) fn is_promised(&self) -> bool {
        self.is_promised
    }

    /// Whether it is the connection of another program at a port.
    pub(super) fn is_tcp(&self) -> bool {
        matches!(self.local, Local::Tcp(_))
    }

    /// A descriptor of another program's connection at a port; `None` for any other.
    pub(super) fn descriptor(&self) -> io::Result<Option<OwnedFd>> {
        match &self.local {
            Local::Tcp(stream) => stream.as_fd().try_clone_to_owned().map(Some),
            Local::Unix(_) | Local::Command(_) => Ok(None),
        }
    }

    /// The local end, ready for bytes; `None` if it went away.
    pub(super) async fn begin(self, opened: Opened) -> Option<Local> {
        match self.local {
            local @ (Local::Tcp(_) | Local::Unix(_)) => Some(local),
            Local::Command(mut stream) => {
                control::write(&mut stream, &Reply::Opened(opened)).await.ok()?;
                Some(Local::Command(stream))
            }
        }
    }

    /// Says why it is not served: 503 where HTTP was asked, a clean close otherwise.
    pub(super) async fn refuse(self, problem: Problem) {
        self.refuse_within(REFUSAL_LIMIT, problem).await;
    }

    /// The same, with less time for it.
    pub(super) async fn refuse_in_a_crowd(self, problem: Problem) {
        self.refuse_within(REFUSAL_LIMIT_CROWDED, problem).await;
    }

    async fn refuse_within(self, limit: Duration, problem: Problem) {
        let refusal = async {
            match self.local {
                local @ (Local::Tcp(_) | Local::Unix(_)) => turn_away(local, &problem).await,
                Local::Command(mut stream) => {
                    control::write(&mut stream, &Reply::Failed(problem)).await
                }
            }
        };
        // Whoever does not take its refusal in time is closed without.
        let _refused = timeout(limit, refusal).await;
    }
}

async fn turn_away(mut stream: Local, problem: &Problem) -> io::Result<()> {
    let mut first = [0; 16];
    // Whoever has only just connected is about to say what it speaks.
    let seen = timeout(PEEK_LIMIT, stream.read(&mut first)).await.unwrap_or(Ok(0))?;
    let first = first.get(..seen).unwrap_or_default();
    if HTTP.iter().any(|method| first.starts_with(method)) {
        let error = json!({"class": problem.class, "message": problem.message});
        let body = json!({"ok": false, "error": error}).to_string();
        let head = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nretry-after: 5\r\nconnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await?;
    // Unread bytes at the close would turn it into a reset, and the answer would be lost.
    let mut rest = [0; 4096];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

impl Local {
    /// Closes so that the other side sees that bytes are missing, as far as that can be: a Unix
    /// socket knows no reset.
    pub(super) fn reset(self) {
        if let Self::Tcp(stream) = self {
            // Without the option the close is a clean one, which is the worse lie but no failure.
            let _unset = stream.set_zero_linger();
        }
    }
}

impl AsyncRead for Local {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Unix(stream) | Self::Command(stream) => {
                Pin::new(stream).poll_read(context, buffer)
            }
        }
    }
}

impl AsyncWrite for Local {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Unix(stream) | Self::Command(stream) => {
                Pin::new(stream).poll_write(context, bytes)
            }
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(context, pieces),
            Self::Unix(stream) | Self::Command(stream) => {
                Pin::new(stream).poll_write_vectored(context, pieces)
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(context),
            Self::Unix(stream) | Self::Command(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Unix(stream) | Self::Command(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
