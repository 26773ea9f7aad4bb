//! Who may come in: decisions over `connect`, the guard, the challenge, the peer and the record of
//! the device. Pure.

mod refusal;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde_json::json;

pub(super) use refusal::{
    Refusal, deviceless, pairing_required, rate_limited, unverified, wrong_device_token,
    wrong_setup_code,
};
use refusal::{foreign, keyless_page, unauthorized, unproxied, untrusted, wrong_scopes};

use super::{
    ingress::{Door, NoUser, Word},
    settings::Guard,
    throttle::Wrong,
};
use crate::{
    protocol::{Connect, ErrorShape, OLDEST_VERSION, Role, Scope, VERSION, close, detail, device},
    secret::Secret,
    store::{Asked, Device},
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

/// Clients that are web pages, and so have an origin.
const PAGES: [&str; 3] = ["openclaw-control-ui", "webchat-ui", "webchat"];
/// Clients that people look at while they wait: they always have a key of their own.
const KEYED: [&str; 2] = ["openclaw-control-ui", "openclaw-tui"];

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
    /// Whether that page is another's, and was not allowed.
    pub(super) is_foreign: bool,
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
        let (origin, is_foreign) = (None, false);
        Self { address, local, is_forwarded, origin, is_foreign, door, word: Word::None, cap: None }
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
    /// Nothing: this gateway asks for no secret.
    Nothing,
    /// That it holds the device's own token.
    Token,
    /// That it holds the one at this place of those that gave way to the device's token.
    FormerToken(usize),
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

/// Reads a `connect` of `peer` that answers a challenge of `nonce`; believes its device only if that
/// signed.
pub(super) fn examine(
    connect: &Connect,
    peer: &PeerInfo,
    nonce: &str,
    now_ms: u64,
) -> Result<Claim, Refusal> {
    check_form(connect)?;
    let Some(role) = connect.role.as_deref().map_or(Some(Role::Operator), Role::parse) else {
        return Err(Refusal::new(ErrorShape::invalid("invalid role")));
    };
    let is_node = role == Role::Node;
    let is_probe = connect.client.mode == "probe";
    check_version(connect, (is_node && connect.client.mode == "node") || is_probe)?;
    check_page(connect, peer, role)?;
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
    let is_here = peer.is_direct_loopback() && matches!(proof, Proof::Secret | Proof::Nothing);
    let wanted = claim.wanted();
    // Where nothing is asked a key has to answer for what somebody does, as at the reference gateway.
    let needs_no_pairing = match claim.device {
        None => proof == Proof::Secret,
        Some(_) => claim.is_probe,
    };
    if claim.role == Role::Operator && is_here && needs_no_pairing {
        // A page that knows the secret may not do for its reader what no key of his answers for.
        let is_page = claim.device.is_none() && peer.origin.is_some();
        return Ok(Verdict::Enter(if is_page { Vec::new() } else { wanted.to_vec() }));
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
        (Some(grant), Proof::FormerToken(place))
            if grant.former.get(place).is_some_and(|former| is_within(&former.scopes)) =>
        {
            return Ok(Verdict::Enter(wanted.to_vec()));
        }
        // A token never comes to hold more. To ask for more the device shows the gateway's secret, or
        // asks on its connection (`device.scopes.requestUpgrade`), and is given another.
        (Some(_), Proof::Token | Proof::FormerToken(_)) => return Err(wrong_scopes()),
        (Some(grant), Proof::Secret | Proof::Nothing | Proof::User)
            if is_within(&grant.approved) =>
        {
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

/// Whether whoever asks tries again by itself while its request waits: OpenClaw's page and its
/// terminal stay disconnected for good unless they are told to.
pub(super) fn tries_again(asked: &Asked) -> bool {
    let client = asked.about.client_id.as_deref();
    asked.role == Role::Operator && client.is_some_and(|id| KEYED.contains(&id))
}

/// Refuses the page of another, one that does not say whose it is, and OpenClaw's pages and its
/// terminal without a key of their own, as the reference gateway does.
fn check_page(connect: &Connect, peer: &PeerInfo, role: Role) -> Result<(), Refusal> {
    let client = &connect.client;
    let is_page = client.mode == "webchat" || PAGES.contains(&client.id.as_str());
    match &peer.origin {
        Some(_) if peer.is_foreign => return Err(foreign("origin not allowed")),
        None if is_page => return Err(foreign("origin missing or invalid")),
        Some(_) | None => {}
    }
    let has_user = matches!(peer.word, Word::User(_));
    let needs_key = role == Role::Operator && KEYED.contains(&client.id.as_str());
    if needs_key && connect.device.is_none() && !has_user {
        return Err(keyless_page());
    }
    Ok(())
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

/// What the client proves by itself or by the word of whoever is in between.
pub(super) fn check(connect: &Connect, guard: &Guard, peer: &PeerInfo) -> Result<Proof, Refusal> {
    let Guard::Proxy(rules) = guard else {
        let is_open = matches!(guard, Guard::Open);
        let proof = if is_open { Proof::Nothing } else { Proof::Secret };
        return check_secret(connect, guard).map(|()| proof);
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
        // Who shows nothing at all is asked for a key of its own first.
        (_, None) if connect.device.is_none() => {
            let role = connect.role.as_deref().and_then(Role::parse);
            Err(deviceless(role.unwrap_or(Role::Operator)))
        }
        (_, None) => Err(unauthorized(word, None, "update_auth_configuration")),
    }
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
