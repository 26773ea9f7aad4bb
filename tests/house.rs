//! Holds the rules of the house: who may use whom, who owns which crate, names, opening sentences.
//!
//! It reads the sources as text. Change a rule here, in the same commit as the code that needs it.
#![expect(clippy::indexing_slicing, reason = "a test may panic where it reads past its text")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Parts that anybody may use, and that use nothing of ours but each other.
const LEAVES: &[&str] = &[
    "backoff",
    "control",
    "fingerprint",
    "descriptors",
    "fuzz",
    "logfile",
    "meeting",
    "notice",
    "plaintext",
    "problem",
    "secret",
];

/// Which parts each part may use besides itself and the leaves; `docs/architecture.md` says why.
const MAY_USE: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("tunnel", &[]),
    ("config", &["tunnel"]),
    ("history", &[]),
    ("relay", &[]),
    ("ssh", &["tunnel", "config"]),
    ("client", &["protocol", "config"]),
    ("supervisor", &["tunnel", "ssh", "relay", "config", "protocol", "client", "history"]),
    ("store", &["protocol"]),
    ("agent", &["protocol", "store", "config"]),
    ("channels", &["protocol", "store", "config"]),
    ("node", &["protocol", "config", "client"]),
    ("gateway", &["protocol", "store", "agent", "channels", "relay", "config"]),
    ("service", &["config"]),
    (
        "cli",
        &[
            "protocol",
            "tunnel",
            "config",
            "relay",
            "ssh",
            "client",
            "history",
            "supervisor",
            "store",
            "agent",
            "channels",
            "node",
            "gateway",
            "service",
        ],
    ),
];

/// Crates that one part alone may name.
const OWNED: &[(&str, &str)] = &[("russh", "ssh"), ("rusqlite", "store")];

/// The one file that prints, and what counts as printing.
const PRINTER: &str = "cli/output.rs";
const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// Tests that start a gateway in a way of their own, at how many places, and how its frames are held
/// against the schema.
const GATEWAYS: &[(&str, usize, &str)] = &[
    ("abuse/siege.rs", 1, "its sockets are the subject; a `Wire` holds what it reads"),
    ("e2e/bad_input.rs", 3, "it refuses to start"),
    ("e2e/config.rs", 2, "it refuses to start"),
    ("e2e/doctor.rs", 1, "it refuses to start"),
    ("e2e/manners.rs", 1, "it refuses to start"),
    ("e2e/service_manager.rs", 2, "nobody opens a WebSocket"),
    ("e2e/tailscale.rs", 1, "it chooses its port; a `Wire` holds what it reads"),
    ("e2e/unheard.rs", 1, "it refuses to start"),
    ("gateway.rs", 2, "a `Tap` where our program asks; the others read no frames, or hold them"),
    ("lab/systemd_gateway.rs", 1, "a wiretap in the machine"),
    ("support/gateways.rs", 2, "the tap itself"),
];

/// What starts one.
const STARTS: &[&str] = &[r#""gateway", "run""#, "openclaw gateway run --port 1", "start_bare("];

/// File and folder names that say nothing.
const EMPTY_NAMES: &[&str] =
    &["common", "helper", "helpers", "manager", "misc", "types", "util", "utils"];

/// Beginnings of function names that say nothing.
const EMPTY_VERBS: &[&str] = &["get_", "do_", "handle_"];

#[test]
fn parts_use_only_what_the_table_allows() {
    let broken: Vec<String> = sources("src")
        .iter()
        .filter_map(|source| Some((source, source.part()?)))
        .flat_map(|(source, part)| {
            let used = parts_used(&source.text, source.depth());
            used.into_iter().filter_map(move |used| {
                let verdict = may_use(&part, &used).err()?;
                Some(format!("{}: {verdict}", source.path))
            })
        })
        .collect();
    none("uses outside the table", &broken);
}

#[test]
fn crates_stay_with_their_owner() {
    let mut broken = Vec::new();
    for source in sources("src") {
        let words = words(&source.text);
        for (name, owner) in OWNED {
            if source.part().as_deref() != Some(owner) && words.iter().any(|word| word == name) {
                broken.push(format!("{}: names {name}, which belongs to {owner}", source.path));
            }
        }
    }
    none("crates outside their part", &broken);
}

#[test]
fn one_file_prints() {
    let broken: Vec<String> = sources("src")
        .iter()
        // A test that is skipped says so on the terminal of whoever runs it.
        .filter(|source| source.path != PRINTER && !source.path.contains("/tests"))
        .filter_map(|source| {
            let call = printing_calls(&source.text).into_iter().next()?;
            Some(format!("{}: {call}! (only {PRINTER} prints)", source.path))
        })
        .collect();
    none("printing", &broken);
}

#[test]
fn every_file_opens_with_a_sentence() {
    let broken: Vec<String> = ["src", "tests", "benches"]
        .into_iter()
        .flat_map(sources)
        .filter(|source| !opens_with_a_sentence(&source.text))
        .map(|source| format!("{}: no `//!` sentence at the top", source.path))
        .collect();
    none("files without an opening sentence", &broken);
}

#[test]
fn every_gateway_in_a_test_is_listened_to() {
    let starts = |source: &Source| -> usize {
        STARTS.iter().map(|start| source.text.matches(start).count()).sum()
    };
    let files = sources("tests").into_iter().map(|source| (starts(&source), source.path));
    let found: BTreeSet<String> = files
        .filter(|(count, path)| *count > 0 && path != "house.rs")
        .map(|(count, path)| format!("{path}: {count}"))
        .collect();
    let known: BTreeSet<String> =
        GATEWAYS.iter().map(|(path, count, _)| format!("{path}: {count}")).collect();
    let broken: Vec<String> = found.symmetric_difference(&known).cloned().collect();
    none("gateways started past `OurGateway` and not in the list, or the other way round", &broken);
}

#[test]
fn names_say_what_a_thing_is() {
    let mut broken = Vec::new();
    for source in sources("src") {
        let path = Path::new(&source.path).with_extension("");
        let names = path.iter().filter_map(|name| name.to_str());
        for name in names.filter(|name| EMPTY_NAMES.contains(name)) {
            broken.push(format!("{}: `{name}` names nothing", source.path));
        }
        for name in functions(&source.text) {
            if EMPTY_VERBS.iter().any(|verb| name.starts_with(verb)) {
                broken.push(format!("{}: fn {name}", source.path));
            }
        }
    }
    none("empty names", &broken);
}

#[test]
fn every_security_rule_names_tests_that_are_there() {
    let page = fs::read_to_string("docs/contributing.md").expect("the page");
    let section = page.split("## Security rules and their tests").nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let files = ["src", "tests"].into_iter().flat_map(sources);
    let known: BTreeSet<String> = files.flat_map(|source| functions(&source.text)).collect();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let mut broken = Vec::new();
    for row in &rows {
        let tests = row.split('|').nth(2).unwrap_or_default();
        let names: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            broken.push(format!("no test: {row}"));
        }
        let gone = names.into_iter().filter(|name| !known.contains(*name));
        broken.extend(gone.map(|name| format!("there is no test called {name}")));
    }
    assert!(rows.len() > 20, "the table is read");
    none("rules without their tests", &broken);
}

#[test]
fn the_reader_sees_uses_however_they_are_written() {
    let used = |text: &str, depth| parts_used(text, depth).into_iter().collect::<Vec<_>>();
    assert_eq!(used("use crate::config::Paths;", 1), ["config"]);
    assert_eq!(used("use crate::{\n  a::{b, c},\n  d,\n};", 2), ["a", "d"]);
    assert_eq!(used("fn f() { crate::ssh::dial() }", 1), ["ssh"]);
    assert_eq!(used("use super::config;", 1), ["config"]);
    assert_eq!(used("use super::{client, ssh::Dial as D};", 1), ["client", "ssh"]);
    assert_eq!(used("use super::Context;", 2), [""; 0]);
    assert_eq!(used("use super::super::gateway::run;", 2), ["gateway"]);
    assert_eq!(
        used("mod tests { use super::*; use super::super::ssh; } use super::cli;", 1),
        ["cli", "ssh"]
    );
    assert_eq!(used("// crate::ssh\n/* crate::a /* crate::b */ */ \"crate::c\"", 1), [""; 0]);
    assert_eq!(used("r#\"\" crate::c\"# '\"' crate::d '\\'' 'a", 1), ["d"]);
    assert_eq!(used("macro_rules! m { () => { $crate::config::X } }", 1), ["config"]);
}

#[test]
fn the_reader_sees_printing_names_and_openings() {
    assert_eq!(printing_calls("fn f() { println!(\"x\"); print (1); }"), ["println"]);
    assert_eq!(functions("pub(crate) async fn get_it() {} struct F(fn(u8));"), ["get_it"]);
    assert!(opens_with_a_sentence("//! What it is for.\nuse a;"));
    assert!(opens_with_a_sentence("//! What it is for,\n//! in two lines.\n\nuse a;"));
    assert!(!opens_with_a_sentence("//! No end\n"));
    assert!(!opens_with_a_sentence("use a;\n//! Late.\n"));
}

#[test]
fn the_table_names_every_part_once_and_only_parts() {
    let parts: Vec<&str> = MAY_USE.iter().map(|(part, _)| *part).chain(LEAVES.to_vec()).collect();
    let unique: BTreeSet<&str> = parts.iter().copied().collect();
    assert_eq!(unique.len(), parts.len(), "a part stands twice");
    for (part, used) in MAY_USE {
        for name in *used {
            assert!(unique.contains(name), "{part} may use {name}, which is no part");
        }
    }
    assert!(MAY_USE.iter().all(|(_, used)| !used.contains(&"cli")), "nobody uses cli");
}

/// One source file below a folder of the package.
struct Source {
    /// Relative to that folder, with `/`.
    path: String,
    text: String,
}

impl Source {
    /// The part that the file belongs to; `None` for `lib.rs` and `main.rs`.
    fn part(&self) -> Option<String> {
        let first = self.path.split('/').next()?;
        let part = first.strip_suffix(".rs").unwrap_or(first);
        (!matches!(part, "lib" | "main")).then(|| part.to_owned())
    }

    /// How many `super` lead from the file's module to the crate.
    fn depth(&self) -> usize {
        let steps = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") { steps - 1 } else { steps }
    }
}

/// Every Rust file below `folder`; none if there is no such folder.
fn sources(folder: &str) -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut files = Vec::new();
    let mut folders: Vec<PathBuf> = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.expect("reading a source folder").path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    let source = |path: PathBuf| Source {
        text: fs::read_to_string(&path).expect("reading a source file"),
        path: path.strip_prefix(&root).expect("below its root").display().to_string(),
    };
    files.into_iter().map(source).collect()
}

fn may_use(part: &str, used: &str) -> Result<(), String> {
    if part == used || LEAVES.contains(&used) {
        return Ok(());
    }
    if !MAY_USE.iter().any(|(name, _)| *name == used) {
        return Err(format!("{part} uses `{used}`, which is not in the table of parts"));
    }
    match MAY_USE.iter().find(|(name, _)| *name == part) {
        Some((_, allowed)) if allowed.contains(&used) => Ok(()),
        Some(_) => Err(format!("{part} may not use {used}")),
        None if LEAVES.contains(&part) => Err(format!("the leaf {part} may not use {used}")),
        None => Err(format!("`{part}` is not in the table of parts")),
    }
}

/// The parts that `text` names by `crate::…` or by as many `super` as lead to the crate.
fn parts_used(text: &str, depth: usize) -> BTreeSet<String> {
    let words = words(text);
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let mut used = BTreeSet::new();
    // For each open brace, whether it opens an inline module.
    let mut braces: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        match word(at) {
            "{" => braces.push(at >= 2 && word(at - 2) == "mod"),
            "}" => drop(braces.pop()),
            "crate" if word(at + 1) == "::" => collect_heads(&words, at + 2, &mut used),
            "super" => {
                let start = at;
                while word(at + 1) == "::" && word(at + 2) == "super" {
                    at += 2;
                }
                let climbed = (at - start) / 2 + 1;
                let inline = braces.iter().filter(|module| **module).count();
                if climbed == depth + inline && word(at + 1) == "::" {
                    collect_heads(&words, at + 2, &mut used);
                }
            }
            _ => {}
        }
        at += 1;
    }
    used
}

/// Adds the first name of the path at `at`, or of each path of the group there.
fn collect_heads(words: &[String], at: usize, used: &mut BTreeSet<String>) {
    let mut nested = 0;
    let mut head = true;
    for word in words.iter().skip(at) {
        match word.as_str() {
            "{" => {
                nested += 1;
                head = nested == 1;
            }
            "}" => nested -= 1,
            "," if nested == 1 => head = true,
            name if head => {
                used.insert(name.to_owned());
                head = false;
            }
            _ => {}
        }
        if nested == 0 {
            break;
        }
    }
}

fn printing_calls(text: &str) -> Vec<String> {
    let words = words(text);
    let calls = words.windows(2).filter(|pair| pair[1] == "!");
    calls.map(|pair| pair[0].clone()).filter(|name| PRINTING.contains(&name.as_str())).collect()
}

fn functions(text: &str) -> Vec<String> {
    let words = words(text);
    let named = words.windows(2).filter(|pair| pair[0] == "fn" && pair[1] != "(");
    named.map(|pair| pair[1].clone()).collect()
}

fn opens_with_a_sentence(text: &str) -> bool {
    let opening = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
    let paragraph: Vec<&str> = opening.take_while(|line| !line.is_empty()).collect();
    paragraph.last().is_some_and(|line| line.ends_with('.'))
}

/// Names, `::` and single punctuation marks, without comments, strings, characters and lifetimes.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest) {
            length
        } else if first == '"' || rest.starts_with("b\"") || rest.starts_with("c\"") {
            string(rest)
        } else if first == '\'' {
            quote(rest)
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            let name = &rest[..end.unwrap_or(rest.len())];
            words.push(name.to_owned());
            name.len()
        } else if rest.starts_with("::") {
            words.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                words.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    words
}

fn block_comment(text: &str) -> usize {
    let mut nested = 0;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            nested += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            nested -= 1;
            at += 2;
            if nested == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of the raw string that `text` begins with, if it does.
fn raw_string(text: &str) -> Option<usize> {
    let body = text.strip_prefix(['b', 'c']).unwrap_or(text).strip_prefix('r')?;
    let hashes = body.len() - body.trim_start_matches('#').len();
    let inner = body[hashes..].strip_prefix('"')?;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = inner.find(&close).map_or(inner.len(), |end| end + close.len());
    Some(text.len() - inner.len() + end)
}

fn string(text: &str) -> usize {
    let open = text.find('"').expect("a string begins with its quote");
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(open + 1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character such as `'"'` or `'\n'`, or of a lifetime's mark.
fn quote(text: &str) -> usize {
    let mut after = text.char_indices().skip(1);
    match (after.next(), after.next()) {
        (Some((_, '\\')), Some((escaped, c))) => {
            let from = escaped + c.len_utf8();
            text[from..].find('\'').map_or(text.len(), |end| from + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

fn none(what: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{what}:\n  {}", broken.join("\n  "));
}
