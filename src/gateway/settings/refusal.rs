//! Why a gateway does not start: every reason at once, each at the key that it is about. Pure.

use crate::{
    config::Issue,
    problem::{Class, Problem},
};

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The key of `openclaw.json`; empty where it is about the command line or the environment.
    pub(crate) path: &'static str,
    /// What is wrong, and what to type.
    pub(crate) problem: Problem,
}

impl Refusal {
    /// The same as one of the issues of the file.
    pub(crate) fn issue(&self) -> Issue {
        let Problem { message, fix, .. } = &self.problem;
        Issue { fix: fix.clone(), ..Issue::new(self.path, message) }
    }
}

/// Reasons as they are found; whoever looks on goes on.
#[derive(Debug, Default)]
pub(super) struct Refusals(pub(super) Vec<Refusal>);

impl Refusals {
    /// Notes what is wrong at `path`.
    pub(super) fn push(&mut self, path: &'static str, problem: Problem) {
        self.0.push(Refusal { path, problem });
    }

    /// What was decided, or `None` with its reason noted at `path`.
    pub(super) fn note<T>(&mut self, path: &'static str, outcome: Result<T, Problem>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(problem) => {
                self.push(path, problem);
                None
            }
        }
    }
}

/// All of them as one problem: the only one as it is, several in a list.
pub(crate) fn as_problem(refusals: Vec<Refusal>) -> Problem {
    let fault = || Problem::new(Class::Internal, "a start was refused without a reason");
    if refusals.len() < 2 {
        return refusals.into_iter().next().map_or_else(fault, |refusal| refusal.problem);
    }
    let lines: Vec<_> = refusals.iter().map(|refusal| refusal.issue().to_string()).collect();
    let message =
        format!("{} things keep the gateway from starting:\n  {}", lines.len(), lines.join("\n  "));
    Problem::new(Class::Config, message).fix("openclaw config validate")
}
