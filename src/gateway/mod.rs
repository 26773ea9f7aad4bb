//! Answers clients: listener, handshake, methods, HTTP.

mod admission;
mod beacons;
mod caller;
mod claim;
mod clock;
mod connection;
mod device_token;
mod dispatch;
mod doors;
mod gate;
mod host_rules;
mod http;
mod hub;
mod identity;
mod ingress;
mod joining;
mod metered;
mod methods;
mod news;
mod nodes;
mod outbox;
mod pairing;
mod picture;
mod private;
mod receipts;
mod reload;
mod repeats;
mod said;
mod scrape;
mod server;
mod settings;
mod setup;
mod shared;
mod slots;
mod tailscale;
mod tally;
#[cfg(test)]
mod tests;
mod throttle;
mod tls;
mod upgrades;

pub(crate) use claim::{Runner, running};
pub(crate) use reload::{FirstReading, Fresh, Source};
pub(crate) use server::{Running, start};
pub(crate) use settings::{Flags, Machine, Refusal, Settings, as_problem};
use shared::{Shared, VERSION};
