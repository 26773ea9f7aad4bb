//! The handlers, a family a file, as in `protocol/`.

mod catalog;
mod config;
pub(in crate::gateway) mod device;
mod device_scopes;
mod device_setup;
mod exec_approvals;
mod exec_rules;
mod health;
mod logs;
mod node_side;
mod nodes;
mod system;
pub(in crate::gateway) mod voicewake;

pub(super) use config::revision as config_revision;
pub(super) use health::{Summary, tell_of_health};

use super::dispatch::Dispatcher;

/// Takes up every handler.
pub(super) fn register(dispatcher: &mut Dispatcher) {
    device::register(dispatcher);
    device_scopes::register(dispatcher);
    device_setup::register(dispatcher);
    exec_approvals::register(dispatcher);
    exec_rules::register(dispatcher);
    health::register(dispatcher);
    node_side::register(dispatcher);
    nodes::register(dispatcher);
    system::register(dispatcher);
    voicewake::register(dispatcher);
    catalog::register(dispatcher);
    config::register(dispatcher);
    logs::register(dispatcher);
}
