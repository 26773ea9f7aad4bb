//! Secrets that a service manager hands over, and the offer to have one keep the path.

use std::fs;

use crate::support::{Peer, Scene, Terminal, openclaw, present};

#[test]
fn a_key_with_its_passphrase_and_a_token_are_taken_from_the_folder_of_credentials() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let key = fs::read_to_string(scene.sshd.encrypted_key("open sesame")).expect("a key");
    let folder = scene.laptop.path("credentials");
    scene.laptop.write("credentials/openclaw-ssh-key", &key);
    scene.laptop.write("credentials/openclaw-ssh-passphrase", "open sesame\n");
    scene.laptop.write("credentials/openclaw-gateway-token", &scene.gateway.token());
    let known = format!("UserKnownHostsFile={}", scene.sshd.known_hosts().display());
    let port = (scene.sshd.port().to_string(), scene.gateway.port().to_string());
    let words = ["remote", "connect", "--batch", "--name", "vps", "-Fnone", "-p", &port.0, "-o"];
    let connect = || {
        let run = openclaw(&scene.laptop).args(words).args([&known, "--remote-port", &port.1]);
        run.args(["--local-port", &scene.local_port.to_string()]).arg(scene.sshd.target())
    };
    connect().run().exits(4);
    scene.laptop.stop_supervisor().expect("the supervisor ends");
    connect().env("CREDENTIALS_DIRECTORY", &folder).run().exits(0);
    openclaw(&scene.laptop).args(["health"]).run().exits(0);
    let log = scene.laptop.logs();
    assert!(!log.contains("sesame") && !log.contains(&scene.gateway.token()), "{log}");
}

#[test]
fn a_wrong_passphrase_that_was_handed_over_is_said_and_not_asked_for() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let key = scene.sshd.encrypted_key("open sesame");
    scene.laptop.write("credentials/openclaw-ssh-passphrase", "close sesame\n");
    let ran = openclaw(&scene.laptop)
        .args(["--json", "remote", "connect", "--batch", "--name", "vps", "-Fnone"])
        .args(["-p", &scene.sshd.port().to_string(), "-i"])
        .arg(key)
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", scene.sshd.known_hosts().display()))
        .arg(scene.sshd.target())
        .env("CREDENTIALS_DIRECTORY", scene.laptop.path("credentials"))
        .run()
        .exits(4);
    assert!(ran.json()["error"]["message"].to_string().contains("locked"), "{ran}");
}

#[test]
fn a_service_is_offered_once_whatever_the_answer() {
    if !present(&[Peer::OpenSsh, Peer::Script]) {
        return;
    }
    let scene = Scene::new();
    let connect = || {
        scene
            .dialling_by(scene.way_in())
            .arg("--token-file")
            .arg(scene.gateway.token_file())
            .arg(scene.sshd.target())
    };
    // Without a service manager of the user there is nothing to offer.
    let (code, screen) = Terminal::start(connect()).end();
    assert_eq!(code, 0, "{screen}");
    assert!(!screen.contains("[y/N]"), "{screen}");
    scene.laptop.write("run/systemd/private", "");
    let mut terminal = Terminal::start(connect());
    terminal.shows("as a service of yours, after a restart as well? [y/N]");
    terminal.types("");
    let (code, screen) = terminal.end();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("openclaw remote install"), "{screen}");
    let (code, screen) = Terminal::start(connect()).end();
    assert_eq!(code, 0, "{screen}");
    assert!(!screen.contains("[y/N]"), "{screen}");
}

#[test]
fn a_person_who_leaves_the_offer_has_a_path_all_the_same() {
    if !present(&[Peer::OpenSsh, Peer::Script]) {
        return;
    }
    let scene = Scene::new();
    scene.laptop.write("run/systemd/private", "");
    let run = scene.dialling_by(scene.way_in()).arg("--token-file").arg(scene.gateway.token_file());
    let mut terminal = Terminal::start(run.arg(scene.sshd.target()));
    terminal.shows("as a service of yours, after a restart as well? [y/N]");
    // The end of the input, as Ctrl-D types it.
    terminal.types("\u{4}");
    let (code, screen) = terminal.end();
    assert_eq!(code, 0, "{screen}");
    assert!(screen.contains("openclaw remote install"), "{screen}");
}

#[test]
fn installing_says_what_is_missing() {
    let home = crate::support::Home::new();
    let ran = openclaw(&home).args(["--json", "remote", "install"]).run().exits(2);
    assert_eq!(ran.json()["error"]["class"], "usage", "{ran}");
    assert_eq!(ran.json()["error"]["fix"], "openclaw remote connect user@host", "{ran}");
    home.write(
        "home/.openclaw/rs/remotes.json",
        r#"{"remotes":{"a":{"target":"127.0.0.1:9","remotePort":1,"localPort":1,"wanted":false}}}"#,
    );
    let ran = openclaw(&home).args(["--json", "remote", "install", "b"]).run().exits(2);
    assert_eq!(ran.json()["error"]["class"], "usage", "{ran}");
    // No service manager of a user listens in the runtime folder of this home.
    let ran = openclaw(&home).args(["--json", "remote", "install"]).run().exits(2);
    assert_eq!(ran.json()["error"]["class"], "config", "{ran}");
    assert!(!home.path("home/.config").exists(), "nothing was written");
    let ran = openclaw(&home).args(["--json", "remote", "uninstall"]).run().exits(0);
    assert_eq!(ran.json()["removed"], false, "{ran}");
}
