//! What the files say, over a table, against the real `ssh-keygen`, and after writing.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
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

pub(super) fn key(name: &str) -> Vec<u8> {
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

/// A small generator of numbers, the same on every machine.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len())]
    }
}

/// A line as people, programs and accidents write it.
fn any_line(dice: &mut Dice) -> String {
    let parts = [
        "a",
        "b",
        "a.example",
        "b.a.example",
        "*",
        "*.example",
        "?",
        "a*",
        "*.a.*",
        "[a]:2222",
        "[*]:2222",
        "[*.example]:22??",
        "A.Example",
        "10.0.0.1",
        "::1",
        "[::1]:2222",
        "!a",
        "!*.a.example",
        "![a]:2222",
        "!b*",
        "",
    ];
    let count = 1 + dice.roll(3);
    let mut hosts = (0..count).map(|_| dice.pick(&parts)).collect::<Vec<_>>().join(",");
    let blob = STANDARD.encode(key(dice.pick(&["a", "b", "c", "r"])));
    let kind = key_type(&STANDARD.decode(&blob).unwrap()).unwrap().to_owned();
    if dice.roll(4) == 0 {
        let name = dice.pick(&["a", "b", "a.example", "[a]:2222", "10.0.0.1"]);
        let salt = [dice.roll(256) as u8; 20];
        let whole = line(&Name::new(name, 22, None), &key("a"), Some(&salt));
        hosts = whole.split(' ').next().unwrap().to_owned();
    }
    let blank = dice.pick(&[" ", " ", " ", "\t", "  ", " \t "]);
    let mark = dice.pick(&["", "", "", "", "@revoked", "@cert-authority", "@other"]);
    // A tab there makes OpenSSH lose the line if a blank comes later; we read it.
    let mark = if mark.is_empty() { String::new() } else { format!("{mark} ") };
    let tail = dice.pick(&["", " comment", " # comment", "\r", " "]);
    match dice.roll(14) {
        0 => format!("# {hosts} {kind} {blob}"),
        1 => String::new(),
        2 => format!("{mark}{hosts}{blank}{kind}"),
        3 => format!("{mark}{hosts}{blank}ssh-dss{blank}{blob}"),
        4 => format!("{mark}{hosts}{blank}{kind}{blank}{}", blob.get(..30).unwrap()),
        5 => format!("  {hosts}{blank}{kind}{blank}{blob}{tail}"),
        _ => format!("{mark}{hosts}{blank}{kind}{blank}{blob}{tail}"),
    }
}

#[test]
fn finds_the_lines_that_ssh_keygen_finds() {
    if crate::ssh::tests::installed("ssh-keygen").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known_hosts");
    let names = [
        "a",
        "b",
        "c",
        "a.example",
        "b.a.example",
        "x.example",
        "[a]:2222",
        "[b]:2222",
        "[a.example]:2200",
        "10.0.0.1",
        "::1",
        "[::1]:2222",
        "[10.0.0.1]:22",
    ];
    for seed in 0..8 {
        let mut dice = Dice(seed);
        let text = (0..60).map(|_| any_line(&mut dice) + "\n").collect::<String>();
        fs::write(&path, &text).unwrap();
        let source = [Source { path: path.clone(), text }];
        for name in names {
            let output = std::process::Command::new("ssh-keygen")
                .args(["-l", "-F", name, "-f"])
                .arg(&path)
                .output()
                .unwrap();
            let told = String::from_utf8(output.stdout).unwrap();
            let theirs: Vec<String> = told
                .lines()
                .filter_map(|line| line.strip_prefix(&format!("# Host {name} found: line ")))
                .map(|rest| rest.trim().to_owned())
                .collect();
            let ours: Vec<String> = keys_on_file(&source, name)
                .iter()
                .map(|known| {
                    let line = source[0].text.lines().nth(known.entry.line - 1).unwrap().trim();
                    let mark = match line.split_whitespace().next() {
                        Some("@revoked") => " REVOKED",
                        Some("@cert-authority") => " CA",
                        _ => "",
                    };
                    format!("{}{mark}", known.entry.line)
                })
                .collect();
            assert_eq!(ours, theirs, "seed {seed}, {name}\n{}{told}", source[0].text);
        }
    }
}

fn text_line(mark: &str, hosts: &str, name: &str) -> String {
    let public = fs::read_to_string(fixture(&format!("key-{name}.pub"))).unwrap();
    let words: Vec<&str> = public.split_whitespace().take(2).collect();
    format!("{mark}{hosts} {}\n", words.join(" "))
}

fn source(text: &str) -> [Source; 1] {
    [Source { path: "known".into(), text: text.to_owned() }]
}

#[test]
fn a_revocation_that_cannot_be_read_stops_everything_it_may_mean() {
    let known = text_line("", "box.example", "a");
    let name = Name::new("box.example", 22, None);
    let whole = text_line("@revoked ", "box.example", "b");
    let cut = whole.trim_end().get(..whole.len() - 5).unwrap();
    for bad in [
        "@revoked",
        "@revoked box.example",
        "@revoked * ssh-ed25519",
        "@revoked * ssh-ed25519 AAAA",
        "@REVOKED *.example ssh-ed25519 !",
        "  @revoked\tbox.example ssh-rsa AAAA # gone",
        cut,
    ] {
        let verdict = decide(&source(&format!("{known}{bad}\n")), &name, &key("a"));
        let expected = Verdict::Unreadable { path: "known".into(), line: 2 };
        assert_eq!(verdict, expected, "{bad}");
    }
    for other in ["@revoked other.example nonsense", "@revokd * nonsense", "# @revoked"] {
        let verdict = decide(&source(&format!("{known}{other}\n")), &name, &key("a"));
        assert!(matches!(verdict, Verdict::Known(_)), "{other} {verdict:?}");
    }
    // One that can be read and is meant comes first.
    let both = format!("@revoked\n{}", text_line("@revoked ", "*", "a"));
    assert!(matches!(decide(&source(&both), &name, &key("a")), Verdict::Revoked(_)));
}

#[test]
fn a_revocation_counts_in_every_file_under_both_names_and_in_any_letters() {
    let name = Name::new("box.example", 2222, None);
    let known = text_line("", "[box.example]:2222", "a");
    for revoked in [
        text_line("@revoked ", "box.example", "a"),
        text_line("@revoked ", "[box.example]:2222", "a"),
        text_line("@Revoked ", "*", "a"),
        text_line("@revoked\t", "*", "a").replace('\n', " comment\n"),
    ] {
        for order in [[&known, &revoked], [&revoked, &known]] {
            let files: Vec<Source> = order.iter().flat_map(|text| source(text)).collect();
            let verdict = decide(&files, &name, &key("a"));
            assert!(matches!(verdict, Verdict::Revoked(_)), "{revoked} {verdict:?}");
        }
    }
}

#[test]
fn a_change_leaves_every_other_line_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("known_hosts");
    let name = Name::new("box.example", 22, None);
    let old = text_line("", "box.example", "b");
    let kept = [
        "# comment\r\n".to_owned(),
        text_line("", "*.example", "b"),
        text_line("", "box.example,other.example", "b"),
        text_line("@revoked ", "box.example", "c"),
        text_line("@cert-authority ", "box.example", "b"),
        text_line("", "other.example", "b"),
        "\u{fffd}\n".to_owned(),
    ];
    let hidden = line(&name, &key("b"), Some(&[3; 20])) + "\n";
    let gone = text_line("", "BOX.example,10.0.0.1", "b");
    let before = [&[old][..], &kept[..4], &[hidden], &kept[4..], &[gone]].concat().concat();
    let known = text_line("", "box.example", "a");
    fs::write(&path, format!("{before}{}", known.trim_end())).unwrap();
    let wanted = Change { add: vec![key("a"), key("r")], remove: vec![key("b")], hash: false };
    change(&path, &name, &wanted).unwrap();
    let expected = format!("{}{known}{}\n", kept.concat(), line(&name, &key("r"), None));
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    let stamp = fs::metadata(&path).unwrap().modified().unwrap();
    change(&path, &name, &wanted).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().modified().unwrap(), stamp, "nothing left to do");
}

/// Why the line reader is our own.
#[test]
fn the_reader_of_the_library_loses_lines_that_ssh_reads() {
    use russh::keys::ssh_key::known_hosts::Entry as Theirs;
    let plain = text_line("", "box.example", "a");
    assert!(plain.parse::<Theirs>().is_ok());
    let name = Name::new("box.example", 22, None);
    for written in [
        plain.replace("box.example ", "box.example  "),
        plain.replace(' ', "\t"),
        format!("  {plain}"),
        text_line("@revoked  ", "box.example", "a"),
    ] {
        assert!(written.parse::<Theirs>().is_err(), "{written}");
        assert_eq!(keys_on_file(&source(&written), &name.text()).len(), 1, "{written}");
    }
}

#[test]
fn a_pipe_in_place_of_a_file_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(read(&pipe).is_err());
    assert!(read(folder.path()).is_err());
    assert_eq!(read(Path::new("/dev/null")).unwrap().text, "");
}

#[test]
fn writing_keeps_the_owner_and_a_link_to_what_is_not_there_yet() {
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("file"), folder.path().join("link"));
    std::os::unix::fs::symlink("file", &link).unwrap();
    let name = Name::new("box.example", 22, None);
    record(&link, &name, &key("a"), false).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink() && file.exists());
    if !nix::unistd::Uid::current().is_root() {
        return;
    }
    std::os::unix::fs::chown(&file, Some(12345), Some(54321)).unwrap();
    record(&file, &Name::new("other.example", 22, None), &key("a"), false).unwrap();
    let found = fs::metadata(&file).unwrap();
    assert_eq!((found.uid(), found.gid()), (12345, 54321));
}
