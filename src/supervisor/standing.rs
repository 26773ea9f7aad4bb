//! How each remote stands, for whoever looks at all of them.

use super::{
    lane::{serves, word},
    lock::locked,
    server::Supervisor,
};
use crate::{problem::Problem, tunnel::Phase};

/// How one remote stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) name: String,
    pub(super) phase: Phase,
    pub(super) failure: Option<Problem>,
}

impl Standing {
    /// Whether connections are served.
    pub(super) fn serves(&self) -> bool {
        serves(self.phase)
    }

    /// Whether it waits for a person.
    pub(super) fn needs_person(&self) -> bool {
        self.phase == Phase::Blocked
    }

    /// The phase in words.
    pub(super) fn word(&self) -> &'static str {
        word(self.phase)
    }
}

impl Supervisor {
    /// How the remotes stand that are at work, are being started or could not be, by name.
    pub(super) fn standings(&self) -> Vec<Standing> {
        let working = self.at_work().into_iter().map(|remote| {
            let state = remote.state();
            let failure = state.failure.map(Problem::from);
            Standing { name: remote.name(), phase: state.phase, failure }
        });
        let mut standings: Vec<_> = working.collect();
        let unstarted = locked(&self.unstarted);
        for name in unstarted.names() {
            let (phase, failure) = (unstarted.phase(name), unstarted.problem(name).cloned());
            standings.push(Standing { name: name.clone(), phase, failure });
        }
        drop(unstarted);
        standings.sort_by(|one, other| one.name.cmp(&other.name));
        standings
    }
}
