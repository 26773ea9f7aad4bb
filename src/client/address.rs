//! A gateway's address, and where plain text may go.

use std::{fmt, net::IpAddr};

use rustls::pki_types::ServerName;
use url::Url;

use crate::{
    fingerprint::Fingerprint,
    plaintext::{may_go_to, may_go_to_name},
    problem::{Class, Problem},
};

/// A gateway's address, dialled encrypted, or plain where that may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// What to dial.
    pub(crate) host: Host,
    /// The port.
    pub(crate) port: u16,
    /// Whether it is `wss://`.
    pub(crate) is_tls: bool,
    /// The only certificate to talk to.
    pub(crate) pin: Option<Fingerprint>,
    /// The address as the WebSocket request names it.
    url: Url,
}

/// What an address names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// These, in this order; never empty.
    Addresses(Vec<IpAddr>),
    /// What this name leads to; in plain text only where [`may_go_to`] says so.
    Name(String),
}

impl Address {
    /// Parses a `ws://` or `wss://` address. Class `usage` for what is none or must not be used.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let url = Url::parse(text.trim())
            .map_err(|error| Problem::new(Class::Usage, format!("not a gateway's URL: {error}")))?;
        let is_tls = match url.scheme() {
            "ws" => false,
            "wss" => true,
            other => {
                return Err(Problem::new(
                    Class::Usage,
                    format!("a gateway's URL starts with ws:// or wss://, not {other}://"),
                ));
            }
        };
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(Problem::new(
                Class::Usage,
                "a gateway's URL carries no user, password or query",
            )
            .fix("pass the secret with --token-file"));
        }
        let host = match url.host() {
            Some(url::Host::Ipv4(address)) => Host::Addresses(vec![IpAddr::V4(address)]),
            Some(url::Host::Ipv6(address)) => Host::Addresses(vec![IpAddr::V6(address)]),
            Some(url::Host::Domain("localhost")) => Host::Addresses(super::LOOPBACK.to_vec()),
            Some(url::Host::Domain(name)) if !name.is_empty() => Host::Name(name.to_owned()),
            Some(url::Host::Domain(_)) | None => {
                return Err(Problem::new(Class::Usage, "a gateway's URL names a host"));
            }
        };
        let is_private = match &host {
            Host::Addresses(addresses) => addresses.iter().all(|address| may_go_to(*address)),
            Host::Name(name) => may_go_to_name(name),
        };
        if !is_tls && !is_private {
            return Err(Problem::new(
                Class::Usage,
                format!(
                    "{} would be sent in plain text: ws:// is for the addresses of this machine \
                     and of private networks, written as numbers, and for names in .local and \
                     .ts.net",
                    url.host_str().unwrap_or_default()
                ),
            )
            .fix("wss://, or: openclaw remote connect user@host"));
        }
        let port = url.port_or_known_default().unwrap_or(80);
        Ok(Self { host, port, is_tls, pin: None, url })
    }

    /// The same with the only certificate to talk to; class `usage` where none is shown.
    pub(crate) fn pinned(self, pin: Option<Fingerprint>) -> Result<Self, Problem> {
        if pin.is_some() && !self.is_tls {
            return Err(Problem::new(
                Class::Usage,
                format!("{self} is plain text and shows no certificate to compare"),
            )
            .fix("wss:// instead of ws://"));
        }
        Ok(Self { pin, ..self })
    }

    /// The address of this machine's gateway.
    pub(crate) fn local(port: u16) -> Result<Self, Problem> {
        Self::parse(&format!("ws://127.0.0.1:{port}"))
            .map(|address| Self { host: Host::Addresses(super::LOOPBACK.to_vec()), ..address })
    }

    /// The same where this machine's gateway speaks TLS.
    pub(crate) fn local_tls(port: u16, pin: Option<Fingerprint>) -> Result<Self, Problem> {
        let address = Self::parse(&format!("wss://127.0.0.1:{port}"))?;
        Ok(Self { host: Host::Addresses(super::LOOPBACK.to_vec()), pin, ..address })
    }

    /// The name that the certificate must bear where no pin decides.
    pub(crate) fn server_name(&self) -> Option<ServerName<'static>> {
        match self.url.host()? {
            url::Host::Domain(name) => ServerName::try_from(name.to_owned()).ok(),
            url::Host::Ipv4(address) => Some(ServerName::IpAddress(IpAddr::V4(address).into())),
            url::Host::Ipv6(address) => Some(ServerName::IpAddress(IpAddr::V6(address).into())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.url.as_str();
        f.write_str(if self.url.path() == "/" { text.trim_end_matches('/') } else { text })
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
            let Host::Addresses(hosts) = address.host else { panic!("{text} is no name") };
            assert_eq!(hosts[0].to_string(), dialled, "{text}");
        }
        for text in [
            "ws://127.evil.com",
            "ws://127.0.0.1.evil.com",
            "ws://localhost.evil.com",
            "ws://10.evil.com",
            "ws://local",
            "ws://.local",
            "ws://gateway.local.evil.com",
            "ws://gatewaylocal",
            "ws://evilts.net",
            "ws://ts.net",
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
    fn documented_names_are_plain_and_any_host_is_encrypted() {
        for text in ["ws://gateway.local:1", "ws://box.tail1234.ts.net", "ws://Gateway.Local."] {
            let address = Address::parse(text).unwrap();
            assert!(matches!(address.host, Host::Name(_)) && !address.is_tls, "{text}");
        }
        for text in ["wss://gateway.example.com", "wss://8.8.8.8:1", "wss://[2001:db8::1]"] {
            let address = Address::parse(text).unwrap();
            assert!(address.is_tls && address.server_name().is_some(), "{text}");
        }
        for text in ["wss://user@gateway.example.com", "wss://gateway.example.com/?token=x"] {
            assert_eq!(Address::parse(text).unwrap_err().class, Class::Usage, "{text}");
        }
    }

    #[test]
    fn a_pin_wants_something_to_compare_it_with() {
        let pin = Some(Fingerprint::of(b"certificate"));
        let plain = Address::parse("ws://127.0.0.1:1").unwrap();
        assert_eq!(plain.clone().pinned(pin).unwrap_err().class, Class::Usage);
        assert_eq!(plain.pinned(None).unwrap().pin, None);
        let encrypted = Address::parse("wss://127.0.0.1:1").unwrap().pinned(pin).unwrap();
        assert_eq!(encrypted.pin, pin);
    }

    #[test]
    fn shows_itself_as_people_write_it() {
        assert_eq!(Address::local(18789).unwrap().to_string(), "ws://127.0.0.1:18789");
        let path = Address::parse("ws://10.0.0.1:1/gateway").unwrap();
        assert_eq!(path.to_string(), "ws://10.0.0.1:1/gateway");
    }
}
