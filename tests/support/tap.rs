//! Listens in a gateway's place, and holds every frame that the gateway behind it says against the
//! published schema.
//!
//! Callers reach the tap's port as they would the gateway's; it is gone as soon as the gateway is.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, Read, Write},
    net::TcpListener,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use nix::unistd::Pid;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::{
    Message, WebSocket,
    protocol::{Role, WebSocketConfig},
};

use super::schema::Schema;

/// The tap; when it is dropped, nothing that it has seen may have been wrong.
pub(crate) struct Tap {
    judge: Arc<Judge>,
    thread: Option<JoinHandle<()>>,
}

/// What was seen, and what was wrong of it.
struct Judge {
    schema: &'static Schema,
    held: AtomicUsize,
    flaws: Mutex<Vec<String>>,
}

impl Tap {
    /// Takes what comes to `listeners` to the port of the gateway with this process id, and ends
    /// with it. `None` where the schema is not installed: nobody listens then.
    pub(crate) fn before(listeners: Vec<TcpListener>, port: u16, gateway: Pid) -> Option<Self> {
        let schema = Schema::published()?;
        let pid = rustix::process::Pid::from_raw(gateway.as_raw()).expect("a process id");
        let life = pidfd_open(pid, PidfdFlags::empty()).expect("holding on to the gateway");
        let flaws = Mutex::default();
        let judge = Arc::new(Judge { schema, held: AtomicUsize::new(0), flaws });
        let (ended, end) = oneshot::channel();
        thread::spawn(move || {
            // Only looked at: whoever started the gateway buries it.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let gone = waitid(WaitId::PidFd(life.as_fd()), options).is_ok();
            ended.send(gone).unwrap_or_default();
        });
        let thread = thread::spawn({
            let judge = Arc::clone(&judge);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(serve(listeners, port, end, judge));
            }
        });
        Some(Self { judge, thread: Some(thread) })
    }

    /// How many frames were held against the schema so far.
    pub(crate) fn held(&self) -> usize {
        self.judge.held.load(Ordering::Relaxed)
    }

    /// Takes out what was wrong so far.
    pub(crate) fn flaws(&self) -> Vec<String> {
        std::mem::take(&mut self.judge.flaws.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // The gateway has ended before, and with it the thread.
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        if thread::panicking() {
            return;
        }
        assert!(ended, "the tap failed");
        let flaws = self.flaws();
        assert!(
            flaws.is_empty(),
            "what the gateway said is not as published:\n{}",
            flaws.join("\n")
        );
    }
}

async fn serve(
    listeners: Vec<TcpListener>,
    port: u16,
    end: oneshot::Receiver<bool>,
    judge: Arc<Judge>,
) {
    let mut doors = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true).expect("a listener");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        doors.spawn(accept(listener, port, Arc::clone(&judge)));
    }
    drop(end.await);
    doors.shutdown().await;
}

/// Lets callers in; dropped, it ends with their connections.
async fn accept(listener: tokio::net::TcpListener, port: u16, judge: Arc<Judge>) {
    let mut pumps = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((near, _)) = accepted {
                    pumps.spawn(pump(near, port, Arc::clone(&judge)));
                }
            }
            Some(_) = pumps.join_next(), if !pumps.is_empty() => {}
        }
    }
}

/// Leads one connection to the gateway, and listens in.
async fn pump(near: TcpStream, port: u16, judge: Arc<Judge>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
        return;
    }
    let talk = Mutex::new(Talk { asked: HashMap::new(), judge });
    let (near_reads, near_writes) = near.into_split();
    let (far_reads, far_writes) = far.into_split();
    let asks = copy(near_reads, far_writes, Ear::new(Role::Server), |text| {
        talk.lock().unwrap_or_else(PoisonError::into_inner).on_request(text);
    });
    let says = copy(far_reads, near_writes, Ear::new(Role::Client), |text| {
        talk.lock().unwrap_or_else(PoisonError::into_inner).on_answer(text);
    });
    tokio::join!(asks, says);
}

/// Copies to the end; what was said is heard before it is passed on.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut ear: Ear,
    mut heard: impl FnMut(&str),
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let bytes = buffer.get(..count).unwrap_or_default();
        ear.hear(bytes, &mut heard);
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
    drop(to.shutdown().await);
}

/// One connection's questions, to know what an answer answers.
struct Talk {
    asked: HashMap<String, String>,
    judge: Arc<Judge>,
}

impl Talk {
    fn on_request(&mut self, text: &str) {
        let Ok(frame) = serde_json::from_str::<Value>(text) else { return };
        let word = |key| frame.get(key).and_then(Value::as_str).map(str::to_owned);
        if let (Some(id), Some(method)) = (word("id"), word("method")) {
            self.asked.insert(id, method);
        }
    }

    fn on_answer(&mut self, text: &str) {
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
        judge.flaws.lock().unwrap_or_else(PoisonError::into_inner).extend(flaws);
    }
}

/// Understands one direction of a connection: a head of HTTP, and WebSocket messages behind it.
enum Ear {
    /// The head is not complete.
    Head(Role, Vec<u8>),
    /// Messages.
    Messages(Box<WebSocket<Feed>>),
    /// Plain HTTP, or TLS.
    Deaf,
}

impl Ear {
    fn new(role: Role) -> Self {
        Self::Head(role, Vec::new())
    }

    fn hear(&mut self, bytes: &[u8], heard: &mut impl FnMut(&str)) {
        match self {
            Self::Head(role, head) => {
                head.extend(bytes);
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
struct Feed(VecDeque<u8>);

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
