//! A session that a slow reader here blocks.

use super::*;

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
fn a_server_that_ends_second_sessions_is_not_asked_for_them_without_a_pause() {
    for (held, pause) in [(0, REPLACEMENT_INTERVAL), (1, WAIT_HELD)] {
        let mut sim = live();
        sim.event(Event::Held(held));
        assert!(sim.news(1, News::Parked(true)).contains(&Action::Dial(Number(2))));
        sim.news(2, News::SessionUp { needs_person: false });
        sim.news(2, News::Ended(lost()));
        sim.pass_answering(pause - ms(100));
        assert_eq!(sim.last, Number(2));
        sim.pass_answering(ms(200));
        assert_eq!(sim.last, Number(3));
        sim.live(3);
        let again = sim.news(3, News::Parked(true));
        assert!(again.contains(&Action::Dial(Number(4))), "the next reader waits for nothing");
    }
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
fn a_session_on_demand_that_a_slow_reader_blocks_for_long_is_replaced_before_anybody_waits() {
    let mut sim = live();
    sim.event(Event::Wish(Wish::OnDemand));
    let parked = sim.news(1, News::Parked(true));
    assert_eq!(parked, [Action::Hold], "its reader may have caught up in a moment");
    sim.pass_answering(PARKED_PATIENCE / 2);
    sim.news(1, News::Parked(false));
    sim.news(1, News::Parked(true));
    sim.pass_answering(PARKED_PATIENCE - ms(1));
    assert_eq!(sim.last, Number(1));
    sim.pass_answering(ms(1));
    assert_eq!(sim.last, Number(2));
    assert!(sim.live(2).contains(&Action::Serve(Number(2))));
    sim.pass_answering(ms(600_000));
    assert_eq!(sim.last, Number(2), "one is enough");
}

#[test]
fn nothing_is_dialled_ahead_where_nobody_comes_next() {
    let mut sim = live();
    sim.event(Event::Wish(Wish::Last));
    sim.news(1, News::Parked(true));
    sim.pass_answering(ms(600_000));
    assert_eq!(sim.last, Number(1));
    assert!(sim.event(Event::Held(1)).contains(&Action::Dial(Number(2))), "this one waits");
}

#[test]
fn neighbours_of_a_reader_that_has_caught_up_are_left_alone_on_a_link_that_lives() {
    for catches_up_first in [false, true] {
        let mut sim = live();
        sim.event(Event::Wish(Wish::OnDemand));
        sim.news(1, News::Parked(true));
        sim.pass_answering(PARKED_PATIENCE);
        if catches_up_first {
            sim.news(1, News::Parked(false));
        }
        assert!(sim.live(2).contains(&Action::Drain(Number(1))));
        sim.news(1, News::Parked(false));
        assert!(!sim.pass_answering(2 * SILENCE).contains(&Action::Kill(Number(1))));
        assert_eq!(sim.news(1, News::Empty), [Action::Kill(Number(1))]);
    }
}

#[test]
fn one_slow_reader_after_the_other_costs_a_login_in_half_a_minute_while_nobody_waits() {
    let mut sim = live();
    sim.event(Event::Wish(Wish::OnDemand));
    sim.news(1, News::Parked(true));
    sim.pass_answering(PARKED_PATIENCE);
    sim.live(2);
    sim.news(2, News::Parked(true));
    sim.pass_answering(REPLACEMENT_INTERVAL - ms(100));
    assert_eq!(sim.last, Number(2));
    sim.pass_answering(ms(200));
    assert_eq!(sim.last, Number(3));
    sim.live(3);
    sim.news(3, News::Parked(true));
    assert!(sim.event(Event::Held(1)).contains(&Action::Dial(Number(4))), "who waits is served");
}
