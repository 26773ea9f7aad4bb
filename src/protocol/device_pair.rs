//! The methods `device.pair.*` and `device.token.*`, and their events: who is paired and may do what.

use serde::{Deserialize, Serialize};

use super::{Access, Scope, method::methods};
use crate::secret::Secret;

methods! {
    /// Who asks and who is paired.
    DevicePairList = "device.pair.list", Access::Holder(Scope::Pairing),
        DevicePairListParams => DevicePairing;
    /// Lets a device in that asked.
    DevicePairApprove = "device.pair.approve", Access::Holder(Scope::Pairing),
        DeviceRequestId => ApprovedDevice;
    /// Turns a device away that asked.
    DevicePairReject = "device.pair.reject", Access::Holder(Scope::Pairing),
        DeviceRequestId => RejectedDevice;
    /// Forgets a paired device.
    DevicePairRemove = "device.pair.remove", Access::Holder(Scope::Pairing),
        DeviceId => DeviceId;
    /// Gives a paired device its owner's name for it.
    DevicePairRename = "device.pair.rename", Access::Holder(Scope::Pairing),
        DeviceLabel => DeviceLabel;
    /// Replaces a device's token.
    DeviceTokenRotate = "device.token.rotate", Access::Holder(Scope::Pairing),
        DeviceTokenRotateParams => RotatedToken;
    /// Takes a device's token back.
    DeviceTokenRevoke = "device.token.revoke", Access::Holder(Scope::Pairing),
        DeviceTokenRevokeParams => RevokedToken;
    /// Issues a setup code for one device.
    DevicePairSetupCode = "device.pair.setupCode", Access::Holder(Scope::Admin),
        DevicePairSetupCodeParams => IssuedSetupCode;
    /// What became of a setup code.
    DevicePairSetupStatus = "device.pair.setupStatus", Access::Holder(Scope::Admin),
        DevicePairSetupStatusParams => SetupStatus;
}

/// Params of `device.pair.list` (`DevicePairListParams`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DevicePairListParams {}

/// Params that name a request (`DevicePairApproveParams`, `DevicePairRejectParams`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeviceRequestId {
    /// What `device.pair.list` and the event call it.
    pub(crate) request_id: String,
}

/// Names a device (`DevicePairRemoveParams`), and answers its removal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeviceId {
    /// SHA-256 of its key, hexadecimal.
    pub(crate) device_id: String,
}

/// A device and its owner's name for it (`DevicePairRenameParams`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeviceLabel {
    /// Which device.
    pub(crate) device_id: String,
    /// 1 to 64 characters.
    pub(crate) label: String,
}

/// Params of `device.token.rotate` (`DeviceTokenRotateParams`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeviceTokenRotateParams {
    /// Which device.
    pub(crate) device_id: String,
    /// Of which role.
    pub(crate) role: String,
    /// What the new token holds; left out, what the old one held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) scopes: Option<Vec<String>>,
}

/// Params of `device.token.revoke` (`DeviceTokenRevokeParams`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeviceTokenRevokeParams {
    /// Which device.
    pub(crate) device_id: String,
    /// Of which role.
    pub(crate) role: String,
}

/// Reply of `device.pair.list`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DevicePairing {
    /// Who asks, the youngest first.
    pub(crate) pending: Vec<DeviceRequest>,
    /// Who is paired, the youngest first.
    pub(crate) paired: Vec<PairedDevice>,
}

/// A device that asks, and payload of `device.pair.requested` (`DevicePairRequestedEvent`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceRequest {
    /// What an approver names.
    pub(crate) request_id: String,
    /// SHA-256 of its key.
    pub(crate) device_id: String,
    /// The key, base64url.
    pub(crate) public_key: String,
    /// What it says of itself.
    #[serde(flatten)]
    pub(crate) about: DeviceAbout,
    /// As what it wants to come in.
    pub(crate) role: String,
    /// The same as a list.
    pub(crate) roles: Vec<String>,
    /// What it wants to do.
    pub(crate) scopes: Vec<String>,
    /// Always false: what is approved silently never waits.
    pub(crate) silent: bool,
    /// Whether it is paired already and asks for more.
    pub(crate) is_repair: bool,
    /// When it asked, milliseconds since 1970.
    pub(crate) ts: u64,
}

/// What a device says of itself, as far as it does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceAbout {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) display_name: Option<String>,
    /// `linux`, `darwin`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<String>,
    /// `Mac`, `iPhone`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_family: Option<String>,
    /// `cli`, `openclaw-ios`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
    /// `cli`, `ui`, `node`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_mode: Option<String>,
    /// Where it came from, if not from the gateway's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remote_ip: Option<String>,
}

/// A paired device, without its tokens; another gateway may tell less of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PairedDevice {
    /// SHA-256 of its key.
    pub(crate) device_id: String,
    /// The key, base64url.
    pub(crate) public_key: String,
    /// What it said of itself.
    #[serde(flatten)]
    pub(crate) about: DeviceAbout,
    /// What its owner calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) operator_label: Option<String>,
    /// The first role that it was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<String>,
    /// Roles that it was granted.
    pub(crate) roles: Vec<String>,
    /// Scopes that it was granted, of every role.
    pub(crate) scopes: Vec<String>,
    /// What its tokens are.
    pub(crate) tokens: Vec<DeviceToken>,
    /// `owner`, `silent`, `bootstrap`.
    pub(crate) approved_via: String,
    /// When it was first paired, milliseconds since 1970.
    pub(crate) created_at_ms: u64,
    /// When it was last approved.
    pub(crate) approved_at_ms: u64,
    /// When it was last here, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen_at_ms: Option<u64>,
    /// What it did then: `connect`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_seen_reason: Option<String>,
    /// Whether it is here now; left out where nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) connected: Option<bool>,
}

/// What is known of a token.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceToken {
    /// Its role.
    pub(crate) role: String,
    /// What it holds.
    pub(crate) scopes: Vec<String>,
    /// When the first one of this role was issued, milliseconds since 1970.
    pub(crate) created_at_ms: u64,
    /// When it was last replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rotated_at_ms: Option<u64>,
    /// When it was taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) revoked_at_ms: Option<u64>,
    /// When it was last used, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_used_at_ms: Option<u64>,
}

/// Reply of `device.pair.approve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ApprovedDevice {
    /// The request that is over.
    pub(crate) request_id: String,
    /// The device as it is paired now.
    pub(crate) device: PairedDevice,
}

/// Reply of `device.pair.reject`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RejectedDevice {
    /// The request that is over.
    pub(crate) request_id: String,
    /// Whose it was.
    pub(crate) device_id: String,
}

/// Reply of `device.token.rotate` (`DeviceTokenRotateResult`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RotatedToken {
    /// Which device.
    pub(crate) device_id: String,
    /// Of which role.
    pub(crate) role: String,
    /// The new token, for the device itself and nobody else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Secret>,
    /// What it holds.
    pub(crate) scopes: Vec<String>,
    /// When, milliseconds since 1970.
    pub(crate) rotated_at_ms: u64,
    /// `in-band`, or `withheld-cross-device`.
    pub(crate) token_delivery: String,
}

/// Reply of `device.token.revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RevokedToken {
    /// Which device.
    pub(crate) device_id: String,
    /// Of which role.
    pub(crate) role: String,
    /// When, milliseconds since 1970.
    pub(crate) revoked_at_ms: u64,
}

/// Payload of `device.pair.resolved` (`DevicePairResolvedEvent`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceResolved {
    /// The request that is over.
    pub(crate) request_id: String,
    /// Whose it was.
    pub(crate) device_id: String,
    /// `approved` or `rejected`.
    pub(crate) decision: String,
    /// When, milliseconds since 1970.
    pub(crate) ts: u64,
}

/// Params of `device.pair.setupCode` (`DevicePairSetupCodeParams`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DevicePairSetupCodeParams {
    /// How the device reaches the gateway: `ws://`, `wss://`, or the same with `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) public_url: Option<String>,
    /// Whether `gateway.remote.url` would be better.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) prefer_remote_url: Option<bool>,
    /// Whether a picture of the code is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) include_qr: Option<bool>,
    /// `node` or `limited`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bootstrap_profile: Option<String>,
    /// Whether a URL is wanted from which the code can be fetched once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) join_url: Option<bool>,
}

/// Reply of `device.pair.setupCode` (`DevicePairSetupCodeResult`).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct IssuedSetupCode {
    /// What `device.pair.setupStatus` asks with.
    pub(crate) setup_id: String,
    /// [`SetupPayload`] as JSON in base64url.
    pub(crate) setup_code: Secret,
    /// From where the payload can be fetched once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) join_url: Option<Secret>,
    /// The code as a picture, a `data:` URL of a PNG.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) qr_data_url: Option<Secret>,
    /// How the device reaches the gateway.
    pub(crate) gateway_url: String,
    /// `token` or `password`.
    pub(crate) auth: String,
    /// Where the URL comes from.
    pub(crate) url_source: String,
    /// `full`, `limited` or `node`.
    pub(crate) access: String,
    /// Whether that is less than what was asked for, since the way there is in the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) access_downgraded: Option<bool>,
    /// Milliseconds since 1970.
    pub(crate) expires_at_ms: u64,
}

/// What a setup code holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SetupPayload {
    /// How the device reaches the gateway.
    pub(crate) url: String,
    /// Good once, for one device.
    pub(crate) bootstrap_token: Secret,
    /// Milliseconds since 1970.
    pub(crate) expires_at_ms: u64,
}

/// Params of `device.pair.setupStatus` (`DevicePairSetupStatusParams`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DevicePairSetupStatusParams {
    /// Of `device.pair.setupCode`.
    pub(crate) setup_id: String,
}

/// Reply of `device.pair.setupStatus` (`DevicePairSetupStatusResult`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SetupStatus {
    /// Who redeemed it, and has what it was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) completion: Option<SetupCompletion>,
    /// Who redeemed it, and may not have got the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) delivery_uncertain: Option<SetupCompletion>,
}

/// Who redeemed a setup code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SetupCompletion {
    /// Of `device.pair.setupCode`.
    pub(crate) setup_id: String,
    /// Which device.
    pub(crate) device_id: String,
    /// How it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_name: Option<String>,
    /// `full`, `limited` or `node`.
    pub(crate) access: String,
    /// When, milliseconds since 1970.
    pub(crate) ts: u64,
}
