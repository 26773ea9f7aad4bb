//! A stream whose bytes are counted.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The stream.
pub(super) struct Metered<S> {
    stream: S,
    received: Counter,
    sent: Counter,
}

impl<S> Metered<S> {
    /// Counts what is read and what is written.
    pub(super) fn new(stream: S, (received, sent): (Counter, Counter)) -> Self {
        Self { stream, received, sent }
    }

    fn wrote(&self, outcome: io::Result<usize>) -> Poll<io::Result<usize>> {
        if let Ok(bytes) = outcome {
            self.sent.inc_by(bytes as u64);
        }
        Poll::Ready(outcome)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len().saturating_sub(before);
        self.received.inc_by(read as u64);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes));
        self.wrote(outcome)
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
        let outcome = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, slices));
        self.wrote(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn counts_both_ways() {
        let (received, sent) = (Counter::default(), Counter::default());
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut metered = Metered::new(ours, (received.clone(), sent.clone()));
        theirs.write_all(b"hello").await.unwrap();
        metered.write_all(b"good day").await.unwrap();
        let mut text = [0; 5];
        metered.read_exact(&mut text).await.unwrap();
        assert_eq!((received.get(), sent.get()), (5, 8));
    }
}
