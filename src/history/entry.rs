//! One thing that happened, as it stands on a line of the file and in `remote logs --json`.

use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};

use crate::problem::Class;

/// What happened, when, and to whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// When it was noticed.
    pub(crate) at: Timestamp,
    /// The remote; `None` for what concerns the machine or the supervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remote: Option<String>,
    /// The forward of the remote, as its port; `None` for the way to the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) forward: Option<String>,
    /// What it was.
    #[serde(flatten)]
    pub(crate) happening: Happening,
}

/// What can happen. Kinds may be added: a reader passes over those that it does not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Happening {
    /// A supervisor began its work.
    Started {
        /// Its process.
        pid: u32,
        /// How its predecessor went, if there was one.
        after: Option<Before>,
    },
    /// The supervisor ended as it was told.
    Ended,
    /// The machine slept or was paused until now, or the supervisor was stopped.
    Slept {
        /// For so long, milliseconds.
        ms: u64,
    },
    /// The supervisor was stopped for a moment.
    Continued,
    /// The machine was about to sleep, as logind said.
    GoingToSleep,
    /// logind said that the machine woke, from a sleep too short for the clocks or one given up.
    Woke,
    /// Routes or addresses of the machine changed.
    Network {
        /// Whether it has any.
        up: bool,
    },
    /// A `remote connect` kept the remote.
    Connected,
    /// The remote was taken down by its user.
    Disconnected,
    /// The remote has this name from now on.
    Renamed {
        /// The new name.
        to: String,
    },
    /// The path that had served serves no more.
    Lost {
        /// What was noticed: a fragment; empty for a mere doubt after a wake or a change of network.
        cause: String,
        /// How long nothing had been heard by then, milliseconds.
        silent_ms: u64,
    },
    /// The first attempt since the path was lost has begun.
    Redialled {
        /// Which attempt since it was last live.
        attempt: u64,
    },
    /// An attempt failed, for a reason not noted yet since the path was lost.
    Failed {
        /// Which attempt since it was last live.
        attempt: u64,
        /// The class of the failure.
        class: Class,
        /// What failed and why: a fragment.
        message: String,
    },
    /// A path serves.
    Live {
        /// How long the path had been away since that was noticed, milliseconds; `None` if none had
        /// served before.
        away_ms: Option<u64>,
        /// Attempts that it took.
        attempts: u64,
        /// Connections that had waited for it.
        waited: u64,
        /// Connections that had waited in vain.
        refused: u64,
    },
    /// SSH is up and no gateway answers behind it.
    GatewayDown {
        /// Why not: a fragment.
        message: String,
        /// What to type.
        fix: Option<String>,
    },
    /// The gateway takes its time, or no longer does.
    GatewaySlow {
        /// Whether it does.
        slow: bool,
    },
    /// Trying again cannot help.
    Blocked {
        /// Why: a fragment.
        message: String,
        /// What to type.
        fix: Option<String>,
    },
    /// The first connection since the path was lost that waited in vain.
    NotServed {
        /// Why: a fragment.
        reason: String,
    },
}

/// How the supervisor before this one went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(crate) enum Before {
    /// As it was told.
    Ended,
    /// With the machine, which was started anew at `booted`.
    Rebooted {
        /// When.
        booted: Timestamp,
    },
    /// Without a word: killed, or crashed.
    Killed,
    /// It handed over to this one, another version of the program.
    Replaced,
}

impl Entry {
    /// The same moment as the file can hold it: whole milliseconds.
    pub(super) fn rounded(at: Timestamp) -> Timestamp {
        at.round(Unit::Millisecond).unwrap_or(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_reads_as_it_was_written() {
        let text = r#"{"at":"2026-11-26T08:03:02.153Z","remote":"vps","event":"lost","cause":"the SSH server does not answer","silentMs":3100}"#;
        let entry: Entry = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&entry).unwrap(), text);
        let text = r#"{"at":"2026-11-26T08:03:02Z","event":"started","pid":7,"after":{"kind":"rebooted","booted":"2026-11-26T08:01:00Z"}}"#;
        let entry: Entry = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_string(&entry).unwrap(), text);
    }
}
