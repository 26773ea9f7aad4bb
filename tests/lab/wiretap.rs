//! Listens in on a network of a test's own without touching it, and holds what the gateways in there
//! say against the published schema.
//!
//! For programs that choose their gateway's port themselves, so that no tap gets in front of it. What
//! comes in TLS is not understood.

use std::{
    cell::RefCell,
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    rc::Rc,
    sync::{Arc, mpsc},
    thread::JoinHandle,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, setsockopt, socket,
        sockopt::RcvBufForce,
    },
};
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::{
    net::Net,
    support::{Ear, Judge, Talk},
};

/// What the kernel keeps for us while we are not running: more than any of these stories says.
const BUFFER: usize = 64 << 20;
/// The longest packet that loopback makes.
const PACKET: usize = 128 << 10;
/// TCP among the protocols of IP.
const TCP: u8 = 6;
/// Flags of a TCP header (RFC 9293, 3.1).
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// Who listens; when dropped, nothing that was heard may have been wrong.
pub(crate) struct Wiretap {
    judge: Arc<Judge>,
    end: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Wiretap {
    /// Listens to everything from now on. `None` where the schema is not installed.
    pub(crate) fn on(net: &Net) -> Option<Self> {
        let judge = Judge::published()?;
        let (end, ended) = UnixStream::pair().expect("two ends");
        let (listens, ready) = mpsc::channel();
        let thread = net.spawn({
            let judge = Arc::clone(&judge);
            move || {
                let packets = packets();
                listens.send(()).expect("somebody waits");
                listen(&packets, &ended, &mut Flows { judge, flows: HashMap::new() });
            }
        });
        ready.recv().expect("listening to a network");
        Some(Self { judge, end, thread: Some(thread) })
    }

    /// How many frames were held against the schema so far.
    pub(crate) fn held(&self) -> usize {
        self.judge.held()
    }
}

impl Drop for Wiretap {
    fn drop(&mut self) {
        drop(self.end.shutdown(Shutdown::Both));
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(ended || std::thread::panicking(), "the wiretap failed");
        self.judge.sentence();
    }
}

/// All packets of this thread's network, from their IP header on.
fn packets() -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (family, kind) = (AddressFamily::Packet, SockType::Datagram);
    let packets = socket(family, kind, flags, SockProtocol::EthAll).expect("a packet socket");
    setsockopt(&packets, RcvBufForce, &BUFFER).expect("its buffer");
    packets
}

/// Hears all packets until the other end of `ended` is closed, and those that are there by then.
fn listen(packets: &OwnedFd, ended: &UnixStream, flows: &mut Flows) {
    let mut buffer = vec![0; PACKET];
    let mut is_over = false;
    while !is_over {
        let mut waits = [
            PollFd::new(packets.as_fd(), PollFlags::POLLIN),
            PollFd::new(ended.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut waits, PollTimeout::NONE).expect("waiting for packets");
        is_over = waits[1].any().unwrap_or(true);
        while let Ok(count) = recv(packets.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            if let Some(segment) = Segment::of(&buffer[..count]) {
                flows.take(&segment);
            }
        }
    }
    flows.end();
}

/// One packet of TCP.
struct Segment<'a> {
    from: SocketAddr,
    to: SocketAddr,
    number: u32,
    flags: u8,
    bytes: &'a [u8],
}

impl<'a> Segment<'a> {
    /// That of an IP packet; `None` of anything else.
    fn of(packet: &'a [u8]) -> Option<Self> {
        let (from, to, segment) = match packet.first()? >> 4 {
            4 if *packet.get(9)? == TCP => {
                let address = |at: usize| Some(IpAddr::V4(Ipv4Addr::from(array::<4>(packet, at)?)));
                let (head, whole) = (usize::from(packet[0] & 15) * 4, array(packet, 2)?);
                let whole = usize::from(u16::from_be_bytes(whole));
                (address(12)?, address(16)?, packet.get(head..whole)?)
            }
            6 if *packet.get(6)? == TCP => {
                let address =
                    |at: usize| Some(IpAddr::V6(Ipv6Addr::from(array::<16>(packet, at)?)));
                let length = usize::from(u16::from_be_bytes(array(packet, 4)?));
                (address(8)?, address(24)?, packet.get(40..40 + length)?)
            }
            _ => return None,
        };
        let port = |at: usize| Some(u16::from_be_bytes(array(segment, at)?));
        let bytes = segment.get(usize::from(segment.get(12)? >> 4) * 4..)?;
        Some(Self {
            from: SocketAddr::new(from, port(0)?),
            to: SocketAddr::new(to, port(2)?),
            number: u32::from_be_bytes(array(segment, 4)?),
            flags: *segment.get(13)?,
            bytes,
        })
    }
}

fn array<const LENGTH: usize>(bytes: &[u8], at: usize) -> Option<[u8; LENGTH]> {
    bytes.get(at..at + LENGTH)?.try_into().ok()
}

/// Every connection, in both directions.
struct Flows {
    judge: Arc<Judge>,
    flows: HashMap<(SocketAddr, SocketAddr), Flow>,
}

/// One direction of a connection.
struct Flow {
    /// The number of the next byte; `None` before the first packet.
    next: Option<u32>,
    /// What came before its turn.
    early: Vec<(u32, Vec<u8>)>,
    ear: Ear,
    /// Whether this is the client's.
    asks: bool,
    talk: Rc<RefCell<Talk>>,
}

impl Flows {
    /// Takes a packet, which may have been seen before.
    fn take(&mut self, segment: &Segment<'_>) {
        let Segment { from, to, number, flags, bytes } = *segment;
        let first = number.wrapping_add(1);
        match flags & (SYN | ACK) {
            SYN => {
                let known = self.flows.get(&(from, to)).and_then(|flow| flow.next);
                if known != Some(first) {
                    let talk = Rc::new(RefCell::new(Talk::new(Arc::clone(&self.judge))));
                    let flow = |next, role| Flow::new(next, role, Rc::clone(&talk));
                    self.put((from, to), flow(Some(first), Role::Server));
                    self.put((to, from), flow(None, Role::Client));
                }
            }
            flags if flags == SYN | ACK => {
                if let Some(flow) = self.flows.get_mut(&(from, to)) {
                    flow.next.get_or_insert(first);
                }
            }
            _ => {
                if let Some(flow) = self.flows.get_mut(&(from, to)) {
                    flow.take(number, bytes);
                }
            }
        }
    }

    /// Begins a direction in the place of an older one.
    fn put(&mut self, way: (SocketAddr, SocketAddr), flow: Flow) {
        if let Some(old) = self.flows.insert(way, flow) {
            self.judge.add(old.missed());
        }
    }

    /// Says which connections were not heard to their end.
    fn end(&mut self) {
        let missed = self.flows.values().filter_map(Flow::missed);
        self.judge.add(missed);
    }
}

impl Flow {
    fn new(next: Option<u32>, role: Role, talk: Rc<RefCell<Talk>>) -> Self {
        let asks = role == Role::Server;
        Self { next, early: Vec::new(), ear: Ear::new(role), asks, talk }
    }

    fn missed(&self) -> Option<String> {
        let lengths: Vec<_> = self.early.iter().map(|(_, bytes)| bytes.len()).collect();
        (!lengths.is_empty()).then(|| format!("packets were missed before {lengths:?} bytes"))
    }

    /// Hears what has its turn.
    fn take(&mut self, number: u32, bytes: &[u8]) {
        let Some(next) = self.next.as_mut() else { return };
        // Half of all numbers are behind the next one.
        let is_due = |number: u32, next: u32| next.wrapping_sub(number) < 1 << 31;
        let end = number.wrapping_add(u32::try_from(bytes.len()).expect("a packet"));
        if bytes.is_empty() || is_due(end, *next) {
            return;
        }
        self.early.push((number, bytes.to_vec()));
        while let Some(at) = self.early.iter().position(|(number, _)| is_due(*number, *next)) {
            let (number, bytes) = self.early.swap_remove(at);
            let seen = usize::try_from(next.wrapping_sub(number)).expect("a length");
            let Some(new) = bytes.get(seen..) else { continue };
            *next = next.wrapping_add(u32::try_from(new.len()).expect("a packet"));
            let mut talk = self.talk.borrow_mut();
            self.ear.hear(new, &mut |text| match self.asks {
                true => talk.on_request(text),
                false => talk.on_answer(text),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::support::{Home, Peer, dial, free_port, openclaw, present};

    const LIMIT: std::time::Duration = std::time::Duration::from_secs(20);

    #[test]
    fn what_the_gateway_of_the_demo_says_is_as_published() {
        if !present(&[Peer::Namespaces]) {
            return;
        }
        let (net, home) = (Net::new(), Home::new());
        let wiretap = Wiretap::on(&net);
        net.inside(|| openclaw(&home).arg("demo").run()).exits(0);
        let held = wiretap.as_ref().map(Wiretap::held);
        assert!(held.is_none_or(|held| held >= 10), "{held:?} frames");
    }

    #[test]
    fn the_wiretap_hears_what_is_wrong_in_whatever_pieces_it_comes() {
        if !present(&[Peer::Namespaces]) {
            return;
        }
        let net = Net::new();
        let Some(wiretap) = Wiretap::on(&net) else { return };
        net.inside(|| {
            let port = free_port();
            let listener = TcpListener::bind(("127.0.0.1", port)).expect("a port");
            let liar = std::thread::spawn(move || {
                let (stream, _) = listener.accept().expect("a caller");
                stream.set_nodelay(true).expect("a socket");
                let mut socket = tokio_tungstenite::tungstenite::accept(stream).expect("a client");
                let long = format!(r#"{{"type":"made-up","padding":"{}"}}"#, "x".repeat(300_000));
                socket.send(long.into()).expect("a frame");
                drop(socket.read());
            });
            let stream = dial(port, LIMIT).expect("the liar");
            let url = format!("ws://127.0.0.1:{port}/");
            let called = tokio_tungstenite::tungstenite::client(url, stream);
            let (mut socket, _) = called.expect("a WebSocket");
            assert!(socket.read().expect("the lie").is_text());
            drop(socket);
            liar.join().expect("the liar");
        });
        let judge = Arc::clone(&wiretap.judge);
        let heard = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(wiretap)));
        assert!(heard.is_err(), "nothing was found wrong in {} frames", judge.held());
        assert_eq!(judge.held(), 1);
    }
}
