//! What a tunnel does: phases, failures, backoff, decided without I/O and without a clock.

mod failure;

pub(crate) use failure::{Cause, Failure};
