//! A lane over sessions that do as a test says, with the test at both ends.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, duplex},
    net::UnixStream,
    sync::{Notify, mpsc, oneshot},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::{accept_async, tungstenite::Message as Word};

use super::*;
use crate::{
    client::far_with_tls,
    config::{Destination, Listen},
    control::{self, Reply},
    history::Book,
    ssh::ListenFailure,
    supervisor::{
        incoming::{Incoming, Local},
        link::{Facts, Knocks, Later, Link, NotOpened, Printed, Stream},
    },
    tunnel::Cause,
};

/// How long a test waits for what must happen, in the lane's own time.
pub(super) const LONG: Duration = Duration::from_secs(120);

/// A session that does as the test says.
pub(super) struct Script {
    /// Streams that the lane opened, apart from its proofs.
    opened: mpsc::Sender<DuplexStream>,
    /// Whether opening a stream is answered.
    pub(super) opens: AtomicBool,
    /// Whether nothing listens where streams are to lead.
    pub(super) refuses: AtomicBool,
    /// Whether pings and proofs are answered.
    pub(super) answers: AtomicBool,
    dead: AtomicBool,
    death: Notify,
    pub(super) proofs: Mutex<u32>,
    /// The gateway's TLS, if it has any.
    tls: Option<TlsAcceptor>,
}

impl Script {
    pub(super) fn die(&self) {
        self.dead.store(true, SeqCst);
        self.death.notify_waiters();
    }

    pub(super) async fn until_dead(&self) {
        let death = self.death.notified();
        if !self.dead.load(SeqCst) {
            death.await;
        }
    }
}

impl Link for Script {
    fn open<'a>(&'a self, _: &'a Destination) -> Later<'a, Result<Box<dyn Stream>, NotOpened>> {
        Box::pin(async move {
            if !self.answers.load(SeqCst) {
                self.until_dead().await;
                return Err(NotOpened::SessionLost);
            }
            if self.refuses.load(SeqCst) {
                return Err(NotOpened::Refused("connection refused".to_owned()));
            }
            let (near, far) = duplex(1 << 20);
            // The first stream of a session is its proof.
            let is_proof = {
                let mut proofs = self.proofs.lock().unwrap();
                *proofs += 1;
                *proofs == 1
            };
            if is_proof {
                match self.tls.clone() {
                    None => tokio::spawn(be_gateway(far)),
                    Some(tls) => tokio::spawn(async move {
                        be_gateway(tls.accept(far).await.unwrap()).await;
                    }),
                };
            } else if self.opens.load(SeqCst) {
                self.opened.send(far).await.unwrap();
            } else {
                self.until_dead().await;
                return Err(NotOpened::SessionLost);
            }
            Ok(Box::new(near) as Box<dyn Stream>)
        })
    }

    fn listen<'a>(&'a self, _: &'a Listen) -> Later<'a, Result<Box<dyn Knocks>, ListenFailure>> {
        Box::pin(async { Err(ListenFailure::Refused) })
    }

    fn unlisten<'a>(&'a self, _: &'a Listen) -> Later<'a, ()> {
        Box::pin(async {})
    }

    fn hush(&self) -> bool {
        false
    }

    fn attend(&self) {}

    fn ping(&self) -> Later<'_, Result<Duration, Failure>> {
        Box::pin(async {
            if !self.answers.load(SeqCst) {
                self.until_dead().await;
            }
            let rtt = Duration::from_millis(20);
            tokio::time::sleep(rtt).await;
            Ok(rtt)
        })
    }

    fn closed(&self) -> Later<'_, Failure> {
        Box::pin(async {
            self.until_dead().await;
            Failure::new(Cause::LinkLost, "the session ended")
        })
    }

    /// Of a network that is for documents alone.
    fn near(&self) -> Option<IpAddr> {
        Some(Ipv4Addr::new(192, 0, 2, 7).into())
    }

    fn is_closed(&self) -> bool {
        self.dead.load(SeqCst)
    }

    fn is_parked(&self) -> bool {
        false
    }

    fn close(&self) -> Later<'_, ()> {
        Box::pin(async { self.kill() })
    }

    fn kill(&self) {
        self.die();
    }

    fn heard(&self) -> u64 {
        0
    }

    fn is_stalled(&self) -> bool {
        false
    }

    fn facts(&self) -> Facts {
        Facts { host_key: Some("SHA256:key".to_owned()), needs_person: false }
    }

    fn run<'a>(&'a self, _: &'a str, _: usize) -> Later<'a, Result<Printed, Failure>> {
        Box::pin(async { Ok(Printed { status: 1, output: Vec::new() }) })
    }
}

/// Says what a gateway says first.
async fn be_gateway(stream: impl AsyncRead + AsyncWrite + Send + Unpin) {
    let mut socket = accept_async(stream).await.unwrap();
    let challenge =
        r#"{"type":"event","event":"connect.challenge","payload":{"nonce":"n","ts":1}}"#;
    socket.send(Word::text(challenge)).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
}

type Answer = oneshot::Sender<Result<Arc<dyn Link>, Failure>>;

/// Hands each dial to the test.
struct Dials(mpsc::Sender<Answer>);

impl Dial for Dials {
    fn dial<'a>(
        &'a self,
        _: &'a (dyn Fn(Progress) + Send + Sync),
        _: &'a AtomicBool,
    ) -> Later<'a, Result<Arc<dyn Link>, Failure>> {
        Box::pin(async {
            let (answer, answered) = oneshot::channel();
            self.0.send(answer).await.unwrap();
            answered.await.unwrap()
        })
    }
}

/// Writes a history that nobody reads.
pub(super) fn scribe() -> Scribe {
    Scribe::new(Arc::new(Book::unwritten()), "vps")
}

/// A lane, and the ends that it dials and opens.
pub(super) struct Bench {
    pub(super) lane: Lane,
    pub(super) dials: mpsc::Receiver<Answer>,
    opened: mpsc::Receiver<DuplexStream>,
    opens: mpsc::Sender<DuplexStream>,
    tls: Option<TlsAcceptor>,
}

impl Bench {
    pub(super) async fn new() -> Self {
        Self::over(Purpose::Forward(Destination::loopback(18789)), None).await
    }

    /// A lane to a gateway that speaks TLS, with its certificate pinned.
    pub(super) async fn pinned() -> Self {
        let (pin, tls) = far_with_tls();
        let purpose = Purpose::Gateway(Destination::loopback(18789), Some(pin));
        Self::over(purpose, Some(tls)).await
    }

    async fn over(purpose: Purpose, tls: Option<TlsAcceptor>) -> Self {
        let (dial, dials) = mpsc::channel(8);
        let (opens, opened) = mpsc::channel(8);
        let options = Options { proof: ProofKind::Gateway, alive: None, seed: 1 };
        let limits = Limits::default();
        let (span, dialer) = (tracing::Span::none(), Arc::new(Dials(dial)));
        let lane = Lane::start(span, options, purpose, &limits, dialer, scribe());
        lane.tell(Command::Wish(Wish::Up)).await;
        Self { lane, dials, opened, opens, tls }
    }

    /// Answers the next dial with a session.
    pub(super) async fn session(&mut self) -> Arc<Script> {
        let answer = timeout(LONG, self.dials.recv()).await.unwrap().unwrap();
        let script = Arc::new(Script {
            opened: self.opens.clone(),
            opens: AtomicBool::new(true),
            refuses: AtomicBool::new(false),
            answers: AtomicBool::new(true),
            dead: AtomicBool::new(false),
            death: Notify::new(),
            proofs: Mutex::new(0),
            tls: self.tls.clone(),
        });
        assert!(answer.send(Ok(script.clone() as Arc<dyn Link>)).is_ok());
        script
    }

    pub(super) async fn phase(&mut self, phase: Phase) {
        let reached = self.lane.state.wait_for(|state| state.phase == phase);
        timeout(LONG, reached).await.expect("the phase is reached").unwrap();
    }

    /// A command's connection, waiting as long as `patience`.
    pub(super) async fn command(&self, patience: Duration) -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        let incoming = Incoming::new(Local::Command(far), clock() + patience);
        self.lane.tell(Command::Open(incoming)).await;
        near
    }

    /// The far end of the next stream that is opened.
    pub(super) async fn far(&mut self) -> DuplexStream {
        timeout(LONG, self.opened.recv()).await.unwrap().unwrap()
    }
}

/// Waits until the lane says that the stream is open.
pub(super) async fn opened(stream: &mut UnixStream) {
    let reply = timeout(LONG, control::read::<Reply>(stream)).await.unwrap().unwrap();
    assert!(matches!(reply, Reply::Opened(_)), "{reply:?}");
}
