//! The handlers, a family a file, as in `protocol/`.

mod catalog;
mod config;
mod health;
mod logs;
mod system;

pub(super) use health::Summary;

use super::dispatch::Dispatcher;

/// Takes up every handler.
pub(super) fn register(dispatcher: &mut Dispatcher) {
    health::register(dispatcher);
    system::register(dispatcher);
    catalog::register(dispatcher);
    config::register(dispatcher);
    logs::register(dispatcher);
}
