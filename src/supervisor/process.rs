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
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tracing::{info, warn};
use tracing_appender::rolling::{RollingFileAppender, Rotation};

use super::{door::Doors, herald::Herald, server::Supervisor};
use crate::{
    config::Paths,
    control::{Connection, Request, Start},
    problem::{Class, Problem},
};

/// How long the end may take.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How long another supervisor may hold the lock without answering: starting or dying.
const DYING_LIMIT: Duration = Duration::from_secs(5);
/// How long a supervisor in the background may take to make place for a service.
const YIELD_LIMIT: Duration = Duration::from_secs(15);
/// Between two looks at it.
const DYING_LOOK: Duration = Duration::from_millis(10);
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

/// As [`take_place`], and has a supervisor in the background end for it; class `config` if a
/// service has the place.
pub(crate) async fn take_over(paths: &Paths) -> Result<Lock, Problem> {
    let until = Instant::now() + YIELD_LIMIT;
    loop {
        if let Place::Ours(lock) = take_place(paths)? {
            return Ok(lock);
        }
        if Instant::now() >= until {
            return Err(Problem::new(
                Class::Internal,
                "the supervisor in the background does not end",
            )
            .fix("openclaw remote logs"));
        }
        if let Some(mut other) = Connection::dial(&paths.endpoint(), Start::Never).await? {
            other.request(Request::Yield).await?;
            other.done().await?;
        }
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
    /// Only what it is told: the one remote of a foreground supervisor. Ends when that needs a
    /// person.
    Told,
    /// As `Wanted`, under a service manager: stays when nothing is wanted, and ends when the file
    /// of the remotes is broken.
    Service,
}

/// Runs the supervisor until it is told to end or nothing is wanted of it. `ready` is called once
/// commands can connect.
pub(crate) async fn run(
    paths: &Paths,
    lock: Lock,
    scope: Scope,
    ready: impl FnOnce(),
) -> Result<(), Problem> {
    let mut doors = Doors::open(paths)?;
    let supervisor = Supervisor::new(paths.clone(), scope);
    let signals = Signals::new()?;
    info!(pid = std::process::id(), "supervisor started");
    ready();
    let outcome = work(&supervisor, scope, &mut doors, signals).await;
    // The socket goes before the lock: whoever finds the place free finds no stale socket.
    doors.close();
    let _late = timeout(END_LIMIT, end(supervisor)).await;
    drop(lock);
    info!("supervisor ended");
    outcome
}

/// Serves until the end is asked for, or going on is of no use.
async fn work(
    supervisor: &Arc<Supervisor>,
    scope: Scope,
    doors: &mut Doors,
    signals: Signals,
) -> Result<(), Problem> {
    match if scope == Scope::Told { Ok(()) } else { supervisor.resume().await } {
        Err(problem) if scope == Scope::Service => return Err(problem),
        // The commands read the same files and say it to a person.
        Err(problem) => warn!(class = ?problem.class, "the saved remotes were not taken up"),
        Ok(()) => {}
    }
    let herald = Herald::default();
    let hopeless = async {
        match scope {
            Scope::Wanted => std::future::pending().await,
            Scope::Told | Scope::Service => herald.run(supervisor).await,
        }
    };
    let Signals { mut terminate, mut interrupt, hangup } = signals;
    let asked_to_end = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("asked to end by a signal");
        supervisor.ending.cancel();
        std::future::pending().await
    };
    let outcome = tokio::select! {
        () = supervisor.serve(doors) => Ok(()),
        problem = hopeless => Err(problem),
        () = asked_to_end => Ok(()),
        () = reload(supervisor, &herald, hangup) => Ok(()),
    };
    herald.stopping();
    outcome
}

/// Takes up what was edited, at each hangup.
async fn reload(supervisor: &Supervisor, herald: &Herald, hangup: Option<Signal>) {
    let Some(mut hangup) = hangup else { return std::future::pending().await };
    while hangup.recv().await.is_some() {
        herald.reloading();
        supervisor.reload().await;
        herald.reloaded();
    }
}

async fn end(supervisor: Arc<Supervisor>) {
    supervisor.end_all().await;
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// Asks for a reload; on a terminal it means what it always means, the end.
    hangup: Option<Signal>,
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
            hangup: File::open("/dev/tty")
                .is_err()
                .then(|| listen(SignalKind::hangup()))
                .transpose()?,
        })
    }
}

pub(super) fn wrong(path: &Path, error: &io::Error) -> Problem {
    Problem::new(Class::Config, format!("{}: {error}", path.display()))
        .fix("make the state directory yours and writable, or set OPENCLAW_STATE_DIR")
}
