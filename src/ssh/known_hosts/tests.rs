//! What the files say, over a table, against the real `ssh-keygen`, and after writing.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    thread,
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::*;

/// Blank-separated columns of a table in `fixtures/known_hosts`, without comments.
fn table(name: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(fixture(name)).unwrap();
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/known_hosts").join(name)
}

fn key(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(fixture(&format!("key-{name}.pub"))).unwrap();
    STANDARD.decode(text.split_whitespace().nth(1).unwrap()).unwrap()
}

fn sources(names: &str) -> Vec<Source> {
    names.split(',').map(|name| read(&fixture(name)).unwrap()).collect()
}

fn shown(verdict: &Verdict) -> String {
    let place =
        |entry: &Entry| format!(" {}:{}", entry.path.file_name().unwrap().display(), entry.line);
    match verdict {
        Verdict::Known(_) => "known".to_owned(),
        Verdict::Unknown => "unknown".to_owned(),
        Verdict::Unreadable { path, line } => {
            format!("unreadable {}:{line}", path.file_name().unwrap().display())
        }
        Verdict::Authority(entry) => format!("authority{}", place(entry)),
        Verdict::Revoked(entry) => format!("revoked{}", place(entry)),
        Verdict::Changed(others) => {
            format!("changed{}", others.iter().map(place).collect::<String>())
        }
    }
}

#[test]
fn decides_as_the_table_says() {
    let rows = table("verdicts.txt");
    assert!(rows.len() > 50);
    for row in rows {
        let [files, host, port, key_name, expected @ ..] = row.as_slice() else {
            panic!("{row:?}");
        };
        let name = Name::new(host, port.parse().unwrap(), None);
        let verdict = decide(&sources(files), &name, &key(key_name));
        assert_eq!(shown(&verdict), expected.join(" "), "{row:?}");
    }
}

#[test]
fn an_alias_has_no_port_and_no_fall_back() {
    let name = Name::new("10.9.9.9", 2222, Some("Box.Example"));
    assert_eq!(name.text(), "box.example");
    assert!(matches!(decide(&sources("plain"), &name, &key("a")), Verdict::Known(_)));
}

#[test]
fn asks_for_the_keys_on_file_first() {
    let cases = [
        ("two.example", 22, vec!["ssh-ed25519", "ecdsa-sha2-nistp256"]),
        ("rsa.example", 22, vec!["ssh-rsa"]),
        ("portless.example", 2222, vec!["ssh-ed25519"]),
        ("nowhere.example", 22, vec![]),
    ];
    for (host, port, expected) in cases {
        let name = Name::new(host, port, None);
        assert_eq!(on_file(&sources("plain"), &name).keys, expected, "{host}");
    }
}

#[test]
fn what_is_written_is_found_again() {
    let name = Name::new("new.example", 2222, None);
    for salt in [None, Some([7; 20])] {
        let line = line(&name, &key("c"), salt.as_ref().map(<[u8; 20]>::as_slice));
        assert_eq!(line.contains("new.example"), salt.is_none());
        let source = Source { path: "x".into(), text: line };
        assert!(matches!(decide(&[source], &name, &key("c")), Verdict::Known(_)));
    }
}

#[test]
fn records_once_keeping_the_file_its_mode_and_the_link_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let (real, link) = (folder.path().join("real"), folder.path().join("link"));
    fs::write(&real, "# mine").unwrap();
    fs::set_permissions(&real, fs::Permissions::from_mode(0o644)).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let name = Name::new("new.example", 22, None);
    for _ in 0..2 {
        record(&link, &name, &key("a"), false).unwrap();
    }
    let line = line(&name, &key("a"), None);
    assert_eq!(fs::read_to_string(&real).unwrap(), format!("# mine\n{line}\n"));
    assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o644);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
}

#[test]
fn records_into_a_new_private_file_in_a_new_private_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ssh/known_hosts");
    record(&path, &Name::new("new.example", 22, None), &key("a"), true).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing left over");
}

#[test]
fn two_writers_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known_hosts");
    thread::scope(|scope| {
        for number in 0..16 {
            let path = &path;
            scope.spawn(move || {
                let name = Name::new(&format!("host{number}"), 22, None);
                record(path, &name, &key("a"), false).unwrap();
            });
        }
    });
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 16);
}

#[test]
fn writes_nothing_where_no_file_can_be() {
    record(Path::new("/dev/null"), &Name::new("a", 22, None), &key("a"), false).unwrap();
    assert!(read(Path::new("/nonexistent/known_hosts")).unwrap().text.is_empty());
    assert!(read(Path::new("/")).is_err());
}
