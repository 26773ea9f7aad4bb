//! The pump over in-memory streams: bounds, back-pressure, and what each kind of end looks like.

use std::time::Duration;

use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
    time::timeout,
};

use super::*;
use crate::{
    supervisor::{
        link::{Facts, Later, Link, NotOpened, Printed},
        path::Report,
    },
    tunnel::{Failure, News, Number},
};

const LONG: Duration = Duration::from_secs(60);

/// A session that does nothing of its own.
struct Idle;

impl Link for Idle {
    fn open<'a>(&'a self, _: &'a str, _: u16) -> Later<'a, Result<Box<dyn Stream>, NotOpened>> {
        Box::pin(std::future::pending())
    }

    fn ping(&self) -> Later<'_, Result<Duration, Failure>> {
        Box::pin(std::future::pending())
    }

    fn closed(&self) -> Later<'_, Failure> {
        Box::pin(std::future::pending())
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

    fn facts(&self) -> Facts {
        Facts::default()
    }

    fn run<'a>(&'a self, _: &'a str, _: usize) -> Later<'a, Result<Printed, Failure>> {
        Box::pin(std::future::pending())
    }
}

fn path() -> (Arc<Path>, mpsc::Receiver<Report>) {
    let (news, reports) = mpsc::channel(1024);
    (Arc::new(Path::new(Number(1), Arc::new(Idle), Arc::default(), news)), reports)
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
async fn small_pieces_share_their_memory() {
    let backlog = Backlog::default();
    let (path, _reports) = path();
    let (near, mut far) = duplex(1);
    let (read, _write) = tokio::io::split(Box::new(near) as Box<dyn Stream>);
    let fetching = fetch(read, &backlog, &path);
    let writing = async {
        far.write_all(&[7; 1000]).await.unwrap();
        far.shutdown().await.unwrap();
    };
    let (fetched, ()) = tokio::join!(fetching, writing);
    fetched.unwrap();
    let queue = &backlog.lock().queue;
    let first = queue.front().unwrap().as_ptr();
    let last = queue.back().unwrap().as_ptr();
    assert_eq!(last as usize - first as usize, 999, "one allocation holds them all");
}
