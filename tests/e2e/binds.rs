//! Where the program listens: each mode of `gateway.bind` in a network of its own.
//!
//! Nobody opens a WebSocket here; what answers is `/healthz`.

use std::{fs, net::Ipv4Addr, time::Duration};

use nix::unistd::Pid;

use crate::support::{Home, Peer, Program, built, free_port, guarded, present, run_to_end};

const LIMIT: Duration = Duration::from_secs(20);
/// The addresses of the network, beside loopback.
const NEAR: [&str; 2] = ["192.0.2.7", "192.0.2.8"];
/// `TCP_LISTEN` as Linux prints it in /proc/net/tcp.
const LISTENING: &str = "0A";
/// Makes the network, and becomes the gateway; `$2` says whether there is a loopback.
const NETWORK: &str = "test \"$2\" = no || ip link set lo up; \
    ip link add near0 type veth peer name far0 && \
    ip address add 192.0.2.7/24 dev near0 && ip address add 192.0.2.8/24 dev near0 && \
    ip link set near0 up && exec \"$0\" gateway run --port \"$1\"";

/// A gateway in a network of its own.
struct Place {
    gateway: Program,
    port: u16,
    _home: Home,
}

impl Place {
    fn begin(keys: &str, loopback: &str) -> Self {
        let home = Home::new();
        home.write("home/.openclaw/openclaw.json", &format!("{{gateway: {{{keys}}}}}"));
        let port = free_port();
        let mut outer = guarded("unshare");
        home.furnish(&mut outer);
        outer.args(["--net", "sh", "-c", NETWORK]).arg(built());
        outer.args([&port.to_string(), loopback]);
        Self { gateway: Program::start("our gateway", outer), port, _home: home }
    }

    fn start(keys: &str, loopback: &str) -> Self {
        let mut place = Self::begin(keys, loopback);
        if !place.gateway.prints("gateway ready", LIMIT) {
            place.gateway.fail("did not become ready");
        }
        place
    }

    /// Whether `/healthz` answers at an address, asked from inside.
    fn answers(&self, address: &str) -> bool {
        let mut command = std::process::Command::new("nsenter");
        let url = format!("http://{address}:{}/healthz", self.port);
        command.args(["-t", &self.gateway.pid().to_string(), "-n", "curl", "--silent", "--fail"]);
        command.args(["--noproxy", "*", "--max-time", "10", &url]);
        run_to_end(command, LIMIT).status.success()
    }

    /// Every IPv4 address that something in the network listens on.
    fn listens_on(&self) -> Vec<Ipv4Addr> {
        let pid: Pid = self.gateway.pid();
        let table = fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("its sockets");
        let mut found: Vec<_> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words.get(3) == Some(&LISTENING))
            .filter_map(|words| {
                let (address, port) = words.get(1)?.split_once(':')?;
                let is_ours = u16::from_str_radix(port, 16).ok()? == self.port;
                let bits = u32::from_str_radix(address, 16).ok()?;
                is_ours.then(|| Ipv4Addr::from(bits.to_ne_bytes()))
            })
            .collect();
        found.sort();
        found
    }
}

#[test]
fn each_mode_listens_where_it_says_and_nowhere_else() {
    if !present(&[Peer::Namespaces]) {
        return;
    }
    let secret = "auth: {token: 'a-token-for-tests-0123456789'}";
    let local = Ipv4Addr::LOCALHOST;
    let near: Ipv4Addr = NEAR[0].parse().expect("an address");
    let all = Ipv4Addr::UNSPECIFIED;
    for (keys, loopback, expected) in [
        ("bind: 'loopback'", "yes", vec![local]),
        ("bind: 'auto'", "yes", vec![local]),
        ("bind: 'lan'", "yes", vec![all]),
        ("bind: 'custom', customBindHost: '192.0.2.7'", "yes", vec![local, near]),
        // Nothing but the network is there.
        ("bind: 'auto'", "no", vec![all]),
    ] {
        let place = Place::start(&format!("{keys}, {secret}"), loopback);
        assert_eq!(place.listens_on(), expected, "{keys}: {}", place.gateway.log());
        if loopback == "no" {
            continue;
        }
        for address in ["127.0.0.1", NEAR[0], NEAR[1]] {
            let parsed: Ipv4Addr = address.parse().expect("an address");
            let is_due = expected == [all] || expected.contains(&parsed);
            assert_eq!(place.answers(address), is_due, "{keys}: {address}");
        }
    }
    // Where `auto` ends up beyond loopback, somebody has to have chosen a secret.
    let mut place = Place::begin("bind: 'auto'", "no");
    assert!(place.gateway.prints("beyond loopback", LIMIT), "{}", place.gateway.log());
}
