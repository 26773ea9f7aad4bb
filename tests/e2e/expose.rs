//! The other way round: a gateway behind NAT is published on a jump host, and others reach it there.

use std::{path::PathBuf, process::Command, time::Duration};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{
    Home, OurGateway, Peer, Program, Sshd, answers, built, free_port, guarded, listens, openclaw,
    present, signal, wait_until, way_in,
};

const LIMIT: Duration = Duration::from_secs(40);

/// The machine with the gateway, the jump host, and a machine that wants in.
struct Stage {
    other: Home,
    owner: Home,
    jump: Sshd,
    gateway: u16,
}

impl Stage {
    fn new(lines: &[&str]) -> Self {
        let (owner, other, gateway) = (Home::new(), Home::new(), free_port());
        let config = format!("{{ gateway: {{ port: {gateway} }} }}");
        owner.write("home/.openclaw/openclaw.json", &config);
        Self { owner, other, jump: Sshd::start(lines), gateway }
    }

    fn token_file(&self) -> PathBuf {
        self.owner.state().join("rs/gateway-token")
    }

    /// `remote expose` with further arguments, complete but for the target.
    fn exposing(&self, arguments: &[&str]) -> crate::support::Run {
        let way = way_in(self.jump.port(), &self.jump.key(), &self.jump.known_hosts());
        openclaw(&self.owner).args(["remote", "expose", "--batch"]).args(way).args(arguments)
    }

    fn status(&self) -> Value {
        let run = openclaw(&self.owner).args(["--json", "remote", "status", "home"]);
        run.run().exits(0).json()[0].clone()
    }

    /// Has the other machine connect to what the owner's program said.
    fn connect_other(&self, others_type: &str) {
        let words = others_type.strip_prefix("openclaw ").expect("a command of ours");
        let way = way_in(self.jump.port(), &self.jump.key(), &self.jump.known_hosts());
        openclaw(&self.other)
            .args(words.split(' '))
            .args(["--batch", "--name", "home"])
            .args(way.iter().filter(|word| !word.to_string_lossy().starts_with("-p")))
            .arg("--token-file")
            .arg(self.token_file())
            .args(["--local-port", &free_port().to_string()])
            .run()
            .exits(0);
    }
}

#[test]
fn a_gateway_behind_nat_is_reached_through_the_jump_host() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let stage = Stage::new(&[]);
    let target = stage.jump.target();
    // Without a gateway there is nothing to publish, and nothing is left.
    let error = stage.exposing(&["--json", "--name", "home", &target]).run().exits(7).json();
    let fix = error["error"]["fix"].as_str().unwrap_or_default().to_owned();
    assert_eq!(fix, format!("openclaw gateway run --port {}", stage.gateway), "{error:#}");
    let listed = openclaw(&stage.owner).args(["--json", "remote", "list"]).run().exits(0).json();
    assert_eq!(listed, json!([]));

    let gateway = OurGateway::start_at(&stage.owner, stage.gateway);
    let status = stage.exposing(&["--json", "--name", "home", &target]).run().exits(0).json();
    assert_eq!((&status["kind"], &status["phase"]), (&"exposed".into(), &"live".into()));
    assert_eq!(status["proof"]["kind"], "gateway", "seen through the jump host: {status:#}");
    assert_eq!((&status["default"], &status["localPort"]), (&false.into(), &stage.gateway.into()));
    let port = u16::try_from(status["remotePort"].as_u64().expect("a port")).expect("a port");
    assert!(answers(port, "/healthz"));
    let others_type = status["othersType"].as_str().expect("a command").to_owned();
    stage.connect_other(&others_type);
    let health = openclaw(&stage.other).args(["--json", "health"]).run().exits(0).json();
    assert_eq!(health["ok"], true, "{health:#}");

    // The port stays, whatever happens to the session and whoever asks again.
    assert!(stage.jump.kill_sessions() > 0);
    openclaw(&stage.other).args(["health", "--timeout", "30000"]).run().exits(0);
    wait_until("it is live again", LIMIT, || (stage.status()["phase"] == "live").then_some(()));
    assert_eq!(stage.status()["remotePort"], port, "{:#}", stage.status());
    let again = stage.exposing(&["--json", "--name", "home", &target]).run().exits(0).json();
    assert_eq!(again["remotePort"], port, "{again:#}");
    let saved = stage.owner.remotes();
    assert_eq!(saved["remotes"]["home"]["remotePort"], port, "{saved:#}");
    assert_eq!(saved["default"], Value::Null, "{saved:#}");

    // The gateway goes, and that is what the status says.
    signal(gateway.program().pid(), Signal::SIGKILL);
    wait_until("its end is noticed", Duration::from_secs(90), || {
        (stage.status()["phase"] == "gateway_down").then_some(())
    });
}

#[test]
fn an_exposed_gateway_is_no_way_to_one_and_is_managed_like_a_remote() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let stage = Stage::new(&[]);
    let gateway = OurGateway::start_at(&stage.owner, stage.gateway);
    let wanted = free_port().to_string();
    let target = stage.jump.target();
    let run = stage.exposing(&["--remote-port", &wanted, "--name", "home", &target]);
    let text = run.run().exits(0).stdout;
    let line = format!("openclaw remote connect --remote-port {wanted}");
    assert!(text.contains(&line) && text.contains("auth-token"), "{text}");
    let owner = |words: &[&str]| openclaw(&stage.owner).args(words);
    // Commands of this machine mean its own gateway as before.
    owner(&["health"]).run().exits(0);
    for words in [
        &["health", "--remote", "home"][..],
        &["remote", "use", "home"],
        &["remote", "connect", "--batch", "home"],
    ] {
        let error = owner(&["--json"]).args(words).run().exits(2).json();
        let message = error["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(message.contains("publishes the gateway of this machine"), "{error:#}");
    }
    let port: u16 = wanted.parse().expect("a port");
    owner(&["remote", "rename", "home", "away"]).run().exits(0);
    assert!(answers(port, "/healthz"));
    owner(&["remote", "disconnect", "away"]).run().exits(0);
    wait_until("the port is given back", LIMIT, || (!listens(port)).then_some(()));
    // Without arguments the only one is meant, with the port of before.
    owner(&["remote", "expose", "--batch"]).run().exits(0);
    assert!(answers(port, "/healthz"));
    owner(&["remote", "remove", "away"]).run().exits(0);
    wait_until("the port is given back", LIMIT, || (!listens(port)).then_some(()));
    assert_eq!(owner(&["--json", "remote", "list"]).run().exits(0).json(), json!([]));
    drop(gateway);
}

#[test]
fn a_jump_host_for_this_alone_is_enough_and_the_proof_says_what_was_seen() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let wanted = free_port();
    let listen = format!("PermitListen 127.0.0.1:{wanted} localhost:{wanted}");
    let stage = Stage::new(&["PermitOpen none", &listen]);
    let _gateway = OurGateway::start_at(&stage.owner, stage.gateway);
    let target = stage.jump.target();
    let port = wanted.to_string();
    let run = stage.exposing(&["--json", "--remote-port", &port, "--name", "home", &target]);
    let status = run.run().exits(0).json();
    assert_eq!((&status["phase"], &status["proof"]["kind"]), (&"live".into(), &"ssh".into()));
    assert!(answers(wanted, "/healthz"));
    let other = free_port().to_string();
    let run = stage.exposing(&["--json", "--remote-port", &other, "--name", "more", &target]);
    let error = run.run().exits(9).json();
    assert_eq!(error["error"]["class"], "forward_refused", "{error:#}");
}

#[test]
fn a_service_waits_for_the_gateway_and_for_a_port_that_is_held() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let stage = Stage::new(&[]);
    let wanted = free_port();
    let held = std::net::TcpListener::bind(("127.0.0.1", wanted)).expect("a port");
    let mut command: Command = guarded(built());
    stage.owner.furnish(&mut command);
    command.args(["remote", "expose", "--foreground", "--batch", "--name", "home"]);
    command.args(way_in(stage.jump.port(), &stage.jump.key(), &stage.jump.known_hosts()));
    command.args(["--remote-port", &wanted.to_string()]).arg(stage.jump.target());
    let mut service = Program::start("openclaw remote expose --foreground", command);
    assert!(service.prints("trying on", LIMIT), "{}", service.log());
    drop(held);
    let _gateway = OurGateway::start_at(&stage.owner, stage.gateway);
    wait_until("it is published", LIMIT, || answers(wanted, "/healthz").then_some(()));
    wait_until("it is live", LIMIT, || (stage.status()["phase"] == "live").then_some(()));
    assert!(signal(service.pid(), Signal::SIGTERM));
    wait_until("the service ends", LIMIT, || service.has_ended().then_some(()));
    wait_until("the port is given back", LIMIT, || (!listens(wanted)).then_some(()));
}
