//! Fuzz targets: any text as `openclaw.json`, as an edit of it, as a path, and as our own files.

use std::path::Path;

use serde_json::{Value, json};

use super::{
    Destination, Forward, KeyPath, Listen, Remotes,
    edit::{self, Edit},
    openclaw::{Review, World},
    redacted, syntax,
};
use crate::fuzz::{hostile_json, survives};

fn review(text: &str) -> Review {
    let find = |from: &Path, name: &str| match name.len() % 3 {
        0 => Err(format!("cannot read {name}")),
        _ => Ok((from.join(name), "{port: 1, more: {$include: 'itself'}}".to_owned())),
    };
    let variable = |name: &str| (name == "TOKEN").then(|| "from-env".to_owned());
    Review::of(text, Path::new("openclaw.json"), &World { variable: &variable, find: &find })
}

fn read_to_an_end(bytes: &[u8]) {
    let review = review(&String::from_utf8_lossy(bytes));
    for issue in review.issues.iter().chain(&review.warnings) {
        assert!(!issue.path.is_empty() && !issue.message.is_empty(), "{issue:?}");
    }
    // What is shown has the shape of what is there, and none of it is taken for a value.
    let shown = redacted(&review.whole);
    assert_eq!(redacted(&shown), shown);
}

#[test]
fn reads_every_file_to_an_end_or_says_what_is_wrong_and_where() {
    for json in hostile_json() {
        read_to_an_end(&json);
        let gateway: &[u8] = b"{\"gateway\":{\"auth\":{\"token\":";
        read_to_an_end(&[gateway, &json, b"}}}"].concat());
    }
    survives(&["openclaw/samples", "openclaw"], read_to_an_end);
}

/// An edit with the text that it is made in: a line with a path, a line with a value, the file.
fn an_edit(text: &str) -> Option<(KeyPath, Value, &str)> {
    let (path, rest) = text.split_once('\n')?;
    let (value, file) = rest.split_once('\n')?;
    Some((KeyPath::parse(path).ok()?, syntax::parse(value).ok()?, file))
}

/// The comments of a text that can be read, in their order.
fn comments(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let length = if rest.starts_with("//") {
            let ends = ['\n', '\r', '\u{2028}', '\u{2029}'];
            let length = rest.find(ends).unwrap_or(rest.len());
            found.extend(rest.get(..length));
            length
        } else if rest.starts_with("/*") {
            let length = rest.find("*/").map_or(rest.len(), |end| end + 2);
            found.extend(rest.get(..length));
            length
        } else if rest.starts_with(['"', '\'']) {
            length_of_text(rest)
        } else {
            rest.chars().next().map_or(1, char::len_utf8)
        };
        at += length;
    }
    found
}

/// Bytes from a quote to the one that ends the text.
fn length_of_text(text: &str) -> usize {
    let quote = text.chars().next();
    let mut is_escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            other if Some(other) == quote => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Holds what an edit made of a file against what it should have made of it.
fn keeps_the_rest(path: &KeyPath, value: &Value, file: &str) {
    let Ok(changed) = edit::apply(file, &[Edit::Set(path.clone(), value.clone())]) else { return };
    let is_empty = file.trim_start_matches(syntax::MARK).trim().is_empty();
    let body = if is_empty { "{}" } else { file };
    let before = syntax::parse(body).expect("what was edited can be read");
    let after = syntax::parse(&changed).expect("what was written can be read");
    assert_eq!(path.find(&after), Some(value), "{path}");
    let first = path.names().first().map(|name| (*name).to_owned()).unwrap_or_default();
    for (key, kept) in before.as_object().into_iter().flatten().filter(|(key, _)| **key != first) {
        assert_eq!(after.get(key), Some(kept), "{key}");
    }
    let replaced = path.find(&before);
    if replaced.is_none_or(|old| !old.is_object() && !old.is_array()) {
        let left = comments(&changed);
        let mut left = left.iter();
        for comment in comments(file) {
            assert!(left.any(|kept| *kept == comment), "{comment:?} is gone from {changed:?}");
        }
    }
    let again = edit::apply(&changed, &[Edit::Set(path.clone(), value.clone())]);
    let again = again.expect("what was set can be set again");
    assert_eq!(syntax::parse(&again).as_ref(), Ok(&after), "the same again");
    let Ok(back) = edit::apply(&changed, &[Edit::Unset(path.clone())]) else { return };
    let back = syntax::parse(&back).expect("what was written can be read");
    let is_gone = match path.steps().last().and_then(super::path::Step::place) {
        // The next of a list takes its place.
        Some(_) => true,
        None => path.find(&back).is_none(),
    };
    assert!(is_gone, "{path} in {back}");
    if let Ok(edits) = edit::merged(&after, path, value) {
        // Models without an id of their own come in beside those that are there.
        let merged = edit::apply(&changed, &edits).expect("a value merges with itself");
        let merged = syntax::parse(&merged).expect("what was written can be read");
        assert!(path.find(&merged).is_some(), "{path}");
    }
}

#[test]
fn an_edit_does_what_it_says_and_keeps_comments_and_everything_else() {
    survives(&["fuzz/edits"], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Some((path, value, file)) = an_edit(&text) {
            keeps_the_rest(&path, &value, file);
        }
    });
    for json in hostile_json() {
        let text = String::from_utf8_lossy(&json).into_owned();
        let text = format!("gateway.port\n1\n{{/* kept */ a: {text}}}");
        if let Some((path, value, file)) = an_edit(&text) {
            keeps_the_rest(&path, &value, file);
        }
    }
}

#[test]
fn any_file_takes_an_edit_of_a_key_or_refuses_it() {
    survives(&["openclaw/samples", "openclaw"], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        for (path, value) in [
            ("gateway.port", json!(1)),
            ("gateway.remote.url", json!("ws://x")),
            ("a[0]['b.c']", json!([null, {"d": 1}])),
        ] {
            keeps_the_rest(&KeyPath::parse(path).expect("a path"), &value, &text);
        }
    });
}

#[test]
fn a_path_that_is_shown_can_be_typed() {
    survives(&["fuzz/edits", "targets"], |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let Ok(path) = KeyPath::parse(text.lines().next().unwrap_or_default()) else { return };
        let again = KeyPath::parse(&path.to_string());
        assert_eq!(again.expect("a path").names(), path.names(), "{path}");
    });
}

#[test]
fn any_file_of_remotes_reads_back_the_same_or_is_refused() {
    let check = |bytes: &[u8]| {
        let Ok(remotes) = serde_json::from_slice::<Remotes>(bytes) else { return };
        let text = serde_json::to_vec(&remotes).expect("remotes can be written");
        assert_eq!(serde_json::from_slice::<Remotes>(&text).expect("and read"), remotes);
        for remote in remotes.remotes.values() {
            remote.forwards.iter().chain(&remote.remote_forwards).for_each(says_where);
        }
    };
    hostile_json().iter().for_each(|json| check(json));
    survives(&["remotes"], check);
}

/// A forward that is kept is written as it is read, and opens no gateway that it does not say.
fn says_where(forward: &Forward) {
    let Forward { listen, to } = forward;
    assert_eq!(listen.port().is_none(), matches!(listen, Listen::Socket(_)));
    if matches!(to, Destination::Socket(_)) {
        assert!(!forward.is_made_anyway(18_789, None));
        assert!(!forward.leads_to_browser_control(18_789));
    }
    assert!(listen.port() == Some(0) || listen.collides(listen), "{forward}");
}
