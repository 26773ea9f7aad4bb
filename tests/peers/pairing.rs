//! `openclaw pairing` against the reference gateway, whose channel asks before it lets people in, and
//! against ours, which has no channels.

use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Home, OurGateway, Peer, Ran, ReferenceCli, ReferenceGateway, openclaw, present, start_script,
};

/// How long a script, and a message that cannot be sent, may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// A channel with two accounts and nobody behind its address.
const CHANNEL: &str = r#""channels": { "telegram": {
    "enabled": true, "apiRoot": "http://127.0.0.1:9",
    "accounts": { "default": { "botToken": "1:none" }, "work": { "botToken": "2:none" } } } }"#;

/// Our program on a laptop that knows a gateway's token.
struct Laptop {
    home: Home,
    port: String,
}

impl Laptop {
    fn of(port: u16, token: &str) -> Self {
        let home = Home::new();
        home.write("token", token);
        Self { home, port: port.to_string() }
    }

    fn pairing(&self, words: &[&str]) -> Ran {
        let token = self.home.path("token");
        let (command, words) = words.split_first().expect("a command");
        let ran = openclaw(&self.home).args(["pairing", command, "--port", &self.port]);
        let ran = ran.args(["--timeout", "60000"]).arg("--token-file").arg(token);
        ran.args(words).limit(PATIENCE).run()
    }

    fn waiting(&self, words: &[&str]) -> Vec<Value> {
        let list = self.pairing(&[&["list", "--json"], words].concat()).exits(0).json();
        assert_eq!(list["channel"], "telegram", "{list}");
        list["requests"].as_array().expect("a list of requests").clone()
    }
}

/// The ids of the senders that wait.
fn senders(requests: &[Value]) -> Vec<&str> {
    requests.iter().filter_map(|request| request["id"].as_str()).collect()
}

#[test]
fn people_are_let_in_and_dismissed_at_the_reference_gateway() {
    if !present(&[Peer::OpenClaw]) {
        return;
    }
    let gateway = ReferenceGateway::start_configured("pairing", CHANNEL);
    let laptop = Laptop::of(gateway.port(), ReferenceGateway::TOKEN);
    assert!(laptop.waiting(&[]).is_empty());

    let state = ("STATE", gateway.home().join(".openclaw").display().to_string());
    let mut asks = start_script("pairing.mjs", gateway.port(), "", state);
    if !asks.prints("done\n", PATIENCE) {
        asks.fail("nobody could ask");
    }
    let log = asks.log();
    let code = |sender: &str| {
        let (_, rest) = log.split_once(&format!("code of {sender}: ")).expect("its code");
        rest.split('.').next().unwrap_or_default().to_owned()
    };

    let all = laptop.waiting(&["telegram"]);
    assert_eq!(senders(&all), ["4242", "777", "9"]);
    assert_eq!(
        (&all[0]["meta"]["username"], &all[0]["meta"]["accountId"]),
        (&Value::from("user-4242"), &Value::from("default"))
    );
    assert_eq!(senders(&laptop.waiting(&["--channel", "telegram", "--account", "work"])), ["9"]);
    let shown = laptop.pairing(&["list"]).exits(0);
    let command = all[0]["requestId"].as_str().expect("its id");
    assert!(shown.stdout.contains("telegramUserId 4242 (user-4242) asks"), "{shown}");
    assert!(shown.stdout.contains(command), "{shown}");
    assert!(shown.stderr.contains("--owner"), "{shown}");

    // A code says nothing to a gateway, and lets nobody in.
    let by_code = laptop.pairing(&["approve", "telegram", &code("4242"), "--json"]).exits(1).json();
    let message = by_code["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("which code is whose"), "{by_code}");
    assert_eq!(laptop.waiting(&[]).len(), 3);

    let first = laptop.pairing(&["approve", "4242", "--owner", "--json"]).exits(0).json();
    assert_eq!(
        (&first["senderId"], &first["commandOwnerBootstrap"]),
        (&Value::from("4242"), &Value::from("configured"))
    );
    let id = all[2]["requestId"].as_str().expect("its id");
    let words = ["approve", "--channel", "telegram", "--account", "work", "--notify", "--", id];
    let second = laptop.pairing(&words).exits(0);
    assert!(second.stdout.contains("approved 9 of telegram"), "{second}");
    assert!(second.stderr.contains("could not be told"), "{second}");

    // The gateway's own program sees the same, and lets the last one in by the code.
    let owner = ReferenceCli::beside(&gateway);
    let theirs = owner.theirs(&["pairing", "list", "telegram"]);
    assert_eq!(senders(theirs["requests"].as_array().expect("a list")), ["777"]);
    assert_eq!(theirs["requests"][0]["code"], code("777").as_str());
    let dismissed = laptop.pairing(&["dismiss", "777"]).exits(0);
    assert!(dismissed.stdout.contains("dismissed 777 of telegram"), "{dismissed}");
    let nobody = laptop.pairing(&["list"]).exits(0);
    assert!(nobody.stdout.contains("nobody waits to be let in by telegram"), "{nobody}");
    let gone = laptop.pairing(&["dismiss", "777", "--json"]).exits(1).json();
    assert_eq!(gone["error"]["class"], "rpc", "{gone}");

    let unknown = laptop.pairing(&["list", "carrier-pigeon", "--json"]).exits(1).json();
    let message = unknown["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("unknown pairing channel"), "{unknown}");
}

#[test]
fn a_gateway_without_channels_is_said_to_have_none() {
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    let laptop = Laptop::of(gateway.port(), &gateway.token());
    for words in [&["list"][..], &["list", "telegram"], &["approve", "x"], &["dismiss", "x"]] {
        let told = laptop.pairing(&[words, &["--json"]].concat()).exits(1).json();
        let message = told["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("it has no channels"), "{told}");
        let fix = told["error"]["fix"].as_str().unwrap_or_default();
        assert!(fix.starts_with("openclaw devices list"), "{told}");
    }
    for words in [
        &["list", "--account", " "][..],
        &["list", "tele gram"],
        &["list", "telegram", "--channel", "imap"],
        &["approve", "telegram", "x", "--channel", "telegram"],
        &["approve"],
    ] {
        let told = laptop.pairing(&[words, &["--json"]].concat()).exits(2).json();
        assert_eq!(told["error"]["class"], "usage", "{told}");
    }
}

#[test]
fn the_reference_gateway_without_channels_is_said_to_ask_nobody() {
    if !present(&[Peer::OpenClaw]) {
        return;
    }
    let gateway = ReferenceGateway::start();
    let laptop = Laptop::of(gateway.port(), ReferenceGateway::TOKEN);
    let told = laptop.pairing(&["list", "--json"]).exits(1).json();
    let message = told["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("asks before it lets people in"), "{told}");
}
