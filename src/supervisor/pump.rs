//! Copies one stream both ways, with bounds for a slow local reader.

use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    time::timeout,
};

mod inward;

use super::{link::Stream, path::Path};
use inward::Inward;

/// What is read at once of a busy stream, bytes.
const CHUNK: usize = 64 * 1024;
/// What is read at once of a quiet one: thousands of those may be open.
const CHUNK_QUIET: usize = 4 * 1024;
/// How long a write may take before the session is asked whether it lives.
const STALL: Duration = Duration::from_secs(1);

/// How a stream ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both sides said that they are done.
    Done,
    /// The session died, or the stream had to be cut: the local side must see a reset.
    Cut(&'static str),
    /// The local side broke off.
    Local(io::Error),
}

/// What a stream has carried, bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Carried {
    /// From the local side, written into the session; whether it arrived nobody here knows.
    pub(super) sent: u64,
    /// From the far side.
    pub(super) received: u64,
    /// Of these, what did not get as far as the local side's socket.
    pub(super) undelivered: u64,
}

/// Copies until both sides are done or one breaks.
pub(super) async fn pump<L>(local: L, far: Box<dyn Stream>, path: &Arc<Path>) -> (L, End, Carried)
where
    L: AsyncRead + AsyncWrite + Unpin,
{
    let (local_read, local_write) = tokio::io::split(local);
    let closed = far.until_closed();
    let (far_read, far_write) = tokio::io::split(far);
    let backlog = path.unread().enter();
    let (mut local_read, mut local_write) = (local_read, local_write);
    let sent = AtomicU64::new(0);
    let outcome = {
        let out = send(&mut local_read, far_write, path, &sent);
        let inward = Inward::new(far_read, &mut local_write, &backlog, path).run();
        tokio::select! {
            outcome = both(out, inward, closed) => outcome,
            () = backlog.until_cut() => Err(End::Cut(
                "the bounds of memory are reached, and its local reader left most unread",
            )),
            () = path.ended.cancelled() => Err(End::Cut("its session is ended")),
        }
    };
    if backlog.forget() {
        path.clogged(false);
    }
    let end = match outcome {
        Ok(()) => End::Done,
        Err(end) => end,
    };
    let (received, undelivered) = backlog.account();
    let carried = Carried { sent: sent.into_inner(), received, undelivered };
    (local_read.unsplit(local_write), end, carried)
}

/// Both directions to their ends. Once nothing more comes in, a far side that is `closed` ends the
/// way out as well: whatever is written then is lost, and nobody would say so.
async fn both(
    out: impl Future<Output = Result<(), End>>,
    inward: impl Future<Output = Result<(), End>>,
    closed: impl Future<Output = io::Result<()>>,
) -> Result<(), End> {
    let (mut out, mut inward) = (pin!(out), pin!(inward));
    tokio::select! {
        biased;
        sent = &mut out => {
            sent?;
            return inward.await;
        }
        received = &mut inward => received?,
    }
    tokio::select! {
        biased;
        sent = &mut out => sent,
        closed = closed => closed.map_err(|_| End::Cut("the session died")),
    }
}

/// Local bytes to the far side; the local end of stream becomes a half-close over there.
async fn send<L: AsyncRead>(
    local: &mut ReadHalf<L>,
    mut far: WriteHalf<Box<dyn Stream>>,
    path: &Path,
    sent: &AtomicU64,
) -> Result<(), End> {
    let mut buffer = vec![0; CHUNK_QUIET];
    loop {
        let count = local.read(&mut buffer).await.map_err(End::Local)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            // A far side that has closed already needs no end of stream.
            let _closed = far.shutdown().await;
            return Ok(());
        }
        path.sent(count);
        if patiently(far.write_all(bytes), path).await.is_err() {
            return if path.link_is_lost() {
                Err(End::Cut("the session died"))
            } else {
                // Nobody reads over there any more; what comes from there still counts.
                Ok(())
            };
        }
        sent.fetch_add(count as u64, Relaxed);
        if count == buffer.len() && count < CHUNK {
            buffer = vec![0; (count * 4).min(CHUNK)];
        }
    }
}

/// Waits for a write, which must not be given up half-way; one that stalls wants a sign of life.
async fn patiently(writing: impl Future<Output = io::Result<()>>, path: &Path) -> io::Result<()> {
    let mut writing = pin!(writing);
    loop {
        match timeout(STALL, writing.as_mut()).await {
            Ok(outcome) => return outcome,
            Err(_) => path.asked(),
        }
    }
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
