//! One forward: its machine, its sessions, its waiting and its running streams.
//!
//! The lane is a task. It turns what happens into events, performs the machine's actions, and
//! publishes a [`State`]. Nothing here decides.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::{AbortHandle, JoinSet},
};
use tracing::{debug, info, warn};

use super::{
    account::{Account, BRIEF, SLOW_READER, Scribe, Turn},
    alarm::Alarm,
    incoming::{Incoming, Local},
    link::{Dial, Link, Progress},
    path::{Path, Report, Totals, clock},
    unread::Unread,
};
use crate::{
    config::{self, Destination, HELD_MOST_MOST, HOLD_SECONDS_MOST},
    fingerprint::Fingerprint,
    tunnel::{
        Action, ClaimEvent, Event, Failure, News, Number, Options, Phase, ProofKind, SILENCE,
        Tunnel, Wish,
    },
};

mod ask;
mod asked;
mod outpost;
mod outpost_words;
mod serving;
mod sessions;
mod state;

pub(crate) use ask::{absent, prohibited};
pub(super) use outpost::Reverse;
pub(super) use state::{Outage, Reach, State, hopeless, serves, word};

use asked::Asked;
use outpost::{Outpost, Outside};

/// How long a connection waits for a path.
const HOLD: Duration = Duration::from_secs(30);
/// Connections that may wait for a path.
const HELD_MOST: usize = 256;
/// Streams that may run at once; an SSH server of the usual kind has room for twice as many.
const STREAMS_MOST: usize = 512;
/// Connections that may be turned away at once; while there are so many none is taken in, and the
/// next wait in the kernel's queue.
const REFUSALS_MOST: usize = 256;
/// Reports that may wait for the lane.
const REPORTS: usize = 1024;
/// How long a probe may take before the machine has long gone on without it.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// How long a stream may take to be opened.
const OPEN_LIMIT: Duration = Duration::from_secs(30);
/// How long a ping is listened for: longer than a silent session is kept, whose answer may come
/// when the link is back.
const PING_LIMIT: Duration = Duration::from_secs(SILENCE.as_secs() + 60);

/// What a lane is for.
#[derive(Debug, Clone)]
pub(super) enum Purpose {
    /// Streams that begin here lead to the gateway over there, which has this certificate if it
    /// speaks TLS.
    Gateway(Destination, Option<Fingerprint>),
    /// Streams that begin here lead to a place over there.
    Forward(Destination),
    /// Streams that begin over there lead here.
    Reverse(Reverse),
}

/// The bounds of a lane.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// How long a connection may wait.
    pub(super) hold: Duration,
    /// How many may wait.
    pub(super) held_most: usize,
    /// What readers have left unread, over all lanes of a remote that has a bound of its own, or
    /// over those of all others.
    pub(super) unread: Arc<Unread>,
    /// How many commands watch how the remotes are.
    pub(super) watchers: Arc<AtomicUsize>,
}

impl Limits {
    /// Those of a remote: what it says counts before the defaults, as far as it can be meant.
    pub(super) fn of(&self, definition: &config::Remote) -> Self {
        let hold = definition.hold_seconds.map(|it| it.clamp(1, HOLD_SECONDS_MOST).into());
        let held_most = definition.held_most.map(|it| it.clamp(1, HELD_MOST_MOST).into());
        let unread = definition.unread_most_mib.map(|it| Arc::new(Unread::of_mib(it)));
        Self {
            hold: hold.map_or(self.hold, Duration::from_secs),
            held_most: held_most.unwrap_or(self.held_most),
            unread: unread.unwrap_or_else(|| Arc::clone(&self.unread)),
            ..self.clone()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { hold: HOLD, held_most: HELD_MOST, unread: Arc::default(), watchers: Arc::default() }
    }
}

/// What a lane is told from outside.
pub(super) enum Command {
    /// What the user wants of it.
    Wish(Wish),
    /// The machine woke.
    Woke {
        /// How long it slept.
        slept: Duration,
    },
    /// The way to the server changed, or may have.
    Network {
        /// Whether there is one.
        up: bool,
    },
    /// Addresses of the machine changed, and not the way to the server.
    Addresses,
    /// A stream is wanted.
    Open(Incoming),
    /// Answer once all that was said before has had its effect on the state.
    Settle(oneshot::Sender<()>),
    /// Give up the connections that wait.
    Surrender(oneshot::Sender<Vec<Incoming>>),
    /// Run a command over the session that serves, and answer with it.
    Session(oneshot::Sender<Option<Arc<dyn Link>>>),
    /// Give the listener over there back for good, and answer when that is done.
    Release(oneshot::Sender<()>),
}

/// The handle of a lane; dropping it ends the lane with everything in it.
pub(super) struct Lane {
    pub(super) commands: mpsc::Sender<Command>,
    /// Accepted connections go here.
    pub(super) accepted: mpsc::Sender<Local>,
    pub(super) state: watch::Receiver<State>,
    pub(super) totals: Arc<Totals>,
    _task: JoinSet<()>,
}

impl Lane {
    /// Starts a lane that nobody wants up yet.
    pub(super) fn start(
        span: tracing::Span,
        options: Options,
        purpose: Purpose,
        limits: &Limits,
        dialer: Arc<dyn Dial>,
        scribe: Scribe,
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
            away: Duration::ZERO,
            lost: None,
            facts: None,
            port: None,
            reach: None,
        });
        let unread = Arc::clone(&limits.unread);
        let totals = Arc::new(Totals::new(unread, Arc::clone(&limits.watchers)));
        let (news, reports) = mpsc::channel(REPORTS);
        let (inner, messages) = mpsc::channel(REPORTS);
        let pin = match &purpose {
            Purpose::Gateway(_, pin) => *pin,
            Purpose::Forward(_) | Purpose::Reverse(_) => None,
        };
        let (destination, outpost) = match purpose {
            Purpose::Gateway(to, _) | Purpose::Forward(to) => (to, None),
            Purpose::Reverse(reverse) => {
                (reverse.to.clone(), Some(Outpost::new(reverse, options.seed)))
            }
        };
        let actor = Actor {
            tunnel: Tunnel::new(options),
            proof: options.proof,
            destination,
            pin,
            outpost,
            trouble: None,
            troubled: Arc::default(),
            trouble_said: None,
            hold: limits.hold,
            held_most: limits.held_most,
            dialer,
            sessions: HashMap::new(),
            serving: None,
            room: Arc::new(Semaphore::new(STREAMS_MOST)),
            held: VecDeque::new(),
            told: 0,
            awaited: Arc::default(),
            news,
            inner,
            state: state_sender,
            totals: Arc::clone(&totals),
            tasks: JoinSet::new(),
            asked: Asked::default(),
            refusals: JoinSet::new(),
            lost: None,
            left: None,
            lost_with: None,
            earlier: None,
            account: Account::new(scribe),
            unserved: 0,
            unserved_said: None,
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

    /// Takes the connections that wait, those included that no path was looked for yet.
    pub(super) async fn surrender(&self) -> Vec<Incoming> {
        let (held, surrendered) = oneshot::channel();
        self.tell(Command::Surrender(held)).await;
        surrendered.await.unwrap_or_default()
    }
}

/// What a lane's own tasks tell it.
enum Message {
    Dialled(Number, Result<Arc<dyn Link>, Failure>),
    Stage(Number, Progress),
    Back(Incoming),
    /// The gateway was not there for it.
    Unproved(Number, Failure, Incoming),
    /// What is wrong with the place over there that a connection was to be led to by this session.
    Led(Number, Option<Failure>),
    Outside(Outside),
}

/// Whether the answer to a ping is worth waking for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Voice {
    Loud,
    Quiet,
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
    /// The gateway's certificate, where it speaks TLS.
    pin: Option<Fingerprint>,
    /// The listener over there, where streams begin there.
    outpost: Option<Outpost>,
    /// What was wrong with the place over there at the last connection, on the session that serves.
    trouble: Option<Failure>,
    /// Whether there is any, for streams that are being opened.
    troubled: Arc<AtomicBool>,
    /// When trouble was news last.
    trouble_said: Option<Instant>,
    hold: Duration,
    held_most: usize,
    dialer: Arc<dyn Dial>,
    sessions: HashMap<Number, Session>,
    serving: Option<Number>,
    /// For streams.
    room: Arc<Semaphore>,
    held: VecDeque<Incoming>,
    /// How many held connections the machine knows of.
    told: usize,
    /// Whether there are any, for dials that are under way.
    awaited: Arc<AtomicBool>,
    news: mpsc::Sender<Report>,
    inner: mpsc::Sender<Message>,
    state: watch::Sender<State>,
    totals: Arc<Totals>,
    tasks: JoinSet<()>,
    asked: Asked,
    refusals: JoinSet<()>,
    /// When the path was lost, while it is.
    lost: Option<Instant>,
    /// Which session served last, and which did when the path was lost.
    left: Option<Number>,
    lost_with: Option<Number>,
    /// The outage before this one, if this one is no news.
    earlier: Option<Outage>,
    account: Account,
    /// Refusals that were not news yet, and when the last one was.
    unserved: u64,
    unserved_said: Option<Instant>,
}

impl Actor {
    async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
        mut accepted: mpsc::Receiver<Local>,
        mut reports: mpsc::Receiver<Report>,
        mut messages: mpsc::Receiver<Message>,
    ) {
        let mut alarm = Alarm::new();
        loop {
            let deadline = self.deadline();
            tokio::select! {
                command = commands.recv() => match command {
                    Some(Command::Surrender(answer)) => {
                        while let Ok(stream) = accepted.try_recv() {
                            self.admit_accepted(stream);
                        }
                        self.surrender(answer);
                    }
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some(local) = accepted.recv(), if self.refusals.len() < REFUSALS_MOST => {
                    self.admit_accepted(local);
                }
                Some((number, news)) = reports.recv() => self.on_report(number, news),
                report = self.asked.next() => {
                    if let Some((number, news)) = report {
                        self.on_report(number, news);
                    }
                }
                Some(message) = messages.recv() => self.on_message(message),
                Some(_) = self.refusals.join_next() => {}
                // A stream that has ended may make room.
                Some(_) = self.tasks.join_next() => {
                    self.serve_held();
                    self.report_held();
                }
                () = alarm.ring_at(deadline) => self.on_deadline(),
            }
        }
    }

    /// The machine's deadline or the end of the first wait, whichever is first.
    fn deadline(&self) -> Instant {
        let held = self.held.iter().map(|incoming| incoming.until).min();
        let far = clock() + Duration::from_secs(3600);
        let claim = self.outpost.as_ref().and_then(|outpost| outpost.claim().deadline());
        [self.tunnel.deadline(), held, claim].into_iter().flatten().min().unwrap_or(far)
    }

    fn on_deadline(&mut self) {
        for (number, news, at) in self.late_news() {
            self.step_at(Event::News(number, news), at);
        }
        // Bytes that the machine was not told of count as a sign of life before it judges.
        for (number, heard) in self.signs_of_life() {
            if heard {
                self.step(Event::News(number, News::Alive));
            }
        }
        self.look_up_missed();
        self.end_waits();
        self.step(Event::Tick);
        self.change(|lane| lane.claim(ClaimEvent::Tick));
    }

    fn on_report(&mut self, number: Number, news: News) {
        if let News::Pong { rtt } = news {
            self.totals.answered_after(rtt);
        }
        if matches!(news, News::Ended(_)) {
            // Its streams hold what they still need of it.
            self.sessions.remove(&number);
        }
        if self.path(number).is_some_and(|path| path.is_outdated(&news)) {
            return;
        }
        self.step(Event::News(number, news));
        self.look_up_missed();
    }

    /// Tells the machine what the lane was too far behind to hear.
    fn look_up_missed(&mut self) {
        let paths = self.sessions.values().filter_map(|session| match session {
            Session::Up(path, _) => Some(path),
            Session::Dialling { .. } => None,
        });
        let missed: Vec<_> = paths.filter(|path| path.has_missed()).cloned().collect();
        for path in missed {
            self.step(Event::News(path.number, News::Parked(path.is_clogged())));
            if path.is_empty() {
                self.step(Event::News(path.number, News::Empty));
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Wish(wish) => {
                self.step(Event::Wish(wish));
                if wish == Wish::Up {
                    self.change(|lane| lane.claim(ClaimEvent::Wanted));
                }
                if wish == Wish::Down {
                    self.lost = None;
                    self.state.send_modify(|state| state.lost = None);
                    for incoming in std::mem::take(&mut self.held) {
                        self.refuse(incoming, "the remote was disconnected");
                    }
                    self.publish();
                }
            }
            Command::Woke { slept } => self.step(Event::Woke { slept }),
            Command::Network { up } => {
                self.step(Event::Network { up });
                self.tell_stranded();
            }
            Command::Addresses => {
                if self.serving.is_some_and(|it| self.stranded().contains(&(it, true))) {
                    self.step(Event::Network { up: true });
                }
                self.tell_stranded();
            }
            Command::Open(incoming) => self.admit(incoming),
            Command::Surrender(answer) => self.surrender(answer),
            Command::Settle(settled) => {
                let _gone = settled.send(());
            }
            Command::Session(answer) => {
                let link = self.serving_path().map(|path| Arc::clone(&path.link));
                let _gone = answer.send(link);
            }
            Command::Release(done) => self.change(|lane| lane.release(done)),
        }
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Dialled(number, outcome) => self.on_dialled(number, outcome),
            Message::Stage(number, Progress { text, is_reached }) => {
                if self.sessions.contains_key(&number) {
                    self.state.send_modify(|state| state.stage = text);
                    self.step(Event::News(number, News::Shaking(is_reached)));
                }
            }
            Message::Back(incoming) => self.admit(incoming),
            Message::Unproved(number, failure, incoming) => {
                self.step(Event::News(number, News::NotProved(failure)));
                self.admit(incoming);
            }
            Message::Led(number, trouble) => self.on_led(number, trouble),
            Message::Outside(news) => self.change(|lane| lane.on_outside(news)),
        }
    }

    fn step(&mut self, event: Event) {
        self.step_at(event, clock());
    }

    /// The same with news of `now`, which may be a while ago.
    fn step_at(&mut self, event: Event, now: Instant) {
        let mut is_dialling = false;
        self.change(|lane| {
            if let Event::News(number, News::Ended(_)) = &event {
                lane.claim(ClaimEvent::Gone(*number));
            }
            for action in lane.tunnel.step(event, now) {
                is_dialling |= matches!(action, Action::Dial(_));
                lane.perform(action);
            }
        });
        if is_dialling {
            self.account.dialled(self.tunnel.attempts());
        }
    }

    /// Does something, and publishes what has changed by it.
    fn change(&mut self, how: impl FnOnce(&mut Self)) {
        let before = self.phase();
        how(self);
        let after = self.phase();
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

    /// Where the lane is: its tunnel, and its listener over there if it has one.
    fn phase(&self) -> Phase {
        let tunnel = self.tunnel.phase();
        self.outpost.as_ref().map_or(tunnel, |outpost| outpost.phase(tunnel))
    }

    /// What went wrong last.
    fn failure(&self) -> Option<Failure> {
        let is_served = serves(self.tunnel.phase());
        let outpost = self.outpost.as_ref().filter(|_| is_served);
        let of_place = outpost.and_then(Outpost::failure).or_else(|| self.trouble.clone());
        of_place.filter(|_| is_served).or_else(|| self.tunnel.failure().cloned())
    }

    fn on_phase(&mut self, before: Phase, after: Phase) {
        let failure = self.failure();
        let message = failure.as_ref().map(|it| it.message.as_str()).unwrap_or_default();
        let cause = failure.as_ref().map(|failure| failure.cause);
        let (from, to) = (word(before), word(after));
        if matches!(after, Phase::Blocked | Phase::GatewayDown) {
            warn!(from, to, ?cause, "phase");
        } else {
            info!(from, to, ?cause, "phase");
        }
        // Messages name hosts, users and files.
        debug!(message, "why");
        self.account.turned(Turn {
            before,
            after,
            failure: failure.as_ref(),
            silent: self.tunnel.silence_before_doubt(),
            away: self.lost.map(|lost| clock() - lost),
        });
        self.state.send_modify(|state| {
            state.since = SystemTime::now();
            state.stage.clear();
        });
        if after == Phase::Down {
            // Nobody wants it: that is no absence.
            self.lost = None;
            self.state.send_modify(|state| state.lost = None);
        }
        if serves(before) && !serves(after) && after != Phase::Down {
            let cause = if message.is_empty() { SLOW_READER } else { message };
            self.on_lost(cause.to_owned());
        } else if serves(after) && !serves(before) {
            self.on_restored();
        }
    }

    fn on_lost(&mut self, cause: String) {
        let silent = self.tunnel.silence_before_doubt();
        let now = clock();
        self.lost = Some(now);
        self.lost_with = self.serving.or(self.left);
        let started = SystemTime::now().checked_sub(silent).unwrap_or_else(SystemTime::now);
        let outage = Outage { cause, started, detected: silent, restored: None };
        let earlier = &mut self.earlier;
        self.state.send_modify(|state| {
            *earlier = state.outage.replace(outage);
            state.lost = Some(now);
        });
    }

    fn on_restored(&mut self) {
        let Some(lost) = self.lost.take() else { return };
        let restored = clock() - lost;
        // A session that was only doubted was not made again.
        let is_another = self.serving != self.lost_with;
        info!(restored_ms = millis(restored), "the path is back");
        let earlier = self.earlier.take();
        self.state.send_modify(|state| {
            state.reconnects += u64::from(is_another);
            state.away += restored;
            state.lost = None;
            match &mut state.outage {
                Some(outage) if outage.cause == SLOW_READER && restored < BRIEF => {
                    state.outage = earlier;
                }
                Some(outage) => outage.restored = Some(restored),
                None => {}
            }
        });
    }

    fn publish(&self) {
        let (phase, failure) = (self.phase(), self.failure());
        let (attempts, held) = (self.tunnel.attempts(), self.held.len());
        let outpost = self.outpost.as_ref();
        let proof = outpost.and_then(Outpost::proof).or(self.tunnel.proof());
        let port = outpost.map(Outpost::port);
        let reach = outpost.and_then(Outpost::reach);
        self.state.send_if_modified(|state| {
            let port = port.unwrap_or(state.port);
            // That the SSH server goes on answering is no news worth waking for.
            let is_proof_news =
                state.proof != proof && state.proof.map(|it| it.kind) != Some(ProofKind::Ssh);
            let is_news = is_proof_news
                || (state.phase, state.attempts, state.held) != (phase, attempts, held)
                || (state.port, state.reach, &state.failure) != (port, reach, &failure);
            state.phase = phase;
            state.failure = failure;
            state.proof = proof;
            state.port = port;
            state.reach = reach;
            state.attempts = attempts;
            state.held = held;
            is_news
        });
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Dial(number) => self.dial(number),
            Action::Ping(number) => self.ping(number, Voice::Loud),
            Action::PingQuietly(number) => self.ping(number, Voice::Quiet),
            Action::Look(number) => {
                if let Some(Session::Up(path, _)) = self.sessions.get(&number) {
                    path.link.attend();
                }
            }
            Action::Prove(number, probe) => self.prove(number, probe),
            Action::Serve(number) => {
                self.serving = Some(number);
                if self.left != Some(number) {
                    // Another session may have another policy.
                    self.set_trouble(None);
                }
                self.account.served(self.held.len());
                self.serve_held();
                self.claim(ClaimEvent::Serve(number));
            }
            Action::Hold => {
                if let Some(path) = self.serving_path() {
                    path.doubt();
                }
                self.left = self.serving.take().or(self.left);
                self.claim(ClaimEvent::Hold);
            }
            Action::Drain(number) => self.drain(number),
            Action::Kill(number) => {
                self.claim(ClaimEvent::Gone(number));
                self.kill(number);
            }
        }
    }
}

/// Whole milliseconds.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod idle_tests;
#[cfg(test)]
mod scripted;
#[cfg(test)]
#[path = "lane_tests.rs"]
mod tests;
