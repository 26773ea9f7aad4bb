//! `openclaw remote logs`: what happened to the remotes and when, or the supervisor's own log.

mod absences;
mod raw;
mod run;
mod story;
mod when;

pub(super) use absences::{Absence, absences};
pub(super) use run::{Arguments, entry, run};
pub(super) use story::millis;
