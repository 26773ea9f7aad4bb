//! Answers clients: listener, handshake, methods, HTTP.

mod admission;
mod caller;
mod claim;
mod clock;
mod connection;
mod dispatch;
mod doors;
mod gate;
mod http;
mod hub;
mod identity;
mod metered;
mod methods;
mod outbox;
mod private;
mod scrape;
mod server;
mod settings;
mod shared;
mod slots;
mod tally;
#[cfg(test)]
mod tests;
mod throttle;

pub(crate) use claim::{Runner, running};
pub(crate) use server::{Running, start};
pub(crate) use settings::{Flags, Settings};
use shared::{Shared, VERSION};
