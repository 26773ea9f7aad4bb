//! What news of an attempt means: it came up, was heard, proved itself, or ended.

use std::time::{Duration, Instant};

use super::{
    DRAINING_MOST, Draining, LOSER_PATIENCE, PROOF_INTERVAL, PUNISHED, REFUSAL_INTERVAL, SILENCE,
    SILENCE_REPLACED, STABLE, Tunnel, UNPROVED_FIRST, UNPROVED_MOST, WAIT_HELD, WAIT_PENALTY,
};
use crate::tunnel::{
    Action, Cause, Failure, News, Number, Probe, Proof, ProofKind,
    attempt::{Attempt, Ear, Stage},
};

impl Tunnel {
    pub(super) fn on_news(
        &mut self,
        number: Number,
        news: News,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
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
        if attempt.is_old(&news, now) {
            return;
        }
        match news {
            News::SessionUp { needs_person } => {
                attempt.heard = now;
                attempt.doubted = None;
                attempt.needs_person = needs_person;
                self.logs_in_alone = !needs_person;
                self.refused = None;
                let replaces = self.current.as_ref().is_some_and(Attempt::has_session);
                if replaces && self.replacement.as_ref().is_some_and(|r| r.number == number) {
                    self.count_login(now);
                }
                let Some(attempt) = self.attempt(number) else { return };
                if gateway {
                    attempt.stage = Stage::Proving { since: now, again: false };
                    actions.push(Action::Prove(number, Probe::Challenge));
                } else {
                    self.on_proved(number, Duration::ZERO, now, actions);
                }
            }
            News::Heard | News::Alive | News::Found | News::Answered | News::Pong { .. } => {
                self.on_heard(number, &news, now, actions);
            }
            News::Shaking(is_reached) => attempt.shaking = is_reached.then_some(now),
            News::Stranded(stranded) => attempt.stranded = stranded,
            News::Awaited => attempt.awaited = true,
            News::Proved { rtt } => self.on_proved(number, rtt, now, actions),
            News::NotProved(failure) => self.on_not_proved(number, failure, now, actions),
            News::Parked(parked) => {
                attempt.parked = parked;
                attempt.parked_since = parked.then(|| attempt.parked_since.unwrap_or(now));
                attempt.was_parked |= parked;
                attempt.heard = now;
                if attempt.suspect.is_none() {
                    attempt.pinged = None;
                }
            }
            News::Empty | News::Ended(_) => {}
        }
    }

    pub(super) fn on_news_of_draining(
        &mut self,
        place: usize,
        news: &News,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let replaces = self.current.as_ref().is_some_and(Attempt::has_session);
        if replaces && matches!(news, News::SessionUp { .. }) {
            self.count_login(now);
        }
        let Some(draining) = self.draining.get_mut(place) else { return };
        match news {
            News::Ended(_) => {
                self.draining.remove(place);
            }
            News::Empty => {
                actions.push(Action::Kill(draining.number));
                self.draining.remove(place);
            }
            // What it had received may wait for its reader, whether the link lives or not.
            News::Pong { rtt }
                if draining
                    .doubted
                    .is_some_and(|since| *rtt <= now.saturating_duration_since(since)) =>
            {
                draining.doubted = None;
                draining.silent = false;
                draining.until = (!draining.parked).then(|| now + SILENCE);
            }
            News::Parked(parked) => {
                draining.parked = *parked;
                if draining.doubted.is_none() {
                    // One of a link that lives may have other streams, which nobody has to end.
                    let ends = !parked && draining.silent;
                    draining.until = ends.then(|| now + SILENCE);
                }
            }
            // One that was doubted has a successor; another may get its address back.
            News::Stranded(true) => {
                let patience = match (draining.parked, draining.silent) {
                    (true, _) => SILENCE,
                    (false, true) => Duration::ZERO,
                    (false, false) => SILENCE_REPLACED,
                };
                draining.silent = true;
                draining.doubted.get_or_insert(now);
                let end = now + patience;
                draining.until = Some(draining.until.map_or(end, |until| until.min(end)));
            }
            News::Heard | News::Alive | News::Answered if draining.silent && !draining.parked => {
                draining.silent = false;
                draining.until = Some(now + SILENCE);
            }
            News::Heard
            | News::Alive
            | News::Found
            | News::Answered
            | News::Pong { .. }
            | News::SessionUp { .. }
            | News::Shaking(_)
            | News::Stranded(_)
            | News::Awaited
            | News::Proved { .. }
            | News::NotProved(_) => {}
        }
    }

    pub(super) fn on_heard(
        &mut self,
        number: Number,
        news: &News,
        now: Instant,
        actions: &mut Vec<Action>,
    ) {
        let gateway = self.options.proof == ProofKind::Gateway;
        let Some(attempt) = self.attempt(number) else { return };
        // The answer that nobody listened for may be as old as the question.
        let mut heard = now;
        if *news == News::Found && attempt.suspect.is_none() {
            let Some(sent) = attempt.pinged.filter(|_| attempt.ear != Ear::Open) else { return };
            heard = attempt.heard.max(sent);
            attempt.pinged = None;
        }
        attempt.heard = heard.max(attempt.heard);
        let mut late = false;
        if let News::Pong { rtt } = news {
            late = *rtt > attempt.patience();
            attempt.rtt = *rtt;
            attempt.pinged = None;
            attempt.doubted = None;
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
        }
        if late {
            // It tells how long the path was gone, and not how long it is: a second answer does.
            attempt.ask_aloud(now);
            actions.push(Action::Ping(number));
        }
        if relieved && gateway {
            let again = matches!(attempt.stage, Stage::Unproved { .. });
            attempt.stage = Stage::Proving { since: now, again };
            actions.push(Action::Prove(number, Probe::Challenge));
        }
        if relieved {
            self.urged = None;
            if !gateway {
                self.failure = None;
            }
        }
        match &mut self.proof {
            Some(proof) if gateway && serving && *news == News::Heard => {
                proof.at = now;
                self.slow = false;
            }
            _ if gateway => {}
            _ => self.proof = Some(Proof { kind: ProofKind::Ssh, at: heard, rtt }),
        }
    }

    pub(super) fn on_proved(
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
        attempt.doubted = None;
        attempt.pinged = None;
        attempt.proof_asked = None;
        attempt.next_proof = gateway.then(|| now + PROOF_INTERVAL);
        self.proof = Some(Proof { kind: self.options.proof, at: now, rtt });
        self.slow = false;
        self.urged = None;
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
    pub(super) fn settle(&mut self, proved: Number, now: Instant, actions: &mut Vec<Action>) {
        let Some(replacement) = self.replacement.take() else { return };
        if replacement.number != proved {
            if self.current.as_ref().is_some_and(|attempt| attempt.parked) {
                self.replacement = Some(replacement);
            } else {
                self.drain(replacement.number, Some(now + LOSER_PATIENCE), false, actions);
            }
            return;
        }
        self.logged_in_vainly = false;
        let Some(old) = self.current.replace(replacement) else { return };
        if !old.has_session() {
            self.drain(old.number, Some(now + LOSER_PATIENCE), false, actions);
            return;
        }
        let until = match (old.parked, old.suspect.is_some()) {
            // Its reader may take as long as it likes of a link that lives, and so may its neighbours
            // once it has caught up.
            (true, false) => None,
            (false, false) if old.was_parked => None,
            (true, true) | (false, false) => Some(now + SILENCE),
            (false, true) if old.stranded => Some(now),
            (false, true) => Some(now + SILENCE_REPLACED),
        };
        self.draining.push(Draining {
            number: old.number,
            until,
            silent: old.suspect.is_some(),
            parked: old.parked,
            doubted: old.suspect.map(|since| old.doubted.or(old.pinged).unwrap_or(since)),
        });
        actions.push(Action::Drain(old.number));
    }

    pub(super) fn drain(
        &mut self,
        number: Number,
        until: Option<Instant>,
        silent: bool,
        actions: &mut Vec<Action>,
    ) {
        let (parked, doubted) = (until.is_none(), None);
        self.draining.push(Draining { number, until, silent, parked, doubted });
        actions.push(Action::Drain(number));
    }

    pub(super) fn on_not_proved(
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
            let until = (!attempt.parked).then(|| now + SILENCE);
            let has_served = attempt.next_proof.is_some();
            self.drop_attempt(number);
            if has_served && self.draining.len() < DRAINING_MOST {
                // The streams it carries need no new leave.
                self.drain(number, until, false, actions);
            } else {
                actions.push(Action::Kill(number));
            }
            self.failure = Some(failure.clone());
            if replacing {
                self.refused = Some((now, failure));
            } else {
                self.give_up(failure);
            }
            return;
        }
        // Of several that hear it at once only the first makes the wait longer.
        if !matches!(attempt.stage, Stage::Unproved { .. }) {
            attempt.stage = Stage::Unproved { retry: now + wait };
            self.unproved_wait = (wait * 2).min(UNPROVED_MOST);
        }
        self.failure = Some(failure);
        if !replacing {
            self.serving_since = None;
        }
    }

    pub(super) fn on_ended(&mut self, number: Number, failure: Failure, now: Instant) {
        if failure.cause == Cause::NoRoute && self.attempt(number).is_some() {
            // Nothing has left this machine.
            self.attempts = self.attempts.saturating_sub(1);
        }
        if self.replacement.as_ref().is_some_and(|attempt| attempt.number == number) {
            self.on_replacement_ended(failure, now);
            return;
        }
        let Some(ended) = self.current.take_if(|attempt| attempt.number == number) else { return };
        let served = self.serving_since.take().is_some_and(|since| now - since >= STABLE);
        if served && ended.suspect.is_none() {
            self.backoff.reset();
        }
        self.slow = false;
        self.urged = None;
        self.current = self.replacement.take();
        if self.current.is_some() {
            self.failure = Some(failure.clone());
            if !failure.cause.is_transient() {
                self.refused = Some((now, failure));
            }
            return;
        }
        // What a person must help with is no better for having been asked again.
        let refused = self.refused.take().filter(|(at, _)| now < *at + REFUSAL_INTERVAL);
        let failure = refused.map_or(failure, |(_, refusal)| refusal);
        self.failure = Some(failure.clone());
        if failure.cause.is_transient() {
            self.retry = Some(now + self.wait(failure.cause, now));
            if let (Some(_), Some(failure)) = (self.punished_until, &mut self.failure) {
                failure.message.push_str(PUNISHED);
            }
        } else {
            self.give_up(failure);
        }
    }

    fn on_replacement_ended(&mut self, failure: Failure, now: Instant) {
        let Some(replacement) = self.replacement.take() else { return };
        if !failure.cause.is_transient() {
            self.failure = Some(failure.clone());
            self.refused = Some((now, failure));
            return;
        }
        self.unreached = !replacement.has_session();
        if self.unreached {
            self.replace_after = Some(now + self.wait(failure.cause, now));
        } else {
            self.replaced = Some(now);
            self.logged_in_vainly = true;
        }
    }

    /// The wait after an attempt that failed for `cause`.
    pub(super) fn wait(&mut self, cause: Cause, now: Instant) -> Duration {
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

    pub(super) fn give_up(&mut self, failure: Failure) {
        self.retry = None;
        self.serving_since = None;
        if self.current.is_none() {
            self.blocked = Some(failure);
        }
    }

    pub(super) fn drop_attempt(&mut self, number: Number) {
        if self.replacement.as_ref().is_some_and(|attempt| attempt.number == number) {
            self.replacement = None;
        } else if self.current.as_ref().is_some_and(|attempt| attempt.number == number) {
            self.current = self.replacement.take();
        }
    }
}
