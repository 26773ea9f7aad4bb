//! Bad input and bad manners against a running gateway under load: refused by the documented code,
//! counted, cheap, and unnoticed by the crowd beside it. No tap stands in between, since the
//! gateway's own sockets are the subject.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test may panic, and says what it measured"
)]

#[path = "../support/mod.rs"]
mod support;

mod doors;
mod frames;
mod readers;
mod siege;
mod sockets;
