//! Everything at work, and the loop that takes commands in and tells what the machine does.

use std::{
    collections::HashMap,
    os::unix::net::UnixStream as StdUnixStream,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Scope,
    account::Scribe,
    dialer::{self, Way},
    door::Doors,
    handover::{self, Estate, Pool},
    lane::{Limits, State},
    lock::locked,
    metrics::Exporter,
    place::Lock,
    program::Program,
    remote::{Remote, Terms},
    surroundings::Surroundings,
    unstarted::Unstarted,
    watch::{Wake, Watch},
};
use crate::{
    config::{self, OpenClaw, Paths, Remotes},
    history::{Book, Happening},
    problem::Problem,
};

/// Commands that may be connected at once.
const COMMANDS_MOST: usize = 256;
/// Within which the supervisor ends when nobody wants anything of it.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// Everything at work.
pub(super) struct Supervisor {
    pub(super) paths: Paths,
    /// The last command's agent.
    pub(super) agent: Arc<Mutex<Option<PathBuf>>>,
    /// The bounds of all lanes, and what counts against them.
    pub(super) limits: Limits,
    /// Those at work. Whoever needs two of these locks at once takes them in the order in which they
    /// stand here: `remotes`, `trials`, `unstarted`.
    pub(super) remotes: Mutex<HashMap<String, Arc<Remote>>>,
    /// Remotes that are being connected and not yet kept, with how many commands wait for each.
    pub(super) trials: Mutex<HashMap<String, (Arc<Remote>, usize)>>,
    /// Why a saved remote could not be started.
    pub(super) unstarted: Mutex<Unstarted>,
    /// Remotes that others have taken the place of, while their streams end, and what else goes on
    /// beside the commands.
    pub(super) retiring: tokio::sync::Mutex<JoinSet<()>>,
    /// What has happened.
    pub(super) book: Arc<Book>,
    /// Who answers scrapes, if somebody shall.
    pub(super) exporter: Mutex<Option<Exporter>>,
    /// When it began.
    pub(super) started: SystemTime,
    /// The names of which a `remote connect` is under way, one entry for each command.
    pub(super) connects: Mutex<Vec<String>>,
    /// One change of the set of remotes at a time.
    pub(super) changing: tokio::sync::Mutex<()>,
    pub(super) ending: CancellationToken,
    /// Cancelled once another supervisor has our place.
    pub(super) moved: CancellationToken,
    /// Ports and connections of the predecessor that no remote has taken yet.
    pub(super) pool: Pool,
    /// Connections to it and to those before it, while they drain.
    pub(super) predecessors: Vec<StdUnixStream>,
    pub(super) program: Program,
    pub(super) foreground: bool,
    /// What it takes up, and when it ends by itself.
    pub(super) scope: Scope,
    /// What all remotes hear of the machine.
    surroundings: watch::Sender<Surroundings>,
    /// Counts the changes of the set of remotes.
    pub(super) roster: watch::Sender<u64>,
    /// Asks the loop that takes commands whether it runs.
    pub(super) pulses: mpsc::Sender<oneshot::Sender<()>>,
    asked: Mutex<Option<mpsc::Receiver<oneshot::Sender<()>>>>,
    /// Newcomers that ask for our place.
    pub(super) newcomers: (mpsc::Sender<Newcomer>, Mutex<Option<mpsc::Receiver<Newcomer>>>),
}

/// One that asks for our place, and whether it must have it.
type Newcomer = (UnixStream, handover::Call);

/// How serving ended.
pub(super) enum Served {
    /// For good.
    Ended,
    /// Another supervisor serves.
    Moved {
        /// The connection to it.
        successor: UnixStream,
        /// The commands that are still being answered.
        commands: JoinSet<()>,
    },
}

impl Supervisor {
    pub(super) fn new(paths: Paths, estate: Estate, scope: Scope, book: Arc<Book>) -> Arc<Self> {
        let (newcomers, receiver) = mpsc::channel(1);
        let (pulses, asked) = mpsc::channel(1);
        Arc::new(Self {
            paths,
            agent: Arc::new(Mutex::new(estate.agent)),
            limits: Limits::default(),
            remotes: Mutex::new(HashMap::new()),
            trials: Mutex::new(HashMap::new()),
            unstarted: Mutex::default(),
            retiring: tokio::sync::Mutex::default(),
            book,
            exporter: Mutex::new(None),
            started: SystemTime::now(),
            connects: Mutex::default(),
            changing: tokio::sync::Mutex::new(()),
            ending: CancellationToken::new(),
            moved: CancellationToken::new(),
            pool: estate.pool,
            predecessors: estate.predecessor.into_iter().chain(estate.former).collect(),
            program: Program::own(),
            foreground: scope != Scope::Wanted,
            scope,
            surroundings: watch::Sender::new(Surroundings::read()),
            roster: watch::Sender::new(0),
            pulses,
            asked: Mutex::new(Some(asked)),
            newcomers: (newcomers, Mutex::new(Some(receiver))),
        })
    }

    /// Saves the port that the server will choose for a published gateway, once it has; no more once
    /// it is a successor's to save.
    pub(super) async fn keep_choice(&self, name: &str, remote: &Arc<Remote>) {
        let (paths, name, state) = (self.paths.clone(), name.to_owned(), remote.watch());
        let (moved, ending) = (self.moved.clone(), self.ending.clone());
        self.retiring.lock().await.spawn(async move {
            let Some(port) = choice(state, &moved, &ending).await else { return };
            let kept = Remotes::update(&paths, |remotes| {
                let saved = remotes.remotes.get_mut(&name);
                // It may have taken a while to get the right to change the file.
                let is_ours =
                    |it: &&mut config::Remote| it.remote_port == 0 && !moved.is_cancelled();
                if let Some(saved) = saved.filter(is_ours) {
                    saved.remote_port = port;
                }
                Ok(())
            });
            if let Err(problem) = kept {
                warn!(%problem, "the port that the server chose was not saved");
            }
        });
    }

    /// The way to a remote.
    pub(super) async fn find_way(&self, definition: &config::Remote) -> Result<Way, Problem> {
        // A broken file is said by the commands that need it.
        let own_gateway = OpenClaw::load(&self.paths).map_or_else(
            |_| config::profile_port(self.paths.profile.as_deref()),
            |it| it.gateway.own_port(),
        );
        dialer::find(definition, Arc::clone(&self.agent), own_gateway).await
    }

    /// A remote whose way has been found.
    pub(super) fn make(&self, name: &str, definition: config::Remote, way: Way) -> Arc<Remote> {
        for left_out in &way.forwards.left_out {
            debug!(remote = name, left_out, "a forward of the ssh configuration is not made");
        }
        let scribe = Scribe::new(Arc::clone(&self.book), name);
        let surroundings = self.surroundings.subscribe();
        let terms = Terms { limits: &self.limits, scribe, surroundings };
        Arc::new(Remote::new(name, definition, way, terms))
    }

    /// Whether a saved remote other than `name` claims a local port.
    pub(super) fn is_reserved(&self, port: u16, name: &str) -> bool {
        let saved = Remotes::load(&self.paths).unwrap_or_default();
        saved.remotes.iter().any(|(other, remote)| other != name && remote.claims(port))
    }

    /// Serves commands until told to end, or until nothing has been wanted for a while, or until
    /// another supervisor has taken over.
    pub(super) async fn serve(self: &Arc<Self>, doors: &mut Doors, lock: &mut Lock) -> Served {
        let mut commands = JoinSet::new();
        let Some(mut newcomers) = locked(&self.newcomers.1).take() else { return Served::Ended };
        let Some(mut asked) = locked(&self.asked).take() else { return Served::Ended };
        let mut idle = Instant::now();
        let mut watch = Watch::start();
        // Remotes were taken up before.
        self.surroundings.send_modify(|it| it.begin(watch.is_up()));
        let mut starting = JoinSet::new();
        let mut roster = self.roster.subscribe();
        loop {
            let next = self.next_try().filter(|_| starting.is_empty());
            tokio::select! {
                accepted = doors.accept(), if commands.len() < COMMANDS_MOST => match accepted {
                    Ok(stream) => {
                        let supervisor = Arc::clone(self);
                        commands.spawn(async move { supervisor.attend(stream).await });
                    }
                    Err(error) => {
                        warn!(%error, "accepting a command failed");
                        sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_) = commands.join_next() => idle = Instant::now(),
                () = sleep_until(next.unwrap_or_else(Instant::now).into()), if next.is_some() => {
                    starting.spawn(Arc::clone(self).try_again());
                }
                Some(_) = starting.join_next() => {}
                // A remote that waits for something may have come.
                Ok(()) = roster.changed() => {}
                () = self.ending.cancelled() => break,
                Some(pulse) = asked.recv() => {
                    let _gone = pulse.send(());
                }
                Some((stream, call)) = newcomers.recv() => {
                    if let Some(successor) = self.hand_over(stream, call, doors, lock).await {
                        return Served::Moved { successor, commands };
                    }
                }
                notice = watch.next() => {
                    if notice.sleeps {
                        info!("the machine goes to sleep");
                        self.book.note(Happening::GoingToSleep);
                    }
                    if let Some(wake) = notice.woke {
                        self.note_wake(wake);
                    }
                    if let Some(up) = notice.network {
                        self.note_network(up);
                    }
                    self.surroundings.send_modify(|it| it.note(&notice));
                    if !lock.mend() {
                        warn!("another supervisor has this profile; this one ends");
                        break;
                    }
                    doors.mend();
                    let stays = self.scope == Scope::Service || self.is_wanted();
                    if stays || !commands.is_empty() {
                        idle = Instant::now();
                    } else if idle.elapsed() > IDLE_LIMIT {
                        info!("nothing is wanted; the supervisor ends");
                        break;
                    }
                }
            }
        }
        self.ending.cancel();
        Served::Ended
    }

    /// Ends everything at work, streams included.
    pub(super) async fn end_all(&self) {
        for remote in self.at_work() {
            remote.end().await;
        }
        locked(&self.remotes).clear();
        locked(&self.trials).clear();
    }

    fn is_wanted(&self) -> bool {
        !locked(&self.remotes).is_empty()
            || !locked(&self.trials).is_empty()
            || locked(&self.unstarted).is_hopeful()
            || self.pool.has_ports()
    }

    fn note_wake(&self, wake: Wake) {
        match wake {
            Wake::Slept(time) => {
                info!(seconds = time.as_secs(), "woke");
                let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                self.book.note(Happening::Slept { ms });
            }
            Wake::Continued => {
                info!("woke after a short stop");
                self.book.note(Happening::Continued);
            }
            Wake::Told => {
                info!("woke, as logind says");
                self.book.note(Happening::Woke);
            }
        }
    }

    fn note_network(&self, up: bool) {
        info!(up, "the machine's routes or addresses changed");
        self.book.note(Happening::Network { up });
        if up {
            locked(&self.unstarted).hasten(Instant::now());
        }
    }

    pub(super) fn at_work(&self) -> Vec<Arc<Remote>> {
        locked(&self.remotes).values().cloned().collect()
    }

    /// Those at work and those on trial.
    pub(super) fn everything(&self) -> Vec<Arc<Remote>> {
        let trials: Vec<_> =
            locked(&self.trials).values().map(|(trial, _)| Arc::clone(trial)).collect();
        self.at_work().into_iter().chain(trials).collect()
    }

    /// Tells whoever watches the set of remotes that it has changed.
    pub(super) fn tell_roster(&self) {
        self.roster.send_modify(|count| *count += 1);
    }
}

/// The port that a server chose; `None` once it is not ours to save, or if the lane ends before.
async fn choice(
    mut state: watch::Receiver<State>,
    moved: &CancellationToken,
    ending: &CancellationToken,
) -> Option<u16> {
    let chosen =
        async { state.wait_for(|state| state.port.is_some()).await.ok().and_then(|it| it.port) };
    tokio::select! {
        biased;
        () = moved.cancelled() => None,
        () = ending.cancelled() => None,
        port = chosen => port,
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
