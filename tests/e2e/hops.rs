//! Other ways in: through a jump host, with a passphrase, with a question, with a second forward.

use std::{path::Path, time::Duration};

use crate::support::{
    Agent, Home, OurGateway, Peer, Run, Scene, Sshd, Terminal, answers, dialling, free_port,
    openclaw, present, way_in,
};

#[test]
fn a_jump_host_leads_on() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let jump = Sshd::start(&[]);
    // As with ssh, the jump host's known hosts come from a file, its key here from the agent.
    let known = jump.known_hosts().display().to_string();
    let config = format!("Host 127.0.0.1\n  UserKnownHostsFile {known}\n");
    let config = scene.laptop.write("ssh_config", &config);
    let hop = format!("{}:{}", jump.target(), jump.port());
    let agent = Agent::with(&jump.key());
    let known = format!("UserKnownHostsFile={}", scene.sshd.known_hosts().display());
    let status = scene
        .dialling_by_file(&config)
        .env("SSH_AUTH_SOCK", agent.socket())
        .args(["--json", "--name", "vps", "-J", &hop, "-o", &known, "-i"])
        .arg(scene.sshd.key())
        .args(["-p", &scene.sshd.port().to_string()])
        .arg(scene.sshd.target())
        .run()
        .exits(0)
        .json();
    let via = status["via"][0].as_str().unwrap_or_default();
    assert!(via.contains("127.0.0.1"), "{status:#}");
    scene.laptop(&["health"]);
    assert!(jump.log().contains("Accepted publickey"), "{}", jump.log());
    jump.kill_sessions();
    scene.laptop(&["health"]);
}

#[test]
fn a_second_forward_leads_elsewhere() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let other_home = Home::new();
    let other = OurGateway::start(&other_home);
    let extra = free_port();
    let forward = format!("{extra}:127.0.0.1:{}", other.port());
    scene
        .dialling()
        .args(["--name", "vps", "-L", &forward])
        .arg(scene.sshd.target())
        .run()
        .exits(0);
    assert!(answers(extra, "/healthz"));
    assert!(answers(scene.local_port, "/healthz"));
    scene.sshd.kill_sessions();
    assert!(answers(extra, "/healthz"));
}

/// `remote connect` by a person: no `--batch`, and the key given.
fn by_hand(scene: &Scene, key: &Path, known_hosts: &Path) -> Run {
    scene
        .dialling_by(way_in(scene.sshd.port(), key, known_hosts))
        .arg("--token-file")
        .arg(scene.gateway.token_file())
        .arg(scene.sshd.target())
        .limit(Duration::from_secs(60))
}

#[test]
fn a_passphrase_is_asked_for_and_not_shown() {
    if !present(&[Peer::OpenSsh, Peer::Script]) {
        return;
    }
    let scene = Scene::new();
    let key = scene.sshd.encrypted_key("correct horse");
    let mut terminal = Terminal::start(by_hand(&scene, &key, &scene.sshd.known_hosts()));
    terminal.shows("Passphrase");
    terminal.types("correct horse");
    let (code, screen) = terminal.end();
    assert_eq!(code, 0, "{screen}");
    assert!(!screen.contains("correct horse"), "{screen}");
    scene.laptop(&["health"]);
    scene.sshd.kill_sessions();
    scene.laptop(&["health"]);
}

#[test]
fn the_first_use_of_a_host_key_is_a_question_with_its_fingerprint() {
    if !present(&[Peer::OpenSsh, Peer::Script]) {
        return;
    }
    let scene = Scene::new();
    let known_hosts = scene.laptop.write("known_hosts", "");
    let mut terminal = Terminal::start(by_hand(&scene, &scene.sshd.key(), &known_hosts));
    terminal.shows(&scene.sshd.fingerprint());
    terminal.types("yes");
    let (code, screen) = terminal.end();
    assert_eq!(code, 0, "{screen}");
    // The machine's own configuration may want the name hidden, as Debian's does.
    let name = format!("[127.0.0.1]:{}", scene.sshd.port());
    let found = std::process::Command::new("ssh-keygen")
        .args(["-F", &name, "-f"])
        .arg(&known_hosts)
        .output()
        .expect("running ssh-keygen");
    assert!(found.status.success(), "{name} in {}: {found:?}", known_hosts.display());
    scene.laptop(&["health"]);
}

#[test]
fn a_host_key_that_a_person_declines_is_not_kept() {
    if !present(&[Peer::OpenSsh, Peer::Script]) {
        return;
    }
    let scene = Scene::new();
    let known_hosts = scene.laptop.write("known_hosts", "");
    let mut terminal = Terminal::start(by_hand(&scene, &scene.sshd.key(), &known_hosts));
    terminal.shows(&scene.sshd.fingerprint());
    terminal.types("no");
    let (code, screen) = terminal.end();
    assert_eq!(code, 5, "{screen}");
    assert_eq!(std::fs::read_to_string(&known_hosts).expect("known_hosts"), "");
}

#[test]
fn an_accepted_fingerprint_needs_no_question() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let known_hosts = scene.laptop.write("known_hosts", "");
    by_hand(&scene, &scene.sshd.key(), &known_hosts)
        .args(["--batch", "--accept-host-key", &scene.sshd.fingerprint()])
        .run()
        .exits(0);
    scene.laptop(&["health"]);
}

#[test]
fn dialling_a_target_without_a_name_finds_one() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let port = free_port().to_string();
    let status = openclaw(&scene.laptop)
        .args(dialling(&scene.sshd, scene.gateway.port(), scene.gateway.token_file()))
        .args(["--json", "--local-port", &port])
        .arg(scene.sshd.target())
        .run()
        .exits(0)
        .json();
    assert!(status["name"].as_str().is_some_and(|name| !name.is_empty()), "{status:#}");
    scene.laptop(&["health"]);
}
