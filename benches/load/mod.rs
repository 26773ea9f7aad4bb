//! A load generator for gateways: many clients, many requests in flight, in one thread.

use std::{
    io,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt, future::join_all};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use crate::support::Wire;

/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Answers taken up before the next requests are written.
const BATCH: usize = 64;

/// What a load of requests came to.
pub(crate) struct Load {
    /// Answers a second.
    pub(crate) rate: f64,
    /// From each request to its answer, milliseconds.
    pub(crate) latencies: Vec<f64>,
}

/// A runtime of one thread.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The time from dialling to `hello-ok`, `count` times one after another.
pub(crate) async fn logins(port: u16, token: &str, count: usize) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..count {
        let start = Instant::now();
        let wire = Wire::login(port, token).await.expect("logging in");
        times.push(start.elapsed());
        drop(wire);
    }
    times
}

/// Calls `health` for `span` over `connections`, each with `in_flight` requests unanswered.
pub(crate) async fn health(
    (port, token): (u16, &str),
    connections: usize,
    in_flight: usize,
    span: Duration,
) -> Load {
    let mut wires = Vec::new();
    for _ in 0..connections {
        wires.push(Wire::login(port, token).await.expect("logging in"));
    }
    let start = Instant::now();
    let runs = wires.into_iter().map(|wire| keep_asking(wire, in_flight, span));
    let all = timeout(LIMIT, join_all(runs)).await.expect("answers in time");
    let elapsed = start.elapsed();
    let latencies: Vec<f64> = all.into_iter().flat_map(|run| run.expect("answers")).collect();
    #[expect(clippy::cast_precision_loss, reason = "far fewer answers than 2^52")]
    let rate = latencies.len() as f64 / elapsed.as_secs_f64();
    Load { rate, latencies }
}

/// Keeps `in_flight` requests unanswered for `span`, and gives the latency of each answer. What is
/// refused because the gateway is busy is not asked again, so that the load settles at what that
/// gateway takes.
async fn keep_asking(wire: Wire, in_flight: usize, span: Duration) -> io::Result<Vec<f64>> {
    let (mut sink, stream) = wire.socket.split();
    let mut stream = stream.ready_chunks(BATCH);
    // By number, until it is answered, when each was asked.
    let (mut asked, mut latencies) = (Vec::new(), Vec::new());
    let (start, mut unanswered) = (Instant::now(), 0);
    let mut due = in_flight;
    loop {
        let now = Instant::now();
        if now - start < span {
            for _ in 0..due {
                let id = asked.len();
                let text =
                    format!(r#"{{"type":"req","id":"{id}","method":"health","params":{{}}}}"#);
                asked.push(Some(now));
                unanswered += 1;
                sink.feed(Message::text(text)).await.map_err(io::Error::other)?;
            }
            sink.flush().await.map_err(io::Error::other)?;
        }
        if unanswered == 0 {
            return Ok(latencies);
        }
        let batch = stream.next().await.ok_or(io::ErrorKind::UnexpectedEof)?;
        let now = Instant::now();
        due = 0;
        for message in batch {
            let message = message.map_err(io::Error::other)?;
            let Message::Text(text) = message else { continue };
            let Some((id, is_good)) = answered(&text) else { continue };
            let Some(since) = asked.get_mut(id).and_then(Option::take) else { continue };
            unanswered -= 1;
            if is_good {
                latencies.push((now - since).as_secs_f64() * 1000.0);
                due += 1;
            }
        }
    }
}

/// The id of an answer and whether it is a good one, which otherwise says that the gateway is busy;
/// the generator must not be slower than what it measures, so it does not read the rest.
fn answered(text: &str) -> Option<(usize, bool)> {
    if !text.starts_with(r#"{"type":"res""#) {
        return None;
    }
    let rest = text.split_once(r#""id":""#)?.1;
    let (id, rest) = rest.split_once('"')?;
    let is_good = rest.starts_with(r#","ok":true"#);
    assert!(is_good || rest.contains("UNAVAILABLE"), "a good answer: {text:.200}");
    Some((id.parse().ok()?, is_good))
}

/// Logs `count` clients in at once, each trying again as the reference client does, and gives the
/// clients and how long it took until the last was in.
pub(crate) async fn storm(port: u16, token: &str, count: usize) -> (Vec<Wire>, Duration) {
    let start = Instant::now();
    let clients = (0..count).map(|number| persistent(port, token, number));
    let wires = timeout(LIMIT, join_all(clients)).await.expect("everybody is in");
    (wires, start.elapsed())
}

/// Waits 1 s before the second attempt, twice as long before each next one, with a little jitter.
async fn persistent(port: u16, token: &str, number: usize) -> Wire {
    let mut pause = Duration::from_secs(1);
    loop {
        match Wire::login(port, token).await {
            Ok(wire) => return wire,
            Err(_) => {
                let jitter = Duration::from_millis((number as u64 * 7919) % 100);
                tokio::time::sleep(pause + jitter).await;
                pause *= 2;
            }
        }
    }
}
