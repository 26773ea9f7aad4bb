//! Inputs made of the corpus by dice: blind, quick, and the same from the same seed.

use std::{
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

/// How many mutated inputs are tried in a round; one round unless somebody asks for more.
const CASES: u32 = 512;
/// The seed when nobody names another.
const SEED: u64 = 20_261_127;
/// Bytes that mean something in configurations, known hosts, targets and frames.
const MEANINGFUL: &[u8] = b"\0\n\r\t \"'\\#=,:;*?!%$@[]|/~-+^{}\x0c\xff09azAZ";

/// One change of an input; places are taken modulo its length.
#[derive(Debug, Clone)]
enum Change {
    /// Another byte in place of one.
    Replace(usize, u8),
    /// A byte more.
    Insert(usize, u8),
    /// Some bytes less.
    Remove(usize, usize),
    /// Some bytes twice.
    Repeat(usize, usize),
    /// Everything from there on comes from another input.
    Splice(usize, usize, usize),
}

/// Tries mutations: as many as usual, or for `OPENCLAW_FUZZ` seconds; `OPENCLAW_FUZZ_SEED` throws
/// others.
pub(super) fn search(name: &str, corpus: &[Vec<u8>], check: impl Fn(&[u8])) {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let seconds = number("OPENCLAW_FUZZ");
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or_default());
    let first = number("OPENCLAW_FUZZ_SEED").unwrap_or(SEED);
    let mut seed = first;
    loop {
        run(seed, corpus, &check);
        seed += 1;
        if Instant::now() >= until {
            break;
        }
    }
    if seconds.is_some() {
        // What is printed in the usual way the test harness keeps to itself.
        let tried = (seed - first) * u64::from(CASES);
        let line = format!("fuzz {name}: {tried} inputs, seeds {first} to {}\n", seed - 1);
        std::io::stderr().write_all(line.as_bytes()).expect("standard error");
    }
}

/// One round; a failure names its seed and the smallest input that was found to fail.
fn run(seed: u64, corpus: &[Vec<u8>], check: impl Fn(&[u8])) {
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let changes = vec(change(), 1..12);
    TestRunner::new_with_rng(config, rng)
        .run(&(any::<usize>(), changes), |(start, changes)| {
            let input = changed(corpus, start, &changes);
            let input_for_people = input.escape_ascii().to_string();
            let outcome = catch_unwind(AssertUnwindSafe(|| check(&input)));
            prop_assert!(outcome.is_ok(), "breaks on b\"{input_for_people}\"");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("with OPENCLAW_FUZZ_SEED={seed}: {error}"));
}

fn change() -> impl Strategy<Value = Change> {
    let byte = || prop_oneof![prop::sample::select(MEANINGFUL), any::<u8>()];
    let place = any::<usize>;
    prop_oneof![
        (place(), byte()).prop_map(|(at, byte)| Change::Replace(at, byte)),
        (place(), byte()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        (place(), 1_usize..40).prop_map(|(at, many)| Change::Remove(at, many)),
        (place(), 1_usize..40).prop_map(|(at, many)| Change::Repeat(at, many)),
        (place(), place(), place()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ]
}

fn changed(corpus: &[Vec<u8>], start: usize, changes: &[Change]) -> Vec<u8> {
    let pick = |at: usize| corpus.get(at % corpus.len()).cloned().unwrap_or_default();
    let mut input = pick(start);
    // A long input hides the change, and takes its time.
    input.truncate(4096);
    for change in changes {
        let length = input.len();
        let within = |at: usize| at % (length + 1);
        match *change {
            Change::Replace(at, byte) => {
                if let Some(old) = input.get_mut(within(at)) {
                    *old = byte;
                }
            }
            Change::Insert(at, byte) => input.insert(within(at), byte),
            Change::Remove(at, many) => {
                let from = within(at);
                let to = (from + many).min(input.len());
                input.drain(from..to);
            }
            Change::Repeat(at, many) => {
                let from = within(at);
                let part: Vec<u8> = input.iter().skip(from).take(many).copied().collect();
                input.splice(from..from, part);
            }
            Change::Splice(at, other, from) => {
                let other = pick(other);
                let from = from % (other.len() + 1);
                input.truncate(within(at));
                input.extend(other.into_iter().skip(from).take(4096));
            }
        }
    }
    input
}
