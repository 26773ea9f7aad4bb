//! Who stands at the other end of a connection that has been let in.

use std::sync::{Arc, OnceLock};

use super::{outbox::Ending, receipts::Receipts};
use crate::{
    protocol::{Client, Role, Scope},
    store::About,
};

/// One authenticated client, as methods may see it.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// `hello-ok.server.connId`.
    pub(super) connection: String,
    /// Its number among the hub's members.
    pub(super) member: u64,
    /// What it is here for.
    pub(super) role: Role,
    /// What it said of itself: id, mode, version, platform, display name.
    pub(super) client: Client,
    /// The same for people, with where it comes from.
    pub(super) about: About,
    /// The device whose key signed this connection, if one did.
    pub(super) device_id: Option<String>,
    /// Whether a token of its device let it in, and not the gateway's secret.
    pub(super) by_device_token: bool,
    /// What it was granted.
    pub(super) scopes: Vec<Scope>,
    /// How the connection ends once the request that took its own right away is answered.
    pub(super) farewell: OnceLock<Ending>,
    /// Which of its answers it has for certain.
    pub(super) receipts: Arc<Receipts>,
}

impl Caller {
    /// Whether it may do what needs `scope`.
    pub(super) fn holds(&self, scope: Scope) -> bool {
        scope.is_within(&self.scopes)
    }
}
