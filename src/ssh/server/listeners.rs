//! Listeners that a client of the embedded server asks for: on loopback, refused on purpose, or held
//! beyond the client's end as by a server that has not noticed it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use russh::server::Handle;
use tokio::{net::TcpListener, task::JoinSet};

use super::lock;

/// What a test makes of the listeners of all connections.
#[derive(Debug, Default)]
pub(super) struct Switches {
    /// Whether every one is refused.
    pub(super) refuse: AtomicBool,
    /// Whether a listener outlives its connection.
    pub(super) keep: AtomicBool,
    /// Those that did.
    pub(super) kept: Mutex<Vec<Arc<TcpListener>>>,
}

/// The listeners of one connection.
pub(super) struct Listeners {
    switches: Arc<Switches>,
    open: HashMap<u32, (Arc<TcpListener>, JoinSet<()>)>,
}

impl Listeners {
    pub(super) fn new(switches: &Arc<Switches>) -> Self {
        Self { switches: Arc::clone(switches), open: HashMap::new() }
    }

    /// Listens on loopback; the port, unless it is refused or taken.
    pub(super) async fn open(&mut self, address: &str, port: u32, handle: Handle) -> Option<u32> {
        if self.switches.refuse.load(Ordering::SeqCst) {
            return None;
        }
        let listener = TcpListener::bind(("127.0.0.1", u16::try_from(port).ok()?)).await.ok()?;
        let listener = Arc::new(listener);
        let port = u32::from(listener.local_addr().ok()?.port());
        let mut tasks = JoinSet::new();
        let (address, accepting) = (address.to_owned(), Arc::clone(&listener));
        tasks.spawn(async move {
            let mut streams = JoinSet::new();
            while let Ok((mut stream, from)) = accepting.accept().await {
                let (handle, address) = (handle.clone(), address.clone());
                streams.spawn(async move {
                    let from_port = u32::from(from.port());
                    let from = from.ip().to_string();
                    let opened =
                        handle.channel_open_forwarded_tcpip(address, port, from, from_port);
                    let Ok(channel) = opened.await else { return };
                    let mut far = channel.into_stream();
                    // Whichever end breaks off, the other sees its connection close.
                    drop(tokio::io::copy_bidirectional(&mut stream, &mut far).await);
                });
            }
        });
        self.open.insert(port, (listener, tasks));
        Some(port)
    }

    /// Ends a listener; whether there was one.
    pub(super) fn close(&mut self, port: u32) -> bool {
        self.open.remove(&port).is_some()
    }
}

impl Drop for Listeners {
    fn drop(&mut self) {
        if self.switches.keep.load(Ordering::SeqCst) {
            let kept = self.open.drain().map(|(_, (listener, _))| listener);
            lock(&self.switches.kept).extend(kept);
        }
    }
}
