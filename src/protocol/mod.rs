//! The gateway protocol, version 4: what stands on the wire, as data.

mod connect;
mod frame;

pub(crate) use connect::{
    Auth, Challenge, Client, Connect, Features, Granted, HelloOk, Policy, Server, Snapshot,
    StateVersion,
};
pub(crate) use frame::{ErrorShape, Event, Frame, Request, Response};

/// The protocol version we speak.
pub(crate) const VERSION: u32 = 4;
