//! The matcher as a fuzz target: whatever stands in a file, only the very key lets a host in.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{tests::key, *};
use crate::fuzz;

const HOSTS: [(&str, u16); 5] = [
    ("box.example", 22),
    ("box.example", 2222),
    ("a.wild.example", 22),
    ("::1", 2222),
    ("10.0.0.7", 22),
];

#[test]
fn a_key_is_known_only_where_its_very_bytes_stand_in_an_unmarked_line() {
    fuzz::survives(&["known_hosts"], |bytes| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let source = Source { path: "known".into(), text };
        for (host, port) in HOSTS {
            let name = Name::new(host, port, None);
            for shown in ["a", "b", "c", "r"].map(key) {
                holds(&source, &name, &shown);
            }
        }
    });
}

fn holds(source: &Source, name: &Name, shown: &[u8]) {
    let files = std::slice::from_ref(source);
    let blob = STANDARD.encode(shown);
    let line_of = |entry: &Entry| source.text.lines().nth(entry.line - 1).unwrap().trim();
    match decide(files, name, shown) {
        Verdict::Known(entry) => {
            let words: Vec<&str> = line_of(&entry).split_ascii_whitespace().collect();
            assert_eq!(words[2], blob);
            assert!(!words[0].starts_with(['@', '#']), "{words:?}");
            assert_eq!(entry.fingerprint, fingerprint(shown));
        }
        Verdict::Changed(others) => {
            assert!(!others.is_empty());
            assert!(others.iter().all(|entry| entry.fingerprint != fingerprint(shown)));
        }
        Verdict::Revoked(entry) => assert!(line_of(&entry).contains(&blob)),
        Verdict::Unreadable { line, .. } => {
            let line = source.text.lines().nth(line - 1).unwrap().to_ascii_lowercase();
            assert!(line.trim().starts_with("@revoked"));
        }
        Verdict::Unknown | Verdict::Authority(_) => {}
    }
    // Nothing that stands in a file hides a revocation.
    let gone = format!("{}\n@revoked * {} {blob}\n", source.text, key_type(shown).unwrap());
    let gone = Source { path: "known".into(), text: gone };
    assert!(matches!(decide(&[gone], name, shown), Verdict::Revoked(_)));
}
