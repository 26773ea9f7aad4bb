//! Throws mutations of a corpus at a reader: the same ones in every run, more with `PROPTEST_CASES`.
//!
//! A fuzz target is a test that calls [`survives`] with a folder below `fixtures/` and a check that
//! panics where an invariant does not hold. An input that once broke something goes into the folder.

use std::{fs, path::Path};

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};

/// How many mutated inputs are tried when nobody asks for more.
const CASES: u32 = 512;
/// Bytes that mean something in configurations, known hosts and targets.
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

/// Gives every file below `fixtures/<folder>`, then mutations of them, to `check`.
pub(crate) fn survives(folder: &str, check: impl Fn(&[u8])) {
    let corpus = corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(folder));
    assert!(!corpus.is_empty(), "no corpus in fixtures/{folder}");
    for input in &corpus {
        check(input);
    }
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    let config =
        Config { cases: cases.unwrap_or(CASES), failure_persistence: None, ..Config::default() };
    let rng = proptest::test_runner::TestRng::deterministic_rng(config.rng_algorithm);
    let changes = vec(change(), 1..12);
    TestRunner::new_with_rng(config, rng)
        .run(&(any::<usize>(), changes), |(start, changes)| {
            let input = changed(&corpus, start, &changes);
            let input_for_people = input.escape_ascii().to_string();
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(&input)));
            prop_assert!(outcome.is_ok(), "breaks on b\"{input_for_people}\"");
            Ok(())
        })
        .unwrap_or_else(|error| panic!("{error}"));
}

fn corpus(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).expect("reading the corpus");
    let mut files: Vec<_> =
        entries.map(|entry| entry.expect("reading the corpus").path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    files.iter().map(|file| fs::read(file).expect("reading the corpus")).collect()
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
