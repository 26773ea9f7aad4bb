//! Commands of OpenClaw that this program does not have, and another `openclaw` that may have them.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use crate::problem::{Class, Problem, shell_word};

/// Commands of OpenClaw 2026.9.6, those of its plugins too.
#[rustfmt::skip]
pub(super) const COMMANDS: &[&str] = &[
    "acp", "agent", "agents", "approvals", "attach", "audit", "automations", "backup", "browser",
    "capability", "channels", "chat", "clawbot", "claws", "completion", "configure", "connect",
    "cron", "daemon", "dashboard", "database", "directory", "dns", "docs", "exec-policy",
    "file-transfer", "fleet", "hooks", "infer", "mcp", "memory", "message", "migrate", "models",
    "node", "onboard", "path", "plugins", "policy", "promos", "proxy", "qr", "reset", "resume",
    "sandbox", "secrets", "security", "sessions", "setup", "skills", "system", "tasks", "terminal",
    "transcripts", "triage", "tui", "uninstall", "update", "voicecall", "webhooks", "wiki",
    "workboard", "worker", "worktrees",
];
/// The same below the commands that we have.
pub(super) const BELOW: &[(&str, &[&str])] = &[
    ("config", &["patch", "schema"]),
    (
        "gateway",
        &[
            "agent",
            "diagnostics",
            "discover",
            "resume",
            "send",
            "stability",
            "suspend",
            "usage-cost",
        ],
    ),
    ("nodes", &["camera", "canvas", "location", "notify", "push", "screen"]),
];
/// Parts of the names of flags that take a secret.
const SECRET_FLAGS: [&str; 8] =
    ["token", "password", "passphrase", "secret", "key", "credential", "auth", "cookie"];

/// The first of `words`, which is no command here, with what was typed behind it.
pub(super) fn command(words: &[OsString], profile: Option<&str>) -> Problem {
    let word = words.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    let message = if COMMANDS.contains(&word.as_str()) {
        of_openclaw(&word)
    } else {
        format!("no command `{word}` here")
    };
    let profile = profile.map(|name| [OsString::from("--profile"), OsString::from(name)]);
    let words: Vec<OsString> = profile.into_iter().flatten().chain(words.iter().cloned()).collect();
    let connect = "openclaw remote connect user@host, to reach a gateway on another machine";
    let here = if word == "connect" { connect } else { "openclaw --help" };
    pointed(message, other_openclaw().as_deref(), &words, here)
}

/// The same of a `word` below the command `group` that we have, with all the `words` of the command
/// line; `None` if OpenClaw has no such command either.
pub(super) fn below(group: &str, word: &str, words: &[OsString]) -> Option<Problem> {
    let (_, known) = BELOW.iter().find(|(name, _)| *name == group)?;
    let message = known.contains(&word).then(|| of_openclaw(&format!("{group} {word}")))?;
    let here = format!("openclaw {group} --help");
    Some(pointed(message, other_openclaw().as_deref(), words, &here))
}

fn of_openclaw(command: &str) -> String {
    format!("`{command}` is a command of OpenClaw that this program does not have")
}

/// The problem with the same words for the `other` program, or else what to type `here`.
fn pointed(message: String, other: Option<&Path>, words: &[OsString], here: &str) -> Problem {
    let fix = other.map_or_else(|| here.to_owned(), |program| typed(program, words));
    Problem::new(Class::Usage, message).fix(fix)
}

/// The words as a shell takes them, up to the first that may hold or announce a secret.
fn typed(program: &Path, words: &[OsString]) -> String {
    let program = program.to_string_lossy();
    let words = words.iter().map(|word| word.to_string_lossy());
    let words = words.take_while(|word| !takes_secret(word)).map(|word| shell_word(&word));
    std::iter::once(shell_word(&program)).chain(words).collect::<Vec<_>>().join(" ")
}

fn takes_secret(word: &str) -> bool {
    // Settings as JSON, and addresses with a user or a query.
    let is_address = word.contains("://") && word.contains(['@', '?']);
    if is_address || word.contains('{') {
        return true;
    }
    let name = word.split_once('=').map_or(word, |(name, _)| name).to_ascii_lowercase();
    name.starts_with("--")
        && !name.ends_with("-file")
        && SECRET_FLAGS.iter().any(|secret| name.contains(secret))
}

/// The first `openclaw` on the PATH that is not this program.
fn other_openclaw() -> Option<PathBuf> {
    let own = std::env::current_exe().and_then(|path| path.canonicalize()).ok()?;
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join("openclaw"))
        .filter(|path| path.is_file())
        .find(|path| path.canonicalize().is_ok_and(|path| path != own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn another_program_gets_every_word_but_secrets() {
        for (given, expected) in [
            (vec!["agent", "-m", "hi there"], "/o/openclaw agent -m 'hi there'"),
            (vec!["tui", "--token", "t", "--json"], "/o/openclaw tui"),
            (vec!["tui", "--json", "--password=p"], "/o/openclaw tui --json"),
            (vec!["tui", "--token-file", "f"], "/o/openclaw tui --token-file f"),
            (vec!["channels", "add", "--bot-token", "t"], "/o/openclaw channels add"),
            (vec!["channels", "add", "--private-key", "k"], "/o/openclaw channels add"),
            (vec!["mcp", "set", "x", r#"{"headers":{}}"#], "/o/openclaw mcp set x"),
            (vec!["acp", "--url", "ws://u:p@h"], "/o/openclaw acp --url"),
        ] {
            assert_eq!(typed(Path::new("/o/openclaw"), &words(&given)), expected);
        }
        let problem = pointed("m".to_owned(), None, &words(&["agent"]), "openclaw --help");
        assert_eq!(problem.fix.as_deref(), Some("openclaw --help"));
    }

    #[test]
    fn what_openclaw_has_is_told_from_what_nobody_has() {
        let told = |line: &[&str]| command(&words(line), None).message;
        let of_openclaw = "`agent` is a command of OpenClaw that this program does not have";
        assert_eq!(told(&["agent", "-m", "hi"]), of_openclaw);
        assert_eq!(told(&["remot"]), "no command `remot` here");
        let below = |group, word| below(group, word, &[]).map(|problem| problem.message);
        assert!(below("config", "patch").unwrap().starts_with("`config patch` is"));
        assert_eq!(below("config", "agent"), None);
        assert_eq!(below("remote", "patch"), None);
    }
}
