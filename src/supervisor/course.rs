//! Asks the kernel by which way it would send to an address.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// Addresses that are asked for at once; a name with more of them is judged by the first.
const ADDRESSES_MOST: usize = 8;

/// The way to an address, as far as this machine decides it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Course {
    /// The index of the interface that packets leave by.
    pub(super) interface: Option<u32>,
    /// The next hop, if that is not the address itself.
    pub(super) gateway: Option<IpAddr>,
    /// The address of ours that they leave from.
    pub(super) source: Option<IpAddr>,
    /// Whether that interface is on and has a carrier: a route outlives it.
    pub(super) runs: bool,
}

/// For each address the way of a TCP connection to `port` there, `None` if there is no route
/// (rtnetlink(7), `RTM_GETROUTE`: all tables, rules and metrics count). Addresses that the kernel gives no answer for are left out, and on
/// systems that cannot be asked all are. `running` are the interfaces with a carrier.
pub(super) fn courses(
    addresses: &[IpAddr],
    port: u16,
    running: &BTreeSet<u32>,
) -> BTreeMap<IpAddr, Option<Course>> {
    if addresses.is_empty() {
        return BTreeMap::new();
    }
    kernel::ask(addresses.get(..ADDRESSES_MOST).unwrap_or(addresses), port, running)
}

#[cfg(not(target_os = "linux"))]
mod kernel {
    //! This system's kernel is not asked.

    use super::{BTreeMap, BTreeSet, Course, IpAddr};

    pub(super) fn ask(_: &[IpAddr], _: u16, _: &BTreeSet<u32>) -> BTreeMap<IpAddr, Option<Course>> {
        BTreeMap::new()
    }
}

#[cfg(target_os = "linux")]
mod kernel {
    //! Questions to the Linux kernel, which answers before the question has been sent.

    use std::os::fd::{AsRawFd, OwnedFd};

    use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
    use netlink_packet_route::{
        AddressFamily, RouteNetlinkMessage,
        route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
    };
    use nix::{
        errno::Errno,
        sys::socket::{
            AddressFamily as Family, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind,
            recv, sendto, socket,
        },
    };

    use super::{BTreeMap, BTreeSet, Course, IpAddr};

    /// Longer than any answer.
    const ANSWER: usize = 4096;
    /// Its number (IANA).
    const TCP: u8 = 6;

    pub(super) fn ask(
        addresses: &[IpAddr],
        port: u16,
        running: &BTreeSet<u32>,
    ) -> BTreeMap<IpAddr, Option<Course>> {
        let Ok(socket) = open() else { return BTreeMap::new() };
        let mut courses = BTreeMap::new();
        for (number, address) in (1..).zip(addresses) {
            if let Some(answer) = ask_one(&socket, number, *address, port) {
                let course = answer.map(|course| Course {
                    runs: course.interface.is_some_and(|it| running.contains(&it)),
                    ..course
                });
                courses.insert(*address, course);
            }
        }
        courses
    }

    fn open() -> nix::Result<OwnedFd> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(Family::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        Ok(socket)
    }

    /// `None` if the answer cannot be had or read.
    fn ask_one(socket: &OwnedFd, number: u32, to: IpAddr, port: u16) -> Option<Option<Course>> {
        let question = question(number, to, port);
        let kernel = NetlinkAddr::new(0, 0);
        sendto(socket.as_raw_fd(), &question, &kernel, MsgFlags::empty()).ok()?;
        let mut answer = [0; ANSWER];
        let length = recv(socket.as_raw_fd(), &mut answer, MsgFlags::empty()).ok()?;
        read(answer.get(..length)?, number)
    }

    fn question(number: u32, to: IpAddr, port: u16) -> Vec<u8> {
        let mut route = RouteMessage::default();
        (route.header.address_family, route.header.destination_prefix_length) = match to {
            IpAddr::V4(_) => (AddressFamily::Inet, 32),
            IpAddr::V6(_) => (AddressFamily::Inet6, 128),
        };
        route.attributes.extend([
            RouteAttribute::Destination(to.into()),
            RouteAttribute::IpProto(TCP),
            RouteAttribute::Dport(port),
        ]);
        let mut header = NetlinkHeader::default();
        (header.flags, header.sequence_number) = (NLM_F_REQUEST, number);
        let payload = NetlinkPayload::from(RouteNetlinkMessage::GetRoute(route));
        let mut message = NetlinkMessage::new(header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn read(answer: &[u8], number: u32) -> Option<Option<Course>> {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(answer).ok()?;
        if message.header.sequence_number != number {
            return None;
        }
        #[expect(clippy::wildcard_enum_match_arm, reason = "the crate may add kinds of messages")]
        match message.payload {
            NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                let leads = matches!(route.header.kind, RouteType::Unicast | RouteType::Local);
                Some(leads.then(|| course(&route.attributes)))
            }
            NetlinkPayload::Error(error) => says_no_route(error.raw_code()).then_some(None),
            _ => None,
        }
    }

    /// What stands for "no route", and for those of the kinds `unreachable`, `prohibit` and
    /// `blackhole` (ip-route(8)).
    fn says_no_route(code: i32) -> bool {
        use Errno::{EACCES, EHOSTUNREACH, EINVAL, ENETDOWN, ENETUNREACH};
        let error = Errno::from_raw(code.saturating_neg());
        [ENETUNREACH, EHOSTUNREACH, ENETDOWN, EACCES, EINVAL].contains(&error)
    }

    fn course(attributes: &[RouteAttribute]) -> Course {
        let mut course = Course { interface: None, gateway: None, source: None, runs: false };
        for attribute in attributes {
            #[expect(clippy::wildcard_enum_match_arm, reason = "all else decides nothing here")]
            match attribute {
                RouteAttribute::Oif(index) => course.interface = Some(*index),
                RouteAttribute::Gateway(address) => course.gateway = plain(address),
                RouteAttribute::Via(RouteVia::Inet6(address)) => {
                    course.gateway = Some((*address).into());
                }
                RouteAttribute::PrefSource(address) => course.source = plain(address),
                _ => {}
            }
        }
        course
    }

    fn plain(address: &RouteAddress) -> Option<IpAddr> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "other kinds are no addresses of ours")]
        match address {
            RouteAddress::Inet(address) => Some((*address).into()),
            RouteAddress::Inet6(address) => Some((*address).into()),
            _ => None,
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
