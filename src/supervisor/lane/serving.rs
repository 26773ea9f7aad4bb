//! Connections: held until a path is live, served over it, or turned away.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use tokio::{sync::oneshot, task::yield_now, time::timeout};
use tracing::{Span, debug, info};

use super::{
    Actor, Message, OPEN_LIMIT, REFUSALS_MOST, STREAMS_MOST, Session,
    ask::{absent, forbidden, prohibited, unreached},
};
use crate::{
    control::Opened,
    problem::{Class, Problem},
    supervisor::{
        incoming::{Incoming, Local},
        link::NotOpened,
        path::{Path, clock},
        pump::{Carried, End, pump},
    },
    tunnel::{Event, Failure, Number, Phase, ProofKind},
};

/// Refusals are news at most this often.
const UNSERVED_INTERVAL: Duration = Duration::from_secs(1);

impl Actor {
    /// Takes in a connection that was accepted just now.
    pub(super) fn admit_accepted(&mut self, local: Local) {
        let until = clock() + self.hold;
        self.admit(Incoming::new(local, until));
    }

    /// Gives up what is held.
    pub(super) fn surrender(&mut self, answer: oneshot::Sender<Vec<Incoming>>) {
        let held = std::mem::take(&mut self.held);
        self.report_held();
        if let Err(held) = answer.send(held.into()) {
            self.held = held.into();
            self.report_held();
        }
    }

    /// Takes a connection in: serves it if a path is live, else holds it.
    pub(super) fn admit(&mut self, incoming: Incoming) {
        if incoming.until <= clock() {
            self.refuse(incoming, "the far side did not answer in time");
            return;
        }
        let Some(mut incoming) = self.serve(incoming) else { return };
        let is_full = self.held.len() >= self.held_most && !incoming.is_promised();
        if self.tunnel.phase() == Phase::Blocked || is_full {
            let reason = self.reason().unwrap_or_else(|| "too many connections wait".to_owned());
            self.refuse(incoming, &reason);
            return;
        }
        incoming.promise();
        self.held.push_back(incoming);
        self.report_held();
    }

    pub(super) fn serving_path(&self) -> Option<Arc<Path>> {
        self.path(self.serving?)
    }

    pub(super) fn path(&self, number: Number) -> Option<Arc<Path>> {
        match self.sessions.get(&number)? {
            Session::Up(path, _) => Some(Arc::clone(path)),
            Session::Dialling { .. } => None,
        }
    }

    /// Opens a stream for a connection and copies it; a session that dies, or is doubted, before
    /// the stream is confirmed gives the connection back. Without a path or room it does so now.
    fn serve(&mut self, mut incoming: Incoming) -> Option<Incoming> {
        let Some(path) = self.serving_path() else { return Some(incoming) };
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else { return Some(incoming) };
        let (destination, tls_fingerprint) = (self.destination.clone(), self.pin);
        let inner = self.inner.clone();
        let (proof, troubled) = (self.proof, Arc::clone(&self.troubled));
        incoming.promise();
        let (guest, trust) = (path.enter(), path.trust());
        let span = Span::current();
        self.tasks.spawn(async move {
            let _guest = (guest, room);
            path.asked();
            let opening = timeout(OPEN_LIMIT, path.link.open(&destination));
            let opened = tokio::select! {
                opened = opening => opened,
                () = trust.cancelled() => Ok(Err(NotOpened::SessionLost)),
            };
            match opened {
                Ok(Ok(far)) => {
                    path.answered();
                    if troubled.load(Relaxed) {
                        let _ended = inner.send(Message::Led(path.number, None)).await;
                    }
                    let opened = Opened {
                        host_key: path.link.facts().host_key,
                        remote_port: destination.port(),
                        tls_fingerprint,
                    };
                    if let Some(local) = incoming.begin(opened).await {
                        let (local, end, carried) = pump(local, far, &path).await;
                        finish(local, &end, carried, &span).await;
                    }
                }
                // A silent server is the machine's business: the connection waits for its verdict.
                Ok(Err(NotOpened::SessionLost | NotOpened::Silent)) | Err(_) => {
                    let _ended = inner.send(Message::Back(incoming)).await;
                }
                Ok(Err(not @ (NotOpened::Refused(_) | NotOpened::Prohibited(_))))
                    if proof == ProofKind::Ssh =>
                {
                    path.answered();
                    let failure = match not {
                        NotOpened::Refused(why) => unreached(&destination, why),
                        NotOpened::Prohibited(_) | NotOpened::Silent | NotOpened::SessionLost => {
                            forbidden(&destination)
                        }
                    };
                    let problem = Problem::from(failure.clone());
                    let _ended = inner.send(Message::Led(path.number, Some(failure))).await;
                    incoming.refuse(problem).await;
                }
                // As good as a proof that failed: `live` would be a memory from here on. The
                // connection waits for the gateway like those that come after it.
                Ok(Err(NotOpened::Refused(_))) => {
                    path.answered();
                    let failure = absent(destination.port());
                    let unproved = Message::Unproved(path.number, failure, incoming);
                    let _ended = inner.send(unproved).await;
                }
                Ok(Err(NotOpened::Prohibited(reason))) => {
                    path.answered();
                    let failure = prohibited(destination.port(), &reason);
                    let unproved = Message::Unproved(path.number, failure, incoming);
                    let _ended = inner.send(unproved).await;
                }
            }
        });
        None
    }

    /// Notes what is wrong with the place over there, and says so once.
    pub(super) fn on_led(&mut self, number: Number, trouble: Option<Failure>) {
        // A session that was replaced says nothing of the one that serves.
        if self.serving.or(self.left) != Some(number) || self.trouble == trouble {
            return;
        }
        let now = clock();
        if let Some(failure) = &trouble
            && self.trouble_said.is_none_or(|said| now.duration_since(said) >= UNSERVED_INTERVAL)
        {
            self.trouble_said = Some(now);
            info!(cause = ?failure.cause, "what the forward leads to cannot be had");
            // Messages name hosts, users and files.
            debug!(message = failure.message, "why");
        }
        self.change(|lane| lane.set_trouble(trouble));
    }

    pub(super) fn set_trouble(&mut self, trouble: Option<Failure>) {
        self.troubled.store(trouble.is_some(), Relaxed);
        self.trouble = trouble;
    }

    /// Ends a wait without having been served.
    pub(super) fn refuse(&mut self, incoming: Incoming, reason: &str) {
        let class = self.tunnel.failure().map_or(Class::Unreachable, |f| f.cause.class());
        let mut problem = Problem::new(class, reason);
        problem.fix = self.tunnel.failure().and_then(|failure| failure.fix.clone());
        self.unserved(reason);
        let is_crowded = self.refusals.len() >= REFUSALS_MOST / 4;
        self.refusals.spawn(async move {
            if is_crowded {
                incoming.refuse_in_a_crowd(problem).await;
            } else {
                incoming.refuse(problem).await;
            }
        });
    }

    /// Notes that a connection was not served.
    pub(super) fn unserved(&mut self, reason: &str) {
        self.account.refused(reason);
        self.unserved += 1;
        let now = clock();
        if self.unserved_said.is_none_or(|said| now.duration_since(said) >= UNSERVED_INTERVAL) {
            self.unserved_said = Some(now);
            // A flood must not fill the disk.
            let count = std::mem::take(&mut self.unserved);
            // The message of a failure names hosts, users and files.
            match self.tunnel.failure().map(|failure| failure.cause) {
                Some(cause) => info!(count, ?cause, "connections were not served"),
                None => info!(count, reason, "connections were not served"),
            }
            debug!(reason, "why");
        }
    }

    pub(super) fn reason(&self) -> Option<String> {
        self.tunnel.failure().map(|failure| failure.message.clone())
    }

    pub(super) fn end_waits(&mut self) {
        let now = clock();
        let (over, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition::<VecDeque<_>, _>(|incoming| incoming.until <= now);
        self.held = held;
        if over.is_empty() {
            return;
        }
        let reason = self.reason().unwrap_or_else(|| match self.serving_path() {
            Some(_) => {
                format!("{STREAMS_MOST} connections are open already, and none ended in time")
            }
            None => "no path was live in time".to_owned(),
        });
        for incoming in over {
            self.refuse(incoming, &reason);
        }
        self.report_held();
    }

    /// Tells the machine how many wait, if that has changed.
    pub(super) fn report_held(&mut self) {
        let count = self.held.len();
        self.awaited.store(count > 0, Relaxed);
        if std::mem::replace(&mut self.told, count) != count {
            self.step(Event::Held(count));
        }
    }

    /// Serves the connections that waited, as far as there is a path and room.
    pub(super) fn serve_held(&mut self) {
        while let Some(incoming) = self.held.pop_front() {
            if let Some(incoming) = self.serve(incoming) {
                self.held.push_front(incoming);
                break;
            }
        }
    }
}

/// Ends the local side the way the far side ended; `span` names the remote and the forward.
pub(super) async fn finish(local: Local, end: &End, carried: Carried, span: &Span) {
    match end {
        End::Done => {}
        End::Cut(reason) => {
            local.reset();
            // The other streams of a session that died are to be reset before anything is told.
            yield_now().await;
            let Carried { sent, received, undelivered } = carried;
            let told = || info!(reason, sent, received, undelivered, "a stream was cut");
            span.in_scope(told);
        }
        End::Local(error) => span.in_scope(|| debug!(%error, "the local side broke off")),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{Ipv4Addr, TcpListener, TcpStream},
        sync::Mutex,
    };

    use tokio::task::JoinSet;
    use tracing_subscriber::{Layer, layer::SubscriberExt};

    use super::*;

    /// Looks at every connection whenever something is logged.
    struct Onlooker(Vec<TcpStream>, Arc<Mutex<Vec<usize>>>);

    impl<S: tracing::Subscriber> Layer<S> for Onlooker {
        fn on_event(&self, _: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
            let open = |mut peer: &TcpStream| {
                let read = peer.read(&mut [0]);
                read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
            };
            self.1.lock().unwrap().push(self.0.iter().filter(|peer| open(peer)).count());
        }
    }

    #[test]
    fn all_streams_of_a_dead_session_are_reset_before_a_word_is_logged() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (mut peers, mut locals) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            peer.set_nonblocking(true).unwrap();
            let local = listener.accept().unwrap().0;
            local.set_nonblocking(true).unwrap();
            peers.push(peer);
            locals.push(local);
        }
        let seen = Arc::default();
        let onlooker = Onlooker(peers, Arc::clone(&seen));
        let subscriber = tracing_subscriber::registry().with(onlooker);
        tracing::subscriber::with_default(subscriber, || {
            runtime.block_on(async {
                let mut ends = JoinSet::new();
                for local in locals {
                    let local = Local::Tcp(tokio::net::TcpStream::from_std(local).unwrap());
                    let end = End::Cut("the session died");
                    ends.spawn(async move {
                        finish(local, &end, Carried::default(), &Span::none()).await;
                    });
                }
                ends.join_all().await;
            });
        });
        assert_eq!(*seen.lock().unwrap(), [0, 0, 0], "open connections at each line of the log");
    }
}
