//! How soon a silence is noticed, and what a session that answers costs.

use super::*;

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
fn a_lost_route_is_doubt_at_once_and_the_session_goes_on_if_it_outlives_that() {
    let mut sim = live();
    let actions = sim.event(Event::Network { up: false });
    assert_eq!(actions, [Action::Ping(Number(1)), Action::Hold], "nobody is sent into the void");
    assert_eq!(sim.tunnel.phase(), Phase::Suspect);
    assert_eq!(sim.event(Event::Network { up: false }), [], "once");
    sim.pass(ms(60_000));
    assert_eq!(sim.last, Number(1), "nobody is dialled without a route");
    assert_eq!(sim.event(Event::Network { up: true }), [Action::Ping(Number(1))]);
    sim.pass(ms(20));
    sim.news(1, News::Pong { rtt: ms(20) });
    sim.news(1, News::Proved { rtt: ms(20) });
    assert_eq!((sim.tunnel.phase(), sim.last), (Phase::Live, Number(1)));
}
