//! What a lane that nobody uses costs, over a real login: threads that are woken for nothing.

use tokio::runtime::{Builder, Runtime, RuntimeMetrics};

use super::{outpost::tests::Bench, *};
use crate::history::Book;

/// Long enough for a loaded machine, short enough to fail a test.
const PATIENCE: Duration = Duration::from_secs(120);
/// Quiet pings that are looked at.
const PINGS: u64 = 3;

fn runtime(threads: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap()
}

/// Waits for something that wakes nobody, from outside every runtime: asking inside would wake it.
fn until<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How often each thread has slept and woken.
fn turns(metrics: &RuntimeMetrics) -> Vec<u64> {
    (0..metrics.num_workers()).map(|worker| metrics.worker_park_unpark_count(worker)).collect()
}

#[test]
fn a_quiet_ping_wakes_one_thread_and_no_other() {
    let (there, here) = (runtime(1), runtime(2));
    let bench = there.block_on(Bench::new());
    let lane = here.block_on(async {
        let options = Options { proof: ProofKind::Ssh, alive: None, seed: 1 };
        let purpose = Purpose::Forward(Destination::loopback(1));
        let scribe = Scribe::new(Arc::new(Book::unwritten()), "vps");
        let (span, limits) = (tracing::Span::none(), Limits::default());
        let lane = Lane::start(span, options, purpose, &limits, Arc::clone(&bench.dialer), scribe);
        lane.tell(Command::Wish(Wish::Up)).await;
        lane
    });
    let proved = || lane.state.borrow().proof.map(|proof| proof.at);
    // An answer that somebody listened for is a round trip that was measured, a quiet one is none.
    let loud = || lane.totals.round_trips().len();
    let quiet_one = || {
        let (before, measured) = (proved(), loud());
        until("a ping is answered", || (proved() != before).then_some(()));
        before.is_some() && loud() == measured
    };
    until("pings are quiet", || quiet_one().then_some(()));
    let metrics = here.metrics();
    let before = turns(&metrics);
    let quiet = (0..PINGS).filter(|_| quiet_one()).count();
    let after = turns(&metrics);
    assert_eq!(quiet as u64, PINGS, "somebody listened");
    let mut woken: Vec<u64> =
        before.iter().zip(&after).map(|(before, after)| after - before).collect();
    woken.sort_unstable();
    // Each sleep and each waking counts.
    assert!(woken[0] < 2 * PINGS, "a second thread is woken for each ping: {woken:?}");
    assert!(woken[1] >= 2 * (PINGS - 1), "and the first one is: {woken:?}");
}
