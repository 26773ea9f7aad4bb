//! The control socket: the supervisor's messages, and the end that commands hold.
//!
//! A message is a 32-bit length and that much JSON, so that after `Opened` the very same
//! connection can carry the raw bytes of a stream.

mod connection;
mod endpoint;
mod frame;
#[cfg(test)]
mod fuzz;
mod launch;
mod message;

pub(crate) use connection::{Bearer, Connection, Start, holder, met, open, started, statuses};
pub(crate) use endpoint::{Endpoint, SUPERVISOR_GONE};
pub(crate) use frame::{read, write};
pub(crate) use launch::{ALLOCATOR, READY};
pub(crate) use message::{
    Answer, Call, Edition, Note, Opened, Question, Reply, Request, VERSION, Watched, refused,
};
