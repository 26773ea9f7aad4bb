//! Our commands as those of the reference gateway's owner: machines are let in, named, made to run
//! things and sent away, directly and through our tunnel.

use std::{ffi::OsString, thread, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    Home, Peer, Program, Ran, ReferenceGateway, ReferenceNode, Sshd, dialling, free_port, openclaw,
    present, request_of,
};

/// How long a node host may take for its next word; it needs seconds to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn says(program: &mut Program, words: &str) {
    if !program.prints(words, PATIENCE) {
        program.fail(&format!("did not say {words:?}"));
    }
}

/// Somebody at a laptop, and where other programs there reach the gateway.
struct Owner {
    laptop: Home,
    port: u16,
}

impl Owner {
    /// The one on the gateway's own machine, whose `openclaw.json` names it.
    fn beside(gateway: &ReferenceGateway) -> Self {
        let (laptop, port) = (Home::new(), gateway.port());
        let url = format!("ws://127.0.0.1:{port}");
        let remote = json!({ "url": url, "token": ReferenceGateway::TOKEN });
        let config = json!({ "gateway": { "mode": "remote", "remote": remote } });
        laptop.write("home/.openclaw/openclaw.json", &config.to_string());
        Self { laptop, port }
    }

    /// The one who has a tunnel to it.
    fn through(sshd: &Sshd, gateway: &ReferenceGateway) -> Self {
        let (laptop, port) = (Home::new(), free_port());
        let token = laptop.write("token", ReferenceGateway::TOKEN);
        let words = dialling(sshd, gateway.port(), &token);
        let local: [OsString; 2] = ["--local-port".into(), port.to_string().into()];
        let words = words.into_iter().chain(local).chain([sshd.target().into()]);
        openclaw(&laptop).args(words).run().exits(0);
        Self { laptop, port }
    }

    fn attempt(&self, words: &[&str]) -> Ran {
        openclaw(&self.laptop).args([words, &["--json"]].concat()).limit(PATIENCE).run()
    }

    fn says(&self, words: &[&str]) -> Value {
        self.attempt(words).exits(0).json()
    }

    /// What a command that must fail says, with its exit code.
    fn fails(&self, words: &[&str], code: i32) -> Value {
        self.attempt(words).exits(code).json()["error"].clone()
    }

    /// Everything about one machine, from its first word to its last.
    fn keeps(&self, name: &'static str) {
        let host = ReferenceNode::new(name);
        let start = || host.run(self.port, ReferenceGateway::TOKEN);
        let mut running = start();
        says(&mut running, "PAIRING_REQUIRED");
        drop(running);
        let asking = self.says(&["devices", "list"])["pending"].clone();
        let let_in = self.says(&["devices", "approve", request_of(&asking, name)]);
        let device = let_in["device"]["deviceId"].as_str().expect("its device");

        let mut running = start();
        says(&mut running, "node host gateway connected");
        let node = self.says(&["nodes", "describe", "--node", name]);
        assert_eq!((&node["nodeId"], &node["commands"]), (&json!(device), &json!([])), "{node}");
        let asking = self.says(&["nodes", "pending"]);
        let request = request_of(&asking, name);
        let list = self.says(&["nodes", "list"]);
        assert_eq!(request_of(&list["pending"], name), request, "{list}");
        self.says(&["nodes", "approve", request]);
        let node = self.says(&["nodes", "describe", "--node", name]);
        assert_eq!(
            (&node["approvalState"], &node["connected"]),
            (&json!("approved"), &json!(true))
        );

        self.uses(name, device);

        let removed = self.says(&["nodes", "remove", "--node", device]);
        assert_eq!(removed["nodeId"], device, "{removed}");
        says(&mut running, "node host gateway closed (1008)");
        let paired = self.says(&["devices", "list"])["paired"].clone();
        assert!(!paired.to_string().contains(device), "{paired:#}");
    }

    /// A machine that is there is named, and runs what it is told.
    fn uses(&self, name: &str, device: &str) {
        let (node, label) = (format!("{name}-node"), format!("{name}-device"));
        self.says(&["nodes", "rename", "--node", name, "--name", &node]);
        self.says(&["devices", "rename", "--device", device, "--name", &label]);
        let status = self.says(&["nodes", "status"]);
        assert!(status.to_string().contains(&node), "{status:#}");
        let devices = self.says(&["devices", "list"]);
        let of_label = devices["paired"].as_array().expect("a list").iter();
        let of_label = of_label.filter(|paired| paired["operatorLabel"] == label.as_str());
        assert_eq!(of_label.count(), 1, "{devices:#}");

        let which = ["nodes", "invoke", "--node", &node, "--command", "system.which", "--params"];
        let found = self.says(&[&which[..], &[r#"{"bins": ["sh", "no-such-program"]}"#]].concat());
        let bins = found["payload"]["bins"].as_object().expect("programs by name");
        assert!(bins["sh"].is_string() && bins.len() == 1, "{found}");
        let echo = json!({"nodeId": device, "command": "system.run", "idempotencyKey": name,
            "params": {"command": ["/bin/echo", name]}});
        // Two of theirs start beside it.
        let call = ["gateway", "call", "node.invoke", "--timeout", "60000", "--params"];
        let ran = self.says(&[&call[..], &[&echo.to_string()]].concat());
        assert_eq!(ran["payload"]["stdout"], format!("{name}\n"), "{ran}");

        let run = [&which[..5], &["system.run", "--params", r#"{"command": ["id"]}"#]].concat();
        assert_eq!(self.fails(&run, 2)["class"], "usage");
        assert_eq!(self.fails(&["nodes", "describe", "--node", "nobody"], 2)["class"], "usage");
        for nobody in [["devices", "approve", "nobody"], ["nodes", "approve", "nobody"]] {
            let error = self.fails(&nobody, 1);
            assert_eq!(error["class"], "rpc", "{error:#}");
            assert!(error["message"].as_str().is_some_and(|it| it.contains("unknown requestId")));
        }
    }
}

#[test]
fn the_owner_of_a_reference_gateway_keeps_machines_by_our_commands_directly_and_by_tunnel() {
    if !present(&[Peer::OpenClaw, Peer::OpenSsh]) {
        return;
    }
    // Otherwise it pairs whatever comes from its own machine without a word.
    let asks = r#""nodes": {"pairing": {"autoApproveLocal": false}}"#;
    let gateway = ReferenceGateway::start_with("asking", asks);
    let sshd = Sshd::start(&[]);
    let (near, far) = (Owner::beside(&gateway), Owner::through(&sshd, &gateway));
    thread::scope(|scope| {
        scope.spawn(|| near.keeps("near"));
        far.keeps("far");
    });
}
