//! Connections that the server brings: taken where a listener over there was asked for, refused
//! everywhere else.

use std::{
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use russh::{Channel, ChannelOpenFailure, client};
use tokio::sync::mpsc;

use super::stream::{Stream, Taps};
use crate::config::Listen;

/// Connections that may wait to be taken.
const KNOCKS: usize = 64;

/// Why a listener over there could not be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ListenFailure {
    /// The server said no, and OpenSSH never says why.
    #[error("the SSH server refused the remote forward")]
    Refused,
    /// The server did not answer in time.
    #[error("the SSH server did not answer within 15 s")]
    Silent,
    /// The session died before the answer.
    #[error("the ssh session died")]
    SessionLost,
}

/// Where the connections of one session's listener go; nowhere until one is asked for.
#[derive(Debug, Default)]
pub(super) struct Inbound {
    open: Mutex<Option<mpsc::Sender<Knock>>>,
    /// Connections that were refused here.
    refused: AtomicU64,
}

/// One of the listeners that a session has had.
#[derive(Debug)]
pub(super) struct Mark(Option<mpsc::WeakSender<Knock>>);

impl Inbound {
    /// Takes connections from now on, those of the listener before no more.
    pub(super) fn open(&self) -> mpsc::Receiver<Knock> {
        let (sender, receiver) = mpsc::channel(KNOCKS);
        *self.sender() = Some(sender);
        receiver
    }

    /// The listener whose connections are taken now.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.sender().as_ref().map(mpsc::Sender::downgrade))
    }

    /// Takes no connections any more.
    pub(super) fn close(&self) {
        self.sender().take();
    }

    /// Takes none of that listener any more; one that was asked for since stays open.
    pub(super) fn close_at(&self, mark: &Mark) {
        let mut open = self.sender();
        let marked = mark.0.as_ref().and_then(mpsc::WeakSender::upgrade);
        if marked.is_some_and(|marked| open.as_ref().is_some_and(|it| it.same_channel(&marked))) {
            open.take();
        }
    }

    fn sender(&self) -> MutexGuard<'_, Option<mpsc::Sender<Knock>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a connection on; one that nobody asked for, or too many, is refused.
    pub(super) async fn knock(&self, knock: Knock) {
        let sender = self.sender().clone();
        let refused = match sender {
            None => Some((knock, ChannelOpenFailure::AdministrativelyProhibited)),
            Some(sender) => match sender.try_send(knock) {
                Ok(()) => None,
                Err(mpsc::error::TrySendError::Closed(knock)) => {
                    Some((knock, ChannelOpenFailure::AdministrativelyProhibited))
                }
                Err(mpsc::error::TrySendError::Full(knock)) => {
                    Some((knock, ChannelOpenFailure::ResourceShortage))
                }
            },
        };
        if let Some((knock, why)) = refused {
            let count = self.refused.fetch_add(1, Relaxed) + 1;
            // A flood must not fill the disk.
            if count.is_power_of_two() {
                tracing::info!(count, ?why, "connections from over there are refused");
            }
            knock.reply.reject(why).await;
        }
    }
}

/// A connection that wants in (RFC 4254, section 7.2, "forwarded-tcpip", and OpenSSH's
/// "forwarded-streamlocal@openssh.com"). Dropping it refuses it.
pub(crate) struct Knock {
    /// The listener that it came to, as the server says.
    at: Listen,
    /// Who connected over there, as the server says.
    from: String,
    channel: Channel<client::Msg>,
    reply: client::ChannelOpenHandle,
    taps: Arc<Taps>,
}

impl Knock {
    pub(super) fn new(
        at: Listen,
        from: String,
        channel: Channel<client::Msg>,
        reply: client::ChannelOpenHandle,
        taps: &Arc<Taps>,
    ) -> Self {
        Self { at, from, channel, reply, taps: Arc::clone(taps) }
    }

    /// Takes it.
    pub(crate) async fn accept(self) -> Stream {
        self.reply.accept().await;
        Stream::new(self.channel, &self.taps)
    }

    /// Says that nothing answers here.
    pub(crate) async fn refuse(self) {
        self.reply.reject(ChannelOpenFailure::ConnectFailed).await;
    }
}

impl fmt::Debug for Knock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knock").field("at", &self.at).finish_non_exhaustive()
    }
}

/// A listener over there, granted.
#[derive(Debug)]
pub(crate) struct Listening {
    /// Where it listens, with the port that the server chose if the choice was left to it.
    pub(crate) at: Listen,
    knocks: mpsc::Receiver<Knock>,
}

impl Listening {
    pub(super) fn new(at: Listen, knocks: mpsc::Receiver<Knock>) -> Self {
        Self { at, knocks }
    }

    /// The next connection, and whether it came from where this listener was to be reached from;
    /// `None` when there will be no more. One to another listener is refused.
    pub(crate) async fn next(&mut self) -> Option<(Knock, bool)> {
        loop {
            let knock = self.knocks.recv().await?;
            if fits(&self.at, &knock.at) {
                let is_welcome = !self.at.is_private() || is_near(&knock.from);
                return Some((knock, is_welcome));
            }
            tracing::debug!(at = %knock.at, "a connection to a listener that is not ours");
        }
    }
}

/// Whether what the server says of a connection means the listener that was asked for: the same
/// port, and an address that the one asked for covers.
fn fits(asked: &Listen, said: &Listen) -> bool {
    let (asked, said) = match (asked, said) {
        (Listen::Socket(asked), Listen::Socket(said)) => return asked == said,
        (Listen::Port { bind, port }, Listen::Port { bind: said, port: said_port })
            if port == said_port =>
        {
            (bind.as_deref().unwrap_or("localhost"), said.as_deref().unwrap_or_default())
        }
        _ => return false,
    };
    match (asked, asked.parse::<IpAddr>(), said.parse::<IpAddr>()) {
        // Every address of the machine.
        ("*" | "", _, _) => true,
        _ if asked.eq_ignore_ascii_case(said) => true,
        ("localhost", _, Ok(said)) => said.to_canonical().is_loopback(),
        (_, Ok(asked), Ok(said)) => {
            asked.is_unspecified() || asked.to_canonical() == said.to_canonical()
        }
        // A name over there, told by its address.
        (_, Err(_), Ok(_)) => true,
        (_, _, Err(_)) => false,
    }
}

/// Whether a connection came from the far machine itself; a server that tells no address is
/// believed.
fn is_near(from: &str) -> bool {
    from.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
        || from.parse::<IpAddr>().is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(bind: Option<&str>, port: u16) -> Listen {
        Listen::Port { bind: bind.map(str::to_owned), port }
    }

    #[test]
    fn takes_what_comes_to_the_listener_that_was_asked_for_and_nothing_else() {
        for (asked, said) in [
            (None, "localhost"),
            (None, "127.0.0.1"),
            (None, "::1"),
            (None, "::ffff:127.0.0.1"),
            (Some("*"), ""),
            (Some("*"), "203.0.113.7"),
            (Some("0.0.0.0"), "203.0.113.7"),
            (Some("10.0.0.1"), "10.0.0.1"),
            (Some("jump.example"), "jump.example"),
            (Some("jump.example"), "10.0.0.1"),
        ] {
            assert!(fits(&port(asked, 9), &port(Some(said), 9)), "{asked:?} {said}");
            assert!(!fits(&port(asked, 9), &port(Some(said), 10)), "{asked:?} {said}");
        }
        for (asked, said) in [
            (None, "203.0.113.7"),
            (None, ""),
            (Some("10.0.0.1"), "10.0.0.2"),
            (Some("10.0.0.1"), "localhost"),
            (Some("jump.example"), "other.example"),
        ] {
            assert!(!fits(&port(asked, 9), &port(Some(said), 9)), "{asked:?} {said}");
        }
        let socket = |path: &str| Listen::Socket(path.to_owned());
        assert!(fits(&socket("/run/a"), &socket("/run/a")));
        assert!(!fits(&socket("/run/a"), &socket("/run/b")));
        assert!(!fits(&socket("/run/a"), &port(None, 9)));
    }

    #[test]
    fn what_was_given_back_late_closes_no_listener_that_was_asked_for_since() {
        let inbound = Inbound::default();
        let mut old = inbound.open();
        let mark = inbound.mark();
        let mut new = inbound.open();
        inbound.close_at(&mark);
        assert_eq!(old.try_recv().unwrap_err(), mpsc::error::TryRecvError::Disconnected);
        assert_eq!(new.try_recv().unwrap_err(), mpsc::error::TryRecvError::Empty);
        inbound.close_at(&inbound.mark());
        assert_eq!(new.try_recv().unwrap_err(), mpsc::error::TryRecvError::Disconnected);
    }

    #[test]
    fn knows_a_connection_from_elsewhere() {
        for near in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "localhost", ""] {
            assert!(is_near(near), "{near}");
        }
        for far in ["203.0.113.7", "::ffff:203.0.113.7", "fe80::1"] {
            assert!(!is_near(far), "{far}");
        }
    }
}
