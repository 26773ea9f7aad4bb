//! Copies one stream both ways, with bounds for a slow local reader.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::Notify,
};

use super::{link::Stream, path::Path};

/// What is read at once, bytes.
const CHUNK: usize = 64 * 1024;
/// Unread bytes from which the session counts as blocked by this stream.
const CLOGGED: usize = 4 << 20;
/// Unread bytes at which it no longer does.
const CLEAR: usize = 1 << 20;
/// Unread bytes at which a stream with neighbours is ended.
const MOST: usize = 16 << 20;

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

/// Copies until both sides are done or one breaks.
pub(super) async fn pump<L>(local: L, far: Box<dyn Stream>, path: &Arc<Path>) -> (L, End)
where
    L: AsyncRead + AsyncWrite + Unpin,
{
    let (local_read, local_write) = tokio::io::split(local);
    let (far_read, far_write) = tokio::io::split(far);
    let backlog = Backlog::default();
    let (mut local_read, mut local_write) = (local_read, local_write);
    let outcome = {
        let out = send(&mut local_read, far_write, path);
        let inward = async {
            tokio::try_join!(
                fetch(far_read, &backlog, path),
                deliver(&backlog, &mut local_write, path)
            )
            .map(|_| ())
        };
        tokio::try_join!(out, inward)
    };
    backlog.forget(path);
    let end = match outcome {
        Ok(_) => End::Done,
        Err(end) => end,
    };
    (local_read.unsplit(local_write), end)
}

/// Local bytes to the far side; the local end of stream becomes a half-close over there.
async fn send<L: AsyncRead>(
    local: &mut ReadHalf<L>,
    mut far: WriteHalf<Box<dyn Stream>>,
    path: &Path,
) -> Result<(), End> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = local.read(&mut buffer).await.map_err(End::Local)?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if bytes.is_empty() {
            // A far side that has closed already needs no end of stream.
            let _closed = far.shutdown().await;
            return Ok(());
        }
        path.sent(count);
        if far.write_all(bytes).await.is_err() {
            return if path.link_is_lost() {
                Err(End::Cut("the session died"))
            } else {
                // Nobody reads over there any more; what comes from there still counts.
                Ok(())
            };
        }
    }
}

/// Far bytes into the backlog.
async fn fetch(
    mut far: ReadHalf<Box<dyn Stream>>,
    backlog: &Backlog,
    path: &Path,
) -> Result<(), End> {
    let mut buffer = BytesMut::new();
    loop {
        // Small pieces share one allocation; a fresh one is made when it is used up.
        if buffer.capacity() < CHUNK / 4 {
            buffer = BytesMut::with_capacity(CHUNK);
        }
        let count = far.read_buf(&mut buffer).await.map_err(|_| End::Cut("the session died"))?;
        if count == 0 {
            backlog.finish();
            return Ok(());
        }
        path.received(count);
        let waiting = backlog.push(buffer.split().freeze(), path);
        if waiting >= CLOGGED && path.is_lonely() {
            // The session is left undrained: true back-pressure to the source.
            backlog.wait_below(CLEAR).await;
        } else if waiting >= MOST {
            return Err(End::Cut(
                "its local reader is too far behind, and others share its session",
            ));
        }
    }
}

/// The backlog to the local side.
async fn deliver<L: AsyncWrite>(
    backlog: &Backlog,
    local: &mut WriteHalf<L>,
    path: &Path,
) -> Result<(), End> {
    while let Some(bytes) = backlog.next().await {
        local.write_all(&bytes).await.map_err(End::Local)?;
        backlog.written(bytes.len(), path);
    }
    local.shutdown().await.map_err(End::Local)
}

/// Far bytes that the local side has not taken yet.
#[derive(Default)]
struct Backlog {
    state: Mutex<State>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Bytes>,
    /// Bytes queued or being written.
    size: usize,
    finished: bool,
    clogged: bool,
}

impl Backlog {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds bytes and returns how many wait now.
    fn push(&self, bytes: Bytes, path: &Path) -> usize {
        let mut state = self.lock();
        state.size += bytes.len();
        state.queue.push_back(bytes);
        if state.size >= CLOGGED && !state.clogged {
            state.clogged = true;
            path.clogged(true);
        }
        self.filled.notify_one();
        state.size
    }

    fn finish(&self) {
        self.lock().finished = true;
        self.filled.notify_one();
    }

    /// The next bytes to write; `None` once all is written and the far side is done.
    async fn next(&self) -> Option<Bytes> {
        loop {
            let filled = self.filled.notified();
            {
                let mut state = self.lock();
                if let Some(bytes) = state.queue.pop_front() {
                    return Some(bytes);
                }
                if state.finished {
                    return None;
                }
            }
            filled.await;
        }
    }

    fn written(&self, count: usize, path: &Path) {
        let mut state = self.lock();
        state.size -= count;
        if state.size < CLEAR && state.clogged {
            state.clogged = false;
            path.clogged(false);
        }
        self.emptied.notify_one();
    }

    async fn wait_below(&self, size: usize) {
        loop {
            let emptied = self.emptied.notified();
            if self.lock().size < size {
                return;
            }
            emptied.await;
        }
    }

    /// A stream that ends no longer blocks its session.
    fn forget(&self, path: &Path) {
        if std::mem::take(&mut self.lock().clogged) {
            path.clogged(false);
        }
    }
}

#[cfg(test)]
#[path = "pump_tests.rs"]
mod tests;
