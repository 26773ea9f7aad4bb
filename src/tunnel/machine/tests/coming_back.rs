//! After the last session has ended: when the next attempt is made, and when none is.

use super::*;

#[test]
fn dials_again_at_once_when_a_live_session_ends() {
    let mut sim = live();
    sim.pass(ms(6000));
    assert_eq!(sim.news(1, News::Ended(lost())), [Action::Dial(Number(2)), Action::Hold]);
    assert_eq!(sim.tunnel.phase(), Phase::Connecting);
    assert!(sim.live(2).contains(&Action::Serve(Number(2))));
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
fn makes_no_attempt_without_a_network_and_one_at_once_with_it() {
    let mut sim = Sim::new(ProofKind::Gateway);
    sim.event(Event::Network { up: false });
    assert_eq!(sim.event(Event::Wish(Wish::Up)), []);
    assert_eq!(sim.pass(ms(600_000)), []);
    assert_eq!((sim.tunnel.phase(), sim.tunnel.attempts()), (Phase::Waiting, 0));
    let why = sim.tunnel.failure().expect("it says why it waits");
    assert_eq!(why.cause, Cause::NoRoute);
    assert!(why.message.contains("no route to the server"), "{why}");
    assert_eq!(sim.event(Event::Network { up: true }), [Action::Dial(Number(1))]);
    assert_eq!(sim.tunnel.failure(), None);
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
