//! One client, from the challenge to the close, over any WebSocket.
//!
//! Two futures in one task: one reads and decides, one writes what the outbox holds. Neither is
//! ever raced against the other's half-done work.

use std::{
    pin::pin,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, Either},
    stream::{FuturesUnordered, SplitSink, SplitStream},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    runtime::{Handle, RuntimeFlavor},
    task::{
        block_in_place,
        coop::{consume_budget, unconstrained},
        yield_now,
    },
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message, error::ProtocolError},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::{
    Shared, VERSION as GATEWAY_VERSION,
    admission::{self, PeerInfo, Refusal},
    caller::Caller,
    clock::now_ms,
    dispatch::Call,
    gate::GateKey,
    hub::{Member, Membership},
    methods::voicewake::first_words,
    nodes::{Arriving, Seat},
    outbox::{Ending, Outbox},
    pairing::{Admission, about, admit},
    said::word,
    setup::Handoff,
    slots::Slot,
    tally::{Malformed, TurnedAway},
    throttle::{Culprit, Verdict, With},
};
use crate::protocol::{
    self, Asked, Challenge, Connect, ErrorShape, Features, Flawed, Frame, Granted, HelloOk,
    PresenceEntry, Request, Response, Role, Server, Snapshot, WakeRoutingReply, close, event, rows,
    success_text,
};

/// Requests of one client that may be under way.
const MAX_IN_FLIGHT: usize = 128;
/// How long a client that is not answered should wait, milliseconds.
const BUSY_RETRY_MS: u64 = 250;
/// Messages of one client that are taken up in a row where they are there.
const BURST: usize = 32;
/// Bytes of a message from which on it takes longer than a turn.
const LARGE: usize = 256 * 1024;
/// How long after its ping a pong may come.
const PONG_WINDOW: Duration = Duration::from_secs(25);
/// How long requests under way may take once the gateway stops.
const DRAIN: Duration = Duration::from_secs(3);
/// How long the farewell may take: what is queued, the close frame and its answer.
const FAREWELL: Duration = Duration::from_secs(2);

/// How many bytes more are read of a client that was never let in, so that it hears why.
const UNHEARD: usize = 64 * 1024;

/// What a connection was given by the door.
pub(super) struct Entrance {
    pub(super) peer: PeerInfo,
    pub(super) slot: Arc<Slot>,
    /// Lifts the limit on unauthenticated bytes.
    pub(super) gate: GateKey,
    /// Until when `connect` must have come.
    pub(super) deadline: Instant,
}

/// Serves one client until it goes, is sent away, or the gateway stops.
pub(super) async fn serve<S>(
    shared: Arc<Shared>,
    socket: WebSocketStream<S>,
    entrance: Entrance,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut stream) = socket.split();
    let limit = shared.policy.max_buffered_bytes as usize;
    let outbox = Arc::new(Outbox::new(limit, Arc::clone(&shared.tally)));
    // Whoever is heard out still has his place: else there were more of them than places.
    let (gate, _slot) = (entrance.gate.clone(), Arc::clone(&entrance.slot));
    let since = {
        let id = uuid::Uuid::new_v4().to_string();
        let conversation =
            Conversation { id, shared, outbox: Arc::clone(&outbox), stream: &mut stream, stop };
        // The reader may use the turn's budget up, and whoever asks without end is answered all the same.
        let mut writer = pin!(unconstrained(outbox.write_to(&mut sink)));
        let mut reader = pin!(conversation.run(entrance));
        // What is heard is answered in the same turn.
        tokio::select! {
            biased;
            ending = &mut reader => {
                outbox.end(ending);
                let since = Instant::now();
                let sent = timeout(FAREWELL, writer).await.is_ok();
                tracing::trace!(sent, "the last word");
                since
            }
            () = &mut writer => Instant::now(),
        }
    };
    if outbox.ending().is_some_and(|ending| ending.code.is_some()) {
        let heard = timeout_at(since + FAREWELL, hear_out(sink, stream, &gate)).await.is_ok();
        tracing::trace!(heard, "heard out");
    }
    tracing::debug!("disconnected");
}

/// Hears a client out that was told why it is sent away. Whatever of it is unread when the socket
/// goes would tear the connection down, and take those last words with it.
async fn hear_out<S>(
    sink: SplitSink<WebSocketStream<S>, Message>,
    mut stream: SplitStream<WebSocketStream<S>>,
    gate: &GateKey,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Its own close frame ends the connection politely; its other frames no longer count.
    while let Some(Ok(message)) = stream.next().await {
        if message.is_close() {
            return;
        }
    }
    // What follows a frame that was none is not looked at.
    gate.grant(UNHEARD);
    let Ok(socket) = stream.reunite(sink) else { return };
    let mut socket = socket.into_inner();
    let read = async {
        socket.shutdown().await?;
        tokio::io::copy(&mut socket, &mut tokio::io::sink()).await
    };
    let left = read.await;
    tracing::trace!(bytes = left.ok(), "not looked at");
}

/// The reading side.
struct Conversation<'a, S> {
    /// Of the connection, as the client and the log are told it.
    id: String,
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    stream: &'a mut SplitStream<WebSocketStream<S>>,
    stop: CancellationToken,
}

/// What happened to a client that has been let in.
enum News {
    Message(Option<Result<Message, Error>>),
    Answer(String),
    Tick,
    PongDue,
    Stop,
}

impl<S> Conversation<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Returns how the connection ends.
    async fn run(mut self, entrance: Entrance) -> Ending {
        match self.handshake(entrance).await {
            Ok(welcome) => self.attend(welcome).await,
            Err(ending) => ending,
        }
    }

    async fn handshake(&mut self, entrance: Entrance) -> Result<Welcome, Ending> {
        let nonce = uuid::Uuid::new_v4().to_string();
        let challenge = Challenge { nonce: nonce.clone(), ts: now_ms() };
        self.outbox.challenge(json!(challenge));
        let stop = self.stop.clone();
        let first = tokio::select! {
            first = timeout_at(entrance.deadline, self.first_request()) => first,
            () = stop.cancelled() => {
                return Err(Ending::close(close::RESTART, "service restart"));
            }
        };
        let request = first.map_err(|_| {
            tracing::debug!("no connect in time");
            self.shared.tally.turned_away(TurnedAway::TooLate);
            Ending::close(close::NORMAL, "handshake timeout")
        })??;
        let connect = match parse_connect(&request) {
            Ok(connect) => connect,
            Err(refusal) => {
                let address = entrance.peer.address.to_canonical();
                // Why in so many words holds what it sent, which may be a secret in a wrong place.
                tracing::info!(%address, reason = "invalid connect", connection = self.id, "refused a client");
                self.shared.tally.malformed(Malformed::Connect);
                return Err(self.refuse(&request.id, refusal));
            }
        };
        match admit(&self.shared, &connect, &entrance.peer, &nonce, now_ms()).await {
            Ok(admission) => {
                let arriving = self.arriving(&connect, &admission, &entrance.peer).await;
                let arriving =
                    arriving.map_err(|error| self.refuse(&request.id, Refusal::new(error)))?;
                Ok(self.welcome(&request.id, &connect, admission, entrance, arriving).await)
            }
            Err(refusal) => {
                let refusal = self.slowed(&connect, refusal, &entrance.peer).await;
                self.log(&connect, &refusal, &entrance.peer);
                Err(self.refuse(&request.id, refusal))
            }
        }
    }

    /// What a node declares is compared with what is approved before it hears that it is in.
    async fn arriving(
        &self,
        connect: &Connect,
        admission: &Admission,
        peer: &PeerInfo,
    ) -> Result<Option<Arriving>, Box<ErrorShape>> {
        let Some(device) = admission.device_id.as_deref().filter(|_| admission.role == Role::Node)
        else {
            return Ok(None);
        };
        let remote_ip = (!peer.is_direct_loopback()).then(|| peer.address.to_string());
        let Shared { nodes, hub, store, withdrawals, .. } = &*self.shared;
        let arriving = nodes.arrived(hub, device, connect, remote_ip).await?;
        if withdrawals.load(Ordering::SeqCst) == admission.withdrawals {
            return Ok(Some(arriving));
        }
        // Some right was taken away meanwhile. If it was this one, nothing of the node may stay.
        let paired = store.devices().find(device).await;
        let paired = paired.map_err(|error| ErrorShape::unavailable(error.to_string(), 500))?;
        let grant = paired.as_ref().and_then(|paired| paired.grant(Role::Node));
        if grant.is_none_or(|grant| grant.revoked_at.is_some()) {
            nodes.forget(hub, device).await?;
        }
        Err(ErrorShape::unavailable("pairing changed; connect again", 500).into())
    }

    async fn first_request(&mut self) -> Result<Request, Ending> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    return first_request(&text).ok_or_else(|| {
                        self.shared.tally.malformed(Malformed::Frame);
                        Ending::close(close::POLICY, "invalid request frame")
                    });
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Binary(_) | Message::Frame(_))) => {
                    self.shared.tally.malformed(Malformed::Binary);
                    return Err(Ending::close(close::POLICY, "invalid request frame"));
                }
                Some(Ok(Message::Close(_))) | None => return Err(Ending::silent()),
                Some(Err(error)) => return Err(self.broken(&error)),
            }
        }
    }

    /// Queues the refusal and says how the connection ends.
    fn refuse(&self, id: &str, refusal: Refusal) -> Ending {
        self.shared.tally.refused(&refusal.error);
        let ending = Ending::close(refusal.close, refusal.error.message.clone());
        self.outbox.response(Response::failure(id, refusal.error));
        ending
    }

    /// Says who was refused. What it says of itself is proved by nothing yet.
    fn log(&self, connect: &Connect, refusal: &Refusal, peer: &PeerInfo) {
        let details = refusal.error.details.as_ref();
        let code = details.and_then(|details| details.get("code")?.as_str());
        tracing::info!(
            reason = refusal.error.message,
            code,
            address = %peer.address.to_canonical(),
            forwarded = peer.is_forwarded,
            origin = peer.origin.as_deref().map(word),
            device = connect.device.as_ref().map(|device| word(&device.id)),
            client = word(&connect.client.id),
            mode = word(&connect.client.mode),
            role = connect.role.as_deref().map(word),
            connection = self.id,
            "refused a client"
        );
    }

    /// How the connection ends after bytes that made no sense or stopped coming.
    fn broken(&self, error: &Error) -> Ending {
        let Some((kind, ending)) = flaw(error) else {
            tracing::debug!(%error, "the connection broke");
            return Ending::silent();
        };
        self.shared.tally.malformed(kind);
        ending
    }

    /// Holds back the answer to a wrong secret that looks like guessing.
    async fn slowed(&self, connect: &Connect, refusal: Refusal, peer: &PeerInfo) -> Refusal {
        let culprit = refusal.culprit.clone();
        let culprit = culprit.unwrap_or_else(|| Culprit::at(peer, With::Shared));
        let verdicts = refusal
            .wrong
            .iter()
            .map(|wrong| self.shared.failed(&culprit.trying(wrong.with()), wrong.text(connect)));
        match verdicts.max() {
            None | Some(Verdict::Answer) => refusal,
            Some(Verdict::Shut(time)) => {
                tracing::warn!(seconds = time.as_secs(), "too many wrong secrets; shut out");
                admission::rate_limited(time)
            }
            Some(Verdict::Slow(delay)) => {
                tokio::select! {
                    () = sleep(delay) => {}
                    () = self.stop.cancelled() => {}
                }
                admission::rate_limited(delay)
            }
        }
    }

    /// Makes the client a member and queues `hello-ok`.
    async fn welcome(
        &self,
        id: &str,
        connect: &Connect,
        admission: Admission,
        entrance: Entrance,
        arriving: Option<Arriving>,
    ) -> Welcome {
        let Entrance { slot, gate, peer, .. } = entrance;
        slot.admitted();
        gate.lift();
        let shared = &self.shared;
        shared.tally.admitted();
        let connection = self.id.clone();
        let now = now_ms();
        let member = Member {
            role: admission.role,
            device_id: admission.device_id.clone(),
            scopes: admission.scopes.clone(),
            by_secret: !admission.by_device_token,
            shows_approvals: protocol::shows_approvals(connect),
            outbox: Arc::clone(&self.outbox),
            presence: presence(connect, &admission, now),
        };
        tracing::debug!(
            client = connect.client.id,
            mode = connect.client.mode,
            connection,
            "connected"
        );
        let issued = admission.device_token.as_ref();
        let membership = shared.hub.join(member, now, |presence, state_version| {
            let hello = HelloOk {
                protocol: protocol::VERSION,
                server: Server {
                    version: GATEWAY_VERSION.to_owned(),
                    conn_id: connection.clone(),
                    boot_id: Some(shared.boot_id.clone()),
                },
                features: Features {
                    methods: rows().map(|row| row.name.to_owned()).collect(),
                    events: event::EVENTS.iter().map(|kind| kind.name.to_owned()).collect(),
                    capabilities: Vec::new(),
                },
                snapshot: Snapshot {
                    presence,
                    health: shared.summary.owned(shared, now),
                    state_version,
                    uptime_ms: shared.uptime_ms(),
                    session_defaults: Some(shared.summary.nameless()),
                },
                auth: Granted {
                    role: admission.role.to_string(),
                    scopes: admission.scopes.iter().map(ToString::to_string).collect(),
                    device_token: issued.map(|issued| issued.token.clone()),
                    issued_at_ms: issued.map(|issued| issued.at),
                    device_tokens: admission.others.clone(),
                },
                policy: shared.policy,
            };
            match serde_json::to_string(&hello) {
                Ok(hello) => self.outbox.text(success_text(id, &hello)),
                Err(error) => tracing::error!(%error, "hello-ok cannot be written"),
            }
        });
        let seat = match arriving {
            Some(arriving) => {
                shared.nodes.seat(arriving, membership.number(), Arc::clone(&self.outbox)).await
            }
            None => None,
        };
        // A right that was taken away after the store was asked, and before there was a member to cut.
        let withdrawals = shared.withdrawals.load(Ordering::SeqCst);
        if withdrawals != admission.withdrawals {
            self.outbox
                .end(Ending::close(close::RESTART, "what lets you in changed; connect again"));
        }
        let caller = Caller {
            connection,
            member: membership.number(),
            role: admission.role,
            client: connect.client.clone(),
            about: about(connect, &peer),
            device_id: admission.device_id,
            by_device_token: admission.by_device_token,
            scopes: admission.scopes,
            farewell: OnceLock::new(),
            receipts: Arc::default(),
        };
        let handoff = Handoff::begin(shared, admission.setup);
        if handoff.is_some() {
            // Its tokens matter: a ping goes out behind them, whose pong says that they are there.
            caller.receipts.give();
            if caller.receipts.is_due() {
                self.outbox.ping(caller.receipts.in_ping());
            }
        }
        Welcome {
            call: Call { shared: Arc::clone(shared), caller: Arc::new(caller) },
            handoff,
            _membership: membership,
            _seat: seat,
        }
    }

    /// Tells a node which words wake it, and where they lead.
    async fn tell_wake_words(&self) {
        if let Some(words) = first_words(&self.shared).await {
            self.outbox.event(event::VOICEWAKE_CHANGED, &json!(words).to_string(), None);
        }
        let routing = json!(WakeRoutingReply::default()).to_string();
        self.outbox.event(event::VOICEWAKE_ROUTING_CHANGED, &routing, None);
    }

    /// Answers requests, ticks and pings until something ends it.
    async fn attend(&mut self, welcome: Welcome) -> Ending {
        if welcome.call.caller.role == Role::Node {
            self.tell_wake_words().await;
        }
        let every = Duration::from_millis(self.shared.policy.tick_interval_ms);
        let mut answers: FuturesUnordered<BoxFuture<'static, String>> = FuturesUnordered::new();
        let stop = self.stop.clone();
        let mut stop = pin!(stop.cancelled());
        let mut tick = pin!(sleep(every));
        let mut pong: Option<Instant> = None;
        loop {
            let news = tokio::select! {
                message = self.stream.next() => News::Message(message),
                Some(answer) = answers.next() => News::Answer(answer),
                () = &mut tick => News::Tick,
                () = sleep_until(pong.unwrap_or_else(Instant::now)), if pong.is_some() => News::PongDue,
                () = &mut stop => News::Stop,
            };
            // Who was sent away is heard no more, however slowly it takes what was queued before.
            if let Some(ending) = self.outbox.ending() {
                return ending;
            }
            match news {
                News::Message(message) => {
                    if let Some(ending) =
                        self.hear(message, &welcome, &mut answers, &mut pong).await
                    {
                        return ending;
                    }
                }
                News::Answer(answer) => self.answered(answer, &welcome.call),
                News::Tick => {
                    let next = tick.deadline() + every;
                    tick.as_mut().reset(next);
                    let tick = json!(event::Tick { ts: now_ms() }).to_string();
                    self.outbox.event(event::TICK, &tick, None);
                    if pong.is_none() {
                        self.outbox.ping(welcome.call.caller.receipts.in_ping());
                        pong = Some(Instant::now() + PONG_WINDOW);
                    }
                }
                // The window counts from the moment the ping went out, which a slow reader delays.
                News::PongDue => match self.outbox.pinged() {
                    Some(sent) if sent + PONG_WINDOW <= Instant::now() => {
                        tracing::debug!("no pong");
                        return Ending::close(close::POLICY, "pong timeout");
                    }
                    Some(sent) => pong = Some(sent + PONG_WINDOW),
                    None => pong = Some(Instant::now() + PONG_WINDOW),
                },
                News::Stop => return self.drain(answers).await,
            }
            if let Some(ending) = self.outbox.ending() {
                return ending;
            }
        }
    }

    /// A message, and those that came with it, up to a whole burst; then it is others' turn.
    async fn hear(
        &mut self,
        mut message: Option<Result<Message, Error>>,
        welcome: &Welcome,
        answers: &mut FuturesUnordered<BoxFuture<'static, String>>,
        pong: &mut Option<Instant>,
    ) -> Option<Ending> {
        let mut heard = 0;
        loop {
            let said = match message {
                Some(Ok(said)) => said,
                Some(Err(error)) => return Some(self.broken(&error)),
                None => return Some(Ending::silent()),
            };
            if let Message::Pong(said) = &said {
                *pong = None;
                self.arrived(said, welcome);
            }
            let ending = self.received(said, &welcome.call, answers);
            if let Some(ending) = ending.or_else(|| self.outbox.ending()) {
                return Some(ending);
            }
            consume_budget().await;
            heard += 1;
            if heard == BURST {
                yield_now().await;
                return None;
            }
            message = self.stream.next().now_or_never()?;
        }
    }

    /// One message of a client that has been let in.
    fn received(
        &self,
        message: Message,
        call: &Call,
        answers: &mut FuturesUnordered<BoxFuture<'static, String>>,
    ) -> Option<Ending> {
        let text = match message {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return None,
            Message::Binary(_) => {
                self.shared.tally.malformed(Malformed::Binary);
                return Some(Ending::close(close::POLICY, "invalid request frame"));
            }
            Message::Close(_) => return Some(Ending::silent()),
        };
        let asked = match aside(text.len(), || asked(&text)) {
            Ok(asked) => asked,
            Err(answer) => {
                self.shared.tally.malformed(Malformed::Frame);
                self.outbox.response(answer);
                return None;
            }
        };
        if answers.len() >= MAX_IN_FLIGHT {
            let error = ErrorShape::unavailable("too many requests under way", BUSY_RETRY_MS);
            let method = self.shared.dispatcher.known(&asked.method);
            self.shared.tally.failed(method, &error, Duration::ZERO);
            self.outbox.response(Response::failure(asked.id, error));
            return None;
        }
        // Most methods answer at once and never take a place among those under way.
        match aside(text.len(), || self.shared.dispatcher.answer(call, asked)) {
            Either::Left(there) => self.answered(there.into_inner(), call),
            Either::Right(under_way) => answers.push(under_way),
        }
        None
    }

    /// A pong: whatever tokens and work were given to a node before its ping are the node's now.
    fn arrived(&self, pong: &[u8], welcome: &Welcome) {
        let Call { shared, caller } = &welcome.call;
        let Some(arrived) = caller.receipts.hear(pong) else { return };
        if let Some(handoff) = &welcome.handoff {
            handoff.arrived();
        }
        let Some(node) = caller.device_id.clone() else { return };
        let (own, member) = (Arc::clone(shared), caller.member);
        let forget = async move { own.nodes.has_arrived(&node, member, arrived).await };
        shared.finishing.spawn(forget.in_current_span());
    }

    /// Queues an answer, a ping behind it where its arrival matters, and the end where that was the
    /// last.
    fn answered(&self, text: String, call: &Call) {
        self.outbox.text(text);
        let receipts = &call.caller.receipts;
        if receipts.is_due() {
            self.outbox.ping(receipts.in_ping());
        }
        if let Some(ending) = call.caller.farewell.get() {
            self.outbox.end(ending.clone());
        }
    }

    /// Says that the gateway goes and waits a moment for what is under way.
    async fn drain(&self, mut answers: FuturesUnordered<BoxFuture<'static, String>>) -> Ending {
        let shutdown =
            event::Shutdown { reason: "gateway stopping".to_owned(), restart_expected_ms: None };
        self.outbox.event(event::SHUTDOWN, &json!(shutdown).to_string(), None);
        let rest = async {
            while let Some(answer) = answers.next().await {
                self.outbox.text(answer);
            }
        };
        if timeout(DRAIN, rest).await.is_err() {
            tracing::warn!("gave up requests under way");
        }
        Ending::close(close::RESTART, "service restart")
    }
}

/// Does what takes a while with a message of so many bytes; meanwhile others are served elsewhere.
fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let is_served_elsewhere = || Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    if bytes > LARGE && is_served_elsewhere() { block_in_place(work) } else { work() }
}

/// What a client holds once it is in.
struct Welcome {
    call: Call,
    handoff: Option<Handoff>,
    _membership: Membership,
    _seat: Option<Seat>,
}

/// The first text of a client as a request, if it is one.
pub(super) fn first_request(text: &str) -> Option<Request> {
    match serde_json::from_str(text) {
        Ok(Frame::Request(request)) => {
            Some(request).filter(|it| !it.id.is_empty() && !it.method.is_empty())
        }
        Ok(Frame::Response(_) | Frame::Event(_)) | Err(_) => None,
    }
}

/// Any later text as a request, or the answer to what is none.
pub(super) fn asked(text: &str) -> Result<Asked<'_>, Response> {
    match Asked::read(text) {
        Some(asked) if !asked.id.is_empty() && !asked.method.is_empty() => Ok(asked),
        Some(_) | None => {
            let Flawed { id, why } = Flawed::read(text);
            let error = ErrorShape::invalid(format!("invalid request frame: {why}"));
            Err(Response::failure(id, error))
        }
    }
}

/// What a first request says of its client.
pub(super) fn parse_connect(request: &Request) -> Result<Connect, Refusal> {
    if request.method != "connect" {
        let error = ErrorShape::invalid("invalid handshake: first request must be connect");
        return Err(Refusal::new(error));
    }
    let params = request.params.clone().unwrap_or_else(|| json!({}));
    serde_path_to_error::deserialize(params).map_err(|error| {
        Refusal::new(ErrorShape::invalid(format!("invalid connect params: {error}")))
    })
}

/// What bytes that made no sense were, and how the connection ends; neither of a connection that
/// only stopped.
fn flaw(error: &Error) -> Option<(Malformed, Ending)> {
    if matches!(error, Error::Capacity(_)) {
        let ending = Ending::close(close::TOO_LARGE, "message too large");
        return Some((Malformed::TooLarge, ending));
    }
    if matches!(error, Error::Utf8(_)) {
        return Some((Malformed::Utf8, Ending::close(close::NOT_TEXT, "text is not UTF-8")));
    }
    if matches!(error, Error::Protocol(error) if *error != ProtocolError::ResetWithoutClosingHandshake)
    {
        return Some((Malformed::Protocol, Ending::close(close::PROTOCOL, "protocol error")));
    }
    if let Error::Io(error) = error
        && error.kind() == std::io::ErrorKind::QuotaExceeded
    {
        let ending = Ending::close(close::TOO_LARGE, "too many bytes before authentication");
        return Some((Malformed::TooMuch, ending));
    }
    None
}

/// The line of presence of a client that stays; commands and probes come and go unseen.
fn presence(connect: &Connect, admission: &Admission, now_ms: u64) -> Option<PresenceEntry> {
    let client = &connect.client;
    if matches!(client.mode.as_str(), "cli" | "probe" | "backend") {
        return None;
    }
    let name = client.display_name.clone().unwrap_or_else(|| client.id.clone());
    Some(PresenceEntry {
        text: Some(format!("{name} · {} {} · {}", client.id, client.version, client.mode)),
        host: Some(name),
        version: Some(client.version.clone()),
        platform: Some(client.platform.clone()),
        device_family: client.device_family.clone(),
        model_identifier: client.model_identifier.clone(),
        time_zone: client.time_zone.clone(),
        mode: Some(client.mode.clone()),
        reason: Some("connect".to_owned()),
        ts: now_ms,
        device_id: admission.device_id.clone(),
        roles: vec![admission.role.to_string()],
        scopes: admission.scopes.iter().map(ToString::to_string).collect(),
        instance_id: client.instance_id.clone(),
        ip: None,
        last_input_seconds: None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn others_are_served_while_a_large_message_is_looked_at() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        let runtime = runtime.unwrap();
        let others_are_served = |bytes, limit| {
            let (served, is_served) = channel();
            let look = async move {
                tokio::spawn(async move { served.send(()) });
                aside(bytes, || is_served.recv_timeout(limit).is_ok())
            };
            runtime.block_on(runtime.spawn(look)).unwrap()
        };
        // The one thread looks at it itself.
        assert!(!others_are_served(LARGE, Duration::from_millis(50)));
        assert!(others_are_served(LARGE + 1, Duration::from_secs(20)));
    }
}
