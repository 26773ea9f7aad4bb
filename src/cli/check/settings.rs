//! What the ssh configuration says of a hop, for the report and for `-G`. Pure.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::{Map, Value, json};

use super::report::{Kind, NotHonoured, Origin, Setting};
use crate::ssh::config;

/// Options that name a program to run: its arguments may hold secrets, and reports are pasted.
const COMMANDS: &[&str] = &["ProxyCommand"];

/// The keywords behind a step.
pub(super) fn keywords(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Name => &["HostName", "CanonicalizeHostname", "CanonicalDomains", "AddressFamily"],
        Kind::Connect => &[
            "Port",
            "ProxyJump",
            "ProxyCommand",
            "BindAddress",
            "BindInterface",
            "ConnectTimeout",
            "ConnectionAttempts",
            "TCPKeepAlive",
        ],
        Kind::Server => {
            &["KexAlgorithms", "Ciphers", "MACs", "HostKeyAlgorithms", "Compression", "RekeyLimit"]
        }
        Kind::HostKey => &[
            "StrictHostKeyChecking",
            "UserKnownHostsFile",
            "GlobalKnownHostsFile",
            "HostKeyAlias",
            "HashKnownHosts",
            "UpdateHostKeys",
            "CheckHostIP",
            "CASignatureAlgorithms",
            "RequiredRSASize",
        ],
        Kind::Login => &[
            "User",
            "IdentityFile",
            "IdentitiesOnly",
            "IdentityAgent",
            "AddKeysToAgent",
            "CertificateFile",
            "PubkeyAuthentication",
            "PubkeyAcceptedAlgorithms",
            "PasswordAuthentication",
            "KbdInteractiveAuthentication",
            "PreferredAuthentications",
            "NumberOfPasswordPrompts",
            "BatchMode",
        ],
        Kind::Resolve | Kind::Forward | Kind::Gateway | Kind::Secret | Kind::Forwards => &[],
    }
}

/// What somebody said about the steps, defaults apart.
pub(super) fn said(settings: &config::Settings) -> Vec<Setting> {
    let kinds =
        [Kind::Resolve, Kind::Name, Kind::Connect, Kind::Server, Kind::HostKey, Kind::Login];
    let all = kinds.into_iter().flat_map(keywords);
    all.flat_map(|keyword| {
        settings.all(keyword).iter().filter_map(|said| {
            let text = said.words.join(" ");
            let value = if COMMANDS.contains(keyword) { program(&text) } else { text };
            Some(Setting { keyword: (*keyword).to_owned(), value, origin: origin(&said.origin)? })
        })
    })
    .collect()
}

/// The program of a command, without its arguments.
fn program(command: &str) -> String {
    match command.trim().split_once(char::is_whitespace) {
        Some((program, _)) => format!("{program} …"),
        None => command.trim().to_owned(),
    }
}

/// Where a value was said; `None` for a default.
fn origin(origin: &config::Origin) -> Option<Origin> {
    match origin {
        config::Origin::CommandLine => Some(Origin::CommandLine),
        config::Origin::File { path, line } => {
            Some(Origin::File { path: path.clone(), line: *line })
        }
        config::Origin::Default => None,
    }
}

/// The ways to log in that the configuration does not allow, each with the reason.
pub(super) fn switched_off(settings: &config::Settings) -> Vec<(&'static str, String)> {
    let ways = [
        ("publickey", "PubkeyAuthentication"),
        ("keyboard-interactive", "KbdInteractiveAuthentication"),
        ("password", "PasswordAuthentication"),
    ];
    let preferred = settings.word("PreferredAuthentications").unwrap_or_default();
    let at = |keyword: &str| settings.origin(keyword).map(ToString::to_string).unwrap_or_default();
    let reason = |(method, keyword): (&'static str, &str)| {
        if settings.word(keyword) == Some("no") {
            return Some((method, format!("{keyword} is no, {}", at(keyword))));
        }
        let keyword = "PreferredAuthentications";
        let is_left_out = !preferred.is_empty() && !preferred.split(',').any(|it| it == method);
        is_left_out.then(|| (method, format!("not in {keyword}, {}", at(keyword))))
    };
    ways.into_iter().filter_map(reason).collect()
}

/// What is on file for any hop and has no effect, each line once.
pub(super) fn not_honoured<'a>(
    hops: impl Iterator<Item = &'a config::Settings>,
) -> Vec<NotHonoured> {
    let mut all: Vec<NotHonoured> = Vec::new();
    for note in hops.flat_map(config::Settings::notes) {
        let Some(origin) = origin(&note.origin) else { continue };
        let reason = note.reason.to_owned();
        let note = NotHonoured { keyword: note.keyword.clone(), origin, reason };
        if !all.contains(&note) {
            all.push(note);
        }
    }
    all
}

/// Which files say how much about the hops.
pub(super) fn files<'a>(
    hops: impl Iterator<Item = &'a config::Settings>,
) -> BTreeMap<PathBuf, usize> {
    let mut files = BTreeMap::new();
    for settings in hops {
        for (_, _, origin) in dumped(settings) {
            if let config::Origin::File { path, .. } = origin {
                *files.entry(path).or_default() += 1;
            }
        }
    }
    files
}

/// The files in a few words.
pub(super) fn in_words(files: &BTreeMap<PathBuf, usize>) -> String {
    if files.is_empty() {
        return "the ssh configuration files say nothing about it".to_owned();
    }
    let texts: Vec<String> = files
        .iter()
        .map(|(path, count)| {
            let values = if *count == 1 { "value" } else { "values" };
            format!("{count} {values} from {}", path.display())
        })
        .collect();
    texts.join(", ")
}

/// The settings as `-G --json` prints them: a list of values for each keyword.
pub(super) fn json(settings: &config::Settings) -> Value {
    let mut keywords: Map<String, Value> = Map::new();
    for (keyword, value, at) in dumped(settings) {
        let origin = origin(&at).map_or_else(|| json!({"kind": "default"}), |at| at.json());
        let values = keywords.entry(keyword).or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(json!({"value": value, "origin": origin}));
        }
    }
    Value::Object(keywords)
}

/// Each line of `-G` with where its value was said.
fn dumped(settings: &config::Settings) -> Vec<(String, String, config::Origin)> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let text = settings.dump();
    let lines = text.lines().map(|line| line.split_once(' ').unwrap_or((line, "")));
    lines
        .map(|(keyword, value)| {
            let index = seen.entry(keyword.to_owned()).or_default();
            let all = settings.all(keyword);
            // Some keywords have one value on several lines.
            let said = all.get(*index).or(all.first());
            *index += 1;
            let origin = match (keyword, said) {
                ("host", _) => config::Origin::CommandLine,
                (_, Some(said)) => said.origin.clone(),
                (_, None) => config::Origin::Default,
            };
            (keyword.to_owned(), value.to_owned(), origin)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, path::Path};

    use super::*;

    /// What `text` and the options say of the host `box`.
    fn settings(file: &Path, text: &str, options: &[(&str, &str)]) -> config::Settings {
        fs::write(file, text).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
        let options: Vec<(String, String)> =
            options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        let request = config::Request {
            host: "box",
            user: None,
            port: None,
            options: &options,
            file: Some(file),
        };
        config::resolve(&request, &config::Machine::default()).unwrap()
    }

    const TEXT: &str = "Host box\n  Port 2222\n  IdentityFile /a\n  IdentityFile /b\n  \
                        ProxyCommand nc --auth hunter2 %h %p\n  ControlMaster auto\n";

    #[test]
    fn each_value_has_its_line_and_defaults_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        let settings = settings(&file, TEXT, &[("ConnectTimeout", "5")]);
        let at = |line| Origin::File { path: file.clone(), line };
        let found: Vec<_> =
            said(&settings).into_iter().map(|it| (it.keyword, it.value, it.origin)).collect();
        let expected = [
            ("Port", "2222", at(2)),
            ("ProxyCommand", "nc …", at(5)),
            ("ConnectTimeout", "5", Origin::CommandLine),
            ("IdentityFile", "/a", at(3)),
            ("IdentityFile", "/b", at(4)),
        ];
        let expected: Vec<_> =
            expected.map(|(keyword, value, at)| (keyword.to_owned(), value.to_owned(), at)).into();
        assert_eq!(found, expected);
        let text = in_words(&files([&settings].into_iter()));
        assert_eq!(text, format!("5 values from {}", file.display()));
    }

    #[test]
    fn a_way_that_is_switched_off_says_where() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        let text = "PasswordAuthentication no\nPreferredAuthentications publickey,password\n";
        let off = switched_off(&settings(&file, text, &[]));
        let at = |line| format!("{} line {line}", file.display());
        let expected = [
            ("keyboard-interactive", format!("not in PreferredAuthentications, {}", at(2))),
            ("password", format!("PasswordAuthentication is no, {}", at(1))),
        ];
        assert_eq!(off, expected);
        assert_eq!(switched_off(&settings(&file, "", &[])), []);
    }

    #[test]
    fn what_has_no_effect_is_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        let settings = settings(&file, TEXT, &[]);
        let notes = not_honoured([&settings, &settings].into_iter());
        let [note] = notes.as_slice() else { panic!("{notes:?}") };
        assert_eq!(note.keyword, "ControlMaster");
        assert_eq!(note.origin, Origin::File { path: file, line: 6 });
        assert!(!note.reason.is_empty());
    }

    #[test]
    fn scripts_get_every_keyword_with_its_values_and_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        let settings = settings(&file, TEXT, &[("User", "me")]);
        let value = json(&settings);
        let at = |line| json!({"kind": "file", "path": file, "line": line});
        assert_eq!(value["port"], json!([{"value": "2222", "origin": at(2)}]));
        assert_eq!(
            value["identityfile"],
            json!([{"value": "/a", "origin": at(3)}, {"value": "/b", "origin": at(4)}])
        );
        let typed = json!([{"value": "me", "origin": {"kind": "command_line"}}]);
        assert_eq!(value["user"], typed);
        assert_eq!(value["compression"][0]["origin"]["kind"], "default");
        let lines = settings.dump().lines().count();
        let values = value.as_object().unwrap().values();
        assert_eq!(values.map(|all| all.as_array().unwrap().len()).sum::<usize>(), lines);
    }
}
