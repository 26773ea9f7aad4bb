//! Stories and invariants of the machine on a virtual clock.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use super::*;
use crate::tunnel::{
    Cause, News, Probe, ProofKind,
    attempt::{DIAL_PATIENCE, PING_IDLE, STEP_PATIENCE},
};

mod coming_back;
mod gateway;
mod noticing;
mod parked;
mod replacing;
mod scripts;

const fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn lost() -> Failure {
    Failure::new(Cause::LinkLost, "the link broke")
}

/// Some instant; the machine never sees the clock it came from.
#[expect(clippy::disallowed_methods, reason = "an instant can come from nowhere else")]
fn start() -> Instant {
    Instant::now()
}

/// A tunnel with a clock, which keeps account of what the machine asked for.
struct Sim {
    tunnel: Tunnel,
    now: Instant,
    /// Dialled and neither killed, ended nor draining.
    alive: BTreeSet<Number>,
    draining: BTreeSet<Number>,
    up: BTreeSet<Number>,
    proved: BTreeSet<Number>,
    served: Option<Number>,
    last: Number,
    /// When a login beside a session was last made, in the server's time, and until when all of
    /// them are paid for.
    replaced: Option<(Instant, Instant)>,
    /// When an attempt last failed for want of a person.
    refused: Option<Instant>,
}

impl Sim {
    fn new(proof: ProofKind) -> Self {
        Self {
            tunnel: Tunnel::new(Options { proof, alive: None, seed: 7 }),
            now: start(),
            alive: BTreeSet::new(),
            draining: BTreeSet::new(),
            up: BTreeSet::new(),
            proved: BTreeSet::new(),
            served: None,
            last: Number(0),
            replaced: None,
            refused: None,
        }
    }

    fn event(&mut self, event: Event) -> Vec<Action> {
        if let Event::News(number, news) = &event {
            match news {
                News::SessionUp { .. } => {
                    self.up.insert(*number);
                    if self.tunnel.options.proof == ProofKind::Ssh {
                        self.proved.insert(*number);
                    }
                }
                News::Proved { .. } => drop(self.proved.insert(*number)),
                News::Ended(_) => {
                    self.alive.remove(number);
                    self.draining.remove(number);
                }
                News::Heard
                | News::Alive
                | News::Found
                | News::Answered
                | News::Pong { .. }
                | News::Shaking(_)
                | News::Stranded(_)
                | News::Awaited
                | News::NotProved(_)
                | News::Parked(_)
                | News::Empty => {}
            }
        }
        self.note(&event);
        let before = self.tunnel.clone();
        let is_wish = matches!(event, Event::Wish(_));
        let actions = self.tunnel.step(event, self.now);
        for action in &actions {
            self.account(*action);
            if matches!(action, Action::Dial(_)) {
                self.check_dial(&before, is_wish);
            }
        }
        if self.tunnel.options.proof == ProofKind::Gateway {
            // What was proved before a silence is a memory.
            for attempt in self.tunnel.current.iter().filter(|it| it.suspect.is_some()) {
                self.proved.remove(&attempt.number);
            }
        }
        self.check();
        actions
    }

    /// Keeps the books that the limits of dialling are held to.
    fn note(&mut self, event: &Event) {
        let has_session = self.tunnel.current.as_ref().is_some_and(Attempt::has_session);
        let replaces = |number: Number| {
            self.tunnel.replacement.as_ref().is_some_and(|it| it.number == number) && has_session
        };
        let known = |number| {
            let numbers = self.tunnel.current.iter().chain(&self.tunnel.replacement);
            numbers.map(|attempt| attempt.number).any(|it| it == number)
        };
        match event {
            Event::Wish(_) => self.refused = None,
            Event::Woke { slept } => {
                let earlier = |at: Instant| at.checked_sub(*slept).unwrap_or(at);
                self.replaced = self.replaced.map(|(at, paid)| (earlier(at), earlier(paid)));
            }
            Event::News(number, News::SessionUp { .. }) if known(*number) => {
                self.refused = None;
                if replaces(*number) {
                    self.count_login();
                }
            }
            Event::News(number, News::SessionUp { .. }) => {
                if has_session && self.draining.contains(number) {
                    self.count_login();
                }
            }
            Event::News(number, News::Ended(failure))
                if known(*number) && !failure.cause.is_transient() =>
            {
                self.refused = Some(self.now);
            }
            Event::Network { up: true } => self.replaced = None,
            Event::News(..) | Event::Network { .. } | Event::Held(_) | Event::Tick => {}
        }
    }

    fn count_login(&mut self) {
        let paid = self.replaced.map_or(self.now, |(_, paid)| paid.max(self.now));
        let most = self.now + REPLACEMENT_INTERVAL * REPLACEMENTS_AT_ONCE;
        self.replaced = Some((self.now, most.min(paid + REPLACEMENT_INTERVAL)));
    }

    /// Holds the limits of Design 1.
    fn check_dial(&self, before: &Tunnel, is_wish: bool) {
        assert!(self.tunnel.network, "no attempt without a route");
        assert!(self.tunnel.wanted != Wish::Down, "no attempt that nobody wants");
        if is_wish {
            return;
        }
        let since_refusal = self.refused.map(|at| self.now - at);
        assert!(
            since_refusal.is_none_or(|it| it >= REFUSAL_INTERVAL),
            "what needs a person is not tried again at once"
        );
        let Some(old) = before.current.as_ref() else { return };
        let stayed = self.tunnel.current.as_ref().filter(|it| it.number == old.number);
        let Some(stayed) = stayed.filter(|_| before.urged.is_none()) else { return };
        assert!(!stayed.needs_person, "nobody is asked for a mere suspicion");
        if stayed.suspect.is_some() {
            let apart = if self.tunnel.held > 0 { WAIT_HELD } else { REPLACEMENT_INTERVAL };
            if let Some((at, paid)) = self.replaced {
                let since = self.now.saturating_duration_since(at);
                assert!(since >= apart, "replacements that log in are apart");
                let credit = REPLACEMENT_INTERVAL * (REPLACEMENTS_AT_ONCE - 1);
                let is_affordable = self.now + credit >= paid;
                assert!(is_affordable, "and few, however long somebody waits");
                assert!(paid <= at + credit + REPLACEMENT_INTERVAL, "nobody waits for ever");
            }
        }
    }

    fn account(&mut self, action: Action) {
        match action {
            Action::Dial(number) => {
                assert!(number > self.last, "numbers grow");
                self.last = number;
                self.alive.insert(number);
            }
            Action::Kill(number) => {
                let known = self.alive.remove(&number) | self.draining.remove(&number);
                assert!(known, "kills only what lives");
            }
            Action::Drain(number) => {
                assert!(self.alive.remove(&number), "drains only what lives");
                self.draining.insert(number);
            }
            Action::Serve(number) => self.served = Some(number),
            Action::Hold => self.served = None,
            Action::Ping(number)
            | Action::PingQuietly(number)
            | Action::Look(number)
            | Action::Prove(number, _) => {
                assert!(self.alive.contains(&number), "asks only what lives");
                assert!(self.up.contains(&number), "asks only sessions");
            }
        }
    }

    fn check(&self) {
        let replacing = self.tunnel.replacement.is_some();
        let expected = usize::from(self.tunnel.current.is_some()) + usize::from(replacing);
        assert_eq!(self.alive.len(), expected, "exactly the attempts the machine knows live");
        assert!(!replacing || self.tunnel.current.is_some(), "a replacement replaces something");
        assert_eq!(self.draining.len(), self.tunnel.draining.len());
        if let Some(served) = self.served {
            assert!(self.alive.contains(&served), "serves what lives");
            assert!(self.proved.contains(&served), "serves what was proved");
            assert!(self.tunnel.current.as_ref().is_some_and(|a| a.suspect.is_none()));
        }
        let phase = self.tunnel.phase();
        let live = matches!(phase, Phase::Live | Phase::GatewaySlow);
        assert_eq!(live, self.served.is_some(), "live exactly while it serves, not {phase:?}");
        if let Some(deadline) = self.tunnel.deadline() {
            assert!(deadline > self.now, "what is due has been done");
        }
        for attempt in self.tunnel.current.iter().chain(&self.tunnel.replacement) {
            if attempt.has_session() && attempt.suspect.is_none() {
                let asked = self.tunnel.deadline().is_some_and(|at| at <= self.now + ms(7_000));
                assert!(asked, "a session that is trusted is asked within seven seconds");
            }
        }
        assert!(self.tunnel.draining.len() <= 64, "what drains is bounded");
    }

    /// Moves the clock on by `span`, passing every deadline on the way.
    fn pass(&mut self, span: Duration) -> Vec<Action> {
        let end = self.now + span;
        let mut actions = Vec::new();
        while let Some(deadline) = self.tunnel.deadline().filter(|at| *at <= end) {
            self.now = deadline;
            actions.extend(self.event(Event::Tick));
        }
        self.now = end;
        actions
    }

    /// The same, with a server that answers every ping.
    fn pass_answering(&mut self, span: Duration) -> Vec<Action> {
        let end = self.now + span;
        let mut actions = Vec::new();
        while let Some(deadline) = self.tunnel.deadline().filter(|at| *at <= end) {
            let due = self.pass(deadline - self.now);
            for action in &due {
                if let Action::Ping(number) = action {
                    self.event(Event::News(*number, News::Pong { rtt: ms(20) }));
                } else if let Action::Look(number) = action {
                    actions.extend(self.event(Event::News(*number, News::Found)));
                }
            }
            actions.extend(due);
        }
        self.now = end;
        actions
    }

    fn news(&mut self, number: u64, news: News) -> Vec<Action> {
        self.event(Event::News(Number(number), news))
    }

    /// Brings attempt `number` up and proves it.
    fn live(&mut self, number: u64) -> Vec<Action> {
        let mut actions = self.news(number, News::SessionUp { needs_person: false });
        actions.extend(self.news(number, News::Proved { rtt: ms(20) }));
        actions
    }
}

fn live() -> Sim {
    let mut sim = Sim::new(ProofKind::Gateway);
    assert_eq!(sim.event(Event::Wish(Wish::Up)), [Action::Dial(Number(1))]);
    assert_eq!(sim.live(1), [Action::Prove(Number(1), Probe::Challenge), Action::Serve(Number(1))]);
    assert_eq!(sim.tunnel.phase(), Phase::Live);
    sim
}
