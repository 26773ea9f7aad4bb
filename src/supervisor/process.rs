//! The supervisor as a process: one a profile, detached, with its lock, socket and log.

use std::{future::pending, io, path::Path, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    door::Doors,
    handover::Word,
    herald::Herald,
    place::{Seat, confirm},
    server::{Served, Supervisor},
    starting::wanted,
    wake::Clocks,
};
use crate::{
    config::Paths,
    history::{Book, Happening},
    logfile::{self, DayFile, PlainLines, Writer},
    problem::{Class, Problem},
};

/// How long the end may take.
const END_LIMIT: Duration = Duration::from_secs(5);
/// The beginning of a log file's name.
pub(crate) const LOG_PREFIX: &str = "supervisor.";

/// Leaves the starter's process session, so that neither its end nor its terminal reaches us, and
/// keeps what it writes to itself.
pub(crate) fn detach() {
    // Fails only for a process that leads its session already, which is as good.
    let _leader = nix::unistd::setsid();
    // Whatever file is made here, by a library as well, is its owner's alone.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
}

/// Begins the log of one profile, a file a day: where its lines are handed in, and who writes them,
/// those before a panic as well, which is said in the lines of `console` too.
pub(crate) fn begin_log(
    paths: &Paths,
    console: Option<&PlainLines>,
) -> Result<(PlainLines, Writer), Problem> {
    let folder = paths.logs();
    crate::config::file::make_folder(&folder)?;
    let mut file = DayFile::new(&folder, LOG_PREFIX);
    // A tunnel needs no log; what is logged is lost until the folder can be written. A disk that does
    // not answer later holds up the log alone, and no stream.
    if let Err(error) = file.check()
        && error.kind() != io::ErrorKind::ReadOnlyFilesystem
    {
        return Err(wrong(&folder, &error));
    }
    let (lines, writer) = logfile::open_plain(file).map_err(|error| no_thread(&error))?;
    writer.outlive_panics(console);
    Ok((lines, writer))
}

/// The system gives no thread to the log.
fn no_thread(error: &io::Error) -> Problem {
    Problem::new(Class::Internal, format!("cannot start the thread that writes the log: {error}"))
        .fix("end some programs of this user, or let it have more: ulimit -u; then the same again")
}

/// What a supervisor takes up when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every saved remote that the user wants up.
    Wanted,
    /// Only what it is told: the one remote of a foreground supervisor. Ends when that needs a
    /// person.
    Told,
    /// As `Wanted`, under a service manager: stays when nothing is wanted, and does not begin when
    /// the file of the remotes is broken.
    Service,
}

/// How a supervisor ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It was told to, or nothing was wanted of it.
    Done,
    /// Another one has its place.
    Moved,
}

/// Runs the supervisor until it is told to end or nothing is wanted of it, or until its streams
/// have ended after another one took its place. `ready` is called once commands can connect.
pub(crate) async fn run(
    paths: &Paths,
    seat: Seat,
    scope: Scope,
    ready: impl FnOnce(),
) -> Result<Ended, Problem> {
    let Seat { lock, mut estate } = seat;
    let wanted = match wanted(paths, scope, &estate.remotes) {
        Ok(wanted) => wanted,
        // What works stays with whoever has it.
        Err(problem) if scope == Scope::Service || estate.has_owner() => return Err(problem),
        Err(problem) => {
            // The commands read the same files and say it to a person.
            warn!(class = ?problem.class, "the saved remotes were not taken up");
            Vec::new()
        }
    };
    let Signals { mut terminate, mut interrupt, hangup } = Signals::new()?;
    let mut doors = Doors::open(paths, std::mem::take(&mut estate.doors))?;
    // Up to this word the predecessor keeps everything, and takes its place back if we fail.
    let mut lock = confirm(&estate, lock)?;
    let inherited = estate.remotes.len();
    let book = Arc::new(open_book(paths, estate.predecessor.is_some()));
    let supervisor = Supervisor::new(paths.clone(), estate, scope, Arc::clone(&book));
    info!(pid = std::process::id(), inherited, "supervisor started");
    ready();
    let ending = supervisor.ending.clone();
    let watch = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("asked to end by a signal");
        ending.cancel();
        pending::<()>().await;
    };
    tokio::pin!(watch);
    let taking_up = async {
        // Side by side: whoever scrapes need not wait for a slow configuration.
        tokio::join!(supervisor.resume(wanted), supervisor.resume_scrapes());
        pending::<Served>().await
    };
    let herald = Herald::default();
    let (served, hopeless) = tokio::select! {
        // What is wanted is known before the first command asks.
        biased;
        never = taking_up => (never, None),
        served = supervisor.serve(&mut doors, &mut lock) => (served, None),
        problem = herald.run(&supervisor), if scope != Scope::Wanted => {
            (Served::Ended, Some(problem))
        }
        () = reload(&supervisor, &herald, hangup) => (Served::Ended, None),
        () = &mut watch => return Err(Problem::new(Class::Internal, "the signals ended")),
    };
    let is_service = scope != Scope::Wanted;
    let ended = match served {
        Served::Ended => {
            if is_service {
                herald.stopping();
            }
            // The socket goes before the lock: whoever finds the place free finds no stale socket.
            doors.close();
            supervisor.tell_predecessors(Word::End);
            Ended::Done
        }
        Served::Moved { successor, commands } => {
            drop((doors, lock));
            info!("handed over; what is open drains");
            // Their files and their port are the successor's.
            supervisor.end_scrapes().await;
            close(&book).await;
            tokio::select! {
                () = supervisor.drain(successor, commands) => {}
                // Polled for the signal, which cancels what the last arm waits for.
                () = &mut watch => {}
                () = supervisor.ending.cancelled() => {}
                // The end begins for the service manager, and its limit runs, only after that.
                never = herald.outlast(), if is_service => match never {},
            }
            if is_service {
                herald.stopping();
            }
            Ended::Moved
        }
    };
    let _late = timeout(END_LIMIT, supervisor.end_all()).await;
    book.note(Happening::Ended);
    close(&book).await;
    info!("supervisor ended");
    hopeless.map_or(Ok(ended), Err)
}

/// Takes up what was edited, at each hangup.
async fn reload(supervisor: &Supervisor, herald: &Herald, hangup: Option<Signal>) {
    let Some(mut hangup) = hangup else { return pending().await };
    while hangup.recv().await.is_some() {
        herald.reloading();
        supervisor.reload().await;
        herald.reloaded();
    }
}

/// The history of this profile; without a folder for it, in memory alone.
fn open_book(paths: &Paths, took_over: bool) -> Book {
    let folder = paths.logs();
    if let Err(problem) = crate::config::file::make_folder(&folder) {
        warn!(class = ?problem.class, "the history has no folder");
    }
    let book = Book::open(&folder);
    let booted = Clocks::read().booted().and_then(|at| jiff::Timestamp::try_from(at).ok());
    book.note_start(booted, took_over);
    book
}

/// Waits for the disk, for a second at most.
async fn close(book: &Arc<Book>) {
    let book = Arc::clone(book);
    let _written = tokio::task::spawn_blocking(move || book.close()).await;
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
            hangup: std::fs::File::open("/dev/tty")
                .is_err()
                .then(|| listen(SignalKind::hangup()))
                .transpose()?,
        })
    }
}

pub(super) fn wrong(path: &Path, error: &io::Error) -> Problem {
    crate::config::file::broken("cannot use", path, error)
}
