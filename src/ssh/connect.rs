//! Makes the sessions of a plan: dial, handshake, host key, login, hop after hop.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, AtomicU64},
    },
    time::Duration,
};

use russh::{AlgorithmKind, Preferred, SshId, client};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    algorithms::{Keyword, usable},
    ask::{Asker, Stage},
    auth,
    dial::{dial, plain},
    host_key::{Files, Trust},
    inbound::Inbound,
    keyring::{Keyring, Server, punishes},
    known_hosts,
    link::{Link, Switch},
    observe::{Fact, Observer},
    preferred::{Negotiated, compressions, kinds, preferred, signed_as_agreed},
    proxy::Proxy,
    resolve::{Hop, Plan, UpdateHostKeys},
    rotation::Rotating,
    session::{End, Facts, Inner, OpenFailure, Session},
    stream::Taps,
    watcher::{Offer, Watcher},
    wire::{Ear, Wire},
};
use crate::tunnel::{Cause, Failure};

/// What we call ourselves on the wire.
const IDENTIFICATION: &str = concat!("SSH-2.0-openclaw_", env!("CARGO_PKG_VERSION"));
/// Receive window of a channel; with a long round trip the window is what bounds a download.
const WINDOW: u32 = 4 << 20;
/// The round trips from which on the window grows, and to what.
const LONG_TRIPS: [(Duration, u32); 2] =
    [(Duration::from_millis(80), 16 << 20), (Duration::from_millis(30), 8 << 20)];
/// Messages that wait for a reader before its session parks: at 32 KiB each the memory bound.
const QUEUE: usize = 64;
/// Bytes before new keys are agreed: below every cipher's own bound (2^32 packets or blocks), and
/// rare, because the library ends a session that receives more than two windows meanwhile.
const REKEY_BYTES: usize = (1_usize << 30).saturating_mul(16);
/// The fewest bytes before new keys are agreed, whatever `RekeyLimit` says: below this a session
/// does little else.
const REKEY_LEAST: usize = 1 << 20;
/// Time before new keys are agreed.
const REKEY_TIME: Duration = Duration::from_secs(6 * 3600);

/// Makes every hop of `plan` in order; the session is that with the last.
///
/// Each silent stage is limited by the hop's timeout; a person may take as long as they like. A
/// failed login is never repeated. Dropping the future ends what was begun.
pub(crate) async fn connect(
    plan: &Plan,
    keyring: &Keyring,
    asker: &dyn Asker,
    observer: &dyn Observer,
) -> Result<Session, Failure> {
    let mut below: Option<Session> = None;
    let mut route = String::new();
    for (number, hop) in plan.hops().iter().enumerate() {
        observer.fact(Fact::Hop(number));
        route = format!("{route}>{}", hop.label());
        let making = Making { hop, route: &route, keyring, asker, observer };
        let made = match below {
            None => making.first().await,
            Some(jump) => {
                observer.stage(Stage::Connecting { host: hop.host.clone(), port: hop.port });
                let started = Instant::now();
                let opened = jump.open(&hop.host, hop.port).await;
                let stream = match opened {
                    Ok(stream) => stream,
                    Err(why) => return Err(not_through(&jump, hop, why).await),
                };
                let took = started.elapsed();
                observer.fact(Fact::Through { took });
                making.session(stream, took, Below::Jump(jump)).await
            }
        };
        let is_jump = number + 1 < plan.hops().len();
        below =
            Some(made.map_err(|failure| if is_jump { of_jump(hop, failure) } else { failure })?);
    }
    below.ok_or_else(|| Failure::new(Cause::Configuration, "the plan has no hop"))
}

/// What to do about a jump host that lets nobody in, or that nobody knows: the options of the command
/// do not mean it.
fn of_jump(hop: &Hop, failure: Failure) -> Failure {
    if failure.cause == Cause::Authentication {
        return failure.fix(format!(
            "as with ssh, -i and -o mean the target alone: name the key of the jump host in \
             ~/.ssh/config (Host {}, IdentityFile FILE), or ssh-add it",
            hop.named
        ));
    }
    if failure.cause == Cause::HostKeyUnknown {
        return failure.fix(format!(
            "--accept-host-key means the target alone: answer on a terminal, without --batch; or \
             log in to the jump host once by hand, which writes its key down: ssh -p {} {}@{}",
            hop.port, hop.user, hop.named
        ));
    }
    failure
}

/// Why the next hop cannot be reached through the last.
async fn not_through(jump: &Session, hop: &Hop, why: OpenFailure) -> Failure {
    match why {
        OpenFailure::Prohibited => Failure::new(
            Cause::ForwardRefused,
            format!("the jump host does not allow a connection to {}", hop.place()),
        )
        .fix("allow it there: AllowTcpForwarding and PermitOpen in sshd_config"),
        OpenFailure::Refused(_) => Failure::new(
            Cause::Refused,
            format!("{} does not answer as seen from the jump host", hop.place()),
        )
        .fix("check the host and its port, and that its SSH server runs"),
        OpenFailure::Silent => Failure::new(
            Cause::ConnectTimedOut,
            format!("the jump host did not answer about {} in time", hop.place()),
        )
        .fix("check that the jump host can reach it"),
        OpenFailure::SessionLost => jump.closed().await,
    }
}

/// What carries a session's bytes.
enum Below {
    /// A TCP connection.
    Wire(Arc<Ear>, Ends),
    /// What stands in for it (`ProxyCommand`).
    Command,
    /// The session with the hop before.
    Jump(Session),
}

/// One hop that is being made.
struct Making<'a> {
    hop: &'a Hop,
    /// The hops so far: under this name the keyring remembers the server.
    route: &'a str,
    keyring: &'a Keyring,
    asker: &'a dyn Asker,
    observer: &'a dyn Observer,
}

/// The addresses of a TCP connection, if it is one.
#[derive(Debug, Clone, Copy, Default)]
struct Ends {
    near: Option<IpAddr>,
    far: Option<IpAddr>,
}

/// Throws the switch unless the session got ready.
struct Fuse {
    switch: Arc<Switch>,
    armed: bool,
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if self.armed {
            self.switch.kill();
        }
    }
}

impl Making<'_> {
    /// The first hop: over TCP, or over what stands in for it.
    async fn first(&self) -> Result<Session, Failure> {
        let Some(command) = &self.hop.proxy_command else {
            let (stream, took) = dial(self.hop, self.observer).await?;
            let far = stream.peer_addr().ok().map(|address| address.ip());
            let near = stream.local_addr().ok().map(|address| address.ip());
            let (wire, ear) = Wire::new(stream);
            return self.session(wire, took, Below::Wire(ear, Ends { near, far })).await;
        };
        let (host, port) = (self.hop.host.clone(), self.hop.port);
        self.observer.stage(Stage::Connecting { host, port });
        self.observer.fact(Fact::Proxied { command: command.to_string() });
        let (proxy, witness) = Proxy::start(command)?;
        match self.session(proxy, Duration::ZERO, Below::Command).await {
            Err(failure) => Err(witness.explain(self.hop, failure).await),
            made => made,
        }
    }

    /// Handshake and login over an open byte stream.
    async fn session<S>(&self, stream: S, took: Duration, below: Below) -> Result<Session, Failure>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (ear, ends, below) = match below {
            Below::Wire(ear, ends) => (Some(ear), ends, None),
            Below::Command => (None, Ends::default(), None),
            Below::Jump(jump) => (None, Ends::default(), Some(jump)),
        };
        let remembered = self.keyring.server(self.route);
        let files = Files::read(self.hop, ends.far).await?;
        let config = config(self.hop, &files, took.max(remembered.rtt.unwrap_or_default()));
        let (link, switch) = Link::new(stream);
        let mut fuse = Fuse { switch: Arc::clone(&switch), armed: true };
        let (offers, offered) = mpsc::channel(1);
        let (end, taps) = (Arc::new(End::default()), Arc::new(Taps::default()));
        let inbound = Arc::new(Inbound::default());
        let agreed = Arc::new(OnceLock::new());
        let (announces, mut announced) = mpsc::channel(1);
        let kinds = kinds(&config.preferred);
        let watcher = Watcher {
            asked: config.preferred.clone(),
            offers,
            announces,
            agreed: Arc::clone(&agreed),
            end: Arc::clone(&end),
            taps: Arc::clone(&taps),
            inbound: Arc::clone(&inbound),
        };
        let connecting = client::connect_stream(Arc::new(config), link, watcher);
        let shaken = self.handshake(connecting, offered, &files, &switch).await;
        let banner = switch.banner().unwrap_or_default().to_owned();
        if !banner.is_empty() {
            self.keyring.note_server(self.route, &banner, switch.heard_after());
            let after = switch.heard_after().unwrap_or_default();
            self.observer.fact(Fact::Banner { text: banner.clone(), after });
        }
        if let Some(agreed) = agreed.get().cloned() {
            self.observer.fact(Fact::Algorithms(agreed));
        }
        let (handle, host_key, trust) =
            shaken.map_err(|failure| self.blame(failure, &switch, &remembered))?;
        self.keeps_to(agreed.get(), &handle)?;
        let login = auth::Context {
            hop: self.hop,
            route: self.route,
            end: &end,
            keyring: self.keyring,
            asker: self.asker,
            observer: self.observer,
        };
        let (handle, outcome) = Box::pin(auth::login(login, handle)).await?;
        self.observer.fact(Fact::LoggedIn { method: outcome.method.clone() });
        let handle = Arc::new(handle);
        let mut chores = JoinSet::new();
        let rotating = Rotating::new(self.hop, files.name(), &host_key, kinds);
        if let (Trust::Own, Some(rotating)) = (trust, rotating) {
            if self.hop.update_host_keys == UpdateHostKeys::Ask {
                rotating.ask(&handle, &mut announced, self.asker, self.observer).await;
            } else {
                chores.spawn(rotating.follow(Arc::clone(&handle), announced, Arc::clone(&end)));
            }
        }
        fuse.armed = false;
        let needed_person = below.as_ref().is_some_and(|below| below.facts().needed_person);
        let facts = Facts {
            host_key: known_hosts::fingerprint(&host_key),
            banner,
            method: outcome.method,
            needed_person: needed_person || outcome.needed_person,
            rtt: switch.heard_after().unwrap_or_default(),
        };
        Ok(Session::new(Inner {
            handle,
            switch,
            taps,
            inbound,
            end,
            ear,
            answer: AtomicU64::new(u64::MAX),
            answer_again: AtomicU64::new(0),
            facts,
            below,
            chores: Mutex::new(chores),
            killed: AtomicBool::new(false),
            near: ends.near,
            far: ends.far,
        }))
    }

    /// Banner and key exchange, with the host key decided in between; also the key (in its SSH wire
    /// form) and why it was accepted.
    async fn handshake(
        &self,
        connecting: impl Future<Output = Result<client::Handle<Watcher>, russh::Error>> + Send,
        mut offered: mpsc::Receiver<Offer>,
        files: &Files,
        switch: &Switch,
    ) -> Result<(client::Handle<Watcher>, Vec<u8>, Trust), Failure> {
        let mut connecting = Box::pin(connecting);
        let host = || self.hop.host.clone();
        self.observer.stage(Stage::Handshaking { host: host() });
        let limit = self.hop.connect_timeout;
        let mut deadline = Instant::now() + limit;
        let (mut host_key, mut trust) = (Vec::new(), Trust::Lent);
        loop {
            tokio::select! {
                connected = &mut connecting => {
                    let handle = connected.map_err(|error| self.broken(&error))?;
                    return Ok((handle, host_key, trust));
                }
                Some(offer) = offered.recv() => {
                    self.observer.stage(Stage::CheckingHostKey { host: host() });
                    trust =
                        files.check(self.hop, &offer.shown, self.asker, self.observer).await?;
                    host_key = offer.shown.key;
                    // The session may have died while a person thought; `connecting` says so.
                    offer.accept.send(()).ok();
                    self.observer.stage(Stage::Handshaking { host: host() });
                    deadline = Instant::now() + limit;
                }
                () = sleep_until(deadline) => return Err(self.silent(switch)),
            }
        }
    }

    /// Fails unless the host signed as was agreed.
    fn keeps_to(
        &self,
        agreed: Option<&Negotiated>,
        handle: &client::Handle<Watcher>,
    ) -> Result<(), Failure> {
        let signature = handle.agent_session_binding().map(|binding| binding.signature());
        match (agreed, signature) {
            (Some(agreed), Some(signature)) if signed_as_agreed(agreed, signature) => Ok(()),
            _ => Err(Failure::new(
                Cause::Protocol,
                format!("{} signed by another algorithm than was agreed on", self.hop.place()),
            )
            .fix("update the SSH server over there")),
        }
    }

    fn silent(&self, switch: &Switch) -> Failure {
        let what = if switch.banner().is_some() { "during the key exchange" } else { "at first" };
        Failure::new(
            Cause::HandshakeTimedOut,
            format!(
                "{} took the connection but said nothing {what} for {} s",
                self.hop.place(),
                self.hop.connect_timeout.as_secs()
            ),
        )
        .fix("check that an SSH server listens there, and that it is not overloaded")
    }

    /// What an error of the handshake means.
    fn broken(&self, error: &russh::Error) -> Failure {
        use russh::Error::{Disconnect, HUP, IO, NoCommonAlgo, SendError, Version};
        let place = self.hop.place();
        if let NoCommonAlgo { kind, theirs, .. } = error {
            return nothing_in_common(&place, kind, theirs);
        }
        if let IO(error) = error {
            return lost(&place, &plain(error));
        }
        if matches!(error, Disconnect | HUP | SendError) {
            return lost(&place, "it closed the connection");
        }
        if matches!(error, Version) {
            return Failure::new(
                Cause::Protocol,
                format!("what answers on {place} does not speak SSH 2"),
            )
            .fix("check the port (-p)");
        }
        Failure::new(Cause::Protocol, format!("the SSH handshake with {place} failed: {error}"))
    }

    /// A connection that ended before the banner may be a punishment.
    fn blame(&self, failure: Failure, switch: &Switch, remembered: &Server) -> Failure {
        if failure.cause != Cause::LinkLost || switch.banner().is_some() {
            return failure;
        }
        let penalty = remembered.banner.as_deref().is_some_and(punishes);
        let place = self.hop.place();
        let why = if penalty {
            "it may be punishing this address for failed logins"
        } else {
            "it may be starting, overloaded, or refuse this address"
        };
        Failure::new(
            Cause::ClosedBeforeBanner { penalty },
            format!("{place} closed the connection before saying anything: {why}"),
        )
        .fix("wait a minute, then look into the SSH server's log over there")
    }
}

/// The server offers nothing of a kind that may be used.
fn nothing_in_common(place: &str, kind: &AlgorithmKind, theirs: &[String]) -> Failure {
    let (what, keyword) = match kind {
        AlgorithmKind::Kex => ("key exchange", Some(Keyword::Kex)),
        AlgorithmKind::Key => ("host key algorithm", Some(Keyword::HostKey)),
        AlgorithmKind::Cipher => ("cipher", Some(Keyword::Ciphers)),
        AlgorithmKind::Mac => ("MAC", Some(Keyword::Macs)),
        AlgorithmKind::Compression => ("compression", None),
    };
    let offer = theirs.join(", ").escape_debug().to_string();
    let failure = Failure::new(
        Cause::Protocol,
        format!("{place} has no {what} that may be used; it offers {offer}"),
    );
    let usable = keyword.map(|keyword| (keyword.name(), usable(keyword, theirs)));
    match usable {
        Some((keyword, usable)) if !usable.is_empty() => failure.fix(format!(
            "update the SSH server over there; until then -o {keyword}=+{} takes what it has, \
             weak as it may be",
            usable.join(",")
        )),
        Some(_) | None => failure.fix("update the SSH server over there"),
    }
}

fn lost(place: &str, why: &str) -> Failure {
    Failure::new(Cause::LinkLost, format!("the connection to {place} broke: {why}"))
}

/// How much a channel may receive ahead where an answer takes `rtt`.
fn window(rtt: Duration) -> u32 {
    LONG_TRIPS.iter().find(|(trip, _)| rtt >= *trip).map_or(WINDOW, |(_, window)| *window)
}

/// The library's settings: the hop's algorithms, the keys on file asked for first.
fn config(hop: &Hop, files: &Files, rtt: Duration) -> client::Config {
    let wanted = hop.rekey.bytes.map(|bytes| usize::try_from(bytes).unwrap_or(REKEY_BYTES));
    // The library ends a session that receives more than two windows between old and new keys.
    let rekey_bytes = wanted.unwrap_or(REKEY_BYTES).clamp(REKEY_LEAST, REKEY_BYTES);
    client::Config {
        client_id: SshId::Standard(Cow::Borrowed(IDENTIFICATION)),
        limits: russh::Limits {
            rekey_write_limit: rekey_bytes,
            rekey_read_limit: rekey_bytes,
            rekey_time_limit: hop.rekey.time.unwrap_or(REKEY_TIME),
        },
        window_size: window(rtt),
        channel_buffer_size: QUEUE,
        preferred: Preferred {
            compression: Cow::Borrowed(compressions(hop.compression)),
            ..preferred(&hop.algorithms, &files.on_file())
        },
        // Our own pings notice a dead link; the library's timers are blind while it writes.
        inactivity_timeout: None,
        keepalive_interval: None,
        nodelay: true,
        ..client::Config::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_way_gets_a_wide_window() {
        let megabytes = |trip| window(Duration::from_millis(trip)) >> 20;
        assert_eq!([0, 29, 30, 79, 80, 500].map(megabytes), [4, 4, 8, 8, 16, 16]);
    }
}
