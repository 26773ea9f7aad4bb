//! One supervisor hands its place to the next: descriptors over the control socket.
//!
//! The form of these messages is the same for all versions, for ever. A frame is a 32-bit
//! big-endian length and that much JSON; a descriptor, if there is one, comes with the first byte
//! of its frame. What is not known is passed over, its descriptor closed.
//!
//! ```text
//!   newcomer                                  the one that runs
//!      <-- greeting (`meeting::Greeting`)
//!      --> {"handover":1,"must":false}        accepts nothing from here on
//!      <-- {"item":"refused","why":"…"}       or:
//!      <-- {"item":"agent","path":"…"}        the user's SSH agent
//!      <-- {"item":"door"}             + fd   a control socket, listening
//!      <-- {"item":"port","remote":"…"} + fd  a local port, listening
//!      <-- {"item":"held","leftMs":9}  + fd   a connection that waits
//!      <-- {"item":"former"}           + fd   the connection to one that handed over before, and drains
//!      <-- {"item":"lock"}             + fd   the last: the lock file
//!      --> {"word":"serving"}                 forgets its own descriptors, and drains
//!      --> {"word":"endPort","port":18789}    later, when a remote is taken down
//!      --> {"word":"end"}                     later, when the newcomer is told to end
//! ```
//!
//! Up to `serving` the one that runs keeps all of it, and goes on if the newcomer is gone or takes
//! too long: it shuts the connection down first, so that `serving` comes in time or not at all. A
//! newcomer that cannot say `serving`, or is left in the middle, lets go of the lock and asks for
//! it anew: if that works the other is dead, and what has come is kept; if not it lives, and
//! serves. So one of the two serves, and never both.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, recvmsg, sendmsg, shutdown,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::lock::locked;

/// How long either end may keep the other waiting for a frame.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The largest frame, bytes.
const FRAME_LIMIT: u32 = 1 << 16;
/// How long what listens waits for its remote: until then whoever connects is not refused, and is not
/// served either.
const KEPT: Duration = Duration::from_secs(600);
/// Descriptors taken with one frame; all but the first are closed.
const DESCRIPTORS: usize = 4;

/// The call of a newcomer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Call {
    /// The form of the messages: 1.
    pub(super) handover: u32,
    /// Whether the newcomer cannot do with the one that runs.
    #[serde(default)]
    pub(super) must: bool,
}

/// What the one that runs says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "item", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Item {
    /// It goes on.
    Refused {
        /// Why, as a fragment for a person.
        why: String,
    },
    /// Where the last command's agent is.
    Agent {
        /// Its socket.
        path: PathBuf,
    },
    /// A control socket.
    Door,
    /// A local port.
    Port {
        /// The remote that it belongs to.
        remote: String,
    },
    /// A connection that waits for a path.
    Held {
        /// For how long still, milliseconds.
        left_ms: u64,
    },
    /// The connection to one that handed over to this one, and still drains.
    Former,
    /// The lock file.
    Lock,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

impl Item {
    /// A connection that waits until then.
    pub(super) fn held(until: Instant) -> Self {
        let left = until.saturating_duration_since(Instant::now());
        Self::Held { left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// What the newcomer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "word", rename_all = "camelCase")]
pub(super) enum Word {
    /// It has all of it, and accepts.
    Serving,
    /// The remote at this local port is taken down: what is open there ends.
    EndPort {
        /// Its number.
        port: u16,
    },
    /// It was told to end; so is who handed over to it.
    End,
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// An item with its descriptor.
pub(super) type Part = (Item, Option<OwnedFd>);

/// Gives `parts` away; the connection if the newcomer serves from now on. Blocks.
pub(super) fn give(stream: UnixStream, parts: &[Part]) -> io::Result<UnixStream> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    for (item, descriptor) in parts {
        send(&stream, item, descriptor.as_ref())?;
    }
    let mut said = receive(&stream).map(|(word, _)| word);
    if said.is_err() {
        // After this nothing more can be said; what was said before is still there to be read.
        shutdown(&stream, Shutdown::Both)?;
        said = receive(&stream).map(|(word, _)| word);
    }
    match said? {
        Word::Serving => Ok(stream),
        Word::End | Word::EndPort { .. } | Word::Unknown => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Says no. Blocks.
pub(super) fn refuse(stream: &UnixStream, why: &str) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send(stream, &Item::Refused { why: why.to_owned() }, None)
}

/// What a newcomer was given.
#[derive(Debug, Default)]
pub(crate) struct Estate {
    /// The connection to whom it came from.
    pub(super) predecessor: Option<UnixStream>,
    /// Connections to those before that one.
    pub(super) former: Vec<UnixStream>,
    pub(super) agent: Option<PathBuf>,
    pub(super) doors: Vec<UnixListener>,
    /// The lock file, until it is known to be ours.
    pub(super) lock: Option<OwnedFd>,
    /// The remotes that were at work.
    pub(super) remotes: Vec<String>,
    pub(super) pool: Pool,
}

/// Why a newcomer did not get all of it.
#[derive(Debug)]
pub(super) enum NotGiven {
    /// It was told so.
    Refused(String),
    /// The connection ended in the middle.
    Broken,
    /// A descriptor did not come: this process has as many as it may have.
    Short,
}

/// Asks for the place and fills `estate`, as far as it comes. Blocks.
pub(super) fn ask(stream: UnixStream, call: Call, estate: &mut Estate) -> Result<(), NotGiven> {
    fill(&stream, call, estate)?;
    estate.predecessor = Some(stream);
    Ok(())
}

fn fill(stream: &UnixStream, call: Call, estate: &mut Estate) -> Result<(), NotGiven> {
    let broken = |_| NotGiven::Broken;
    stream.set_read_timeout(Some(2 * PATIENCE)).map_err(broken)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(broken)?;
    send(stream, &call, None).map_err(broken)?;
    loop {
        let (item, descriptor) = receive::<Item>(stream).map_err(broken)?;
        match (item, descriptor) {
            (Item::Refused { why }, _) => return Err(NotGiven::Refused(why)),
            (Item::Agent { path }, _) => estate.agent = Some(path),
            (Item::Door, Some(door)) => estate.doors.push(door.into()),
            (Item::Former, Some(former)) => estate.former.push(former.into()),
            (Item::Port { remote }, Some(port)) => {
                estate.pool.put_port(&remote, port);
                if !estate.remotes.contains(&remote) {
                    estate.remotes.push(remote);
                }
            }
            (Item::Held { left_ms }, Some(held)) => {
                estate.pool.put_held(held.into(), Duration::from_millis(left_ms));
            }
            (Item::Lock, Some(lock)) => {
                estate.lock = Some(lock);
                return Ok(());
            }
            (
                Item::Door | Item::Former | Item::Port { .. } | Item::Held { .. } | Item::Lock,
                None,
            ) => return Err(NotGiven::Short),
            (Item::Unknown, _) => {}
        }
    }
}

impl Estate {
    /// Whether somebody goes on with the remotes that were at work if we do not serve.
    pub(super) fn has_owner(&self) -> bool {
        self.predecessor.is_some() && !self.remotes.is_empty()
    }

    /// Tells the predecessor that it may go; an error if it took its place back.
    pub(super) fn serving(&self) -> io::Result<()> {
        self.predecessor.as_ref().map_or(Ok(()), |stream| send(stream, &Word::Serving, None))
    }
}

/// Tells a predecessor something; one that has ended hears nothing.
pub(super) fn tell(predecessor: &UnixStream, word: Word) {
    let _ended = send(predecessor, &word, None);
}

/// Whether a predecessor is still there: it says nothing, so all that can be read is its end.
pub(super) fn is_there(predecessor: &UnixStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match rustix::net::recv(predecessor, &mut [0_u8; 1][..], flags) {
        Ok((count, _)) => count > 0,
        Err(error) => error == rustix::io::Errno::AGAIN || error == rustix::io::Errno::INTR,
    }
}

/// What a forward listens on.
#[derive(Debug)]
enum Listening {
    Port(TcpListener),
    Socket(UnixListener),
}

impl Listening {
    fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Port(port) => port.local_addr().ok(),
            Self::Socket(_) => None,
        }
    }

    /// Whether a connection that came in at `address` came in here.
    fn accepts(&self, address: SocketAddr) -> bool {
        self.address().is_some_and(|at| {
            let is_any = at.ip().is_unspecified();
            let is_it = is_any || at.ip().to_canonical() == address.ip().to_canonical();
            at.port() == address.port() && is_it
        })
    }

    fn descriptor(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Port(port) => port.as_fd().try_clone_to_owned(),
            Self::Socket(socket) => socket.as_fd().try_clone_to_owned(),
        }
    }
}

/// The remote that something came for from a predecessor, and until when it is kept for that one.
#[derive(Debug, Clone)]
pub(super) struct Heir {
    owner: String,
    until: Instant,
}

/// What listens, for its remote.
#[derive(Debug)]
struct Pooled {
    owner: String,
    it: Listening,
    until: Instant,
}

/// Listening ports and sockets, and waiting connections, that came from a predecessor, until a remote
/// takes them. What belongs to one that cannot be started yet stays, for ten minutes: whoever connects
/// waits in the kernel.
#[derive(Debug, Default)]
pub(super) struct Pool {
    listening: Mutex<Vec<Pooled>>,
    held: Mutex<Vec<(TcpStream, Instant)>>,
}

impl Pool {
    /// Keeps what came for a remote just now.
    pub(super) fn put_port(&self, remote: &str, port: OwnedFd) {
        self.put_back(&Heir { owner: remote.to_owned(), until: Instant::now() + KEPT }, port);
    }

    /// Keeps what was taken, as long as it would have been kept without that.
    pub(super) fn put_back(&self, heir: &Heir, port: OwnedFd) {
        let port = TcpListener::from(port);
        let it = match port.local_addr() {
            Ok(_) => Listening::Port(port),
            Err(_) => Listening::Socket(UnixListener::from(OwnedFd::from(port))),
        };
        let Heir { owner, until } = heir.clone();
        locked(&self.listening).push(Pooled { owner, it, until });
    }

    pub(super) fn put_held(&self, stream: TcpStream, left: Duration) {
        locked(&self.held).push((stream, Instant::now() + left));
    }

    /// The socket that listens at `address`, if it came, and the remote that it came for.
    pub(super) fn take_port(&self, address: SocketAddr) -> Option<(Heir, TcpListener)> {
        let mut listening = locked(&self.listening);
        let place = listening.iter().position(|pooled| pooled.it.address() == Some(address))?;
        let Pooled { owner, it, until } = listening.swap_remove(place);
        match it {
            Listening::Port(port) => Some((Heir { owner, until }, port)),
            Listening::Socket(_) => None,
        }
    }

    /// The same for the socket that listens at `path`.
    pub(super) fn take_socket(&self, path: &Path) -> Option<(Heir, UnixListener)> {
        let mut listening = locked(&self.listening);
        let is_it = |it: &Listening| match it {
            Listening::Socket(socket) => {
                socket.local_addr().is_ok_and(|address| address.as_pathname() == Some(path))
            }
            Listening::Port(_) => false,
        };
        let place = listening.iter().position(|pooled| is_it(&pooled.it))?;
        let Pooled { owner, it, until } = listening.swap_remove(place);
        match it {
            Listening::Socket(socket) => Some((Heir { owner, until }, socket)),
            Listening::Port(_) => None,
        }
    }

    /// The connections that came in at an address that `is_its`, with the ends of their patience.
    pub(super) fn take_held(
        &self,
        is_its: impl Fn(SocketAddr) -> bool,
    ) -> Vec<(TcpStream, Instant)> {
        let mut held = locked(&self.held);
        held.extract_if(.., |(stream, _)| stream.local_addr().is_ok_and(&is_its)).collect()
    }

    /// Whether what came listens at `address`.
    pub(super) fn holds(&self, address: SocketAddr) -> bool {
        locked(&self.listening).iter().any(|pooled| pooled.it.address() == Some(address))
    }

    /// The remote whose port of loopback this is.
    pub(super) fn owner(&self, port: u16) -> Option<String> {
        let listening = locked(&self.listening);
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        let is_it = |it: &Listening| it.accepts(v4) || it.accepts(v6);
        listening.iter().find(|pooled| is_it(&pooled.it)).map(|pooled| pooled.owner.clone())
    }

    /// Whether anything listens that nobody took.
    pub(super) fn has_ports(&self) -> bool {
        !locked(&self.listening).is_empty()
    }

    /// All of it, for a successor.
    pub(super) fn parts(&self) -> io::Result<Vec<Part>> {
        let mut parts: Vec<Part> = Vec::new();
        for Pooled { owner, it, .. } in locked(&self.listening).iter() {
            parts.push((Item::Port { remote: owner.clone() }, Some(it.descriptor()?)));
        }
        for (stream, until) in locked(&self.held).iter() {
            parts.push((Item::held(*until), Some(stream.as_fd().try_clone_to_owned()?)));
        }
        Ok(parts)
    }

    /// The remote goes by another name.
    pub(super) fn rename(&self, name: &str, to: &str) {
        for Pooled { owner, .. } in locked(&self.listening).iter_mut() {
            if owner == name {
                to.clone_into(owner);
            }
        }
    }

    /// When the next of what listens or waits has waited long enough.
    pub(super) fn next_end(&self) -> Option<Instant> {
        let port = locked(&self.listening).iter().map(|pooled| pooled.until).min();
        let held = locked(&self.held).iter().map(|(_, until)| *until).min();
        port.into_iter().chain(held).min()
    }

    /// Closes what has; how many of them listened.
    pub(super) fn close_late(&self, now: Instant) -> usize {
        locked(&self.held).retain(|(_, until)| *until > now);
        locked(&self.listening).extract_if(.., |pooled| pooled.until <= now).count()
    }

    /// Closes what nobody took of the remotes that `is_its`; how much that was.
    pub(super) fn close(&self, is_its: impl Fn(&str) -> bool) -> (usize, usize) {
        let mut listening = locked(&self.listening);
        let closed: Vec<_> = listening.extract_if(.., |pooled| is_its(&pooled.owner)).collect();
        drop(listening);
        let held = self.take_held(|at| closed.iter().any(|pooled| pooled.it.accepts(at)));
        (closed.len(), held.len())
    }

    /// Closes all that nobody took; how much that was.
    pub(super) fn clear(&self) -> (usize, usize) {
        let listening = std::mem::take(&mut *locked(&self.listening));
        let held = std::mem::take(&mut *locked(&self.held));
        (listening.len(), held.len())
    }
}

/// The user at the other end.
#[cfg(target_os = "linux")]
pub(super) fn peer(stream: &UnixStream) -> io::Result<u32> {
    Ok(rustix::net::sockopt::socket_peercred(stream)?.uid.as_raw())
}

/// The user at the other end.
#[cfg(not(target_os = "linux"))]
pub(super) fn peer(stream: &UnixStream) -> io::Result<u32> {
    Ok(nix::unistd::getpeereid(stream)?.0.as_raw())
}

/// Reads one frame that brings no descriptor.
pub(super) fn read<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<T> {
    receive(stream).map(|(value, _)| value)
}

fn send(stream: &UnixStream, what: &impl Serialize, with: Option<&OwnedFd>) -> io::Result<()> {
    let text = serde_json::to_vec(what)?;
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= FRAME_LIMIT);
    let length = length.ok_or(io::ErrorKind::InvalidInput)?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend_from_slice(&text);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut attached = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = with.iter().map(|descriptor| descriptor.as_fd()).collect();
    if !descriptors.is_empty() && !attached.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let sent = sendmsg(stream, &[IoSlice::new(&frame)], &mut attached, SendFlags::NOSIGNAL)?;
    let mut stream = stream;
    stream.write_all(frame.get(sent..).unwrap_or_default())
}

fn receive<T: DeserializeOwned>(stream: &UnixStream) -> io::Result<(T, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut attached = RecvAncillaryBuffer::new(&mut space);
    let mut length = [0; 4];
    let got = recvmsg(stream, &mut [IoSliceMut::new(&mut length)], &mut attached, close_on_exec())?;
    let mut descriptor = None;
    for message in attached.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            descriptor = descriptors.into_iter().next();
        }
    }
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut stream = stream;
    stream.read_exact(length.get_mut(got.bytes..).unwrap_or_default())?;
    let length = u32::from_be_bytes(length);
    if length > FRAME_LIMIT {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; length as usize];
    stream.read_exact(&mut text)?;
    Ok((serde_json::from_slice(&text)?, descriptor))
}

/// Children must not inherit what is received.
#[cfg(target_os = "linux")]
fn close_on_exec() -> RecvFlags {
    RecvFlags::CMSG_CLOEXEC
}

/// This system has no such flag; a child that is started in the same moment inherits a descriptor.
#[cfg(not(target_os = "linux"))]
fn close_on_exec() -> RecvFlags {
    RecvFlags::empty()
}

#[cfg(test)]
#[path = "handover_tests.rs"]
mod tests;
