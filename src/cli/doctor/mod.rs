//! `openclaw doctor`: what is unsafe or broken here, why that matters, and what to type.

mod finding;
mod judge;
mod look;
mod mend;
mod renew;
mod run;

pub(super) use run::{Arguments, run};
