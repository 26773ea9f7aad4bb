//! One authenticated connection to the last hop, and the chain of hops below it.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use russh::{Channel, ChannelMsg, ChannelOpenFailure, client};
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    inbound::{Inbound, ListenFailure, Listening},
    link::Switch,
    stream::{Stream, Taps},
    watcher::Watcher,
    wire::Ear,
};
use crate::{
    config::Listen,
    tunnel::{Cause, Failure},
};

/// How long the server may take to confirm or refuse a channel: it may be dialling itself.
const OPEN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a command over there may take.
const RUN_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a command's complaints is kept.
const STDERR_LIMIT: usize = 4 * 1024;
/// How long a session may leave the link alone before it counts as parked.
const PARKED: Duration = Duration::from_millis(200);
/// A ping's answer is shorter than this, bytes on the wire; what is longer has come in beside one.
const ANSWER_MOST: u64 = 512;
/// How long a polite end may take before the link is cut.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the login showed.
#[derive(Debug, Clone)]
pub(crate) struct Facts {
    /// The last hop's host key as `SHA256:…`.
    pub(crate) host_key: String,
    /// The server's identification, `SSH-2.0-OpenSSH_9.2` and the like.
    pub(crate) banner: String,
    /// The method that let us in.
    pub(crate) method: String,
    /// Whether a person had to do something that a repetition would ask for again.
    pub(crate) needed_person: bool,
    /// From the open byte stream to the server's banner.
    pub(crate) rtt: Duration,
}

/// Why a forwarded connection could not be opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenFailure {
    /// The server's policy forbids it (`AllowTcpForwarding`, `PermitOpen`, `restrict`).
    #[error("the SSH server does not allow this forward")]
    Prohibited,
    /// The server tried and could not reach the destination.
    #[error("{0}")]
    Refused(String),
    /// The server did not answer in time.
    #[error("the SSH server did not answer within 15 s")]
    Silent,
    /// The session died before the answer.
    #[error("the ssh session died")]
    SessionLost,
}

/// The outcome of a command over there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ran {
    /// Its exit status; 255 if a signal ended it.
    pub(crate) status: u32,
    /// What it printed.
    pub(crate) stdout: Vec<u8>,
    /// What it complained about, at most 4 KiB.
    pub(crate) stderr: String,
}

/// How a session ended; resolved once.
#[derive(Debug, Default)]
pub(super) struct End {
    cause: Mutex<Option<Failure>>,
    done: CancellationToken,
}

impl End {
    /// Notes the cause; the first one stays.
    pub(super) fn note(&self, failure: Failure) {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failure);
    }

    /// Says that the session's task has ended.
    pub(super) fn finish(&self) {
        self.done.cancel();
    }

    /// Whether it has ended.
    pub(super) fn is_over(&self) -> bool {
        self.done.is_cancelled()
    }

    /// The cause, once there is one.
    pub(super) fn cause(&self) -> Option<Failure> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the end and says why it came.
    pub(super) async fn wait(&self) -> Failure {
        self.done.cancelled().await;
        self.cause().unwrap_or_else(|| Failure::new(Cause::LinkLost, "the ssh session ended"))
    }
}

/// An authenticated connection; clones share it, and the last one dropped ends it.
#[derive(Clone)]
pub(crate) struct Session(Arc<Inner>);

/// The parts of a session; dropping them cuts the link.
pub(super) struct Inner {
    pub(super) handle: Arc<client::Handle<Watcher>>,
    pub(super) switch: Arc<Switch>,
    pub(super) taps: Arc<Taps>,
    pub(super) inbound: Arc<Inbound>,
    pub(super) end: Arc<End>,
    /// Of the TCP connection below, where it is ours.
    pub(super) ear: Option<Arc<Ear>>,
    /// The fewest bytes that came in with a ping's answer.
    pub(super) answer: AtomicU64,
    /// The same once it was seen twice: the first answer may have had other bytes beside it.
    pub(super) answer_again: AtomicU64,
    pub(super) facts: Facts,
    /// The session of the jump host that carries this one and nothing else.
    pub(super) below: Option<Session>,
    /// What runs beside the streams; ends with the session.
    pub(super) chores: Mutex<JoinSet<()>>,
    pub(super) killed: AtomicBool,
    /// The end of ours of the TCP connection, if it is one.
    pub(super) near: Option<IpAddr>,
    /// The server's end of it.
    pub(super) far: Option<IpAddr>,
}

impl Session {
    /// Puts the parts together.
    pub(super) fn new(inner: Inner) -> Self {
        Self(Arc::new(inner))
    }

    /// Opens a connection from the last hop to `host:port` as seen from there.
    pub(crate) async fn open(&self, host: &str, port: u16) -> Result<Stream, OpenFailure> {
        let (host_name, handle) = (host.to_owned(), Arc::clone(&self.0.handle));
        let opening = async move {
            handle.channel_open_direct_tcpip(host_name, u32::from(port), "127.0.0.1", 0).await
        };
        self.opened(opening, &format!("{host} port {port}")).await
    }

    /// Opens a connection from the last hop to a Unix socket there
    /// ("direct-streamlocal@openssh.com" of OpenSSH's PROTOCOL).
    pub(crate) async fn open_socket(&self, path: &str) -> Result<Stream, OpenFailure> {
        let (name, handle) = (path.to_owned(), Arc::clone(&self.0.handle));
        let opening = async move { handle.channel_open_direct_streamlocal(name).await };
        self.opened(opening, path).await
    }

    /// What comes of `opening`, a connection to `what`.
    async fn opened(
        &self,
        opening: impl Future<Output = Result<Channel<client::Msg>, russh::Error>> + Send + 'static,
        what: &str,
    ) -> Result<Stream, OpenFailure> {
        if self.is_closed() {
            return Err(OpenFailure::SessionLost);
        }
        let (sender, receiver) = oneshot::channel();
        let session = Arc::downgrade(&self.0);
        // In a task of its own, so that a caller who gives up leaves no half-open channel behind;
        // it ends when the server answers or the session dies, and it keeps no session alive.
        tokio::spawn(async move {
            let outcome = opening.await;
            let Some(inner) = session.upgrade() else { return };
            let stream = outcome.map(|channel| Stream::new(channel, &inner.taps));
            // Nobody there any more: the stream closes its channel as it is dropped.
            drop(sender.send(stream));
        });
        match timeout(OPEN_TIMEOUT, receiver).await {
            Ok(Ok(Ok(stream))) => Ok(stream),
            Ok(Ok(Err(error))) => Err(refusal(what, &error)),
            Ok(Err(_)) => Err(OpenFailure::SessionLost),
            Err(_) => Err(OpenFailure::Silent),
        }
    }

    /// Asks the server to listen (RFC 4254, section 7.1, "tcpip-forward", or OpenSSH's
    /// "streamlocal-forward@openssh.com"); a session has one listener at most.
    pub(crate) async fn listen(&self, at: &Listen) -> Result<Listening, ListenFailure> {
        if self.is_closed() {
            return Err(ListenFailure::SessionLost);
        }
        // Before the answer: the first connection may come with it.
        let knocks = self.0.inbound.open();
        let handle = &self.0.handle;
        let asking = async {
            match at {
                Listen::Port { bind, port } => {
                    let address = address_of(bind.as_deref());
                    let chosen = handle.tcpip_forward(address, u32::from(*port)).await?;
                    let chosen = u16::try_from(chosen).ok().filter(|_| *port == 0);
                    let port = chosen.unwrap_or(*port);
                    Ok(Listen::Port { bind: bind.clone(), port })
                }
                Listen::Socket(path) => {
                    handle.streamlocal_forward(path.clone()).await?;
                    Ok(at.clone())
                }
            }
        };
        let failure = match timeout(OPEN_TIMEOUT, asking).await {
            Ok(Ok(at)) => return Ok(Listening::new(at, knocks)),
            Ok(Err(russh::Error::RequestDenied)) if !self.is_closed() => ListenFailure::Refused,
            Ok(Err(_)) => ListenFailure::SessionLost,
            Err(_) => ListenFailure::Silent,
        };
        self.0.inbound.close();
        Err(failure)
    }

    /// Gives a listener back; waits for the server's word, a moment at most. Streams go on, and
    /// connections that the server took in before it had the wish are still brought.
    pub(crate) async fn unlisten(&self, at: &Listen) {
        let (mark, handle, at) = (self.0.inbound.mark(), Arc::clone(&self.0.handle), at.clone());
        let inbound = Arc::clone(&self.0.inbound);
        let (done, given_back) = oneshot::channel::<()>();
        let giving_back = async move {
            let _done = done;
            let answer = match &at {
                Listen::Port { bind, port } => {
                    let address = address_of(bind.as_deref());
                    handle.cancel_tcpip_forward(address, u32::from(*port)).await
                }
                Listen::Socket(path) => handle.cancel_streamlocal_forward(path.clone()).await,
            };
            // A server that has no such listener says so, which is as good.
            drop(answer);
            inbound.close_at(&mark);
        };
        {
            let mut chores = self.0.chores.lock().unwrap_or_else(PoisonError::into_inner);
            while chores.try_join_next().is_some() {}
            chores.spawn(giving_back);
        }
        // Late or not: its word counts whenever it comes.
        drop(timeout(CLOSE_TIMEOUT, given_back).await);
    }

    /// The time that the server takes to answer (`keepalive@openssh.com`); waits as long as the
    /// session lives, so the caller sets the limit.
    pub(crate) async fn ping(&self) -> Result<Duration, Failure> {
        let (started, ear) = (Instant::now(), self.ear());
        let before = ear.map(Ear::received);
        let sent = self.0.handle.send_ping().await;
        // The library answers a ping with success when the session dies under it.
        if sent.is_err() || self.is_closed() {
            return Err(self.closed().await);
        }
        if let (Some(ear), Some(before)) = (ear, before) {
            // The shortest seen is an answer without anything beside it, once it was seen again.
            let length = ear.received().saturating_sub(before).max(1);
            if self.0.answer.fetch_min(length, Ordering::Relaxed) == length {
                self.0.answer_again.store(length, Ordering::Relaxed);
            }
        }
        Ok(started.elapsed())
    }

    /// Lets the answer to the next ping wake nobody until [`attend`](Self::attend), or until more
    /// than that comes in; `false` if that cannot be had, or if it is not known yet how long an
    /// answer is on the wire.
    pub(crate) fn hush(&self) -> bool {
        let answer = self.0.answer.load(Ordering::Relaxed);
        let is_sure = self.0.answer_again.load(Ordering::Relaxed) == answer;
        is_sure && answer <= ANSWER_MOST && self.ear().is_some_and(|ear| ear.hush(answer))
    }

    /// Has the session read what has come in, and wake for whatever comes.
    pub(crate) fn attend(&self) {
        if let Some(ear) = self.ear() {
            ear.attend();
        }
    }

    /// The ear of the TCP connection that carries the whole chain of hops.
    fn ear(&self) -> Option<&Ear> {
        self.0.below.as_ref().map_or(self.0.ear.as_deref(), Self::ear)
    }

    /// Runs `command` in the login shell over there; an output over `limit` bytes is an error.
    pub(crate) async fn run(&self, command: &str, limit: usize) -> Result<Ran, Failure> {
        let failed = |why: String| {
            Failure::new(Cause::LinkLost, format!("cannot run a command over this login: {why}"))
        };
        let opened = timeout(OPEN_TIMEOUT, self.0.handle.channel_open_session()).await;
        let mut channel = match opened {
            Ok(Ok(channel)) => channel,
            Ok(Err(_)) if self.is_closed() => return Err(self.closed().await),
            Ok(Err(_)) => return Err(failed("the server allows no sessions".to_owned())),
            Err(_) => return Err(failed("the server does not answer".to_owned())),
        };
        let late = || Err(format!("no end after {} s", RUN_TIMEOUT.as_secs()));
        let collecting = collect(&mut channel, command, limit);
        let outcome = timeout(RUN_TIMEOUT, collecting).await.unwrap_or_else(|_| late());
        // Closing a channel that is closed already, or whose session died, is harmless.
        drop(timeout(CLOSE_TIMEOUT, channel.close()).await);
        match outcome {
            Ok(ran) => Ok(ran),
            Err(_) if self.is_closed() => Err(self.closed().await),
            Err(why) => Err(failed(why)),
        }
    }

    /// Waits until the session is dead and says why.
    pub(crate) async fn closed(&self) -> Failure {
        self.0.end.wait().await
    }

    /// Whether the session is dead or dying.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.handle.is_closed() || self.0.end.is_over() || self.0.switch.is_killed()
    }

    /// Ends the whole chain of hops at once: streams that wait fail, whatever the link does.
    pub(crate) fn kill(&self) {
        self.0.kill();
    }

    /// Says goodbye to the server, waits a moment for it, then kills.
    pub(crate) async fn close(&self) {
        let goodbye = async {
            let reason = russh::Disconnect::ByApplication;
            if self.0.handle.disconnect(reason, "", "").await.is_ok() {
                self.0.end.wait().await;
            }
        };
        // Late or not, the link is cut next.
        drop(timeout(CLOSE_TIMEOUT, goodbye).await);
        self.kill();
    }

    /// What the login showed.
    pub(crate) fn facts(&self) -> &Facts {
        &self.0.facts
    }

    /// Bytes received and sent, as they were on the wire of the last hop.
    #[cfg(test)]
    pub(crate) fn traffic(&self) -> (u64, u64) {
        (self.0.switch.received(), self.0.switch.sent())
    }

    /// Grows with every sign of life: bytes that came in, and writes that went on after the far side
    /// had taken nothing for a while.
    pub(crate) fn signs_of_life(&self) -> u64 {
        self.0.switch.received().saturating_add(self.0.switch.moved())
    }

    /// The address of this machine from which the first hop is reached, if it is known.
    pub(crate) fn near(&self) -> Option<IpAddr> {
        self.0.below.as_ref().map_or(self.0.near, Self::near)
    }

    /// The server's address as it was dialled from this machine; `None` behind a jump host.
    pub(crate) fn far(&self) -> Option<IpAddr> {
        self.0.far
    }

    /// Whether the far side has taken nothing of a write for a while.
    pub(crate) fn is_stalled(&self) -> bool {
        self.0.switch.is_stalled()
    }

    /// Whether the session waits for the reader of one of its streams, so that nothing else moves
    /// on it, pings included: no sign of a dead link.
    pub(crate) fn is_parked(&self) -> bool {
        self.0.switch.unattended().is_some_and(|time| time > PARKED)
    }

    /// Waits until nothing runs beside the streams.
    #[cfg(test)]
    pub(crate) async fn settled(&self) {
        let chores = std::mem::take(&mut *self.0.chores.lock().unwrap());
        chores.join_all().await;
    }

    /// How many streams are open.
    #[cfg(test)]
    pub(crate) fn streams(&self) -> usize {
        self.0.taps.len()
    }
}

/// The address to listen on, as ssh(1) asks for it.
fn address_of(bind: Option<&str>) -> &str {
    match bind {
        None => "localhost",
        Some("*") => "",
        Some(bind) => bind,
    }
}

fn refusal(what: &str, error: &russh::Error) -> OpenFailure {
    let russh::Error::ChannelOpenFailure(reason) = error else {
        return OpenFailure::SessionLost;
    };
    match reason {
        ChannelOpenFailure::AdministrativelyProhibited => OpenFailure::Prohibited,
        ChannelOpenFailure::ConnectFailed => {
            OpenFailure::Refused(format!("nothing answers on {what} as seen from the SSH server"))
        }
        ChannelOpenFailure::UnknownChannelType
        | ChannelOpenFailure::ResourceShortage
        | ChannelOpenFailure::Other { .. } => {
            OpenFailure::Refused("the SSH server has no room for another forward".to_owned())
        }
    }
}

impl Inner {
    fn kill(&self) {
        if self.killed.swap(true, Ordering::SeqCst) {
            return;
        }
        self.end.note(Failure::new(Cause::LinkLost, "the ssh session was ended here"));
        self.switch.kill();
        self.taps.close();
        self.inbound.close();
        self.chores.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        if let Some(below) = &self.below {
            below.kill();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// Runs a command on a fresh channel and gathers what it prints.
async fn collect(
    channel: &mut Channel<client::Msg>,
    command: &str,
    limit: usize,
) -> Result<Ran, String> {
    channel.exec(true, command).await.map_err(|error| error.to_string())?;
    let mut ran = Ran { status: 255, stdout: Vec::new(), stderr: String::new() };
    let mut complaints = Vec::new();
    loop {
        match channel.wait().await {
            Some(ChannelMsg::Data { data }) if ran.stdout.len() + data.len() > limit => {
                return Err(format!("it printed more than {limit} bytes"));
            }
            Some(ChannelMsg::Data { data }) => ran.stdout.extend_from_slice(&data),
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                let room = STDERR_LIMIT.saturating_sub(complaints.len());
                complaints.extend(data.iter().take(room));
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => ran.status = exit_status,
            Some(ChannelMsg::Failure) => return Err("the server does not allow it".to_owned()),
            Some(ChannelMsg::Close) => break,
            Some(_) => {}
            None => return Err("the ssh session died".to_owned()),
        }
    }
    ran.stderr = String::from_utf8_lossy(&complaints).into_owned();
    Ok(ran)
}
