//! The listeners, and everything that lives as long as one gateway.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::{AbortOnDropHandle, TaskTracker},
};
use tracing::Instrument;

use super::{
    Shared, VERSION,
    admission::PeerInfo,
    claim::{self, Claim},
    device_token::Mint,
    http, identity,
    ingress::Door,
    metered::Metered,
    methods::tell_of_health,
    private,
    reload::{self, FirstReading, Known, Live, Why},
    scrape::Scrapes,
    settings::{Guard, Machine, Settings},
    slots::{self, Slot},
    tailscale::{self, Route},
    tally::{Malformed, TurnedAway},
    tls::Terminator,
};
use crate::{
    config::TailscaleMode,
    fingerprint::Fingerprint,
    problem::{Class, Problem},
    secret::Secret,
    store::Store,
};

/// How long everything may take to end: answers under way, farewells, close frames.
const STOP: Duration = Duration::from_secs(8);
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: u32 = 4_096;
/// The pause after a failed accept (out of file descriptors, mostly).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Between two looks for a Tailscale address that was not there at the start.
const TAILNET_LOOK: Duration = Duration::from_secs(5);

/// A gateway that answers. Dropped, it ends at once; [`Running::stop`] ends it politely.
pub(crate) struct Running {
    settings: Settings,
    shared: Arc<Shared>,
    addresses: Vec<SocketAddr>,
    made_token: bool,
    tls: Option<Arc<Terminator>>,
    accepting: CancellationToken,
    stop: CancellationToken,
    /// Aborts the clients' tasks when dropped.
    _insist: DropGuard,
    clients: Clients,
    listeners: JoinSet<()>,
    /// Tells clients of presence.
    _rounds: AbortOnDropHandle<()>,
    /// Tells clients of health.
    _health: AbortOnDropHandle<()>,
    /// Looks at the files that it was configured by.
    _watch: Option<AbortOnDropHandle<()>>,
    /// The way that Tailscale publishes.
    route: Option<Route>,
    claim: Claim,
}

/// The tasks of the clients; `abort` ends them all.
#[derive(Clone)]
struct Clients {
    tracker: TaskTracker,
    abort: CancellationToken,
}

/// Starts a gateway; returns once it accepts connections.
pub(crate) async fn start(settings: Settings) -> Result<Running, Problem> {
    let mut running = settings.clone();
    let Settings {
        paths,
        port,
        listen,
        tls,
        guard,
        allowed_origins,
        node_rules,
        pair_local,
        ways,
        rate_limit,
        tailscale,
        awaits_tailnet,
        log,
    } = settings;
    let mut claim = Claim::take(&paths)?;
    let tls = tls.map(Terminator::new).transpose()?.map(Arc::new);
    let listeners = bind(&listen.addresses(), port)?;
    let (guard, made_token) = match guard {
        Guard::OwnToken => {
            let (token, made) = own_secret(&paths.gateway_token())?;
            (Guard::Token(token), made)
        }
        guard @ (Guard::Open | Guard::Token(_) | Guard::Password(_) | Guard::Proxy(_)) => {
            (guard, false)
        }
    };
    let identity = identity::load_or_make(&paths)?;
    let store = Store::open(&paths.own())?;
    let mint = Mint::new(&own_secret(&paths.own().join("identity").join("device-tokens.key"))?.0);
    let scrapes = own_secret(&paths.metrics_token())?.0;
    for secret in guard.secret().into_iter().chain([&scrapes]) {
        log.conceal(secret);
    }
    let scrapes = Scrapes::new(scrapes, log);
    let addresses: Vec<_> =
        listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let port = addresses.first().map_or(port, SocketAddr::port);
    claim.announce(port)?;
    running.guard = guard.clone();
    let live = Live { guard, allowed_origins, pair_local };
    let mut shared = Shared::new(paths, live, identity, (store, mint), scrapes);
    shared.ways = ways;
    shared.limit(rate_limit);
    let shared = Arc::new(shared);
    shared.nodes.obey(node_rules);
    shared.nodes.load().await?;
    shared.news.load(&shared.store).await?;
    let clients = Clients { tracker: TaskTracker::new(), abort: CancellationToken::new() };
    let hub = Arc::clone(&shared.hub);
    let rounds = tokio::spawn(async move { hub.tell_rounds().await });
    let health = tokio::spawn(tell_of_health(Arc::clone(&shared)));
    let mut running = Running {
        settings: running,
        shared,
        addresses,
        made_token,
        tls,
        accepting: CancellationToken::new(),
        stop: CancellationToken::new(),
        _insist: clients.abort.clone().drop_guard(),
        clients,
        listeners: JoinSet::new(),
        _rounds: AbortOnDropHandle::new(rounds),
        _health: AbortOnDropHandle::new(health),
        _watch: None,
        route: None,
        claim,
    };
    for listener in listeners {
        running.accept_from(listener, Door::Ordinary);
    }
    if awaits_tailnet {
        running.await_tailnet(port);
    }
    running.publish(tailscale).await?;
    tracing::info!(port, pid = std::process::id(), version = VERSION, "gateway started");
    Ok(running)
}

impl Running {
    /// Where it listens, the first one being the one to name.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The certificate that it serves, where it speaks TLS.
    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.tls.as_ref().map(|tls| tls.fingerprint())
    }

    /// Whether this start made `rs/gateway-token`.
    pub(crate) fn made_token(&self) -> bool {
        self.made_token
    }

    /// Takes up from now on what changes of what was read before the start.
    pub(crate) async fn follow(&mut self, first: FirstReading) {
        self.shared.summary.know(first.whole());
        let known = Known::new(first, self.settings.clone());
        self.shared.set_applied(known.revision());
        *self.shared.known.lock().await = Some(known);
        let watch = tokio::spawn(reload::watch(Arc::clone(&self.shared)));
        self._watch = Some(AbortOnDropHandle::new(watch));
    }

    /// Reads what it follows again, and takes up what is safe; says in the log what came of it.
    pub(crate) async fn reload(&self) {
        let outcome = reload::take_up(&self.shared, Why::Asked, None).await;
        tracing::debug!(?outcome, "read again");
    }

    /// Stops accepting, tells the clients, and waits for them a while.
    pub(crate) async fn stop(mut self) {
        if let Some(route) = self.route.take() {
            route.end().await;
        }
        self.accepting.cancel();
        while self.listeners.join_next().await.is_some() {}
        self.shared.nodes.stop();
        self.shared.upgrades.stop();
        self.stop.cancel();
        self.clients.tracker.close();
        self.shared.finishing.close();
        let rest = async {
            self.clients.tracker.wait().await;
            self.shared.finishing.wait().await;
        };
        if timeout(STOP, rest).await.is_err() {
            tracing::warn!(left = self.clients.tracker.len(), "clients did not end in time");
        }
        drop(self.claim);
        tracing::info!("gateway stopped");
    }

    /// The URL at which Tailscale publishes it, if it does and the machine has a name.
    pub(crate) fn published(&self) -> Option<String> {
        let name = self.route.as_ref()?.name.as_ref()?;
        Some(format!("wss://{name}"))
    }

    /// Has Tailscale lead to a listener of its own; returns once it does.
    async fn publish(&mut self, mode: TailscaleMode) -> Result<(), Problem> {
        let (door, is_public) = match mode {
            TailscaleMode::Off => return Ok(()),
            TailscaleMode::Serve => (Door::Serve, false),
            TailscaleMode::Funnel => (Door::Funnel, true),
        };
        let listener = listener((Ipv4Addr::LOCALHOST, 0).into());
        let (listener, port) = listener
            .and_then(|listener| listener.local_addr().map(|address| (listener, address.port())))
            .map_err(|error| {
                Problem::new(Class::Internal, format!("no port for tailscale to lead to: {error}"))
            })?;
        self.accept_from(listener, door);
        let route = tailscale::claim(tailscale::Plan { is_public, port }).await?;
        if let Some(name) = &route.name {
            let told = self.shared.served_as.set(format!("https://{name}"));
            tracing::debug!(is_first = told.is_ok(), name, "the name on the tailnet");
        }
        self.route = Some(route);
        Ok(())
    }

    /// Listens on the Tailscale address as well, once this machine has one.
    fn await_tailnet(&mut self, port: u16) {
        tracing::info!("no Tailscale address yet; it is listened on when it comes");
        let doorway = self.doorway(Door::Ordinary);
        self.listeners.spawn(async move {
            let late = async {
                let mut said = false;
                loop {
                    tokio::time::sleep(TAILNET_LOOK).await;
                    let Some(address) = Machine::tailnet_now() else { continue };
                    match listener((address, port).into()) {
                        Ok(listener) => {
                            tracing::info!(%address, port, "listening on the Tailscale address");
                            return doorway.clone().accept(listener).await;
                        }
                        Err(error) if !said => {
                            tracing::warn!(%error, %address, "cannot listen there yet");
                            said = true;
                        }
                        Err(error) => tracing::debug!(%error, %address, "cannot listen there yet"),
                    }
                }
            };
            tokio::select! {
                () = late => {}
                () = doorway.accepting.cancelled() => {}
            }
        });
    }

    fn doorway(&self, door: Door) -> Doorway {
        Doorway {
            shared: Arc::clone(&self.shared),
            clients: self.clients.clone(),
            accepting: self.accepting.clone(),
            stop: self.stop.clone(),
            // Tailscale has a certificate of its own, and speaks plain to this machine.
            tls: self.tls.clone().filter(|_| door == Door::Ordinary),
            door,
        }
    }

    fn accept_from(&mut self, listener: TcpListener, door: Door) {
        let doorway = self.doorway(door);
        self.listeners.spawn(doorway.accept(listener));
    }
}

/// What a listener needs to let connections in.
#[derive(Clone)]
struct Doorway {
    shared: Arc<Shared>,
    clients: Clients,
    accepting: CancellationToken,
    stop: CancellationToken,
    tls: Option<Arc<Terminator>>,
    door: Door,
}

impl Doorway {
    /// Accepts until the gateway takes nobody any more.
    async fn accept(self, listener: TcpListener) {
        let Self { shared, clients, accepting, stop, tls, door } = self;
        let accept = async {
            loop {
                match listener.accept().await {
                    Ok((stream, from)) => {
                        // Small frames must not wait for one another; a socket without the
                        // option is slower and works.
                        let set = stream.set_nodelay(true);
                        tracing::trace!(nodelay = set.is_ok(), "accepted");
                        let local = stream.local_addr().ok().map(|address| address.ip());
                        let peer = PeerInfo::at(from.ip(), local, door);
                        clients.serve(&shared, stream, tls.clone(), peer, &stop);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        tokio::select! {
            () = accept => {}
            () = accepting.cancelled() => {}
        }
    }
}

impl Clients {
    fn serve(
        &self,
        shared: &Arc<Shared>,
        stream: TcpStream,
        tls: Option<Arc<Terminator>>,
        peer: PeerInfo,
        stop: &CancellationToken,
    ) {
        let Some(slot) = shared.slots.enter(peer.door, peer.address) else {
            tracing::debug!("no place for another connection");
            shared.tally.turned_away(TurnedAway::NoPlace);
            return;
        };
        let span = tracing::debug_span!("client", id = shared.next_client());
        // Of its own: whoever waits for a token that all share stands in line with all.
        let (stop, abort) = (stop.child_token(), self.abort.child_token());
        let shared = Arc::clone(shared);
        let serve = async move {
            let placed = tokio::select! {
                placed = slot.placed(spoken(&stream)) => placed,
                () = stop.cancelled() => return,
            };
            if let Err(why) = placed {
                tracing::debug!(?why, "no place");
                why.into_iter().for_each(|why| shared.tally.turned_away(why));
                return;
            }
            let (loss, tally) = (slot.loss(), Arc::clone(&shared.tally));
            // What waits at the door is small: the rest is made when there is a place for it.
            let welcome = Box::pin(welcome(shared, stream, tls, peer, slot, stop));
            tokio::select! {
                () = welcome => {}
                () = loss.happens() => {
                    tracing::debug!("gave the place up");
                    tally.turned_away(TurnedAway::NoPlace);
                }
            }
        };
        let task = async move {
            tokio::select! {
                () = serve => {}
                () = abort.cancelled() => {}
            }
        };
        self.tracker.spawn(task.instrument(span));
    }
}

/// Waits for the first byte of a stream, and leaves it there.
async fn spoken(stream: &TcpStream) -> io::Result<()> {
    match stream.peek(&mut [0]).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

/// Serves a stream that has a place, after its TLS if it is to speak it.
async fn welcome(
    shared: Arc<Shared>,
    stream: TcpStream,
    tls: Option<Arc<Terminator>>,
    peer: PeerInfo,
    slot: Slot,
    stop: CancellationToken,
) {
    let Some(tls) = tls else { return attend(shared, stream, peer, slot, stop).await };
    match tls.accept(stream, slot.since() + slots::WINDOW).await {
        Ok(stream) => attend(shared, stream, peer, slot, stop).await,
        Err(error) => {
            tracing::debug!(%error, "no TLS");
            shared.tally.malformed(Malformed::Tls);
        }
    }
}

/// Serves a stream that carries HTTP.
async fn attend<S>(
    shared: Arc<Shared>,
    stream: S,
    peer: PeerInfo,
    slot: Slot,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = Metered::new(stream, shared.tally.bytes());
    http::serve(shared, stream, peer, slot, stop).await;
}

/// A socket that listens. A thousand clients that come back at once wait in its queue: whoever does
/// not fit in there tries again only after a second.
fn listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Binds each address on one port.
fn bind(addresses: &[(IpAddr, bool)], port: u16) -> Result<Vec<TcpListener>, Problem> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    for (address, may_be_missing) in addresses {
        let port = match listeners.first().and_then(|first| first.local_addr().ok()) {
            Some(first) => first.port(),
            None => port,
        };
        match listener((*address, port).into()) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(claim::port_taken(port));
            }
            Err(error) if *may_be_missing => {
                tracing::debug!(%error, %address, "an address is not there");
            }
            // An address may come later: at boot the network does.
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {
                return Err(Problem::new(
                    Class::Unreachable,
                    format!("this machine does not have the address {address} now: {error}"),
                )
                .fix("ip address; or: openclaw gateway run --bind loopback"));
            }
            Err(error) => {
                return Err(Problem::new(
                    Class::Config,
                    format!("cannot listen on {}: {error}", SocketAddr::new(*address, port)),
                )
                .fix("openclaw gateway run --bind loopback"));
            }
        }
    }
    Ok(listeners)
}

/// The secret in a file of ours, and whether it was made just now.
fn own_secret(file: &Path) -> Result<(Secret, bool), Problem> {
    if let Some(token) = private::read(file)? {
        if token.is_empty() {
            return Err(Problem::new(Class::Config, format!("{} is empty", file.display()))
                .fix(format!("rm {} (the next start makes a new one)", file.display())));
        }
        return Ok((Secret::new(token), false));
    }
    let token = Secret::random()
        .ok_or_else(|| Problem::new(Class::Internal, "no random numbers for a token"))?;
    private::create(file, token.expose())?;
    Ok((token, true))
}
