//! The methods `system-presence` and `gateway.identity.get`: who is here.

use serde::{Deserialize, Serialize};

use super::{Access, Scope, method::methods};

methods! {
    /// Who is connected, the gateway first.
    SystemPresence = "system-presence", Access::Holder(Scope::Read), NoParams => Vec<PresenceEntry>;
    /// The gateway's own device key; compared by clients, never trusted alone.
    GatewayIdentityGet = "gateway.identity.get", Access::Holder(Scope::Read), NoParams => GatewayIdentity;
}

/// A method without parameters; strangers are ignored, as the reference gateway does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NoParams {}

/// One line of presence (`PresenceEntry`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PresenceEntry {
    /// The machine's name, or the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<String>,
    /// Its version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// Its platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<String>,
    /// The kind of device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_family: Option<String>,
    /// The hardware's model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) model_identifier: Option<String>,
    /// An IANA zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) time_zone: Option<String>,
    /// `gateway`, `ui`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<String>,
    /// `self`, `connect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// The line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) text: Option<String>,
    /// When it was last heard of, milliseconds since 1970.
    pub(crate) ts: u64,
    /// The verified device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_id: Option<String>,
    /// Roles of the connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) roles: Vec<String>,
    /// Scopes of the connection.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) scopes: Vec<Scope>,
    /// One running program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) instance_id: Option<String>,
}

/// Reply of `gateway.identity.get`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GatewayIdentity {
    /// SHA-256 hex of the raw public key.
    pub(crate) device_id: String,
    /// The raw Ed25519 public key, base64url without padding.
    pub(crate) public_key: String,
}
