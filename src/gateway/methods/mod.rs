//! The handlers, a family a file, as in `protocol/`.

mod catalog;
mod config;
pub(in crate::gateway) mod device;
mod health;
mod logs;
mod system;

pub(super) use health::summary;

use super::dispatch::Dispatcher;

/// Takes up every handler.
pub(super) fn register(dispatcher: &mut Dispatcher) {
    device::register(dispatcher);
    health::register(dispatcher);
    system::register(dispatcher);
    catalog::register(dispatcher);
    config::register(dispatcher);
    logs::register(dispatcher);
}
