//! The control socket's server end: requests in, the remotes at work behind them.

use std::{
    collections::HashMap,
    os::unix::net::UnixStream as StdUnixStream,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use serde_json::Value;
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot, watch},
    task::JoinSet,
    time::{sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    Scope,
    account::Scribe,
    connecting::Ask,
    dialer::{self, Way},
    door::Doors,
    handover::{self, Estate, Pool, Word},
    incoming::{Incoming, Local},
    lane::{Command, Limits, hopeless},
    lock::locked,
    metrics::Exporter,
    place::Lock,
    program::Program,
    remote::{self, Remote},
    token,
    unstarted::Unstarted,
    watch::{Wake, Watch},
};
use crate::{
    config::{self, Kind, OpenClaw, Paths, Remotes, check_name},
    control::{self, Call, Edition, Reply, Request},
    history::{Book, Happening},
    meeting::{Greeting, Party},
    problem::{Class, Problem},
};

/// Commands that may be connected at once.
const COMMANDS_MOST: usize = 256;
/// How long a command may take to say what it wants: less than one that comes after it waits.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(3);
/// Within which the supervisor ends when nobody wants anything of it.
const IDLE_LIMIT: Duration = Duration::from_secs(60);
/// The name of the remote that stands in `openclaw.json`.
pub(super) const CONFIGURED: &str = "config";

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
    program: Program,
    foreground: bool,
    /// What it takes up, and when it ends by itself.
    pub(super) scope: Scope,
    /// Counts the changes of the set of remotes.
    pub(super) roster: watch::Sender<u64>,
    /// Asks the loop that takes commands whether it runs.
    pub(super) pulses: mpsc::Sender<oneshot::Sender<()>>,
    asked: Mutex<Option<mpsc::Receiver<oneshot::Sender<()>>>>,
    /// Newcomers that ask for our place.
    newcomers: (mpsc::Sender<Newcomer>, Mutex<Option<mpsc::Receiver<Newcomer>>>),
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

/// What a command may say first.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum First {
    HandOver(handover::Call),
    Call(Call),
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
            roster: watch::Sender::new(0),
            pulses,
            asked: Mutex::new(Some(asked)),
            newcomers: (newcomers, Mutex::new(Some(receiver))),
        })
    }

    /// Saves the port that the server will choose for a published gateway, once it has.
    pub(super) async fn keep_choice(&self, name: &str, remote: &Arc<Remote>) {
        let (paths, name, mut state) = (self.paths.clone(), name.to_owned(), remote.watch());
        self.retiring.lock().await.spawn(async move {
            // A lane that ends before has no choice to keep.
            let Ok(port) = state.wait_for(|state| state.port.is_some()).await.map(|it| it.port)
            else {
                return;
            };
            let kept = Remotes::update(&paths, |remotes| {
                let saved = remotes.remotes.get_mut(&name);
                if let Some(saved) = saved.filter(|it| it.remote_port == 0) {
                    saved.remote_port = port.unwrap_or(0);
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
        Arc::new(Remote::new(name, definition, way, &self.limits, scribe))
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
        let mut starting = JoinSet::new();
        loop {
            let next = locked(&self.unstarted).next().filter(|_| starting.is_empty());
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
                    starting.spawn(Arc::clone(self).start_again());
                }
                Some(_) = starting.join_next() => {}
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
                        self.on_wake(wake).await;
                    }
                    if let Some(up) = notice.network {
                        self.on_network(up).await;
                    }
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
    }

    async fn on_wake(&self, wake: Wake) {
        let slept = match wake {
            Wake::Slept(time) => {
                info!(seconds = time.as_secs(), "woke");
                let ms = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                self.book.note(Happening::Slept { ms });
                time
            }
            Wake::Continued => {
                info!("woke after a short stop");
                self.book.note(Happening::Continued);
                Duration::ZERO
            }
            Wake::Told => {
                info!("woke, as logind says");
                self.book.note(Happening::Woke);
                Duration::ZERO
            }
        };
        for remote in self.at_work() {
            remote.woke(slept).await;
        }
    }

    async fn on_network(&self, up: bool) {
        info!(up, "the machine's routes or addresses changed");
        self.book.note(Happening::Network { up });
        if up {
            locked(&self.unstarted).hasten(Instant::now());
        }
        for remote in self.at_work() {
            remote.network(up).await;
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

    /// Serves one command.
    async fn attend(self: Arc<Self>, mut stream: UnixStream) {
        let own = nix::unistd::getuid().as_raw();
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == own => {}
            Ok(peer) => {
                warn!(uid = peer.uid(), "another user's command was turned away");
                return;
            }
            Err(error) => {
                warn!(%error, "a command's user is unknown; it was turned away");
                return;
            }
        }
        if control::write(&mut stream, &self.greeting()).await.is_err() {
            return;
        }
        let first = timeout(REQUEST_LIMIT, control::read::<First>(&mut stream)).await;
        match first {
            Ok(Ok(First::HandOver(call))) => {
                // Of two that ask at once the second finds the first in our place.
                let _busy = self.newcomers.0.try_send((stream, call));
            }
            Ok(Ok(First::Call(call))) => {
                if let Some(agent) = call.agent {
                    *locked(&self.agent) = Some(agent);
                }
                self.answer(stream, call.request).await;
            }
            Ok(Err(error)) => debug!(%error, "what a command said makes no sense"),
            Err(_) => debug!("a command said nothing"),
        }
    }

    fn greeting(&self) -> Greeting {
        let Party { version, program, .. } = Party::own(self.foreground);
        let (pid, replaced) = (std::process::id(), self.program.is_replaced());
        Greeting { version, pid, program, replaced, foreground: self.foreground }
    }

    async fn answer(self: &Arc<Self>, mut stream: UnixStream, request: Request) {
        if self.moved.is_cancelled() {
            return say(&mut stream, Reply::Moved).await;
        }
        let reply = match request {
            Request::Connect { name, definition, batch, make_default, timeout_ms } => {
                let limit = Duration::from_millis(timeout_ms);
                let ask = Ask { name, definition, batch, make_default, limit };
                return self.connect(stream, ask).await;
            }
            Request::Open { name, edition, timeout_ms } => {
                let limit = Duration::from_millis(timeout_ms);
                return self.open(stream, &name, edition, limit).await;
            }
            Request::Status { name } => {
                self.statuses(name.as_deref()).map(|remotes| Reply::Statuses { remotes })
            }
            Request::Watch { name } => {
                return self.accompany_watcher(stream, name.as_deref()).await;
            }
            Request::Metrics { address, keep } => {
                self.answer_scrapes(address, keep).await.map(|()| Reply::Done)
            }
            Request::Resume { name } => self.take_up(&name).await.map(|()| Reply::Done),
            Request::Disconnect { name } => self.disconnect(&name).await.map(|()| Reply::Done),
            Request::Remove { name } => self.remove(&name).await.map(|()| Reply::Done),
            Request::Rename { name, to } => self.rename(&name, &to).await.map(|()| Reply::Done),
            Request::FetchToken { name } => self.fetch_token(&name).await,
            Request::Stop => {
                info!("told to end");
                self.ending.cancel();
                Ok(Reply::Done)
            }
        };
        say(&mut stream, reply.unwrap_or_else(|problem| self.failed(problem))).await;
    }

    /// The answer that something was not done; whoever took over may do it.
    pub(super) fn failed(&self, problem: Problem) -> Reply {
        if self.moved.is_cancelled() { Reply::Moved } else { Reply::Failed(problem) }
    }

    /// The right to change the set of remotes; nobody has it once another supervisor has them.
    pub(super) async fn change(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Problem> {
        let changing = self.changing.lock().await;
        if self.moved.is_cancelled() {
            return Err(Problem::new(Class::Internal, "another supervisor has taken over"));
        }
        Ok(changing)
    }

    pub(super) fn statuses(&self, name: Option<&str>) -> Result<Vec<Value>, Problem> {
        let saved = Remotes::load(&self.paths)?;
        let is_default = |name: &str| saved.default.as_deref() == Some(name);
        let mut names: Vec<String> = saved.remotes.keys().cloned().collect();
        let running = locked(&self.remotes);
        names.extend(running.keys().cloned());
        names.sort();
        names.dedup();
        if let Some(name) = name {
            if !names.iter().any(|known| known == name) {
                drop(running);
                let definition = saved.named_or_configured(&self.paths, name)?;
                let unstarted = Unstarted::default();
                return Ok(vec![remote::resting(name, &definition, is_default(name), &unstarted)]);
            }
            names.retain(|known| known == name);
        }
        let unstarted = locked(&self.unstarted);
        Ok(names
            .iter()
            .filter_map(|name| match (running.get(name), saved.remotes.get(name)) {
                (Some(remote), _) => Some(remote.status(is_default(name))),
                (None, Some(definition)) => {
                    Some(remote::resting(name, definition, is_default(name), &unstarted))
                }
                (None, None) => None,
            })
            .collect())
    }

    /// The remote at work called `name`; one on trial comes first.
    async fn find(&self, name: &str, edition: Edition) -> Result<Arc<Remote>, Problem> {
        if edition == Edition::Trial
            && let Some((trial, _)) = locked(&self.trials).get(name)
        {
            return Ok(Arc::clone(trial));
        }
        let at_work = || locked(&self.remotes).get(name).map(Arc::clone);
        // What is at work need not wait for another remote's slow start.
        if let Some(remote) = at_work() {
            return Ok(remote);
        }
        let _changing = self.change().await?;
        if let Some(remote) = at_work() {
            return Ok(remote);
        }
        let failed = {
            let unstarted = locked(&self.unstarted);
            unstarted.problem(name).cloned().map(|problem| (problem, unstarted.may_pass(name)))
        };
        if let Some((problem, may_pass)) = failed {
            // Somebody waits: the next look is now.
            return match self.unstarted_one(name)? {
                Some(definition) if may_pass => self.start(name, definition).await,
                Some(_) | None => Err(problem),
            };
        }
        let saved = Remotes::load(&self.paths)?;
        if name == CONFIGURED && !saved.remotes.contains_key(name) {
            let definition = configured(&self.paths)?;
            return self.start(name, definition).await;
        }
        saved.named(name)?;
        Err(Problem::new(Class::Unreachable, format!("the remote `{name}` is disconnected"))
            .fix(format!("openclaw remote connect {name}")))
    }

    /// Makes the connection a stream to the remote's gateway.
    async fn open(&self, mut stream: UnixStream, name: &str, edition: Edition, limit: Duration) {
        let remote = match self.find(name, edition).await {
            Ok(remote) => remote,
            Err(problem) => return say(&mut stream, self.failed(problem)).await,
        };
        if remote.kind() == Kind::Exposed {
            return say(&mut stream, Reply::Failed(config::leads_nowhere(name))).await;
        }
        if let Some(problem) = hopeless(&remote.state()) {
            return say(&mut stream, Reply::Failed(problem)).await;
        }
        let until = Instant::now() + limit;
        remote.tell(Command::Open(Incoming::new(Local::Command(stream), until))).await;
    }

    async fn take_up(&self, name: &str) -> Result<(), Problem> {
        let _changing = self.change().await?;
        if locked(&self.remotes).contains_key(name) {
            return Ok(());
        }
        let definition = self.save(|remotes| {
            remotes.named(name)?;
            let remote = remotes.remotes.get_mut(name);
            Ok(remote.map(|remote| {
                remote.wanted = true;
                remote.clone()
            }))
        })?;
        if let Some(definition) = definition {
            self.start(name, definition).await?;
        }
        Ok(())
    }

    /// Refuses to change a remote on trial: the trial counts on the ports of the one at work, and
    /// would bring back what is gone.
    pub(super) fn check_no_trial(&self, name: &str) -> Result<(), Problem> {
        if locked(&self.trials).contains_key(name) {
            return Err(Problem::new(
                Class::Usage,
                format!("a `remote connect` of `{name}` is under way"),
            )
            .fix("wait for it, or end it"));
        }
        Ok(())
    }

    async fn disconnect(&self, name: &str) -> Result<(), Problem> {
        let _changing = self.change().await?;
        self.check_no_trial(name)?;
        let running = locked(&self.remotes).remove(name);
        locked(&self.unstarted).forget(name);
        if running.is_none() || name != CONFIGURED {
            self.save(|remotes| {
                remotes.named(name)?;
                if let Some(remote) = remotes.remotes.get_mut(name) {
                    remote.wanted = false;
                }
                Ok(())
            })?;
        }
        self.tell_roster();
        if let Some(remote) = running {
            if let Some(port) = remote.port() {
                self.tell_predecessors(Word::EndPort { port });
            }
            remote.end().await;
            remote.scribe.note(Happening::Disconnected);
            info!(remote = name, "disconnected");
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<(), Problem> {
        self.disconnect(name).await?;
        self.save(|remotes| {
            remotes.remotes.remove(name);
            if remotes.default.as_deref() == Some(name) {
                remotes.default = None;
            }
            Ok(())
        })?;
        config::Credentials::update(&self.paths, |credentials| {
            credentials.remotes.remove(name);
            Ok(())
        })
    }

    async fn rename(&self, name: &str, to: &str) -> Result<(), Problem> {
        check_name(to)?;
        let _changing = self.change().await?;
        self.check_no_trial(name)?;
        self.check_no_trial(to)?;
        self.save(|remotes| {
            remotes.named(name)?;
            if remotes.remotes.contains_key(to) {
                return Err(Problem::new(
                    Class::Usage,
                    format!("a remote is called `{to}` already"),
                ));
            }
            let definition = remotes.remotes.remove(name);
            remotes.remotes.extend(definition.map(|remote| (to.to_owned(), remote)));
            if remotes.default.as_deref() == Some(name) {
                remotes.default = Some(to.to_owned());
            }
            Ok(())
        })?;
        config::Credentials::update(&self.paths, |credentials| {
            let credential = credentials.remotes.remove(name);
            credentials.remotes.extend(credential.map(|c| (to.to_owned(), c)));
            Ok(())
        })?;
        info!(remote = name, to, "renamed");
        let mut remotes = locked(&self.remotes);
        if let Some(remote) = remotes.remove(name) {
            remote.rename(to);
            remotes.insert(to.to_owned(), remote);
        }
        drop(remotes);
        self.tell_roster();
        locked(&self.unstarted).rename(name, to);
        Ok(())
    }

    pub(super) fn save<T>(
        &self,
        change: impl FnOnce(&mut Remotes) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        Remotes::update(&self.paths, change)
    }

    /// Reads the far gateway's token over the login.
    async fn fetch_token(&self, name: &str) -> Result<Reply, Problem> {
        let remote = self.find(name, Edition::Trial).await?;
        if remote.kind() == Kind::Exposed {
            return Err(config::leads_nowhere(name));
        }
        let (answer, link) = oneshot::channel();
        remote.tell(Command::Session(answer)).await;
        let link = link.await.ok().flatten().ok_or_else(|| {
            Problem::new(Class::Unreachable, format!("the remote `{name}` is not live"))
                .fix(format!("openclaw remote status {name}"))
        })?;
        token::fetch(link.as_ref()).await
    }
}

/// Writes the last reply; a command that is gone does not need it.
pub(super) async fn say(stream: &mut (impl tokio::io::AsyncWrite + Unpin), reply: Reply) {
    if let Err(error) = control::write(stream, &reply).await {
        debug!(%error, "a command went away before its answer");
    }
}

/// The remote of `gateway.remote` in `openclaw.json`.
pub(super) fn configured(paths: &Paths) -> Result<config::Remote, Problem> {
    OpenClaw::load(paths)?.remote_definition()
}

/// The same for a remote at work: `None` if the file names none, an error if it cannot be read.
pub(super) fn still_configured(paths: &Paths) -> Result<Option<config::Remote>, Problem> {
    match configured(paths) {
        Ok(definition) => Ok(Some(definition)),
        Err(problem) if problem.class == Class::Usage => Ok(None),
        Err(problem) => Err(problem),
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
