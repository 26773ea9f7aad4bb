//! A local port or socket of a remote: bound once, accepting until the user disconnects.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::{TcpListener, UnixListener},
    sync::mpsc,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{
    handover::{Heir, Pool},
    incoming::Local,
    socket::{self, SocketFile},
};
use crate::{
    config::{self, Kind, Listen},
    problem::{Class, Problem},
    ssh::SocketRule,
};

/// How long to wait after `accept` failed, for want of file descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a connection that was just accepted may take to reach its lane.
const PAUSE_LIMIT: Duration = Duration::from_secs(2);
/// How many connections may wait in the kernel, where it allows as many.
pub(super) const BACKLOG: i32 = 4096;
/// How far up to look for a free port.
const SEARCH: u16 = 200;

/// Where the connections of a port go; may be turned to another lane while the port stays.
#[derive(Debug, Clone)]
pub(super) struct Outlet(Arc<Mutex<mpsc::Sender<Local>>>);

impl Outlet {
    fn new(to: mpsc::Sender<Local>) -> Self {
        Self(Arc::new(Mutex::new(to)))
    }

    /// Sends all later connections to `to`.
    pub(super) fn turn(&self, to: mpsc::Sender<Local>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }

    fn sender(&self) -> mpsc::Sender<Local> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A bound port or socket; released when dropped.
#[derive(Debug)]
pub(super) struct Port {
    /// Its number; 0 for a socket.
    pub(super) number: u16,
    outlet: Outlet,
    listeners: Vec<Listener>,
    tasks: JoinSet<()>,
    pausing: CancellationToken,
    file: Option<SocketFile>,
    /// The remote that it came for from a predecessor.
    owner: Option<Heir>,
}

/// What a port listens on.
#[derive(Debug, Clone)]
enum Listener {
    Tcp(Arc<TcpListener>),
    Unix(Arc<UnixListener>),
}

impl Listener {
    async fn accept(&self) -> io::Result<Local> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                if let Err(error) = stream.set_nodelay(true) {
                    warn!(%error, "setting TCP_NODELAY failed");
                }
                Ok(Local::Tcp(stream))
            }
            Self::Unix(listener) => Ok(Local::Unix(listener.accept().await?.0)),
        }
    }

    fn descriptor(&self) -> io::Result<OwnedFd> {
        match self {
            Self::Tcp(listener) => listener.as_fd().try_clone_to_owned(),
            Self::Unix(listener) => listener.as_fd().try_clone_to_owned(),
        }
    }
}

impl Port {
    /// Listens where a forward says, a socket being made by `rule`; what is in `pool` listens
    /// already.
    pub(super) async fn open(
        at: &Listen,
        rule: SocketRule,
        to: mpsc::Sender<Local>,
        pool: &Pool,
    ) -> Result<Self, Problem> {
        match at {
            Listen::Port { bind, port } => Self::bind(bind.as_deref(), *port, to, pool).await,
            Listen::Socket(path) => {
                let (owner, came) = pool.take_socket(Path::new(path)).unzip();
                let (listener, file) = socket::bind(path, rule, came)?;
                let listener = Listener::Unix(Arc::new(listener));
                Ok(Self { owner, ..Self::start(0, vec![listener], Some(file), to) })
            }
        }
    }

    /// Binds `number` on `bind`, or on both loopback addresses.
    async fn bind(
        bind: Option<&str>,
        number: u16,
        to: mpsc::Sender<Local>,
        pool: &Pool,
    ) -> Result<Self, Problem> {
        let mut listeners = Vec::new();
        let mut owner = None;
        for address in addresses(bind)? {
            let address = SocketAddr::new(address, number);
            let (remote, came) = pool.take_port(address).unzip();
            owner = owner.or(remote);
            match listen(address, came).await {
                Ok(listener) => listeners.push(Listener::Tcp(Arc::new(listener))),
                // A machine without IPv6 has no ::1 to bind.
                Err(error) if !listeners.is_empty() && is_without_family(&error) => {}
                Err(error) => {
                    put_back(owner.as_ref(), &listeners, pool);
                    return Err(not_bound(number, &error).await);
                }
            }
        }
        Ok(Self { owner, ..Self::start(number, listeners, None, to) })
    }

    fn start(
        number: u16,
        listeners: Vec<Listener>,
        file: Option<SocketFile>,
        to: mpsc::Sender<Local>,
    ) -> Self {
        let (outlet, tasks) = (Outlet::new(to), JoinSet::new());
        let pausing = CancellationToken::new();
        let mut port = Self { number, outlet, listeners, tasks, pausing, file, owner: None };
        port.go_on();
        port
    }

    /// Lets go of it, and leaves the file of a socket to a successor.
    pub(super) fn leave(mut self) {
        if let Some(file) = self.file.take() {
            file.leave();
        }
    }

    /// Whether it came from a predecessor.
    pub(super) fn is_inherited(&self) -> bool {
        self.owner.is_some()
    }

    /// Gives what came from `pool` back to it, after a pause; closes what did not.
    pub(super) async fn give_back(self, pool: &Pool) {
        if !self.is_inherited() {
            return self.close().await;
        }
        put_back(self.owner.as_ref(), &self.listeners, pool);
        self.leave();
    }

    /// Accepts nothing more for now; what was accepted has reached its lane. Newcomers wait in the
    /// kernel.
    pub(super) async fn pause(&mut self) {
        self.pausing.cancel();
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(PAUSE_LIMIT, ended).await.is_err() {
            self.tasks.shutdown().await;
        }
    }

    /// Accepts, at first and after a pause.
    pub(super) fn go_on(&mut self) {
        self.pausing = CancellationToken::new();
        for listener in &self.listeners {
            let (listener, outlet) = (listener.clone(), self.outlet.clone());
            let accepting = accept(listener, outlet, self.pausing.clone());
            self.tasks.spawn(accepting);
        }
    }

    /// Descriptors of what listens, for a successor.
    pub(super) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        self.listeners.iter().map(Listener::descriptor).collect()
    }

    /// Binds the first free port from `first` on that `is_reserved` does not claim.
    pub(super) async fn bind_free(
        first: u16,
        is_reserved: impl Fn(u16) -> bool,
        to: &mpsc::Sender<Local>,
    ) -> Result<Self, Problem> {
        let candidates = (first..=first.saturating_add(SEARCH)).filter(|port| !is_reserved(*port));
        for number in candidates {
            match Self::bind(None, number, to.clone(), &Pool::default()).await {
                Err(problem) if problem.class == Class::PortInUse => {}
                outcome => return outcome,
            }
        }
        Err(Problem::new(
            Class::PortInUse,
            format!("no free port from {first} to {}", first.saturating_add(SEARCH)),
        )
        .fix("openclaw remote connect --local-port PORT …"))
    }

    /// Stops listening; the port is free when this returns.
    pub(super) async fn close(mut self) {
        self.tasks.shutdown().await;
        self.listeners.clear();
    }

    /// Where its connections go.
    pub(super) fn outlet(&self) -> &Outlet {
        &self.outlet
    }
}

/// Whether the local port of the gateway that `definition` leads to is free now, or ours already as
/// one of `pool`; class `port_in_use` if it is not.
pub(super) async fn check(definition: &config::Remote, pool: &Pool) -> Result<(), Problem> {
    if definition.kind == Kind::Exposed {
        return Ok(());
    }
    let port = definition.local_port;
    for address in addresses(None)? {
        let address = SocketAddr::new(address, port);
        if pool.holds(address) {
            continue;
        }
        match std::net::TcpListener::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(not_bound(port, &error).await);
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Whether the machine lacks the address, or all addresses of its kind.
fn is_without_family(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrNotAvailable
        || error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
}

/// The addresses that a `-L` bind address means.
fn addresses(bind: Option<&str>) -> Result<Vec<IpAddr>, Problem> {
    match bind {
        None | Some("localhost") => {
            Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)])
        }
        // IPv6's takes IPv4 connections as well.
        Some("*" | "") if has_ipv6() => Ok(vec![IpAddr::V6(Ipv6Addr::UNSPECIFIED)]),
        Some("*" | "") => Ok(vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED)]),
        Some(address) => match address.trim_matches(['[', ']']).parse() {
            Ok(address) => Ok(vec![address]),
            Err(_) => Err(Problem::new(
                Class::Usage,
                format!("`{address}` is not an address that a forward can listen on"),
            )),
        },
    }
}

/// Whether what listens there accepts what was dialled as `address`.
pub(super) fn is_at(listen: &Listen, address: SocketAddr) -> bool {
    let Listen::Port { bind, port } = listen else { return false };
    // One socket may take both families, and shows IPv4 in the form of IPv6.
    let dialled = address.ip().to_canonical();
    let is_it = |bound: IpAddr| {
        let is_any = bound.is_unspecified() && (bound.is_ipv6() || dialled.is_ipv4());
        is_any || bound.to_canonical() == dialled
    };
    let bound = addresses(bind.as_deref());
    address.port() == *port && bound.is_ok_and(|all| all.into_iter().any(is_it))
}

/// Whether the machine knows IPv6 at all.
fn has_ipv6() -> bool {
    tokio::net::TcpSocket::new_v6().is_ok()
}

/// Leaves what came for a remote to its next start.
fn put_back(owner: Option<&Heir>, listeners: &[Listener], pool: &Pool) {
    let Some(owner) = owner else { return };
    for listener in listeners {
        match listener.descriptor() {
            Ok(descriptor) => pool.put_back(owner, descriptor),
            Err(error) => warn!(%error, "a port that was handed over was lost"),
        }
    }
}

/// Listens on the socket that came from a predecessor, or on a new one.
async fn listen(
    address: SocketAddr,
    came: Option<std::net::TcpListener>,
) -> io::Result<TcpListener> {
    let listener = match came {
        Some(listener) => {
            listener.set_nonblocking(true)?;
            TcpListener::from_std(listener)?
        }
        None => TcpListener::bind(address).await?,
    };
    // Whoever finds the queue full is not refused, but tries again after a second, two, four.
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener)
}

async fn accept(listener: Listener, outlet: Outlet, pausing: CancellationToken) {
    let mut is_failing = false;
    loop {
        // What has no place yet stays with the kernel, which a pause leaves it to.
        let sender = outlet.sender();
        let place = tokio::select! {
            biased;
            () = pausing.cancelled() => return,
            place = sender.reserve() => place,
        };
        let accepted = tokio::select! {
            biased;
            () = pausing.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok(local) => {
                is_failing = false;
                // Another lane may have taken over since; one that is gone closes the connection.
                let now = outlet.sender();
                match place {
                    Ok(place) if now.same_channel(&sender) => place.send(local),
                    Ok(_) | Err(_) => {
                        let _gone = now.send(local).await;
                    }
                }
            }
            Err(error) => {
                // Once a spell: the next tries fail alike until something is closed.
                if !std::mem::replace(&mut is_failing, true) {
                    warn!(%error, "accepting connections fails; they wait");
                }
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Says who holds the port.
async fn not_bound(number: u16, error: &io::Error) -> Problem {
    if error.kind() == io::ErrorKind::AddrInUse {
        // It looks at what every process of the machine has open.
        let look = move || listeners::get_process_by_port(number, listeners::Protocol::TCP).ok();
        let holder = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        let holder = holder.map_or("another program".to_owned(), |process| {
            format!("{} (pid {})", process.name, process.pid)
        });
        return Problem::new(Class::PortInUse, format!("local port {number} is taken by {holder}"))
            .fix("stop that program, or choose another port: --local-port PORT for the gateway, -L PORT:… for a forward");
    }
    if error.kind() == io::ErrorKind::PermissionDenied {
        return Problem::new(Class::PortInUse, format!("local port {number} is reserved: {error}"))
            .fix("choose a port above 1023: --local-port PORT for the gateway, -L PORT:… for a forward");
    }
    Problem::new(Class::Internal, format!("listening on port {number}: {error}"))
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn a_bind_address_takes_what_was_dialled_there_and_nothing_else() {
        let dialled = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (bind, address, expected) in [
            (None, "127.0.0.1:8080", true),
            (None, "[::1]:8080", true),
            (None, "127.0.0.2:8080", false),
            (None, "127.0.0.1:8081", false),
            (Some("127.0.0.2"), "127.0.0.2:8080", true),
            (Some("127.0.0.2"), "127.0.0.1:8080", false),
            (Some("[::1]"), "[::1]:8080", true),
            (Some("0.0.0.0"), "192.0.2.7:8080", true),
            (Some("0.0.0.0"), "[::1]:8080", false),
            (Some("::"), "[::ffff:192.0.2.7]:8080", true),
            (Some("*"), "192.0.2.7:8080", true),
            (Some("192.0.2.7"), "[::ffff:192.0.2.7]:8080", true),
        ] {
            let listen = Listen::Port { bind: bind.map(str::to_owned), port: 8080 };
            assert_eq!(is_at(&listen, dialled(address)), expected, "{listen:?} {address}");
        }
    }

    #[test]
    fn a_machine_without_ipv6_is_no_failure() {
        for errno in [Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT] {
            assert!(is_without_family(&errno.into()), "{errno}");
        }
        assert!(!is_without_family(&Errno::EADDRINUSE.into()));
    }
}
