//! Another session beside the one that is doubted: when, how often, and which of the two stays.

use super::*;

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
fn a_second_silence_soon_after_is_left_at_once_by_whoever_waits_and_slowly_by_nobody() {
    for held in [0, 1] {
        let mut sim = live();
        sim.event(Event::Woke { slept: ms(0) });
        sim.pass(ms(300));
        sim.live(2);
        sim.event(Event::Held(held));
        sim.event(Event::Woke { slept: ms(0) });
        sim.pass(WAIT_HELD);
        assert_eq!(sim.last, Number(if held > 0 { 3 } else { 2 }));
        sim.event(Event::Held(1));
        assert_eq!(sim.last, Number(3), "somebody has come");
    }
}

#[test]
fn a_link_that_goes_silent_again_and_again_sees_few_logins_however_long_somebody_waits() {
    let mut sim = live();
    sim.event(Event::Held(1));
    let (begun, mut number) = (sim.now, 1);
    while sim.now < begun + ms(600_000) {
        sim.event(Event::Woke { slept: ms(0) });
        sim.pass(ms(400));
        if sim.last > Number(number) {
            number += 1;
            sim.live(number);
        }
        sim.pass(ms(100));
    }
    assert!((23..=26).contains(&number), "{number} logins in ten minutes");
}

#[test]
fn many_logins_for_slow_readers_make_nobody_wait_for_longer_than_the_interval() {
    let mut sim = live();
    for number in 2..8 {
        assert_eq!(sim.news(number - 1, News::Parked(true))[0], Action::Dial(Number(number)));
        sim.live(number);
    }
    sim.event(Event::Held(1));
    sim.event(Event::Woke { slept: ms(0) });
    sim.pass(REPLACEMENT_INTERVAL);
    assert_eq!(sim.last, Number(8));
}

#[test]
fn a_dial_that_hangs_without_a_session_waits_for_no_budget() {
    let mut sim = live();
    sim.event(Event::Woke { slept: ms(0) });
    sim.pass(ms(300));
    sim.live(2);
    sim.news(1, News::Ended(lost()));
    sim.news(2, News::Ended(lost()));
    assert_eq!(sim.last, Number(3));
    sim.event(Event::Woke { slept: ms(0) });
    sim.pass(WAIT_HELD);
    assert_eq!(sim.last, Number(4), "another joins it");
}

#[test]
fn a_login_that_comes_late_counts_like_any_other() {
    let mut sim = live();
    sim.event(Event::Held(1));
    sim.event(Event::Woke { slept: ms(0) });
    sim.pass(ms(300));
    assert_eq!(sim.last, Number(2));
    // The old session answers first, and the login that is under way is not cut off.
    sim.news(1, News::Pong { rtt: ms(1) });
    sim.news(1, News::Proved { rtt: ms(1) });
    assert!(sim.draining.contains(&Number(2)));
    sim.news(2, News::SessionUp { needs_person: false });
    sim.event(Event::Woke { slept: ms(0) });
    sim.pass(WAIT_HELD - ms(500));
    assert_eq!(sim.last, Number(2));
    sim.pass(ms(500));
    assert_eq!(sim.last, Number(3));
}

#[test]
fn a_replacement_that_logs_in_and_ends_is_followed_after_four_seconds_for_whoever_waits() {
    let mut sim = live();
    sim.event(Event::Woke { slept: ms(0) });
    sim.pass(ms(300));
    sim.news(2, News::SessionUp { needs_person: false });
    sim.news(2, News::Ended(lost()));
    sim.pass(ms(20_000));
    assert_eq!(sim.last, Number(2), "nobody waits");
    sim.event(Event::Held(1));
    assert_eq!(sim.last, Number(3), "who comes later need not wait again");
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
