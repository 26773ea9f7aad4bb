//! The byte stream below a session, with a kill switch, byte counts and an ear for the banner.
//!
//! A session whose link is frozen cannot be ended by asking the library: it waits for bytes that
//! never come or go. Every read and write here fails, and whoever waits is woken, once the switch
//! is thrown.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

/// How long a write must have waited for its going on to be a sign of life: longer than the runtime
/// itself ever holds one up.
const HELD_UP: Duration = Duration::from_millis(200);
/// How long a write may wait before it counts as stalled.
const STALLED: Duration = Duration::from_secs(1);
/// How much is searched for the banner; RFC 4253 allows lines before it.
const BANNER_LIMIT: usize = 8 * 1024;

/// The outside end of a [`Link`]: its switch and what has been seen on it.
#[derive(Debug)]
pub(crate) struct Switch {
    killed: AtomicBool,
    reader: AtomicWaker,
    writer: AtomicWaker,
    received: AtomicU64,
    sent: AtomicU64,
    made: Instant,
    heard: OnceLock<Duration>,
    banner: OnceLock<String>,
    /// When bytes were last handed over, in microseconds since `made`; 0 while more are awaited.
    handed_over: AtomicU64,
    /// Since when a write has been waiting, in microseconds since `made`; 0 while none does.
    write_waits: AtomicU64,
    /// Writes that went on after having waited: the far side took bytes.
    moved: AtomicU64,
    early: Mutex<Vec<u8>>,
}

impl Switch {
    /// Fails every read and write from now on and wakes whoever waits for one.
    pub(crate) fn kill(&self) {
        self.killed.store(true, Ordering::SeqCst);
        self.reader.wake();
        self.writer.wake();
    }

    /// Whether the switch has been thrown.
    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::SeqCst)
    }

    /// Bytes that came in, as they were on the wire.
    pub(crate) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes that went out, as they were on the wire.
    #[cfg(test)]
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// The server's identification (`SSH-2.0-…`), once it has been read.
    pub(crate) fn banner(&self) -> Option<&str> {
        self.banner.get().map(String::as_str)
    }

    /// The time from the open stream to the server's first byte.
    pub(crate) fn heard_after(&self) -> Option<Duration> {
        self.heard.get().copied()
    }

    /// For how long the session has not come back for more bytes although no write holds it up: it
    /// waits for the reader of one of its streams.
    pub(crate) fn unattended(&self) -> Option<Duration> {
        let since = self.handed_over.load(Ordering::Relaxed);
        if since == 0 || self.write_waits.load(Ordering::Relaxed) != 0 {
            return None;
        }
        Some(self.since(since))
    }

    /// For how long a write has been waiting for the far side to take bytes.
    pub(crate) fn held_up(&self) -> Option<Duration> {
        let since = self.write_waits.load(Ordering::Relaxed);
        (since != 0).then(|| self.since(since))
    }

    /// Whether the far side has taken nothing of a write for a while.
    pub(crate) fn is_stalled(&self) -> bool {
        self.held_up().is_some_and(|time| time > STALLED)
    }

    /// How often a write went on after having waited.
    pub(crate) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    fn note_read(&self, pending: bool) {
        self.handed_over.store(if pending { 0 } else { self.now() }, Ordering::Relaxed);
    }

    fn note_write(&self, pending: bool) {
        let since = self.write_waits.load(Ordering::Relaxed);
        if pending && since == 0 {
            self.write_waits.store(self.now(), Ordering::Relaxed);
        } else if !pending && since != 0 {
            if self.since(since) >= HELD_UP {
                self.moved.fetch_add(1, Ordering::Relaxed);
            }
            self.write_waits.store(0, Ordering::Relaxed);
        }
    }

    /// Microseconds since `made`, never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    fn since(&self, micros: u64) -> Duration {
        self.made.elapsed().saturating_sub(Duration::from_micros(micros))
    }

    fn refusal(&self) -> Option<io::Error> {
        self.is_killed().then(|| io::Error::new(io::ErrorKind::ConnectionAborted, "ended by us"))
    }

    /// Looks for the identification line in what has been read so far.
    fn listen(&self, bytes: &[u8]) {
        if bytes.is_empty() || self.banner.get().is_some() {
            return;
        }
        self.heard.get_or_init(|| self.made.elapsed());
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if early.len() >= BANNER_LIMIT {
            return;
        }
        let room = BANNER_LIMIT - early.len();
        early.extend(bytes.iter().take(room));
        let line = early
            .split_inclusive(|byte| *byte == b'\n')
            .find(|line| line.starts_with(b"SSH-") && line.ends_with(b"\n"));
        if let Some(line) = line {
            let text = String::from_utf8_lossy(line).trim_end().to_owned();
            self.banner.get_or_init(|| text);
            early.clear();
            early.shrink_to_fit();
        }
    }
}

/// A stream that its [`Switch`] can end at once.
#[derive(Debug)]
pub(crate) struct Link<S> {
    stream: S,
    switch: Arc<Switch>,
}

impl<S> Link<S> {
    /// Wraps a stream that has just been opened.
    pub(crate) fn new(stream: S) -> (Self, Arc<Switch>) {
        let switch = Arc::new(Switch {
            killed: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            writer: AtomicWaker::new(),
            received: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            made: Instant::now(),
            heard: OnceLock::new(),
            banner: OnceLock::new(),
            handed_over: AtomicU64::new(0),
            write_waits: AtomicU64::new(0),
            moved: AtomicU64::new(0),
            early: Mutex::new(Vec::new()),
        });
        (Self { stream, switch: Arc::clone(&switch) }, switch)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Link<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if polled.is_pending() {
            self.switch.reader.register(cx.waker());
        }
        if let Some(error) = self.switch.refusal() {
            return Poll::Ready(Err(error));
        }
        self.switch.note_read(polled.is_pending());
        let fresh = buf.filled().get(before..).unwrap_or_default();
        self.switch.received.fetch_add(fresh.len() as u64, Ordering::Relaxed);
        self.switch.listen(fresh);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Link<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if polled.is_pending() {
            self.switch.writer.register(cx.waker());
        }
        if let Some(error) = self.switch.refusal() {
            return Poll::Ready(Err(error));
        }
        self.switch.note_write(polled.is_pending());
        if let Poll::Ready(Ok(written)) = &polled {
            self.switch.sent.fetch_add(*written as u64, Ordering::Relaxed);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        if polled.is_pending() {
            self.switch.writer.register(cx.waker());
        }
        match self.switch.refusal() {
            Some(error) => Poll::Ready(Err(error)),
            None => polled,
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(cx);
        if polled.is_pending() {
            self.switch.writer.register(cx.waker());
        }
        match self.switch.refusal() {
            Some(error) => Poll::Ready(Err(error)),
            None => polled,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn killing_wakes_a_reader_and_a_blocked_writer() {
        let (near, _far) = tokio::io::duplex(16);
        let (link, switch) = Link::new(near);
        let (mut reader, mut writer) = tokio::io::split(link);
        let reading = tokio::spawn(async move { reader.read_u8().await.unwrap_err().kind() });
        let writing =
            tokio::spawn(async move { writer.write_all(&[0; 64]).await.unwrap_err().kind() });
        tokio::task::yield_now().await;
        switch.kill();
        assert_eq!(reading.await.unwrap(), io::ErrorKind::ConnectionAborted);
        assert_eq!(writing.await.unwrap(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn tells_a_write_that_waits_and_one_that_goes_on() {
        let (near, mut far) = tokio::io::duplex(16);
        let (link, switch) = Link::new(near);
        let (_reader, mut writer) = tokio::io::split(link);
        let writing = tokio::spawn(async move { writer.write_all(&[0; 20]).await });
        while switch.held_up().is_none_or(|span| span < HELD_UP) {
            tokio::task::yield_now().await;
        }
        assert_eq!(switch.moved(), 0);
        far.read_exact(&mut [0; 20]).await.unwrap();
        writing.await.unwrap().unwrap();
        assert_eq!((switch.held_up(), switch.moved()), (None, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_of_which_nothing_is_taken_for_a_second_is_stalled_until_it_goes_on() {
        let (near, mut far) = tokio::io::duplex(16);
        let (link, switch) = Link::new(near);
        let (_reader, mut writer) = tokio::io::split(link);
        tokio::time::advance(STALLED * 10).await;
        assert!(!switch.is_stalled(), "nothing is written");
        let writing = tokio::spawn(async move { writer.write_all(&[0; 40]).await });
        tokio::task::yield_now().await;
        tokio::time::advance(STALLED).await;
        assert!(!switch.is_stalled(), "a slow link");
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(switch.is_stalled());
        far.read_exact(&mut [0; 16]).await.unwrap();
        tokio::task::yield_now().await;
        assert!(!switch.is_stalled(), "what follows waits anew");
        tokio::time::advance(STALLED * 2).await;
        assert!(switch.is_stalled());
        far.read_exact(&mut [0; 24]).await.unwrap();
        writing.await.unwrap().unwrap();
        assert!(!switch.is_stalled());
    }

    #[tokio::test]
    async fn hears_the_banner_behind_other_lines_and_in_pieces() {
        let (near, mut far) = tokio::io::duplex(1024);
        let (mut link, switch) = Link::new(near);
        for piece in [&b"hello\r\nSSH-2.0-Open"[..], b"SSH_9.8p1 Debian\r", b"\nrest"] {
            far.write_all(piece).await.unwrap();
            let mut buffer = vec![0; piece.len()];
            link.read_exact(&mut buffer).await.unwrap();
        }
        assert_eq!(switch.banner(), Some("SSH-2.0-OpenSSH_9.8p1 Debian"));
        assert!(switch.heard_after().is_some());
        assert_eq!(switch.received(), 41);
    }
}
