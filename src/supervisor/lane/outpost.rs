//! A listener over there: asked for as its claim wants it, and what comes through it dialled here.

use std::{sync::Arc, time::Duration};

use tokio::{
    net::{TcpStream, UnixStream},
    sync::oneshot,
    time::timeout,
};
use tracing::{Span, debug, info, warn};

use super::{
    Actor, Message, PROBE_LIMIT, Reach,
    outpost_words::{
        absent_here, failing_here, not_opened, not_through, opened_wide, refused_at, unanswered,
        uncovered_here,
    },
    serving::finish,
};
use crate::{
    client::{self, NoTls, NotAnswered},
    config::{Destination, Listen},
    fingerprint::Fingerprint,
    ssh::ListenFailure,
    supervisor::{
        incoming::Local,
        link::{Knock, Link, NotOpened},
        path::{Guest, clock},
        pump::pump,
    },
    tunnel::{Claim, ClaimAction, ClaimEvent, Failure, Number, Phase, Proof, ProofKind, Refusal},
};

/// How long what a listener leads to may take to accept a connection.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// How long a look at who has the place may take.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// A listener that is wanted over there.
#[derive(Debug, Clone)]
pub(in crate::supervisor) struct Reverse {
    /// Where.
    pub(in crate::supervisor) listen: Listen,
    /// Where its connections go here.
    pub(in crate::supervisor) to: Destination,
    /// Whether that is the gateway of this machine, which must answer before this counts as live.
    pub(in crate::supervisor) proves: bool,
    /// The certificate of that gateway, where it speaks TLS.
    pub(in crate::supervisor) pin: Option<Fingerprint>,
}

/// What a lane knows of its listener.
pub(super) struct Outpost {
    claim: Claim,
    reverse: Reverse,
    /// Where it was granted last: a port that the server chose is asked for again.
    granted: Option<Listen>,
    /// What went wrong with a connection that came through it.
    trouble: Option<Failure>,
    /// Who reaches it, where that was to be others: looked at once, since it costs what the forward
    /// leads to a connection that says nothing.
    reach: Option<Reach>,
}

/// What the tasks of a listener tell.
pub(super) enum Outside {
    /// The server's answer on a session.
    Listening(Number, Result<Listen, Refusal>),
    /// A connection with its place in the session, and whether it came from where the listener was
    /// to be reached from.
    Knock(Guest, Box<dyn Knock>, bool),
    /// What came of dialling here for a connection.
    Dialled(Option<Failure>),
    /// The gateway's answer.
    Gateway(Number, Result<(ProofKind, Duration), Failure>),
    /// Who reaches it.
    Reached(Reach),
}

impl Outpost {
    pub(super) fn new(reverse: Reverse, seed: u64) -> Self {
        let claim = Claim::new(reverse.proves, seed);
        Self { claim, reverse, granted: None, trouble: None, reach: None }
    }

    /// The claim on it.
    pub(super) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Where it is, on a tunnel that is at `tunnel`.
    pub(super) fn phase(&self, tunnel: Phase) -> Phase {
        self.claim.phase(tunnel)
    }

    /// What is wrong with it, on a session that works.
    pub(super) fn failure(&self) -> Option<Failure> {
        let refused = self.claim.refusal();
        let refused = refused.map(|why| refused_at(&self.place(), why, self.claim.is_stale()));
        let narrow = || (self.reach == Some(Reach::Itself)).then(|| not_opened(&self.place()));
        let of_claim = refused.or_else(|| self.claim.failure().cloned());
        of_claim.or_else(|| self.trouble.clone()).or_else(narrow)
    }

    /// Who reaches it, as far as that was asked and seen.
    pub(super) fn reach(&self) -> Option<Reach> {
        self.reach
    }

    /// The evidence, where a gateway must answer.
    pub(super) fn proof(&self) -> Option<Proof> {
        self.claim.proof()
    }

    /// The port where it listens, or did.
    pub(super) fn port(&self) -> Option<u16> {
        self.granted.as_ref().and_then(Listen::port)
    }

    /// What is asked for next.
    fn place(&self) -> Listen {
        self.granted.clone().unwrap_or_else(|| self.reverse.listen.clone())
    }
}

impl Actor {
    /// Tells the claim something and does what it wants, if this lane has one.
    pub(super) fn claim(&mut self, event: ClaimEvent) {
        let Some(outpost) = &mut self.outpost else { return };
        match outpost.claim.step(event, clock()) {
            Some(ClaimAction::Ask { on, before }) => self.ask_to_listen(on, before),
            Some(ClaimAction::Prove(number)) => self.prove_outpost(number),
            Some(ClaimAction::GiveBack(number)) => {
                let at = outpost.place();
                self.give_back(number, at, None);
            }
            None => {}
        }
    }

    /// Gives the listener back for good; answers when that is done.
    pub(super) fn release(&mut self, done: oneshot::Sender<()>) {
        let held = self.outpost.as_mut().and_then(|outpost| {
            let action = outpost.claim.step(ClaimEvent::Release, clock());
            Some((action?, outpost.place()))
        });
        match held {
            Some((ClaimAction::GiveBack(number), at)) => self.give_back(number, at, Some(done)),
            Some((ClaimAction::Ask { .. } | ClaimAction::Prove(_), _)) | None => {
                let _gone = done.send(());
            }
        }
    }

    pub(super) fn on_outside(&mut self, news: Outside) {
        match news {
            Outside::Listening(number, answer) => self.on_listening(number, answer),
            Outside::Knock(guest, knock, is_welcome) => self.on_knock(guest, knock, is_welcome),
            Outside::Dialled(trouble) => {
                if let Some(outpost) = &mut self.outpost {
                    outpost.trouble = trouble;
                }
            }
            Outside::Gateway(number, answer) => self.claim(match answer {
                Ok((kind, rtt)) => ClaimEvent::Proved(number, kind, rtt),
                Err(failure) => ClaimEvent::NotProved(number, failure),
            }),
            Outside::Reached(reach) => {
                if let Some(outpost) = &mut self.outpost {
                    outpost.reach = Some(reach);
                }
                match reach {
                    Reach::Others => debug!("other machines reach the listener"),
                    Reach::Itself => warn!("the listener is not opened to other machines"),
                    Reach::Unknown => {
                        info!("whether other machines reach the listener cannot be seen from here");
                    }
                }
            }
        }
    }

    fn ask_to_listen(&mut self, on: Number, before: Option<Number>) {
        let (Some(outpost), Some(path)) = (&self.outpost, self.path(on)) else { return };
        // What is left there of slow readers must not stand in the way of the word.
        let before = before.and_then(|before| self.path(before)).map(|path| path.accompany());
        // Until the last connection that came to it: a session that is to end waits for that.
        let attendance = path.attend();
        // The last question may have been answered after all.
        let is_late = outpost.claim.refusal() == Some(Refusal::Silent);
        // What somebody may have mended is looked at again.
        let is_seen = outpost.reach == Some(Reach::Others);
        let (at, inner) = (outpost.place(), self.inner.clone());
        debug!(attempt = on.0, at = %at, "asking the server to listen");
        self.tasks.spawn(async move {
            let _attendance = attendance;
            if let Some(before) = before {
                before.path().link.unlisten(&at).await;
            }
            if is_late {
                path.link.unlisten(&at).await;
            }
            let mut knocks = match path.link.listen(&at).await {
                Ok(knocks) => knocks,
                // The news of its end says the rest.
                Err(ListenFailure::SessionLost) => return,
                Err(ListenFailure::Silent) => {
                    let answer = Outside::Listening(on, Err(Refusal::Silent));
                    let _ended = inner.send(Message::Outside(answer)).await;
                    return;
                }
                Err(ListenFailure::Refused) => {
                    let refusal = look(path.link.as_ref(), &at).await;
                    let answer = Outside::Listening(on, Err(refusal));
                    let _ended = inner.send(Message::Outside(answer)).await;
                    return;
                }
            };
            // Who comes meanwhile waits in the session; whoever connects the remote hears of it.
            if !is_seen && let Some(reach) = who_reaches(path.link.as_ref(), knocks.at()).await {
                let _ended = inner.send(Message::Outside(Outside::Reached(reach))).await;
            }
            let answer = Outside::Listening(on, Ok(knocks.at().clone()));
            let _ended = inner.send(Message::Outside(answer)).await;
            while let Some((knock, is_welcome)) = knocks.next().await {
                let news = Outside::Knock(path.enter(), knock, is_welcome);
                if inner.send(Message::Outside(news)).await.is_err() {
                    return;
                }
            }
        });
    }

    fn give_back(&mut self, number: Number, at: Listen, done: Option<oneshot::Sender<()>>) {
        let Some(path) = self.path(number) else { return drop(done) };
        let company = path.accompany();
        self.tasks.spawn(async move {
            company.path().link.unlisten(&at).await;
            // Whoever waits is told by the drop.
            drop(done);
        });
    }

    fn on_listening(&mut self, number: Number, answer: Result<Listen, Refusal>) {
        let Some(outpost) = &mut self.outpost else { return };
        match answer {
            Ok(at) => match outpost.claim.step(ClaimEvent::Granted(number), clock()) {
                // Too late: the place that counts is another.
                Some(ClaimAction::GiveBack(late)) => self.give_back(late, at, None),
                action => {
                    info!(at = %at, "the server listens");
                    outpost.granted = Some(at);
                    if let Some(ClaimAction::Prove(number)) = action {
                        self.prove_outpost(number);
                    }
                }
            },
            Err(refusal) => {
                debug!(?refusal, "the server does not listen");
                // Any port was wanted: the next one will do, unless others were told of this one.
                if outpost.reverse.listen.port() == Some(0) && !outpost.reverse.proves {
                    outpost.granted = None;
                }
                self.claim(ClaimEvent::Refused(number, refusal));
            }
        }
    }

    fn on_knock(&mut self, guest: Guest, knock: Box<dyn Knock>, is_welcome: bool) {
        let Some(outpost) = &mut self.outpost else { return };
        if !is_welcome {
            let trouble = Some(opened_wide(&outpost.place()));
            // Once: a flood must not fill the disk.
            if outpost.trouble != trouble {
                warn!(
                    "connections from elsewhere come to a private listener; they are turned away"
                );
                outpost.trouble = trouble;
            }
            return;
        }
        let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
            self.unserved("too many connections from over there are open");
            return;
        };
        let (to, inner) = (outpost.reverse.to.clone(), self.inner.clone());
        let span = Span::current();
        self.tasks.spawn(async move {
            let _room = room;
            let path = Arc::clone(guest.path());
            let local = match dial(&to).await {
                Ok(local) => local,
                Err(why) => {
                    debug!(%why, "what a remote forward leads to does not answer");
                    knock.refuse().await;
                    let news = Outside::Dialled(Some(unanswered(&to, &why)));
                    let _ended = inner.send(Message::Outside(news)).await;
                    return;
                }
            };
            let far = knock.accept().await;
            let _ended = inner.send(Message::Outside(Outside::Dialled(None))).await;
            let (local, end, carried) = pump(local, far, &path).await;
            finish(local, &end, carried, &span).await;
        });
    }

    fn prove_outpost(&mut self, number: Number) {
        let (Some(outpost), Some(path)) = (&self.outpost, self.path(number)) else { return };
        let (to, pin, at) = (outpost.reverse.to.clone(), outpost.reverse.pin, outpost.place());
        let inner = self.inner.clone();
        self.tasks.spawn(async move {
            let news = match see(path.link.as_ref(), &to, &at, pin).await {
                Ok(seen) => Outside::Gateway(number, Ok(seen)),
                Err(NotSeen::Failed(failure)) => Outside::Gateway(number, Err(failure)),
                Err(NotSeen::Elsewhere) => {
                    path.link.unlisten(&at).await;
                    Outside::Listening(number, Err(Refusal::Taken))
                }
            };
            let _ended = inner.send(Message::Outside(news)).await;
        });
    }
}

/// A connection to `to` on this machine, or as this machine sees it.
async fn dial(to: &Destination) -> Result<Local, String> {
    let dialling = async {
        match to {
            Destination::Port { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Ok(Local::Tcp(stream))
            }
            Destination::Socket(path) => Ok(Local::Unix(UnixStream::connect(path).await?)),
        }
    };
    match timeout(DIAL_LIMIT, dialling).await {
        Ok(Ok(local)) => Ok(local),
        Ok(Err(error)) => Err(plain(&error)),
        Err(_) => Err(format!("no answer within {} s", DIAL_LIMIT.as_secs())),
    }
}

/// The reason without the number that the operating system has for it.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// Finds out why the server refused to listen at `at`: OpenSSH gives no reason.
async fn look(link: &dyn Link, at: &Listen) -> Refusal {
    // Of any port there is always a free one.
    let Some(to) = at.seen_from_there() else { return Refusal::Prohibited };
    match (timeout(LOOK_LIMIT, link.open(&to)).await, at) {
        (Ok(Ok(_)), _) => Refusal::Taken,
        (Ok(Err(NotOpened::Refused(_))), Listen::Port { .. }) => Refusal::Prohibited,
        // A socket without a listener is in the way all the same.
        (Ok(Err(NotOpened::Refused(_))), Listen::Socket(_)) => Refusal::Unclear,
        (Ok(Err(NotOpened::Prohibited(_))), _) => Refusal::Unclear,
        (Ok(Err(NotOpened::SessionLost | NotOpened::Silent)) | Err(_), _) => Refusal::Silent,
    }
}

/// Finds out whether the server opened a listener as wide as it was asked to: with `GatewayPorts no`
/// OpenSSH says yes and listens on loopback. Its own machine is asked to connect to it by another address:
/// 127.0.0.2, which Linux has and `localhost` does not cover, and the one by which it was dialled.
async fn who_reaches(link: &dyn Link, at: &Listen) -> Option<Reach> {
    let Listen::Port { bind, port } = at else { return None };
    if at.is_private() {
        return None;
    }
    let hosts: Vec<String> = match bind.as_deref() {
        None => return None,
        Some("*" | "" | "0.0.0.0") => {
            let dialled = link.far().filter(|far| !far.is_loopback()).map(|far| far.to_string());
            std::iter::once("127.0.0.2".to_owned()).chain(dialled).collect()
        }
        // No address of IPv6 is loopback's but one.
        Some("::") => link
            .far()
            .filter(|far| !far.is_loopback() && far.is_ipv6())
            .map_or_else(Vec::new, |far| vec![far.to_string()]),
        Some(host) => vec![host.to_owned()],
    };
    let mut reach = Reach::Unknown;
    for host in hosts {
        let to = Destination::Port { host, port: *port };
        match timeout(LOOK_LIMIT, link.open(&to)).await {
            Ok(Ok(_)) => return Some(Reach::Others),
            Ok(Err(NotOpened::Refused(_))) => reach = Reach::Itself,
            Ok(Err(NotOpened::Prohibited(_) | NotOpened::Silent)) | Err(_) => {
                return Some(Reach::Unknown);
            }
            Ok(Err(NotOpened::SessionLost)) => return None,
        }
    }
    Some(reach)
}

/// Why the gateway of this machine was not seen through its listener.
enum NotSeen {
    /// It does not answer, or its answer does not arrive.
    Failed(Failure),
    /// The listener is not where others will look: OpenSSH is content with one address of loopback
    /// while another program has the other.
    Elsewhere,
}

impl From<Failure> for NotSeen {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// The stream in TLS, if there is to be any; at most [`PROBE_LIMIT`].
async fn cover<S>(stream: S, pin: Option<Fingerprint>) -> Result<client::Covered<S>, NoTls>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let late = |_| Err(NoTls::Failed(std::io::ErrorKind::TimedOut.into()));
    timeout(PROBE_LIMIT, client::cover(stream, pin)).await.unwrap_or_else(late)
}

/// Asks the gateway of this machine, and then through the listener at `at`, as others will.
async fn see(
    link: &dyn Link,
    to: &Destination,
    at: &Listen,
    pin: Option<Fingerprint>,
) -> Result<(ProofKind, Duration), NotSeen> {
    let port = to.port();
    let local = dial(to).await.map_err(|_| absent_here(port))?;
    let local = cover(local, pin).await.map_err(|why| uncovered_here(&why, port))?;
    let answer = client::healthz(local, PROBE_LIMIT).await;
    answer.map_err(|not| failing_here(&not, port))?;
    let begun = clock();
    let through = Destination::loopback(at.port().unwrap_or_default());
    match timeout(PROBE_LIMIT, link.open(&through)).await {
        Ok(Ok(stream)) => {
            let stream = cover(stream, pin).await.map_err(|why| match why.is_somebody_else() {
                true => NotSeen::Elsewhere,
                false => not_through(at).into(),
            })?;
            match client::healthz(stream, PROBE_LIMIT).await {
                Ok(()) => Ok((ProofKind::Gateway, clock() - begun)),
                Err(NotAnswered::NotAGateway(_)) => Err(NotSeen::Elsewhere),
                Err(_) => Err(not_through(at).into()),
            }
        }
        Ok(Err(NotOpened::Refused(_))) => Err(NotSeen::Elsewhere),
        // It cannot be seen from over there; that the server listens and answers is all there is.
        Ok(Err(NotOpened::Prohibited(_))) => {
            let ping = timeout(PROBE_LIMIT, link.ping()).await;
            let rtt = ping.map_err(|_| not_through(at))??;
            Ok((ProofKind::Ssh, rtt))
        }
        Ok(Err(NotOpened::Silent | NotOpened::SessionLost)) | Err(_) => Err(not_through(at).into()),
    }
}

#[cfg(test)]
#[path = "outpost_tests.rs"]
pub(super) mod tests;
