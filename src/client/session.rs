//! A conversation with a gateway: the login, and calls whose answers come in any order.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt, stream::SplitSink, stream::SplitStream};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error, Message, protocol::WebSocketConfig},
};

use super::{Credential, NotAnswered, OwnDevice, Source, proof::first_word, refusal};
use crate::{
    problem::{Class, Problem},
    protocol::{Challenge, Client, Connect, Frame, HelloOk, Request, Response, VERSION},
};

/// The largest frame that a gateway may send, bytes; above the 25 MiB that gateways announce.
const LARGEST_FRAME: usize = 32 * 1024 * 1024;
/// Calls that may wait for their answers at once.
const MOST_CALLS: usize = 256;
/// How long saying goodbye may take.
const GOODBYE: Duration = Duration::from_millis(250);

/// What only reads.
pub(crate) const READ: &[&str] = &["operator.read"];
/// Everything an operator with the shared secret may do.
pub(crate) const EVERYTHING: &[&str] = &[
    "operator.admin",
    "operator.read",
    "operator.write",
    "operator.approvals",
    "operator.questions",
    "operator.pairing",
];

/// How to log in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Login<'a> {
    /// The gateway's URL, for the request line and the Host header.
    pub(crate) url: &'a str,
    /// The gateway as messages name it.
    pub(crate) name: &'a str,
    /// What is offered.
    pub(crate) credential: &'a Credential,
    /// [`READ`] or [`EVERYTHING`].
    pub(crate) scopes: &'a [&'a str],
    /// Who we are, for a gateway that wants to know.
    pub(crate) device: Option<&'a OwnDevice>,
}

/// A gateway that let us in. Dropping it ends the conversation.
#[derive(Debug)]
pub(crate) struct Gateway {
    /// What it said on the login.
    pub(crate) hello: HelloOk,
    outgoing: mpsc::Sender<Message>,
    pending: Arc<Pending>,
    next: AtomicU64,
    tasks: JoinSet<()>,
}

/// The calls that wait for an answer.
#[derive(Debug, Default)]
struct Pending(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    calls: HashMap<String, oneshot::Sender<Response>>,
    /// Why no answer can come any more.
    ended: Option<String>,
}

impl Pending {
    fn with<T>(&self, act: impl FnOnce(&mut Waiting) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn answer(&self, response: Response) {
        let call = self.with(|waiting| waiting.calls.remove(&response.id));
        let Some(call) = call else {
            tracing::debug!("answer to no call, or too late");
            return;
        };
        if call.send(response).is_err() {
            tracing::debug!("answer came too late");
        }
    }

    fn end(&self, reason: String) {
        self.with(|waiting| {
            waiting.calls.clear();
            waiting.ended.get_or_insert(reason);
        });
    }
}

/// Takes a call off the list, whichever way its wait ends.
struct Wait<'a> {
    pending: &'a Pending,
    id: &'a str,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.pending.with(|waiting| waiting.calls.remove(self.id));
    }
}

impl Gateway {
    /// Speaks WebSocket on `stream`, waits for the challenge and logs in; all of it by `deadline`.
    ///
    /// Errors are of class `gateway_down` (nobody answers as a gateway does) or `gateway_refused`.
    pub(crate) async fn log_in<S>(
        stream: S,
        login: Login<'_>,
        deadline: Instant,
    ) -> Result<Self, Problem>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let shake = async {
            let (mut socket, challenge) = greet(stream, login.url).await?;
            let response = introduce(&mut socket, &login, &challenge).await?;
            Ok((socket, response))
        };
        let (socket, response) = timeout_at(deadline, shake)
            .await
            .unwrap_or(Err(NotAnswered::Silent))
            .map_err(|reason| unanswered(login.name, &reason))?;
        let hello = admitted(response, login.credential)?;
        Ok(Self::converse(socket, hello))
    }

    fn converse<S>(socket: WebSocketStream<S>, hello: HelloOk) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (outgoing, queue) = mpsc::channel(MOST_CALLS);
        let pending = Arc::new(Pending::default());
        let (sink, stream) = socket.split();
        let mut tasks = JoinSet::new();
        let waiting = Arc::clone(&pending);
        tasks.spawn(async move {
            let reason = tokio::select! {
                reason = read(stream, &waiting) => reason,
                reason = write(sink, queue) => reason,
            };
            waiting.end(reason);
        });
        Self { hello, outgoing, pending, next: AtomicU64::new(1), tasks }
    }

    /// Calls `method`. Calls may overlap; each waits `patience` at most for its answer.
    ///
    /// Errors are of class `timeout`, `rpc`, `gateway_refused`, or `gateway_down` when the
    /// conversation broke.
    pub(crate) async fn call(
        &self,
        method: &str,
        params: Option<Value>,
        patience: Duration,
    ) -> Result<Value, Problem> {
        let id = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let answer = self.register(&id)?;
        let wait = Wait { pending: &self.pending, id: &id };
        let request = Frame::Request(Request::new(id.clone(), method, params));
        let text = serde_json::to_string(&request).map_err(|error| {
            Problem::new(Class::Internal, format!("writing the call of {method}: {error}"))
        })?;
        let exchange = async {
            self.outgoing.send(Message::text(text)).await.ok()?;
            answer.await.ok()
        };
        let answer = tokio::time::timeout(patience, exchange).await;
        drop(wait);
        match answer {
            Err(_) => Err(Problem::new(
                Class::Timeout,
                match patience.as_millis() {
                    // All of it went by on the way there.
                    0 => format!("no answer to {method}: the time that the command has was over"),
                    ms => format!("no answer to {method} within {ms} ms"),
                },
            )
            .fix("--timeout with more milliseconds")),
            Ok(None) => Err(self.broken(method)),
            Ok(Some(Response { ok: true, payload, .. })) => Ok(payload.unwrap_or_default()),
            Ok(Some(Response { error: Some(error), .. })) => Err(refusal::of_call(method, &error)),
            Ok(Some(_)) => Err(Problem::new(
                Class::Rpc,
                format!("the gateway refused {method} without a reason"),
            )),
        }
    }

    fn register(&self, id: &str) -> Result<oneshot::Receiver<Response>, Problem> {
        let (call, answer) = oneshot::channel();
        self.pending.with(|waiting| {
            if waiting.calls.len() >= MOST_CALLS {
                return Err(Problem::new(Class::Rpc, "too many calls wait for an answer"));
            }
            if waiting.ended.is_none() {
                waiting.calls.insert(id.to_owned(), call);
            }
            Ok(answer)
        })
    }

    fn broken(&self, method: &str) -> Problem {
        let reason = self.pending.with(|waiting| waiting.ended.clone());
        let reason = reason.unwrap_or_else(|| "the connection ended".to_owned());
        Problem::new(Class::GatewayDown, format!("no answer to {method}: {reason}"))
            .fix("openclaw gateway status")
    }

    /// Whether it granted no scope at all: OpenClaw's gateway lets a stranger in, and do nothing.
    pub(crate) fn may_nothing(&self) -> bool {
        self.hello.auth.scopes.is_empty()
    }

    /// The id of the gateway's own key, `None` if it is too old to tell, or tells only others.
    pub(crate) async fn identity(&self, patience: Duration) -> Result<Option<String>, Problem> {
        let method = "gateway.identity.get";
        if self.may_nothing() || !self.hello.features.methods.iter().any(|known| known == method) {
            return Ok(None);
        }
        let reply = self.call(method, None, patience).await?;
        Ok(reply.get("deviceId").and_then(Value::as_str).map(str::to_owned))
    }

    /// Says goodbye; waits a moment at most.
    pub(crate) async fn close(self) {
        let Self { outgoing, mut tasks, .. } = self;
        let goodbye = async {
            if outgoing.send(Message::Close(None)).await.is_ok() {
                drop(outgoing);
                while tasks.join_next().await.is_some() {}
            }
        };
        if tokio::time::timeout(GOODBYE, goodbye).await.is_err() {
            tracing::debug!("the gateway took no goodbye");
        }
    }
}

/// The WebSocket handshake and the gateway's challenge.
async fn greet<S>(stream: S, url: &str) -> Result<(WebSocketStream<S>, Challenge), NotAnswered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let limits = WebSocketConfig::default()
        .max_message_size(Some(LARGEST_FRAME))
        .max_frame_size(Some(LARGEST_FRAME));
    let (mut socket, _) = client_async_with_config(url, stream, Some(limits)).await?;
    let challenge = first_word(&mut socket).await?;
    Ok((socket, challenge))
}

/// Sends `connect` and waits for its answer.
async fn introduce<S>(
    socket: &mut WebSocketStream<S>,
    login: &Login<'_>,
    challenge: &Challenge,
) -> Result<Response, NotAnswered>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connect = connect(login);
    if let Some(device) = login.device {
        device.sign(&mut connect, challenge);
    }
    let params = serde_json::to_value(connect)
        .map_err(|error| NotAnswered::Io(std::io::Error::other(error)))?;
    let request = Frame::Request(Request::new("connect", "connect", Some(params)));
    let text = serde_json::to_string(&request)
        .map_err(|error| NotAnswered::Io(std::io::Error::other(error)))?;
    socket.send(Message::text(text)).await?;
    while let Some(message) = socket.next().await {
        match message? {
            Message::Text(text) => match serde_json::from_str(&text) {
                Ok(Frame::Response(response)) if response.id == "connect" => return Ok(response),
                Ok(_) => {}
                Err(error) => {
                    return Err(NotAnswered::NotAGateway(format!("a malformed frame: {error}")));
                }
            },
            Message::Close(_) => break,
            Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
    Err(NotAnswered::Closed)
}

/// Parameters of `connect`, without the device.
fn connect(login: &Login<'_>) -> Connect {
    Connect {
        min_protocol: VERSION,
        max_protocol: VERSION,
        client: Client {
            id: "cli".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            platform: if cfg!(target_os = "macos") { "darwin" } else { "linux" }.to_owned(),
            mode: "cli".to_owned(),
            display_name: None,
            build_id: None,
            device_family: None,
            model_identifier: None,
            time_zone: None,
            instance_id: None,
        },
        role: Some("operator".to_owned()),
        scopes: Some(login.scopes.iter().map(|scope| (*scope).to_owned()).collect()),
        auth: login.credential.auth(),
        caps: Vec::new(),
        commands: None,
        permissions: None,
        path_env: None,
        computer_use: None,
        worker_runs: None,
        device: None,
        locale: None,
        user_agent: Some(concat!("openclaw/", env!("CARGO_PKG_VERSION")).to_owned()),
    }
}

fn admitted(response: Response, credential: &Credential) -> Result<HelloOk, Problem> {
    match response {
        Response { ok: true, payload, .. } => serde_json::from_value(payload.unwrap_or_default())
            .map_err(|error| {
                Problem::new(
                    Class::GatewayRefused,
                    format!("the gateway's welcome is not understood: {error}"),
                )
                .fix("update the older of the two")
            }),
        Response { error: Some(error), .. } => {
            let source = if credential.is_empty() { Source::None } else { credential.source };
            Err(refusal::of_login(&error, source))
        }
        Response { .. } => {
            Err(Problem::new(Class::GatewayRefused, "the gateway refused without a reason"))
        }
    }
}

fn unanswered(name: &str, reason: &NotAnswered) -> Problem {
    Problem::new(Class::GatewayDown, format!("no gateway at {name}: {reason}"))
}

/// Routes answers until the conversation ends; returns why it did.
async fn read<S>(mut stream: SplitStream<WebSocketStream<S>>, pending: &Pending) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = stream.next().await {
        match message {
            Ok(Message::Text(text)) => match serde_json::from_str(&text) {
                Ok(Frame::Response(response)) => pending.answer(response),
                Ok(Frame::Event(event)) => tracing::trace!(event = event.event, "event"),
                Ok(Frame::Request(_)) => tracing::debug!("the gateway sent a request"),
                Err(error) => return format!("a malformed frame: {error}"),
            },
            Ok(Message::Close(Some(frame))) if !frame.reason.is_empty() => {
                return format!("the gateway closed the connection: {}", frame.reason);
            }
            Ok(Message::Close(_)) => return "the gateway closed the connection".to_owned(),
            Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Err(error) => return format!("the connection broke: {error}"),
        }
    }
    "the gateway closed the connection".to_owned()
}

/// Sends what is queued, and the goodbye last; returns why it stopped.
async fn write<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut queue: mpsc::Receiver<Message>,
) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = queue.recv().await {
        let last = message.is_close();
        match sink.send(message).await {
            Ok(()) if last => break,
            Ok(()) => {}
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => break,
            Err(error) => return format!("the connection broke: {error}"),
        }
    }
    "the connection was closed".to_owned()
}

#[cfg(test)]
#[path = "session_tests.rs"]
pub(super) mod tests;
