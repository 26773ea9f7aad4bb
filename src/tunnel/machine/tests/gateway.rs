//! What the gateway answers or does not, while SSH does.

use super::*;

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
