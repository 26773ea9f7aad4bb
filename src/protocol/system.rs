//! The methods about who is here: presence, what a program says of itself, the gateway's own key,
//! and the person behind a connection.

use serde::{Deserialize, Serialize};

use super::{Access, Done, Scope, method::methods};

methods! {
    /// Who is connected, the gateway first.
    SystemPresence = "system-presence", Access::Holder(Scope::Read), NoParams => Vec<PresenceEntry>;
    /// The gateway's own device key; compared by clients, never trusted alone.
    GatewayIdentityGet = "gateway.identity.get", Access::Holder(Scope::Read), NoParams => GatewayIdentity;
    /// A line of news from a program: presence shows it, and the session's next turn reads it.
    SystemEvent = "system-event", Access::Holder(Scope::Admin), SystemEventParams => Done;
    /// The person behind the connection.
    UsersSelf = "users.self", Access::Holder(Scope::Read), Strictly => Nobody;
}

/// No parameters, and none that are not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Strictly {}

/// Reply of `users.self`, which there never is: this gateway knows devices and secrets, and keeps no
/// profiles of people, also where a proxy names one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum Nobody {}

/// Parameters of `system-event`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct SystemEventParams {
    /// For people; `Node: HOST (IP) · app VERSION · last input Ns ago · mode MODE · reason REASON`
    /// is read as what it says.
    pub(crate) text: String,
    /// Who repeats it gets the first answer.
    #[serde(default)]
    pub(crate) idempotency_key: Option<String>,
    /// The session that is to read it; the default agent's main one.
    #[serde(default)]
    pub(crate) session_key: Option<String>,
    /// Whether an agent is to read it at once.
    #[serde(default)]
    pub(crate) wake: Option<bool>,
    /// What tells this program from others.
    #[serde(default)]
    pub(crate) device_id: Option<String>,
    /// The same of a running one.
    #[serde(default)]
    pub(crate) instance_id: Option<String>,
    /// Its machine.
    #[serde(default)]
    pub(crate) host: Option<String>,
    /// Its machine's address.
    #[serde(default)]
    pub(crate) ip: Option<String>,
    /// `ui`, `node`, …
    #[serde(default)]
    pub(crate) mode: Option<String>,
    /// Its version.
    #[serde(default)]
    pub(crate) version: Option<String>,
    /// Its platform.
    #[serde(default)]
    pub(crate) platform: Option<String>,
    /// The kind of device.
    #[serde(default)]
    pub(crate) device_family: Option<String>,
    /// The hardware's model.
    #[serde(default)]
    pub(crate) model_identifier: Option<String>,
    /// Since somebody last typed there.
    #[serde(default)]
    pub(crate) last_input_seconds: Option<f64>,
    /// Why it tells.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// Added to what it had.
    #[serde(default)]
    pub(crate) roles: Vec<String>,
    /// Added to what it had; a claim, which gives nothing.
    #[serde(default)]
    pub(crate) scopes: Vec<String>,
    /// `system-presence-clear-last-input` forgets when somebody last typed there.
    #[serde(default)]
    pub(crate) tags: Vec<String>,
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
    /// The machine's address, where the program said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ip: Option<String>,
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
    /// Since somebody last typed there, where the program said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_input_seconds: Option<u64>,
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
    pub(crate) scopes: Vec<String>,
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
