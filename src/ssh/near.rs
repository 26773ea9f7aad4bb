//! The end of ours of a TCP connection: `BindAddress` and `BindInterface` of ssh_config(5).

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use nix::{
    ifaddrs::getifaddrs,
    net::if_::InterfaceFlags,
    sys::socket::{SockaddrLike, SockaddrStorage},
};
use tokio::time::{Instant, timeout_at};

use super::{dial::plain, resolve::Bind};
use crate::tunnel::{Cause, Failure};

/// The addresses of ours that a connection may leave from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Near {
    /// As it was said, for people.
    said: String,
    /// Port 0; `None` leaves the choice to the operating system.
    ends: Option<Vec<SocketAddr>>,
}

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl Near {
    /// Looks up what was chosen; an address or interface that is not there now may come back.
    pub(super) async fn of(bind: Option<&Bind>, deadline: Instant) -> Result<Self, Failure> {
        let missing = |said: &str, why: &str| {
            Failure::new(Cause::NoRoute, format!("{said} of this machine is not usable: {why}"))
                .fix("check the addresses of this machine: ip address")
        };
        match bind {
            None => Ok(Self { said: "this machine".to_owned(), ends: None }),
            Some(Bind::Address(name)) => {
                let said = format!("BindAddress {name}");
                let looking = tokio::net::lookup_host((name.as_str(), 0));
                match timeout_at(deadline, looking).await {
                    Ok(Ok(found)) => Ok(Self { said, ends: Some(found.collect()) }),
                    Ok(Err(error)) => Err(missing(&said, &plain(&error))),
                    Err(_) => Err(missing(&said, "the look-up took too long")),
                }
            }
            Some(Bind::Interface(name)) => {
                let said = format!("BindInterface {name}");
                match of_interface(name) {
                    Ok(ends) if ends.is_empty() => {
                        Err(missing(&said, "it is down, or has no address"))
                    }
                    Ok(ends) => Ok(Self { said, ends: Some(ends) }),
                    Err(error) => Err(missing(&said, &plain(&error.into()))),
                }
            }
        }
    }

    /// The end for a connection to `far`: `Some(None)` for any, `None` if there is none.
    pub(super) fn end_for(&self, far: &SocketAddr) -> Option<Option<SocketAddr>> {
        match &self.ends {
            None => Some(None),
            Some(ends) => ends.iter().find(|end| end.is_ipv4() == far.is_ipv4()).copied().map(Some),
        }
    }
}

/// The addresses of an interface that is up; those that reach only near neighbours come last.
fn of_interface(name: &str) -> nix::Result<Vec<SocketAddr>> {
    let mut ends: Vec<SocketAddr> = getifaddrs()?
        .filter(|entry| entry.interface_name == name)
        .filter(|entry| entry.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|entry| entry.address.as_ref().and_then(socket_address))
        .collect();
    ends.sort_by_key(|end| is_local(end.ip()));
    Ok(ends)
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    address.family()?;
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(SocketAddr::new(v4.ip().into(), 0));
    }
    address.as_sockaddr_in6().map(|v6| {
        let (flow, scope) = (v6.flowinfo(), v6.scope_id());
        std::net::SocketAddrV6::new(v6.ip(), 0, flow, scope).into()
    })
}

fn is_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unicast_link_local(),
    }
}
