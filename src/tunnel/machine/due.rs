//! What is due when: one deadline over all, and everything that is done as time passes.

use std::time::{Duration, Instant};

use super::{
    DRAINING_MOST, PROOF_INTERVAL_SLOW, PROOF_PATIENCE, REPLACEMENT_INTERVAL, SILENCE,
    SILENCE_WITH_PERSON, Tunnel,
};
use crate::tunnel::{
    Action, Cause, Failure, Number, Probe, Wish,
    attempt::{Attempt, PING_IDLE, Stage},
};

impl Tunnel {
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

    /// Does all that is due at `now`.
    pub(super) fn pass_deadlines(&mut self, now: Instant, actions: &mut Vec<Action>) {
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

    /// When a replacement should be dialled, if one should.
    pub(super) fn replace_due(&self) -> Option<Instant> {
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

    pub(super) fn silence(&self, attempt: &Attempt) -> Duration {
        if attempt.needs_person { SILENCE_WITH_PERSON } else { SILENCE }
    }

    /// Between two pings while nobody waits.
    pub(super) fn idle(&self) -> Duration {
        self.options.alive.unwrap_or(PING_IDLE)
    }

    pub(super) fn dial(&mut self, now: Instant, actions: &mut Vec<Action>) -> Attempt {
        self.numbers += 1;
        self.attempts += 1;
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
            let Some(attempt) = self.attempt(number).cloned() else { continue };
            let Some(since) = attempt.suspect else { continue };
            if since + self.silence(&attempt) <= now {
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
}
