//! One forwarded connection as a byte stream.
//!
//! The library ends a channel alike whether the far side said so or the session died. Here the
//! first is an end of stream and the second `ConnectionReset`, so that a truncated answer never
//! looks complete. A stream that nobody reads parks its session (see Design 5 of
//! `docs/architecture.md`); its receiving half is held where the session's kill can drop it.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    io,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use futures_util::{FutureExt, task::AtomicWaker};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, client::Msg};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::bytes::{Buf, Bytes};

/// How much of a refused write is compared with its repetition.
const STAGE: usize = 64 * 1024;

/// The receiving halves of all streams of a session, so that its end reaches every one of them.
#[derive(Debug, Default)]
pub(super) struct Taps {
    open: Mutex<(u64, HashMap<u64, Arc<Tap>>)>,
    dead: AtomicBool,
}

impl Taps {
    /// Ends every stream now, read or not, and every later one.
    pub(super) fn close(&self) {
        self.dead.store(true, Ordering::SeqCst);
        for tap in self.all() {
            // Dropping the half frees a session loop that waits to hand it something.
            drop(tap.half().take());
            tap.wake();
        }
    }

    /// Tells every stream that the session is dead; what has been received can still be read.
    pub(super) fn end(&self) {
        self.dead.store(true, Ordering::SeqCst);
        for tap in self.all() {
            tap.wake();
        }
    }

    /// How many streams are open.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).1.len()
    }

    fn all(&self) -> Vec<Arc<Tap>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.1.values().cloned().collect()
    }

    fn add(&self, half: ChannelReadHalf) -> (u64, Arc<Tap>) {
        let tap = Arc::new(Tap {
            half: Mutex::new(Some(half)),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            closed: AtomicBool::new(false),
        });
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let id = open.0;
        open.0 += 1;
        open.1.insert(id, Arc::clone(&tap));
        (id, tap)
    }

    fn remove(&self, id: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).1.remove(&id);
    }

    fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }
}

/// The receiving half of one stream, and who waits on it.
#[derive(Debug)]
struct Tap {
    half: Mutex<Option<ChannelReadHalf>>,
    reader: AtomicWaker,
    writer: AtomicWaker,
    /// The channel is closed for both directions.
    closed: AtomicBool,
}

impl Tap {
    fn half(&self) -> MutexGuard<'_, Option<ChannelReadHalf>> {
        self.half.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        self.reader.wake();
        self.writer.wake();
    }

    /// The next message of the channel; `None` when there will be no more.
    fn poll_message(&self, cx: &mut Context<'_>) -> Poll<Option<ChannelMsg>> {
        self.reader.register(cx.waker());
        match self.half().as_mut() {
            None => Poll::Ready(None),
            // `wait` holds nothing between polls, so a fresh one each time misses nothing.
            Some(half) => pin!(half.wait()).poll(cx),
        }
    }

    /// Looks for the close after the end of file; an error if the session died instead.
    fn poll_close(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_closed() {
            match ready!(self.poll_message(cx)) {
                Some(ChannelMsg::Close) => self.close(),
                Some(_) => {}
                None => return Poll::Ready(Err(died())),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.writer.wake();
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }
}

/// A forwarded connection (RFC 4254, section 7.2, "direct-tcpip").
///
/// Reading: an empty read only when the *channel* ended; `ConnectionReset` when the *session* died.
/// Writing: `shutdown` sends the end of file and leaves reading open. Do not give up on a write
/// that has begun and then write something else: that is an error, because the library would send
/// the old bytes. Dropping the stream closes the channel.
pub(crate) struct Stream {
    taps: Arc<Taps>,
    id: u64,
    tap: Arc<Tap>,
    writer: Pin<Box<dyn AsyncWrite + Send>>,
    closer: Option<ChannelWriteHalf<Msg>>,
    unread: Bytes,
    /// The channel said that nothing more will come.
    ended: bool,
    /// The start of a write that did not get through yet.
    begun: Option<Vec<u8>>,
}

impl Stream {
    /// Takes over a channel whose opening has been confirmed.
    pub(super) fn new(channel: Channel<Msg>, taps: &Arc<Taps>) -> Self {
        let (reader, writer) = channel.split();
        let (id, tap) = taps.add(reader);
        if taps.is_dead() {
            // The session was killed between the confirmation and here.
            drop(tap.half().take());
        }
        Self {
            taps: Arc::clone(taps),
            id,
            tap,
            writer: Box::pin(writer.make_writer()),
            closer: Some(writer),
            unread: Bytes::new(),
            ended: false,
            begun: None,
        }
    }

    /// Waits until the channel is closed for writing as well, which the library says in the same
    /// queue as the bytes: to be polled only after the end of file was read. `ConnectionReset` when
    /// the session died instead.
    pub(crate) fn until_closed(&self) -> impl Future<Output = io::Result<()>> + Send + use<> {
        let tap = Arc::clone(&self.tap);
        poll_fn(move |cx| tap.poll_close(cx))
    }

    /// What the next message means for the reader; `None` to look at the one after it.
    fn take(&mut self, message: Option<ChannelMsg>) -> Option<io::Result<()>> {
        match message {
            Some(ChannelMsg::Data { data }) if data.is_empty() => None,
            Some(ChannelMsg::Data { data }) => {
                self.unread = data;
                Some(Ok(()))
            }
            Some(ChannelMsg::Eof) => {
                self.ended = true;
                Some(Ok(()))
            }
            Some(ChannelMsg::Close) => {
                self.ended = true;
                self.tap.close();
                Some(Ok(()))
            }
            Some(_) => None,
            None => Some(Err(died())),
        }
    }
}

/// The session below is gone.
fn died() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the ssh session died")
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.unread.is_empty() && !this.ended {
            match this.tap.poll_message(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(message) => {
                    if let Some(Err(error)) = this.take(message) {
                        return Poll::Ready(Err(error));
                    }
                }
            }
        }
        if this.unread.is_empty() {
            // Who only writes from here on is told of a close that is there already.
            drop(this.tap.poll_close(cx));
        }
        let count = this.unread.len().min(buf.remaining());
        buf.put_slice(this.unread.get(..count).unwrap_or_default());
        this.unread.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.tap.is_closed() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if let Some(begun) = &this.begun
            && begun.iter().zip(buf).any(|(old, new)| old != new)
        {
            return Poll::Ready(Err(io::Error::other("an earlier write was given up half-way")));
        }
        // Registered before the looks below, so that an end in between wakes this task.
        this.tap.writer.register(cx.waker());
        match this.writer.as_mut().poll_write(cx, buf) {
            Poll::Ready(Ok(written)) if written <= buf.len() => {
                this.begun = None;
                Poll::Ready(Ok(written))
            }
            Poll::Ready(Ok(_)) => {
                Poll::Ready(Err(io::Error::other("an earlier write was given up half-way")))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(died())),
            Poll::Pending if this.taps.is_dead() => Poll::Ready(Err(died())),
            Poll::Pending => {
                if this.begun.is_none() {
                    this.begun = Some(buf.iter().copied().take(STAGE).collect());
                }
                Poll::Pending
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.tap.is_closed() {
            return Poll::Ready(Ok(()));
        }
        this.tap.writer.register(cx.waker());
        match this.writer.as_mut().poll_shutdown(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(_)) => Poll::Ready(Err(died())),
            Poll::Pending if this.taps.is_dead() => Poll::Ready(Err(died())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // First the receiver: a session loop that waits to hand it something goes on.
        drop(self.tap.half().take());
        self.taps.remove(self.id);
        if self.tap.is_closed() || self.taps.is_dead() {
            return;
        }
        if let (Some(closer), Ok(runtime)) =
            (self.closer.take(), tokio::runtime::Handle::try_current())
        {
            let mut closing = Box::pin(async move { closer.close().await.is_ok() });
            // Nearly always there is room for it, and a task for it would wake a thread.
            if closing.as_mut().now_or_never().is_none() {
                // Ends with the session at the latest: its queue refuses then.
                runtime.spawn(closing);
            }
        }
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("id", &self.id).finish_non_exhaustive()
    }
}
