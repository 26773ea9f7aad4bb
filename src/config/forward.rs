//! One `-L` or `-R`: where it listens, and where it leads.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use serde::{Deserialize, Serialize};

/// From the gateway's port to that of its browser control.
const BROWSER_CONTROL: u16 = 2;

/// Where a forward takes connections: on this machine for `-L`, on the far one for `-R`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Listen {
    /// At a port.
    Port {
        /// The address: loopback if `None`, `*` for every one.
        bind: Option<String>,
        /// Its number; 0, for `-R` alone, leaves the choice to the server.
        port: u16,
    },
    /// At a Unix socket.
    Socket(String),
}

/// Where a forward leads, as the machine sees it that dials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To a port.
    Port {
        /// A name or an address, without brackets.
        host: String,
        /// Its number.
        port: u16,
    },
    /// To a Unix socket.
    Socket(String),
}

/// One `-L` or `-R`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Flat", into = "Flat")]
pub(crate) struct Forward {
    /// Where connections come in.
    pub(crate) listen: Listen,
    /// Where they go.
    pub(crate) to: Destination,
}

/// A forward as `rs/remotes.json` has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Flat {
    bind: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    socket: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    host_socket: Option<String>,
}

impl TryFrom<Flat> for Forward {
    type Error = &'static str;

    fn try_from(flat: Flat) -> Result<Self, Self::Error> {
        let listen = match (flat.port, flat.socket) {
            (Some(port), None) => Listen::Port { bind: flat.bind, port },
            (None, Some(path)) => Listen::Socket(path),
            _ => return Err("a forward listens at a port or at a socket"),
        };
        let to = match (flat.host, flat.host_port, flat.host_socket) {
            (Some(host), Some(port), None) => Destination::Port { host, port },
            (None, None, Some(path)) => Destination::Socket(path),
            _ => return Err("a forward leads to a host and a port, or to a socket"),
        };
        Ok(Self { listen, to })
    }
}

impl From<Forward> for Flat {
    fn from(forward: Forward) -> Self {
        let (bind, port, socket) = match forward.listen {
            Listen::Port { bind, port } => (bind, Some(port), None),
            Listen::Socket(path) => (None, None, Some(path)),
        };
        let (host, host_port, host_socket) = match forward.to {
            Destination::Port { host, port } => (Some(host), Some(port), None),
            Destination::Socket(path) => (None, None, Some(path)),
        };
        Self { bind, port, socket, host, host_port, host_socket }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { bind: None, port } => write!(f, "{port}"),
            Self::Port { bind: Some(bind), port } => write!(f, "{}:{port}", bracketed(bind)),
            Self::Socket(path) => f.write_str(path),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { host, port } => write!(f, "{}:{port}", bracketed(host)),
            Self::Socket(path) => f.write_str(path),
        }
    }
}

/// As `ssh -L` and `-R` take it.
impl fmt::Display for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.listen, self.to)
    }
}

fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

impl Listen {
    /// A port of loopback.
    pub(crate) fn loopback(port: u16) -> Self {
        Self::Port { bind: None, port }
    }

    /// The port, if it is one.
    pub(crate) fn port(&self) -> Option<u16> {
        match self {
            Self::Port { port, .. } => Some(*port),
            Self::Socket(_) => None,
        }
    }

    /// Where it is reached from its own machine; `None` for a port that is still to be chosen.
    pub(crate) fn seen_from_there(&self) -> Option<Destination> {
        match self {
            Self::Port { port: 0, .. } => None,
            Self::Port { bind, port } => Some(match bind.as_deref() {
                None | Some("*" | "" | "0.0.0.0" | "::") => Destination::loopback(*port),
                Some(bind) => Destination::Port { host: bind.to_owned(), port: *port },
            }),
            Self::Socket(path) => Some(Destination::Socket(path.clone())),
        }
    }

    /// Whether this machine alone can reach it.
    pub(crate) fn is_private(&self) -> bool {
        match self {
            Self::Port { bind, .. } => bind.as_deref().is_none_or(is_loopback),
            Self::Socket(_) => true,
        }
    }

    /// Whether who dials `port` at 127.0.0.1 or ::1 of its machine comes in there.
    pub(crate) fn takes_local(&self, port: u16) -> bool {
        let Self::Port { bind, port: own } = self else { return false };
        let is_local = |address: IpAddr| {
            address.is_unspecified()
                || address == Ipv4Addr::LOCALHOST
                || address == Ipv6Addr::LOCALHOST
        };
        let takes = |bind: &str| {
            let address = bind.trim_matches(['[', ']']).parse::<IpAddr>();
            matches!(bind, "*" | "" | "localhost")
                || address.is_ok_and(|address| is_local(address.to_canonical()))
        };
        *own == port && bind.as_deref().is_none_or(takes)
    }

    /// Whether it listens on every address of its machine.
    fn is_everywhere(&self) -> bool {
        let is_unspecified =
            |bind: &str| bind.parse::<IpAddr>().is_ok_and(|address| address.is_unspecified());
        match self {
            Self::Port { bind: Some(bind), .. } => {
                bind == "*" || bind.is_empty() || is_unspecified(bind)
            }
            Self::Port { bind: None, .. } | Self::Socket(_) => false,
        }
    }

    /// Whether both would listen at one place; port 0 is nobody's.
    pub(crate) fn collides(&self, other: &Self) -> bool {
        let normal = |bind: &Option<String>| {
            bind.clone().filter(|bind| !matches!(bind.as_str(), "127.0.0.1" | "::1"))
        };
        match (self, other) {
            (Self::Port { bind, port }, Self::Port { bind: other, port: other_port }) => {
                port == other_port && *port != 0 && normal(bind) == normal(other)
            }
            _ => self == other && self.port() != Some(0),
        }
    }
}

impl Destination {
    /// A port of loopback.
    pub(crate) fn loopback(port: u16) -> Self {
        Self::Port { host: "127.0.0.1".to_owned(), port }
    }

    /// The port; 0 for a socket.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Port { port, .. } => *port,
            Self::Socket(_) => 0,
        }
    }

    /// Whether it is `port` of the dialling machine's loopback.
    pub(crate) fn is_loopback(&self, port: u16) -> bool {
        match self {
            Self::Port { host, port: own } => *own == port && is_loopback(host),
            Self::Socket(_) => false,
        }
    }
}

impl Forward {
    /// Whether it is the forward from the loopback here to the gateway at `gateway` that is made anyway:
    /// at `local`, or, while that is to be chosen, at whatever port.
    pub(crate) fn is_made_anyway(&self, gateway: u16, local: Option<u16>) -> bool {
        let at = local.or(self.listen.port()).map(Listen::loopback);
        self.to.is_loopback(gateway) && at.is_some_and(|at| self.listen.collides(&at))
    }

    /// Whether it leads to the browser control of the gateway at `port`, which is operator access
    /// and never forwarded.
    pub(crate) fn leads_to_browser_control(&self, port: u16) -> bool {
        port.checked_add(BROWSER_CONTROL).is_some_and(|port| self.to.is_loopback(port))
    }

    /// Whether it would let every machine of a network reach the gateway at `port`.
    pub(crate) fn opens_gateway(&self, port: u16) -> bool {
        self.to.is_loopback(port) && self.listen.is_everywhere()
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(bind: Option<&str>, port: u16) -> Listen {
        Listen::Port { bind: bind.map(str::to_owned), port }
    }

    #[test]
    fn files_of_before_sockets_keep_loading_and_look_the_same() {
        let text = r#"{"bind":null,"port":8080,"host":"db","hostPort":5432}"#;
        let forward: Forward = serde_json::from_str(text).unwrap();
        assert_eq!(forward.to_string(), "8080:db:5432");
        assert_eq!(serde_json::to_string(&forward).unwrap(), text);
        let text = r#"{"bind":"::1","port":1,"host":"fe80::2","hostPort":2}"#;
        let forward: Forward = serde_json::from_str(text).unwrap();
        assert_eq!(forward.to_string(), "[::1]:1:[fe80::2]:2");
    }

    #[test]
    fn sockets_are_kept_at_either_end_and_half_a_forward_is_none() {
        for (listen, to) in [
            (Listen::Socket("/a".into()), Destination::Socket("/b".into())),
            (Listen::Socket("/a".into()), Destination::loopback(1)),
            (port(Some("*"), 0), Destination::Socket("/b".into())),
        ] {
            let forward = Forward { listen, to };
            let text = serde_json::to_string(&forward).unwrap();
            assert_eq!(serde_json::from_str::<Forward>(&text).unwrap(), forward, "{text}");
        }
        for half in [
            r#"{"bind":null,"port":1}"#,
            r#"{"bind":null,"port":1,"socket":"/a","hostSocket":"/b"}"#,
            r#"{"socket":"/a","host":"db"}"#,
        ] {
            assert!(serde_json::from_str::<Forward>(half).is_err(), "{half}");
        }
    }

    #[test]
    fn two_places_are_one_where_a_second_bind_would_fail() {
        assert!(port(None, 1).collides(&port(Some("127.0.0.1"), 1)));
        assert!(!port(None, 1).collides(&port(Some("127.0.0.2"), 1)));
        assert!(!port(None, 0).collides(&port(None, 0)));
        let socket = || Listen::Socket("/a".to_owned());
        assert!(socket().collides(&socket()) && !socket().collides(&port(None, 1)));
    }

    #[test]
    fn who_dials_loopback_comes_in_where_it_is_listened_on_and_nowhere_else() {
        for bind in [
            None,
            Some("localhost"),
            Some("127.0.0.1"),
            Some("[::1]"),
            Some("*"),
            Some(""),
            Some("0.0.0.0"),
            Some("::"),
        ] {
            assert!(port(bind, 1).takes_local(1) && !port(bind, 1).takes_local(2), "{bind:?}");
        }
        for bind in ["10.0.0.5", "127.0.0.2", "[fe80::1]", "nowhere"] {
            assert!(!port(Some(bind), 1).takes_local(1), "{bind}");
        }
        assert!(!Listen::Socket("/a".into()).takes_local(0));
    }

    #[test]
    fn knows_what_strangers_could_reach() {
        let leads = |listen, to| Forward { listen, to }.opens_gateway(18789);
        for bind in ["*", "", "0.0.0.0", "::"] {
            assert!(leads(port(Some(bind), 1), Destination::loopback(18789)), "{bind}");
            assert!(!leads(port(Some(bind), 1), Destination::loopback(18790)), "{bind}");
        }
        assert!(!leads(port(Some("10.0.0.1"), 1), Destination::loopback(18789)));
        assert!(!leads(Listen::Socket("/a".into()), Destination::loopback(18789)));
        assert!(port(Some("::1"), 1).is_private() && !port(Some("10.0.0.1"), 1).is_private());
    }
}
