//! What a client that is not let in is told, and what counts against it.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::Reason;
use crate::{
    gateway::{
        ingress::NoUser,
        throttle::{Culprit, Wrong},
    },
    protocol::{ErrorShape, Role, Scope, close, code, detail, device::Flaw},
    store::{Device, Request},
};

/// Why a client is not let in.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::gateway) struct Refusal {
    pub(in crate::gateway) error: Box<ErrorShape>,
    /// The WebSocket close code.
    pub(in crate::gateway) close: u16,
    /// The secrets that were compared and were wrong, which count against the peer.
    pub(in crate::gateway) wrong: Vec<Wrong>,
    /// Against whom, once that is known.
    pub(in crate::gateway) culprit: Option<Culprit>,
}

impl Refusal {
    /// A refusal that counts against nobody.
    pub(in crate::gateway) fn new(error: impl Into<Box<ErrorShape>>) -> Self {
        let error = error.into();
        Self { error, close: close::POLICY, wrong: Vec::new(), culprit: None }
    }

    /// The same of a client that was refused `before` and tried something else.
    pub(in crate::gateway) fn after(self, before: Self) -> Self {
        Self { wrong: [before.wrong, self.wrong].concat(), ..self }
    }

    /// The same, for a client that is to try again by itself until somebody has decided.
    pub(in crate::gateway) fn tried_again(mut self) -> Self {
        if let Some(fields) = self.error.details.as_mut().and_then(Value::as_object_mut) {
            fields.insert("recommendedNextStep".to_owned(), json!("wait_then_retry"));
            fields.insert("retryable".to_owned(), json!(true));
            fields.insert("pauseReconnect".to_owned(), json!(false));
        }
        self
    }
}

pub(super) fn untrusted(flaw: Flaw) -> Refusal {
    let (message, code, reason) = match flaw {
        Flaw::IdMismatch => {
            ("device identity mismatch", "DEVICE_AUTH_DEVICE_ID_MISMATCH", "device-id-mismatch")
        }
        Flaw::Expired => {
            ("device signature expired", "DEVICE_AUTH_SIGNATURE_EXPIRED", "device-signature-stale")
        }
        Flaw::NonceMismatch => {
            ("device nonce mismatch", "DEVICE_AUTH_NONCE_MISMATCH", "device-nonce-mismatch")
        }
        Flaw::BadSignature => {
            ("device signature invalid", "DEVICE_AUTH_SIGNATURE_INVALID", "device-signature")
        }
    };
    Refusal::new(ErrorShape::invalid(message).details(json!({"code": code, "reason": reason})))
}

/// The proxy's word does not count, or is missing.
pub(super) fn unproxied(why: &NoUser) -> Refusal {
    let code = if matches!(why, NoUser::MissingHeader(_)) {
        detail::IDENTITY_HEADER_REQUIRED
    } else {
        detail::UNAUTHORIZED
    };
    let reason = why.reason();
    let error = ErrorShape::invalid(format!("unauthorized: {reason}")).details(json!({
        "code": code, "authReason": reason, "canRetryWithDeviceToken": false,
        "recommendedNextStep": "review_auth_configuration",
    }));
    Refusal::new(error)
}

/// Tailscale does not know the user who was named.
pub(in crate::gateway) fn unverified(code: &str, reason: &str) -> Refusal {
    let error = ErrorShape::invalid(format!("unauthorized: {reason}")).details(json!({
        "code": code, "authReason": reason, "canRetryWithDeviceToken": false,
        "recommendedNextStep": "review_auth_configuration",
    }));
    Refusal::new(error)
}

/// Too many wrong attempts; another one is heard after `left`.
pub(in crate::gateway) fn rate_limited(left: Duration) -> Refusal {
    let retry = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    let error = ErrorShape {
        retryable: Some(true),
        retry_after_ms: Some(retry),
        ..ErrorShape::new(
            code::INVALID_REQUEST,
            "unauthorized: too many failed authentication attempts",
        )
    };
    Refusal::new(error.details(json!({
        "code": detail::RATE_LIMITED, "authReason": "rate_limited",
        "canRetryWithDeviceToken": false, "recommendedNextStep": "wait_then_retry",
    })))
}

pub(super) fn unauthorized(word: &str, wrong: Option<Wrong>, next: &str) -> Refusal {
    let flaw = if wrong.is_some() { "mismatch" } else { "missing" };
    let code = match (word, flaw) {
        ("token", "mismatch") => detail::TOKEN_MISMATCH,
        ("token", _) => detail::TOKEN_MISSING,
        (_, "mismatch") => detail::PASSWORD_MISMATCH,
        (_, _) => detail::PASSWORD_MISSING,
    };
    let error =
        ErrorShape::invalid(format!("unauthorized: gateway {word} {flaw}")).details(json!({
            "code": code, "authReason": format!("{word}_{flaw}"),
            "canRetryWithDeviceToken": next == "retry_with_device_token",
            "recommendedNextStep": next,
        }));
    Refusal { wrong: Vec::from_iter(wrong), ..Refusal::new(error) }
}

/// Somebody must approve; says who asks, under which id, and for all that its approval would grant.
pub(in crate::gateway) fn pairing_required(
    request: &Request,
    reason: Reason,
    paired: Option<&Device>,
) -> Refusal {
    let (word, requirement, hint) = match reason {
        Reason::NotPaired => (
            "not-paired",
            "device is not approved yet",
            "have this device approved on the gateway's machine",
        ),
        Reason::RoleUpgrade => (
            "role-upgrade",
            "device is asking for a higher role than currently approved",
            "have the new role of this device approved on the gateway's machine",
        ),
        Reason::ScopeUpgrade => (
            "scope-upgrade",
            "device is asking for more scopes than currently approved",
            "have the new scopes of this device approved on the gateway's machine",
        ),
    };
    let asked = &request.asked;
    let mut details = json!({
        "code": detail::PAIRING_REQUIRED, "reason": word, "requestId": request.id,
        "remediationHint": format!("{hint}: openclaw devices approve {}", request.id),
        "deviceId": asked.device_id, "requestedRole": asked.role, "requestedScopes": asked.scopes,
    });
    let grants = paired.map(|device| device.grants.as_slice()).unwrap_or_default();
    if let (Some(fields), false) = (details.as_object_mut(), grants.is_empty()) {
        let roles: Vec<Role> = grants.iter().map(|grant| grant.role).collect();
        let scopes: BTreeSet<Scope> =
            grants.iter().flat_map(|grant| grant.approved.iter().copied()).collect();
        fields.insert("approvedRoles".to_owned(), json!(roles));
        if !scopes.is_empty() {
            fields.insert("approvedScopes".to_owned(), json!(scopes));
        }
    }
    // OpenClaw's programs read the reason and the id out of these very words.
    let error = ErrorShape::new(code::NOT_PAIRED, format!("pairing required: {requirement}"));
    Refusal::new(error.details(details))
}

/// A web page of another, or one that does not say whose it is.
pub(super) fn foreign(reason: &str) -> Refusal {
    let error = ErrorShape::invalid(
        "origin not allowed (list it in gateway.controlUi.allowedOrigins if it should be)",
    );
    let details = json!({ "code": detail::ORIGIN_NOT_ALLOWED, "reason": reason });
    Refusal::new(error.details(details))
}

/// OpenClaw's own page has a key wherever its reader is safe.
pub(super) fn keyless_page() -> Refusal {
    let error = ErrorShape::invalid(
        "device identity required: open the page by HTTPS or on the gateway's own machine",
    );
    Refusal::new(error.details(json!({ "code": detail::PAGE_DEVICE_REQUIRED })))
}

/// A device must sign first.
pub(in crate::gateway) fn deviceless(role: Role) -> Refusal {
    let message = match role {
        Role::Node => "device identity required: nodes are paired, and so need a key of their own",
        Role::Operator => {
            "device identity required: show the gateway's secret on its own machine, or a device; come in through: openclaw remote connect user@host"
        }
    };
    Refusal::new(ErrorShape::new(code::NOT_PAIRED, message).details(json!({
        "code": detail::DEVICE_REQUIRED, "recommendedNextStep": "review_auth_configuration",
    })))
}

/// The token is not the one of this device in this role.
pub(in crate::gateway) fn wrong_device_token() -> Refusal {
    let error = ErrorShape::invalid("unauthorized: device token mismatch");
    let error = error.details(json!({
        "code": detail::DEVICE_TOKEN_MISMATCH, "authReason": "device_token_mismatch",
        "canRetryWithDeviceToken": false, "recommendedNextStep": "update_auth_credentials",
    }));
    Refusal { wrong: vec![Wrong::DeviceToken], ..Refusal::new(error) }
}

/// The token is right and holds less than what is asked for.
pub(super) fn wrong_scopes() -> Refusal {
    let error = ErrorShape::invalid("unauthorized: the device token does not hold these scopes");
    Refusal::new(error.details(json!({
        "code": detail::SCOPE_MISMATCH, "authReason": "scope_mismatch",
        "canRetryWithDeviceToken": false, "recommendedNextStep": "review_auth_configuration",
    })))
}

/// No setup code has this token, or it is used up or too old, or is for something else.
pub(in crate::gateway) fn wrong_setup_code() -> Refusal {
    let error = ErrorShape::invalid(
        "unauthorized: the setup code is unknown, used or expired; on the gateway's machine: openclaw devices join-code",
    );
    let error = error.details(json!({
        "code": detail::SETUP_CODE_INVALID, "authReason": "bootstrap_token_invalid",
        "canRetryWithDeviceToken": false, "recommendedNextStep": "review_auth_configuration",
    }));
    Refusal { wrong: vec![Wrong::Code], ..Refusal::new(error) }
}
