//! When a `remote connect` has succeeded, must fail at once, or waits on: decided here.

use std::time::Duration;

use super::lane::State;
use crate::{
    problem::{Class, Problem},
    tunnel::{Cause, Phase},
};

/// How long nothing may listen on the gateway's port before `remote connect` gives up.
const ABSENT_PATIENCE: Duration = Duration::from_secs(3);

/// How long somebody may have the place over there, a dead session of ours perhaps.
const TAKEN_PATIENCE: Duration = Duration::from_secs(10);

/// What to tell the command that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A gateway has answered.
    Live,
    /// Waiting cannot help, or is over.
    Failed(Problem),
    /// Not yet.
    Wait,
}

/// Judges a tunnel's `state` after `waited`, `in_phase` of it in the present phase.
pub(super) fn judge(
    name: &str,
    state: &State,
    waited: Duration,
    in_phase: Duration,
    limit: Duration,
) -> Verdict {
    let failure = state.failure.as_ref();
    let fail = |fallback: &str| {
        Verdict::Failed(failure.cloned().map_or_else(
            || {
                Problem::new(Class::Unreachable, format!("{fallback}, {}", limit_text(limit)))
                    .fix(format!("openclaw remote logs {name}, or a longer --timeout"))
            },
            Problem::from,
        ))
    };
    match state.phase {
        Phase::Live | Phase::GatewaySlow => return Verdict::Live,
        Phase::Blocked => return fail("the remote is blocked"),
        Phase::Connecting | Phase::Suspect | Phase::Waiting | Phase::GatewayDown | Phase::Down => {}
    }
    let over = match failure.map(|failure| failure.cause) {
        Some(
            Cause::NameNotFound
            | Cause::Refused
            | Cause::ConnectTimedOut
            | Cause::NoRoute
            | Cause::NotAGateway,
        ) => true,
        Some(Cause::GatewayAbsent) => in_phase >= ABSENT_PATIENCE,
        Some(Cause::PlaceTaken) => in_phase >= TAKEN_PATIENCE,
        Some(cause) if !cause.is_transient() => true,
        _ => false,
    };
    if over {
        return fail("the remote is not reachable");
    }
    if waited < limit {
        return Verdict::Wait;
    }
    let stage = if state.stage.is_empty() { "no gateway answered" } else { state.stage.as_str() };
    fail(&format!("timed out while {stage}"))
}

fn limit_text(limit: Duration) -> String {
    format!("not done within {} s", limit.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::tunnel::Failure;

    const LIMIT: Duration = Duration::from_secs(30);

    fn state(phase: Phase, cause: Option<Cause>) -> State {
        State {
            phase,
            since: SystemTime::UNIX_EPOCH,
            stage: String::new(),
            proof: None,
            failure: cause.map(|cause| Failure::new(cause, "why")),
            attempts: 1,
            reconnects: 0,
            held: 0,
            outage: None,
            away: Duration::ZERO,
            lost: None,
            facts: None,
            port: None,
            reach: None,
        }
    }

    fn class(phase: Phase, cause: Option<Cause>, waited: u64) -> Option<Class> {
        let waited = Duration::from_secs(waited);
        match judge("vps", &state(phase, cause), waited, waited, LIMIT) {
            Verdict::Failed(problem) => Some(problem.class),
            Verdict::Live | Verdict::Wait => None,
        }
    }

    #[test]
    fn fails_at_once_where_waiting_cannot_help() {
        let at_once = [
            (Phase::Waiting, Cause::NameNotFound, Class::Unreachable),
            (Phase::Waiting, Cause::Refused, Class::Unreachable),
            (Phase::Blocked, Cause::Authentication, Class::SshAuth),
            (Phase::Blocked, Cause::HostKeyChanged, Class::HostKey),
            (Phase::Blocked, Cause::ForwardRefused, Class::ForwardRefused),
            (Phase::GatewayDown, Cause::NotAGateway, Class::GatewayDown),
        ];
        for (phase, cause, expected) in at_once {
            assert_eq!(class(phase, Some(cause), 0), Some(expected), "{cause:?}");
        }
    }

    #[test]
    fn waits_for_a_gateway_that_starts_and_a_link_that_broke() {
        for cause in [Cause::GatewayStarting, Cause::GatewayAbsent] {
            assert_eq!(class(Phase::GatewayDown, Some(cause), 1), None);
        }
        assert_eq!(class(Phase::Waiting, Some(Cause::LinkLost), 29), None);
        assert_eq!(class(Phase::GatewayDown, Some(Cause::GatewayStarting), 29), None);
        assert_eq!(
            class(Phase::GatewayDown, Some(Cause::GatewayAbsent), 3),
            Some(Class::GatewayDown)
        );
    }

    #[test]
    fn ends_at_the_limit_with_the_class_of_what_went_wrong() {
        assert_eq!(class(Phase::Connecting, None, 30), Some(Class::Unreachable));
        assert_eq!(
            class(Phase::GatewayDown, Some(Cause::GatewayStarting), 30),
            Some(Class::GatewayDown)
        );
        assert_eq!(class(Phase::Live, None, 99), None);
    }
}
