//! A listener at the server, for what leads from there to here: asked for, proved, taken back.
//!
//! ```text
//!   Idle --serve--> Asked --granted--> Held  (or Proving --> Proved, for a gateway)
//!                     |  ^
//!               refused  +-- when the wait is over
//! ```
//!
//! A listener cannot overlap with itself: on a new session the old one is given back first. What a
//! session that is gone still holds over there is waited out, for as long as it takes.

use std::time::{Duration, Instant};

use super::{Failure, Number, Phase, Proof, ProofKind};
use crate::backoff::Backoff;

/// Between two proofs of a gateway that answers.
const PROOF_INTERVAL: Duration = Duration::from_secs(60);
/// The first wait before a gateway that did not answer is asked again.
const UNPROVED_FIRST: Duration = Duration::from_millis(300);
/// The longest.
const UNPROVED_MOST: Duration = Duration::from_secs(5);

/// The longest wait while a session of ours that is gone holds the place: the server may let go of it
/// in any moment, and somebody over there waits for that.
const STALE_MOST: Duration = Duration::from_secs(4);
/// For how long. A server that has not noticed by then may take hours.
const STALE_FOR: Duration = Duration::from_secs(120);

/// How often in a row it takes until a refusal counts as the server's policy.
const PROHIBITED: u32 = 2;

/// What a claim is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ClaimEvent {
    /// The user wants it now, whatever was refused before.
    Wanted,
    /// A session serves, from now on or again.
    Serve(Number),
    /// No session serves.
    Hold,
    /// A session has ended, and with it what it held.
    Gone(Number),
    /// The server listens for this session.
    Granted(Number),
    /// The server does not, or not where others will look.
    Refused(Number, Refusal),
    /// The gateway here answered; with what was seen of it through the session.
    Proved(Number, ProofKind, Duration),
    /// It did not.
    NotProved(Number, Failure),
    /// Give back what is held, and ask for nothing more.
    Release,
    /// The deadline has passed.
    Tick,
}

/// Why there is no listener, as far as can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Somebody has the place.
    Taken,
    /// Nobody has it, and it was refused: the server does not allow it.
    Prohibited,
    /// It cannot be told which.
    Unclear,
    /// The server did not answer.
    Silent,
}

/// What a claim wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimAction {
    /// Ask for the listener on a session, after giving back what `before` holds.
    Ask {
        /// The session to ask on.
        on: Number,
        /// The session that still holds it, or may.
        before: Option<Number>,
    },
    /// Ask the gateway here, and see it through the session.
    Prove(Number),
    /// Give the listener back.
    GiveBack(Number),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    /// Nothing is asked for.
    Idle,
    /// Asked on the session that serves.
    Asked,
    /// Refused; asked again then, if ever.
    Refused(Refusal, Option<Instant>),
    /// Granted, and that is all that is wanted.
    Held,
    /// Granted, and the gateway is being asked.
    Proving,
    /// The gateway answered; asked again then.
    Proved(Instant),
    /// It did not; asked again then.
    Unproved(Instant, Failure),
}

/// One listener over there.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    /// Whether a gateway behind it must answer.
    proves: bool,
    stage: Stage,
    serving: Option<Number>,
    /// The session on which it was last asked for.
    asked: Option<Number>,
    /// The session that has been asked and has not answered.
    unanswered: Option<Number>,
    /// The session that holds it.
    holder: Option<Number>,
    /// The session whose server never answered, and may listen all the same, now or later.
    doubtful: Option<Number>,
    released: bool,
    /// Since when another session of ours held it last, and nothing was granted.
    stale: Option<Instant>,
    /// How often in a row it was refused though nobody has the place.
    prohibited: u32,
    backoff: Backoff,
    unproved_wait: Duration,
    proof: Option<Proof>,
}

impl Claim {
    /// A claim that nothing serves yet; `proves` is whether a gateway behind it must answer before
    /// it counts as live. `seed` decides all jitter.
    pub(crate) fn new(proves: bool, seed: u64) -> Self {
        Self {
            proves,
            stage: Stage::Idle,
            serving: None,
            asked: None,
            unanswered: None,
            holder: None,
            doubtful: None,
            released: false,
            stale: None,
            prohibited: 0,
            backoff: Backoff::new(seed),
            unproved_wait: UNPROVED_FIRST,
            proof: None,
        }
    }

    /// Where it is, on a tunnel that is at `tunnel`.
    pub(crate) fn phase(&self, tunnel: Phase) -> Phase {
        if !matches!(tunnel, Phase::Live | Phase::GatewaySlow) {
            return tunnel;
        }
        match &self.stage {
            Stage::Idle | Stage::Asked => Phase::Connecting,
            Stage::Refused(_, None) => Phase::Blocked,
            Stage::Refused(_, Some(_)) => Phase::Waiting,
            Stage::Proving => Phase::Connecting,
            Stage::Held | Stage::Proved(_) => Phase::Live,
            Stage::Unproved(..) => Phase::GatewayDown,
        }
    }

    /// Why the server does not listen, while it does not.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match &self.stage {
            Stage::Refused(refusal, _) => Some(*refusal),
            Stage::Idle
            | Stage::Asked
            | Stage::Held
            | Stage::Proving
            | Stage::Proved(_)
            | Stage::Unproved(..) => None,
        }
    }

    /// Why the gateway here does not answer, while it does not.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        match &self.stage {
            Stage::Unproved(_, failure) => Some(failure),
            Stage::Idle
            | Stage::Asked
            | Stage::Refused(..)
            | Stage::Held
            | Stage::Proving
            | Stage::Proved(_) => None,
        }
    }

    /// Whether a session before this one had the place: the server may not know that it is gone.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.is_some()
    }

    /// The last evidence, where a gateway must answer.
    pub(crate) fn proof(&self) -> Option<Proof> {
        self.proof
    }

    /// When [`ClaimEvent::Tick`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.serving?;
        match &self.stage {
            Stage::Refused(_, at) => *at,
            Stage::Proved(at) | Stage::Unproved(at, _) => Some(*at),
            Stage::Idle | Stage::Asked | Stage::Held | Stage::Proving => None,
        }
    }

    /// Takes one event in and says what to do.
    #[must_use]
    pub(crate) fn step(&mut self, event: ClaimEvent, now: Instant) -> Option<ClaimAction> {
        if let ClaimEvent::Granted(number)
        | ClaimEvent::Refused(number, _)
        | ClaimEvent::Gone(number) = &event
        {
            self.unanswered = self.unanswered.filter(|asked| asked != number);
        }
        match event {
            ClaimEvent::Wanted => self.on_wanted(now),
            ClaimEvent::Serve(number) => self.serving = Some(number),
            ClaimEvent::Hold => self.serving = None,
            ClaimEvent::Gone(number) => self.on_gone(number, now),
            ClaimEvent::Granted(number) => return self.on_granted(number),
            ClaimEvent::Refused(number, refusal) => self.on_refused(number, refusal, now),
            ClaimEvent::Proved(number, kind, rtt) if self.is_proving(number) => {
                self.unproved_wait = UNPROVED_FIRST;
                self.proof = Some(Proof { kind, at: now, rtt });
                self.stage = Stage::Proved(now + PROOF_INTERVAL);
            }
            ClaimEvent::NotProved(number, failure) if self.is_proving(number) => {
                let wait = self.unproved_wait;
                self.unproved_wait = (wait * 2).min(UNPROVED_MOST);
                self.stage = Stage::Unproved(now + wait, failure);
            }
            ClaimEvent::Proved(..) | ClaimEvent::NotProved(..) | ClaimEvent::Tick => {}
            ClaimEvent::Release => return self.on_release(),
        }
        self.next(now)
    }

    /// What is due.
    fn next(&mut self, now: Instant) -> Option<ClaimAction> {
        let number = self.serving.filter(|_| !self.released)?;
        if self.asked != Some(number) {
            self.asked = Some(number);
            self.stage = Stage::Asked;
            if self.unanswered == Some(number) {
                // A second question would be refused because of the first.
                return None;
            }
            let before = self.holder.take().filter(|holder| *holder != number);
            if before.is_some() {
                self.stale.get_or_insert(now);
            }
            // The server takes wishes in their order: what it grants there is given back at once.
            let unsure = self.unanswered.or(self.doubtful.take());
            let before = before.or(unsure.filter(|unsure| *unsure != number));
            self.unanswered = Some(number);
            return Some(ClaimAction::Ask { on: number, before });
        }
        // What was said last holds until there is another answer.
        let later = now + PROOF_INTERVAL;
        match &mut self.stage {
            Stage::Refused(_, Some(at)) if *at <= now => {
                *at = later;
                self.unanswered = Some(number);
                Some(ClaimAction::Ask { on: number, before: None })
            }
            Stage::Proved(at) | Stage::Unproved(at, _) if *at <= now => {
                *at = later;
                Some(ClaimAction::Prove(number))
            }
            Stage::Idle
            | Stage::Asked
            | Stage::Refused(..)
            | Stage::Held
            | Stage::Proving
            | Stage::Proved(_)
            | Stage::Unproved(..) => None,
        }
    }

    fn on_wanted(&mut self, now: Instant) {
        self.released = false;
        self.prohibited = 0;
        self.backoff.reset();
        match &mut self.stage {
            Stage::Refused(_, at) => *at = Some(now),
            Stage::Unproved(at, _) => *at = now,
            Stage::Idle | Stage::Asked | Stage::Held | Stage::Proving | Stage::Proved(_) => {}
        }
    }

    fn on_gone(&mut self, number: Number, now: Instant) {
        if self.serving == Some(number) {
            self.serving = None;
        }
        if self.holder == Some(number) {
            self.holder = None;
            self.stale = Some(now);
        }
        self.doubtful = self.doubtful.filter(|doubtful| *doubtful != number);
        if self.asked == Some(number) {
            self.asked = None;
            self.stage = Stage::Idle;
        }
    }

    fn on_granted(&mut self, number: Number) -> Option<ClaimAction> {
        if self.asked != Some(number) || self.released {
            // Too late: another session has been asked.
            return Some(ClaimAction::GiveBack(number));
        }
        self.holder = Some(number);
        self.stale = None;
        self.prohibited = 0;
        self.backoff.reset();
        self.stage = if self.proves { Stage::Proving } else { Stage::Held };
        self.proves.then_some(ClaimAction::Prove(number))
    }

    fn on_refused(&mut self, number: Number, refusal: Refusal, now: Instant) {
        if refusal == Refusal::Silent {
            self.doubtful = Some(number);
        }
        if self.asked != Some(number) || self.released {
            return;
        }
        self.holder = self.holder.filter(|holder| *holder != number);
        self.prohibited = if refusal == Refusal::Prohibited { self.prohibited + 1 } else { 0 };
        let is_fresh = self.stale.is_some_and(|since| now.duration_since(since) < STALE_FOR);
        let most = if is_fresh { STALE_MOST } else { Duration::MAX };
        let wait = self.backoff.next_wait().min(most);
        // Once could be a place that was left in the moment between.
        let is_final = self.prohibited >= PROHIBITED;
        self.stage = Stage::Refused(refusal, (!is_final).then(|| now + wait));
    }

    fn on_release(&mut self) -> Option<ClaimAction> {
        self.released = true;
        self.stage = Stage::Idle;
        self.asked = None;
        self.holder.take().or(self.doubtful.take()).map(ClaimAction::GiveBack)
    }

    fn is_proving(&self, number: Number) -> bool {
        let asked = matches!(self.stage, Stage::Proving | Stage::Proved(_) | Stage::Unproved(..));
        asked && self.holder == Some(number)
    }
}

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
