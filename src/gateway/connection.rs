//! One client, from the challenge to the close, over any WebSocket.
//!
//! Two futures in one task: one reads and decides, one writes what the outbox holds. Neither is
//! ever raced against the other's half-done work.

mod attend;
pub(super) mod texts;

use std::{
    pin::pin,
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use futures_util::{
    StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    task::coop::unconstrained,
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Error, Message},
};
use tokio_util::sync::CancellationToken;

use texts::{first_request, flaw, parse_connect};

use super::{
    Shared, VERSION as GATEWAY_VERSION,
    admission::{self, PeerInfo, Refusal},
    beacons::cut,
    caller::Caller,
    clock::now_ms,
    dispatch::Call,
    gate::GateKey,
    hub::{Member, Membership},
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
    self, Challenge, Connect, ErrorShape, Features, Granted, HelloOk, PresenceEntry, Request,
    Response, Role, Scope, Server, Snapshot, close, event, rows, success_text,
};

/// How long the farewell may take: what is queued, the close frame and its answer.
const FAREWELL: Duration = Duration::from_secs(2);
/// Connections of one device in one role.
const MOST_OF_DEVICE: usize = 128;
/// How long a device that has them all should wait, milliseconds.
const CROWDED_RETRY_MS: u64 = 5_000;
/// UTF-16 code units of one word of a line of presence.
const PRESENCE_WORD: usize = 128;
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
            Ok(admission) if self.is_crowded(&admission) => {
                tracing::warn!(device = admission.device_id, "too many connections of one device");
                let text = format!(
                    "this device has {MOST_OF_DEVICE} connections already; end some of them"
                );
                let error = ErrorShape::unavailable(text, CROWDED_RETRY_MS);
                Err(self.refuse(&request.id, Refusal::new(error)))
            }
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

    /// Whether its device has as many connections as one may: it must not take all places.
    fn is_crowded(&self, admission: &Admission) -> bool {
        let Some(device) = admission.device_id.as_deref() else { return false };
        self.shared.hub.connections_of(device, admission.role) >= MOST_OF_DEVICE
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
            connection: connection.clone(),
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
        let is_admin = admission.scopes.contains(&Scope::Admin);
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
                    applied_config_hash: shared.applied(),
                    auth_mode: is_admin.then(|| shared.live().guard.mode().to_owned()),
                    config_path: is_admin.then(|| shared.paths.config.display().to_string()),
                    state_dir: is_admin.then(|| shared.paths.state.display().to_string()),
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
}

/// What a client holds once it is in.
struct Welcome {
    call: Call,
    handoff: Option<Handoff>,
    _membership: Membership,
    _seat: Option<Seat>,
}

/// The line of presence of a client that stays; commands and probes come and go unseen.
fn presence(connect: &Connect, admission: &Admission, now_ms: u64) -> Option<PresenceEntry> {
    let client = &connect.client;
    if matches!(client.mode.as_str(), "cli" | "probe" | "backend") {
        return None;
    }
    // Everybody is told all lines at once, however long the words are that somebody calls itself.
    let short = |text: &String| cut(text, PRESENCE_WORD);
    let (version, mode) = (short(&client.version), short(&client.mode));
    let name = short(client.display_name.as_ref().unwrap_or(&client.id));
    Some(PresenceEntry {
        text: Some(format!("{name} · {} {version} · {mode}", short(&client.id))),
        host: Some(name),
        version: Some(version),
        platform: Some(short(&client.platform)),
        device_family: client.device_family.as_ref().map(short),
        model_identifier: client.model_identifier.as_ref().map(short),
        time_zone: client.time_zone.as_ref().map(short),
        mode: Some(mode),
        reason: Some("connect".to_owned()),
        ts: now_ms,
        device_id: admission.device_id.clone(),
        roles: vec![admission.role.to_string()],
        scopes: admission.scopes.iter().map(ToString::to_string).collect(),
        instance_id: client.instance_id.as_ref().map(short),
        ip: None,
        last_input_seconds: None,
    })
}
