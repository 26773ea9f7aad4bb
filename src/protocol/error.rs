//! Error codes of the wire, close codes, and the error frames that every gateway sends alike.

use serde_json::json;

use super::{ErrorShape, Scope};

/// Top-level codes of an error frame.
pub(crate) mod code {
    /// The request is wrong; the same again will be as well.
    pub(crate) const INVALID_REQUEST: &str = "INVALID_REQUEST";
    /// Not now.
    pub(crate) const UNAVAILABLE: &str = "UNAVAILABLE";
    /// A scope is missing.
    pub(crate) const FORBIDDEN: &str = "FORBIDDEN";
    /// The device must be approved first.
    pub(crate) const NOT_PAIRED: &str = "NOT_PAIRED";
}

/// Codes in `details.code`.
pub(crate) mod detail {
    /// The token is not the gateway's.
    pub(crate) const TOKEN_MISMATCH: &str = "AUTH_TOKEN_MISMATCH";
    /// No token came.
    pub(crate) const TOKEN_MISSING: &str = "AUTH_TOKEN_MISSING";
    /// The password is not the gateway's.
    pub(crate) const PASSWORD_MISMATCH: &str = "AUTH_PASSWORD_MISMATCH";
    /// No password came.
    pub(crate) const PASSWORD_MISSING: &str = "AUTH_PASSWORD_MISSING";
    /// The token is not this device's.
    pub(crate) const DEVICE_TOKEN_MISMATCH: &str = "AUTH_DEVICE_TOKEN_MISMATCH";
    /// The token holds less than what is asked for.
    pub(crate) const SCOPE_MISMATCH: &str = "AUTH_SCOPE_MISMATCH";
    /// The setup code is unknown, used or expired.
    pub(crate) const SETUP_CODE_INVALID: &str = "AUTH_BOOTSTRAP_TOKEN_INVALID";
    /// Whoever is in between does not vouch for the client.
    pub(crate) const UNAUTHORIZED: &str = "AUTH_UNAUTHORIZED";
    /// A header that says who it is must come with it.
    pub(crate) const IDENTITY_HEADER_REQUIRED: &str = "AUTH_IDENTITY_HEADER_REQUIRED";
    /// Tailscale knows nobody at the address.
    pub(crate) const TAILSCALE_WHOIS_FAILED: &str = "AUTH_TAILSCALE_WHOIS_FAILED";
    /// Tailscale knows somebody else at the address.
    pub(crate) const TAILSCALE_IDENTITY_MISMATCH: &str = "AUTH_TAILSCALE_IDENTITY_MISMATCH";
    /// Too many wrong attempts.
    pub(crate) const RATE_LIMITED: &str = "AUTH_RATE_LIMITED";
    /// No version in common.
    pub(crate) const PROTOCOL_MISMATCH: &str = "PROTOCOL_MISMATCH";
    /// A device must be offered.
    pub(crate) const DEVICE_REQUIRED: &str = "DEVICE_IDENTITY_REQUIRED";
    /// The device must be approved first.
    pub(crate) const PAIRING_REQUIRED: &str = "PAIRING_REQUIRED";
    /// The web page that asks is another's, or does not say whose it is.
    pub(crate) const ORIGIN_NOT_ALLOWED: &str = "CONTROL_UI_ORIGIN_NOT_ALLOWED";
    /// OpenClaw's own page came without a key.
    pub(crate) const PAGE_DEVICE_REQUIRED: &str = "CONTROL_UI_DEVICE_IDENTITY_REQUIRED";
    /// A scope is missing.
    pub(crate) const MISSING_SCOPE: &str = "MISSING_SCOPE";
}

/// WebSocket close codes (RFC 6455 section 7.4.1, and the registry's 1012).
pub(crate) mod close {
    /// Done.
    pub(crate) const NORMAL: u16 = 1000;
    /// No version in common.
    pub(crate) const PROTOCOL: u16 = 1002;
    /// Text that is not UTF-8.
    pub(crate) const NOT_TEXT: u16 = 1007;
    /// Refused, or too slow.
    pub(crate) const POLICY: u16 = 1008;
    /// A frame was too large.
    pub(crate) const TOO_LARGE: u16 = 1009;
    /// Comes back soon.
    pub(crate) const RESTART: u16 = 1012;
}

impl ErrorShape {
    /// An error of `code` with a message for people.
    pub(crate) fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            details: None,
            retryable: None,
            retry_after_ms: None,
        }
    }

    /// The request is wrong.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(code::INVALID_REQUEST, message)
    }

    /// The same request may succeed after `retry_after_ms`.
    pub(crate) fn unavailable(message: impl Into<String>, retry_after_ms: u64) -> Self {
        Self {
            retryable: Some(true),
            retry_after_ms: Some(retry_after_ms),
            ..Self::new(code::UNAVAILABLE, message)
        }
    }

    /// The caller lacks `scope`.
    pub(crate) fn missing_scope(scope: Scope) -> Self {
        Self::new(code::FORBIDDEN, format!("missing scope: {scope}")).details(json!({
            "code": detail::MISSING_SCOPE, "missingScope": scope, "requiredScopes": [scope],
        }))
    }

    /// The request is meant for a user's profile, and here nobody has one.
    pub(crate) fn other_profile() -> Self {
        Self::invalid(
            "the account that was selected is not here: this gateway has no user profiles; send the request without expectedProfileId",
        )
        .details(json!({ "reason": "EXPECTED_PROFILE_MISMATCH", "execution": "not_started" }))
    }

    /// The same error with details for programs.
    #[must_use]
    pub(crate) fn details(self, details: serde_json::Value) -> Self {
        Self { details: Some(details), ..self }
    }
}
