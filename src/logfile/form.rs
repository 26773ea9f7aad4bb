//! What a log says of itself, as lines of JSON or as plain ones. Pure.

use jiff::Timestamp;

use super::line::stamp;

/// What is said of lost lines.
const LOSS: &str = "log lines were lost: the disk or the queue was full";

/// The form of a log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// An object of JSON a line, as `JsonLines` makes them.
    Json,
    /// Time, level, text and fields, as tracing's formatter makes them.
    Plain,
}

impl Form {
    /// The line, with its end, about `lost` lines.
    pub(super) fn loss(self, lost: u64, now: Timestamp) -> String {
        let now = stamp(now);
        match self {
            Self::Json => {
                let line = serde_json::json!({
                    "time": now, "level": "warn", "subsystem": "log", "message": LOSS, "lost": lost,
                });
                format!("{line}\n")
            }
            Self::Plain => format!("{now}  WARN {LOSS} lost={lost}\n"),
        }
    }

    /// The line, without its end, about a panic at `place` (file, line, column) that said `what`.
    pub(super) fn panic(self, what: &str, place: &str, now: Timestamp) -> String {
        let now = stamp(now);
        match self {
            Self::Json => serde_json::json!({
                "time": now, "level": "error", "subsystem": "process",
                "message": format!("panicked: {what}"), "at": place,
            })
            .to_string(),
            Self::Plain => {
                let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
                format!("{now} ERROR panicked: {what} at={place}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_one_line_in_either_form() {
        let (what, now) = ("assertion failed\n  left: 1", "2026-11-27T00:00:00Z".parse().unwrap());
        assert_eq!(
            Form::Plain.panic(what, "src/a.rs:1:2", now),
            "2026-11-27T00:00:00.000Z ERROR panicked: assertion failed left: 1 at=src/a.rs:1:2"
        );
        assert_eq!(
            Form::Json.panic(what, "src/a.rs:1:2", now),
            r#"{"time":"2026-11-27T00:00:00.000Z","level":"error","subsystem":"process","message":"panicked: assertion failed\n  left: 1","at":"src/a.rs:1:2"}"#
        );
    }
}
