//! Without a person: the foreground supervisor, a process that was stopped, the configured remote.

use std::{process::Command, thread, time::Duration};

use nix::sys::signal::Signal;

use crate::support::{
    Home, OurGateway, Peer, Program, Scene, answers, free_port, guarded, openclaw, present, signal,
    wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);

/// `remote connect --foreground` on the laptop, to the gateway at `port`.
fn foreground(scene: &Scene, port: u16) -> Program {
    let mut command: Command = guarded(crate::support::built());
    scene.laptop.furnish(&mut command);
    command.args(["remote", "connect", "--foreground", "--batch", "--name", "vps"]);
    command.args(scene.way_in());
    command.args(["--remote-port", &port.to_string()]);
    command.args(["--local-port", &scene.local_port.to_string()]).arg(scene.sshd.target());
    Program::start("openclaw remote connect --foreground", command)
}

#[test]
fn a_foreground_supervisor_serves_commands_and_ends_with_its_signal() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let mut service = foreground(&scene, scene.gateway.port());
    assert!(service.prints("live: ", LIMIT), "{}", service.log());
    let token = scene.gateway.token_file().to_string_lossy().into_owned();
    scene.laptop(&["health", "--token-file", &token]);
    assert!(signal(service.pid(), Signal::SIGTERM));
    wait_until("the service ends", LIMIT, || service.has_ended().then_some(()));
    assert!(!answers(scene.local_port, "/healthz"));
}

#[test]
fn a_foreground_supervisor_waits_for_a_gateway_that_comes_later() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let late = Home::new();
    let port = free_port();
    let mut service = foreground(&scene, port);
    assert!(service.prints("trying on", LIMIT), "{}", service.log());
    let _gateway = OurGateway::start_at(&late, port);
    wait_until("the path is live", LIMIT, || answers(scene.local_port, "/healthz").then_some(()));
    assert!(signal(service.pid(), Signal::SIGTERM));
    wait_until("the service ends", LIMIT, || service.has_ended().then_some(()));
}

#[test]
fn a_supervisor_that_was_stopped_knows_that_it_slept() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let pid = scene.laptop.supervisor().expect("a supervisor");
    assert!(signal(pid, Signal::SIGSTOP));
    // The sleep itself: nothing happens that could be waited for.
    thread::sleep(Duration::from_secs(4));
    assert!(signal(pid, Signal::SIGCONT));
    scene.laptop(&["health"]);
    wait_until("the wake is noted", LIMIT, || scene.laptop.logs().contains("woke").then_some(()));
    scene.laptop(&["health"]);
}

#[test]
fn a_remote_configured_in_openclaw_json_is_dialled_when_needed() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let config = format!(
        "{{ gateway: {{ mode: 'remote', remote: {{ transport: 'ssh', sshTarget: '{}:{}',
            sshIdentity: '{}', remotePort: {}, token: 'unused', url: 'ws://127.0.0.1:{}' }} }} }}",
        scene.sshd.target(),
        scene.sshd.port(),
        scene.sshd.key().display(),
        scene.gateway.port(),
        scene.local_port,
    );
    scene.laptop.write("home/.openclaw/openclaw.json", &config);
    // The file has no place for a known_hosts file, and the user's own does not know this server:
    // the dial itself must be refused, and say so.
    let ran = openclaw(&scene.laptop).args(["health", "--json"]).limit(LIMIT).run().exits(5);
    assert_eq!(ran.json()["error"]["class"], "host_key", "{}", ran.stdout);
    let listed = openclaw(&scene.laptop).args(["remote", "status", "--json"]).run().exits(0).json();
    assert_eq!(listed[0]["name"], "config", "{listed}");
    assert_eq!(listed[0]["localPort"], scene.local_port, "{listed}");
}

#[test]
fn the_log_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let logs = std::fs::read_dir(scene.laptop.state().join("rs/logs")).expect("the log folder");
    let modes: Vec<u32> = logs
        .filter_map(Result::ok)
        .map(|entry| entry.metadata().expect("its mode").permissions().mode() & 0o777)
        .collect();
    // The log of the day, and the history.
    assert_eq!(modes, [0o600; 2]);
}
