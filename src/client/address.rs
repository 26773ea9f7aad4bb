//! A gateway's `ws://` address, and where plain text may go.

use std::{fmt, net::IpAddr};

use url::{Host, Url};

use crate::problem::{Class, Problem};

/// A gateway's address that may be dialled without encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// What to dial, in this order; never empty, and never a name that others resolve.
    pub(crate) hosts: Vec<IpAddr>,
    /// The port.
    pub(crate) port: u16,
    /// The address as the WebSocket request names it.
    url: Url,
}

impl Address {
    /// Parses a `ws://` address. Class `usage` for what is no such address or must not be used.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let url = Url::parse(text.trim())
            .map_err(|error| Problem::new(Class::Usage, format!("not a gateway's URL: {error}")))?;
        match url.scheme() {
            "ws" => {}
            "wss" => {
                return Err(Problem::new(Class::Usage, "wss:// is not built yet")
                    .fix("openclaw remote connect user@host"));
            }
            other => {
                return Err(Problem::new(
                    Class::Usage,
                    format!("a gateway's URL starts with ws://, not {other}://"),
                ));
            }
        }
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(Problem::new(
                Class::Usage,
                "a gateway's URL carries no user, password or query",
            )
            .fix("pass the secret with --token-file"));
        }
        let hosts = match url.host() {
            Some(Host::Ipv4(address)) => vec![IpAddr::V4(address)],
            Some(Host::Ipv6(address)) => vec![IpAddr::V6(address)],
            Some(Host::Domain("localhost")) => super::LOOPBACK.to_vec(),
            Some(Host::Domain(_)) | None => Vec::new(),
        };
        if hosts.is_empty() || !hosts.iter().all(|host| may_be_plain(*host)) {
            return Err(Problem::new(
                Class::Usage,
                format!(
                    "{} would be sent in plain text: ws:// is for the addresses of this machine \
                     and of private networks, written as numbers",
                    url.host_str().unwrap_or_default()
                ),
            )
            .fix("openclaw remote connect user@host"));
        }
        let port = url.port_or_known_default().unwrap_or(80);
        Ok(Self { hosts, port, url })
    }

    /// The address of this machine's gateway.
    pub(crate) fn local(port: u16) -> Result<Self, Problem> {
        Self::parse(&format!("ws://127.0.0.1:{port}"))
            .map(|address| Self { hosts: super::LOOPBACK.to_vec(), ..address })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.url.as_str();
        f.write_str(if self.url.path() == "/" { text.trim_end_matches('/') } else { text })
    }
}

/// Whether plain text may go to an address: loopback, private, link-local or carrier-grade NAT
/// (RFC 1122, 1918, 3927, 4193, 4291, 6598).
fn may_be_plain(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let carrier = first == 100 && second & 0b1100_0000 == 64;
            address.is_loopback() || address.is_private() || address.is_link_local() || carrier
        }
        IpAddr::V6(address) => {
            address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_goes_to_parsed_private_addresses_only() {
        let allowed = [
            ("ws://127.0.0.1:18789", "127.0.0.1"),
            ("ws://127.9.9.9:1", "127.9.9.9"),
            ("ws://localhost:18789", "127.0.0.1"),
            ("ws://[::1]:18789", "::1"),
            ("ws://10.0.0.1", "10.0.0.1"),
            ("ws://172.16.0.1", "172.16.0.1"),
            ("ws://172.31.255.255", "172.31.255.255"),
            ("ws://192.168.0.202:18789/path", "192.168.0.202"),
            ("ws://169.254.1.1", "169.254.1.1"),
            ("ws://100.64.0.1", "100.64.0.1"),
            ("ws://100.127.255.255", "100.127.255.255"),
            ("ws://[fd00::1]", "fd00::1"),
            ("ws://[fe80::1]", "fe80::1"),
            ("ws://[::ffff:127.0.0.1]:1", "::ffff:127.0.0.1"),
            // A number in another notation is the address that it stands for, dialled as such.
            ("ws://0x7f.1:1", "127.0.0.1"),
            ("ws://2130706433:1", "127.0.0.1"),
        ];
        for (text, dialled) in allowed {
            let address = Address::parse(text).unwrap_or_else(|p| panic!("{text}: {p}"));
            assert_eq!(address.hosts[0].to_string(), dialled, "{text}");
        }
        for text in [
            "ws://127.evil.com",
            "ws://127.0.0.1.evil.com",
            "ws://localhost.evil.com",
            "ws://10.evil.com",
            "ws://gateway.local",
            "ws://8.8.8.8:18789",
            "ws://0.0.0.0:18789",
            "ws://172.32.0.1",
            "ws://100.128.0.1",
            "ws://100.63.0.1",
            "ws://192.169.0.1",
            "ws://0x8.8",
            "ws://[::]:1",
            "ws://[::ffff:8.8.8.8]",
            "ws://[2001:db8::1]",
            "wss://127.0.0.1",
            "http://127.0.0.1",
            "127.0.0.1:18789",
            "ws://user@127.0.0.1",
            "ws://127.0.0.1/?token=x",
            "ws://",
            "",
        ] {
            let problem = Address::parse(text).expect_err(text);
            assert_eq!(problem.class, Class::Usage, "{text}");
        }
    }

    #[test]
    fn shows_itself_as_people_write_it() {
        assert_eq!(Address::local(18789).unwrap().to_string(), "ws://127.0.0.1:18789");
        let path = Address::parse("ws://10.0.0.1:1/gateway").unwrap();
        assert_eq!(path.to_string(), "ws://10.0.0.1:1/gateway");
    }
}
