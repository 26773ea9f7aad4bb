//! Who may come in: decisions over `connect`, the guard, the challenge, the peer and the record of
//! the device. Pure.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use serde_json::json;

use super::{
    ingress::{Door, NoUser, Word},
    settings::Guard,
    throttle::{Culprit, Wrong},
};
use crate::{
    protocol::{
        Connect, ErrorShape, OLDEST_VERSION, Role, Scope, VERSION, close, code, detail,
        device::{self, Flaw},
    },
    secret::Secret,
    store::{Device, Request},
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
    /// The web page that asks, by its origin.
    pub(super) origin: Option<String>,
    /// The listener that it came in at.
    pub(super) door: Door,
    /// What whoever is in between says of who asks.
    pub(super) word: Word,
    /// The most that a trusted proxy lets its user have.
    pub(super) cap: Option<Vec<Scope>>,
}

impl PeerInfo {
    /// Whoever is at `address`, before a word was said.
    pub(super) fn at(address: IpAddr, local: Option<IpAddr>, door: Door) -> Self {
        let is_forwarded = door != Door::Ordinary;
        Self { address, local, is_forwarded, origin: None, door, word: Word::None, cap: None }
    }

    /// A peer on this machine's loopback.
    #[cfg(test)]
    pub(super) fn loopback() -> Self {
        let address = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
        Self::at(address, Some(address), Door::Ordinary)
    }

    /// Whether the peer is on this machine and speaks for itself.
    pub(super) fn is_direct_loopback(&self) -> bool {
        self.address.to_canonical().is_loopback() && !self.is_forwarded
    }
}

/// What a `connect` claims that its own text and signature bear out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) role: Role,
    pub(super) is_probe: bool,
    /// The scopes asked for that there are, each once.
    scopes: Vec<Scope>,
    /// The device whose key signed this very connection.
    pub(super) device: Option<SignedDevice>,
}

/// A device that holds its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignedDevice {
    pub(super) id: String,
    /// Base64url.
    pub(super) public_key: String,
}

/// What a client proved beside the key of its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// That it knows the gateway's secret.
    Secret,
    /// That it holds the device's own token.
    Token,
    /// That somebody whose word counts knows its user: a trusted proxy, or Tailscale.
    User,
    /// That it was given a setup code, good for this role and these scopes.
    Code,
}

/// What to do with a client that proved something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Let it in with these scopes.
    Enter(Vec<Scope>),
    /// Pair its device as it asks, and let it in.
    Pair,
    /// Have somebody approve it first.
    Ask(Reason),
}

/// Why somebody must approve (`details.reason`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reason {
    /// The device is unknown.
    NotPaired,
    /// It is known in another role.
    RoleUpgrade,
    /// It wants to do more than before.
    ScopeUpgrade,
}

impl Claim {
    /// The same with no more than `cap`, if there is one.
    pub(super) fn capped(mut self, cap: Option<&[Scope]>) -> Self {
        if let Some(cap) = cap {
            self.scopes.retain(|scope| scope.is_within(cap));
        }
        self
    }

    /// What it asks for; a probe never gets anything.
    pub(super) fn wanted(&self) -> &[Scope] {
        if self.is_probe || self.role == Role::Node { &[] } else { &self.scopes }
    }
}

/// Why a client is not let in.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refusal {
    pub(super) error: Box<ErrorShape>,
    /// The WebSocket close code.
    pub(super) close: u16,
    /// The secrets that were compared and were wrong, which count against the peer.
    pub(super) wrong: Vec<Wrong>,
    /// Against whom, once that is known.
    pub(super) culprit: Option<Culprit>,
}

impl Refusal {
    /// A refusal that counts against nobody.
    pub(super) fn new(error: impl Into<Box<ErrorShape>>) -> Self {
        let error = error.into();
        Self { error, close: close::POLICY, wrong: Vec::new(), culprit: None }
    }

    /// The same of a client that was refused `before` and tried something else.
    pub(super) fn after(self, before: Self) -> Self {
        Self { wrong: [before.wrong, self.wrong].concat(), ..self }
    }
}

/// Reads a `connect` that answers a challenge of `nonce`; believes its device only if that signed.
pub(super) fn examine(connect: &Connect, nonce: &str, now_ms: u64) -> Result<Claim, Refusal> {
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
    let device = connect.device.as_ref().map(|device| SignedDevice {
        id: device.id.clone(),
        public_key: device.public_key.clone(),
    });
    Ok(Claim { role, is_probe, scopes: scopes(connect), device })
}

/// Decides about a client that proved something, given what is known of its device.
///
/// `pair_local` is `gateway.nodes.pairing.autoApproveLocal`. Scopes come from the record; what goes
/// beyond it waits for somebody, unless the gateway's own secret comes from this very machine.
pub(super) fn judge(
    claim: &Claim,
    proof: Proof,
    paired: Option<&Device>,
    peer: &PeerInfo,
    pair_local: Option<bool>,
) -> Result<Verdict, Refusal> {
    let is_here = peer.is_direct_loopback() && proof == Proof::Secret;
    let wanted = claim.wanted();
    if claim.role == Role::Operator && is_here && (claim.device.is_none() || claim.is_probe) {
        return Ok(Verdict::Enter(wanted.to_vec()));
    }
    if claim.device.is_none() {
        return Err(deviceless(claim.role));
    }
    if proof == Proof::Code {
        // Redeemed even by a device that is paired: nobody else may use the code any more.
        return Ok(Verdict::Pair);
    }
    let is_within = |held: &[Scope]| wanted.iter().all(|scope| scope.is_within(held));
    let known = paired.and_then(|device| device.grant(claim.role));
    let grant = known.filter(|grant| grant.revoked_at.is_none());
    let reason = match (grant, proof) {
        (Some(grant), Proof::Token) if is_within(&grant.scopes) => {
            return Ok(Verdict::Enter(wanted.to_vec()));
        }
        // A narrowed token stays narrow, whatever its device was approved for.
        (Some(grant), Proof::Token) if is_within(&grant.approved) => return Err(wrong_scopes()),
        (Some(grant), Proof::Secret | Proof::User) if is_within(&grant.approved) => {
            return Ok(Verdict::Enter(wanted.to_vec()));
        }
        (Some(_), _) => Reason::ScopeUpgrade,
        (None, _) if paired.is_some() => Reason::RoleUpgrade,
        (None, _) => Reason::NotPaired,
    };
    if known.is_some() && grant.is_none() {
        // Somebody took this right back, so it is for somebody to give it again.
        return Ok(Verdict::Ask(reason));
    }
    let is_silent = match claim.role {
        Role::Operator => is_here && pair_local != Some(false),
        // Nodes are paired deliberately, unless the owner says otherwise in so many words.
        Role::Node => is_here && pair_local == Some(true),
    };
    Ok(if is_silent { Verdict::Pair } else { Verdict::Ask(reason) })
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

/// What the client proves by itself or by the word of whoever is in between.
pub(super) fn check(connect: &Connect, guard: &Guard, peer: &PeerInfo) -> Result<Proof, Refusal> {
    let Guard::Proxy(rules) = guard else {
        return check_secret(connect, guard).map(|()| Proof::Secret);
    };
    match (&peer.word, &rules.password) {
        (Word::User(_), _) => Ok(Proof::User),
        // Programs of this machine that come without the proxy; a token is never taken.
        (_, Some(password)) if peer.is_direct_loopback() => {
            check_secret(connect, &Guard::Password(password.clone())).map(|()| Proof::Secret)
        }
        (Word::NoUser(why), _) => Err(unproxied(why)),
        (Word::None | Word::Tailscale(_), _) => Err(unproxied(&NoUser::UntrustedSource)),
    }
}

/// Refuses who came by a proxy or by Tailscale without its word, whatever else they show.
pub(super) fn check_word(peer: &PeerInfo) -> Result<(), Refusal> {
    match &peer.word {
        Word::NoUser(why) if why.is_final(peer.is_forwarded) => Err(unproxied(why)),
        Word::NoUser(_) | Word::None | Word::User(_) | Word::Tailscale(_) => Ok(()),
    }
}

/// The proxy's word does not count, or is missing.
fn unproxied(why: &NoUser) -> Refusal {
    let code = if why.is_missing_header() {
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
pub(super) fn unverified(code: &str, reason: &str) -> Refusal {
    let error = ErrorShape::invalid(format!("unauthorized: {reason}")).details(json!({
        "code": code, "authReason": reason, "canRetryWithDeviceToken": false,
        "recommendedNextStep": "review_auth_configuration",
    }));
    Refusal::new(error)
}

/// Too many wrong attempts; another one is heard after `left`.
pub(super) fn rate_limited(left: Duration) -> Refusal {
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

/// Compares the secret that came with the gateway's; the mode picks the field to read first.
pub(super) fn check_secret(connect: &Connect, guard: &Guard) -> Result<(), Refusal> {
    let auth = connect.auth.as_ref();
    let token = auth.and_then(|auth| auth.token.as_ref()).map(|text| (text, Wrong::Token));
    let password = auth.and_then(|auth| auth.password.as_ref()).map(|text| (text, Wrong::Password));
    let (word, expected, offered) = match guard {
        Guard::Open => return Ok(()),
        Guard::Token(expected) => ("token", Some(expected), token.or(password)),
        Guard::Password(expected) => ("password", Some(expected), password.or(token)),
        // Opened by the proxy's word, which is looked at before.
        Guard::Proxy(_) => ("password", None, password.or(token)),
        // Resolved to a token before the first client; without one nobody comes in.
        Guard::OwnToken => ("token", None, token.or(password)),
    };
    let has_own = auth.is_some_and(|auth| auth.device_token.is_some());
    let is_same = |expected: &Secret, offered: &Secret| expected.matches(offered.expose());
    match (expected, offered) {
        (Some(expected), Some((offered, _))) if is_same(expected, offered) => Ok(()),
        // A device may have a token of its own, as long as it has not tried that as well.
        (_, Some((_, wrong))) if connect.device.is_some() && word == "token" && !has_own => {
            Err(unauthorized(word, Some(wrong), "retry_with_device_token"))
        }
        (_, Some((_, wrong))) => Err(unauthorized(word, Some(wrong), "update_auth_credentials")),
        (_, None) => Err(unauthorized(word, None, "update_auth_configuration")),
    }
}

fn unauthorized(word: &str, wrong: Option<Wrong>, next: &str) -> Refusal {
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

/// Somebody must approve; says who asks, for what, and under which id.
pub(super) fn pairing_required(
    request: &Request,
    wanted: &[Scope],
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
        "deviceId": asked.device_id, "requestedRole": asked.role, "requestedScopes": wanted,
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

/// A device must sign first.
pub(super) fn deviceless(role: Role) -> Refusal {
    let message = match role {
        Role::Node => "device identity required: nodes are paired, and so need a key of their own",
        Role::Operator => {
            "device identity required: a connection from another machine needs a paired device; come in through: openclaw remote connect user@host"
        }
    };
    Refusal::new(ErrorShape::new(code::NOT_PAIRED, message).details(json!({
        "code": detail::DEVICE_REQUIRED, "recommendedNextStep": "review_auth_configuration",
    })))
}

/// The token is not the one of this device in this role.
pub(super) fn wrong_device_token() -> Refusal {
    let error = ErrorShape::invalid("unauthorized: device token mismatch");
    let error = error.details(json!({
        "code": detail::DEVICE_TOKEN_MISMATCH, "authReason": "device_token_mismatch",
        "canRetryWithDeviceToken": false, "recommendedNextStep": "update_auth_credentials",
    }));
    Refusal { wrong: vec![Wrong::DeviceToken], ..Refusal::new(error) }
}

/// The token is right and holds less than what is asked for.
fn wrong_scopes() -> Refusal {
    let error = ErrorShape::invalid("unauthorized: the device token does not hold these scopes");
    Refusal::new(error.details(json!({
        "code": detail::SCOPE_MISMATCH, "authReason": "scope_mismatch",
        "canRetryWithDeviceToken": false, "recommendedNextStep": "review_auth_configuration",
    })))
}

/// No setup code has this token, or it is used up or too old, or is for something else.
pub(super) fn wrong_setup_code() -> Refusal {
    let error = ErrorShape::invalid(
        "unauthorized: the setup code is unknown, used or expired; on the gateway's machine: openclaw devices join-code",
    );
    let error = error.details(json!({
        "code": detail::SETUP_CODE_INVALID, "authReason": "bootstrap_token_invalid",
        "canRetryWithDeviceToken": false, "recommendedNextStep": "review_auth_configuration",
    }));
    Refusal { wrong: vec![Wrong::Code], ..Refusal::new(error) }
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

    /// Everything that is decided about a client whose device the store does not know.
    fn decide(changes: &Value, guard: &Guard, peer: &PeerInfo) -> Result<Verdict, Refusal> {
        let connect = connect(changes);
        let claim = examine(&connect, "nonce", 1)?;
        check_secret(&connect, guard)?;
        judge(&claim, Proof::Secret, None, peer, None)
    }

    fn token() -> Guard {
        Guard::Token(Secret::new("secret"))
    }

    fn code_of(outcome: Result<Verdict, Refusal>) -> String {
        let details = outcome.unwrap_err().error.details.unwrap();
        details["code"].as_str().unwrap().to_owned()
    }

    #[test]
    fn lets_an_operator_in_with_the_known_scopes_that_it_asks_for() {
        let verdict = decide(&json!({}), &token(), &PeerInfo::loopback()).unwrap();
        assert_eq!(verdict, Verdict::Enter(vec![Scope::Read]));
        let none = decide(&json!({"scopes": null}), &token(), &PeerInfo::loopback()).unwrap();
        assert_eq!(none, Verdict::Enter(Vec::new()));
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
        assert_eq!(wrong.wrong, [Wrong::Token]);
        assert_eq!(
            serde_json::to_value(&wrong.error).unwrap(),
            json!({"code": "INVALID_REQUEST", "message": "unauthorized: gateway token mismatch",
                "details": {"code": "AUTH_TOKEN_MISMATCH", "authReason": "token_mismatch",
                    "canRetryWithDeviceToken": false,
                    "recommendedNextStep": "update_auth_credentials"}})
        );
        let missing = decide(&json!({"auth": null}), &token(), &peer);
        assert_eq!(missing.clone().unwrap_err().wrong, []);
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
        let verdict = decide(&json!({"client": client}), &token(), &PeerInfo::loopback());
        assert_eq!(verdict.unwrap(), Verdict::Enter(Vec::new()));
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

    fn claim(role: Role, scopes: &[Scope]) -> Claim {
        let device = SignedDevice { id: "a".to_owned(), public_key: "key".to_owned() };
        Claim { role, is_probe: false, scopes: scopes.to_vec(), device: Some(device) }
    }

    /// A device approved for `approved` whose token holds `held`.
    fn paired(approved: &[Scope], held: &[Scope]) -> Device {
        let grant = crate::store::Grant {
            role: Role::Operator,
            approved: approved.to_vec(),
            scopes: held.to_vec(),
            serial: String::new(),
            token_digest: Vec::new(),
            issued_at: 1,
            rotated_at: None,
            revoked_at: None,
            used_at: None,
        };
        Device {
            id: "a".to_owned(),
            public_key: "key".to_owned(),
            about: crate::store::About::default(),
            label: None,
            approved_via: "owner".to_owned(),
            created_at: 1,
            approved_at: 1,
            seen_at: None,
            grants: vec![grant],
        }
    }

    #[test]
    fn an_operator_on_this_machine_is_paired_silently_while_its_owner_lets_it() {
        let here = PeerInfo::loopback();
        let tunnelled = PeerInfo { is_forwarded: true, ..PeerInfo::loopback() };
        let far = PeerInfo { address: "192.0.2.7".parse().unwrap(), ..PeerInfo::loopback() };
        let (operator, node) = (claim(Role::Operator, &[Scope::Admin]), claim(Role::Node, &[]));
        let ask = Verdict::Ask(Reason::NotPaired);
        for (claim, peer, pair_local, verdict) in [
            (&operator, &here, None, Verdict::Pair),
            (&operator, &here, Some(true), Verdict::Pair),
            (&operator, &here, Some(false), ask.clone()),
            (&operator, &tunnelled, None, ask.clone()),
            (&operator, &far, Some(true), ask.clone()),
            (&node, &here, None, ask.clone()),
            (&node, &here, Some(false), ask.clone()),
            (&node, &here, Some(true), Verdict::Pair),
            (&node, &tunnelled, Some(true), ask),
        ] {
            let judged = judge(claim, Proof::Secret, None, peer, pair_local);
            assert_eq!(judged.unwrap(), verdict, "{claim:?} {peer:?} {pair_local:?}");
        }
    }

    #[test]
    fn scopes_come_from_the_record_and_an_upgrade_asks() {
        let far = PeerInfo { address: "192.0.2.7".parse().unwrap(), ..PeerInfo::loopback() };
        let device = paired(&[Scope::Write, Scope::Pairing], &[Scope::Read]);
        let judge = |role, scopes: &[Scope], proof| {
            judge(&claim(role, scopes), proof, Some(&device), &far, None)
        };
        let read = vec![Scope::Read];
        for proof in [Proof::Secret, Proof::Token] {
            let entered = judge(Role::Operator, &read, proof).unwrap();
            assert_eq!(entered, Verdict::Enter(read.clone()));
            let more = judge(Role::Operator, &[Scope::Admin], proof).unwrap();
            assert_eq!(more, Verdict::Ask(Reason::ScopeUpgrade));
            let node = judge(Role::Node, &[], proof).unwrap();
            assert_eq!(node, Verdict::Ask(Reason::RoleUpgrade));
        }
        let write = judge(Role::Operator, &[Scope::Write], Proof::Secret).unwrap();
        assert_eq!(write, Verdict::Enter(vec![Scope::Write]));
        let narrow = judge(Role::Operator, &[Scope::Write], Proof::Token).unwrap_err();
        assert_eq!(narrow.error.details.unwrap()["code"], "AUTH_SCOPE_MISMATCH");
    }

    #[test]
    fn a_token_that_was_taken_back_and_its_role_with_it_must_be_asked_for() {
        let far = PeerInfo { address: "192.0.2.7".parse().unwrap(), ..PeerInfo::loopback() };
        let mut device = paired(&[Scope::Read], &[Scope::Read]);
        device.grants[0].revoked_at = Some(2);
        let claim = claim(Role::Operator, &[Scope::Read]);
        for peer in [far, PeerInfo::loopback()] {
            let judged = judge(&claim, Proof::Secret, Some(&device), &peer, Some(true)).unwrap();
            assert_eq!(judged, Verdict::Ask(Reason::RoleUpgrade));
        }
    }

    #[test]
    fn a_setup_code_is_used_up_by_a_device_that_is_paired_already() {
        let far = PeerInfo { address: "192.0.2.7".parse().unwrap(), ..PeerInfo::loopback() };
        let mut device = paired(&[], &[]);
        device.grants[0].role = Role::Node;
        let node = claim(Role::Node, &[]);
        let judged = judge(&node, Proof::Code, Some(&device), &far, None).unwrap();
        assert_eq!(judged, Verdict::Pair);
    }

    #[test]
    fn a_device_that_was_not_proved_to_be_anybody_may_try_its_own_token() {
        let device =
            json!({"id": "a", "publicKey": "k", "signature": "s", "signedAt": 1, "nonce": "n"});
        for (auth, may_retry) in
            [(json!({"token": "no"}), true), (json!({"token": "no", "deviceToken": "no"}), false)]
        {
            let connect = connect(&json!({"auth": auth, "device": device}));
            let details = check_secret(&connect, &token()).unwrap_err().error.details.unwrap();
            assert_eq!(details["canRetryWithDeviceToken"], may_retry);
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
