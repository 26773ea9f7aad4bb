//! The criteria of a `Match` line. Pure.

use super::pattern::{self, Network};

/// The version that `Match version` sees: the OpenSSH whose manual we follow.
const VERSION: &str = "OpenSSH_10.0";
/// What `Match sessiontype` sees: a tunnel is what `ssh -N` is.
const SESSION: &str = "none";

/// One criterion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Criterion {
    All,
    Final,
    Canonical,
    Host(String),
    OriginalHost(String),
    User(String),
    LocalUser(String),
    LocalNetwork(Vec<Network>),
    /// A word that patterns judge; an empty one matches only an empty pattern.
    Word {
        patterns: String,
        /// The word; `None` for that of `Tag`.
        is: Option<&'static str>,
    },
    Exec(String),
}

/// A criterion, perhaps with `!` in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) criterion: Criterion,
    pub(super) negated: bool,
}

/// The criteria of a `Match` line; the error says what is wrong with it.
pub(super) fn parse(words: &[String]) -> Result<Vec<Test>, String> {
    let mut tests: Vec<Test> = Vec::new();
    let mut rest = words.iter();
    while let Some(word) = rest.next() {
        let (negated, word) = match word.strip_prefix('!') {
            Some(word) => (true, word),
            None => (false, word.as_str()),
        };
        let (name, joined) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let name = name.to_ascii_lowercase();
        let criterion = match (name.as_str(), joined) {
            ("all", None) => {
                if tests.len() > 1 || rest.next().is_some() {
                    return Err("`all` must stand alone, or after `canonical` or `final`".into());
                }
                Criterion::All
            }
            ("final", None) => Criterion::Final,
            ("canonical", None) => Criterion::Canonical,
            _ => valued(&name, joined.or_else(|| rest.next().map(String::as_str)))?,
        };
        tests.push(Test { criterion, negated });
    }
    if tests.is_empty() { Err("needs a criterion".to_owned()) } else { Ok(tests) }
}

fn valued(name: &str, value: Option<&str>) -> Result<Criterion, String> {
    let may_be_empty = ["tagged", "command"].contains(&name);
    let value = value
        .filter(|value| may_be_empty || !value.is_empty())
        .map(str::to_owned)
        .ok_or_else(|| format!("the criterion `{}` has no value", name.escape_debug()));
    let word = |is| value.clone().map(|patterns| Criterion::Word { patterns, is });
    match name {
        "host" => value.map(Criterion::Host),
        "originalhost" => value.map(Criterion::OriginalHost),
        "user" => value.map(Criterion::User),
        "localuser" => value.map(Criterion::LocalUser),
        "localnetwork" => {
            value.and_then(|text| pattern::networks(&text)).map(Criterion::LocalNetwork)
        }
        "tagged" => word(None),
        "command" => word(Some("")),
        "version" => word(Some(VERSION)),
        "sessiontype" => word(Some(SESSION)),
        "exec" => value.map(Criterion::Exec),
        _ => Err(format!("`{}` is no criterion", name.escape_debug())),
    }
}
