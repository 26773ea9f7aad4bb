//! The seam to SSH: what a lane needs of a session, so that tests can script one.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    config::{Destination, Listen},
    ssh::ListenFailure,
    tunnel::Failure,
};

/// A future that can be stored.
pub(super) type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Bytes both ways.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// Waits until the far side takes nothing any more either, once it has been read to its end;
    /// an error if its session died.
    fn until_closed(&self) -> Later<'static, io::Result<()>>;
}

/// Its far side is never closed for writing alone.
#[cfg(test)]
impl Stream for tokio::io::DuplexStream {
    fn until_closed(&self) -> Later<'static, io::Result<()>> {
        Box::pin(std::future::pending())
    }
}

/// Why a stream was not opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NotOpened {
    /// The server's policy forbids it.
    Prohibited(String),
    /// Nothing answers at the destination, as the server sees it.
    Refused(String),
    /// The server says nothing.
    Silent,
    /// The session died first.
    SessionLost,
}

/// A connection that comes from over there; dropping it refuses it.
pub(super) trait Knock: Send {
    /// Takes it.
    fn accept(self: Box<Self>) -> Later<'static, Box<dyn Stream>>;

    /// Says that nothing answers here.
    fn refuse(self: Box<Self>) -> Later<'static, ()>;
}

/// The connections of a listener over there.
pub(super) trait Knocks: Send {
    /// Where it listens, with the port that the server chose if the choice was left to it.
    fn at(&self) -> &Listen;

    /// The next, and whether it came from where the listener was to be reached from; `None` when
    /// there will be no more.
    fn next(&mut self) -> Later<'_, Option<(Box<dyn Knock>, bool)>>;
}

/// What a session proved of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The last hop's host key, `SHA256:…`.
    pub(super) host_key: Option<String>,
    /// Whether a person had to help with the login.
    pub(super) needs_person: bool,
}

/// What a command printed over there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Printed {
    /// Its exit status.
    pub(super) status: u32,
    /// Its standard output.
    pub(super) output: Vec<u8>,
}

/// One authenticated session.
pub(super) trait Link: Send + Sync {
    /// Opens a stream to a place as the far side sees it.
    fn open<'a>(&'a self, to: &'a Destination) -> Later<'a, Result<Box<dyn Stream>, NotOpened>>;

    /// Has the far side listen.
    fn listen<'a>(&'a self, at: &'a Listen) -> Later<'a, Result<Box<dyn Knocks>, ListenFailure>>;

    /// Gives a listener back, and waits a moment for the answer; its streams go on.
    fn unlisten<'a>(&'a self, at: &'a Listen) -> Later<'a, ()>;

    /// Waits for a sign of life; the caller bounds it.
    fn ping(&self) -> Later<'_, Result<Duration, Failure>>;

    /// From now on the answer to the next ping wakes nobody until [`attend`](Self::attend), or until
    /// more than that answer comes in; `false` where that cannot be had.
    fn hush(&self) -> bool;

    /// Takes in whatever has come in, and hears again what comes.
    fn attend(&self);

    /// Waits for the session's end.
    fn closed(&self) -> Later<'_, Failure>;

    /// The address of this machine that the session leaves from, if it is known.
    fn near(&self) -> Option<IpAddr>;

    /// The server's address as it was dialled from this machine, if it was.
    fn far(&self) -> Option<IpAddr> {
        None
    }

    /// Whether the session has ended.
    fn is_closed(&self) -> bool;

    /// Whether a stream that nobody reads blocks the session: silence proves nothing then.
    fn is_parked(&self) -> bool;

    /// Ends the session politely; for one without streams.
    fn close(&self) -> Later<'_, ()>;

    /// Ends the session, and every stream in it, at once.
    fn kill(&self);

    /// Grows with every sign of life of the far side: bytes of any kind, a stalled write that goes on.
    fn heard(&self) -> u64;

    /// Whether the far side has taken nothing of a write for a while.
    fn is_stalled(&self) -> bool;

    /// What the session proved.
    fn facts(&self) -> Facts;

    /// Runs a command over there and returns at most `limit` bytes of its output.
    fn run<'a>(&'a self, command: &'a str, limit: usize) -> Later<'a, Result<Printed, Failure>>;
}

/// How far a dial is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Progress {
    /// For people.
    pub(super) text: String,
    /// Whether the server is reached and the next step is its own.
    pub(super) is_reached: bool,
}

/// Makes sessions.
pub(super) trait Dial: Send + Sync {
    /// Makes one; tells `stage` how far it is, and looks at `awaited` whether somebody waits for it.
    fn dial<'a>(
        &'a self,
        stage: &'a (dyn Fn(Progress) + Send + Sync),
        awaited: &'a AtomicBool,
    ) -> Later<'a, Result<Arc<dyn Link>, Failure>>;
}
