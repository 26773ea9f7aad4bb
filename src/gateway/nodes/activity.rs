//! When somebody last used a node's machine, as far as the node may tell: pure.

use serde::Deserialize;
use serde_json::Value;

/// The longest that nobody may have used it, seconds: thirty days.
const LONGEST_IDLE: u64 = 2_592_000;

/// Payload of `node.presence.activity` (`NodePresenceActivityPayload`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub(in crate::gateway) enum Usage {
    /// It was used.
    #[serde(rename_all = "camelCase")]
    Seen(Seen),
    /// Nothing more is told of it.
    Clear(Clear),
}

/// How long ago the machine was used, and by whose word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(in crate::gateway) struct Seen {
    /// Nobody has used it for so many seconds.
    idle_seconds: u64,
    /// Who saw that.
    #[serde(default)]
    source: Source,
    /// Whether it was so long ago that nobody counted on.
    #[serde(default)]
    saturated: bool,
}

/// Takes back what was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::gateway) struct Clear {
    action: ClearAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClearAction {
    Clear,
}

/// Who saw that a machine is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Source {
    /// The system, for every program; the node's owner let it be told.
    #[default]
    System,
    /// OpenClaw's program for macOS, of itself.
    App,
}

/// What is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Activity {
    /// When it was last used, milliseconds since 1970.
    pub(super) last_active_at_ms: u64,
    /// When that was told.
    pub(super) updated_at_ms: u64,
    source: Source,
}

impl Usage {
    /// Reads a payload; `None` of what is none.
    pub(in crate::gateway) fn read(payload: &Value) -> Option<Self> {
        let usage = Self::deserialize(payload).ok()?;
        match usage {
            Self::Seen(seen) if seen.idle_seconds > LONGEST_IDLE => None,
            Self::Seen(_) | Self::Clear(_) => Some(usage),
        }
    }
}

impl Seen {
    pub(super) fn source(&self) -> Source {
        self.source
    }
}

impl Activity {
    /// What is known once `seen` was told at `now_ms`: from one source it never goes back, and where
    /// nobody counted on it stays as it was.
    pub(super) fn after(before: Option<Self>, seen: Seen, now_ms: u64) -> Self {
        let told = now_ms.saturating_sub(seen.idle_seconds * 1_000);
        let last_active_at_ms = match before.filter(|before| before.source == seen.source) {
            None => told,
            Some(before) if seen.saturated => before.last_active_at_ms,
            Some(before) => before.last_active_at_ms.max(told),
        };
        Self { last_active_at_ms, updated_at_ms: now_ms, source: seen.source }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(payload: &Value) -> Seen {
        match Usage::read(payload) {
            Some(Usage::Seen(seen)) => seen,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_is_published_is_read() {
        assert!(matches!(Usage::read(&json!({"action": "clear"})), Some(Usage::Clear(_))));
        assert_eq!(seen(&json!({"idleSeconds": 2_592_000})).source(), Source::System);
        assert_eq!(seen(&json!({"idleSeconds": 0, "source": "app"})).source(), Source::App);
        for bad in [
            json!(null),
            json!({}),
            json!({"idleSeconds": -1}),
            json!({"idleSeconds": 2_592_001}),
            json!({"idleSeconds": 1, "name": "x"}),
            json!({"idleSeconds": 1, "source": "me"}),
            json!({"action": "keep"}),
        ] {
            assert_eq!(Usage::read(&bad), None, "{bad}");
        }
    }

    #[test]
    fn of_one_source_it_never_goes_back_and_another_one_starts_anew() {
        let five = seen(&json!({"idleSeconds": 5}));
        let first = Activity::after(None, five, 100_000);
        assert_eq!((first.last_active_at_ms, first.updated_at_ms), (95_000, 100_000));
        let ten = seen(&json!({"idleSeconds": 10}));
        let second = Activity::after(Some(first), ten, 101_000);
        assert_eq!((second.last_active_at_ms, second.updated_at_ms), (95_000, 101_000));
        let long = seen(&json!({"idleSeconds": 1, "saturated": true}));
        assert_eq!(Activity::after(Some(second), long, 102_000).last_active_at_ms, 95_000);
        let app = seen(&json!({"idleSeconds": 60, "source": "app"}));
        assert_eq!(Activity::after(Some(second), app, 102_000).last_active_at_ms, 42_000);
    }
}
