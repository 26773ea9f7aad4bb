//! The main job: one command, and every other command reaches the gateway on the other machine.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    Home, OurGateway, Peer, ReferenceGateway, Scene, Sshd, answers, dialling, free_port, listens,
    openclaw, present,
};

/// Fails unless `status` is the object that scripts expect of a live remote.
fn is_live(status: &Value, name: &str, sshd: &Sshd, port: u16) {
    assert_eq!(status["name"], name, "{status:#}");
    assert_eq!(status["target"], format!("{}:{}", sshd.target(), sshd.port()), "{status:#}");
    assert_eq!(status["default"], true, "{status:#}");
    assert_eq!(status["phase"], "live", "{status:#}");
    assert_eq!(status["localUrl"], format!("ws://127.0.0.1:{port}"), "{status:#}");
    assert_eq!(status["localPort"], port, "{status:#}");
    assert_eq!(status["route"], "ssh", "{status:#}");
    assert_eq!(status["proof"]["kind"], "gateway", "{status:#}");
    assert_eq!(status["failure"], Value::Null, "{status:#}");
    assert_eq!(status["lastOutage"], Value::Null, "{status:#}");
    for number in ["attempts", "reconnects", "held", "streams", "bytesIn", "bytesOut"] {
        assert!(status[number].is_u64(), "{number} in {status:#}");
    }
    assert!(status["proof"]["ageMs"].is_u64(), "{status:#}");
    assert!(status["proof"]["rttMs"].is_number(), "{status:#}");
    assert!(status["via"].is_array() && status["relay"].is_boolean(), "{status:#}");
    let since = status["since"].as_str().expect("an instant");
    assert!(since.ends_with('Z') && since.contains('T'), "{since}");
}

/// Asks the gateway everything that this version can ask, without saying which gateway.
fn asks_everything(home: &Home) {
    let health = openclaw(home).args(["health", "--json"]).run().exits(0).json();
    assert_eq!(health["ok"], true, "{health:#}");
    let status = openclaw(home).args(["status", "--deep", "--json"]).run().exits(0).json();
    assert!(status.is_object(), "{status:#}");
    let call = openclaw(home).args(["gateway", "call", "health", "--json"]).run().exits(0).json();
    assert_eq!(call["ok"], true, "{call:#}");
    openclaw(home).args(["gateway", "health", "--json"]).run().exits(0).json();
    openclaw(home).args(["gateway", "probe", "--json"]).run().exits(0).json();
    openclaw(home).args(["gateway", "status", "--json"]).run().json();
    openclaw(home).arg("health").run().exits(0);
    openclaw(home).args(["status", "--deep"]).run().exits(0);
}

#[test]
fn one_command_leads_every_other_to_our_gateway() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let status = scene.connect().json();
    is_live(&status, "vps", &scene.sshd, scene.local_port);
    assert_eq!(status["via"], json!([]));
    assert_eq!(status["gateway"]["protocol"], 4, "{status:#}");
    assert!(status["gateway"]["version"].is_string(), "{status:#}");
    assert!(answers(scene.local_port, "/healthz"));
    asks_everything(&scene.laptop);

    let list = scene.laptop(&["remote", "list", "--json"]).json();
    assert_eq!(list[0]["name"], "vps", "{list:#}");
    let all = scene.laptop(&["remote", "status", "--json"]).json();
    is_live(&all[0], "vps", &scene.sshd, scene.local_port);
    let one = scene.laptop(&["remote", "status", "vps", "--json"]).json();
    assert_eq!(one[0]["name"], "vps", "{one:#}");
    scene.laptop(&["remote", "status"]);

    scene.laptop(&["remote", "disconnect"]);
    assert!(!listens(scene.local_port), "the port outlives `remote disconnect`");
    let down = openclaw(&scene.laptop).args(["health", "--json"]).run().exits(3).json();
    assert_eq!(down["error"]["class"], "unreachable", "{down:#}");
    assert!(down["error"]["fix"].as_str().is_some_and(|fix| fix.contains("remote connect")));

    scene.laptop(&["remote", "connect", "--batch"]);
    scene.laptop(&["health"]);
    scene.laptop(&["remote", "remove", "vps"]);
    assert!(!listens(scene.local_port), "the port outlives `remote remove`");
    assert_eq!(scene.laptop(&["remote", "list", "--json"]).json(), json!([]));
}

#[test]
fn the_same_leads_to_the_reference_gateway() {
    if !present(&[Peer::OpenSsh, Peer::OpenClaw]) {
        return;
    }
    let gateway = ReferenceGateway::shared();
    let sshd = Sshd::start(&[]);
    let laptop = Home::new();
    let port = free_port();
    let token = laptop.write("token", ReferenceGateway::TOKEN);
    let status = openclaw(&laptop)
        .args(dialling(&sshd, gateway.port(), &token))
        .args(["--json", "--name", "work", "--local-port", &port.to_string(), &sshd.target()])
        .run()
        .exits(0)
        .json();
    is_live(&status, "work", &sshd, port);
    asks_everything(&laptop);
    openclaw(&laptop).args(["gateway", "call", "system-presence", "--json"]).run().exits(0).json();
}

#[test]
fn the_secret_given_once_is_kept_for_the_remote_and_shown_nowhere() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let connected = scene.connect();
    let token = scene.gateway.token();
    let health = scene.laptop(&["-v", "health"]);
    for ran in [&connected, &health] {
        assert!(!ran.to_string().replace(&ran.name, "").contains(&token), "the token in {ran}");
    }
    assert!(!scene.laptop.logs().contains(&token), "the token is in the log");
    for (pid, command) in scene.laptop.processes() {
        assert!(!command.contains(&token), "the token is in the arguments of {pid}");
    }
    let own = scene.laptop.state().join("rs");
    assert_eq!(fs::metadata(&own).expect("rs").permissions().mode() & 0o777, 0o700);
    let credentials = fs::metadata(own.join("credentials.json")).expect("credentials.json");
    assert_eq!(credentials.permissions().mode() & 0o777, 0o600);
    assert!(!scene.laptop.remotes().to_string().contains(&token));
}

#[test]
fn the_secret_of_this_machines_gateway_does_not_go_through_a_tunnel() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    // A gateway ran here once, and the tunnel has its port now.
    let own = scene.laptop.state().join("rs/gateway-token");
    fs::write(&own, "a-secret-of-this-machine-0123456789abcdef").expect("a token");
    fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).expect("a mode");
    let port = scene.local_port.to_string();
    for words in [
        &["health", "--json", "--port", &port][..],
        &["--local-gateway", "gateway", "call", "health", "--json", "--port", &port],
    ] {
        let refused = openclaw(&scene.laptop).args(words).run().exits(7).json();
        let message = refused["error"]["message"].as_str().expect("a message");
        assert!(message.contains("leads to the remote `vps`"), "{refused:#}");
        let fix = refused["error"]["fix"].as_str().expect("what to type");
        assert!(fix.contains("--remote vps"), "{refused:#}");
    }
    // The remote itself is fine, and a secret that is given is for whatever is there.
    scene.laptop(&["gateway", "probe"]);
    let token = scene.gateway.token_file().to_string_lossy().into_owned();
    scene.laptop(&["health", "--port", &port, "--token-file", &token]);
    let log = scene.far.logs();
    assert!(!log.contains("refused a client"), "{log}");
}

#[test]
fn a_gateway_of_this_profile_on_another_port_is_named() {
    let home = Home::new();
    let _gateway = OurGateway::start(&home);
    // Frames are looked at between its clients and it, on a port of their own.
    let lock = fs::read_to_string(home.state().join("rs/gateway.lock")).expect("the lock");
    let lock: Value = serde_json::from_str(&lock).expect("its holder");
    let other = free_port().to_string();
    let refused =
        openclaw(&home).args(["health", "--json", "--port", &other]).run().exits(7).json();
    let fix = refused["error"]["fix"].as_str().expect("what to type");
    assert!(fix.contains(&format!("--port {}", lock["port"])), "{refused:#}");
}

#[test]
fn reads_the_token_over_the_login_when_told_to() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    let connect = |more: &[&str]| {
        let run = scene.dialling_by(scene.way_in()).args(["--batch", "--json"]);
        run.args(more).arg(scene.sshd.target()).run()
    };
    let without = connect(&[]).exits(8).json();
    assert_eq!(without["error"]["class"], "gateway_refused", "{without:#}");
    let fetched = connect(&["--fetch-token"]).exits(0);
    assert!(fetched.stderr.contains("token"), "reading it is said aloud: {fetched}");
    scene.laptop(&["health"]);
}

#[test]
fn the_same_name_again_edits_the_remote() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let moved = free_port();
    let status = openclaw(&scene.laptop)
        .args(dialling(&scene.sshd, scene.gateway.port(), scene.gateway.token_file()))
        .args(["--json", "--name", "vps", "--local-port", &moved.to_string()])
        .arg(scene.sshd.target())
        .run()
        .exits(0)
        .json();
    assert_eq!(status["localPort"], moved, "{status:#}");
    assert!(!listens(scene.local_port) && answers(moved, "/healthz"));
    assert_eq!(
        scene.laptop(&["remote", "list", "--json"]).json().as_array().map(Vec::len),
        Some(1)
    );
}

/// Asks `/healthz` on a connection that stays open, and returns the status line.
fn ask_again(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a read timeout");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("asking");
    let mut answer = [0; 4096];
    let count = stream.read(&mut answer).expect("an answer");
    String::from_utf8_lossy(&answer[..count]).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn an_edit_or_another_name_leaves_open_streams_alone() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let mut stream = TcpStream::connect(("127.0.0.1", scene.local_port)).expect("the local port");
    assert_eq!(ask_again(&mut stream), "HTTP/1.1 200 OK");
    let forward = format!("{}:127.0.0.1:{}", free_port(), scene.gateway.port());
    scene
        .dialling()
        .args(["--name", "vps", "-L", &forward])
        .arg(scene.sshd.target())
        .run()
        .exits(0);
    assert_eq!(ask_again(&mut stream), "HTTP/1.1 200 OK", "after an edit");
    scene.laptop(&["remote", "rename", "vps", "box"]);
    assert_eq!(ask_again(&mut stream), "HTTP/1.1 200 OK", "under another name");
    scene.laptop(&["--remote", "box", "health"]);
}

#[test]
fn what_is_meant_for_here_does_not_go_there() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    scene.laptop(&["remote", "use", "local"]);
    // Nothing listens at the local gateway's port of this home.
    let port = free_port().to_string();
    let local = openclaw(&scene.laptop)
        .args(["health", "--json"])
        .env("OPENCLAW_GATEWAY_PORT", &port)
        .run();
    assert_ne!(local.code, 0, "nothing meant for here goes to the remote: {local}");
    scene.laptop(&["--remote", "vps", "health"]);
    scene.laptop(&["remote", "use", "vps"]);
    scene.laptop(&["health"]);
}

#[test]
fn low_power_is_saved_shown_kept_and_taken_back() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let forward = format!("{}:127.0.0.1:9", free_port());
    for (words, expected) in [
        ([].as_slice(), false),
        (&["--low-power"], true),
        // An edit of something else.
        (&["-L", &forward], true),
        (&[], true),
        (&["--low-power=off"], false),
    ] {
        let run = openclaw(&scene.laptop).args(["remote", "connect", "--batch", "vps"]);
        run.args(words).run().exits(0);
        let shown = || scene.laptop(&["remote", "status", "--json"]).json()[0]["lowPower"].clone();
        assert_eq!(shown(), expected, "{words:?}");
        let saved = scene.laptop.remotes();
        let saved = &saved["remotes"]["vps"]["ssh"]["lowPower"];
        assert_eq!(saved.as_bool().unwrap_or_default(), expected, "{words:?}: {saved:#}");
        scene.laptop(&["remote", "disconnect", "vps"]);
        assert_eq!(shown(), expected, "{words:?}, and it is down");
    }
}
