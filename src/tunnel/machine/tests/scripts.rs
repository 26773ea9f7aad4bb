//! Random scripts: whatever happens in whatever order, the books balance.

use proptest::prelude::*;

use super::*;

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
