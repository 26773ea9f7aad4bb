//! Who may come in: one decision over `connect`, the guard, the challenge and the peer. Pure.

use std::net::IpAddr;

use serde_json::json;

use super::settings::Guard;
use crate::{
    protocol::{
        Connect, ErrorShape, OLDEST_VERSION, Role, Scope, VERSION, close, code, detail,
        device::{self, Flaw},
    },
    secret::Secret,
};

/// Client ids of the protocol (`ConnectParams.client.id`).
const CLIENT_IDS: [&str; 17] = [
    "webchat-ui",
    "openclaw-control-ui",
    "openclaw-browser-copilot",
    "openclaw-tui",
    "webchat",
    "cli",
    "gateway-client",
    "openclaw-macos",
    "openclaw-linux",
    "openclaw-ios",
    "openclaw-watchos",
    "openclaw-android",
    "node-host",
    "openclaw-worker",
    "test",
    "fingerprint",
    "openclaw-probe",
];

/// Client modes of the protocol (`ConnectParams.client.mode`).
const CLIENT_MODES: [&str; 8] =
    ["webchat", "cli", "ui", "backend", "node", "worker", "probe", "test"];

/// Where a connection comes from, as far as a decision may depend on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PeerInfo {
    /// The other end's address.
    pub(super) address: IpAddr,
    /// Our end's address.
    pub(super) local: Option<IpAddr>,
    /// Whether something in between speaks for somebody else (a proxy's headers).
    pub(super) is_forwarded: bool,
}

impl PeerInfo {
    /// A peer on this machine's loopback.
    #[cfg(test)]
    pub(super) fn loopback() -> Self {
        let address = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        Self { address, local: Some(address), is_forwarded: false }
    }

    /// Whether the peer is on this machine and speaks for itself.
    pub(super) fn is_direct_loopback(&self) -> bool {
        self.address.to_canonical().is_loopback() && !self.is_forwarded
    }
}

/// What a client is let in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admission {
    pub(super) role: Role,
    pub(super) scopes: Vec<Scope>,
    /// The verified device, if one was offered.
    pub(super) device_id: Option<String>,
}

/// Why a client is not let in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) error: Box<ErrorShape>,
    /// The WebSocket close code.
    pub(super) close: u16,
    /// Whether it was a wrong secret, which counts against the peer.
    pub(super) is_wrong_secret: bool,
}

impl Refusal {
    /// A refusal that counts against nobody.
    pub(super) fn new(error: ErrorShape) -> Self {
        Self { error: Box::new(error), close: close::POLICY, is_wrong_secret: false }
    }
}

/// Decides about one `connect` that answers a challenge of `nonce`.
pub(super) fn admit(
    connect: &Connect,
    guard: &Guard,
    peer: &PeerInfo,
    nonce: &str,
    now_ms: u64,
) -> Result<Admission, Refusal> {
    check_form(connect)?;
    let Some(role) = connect.role.as_deref().map_or(Some(Role::Operator), Role::parse) else {
        return Err(Refusal::new(ErrorShape::invalid("invalid role")));
    };
    let is_node = role == Role::Node;
    let is_probe = connect.client.mode == "probe";
    check_version(connect, (is_node && connect.client.mode == "node") || is_probe)?;
    if let Some(device) = &connect.device {
        device::verify(device, connect, nonce, now_ms).map_err(untrusted)?;
    }
    check_secret(connect, guard)?;
    let device_id = connect.device.as_ref().map(|device| device.id.clone());
    if is_node {
        return Err(unpaired(
            device_id.as_deref(),
            "nodes need pairing, which this gateway cannot do yet",
        ));
    }
    if !peer.is_direct_loopback() {
        return Err(unpaired(
            device_id.as_deref(),
            "a connection from another machine needs pairing, which this gateway cannot do yet; come in through: openclaw remote connect user@host",
        ));
    }
    let scopes = if is_probe { Vec::new() } else { scopes(connect) };
    Ok(Admission { role, scopes, device_id })
}

/// What the schema asks of `connect` beyond its types.
fn check_form(connect: &Connect) -> Result<(), Refusal> {
    let client = &connect.client;
    let flaw = if !CLIENT_IDS.contains(&client.id.as_str()) {
        "client.id is not one of the protocol's"
    } else if !CLIENT_MODES.contains(&client.mode.as_str()) {
        "client.mode is not one of the protocol's"
    } else if client.version.is_empty() || client.platform.is_empty() {
        "client.version and client.platform must not be empty"
    } else if connect.min_protocol == 0 || connect.max_protocol == 0 {
        "protocol versions start at 1"
    } else {
        return Ok(());
    };
    Err(Refusal::new(ErrorShape::invalid(format!("invalid connect params: {flaw}"))))
}

fn check_version(connect: &Connect, may_be_older: bool) -> Result<(), Refusal> {
    let oldest = if may_be_older { OLDEST_VERSION } else { VERSION };
    if connect.min_protocol <= VERSION && connect.max_protocol >= oldest {
        return Ok(());
    }
    let (min, max) = (connect.min_protocol, connect.max_protocol);
    let side = if max < VERSION { "client" } else { "gateway" };
    let error = ErrorShape::invalid(format!(
        "protocol mismatch: the client speaks {min} to {max}, the gateway {VERSION}; update the {side}"
    ))
    .details(json!({
        "code": detail::PROTOCOL_MISMATCH,
        "clientMinProtocol": min, "clientMaxProtocol": max,
        "expectedProtocol": VERSION, "minimumProbeProtocol": OLDEST_VERSION,
    }));
    Err(Refusal { close: close::PROTOCOL, ..Refusal::new(error) })
}

fn untrusted(flaw: Flaw) -> Refusal {
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

/// Compares the secret that came with the gateway's; the mode picks the field to read first.
fn check_secret(connect: &Connect, guard: &Guard) -> Result<(), Refusal> {
    let auth = connect.auth.as_ref();
    let token = auth.and_then(|auth| auth.token.as_ref());
    let password = auth.and_then(|auth| auth.password.as_ref());
    let (word, expected, offered) = match guard {
        Guard::Open => return Ok(()),
        Guard::Token(expected) => ("token", Some(expected), token.or(password)),
        Guard::Password(expected) => ("password", Some(expected), password.or(token)),
        // Resolved to a token before the first client; without one nobody comes in.
        Guard::OwnToken => ("token", None, token.or(password)),
    };
    let is_same = |expected: &Secret, offered: &Secret| expected.matches(offered.expose());
    match (expected, offered) {
        (Some(expected), Some(offered)) if is_same(expected, offered) => Ok(()),
        (_, Some(_)) => Err(unauthorized(word, "mismatch", "update_auth_credentials")),
        (_, None) => Err(unauthorized(word, "missing", "update_auth_configuration")),
    }
}

fn unauthorized(word: &str, flaw: &str, next: &str) -> Refusal {
    let code = match (word, flaw) {
        ("token", "mismatch") => detail::TOKEN_MISMATCH,
        ("token", _) => detail::TOKEN_MISSING,
        (_, "mismatch") => detail::PASSWORD_MISMATCH,
        (_, _) => detail::PASSWORD_MISSING,
    };
    let error =
        ErrorShape::invalid(format!("unauthorized: gateway {word} {flaw}")).details(json!({
            "code": code, "authReason": format!("{word}_{flaw}"),
            "canRetryWithDeviceToken": false, "recommendedNextStep": next,
        }));
    Refusal { is_wrong_secret: flaw == "mismatch", ..Refusal::new(error) }
}

fn unpaired(device_id: Option<&str>, why: &str) -> Refusal {
    let error = ErrorShape::new(code::NOT_PAIRED, format!("pairing required: {why}"));
    Refusal::new(error.details(match device_id {
        Some(id) => json!({
            "code": detail::PAIRING_REQUIRED, "reason": "not-paired", "deviceId": id,
            "recommendedNextStep": "review_auth_configuration",
        }),
        None => json!({
            "code": detail::DEVICE_REQUIRED, "recommendedNextStep": "review_auth_configuration",
        }),
    }))
}

/// The shared secret stands for every scope; a client gets those of them that it asks for.
fn scopes(connect: &Connect) -> Vec<Scope> {
    let mut scopes: Vec<Scope> = Vec::new();
    for scope in connect.scopes.iter().flatten().filter_map(|name| Scope::parse(name)) {
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    scopes
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn connect(changes: &Value) -> Connect {
        let mut value = json!({
            "minProtocol": 4, "maxProtocol": 4, "role": "operator",
            "client": {"id": "cli", "version": "1", "platform": "linux", "mode": "cli"},
            "scopes": ["operator.read", "operator.read", "operator.zap"],
            "auth": {"token": "secret"},
        });
        for (key, change) in changes.as_object().unwrap() {
            value[key] = change.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn decide(changes: &Value, guard: &Guard, peer: &PeerInfo) -> Result<Admission, Refusal> {
        admit(&connect(changes), guard, peer, "nonce", 1)
    }

    fn token() -> Guard {
        Guard::Token(Secret::new("secret"))
    }

    fn code_of(outcome: Result<Admission, Refusal>) -> String {
        let details = outcome.unwrap_err().error.details.unwrap();
        details["code"].as_str().unwrap().to_owned()
    }

    #[test]
    fn lets_an_operator_in_with_the_known_scopes_that_it_asks_for() {
        let admission = decide(&json!({}), &token(), &PeerInfo::loopback()).unwrap();
        let role = Role::Operator;
        assert_eq!(admission, Admission { role, scopes: vec![Scope::Read], device_id: None });
        let none = decide(&json!({"scopes": null}), &token(), &PeerInfo::loopback()).unwrap();
        assert_eq!(none.scopes, []);
    }

    #[test]
    fn takes_the_secret_from_either_field_and_the_modes_own_first() {
        let peer = PeerInfo::loopback();
        let password = Guard::Password(Secret::new("secret"));
        for (auth, guard, is_in) in [
            (json!({"password": "secret"}), &token(), true),
            (json!({"password": "secret", "token": "no"}), &token(), false),
            (json!({"token": "secret"}), &password, true),
            (json!({"password": "no", "token": "secret"}), &password, false),
            (json!({"deviceToken": "secret"}), &token(), false),
            (json!({"token": ""}), &Guard::OwnToken, false),
            (json!({}), &Guard::Open, true),
        ] {
            assert_eq!(decide(&json!({"auth": auth}), guard, &peer).is_ok(), is_in, "{auth}");
        }
    }

    #[test]
    fn says_what_is_wrong_with_a_secret() {
        let peer = PeerInfo::loopback();
        let wrong = decide(&json!({"auth": {"token": "no"}}), &token(), &peer).unwrap_err();
        assert!(wrong.is_wrong_secret);
        assert_eq!(
            serde_json::to_value(&wrong.error).unwrap(),
            json!({"code": "INVALID_REQUEST", "message": "unauthorized: gateway token mismatch",
                "details": {"code": "AUTH_TOKEN_MISMATCH", "authReason": "token_mismatch",
                    "canRetryWithDeviceToken": false,
                    "recommendedNextStep": "update_auth_credentials"}})
        );
        let missing = decide(&json!({"auth": null}), &token(), &peer);
        assert!(!missing.clone().unwrap_err().is_wrong_secret);
        assert_eq!(code_of(missing), "AUTH_TOKEN_MISSING");
        let guard = Guard::Password(Secret::new("p"));
        assert_eq!(code_of(decide(&json!({}), &guard, &peer)), "AUTH_PASSWORD_MISMATCH");
        assert_eq!(code_of(decide(&json!({"auth": {}}), &guard, &peer)), "AUTH_PASSWORD_MISSING");
    }

    #[test]
    fn operators_must_include_our_version_and_a_probe_may_offer_the_one_before() {
        let peer = PeerInfo::loopback();
        let probe =
            json!({"id": "openclaw-probe", "version": "1", "platform": "l", "mode": "probe"});
        for (min, max, mode, is_in) in [
            (4, 4, "cli", true),
            (3, 5, "cli", true),
            (3, 3, "cli", false),
            (5, 6, "cli", false),
            (3, 3, "probe", true),
            (2, 2, "probe", false),
        ] {
            let mut changes = json!({"minProtocol": min, "maxProtocol": max});
            if mode == "probe" {
                changes["client"] = probe.clone();
            }
            assert_eq!(decide(&changes, &token(), &peer).is_ok(), is_in, "{min} {max} {mode}");
        }
        let older = decide(&json!({"minProtocol": 3, "maxProtocol": 3}), &token(), &peer);
        let refusal = older.unwrap_err();
        assert!(refusal.error.message.ends_with("update the client"));
        assert_eq!(refusal.close, 1002);
        let newer = decide(&json!({"minProtocol": 5, "maxProtocol": 6}), &token(), &peer);
        assert!(newer.unwrap_err().error.message.ends_with("update the gateway"));
    }

    #[test]
    fn a_probe_gets_no_scopes() {
        let client =
            json!({"id": "openclaw-probe", "version": "1", "platform": "l", "mode": "probe"});
        let admission = decide(&json!({"client": client}), &token(), &PeerInfo::loopback());
        assert_eq!(admission.unwrap().scopes, []);
    }

    #[test]
    fn nodes_and_other_machines_need_pairing_whatever_they_know() {
        let peer = PeerInfo::loopback();
        assert_eq!(
            code_of(decide(&json!({"role": "node"}), &token(), &peer)),
            "DEVICE_IDENTITY_REQUIRED"
        );
        let elsewhere = PeerInfo { address: "192.0.2.7".parse().unwrap(), ..peer };
        let forwarded = PeerInfo { is_forwarded: true, ..PeerInfo::loopback() };
        for peer in [elsewhere, forwarded] {
            let refusal = decide(&json!({}), &token(), &peer).unwrap_err();
            assert_eq!(refusal.error.code, "NOT_PAIRED");
        }
    }

    #[test]
    fn a_wrong_secret_is_told_before_anything_about_pairing() {
        let changes = json!({"role": "node", "auth": {"token": "no"}});
        assert_eq!(
            code_of(decide(&changes, &token(), &PeerInfo::loopback())),
            "AUTH_TOKEN_MISMATCH"
        );
    }

    #[test]
    fn strangers_to_the_schema_are_refused() {
        let client = |id: &str, mode: &str| json!({"client": {"id": id, "version": "1", "platform": "l", "mode": mode}});
        for changes in [client("mine", "cli"), client("cli", "mine"), json!({"role": "king"})] {
            let refusal = decide(&changes, &token(), &PeerInfo::loopback()).unwrap_err();
            assert_eq!(refusal.error.code, "INVALID_REQUEST");
        }
    }
}
