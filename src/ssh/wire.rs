//! The TCP connection under a session: it acknowledges at once, and can let one answer wake nobody.
//!
//! OpenSSH's server leaves Nagle's algorithm on for connections without a terminal: its second
//! small packet waits for the acknowledgement of the first. A kernel that delays that by 40 ms
//! makes every short answer through a forward 40 ms late. Linux's `TCP_QUICKACK` does not last,
//! so it is asked for after each read, but not in a conversation, whose next request acknowledges
//! the last answer for nothing; there a kernel that can (from 6.15 on) waits 8 ms at most.
//!
//! A ping of an idle session is worth one wake-up, its answer is not: Linux calls a socket readable
//! once `SO_RCVLOWAT` bytes are there (socket(7)), so with one more than the answer is long it says
//! nothing until something else comes as well, or the end.

use std::{
    io,
    ops::Range,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use futures_util::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use self::talk::Talk;

mod kernel;
mod talk;

/// Any byte wakes.
const ANY: u64 = 1;
/// What is read at once of a quiet connection, bytes: there may be hundreds.
const AHEAD_QUIET: usize = 4 * 1024;
/// What is read at once of a busy one: some packets of 32 KiB.
const AHEAD_MOST: usize = 128 * 1024;
/// So many reads in a row that fit the room of a quiet connection make a busy one quiet.
const SMALL_READS: u8 = 16;

/// The outside end of a [`Wire`]: for how little it wakes, and what it has heard.
#[derive(Debug)]
pub(super) struct Ear {
    /// So many bytes are to wake the reader.
    wanted: AtomicU64,
    received: AtomicU64,
    reader: AtomicWaker,
}

impl Ear {
    /// From the next write on `length` bytes wake nobody, until [`attend`](Self::attend) or until
    /// more has come in; `false` on a system that cannot do that.
    pub(super) fn hush(&self, length: u64) -> bool {
        if cfg!(target_os = "linux") {
            self.wanted.store(length.saturating_add(1), Relaxed);
        }
        cfg!(target_os = "linux")
    }

    /// Has the reader take in what is there, and wakes for every byte from now on.
    pub(super) fn attend(&self) {
        if self.wanted.swap(ANY, Relaxed) != ANY {
            self.reader.wake();
        }
    }

    /// Bytes that came in.
    pub(super) fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }
}

/// A TCP connection that acknowledges what it reads without delay.
///
/// It reads ahead: the library asks for the four bytes of a packet's length, and then for the packet.
#[derive(Debug)]
pub(super) struct Wire {
    stream: TcpStream,
    ear: Arc<Ear>,
    /// How many bytes the kernel waits for.
    set: u64,
    /// Room for what is read at once.
    room: Box<[u8]>,
    /// What of the room the reader has not taken yet.
    ahead: Range<usize>,
    /// Reads in a row that were small, while there is more room.
    small: u8,
    talk: Talk,
}

impl Wire {
    /// Takes the connection over.
    pub(super) fn new(stream: TcpStream) -> (Self, Arc<Ear>) {
        let ear = Arc::new(Ear {
            wanted: AtomicU64::new(ANY),
            received: AtomicU64::new(0),
            reader: AtomicWaker::new(),
        });
        let wire = Self {
            // Older kernels know no such limit.
            talk: Talk::new(kernel::limit_delay(&stream).is_ok()),
            stream,
            ear: Arc::clone(&ear),
            set: ANY,
            room: vec![0; AHEAD_QUIET].into(),
            ahead: 0..0,
            small: 0,
        };
        (wire, ear)
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn acknowledge(&self) {
        // A kernel that will not is only slower.
        let _slower = self.stream.set_quickack(true);
    }

    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    fn acknowledge(&self) {}

    /// Fills the room with what is there; nothing at all is the end.
    fn read_ahead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Before the look at what is wanted, so that a change in between wakes this task.
        self.ear.reader.register(context.waker());
        if self.ear.wanted.load(Relaxed) == ANY {
            self.tune();
        }
        if self.ahead.end == self.room.len() && self.room.len() < AHEAD_MOST {
            // The last read filled it.
            self.room = vec![0; AHEAD_MOST].into();
        } else if self.small >= SMALL_READS {
            self.grow_quiet();
        }
        let mut room = ReadBuf::new(&mut self.room);
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, &mut room));
        let count = room.filled().len();
        self.ahead = 0..count;
        self.ear.received.fetch_add(count as u64, Relaxed);
        let is_small = self.room.len() > AHEAD_QUIET && count <= AHEAD_QUIET;
        self.small = if is_small { self.small + 1 } else { 0 };
        // With more to read, the next read acknowledges this one too.
        if self.talk.read(count) && count < self.room.len() {
            self.acknowledge();
        }
        if self.set != ANY {
            // More than the answer, or the end: from here on everything counts again.
            self.ear.wanted.store(ANY, Relaxed);
            self.tune();
        }
        Poll::Ready(read)
    }

    /// Tells the kernel how many bytes are worth waking for, if that has changed. It looks at once
    /// whether so many are there.
    fn tune(&mut self) {
        let wanted = self.ear.wanted.load(Relaxed);
        // A kernel that will not wakes us for nothing.
        if wanted != self.set && kernel::wake_from(&self.stream, wanted).is_ok() {
            self.set = wanted;
        }
        if wanted != ANY && self.ahead.is_empty() && self.room.len() > AHEAD_QUIET {
            // Nobody uses it now.
            self.grow_quiet();
        }
    }

    /// Gives the room of a busy connection back, of which nothing is left to take.
    fn grow_quiet(&mut self) {
        self.room = vec![0; AHEAD_QUIET].into();
        (self.ahead, self.small) = (0..0, 0);
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.ahead.is_empty() {
            ready!(this.read_ahead(context))?;
        }
        let ahead = this.room.get(this.ahead.clone()).unwrap_or_default();
        let count = ahead.len().min(buffer.remaining());
        buffer.put_slice(ahead.get(..count).unwrap_or_default());
        this.ahead.start += count;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.tune();
        self.talk.wrote();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use futures_util::poll;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
        time::timeout,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    async fn pair() -> (Wire, Arc<Ear>, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        far.set_nodelay(true).unwrap();
        let (wire, ear) = Wire::new(near);
        (wire, ear, far)
    }

    /// Waits until `count` bytes from `far` have come in, without reading them.
    async fn arrived(wire: &Wire, count: usize) {
        let mut buffer = [0; 64];
        let looking = async {
            while wire.stream.peek(&mut buffer[..]).await.unwrap() < count {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, looking).await.expect("the bytes come");
    }

    #[tokio::test]
    async fn an_answer_wakes_nobody_until_it_is_looked_for() {
        let (mut wire, ear, mut far) = pair().await;
        assert!(ear.hush(4));
        wire.write_all(b"ping").await.unwrap();
        far.read_exact(&mut [0; 4]).await.unwrap();
        far.write_all(b"pong").await.unwrap();
        let mut buffer = [0; 16];
        {
            let mut reading = Box::pin(wire.read(&mut buffer));
            assert!(poll!(&mut reading).is_pending());
            // Long enough on loopback for what wakes to have woken.
            assert!(timeout(Duration::from_millis(100), &mut reading).await.is_err(), "it slept");
            ear.attend();
            assert_eq!(timeout(LIMIT, reading).await.expect("it looks").unwrap(), 4);
        }
        assert_eq!(ear.received(), 4);
    }

    #[tokio::test]
    async fn one_byte_more_wakes_and_so_does_the_end() {
        let (mut wire, ear, mut far) = pair().await;
        let mut buffer = [0; 16];
        assert!(ear.hush(4));
        wire.write_all(b"ping").await.unwrap();
        far.write_all(b"pong!").await.unwrap();
        let count = timeout(LIMIT, wire.read(&mut buffer)).await.expect("it wakes").unwrap();
        assert_eq!(count, 5);
        far.write_all(b"x").await.unwrap();
        let count = timeout(LIMIT, wire.read(&mut buffer)).await.expect("it wakes").unwrap();
        assert_eq!(count, 1, "after that every byte counts again");
        assert!(ear.hush(4));
        wire.write_all(b"ping").await.unwrap();
        drop(far);
        let end = timeout(LIMIT, wire.read(&mut buffer)).await.expect("the end wakes");
        assert!(matches!(end, Ok(0) | Err(_)), "not {end:?}");
    }

    #[tokio::test]
    async fn what_was_read_ahead_comes_in_order_and_before_the_end() {
        let (mut wire, ear, mut far) = pair().await;
        let sent: Vec<u8> = (0..3 * AHEAD_MOST).map(|at| (at % 251) as u8).collect();
        let sending = async {
            far.write_all(&sent).await.unwrap();
            drop(far);
        };
        let reading = async {
            let mut got = vec![0; 4];
            wire.read_exact(&mut got).await.unwrap();
            wire.read_to_end(&mut got).await.unwrap();
            got
        };
        let (got, ()) = timeout(LIMIT, async { tokio::join!(reading, sending) }).await.unwrap();
        assert!(got == sent, "some bytes are lost or out of order");
        assert_eq!(ear.received(), sent.len() as u64);
        assert_eq!(wire.room.len(), AHEAD_MOST, "a busy connection gets more room");
    }

    #[tokio::test]
    async fn an_idle_connection_gives_its_room_back() {
        let (mut wire, ear, mut far) = pair().await;
        far.write_all(&[1; 2 * AHEAD_QUIET]).await.unwrap();
        timeout(LIMIT, wire.read_exact(&mut [0; 2 * AHEAD_QUIET])).await.unwrap().unwrap();
        assert_eq!(wire.room.len(), AHEAD_MOST);
        ear.hush(4);
        wire.write_all(b"ping").await.unwrap();
        assert_eq!(wire.room.len(), AHEAD_QUIET);
        far.write_all(b"pong!").await.unwrap();
        let mut answer = [0; 5];
        timeout(LIMIT, wire.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(&answer, b"pong!");
    }

    #[tokio::test]
    async fn a_connection_that_is_no_longer_busy_gives_its_room_back_without_a_ping() {
        let (mut wire, _, mut far) = pair().await;
        let mut exchange = async |size: usize| {
            let sent: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
            far.write_all(&sent).await.unwrap();
            let mut got = vec![0; size];
            timeout(LIMIT, wire.read_exact(&mut got)).await.unwrap().unwrap();
            assert!(got == sent, "some bytes are lost or out of order");
            wire.room.len()
        };
        exchange(2 * AHEAD_QUIET).await;
        for _ in 0..SMALL_READS / 2 {
            assert_eq!(exchange(100).await, AHEAD_MOST, "it may go on at once");
        }
        for _ in 0..SMALL_READS {
            exchange(100).await;
        }
        assert_eq!(exchange(100).await, AHEAD_QUIET);
        exchange(2 * AHEAD_QUIET).await;
        assert_eq!(exchange(100).await, AHEAD_MOST, "and it may be busy again");
    }

    #[tokio::test]
    async fn what_had_come_before_the_hush_is_not_lost() {
        let (mut wire, ear, mut far) = pair().await;
        far.write_all(b"abc").await.unwrap();
        arrived(&wire, 3).await;
        ear.hush(4);
        wire.write_all(b"ping").await.unwrap();
        ear.attend();
        let mut buffer = [0; 16];
        let count = timeout(LIMIT, wire.read(&mut buffer)).await.expect("it is there").unwrap();
        assert_eq!(count, 3);
    }
}
