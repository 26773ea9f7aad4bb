//! The machine: events in, actions out, one deadline.

use std::time::{Duration, Instant};

use super::{
    Action, Cause, Event, Failure, Number, Options, Phase, Proof, Wish,
    attempt::{Attempt, Stage},
};
use crate::backoff::Backoff;

mod due;
mod news;

/// Between two `/healthz` proofs of a path that works.
const PROOF_INTERVAL: Duration = Duration::from_secs(180);
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
/// The same where round trips are long, or the last ping had to wait for the end of an outage.
const DOUBT_PATIENCE_MOST: Duration = Duration::from_secs(1);
/// How long the loser of a race may take to finish its login before it is ended.
const LOSER_PATIENCE: Duration = Duration::from_secs(60);
/// How many sessions may drain at once before a session stays shared with a slow reader.
const DRAINING_MOST: usize = 8;
/// Between two replacements whose logins the server saw: always while nobody waits, and on average
/// while somebody does.
const REPLACEMENT_INTERVAL: Duration = Duration::from_secs(30);
/// How long a slow reader must block a session that only newcomers would need another for.
const PARKED_PATIENCE: Duration = Duration::from_secs(1);
/// How many of them may follow one another at [`WAIT_HELD`] while somebody waits.
const REPLACEMENTS_AT_ONCE: u32 = 5;
/// Between two attempts after one that only a person could have helped, for as long as another
/// session is there.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(600);
/// How long a silent session is kept, since the link may come back; also the longest drain.
pub(crate) const SILENCE: Duration = Duration::from_secs(600);
/// How long a silent session lives on after its replacement has proved itself.
const SILENCE_REPLACED: Duration = Duration::from_secs(15);
/// How long a path must have served before its end counts as a first failure again.
const STABLE: Duration = Duration::from_secs(5);
/// The longest wait between attempts, and between such replacements, while a connection is held.
const WAIT_HELD: Duration = Duration::from_secs(4);
/// The wait when the server may be punishing this address.
const WAIT_PENALTY: Duration = Duration::from_secs(15);
/// What is said about that wait, at the end of a failure's message.
pub(crate) const PUNISHED: &str = "; the next attempt waits 15 s, in case it punishes this address";

/// A session that no longer gets new connections.
#[derive(Debug, Clone)]
struct Draining {
    number: Number,
    /// When it is ended with whatever it carries; never while a slow reader is left to it.
    until: Option<Instant>,
    silent: bool,
    /// Whether a slow reader blocks it.
    parked: bool,
    /// If it was silent: since when what was asked must have been asked for its answer to count.
    doubted: Option<Instant>,
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
    /// When the server last saw the login of a replacement.
    replaced: Option<Instant>,
    /// When all of those are paid for, at one in [`REPLACEMENT_INTERVAL`].
    paid: Option<Instant>,
    /// Whether the last replacement logged in and ended before it served.
    logged_in_vainly: bool,
    /// When the next replacement may be dialled, if not at once.
    replace_after: Option<Instant>,
    /// Whether that wait is for a server that was not reached.
    unreached: bool,
    /// When a replacement last failed for want of a person, and how.
    refused: Option<(Instant, Failure)>,
    /// When the user asked for a path while the one there was silent.
    urged: Option<Instant>,
    /// Whether the last login needed nobody.
    logs_in_alone: bool,
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
            paid: None,
            logged_in_vainly: false,
            replace_after: None,
            unreached: false,
            refused: None,
            urged: None,
            logs_in_alone: false,
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
                // Newcomers wait for the session that is to take its place.
                Stage::Serving if attempt.parked && self.served.is_none() => Phase::Connecting,
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

    /// Takes one event in and says what to do.
    #[must_use]
    pub(crate) fn step(&mut self, event: Event, now: Instant) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Wish(wish) => self.on_wish(wish, now, &mut actions),
            Event::Woke { slept } => self.on_woke(slept, now, &mut actions),
            Event::Network { up } => self.on_network(up, now, &mut actions),
            Event::Held(count) => self.on_held(count, now),
            Event::News(number, news) => self.on_news(number, news, now, &mut actions),
            Event::Tick => {}
        }
        self.pass_deadlines(now, &mut actions);
        self.direct(&mut actions);
        self.say_why_it_waits();
        actions
    }

    /// Without a route nothing is tried that could fail.
    fn say_why_it_waits(&mut self) {
        let is_wanted = self.wanted == Wish::Up || (self.wanted != Wish::Down && self.held > 0);
        if is_wanted && !self.network && self.current.is_none() && self.blocked.is_none() {
            let why = "this machine has no route to the server; it is dialled once there is one";
            self.failure =
                Some(Failure::new(Cause::NoRoute, why).fix("check the network of this machine"));
        }
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
            self.refused = None;
            self.urged = None;
            self.serving_since = None;
            self.slow = false;
            self.proof = None;
            return;
        }
        self.blocked = None;
        self.refused = None;
        self.closed_early = 0;
        self.punished_until = None;
        match &mut self.current {
            // Somebody is there to log in again.
            Some(attempt) if attempt.suspect.is_some() => {
                self.urged = self.replacement.is_none().then_some(now);
            }
            Some(Attempt { stage: Stage::Unproved { retry }, .. }) => {
                *retry = now;
                self.failure = None;
            }
            // Whoever wants it now must not be told of what failed before.
            Some(_) | None => self.failure = None,
        }
        self.hurry(now);
    }

    fn on_woke(&mut self, slept: Duration, now: Instant, actions: &mut Vec<Action>) {
        // These count in the server's time, which did not stand still.
        let times = [&mut self.replaced, &mut self.paid, &mut self.punished_until];
        for past in times.into_iter().flatten() {
            *past = past.checked_sub(slept).unwrap_or(*past);
        }
        self.on_doubt("this machine was asleep or stopped", now, actions);
    }

    fn on_network(&mut self, up: bool, now: Instant, actions: &mut Vec<Action>) {
        let (is_back, is_gone) = (up && !self.network, !up && self.network);
        self.network = up;
        if is_gone {
            self.on_doubt("this machine lost its way to the server", now, actions);
        }
        if !up {
            return;
        }
        if is_back {
            // It has words of its own from here on.
            self.failure.take_if(|failure| failure.cause == Cause::NoRoute);
        }
        // What the last replacement reached may be out of reach now.
        (self.replaced, self.paid) = (None, None);
        if is_back && let Some(attempt) = &mut self.current {
            // Silence without a network is no news of the session.
            attempt.suspect = attempt.suspect.map(|_| now);
        }
        self.on_doubt("the addresses or routes of this machine changed", now, actions);
    }

    /// What was proved may no longer hold: ask, and dial beside it.
    fn on_doubt(&mut self, reason: &str, now: Instant, actions: &mut Vec<Action>) {
        self.hurry(now);
        for attempt in self.current.iter_mut().chain(&mut self.replacement) {
            if !attempt.has_session() {
                attempt.doubted.get_or_insert(now);
            } else {
                // Beside one under way: its answer may be on this machine already.
                actions.push(Action::Ping(attempt.number));
                attempt.ask_aloud(now);
                // Behind a slow reader the answer may take as long as the reader does.
                if !attempt.parked {
                    attempt.doubted = Some(now);
                }
            }
        }
        if let Some(attempt) = &mut self.current
            && attempt.has_session()
            && !attempt.parked
        {
            if attempt.suspect.is_none() {
                attempt.suspect = Some(now);
                self.failure = Some(Failure::new(Cause::Doubted, reason));
            }
            attempt.proof_asked = None;
            let patience = (attempt.rtt * 2).clamp(DOUBT_PATIENCE, DOUBT_PATIENCE_MOST);
            self.replace_after = Some(self.unpunished(now + patience));
        }
    }

    fn on_held(&mut self, count: usize, now: Instant) {
        let first = self.held == 0 && count > 0;
        self.held = count;
        let soon = self.unpunished(now);
        if first && let Some(retry) = &mut self.retry {
            *retry = soon.min(*retry);
        }
        if first
            && self.unreached
            && let Some(replace) = &mut self.replace_after
        {
            *replace = soon.min(*replace);
        }
    }

    /// The next attempt is due now, or when a possible penalty is over, and starts from the first
    /// step of the backoff.
    fn hurry(&mut self, now: Instant) {
        self.backoff.reset();
        if self.current.is_none() && self.wanted != Wish::Down && self.blocked.is_none() {
            self.retry = Some(self.unpunished(now));
        }
    }

    /// `at`, or the end of a possible penalty if that is later.
    fn unpunished(&self, at: Instant) -> Instant {
        self.punished_until.map_or(at, |until| until.max(at))
    }

    /// The server has seen the login of a replacement. Those that came unasked for, late or for a
    /// slow reader, make nobody wait longer than the interval.
    fn count_login(&mut self, now: Instant) {
        self.replaced = Some(now);
        let paid = self.paid.map_or(now, |paid| paid.max(now)) + REPLACEMENT_INTERVAL;
        self.paid = Some(paid.min(now + REPLACEMENT_INTERVAL * REPLACEMENTS_AT_ONCE));
    }

    /// When the server may see the next one.
    fn login_due(&self) -> Option<Instant> {
        let last = self.replaced?;
        if self.held == 0 {
            return Some(last + REPLACEMENT_INTERVAL);
        }
        let credit = REPLACEMENT_INTERVAL * (REPLACEMENTS_AT_ONCE - 1);
        let affordable = self.paid.and_then(|paid| paid.checked_sub(credit));
        affordable.max(Some(last + WAIT_HELD))
    }

    fn may_dial(&self) -> bool {
        self.wanted != Wish::Down && self.network && self.blocked.is_none()
    }

    /// Says where new connections go, if that has changed.
    fn direct(&mut self, actions: &mut Vec<Action>) {
        let replaceable = self.draining.len() < DRAINING_MOST && self.refused.is_none();
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
}

#[cfg(test)]
mod tests;
