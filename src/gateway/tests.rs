//! Connections over in-memory streams, on a stopped clock: the gateway and the clients of these stories.

#[path = "../../tests/support/schema.rs"]
#[allow(dead_code, reason = "other programs use the rest")]
mod schema;

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderName},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Shared,
    admission::PeerInfo,
    device_token::Mint,
    dispatch::{Call, Outcome},
    http,
    reload::Live,
    scrape::Scrapes,
    settings::Guard,
};
use crate::{
    config::Paths,
    protocol::{Access, GatewayIdentity, Method, NoParams, Row},
    secret::Secret,
    store::Store,
};

mod answers;
mod approvals;
mod devices;
mod fuzz;
mod health;
mod host_rules;
mod news;
mod nodes;
mod pages;
mod strangers;
mod upgrades;
mod ways;

const TOKEN: &str = "the token";
const SCRAPES: &str = "opens the metrics";

/// The files of the default profile in `state`.
pub(super) fn paths(state: &Path) -> Paths {
    Paths {
        state: state.to_owned(),
        config: state.join("openclaw.json"),
        socket: state.join("socket"),
        profile: None,
    }
}

/// A gateway without files or sockets.
struct Lab {
    shared: Arc<Shared>,
    stop: CancellationToken,
    _rounds: AbortOnDropHandle<()>,
}

/// A client of the lab, with the task that serves it.
struct Client {
    socket: WebSocketStream<DuplexStream>,
    served: JoinHandle<()>,
    /// Which method each request asked for.
    asked: HashMap<String, String>,
}

/// A method that never answers.
enum Never {}

impl Method for Never {
    const ROW: Row = Row { name: "test.never", access: Access::Anyone };
    type Params = NoParams;
    type Reply = Value;
}

async fn never(_call: Call, _params: NoParams) -> Outcome<Value> {
    std::future::pending().await
}

impl Lab {
    fn new() -> Self {
        Self::at(Path::new("/state"))
    }

    /// One whose files would be in `state`.
    fn at(state: &Path) -> Self {
        let paths = paths(state);
        let identity = GatewayIdentity { device_id: "id".to_owned(), public_key: "key".to_owned() };
        let guard = Guard::Token(Secret::new(TOKEN));
        let scrapes = Scrapes::new(Secret::new(SCRAPES), crate::logfile::Handle::default());
        let live = Live { guard, allowed_origins: Vec::new(), pair_local: None };
        let mut shared = Shared::new(
            paths,
            live,
            identity,
            (Store::in_memory(), Mint::new(&Secret::new("mint"))),
            scrapes,
        );
        shared.dispatcher.on::<Never, _>(never);
        let hub = Arc::clone(&shared.hub);
        let rounds = AbortOnDropHandle::new(tokio::spawn(async move { hub.tell_rounds().await }));
        Self { shared: Arc::new(shared), stop: CancellationToken::new(), _rounds: rounds }
    }

    fn serve(&self) -> (DuplexStream, JoinHandle<()>) {
        self.serve_from(PeerInfo::loopback())
    }

    fn serve_from(&self, peer: PeerInfo) -> (DuplexStream, JoinHandle<()>) {
        let (ours, theirs) = duplex(256 * 1024);
        let slot = self.shared.slots.enter(peer.door, peer.address).unwrap();
        let stop = self.stop.clone();
        let serve = http::serve(Arc::clone(&self.shared), theirs, peer, slot, stop);
        (ours, tokio::spawn(serve))
    }

    /// A client that has been challenged.
    async fn challenged(&self) -> Client {
        let (stream, served) = self.serve();
        let (socket, _) = client_async("ws://127.0.0.1:18789/", stream).await.unwrap();
        let mut client = Client { socket, served, asked: HashMap::new() };
        assert_eq!(client.frame().await["event"], "connect.challenge");
        client
    }

    /// The same of a client elsewhere whose request has these headers.
    async fn challenged_from(&self, peer: PeerInfo, headers: &[(&str, &str)]) -> Client {
        let (client, challenge) = self.knocked_from(peer, headers).await;
        assert_eq!(challenge["event"], "connect.challenge");
        client
    }

    /// The same with the challenge.
    async fn knocked_from(&self, peer: PeerInfo, headers: &[(&str, &str)]) -> (Client, Value) {
        let (stream, served) = self.serve_from(peer);
        let mut request = IntoClientRequest::into_client_request("ws://127.0.0.1:18789/").unwrap();
        for (name, value) in headers {
            let name: HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        let (socket, _) = client_async(request, stream).await.unwrap();
        let mut client = Client { socket, served, asked: HashMap::new() };
        let challenge = client.frame().await;
        (client, challenge)
    }

    /// A client that has said `connect`, and the answer.
    async fn connected(&self, changes: &Value) -> (Client, Value) {
        let mut client = self.challenged().await;
        client.send(&connect(changes)).await;
        let answer = client.frame().await;
        (client, answer)
    }

    async fn admitted(&self) -> Client {
        let (client, answer) = self.connected(&json!({})).await;
        assert_eq!(answer["payload"]["type"], "hello-ok", "{answer}");
        client
    }
}

impl Client {
    async fn send(&mut self, frame: &Value) {
        if let (Some(id), Some(method)) = (frame["id"].as_str(), frame["method"].as_str()) {
            self.asked.insert(id.to_owned(), method.to_owned());
        }
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.send(&json!({"type": "req", "id": method, "method": method, "params": params})).await;
        self.frame().await
    }

    async fn message(&mut self) -> Message {
        loop {
            let message = timeout(Duration::from_secs(3_600), self.socket.next());
            match message.await.expect("nothing came for an hour").unwrap().unwrap() {
                Message::Ping(_) | Message::Pong(_) => {}
                message @ (Message::Text(_)
                | Message::Binary(_)
                | Message::Close(_)
                | Message::Frame(_)) => return message,
            }
        }
    }

    async fn frame(&mut self) -> Value {
        let message = self.message().await;
        let frame: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        // Whatever a gateway says in any of these tests is as published.
        if let Some(schema) = schema::Schema::published() {
            let method = frame["id"].as_str().and_then(|id| self.asked.get(id));
            schema.hold(&frame, method.map(String::as_str));
        }
        frame
    }

    /// The close code and reason, once the connection has ended on both sides.
    async fn closed(mut self) -> (u16, String) {
        let message = self.message().await;
        let Message::Close(Some(frame)) = message else { panic!("not a close: {message}") };
        let code: u16 = frame.code.into();
        // Reading on sends our half of the farewell.
        assert!(!matches!(self.socket.next().await, Some(Ok(_))));
        self.served.await.unwrap();
        (code, frame.reason.to_string())
    }
}

fn connect(changes: &Value) -> Value {
    let mut params = json!({
        "minProtocol": 4, "maxProtocol": 4,
        "client": {"id": "cli", "version": "1.0.0", "platform": "linux", "mode": "cli"},
        "role": "operator", "scopes": ["operator.read"], "auth": {"token": TOKEN},
    });
    for (key, value) in changes.as_object().unwrap() {
        params[key] = value.clone();
    }
    json!({"type": "req", "id": "1", "method": "connect", "params": params})
}

/// The status line and body of one plain request.
async fn plain(lab: &Lab, head: &str) -> (String, String) {
    plain_from(lab, PeerInfo::loopback(), head).await
}

/// The same of somebody elsewhere.
async fn plain_from(lab: &Lab, peer: PeerInfo, head: impl AsRef<str>) -> (String, String) {
    let head = head.as_ref();
    let (mut stream, served) = lab.serve_from(peer);
    stream.write_all(format!("{head}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    served.await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// `value` with what differs from run to run replaced by its kind.
fn steady(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match key.as_str() {
                    "ts" | "uptimeMs" | "pid" | "rssBytes" => *value = json!("NUMBER"),
                    "file" | "hash" | "connId" | "bootId" | "instanceId" | "host" | "text"
                    | "version" | "runtimeVersion" | "platform" | "nonce"
                    | "configRevisionHash" => *value = json!("TEXT"),
                    _ => steady(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(steady),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Holds a frame against its golden file; `UPDATE_GOLDEN=1` writes the file instead.
fn golden(name: &str, mut frame: Value) {
    steady(&mut frame);
    let file = format!("{}/fixtures/frames/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = format!("{frame:#}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &text).unwrap();
    }
    assert_eq!(text, std::fs::read_to_string(&file).unwrap_or_default(), "{file}");
}
