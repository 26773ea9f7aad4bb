//! A disk that is full, and one that cannot be written.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    mounts::{SmallDisk, of_our_own},
    support::{
        Home, OurGateway, Peer, Scene, alive, answers, dialling, openclaw, present, signal,
        status_of, wait_until,
    },
};

const LIMIT: Duration = Duration::from_secs(20);

fn ready() -> bool {
    present(&[Peer::OpenSsh, Peer::Namespaces])
}

#[test]
fn a_full_disk_stops_no_tunnel_and_loses_no_definition() {
    if !ready() {
        return;
    }
    of_our_own(|| {
        let scene = Scene::new();
        let disk = SmallDisk::under(&scene.laptop);
        scene.connect();
        let saved = scene.laptop.remotes();
        disk.fill();
        assert!(scene.sshd.kill_sessions() > 0);
        let killed = Instant::now();
        wait_until("the path is back", LIMIT, || {
            answers(scene.local_port, "/healthz").then_some(())
        });
        eprintln!("served {:?} after the kill, on a full disk", killed.elapsed());
        scene.laptop(&["health"]);
        let words = dialling(&scene.sshd, scene.gateway.port(), scene.gateway.token_file());
        let failed = openclaw(&scene.laptop).args(words).args(["--json", "--name", "other"]);
        let failed = failed.arg(scene.sshd.target()).run();
        assert_ne!(failed.code, 0, "{failed}");
        let error = &failed.json()["error"];
        let message = error["message"].as_str().unwrap_or_default().to_lowercase();
        assert!(message.contains("the disk is full"), "{failed}");
        assert!(error["fix"].is_string(), "{failed}");
        assert_eq!(scene.laptop.remotes(), saved, "the old definitions are whole");
        disk.clear();
        scene.laptop(&["remote", "connect", "vps", "--batch"]);
        scene.laptop(&["health"]);
        assert_eq!(scene.laptop.remotes(), saved);
    });
}

#[test]
fn a_home_that_cannot_be_written_serves_what_is_saved_and_names_what_it_cannot_do() {
    if !ready() {
        return;
    }
    of_our_own(|| {
        let scene = Scene::new();
        let disk = SmallDisk::under(&scene.laptop);
        scene.connect();
        let saved = scene.laptop.remotes();
        scene.laptop.stop_supervisor().expect("it ends");
        disk.lock();
        scene.laptop(&["health"]);
        let ran = openclaw(&scene.laptop).args(["remote", "status", "--json"]).run().exits(0);
        assert_eq!(ran.json()[0]["phase"], "live", "{ran}");
        let words = dialling(&scene.sshd, scene.gateway.port(), scene.gateway.token_file());
        let failed = openclaw(&scene.laptop).args(words).args(["--json", "--name", "other"]);
        let failed = failed.arg(scene.sshd.target()).run().exits(2);
        let error = &failed.json()["error"];
        let message = error["message"].as_str().unwrap_or_default();
        assert!(message.ends_with("the file system is read-only"), "{failed}");
        let fix = error["fix"].as_str().unwrap_or_default();
        assert!(fix.contains("OPENCLAW_STATE_DIR"), "{failed}");
        // It could not write its process id down.
        let there = scene.laptop.processes();
        for (pid, _) in &there {
            signal(*pid, Signal::SIGTERM);
        }
        wait_until("the end of the supervisor", LIMIT, || {
            there.iter().all(|(pid, _)| !alive(*pid)).then_some(())
        });
        disk.unlock();
        scene.laptop(&["remote", "connect", "vps", "--batch"]);
        scene.laptop(&["health"]);
        assert_eq!(scene.laptop.remotes(), saved);
    });
}

#[test]
fn a_gateway_on_a_full_disk_says_so_and_is_ready_again_when_there_is_room() {
    if !present(&[Peer::Namespaces]) {
        return;
    }
    of_our_own(|| {
        let home = Home::new();
        let disk = SmallDisk::under(&home);
        let gateway = OurGateway::start(&home);
        let port = gateway.port().to_string();
        let becomes = |what: &str, status: u16| {
            wait_until(what, LIMIT, || {
                let found = status_of(gateway.port(), "/readyz", LIMIT);
                (found.ok() == Some(status)).then_some(())
            });
        };
        let call = |method: &str, params: &Value| {
            let words = ["gateway", "call", method, "--json", "--port", &port];
            openclaw(&home).args(words).args(["--params", &params.to_string()]).run()
        };
        let before = call("config.get", &json!({})).exits(0).json();
        disk.fill();
        becomes("it is not ready", 503);
        assert!(call("health", &json!({})).exits(0).json()["ok"].is_null());
        let raw = r#"{gateway: {controlUi: {allowedOrigins: ["https://a.example"]}}}"#;
        let patch = json!({ "raw": raw, "baseHash": before["hash"] });
        let refused = call("config.patch", &patch);
        let error = &refused.json()["error"];
        assert_eq!(error["code"], "UNAVAILABLE", "{refused}");
        let message = error["message"].as_str().unwrap_or_default().to_lowercase();
        assert!(message.contains("the disk is full"), "{refused}");
        disk.clear();
        becomes("it is ready again", 200);
        assert_eq!(call("health", &json!({})).exits(0).json()["ok"], true);
        assert_eq!(call("config.patch", &patch).exits(0).json()["ok"], true);
    });
}
