//! The process that keeps the paths: one a home, back when it is needed, gone without a trace.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::{
    Home, Peer, Scene, alive, answers, dialling, free_port, listens, openclaw, present, signal,
    wait_until,
};

/// The processes of a home that keep running on their own.
fn supervisors(home: &Home) -> Vec<String> {
    home.processes().into_iter().map(|(_, command)| command).collect()
}

#[test]
fn two_commands_at_once_start_one() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let start = |name: &str| {
        openclaw(&scene.laptop)
            .args(dialling(&scene.sshd, scene.gateway.port(), scene.gateway.token_file()))
            .args(["--name", name, "--local-port", &free_port().to_string()])
            .arg(scene.sshd.target())
            .start()
    };
    let (one, two) = (start("one"), start("two"));
    one.end().exits(0);
    two.end().exits(0);
    let running = supervisors(&scene.laptop);
    assert_eq!(running.len(), 1, "{running:?}");
    for name in ["one", "two"] {
        scene.laptop(&["--remote", name, "health"]);
    }
}

#[test]
fn comes_back_after_each_of_ten_kills() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    for round in 0..10 {
        let pid = scene.laptop.supervisor();
        let pid = pid.unwrap_or_else(|| panic!("no supervisor in round {round}"));
        assert!(signal(pid, Signal::SIGKILL));
        wait_until("the supervisor is gone", Duration::from_secs(10), || {
            (!alive(pid)).then_some(())
        });
        // The last of its threads may outlive the first by a moment, and holds the port.
        wait_until("the port is free", Duration::from_secs(10), || {
            (!listens(scene.local_port)).then_some(())
        });
        scene.laptop(&["health"]);
        assert!(answers(scene.local_port, "/healthz"), "round {round}");
        let running = supervisors(&scene.laptop);
        assert_eq!(running.len(), 1, "round {round}: {running:?}");
    }
}

#[test]
fn a_question_whose_supervisor_is_killed_is_asked_again_by_way_of_the_next() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let limit = Duration::from_secs(10);
    let pid = scene.laptop.supervisor().expect("a supervisor");
    let gateway = scene.gateway.program().pid();
    // Nothing is answered until it goes on.
    assert!(signal(gateway, Signal::SIGSTOP));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let asked = openclaw(&scene.laptop).args(["--json", "health", "--timeout", "60000"]);
            asked.limit(Duration::from_secs(90)).run()
        });
        wait_until("the question is under way", limit, || {
            let ran = openclaw(&scene.laptop).args(["remote", "status", "--json"]).run().exits(0);
            (ran.json()[0]["streams"] == 1).then_some(())
        });
        assert!(signal(pid, Signal::SIGKILL));
        wait_until("the supervisor is gone", limit, || (!alive(pid)).then_some(()));
        assert!(signal(gateway, Signal::SIGCONT));
        asking.join().expect("a command").exits(0);
    });
}

#[test]
fn ends_when_asked_and_leaves_no_socket() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let sockets = || {
        let entries = std::fs::read_dir(scene.laptop.path("run/openclaw"));
        entries.map_or(0, |entries| entries.filter_map(Result::ok).filter(is_socket).count())
    };
    assert_eq!(sockets(), 1);
    let pid = scene.laptop.supervisor().expect("a supervisor");
    assert!(signal(pid, Signal::SIGTERM));
    wait_until("the supervisor has ended", Duration::from_secs(10), || (!alive(pid)).then_some(()));
    assert_eq!(sockets(), 0);
    assert!(!listens(scene.local_port));
    scene.laptop(&["health"]);
}

fn is_socket(entry: &std::fs::DirEntry) -> bool {
    use std::os::unix::fs::FileTypeExt;
    entry.file_type().is_ok_and(|kind| kind.is_socket())
}

#[test]
fn in_the_foreground_it_waits_for_a_host_that_is_not_there_yet() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let mut scene = Scene::new();
    scene.sshd.stop();
    let service = scene.dialling().args(["--foreground", "--name", "vps"]).arg(scene.sshd.target());
    let service = service.limit(Duration::from_secs(60)).start();
    wait_until("it goes on trying", Duration::from_secs(20), || {
        scene
            .laptop
            .remotes()
            .pointer("/remotes/vps/wanted")
            .filter(|wanted| **wanted == true)
            .map(drop)
    });
    scene.sshd.restart();
    wait_until("the gateway answers", Duration::from_secs(30), || {
        answers(scene.local_port, "/healthz").then_some(())
    });
    assert_eq!(scene.laptop.remotes().pointer("/default"), Some(&"vps".into()));
    scene.laptop.stop_supervisor();
    service.end().exits(0);
}

#[test]
fn in_the_foreground_what_is_configured_wrongly_is_not_tried_again() {
    let home = Home::new();
    let foreground = ["remote", "connect", "--foreground", "--batch"];
    openclaw(&home).args(foreground).arg("-oProxyCommand=x").run().exits(78);
    home.write("home/.openclaw/rs/remotes.json", "{ broken");
    openclaw(&home).args(foreground).arg("me@127.0.0.1").run().exits(78);
}

#[test]
fn is_found_without_a_runtime_folder_and_after_it_was_emptied() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let pid = scene.laptop.supervisor();
    openclaw(&scene.laptop).arg("health").without("XDG_RUNTIME_DIR").run().exits(0);
    std::fs::remove_dir_all(scene.laptop.path("run/openclaw")).expect("emptying the folder");
    scene.laptop(&["health"]);
    assert_eq!(scene.laptop.supervisor(), pid);
}

#[test]
fn serves_a_state_folder_that_is_named_from_here() {
    let home = Home::new();
    let wanted =
        r#"{"remotes":{"a":{"target":"127.0.0.1:9","remotePort":1,"localPort":0,"wanted":true}}}"#;
    home.write("home/.openclaw/rs/remotes.json", wanted);
    openclaw(&home)
        .args(["remote", "status"])
        .env("OPENCLAW_STATE_DIR", "./.openclaw")
        .without("XDG_RUNTIME_DIR")
        .run()
        .exits(0);
    home.stop_supervisor();
}

#[test]
fn says_that_a_socket_path_is_too_long() {
    let home = Home::new();
    let long = home.path(&"x".repeat(120));
    let ran = openclaw(&home)
        .args(["--json", "remote", "connect", "--batch", "me@127.0.0.1:9"])
        .env("OPENCLAW_STATE_DIR", &long)
        .without("XDG_RUNTIME_DIR")
        .run()
        .exits(2);
    assert!(ran.json().to_string().contains("shorter path"), "{}", ran.json());
}
