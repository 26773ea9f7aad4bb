//! Listens in a gateway's place, and holds every frame that the gateway behind it says against the
//! published schema.
//!
//! Callers reach the tap's port as they would the gateway's; it is gone as soon as the gateway is.
//! Where the gateway speaks TLS, both ends of the tap do, with the gateway's own certificate and key.

use std::{
    net::TcpListener,
    os::fd::AsFd,
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::unistd::Pid;
use rustix::process::{PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::tungstenite::protocol::Role;

use super::{
    cover::Cover,
    ear::{Ear, Judge, Talk},
};

/// How long the last words of a gateway may take to reach who does not read them.
const GRACE: Duration = Duration::from_secs(1);

/// The tap; when it is dropped, nothing that it has seen may have been wrong.
pub(crate) struct Tap {
    judge: Arc<Judge>,
    thread: Option<JoinHandle<()>>,
}

/// Where a tap leads to.
pub(crate) struct Behind {
    /// The gateway's own port.
    pub(crate) port: u16,
    /// Its process id; the tap ends with it.
    pub(crate) gateway: Pid,
    /// The folder with its certificate and key, where it speaks TLS.
    pub(crate) tls: Option<PathBuf>,
}

/// What every connection needs.
struct Way {
    port: u16,
    cover: Option<Cover>,
    judge: Arc<Judge>,
    /// Whether the gateway has ended.
    gone: watch::Receiver<bool>,
}

impl Tap {
    /// Takes what comes to `listeners` to the gateway, and ends with it. `None` where the schema is
    /// not installed: nobody listens then.
    pub(crate) fn before(listeners: Vec<TcpListener>, behind: Behind) -> Option<Self> {
        let judge = Judge::published()?;
        let Behind { port, gateway, tls } = behind;
        let pid = rustix::process::Pid::from_raw(gateway.as_raw()).expect("a process id");
        let life = pidfd_open(pid, PidfdFlags::empty()).expect("holding on to the gateway");
        let (ended, gone) = watch::channel(false);
        thread::spawn(move || {
            // Only looked at: whoever started the gateway buries it, and may have been quicker.
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            match waitid(WaitId::PidFd(life.as_fd()), options) {
                Ok(_) | Err(_) => ended.send_replace(true),
            };
        });
        let thread = thread::spawn({
            let way = Way { port, cover: tls.map(Cover::of), judge: Arc::clone(&judge), gone };
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(serve(listeners, &Arc::new(way)));
            }
        });
        Some(Self { judge, thread: Some(thread) })
    }

    /// How many frames were held against the schema so far.
    pub(crate) fn held(&self) -> usize {
        self.judge.held()
    }

    /// Takes out what was wrong so far.
    pub(crate) fn flaws(&self) -> Vec<String> {
        self.judge.flaws()
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // The gateway has ended before, and with it the thread.
        let ended = self.thread.take().is_none_or(|thread| thread.join().is_ok());
        assert!(ended || thread::panicking(), "the tap failed");
        self.judge.sentence();
    }
}

async fn serve(listeners: Vec<TcpListener>, way: &Arc<Way>) {
    let mut doors = JoinSet::new();
    for listener in listeners {
        listener.set_nonblocking(true).expect("a listener");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
        doors.spawn(accept(listener, Arc::clone(way)));
    }
    doors.join_all().await;
}

/// Lets callers in until the gateway is gone, and ends with their connections.
async fn accept(listener: tokio::net::TcpListener, way: Arc<Way>) {
    let (mut pumps, mut gone) = (JoinSet::new(), way.gone.clone());
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((near, _)) = accepted {
                    pumps.spawn(pump(near, Arc::clone(&way)));
                }
            }
            Some(_) = pumps.join_next(), if !pumps.is_empty() => {}
            _ = gone.wait_for(|gone| *gone) => break,
        }
    }
    drop(listener);
    drop(timeout(GRACE, pumps.join_all()).await);
}

/// Leads one connection to the gateway, and listens in.
async fn pump(near: TcpStream, way: Arc<Way>) {
    let Ok(far) = TcpStream::connect(("127.0.0.1", way.port)).await else { return };
    if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
        return;
    }
    match &way.cover {
        Some(cover) if Cover::is_wanted(&near, &far).await => match cover.over(near, far).await {
            Ok(Some((near, far))) => overhear(near, far, &way).await,
            Ok(None) => {}
            Err(flaw) => way.judge.add([flaw]),
        },
        _ => overhear(near, far, &way).await,
    }
}

/// Copies both ways, and hears what is said, to its last word.
async fn overhear(near: impl AsyncRead + AsyncWrite, far: impl AsyncRead + AsyncWrite, way: &Way) {
    let talk = Mutex::new(Talk::new(Arc::clone(&way.judge)));
    let (near_reads, near_writes) = tokio::io::split(near);
    let (far_reads, far_writes) = tokio::io::split(far);
    let asks = copy(near_reads, far_writes, Ear::new(Role::Server), |text| {
        talk.lock().unwrap_or_else(PoisonError::into_inner).on_request(text);
    });
    let says = copy(far_reads, near_writes, Ear::new(Role::Client), |text| {
        talk.lock().unwrap_or_else(PoisonError::into_inner).on_answer(text);
    });
    let (mut asks, mut says) = (pin!(asks), pin!(says));
    tokio::select! {
        () = &mut asks => says.await,
        () = &mut says => {
            // A caller that keeps its end open speaks to nobody once the gateway is gone.
            let mut gone = way.gone.clone();
            tokio::select! {
                () = asks => {}
                _ = gone.wait_for(|gone| *gone) => {}
            }
        }
    }
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
            break;
        }
    }
    drop(to.shutdown().await);
}
