//! Join URLs: where a machine fetches a setup code, once.
//!
//! Of what is offered the store has the digest of its name, and the code's token can be made again
//! by this gateway alone.

use std::net::IpAddr;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use url::{Host, Url};

use super::device_token::digest;
use crate::{
    plaintext::{may_go_to, may_go_to_name},
    secret::Secret,
};

/// Characters of an offer's name: 128 bits in base64url.
const NAME: usize = 22;
/// The longest address of a gateway, bytes.
const LONGEST_URL: usize = 2_048;

/// A name for an offer, that nobody guesses.
pub(super) fn new_name() -> String {
    URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes())
}

/// What is kept of a name; `None` of what cannot be one.
pub(super) fn name_digest(name: &str) -> Option<Vec<u8>> {
    (name.len() == NAME).then(|| digest(name))
}

/// A gateway's address as a setup code carries it (`ws://` or `wss://`), or what is wrong with it.
///
/// In the clear only to addresses that stay on the machine or the private network.
pub(super) fn gateway_url(given: Option<&str>) -> Result<String, String> {
    let Some(given) = given.map(str::trim).filter(|text| !text.is_empty()) else {
        return Err("publicUrl is missing: a gateway does not know how others reach it".to_owned());
    };
    let wrong = |why: &str| Err(format!("publicUrl: {why}"));
    // It is kept while its code waits to be fetched, and is longer as a URL where it has to be escaped.
    let too_long = format!("longer than {LONGEST_URL} bytes");
    if given.len() > LONGEST_URL {
        return wrong(&too_long);
    }
    let Ok(url) = Url::parse(given) else { return wrong("not a URL") };
    let scheme = match url.scheme() {
        "ws" | "http" => "ws",
        "wss" | "https" => "wss",
        _ => return wrong("must start with wss:// or ws://"),
    };
    let has_more = url.query().is_some() || url.fragment().is_some();
    if !url.username().is_empty() || url.password().is_some() || has_more {
        return wrong("must hold a host, a port and a path alone");
    }
    let Some(host) = url.host() else { return wrong("has no host") };
    if scheme == "ws" && !is_near(&host) {
        return wrong("ws:// is for loopback and private addresses; use wss://");
    }
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let path = if url.path() == "/" { "" } else { url.path() };
    let whole = format!("{scheme}://{host}{port}{path}");
    if whole.len() > LONGEST_URL { wrong(&too_long) } else { Ok(whole) }
}

/// Where to fetch what is offered under a name.
pub(super) fn join_url(gateway: &str, name: &str) -> Secret {
    // `ws` becomes `http`, `wss` `https`.
    let http = gateway.replacen("ws", "http", 1);
    Secret::new(format!("{}/j/{name}", http.trim_end_matches('/')))
}

/// The clients' own rule: what they would not dial is not told to them.
fn is_near(host: &Host<&str>) -> bool {
    match host {
        Host::Ipv4(address) => may_go_to(IpAddr::V4(*address)),
        Host::Ipv6(address) => may_go_to(IpAddr::V6(*address)),
        Host::Domain(name) => *name == "localhost" || may_go_to_name(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_as_digests_and_what_is_no_name_is_not_looked_for() {
        let name = new_name();
        assert_eq!(name_digest(&name), Some(digest(&name)));
        assert_ne!(name, new_name());
        assert_eq!(name_digest("short"), None);
    }

    #[test]
    fn addresses_go_in_the_clear_only_where_they_stay_near() {
        for (given, url) in [
            ("wss://gw.example", "wss://gw.example"),
            ("https://gw.example:8443/deep", "wss://gw.example:8443/deep"),
            ("ws://127.0.0.1:18789", "ws://127.0.0.1:18789"),
            ("http://192.168.1.7:18789/", "ws://192.168.1.7:18789"),
            ("ws://[::1]:1", "ws://[::1]:1"),
            ("ws://box.local:1", "ws://box.local:1"),
            ("ws://100.64.0.7:1", "ws://100.64.0.7:1"),
            ("ws://box.tail1.ts.net:1", "ws://box.tail1.ts.net:1"),
        ] {
            assert_eq!(gateway_url(Some(given)).as_deref(), Ok(url));
        }
        for given in [
            "ws://gw.example",
            "ws://8.8.8.8:1",
            "ftp://gw.example",
            "gw.example",
            "",
            "wss://me:secret@gw.example",
            "wss://gw.example/?token=1",
            "ws://127.evil.com:1",
        ] {
            assert!(gateway_url(Some(given)).is_err(), "{given}");
        }
        assert!(gateway_url(None).is_err());
        let path = "x".repeat(LONGEST_URL - "wss://gw.example/".len());
        assert!(gateway_url(Some(&format!("wss://gw.example/{path}"))).is_ok());
        assert!(gateway_url(Some(&format!("wss://gw.example/{path}x"))).is_err());
        assert!(
            gateway_url(Some(&format!("wss://gw.example/{}", "\u{e9}".repeat(1_000)))).is_err()
        );
        assert!(join_url("wss://gw.example", "n").matches("https://gw.example/j/n"));
        assert!(join_url("ws://127.0.0.1:1", "n").matches("http://127.0.0.1:1/j/n"));
    }
}
