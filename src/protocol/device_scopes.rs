//! The methods `device.scopes.*`: a device that is in asks to do more, and waits for the answer.

use serde::{Deserialize, Serialize};

use super::{Access, method::methods};
use crate::secret::Secret;

methods! {
    /// Asks for more scopes for the device that signed this connection.
    DeviceScopesRequest = "device.scopes.requestUpgrade", Access::Operator,
        ScopeUpgradeRequest => ScopeUpgradeRegistration;
    /// Waits until somebody has decided about that, or its time is over.
    DeviceScopesWait = "device.scopes.waitUpgrade", Access::Operator,
        ScopeUpgradeWait => ScopeUpgradeResult;
}

/// Params of `device.scopes.requestUpgrade` (`ScopeUpgradeRequest`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScopeUpgradeRequest {
    /// 1 to 8 different ones: all that it wants to hold, with what it holds now.
    pub(crate) scopes: Vec<String>,
}

/// Params of `device.scopes.waitUpgrade` (`ScopeUpgradeWait`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ScopeUpgradeWait {
    /// Of `device.scopes.requestUpgrade`.
    pub(crate) request_id: String,
}

/// Reply of `device.scopes.requestUpgrade` (`ScopeUpgradeRegistration`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ScopeUpgradeRegistration {
    /// What an approver names, and what to wait for.
    pub(crate) request_id: String,
}

/// Reply of `device.scopes.waitUpgrade` (`ScopeUpgradeResult`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "status", rename_all = "lowercase", rename_all_fields = "camelCase")]
pub(crate) enum ScopeUpgradeResult {
    /// The device may do it: the next connection with this token does.
    Approved {
        /// The request.
        request_id: String,
        /// The device's token from now on.
        device_token: Secret,
        /// What the token holds.
        scopes: Vec<String>,
    },
    /// It may not.
    Rejected {
        /// The request.
        request_id: String,
    },
    /// Nobody decided in time.
    Expired {
        /// The request.
        request_id: String,
    },
}
