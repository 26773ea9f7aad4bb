//! A stream that gives out few bytes until its client is authenticated.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Stands for "no limit any more".
const LIFTED: usize = usize::MAX;

/// The stream.
pub(super) struct Gate<S> {
    stream: S,
    left: Arc<AtomicUsize>,
}

/// Lifts the limit of one [`Gate`].
#[derive(Clone)]
pub(super) struct GateKey(Arc<AtomicUsize>);

impl<S> Gate<S> {
    /// Lets `limit` bytes through; after that reads fail with `QuotaExceeded`.
    pub(super) fn new(stream: S, limit: usize) -> (Self, GateKey) {
        let left = Arc::new(AtomicUsize::new(limit));
        (Self { stream, left: Arc::clone(&left) }, GateKey(left))
    }
}

impl GateKey {
    /// Lets everything through.
    pub(super) fn lift(&self) {
        self.0.store(LIFTED, Ordering::Relaxed);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gate<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.left.load(Ordering::Relaxed);
        if left == LIFTED {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        if left == 0 {
            let error = "too many bytes before authentication";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::QuotaExceeded, error)));
        }
        let mut part = buffer.take(left);
        let before = part.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut part))?;
        let read = part.filled().len() - before;
        // The part shares the buffer's memory; only its own fill level must be carried over.
        let slice = part.filled().to_vec();
        buffer.put_slice(&slice);
        self.left.fetch_sub(read, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gate<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn stops_at_the_limit_and_opens_for_its_key() {
        let bytes: &[u8] = b"0123456789";
        let (mut gate, key) = Gate::new(bytes, 4);
        let mut buffer = [0; 8];
        assert_eq!(gate.read(&mut buffer).await.unwrap(), 4);
        assert_eq!(&buffer[..4], b"0123");
        assert_eq!(gate.read(&mut buffer).await.unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
        key.lift();
        assert_eq!(gate.read(&mut buffer).await.unwrap(), 6);
        assert_eq!(&buffer[..6], b"456789");
    }
}
