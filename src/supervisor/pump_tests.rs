//! The pump over in-memory streams: bounds, back-pressure, and what each kind of end looks like.

use std::{
    pin::Pin,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{DuplexStream, ReadBuf, duplex},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{inward::MOST, *};
use crate::{
    config::{Destination, Listen},
    ssh::ListenFailure,
    supervisor::{
        link::{Facts, Knocks, Later, Link, NotOpened, Printed},
        path::{HEARD_INTERVAL, Report, Totals},
        unread::{CLOGGED, Unread},
    },
    tunnel::{Failure, News, Number},
};

const LONG: Duration = Duration::from_secs(60);

/// A session that does nothing of its own.
#[derive(Default)]
struct Idle {
    stalled: bool,
}

impl Link for Idle {
    fn open<'a>(&'a self, _: &'a Destination) -> Later<'a, Result<Box<dyn Stream>, NotOpened>> {
        Box::pin(std::future::pending())
    }

    fn listen<'a>(&'a self, _: &'a Listen) -> Later<'a, Result<Box<dyn Knocks>, ListenFailure>> {
        Box::pin(async { Err(ListenFailure::Refused) })
    }

    fn unlisten<'a>(&'a self, _: &'a Listen) -> Later<'a, ()> {
        Box::pin(async {})
    }

    fn hush(&self) -> bool {
        false
    }

    fn attend(&self) {}

    fn ping(&self) -> Later<'_, Result<Duration, Failure>> {
        Box::pin(std::future::pending())
    }

    fn closed(&self) -> Later<'_, Failure> {
        Box::pin(std::future::pending())
    }

    fn near(&self) -> Option<std::net::IpAddr> {
        None
    }

    fn is_closed(&self) -> bool {
        false
    }

    fn is_parked(&self) -> bool {
        false
    }

    fn close(&self) -> Later<'_, ()> {
        Box::pin(async { self.kill() })
    }

    fn kill(&self) {}

    fn heard(&self) -> u64 {
        0
    }

    fn is_stalled(&self) -> bool {
        self.stalled
    }

    fn facts(&self) -> Facts {
        Facts::default()
    }

    fn run<'a>(&'a self, _: &'a str, _: usize) -> Later<'a, Result<Printed, Failure>> {
        Box::pin(std::future::pending())
    }
}

fn path() -> (Arc<Path>, mpsc::Receiver<Report>) {
    path_over(Idle::default())
}

fn path_over(session: Idle) -> (Arc<Path>, mpsc::Receiver<Report>) {
    let (news, reports) = mpsc::channel(1024);
    (Arc::new(Path::new(Number(1), Arc::new(session), Arc::default(), news)), reports)
}

#[tokio::test(start_paused = true)]
async fn what_comes_in_while_a_write_is_stalled_leaves_an_answer_awaited() {
    for stalled in [false, true] {
        let (path, mut reports) = path_over(Idle { stalled });
        path.sent(1);
        assert_eq!(reports.try_recv().map(|(_, news)| news), Ok(News::Awaited));
        // The first bytes come too soon after that to be news by themselves.
        path.received(1);
        assert_eq!(reports.try_recv().ok(), None);
        assert_eq!(path.late_news().map(|(_, awaited)| awaited), Some(stalled));
        tokio::time::advance(HEARD_INTERVAL).await;
        path.received(1);
        assert_eq!(reports.try_recv().map(|(_, news)| news), Ok(News::Heard));
        let asked = reports.try_recv().map(|(_, news)| news).ok();
        assert_eq!(asked, stalled.then_some(News::Awaited));
    }
}

/// Writes zeros until `count` are taken or the stream breaks; returns how many were taken.
async fn flood(far: &mut DuplexStream, count: usize) -> usize {
    let block = vec![0; 64 * 1024];
    let mut taken = 0;
    while taken < count {
        match timeout(Duration::from_secs(1), far.write(&block)).await {
            Ok(Ok(written @ 1..)) => taken += written,
            _ => break,
        }
    }
    taken
}

fn parked(reports: &mut mpsc::Receiver<Report>) -> Vec<bool> {
    let mut seen = Vec::new();
    while let Ok((_, news)) = reports.try_recv() {
        if let News::Parked(parked) = news {
            seen.push(parked);
        }
    }
    seen
}

#[tokio::test(start_paused = true)]
async fn a_lonely_stream_that_nobody_reads_is_left_undrained_and_loses_nothing() {
    let (path, mut reports) = path();
    let (local, mut reader) = duplex(1024);
    let (near, mut far) = duplex(1024);
    let _guest = path.enter();
    let shared = Arc::clone(&path);
    let pumping = tokio::spawn(async move { pump(local, Box::new(near), &shared).await.1 });
    let taken = flood(&mut far, 64 << 20).await;
    assert!((CLOGGED..CLOGGED + 2 * CHUNK).contains(&taken), "{taken} bytes were drained");
    assert_eq!(parked(&mut reports), [true]);

    let writing = tokio::spawn(async move {
        let more = flood(&mut far, 1 << 20).await;
        far.shutdown().await.unwrap();
        more
    });
    let mut read = Vec::new();
    reader.shutdown().await.unwrap();
    timeout(LONG, reader.read_to_end(&mut read)).await.unwrap().unwrap();
    assert_eq!(read.len(), taken + writing.await.unwrap());
    assert!(matches!(pumping.await.unwrap(), End::Done));
    assert_eq!(parked(&mut reports), [false]);
}

#[tokio::test(start_paused = true)]
async fn a_stream_left_undrained_ends_with_its_session_when_that_is_ended() {
    let (path, mut reports) = path();
    let (local, _reader) = duplex(1024);
    let (near, mut far) = duplex(1024);
    let _guest = path.enter();
    let shared = Arc::clone(&path);
    let pumping = tokio::spawn(async move { pump(local, Box::new(near), &shared).await.1 });
    flood(&mut far, 64 << 20).await;
    path.ended.cancel();
    assert!(matches!(timeout(LONG, pumping).await.unwrap().unwrap(), End::Cut(_)));
    assert_eq!(parked(&mut reports), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_last_stream_is_told_or_looked_up_and_is_no_news_once_another_runs() {
    let (news, mut reports) = mpsc::channel(1);
    let path = Arc::new(Path::new(Number(1), Arc::new(Idle::default()), Arc::default(), news));
    drop(path.enter());
    assert!(!path.has_missed());
    let told = reports.try_recv().unwrap().1;
    assert!(!path.is_outdated(&told));
    let guest = path.enter();
    assert!(path.is_outdated(&told));
    path.asked();
    drop(guest);
    assert!(path.has_missed(), "there was no room for it");
    assert!(!path.has_missed());
}

#[test]
fn of_the_last_stream_and_the_last_listener_that_go_at_once_exactly_one_tells() {
    const ROUNDS: usize = 20_000;
    let (paths, reports): (Vec<_>, Vec<_>) = (0..ROUNDS).map(|_| path()).unzip();
    let begun = [AtomicUsize::new(0), AtomicUsize::new(0)];
    // Neither goes before the other is about to.
    let together = |side: usize, round: usize| {
        begun[side].store(round, SeqCst);
        for look in 1.. {
            if begun[1 - side].load(SeqCst) >= round {
                return;
            }
            // The other one may need this very processor.
            if look % 1_000 == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
    };
    let guests: Vec<_> = paths.iter().map(Path::enter).collect();
    let listeners: Vec<_> = paths.iter().map(Path::attend).collect();
    std::thread::scope(|threads| {
        threads.spawn(|| {
            for (round, guest) in guests.into_iter().enumerate() {
                together(0, round);
                drop(guest);
            }
        });
        for (round, listener) in listeners.into_iter().enumerate() {
            together(1, round);
            drop(listener);
        }
    });
    for mut reports in reports {
        assert!(matches!(reports.try_recv(), Ok((_, News::Empty))), "nobody told");
        assert!(reports.try_recv().is_err(), "both told");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_left_undrained_is_drained_on_for_whoever_comes_in_next() {
    let (path, _reports) = path();
    let (local, _reader) = duplex(1024);
    let (near, mut far) = duplex(1024);
    let _guest = path.enter();
    let shared = Arc::clone(&path);
    let pumping = tokio::spawn(async move { pump(local, Box::new(near), &shared).await.1 });
    let taken = flood(&mut far, 64 << 20).await;
    assert!(taken < CLOGGED + 2 * CHUNK, "{taken} bytes were drained");
    let newcomer = path.enter();
    let more = flood(&mut far, 1 << 20).await;
    assert_eq!(more, 1 << 20, "the session goes on");
    drop(newcomer);
    assert!(flood(&mut far, 64 << 20).await < 2 * CHUNK, "it is alone again");
    let _newcomer = path.enter();
    let rest = flood(&mut far, 64 << 20).await;
    assert!((MOST..MOST + 4 * CHUNK).contains(&(taken + more + rest)), "{rest} more");
    assert!(matches!(pumping.await.unwrap(), End::Cut(_)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_with_neighbours_is_drained_to_its_bound_and_then_cut() {
    let (path, _reports) = path();
    let (local, _reader) = duplex(1024);
    let (near, mut far) = duplex(1024);
    let _guests = [path.enter(), path.enter()];
    let shared = Arc::clone(&path);
    let pumping = tokio::spawn(async move { pump(local, Box::new(near), &shared).await.1 });
    let taken = flood(&mut far, 64 << 20).await;
    assert!((MOST..MOST + 2 * CHUNK).contains(&taken), "{taken} bytes were drained");
    assert!(matches!(pumping.await.unwrap(), End::Cut(_)));
}

#[tokio::test(start_paused = true)]
async fn streams_that_are_all_behind_are_left_undrained_until_one_of_them_catches_up() {
    let (path, mut reports) = path();
    let mut streams: Vec<_> = (0..3)
        .map(|_| {
            let (local, reader) = duplex(1024);
            let (near, far) = duplex(1024);
            let (guest, shared) = (path.enter(), Arc::clone(&path));
            let pumping = tokio::spawn(async move {
                let _guest = guest;
                pump(local, Box::new(near), &shared).await.1
            });
            (reader, far, pumping)
        })
        .collect();
    let mut taken = Vec::new();
    for (_, far, _) in &mut streams {
        taken.push(flood(far, 12 << 20).await);
    }
    let last = taken.pop().unwrap();
    assert!((CLOGGED..CLOGGED + 2 * CHUNK).contains(&last), "the last is not drained: {last}");
    for (_, far, pumping) in &mut streams {
        assert!(flood(far, 1 << 20).await < 2 * CHUNK, "nor are the others any more");
        assert!(!pumping.is_finished());
    }
    assert_eq!(parked(&mut reports), [true]);
    let (mut reader, _far, _pumping) = streams.pop().unwrap();
    let mut rest = vec![0; last - 1024];
    timeout(LONG, reader.read_exact(&mut rest)).await.unwrap().unwrap();
    let (_reader, far, pumping) = streams.first_mut().unwrap();
    assert_eq!(flood(far, 1 << 20).await, 1 << 20, "who has caught up does not wait for them");
    assert!(!pumping.is_finished());
}

#[tokio::test(start_paused = true)]
async fn the_stream_that_left_most_unread_pays_when_memory_is_used_up() {
    let (news, _reports) = mpsc::channel(1024);
    let unread = Arc::new(Unread::bounded(8 << 20));
    let totals = Totals::new(Arc::clone(&unread), Arc::default());
    let path = Arc::new(Path::new(Number(1), Arc::new(Idle::default()), Arc::new(totals), news));
    // A third one has nothing unread.
    let _guests = [path.enter(), path.enter(), path.enter()];
    let start = || {
        let (local, reader) = duplex(1024);
        let (near, far) = duplex(1024);
        let shared = Arc::clone(&path);
        let end = tokio::spawn(async move { pump(local, Box::new(near), &shared).await.1 });
        (reader, far, end)
    };
    let (_slow, mut slow_far, slow) = start();
    let (mut other, mut other_far, other_end) = start();
    let taken = flood(&mut slow_far, 6 << 20).await;
    assert_eq!(taken, 6 << 20);
    let taken = flood(&mut other_far, 3 << 20).await;
    assert_eq!(taken, 3 << 20);
    assert!(matches!(slow.await.unwrap(), End::Cut(_)));
    assert!(unread.total() <= 4 << 20, "its memory is free: {}", unread.total());
    other_far.shutdown().await.unwrap();
    other.shutdown().await.unwrap();
    let mut read = Vec::new();
    timeout(LONG, other.read_to_end(&mut read)).await.unwrap().unwrap();
    assert_eq!(read.len(), taken, "the other one loses nothing");
    assert!(matches!(other_end.await.unwrap(), End::Done));
    assert_eq!(unread.total(), 0);
}

/// A stream whose far side says when it takes nothing any more.
struct Leaving {
    stream: DuplexStream,
    closed: Mutex<Option<oneshot::Receiver<io::Result<()>>>>,
}

impl AsyncRead for Leaving {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Leaving {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Stream for Leaving {
    fn until_closed(&self) -> Later<'static, io::Result<()>> {
        let closed = self.closed.lock().unwrap().take().unwrap();
        Box::pin(async move { closed.await.unwrap() })
    }
}

#[tokio::test(start_paused = true)]
async fn a_far_side_that_is_done_and_then_gone_ends_what_is_sent_to_it() {
    for is_polite in [true, false] {
        let (path, _reports) = path();
        let (local, mut client) = duplex(1024);
        let (stream, mut far) = duplex(1024);
        let (close, closed) = oneshot::channel();
        let near = Leaving { stream, closed: Mutex::new(Some(closed)) };
        let shared = Arc::clone(&path);
        let pumping = tokio::spawn(async move { pump(local, Box::new(near), &shared).await.1 });
        far.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        // Half of the conversation goes on.
        client.write_all(b"more").await.unwrap();
        timeout(LONG, far.read_exact(&mut [0; 4])).await.unwrap().unwrap();
        assert!(!pumping.is_finished());
        let outcome = if is_polite { Ok(()) } else { Err(io::ErrorKind::ConnectionReset.into()) };
        close.send(outcome).unwrap();
        let end = timeout(LONG, pumping).await.unwrap().unwrap();
        assert_eq!(matches!(end, End::Done), is_polite, "{end:?}");
        assert_eq!(matches!(end, End::Cut(_)), !is_polite, "{end:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_stalls_asks_for_a_sign_of_life_again_and_again() {
    let (path, mut reports) = path();
    let (local, mut writer) = duplex(1024);
    let (near, _far) = duplex(16);
    let shared = Arc::clone(&path);
    let _pumping = tokio::spawn(async move { pump(local, Box::new(near), &shared).await.1 });
    writer.write_all(&[7; 512]).await.unwrap();
    assert_eq!(timeout(LONG, reports.recv()).await.unwrap().unwrap().1, News::Awaited);
    // Bytes that come in meanwhile say nothing of the way out.
    tokio::time::advance(HEARD_INTERVAL).await;
    path.received(1);
    assert_eq!(timeout(LONG, reports.recv()).await.unwrap().unwrap().1, News::Heard);
    assert_eq!(timeout(LONG, reports.recv()).await.unwrap().unwrap().1, News::Awaited);
}

#[tokio::test(start_paused = true)]
async fn small_pieces_share_their_memory() {
    let (path, _reports) = path();
    let backlog = path.unread().enter();
    let (near, mut far) = duplex(1);
    let (read, _write) = tokio::io::split(Box::new(near) as Box<dyn Stream>);
    // One byte finds room.
    let (local, _reader) = duplex(1);
    let (_read, mut local_write) = tokio::io::split(local);
    let inward = Inward::new(read, &mut local_write, &backlog, &path).run();
    let writing = async {
        far.write_all(&[7; 1000]).await.unwrap();
        far.shutdown().await.unwrap();
    };
    tokio::select! {
        biased;
        _ = async { tokio::join!(inward, writing) } => panic!("nobody reads the rest"),
        () = tokio::time::sleep(Duration::from_secs(1)) => {}
    }
    let (first, last) = backlog.ends();
    assert_eq!(last - first, 998, "one allocation holds them all");
}

#[tokio::test]
async fn the_end_of_the_last_stream_is_not_lost_on_a_lane_that_is_behind() {
    let (news, _reports) = mpsc::channel(1);
    let path = Arc::new(Path::new(Number(1), Arc::new(Idle::default()), Arc::default(), news));
    let guest = path.enter();
    path.asked();
    drop(guest);
    assert!(path.has_missed());
    assert!(!path.has_missed());
    path.clogged(true);
    assert!(path.has_missed() && path.is_clogged());
}
