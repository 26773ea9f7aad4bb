//! What a lane publishes of itself.

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use crate::{
    problem::Problem,
    supervisor::link::Facts,
    tunnel::{Failure, Phase, Proof},
};

/// The last time the path was away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::supervisor) struct Outage {
    /// What was noticed.
    pub(in crate::supervisor) cause: String,
    /// The last sign of life before.
    pub(in crate::supervisor) started: SystemTime,
    /// From there until it was noticed.
    pub(in crate::supervisor) detected: Duration,
    /// From noticing until a path served again; `None` while it lasts.
    pub(in crate::supervisor) restored: Option<Duration>,
}

/// What a lane publishes.
#[derive(Debug, Clone)]
pub(in crate::supervisor) struct State {
    pub(in crate::supervisor) phase: Phase,
    pub(in crate::supervisor) since: SystemTime,
    /// What the attempt is at.
    pub(in crate::supervisor) stage: String,
    pub(in crate::supervisor) proof: Option<Proof>,
    pub(in crate::supervisor) failure: Option<Failure>,
    pub(in crate::supervisor) attempts: u64,
    pub(in crate::supervisor) reconnects: u64,
    pub(in crate::supervisor) held: usize,
    pub(in crate::supervisor) outage: Option<Outage>,
    /// How long the path was away in all, up to the last time it was back.
    pub(in crate::supervisor) away: Duration,
    /// Since when it is away.
    pub(in crate::supervisor) lost: Option<Instant>,
    pub(in crate::supervisor) facts: Option<Facts>,
    /// Where a listener over there was granted last.
    pub(in crate::supervisor) port: Option<u16>,
    /// Who reaches it, where that was to be others as well.
    pub(in crate::supervisor) reach: Option<Reach>,
}

/// Who reaches a listener over there that is wanted at more than loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::supervisor) enum Reach {
    /// Other machines.
    Others,
    /// Its own machine alone.
    Itself,
    /// The server did not let us look.
    Unknown,
}

/// Whether new connections are served in that phase.
pub(in crate::supervisor) fn serves(phase: Phase) -> bool {
    matches!(phase, Phase::Live | Phase::GatewaySlow)
}

/// The phase as `remote status` writes it.
pub(in crate::supervisor) fn word(phase: Phase) -> &'static str {
    match phase {
        Phase::Live => "live",
        Phase::Connecting => "connecting",
        Phase::Suspect => "suspect",
        Phase::Waiting => "waiting",
        Phase::GatewaySlow => "gateway_slow",
        Phase::GatewayDown => "gateway_down",
        Phase::Blocked => "blocked",
        Phase::Down => "down",
    }
}

/// The problem that a state means for somebody who wants a path now, if waiting cannot help: a
/// person must act, or no gateway is there.
pub(in crate::supervisor) fn hopeless(state: &State) -> Option<Problem> {
    matches!(state.phase, Phase::Blocked | Phase::GatewayDown)
        .then(|| state.failure.clone().map(Problem::from))
        .flatten()
}
