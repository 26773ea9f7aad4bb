//! What is due when: one deadline over all, and everything that is done as time passes.

use std::time::{Duration, Instant};

use super::{
    DRAINING_MOST, LOSER_PATIENCE, PARKED_PATIENCE, PROOF_INTERVAL_SLOW, PROOF_PATIENCE,
    REFUSAL_INTERVAL, SILENCE, SILENCE_REPLACED, Tunnel,
};
use crate::tunnel::{
    Action, Cause, Failure, Number, Probe, Wish,
    attempt::{Attempt, Ear, PING_IDLE, Stage},
};

impl Tunnel {
    /// When [`Event::Tick`](crate::tunnel::Event::Tick) is due; `None` while only an event from outside can change anything.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let attempts = self.current.iter().chain(&self.replacement);
        let of_attempts = attempts.filter_map(|attempt| {
            let proof = match attempt.stage {
                _ if attempt.suspect.is_some() => None,
                Stage::Dialing => None,
                Stage::Proving { since, .. } => Some(since + PROOF_PATIENCE),
                Stage::Unproved { retry } => Some(retry),
                // Behind a slow reader it may be as slow to answer.
                Stage::Serving if attempt.parked => None,
                Stage::Serving => match attempt.proof_asked {
                    Some(asked) => Some(asked + PROOF_PATIENCE),
                    None => attempt.next_proof,
                },
            };
            let silence = attempt.suspect.filter(|_| self.network).map(|since| since + SILENCE);
            [attempt.ping_deadline(self.idle()), proof, silence].into_iter().flatten().min()
        });
        let of_draining = self.draining.iter().filter_map(|draining| draining.until);
        let retry = self.retry.filter(|_| self.may_dial());
        let (replace, hung) = (self.replace_due(), self.hung_due());
        of_attempts.chain(of_draining).chain(retry).chain(replace).chain(hung).min()
    }

    /// Does all that is due at `now`.
    pub(super) fn pass_deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        self.end_drained(now, actions);
        self.end_silent(now, actions);
        for number in self.numbers() {
            self.prove_or_doubt(number, now, actions);
            self.ping_or_suspect(number, now, actions);
        }
        if due(self.hung_due()) {
            self.drop_hung(now, actions);
        }
        if due(self.replace_due()) {
            self.replace_after = None;
            self.unreached = false;
            let attempt = self.dial(now, actions);
            self.replacement = Some(attempt);
        }
        if matches!(self.wanted, Wish::OnDemand | Wish::Last) && self.held == 0 {
            self.retry = None;
        } else if self.current.is_none() && self.may_dial() {
            self.retry.get_or_insert(now);
        }
        if self.current.is_none() && self.may_dial() && due(self.retry) {
            self.retry = None;
            self.current = Some(self.dial(now, actions));
        }
    }

    /// When a replacement should be dialled, if one should.
    fn replace_due(&self) -> Option<Instant> {
        let current = self.current.as_ref().filter(|_| self.replacement.is_none())?;
        if !self.may_dial() {
            return None;
        }
        if self.urged.is_some() {
            return self.urged;
        }
        let is_wanted = self.wanted == Wish::Up || self.held > 0;
        // So that the next connection finds a session, and does not wait for a login.
        let ahead = current.parked_since.filter(|_| self.wanted == Wish::OnDemand);
        if !is_wanted && (ahead.is_none() || current.suspect.is_some()) {
            return None;
        }
        let refused = self.refused.as_ref().map(|(at, _)| *at + REFUSAL_INTERVAL);
        let after_vain = self.login_due().filter(|_| self.logged_in_vainly);
        if !current.has_session() {
            let hung = current.hangs(self.held > 0).filter(|_| self.logs_in_alone)?;
            return [Some(hung), after_vain, refused, self.replace_after]
                .into_iter()
                .flatten()
                .max();
        }
        if current.needs_person {
            return None;
        }
        let Some(wanted_since) = current.suspect else {
            let parked = current.parked && self.draining.len() < DRAINING_MOST;
            let patient = ahead.filter(|_| !is_wanted).map(|since| since + PARKED_PATIENCE);
            let paced = self.login_due().filter(|_| !is_wanted);
            let soonest = Some(self.replace_after.unwrap_or(current.heard)).max(patient).max(paced);
            return soonest.max(after_vain).max(refused).filter(|_| parked);
        };
        [Some(wanted_since), self.login_due(), refused, self.replace_after]
            .into_iter()
            .flatten()
            .max()
    }

    /// When a replacement whose dial may hang is left to itself, so that another one can begin.
    fn hung_due(&self) -> Option<Instant> {
        let replacement = self.replacement.as_ref().filter(|_| self.may_dial())?;
        let has_room = self.draining.len() < DRAINING_MOST;
        (has_room && self.logs_in_alone && self.refused.is_none())
            .then(|| replacement.hangs(self.held > 0))?
    }

    fn drop_hung(&mut self, now: Instant, actions: &mut Vec<Action>) {
        if let Some(replacement) = self.replacement.take() {
            self.drain(replacement.number, Some(now + LOSER_PATIENCE), false, actions);
        }
    }

    /// Between two pings while nobody waits.
    pub(super) fn idle(&self) -> Duration {
        self.options.alive.unwrap_or(PING_IDLE)
    }

    pub(super) fn dial(&mut self, now: Instant, actions: &mut Vec<Action>) -> Attempt {
        self.numbers += 1;
        self.attempts += 1;
        self.urged = None;
        let number = Number(self.numbers);
        actions.push(Action::Dial(number));
        Attempt::new(number, now)
    }

    pub(super) fn end_drained(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.draining.retain(|draining| {
            let over = draining.until.is_some_and(|until| until <= now);
            if over {
                actions.push(Action::Kill(draining.number));
            }
            !over
        });
    }

    /// Ends a session that stayed silent for too long.
    pub(super) fn end_silent(&mut self, now: Instant, actions: &mut Vec<Action>) {
        for number in self.numbers() {
            let Some(since) = self.attempt(number).and_then(|it| it.suspect) else { continue };
            if self.network && since + SILENCE <= now {
                actions.push(Action::Kill(number));
                let failure = Failure::new(Cause::LinkLost, "the connection fell silent");
                self.on_ended(number, failure, now);
            }
        }
    }

    pub(super) fn ping_or_suspect(
        &mut self,
        number: Number,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let idle = self.idle();
        // Twice an interval that somebody chose may be too long.
        let is_calm = self.options.alive.is_none()
            && self.replacement.is_none()
            && self.served == Some(number);
        let Some(attempt) = self.attempt(number) else { return };
        if attempt.ping_deadline(idle).is_none_or(|at| at > now) {
            return;
        }
        match (attempt.pinged, attempt.ear) {
            // A proof that is due before long takes the ping's place.
            (None, _) if is_calm && attempt.is_proof_near(now + idle) => {
                attempt.proof_asked = Some(now);
                actions.push(Action::Prove(number, Probe::Healthz));
                return;
            }
            (None, _) if is_calm && !attempt.is_awaited() => {
                attempt.pinged = Some(now);
                attempt.ear = Ear::Closed;
                actions.push(Action::PingQuietly(number));
                return;
            }
            (Some(_), Ear::Closed) if !attempt.is_awaited() => {
                attempt.ear = Ear::Looking(now);
                actions.push(Action::Look(number));
                return;
            }
            (None, _) | (Some(_), Ear::Closed) => {
                attempt.ask_aloud(now);
                actions.push(Action::Ping(number));
                return;
            }
            (Some(_), Ear::Open | Ear::Looking(_)) => {}
        }
        if self.replacement.as_ref().is_some_and(|attempt| attempt.number == number) {
            // It is no better than what it was to replace.
            self.replacement = None;
            self.drain(number, Some(now + SILENCE_REPLACED), true, actions);
            return;
        }
        let Some(attempt) = self.attempt(number) else { return };
        attempt.suspect = Some(now);
        attempt.proof_asked = None;
        let failure = Failure::new(Cause::LinkLost, "the SSH server does not answer");
        self.failure = Some(if attempt.needs_person {
            failure.fix("wait for it, or log in again with: openclaw remote connect")
        } else {
            failure
        });
    }

    pub(super) fn prove_or_doubt(
        &mut self,
        number: Number,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let wait = self.unproved_wait;
        // A user's new wish has forgotten the old answer.
        let again = self.failure.is_some();
        let Some(attempt) = self.attempt(number) else { return };
        if attempt.suspect.is_some() {
            return;
        }
        match attempt.stage {
            // Behind a slow reader the gateway may be as slow to answer.
            Stage::Serving if attempt.parked => {}
            Stage::Proving { since, .. } if since + PROOF_PATIENCE <= now => {
                attempt.stage = Stage::Unproved { retry: now + wait };
                let why = if attempt.parked {
                    "a program here that does not read holds up the gateway's answer"
                } else {
                    "something listens on the gateway's port but does not answer"
                };
                self.failure = Some(Failure::new(Cause::GatewayStarting, why));
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
}
