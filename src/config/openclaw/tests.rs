//! What is read from `openclaw.json`, and what is said about a wrong one.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

use super::{
    walk::{ASKED, substitute},
    *,
};
use crate::config::keys::{Form, KEYS, is_section};

fn environment(name: &str) -> Option<String> {
    match name {
        "TOKEN" => Some("from-env".to_owned()),
        "PORT" => Some("19001".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<OpenClaw, Problem> {
    let file = Path::new("openclaw.json");
    let find = |_: &Path, name: &str| Err(format!("cannot read {name}"));
    Review::of(text, file, &World { variable: &environment, find: &find }).checked(file)
}

fn text_of(input: Option<&SecretInput>) -> String {
    input.unwrap().resolve().unwrap().expose().to_owned()
}

#[test]
fn reads_the_samples_of_every_release() {
    let full = parse(include_str!("../../../fixtures/openclaw/full.json5")).unwrap().gateway;
    assert_eq!(full.mode, Some(Mode::Remote));
    assert_eq!(full.port, Some(18789));
    assert_eq!(full.bind, Some(Bind::Custom));
    assert_eq!(full.custom_bind_host.as_deref(), Some("192.168.1.7"));
    assert_eq!(full.auth.mode, Some(AuthMode::Token));
    assert_eq!(text_of(full.auth.token.as_ref()), "local-token");
    assert_eq!(text_of(full.remote.token.as_ref()), "from-env");
    assert_eq!(full.remote.transport, Some(Transport::Ssh));
    assert_eq!(full.remote.ssh_target.as_deref(), Some("me@vps:2222"));
    assert_eq!(full.remote.remote_port, Some(18790));
    assert_eq!(full.remote.ssh_host_key_policy, Some(HostKeyPolicy::Strict));
    assert_eq!(full.control_ui.allowed_origins, ["https://control.example.com"]);
    assert!(!full.tls.enabled);

    let minimal = parse(include_str!("../../../fixtures/openclaw/minimal.json5")).unwrap();
    assert_eq!(minimal.gateway.port, Some(28911));
    parse("{}").unwrap();
}

#[test]
fn the_reader_asks_for_every_key_of_the_table_and_for_no_other() {
    let mut text = serde_json::json!({});
    for key in KEYS {
        let sections = key.path.rsplit_once('.').map_or("", |(sections, _)| sections);
        let mut place = &mut text;
        for step in sections.split('.').filter(|step| !step.is_empty()) {
            place =
                place.as_object_mut().unwrap().entry(step).or_insert_with(|| serde_json::json!({}));
        }
    }
    ASKED.with_borrow_mut(BTreeSet::clear);
    parse(&text.to_string()).unwrap();
    let asked = ASKED.with_borrow(Clone::clone);
    let table: BTreeSet<_> = KEYS.iter().map(|key| key.path.to_owned()).collect();
    let unread: Vec<_> = table.difference(&asked).collect();
    // Whole sections that the walk does not enter.
    assert_eq!(unread, ["agents", "env", "models", "session"]);
    let untold: Vec<_> = asked.difference(&table).filter(|path| !is_section(path)).collect();
    assert!(untold.is_empty(), "{untold:?}");
}

#[test]
fn every_key_of_the_table_is_of_the_kind_that_the_reader_takes() {
    for key in KEYS {
        let (right, wrong) = match key.form {
            Form::Text => (serde_json::json!("x"), serde_json::json!(1)),
            Form::Choice(words) => (words.last().copied().into(), "moon".into()),
            Form::Flag => (true.into(), "yes".into()),
            Form::Port => (1.into(), 0.into()),
            Form::Number(least, most) => (least.into(), (most + 1).into()),
            Form::Texts => (serde_json::json!(["10.0.0.1"]), "10.0.0.1".into()),
            Form::Secret => ("x".into(), 1.into()),
            Form::Any => continue,
        };
        let with = |value: Value| {
            let steps = key.path.rsplit('.');
            steps.fold(value, |value, step| serde_json::json!({ step: value })).to_string()
        };
        parse(&with(right)).unwrap();
        let problem = parse(&with(wrong)).unwrap_err();
        assert!(problem.message.contains(key.path), "{}", problem.message);
    }
}

#[test]
fn tells_every_problem_with_its_path() {
    let problem = parse(include_str!("../../../fixtures/openclaw/problems.json5")).unwrap_err();
    assert_eq!(problem.class, Class::Config);
    let golden = include_str!("../../../fixtures/openclaw/problems.txt");
    assert_eq!(problem.message.trim_end(), golden.trim_end());
}

#[test]
fn tells_where_the_syntax_breaks() {
    let problem = parse("{\n  gateway: { port: 18789,, }\n}").unwrap_err();
    assert_eq!(problem.class, Class::Config);
    assert!(problem.message.contains("line 2 column"), "{}", problem.message);
}

#[test]
fn takes_variables_from_the_environment() {
    let cases = [
        ("plain", Ok("plain")),
        ("${TOKEN}", Ok("from-env")),
        ("a-${TOKEN}-b", Ok("a-from-env-b")),
        ("$${TOKEN}", Ok("${TOKEN}")),
        ("${lower}", Ok("${lower}")),
        ("${TOKEN", Ok("${TOKEN")),
        ("${MISSING}", Err("MISSING")),
    ];
    for (text, expected) in cases {
        let outcome = substitute(text, &environment);
        assert_eq!(outcome.as_deref().map_err(String::as_str), expected, "{text}");
    }
    assert_eq!(parse("{gateway: {port: '${PORT}'}}").unwrap().gateway.port, Some(19001));
    parse("{gateway: {port: '19001'}}").unwrap_err();
}

#[test]
fn a_secret_that_cannot_be_followed_is_a_problem_only_when_needed() {
    for text in [
        "{gateway: {auth: {token: '${MISSING}'}}}",
        "{gateway: {auth: {token: {source: 'exec', provider: 'vault', id: 'x'}}}}",
        "{gateway: {auth: {token: {source: 'env', provider: 'default', id: 'MISSING'}}}}",
    ] {
        let token = parse(text).unwrap().gateway.auth.token.unwrap();
        let problem = token.resolve().unwrap_err();
        assert_eq!(problem.class, Class::Config);
        assert!(problem.message.contains("gateway.auth.token"), "{}", problem.message);
    }
    let text = "{gateway: {auth: {token: {source: 'env', provider: 'default', id: 'TOKEN'}}}}";
    assert_eq!(text_of(parse(text).unwrap().gateway.auth.token.as_ref()), "from-env");
}

#[test]
fn never_shows_a_secret_of_the_wrong_kind() {
    let problem = parse("{gateway: {auth: {token: 123456789}}}").unwrap_err();
    assert!(!problem.message.contains("123456789"), "{}", problem.message);
}

#[test]
fn a_file_that_cannot_be_read_is_no_missing_file() {
    let folder = tempfile::tempdir().unwrap();
    assert!(read(&folder.path().join("openclaw.json")).unwrap().is_none());
    let problem = read(folder.path()).unwrap_err();
    assert_eq!(problem.class, Class::Config);
    let inside_a_file = folder.path().join("file");
    std::fs::write(&inside_a_file, "").unwrap();
    read(&inside_a_file.join("openclaw.json")).unwrap_err();
}
