//! Logs in: keys of the agent and of files, then questions and passwords if a person is there.
//!
//! Reading order: `accepted` and `order` (which keys, and in which order), `login` (method after
//! method), `gather`, `offer` and `signer` (key after key), `questions` (what a person answers),
//! `refusal` (what is said in the end).

mod accepted;
mod gather;
mod login;
mod offer;
mod order;
mod questions;
mod refusal;
mod signer;

pub(super) use login::{Context, login};
