//! Understands what goes over a connection to a gateway, and holds what the gateway says against the
//! published schema.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Read, Write},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use tokio_tungstenite::tungstenite::{
    Message, WebSocket,
    protocol::{Role, WebSocketConfig},
};

use super::schema::Schema;

/// What was heard, and what was wrong of it.
pub(crate) struct Judge {
    schema: &'static Schema,
    held: AtomicUsize,
    flaws: Mutex<Vec<String>>,
}

impl Judge {
    /// One who has heard nothing yet; `None` where the schema is not installed.
    pub(crate) fn published() -> Option<Arc<Self>> {
        let schema = Schema::published()?;
        Some(Arc::new(Self { schema, held: AtomicUsize::new(0), flaws: Mutex::default() }))
    }

    /// How many frames were held against the schema so far.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Takes out what was wrong so far.
    pub(crate) fn flaws(&self) -> Vec<String> {
        std::mem::take(&mut self.flaws.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Adds what was wrong beside the frames.
    pub(crate) fn add(&self, flaws: impl IntoIterator<Item = String>) {
        self.flaws.lock().unwrap_or_else(PoisonError::into_inner).extend(flaws);
    }

    /// Fails the test if anything was wrong, unless it has failed already.
    pub(crate) fn sentence(&self) {
        let flaws = self.flaws();
        if !std::thread::panicking() {
            let said = flaws.join("\n");
            assert!(flaws.is_empty(), "what the gateway said is not as published:\n{said}");
        }
    }
}

/// One connection's questions, to know what an answer answers.
pub(crate) struct Talk {
    asked: HashMap<String, String>,
    judge: Arc<Judge>,
}

impl Talk {
    /// Nothing has been asked yet.
    pub(crate) fn new(judge: Arc<Judge>) -> Self {
        Self { asked: HashMap::new(), judge }
    }

    /// Hears a client.
    pub(crate) fn on_request(&mut self, text: &str) {
        let Ok(frame) = serde_json::from_str::<Value>(text) else { return };
        let word = |key| frame.get(key).and_then(Value::as_str).map(str::to_owned);
        if let (Some(id), Some(method)) = (word("id"), word("method")) {
            self.asked.insert(id, method);
        }
    }

    /// Hears the gateway.
    pub(crate) fn on_answer(&mut self, text: &str) {
        let judge = &self.judge;
        judge.held.fetch_add(1, Ordering::Relaxed);
        let flaws = match serde_json::from_str::<Value>(text) {
            Ok(frame) => {
                let id = frame.get("id").and_then(Value::as_str);
                let method = id.and_then(|id| self.asked.remove(id));
                judge.schema.flaws(&frame, method.as_deref())
            }
            Err(error) => vec![format!("not JSON ({error}): {text}")],
        };
        judge.add(flaws);
    }
}

/// Understands one direction of a connection: a head of HTTP, and WebSocket messages behind it.
pub(crate) enum Ear {
    /// The head is not complete.
    Head(Role, Vec<u8>),
    /// Messages.
    Messages(Box<WebSocket<Feed>>),
    /// Anything else.
    Deaf,
}

impl Ear {
    /// Hears what comes to who has this role.
    pub(crate) fn new(role: Role) -> Self {
        Self::Head(role, Vec::new())
    }

    /// Takes the next bytes, and gives each text that they complete to `heard`.
    pub(crate) fn hear(&mut self, bytes: &[u8], heard: &mut impl FnMut(&str)) {
        match self {
            Self::Head(role, head) => {
                head.extend(bytes);
                let start: &[u8] = match role {
                    Role::Server => b"GET ",
                    Role::Client => b"HTTP/1.1 ",
                };
                if !head.iter().zip(start).all(|(is, wanted)| is == wanted) {
                    *self = Self::Deaf;
                    return;
                }
                let Some(end) = head.windows(4).position(|four| four == b"\r\n\r\n") else {
                    return;
                };
                let rest = head.split_off(end + 4);
                let head = String::from_utf8_lossy(head).to_ascii_lowercase();
                let is_websocket = match role {
                    Role::Server => head.contains("\r\nupgrade: websocket\r\n"),
                    Role::Client => head.starts_with("http/1.1 101 "),
                };
                if !is_websocket {
                    *self = Self::Deaf;
                    return;
                }
                let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
                let feed = Feed::default();
                let socket = WebSocket::from_raw_socket(feed, *role, Some(config));
                *self = Self::Messages(Box::new(socket));
                self.hear(&rest, heard);
            }
            Self::Messages(socket) => {
                socket.get_mut().0.extend(bytes);
                while let Ok(message) = socket.read() {
                    if let Message::Text(text) = message {
                        heard(&text);
                    }
                }
            }
            Self::Deaf => {}
        }
    }
}

/// Bytes as they come; what is written to it goes nowhere.
#[derive(Default)]
pub(crate) struct Feed(VecDeque<u8>);

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.read(buffer)
    }
}

impl Write for Feed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
