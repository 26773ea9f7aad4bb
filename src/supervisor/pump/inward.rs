//! Far bytes on their way to the local reader, with a backlog in between.
//!
//! One future takes and gives in turn. Two that told one another would have the runtime poll their
//! task once more for each piece, and wake another thread for it.

use std::{
    future::poll_fn,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};

use super::{CHUNK, CHUNK_QUIET, End, Path};
use crate::supervisor::{link::Stream, unread::Backlog};

/// Unread bytes at which a stream with neighbours is ended.
pub(super) const MOST: usize = 16 << 20;
/// What is taken in at once before the local reader is offered some of it, bytes.
const BATCH: usize = 2 * CHUNK;
/// Pieces that are given to the local reader at once.
const PIECES: usize = 8;

/// Far bytes on their way to the local reader.
pub(super) struct Inward<'a, L> {
    far: ReadHalf<Box<dyn Stream>>,
    local: &'a mut WriteHalf<L>,
    backlog: &'a Backlog,
    path: &'a Path,
    buffer: BytesMut,
    /// What is read at once.
    chunk: usize,
    /// The far side is done.
    is_ended: bool,
}

/// What taking bytes in has come to.
enum Turn {
    /// The far side is done, and the local reader has everything.
    Done,
    /// The local reader is far behind, and so are those of all other streams of the session.
    Behind,
}

impl<'a, L: AsyncWrite> Inward<'a, L> {
    pub(super) fn new(
        far: ReadHalf<Box<dyn Stream>>,
        local: &'a mut WriteHalf<L>,
        backlog: &'a Backlog,
        path: &'a Path,
    ) -> Self {
        let (buffer, chunk, is_ended) = (BytesMut::new(), CHUNK_QUIET, false);
        Self { far, local, backlog, path, buffer, chunk, is_ended }
    }

    /// Copies until the far side is done and the local reader has everything.
    pub(super) async fn run(mut self) -> Result<(), End> {
        while let Turn::Behind = poll_fn(|context| self.poll(context)).await? {
            // The session is left undrained: true back-pressure to the source. Whoever comes in next,
            // or catches up, would wait for this reader as well, so that ends it.
            let (_undrained, path) = (self.backlog.undrained(), self.path);
            tokio::select! {
                caught_up = poll_fn(|context| self.poll_catching_up(context)) => caught_up?,
                () = path.until_wanted() => {}
            }
        }
        self.local.shutdown().await.map_err(End::Local)
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<Turn, End>> {
        loop {
            let (taken, is_behind) = self.take_in(context)?;
            let given = self.poll_give(context)?;
            if is_behind && self.backlog.is_clogged() {
                return Poll::Ready(Ok(Turn::Behind));
            }
            if self.is_ended {
                return given.map(|()| Ok(Turn::Done));
            }
            if taken < BATCH && !is_behind {
                return Poll::Pending;
            }
        }
    }

    /// Takes in what is there, at most about [`BATCH`]; less than that means that whoever polls is
    /// woken for more. Also whether it stopped because the session is to be left undrained.
    fn take_in(&mut self, context: &mut Context<'_>) -> Result<(usize, bool), End> {
        let mut taken = 0;
        while !self.is_ended && taken < BATCH {
            let Poll::Ready(bytes) = self.poll_far(context)? else { break };
            taken += bytes.len();
            if bytes.is_empty() {
                self.is_ended = true;
                break;
            }
            self.path.received(bytes.len());
            let pushed = self.backlog.push(bytes);
            if pushed.is_news {
                self.path.clogged(true);
            }
            if pushed.is_clogged && self.path.is_stuck() {
                return Ok((taken, true));
            }
            if pushed.waiting >= MOST {
                return Err(End::Cut(
                    "its local reader is too far behind, and others share its session",
                ));
            }
        }
        Ok((taken, false))
    }

    /// The next far bytes; none at all when the far side is done.
    fn poll_far(&mut self, context: &mut Context<'_>) -> Poll<Result<Bytes, End>> {
        // Small pieces share one allocation; a fresh one is made when it is used up.
        if self.buffer.capacity() < self.chunk / 4 {
            self.buffer = BytesMut::with_capacity(self.chunk);
        }
        let reading = pin!(self.far.read_buf(&mut self.buffer));
        let count = ready!(reading.poll(context)).map_err(|_| End::Cut("the session died"))?;
        if count >= self.chunk / 2 {
            self.chunk = (self.chunk * 4).min(CHUNK);
        }
        Poll::Ready(Ok(self.buffer.split().freeze()))
    }

    /// Gives the local reader what it takes; ready when it has everything.
    fn poll_give(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        loop {
            let pieces = self.backlog.first::<PIECES>();
            if pieces.first().is_none_or(Bytes::is_empty) {
                // One that was cut is ended by whoever waits for that.
                return if self.backlog.is_cut() { Poll::Pending } else { Poll::Ready(Ok(())) };
            }
            let local = Pin::new(&mut *self.local);
            let written = match &pieces {
                // The kernel takes one piece sooner than a list.
                [only, next, ..] if next.is_empty() => local.poll_write(context, only),
                pieces => {
                    let pieces = pieces.each_ref().map(|bytes| IoSlice::new(bytes));
                    local.poll_write_vectored(context, &pieces)
                }
            };
            let count = ready!(written).map_err(End::Local)?;
            if count == 0 {
                return Poll::Ready(Err(End::Local(io::ErrorKind::WriteZero.into())));
            }
            if self.backlog.written(count) {
                self.path.clogged(false);
            }
        }
    }

    /// Gives the local reader what it takes; ready when it is no longer far behind.
    fn poll_catching_up(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        let given = self.poll_give(context)?;
        if self.backlog.is_clogged() { given.map(Ok) } else { Poll::Ready(Ok(())) }
    }
}
