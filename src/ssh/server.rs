//! A small SSH server in this process, for the demo and for tests: one key, forwards to loopback
//! only, and switches that make it fail on purpose.

use std::{
    fs, io,
    io::Write,
    net::{IpAddr, SocketAddr},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::task::AtomicWaker;
use russh::{
    Channel, ChannelOpenFailure, MethodKind, MethodSet,
    keys::{Algorithm, PrivateKey, PublicKey, key::safe_rng, ssh_key::LineEnding},
    server::{self, Auth, ChannelOpenHandle, Msg, PublicKeyOffer, VerifiedPublicKey},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    known_hosts::{self, Name},
    link::{Link, Switch},
};

#[cfg(test)]
mod listeners;

/// Receive window of a channel.
const WINDOW: u32 = 4 << 20;
/// How many connections are served at once.
const MOST_SESSIONS: usize = 64;
/// How long a destination on loopback may take to accept.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after an accept that failed, so that a lack of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Who is let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Login {
    /// Nobody.
    #[default]
    Nobody,
    /// Everybody, without any proof.
    Anybody,
    /// The owner of this public key (one line, as in an `id_ed25519.pub`).
    Key(String),
    /// Whoever answers these rounds of questions, after showing this public key if there is one.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests log in like this"))]
    Rounds {
        /// The line of a public key.
        key: Option<String>,
        /// What is asked.
        rounds: Vec<Round>,
    },
    /// Whoever knows this password.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests log in like this"))]
    Password(String),
    /// The owner of this public key, or whoever knows this password.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests log in like this"))]
    KeyOrPassword(String, String),
}

/// One round of questions (RFC 4256).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Round {
    /// What is said with it.
    pub(crate) instructions: &'static str,
    /// The questions, whether the answer is shown, and the answers.
    pub(crate) prompts: Vec<(&'static str, bool, &'static str)>,
}

/// How a server starts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Who is let in.
    pub(crate) login: Login,
    /// Whether every forward is refused.
    pub(crate) refuse_forwards: bool,
}

/// A running server; dropping it ends every session.
#[derive(Debug)]
pub(crate) struct Embedded {
    shared: Arc<Shared>,
    address: SocketAddr,
    _accepting: AbortOnDropHandle<()>,
}

#[derive(Debug)]
struct Shared {
    login: Mutex<Login>,
    refuse_forwards: AtomicBool,
    key: Mutex<PrivateKey>,
    lines: Mutex<Vec<(Weak<Valve>, Cut)>>,
    stalled: AtomicBool,
    served: watch::Sender<usize>,
    #[cfg(test)]
    listeners: Arc<listeners::Switches>,
}

impl Embedded {
    /// Serves on `listener`, which the caller has bound to loopback, with a fresh host key.
    ///
    /// Must be called inside the runtime.
    pub(crate) fn start(listener: std::net::TcpListener, options: Options) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        if !address.ip().is_loopback() {
            return Err(io::Error::other("the embedded SSH server serves loopback only"));
        }
        let listener = TcpListener::from_std(listener)?;
        let shared = Arc::new(Shared {
            login: Mutex::new(options.login),
            refuse_forwards: AtomicBool::new(options.refuse_forwards),
            key: Mutex::new(fresh_key()?),
            lines: Mutex::default(),
            stalled: AtomicBool::new(false),
            served: watch::Sender::new(0),
            #[cfg(test)]
            listeners: Arc::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { shared, address, _accepting: AbortOnDropHandle::new(accepting) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The line of a known_hosts file for this server on 127.0.0.1 at `port`.
    pub(crate) fn known_hosts_line(&self, port: u16) -> String {
        known_hosts::line(&Name::new("127.0.0.1", port, None), &self.shared.blob(), None)
    }

    /// Freezes every connection, new ones included: nothing is read, sent or closed. Or thaws them.
    pub(crate) fn stall(&self, stall: bool) {
        self.shared.stalled.store(stall, Ordering::SeqCst);
        for (valve, _) in lock(&self.shared.lines).iter() {
            if let Some(valve) = valve.upgrade() {
                valve.wake();
            }
        }
    }
}

/// What tests switch.
#[cfg(test)]
impl Embedded {
    /// The host key as `SHA256:…`.
    pub(crate) fn host_key_fingerprint(&self) -> String {
        known_hosts::fingerprint(&self.shared.blob())
    }

    /// Shows another host key from the next connection on.
    pub(crate) fn change_host_key(&self) -> io::Result<()> {
        *lock(&self.shared.key) = fresh_key()?;
        Ok(())
    }

    /// Lets others in from now on.
    pub(crate) fn allow(&self, login: Login) {
        *lock(&self.shared.login) = login;
    }

    /// Refuses every forward from now on, or grants them again.
    pub(crate) fn refuse_forwards(&self, refuse: bool) {
        self.shared.refuse_forwards.store(refuse, Ordering::SeqCst);
    }

    /// Refuses every listener from now on, or grants them again.
    pub(crate) fn refuse_listeners(&self, refuse: bool) {
        self.shared.listeners.refuse.store(refuse, Ordering::SeqCst);
    }

    /// Keeps the listeners of connections that end, as if their end had not been noticed; or
    /// notices all of them.
    pub(crate) fn keep_listeners(&self, keep: bool) {
        self.shared.listeners.keep.store(keep, Ordering::SeqCst);
        if !keep {
            lock(&self.shared.listeners.kept).clear();
        }
    }

    /// Cuts every connection, as a killed server would.
    pub(crate) fn drop_sessions(&self) {
        self.shared.drop_sessions();
    }

    /// Waits until there are as many connections.
    pub(crate) async fn until_sessions(&self, wanted: usize) {
        let mut served = self.shared.served.subscribe();
        // The sender lives as long as this server, so the wait cannot fail.
        served.wait_for(|served| *served == wanted).await.ok();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shared.drop_sessions();
    }
}

/// Writes a fresh private key to `path` (mode 0600, which must not exist yet) and returns the line
/// of its public half.
pub(crate) fn generate_client_key(path: &Path) -> io::Result<String> {
    let key = fresh_key()?;
    let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    key.public_key().to_openssh().map_err(io::Error::other)
}

fn fresh_key() -> io::Result<PrivateKey> {
    PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).map_err(io::Error::other)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn blob(&self) -> Vec<u8> {
        lock(&self.key).public_key().to_bytes().expect("an Ed25519 key always has a wire form")
    }

    fn drop_sessions(&self) {
        for (_, cut) in lock(&self.lines).drain(..) {
            cut.now();
        }
    }

    fn config(&self) -> server::Config {
        let methods: &[MethodKind] = match &*lock(&self.login) {
            Login::Nobody | Login::Key(_) => &[MethodKind::PublicKey],
            Login::Anybody => &[MethodKind::None, MethodKind::PublicKey],
            Login::Rounds { key: None, .. } => &[MethodKind::KeyboardInteractive],
            Login::Rounds { .. } => &[MethodKind::PublicKey, MethodKind::KeyboardInteractive],
            Login::Password(_) => &[MethodKind::Password],
            Login::KeyOrPassword(..) => &[MethodKind::PublicKey, MethodKind::Password],
        };
        server::Config {
            methods: MethodSet::from(methods),
            keys: vec![lock(&self.key).clone()],
            auth_rejection_time: Duration::ZERO,
            auth_rejection_time_initial: Some(Duration::ZERO),
            window_size: WINDOW,
            inactivity_timeout: None,
            nodelay: true,
            ..server::Config::default()
        }
    }
}

/// Accepts until dropped; the sessions end with it.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    loop {
        while sessions.try_join_next().is_some() {}
        if sessions.len() >= MOST_SESSIONS {
            sessions.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                sessions.spawn(serve(stream, Arc::clone(&shared)));
            }
            Err(error) => {
                tracing::debug!(%error, "the embedded SSH server could not accept");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One connection, until it ends.
async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY for an embedded session");
    }
    let valve = Arc::new(Valve::default());
    let gate = Gate { stream, valve: Arc::clone(&valve), shared: Arc::clone(&shared) };
    let (link, switch) = Link::new(gate);
    let _served = Served::new(&shared);
    let cut = Cut { switch, forwards: CancellationToken::new() };
    let _cut_at_the_end = CutOnDrop(cut.clone());
    {
        let mut lines = lock(&shared.lines);
        lines.retain(|(valve, _)| valve.strong_count() > 0);
        lines.push((Arc::downgrade(&valve), cut.clone()));
    }
    drop(valve);
    let config = Arc::new(shared.config());
    let visitor = Visitor {
        #[cfg(test)]
        listeners: listeners::Listeners::new(&shared.listeners),
        shared,
        tasks: JoinSet::new(),
        ended: cut.forwards,
        key_shown: false,
        round: 0,
    };
    let outcome = match server::run_stream(config, link, visitor).await {
        Ok(running) => running.await,
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "an embedded SSH session ended");
    }
}

/// What ends one connection, whatever it is doing.
#[derive(Debug, Clone)]
struct Cut {
    switch: Arc<Switch>,
    /// A session may be waiting for a forward that waits for its reader; so those end too.
    forwards: CancellationToken,
}

impl Cut {
    fn now(&self) {
        self.switch.kill();
        self.forwards.cancel();
    }
}

/// Counts a connection while it is served.
struct Served(watch::Sender<usize>);

impl Served {
    fn new(shared: &Shared) -> Self {
        let count = shared.served.clone();
        count.send_modify(|served| *served += 1);
        Self(count)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.0.send_modify(|served| *served = served.saturating_sub(1));
    }
}

/// Ends the library's own task with ours.
struct CutOnDrop(Cut);

impl Drop for CutOnDrop {
    fn drop(&mut self) {
        self.0.now();
    }
}

/// Who waits for a frozen connection to thaw.
#[derive(Debug, Default)]
struct Valve {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Valve {
    fn wake(&self) {
        self.reader.wake();
        self.writer.wake();
    }
}

/// A TCP connection that can be frozen.
struct Gate {
    stream: TcpStream,
    valve: Arc<Valve>,
    shared: Arc<Shared>,
}

impl Gate {
    fn is_frozen(&self) -> bool {
        self.shared.stalled.load(Ordering::SeqCst)
    }
}

impl AsyncRead for Gate {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.valve.reader.register(cx.waker());
        if self.is_frozen() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gate {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.valve.writer.register(cx.waker());
        if self.is_frozen() {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The library's callbacks for one connection.
struct Visitor {
    shared: Arc<Shared>,
    /// Forwards in progress; they end with the session.
    tasks: JoinSet<()>,
    ended: CancellationToken,
    key_shown: bool,
    /// Which round of questions is being answered.
    round: usize,
    #[cfg(test)]
    listeners: listeners::Listeners,
}

impl Visitor {
    fn owns(&self, key: &PublicKey) -> bool {
        match &*lock(&self.shared.login) {
            Login::Key(line)
            | Login::Rounds { key: Some(line), .. }
            | Login::KeyOrPassword(line, _) => {
                line.parse::<PublicKey>().is_ok_and(|known| known.key_data() == key.key_data())
            }
            Login::Anybody => true,
            Login::Nobody | Login::Rounds { key: None, .. } | Login::Password(_) => false,
        }
    }

    /// The rounds of questions, once the key that they follow was shown.
    fn rounds(&self) -> Option<Vec<Round>> {
        match &*lock(&self.shared.login) {
            Login::Rounds { key, rounds } if key.is_none() || self.key_shown => {
                Some(rounds.clone())
            }
            Login::Rounds { .. }
            | Login::Nobody
            | Login::Anybody
            | Login::Key(_)
            | Login::Password(_)
            | Login::KeyOrPassword(..) => None,
        }
    }

    /// Whether a key alone is not enough.
    fn wants_more(&self) -> bool {
        matches!(&*lock(&self.shared.login), Login::Rounds { .. })
    }
}

/// A refusal after which the method may be tried again.
fn again(method: MethodKind) -> Auth {
    // Named again, since a refused method is not offered a second time otherwise.
    let again = Some(MethodSet::from(&[method][..]));
    Auth::Reject { proceed_with_methods: again, partial_success: false }
}

impl server::Handler for Visitor {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, Self::Error> {
        let anybody = *lock(&self.shared.login) == Login::Anybody;
        Ok(if anybody { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, Self::Error> {
        let right = match &*lock(&self.shared.login) {
            Login::Password(known) | Login::KeyOrPassword(_, known) => known == password,
            Login::Nobody | Login::Anybody | Login::Key(_) | Login::Rounds { .. } => false,
        };
        Ok(if right { Auth::Accept } else { again(MethodKind::Password) })
    }

    async fn auth_publickey_offered(
        &mut self,
        _: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(if self.owns(offer.public_key) { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(
        &mut self,
        _: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        if !self.owns(key.public_key) {
            return Ok(Auth::reject());
        }
        if !self.wants_more() {
            return Ok(Auth::Accept);
        }
        self.key_shown = true;
        Ok(Auth::Reject {
            proceed_with_methods: Some(MethodSet::from(&[MethodKind::KeyboardInteractive][..])),
            partial_success: true,
        })
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        _: &str,
        _: &str,
        response: Option<server::Response<'a>>,
    ) -> Result<Auth, Self::Error> {
        let Some(rounds) = self.rounds() else { return Ok(Auth::reject()) };
        match response {
            None => self.round = 0,
            Some(response) => {
                let asked = rounds.get(self.round).map(|round| round.prompts.as_slice());
                let expected = asked.unwrap_or_default().iter().map(|(_, _, answer)| *answer);
                let given: Vec<Vec<u8>> = response.map(|answer| answer.to_vec()).collect();
                if !expected.map(str::as_bytes).eq(given.iter().map(Vec::as_slice)) {
                    return Ok(again(MethodKind::KeyboardInteractive));
                }
                self.round += 1;
            }
        }
        let Some(round) = rounds.get(self.round) else { return Ok(Auth::Accept) };
        let prompts = round.prompts.iter().map(|(prompt, echo, _)| ((*prompt).into(), *echo));
        Ok(Auth::Partial {
            name: "".into(),
            instructions: round.instructions.into(),
            prompts: prompts.collect::<Vec<_>>().into(),
        })
    }

    #[cfg(test)]
    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        session: &mut server::Session,
    ) -> Result<bool, Self::Error> {
        let granted = self.listeners.open(address, *port, session.handle()).await;
        *port = granted.unwrap_or(*port);
        Ok(granted.is_some())
    }

    #[cfg(test)]
    async fn cancel_tcpip_forward(
        &mut self,
        _: &str,
        port: u32,
        _: &mut server::Session,
    ) -> Result<bool, Self::Error> {
        Ok(self.listeners.close(port))
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut server::Session,
    ) -> Result<(), Self::Error> {
        while self.tasks.try_join_next().is_some() {}
        let refuse = self.shared.refuse_forwards.load(Ordering::SeqCst);
        let target = loopback(host, port).filter(|_| !refuse);
        let forwarding = async move {
            match target {
                None => reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await,
                Some(address) => forward(channel, address, reply).await,
            }
        };
        let ended = self.ended.clone();
        self.tasks.spawn(async move {
            ended.run_until_cancelled_owned(forwarding).await;
        });
        Ok(())
    }
}

/// The destination, if it is this machine.
fn loopback(host: &str, port: u32) -> Option<SocketAddr> {
    let address: IpAddr =
        if host == "localhost" { [127, 0, 0, 1].into() } else { host.parse().ok()? };
    let port = u16::try_from(port).ok()?;
    address.is_loopback().then(|| SocketAddr::new(address, port))
}

/// Connects and copies both ways until both have ended.
async fn forward(channel: Channel<Msg>, address: SocketAddr, reply: ChannelOpenHandle) {
    let Ok(Ok(mut socket)) = timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await else {
        reply.reject(ChannelOpenFailure::ConnectFailed).await;
        return;
    };
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY for a forward");
    }
    reply.accept().await;
    let mut stream = channel.into_stream();
    if let Err(error) = tokio::io::copy_bidirectional(&mut stream, &mut socket).await {
        tracing::trace!(%error, "a forward ended");
    }
}
