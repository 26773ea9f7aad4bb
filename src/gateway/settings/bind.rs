//! Where a gateway listens: a mode or an address, and what this machine makes of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

use nix::{ifaddrs::getifaddrs, sys::socket::SockaddrStorage};

use crate::{
    config::{Bind, Gateway},
    problem::{Class, Problem},
};

/// The prefix of every Tailscale IPv6 address, fd7a:115c:a1e0::/48.
const TAILSCALE_V6: [u16; 3] = [0xfd7a, 0x115c, 0xa1e0];

/// Where a gateway listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listen {
    /// 127.0.0.1, and ::1 where there is one.
    Loopback,
    /// This address, and 127.0.0.1 where the address does not contain it.
    Address(IpAddr),
}

/// What the modes depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Its Tailscale address.
    pub(crate) tailnet: Option<Ipv4Addr>,
    /// Whether it lets anybody bind 127.0.0.1.
    pub(crate) has_loopback: bool,
}

impl Default for Machine {
    fn default() -> Self {
        Self { tailnet: None, has_loopback: true }
    }
}

impl Machine {
    /// This machine, now.
    pub(crate) fn look() -> Self {
        let has_loopback = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).is_ok();
        Self { tailnet: Self::tailnet_now(), has_loopback }
    }

    /// The Tailscale address of this machine, now.
    pub(in crate::gateway) fn tailnet_now() -> Option<Ipv4Addr> {
        tailnet_among(&interfaces())
    }
}

impl Listen {
    /// Decides from `--bind`, then `gateway.bind`; class `usage` or `config` if refused.
    pub(super) fn decide(
        flag: Option<&str>,
        gateway: &Gateway,
        machine: &Machine,
    ) -> Result<Self, Problem> {
        let mode = match flag {
            None => gateway.bind.unwrap_or(Bind::Loopback),
            Some(text) => match mode(text) {
                Some(mode) => mode,
                None => return address(text).map(Self::Address).ok_or_else(|| unknown(text)),
            },
        };
        let everywhere = Self::Address(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        Ok(match mode {
            Bind::Loopback => Self::Loopback,
            Bind::Auto if machine.has_loopback => Self::Loopback,
            Bind::Auto | Bind::Lan => everywhere,
            // Without Tailscale there is nothing to add to loopback, and nothing else is opened.
            Bind::Tailnet => {
                machine.tailnet.map_or(Self::Loopback, |address| Self::Address(address.into()))
            }
            Bind::Custom => Self::Address(custom(gateway)?),
        })
    }

    /// The addresses to bind, each with whether it may be missing on this machine.
    pub(in crate::gateway) fn addresses(self) -> Vec<(IpAddr, bool)> {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        match self {
            Self::Loopback => vec![(local, false), (IpAddr::V6(Ipv6Addr::LOCALHOST), true)],
            Self::Address(address) if address.is_unspecified() || address == local => {
                vec![(address, false)]
            }
            Self::Address(address) => vec![(address, false), (local, false)],
        }
    }

    /// Whether the Tailscale address is wanted and was not there.
    pub(super) fn awaits_tailnet(self, flag: Option<&str>, gateway: &Gateway) -> bool {
        let mode = flag.map_or(gateway.bind, mode);
        mode == Some(Bind::Tailnet) && self == Self::Loopback
    }

    /// Whether nobody outside this machine can reach it.
    pub(super) fn is_loopback(self) -> bool {
        match self {
            Self::Loopback => true,
            Self::Address(address) => address.is_loopback(),
        }
    }
}

fn mode(text: &str) -> Option<Bind> {
    Some(match text {
        "loopback" => Bind::Loopback,
        "auto" => Bind::Auto,
        "lan" => Bind::Lan,
        "tailnet" => Bind::Tailnet,
        "custom" => Bind::Custom,
        _ => return None,
    })
}

fn unknown(text: &str) -> Problem {
    Problem::new(Class::Usage, format!("--bind {text:?} is no mode and no address"))
        .fix("openclaw gateway run --bind loopback (or lan, tailnet, auto, custom, an IP address)")
}

fn custom(gateway: &Gateway) -> Result<IpAddr, Problem> {
    let host = gateway.custom_bind_host.as_deref().ok_or_else(|| {
        Problem::new(Class::Config, "bind `custom` needs gateway.customBindHost")
            .fix("openclaw gateway run --bind ADDRESS")
    })?;
    address(host).ok_or_else(|| {
        Problem::new(Class::Config, format!("gateway.customBindHost is no address: {host:?}"))
            .fix("openclaw config set gateway.customBindHost 192.168.1.7 (one of this machine's)")
    })
}

/// An address as it is written, without the short forms that some programs take.
fn address(text: &str) -> Option<IpAddr> {
    text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok()
}

/// The addresses of this machine, each with the name of its interface; none where they cannot be
/// told.
pub(in crate::gateway) fn interfaces() -> Vec<(String, IpAddr)> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    all.filter_map(|interface| {
        let address = ip_of(interface.address.as_ref()?)?;
        Some((interface.interface_name, address))
    })
    .collect()
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(address) = address.as_sockaddr_in() {
        return Some(IpAddr::V4(address.ip()));
    }
    address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()))
}

/// Whether an address is one of this machine's; `None` where that cannot be told.
pub(in crate::gateway) fn is_own_address(address: IpAddr) -> Option<bool> {
    let own = interfaces();
    (!own.is_empty()).then(|| own.iter().any(|(_, other)| other.to_canonical() == address))
}

/// The Tailscale address. Addresses of 100.64.0.0/10 (RFC 6598) may be a provider's as well, so
/// the interface must be Tailscale's by its name or by its other address.
fn tailnet_among(interfaces: &[(String, IpAddr)]) -> Option<Ipv4Addr> {
    let is_tailscale = |name: &str| {
        name.starts_with("tailscale")
            || interfaces.iter().any(|(other, address)| match address {
                IpAddr::V6(address) => {
                    other == name && address.segments().starts_with(&TAILSCALE_V6)
                }
                IpAddr::V4(_) => false,
            })
    };
    interfaces.iter().find_map(|(name, address)| match address {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let is_shared = first == 100 && second & 0b1100_0000 == 64;
            (is_shared && is_tailscale(name)).then_some(*address)
        }
        IpAddr::V6(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bind: &str, gateway: &Gateway, machine: &Machine) -> Result<Listen, Problem> {
        Listen::decide(Some(bind), gateway, machine)
    }

    fn at(address: &str) -> Listen {
        Listen::Address(address.parse().unwrap())
    }

    #[test]
    fn binds_are_parsed_and_never_guessed() {
        let (gateway, machine) = (Gateway::default(), Machine::default());
        let of = |bind| of(bind, &gateway, &machine);
        assert_eq!(of("loopback"), Ok(Listen::Loopback));
        assert_eq!(of("lan"), Ok(at("0.0.0.0")));
        assert_eq!(of("192.0.2.7"), Ok(at("192.0.2.7")));
        assert_eq!(of("[::1]"), Ok(at("::1")));
        for wrong in ["0x7f.1", "127.evil.com", "", "custom", "LAN", "127.1"] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Listen::decide(None, &gateway, &machine), Ok(Listen::Loopback));
    }

    #[test]
    fn auto_is_loopback_when_it_can_be_bound_and_lan_otherwise() {
        let gateway = Gateway { bind: Some(Bind::Auto), ..Gateway::default() };
        let without = Machine { has_loopback: false, ..Machine::default() };
        assert_eq!(Listen::decide(None, &gateway, &Machine::default()), Ok(Listen::Loopback));
        assert_eq!(Listen::decide(None, &gateway, &without), Ok(at("0.0.0.0")));
    }

    #[test]
    fn tailnet_and_custom_hold_loopback_as_well() {
        let gateway =
            Gateway { custom_bind_host: Some("192.0.2.7".to_owned()), ..Gateway::default() };
        let machine = Machine { tailnet: Some(Ipv4Addr::new(100, 64, 0, 7)), ..Machine::default() };
        for (bind, first) in [("tailnet", "100.64.0.7"), ("custom", "192.0.2.7")] {
            let bound = of(bind, &gateway, &machine).unwrap().addresses();
            let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
            assert_eq!(bound, [(first.parse().unwrap(), false), (local, false)]);
        }
        assert_eq!(of("lan", &gateway, &machine).unwrap().addresses().len(), 1);
    }

    #[test]
    fn a_tailnet_without_tailscale_is_loopback_and_opens_nothing() {
        let listen = of("tailnet", &Gateway::default(), &Machine::default()).unwrap();
        assert_eq!(listen, Listen::Loopback);
        assert!(listen.is_loopback());
    }

    #[test]
    fn a_providers_shared_address_is_no_tailnet() {
        let interface = |name: &str, address: &str| (name.to_owned(), address.parse().unwrap());
        let wwan = interface("wwan0", "100.70.0.1");
        assert_eq!(tailnet_among(&[interface("lo", "127.0.0.1"), wwan.clone()]), None);
        let named = [wwan.clone(), interface("tailscale0", "100.64.0.7")];
        assert_eq!(tailnet_among(&named), Some(Ipv4Addr::new(100, 64, 0, 7)));
        let utun = [interface("utun4", "100.64.0.8"), interface("utun4", "fd7a:115c:a1e0::1")];
        assert_eq!(tailnet_among(&utun), Some(Ipv4Addr::new(100, 64, 0, 8)));
        let beside = [wwan, interface("tailscale0", "192.0.2.1")];
        assert_eq!(tailnet_among(&beside), None);
    }
}
