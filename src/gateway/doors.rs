//! Which web pages may knock: the rules about `Host`, `Origin` and a proxy's headers. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hyper::{HeaderMap, header};
use url::{Host, Url};

/// Headers that a proxy adds when it speaks for somebody else.
const FORWARDING: [&str; 5] =
    ["forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip"];
/// How further such headers begin.
const FORWARDING_FAMILIES: [&str; 2] = ["x-forwarded-", "tailscale-"];

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// The `Host` header is missing, or names something that is not us.
    Host,
    /// A web page of another origin asks.
    Origin,
}

/// Whether a request with these headers, on a socket bound to `local`, may go on.
pub(super) fn check(
    headers: &HeaderMap,
    local: Option<IpAddr>,
    allowed_origins: impl IntoIterator<Item = impl AsRef<str>>,
) -> Result<(), Turned> {
    let host = single(headers, header::HOST.as_str()).and_then(|text| authority(&text));
    let Some(host) = host else { return Err(Turned::Host) };
    let allowed: Vec<Url> =
        allowed_origins.into_iter().filter_map(|origin| Url::parse(origin.as_ref()).ok()).collect();
    let is_ours = is_loopback(&host.0)
        || local.is_some_and(|local| is_address(&host.0, local))
        || allowed.iter().any(|origin| origin.host() == Some(host.0.as_ref_host()));
    if !is_ours {
        return Err(Turned::Host);
    }
    if !headers.contains_key(header::ORIGIN) {
        return Ok(());
    }
    let origin = single(headers, header::ORIGIN.as_str()).and_then(|text| Url::parse(&text).ok());
    let Some(origin) = origin else { return Err(Turned::Origin) };
    let is_allowed = allowed.iter().any(|allowed| allowed.origin() == origin.origin());
    if is_allowed || is_same(&origin, &host) { Ok(()) } else { Err(Turned::Origin) }
}

/// Whether something in between speaks for somebody else: it says so, or it was asked under a name
/// that nobody on this machine has to use.
pub(super) fn is_forwarded(headers: &HeaderMap) -> bool {
    let host = single(headers, header::HOST.as_str()).and_then(|text| authority(&text));
    let is_here = host.is_some_and(|(host, _)| is_loopback(&host));
    speaks_for_another(headers) || !is_here
}

/// Whether there are headers with which a proxy speaks for somebody else.
pub(super) fn speaks_for_another(headers: &HeaderMap) -> bool {
    let is_told = FORWARDING.iter().any(|name| headers.contains_key(*name));
    let is_of_family = |name: &header::HeaderName| {
        FORWARDING_FAMILIES.iter().any(|family| name.as_str().starts_with(family))
    };
    is_told || headers.keys().any(is_of_family)
}

/// A host as a header names it, without the leniency of URLs (`0x7f.1` is a name here).
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    Address(IpAddr),
    Domain(String),
}

impl Named {
    fn as_ref_host(&self) -> Host<&str> {
        match self {
            Self::Address(IpAddr::V4(address)) => Host::Ipv4(*address),
            Self::Address(IpAddr::V6(address)) => Host::Ipv6(*address),
            Self::Domain(name) => Host::Domain(name),
        }
    }
}

/// The value of a header that must stand there once.
fn single(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?.to_owned();
    values.next().is_none().then_some(value)
}

/// `host[:port]`, the port 80 where none is written.
fn authority(text: &str) -> Option<(Named, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            (Named::Address(IpAddr::V6(address.parse::<Ipv6Addr>().ok()?)), port)
        }
        None => {
            let (name, port) = text.find(':').map_or((text, ""), |at| text.split_at(at));
            if name.is_empty() {
                return None;
            }
            let named = match name.parse::<Ipv4Addr>() {
                Ok(address) => Named::Address(IpAddr::V4(address)),
                Err(_) => Named::Domain(name.to_ascii_lowercase()),
            };
            (named, port)
        }
    };
    match port.strip_prefix(':') {
        Some(port) => Some((host, port.parse().ok()?)),
        None if port.is_empty() => Some((host, 80)),
        None => None,
    }
}

fn is_loopback(host: &Named) -> bool {
    match host {
        Named::Address(address) => address.is_loopback(),
        Named::Domain(name) => name == "localhost",
    }
}

fn is_address(host: &Named, local: IpAddr) -> bool {
    match host {
        Named::Address(address) => address.to_canonical() == local.to_canonical(),
        Named::Domain(_) => false,
    }
}

/// Whether the page came from the very host and port that it asks now.
fn is_same(origin: &Url, host: &(Named, u16)) -> bool {
    matches!(origin.scheme(), "http" | "https")
        && origin.host() == Some(host.0.as_ref_host())
        && origin.port_or_known_default() == Some(host.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: header::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn verdict(pairs: &[(&str, &str)]) -> Result<(), Turned> {
        let local = Some("192.0.2.7".parse().unwrap());
        check(&headers(pairs), local, ["https://control.example.com"])
    }

    #[test]
    fn any_loopback_name_with_any_port_and_our_own_address_are_us() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:18789",
            "127.9.9.9:1",
            "LocalHost:80",
            "[::1]:18789",
            "192.0.2.7:18789",
            "control.example.com",
        ] {
            assert_eq!(verdict(&[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn names_that_only_look_like_us_are_not() {
        for host in [
            "127.evil.com",
            "0x7f.1",
            "127.1",
            "2130706433",
            "[::ffff:127.0.0.1]",
            "evil.example",
            "localhost.evil.example",
            "192.0.2.8",
            "127.0.0.1:x",
            "127.0.0.1@evil.example",
            "",
            "[::1",
        ] {
            assert_eq!(verdict(&[("host", host)]), Err(Turned::Host), "{host}");
        }
        assert_eq!(verdict(&[]), Err(Turned::Host));
        assert_eq!(verdict(&[("host", "127.0.0.1"), ("host", "evil")]), Err(Turned::Host));
    }

    #[test]
    fn pages_of_the_same_origin_or_a_configured_one_may_ask() {
        let host = ("host", "127.0.0.1:18789");
        assert_eq!(verdict(&[host, ("origin", "http://127.0.0.1:18789")]), Ok(()));
        assert_eq!(verdict(&[host, ("origin", "https://control.example.com")]), Ok(()));
        for origin in [
            "http://evil.example",
            "http://localhost:18789",
            "http://127.0.0.1:3000",
            "http://127.0.0.1",
            "https://control.example.com.evil.example",
            "http://control.example.com",
            "null",
            "file://",
            "",
        ] {
            assert_eq!(verdict(&[host, ("origin", origin)]), Err(Turned::Origin), "{origin}");
        }
    }

    #[test]
    fn a_proxy_gives_itself_away() {
        for host in ["localhost", "127.0.0.1:18789", "[::1]:1"] {
            assert!(!is_forwarded(&headers(&[("host", host)])), "{host}");
            for name in ["X-Forwarded-For", "X-Forwarded-Anything", "Via", "Tailscale-User-Name"] {
                assert!(is_forwarded(&headers(&[("host", host), (name, "x")])), "{name}");
            }
        }
        for host in ["control.example.com", "192.0.2.7:18789", "127.evil.com"] {
            assert!(is_forwarded(&headers(&[("host", host)])), "{host}");
        }
    }
}
