//! `openclaw doctor`: what is unsafe is named with what to type, and mended where that harms nobody.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::{
    Home, OurGateway, Peer, Scene, alive, answers, free_port, guarded, openclaw, present, signal,
    wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);

/// The findings of a run that ends with `code`.
fn findings(home: &Home, arguments: &[&str], code: i32) -> Vec<Value> {
    let report = openclaw(home).args(["doctor", "--json"]).args(arguments).run().exits(code).json();
    assert_eq!(report["ok"], code == 0, "{report:#}");
    report["findings"].as_array().expect("findings").clone()
}

/// The one finding of `check` that speaks of `word`.
fn of<'a>(findings: &'a [Value], check: &str, word: &str) -> &'a Value {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    findings
        .iter()
        .find(|finding| finding["check"] == check && text(finding, "what").contains(word))
        .unwrap_or_else(|| panic!("nothing of {check} about {word}: {findings:#?}"))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

fn open_up(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changing a mode");
}

#[test]
fn names_what_is_unsafe_and_mends_what_it_may() {
    let home = Home::new();
    drop(OurGateway::start(&home));
    let own = home.state().join("rs");
    let (token, database) = (own.join("gateway-token"), own.join("state.sqlite"));
    fs::write(&token, "changeme").expect("a weak token");
    open_up(&token, 0o644);
    open_up(&database, 0o666);
    open_up(&home.state(), 0o755);
    home.write(
        "home/.openclaw/openclaw.json",
        "{gateway: {bind: 'lan', auth: {mode: 'password', password: 'hunter2'}}}",
    );

    let found = findings(&home, &[], 1);
    for path in [&token, &database, &home.state()] {
        let finding = of(&found, "modes", &path.display().to_string());
        assert_eq!(finding["severity"], "error", "{finding:#}");
        assert!(
            finding["fix"].as_str().is_some_and(|fix| fix.starts_with("chmod ")),
            "{finding:#}"
        );
    }
    of(&found, "bind", "open to the network");
    assert_eq!(of(&found, "secret", "gateway.auth.password")["severity"], "error");
    of(&found, "secret", "rs/gateway-token");
    let shown = Value::from(found).to_string();
    assert!(!shown.contains("hunter2") && !shown.contains("changeme"), "{shown}");

    // Modes are narrowed; a weak secret that clients have stays until somebody says otherwise.
    let left = findings(&home, &["--fix"], 1);
    assert!(of(&left, "modes", "gateway-token")["fixed"].is_string(), "{left:#?}");
    assert_eq!((mode(&token), mode(&database), mode(&home.state())), (0o600, 0o600, 0o700));
    assert_eq!(fs::read_to_string(&token).expect("the token"), "changeme");
    home.write("home/.openclaw/openclaw.json", "{}");
    let renewed = findings(&home, &["--fix", "--regenerate-token"], 0);
    of(&renewed, "devices", "no gateway runs");
    assert_eq!(fs::read_to_string(&token).expect("the token").trim().len(), 43);
    assert_eq!(findings(&home, &[], 0), Vec::<Value>::new());
    // What was mended starts and answers.
    let gateway = OurGateway::start(&home);
    assert!(answers(gateway.port(), "/healthz"));
}

#[test]
fn a_token_that_leaked_is_replaced_in_a_gateway_that_runs_and_opens_nothing_any_more() {
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    let old = gateway.token();
    let asks = |token: &str, code: i32| {
        let url = format!("ws://127.0.0.1:{}", gateway.port());
        let file = home.write("a-token", token);
        let file = file.to_str().expect("a path");
        let there = ["health", "--json", "--url", &url, "--token-file", file];
        openclaw(&home).args(there).run().exits(code);
    };
    asks(&old, 0);
    let invites = || {
        let there = format!("ws://127.0.0.1:{}", gateway.port());
        let file = home.write("a-token", &old);
        let file = file.to_str().expect("a path");
        let by = ["--url", &there, "--token-file", file, "--public-url", &there];
        let made = openclaw(&home).args(["devices", "join-code", "--json"]).args(by);
        let url = made.run().exits(0).json()["joinUrl"].as_str().expect("an address").to_owned();
        url[url.find("/j/").expect("its path")..].to_owned()
    };
    let (used, kept) = (invites(), invites());
    assert!(answers(gateway.port(), &used));
    // It is as strong as a token can be, and replaced all the same.
    let found = findings(&home, &["--fix", "--regenerate-token"], 0);
    assert!(of(&found, "secret", "gateway-token")["fixed"].is_string(), "{found:#?}");
    assert!(!answers(gateway.port(), &kept), "whoever had the old one may have made it");
    let new = gateway.token();
    assert_ne!(old, new);
    asks(&old, 8);
    asks(&new, 0);
    assert!(answers(gateway.port(), "/healthz"), "the same gateway goes on");
    let shown = Value::from(found).to_string();
    assert!(!shown.contains(&old) && !shown.contains(&new), "{shown}");

    // Nobody is told that it was replaced where the gateway does not listen.
    home.write("home/.openclaw/openclaw.json", "{gateway: {reload: {mode: 'off'}}}");
    let found = findings(&home, &["--fix", "--regenerate-token"], 1);
    let finding = of(&found, "secret", "still takes the old token");
    assert_eq!(finding["fix"], "openclaw gateway restart", "{finding:#}");
}

#[test]
fn a_token_that_does_not_count_is_not_replaced_in_the_place_of_one_that_does() {
    let home = Home::new();
    let mut command = guarded("env");
    command.args([
        "OPENCLAW_GATEWAY_TOKEN=a-token-of-the-environment",
        env!("CARGO_BIN_EXE_openclaw"),
    ]);
    drop(OurGateway::start(&home));
    let token = home.state().join("rs/gateway-token");
    let before = fs::read(&token).expect("the token");
    let gateway = OurGateway::start_by(&home, free_port(), command);
    let renew = |code| findings(&home, &["--fix", "--regenerate-token"], code);
    let finding = of(&renew(1), "secret", "was started with another one").clone();
    assert!(finding["fixed"].is_null(), "{finding:#}");
    drop(gateway);
    for (auth, fix) in [
        ("token: 'a token that stands in the file'", "config set gateway.auth.token"),
        ("password: 'a password that stands there'", "config set gateway.auth.password"),
        ("mode: 'trusted-proxy'", "where the proxy knows him"),
    ] {
        let config = format!("{{gateway: {{auth: {{{auth}}}}}}}");
        home.write("home/.openclaw/openclaw.json", &config);
        let found = renew(1);
        let finding = of(&found, "secret", "no token was replaced");
        assert!(finding["fix"].as_str().is_some_and(|text| text.contains(fix)), "{finding:#}");
    }
    assert_eq!(fs::read(&token).expect("the token"), before);
}

#[test]
fn the_port_of_a_tunnel_is_no_stranger_at_the_gateways_port() {
    if !present(&[Peer::OpenSsh]) {
        return;
    }
    let scene = Scene::new();
    scene.connect();
    let config = format!("{{gateway: {{port: {}}}}}", scene.local_port);
    let file = scene.laptop.write("home/.openclaw/openclaw.json", &config);
    open_up(&file, 0o600);
    let found = findings(&scene.laptop, &[], 0);
    assert_eq!(of(&found, "port", "leads to the remote `vps`")["severity"], "note");
    // A gateway does not start there, and nobody is told to stop the tunnel.
    let run = openclaw(&scene.laptop).args(["gateway", "run"]).run().exits(6);
    assert!(run.stderr.contains("leads to the remote `vps`"), "{run}");
    assert!(
        run.stderr.contains("gateway run --port PORT") && !run.stderr.contains("stop"),
        "{run}"
    );
    // It is one only as long as a remote of ours says that the port is its own.
    scene.laptop(&["remote", "remove", "vps"]);
    let _stranger = std::net::TcpListener::bind(("127.0.0.1", scene.local_port)).expect("the port");
    let found = findings(&scene.laptop, &[], 1);
    assert_eq!(of(&found, "port", "is taken by")["severity"], "error");
}

#[test]
fn a_link_is_not_followed_and_a_gateway_that_runs_is_left_alone() {
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    let elsewhere = home.write("elsewhere", "somebody's");
    open_up(&elsewhere, 0o644);
    let link = home.state().join("rs/a-link");
    std::os::unix::fs::symlink(&elsewhere, link).expect("a link");
    openclaw(&home).args(["doctor", "--fix"]).run().exits(0);
    assert_eq!(mode(&elsewhere), 0o644);
    assert!(answers(gateway.port(), "/healthz"));
}

#[test]
fn a_configuration_that_no_gateway_starts_with_is_an_error_with_its_fix() {
    for (config, word) in [
        ("{gateway: {bind: 'lan'}}", "beyond loopback"),
        ("{gateway: {tailscale: {mode: 'funnel'}}}", "funnel"),
        ("{gateway: {auth: {mode: 'trusted-proxy'}}}", "trustedProxy"),
        ("{ broken", "JSON5"),
    ] {
        let home = Home::new();
        home.write("home/.openclaw/openclaw.json", config);
        let found = findings(&home, &[], 1);
        let finding = of(&found, "config", word);
        assert!(finding["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{finding:#}");
    }
}

#[test]
fn a_database_that_was_damaged_is_named_and_nothing_is_overwritten() {
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    // Politely, so that everything is in the file and no log could bring it back.
    signal(gateway.program().pid(), Signal::SIGTERM);
    let pid = gateway.program().pid();
    wait_until("the gateway has ended", LIMIT, || (!alive(pid)).then_some(()));
    let database = home.state().join("rs/state.sqlite");
    fs::write(&database, "no database at all, but long enough to be looked at".repeat(50))
        .expect("damage");
    let before = fs::read(&database).expect("the damaged file");
    let found = findings(&home, &["--fix"], 1);
    let finding = of(&found, "store", "state.sqlite");
    assert_eq!(finding["severity"], "error", "{finding:#}");
    assert!(finding["fix"].as_str().is_some_and(|fix| !fix.is_empty()), "{finding:#}");
    assert_eq!(fs::read(&database).expect("the damaged file"), before);
}
