//! How commands behave as parts of a shell: what they print where, and to whom.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::Value;

use crate::support::{Home, built, end_of, free_port, openclaw};

/// The program in a home, its standard error a pipe that nobody reads any more.
fn unheard(home: &Home, words: &[&str]) -> Command {
    let mut command = Command::new(built());
    home.furnish(&mut command);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(writer);
    command
}

#[test]
fn an_unread_complaint_changes_no_exit_code() {
    let home = Home::new();
    for words in [["--remote", "nope", "health"].as_slice(), &["remote", "use", "nope"], &[]] {
        let child = unheard(&home, words).spawn().expect("starting it");
        let output = end_of(child, std::time::Duration::from_secs(20), "openclaw");
        assert_eq!(output.status.code(), Some(2), "{words:?}");
    }
}

#[test]
fn following_the_log_ends_with_its_reader() {
    let home = Home::new();
    let log = "home/.openclaw/rs/logs/supervisor.2026-01-01.log";
    home.write(log, "one\n");
    let mut command = Command::new(built());
    home.furnish(&mut command);
    command.args(["remote", "logs", "--raw", "-f"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("starting it");
    let mut first = String::new();
    let mut reader = BufReader::new(child.stdout.take().expect("piped"));
    reader.read_line(&mut first).expect("the first line");
    assert_eq!(first, "one\n");
    drop(reader);
    home.write(log, "one\ntwo\n");
    let output = end_of(child, std::time::Duration::from_secs(20), "openclaw remote logs -f");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn more_words_on_request_go_to_standard_error() {
    let home = Home::new();
    let port = free_port().to_string();
    let quiet = openclaw(&home).args(["health", "--port", &port, "--json"]).run().exits(7);
    assert_eq!(quiet.stderr, "", "{quiet}");
    let loud = openclaw(&home).args(["-v", "health", "--port", &port, "--json"]).run().exits(7);
    assert!(loud.stderr.contains("DEBUG") && loud.stderr.contains(&port), "{loud}");
    assert_eq!(loud.json()["error"]["class"], "gateway_down", "{loud}");
}

#[test]
fn json_stands_alone_for_every_command() {
    let home = Home::new();
    let port = free_port().to_string();
    let lines: &[(&[&str], i32)] = &[
        (&[], 2),
        (&["nope"], 2),
        (&["remote"], 2),
        (&["remote", "status"], 0),
        (&["remote", "status", "nope"], 2),
        (&["remote", "list"], 0),
        (&["remote", "use", "nope"], 2),
        (&["remote", "use", "local"], 0),
        (&["remote", "rename", "nope", "other"], 2),
        (&["remote", "disconnect"], 2),
        (&["remote", "disconnect", "nope"], 2),
        (&["remote", "remove", "nope"], 2),
        (&["remote", "logs"], 0),
        (&["remote", "logs", "nope"], 2),
        (&["remote", "connect"], 2),
        (&["remote", "connect", "host", "--no-such-option"], 2),
        (&["gateway"], 2),
        (&["gateway", "status", "--port", &port], 7),
        (&["gateway", "probe", "--port", &port], 7),
        (&["gateway", "call", "health", "--port", &port], 7),
        (&["gateway", "call", "health", "--params", "{"], 2),
        (&["gateway", "auth-token", "--show"], 2),
        (&["gateway", "run", "--bind", "nonsense"], 2),
        (&["health", "--port", &port], 7),
        (&["health", "--timeout", "soon"], 2),
        (&["status", "--deep", "--port", &port], 7),
    ];
    for (words, code) in lines {
        let ran = openclaw(&home).arg("--json").args(*words).run().exits(*code);
        let value = ran.json();
        if *code == 2 {
            let error = &value["error"];
            assert_eq!((&value["ok"], &error["exitCode"]), (&false.into(), &2.into()), "{ran}");
            assert!(error["fix"].is_string(), "a way on: {ran}");
        }
        assert!(!matches!(value, Value::Null), "{ran}");
        assert_eq!(ran.stderr, "", "nothing beside it: {ran}");
    }
    assert!(home.supervisor().is_none(), "nothing wants a supervisor");
}

#[test]
fn a_service_is_told_when_trying_again_cannot_help() {
    let home = Home::new();
    for words in [["-o", "NoSuchOption=yes", "host"].as_slice(), &["two words"], &[]] {
        let run = openclaw(&home).args(["remote", "connect", "--foreground", "--json"]).args(words);
        let ran = run.run().exits(78);
        assert_eq!(ran.json()["error"]["exitCode"], 78, "{ran}");
    }
}

#[test]
fn local_names_this_machine_and_no_remote() {
    let home = Home::new();
    openclaw(&home).args(["remote", "use", "local"]).run().exits(0);
    for words in [["remote", "connect"], ["remote", "disconnect"]] {
        let ran = openclaw(&home).args(words).run().exits(2);
        assert!(ran.stderr.contains("no default"), "{ran}");
    }
}

#[test]
fn a_broken_configuration_is_told_before_anything_starts() {
    let home = Home::new();
    home.write("home/.openclaw/openclaw.json", "{ gateway: { port: }");
    let ran = openclaw(&home).args(["remote", "connect", "--batch", "host"]).run().exits(2);
    assert!(ran.stderr.contains("openclaw.json"), "{ran}");
    assert!(home.supervisor().is_none());
}

#[test]
fn what_cannot_be_printed_is_a_failure() {
    let home = Home::new();
    let mut command = Command::new(built());
    home.furnish(&mut command);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a full disk");
    command.args(["config", "file"]).stdin(Stdio::null()).stdout(full).stderr(Stdio::piped());
    let child = command.spawn().expect("starting it");
    let output = end_of(child, std::time::Duration::from_secs(20), "openclaw config file");
    let notes = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{notes}");
    assert!(notes.contains("No space left on device"), "{notes}");
}

#[test]
fn a_command_that_we_lack_is_refused_as_json_too() {
    let home = Home::new();
    let ran = openclaw(&home).args(["agent", "-m", "x", "--json"]).run().exits(2);
    assert_eq!(ran.json()["error"]["class"], "usage", "{ran}");
    let message = ran.json()["error"]["message"].as_str().expect("a message").to_owned();
    assert!(message.starts_with("`agent` is a command of OpenClaw"), "{ran}");
}
