//! What is kept of devices: requests, grants, digests of tokens, setup codes.

use serde::{Deserialize, Serialize};

use crate::protocol::{Role, Scope};

/// What a device said of itself when it was last let in or asked to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct About {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) display_name: Option<String>,
    /// `linux`, `darwin`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<String>,
    /// `Mac`, `iPhone`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device_family: Option<String>,
    /// `cli`, `openclaw-ios`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
    /// `cli`, `ui`, `node`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_mode: Option<String>,
    /// Where it came from, if not from this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remote_ip: Option<String>,
}

/// What a device asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    /// SHA-256 of its key, hexadecimal.
    pub(crate) device_id: String,
    /// Its key, base64url.
    pub(crate) public_key: String,
    /// What it says of itself.
    pub(crate) about: About,
    /// As what it wants to come in.
    pub(crate) role: Role,
    /// What it wants to do.
    pub(crate) scopes: Vec<Scope>,
}

impl Asked {
    /// Whether who may do this may do what `other` asks for as well, in whichever order.
    pub(super) fn covers(&self, other: &Self) -> bool {
        (&self.public_key, self.role) == (&other.public_key, other.role)
            && other.scopes.iter().all(|scope| scope.is_within(&self.scopes))
    }
}

/// A device that waits for somebody's approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// What the approver names.
    pub(crate) id: String,
    /// What it asks for; key, role and scopes never change under one id.
    pub(crate) asked: Asked,
    /// Whether the device is paired already and asks for more.
    pub(crate) is_repair: bool,
    /// When it asked, milliseconds since 1970.
    pub(crate) at: u64,
    /// Until when somebody may decide.
    pub(crate) expires_at: u64,
}

/// A request as it now lies there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Filed {
    /// A new one; those it replaces are gone.
    New(Request, Vec<Request>),
    /// The device had asked for that before, or for more.
    Known(Request),
    /// Too many wait.
    Full,
}

/// A paired device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// SHA-256 of its key, hexadecimal.
    pub(crate) id: String,
    /// Its key, base64url.
    pub(crate) public_key: String,
    /// What it said of itself.
    pub(crate) about: About,
    /// What its owner calls it.
    pub(crate) label: Option<String>,
    /// `owner`, `silent`, `bootstrap`.
    pub(crate) approved_via: String,
    /// When it was first paired, milliseconds since 1970.
    pub(crate) created_at: u64,
    /// When it was last approved.
    pub(crate) approved_at: u64,
    /// When it was last here, to the minute.
    pub(crate) seen_at: Option<u64>,
    /// What it may be, a role each.
    pub(crate) grants: Vec<Grant>,
}

impl Device {
    /// What it may do as `role`.
    pub(crate) fn grant(&self, role: Role) -> Option<&Grant> {
        self.grants.iter().find(|grant| grant.role == role)
    }
}

/// What a paired device may do in one role, and its token for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// The role.
    pub(crate) role: Role,
    /// What somebody approved; no token ever holds more.
    pub(crate) approved: Vec<Scope>,
    /// What the token holds.
    pub(crate) scopes: Vec<Scope>,
    /// From which the token was made; another one with every rotation.
    pub(crate) serial: String,
    /// SHA-256 of the token.
    pub(crate) token_digest: Vec<u8>,
    /// When the first token was issued, milliseconds since 1970.
    pub(crate) issued_at: u64,
    /// When it was last replaced.
    pub(crate) rotated_at: Option<u64>,
    /// When it was taken back; the role is then not granted.
    pub(crate) revoked_at: Option<u64>,
    /// When it was last used, to the minute.
    pub(crate) used_at: Option<u64>,
    /// Tokens that gave way to this one, or to each other, and are good until a later one is used;
    /// the oldest first. Each gave way to one that holds more, so there are never many.
    pub(crate) former: Vec<FormerToken>,
}

/// A token that gave way to one that holds more, whose device may not know that yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FormerToken {
    /// What it holds: no more than before.
    pub(crate) scopes: Vec<Scope>,
    /// SHA-256 of it.
    pub(crate) digest: Vec<u8>,
}

impl Grant {
    /// Whether it gives what the other one gives, by the same token.
    pub(super) fn gives(&self, other: &Self) -> bool {
        (&self.approved, &self.scopes, &self.serial)
            == (&other.approved, &other.scopes, &other.serial)
    }
}

/// A new token, without the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Minted {
    /// From which it was made.
    pub(crate) serial: String,
    /// SHA-256 of it.
    pub(crate) digest: Vec<u8>,
}

/// Everybody who asks or is paired.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pairing {
    /// Requests, the youngest first.
    pub(crate) pending: Vec<Request>,
    /// Devices, by when they were approved, the youngest first.
    pub(crate) paired: Vec<Device>,
}

/// By what a setup code may be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinOffer {
    /// SHA-256 of the name in its URL.
    pub(crate) name_digest: Vec<u8>,
    /// The gateway's address that goes with the code.
    pub(crate) url: String,
}

/// A setup code that was issued; its token is not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SetupCode {
    /// What its issuer asks about it with.
    pub(crate) id: String,
    /// `node`, `limited`, `full`: what it makes of the device that redeems it.
    pub(crate) access: String,
    /// Milliseconds since 1970.
    pub(crate) expires_at: u64,
    /// The device that redeemed it.
    pub(crate) device_id: Option<String>,
    /// When it was redeemed.
    pub(crate) redeemed_at: Option<u64>,
    /// When that device proved to have read the answer.
    pub(crate) delivered_at: Option<u64>,
}
