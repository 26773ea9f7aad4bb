//! HTTP on the gateway's port: health for machines, a line for people, and the way to the WebSocket.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderValue},
    server::conn::http1,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, sleep, timeout, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        handshake::derive_accept_key,
        protocol::{Role, WebSocketConfig},
    },
};
use tokio_util::sync::CancellationToken;

use super::{
    Shared, VERSION,
    admission::PeerInfo,
    connection::{self, Entrance},
    doors::{self, Turned},
    gate::Gate,
    ingress::{self, Door},
    joining,
    said::word,
    scrape,
    settings::is_own_address,
    slots::{self, Slot},
    tally::{Malformed, TurnedAway},
    throttle::{Culprit, Verdict, With},
};
use crate::protocol::SetupPayload;

/// The largest request head.
const MAX_HEAD: usize = 16 * 1024;
/// Bytes that a client may send before it is authenticated.
const MAX_UNAUTHENTICATED: usize = 64 * 1024;
/// How long an answered request may take to leave once the gateway stops.
const FAREWELL: Duration = Duration::from_secs(1);
/// What a WebSocket sets aside for reading; each of a thousand idle clients has one.
const BUFFER: usize = 4 * 1024;
/// What a WebSocket collects before it writes; taken only while there is so much to say.
const BATCH: usize = 32 * 1024;

type Reply = Response<Full<Bytes>>;

/// A request to become a WebSocket that has been granted.
struct Upgrade {
    socket: OnUpgrade,
    /// Who asked, as this request showed it.
    peer: PeerInfo,
}

/// Serves one stream until its client goes or the gateway stops.
pub(super) async fn serve<S>(
    shared: Arc<Shared>,
    stream: S,
    peer: PeerInfo,
    slot: Slot,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let deadline = slot.since() + slots::WINDOW;
    let Some(upgrade) = requests(&shared, TokioIo::new(stream), (&peer, deadline), &stop).await
    else {
        return;
    };
    let Ok(Ok(upgraded)) = timeout_at(deadline, upgrade.socket).await else { return };
    let Ok(parts) = upgraded.downcast::<TokioIo<S>>() else { return };
    let (gated, gate) = Gate::new(parts.io.into_inner(), MAX_UNAUTHENTICATED);
    let max = usize::try_from(shared.policy.max_payload).ok();
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(BATCH)
        .max_message_size(max)
        .max_frame_size(max);
    let read = parts.read_buf.to_vec();
    let socket =
        WebSocketStream::from_partially_read(gated, read, Role::Server, Some(config)).await;
    let entrance = Entrance { peer: upgrade.peer, slot, gate, deadline };
    connection::serve(shared, socket, entrance, stop).await;
}

/// Answers plain requests; returns when the client goes, or wants a WebSocket and may have it.
async fn requests<S>(
    shared: &Arc<Shared>,
    stream: TokioIo<S>,
    (peer, deadline): (&PeerInfo, Instant),
    stop: &CancellationToken,
) -> Option<Upgrade>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let granted = Arc::new(Mutex::new(None));
    let service = service_fn(|request: Request<Incoming>| {
        let reply = answer(shared, request, peer, &granted);
        async { Ok::<_, Infallible>(reply.await) }
    });
    let mut http = http1::Builder::new();
    // The first head must come before the deadline, each other one in as much time.
    let head = deadline.saturating_duration_since(Instant::now());
    http.timer(TokioTimer::new()).header_read_timeout(head).max_buf_size(MAX_HEAD);
    let served = http.serve_connection(stream, service).with_upgrades();
    let mut served = std::pin::pin!(served);
    let outcome = tokio::select! {
        outcome = &mut served => outcome,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            timeout(FAREWELL, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "HTTP ended");
        if error.is_timeout() {
            shared.tally.turned_away(TurnedAway::TooLate);
        } else if error.is_parse() {
            shared.tally.malformed(Malformed::Http);
        }
    }
    granted.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// One request; bodies are never read, so nothing that carries one is answered with success.
async fn answer(
    shared: &Shared,
    mut request: Request<Incoming>,
    peer: &PeerInfo,
    granted: &Mutex<Option<Upgrade>>,
) -> Reply {
    let headers = request.headers();
    let served_as = shared.served_as.get().filter(|_| peer.door != Door::Ordinary);
    let live = shared.live();
    let allowed = live.allowed_origins.iter().chain(served_as);
    let checked = doors::check(headers, peer.local, allowed);
    if let Err(turned) = checked {
        let said =
            |name| headers.get(name).map(|value| word(&String::from_utf8_lossy(value.as_bytes())));
        tracing::info!(
            reason = turned_word(turned),
            address = %peer.address.to_canonical(),
            host = said(header::HOST),
            origin = said(header::ORIGIN),
            "turned a request away"
        );
        shared.tally.turned_away(match turned {
            Turned::Host => TurnedAway::Host,
            Turned::Origin => TurnedAway::Origin,
        });
        // A page can read why its `connect` is refused, and nothing of what is refused before that.
        if turned == Turned::Host || !wants_websocket(headers) {
            return forbidden(turned);
        }
    }
    if wants_websocket(headers) {
        let Some(accept) = accept_key(headers) else {
            shared.tally.malformed(Malformed::Protocol);
            let mut reply = plain(StatusCode::UPGRADE_REQUIRED, "Upgrade Required\n");
            reply
                .headers_mut()
                .insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return reply;
        };
        let peer = ingress::arrival(&shared.ways, headers, peer, is_own_address);
        let peer = PeerInfo { is_foreign: checked.is_err(), ..peer };
        let socket = hyper::upgrade::on(&mut request);
        *granted.lock().unwrap_or_else(PoisonError::into_inner) = Some(Upgrade { socket, peer });
        return switching(accept);
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    match request.uri().path() {
        "/healthz" | "/health" | "/startupz" | "/startup" | "/readyz" | "/ready" | "/metrics"
        | "/"
            if !is_read =>
        {
            let mut reply = plain(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            reply.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            reply
        }
        "/healthz" | "/health" => value(StatusCode::OK, &json!({"ok": true, "status": "live"})),
        "/startupz" | "/startup" => {
            let peer = ingress::arrival(&shared.ways, headers, peer, is_own_address);
            started(shared, headers, &peer).await
        }
        "/readyz" | "/ready" => {
            let peer = ingress::arrival(&shared.ways, headers, peer, is_own_address);
            ready(shared, headers, &peer).await
        }
        "/metrics" => metrics(shared, request.headers()),
        "/" => plain(
            StatusCode::OK,
            "An OpenClaw gateway. Programs connect to this address with a WebSocket.\n",
        ),
        // A look at its head must not use a code up.
        path if request.method() == Method::GET && path.starts_with("/j/") => {
            let peer = ingress::arrival(&shared.ways, headers, peer, is_own_address);
            join(shared, &peer, path.trim_start_matches("/j/")).await
        }
        _ => plain(StatusCode::NOT_FOUND, "Not Found\n"),
    }
}

/// Whether the start is over: it is before anybody is heard.
async fn started(shared: &Shared, headers: &HeaderMap, peer: &PeerInfo) -> Reply {
    let (ok, status) = (true, "started");
    let body = if may_know(shared, headers, peer).await {
        let uptime = shared.uptime_ms();
        json!({"ok": ok, "status": status, "version": VERSION, "uptimeMs": uptime})
    } else {
        json!({"ok": ok, "status": status})
    };
    value(StatusCode::OK, &body)
}

/// Whether everything that the gateway needs is in order.
async fn ready(shared: &Shared, headers: &HeaderMap, peer: &PeerInfo) -> Reply {
    let failing: &[&str] = if shared.is_storing().await { &[] } else { &["state"] };
    let is_ready = failing.is_empty();
    let body = if may_know(shared, headers, peer).await {
        json!({"ready": is_ready, "failing": failing, "uptimeMs": shared.uptime_ms()})
    } else {
        json!({ "ready": is_ready })
    };
    let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    value(status, &body)
}

/// Whether a machine that asks may hear how long the gateway runs and what of it fails: whoever is on
/// this one, or shows the gateway's secret.
async fn may_know(shared: &Shared, headers: &HeaderMap, peer: &PeerInfo) -> bool {
    if peer.is_direct_loopback() {
        return true;
    }
    let live = shared.live();
    let (Some(secret), Some(shown)) = (live.guard.secret(), scrape::bearer(headers)) else {
        return false;
    };
    let culprit = Culprit::at(peer, With::Shared);
    if shared.shut_out(&culprit).is_some() {
        return false;
    }
    if secret.matches(shown) {
        return true;
    }
    // As at the login: whoever guesses waits.
    if let Verdict::Slow(delay) = shared.failed(&culprit, shown) {
        sleep(delay).await;
    }
    false
}

/// The metrics for whoever has their token, and for nobody else on whatever address he comes from.
fn metrics(shared: &Shared, headers: &HeaderMap) -> Reply {
    if !shared.scrapes.may_read(headers) {
        shared.tally.turned_away(TurnedAway::Scrape);
        let mut reply = plain(
            StatusCode::UNAUTHORIZED,
            "send the token in rs/metrics-token as `Authorization: Bearer TOKEN`\n",
        );
        let scheme = HeaderValue::from_static("Bearer realm=\"metrics\"");
        reply.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        return reply;
    }
    match shared.tally.exposition(shared.levels(), shared.scrapes.lost_lines()) {
        Ok(text) => reply(StatusCode::OK, scrape::KIND, text),
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            plain(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error\n")
        }
    }
}

/// The setup payload behind a join URL, for the first who fetches it.
async fn join(shared: &Shared, peer: &PeerInfo, name: &str) -> Reply {
    let now = super::clock::now_ms();
    let culprit = Culprit::at(peer, With::Code);
    if let Some(left) = shared.shut_out(&culprit) {
        return too_many(left);
    }
    let taken = match joining::name_digest(name) {
        Some(digest) => shared.store.devices().take_offer(digest, now).await,
        None => Ok(None),
    };
    match taken {
        Ok(Some((code, url))) => {
            tracing::info!("a join code was fetched");
            let bootstrap_token = shared.mint.setup_token(&code.id);
            let payload = SetupPayload { url, bootstrap_token, expires_at_ms: code.expires_at };
            return value(StatusCode::OK, &json!(payload));
        }
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(%error, "a join code could not be fetched");
            // Why is for the log: whoever asks here has shown nothing.
            let error = json!({"error": {"type": "unavailable", "message":
                "the join code cannot be looked up just now; try again in a minute"}});
            return value(StatusCode::SERVICE_UNAVAILABLE, &error);
        }
    }
    // The names hold 128 random bits, so guessing is hopeless; it is counted all the same.
    match shared.failed(&culprit, name) {
        Verdict::Answer => {}
        Verdict::Shut(left) => return too_many(left),
        // Each guess costs the store a look, so who may not be shut out waits, as at the login.
        Verdict::Slow(delay) => {
            sleep(delay).await;
            return too_many(delay);
        }
    }
    let error = json!({"error": {"type": "not_found", "message":
        "this join code is unknown, used or expired; make another with: openclaw devices join-code"}});
    value(StatusCode::NOT_FOUND, &error)
}

/// Too many wrong attempts; another one is heard after `left`.
fn too_many(left: Duration) -> Reply {
    let error = json!({"error": {"type": "rate_limited", "message": "too many failed attempts"}});
    let mut reply = value(StatusCode::TOO_MANY_REQUESTS, &error);
    let seconds = HeaderValue::from(left.as_secs().saturating_add(1));
    reply.headers_mut().insert(header::RETRY_AFTER, seconds);
    reply
}

fn wants_websocket(headers: &HeaderMap) -> bool {
    has_word(headers, header::CONNECTION, "upgrade")
        && has_word(headers, header::UPGRADE, "websocket")
}

/// The answer to the client's key; `None` for a handshake that is not RFC 6455's version 13.
fn accept_key(headers: &HeaderMap) -> Option<HeaderValue> {
    let version = headers.get(header::SEC_WEBSOCKET_VERSION)?;
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| version == "13")?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok()
}

fn has_word(headers: &HeaderMap, name: header::HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(word))
}

fn switching(accept: HeaderValue) -> Reply {
    let mut reply = Response::new(Full::default());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = reply.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    reply
}

fn turned_word(turned: Turned) -> &'static str {
    match turned {
        Turned::Host => "host_not_allowed",
        Turned::Origin => "origin_not_allowed",
    }
}

fn forbidden(turned: Turned) -> Reply {
    let message = match turned {
        Turned::Host => {
            "the Host header names neither loopback, nor this gateway's address, nor a configured origin"
        }
        Turned::Origin => {
            "this origin is not allowed; list it in gateway.controlUi.allowedOrigins if it should be"
        }
    };
    let error = json!({"error": {"type": turned_word(turned), "message": message}});
    value(StatusCode::FORBIDDEN, &error)
}

fn value(status: StatusCode, value: &serde_json::Value) -> Reply {
    reply(status, "application/json; charset=utf-8", value.to_string())
}

fn plain(status: StatusCode, text: &'static str) -> Reply {
    reply(status, "text/plain; charset=utf-8", text)
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let headers = reply.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    );
    reply
}
