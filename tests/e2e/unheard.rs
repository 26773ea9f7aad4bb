//! Servers whose standard error nobody reads: a terminal that was stopped, a parent that hangs.

use std::{net::TcpListener, process::Command, time::Duration};

use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};

use crate::support::{
    Home, OurGateway, Peer, Program, Scene, answers, built, free_port, guarded, present, signal,
    wait_until,
};

const LIMIT: Duration = Duration::from_secs(30);
/// Becomes the program, its standard error a pipe that is full.
const STUCK: &str = "exec 2<>\"$1\"; shift; head -c 65536 /dev/zero >&2; exec \"$@\"";

/// A command that begins with the program, and goes on as the caller likes.
fn stuck(home: &Home) -> Command {
    let pipe = home.path("unread");
    mkfifo(&pipe, Mode::S_IRWXU).expect("making a pipe");
    let mut command = guarded("sh");
    command.args(["-c", STUCK, "stuck"]).arg(pipe).arg(built());
    command
}

#[test]
fn a_gateway_serves_and_ends_although_nobody_reads_what_it_says() {
    let home = Home::new();
    let mut gateway = OurGateway::start_by(&home, free_port(), stuck(&home));
    assert!(answers(gateway.port(), "/healthz"));
    let program = gateway.program_mut();
    assert!(signal(program.pid(), Signal::SIGTERM));
    wait_until("the gateway ends", LIMIT, || program.has_ended().then_some(()));
    assert_eq!(program.code(), Some(0));
}

#[test]
fn a_gateway_that_cannot_start_ends_although_nobody_reads_why() {
    let home = Home::new();
    let thief = TcpListener::bind(("127.0.0.1", 0)).expect("a port of another program");
    let port = thief.local_addr().expect("its port").port().to_string();
    let mut command = stuck(&home);
    home.furnish(&mut command);
    command.args(["-v", "gateway", "run", "--port", &port]);
    let mut gateway = Program::start("our gateway", command);
    wait_until("the gateway ends", LIMIT, || gateway.has_ended().then_some(()));
    assert_eq!(gateway.code(), Some(6));
}

#[test]
fn a_tunnel_goes_on_and_ends_although_nobody_reads_what_its_supervisor_says() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let mut command = stuck(&scene.laptop);
    scene.laptop.furnish(&mut command);
    command.args(["-v", "remote", "connect", "--foreground", "--batch", "--name", "vps"]);
    command.args(scene.way_in());
    command.args(["--remote-port", &scene.gateway.port().to_string()]);
    command.args(["--local-port", &scene.local_port.to_string()]).arg(scene.sshd.target());
    let mut service = Program::start("openclaw remote connect --foreground", command);
    let is_live = || answers(scene.local_port, "/healthz").then_some(());
    wait_until("the path is live", LIMIT, is_live);
    assert!(signal(service.pid(), Signal::SIGTERM));
    wait_until("the service ends", LIMIT, || service.has_ended().then_some(()));
    assert_eq!(service.code(), Some(0));
    assert!(scene.laptop.logs().contains("asked to end"), "the log file is written all the same");
}
