//! Two programs of this name at one profile: which of them serves it from now on.
//!
//! Pure, apart from `Party::own`, which asks what this program is.

use serde::{Deserialize, Serialize};

use crate::control;

/// The supervisor's first message to whoever connects. Its form is the same for all versions for
/// ever: fields may be added, and what is not known is passed over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// [`control::VERSION`] of its program.
    pub(crate) version: u32,
    /// Its process.
    pub(crate) pid: u32,
    /// The version of its program, `1.2.3`.
    #[serde(default)]
    pub(crate) program: String,
    /// Whether the file that it was started from is another one by now, or gone.
    #[serde(default)]
    pub(crate) replaced: bool,
    /// Whether somebody runs it in the foreground, as a service manager does.
    #[serde(default)]
    pub(crate) foreground: bool,
}

/// One that meets a supervisor: a command, or a supervisor that finds the place taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Party {
    /// [`control::VERSION`] of its program.
    pub(crate) version: u32,
    /// The version of its program.
    pub(crate) program: String,
    /// Whether it wants to be the supervisor itself, in the foreground.
    pub(crate) foreground: bool,
}

impl Party {
    /// This program.
    pub(crate) fn own(foreground: bool) -> Self {
        let version = pretended("OPENCLAW_TEST_CONTROL_VERSION").and_then(|it| it.parse().ok());
        let program = pretended("OPENCLAW_TEST_PROGRAM_VERSION");
        Self {
            version: version.unwrap_or(control::VERSION),
            program: program.unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
            foreground,
        }
    }
}

/// What a test wants a development build to pretend; a release build pretends nothing.
fn pretended(variable: &str) -> Option<String> {
    if cfg!(debug_assertions) { std::env::var(variable).ok() } else { None }
}

/// What comes of a meeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Meeting {
    /// The one that runs serves on.
    Join,
    /// A supervisor of the newcomer's program takes its place.
    TakeOver(Pressure),
    /// Both run in the foreground, and neither may end the other.
    Refuse,
}

/// How much a taking over matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pressure {
    /// The newcomer can do with the one that runs.
    May,
    /// It cannot, or was asked not to.
    Must,
}

/// Decides for a newcomer that meets a supervisor which has said `greeting`.
///
/// An older program joins a newer one where the two understand each other, so that two programs
/// installed side by side do not throw each other out by turns.
pub(crate) fn meet(newcomer: &Party, greeting: &Greeting) -> Meeting {
    if newcomer.foreground && greeting.foreground {
        return Meeting::Refuse;
    }
    if newcomer.foreground || newcomer.version != greeting.version {
        return Meeting::TakeOver(Pressure::Must);
    }
    if greeting.replaced || number(&greeting.program) < number(&newcomer.program) {
        return Meeting::TakeOver(Pressure::May);
    }
    Meeting::Join
}

/// A version as numbers that compare; what is none is older than any.
fn number(version: &str) -> Vec<u64> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    core.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(version: u32, program: &str) -> Greeting {
        let program = program.to_owned();
        Greeting { version, pid: 1, program, replaced: false, foreground: false }
    }

    fn command() -> Party {
        Party { version: 2, program: "1.10.0".to_owned(), foreground: false }
    }

    #[test]
    fn joins_its_own_kind_and_newer_ones_that_it_understands() {
        for program in ["1.10.0", "1.10.1", "1.11.0", "2.0.0", "1.10.0-beta"] {
            assert_eq!(meet(&command(), &greeting(2, program)), Meeting::Join, "{program}");
        }
    }

    #[test]
    fn takes_over_from_an_older_one_and_from_one_whose_file_was_replaced() {
        for program in ["1.9.9", "0.1.0", "1.10", "", "nonsense"] {
            let met = meet(&command(), &greeting(2, program));
            assert_eq!(met, Meeting::TakeOver(Pressure::May), "{program}");
        }
        let replaced = Greeting { replaced: true, ..greeting(2, "1.10.0") };
        assert_eq!(meet(&command(), &replaced), Meeting::TakeOver(Pressure::May));
    }

    #[test]
    fn must_take_over_from_one_that_it_does_not_understand() {
        for version in [1, 3] {
            let met = meet(&command(), &greeting(version, "9.0.0"));
            assert_eq!(met, Meeting::TakeOver(Pressure::Must));
        }
    }

    #[test]
    fn a_service_takes_over_from_a_detached_one_and_not_from_a_service() {
        let service = Party { foreground: true, ..command() };
        let detached = greeting(2, "1.10.0");
        assert_eq!(meet(&service, &detached), Meeting::TakeOver(Pressure::Must));
        let other = Greeting { foreground: true, ..greeting(1, "0.1.0") };
        assert_eq!(meet(&service, &other), Meeting::Refuse);
        let same = Greeting { foreground: true, ..detached };
        assert_eq!(meet(&command(), &same), Meeting::Join);
    }

    #[test]
    fn greetings_of_all_versions_are_read() {
        let old: Greeting = serde_json::from_str(r#"{"version":1,"pid":7}"#).unwrap();
        assert_eq!(old, Greeting { pid: 7, ..greeting(1, "") });
        let new = r#"{"version":9,"pid":7,"program":"9.9.9","replaced":false,"moon":"full"}"#;
        let new: Greeting = serde_json::from_str(new).unwrap();
        assert_eq!((new.version, new.program.as_str()), (9, "9.9.9"));
        let now = serde_json::to_string(&greeting(1, "0.1.0")).unwrap();
        let golden =
            r#"{"version":1,"pid":1,"program":"0.1.0","replaced":false,"foreground":false}"#;
        assert_eq!(now, golden);
    }
}
