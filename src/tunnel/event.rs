//! What a tunnel is told, what it wants done, and where it is: the machine's words.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Failure, Number, ProofKind};

/// What the user wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Live, always.
    Up,
    /// Dialled, or replaced, while a connection is held; replaced as well when a slow reader blocks
    /// it, for whoever comes next; what is up stays up.
    OnDemand,
    /// The same, and nobody comes next.
    Last,
    /// Nothing.
    Down,
}

/// Where a tunnel is, as `remote status` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Phase {
    /// A gateway answered through this path, and the evidence is young.
    Live,
    /// An attempt is under way.
    Connecting,
    /// The path was live and is silent.
    Suspect,
    /// Between two attempts, or without a network.
    Waiting,
    /// SSH answers, the gateway takes its time.
    GatewaySlow,
    /// SSH is up, no gateway answers behind it.
    GatewayDown,
    /// Trying again cannot help; a person must act.
    Blocked,
    /// Nobody wants it up.
    Down,
}

/// What a tunnel is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// What the user wants; `Up` again means: try now.
    Wish(Wish),
    /// The machine woke.
    Woke {
        /// How long the clock of the instants stood still meanwhile.
        slept: Duration,
    },
    /// A route or address changed; `up` tells whether there is a route at all.
    Network {
        /// Whether there is one.
        up: bool,
    },
    /// So many connections wait for a path.
    Held(usize),
    /// News of an attempt.
    News(Number, News),
    /// The deadline has passed.
    Tick,
}

/// What can be told of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// The SSH session is up.
    SessionUp {
        /// Whether a person had to help.
        needs_person: bool,
    },
    /// The handshake or the login went a step on (`true`), or the server is not reached yet
    /// (`false`).
    Shaking(bool),
    /// The machine no longer has (`true`), or has again, the address that the session leaves from.
    Stranded(bool),
    /// The session is gone, or never came up.
    Ended(Failure),
    /// Bytes came in through a stream of the tunnel's forward.
    Heard,
    /// Bytes of any kind came in from the SSH server.
    Alive,
    /// The ping was answered.
    Pong {
        /// After so long.
        rtt: Duration,
    },
    /// The answer to a quiet ping was there.
    Found,
    /// Something went out (bytes through a stream, or the wish for one), and nothing came in since.
    Awaited,
    /// The SSH server answered what was awaited.
    Answered,
    /// The gateway answered.
    Proved {
        /// After so long.
        rtt: Duration,
    },
    /// The gateway did not answer, or no gateway did.
    NotProved(Failure),
    /// A slow reader blocks (`true`) or no longer blocks the session.
    Parked(bool),
    /// The last stream of a draining session has ended.
    Empty,
}

/// How to ask a gateway whether it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Read its challenge: sure, but noted in the gateway's log.
    Challenge,
    /// `GET /healthz`.
    Healthz,
}

/// What a tunnel wants done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// Begin an attempt.
    Dial(Number),
    /// Ask the SSH server for a sign of life.
    Ping(Number),
    /// The same, and let the answer wake nobody where that can be had; otherwise it is [`News::Pong`].
    PingQuietly(Number),
    /// Look for the answer to the quiet ping.
    Look(Number),
    /// Ask the gateway.
    Prove(Number, Probe),
    /// New connections, and those held, go to this attempt.
    Serve(Number),
    /// New connections are held.
    Hold,
    /// Tell when the attempt's last stream has ended.
    Drain(Number),
    /// End the attempt at once, with whatever it carries.
    Kill(Number),
}

/// What kind of tunnel it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    /// What proves it: a gateway's answer, or the SSH session itself.
    pub(crate) proof: ProofKind,
    /// Between two pings while nobody waits, if somebody chose it.
    pub(crate) alive: Option<Duration>,
    /// Decides all jitter.
    pub(crate) seed: u64,
}
