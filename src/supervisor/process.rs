//! The supervisor as a process: one a profile, detached, with its lock, socket and log.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::{fs::OpenOptionsExt, net::UnixStream as StdUnixStream},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};
use tracing::{debug, info, warn};
use tracing_appender::rolling::{RollingFileAppender, Rotation};

use super::{door::Doors, server::Supervisor};
use crate::{
    config::Paths,
    problem::{Class, Problem},
};

/// How long the end may take.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How long another supervisor may hold the lock without answering: starting or dying.
const DYING_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at it.
const DYING_LOOK: Duration = Duration::from_millis(10);
/// `OPEN_MAX` of macOS, the most that a process may ask for.
const OPEN_FILES_MACOS: u64 = 10_240;
/// Log files kept, one a day.
const LOGS_KEPT: usize = 7;
/// The beginning of a log file's name.
pub(crate) const LOG_PREFIX: &str = "supervisor";

/// What a starting supervisor finds.
#[derive(Debug)]
pub(crate) enum Place {
    /// Free, and held from now on.
    Ours(Lock),
    /// Another supervisor of this profile runs.
    Taken,
}

/// The lock that says who supervises a profile; ends with the process, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes the profile's place, unless another process has it and answers. One that is dying may
/// hold the lock a moment longer than its socket.
pub(crate) fn take_place(paths: &Paths) -> Result<Place, Problem> {
    let until = Instant::now() + DYING_LIMIT;
    loop {
        let place = try_place(paths)?;
        let endpoint = paths.endpoint();
        let answers = || endpoint.sockets().any(|path| StdUnixStream::connect(path).is_ok());
        if matches!(place, Place::Ours(_)) || answers() || Instant::now() >= until {
            return Ok(place);
        }
        std::thread::sleep(DYING_LOOK);
    }
}

fn try_place(paths: &Paths) -> Result<Place, Problem> {
    crate::config::file::make_folder(&paths.own())?;
    let path = paths.own().join("supervisor.pid");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|error| wrong(&path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(Place::Taken),
        Err(fs::TryLockError::Error(error)) => return Err(wrong(&path, &error)),
    }
    let note = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    note.map_err(|error| wrong(&path, &error))?;
    Ok(Place::Ours(Lock { _file: file }))
}

/// Leaves the starter's process session, so that neither its end nor its terminal reaches us, and
/// keeps what it writes to itself.
pub(crate) fn detach() {
    // Fails only for a process that leads its session already, which is as good.
    let _leader = nix::unistd::setsid();
    // Whatever file is made here, by a library as well, is its owner's alone.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

/// Allows this process as many open files as the system lets it have: each connection takes one.
fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        // macOS grants no more than this, whatever its hard limit says.
        let most = if cfg!(target_os = "macos") { hard.min(OPEN_FILES_MACOS) } else { hard };
        setrlimit(Resource::RLIMIT_NOFILE, most.max(soft), hard)
    });
    if let Err(error) = raised {
        debug!(%error, "the limit of open files stays");
    }
}

/// Opens the log of this profile: one file a day.
pub(crate) fn log_file(paths: &Paths) -> Result<RollingFileAppender, Problem> {
    let folder = paths.logs();
    crate::config::file::make_folder(&folder)?;
    RollingFileAppender::builder()
        .rotation(Rotation::DAILY)
        .filename_prefix(LOG_PREFIX)
        .filename_suffix("log")
        .max_log_files(LOGS_KEPT)
        .build(&folder)
        .map_err(|error| Problem::new(Class::Config, format!("{}: {error}", folder.display())))
}

/// What a supervisor takes up when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every saved remote that the user wants up.
    Wanted,
    /// Only what it is told.
    Told,
}

/// Runs the supervisor until it is told to end or nothing is wanted of it. `ready` is called once
/// commands can connect.
pub(crate) async fn run(
    paths: &Paths,
    lock: Lock,
    scope: Scope,
    ready: impl FnOnce(),
) -> Result<(), Problem> {
    raise_open_files();
    let mut doors = Doors::open(paths)?;
    let supervisor = Supervisor::new(paths.clone());
    let signals = Signals::new()?;
    info!(pid = std::process::id(), "supervisor started");
    ready();
    if scope == Scope::Wanted
        && let Err(problem) = supervisor.resume().await
    {
        // The commands read the same files and say it to a person.
        warn!(class = ?problem.class, "the saved remotes were not taken up");
    }
    let ending = supervisor.ending.clone();
    let watch = async {
        signals.first().await;
        info!("asked to end by a signal");
        ending.cancel();
    };
    tokio::select! {
        () = supervisor.serve(&mut doors) => {}
        () = async { watch.await; std::future::pending().await } => {}
    }
    // The socket goes before the lock: whoever finds the place free finds no stale socket.
    doors.close();
    let _late = timeout(END_LIMIT, end(supervisor)).await;
    drop(lock);
    info!("supervisor ended");
    Ok(())
}

async fn end(supervisor: Arc<Supervisor>) {
    supervisor.end_all().await;
}

struct Signals {
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self, Problem> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Problem::new(Class::Internal, format!("listening for signals: {error}"))
            })
        };
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn first(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

pub(super) fn wrong(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Class::Config, format!("{}: {error}", path.display()))
        .fix("make the state directory yours and writable, or set OPENCLAW_STATE_DIR")
}
