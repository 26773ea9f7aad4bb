//! Our client as a device: asked about by a gateway that takes it for a stranger, approved, and back
//! with the token that it was given; with the reference gateway and with ours.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    Home, OurGateway, Peer, Ran, ReferenceCli, ReferenceGateway, openclaw, present,
};

/// More wrong secrets than any gateway hears out.
const MOST_GUESSES: usize = 30;
/// The longest head of a request.
const MAX_HEAD: usize = 16 * 1024;

/// Leads to a gateway and says, as proxies do, that it speaks for a machine elsewhere. It ends with
/// the process.
fn proxy_to(port: u16) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for the proxy");
    let own = listener.local_addr().expect("its address").port();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || forward(client, port));
        }
    });
    own
}

/// One connection; whichever side ends, both do.
fn forward(mut client: TcpStream, port: u16) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < MAX_HEAD {
        let mut byte = [0];
        client.read_exact(&mut byte).ok()?;
        head.extend(byte);
    }
    let mut gateway = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    let words = head.strip_suffix(b"\r\n")?;
    gateway.write_all(words).ok()?;
    gateway.write_all(b"X-Forwarded-For: 203.0.113.9\r\n\r\n").ok()?;
    let (mut to, mut from) = (gateway.try_clone().ok()?, client.try_clone().ok()?);
    thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut to));
        drop(to.shutdown(std::net::Shutdown::Both));
    });
    drop(std::io::copy(&mut gateway, &mut client));
    drop(client.shutdown(std::net::Shutdown::Both));
    Some(())
}

/// A laptop whose `openclaw.json` names a gateway, and what somebody at the gateway types.
struct Story<'a> {
    laptop: Home,
    port: u16,
    owner: &'a dyn Fn(&[&str]) -> Value,
}

impl Story<'_> {
    /// What the laptop is told of the gateway, with its secret or without.
    fn configure(&self, token: Option<&str>) {
        let url = format!("ws://127.0.0.1:{}", self.port);
        let config = json!({"gateway": {"mode": "remote", "remote": {"url": url, "token": token}}});
        self.laptop.write("home/.openclaw/openclaw.json", &config.to_string());
    }

    fn asks(&self) -> Ran {
        let ran = openclaw(&self.laptop).args(["gateway", "call", "status", "--json"]);
        ran.limit(Duration::from_secs(40)).run()
    }

    fn tells(&self, token: &str) {
        self.configure(Some(token));
        let refused = self.asks().exits(8);
        let asking = (self.owner)(&["devices", "list"])["pending"].clone();
        let request = asking.pointer("/0/requestId").and_then(Value::as_str);
        let request = request.unwrap_or_else(|| panic!("nobody asks: {asking}\n{refused}"));
        assert!(refused.stdout.contains(&format!("devices approve {request}")), "{refused}");
        (self.owner)(&["devices", "approve", request]);
        self.asks().exits(0);

        // From now on without the gateway's secret.
        let tokens = self.laptop.state().join("rs/device-tokens.json");
        let mode = fs::metadata(&tokens).expect("the token is kept").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!fs::read_to_string(&tokens).expect("the tokens").contains(token));
        self.configure(None);
        self.asks().exits(0);

        // A neighbour who tries one wrong secret after the other shuts out the secret, not the token.
        self.configure(Some(token));
        let is_shut = (0..MOST_GUESSES).any(|turn| {
            let guess = self.guesses(&format!("wrong-{turn}"));
            assert_eq!(guess.code, 8, "{guess}");
            guess.stdout.contains("AUTH_RATE_LIMITED")
        });
        assert!(is_shut, "nobody counts");
        self.asks().exits(0);
    }

    /// A stranger's login on the same way, with `secret`.
    fn guesses(&self, secret: &str) -> Ran {
        let stranger = Home::new();
        let file = stranger.write("secret", secret);
        let url = format!("ws://127.0.0.1:{}", self.port);
        let ran = openclaw(&stranger).args(["gateway", "call", "status", "--json", "--url", &url]);
        ran.arg("--token-file").arg(file).limit(Duration::from_secs(40)).run()
    }

    /// The token is narrowed and then taken back: the gateway's secret still gets the laptop in.
    fn loses(&self, token: &str) {
        self.configure(Some(token));
        let refused = self.asks().exits(8);
        let asking = (self.owner)(&["devices", "list"])["pending"].clone();
        let text = |key: &str| asking.pointer(key).and_then(Value::as_str).map(str::to_owned);
        let request = text("/0/requestId").unwrap_or_else(|| panic!("nobody asks: {refused}"));
        let device = text("/0/deviceId").expect("its device");
        (self.owner)(&["devices", "approve", &request]);
        self.asks().exits(0);
        let named = ["--device", device.as_str(), "--role", "operator"];
        let narrow = [&["devices", "rotate"], &named[..], &["--scope", "operator.read"]].concat();
        (self.owner)(&narrow);
        // The first login has the old token refused, and the next one what it was given instead, if
        // that is too narrow.
        for _ in 0..2 {
            self.asks().exits(0);
        }

        let tokens = self.laptop.state().join("rs/device-tokens.json");
        let read = || fs::read_to_string(&tokens).expect("the tokens");
        let before = read();
        (self.owner)(&[&["devices", "revoke"], &named[..]].concat());
        self.configure(None);
        self.asks().exits(8);
        assert_eq!(read(), before, "who refused it may have been anybody");
        self.configure(Some(token));
        self.asks().exits(8);
        let asking = (self.owner)(&["devices", "list"])["pending"].clone();
        let request = asking.pointer("/0/requestId").and_then(Value::as_str);
        (self.owner)(&["devices", "approve", request.expect("it asks again")]);
        self.asks().exits(0);
        assert_ne!(read(), before, "the dead token is replaced");
    }
}

#[test]
fn the_reference_gateway_approves_our_device_and_takes_its_token() {
    if !present(&[Peer::OpenClaw]) {
        return;
    }
    // It refuses what comes through a proxy that it was not told of.
    let proxies = r#""trustedProxies": ["127.0.0.1"]"#;
    let reference = ReferenceGateway::start_with("trusting", proxies);
    let cli = ReferenceCli::through(reference.port());
    let owner = |words: &[&str]| cli.attempt(&[words, &["--json"]].concat()).exits(0).json();
    let port = proxy_to(reference.port());
    Story { laptop: Home::new(), port, owner: &owner }.loses(ReferenceGateway::TOKEN);
    Story { laptop: Home::new(), port, owner: &owner }.tells(ReferenceGateway::TOKEN);
}

#[test]
fn our_gateway_approves_our_device_and_takes_its_token() {
    let home = Home::new();
    let gateway = OurGateway::start(&home);
    let at = gateway.port().to_string();
    let owner = |words: &[&str]| {
        let words = [words, &["--port", &at, "--json"]].concat();
        openclaw(&home).args(words).run().exits(0).json()
    };
    let port = proxy_to(gateway.port());
    Story { laptop: Home::new(), port, owner: &owner }.loses(&gateway.token());
    Story { laptop: Home::new(), port, owner: &owner }.tells(&gateway.token());
}
