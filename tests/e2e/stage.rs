//! The stage itself: servers start, answer, freeze and end as the stories rely on.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use crate::support::{
    Freezer, Peer, Program, ReferenceGateway, Sshd, Terminal, answers, guarded, listens, present,
    run_to_end, wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);

/// `ssh` into a server that runs `true`; the options of the test apart it takes nothing from here.
fn ssh(sshd: &Sshd, port: u16) -> Command {
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", "-i"]);
    command.arg(sshd.key()).arg("-o");
    command.arg(format!("UserKnownHostsFile={}", sshd.known_hosts().display()));
    command.args(["-p", &port.to_string(), &sshd.target()]);
    command
}

#[test]
fn sshd_lets_its_key_in_and_ends_without_a_trace() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut sshd = Sshd::start(&["SetEnv GREETING=hello"]);
    let mut command = ssh(&sshd, sshd.port());
    command.arg("echo $GREETING");
    let output = run_to_end(command, LIMIT);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello\n", "{output:?}\n{}", sshd.log());
    sshd.restart();
    assert!(listens(sshd.port()));
    sshd.stop();
    assert!(!listens(sshd.port()));
}

#[test]
fn killing_the_sessions_leaves_the_listener() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let sshd = Sshd::start(&[]);
    let mut command = guarded("ssh");
    command.args(ssh(&sshd, sshd.port()).get_args()).arg("echo in; read -r _; exec sleep 100");
    let mut session = Program::start("ssh", command);
    assert!(session.prints("in", LIMIT), "{}\n{}", session.log(), sshd.log());
    assert!(sshd.kill_sessions() > 0);
    assert!(session.prints("closed", LIMIT), "{}", session.log());
    assert!(listens(sshd.port()));
}

#[test]
fn a_frozen_path_holds_what_it_gets() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let sshd = Sshd::start(&[]);
    let freezer = Freezer::before(sshd.port());
    sshd.know(&sshd.known_hosts_line(freezer.port()));
    freezer.freeze();
    let mut command = guarded("ssh");
    command.args(ssh(&sshd, freezer.port()).get_args()).arg("echo through");
    let mut session = Program::start("ssh", command);
    assert!(!session.prints("through", Duration::from_millis(500)));
    assert!(!session.has_ended());
    freezer.thaw();
    assert!(session.prints("through", LIMIT), "{}", session.log());
}

#[test]
fn the_reference_gateway_answers() {
    if !present(&[Peer::OpenClaw]) {
        return;
    }
    let gateway = ReferenceGateway::shared();
    assert!(answers(gateway.port(), "/healthz"));
}

#[test]
fn a_terminal_shows_takes_and_hands_on_the_exit_code() {
    if !present(&[Peer::Script]) {
        return;
    }
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "test -t 0 || exit 9; printf 'name? '; read -r it; echo \"I am '$it'\"; exit 3",
    ]);
    let mut terminal = Terminal::of(&command);
    terminal.shows("name? ");
    terminal.types("a b");
    let (code, screen) = terminal.end();
    assert_eq!(code, 3, "{screen}");
    assert!(screen.contains("I am 'a b'"), "{screen}");
}

#[test]
fn a_guarded_program_dies_when_its_starter_lets_go() {
    let folder = tempfile::tempdir().expect("making a folder");
    let mark = folder.path().join("pid");
    let mut command = guarded("sh");
    command.args(["-c", "echo $$ > \"$0\"; exec sleep 100"]).arg(&mark);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("starting sh");
    wait_until("the program runs", LIMIT, || {
        fs::read_to_string(&mark).ok().filter(|text| text.ends_with('\n'))
    });
    assert!(child.try_wait().expect("asking for a child").is_none());
    drop(child.stdin.take());
    let status = wait_until("the program dies", LIMIT, || child.try_wait().expect("asking"));
    assert!(!status.success());
}
