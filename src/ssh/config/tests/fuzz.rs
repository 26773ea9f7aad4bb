//! The parser as a fuzz target: whatever a file holds, it is read to an end or told what is wrong.

use std::path::Path;

use super::Fake;
use crate::{
    fuzz,
    ssh::config::{
        Mistake, Request,
        forward::Forward,
        keywords::{self, Direction, Kind},
        resolve,
    },
};

#[test]
fn reads_every_file_to_an_end_or_says_what_is_wrong_and_where() {
    fuzz::survives(&["ssh_config"], |bytes| {
        let world = Fake::with(bytes)
            .file("/parts/first", "Host box\n  Port 2022\n")
            .variable("HOME", "/home/anna")
            .name("box.example.", None);
        match world.resolve("box") {
            Ok(settings) => is_stable(&settings.dump()),
            Err(mistakes) => {
                assert!(!mistakes.is_empty());
                mistakes.iter().for_each(has_a_place);
            }
        }
    });
}

fn has_a_place(mistake: &Mistake) {
    assert!(mistake.file.is_some(), "{mistake}");
    assert!(!mistake.what.is_empty() && !mistake.to_string().contains('\n'), "{mistake:?}");
}

/// What `-G` prints is a configuration that means the same, unless its form cannot tell a blank from
/// the end of a word, or a token from what it stands for.
fn is_stable(dump: &str) {
    if !dump.lines().all(is_plain) {
        return;
    }
    let world = Fake::default().file("/dump", dump);
    let request = Request { host: "box", file: Some(Path::new("/dump")), ..Request::default() };
    match resolve(&request, &world) {
        Ok(settings) => assert_eq!(settings.dump(), dump, "read again"),
        Err(mistakes) => panic!("{}\n{dump}", super::sentences(&mistakes)),
    }
}

fn is_plain(line: &str) -> bool {
    let (name, value) = line.split_once(' ').unwrap_or((line, ""));
    let words = match keywords::find(name).map(|keyword| keyword.kind) {
        Some(Kind::Word | Kind::Socket | Kind::FlagOrSocket) => 1,
        Some(Kind::Words(_)) if value.contains('/') => 2,
        Some(Kind::Forward(_)) => 2,
        Some(_) | None => usize::MAX,
    };
    let is_special = |c: char| c.is_control() || "%$\"'\\#".contains(c);
    !value.contains(is_special)
        && !value.is_empty()
        // A line for each variable, where only the first line counts.
        && name != "setenv"
        && !value.contains("[socks]:0")
        && value.split(' ').all(|word| !word.is_empty())
        && value.split(' ').count() <= words
}

#[test]
fn a_forward_that_is_taken_reads_back_the_same() {
    fuzz::survives(&["fuzz/forwards"], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for direction in [Direction::Local, Direction::Remote, Direction::Dynamic] {
            let Some(forward) = Forward::parse(&text, direction) else { continue };
            assert_eq!(forward.connect.is_none(), direction == Direction::Dynamic);
            let words = forward.words();
            assert_eq!(Forward::of_words(&words).as_ref(), Some(&forward), "{words:?}");
        }
    });
}
