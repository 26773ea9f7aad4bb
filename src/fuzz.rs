//! Throws mutations of a corpus at a reader: the same ones in every run, and more for as long as is
//! asked for.
//!
//! A fuzz target is a test that calls [`survives`] with folders below `fixtures/` and a check that
//! panics where an invariant does not hold. Built by `tests/fuzz`, the same targets are led by libFuzzer
//! to the branches nobody took yet.

#[cfg(not(fuzzing_libfuzzer))]
mod mutations;

use std::{fs, path::Path};

#[cfg(not(fuzzing_libfuzzer))]
use mutations::search;

/// Inputs that broke a target once; each target gets all of them.
const FOUND: &str = "fuzz/found";
/// How deep what should be bottomless is.
const DEPTH: usize = 100_000;

/// Gives every file of the folders below `fixtures/`, and what broke a target once, to `check`, then
/// mutations of them.
pub(crate) fn survives(folders: &[&str], check: impl Fn(&[u8])) {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let read = |folder: &&str| files(&fixtures.join(folder));
    let mut corpus: Vec<Vec<u8>> = folders.iter().flat_map(read).collect();
    assert!(!corpus.is_empty(), "no corpus in {folders:?}");
    corpus.extend(read(&FOUND));
    for input in &corpus {
        check(input);
    }
    search(&folders.join(" "), &corpus, check);
}

/// JSON that readers stumble over: bottomless, not UTF-8, with zeros and lone surrogates inside, with
/// numbers that nothing can hold, with a key twice.
pub(crate) fn hostile_json() -> Vec<Vec<u8>> {
    let deep = |open: &str, close: &str| {
        [open.repeat(DEPTH), "1".to_owned(), close.repeat(DEPTH)].concat().into_bytes()
    };
    let mut all = vec![
        deep("[", "]"),
        deep("{\"a\":", "}"),
        deep("[{\"a\":", "}]"),
        "[".repeat(DEPTH).into_bytes(),
        format!("1{}", "0".repeat(DEPTH)).into_bytes(),
        format!("\"{}\"", "\\u0000".repeat(DEPTH)).into_bytes(),
    ];
    let small: [&[u8]; 12] = [
        b"\"\xff\xfe\"",
        b"\"\xed\xa0\x80\"",
        b"\"a\0b\"",
        b"\0",
        b"\"\\ud800\"",
        b"{\"\\udc00\\ud800\": 1}",
        b"1e999",
        b"-1e-999",
        b"18446744073709551616",
        b"0.1e+99999999999999999999",
        b"{\"a\": 1, \"a\": 2}",
        b"{\"__proto__\": {\"\\u0061\": null, \"a\": null}}",
    ];
    all.extend(small.map(<[u8]>::to_vec));
    all
}

/// Hands the target over to libFuzzer, which is told by the environment what to do and when to end;
/// or only puts the corpus where `OPENCLAW_FUZZ_SEEDS` says, for it to start from.
#[cfg(fuzzing_libfuzzer)]
fn search(name: &str, corpus: &[Vec<u8>], check: impl Fn(&[u8])) {
    if let Some(folder) = std::env::var_os("OPENCLAW_FUZZ_SEEDS") {
        for (number, input) in corpus.iter().enumerate() {
            let name = format!("{}-{number}", name.replace(['/', ' '], "-"));
            fs::write(Path::new(&folder).join(name), input).expect("writing the seeds");
        }
        return;
    }
    let check = std::panic::AssertUnwindSafe(check);
    bolero::check!().for_each(|input: &[u8]| {
        let check = &check;
        check(input);
    });
}

fn files(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).expect("reading the corpus");
    let mut files: Vec<_> =
        entries.map(|entry| entry.expect("reading the corpus").path()).collect();
    files.retain(|file| file.is_file());
    files.sort();
    files.iter().map(|file| fs::read(file).expect("reading the corpus")).collect()
}
