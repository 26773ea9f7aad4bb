//! One attempt: how far it has come, and what has been heard of it.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::News;

/// The number of an attempt; grows, is never used twice in one tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Number(pub(crate) u64);

/// What the evidence of a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProofKind {
    /// A gateway answered through the path.
    Gateway,
    /// The SSH server answered.
    Ssh,
}

/// The last evidence that a path works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proof {
    /// What answered.
    pub(crate) kind: ProofKind,
    /// When.
    pub(crate) at: Instant,
    /// How long the round trip took.
    pub(crate) rtt: Duration,
}

/// Between two pings of a path on which nobody waits. A link that falls silent right after an answer
/// is asked once more after this time, and found silent after the same time again: within ten
/// seconds.
pub(super) const PING_IDLE: Duration = Duration::from_millis(4800);
/// Between two pings while somebody waits for an answer.
pub(super) const PING_AWAITED: Duration = Duration::from_secs(1);
/// The shortest time a ping may stay unanswered.
const PING_PATIENCE: Duration = Duration::from_millis(1500);
/// The longest, however long the round trip.
const PING_PATIENCE_MOST: Duration = Duration::from_secs(5);

/// How long this machine may take to read an answer that has arrived.
const LOOK_PATIENCE: Duration = Duration::from_millis(200);

/// How the answer to the ping under way is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ear {
    /// It is heard as it comes.
    Open,
    /// It wakes nobody: it is looked for when the next ping is due.
    Closed,
    /// It is looked for since then.
    Looking(Instant),
}

/// How long a dial that was under way at a wake or a change of route may still take before another
/// one begins beside it.
pub(super) const DIAL_PATIENCE: Duration = Duration::from_secs(1);
/// How long a server may take for one step of the handshake or the login before another dial begins
/// beside it, while somebody waits.
pub(super) const STEP_PATIENCE: Duration = Duration::from_secs(5);

/// How far an attempt has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The SSH session is being made.
    Dialing,
    /// The session is up; the gateway is being asked.
    Proving {
        /// When asking began.
        since: Instant,
        /// Whether its last answer was no.
        again: bool,
    },
    /// The gateway's answer was no, or is missing; asked again at `retry`.
    Unproved {
        /// When it is asked again.
        retry: Instant,
    },
    /// New connections go here.
    Serving,
}

/// One attempt.
#[derive(Debug, Clone)]
pub(super) struct Attempt {
    pub(super) number: Number,
    pub(super) stage: Stage,
    /// Whether the login needed a person, so that it is not repeated on a mere suspicion.
    pub(super) needs_person: bool,
    /// When anything last came in.
    pub(super) heard: Instant,
    /// Whether something went out since.
    pub(super) awaited: bool,
    /// When the ping that is under way was sent.
    pub(super) pinged: Option<Instant>,
    /// How its answer is waited for.
    pub(super) ear: Ear,
    /// Since when the session is silent though asked; new connections do not go there.
    pub(super) suspect: Option<Instant>,
    /// Since when the network may have left a dial hanging, or a session dead: what a machine had
    /// received before it slept it reads afterwards, so only an answer to what was asked since
    /// then says that the session lives.
    pub(super) doubted: Option<Instant>,
    /// Since when the server has been silent in the handshake or the login.
    pub(super) shaking: Option<Instant>,
    /// Whether the address is gone that it leaves from, so that no answer can come.
    pub(super) stranded: bool,
    /// Whether a slow reader may block the session, so that newcomers go elsewhere. It is asked on:
    /// where nobody reads what has come in, that counts as a sign of life.
    pub(super) parked: bool,
    /// Since when, while it is.
    pub(super) parked_since: Option<Instant>,
    /// Whether it ever was.
    pub(super) was_parked: bool,
    /// The session's last round trip.
    pub(super) rtt: Duration,
    /// When a later proof is due, once serving.
    pub(super) next_proof: Option<Instant>,
    /// When the proof under way was asked for.
    pub(super) proof_asked: Option<Instant>,
}

impl Attempt {
    pub(super) fn new(number: Number, now: Instant) -> Self {
        Self {
            number,
            stage: Stage::Dialing,
            needs_person: false,
            heard: now,
            awaited: false,
            pinged: None,
            ear: Ear::Open,
            suspect: None,
            doubted: None,
            shaking: None,
            stranded: false,
            parked: false,
            parked_since: None,
            was_parked: false,
            rtt: Duration::ZERO,
            next_proof: None,
            proof_asked: None,
        }
    }

    /// Whether the SSH session is up.
    pub(super) fn has_session(&self) -> bool {
        self.stage != Stage::Dialing
    }

    /// When a dial counts as hanging, if it may: some time after a wake or a change of route, or
    /// after the server's last step while somebody waits (`held`).
    pub(super) fn hangs(&self, held: bool) -> Option<Instant> {
        let doubted = self.doubted.map(|since| since + DIAL_PATIENCE);
        let silent = self.shaking.filter(|_| held).map(|since| since + STEP_PATIENCE);
        let first = doubted.into_iter().chain(silent).min();
        first.filter(|_| !self.has_session())
    }

    /// Whether news may be older than the doubt in the session.
    pub(super) fn is_old(&self, news: &News, now: Instant) -> bool {
        let Some(doubt) = self.doubted.filter(|_| self.has_session()) else { return false };
        match news {
            News::Pong { rtt } | News::Proved { rtt } => {
                *rtt > now.saturating_duration_since(doubt)
            }
            News::Heard | News::Alive | News::Found | News::Answered | News::NotProved(_) => true,
            News::SessionUp { .. }
            | News::Shaking(_)
            | News::Stranded(_)
            | News::Ended(_)
            | News::Awaited
            | News::Parked(_)
            | News::Empty => false,
        }
    }

    /// Whether new connections may go there. A session that a slow reader blocks is left to that
    /// reader where another can be had (`replaceable`) without a person.
    pub(super) fn is_serving(&self, replaceable: bool) -> bool {
        let left_alone = self.parked && replaceable && !self.needs_person;
        self.stage == Stage::Serving && self.suspect.is_none() && !left_alone
    }

    /// How long a ping may stay unanswered: four round trips within bounds.
    pub(super) fn patience(&self) -> Duration {
        (self.rtt * 4).clamp(PING_PATIENCE, PING_PATIENCE_MOST)
    }

    /// When the next ping is due, or the one under way counts as unanswered; inbound bytes extend
    /// both. While nobody waits there are `idle` between two pings.
    pub(super) fn ping_deadline(&self, idle: Duration) -> Option<Instant> {
        if !self.has_session() || self.suspect.is_some() {
            return None;
        }
        let interval = if self.is_awaited() { PING_AWAITED } else { idle };
        // A proof that was just asked for asks the session as well.
        let asked = self.proof_asked.filter(|_| !self.awaited).unwrap_or(self.heard);
        let since = self.heard.max(asked);
        Some(match (self.pinged, self.ear) {
            (Some(sent), Ear::Open) => sent.max(self.heard) + self.patience(),
            (Some(_), Ear::Looking(since)) => since.max(self.heard) + LOOK_PATIENCE,
            // Nobody has listened for the answer, so its absence says nothing: asked anew.
            (Some(_), Ear::Closed) if self.is_awaited() => since + interval,
            (Some(sent), Ear::Closed) => sent + idle,
            (None, _) => since + interval,
        })
    }

    /// Whether nobody waits, and a proof is due by `soon`.
    pub(super) fn is_proof_near(&self, soon: Instant) -> bool {
        let is_due = self.next_proof.is_some_and(|at| at <= soon);
        is_due && self.stage == Stage::Serving && !self.parked && !self.is_awaited()
    }

    /// Whether somebody waits for an answer of any kind.
    pub(super) fn is_awaited(&self) -> bool {
        let is_asked = self.proof_asked.is_some() || matches!(self.stage, Stage::Proving { .. });
        self.awaited || is_asked
    }

    /// A ping goes out, whose answer is heard as it comes.
    pub(super) fn ask_aloud(&mut self, now: Instant) {
        self.pinged = Some(now);
        self.ear = Ear::Open;
    }
}
