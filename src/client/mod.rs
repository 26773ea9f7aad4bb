//! Talks to a gateway: which one, with which secret, and calls.

mod proof;

pub(crate) use proof::{NotAnswered, challenge, healthz};
