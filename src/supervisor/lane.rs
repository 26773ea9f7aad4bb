//! One forward: its machine, its sessions, its waiting and its running streams.
//!
//! The lane is a task. It turns what happens into events, performs the machine's actions, and
//! publishes a [`State`]. Nothing here decides.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
    time::{sleep_until, timeout},
};
use tracing::{debug, info, warn};

use super::{
    incoming::{Incoming, Local},
    link::{Dial, Facts, Link, NotOpened},
    path::{Path, Report, Totals, clock},
    pump::{End, pump},
};
use crate::{
    client::{self, NotAnswered},
    problem::{Class, Problem},
    tunnel::{
        Action, Cause, Event, Failure, News, Number, Options, Phase, Probe, Proof, ProofKind,
        Tunnel, Wish,
    },
};

/// Connections that may wait for a path.
const HELD_MOST: usize = 256;
/// Reports that may wait for the lane.
const REPORTS: usize = 1024;
/// How long a probe may take before the machine has long gone on without it.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// How long a stream may take to be opened.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// How long a ping is listened for.
const PING_LIMIT: Duration = Duration::from_secs(120);

/// Where a lane's streams go, as the far side sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) host: String,
    pub(super) port: u16,
}

/// What a lane is told from outside.
pub(super) enum Command {
    /// What the user wants of it.
    Wish(Wish),
    /// The machine woke.
    Woke,
    /// The machine's addresses changed.
    Network {
        /// Whether it has any.
        up: bool,
    },
    /// A stream is wanted.
    Open(Incoming),
    /// Answer once all that was said before has had its effect on the state.
    Settle(oneshot::Sender<()>),
    /// Run a command over the session that serves, and answer with it.
    Session(oneshot::Sender<Option<Arc<dyn Link>>>),
}

/// The last time the path was away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outage {
    /// What was noticed.
    pub(super) cause: String,
    /// The last sign of life before.
    pub(super) started: SystemTime,
    /// From there until it was noticed.
    pub(super) detected: Duration,
    /// From noticing until a path served again; `None` while it lasts.
    pub(super) restored: Option<Duration>,
}

/// What a lane publishes.
#[derive(Debug, Clone)]
pub(super) struct State {
    pub(super) phase: Phase,
    pub(super) since: SystemTime,
    /// What the attempt is at.
    pub(super) stage: String,
    pub(super) proof: Option<Proof>,
    pub(super) failure: Option<Failure>,
    pub(super) attempts: u64,
    pub(super) reconnects: u64,
    pub(super) held: usize,
    pub(super) outage: Option<Outage>,
    pub(super) facts: Option<Facts>,
}

/// The handle of a lane; dropping it ends the lane with everything in it.
pub(super) struct Lane {
    pub(super) commands: mpsc::Sender<Command>,
    /// Accepted connections go here.
    pub(super) accepted: mpsc::Sender<TcpStream>,
    pub(super) state: watch::Receiver<State>,
    pub(super) totals: Arc<Totals>,
    _task: JoinSet<()>,
}

impl Lane {
    /// Starts a lane that nobody wants up yet. `hold` is how long a connection may wait.
    pub(super) fn start(
        span: tracing::Span,
        options: Options,
        destination: Destination,
        hold: Duration,
        dialer: Arc<dyn Dial>,
    ) -> Self {
        let (commands, command_receiver) = mpsc::channel(64);
        let (accepted, accepted_receiver) = mpsc::channel(64);
        let (state_sender, state) = watch::channel(State {
            phase: Phase::Down,
            since: SystemTime::now(),
            stage: String::new(),
            proof: None,
            failure: None,
            attempts: 0,
            reconnects: 0,
            held: 0,
            outage: None,
            facts: None,
        });
        let totals = Arc::new(Totals::default());
        let (news, reports) = mpsc::channel(REPORTS);
        let (inner, messages) = mpsc::channel(REPORTS);
        let actor = Actor {
            tunnel: Tunnel::new(options),
            proof: options.proof,
            destination,
            hold,
            dialer,
            sessions: HashMap::new(),
            serving: None,
            held: VecDeque::new(),
            told: 0,
            news,
            inner,
            state: state_sender,
            totals: Arc::clone(&totals),
            tasks: JoinSet::new(),
            lost: None,
            served_before: false,
        };
        let mut task = JoinSet::new();
        let run = actor.run(command_receiver, accepted_receiver, reports, messages);
        task.spawn(tracing::Instrument::instrument(run, span));
        Self { commands, accepted, state, totals, _task: task }
    }

    /// Tells the lane something; a lane that has ended hears nothing.
    pub(super) async fn tell(&self, command: Command) {
        let _ended = self.commands.send(command).await;
    }

    /// Waits until the state shows what the lane was told.
    pub(super) async fn settle(&self) {
        let (settled, done) = oneshot::channel();
        self.tell(Command::Settle(settled)).await;
        // A lane that has ended has settled for good.
        let _ended = done.await;
    }
}

/// What a lane's own tasks tell it.
enum Message {
    Dialled(Number, Result<Arc<dyn Link>, Failure>),
    Stage(Number, String),
    Back(Incoming),
}

enum Session {
    Dialling { task: AbortHandle, draining: bool },
    Up(Arc<Path>, AbortHandle),
}

struct Actor {
    tunnel: Tunnel,
    /// Whether it is the gateway's lane, or that of a further forward.
    proof: ProofKind,
    destination: Destination,
    hold: Duration,
    dialer: Arc<dyn Dial>,
    sessions: HashMap<Number, Session>,
    serving: Option<Number>,
    held: VecDeque<Incoming>,
    /// How many held connections the machine knows of.
    told: usize,
    news: mpsc::Sender<Report>,
    inner: mpsc::Sender<Message>,
    state: watch::Sender<State>,
    totals: Arc<Totals>,
    tasks: JoinSet<()>,
    /// When the path was lost, while it is.
    lost: Option<Instant>,
    served_before: bool,
}

impl Actor {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut accepted: mpsc::Receiver<TcpStream>,
        mut reports: mpsc::Receiver<Report>,
        mut messages: mpsc::Receiver<Message>,
    ) {
        loop {
            let deadline = self.deadline();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some(stream) = accepted.recv() => {
                    let until = clock() + self.hold;
                    self.admit(Incoming::new(Local::Tcp(stream), until));
                }
                Some((number, news)) = reports.recv() => self.on_report(number, news),
                Some(message) = messages.recv() => self.on_message(message),
                Some(_) = self.tasks.join_next() => {}
                () = sleep_until(deadline.into()) => self.on_deadline(),
            }
        }
    }

    /// The machine's deadline or the end of the first wait, whichever is first.
    fn deadline(&self) -> Instant {
        let held = self.held.iter().map(|incoming| incoming.until).min();
        let far = clock() + Duration::from_secs(3600);
        [self.tunnel.deadline(), held].into_iter().flatten().min().unwrap_or(far)
    }

    fn on_deadline(&mut self) {
        // Bytes that the machine was not told of count as a sign of life before it judges.
        for (number, heard) in self.signs_of_life() {
            if heard {
                self.step(Event::News(number, News::Alive));
            }
        }
        self.end_waits();
        self.step(Event::Tick);
    }

    fn on_report(&mut self, number: Number, news: News) {
        self.step(Event::News(number, news));
        let paths = self.sessions.values().filter_map(|session| match session {
            Session::Up(path, _) => Some(path),
            Session::Dialling { .. } => None,
        });
        let missed: Vec<_> = paths.filter(|path| path.has_missed()).cloned().collect();
        for path in missed {
            self.step(Event::News(path.number, News::Parked(path.is_clogged())));
            if path.streams() == 0 {
                self.step(Event::News(path.number, News::Empty));
            }
        }
    }

    fn signs_of_life(&mut self) -> Vec<(Number, bool)> {
        let paths = self.sessions.values().filter_map(|session| match session {
            Session::Up(path, _) => Some(path),
            Session::Dialling { .. } => None,
        });
        paths.map(|path| (path.number, path.has_heard())).collect()
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Wish(wish) => {
                self.step(Event::Wish(wish));
                if wish == Wish::Down {
                    self.lost = None;
                    for incoming in std::mem::take(&mut self.held) {
                        self.refuse(incoming, "the remote was disconnected");
                    }
                    self.publish();
                }
            }
            Command::Woke => self.step(Event::Woke),
            Command::Network { up } => self.step(Event::Network { up }),
            Command::Open(incoming) => self.admit(incoming),
            Command::Settle(settled) => {
                let _gone = settled.send(());
            }
            Command::Session(answer) => {
                let link = self.serving_path().map(|path| Arc::clone(&path.link));
                let _gone = answer.send(link);
            }
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Dialled(number, outcome) => self.on_dialled(number, outcome),
            Message::Stage(number, stage) => {
                if self.sessions.contains_key(&number) {
                    self.state.send_modify(|state| state.stage = stage);
                }
            }
            Message::Back(incoming) => self.admit(incoming),
        }
    }

    fn on_dialled(&mut self, number: Number, outcome: Result<Arc<dyn Link>, Failure>) {
        let Some(Session::Dialling { draining, .. }) = self.sessions.remove(&number) else {
            if let Ok(link) = outcome {
                link.kill();
            }
            return;
        };
        let link = match outcome {
            Ok(link) => link,
            Err(failure) => {
                debug!(attempt = number.0, cause = ?failure.cause, "attempt failed");
                self.step(Event::News(number, News::Ended(failure)));
                return;
            }
        };
        let path = Path::new(number, link, Arc::clone(&self.totals), self.news.clone());
        let path = Arc::new(path);
        let watcher = {
            let (path, news) = (Arc::clone(&path), self.news.clone());
            self.tasks.spawn(async move {
                let failure = path.link.closed().await;
                path.retired.cancel();
                let _ended = news.send((number, News::Ended(failure))).await;
            })
        };
        let facts = path.link.facts();
        let needs_person = facts.needs_person;
        self.state.send_modify(|state| state.facts = Some(facts));
        self.sessions.insert(number, Session::Up(path, watcher));
        self.step(Event::News(number, News::SessionUp { needs_person }));
        if draining {
            self.step(Event::News(number, News::Empty));
        }
    }

    /// Takes a connection in: serves it if a path is live, else holds it.
    fn admit(&mut self, incoming: Incoming) {
        if incoming.until <= clock() {
            self.refuse(incoming, "the far side did not answer in time");
            return;
        }
        if let Some(path) = self.serving_path() {
            self.serve(incoming, path);
            return;
        }
        if self.tunnel.phase() == Phase::Blocked || self.held.len() >= HELD_MOST {
            let reason = self.reason().unwrap_or_else(|| "too many connections wait".to_owned());
            self.refuse(incoming, &reason);
            return;
        }
        self.held.push_back(incoming);
        self.report_held();
    }

    fn serving_path(&self) -> Option<Arc<Path>> {
        match self.sessions.get(&self.serving?)? {
            Session::Up(path, _) => Some(Arc::clone(path)),
            Session::Dialling { .. } => None,
        }
    }

    /// Opens a stream for a connection and copies it; a session that dies before the stream is
    /// confirmed gives the connection back.
    fn serve(&mut self, incoming: Incoming, path: Arc<Path>) {
        let destination = self.destination.clone();
        let inner = self.inner.clone();
        let (news, proof) = (self.news.clone(), self.proof);
        let guest = path.enter();
        self.tasks.spawn(async move {
            let _guest = guest;
            path.asked();
            let opening = timeout(OPEN_LIMIT, path.link.open(&destination.host, destination.port));
            let opened = tokio::select! {
                opened = opening => opened,
                () = path.retired.cancelled() => Ok(Err(NotOpened::SessionLost)),
            };
            match opened {
                Ok(Ok(far)) => {
                    path.answered();
                    let facts = path.link.facts();
                    if let Some(local) = incoming.begin(facts, destination.port).await {
                        let (local, end) = pump(local, far, &path).await;
                        finish(local, &end);
                    }
                }
                // A silent server is the machine's business: the connection waits for its verdict.
                Ok(Err(NotOpened::SessionLost | NotOpened::Silent)) | Err(_) => {
                    let _ended = inner.send(Message::Back(incoming)).await;
                }
                Ok(Err(NotOpened::Refused(reason) | NotOpened::Prohibited(reason))) => {
                    path.answered();
                    debug!(%reason, "the far side did not open a stream");
                    if proof == ProofKind::Ssh {
                        return incoming.refuse(Problem::new(Class::GatewayDown, reason)).await;
                    }
                    // As good as a proof that failed: `live` would be a memory from here on.
                    let failure = absent(destination.port);
                    let _ended = news.send((path.number, News::NotProved(failure.clone()))).await;
                    incoming.refuse(failure.into()).await;
                }
            }
        });
    }

    /// Ends a wait without having been served.
    fn refuse(&mut self, incoming: Incoming, reason: &str) {
        let class = self.tunnel.failure().map_or(Class::Unreachable, |f| f.cause.class());
        let mut problem = Problem::new(class, reason);
        problem.fix = self.tunnel.failure().and_then(|failure| failure.fix.clone());
        info!("a connection was not served");
        self.tasks.spawn(async move { incoming.refuse(problem).await });
    }

    fn reason(&self) -> Option<String> {
        self.tunnel.failure().map(|failure| failure.message.clone())
    }

    fn end_waits(&mut self) {
        let now = clock();
        let (over, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition::<VecDeque<_>, _>(|incoming| incoming.until <= now);
        self.held = held;
        if over.is_empty() {
            return;
        }
        let reason = self.reason().unwrap_or_else(|| "no path was live in time".to_owned());
        for incoming in over {
            self.refuse(incoming, &reason);
        }
        self.report_held();
    }

    /// Tells the machine how many wait, if that has changed.
    fn report_held(&mut self) {
        let count = self.held.len();
        if std::mem::replace(&mut self.told, count) != count {
            self.step(Event::Held(count));
        }
    }

    fn step(&mut self, event: Event) {
        let before = self.tunnel.phase();
        for action in self.tunnel.step(event, clock()) {
            self.perform(action);
        }
        let after = self.tunnel.phase();
        if before != after {
            self.on_phase(before, after);
        }
        if after == Phase::Blocked && !self.held.is_empty() {
            let reason = self.reason().unwrap_or_default();
            for incoming in std::mem::take(&mut self.held) {
                self.refuse(incoming, &reason);
            }
        }
        self.publish();
        self.report_held();
    }

    fn on_phase(&mut self, before: Phase, after: Phase) {
        let failure = self.tunnel.failure();
        let message = failure.map(|failure| failure.message.as_str()).unwrap_or_default();
        let cause = failure.map(|failure| failure.cause);
        let (from, to) = (word(before), word(after));
        if matches!(after, Phase::Blocked | Phase::GatewayDown) {
            warn!(from, to, ?cause, "phase");
        } else {
            info!(from, to, ?cause, "phase");
        }
        // Messages name hosts, users and files.
        debug!(message, "why");
        self.state.send_modify(|state| {
            state.since = SystemTime::now();
            state.stage.clear();
        });
        if serves(before) && !serves(after) && after != Phase::Down {
            self.on_lost(message.to_owned());
        } else if serves(after) && !serves(before) {
            self.on_restored();
        }
    }

    fn on_lost(&mut self, cause: String) {
        let silent = self.tunnel.silence_before_doubt();
        self.lost = Some(clock());
        let started = SystemTime::now().checked_sub(silent).unwrap_or_else(SystemTime::now);
        let outage = Outage { cause, started, detected: silent, restored: None };
        self.state.send_modify(|state| state.outage = Some(outage));
    }

    fn on_restored(&mut self) {
        let first = !std::mem::replace(&mut self.served_before, true);
        let Some(lost) = self.lost.take() else { return };
        let restored = clock() - lost;
        info!(restored_ms = millis(restored), "the path is back");
        self.state.send_modify(|state| {
            state.reconnects += u64::from(!first);
            if let Some(outage) = &mut state.outage {
                outage.restored = Some(restored);
            }
        });
    }

    fn publish(&self) {
        let (tunnel, held) = (&self.tunnel, self.held.len());
        self.state.send_modify(|state| {
            state.phase = tunnel.phase();
            state.proof = tunnel.proof();
            state.failure = tunnel.failure().cloned();
            state.attempts = tunnel.attempts();
            state.held = held;
        });
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Dial(number) => self.dial(number),
            Action::Ping(number) => self.ping(number),
            Action::Prove(number, probe) => self.prove(number, probe),
            Action::Serve(number) => {
                self.serving = Some(number);
                for incoming in std::mem::take(&mut self.held) {
                    self.admit_held(incoming);
                }
            }
            Action::Hold => self.serving = None,
            Action::Drain(number) => self.drain(number),
            Action::Kill(number) => self.kill(number),
        }
    }

    /// Serves a connection that waited; it goes back to waiting if the path is gone again.
    fn admit_held(&mut self, incoming: Incoming) {
        match self.serving_path() {
            Some(path) => self.serve(incoming, path),
            None => self.held.push_back(incoming),
        }
    }

    fn dial(&mut self, number: Number) {
        let (dialer, inner) = (Arc::clone(&self.dialer), self.inner.clone());
        debug!(attempt = number.0, "attempt begins");
        let task = self.tasks.spawn(async move {
            let stages = inner.clone();
            let stage = move |text: String| {
                let _full = stages.try_send(Message::Stage(number, text));
            };
            let outcome = dialer.dial(&stage).await;
            let _ended = inner.send(Message::Dialled(number, outcome)).await;
        });
        self.sessions.insert(number, Session::Dialling { task, draining: false });
    }

    fn ping(&mut self, number: Number) {
        let Some(Session::Up(path, _)) = self.sessions.get(&number) else { return };
        let (path, news) = (Arc::clone(path), self.news.clone());
        path.listen();
        self.tasks.spawn(async move {
            if let Ok(Ok(rtt)) = timeout(PING_LIMIT, path.link.ping()).await {
                path.stop_listening();
                let _ended = news.send((number, News::Pong { rtt })).await;
            }
        });
    }

    fn prove(&mut self, number: Number, probe: Probe) {
        let Some(Session::Up(path, _)) = self.sessions.get(&number) else { return };
        let (path, news) = (Arc::clone(path), self.news.clone());
        let destination = self.destination.clone();
        self.tasks.spawn(async move {
            let begun = clock();
            let outcome = ask_gateway(&path, &destination, probe).await;
            let news_of_it = match outcome {
                Ok(()) => News::Proved { rtt: clock() - begun },
                Err(Some(failure)) => News::NotProved(failure),
                // The machine's own deadline or the session's end says the rest.
                Err(None) => return,
            };
            let _ended = news.send((number, news_of_it)).await;
        });
    }

    fn drain(&mut self, number: Number) {
        match self.sessions.get_mut(&number) {
            Some(Session::Dialling { draining, .. }) => *draining = true,
            Some(Session::Up(path, _)) => {
                path.retired.cancel();
                if path.streams() == 0 {
                    let _full = self.news.try_send((number, News::Empty));
                }
            }
            None => {}
        }
    }

    fn kill(&mut self, number: Number) {
        match self.sessions.remove(&number) {
            Some(Session::Dialling { task, .. }) => task.abort(),
            Some(Session::Up(path, watcher)) => {
                watcher.abort();
                path.retired.cancel();
                if path.streams() == 0 && !path.link.is_closed() {
                    self.tasks.spawn(async move { path.link.close().await });
                } else {
                    path.link.kill();
                }
            }
            None => {}
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let numbers: Vec<Number> = self.sessions.keys().copied().collect();
        for number in numbers {
            self.kill(number);
        }
    }
}

/// Asks the gateway through a stream of its own; `None` if there is nothing to say.
async fn ask_gateway(
    path: &Path,
    destination: &Destination,
    probe: Probe,
) -> Result<(), Option<Failure>> {
    let opened = timeout(PROBE_LIMIT, path.link.open(&destination.host, destination.port)).await;
    let port = destination.port;
    let stream = match opened {
        Ok(Ok(stream)) => stream,
        Ok(Err(NotOpened::Prohibited(reason))) => {
            return Err(Some(prohibited(port, &reason)));
        }
        Ok(Err(NotOpened::Refused(_))) => {
            return Err(Some(absent(port)));
        }
        Ok(Err(NotOpened::SessionLost | NotOpened::Silent)) | Err(_) => return Err(None),
    };
    let answer = match probe {
        Probe::Challenge => client::challenge(stream, PROBE_LIMIT).await,
        Probe::Healthz => client::healthz(stream, PROBE_LIMIT).await,
    };
    answer.map_err(|not| failure_of(not, port))
}

/// The SSH server's policy forbids the forward to the gateway's port.
pub(crate) fn prohibited(port: u16, reason: &str) -> Failure {
    Failure::new(
        Cause::ForwardRefused,
        format!("the gateway's port {port} is out of reach: {reason}"),
    )
    .fix(format!(
        "allow it over there: AllowTcpForwarding yes, PermitOpen 127.0.0.1:{port} in sshd_config, and no `restrict` on the key"
    ))
}

/// Nothing listens on the gateway's port.
pub(crate) fn absent(port: u16) -> Failure {
    Failure::new(Cause::GatewayAbsent, format!("nothing listens on port {port} over there"))
        .fix("over there: openclaw gateway run (or name its port with --remote-port)")
}

/// What a gateway's missing answer means.
fn failure_of(not: NotAnswered, port: u16) -> Option<Failure> {
    let (cause, message) = match not {
        NotAnswered::Silent | NotAnswered::Io(_) => return None,
        NotAnswered::Closed => (
            Cause::GatewayStarting,
            format!("what listens on port {port} over there closes the connection"),
        ),
        NotAnswered::Starting => {
            (Cause::GatewayStarting, "the gateway over there is still starting".to_owned())
        }
        NotAnswered::NotAGateway(what) => (
            Cause::NotAGateway,
            format!("what answers on port {port} over there is not a gateway: {what}"),
        ),
    };
    Some(Failure::new(cause, message).fix(format!(
        "look over there what listens on port {port}, or name the gateway's port with --remote-port"
    )))
}

/// Ends the local side the way the far side ended.
fn finish(local: Local, end: &End) {
    match end {
        End::Done => {}
        End::Cut(reason) => {
            info!(reason, "a stream was cut");
            local.reset();
        }
        End::Local(error) => debug!(%error, "the local side broke off"),
    }
}

fn serves(phase: Phase) -> bool {
    matches!(phase, Phase::Live | Phase::GatewaySlow)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// The phase as `remote status` writes it.
pub(super) fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Live => "live",
        Phase::Connecting => "connecting",
        Phase::Suspect => "suspect",
        Phase::Waiting => "waiting",
        Phase::GatewaySlow => "gateway_slow",
        Phase::GatewayDown => "gateway_down",
        Phase::Blocked => "blocked",
        Phase::Down => "down",
    }
}

/// The problem that a state means for somebody who wants a path now, if waiting cannot help: a
/// person must act, or no gateway is there.
pub(super) fn hopeless(state: &State) -> Option<Problem> {
    matches!(state.phase, Phase::Blocked | Phase::GatewayDown)
        .then(|| state.failure.clone().map(Problem::from))
        .flatten()
}

#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
