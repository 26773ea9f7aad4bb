//! A client of the gateway protocol that says what a test or a measurement wants said.
#![allow(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

use std::{collections::HashMap, io, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use futures_util::{SinkExt, StreamExt};
use ring::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{
        Message, client::IntoClientRequest, http::HeaderName, protocol::WebSocketConfig,
    },
};

use super::schema::Schema;

/// What a connection reads at once.
const BUFFER: usize = 16 * 1024;
/// How long a gateway may take for one frame.
const PATIENCE: Duration = Duration::from_secs(30);

/// A connection to a gateway. Every frame that comes has to be as published, unless it is measured.
pub(crate) struct Wire {
    pub(crate) socket: WebSocketStream<TcpStream>,
    /// Which method each request asked for.
    asked: HashMap<String, String>,
    /// Whether frames are held against the schema.
    is_held: bool,
}

/// What a gateway asks before anything else.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) nonce: String,
    pub(crate) ts: u64,
}

impl Wire {
    /// Opens a WebSocket and reads the challenge.
    pub(crate) async fn open(port: u16) -> io::Result<(Self, Asked)> {
        Self::open_with(port, &[]).await
    }

    /// The same with headers of the caller's.
    pub(crate) async fn open_with(
        port: u16,
        headers: &[(&str, &str)],
    ) -> io::Result<(Self, Asked)> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let url = format!("ws://127.0.0.1:{port}/");
        let mut request = url.into_client_request().map_err(io::Error::other)?;
        for (name, value) in headers {
            let name: HeaderName = name.parse().map_err(io::Error::other)?;
            request.headers_mut().insert(name, value.parse().map_err(io::Error::other)?);
        }
        // The library clears its whole buffer before each read; with its 128 KiB a generator of load
        // would wait for itself.
        let config = WebSocketConfig::default().read_buffer_size(BUFFER);
        let opening = client_async_with_config(request, stream, Some(config));
        let opened = timeout(PATIENCE, opening).await?;
        let (socket, _) = opened.map_err(io::Error::other)?;
        let mut wire = Self::of(socket);
        let challenge = wire.frame().await?;
        let payload = &challenge["payload"];
        let nonce = payload["nonce"].as_str().unwrap_or_default().to_owned();
        Ok((wire, Asked { nonce, ts: payload["ts"].as_u64().unwrap_or_default() }))
    }

    /// Speaks through a WebSocket that is open.
    pub(crate) fn of(socket: WebSocketStream<TcpStream>) -> Self {
        Self { socket, asked: HashMap::new(), is_held: true }
    }

    /// Takes what comes as it is: the reference gateway says a word more than the schema has.
    pub(crate) fn unheld(self) -> Self {
        Self { is_held: false, ..self }
    }

    /// Opens, and logs in as an operator that may read; a refusal is an error with its message.
    pub(crate) async fn login(port: u16, token: &str) -> io::Result<Self> {
        let (mut wire, _) = Self::open(port).await?;
        let answer = wire.call("connect", connect(&json!({ "token": token }))).await?;
        if answer["ok"] == true { Ok(wire) } else { Err(io::Error::other(answer.to_string())) }
    }

    /// Sends text as it is.
    pub(crate) async fn say(&mut self, text: impl Into<String>) -> io::Result<()> {
        let text: String = text.into();
        self.socket.send(Message::text(text)).await.map_err(io::Error::other)
    }

    /// The next frame; a close is an error with its code and reason.
    pub(crate) async fn frame(&mut self) -> io::Result<Value> {
        loop {
            let next = timeout(PATIENCE, self.socket.next()).await?;
            let ended = || io::Error::from(io::ErrorKind::UnexpectedEof);
            match next.ok_or_else(ended)?.map_err(io::Error::other)? {
                Message::Text(text) => {
                    let frame = serde_json::from_str(&text)?;
                    self.judge(&frame);
                    return Ok(frame);
                }
                Message::Close(Some(close)) => {
                    let text = format!("{} {}", u16::from(close.code), close.reason);
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, text));
                }
                Message::Close(None) => return Err(ended()),
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Calls a method and reads until its answer comes.
    pub(crate) async fn call(&mut self, method: &str, params: Value) -> io::Result<Value> {
        self.ask(method, params).await?;
        self.answer().await
    }

    /// Asks, and waits for nothing; answers come in any order.
    pub(crate) async fn ask(&mut self, method: &str, params: Value) -> io::Result<()> {
        let request = json!({ "type": "req", "id": method, "method": method, "params": params });
        self.asked.insert(method.to_owned(), method.to_owned());
        self.say(request.to_string()).await
    }

    /// The next answer, whatever it answers; events before it are passed over.
    pub(crate) async fn answer(&mut self) -> io::Result<Value> {
        loop {
            let frame = self.frame().await?;
            if frame["type"] == "res" {
                return Ok(frame);
            }
        }
    }

    fn judge(&self, frame: &Value) {
        if let Some(schema) = Schema::published().filter(|_| self.is_held) {
            let method = frame["id"].as_str().and_then(|id| self.asked.get(id));
            schema.hold(frame, method.map(String::as_str));
        }
    }

    /// The code with which the gateway closes, 0 where it goes without one.
    pub(crate) async fn closed(mut self) -> u16 {
        loop {
            match self.frame().await {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {
                    let text = error.to_string();
                    return text.split(' ').next().and_then(|code| code.parse().ok()).unwrap_or(0);
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => panic!("never closed"),
                Err(_) => return 0,
            }
        }
    }
}

/// Parameters of `connect` of a command line that may read.
pub(crate) fn connect(auth: &Value) -> Value {
    json!({
        "minProtocol": 4, "maxProtocol": 4, "role": "operator", "scopes": ["operator.read"],
        "client": { "id": "cli", "version": "1", "platform": "linux", "mode": "cli" },
        "auth": auth,
    })
}

/// A device that signs what it is told to.
pub(crate) struct Device(Ed25519KeyPair);

impl Device {
    /// The same one for the same seed.
    pub(crate) fn new(seed: u8) -> Self {
        Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("a seed of 32 bytes"))
    }

    /// The digest of its key.
    pub(crate) fn id(&self) -> String {
        let id = digest(&SHA256, self.0.public_key().as_ref());
        id.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Adds itself to parameters of `connect`, with its signature of them for a challenge.
    pub(crate) fn sign(&self, connect: &mut Value, Asked { nonce, ts }: &Asked) {
        let text = |pointer: &str| connect.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        let plain = |pointer: &str| text(pointer).trim().to_ascii_lowercase();
        let scopes = connect["scopes"].as_array().map(|all| {
            let all = all.iter().filter_map(Value::as_str);
            all.collect::<Vec<_>>().join(",")
        });
        let secrets = ["/auth/token", "/auth/deviceToken", "/auth/bootstrapToken"];
        let secret = secrets.into_iter().map(text).find(|text| !text.is_empty()).unwrap_or("");
        let signed = [
            "v3".to_owned(),
            self.id(),
            text("/client/id").to_owned(),
            text("/client/mode").to_owned(),
            text("/role").to_owned(),
            scopes.unwrap_or_default(),
            ts.to_string(),
            secret.to_owned(),
            nonce.clone(),
            plain("/client/platform"),
            plain("/client/deviceFamily"),
        ];
        let signature = self.0.sign(signed.join("|").as_bytes());
        connect["device"] = json!({
            "id": self.id(),
            "publicKey": URL_SAFE_NO_PAD.encode(self.0.public_key()),
            "signature": URL_SAFE_NO_PAD.encode(signature),
            "signedAt": ts,
            "nonce": nonce,
        });
    }
}
