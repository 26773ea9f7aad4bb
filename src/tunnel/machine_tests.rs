//! Stories and invariants of the machine on a virtual clock.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;
use crate::tunnel::{
    Cause, News, Probe, ProofKind,
    attempt::{DIAL_PATIENCE, PING_IDLE, STEP_PATIENCE},
};

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
    /// When a login beside a session was last made, in the server's time.
    replaced: Option<Instant>,
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
                self.replaced = self.replaced.map(earlier);
            }
            Event::News(number, News::SessionUp { .. }) if known(*number) => {
                self.refused = None;
                if replaces(*number) {
                    self.replaced = Some(self.now);
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
            let since = self.replaced.map(|at| self.now.saturating_duration_since(at));
            assert!(
                since.is_none_or(|it| it >= REPLACEMENT_INTERVAL),
                "replacements that log in are apart"
            );
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

#[test]
fn dials_again_at_once_when_a_live_session_ends() {
    let mut sim = live();
    sim.pass(ms(6000));
    assert_eq!(sim.news(1, News::Ended(lost())), [Action::Dial(Number(2)), Action::Hold]);
    assert_eq!(sim.tunnel.phase(), Phase::Connecting);
    assert!(sim.live(2).contains(&Action::Serve(Number(2))));
}

#[test]
fn suspects_within_three_seconds_while_an_answer_is_awaited() {
    let mut sim = live();
    sim.news(1, News::Awaited);
    let actions = sim.pass(ms(3000));
    assert_eq!(
        actions,
        [Action::Ping(Number(1)), Action::Dial(Number(2)), Action::Hold],
        "asks, then replaces beside the old one"
    );
    assert_eq!(sim.tunnel.phase(), Phase::Suspect);
}

#[test]
fn suspects_within_ten_seconds_while_idle() {
    let mut sim = live();
    sim.pass(ms(10_000));
    assert_eq!(sim.tunnel.phase(), Phase::Suspect);
}

#[test]
fn an_answer_while_idle_is_looked_for_when_the_next_ping_is_due() {
    let mut sim = live();
    let one = Number(1);
    assert_eq!(sim.pass(PING_IDLE), [Action::PingQuietly(one)]);
    for _ in 0..3 {
        assert_eq!(sim.pass(PING_IDLE), [Action::Look(one)], "one wake-up an interval");
        assert_eq!(sim.news(1, News::Found), [Action::PingQuietly(one)]);
    }
    assert_eq!(sim.tunnel.phase(), Phase::Live);
}

#[test]
fn a_link_that_dies_right_after_an_answer_is_suspect_within_ten_seconds() {
    let mut sim = live();
    sim.pass(PING_IDLE);
    sim.pass(ms(20));
    // The answer came here, and nothing does after it.
    let frozen = sim.now;
    sim.pass(PING_IDLE - ms(20));
    sim.news(1, News::Found);
    sim.pass(ms(9_990) - (sim.now - frozen));
    assert_eq!(sim.tunnel.phase(), Phase::Suspect);
}

#[test]
fn an_answer_that_nobody_listened_for_is_not_missed_by_whoever_waits() {
    let mut sim = live();
    sim.pass(PING_IDLE);
    sim.pass(ms(3000));
    assert_eq!(sim.news(1, News::Awaited), [Action::Ping(Number(1))], "asked anew, aloud");
    assert_eq!(sim.news(1, News::Found), [], "that is the answer to the ping before");
    assert_eq!(sim.tunnel.phase(), Phase::Live);
    sim.pass(ms(1500));
    assert_eq!(sim.tunnel.phase(), Phase::Suspect, "the loud one stays unanswered");
}

#[test]
fn an_idle_hour_is_worth_thirteen_looks_a_minute() {
    let mut sim = live();
    let mut looks = 0;
    let end = sim.now + ms(3_600_000);
    while sim.now < end {
        let due = sim.tunnel.deadline().expect("an idle tunnel is asked");
        sim.now = due;
        looks += 1;
        let mut todo = sim.event(Event::Tick);
        while let Some(action) = todo.pop() {
            match action {
                Action::Look(number) => todo.extend(sim.event(Event::News(number, News::Found))),
                Action::Prove(number, _) => {
                    let rtt = ms(5);
                    todo.extend(sim.event(Event::News(number, News::Proved { rtt })));
                }
                Action::PingQuietly(_) => {}
                Action::Dial(_)
                | Action::Ping(_)
                | Action::Serve(_)
                | Action::Hold
                | Action::Drain(_)
                | Action::Kill(_) => panic!("an idle tunnel does nothing else: {action:?}"),
            }
        }
    }
    assert!(looks <= 13 * 60, "{looks} looks");
    assert_eq!(sim.tunnel.phase(), Phase::Live);
}

#[test]
fn inbound_bytes_extend_the_deadline() {
    let mut sim = live();
    for _ in 0..20 {
        sim.news(1, News::Awaited);
        sim.pass(ms(900));
        sim.news(1, News::Heard);
    }
    assert_eq!(sim.tunnel.phase(), Phase::Live);
    assert_eq!(sim.last, Number(1));
}

#[test]
fn an_interval_that_somebody_chose_takes_the_place_of_ours() {
    let mut sim = live();
    let next = |sim: &Sim| sim.tunnel.deadline().map(|at| at - sim.now);
    assert_eq!(next(&sim), Some(PING_IDLE));
    sim.tunnel.options.alive = Some(ms(30_000));
    assert_eq!(next(&sim), Some(ms(30_000)));
    sim.news(1, News::Awaited);
    assert_eq!(next(&sim), Some(ms(1_000)));
}

#[test]
fn a_survivor_goes_on_and_its_replacement_finishes_politely() {
    let mut sim = live();
    sim.pass(ms(10_000));
    let actions = sim.news(1, News::Pong { rtt: ms(20) });
    assert_eq!(actions, [Action::Prove(Number(1), Probe::Challenge)]);
    let actions = sim.news(1, News::Proved { rtt: ms(20) });
    assert_eq!(actions, [Action::Drain(Number(2)), Action::Serve(Number(1))]);
    assert_eq!(sim.news(2, News::Empty), [Action::Kill(Number(2))]);
}

#[test]
fn a_path_that_thaws_is_noticed_as_soon_when_it_freezes_again() {
    let mut sim = live();
    sim.pass(ms(10_000));
    let actions = sim.news(1, News::Pong { rtt: ms(9_000) });
    assert!(actions.contains(&Action::Ping(Number(1))), "that was the outage, not the path");
    sim.news(1, News::Pong { rtt: ms(20) });
    sim.news(1, News::Proved { rtt: ms(20) });
    assert_eq!(sim.tunnel.phase(), Phase::Live);
    sim.news(1, News::Awaited);
    sim.pass(ms(3000));
    assert_eq!(sim.tunnel.phase(), Phase::Suspect);
}

#[test]
fn a_path_that_is_long_is_not_asked_again_and_again() {
    let mut sim = live();
    sim.pass(PING_IDLE);
    assert_eq!(sim.news(1, News::Pong { rtt: ms(2_000) }), [Action::Ping(Number(1))]);
    assert_eq!(sim.news(1, News::Pong { rtt: ms(2_000) }), []);
}

#[test]
fn the_replacement_that_proves_itself_first_serves_and_the_old_one_drains() {
    let mut sim = live();
    sim.pass(ms(10_000));
    let actions = sim.live(2);
    assert!(actions.contains(&Action::Drain(Number(1))));
    assert!(actions.contains(&Action::Serve(Number(2))));
    let actions = sim.pass(SILENCE_REPLACED);
    assert!(actions.contains(&Action::Kill(Number(1))), "a silent one does not drain for long");
}

#[test]
fn nobody_is_asked_to_log_in_for_a_mere_suspicion() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.news(1, News::SessionUp { needs_person: true });
    sim.news(1, News::Proved { rtt: ms(20) });
    sim.pass(ms(20_000));
    assert_eq!((sim.tunnel.phase(), sim.last), (Phase::Suspect, Number(1)));
    let fix = sim.tunnel.failure().and_then(|failure| failure.fix.clone()).unwrap_or_default();
    assert!(fix.contains("openclaw remote connect"), "{fix}");
    sim.pass(SILENCE);
    assert_eq!(sim.last, Number(2), "a session that stays silent is given up in the end");
}

#[test]
fn whoever_asks_for_a_path_is_asked_to_log_in_though_the_old_session_may_come_back() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.news(1, News::SessionUp { needs_person: true });
    sim.news(1, News::Proved { rtt: ms(20) });
    sim.pass(ms(20_000));
    assert_eq!(sim.event(Event::Wish(Wish::Up)), [Action::Dial(Number(2))]);
    sim.news(2, News::SessionUp { needs_person: true });
    let actions = sim.news(2, News::Proved { rtt: ms(20) });
    assert_eq!(actions, [Action::Drain(Number(1)), Action::Serve(Number(2))]);
}

#[test]
fn asks_at_once_when_somebody_comes_after_a_silence() {
    let mut sim = live();
    sim.pass(ms(5000));
    assert_eq!(sim.news(1, News::Awaited), [Action::Ping(Number(1))]);
    let actions = sim.pass(ms(1500));
    assert_eq!(actions, [Action::Dial(Number(2)), Action::Hold], "the path is not trusted");
}

#[test]
fn asks_every_second_while_the_gateway_owes_an_answer() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.news(1, News::SessionUp { needs_person: false });
    assert_eq!(sim.pass(ms(1000)), [Action::Ping(Number(1))], "at the first proof");
    sim.news(1, News::Proved { rtt: ms(20) });
    let mut asked = None;
    while asked.is_none() {
        let actions = sim.pass_answering(ms(1000));
        asked = actions.contains(&Action::Prove(Number(1), Probe::Healthz)).then_some(sim.now);
    }
    let silent_from = sim.now;
    while sim.tunnel.phase() == Phase::Live {
        sim.pass(ms(100));
    }
    assert!(sim.now - silent_from <= ms(3000), "{:?}", sim.now - silent_from);
}

#[test]
fn a_session_is_not_given_up_for_its_silence_while_there_is_no_network() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.news(1, News::SessionUp { needs_person: true });
    sim.news(1, News::Proved { rtt: ms(20) });
    sim.event(Event::Network { up: false });
    assert!(!sim.pass(SILENCE * 3).contains(&Action::Kill(Number(1))));
    sim.event(Event::Network { up: true });
    sim.pass(ms(30));
    assert_eq!(
        sim.news(1, News::Pong { rtt: ms(20) }),
        [Action::Prove(Number(1), Probe::Challenge)]
    );
}

#[test]
fn a_dial_that_a_wake_or_a_new_network_left_hanging_is_joined_by_another() {
    for event in [Event::Woke { slept: ms(60_000) }, Event::Network { up: true }] {
        let mut sim = live();
        sim.news(1, News::Ended(lost()));
        assert_eq!(sim.last, Number(2));
        sim.pass(ms(500));
        assert_eq!(sim.event(event.clone()), [], "a login is not cut off");
        assert_eq!(sim.pass(DIAL_PATIENCE), [Action::Dial(Number(3))]);
        sim.event(event);
        let actions = sim.pass(DIAL_PATIENCE);
        assert_eq!(actions, [Action::Drain(Number(3)), Action::Dial(Number(4))]);
        let actions = sim.live(4);
        assert!(actions.contains(&Action::Drain(Number(2))), "{actions:?}");
        assert!(actions.contains(&Action::Serve(Number(4))), "{actions:?}");
    }
}

#[test]
fn a_server_that_falls_silent_in_the_login_is_dialled_again_for_who_waits() {
    let mut sim = live();
    sim.news(1, News::Ended(lost()));
    sim.news(2, News::Shaking(false));
    sim.event(Event::Held(1));
    assert_eq!(sim.pass(STEP_PATIENCE * 2), [], "TCP has its own tries");
    sim.news(2, News::Shaking(true));
    sim.pass(STEP_PATIENCE - ms(1));
    sim.news(2, News::Shaking(true));
    assert_eq!(sim.pass(STEP_PATIENCE - ms(1)), [], "each step has its time");
    sim.event(Event::Held(0));
    assert_eq!(sim.pass(STEP_PATIENCE), [], "nobody waits");
    assert_eq!(sim.event(Event::Held(1)), [Action::Dial(Number(3))]);
    assert!(sim.live(3).contains(&Action::Drain(Number(2))), "a login is not cut off");
}

#[test]
fn a_login_that_needed_somebody_is_not_made_twice_for_its_silence() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.news(1, News::SessionUp { needs_person: true });
    sim.news(1, News::Proved { rtt: ms(20) });
    sim.news(1, News::Ended(lost()));
    sim.event(Event::Held(1));
    sim.news(2, News::Shaking(true));
    assert_eq!(sim.pass(STEP_PATIENCE * 5), []);
}

#[test]
fn a_session_whose_address_is_gone_ends_as_soon_as_it_is_replaced() {
    for stranded in [true, false] {
        let mut sim = live();
        sim.news(1, News::Stranded(true));
        sim.news(1, News::Stranded(stranded));
        sim.event(Event::Network { up: true });
        sim.pass(ms(300));
        assert_eq!(sim.live(2).contains(&Action::Kill(Number(1))), stranded);
        let later = sim.news(1, News::Stranded(true));
        assert_eq!(later.contains(&Action::Kill(Number(1))), !stranded, "it had an address then");
    }
}

#[test]
fn a_first_login_that_may_be_asking_somebody_is_left_alone_after_a_wake() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.event(Event::Woke { slept: ms(60_000) });
    assert_eq!(sim.pass(ms(60_000)), []);
}

#[test]
fn a_replacement_that_falls_silent_itself_makes_room_for_the_next() {
    let mut sim = live();
    sim.event(Event::Woke { slept: ms(0) });
    sim.pass(ms(300));
    sim.news(2, News::SessionUp { needs_person: false });
    let actions = sim.pass(ms(5000));
    assert!(actions.contains(&Action::Drain(Number(2))), "{actions:?}");
    sim.pass(REPLACEMENT_INTERVAL);
    assert_eq!(sim.last, Number(3));
}

#[test]
fn a_replacement_that_is_refused_is_not_repeated_for_ten_minutes() {
    let mut sim = live();
    sim.event(Event::Woke { slept: ms(0) });
    sim.pass(ms(300));
    let refusal = Failure::new(Cause::Authentication, "no key was accepted");
    sim.news(2, News::Ended(refusal));
    sim.pass(ms(500_000));
    assert_eq!(sim.last, Number(2), "one connection to a server that refuses us");
    assert_eq!(sim.news(1, News::Ended(lost())), []);
    assert_eq!(sim.tunnel.phase(), Phase::Blocked);
    assert_eq!(sim.tunnel.failure().map(|it| it.cause), Some(Cause::Authentication));
    assert_eq!(sim.event(Event::Network { up: true }), []);
    assert_eq!(sim.event(Event::Wish(Wish::Up)), [Action::Dial(Number(3))]);
}

#[test]
fn sleep_counts_towards_the_time_between_replacements() {
    let mut sim = live();
    sim.event(Event::Woke { slept: ms(0) });
    sim.pass(ms(300));
    sim.live(2);
    sim.event(Event::Woke { slept: ms(60_000) });
    sim.pass(ms(300));
    assert_eq!(sim.last, Number(3));
}

#[test]
fn a_new_network_does_not_cut_a_possible_penalty_short() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    let closed = Failure::new(Cause::ClosedBeforeBanner { penalty: true }, "closed");
    sim.news(1, News::Ended(closed));
    assert_eq!(sim.event(Event::Network { up: true }), []);
    assert_eq!(sim.pass(WAIT_PENALTY - ms(1)), []);
    assert_eq!(sim.pass(ms(1)), [Action::Dial(Number(2))]);
}

#[test]
fn an_attempt_without_a_route_is_not_counted() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.news(1, News::Ended(Failure::new(Cause::NoRoute, "no route")));
    assert_eq!(
        (sim.last, sim.tunnel.attempts()),
        (Number(2), 1),
        "the first step waits for nothing"
    );
    sim.news(2, News::Ended(Failure::new(Cause::NoRoute, "no route")));
    assert_eq!(sim.tunnel.attempts(), 0);
}

#[test]
fn whoever_comes_first_is_dialled_for_at_once() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    for _ in 0..12 {
        let last = sim.last.0;
        sim.news(last, News::Ended(Failure::new(Cause::ConnectTimedOut, "no answer")));
        sim.pass(ms(30_000));
    }
    let last = sim.last.0;
    sim.news(last, News::Ended(Failure::new(Cause::ConnectTimedOut, "no answer")));
    assert_eq!(sim.pass(ms(10_000)), [], "nobody waits");
    assert_eq!(sim.event(Event::Held(1)), [Action::Dial(Number(last + 1))]);
    sim.news(last + 1, News::Ended(Failure::new(Cause::ConnectTimedOut, "no answer")));
    assert_eq!(sim.event(Event::Held(2)), [], "the second finds the first waiting");
}

/// Dials in ten minutes of a host that fails each of them after `each`.
fn dials_in_ten_minutes(seed: u64, each: Duration, story: fn(&mut Sim)) -> u64 {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.tunnel = Tunnel::new(Options { seed, ..sim.tunnel.options });
    sim.event(Event::Wish(Wish::Up));
    story(&mut sim);
    let (end, first) = (sim.now + ms(600_000), sim.last.0);
    let mut answered = sim.up.len() as u64;
    while sim.now < end {
        if sim.last.0 > answered {
            answered = sim.last.0;
            sim.pass(each);
            sim.news(answered, News::Ended(Failure::new(Cause::ConnectTimedOut, "no answer")));
        } else {
            let next = sim.tunnel.deadline().map_or(end, |at| at.min(end));
            sim.pass(next - sim.now);
        }
    }
    sim.last.0 - first
}

#[test]
fn a_host_that_is_away_is_dialled_at_most_forty_times_in_ten_minutes() {
    let silent: fn(&mut Sim) = |sim| {
        sim.live(1);
        sim.pass(ms(9000));
    };
    let ended: fn(&mut Sim) = |sim| {
        sim.live(1);
        sim.pass(ms(6000));
        sim.news(1, News::Ended(lost()));
    };
    for seed in 0..300 {
        for each in [ms(0), ms(3000), ms(10_000)] {
            for story in [silent, ended, |_| {}] {
                let dials = dials_in_ten_minutes(seed, each, story);
                assert!(dials <= 40, "seed {seed}, {each:?}: {dials} dials");
                assert!(dials >= 10, "seed {seed}, {each:?}: {dials} dials");
            }
        }
    }
}

#[test]
fn a_wake_asks_first_and_replaces_only_what_stays_silent() {
    let mut sim = live();
    assert_eq!(sim.event(Event::Woke { slept: ms(0) }), [Action::Ping(Number(1)), Action::Hold]);
    let actions = sim.pass(ms(1000));
    assert_eq!(actions, [Action::Dial(Number(2))]);
}

#[test]
fn what_was_received_before_a_wake_says_nothing_of_the_session_after_it() {
    let mut sim = live();
    sim.pass(ms(7000));
    sim.event(Event::Woke { slept: ms(3_600_000) });
    sim.pass(ms(10));
    for old in [News::Alive, News::Heard, News::Answered, News::Pong { rtt: ms(11) }] {
        assert_eq!(sim.news(1, old), []);
        assert_eq!(sim.tunnel.phase(), Phase::Suspect);
    }
    assert_eq!(sim.pass(ms(1000)), [Action::Dial(Number(2))]);
    let fresh = sim.news(1, News::Pong { rtt: ms(900) });
    assert_eq!(fresh, [Action::Prove(Number(1), Probe::Challenge)]);
}

#[test]
fn a_ping_that_an_outage_held_up_makes_no_wake_wait() {
    let mut sim = live();
    sim.pass(ms(8000));
    sim.news(1, News::Pong { rtt: ms(3000) });
    sim.event(Event::Woke { slept: ms(0) });
    assert_eq!(sim.pass(ms(1000)), [Action::Dial(Number(2))]);
}

#[test]
fn a_replacement_that_cannot_reach_the_server_is_tried_again_soon() {
    let mut sim = live();
    sim.pass(ms(10_000));
    sim.event(Event::Held(1));
    for number in 2..12 {
        let failure = Failure::new(Cause::ConnectTimedOut, "no answer");
        sim.news(number, News::Ended(failure));
        sim.pass(ms(5000));
        assert_eq!(sim.last, Number(number + 1));
    }
}

#[test]
fn replacements_that_log_in_are_thirty_seconds_apart() {
    let mut sim = live();
    sim.event(Event::Woke { slept: ms(0) });
    sim.pass(ms(300));
    sim.live(2);
    sim.event(Event::Woke { slept: ms(0) });
    sim.pass(ms(20_000));
    assert_eq!(sim.last, Number(2));
    sim.pass(ms(10_000));
    assert_eq!(sim.last, Number(3));
}

#[test]
fn a_change_of_the_network_is_a_reason_of_its_own_to_replace() {
    let mut sim = live();
    for number in 2..5 {
        sim.event(Event::Network { up: true });
        sim.pass(ms(300));
        sim.live(number);
        assert_eq!(sim.served, Some(Number(number)));
    }
}

#[test]
fn a_wrong_key_blocks_until_the_user_says_so() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.news(1, News::Ended(Failure::new(Cause::Authentication, "no key was accepted")));
    assert_eq!(sim.tunnel.phase(), Phase::Blocked);
    assert_eq!(sim.pass(ms(3_600_000)), []);
    assert_eq!(sim.event(Event::Woke { slept: ms(0) }), []);
    assert_eq!(sim.event(Event::Wish(Wish::Up)), [Action::Dial(Number(2))]);
}

#[test]
fn a_wish_forgets_what_failed_before() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    for number in 1..6 {
        sim.news(number, News::Ended(Failure::new(Cause::Refused, "nobody listens")));
        sim.pass(ms(30_000));
    }
    assert!(sim.tunnel.failure().is_some());
    sim.event(Event::Wish(Wish::Up));
    assert_eq!(sim.tunnel.failure(), None);
}

#[test]
fn a_wish_asks_a_gateway_that_is_down_at_once() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.news(1, News::SessionUp { needs_person: false });
    sim.news(1, News::NotProved(Failure::new(Cause::NotAGateway, "a web server")));
    let asked = sim.event(Event::Wish(Wish::Up));
    assert_eq!(asked, [Action::Prove(Number(1), Probe::Challenge)]);
    assert_eq!((sim.tunnel.phase(), sim.tunnel.failure()), (Phase::Connecting, None));
}

#[test]
fn a_refused_forward_blocks_and_ends_the_session() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.news(1, News::SessionUp { needs_person: false });
    let failure = Failure::new(Cause::ForwardRefused, "administratively prohibited");
    assert_eq!(sim.news(1, News::NotProved(failure)), [Action::Kill(Number(1))]);
    assert_eq!(sim.tunnel.phase(), Phase::Blocked);
}

#[test]
fn a_gateway_that_is_down_is_asked_again_without_a_new_login() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.news(1, News::SessionUp { needs_person: false });
    for _ in 0..10 {
        sim.news(1, News::NotProved(Failure::new(Cause::GatewayAbsent, "nothing listens")));
        assert_eq!(sim.tunnel.phase(), Phase::GatewayDown);
        let actions = sim.pass_answering(UNPROVED_MOST);
        assert!(actions.contains(&Action::Prove(Number(1), Probe::Challenge)));
        assert_eq!(sim.tunnel.phase(), Phase::GatewayDown, "asking again is no news");
    }
    assert!(sim.news(1, News::Proved { rtt: ms(5) }).contains(&Action::Serve(Number(1))));
    assert_eq!(sim.last, Number(1));
}

#[test]
fn a_slow_gateway_is_no_reason_to_dial_again() {
    let mut sim = live();
    let mut asked = 0;
    for _ in 0..120 {
        let actions = sim.pass_answering(ms(2000));
        asked += actions.iter().filter(|a| matches!(a, Action::Prove(..))).count();
    }
    assert!(asked > 0);
    assert_eq!((sim.tunnel.phase(), sim.last), (Phase::GatewaySlow, Number(1)));
    sim.news(1, News::Proved { rtt: ms(20) });
    assert_eq!(sim.tunnel.phase(), Phase::Live);
}

#[test]
fn a_session_parked_by_a_slow_reader_is_replaced_and_left_to_it() {
    let mut sim = live();
    assert_eq!(
        sim.news(1, News::Parked(true)),
        [Action::Dial(Number(2)), Action::Hold],
        "newcomers do not queue up behind the slow reader"
    );
    sim.pass_answering(ms(60_000));
    assert_eq!(sim.tunnel.phase(), Phase::Connecting, "they wait");
    let actions = sim.live(2);
    assert!(actions.contains(&Action::Drain(Number(1))));
    let actions = sim.pass(ms(3_600_000));
    assert!(!actions.contains(&Action::Kill(Number(1))), "its reader may take hours");
    assert_eq!(sim.news(1, News::Empty), [Action::Kill(Number(1))]);
}

#[test]
fn a_session_that_needed_a_person_is_not_replaced_for_a_slow_reader() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.news(1, News::SessionUp { needs_person: true });
    sim.news(1, News::Proved { rtt: ms(20) });
    assert_eq!(sim.news(1, News::Parked(true)), [], "it serves on, slow reader or not");
    let actions = sim.pass_answering(ms(3_600_000));
    assert!(!actions.iter().any(|action| matches!(action, Action::Dial(_) | Action::Kill(_))));
    assert_eq!((sim.tunnel.phase(), sim.last), (Phase::Live, Number(1)));
}

/// A session of its own user, which a slow reader may block.
fn parked_with_a_person() -> Sim {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.news(1, News::SessionUp { needs_person: true });
    sim.news(1, News::Proved { rtt: ms(20) });
    sim.news(1, News::Parked(true));
    sim
}

#[test]
fn a_parked_session_whose_link_dies_is_live_no_longer_and_is_again_when_it_is_back() {
    let mut sim = parked_with_a_person();
    sim.pass(ms(60_000));
    assert_eq!(sim.tunnel.phase(), Phase::Suspect);
    sim.pass(ms(300_000));
    let back = sim.news(1, News::Pong { rtt: ms(350_000) });
    assert!(back.contains(&Action::Prove(Number(1), Probe::Challenge)), "{back:?}");
    assert!(!back.contains(&Action::Serve(Number(1))), "SSH answered, and no gateway yet");
    sim.news(1, News::Proved { rtt: ms(20) });
    assert_eq!((sim.tunnel.phase(), sim.tunnel.failure()), (Phase::Live, None));
}

#[test]
fn a_gateway_that_is_asked_behind_a_slow_reader_is_asked_again_until_it_answers() {
    let mut sim = parked_with_a_person();
    sim.pass(ms(60_000));
    sim.news(1, News::Pong { rtt: ms(50_000) });
    sim.news(1, News::Pong { rtt: ms(20) });
    let actions = sim.pass_answering(ms(60_000));
    assert!(actions.contains(&Action::Prove(Number(1), Probe::Challenge)), "{actions:?}");
    assert_eq!(sim.tunnel.phase(), Phase::GatewayDown);
    let why = sim.tunnel.failure().map(|failure| failure.message.clone()).unwrap_or_default();
    assert!(why.contains("does not read"), "{why}");
    sim.news(1, News::Proved { rtt: ms(20) });
    assert_eq!(sim.tunnel.phase(), Phase::Live);
}

/// A session that fell silent, then had its reader fall behind, and was replaced.
fn replaced_while_parked_and_silent() -> Sim {
    let mut sim = live();
    sim.event(Event::Woke { slept: ms(60_000) });
    sim.news(1, News::Parked(true));
    sim.pass(ms(2000));
    assert!(sim.live(2).contains(&Action::Drain(Number(1))));
    sim
}

#[test]
fn a_silent_session_is_not_left_to_its_slow_reader_for_longer_than_ten_minutes() {
    let mut sim = replaced_while_parked_and_silent();
    // What was received before the silence may come out of the library at any time.
    for news in [News::Alive, News::Heard, News::Parked(false), News::Parked(true)] {
        sim.news(1, news);
    }
    assert!(!sim.pass_answering(SILENCE - ms(1)).contains(&Action::Kill(Number(1))));
    assert!(sim.pass_answering(ms(10_000)).contains(&Action::Kill(Number(1))));
}

#[test]
fn a_silent_session_whose_server_answers_is_left_to_its_slow_reader() {
    let mut sim = replaced_while_parked_and_silent();
    sim.pass(ms(1000));
    sim.news(1, News::Pong { rtt: ms(70_000) });
    sim.news(1, News::Pong { rtt: ms(2900) });
    assert!(!sim.pass_answering(2 * SILENCE).contains(&Action::Kill(Number(1))));
    assert_eq!(sim.news(1, News::Empty), [Action::Kill(Number(1))]);
}

#[test]
fn a_parked_session_whose_address_is_gone_ends_within_ten_minutes() {
    let mut sim = live();
    sim.news(1, News::Parked(true));
    sim.live(2);
    sim.pass_answering(2 * SILENCE);
    sim.news(1, News::Stranded(true));
    assert!(!sim.pass_answering(SILENCE - ms(1)).contains(&Action::Kill(Number(1))));
    assert!(sim.pass_answering(ms(10_000)).contains(&Action::Kill(Number(1))));
}

#[test]
fn a_wake_asks_a_parked_session_and_believes_what_its_reader_has_not_taken() {
    let mut sim = parked_with_a_person();
    let woken = sim.event(Event::Woke { slept: ms(60_000) });
    assert_eq!(woken, [Action::Ping(Number(1))]);
    sim.pass(ms(1000));
    sim.news(1, News::Alive);
    sim.pass(ms(1000));
    assert_eq!(sim.tunnel.phase(), Phase::Live);
    sim.pass(ms(1000));
    assert_eq!(sim.tunnel.phase(), Phase::Suspect);
}

#[test]
fn what_nobody_waits_for_is_not_replaced_until_somebody_does() {
    let mut sim = live();
    sim.event(Event::Wish(Wish::OnDemand));
    let actions = sim.pass(ms(60_000));
    assert!(!actions.iter().any(|action| matches!(action, Action::Dial(_))), "{actions:?}");
    assert_eq!(sim.tunnel.phase(), Phase::Suspect);
    assert_eq!(sim.event(Event::Held(1)), [Action::Dial(Number(2))]);
}

#[test]
fn an_old_answer_that_the_gateway_is_away_counts_no_more_than_an_old_proof() {
    let mut sim = live();
    sim.event(Event::Woke { slept: ms(60_000) });
    sim.news(1, News::NotProved(Failure::new(Cause::GatewayAbsent, "nothing listens")));
    assert_eq!(sim.tunnel.phase(), Phase::Suspect);
}

#[test]
fn a_session_whose_new_streams_are_forbidden_keeps_those_it_has() {
    let mut sim = live();
    let actions = sim.news(1, News::NotProved(Failure::new(Cause::ForwardRefused, "no")));
    assert_eq!(actions, [Action::Drain(Number(1)), Action::Hold]);
    assert_eq!(sim.tunnel.phase(), Phase::Blocked);
    assert_eq!(sim.news(1, News::Empty), [Action::Kill(Number(1))]);
}

#[test]
fn makes_no_attempt_without_a_network_and_one_at_once_with_it() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Network { up: false });
    assert_eq!(sim.event(Event::Wish(Wish::Up)), []);
    assert_eq!(sim.pass(ms(600_000)), []);
    assert_eq!(sim.tunnel.phase(), Phase::Waiting);
    assert_eq!(sim.event(Event::Network { up: true }), [Action::Dial(Number(1))]);
}

#[test]
fn waits_out_a_possible_penalty() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    let closed = |penalty| Failure::new(Cause::ClosedBeforeBanner { penalty }, "closed");
    assert_eq!(sim.news(1, News::Ended(closed(false))), [Action::Dial(Number(2))]);
    sim.news(2, News::Ended(closed(false)));
    let said = sim.tunnel.failure().map(|failure| failure.message.clone()).unwrap_or_default();
    assert!(said.contains("the next attempt waits 15 s"), "{said}");
    assert_eq!(sim.event(Event::Held(1)), [], "a held connection does not shorten it");
    assert_eq!(sim.pass(WAIT_PENALTY - ms(1)), [], "the second in a row may be one");
    assert_eq!(sim.pass(ms(1)), [Action::Dial(Number(3))]);
    sim.news(3, News::Ended(Failure::new(Cause::Refused, "refused")));
    let said = sim.tunnel.failure().map(|failure| failure.message.clone());
    assert_eq!(said.as_deref(), Some("refused"));
}

#[test]
fn waits_out_a_possible_penalty_of_a_replacement() {
    let mut sim = live();
    sim.event(Event::Woke { slept: ms(0) });
    sim.pass(ms(1000));
    assert_eq!(sim.last, Number(2));
    let closed = Failure::new(Cause::ClosedBeforeBanner { penalty: true }, "closed");
    sim.news(2, News::Ended(closed));
    let dials = |actions: &[Action]| actions.iter().any(|it| matches!(it, Action::Dial(_)));
    assert!(!dials(&sim.pass(WAIT_PENALTY - ms(1))));
    assert!(dials(&sim.pass(ms(60_000))));
}

#[test]
fn retries_for_ever_and_at_most_half_a_minute_apart() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    for number in 1..100 {
        sim.news(number, News::Ended(Failure::new(Cause::Refused, "refused")));
        sim.pass(ms(30_000));
        assert_eq!(sim.last, Number(number + 1));
    }
}

#[test]
fn retries_within_four_seconds_while_a_connection_is_held() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Wish(Wish::Up));
    sim.event(Event::Held(1));
    for number in 1..30 {
        sim.news(number, News::Ended(Failure::new(Cause::Refused, "refused")));
        sim.pass(WAIT_HELD);
        assert_eq!(sim.last, Number(number + 1));
    }
}

#[test]
fn a_tunnel_on_demand_dials_when_somebody_waits_and_rests_afterwards() {
    let mut sim = Sim::new(ProofKind::Ssh);
    assert_eq!(sim.event(Event::Wish(Wish::OnDemand)), []);
    assert_eq!(sim.event(Event::Held(1)), [Action::Dial(Number(1))]);
    let actions = sim.news(1, News::SessionUp { needs_person: false });
    assert_eq!(actions, [Action::Serve(Number(1))]);
    sim.event(Event::Held(0));
    assert_eq!(sim.news(1, News::Ended(lost())), [Action::Hold]);
    assert_eq!(sim.pass(ms(600_000)), []);
}

#[test]
fn ignores_late_news_of_an_abandoned_attempt() {
    let mut sim = live();
    sim.news(1, News::Ended(lost()));
    let before = sim.tunnel.phase();
    assert_eq!(sim.news(1, News::Proved { rtt: ms(1) }), []);
    assert_eq!(sim.news(1, News::Ended(lost())), []);
    assert_eq!(sim.tunnel.phase(), before);
}

/// What a random script does next.
#[derive(Debug, Clone)]
enum Step {
    Event(Event),
    News(u8, News),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let causes = prop_oneof![
        Just(Cause::LinkLost),
        Just(Cause::Refused),
        Just(Cause::ClosedBeforeBanner { penalty: false }),
        Just(Cause::Authentication),
        Just(Cause::NoRoute),
    ];
    let failure = causes.prop_map(|cause| Failure::new(cause, "failed"));
    let unproved = prop_oneof![Just(Cause::GatewayAbsent), Just(Cause::ForwardRefused)]
        .prop_map(|cause| Failure::new(cause, "no gateway"));
    let news = prop_oneof![
        4 => any::<bool>().prop_map(|person| News::SessionUp { needs_person: person }),
        2 => failure.prop_map(News::Ended),
        2 => Just(News::Heard),
        1 => Just(News::Alive),
        1 => Just(News::Answered),
        2 => Just(News::Pong { rtt: ms(20) }),
        2 => Just(News::Awaited),
        1 => any::<bool>().prop_map(News::Shaking),
        1 => any::<bool>().prop_map(News::Stranded),
        4 => Just(News::Proved { rtt: ms(20) }),
        1 => unproved.prop_map(News::NotProved),
        1 => any::<bool>().prop_map(News::Parked),
        1 => Just(News::Empty),
    ];
    let event = prop_oneof![
        4 => Just(Event::Wish(Wish::Up)),
        1 => Just(Event::Wish(Wish::Down)),
        2 => (0..60_000_u64).prop_map(|slept| Event::Woke { slept: ms(slept) }),
        2 => any::<bool>().prop_map(|up| Event::Network { up }),
        2 => (0..3_usize).prop_map(Event::Held),
        1 => Just(Event::Tick),
    ];
    let step = prop_oneof![
        2 => event.prop_map(Step::Event),
        6 => (0..3_u8, news).prop_map(|(back, news)| Step::News(back, news)),
        3 => (0..40_000_u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn keeps_its_books_over_random_scripts(script in steps()) {
        let mut sim = Sim::new(ProofKind::Gateway);
        sim.event(Event::Wish(Wish::Up));
        for step in script {
            match step {
                Step::Event(event) => drop(sim.event(event)),
                Step::Pass(span) => drop(sim.pass(ms(span))),
                Step::News(back, news) => {
                    let number = Number(sim.last.0.saturating_sub(u64::from(back)));
                    // A session proves nothing before it is up.
                    let up = sim.up.contains(&number);
                    if up != matches!(news, News::SessionUp { .. }) || matches!(news, News::Ended(_)) {
                        sim.event(Event::News(number, news));
                    }
                }
            }
        }
        sim.event(Event::Wish(Wish::Down));
        prop_assert!(sim.alive.is_empty() && sim.draining.is_empty(), "nothing is left");
        prop_assert_eq!(sim.tunnel.deadline(), None);
        sim.event(Event::Network { up: true });
        let actions = sim.event(Event::Wish(Wish::Up));
        prop_assert!(matches!(actions.as_slice(), [Action::Dial(_)]), "and it comes back");
    }
}
