//! The machine: events in, actions out, one deadline.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{
    Cause, Failure, Number, Proof, ProofKind,
    attempt::{Attempt, PING_IDLE, Stage},
};
use crate::backoff::Backoff;

/// Between two `/healthz` proofs of a path that works.
const PROOF_INTERVAL: Duration = Duration::from_secs(60);
/// Between two proofs while the gateway is slow.
const PROOF_INTERVAL_SLOW: Duration = Duration::from_secs(5);
/// How long a gateway may take to answer a proof.
const PROOF_PATIENCE: Duration = Duration::from_secs(10);
/// The longest wait between two questions to a gateway that is down.
const UNPROVED_MOST: Duration = Duration::from_secs(5);
/// The first wait of that kind.
const UNPROVED_FIRST: Duration = Duration::from_millis(300);
/// How long a session may take to answer after a wake or a change of route before a replacement
/// is dialled: one that is cut off again costs the user a penalty at the server.
const DOUBT_PATIENCE: Duration = Duration::from_millis(250);
/// How long the loser of a race may take to finish its login before it is ended.
const LOSER_PATIENCE: Duration = Duration::from_secs(60);
/// How many sessions may drain at once before a session stays shared with a slow reader.
const DRAINING_MOST: usize = 8;
/// Between two replacements whose logins the server saw.
const REPLACEMENT_INTERVAL: Duration = Duration::from_secs(30);
/// How long a silent session is kept when a person would have to log in again.
const SILENCE_WITH_PERSON: Duration = Duration::from_secs(60);
/// How long a silent session is kept while replacements are tried; also the longest drain.
const SILENCE: Duration = Duration::from_secs(600);
/// How long a silent session lives on after its replacement has proved itself.
const SILENCE_REPLACED: Duration = Duration::from_secs(15);
/// How long a path must have served before its end counts as a first failure again.
const STABLE: Duration = Duration::from_secs(5);
/// The longest wait between attempts while a connection is held.
const WAIT_HELD: Duration = Duration::from_secs(4);
/// The wait when the server may be punishing this address.
const WAIT_PENALTY: Duration = Duration::from_secs(15);
/// What is said about that wait.
const PUNISHED: &str = "; the next attempt waits 15 s, in case it punishes this address";

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Live, always.
    Up,
    /// Live while connections are held or open.
    OnDemand,
    /// Nothing.
    Down,
}

/// Where a tunnel is, as `remote status` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// A gateway answered through this path, and the evidence is young.
    Live,
    /// An attempt is under way.
    Connecting,
    /// The path was live and is silent.
    Suspect,
    /// Between two attempts, or without a network.
    Waiting,
    /// SSH answers, the gateway takes its time.
    GatewaySlow,
    /// SSH is up, no gateway answers behind it.
    GatewayDown,
    /// Trying again cannot help; a person must act.
    Blocked,
    /// Nobody wants it up.
    Down,
}

/// What a tunnel is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// What the user wants; `Up` again means: try now.
    Wish(Wish),
    /// The machine woke.
    Woke,
    /// A route or address changed; `up` tells whether there is a route at all.
    Network {
        /// Whether there is one.
        up: bool,
    },
    /// So many connections wait for a path.
    Held(usize),
    /// News of an attempt.
    News(Number, News),
    /// The deadline has passed.
    Tick,
}

/// What can be told of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// The SSH session is up.
    SessionUp {
        /// Whether a person had to help.
        needs_person: bool,
    },
    /// The session is gone, or never came up.
    Ended(Failure),
    /// Bytes came in through a stream of the tunnel's forward.
    Heard,
    /// Bytes of any kind came in from the SSH server.
    Alive,
    /// The ping was answered.
    Pong {
        /// After so long.
        rtt: Duration,
    },
    /// Something went out (bytes through a stream, or the wish for one), and nothing came in since.
    Awaited,
    /// The SSH server answered what was awaited.
    Answered,
    /// The gateway answered.
    Proved {
        /// After so long.
        rtt: Duration,
    },
    /// The gateway did not answer, or no gateway did.
    NotProved(Failure),
    /// A slow reader blocks (`true`) or no longer blocks the session.
    Parked(bool),
    /// The last stream of a draining session has ended.
    Empty,
}

/// How to ask a gateway whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Read its challenge: sure, but noted in the gateway's log.
    Challenge,
    /// `GET /healthz`.
    Healthz,
}

/// What a tunnel wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Begin an attempt.
    Dial(Number),
    /// Ask the SSH server for a sign of life.
    Ping(Number),
    /// Ask the gateway.
    Prove(Number, Probe),
    /// New connections, and those held, go to this attempt.
    Serve(Number),
    /// New connections are held.
    Hold,
    /// Tell when the attempt's last stream has ended.
    Drain(Number),
    /// End the attempt at once, with whatever it carries.
    Kill(Number),
}

/// What kind of tunnel it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// What proves it: a gateway's answer, or the SSH session itself.
    pub(crate) proof: ProofKind,
    /// Between two pings while nobody waits, if somebody chose it.
    pub(crate) alive: Option<Duration>,
    /// Decides all jitter.
    pub(crate) seed: u64,
}

/// A session that no longer gets new connections.
#[derive(Debug, Clone)]
struct Draining {
    number: Number,
    until: Option<Instant>,
    silent: bool,
}

/// One tunnel.
#[derive(Debug, Clone)]
pub(crate) struct Tunnel {
    options: Options,
    wanted: Wish,
    network: bool,
    held: usize,
    numbers: u64,
    /// The attempt that serves, or is to serve; never `None` while `replacement` is something.
    current: Option<Attempt>,
    /// The one started beside it on suspicion.
    replacement: Option<Attempt>,
    draining: Vec<Draining>,
    backoff: Backoff,
    /// When to dial next, while there is no attempt.
    retry: Option<Instant>,
    /// Set when trying again cannot help.
    blocked: Option<Failure>,
    /// The last failure since the tunnel was live.
    failure: Option<Failure>,
    /// Closes before the banner in a row.
    closed_early: u32,
    /// Until when the server may be punishing this address.
    punished_until: Option<Instant>,
    /// When the last replacement whose login the server saw was begun.
    replaced: Option<Instant>,
    /// When the next replacement may be dialled after one that did not reach the server.
    replace_after: Option<Instant>,
    /// Whether the gateway is slow.
    slow: bool,
    /// The next wait before a gateway that is down is asked again.
    unproved_wait: Duration,
    serving_since: Option<Instant>,
    /// Where new connections go, as last said.
    served: Option<Number>,
    silence_before_doubt: Duration,
    proof: Option<Proof>,
    attempts: u64,
}

impl Tunnel {
    /// A tunnel nobody wants up yet.
    pub(crate) fn new(options: Options) -> Self {
        Self {
            options,
            wanted: Wish::Down,
            network: true,
            held: 0,
            numbers: 0,
            current: None,
            replacement: None,
            draining: Vec::new(),
            backoff: Backoff::new(options.seed),
            retry: None,
            blocked: None,
            failure: None,
            closed_early: 0,
            punished_until: None,
            replaced: None,
            replace_after: None,
            slow: false,
            unproved_wait: UNPROVED_FIRST,
            serving_since: None,
            served: None,
            silence_before_doubt: Duration::ZERO,
            proof: None,
            attempts: 0,
        }
    }

    /// Where the tunnel is.
    pub(crate) fn phase(&self) -> Phase {
        if self.wanted == Wish::Down {
            return Phase::Down;
        }
        if self.blocked.is_some() {
            return Phase::Blocked;
        }
        match &self.current {
            None if self.retry.is_some() || !self.network => Phase::Waiting,
            None => Phase::Down,
            Some(attempt) if attempt.suspect.is_some() => Phase::Suspect,
            Some(attempt) => match attempt.stage {
                Stage::Dialing | Stage::Proving { again: false, .. } => Phase::Connecting,
                Stage::Proving { again: true, .. } | Stage::Unproved { .. } => Phase::GatewayDown,
                Stage::Serving if self.slow => Phase::GatewaySlow,
                Stage::Serving => Phase::Live,
            },
        }
    }

    /// The last failure since the tunnel was live.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// The last evidence.
    pub(crate) fn proof(&self) -> Option<Proof> {
        self.proof
    }

    /// Attempts begun since the tunnel was last live, or in all if it never was.
    pub(crate) fn attempts(&self) -> u64 {
        self.attempts
    }

    /// How long the path had been silent when it last stopped serving; zero if its end was noticed
    /// at once.
    pub(crate) fn silence_before_doubt(&self) -> Duration {
        self.silence_before_doubt
    }

    /// When [`Event::Tick`] is due; `None` while only an event from outside can change anything.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let attempts = self.current.iter().chain(&self.replacement);
        let of_attempts = attempts.filter_map(|attempt| {
            let proof = match attempt.stage {
                _ if attempt.suspect.is_some() || attempt.parked => None,
                Stage::Dialing => None,
                Stage::Proving { since, .. } => Some(since + PROOF_PATIENCE),
                Stage::Unproved { retry } => Some(retry),
                Stage::Serving => match attempt.proof_asked {
                    Some(asked) => Some(asked + PROOF_PATIENCE),
                    None => attempt.next_proof,
                },
            };
            let silence = attempt.suspect.map(|since| since + self.silence(attempt));
            [attempt.ping_deadline(self.idle()), proof, silence].into_iter().flatten().min()
        });
        let of_draining = self.draining.iter().filter_map(|draining| draining.until);
        let retry = self.retry.filter(|_| self.may_dial());
        let replace = self.replace_due();
        of_attempts.chain(of_draining).chain(retry).chain(replace).min()
    }

    /// Takes one event in and says what to do.
    #[must_use]
    pub(crate) fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Wish(wish) => self.on_wish(wish, now, &mut actions),
            Event::Woke => self.on_doubt(now, &mut actions),
            Event::Network { up } => self.on_network(up, now, &mut actions),
            Event::Held(count) => self.on_held(count, now),
            Event::News(number, news) => self.on_news(number, news, now, &mut actions),
            Event::Tick => {}
        }
        self.pass_deadlines(now, &mut actions);
        self.direct(&mut actions);
        actions
    }

    fn on_wish(&mut self, wish: Wish, now: Instant, actions: &mut Vec<Action>) {
        self.wanted = wish;
        if wish == Wish::Down {
            let attempts = self.current.take().into_iter().chain(self.replacement.take());
            let numbers = attempts.map(|attempt| attempt.number);
            let draining = self.draining.drain(..).map(|draining| draining.number);
            actions.extend(numbers.chain(draining).map(Action::Kill));
            self.retry = None;
            self.blocked = None;
            self.failure = None;
            self.serving_since = None;
            self.slow = false;
            self.proof = None;
            return;
        }
        self.blocked = None;
        match &mut self.current {
            Some(attempt) if attempt.suspect.is_some() => {}
            Some(Attempt { stage: Stage::Unproved { retry }, .. }) => {
                *retry = now;
                self.failure = None;
            }
            // Whoever wants it now must not be told of what failed before.
            Some(_) | None => self.failure = None,
        }
        self.hurry(now);
    }

    fn on_network(&mut self, up: bool, now: Instant, actions: &mut Vec<Action>) {
        self.network = up;
        if up {
            self.on_doubt(now, actions);
        }
    }

    /// What was proved may no longer hold: ask, and dial beside it.
    fn on_doubt(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.hurry(now);
        if let Some(attempt) = &mut self.current
            && attempt.has_session()
            && !attempt.parked
        {
            if attempt.pinged.is_none() {
                actions.push(Action::Ping(attempt.number));
            }
            attempt.pinged = Some(now);
            attempt.suspect.get_or_insert(now);
            attempt.proof_asked = None;
            self.replace_after = Some(now + DOUBT_PATIENCE.max(attempt.rtt * 2));
        }
    }

    fn on_held(&mut self, count: usize, now: Instant) {
        let first = self.held == 0 && count > 0;
        self.held = count;
        if first && let Some(retry) = &mut self.retry {
            let soon = now + WAIT_HELD;
            *retry = (*retry).min(self.punished_until.map_or(soon, |until| until.max(soon)));
        }
    }

    /// The next attempt is due now, and starts from the first step of the backoff.
    fn hurry(&mut self, now: Instant) {
        self.backoff.reset();
        self.closed_early = 0;
        self.punished_until = None;
        if self.current.is_none() && self.wanted != Wish::Down && self.blocked.is_none() {
            self.retry = Some(now);
        }
    }

    fn on_news(&mut self, number: Number, news: News, now: Instant, actions: &mut Vec<Action>) {
        if let Some(place) = self.draining.iter().position(|d| d.number == number) {
            self.on_news_of_draining(place, &news, now, actions);
            return;
        }
        if let News::Ended(failure) = news {
            self.on_ended(number, failure, now);
            return;
        }
        let gateway = self.options.proof == ProofKind::Gateway;
        let Some(attempt) = self.attempt(number) else { return };
        match news {
            News::SessionUp { needs_person } => {
                attempt.heard = now;
                attempt.needs_person = needs_person;
                if self.replacement.as_ref().is_some_and(|r| r.number == number) {
                    self.replaced = Some(now);
                }
                let Some(attempt) = self.attempt(number) else { return };
                if gateway {
                    attempt.stage = Stage::Proving { since: now, again: false };
                    actions.push(Action::Prove(number, Probe::Challenge));
                } else {
                    self.on_proved(number, Duration::ZERO, now, actions);
                }
            }
            News::Heard | News::Alive | News::Answered | News::Pong { .. } => {
                self.on_heard(number, &news, now, actions);
            }
            News::Awaited => attempt.awaited = true,
            News::Proved { rtt } => self.on_proved(number, rtt, now, actions),
            News::NotProved(failure) => self.on_not_proved(number, failure, now, actions),
            News::Parked(parked) => {
                attempt.parked = parked;
                attempt.heard = now;
                attempt.pinged = None;
            }
            News::Empty | News::Ended(_) => {}
        }
    }

    fn on_news_of_draining(
        &mut self,
        place: usize,
        news: &News,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let Some(draining) = self.draining.get_mut(place) else { return };
        match news {
            News::Ended(_) => {
                self.draining.remove(place);
            }
            News::Empty => {
                actions.push(Action::Kill(draining.number));
                self.draining.remove(place);
            }
            News::Parked(true) => draining.until = None,
            News::Heard | News::Alive | News::Answered | News::Pong { .. } if draining.silent => {
                draining.silent = false;
                draining.until = draining.until.map(|_| now + SILENCE);
            }
            News::Parked(false) => draining.until = Some(now + SILENCE),
            News::Heard
            | News::Alive
            | News::Answered
            | News::Pong { .. }
            | News::SessionUp { .. }
            | News::Awaited
            | News::Proved { .. }
            | News::NotProved(_) => {}
        }
    }

    fn on_heard(&mut self, number: Number, news: &News, now: Instant, actions: &mut Vec<Action>) {
        let gateway = self.options.proof == ProofKind::Gateway;
        let Some(attempt) = self.attempt(number) else { return };
        attempt.heard = now;
        if let News::Pong { rtt } = news {
            attempt.rtt = *rtt;
            attempt.pinged = None;
        } else if *news == News::Answered {
            attempt.awaited = false;
        } else if *news == News::Heard {
            attempt.awaited = false;
            attempt.next_proof = attempt.next_proof.map(|_| now + PROOF_INTERVAL);
        }
        let serving = attempt.stage == Stage::Serving;
        let (rtt, relieved) = (attempt.rtt, attempt.suspect.take().is_some());
        if relieved {
            attempt.pinged = None;
            if gateway {
                let again = matches!(attempt.stage, Stage::Unproved { .. });
                attempt.stage = Stage::Proving { since: now, again };
                actions.push(Action::Prove(number, Probe::Challenge));
            }
        }
        match &mut self.proof {
            Some(proof) if gateway && serving && *news == News::Heard => {
                proof.at = now;
                self.slow = false;
            }
            _ if gateway => {}
            _ => self.proof = Some(Proof { kind: ProofKind::Ssh, at: now, rtt }),
        }
    }

    fn on_proved(
        &mut self,
        number: Number,
        rtt: Duration,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let gateway = self.options.proof == ProofKind::Gateway;
        let Some(attempt) = self.attempt(number) else { return };
        if !attempt.has_session() && gateway {
            return;
        }
        let fresh = attempt.stage != Stage::Serving;
        attempt.heard = now;
        attempt.stage = Stage::Serving;
        attempt.suspect = None;
        attempt.pinged = None;
        attempt.proof_asked = None;
        attempt.next_proof = gateway.then(|| now + PROOF_INTERVAL);
        self.proof = Some(Proof { kind: self.options.proof, at: now, rtt });
        self.slow = false;
        self.failure = None;
        self.attempts = 0;
        self.closed_early = 0;
        self.unproved_wait = UNPROVED_FIRST;
        if fresh {
            self.serving_since.get_or_insert(now);
        }
        self.settle(number, now, actions);
    }

    /// Of two attempts the one that proved itself stays.
    fn settle(&mut self, proved: Number, now: Instant, actions: &mut Vec<Action>) {
        let Some(replacement) = self.replacement.take() else { return };
        if replacement.number != proved {
            if self.current.as_ref().is_some_and(|attempt| attempt.parked) {
                self.replacement = Some(replacement);
            } else {
                self.drain(replacement.number, Some(now + LOSER_PATIENCE), false, actions);
            }
            return;
        }
        let Some(old) = self.current.replace(replacement) else { return };
        if !old.has_session() {
            self.drain(old.number, Some(now + LOSER_PATIENCE), false, actions);
            return;
        }
        let silent = old.suspect.is_some();
        let until = match (old.parked, silent) {
            (true, _) => None,
            (false, true) => Some(now + SILENCE_REPLACED),
            (false, false) => Some(now + SILENCE),
        };
        self.drain(old.number, until, silent, actions);
    }

    fn drain(
        &mut self,
        number: Number,
        until: Option<Instant>,
        silent: bool,
        actions: &mut Vec<Action>,
    ) {
        self.draining.push(Draining { number, until, silent });
        actions.push(Action::Drain(number));
    }

    fn on_not_proved(
        &mut self,
        number: Number,
        failure: Failure,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let wait = self.unproved_wait;
        let replacing = self.replacement.as_ref().is_some_and(|r| r.number == number);
        let Some(attempt) = self.attempt(number) else { return };
        attempt.heard = now;
        attempt.proof_asked = None;
        if !failure.cause.is_transient() {
            actions.push(Action::Kill(number));
            self.drop_attempt(number);
            self.failure = Some(failure.clone());
            if replacing {
                self.replace_after = Some(now + REPLACEMENT_INTERVAL);
            } else {
                self.give_up(failure);
            }
            return;
        }
        attempt.stage = Stage::Unproved { retry: now + wait };
        self.unproved_wait = (wait * 2).min(UNPROVED_MOST);
        self.failure = Some(failure);
        if !replacing {
            self.serving_since = None;
        }
    }

    fn on_ended(&mut self, number: Number, failure: Failure, now: Instant) {
        if self.replacement.as_ref().is_some_and(|attempt| attempt.number == number) {
            let reached = self.replacement.take().is_some_and(|attempt| attempt.has_session());
            let wait = if matches!(failure.cause, Cause::ClosedBeforeBanner { .. }) {
                self.wait(failure.cause, now)
            } else if failure.cause.is_transient() && !reached {
                self.backoff.next_wait().min(WAIT_HELD)
            } else {
                REPLACEMENT_INTERVAL
            };
            self.replace_after = Some(now + wait);
            return;
        }
        if self.current.as_ref().is_none_or(|attempt| attempt.number != number) {
            return;
        }
        self.current = None;
        if self.serving_since.take().is_some_and(|since| now - since >= STABLE) {
            self.backoff.reset();
        }
        self.slow = false;
        self.failure = Some(failure.clone());
        if let Some(replacement) = self.replacement.take() {
            self.current = Some(replacement);
            return;
        }
        if failure.cause.is_transient() {
            self.retry = Some(now + self.wait(failure.cause, now));
            if let (Some(_), Some(failure)) = (self.punished_until, &mut self.failure) {
                failure.message.push_str(PUNISHED);
            }
        } else {
            self.give_up(failure);
        }
    }

    /// The wait after an attempt that failed for `cause`.
    fn wait(&mut self, cause: Cause, now: Instant) -> Duration {
        let wait = self.backoff.next_wait();
        self.punished_until = None;
        let Cause::ClosedBeforeBanner { penalty } = cause else {
            self.closed_early = 0;
            return if self.held > 0 { wait.min(WAIT_HELD) } else { wait };
        };
        self.closed_early += 1;
        // A server that restarts looks the same the first time.
        if !penalty && self.closed_early < 2 {
            return wait;
        }
        self.punished_until = Some(now + WAIT_PENALTY);
        wait.max(WAIT_PENALTY)
    }

    fn give_up(&mut self, failure: Failure) {
        self.retry = None;
        self.serving_since = None;
        if self.current.is_none() {
            self.blocked = Some(failure);
        }
    }

    fn may_dial(&self) -> bool {
        self.wanted != Wish::Down && self.network && self.blocked.is_none()
    }

    fn silence(&self, attempt: &Attempt) -> Duration {
        if attempt.needs_person { SILENCE_WITH_PERSON } else { SILENCE }
    }

    /// When a replacement should be dialled, if one should.
    fn replace_due(&self) -> Option<Instant> {
        let current = self.current.as_ref().filter(|_| self.replacement.is_none())?;
        if current.needs_person || !current.has_session() || !self.may_dial() {
            return None;
        }
        let Some(wanted_since) = current.suspect else {
            let parked = current.parked && self.draining.len() < DRAINING_MOST;
            return parked.then(|| self.replace_after.unwrap_or(current.heard));
        };
        let earliest = self.replaced.map(|at| at + REPLACEMENT_INTERVAL);
        [Some(wanted_since), earliest, self.replace_after].into_iter().flatten().max()
    }

    /// Does all that is due at `now`.
    fn pass_deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.end_drained(now, actions);
        self.end_silent(now, actions);
        for number in self.numbers() {
            self.ping_or_suspect(number, now, actions);
            self.prove_or_doubt(number, now, actions);
        }
        if due(self.replace_due()) {
            self.replace_after = None;
            let attempt = self.dial(now, actions);
            self.replacement = Some(attempt);
        }
        if self.wanted == Wish::OnDemand && self.held == 0 {
            self.retry = None;
        } else if self.current.is_none() && self.may_dial() {
            self.retry.get_or_insert(now);
        }
        if self.current.is_none() && self.may_dial() && due(self.retry) {
            self.retry = None;
            self.current = Some(self.dial(now, actions));
        }
    }

    fn dial(&mut self, now: Instant, actions: &mut Vec<Action>) -> Attempt {
        self.numbers += 1;
        self.attempts += 1;
        let number = Number(self.numbers);
        actions.push(Action::Dial(number));
        Attempt::new(number, now)
    }

    fn end_drained(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.draining.retain(|draining| {
            let over = draining.until.is_some_and(|until| until <= now);
            if over {
                actions.push(Action::Kill(draining.number));
            }
            !over
        });
    }

    /// Ends a session that stayed silent for too long.
    fn end_silent(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for number in self.numbers() {
            let Some(attempt) = self.attempt(number).cloned() else { continue };
            let Some(since) = attempt.suspect else { continue };
            if since + self.silence(&attempt) <= now {
                actions.push(Action::Kill(number));
                let failure = Failure::new(Cause::LinkLost, "the connection fell silent");
                self.on_ended(number, failure, now);
            }
        }
    }

    /// Between two pings while nobody waits.
    fn idle(&self) -> Duration {
        self.options.alive.unwrap_or(PING_IDLE)
    }

    fn ping_or_suspect(&mut self, number: Number, now: Instant, actions: &mut Vec<Action>) {
        let idle = self.idle();
        let Some(attempt) = self.attempt(number) else { return };
        if attempt.ping_deadline(idle).is_none_or(|at| at > now) {
            return;
        }
        if attempt.pinged.is_none() {
            attempt.pinged = Some(now);
            actions.push(Action::Ping(number));
            return;
        }
        attempt.suspect = Some(now);
        attempt.proof_asked = None;
        self.failure = Some(Failure::new(Cause::LinkLost, "the SSH server does not answer"));
    }

    fn prove_or_doubt(&mut self, number: Number, now: Instant, actions: &mut Vec<Action>) {
        let wait = self.unproved_wait;
        // A user's new wish has forgotten the old answer.
        let again = self.failure.is_some();
        let Some(attempt) = self.attempt(number) else { return };
        if attempt.suspect.is_some() || attempt.parked {
            return;
        }
        match attempt.stage {
            Stage::Proving { since, .. } if since + PROOF_PATIENCE <= now => {
                attempt.stage = Stage::Unproved { retry: now + wait };
                self.failure = Some(Failure::new(
                    Cause::GatewayStarting,
                    "something listens on the gateway's port but does not answer",
                ));
            }
            Stage::Unproved { retry } if retry <= now => {
                attempt.stage = Stage::Proving { since: now, again };
                actions.push(Action::Prove(number, Probe::Challenge));
            }
            Stage::Serving if attempt.proof_asked.is_some_and(|at| at + PROOF_PATIENCE <= now) => {
                attempt.proof_asked = None;
                attempt.next_proof = Some(now + PROOF_INTERVAL_SLOW);
                self.slow = true;
            }
            Stage::Serving
                if attempt.proof_asked.is_none()
                    && attempt.next_proof.is_some_and(|at| at <= now) =>
            {
                attempt.proof_asked = Some(now);
                actions.push(Action::Prove(number, Probe::Healthz));
            }
            Stage::Dialing | Stage::Proving { .. } | Stage::Unproved { .. } | Stage::Serving => {}
        }
    }

    /// Says where new connections go, if that has changed.
    fn direct(&mut self, actions: &mut Vec<Action>) {
        let replaceable = self.draining.len() < DRAINING_MOST;
        let serving = self.current.as_ref().filter(|attempt| attempt.is_serving(replaceable));
        let serving = serving.map(|attempt| attempt.number);
        if serving == self.served {
            return;
        }
        let silent = self.current.as_ref().and_then(|a| Some(a.suspect? - a.heard));
        self.silence_before_doubt = silent.unwrap_or_default();
        self.served = serving;
        actions.push(serving.map_or(Action::Hold, Action::Serve));
    }

    fn numbers(&self) -> Vec<Number> {
        self.current.iter().chain(&self.replacement).map(|attempt| attempt.number).collect()
    }

    fn attempt(&mut self, number: Number) -> Option<&mut Attempt> {
        self.current.iter_mut().chain(&mut self.replacement).find(|a| a.number == number)
    }

    fn drop_attempt(&mut self, number: Number) {
        if self.replacement.as_ref().is_some_and(|attempt| attempt.number == number) {
            self.replacement = None;
        } else if self.current.as_ref().is_some_and(|attempt| attempt.number == number) {
            self.current = self.replacement.take();
        }
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
