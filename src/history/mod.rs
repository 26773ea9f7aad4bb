//! What happened to the remotes: entries, the supervisor's book of them, and the files they outlive it in.
//!
//! ```text
//! lanes, wake, network ── Entry ──> Book ──┬── the last few, for whoever watches
//!                                          └── a thread that writes ──> history.jsonl, history.1.jsonl
//! ```

mod book;
mod entry;
mod file;

pub(crate) use book::Book;
pub(crate) use entry::{Before, Entry, Happening};
pub(crate) use file::{Follower, read};
