//! A claim on a clock of its own: breaks, refusals, late answers, and a gateway that comes and goes.

use super::*;
use crate::tunnel::Cause;

const ONE: Number = Number(1);
const TWO: Number = Number(2);
const ASK: fn(Number, Option<Number>) -> Option<ClaimAction> =
    |on, before| Some(ClaimAction::Ask { on, before });

struct Sim {
    claim: Claim,
    now: Instant,
}

impl Sim {
    #[expect(clippy::disallowed_methods, reason = "an instant can come from nowhere else")]
    fn new(proves: bool) -> Self {
        Self { claim: Claim::new(proves, 7), now: Instant::now() }
    }

    fn step(&mut self, event: ClaimEvent) -> Option<ClaimAction> {
        self.claim.step(event, self.now)
    }

    /// Goes to the deadline, which must be within `most`.
    fn wait(&mut self, most: Duration) -> Option<ClaimAction> {
        let at = self.claim.deadline().expect("a deadline");
        assert!(at - self.now <= most, "{:?}", at - self.now);
        self.now = at;
        self.step(ClaimEvent::Tick)
    }

    /// Tells of a refusal, and goes to the next question, which must come within `most`.
    fn refused(&mut self, on: Number, why: Refusal, most: Duration) -> Option<ClaimAction> {
        self.step(ClaimEvent::Refused(on, why)).or_else(|| self.wait(most))
    }

    fn phase(&self) -> Phase {
        self.claim.phase(Phase::Live)
    }
}

#[test]
fn asks_once_on_the_session_that_serves_and_is_live_when_granted() {
    let mut sim = Sim::new(false);
    assert_eq!(sim.step(ClaimEvent::Wanted), None);
    assert_eq!(sim.step(ClaimEvent::Serve(ONE)), ASK(ONE, None));
    assert_eq!(sim.phase(), Phase::Connecting);
    assert_eq!(sim.step(ClaimEvent::Serve(ONE)), None);
    assert_eq!(sim.step(ClaimEvent::Granted(ONE)), None);
    assert_eq!((sim.phase(), sim.claim.deadline()), (Phase::Live, None));
    assert_eq!(sim.claim.phase(Phase::Suspect), Phase::Suspect);
    // A silence that was none: the listener is still there.
    assert_eq!(sim.step(ClaimEvent::Hold), None);
    assert_eq!(sim.step(ClaimEvent::Serve(ONE)), None);
    assert_eq!(sim.phase(), Phase::Live);
}

#[test]
fn a_replacement_takes_over_after_the_old_session_has_given_back() {
    let mut sim = Sim::new(false);
    assert!(sim.step(ClaimEvent::Serve(ONE)).is_some());
    assert_eq!(sim.step(ClaimEvent::Granted(ONE)), None);
    assert_eq!(sim.step(ClaimEvent::Hold), None);
    assert_eq!(sim.step(ClaimEvent::Serve(TWO)), ASK(TWO, Some(ONE)));
    // The old one was silent, and holds on over there.
    assert_eq!(sim.refused(TWO, Refusal::Taken, Duration::from_secs(1)), ASK(TWO, None));
    assert_eq!(sim.phase(), Phase::Waiting);
    assert_eq!(sim.step(ClaimEvent::Granted(TWO)), None);
    assert_eq!(sim.phase(), Phase::Live);
    // News of the session before change nothing.
    assert_eq!(sim.step(ClaimEvent::Gone(ONE)), None);
    assert_eq!(sim.phase(), Phase::Live);
}

#[test]
fn what_a_dead_session_still_holds_is_waited_out_for_ever() {
    let mut sim = Sim::new(false);
    assert!(sim.step(ClaimEvent::Serve(ONE)).is_some());
    assert_eq!(sim.step(ClaimEvent::Granted(ONE)), None);
    assert_eq!(sim.step(ClaimEvent::Gone(ONE)), None);
    assert!(sim.claim.is_stale());
    assert_eq!(sim.step(ClaimEvent::Serve(TWO)), ASK(TWO, None));
    // Every few seconds as long as the server may well notice, and then as seldom as a host that is away.
    let begun = sim.now;
    while sim.now - begun < STALE_FOR {
        assert_eq!(sim.refused(TWO, Refusal::Taken, STALE_MOST), ASK(TWO, None));
    }
    for _ in 0..40 {
        let most = Duration::from_secs(30);
        let before = sim.now;
        assert_eq!(sim.refused(TWO, Refusal::Taken, most), ASK(TWO, None));
        assert_eq!(sim.phase(), Phase::Waiting);
        assert!(sim.now - before > STALE_MOST, "{:?}", sim.now - before);
    }
    // Left in the moment between the refusal and the look: no prohibition.
    let most = Duration::from_secs(30);
    assert_eq!(sim.refused(TWO, Refusal::Prohibited, most), ASK(TWO, None));
    assert_eq!(sim.step(ClaimEvent::Granted(TWO)), None);
    assert!(!sim.claim.is_stale());
}

#[test]
fn a_prohibition_stops_it_until_somebody_wants_it_again_or_a_new_session_serves() {
    let mut sim = Sim::new(false);
    assert_eq!(sim.step(ClaimEvent::Serve(ONE)), ASK(ONE, None));
    let at_once = Duration::ZERO;
    assert_eq!(sim.refused(ONE, Refusal::Prohibited, at_once), ASK(ONE, None));
    assert_eq!(sim.step(ClaimEvent::Refused(ONE, Refusal::Prohibited)), None);
    assert_eq!((sim.phase(), sim.claim.deadline()), (Phase::Blocked, None));
    assert_eq!(sim.step(ClaimEvent::Wanted), ASK(ONE, None));
    assert_eq!(sim.step(ClaimEvent::Gone(ONE)), None);
    assert_eq!(sim.step(ClaimEvent::Serve(TWO)), ASK(TWO, None));
    // What cannot be told apart is tried again.
    let most = Duration::from_secs(30);
    assert_eq!(sim.refused(TWO, Refusal::Unclear, most), ASK(TWO, None));
    assert_eq!(sim.phase(), Phase::Waiting);
}

#[test]
fn late_answers_are_given_back_or_dropped() {
    let mut sim = Sim::new(false);
    assert_eq!(sim.step(ClaimEvent::Serve(ONE)), ASK(ONE, None));
    assert_eq!(sim.step(ClaimEvent::Hold), None);
    // What is granted there after all must not stand in the way.
    assert_eq!(sim.step(ClaimEvent::Serve(TWO)), ASK(TWO, Some(ONE)));
    assert!(!sim.claim.is_stale(), "nobody knows that it was ever granted");
    let given_back = Some(ClaimAction::GiveBack(ONE));
    assert_eq!(sim.step(ClaimEvent::Granted(ONE)), given_back);
    assert_eq!(sim.step(ClaimEvent::Refused(ONE, Refusal::Prohibited)), None);
    assert_eq!(sim.phase(), Phase::Connecting);
    // An answer that comes while the session is in doubt counts.
    assert_eq!(sim.step(ClaimEvent::Hold), None);
    assert_eq!(sim.step(ClaimEvent::Granted(TWO)), None);
    assert_eq!(sim.step(ClaimEvent::Serve(TWO)), None);
    assert_eq!(sim.phase(), Phase::Live);
    let given_back = Some(ClaimAction::GiveBack(TWO));
    assert_eq!(sim.step(ClaimEvent::Release), given_back);
    assert_eq!(sim.step(ClaimEvent::Serve(TWO)), None);
}

#[test]
fn what_a_server_never_answered_is_given_back_before_another_session_asks() {
    let mut sim = Sim::new(false);
    assert_eq!(sim.step(ClaimEvent::Serve(ONE)), ASK(ONE, None));
    assert_eq!(sim.step(ClaimEvent::Hold), None);
    assert_eq!(sim.step(ClaimEvent::Refused(ONE, Refusal::Silent)), None);
    assert_eq!(sim.step(ClaimEvent::Serve(TWO)), ASK(TWO, Some(ONE)));
    assert_eq!(sim.step(ClaimEvent::Refused(TWO, Refusal::Silent)), None);
    assert_eq!(sim.step(ClaimEvent::Release), Some(ClaimAction::GiveBack(TWO)));
    // One that has ended holds nothing that could be given back.
    let mut sim = Sim::new(false);
    assert_eq!(sim.step(ClaimEvent::Serve(ONE)), ASK(ONE, None));
    assert_eq!(sim.refused(ONE, Refusal::Silent, Duration::ZERO), ASK(ONE, None));
    assert_eq!(sim.step(ClaimEvent::Gone(ONE)), None);
    assert_eq!(sim.step(ClaimEvent::Serve(TWO)), ASK(TWO, None));
}

#[test]
fn a_published_gateway_is_live_only_while_it_answers() {
    let mut sim = Sim::new(true);
    assert!(sim.step(ClaimEvent::Serve(ONE)).is_some());
    assert_eq!(sim.step(ClaimEvent::Granted(ONE)), Some(ClaimAction::Prove(ONE)));
    assert_eq!(sim.phase(), Phase::Connecting);
    let absent = || Failure::new(Cause::GatewayAbsent, "nothing listens here");
    assert_eq!(sim.step(ClaimEvent::NotProved(ONE, absent())), None);
    assert_eq!((sim.phase(), sim.claim.failure()), (Phase::GatewayDown, Some(&absent())));
    assert_eq!(sim.wait(Duration::from_secs(1)), Some(ClaimAction::Prove(ONE)));
    assert_eq!(sim.phase(), Phase::GatewayDown);
    let proved = ClaimEvent::Proved(ONE, ProofKind::Gateway, Duration::from_millis(3));
    assert_eq!(sim.step(proved.clone()), None);
    assert_eq!(sim.phase(), Phase::Live);
    assert_eq!(sim.wait(PROOF_INTERVAL), Some(ClaimAction::Prove(ONE)));
    assert_eq!(sim.phase(), Phase::Live, "what was proved holds while it is asked again");
    assert_eq!(sim.step(ClaimEvent::NotProved(ONE, absent())), None);
    assert_eq!(sim.phase(), Phase::GatewayDown);
    // Half of the place is somebody else's: given back, it is asked for again.
    let ask = sim.refused(ONE, Refusal::Taken, Duration::from_secs(1));
    assert_eq!((ask, sim.phase()), (ASK(ONE, None), Phase::Waiting));
    assert_eq!(sim.step(ClaimEvent::Granted(ONE)), Some(ClaimAction::Prove(ONE)));
    // News of the gateway through a session that no longer holds anything count for nothing.
    assert_eq!(sim.step(ClaimEvent::Gone(ONE)), None);
    assert_eq!(sim.step(proved), None);
    assert_eq!(sim.claim.phase(Phase::Waiting), Phase::Waiting);
}

#[test]
fn wanted_again_before_the_answer_it_asks_no_second_time() {
    let mut sim = Sim::new(false);
    assert_eq!(sim.step(ClaimEvent::Serve(ONE)), ASK(ONE, None));
    assert_eq!(sim.step(ClaimEvent::Release), None);
    assert_eq!(sim.step(ClaimEvent::Wanted), None, "the question is under way");
    assert_eq!(sim.phase(), Phase::Connecting);
    assert_eq!(sim.step(ClaimEvent::Granted(ONE)), None);
    assert_eq!(sim.phase(), Phase::Live);
    sim.step(ClaimEvent::Release);
    assert_eq!(sim.step(ClaimEvent::Wanted), ASK(ONE, None), "it was given back");
}
