//! A gateway that Tailscale publishes, with a program in its place that answers as the real one.
//!
//! The door for Tailscale has a port that the gateway chooses, and no tap gets in front of it: whoever
//! knocks here is a `Wire`, which holds what it reads against the published schema.

use std::{fs, os::unix::fs::symlink, path::PathBuf, process::Command, time::Duration};

use nix::{sys::signal::Signal, unistd::Pid};
use serde_json::{Value, json};

use crate::support::{
    Device, Home, Peer, Program, Wire, alive, answers, built, connect, free_port, guarded, listens,
    present, run_to_end, signal, wait_until,
};

const LIMIT: Duration = Duration::from_secs(20);
/// Where whoever asks is on the tailnet.
const ADDRESS: &str = "100.64.0.9";
const LOGIN: &str = "me@example.com";

/// A machine with a gateway that Tailscale shall publish.
struct Tailnet {
    home: Home,
    port: u16,
}

impl Tailnet {
    fn new(config: &str) -> Self {
        let home = Home::new();
        home.write("home/.openclaw/openclaw.json", config);
        home.write(&format!("tailnet/whois/{ADDRESS}"), LOGIN);
        fs::create_dir_all(home.path("bin")).expect("a folder for programs");
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/support/tailscale");
        symlink(program, home.path("bin/tailscale")).expect("the program in Tailscale's place");
        Self { home, port: free_port() }
    }

    fn command(&self, mut command: Command) -> Command {
        self.home.furnish(&mut command);
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.home.path("bin").display()));
        command.env("STAND_IN", self.home.path("tailnet"));
        command.args(["gateway", "run", "--port", &self.port.to_string()]);
        command
    }

    fn start(&self) -> Program {
        let mut program = Program::start("our gateway", self.command(guarded(built())));
        if !program.prints("gateway ready", LIMIT) {
            program.fail("did not become ready");
        }
        program
    }

    /// A start that is refused: its exit code and what it says.
    fn refused(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut command = self.command(Command::new(built()));
        command.args(more);
        let output = run_to_end(command, LIMIT);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn route(&self) -> Option<u16> {
        let url = fs::read_to_string(self.home.path("tailnet/route")).ok()?;
        url.trim().rsplit_once(':')?.1.parse().ok()
    }

    /// The process in the foreground that holds the way.
    fn holder(&self) -> Pid {
        let text = fs::read_to_string(self.home.path("tailnet/pid")).expect("a process");
        Pid::from_raw(text.trim().parse().expect("a process"))
    }

    /// Says `connect` at a port, with headers as Tailscale adds them; the details of the refusal.
    async fn knocks(&self, port: u16, headers: &[(&str, &str)], device: Option<&Device>) -> Value {
        let (mut wire, asked) = Wire::open_with(port, headers).await.expect("a challenge");
        let mut params = connect(&json!({}));
        if let Some(device) = device {
            device.sign(&mut params, &asked);
        }
        let answer = wire.call("connect", params).await.expect("an answer");
        answer["error"]["details"].clone()
    }
}

/// What Tailscale adds for `login`.
fn served(login: &str) -> Vec<(&str, &str)> {
    vec![
        ("host", "box.tail1.ts.net"),
        ("x-forwarded-for", ADDRESS),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "box.tail1.ts.net"),
        ("tailscale-user-login", login),
    ]
}

#[tokio::test]
async fn the_word_of_tailscale_counts_at_its_own_door_and_only_once_verified() {
    let tailnet = Tailnet::new("{gateway: {tailscale: {mode: 'serve'}}}");
    let mut gateway = tailnet.start();
    assert!(gateway.prints("wss://box.tail1.ts.net", LIMIT), "{}", gateway.log());
    let door = tailnet.route().expect("a way");
    assert_ne!(door, tailnet.port, "a listener of its own");
    let device = Device::new(1);
    // Verified, it stands for the secret, and the device asks like any other.
    let asks = tailnet.knocks(door, &served("Me@Example.com"), Some(&device)).await;
    assert_eq!(asks["code"], "PAIRING_REQUIRED", "{asks}");
    let bare = tailnet.knocks(door, &served(LOGIN), None).await;
    assert_eq!(bare["code"], "DEVICE_IDENTITY_REQUIRED", "{bare}");
    let other = tailnet.knocks(door, &served("eve@example.com"), Some(&device)).await;
    assert_eq!(other["code"], "AUTH_TAILSCALE_IDENTITY_MISMATCH", "{other}");
    let mut elsewhere = served(LOGIN);
    elsewhere[1].1 = "100.64.0.10";
    let unknown = tailnet.knocks(door, &elsewhere, Some(&device)).await;
    assert_eq!(unknown["code"], "AUTH_TAILSCALE_WHOIS_FAILED", "{unknown}");
    // At the usual door the same headers buy nothing, and cost what loopback gives.
    let mut usual = served(LOGIN);
    usual[0].1 = "127.0.0.1";
    let nothing = tailnet.knocks(tailnet.port, &usual, Some(&device)).await;
    assert_eq!(nothing["code"], "AUTH_TOKEN_MISSING", "{nothing}");
    // What did not come through Tailscale has no business at its door.
    let direct = tailnet.knocks(door, &[], Some(&device)).await;
    assert_eq!(direct["authReason"], "proxy_attribution_required", "{direct}");
    let mut public = served(LOGIN);
    public.push(("tailscale-funnel-request", "?1"));
    let public = tailnet.knocks(door, &public, Some(&device)).await;
    assert_eq!(public["authReason"], "proxy_attribution_required", "{public}");
    assert!(Wire::open_with(door, &[("host", "evil.example")]).await.is_err(), "DNS rebinding");
}

#[tokio::test]
async fn without_consent_tailscales_word_stands_for_nothing() {
    for more in ["auth: {allowTailscale: false},", "auth: {mode: 'password', password: 'secret'},"]
    {
        let tailnet =
            Tailnet::new(&format!("{{gateway: {{{more} tailscale: {{mode: 'serve'}}}}}}"));
        let _gateway = tailnet.start();
        let door = tailnet.route().expect("a way");
        let refused = tailnet.knocks(door, &served(LOGIN), Some(&Device::new(1))).await;
        let code = refused["code"].as_str().unwrap_or_default();
        assert!(code.ends_with("_MISSING"), "{more}: {refused}");
        let calls = fs::read_to_string(tailnet.home.path("tailnet/calls")).expect("calls");
        assert!(!calls.contains("whois"), "{calls}");
    }
}

#[test]
fn the_way_is_watched_and_opened_again_and_goes_with_its_gateway() {
    for end in [Signal::SIGTERM, Signal::SIGKILL] {
        let tailnet = Tailnet::new("{gateway: {tailscale: {mode: 'serve'}}}");
        let gateway = tailnet.start();
        let first = tailnet.holder();
        signal(first, Signal::SIGKILL);
        wait_until("another one holds the way", LIMIT, || {
            (tailnet.holder() != first && alive(tailnet.holder())).then_some(())
        });
        assert!(answers(tailnet.port, "/healthz"));
        let second = tailnet.holder();
        signal(gateway.pid(), end);
        wait_until("the way is given back", LIMIT, || (!alive(second)).then_some(()));
        wait_until("nothing leads here", LIMIT, || tailnet.route().is_none().then_some(()));
        wait_until("the gateway has ended", LIMIT, || (!listens(tailnet.port)).then_some(()));
    }
}

#[test]
fn a_way_whose_program_says_much_on_standard_error_is_opened_all_the_same() {
    let tailnet = Tailnet::new("{gateway: {tailscale: {mode: 'serve'}}}");
    tailnet.home.write("tailnet/chatty", "");
    let mut gateway = tailnet.start();
    assert!(gateway.prints("wss://box.tail1.ts.net", LIMIT), "{}", gateway.log());
}

#[test]
fn a_daemon_that_is_on_its_way_up_is_waited_for() {
    let tailnet = Tailnet::new("{gateway: {tailscale: {mode: 'serve'}}}");
    tailnet.home.write("tailnet/state", "deaf");
    let mut program = Program::start("our gateway", tailnet.command(guarded(built())));
    wait_until("it asks", LIMIT, || {
        fs::read_to_string(tailnet.home.path("tailnet/calls")).ok().filter(|it| !it.is_empty())
    });
    assert!(!program.has_ended());
    // Whoever ends it meanwhile need not wait.
    signal(program.pid(), Signal::SIGTERM);
    wait_until("it ends", LIMIT, || program.has_ended().then_some(()));
    let mut program = Program::start("our gateway", tailnet.command(guarded(built())));
    tailnet.home.write("tailnet/state", "Running");
    assert!(program.prints("gateway ready", LIMIT), "{}", program.log());
    assert!(tailnet.route().is_some());
}

#[test]
fn what_a_person_must_see_to_is_named_with_what_to_type() {
    let serve = "{gateway: {tailscale: {mode: 'serve'}}}";
    for (file, text, expected, fix) in [
        ("tailnet/state", "NeedsLogin", "NeedsLogin", "tailscale up"),
        ("tailnet/busy", "443", "already exists for port 443", "tailscale serve status --json"),
    ] {
        let tailnet = Tailnet::new(serve);
        tailnet.home.write(file, text);
        let (code, said) = tailnet.refused(&[]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(expected) && said.contains(fix), "{said}");
        assert_eq!(tailnet.route(), None);
    }
    for (config, expected) in [
        ("{gateway: {tailscale: {mode: 'funnel'}}}", "gateway.auth.mode `password`"),
        (
            "{gateway: {auth: {mode: 'none'}, tailscale: {mode: 'serve'}}}",
            "gateway.auth.mode `none`",
        ),
        (
            "{gateway: {bind: 'lan', auth: {token: 'a-token-for-tests-0123456789'}, \
             tailscale: {mode: 'serve'}}}",
            "gateway.bind",
        ),
    ] {
        let tailnet = Tailnet::new(config);
        let (code, said) = tailnet.refused(&[]);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}

#[tokio::test]
async fn funnel_leads_everybody_to_the_question_for_the_password() {
    let config = "{gateway: {auth: {mode: 'password', password: 'a-password-for-tests-0123'}, \
                  tailscale: {mode: 'funnel'}}}";
    let tailnet = Tailnet::new(config);
    let mut command = tailnet.command(guarded(built()));
    command.env("OPENCLAW_GATEWAY_PASSWORD", "another-password-0123456789");
    let mut gateway = Program::start("our gateway", command);
    assert!(gateway.prints("gateway ready", LIMIT), "{}", gateway.log());
    let calls = fs::read_to_string(tailnet.home.path("tailnet/calls")).expect("calls");
    assert!(
        calls.lines().any(|call| call.starts_with("funnel --yes --bg=false http://127.0.0.1:"))
    );
    let mut public = served(LOGIN);
    public.push(("tailscale-funnel-request", "?1"));
    let door = tailnet.route().expect("a way");
    let refused = tailnet.knocks(door, &public, Some(&Device::new(1))).await;
    assert_eq!(refused["code"], "AUTH_PASSWORD_MISSING", "{refused}");
}

/// Runs `words` in the network of `pid`.
fn within(pid: Pid, words: &[&str]) -> bool {
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid.to_string(), "-n"]).args(words);
    run_to_end(command, LIMIT).status.success()
}

#[test]
fn a_tailscale_address_that_comes_after_the_gateway_is_listened_on() {
    if !present(&[Peer::Namespaces]) {
        return;
    }
    let tailnet = Tailnet::new("{gateway: {bind: 'tailnet', auth: {token: 'a-token-0123456789'}}}");
    let mut outer = guarded("unshare");
    tailnet.home.furnish(&mut outer);
    outer.args(["--net", "sh", "-c", "ip link set lo up; exec \"$0\" gateway run --port \"$1\""]);
    outer.arg(built()).arg(tailnet.port.to_string());
    let mut gateway = Program::start("our gateway", outer);
    assert!(gateway.prints("gateway ready", LIMIT), "{}", gateway.log());
    let pid = gateway.pid();
    assert!(within(
        pid,
        &["ip", "link", "add", "tailscale0", "type", "veth", "peer", "name", "far0"]
    ));
    assert!(within(pid, &["ip", "address", "add", "100.64.0.7/32", "dev", "tailscale0"]));
    assert!(within(pid, &["ip", "link", "set", "tailscale0", "up"]));
    assert!(gateway.prints("listening on the Tailscale address", LIMIT), "{}", gateway.log());
    let url = format!("http://100.64.0.7:{}/healthz", tailnet.port);
    assert!(within(pid, &["curl", "--silent", "--fail", "--max-time", "10", &url]));
}

#[test]
fn an_address_that_is_not_there_yet_is_no_broken_configuration() {
    let config = "{gateway: {bind: 'custom', customBindHost: '192.0.2.77', \
                  auth: {token: 'a-token-for-tests-0123'}}}";
    let tailnet = Tailnet::new(config);
    let mut command = tailnet.command(Command::new(built()));
    command.env("INVOCATION_ID", "of-a-service");
    let output = run_to_end(command, LIMIT);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "a service is started again: {said}");
    assert!(said.contains("192.0.2.77"), "{said}");
}
