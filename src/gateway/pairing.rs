//! Lets a client in with what the store knows of its device, or files its request to be paired.

use std::{sync::atomic::Ordering, time::Duration};

use serde_json::json;

use super::{
    Shared,
    admission::{self, Claim, PeerInfo, Proof, Reason, Refusal, SignedDevice, Verdict},
    device_token::{digest, is_token_of},
    ingress::Word,
    methods::device::{as_request, tell_resolved},
    settings::Guard,
    setup::{Access, completion},
    tailscale::Unverified,
    throttle::{self, Culprit, With},
    upgrades::Decision,
};
use crate::{
    protocol::{Connect, ErrorShape, GrantedToken, Role, Scope, SetupCompletion, detail, event},
    secret::Secret,
    store::{self, About, Asked, Device, Filed, Grant, Request, SetupCode},
};

/// How long a client waits for a database that is busy, milliseconds.
const BUSY_RETRY_MS: u64 = 500;

/// What a client is let in with.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) role: Role,
    pub(super) scopes: Vec<Scope>,
    /// The verified device, if one was offered.
    pub(super) device_id: Option<String>,
    /// Its token for the next time.
    pub(super) device_token: Option<Issued>,
    /// Whether a token of its own let it in, and not the gateway's secret.
    pub(super) by_device_token: bool,
    /// Its tokens in the other roles that a setup code gave it.
    pub(super) others: Vec<GrantedToken>,
    /// Who redeemed a setup code by this, unless it is known to have had its answer before.
    pub(super) setup: Option<SetupCompletion>,
    /// How many rights had been taken away when the store was asked.
    pub(super) withdrawals: u64,
}

/// A device's token.
#[derive(Debug, Clone)]
pub(super) struct Issued {
    pub(super) token: Secret,
    /// Since when it holds what it holds, milliseconds since 1970.
    pub(super) at: u64,
}

/// Decides about one `connect` that answers a challenge of `nonce`; a refusal names its culprit.
pub(super) async fn admit(
    shared: &Shared,
    connect: &Connect,
    peer: &PeerInfo,
    nonce: &str,
    now: u64,
) -> Result<Admission, Refusal> {
    let mut culprit = Culprit::at(peer, With::Shared);
    let outcome = decide(shared, connect, (peer, &mut culprit), nonce, now).await;
    outcome.map_err(|refusal| Refusal { culprit: Some(culprit), ..refusal })
}

/// Whether it offers something to be compared with the gateway's secret.
fn has_shared(connect: &Connect) -> bool {
    let auth = connect.auth.as_ref();
    auth.is_some_and(|auth| auth.token.is_some() || auth.password.is_some())
}

/// How long nothing of the client is compared with the gateway's secret; no matter to whom a trusted
/// proxy names, since nothing of his is compared anyway.
fn shut_out(
    shared: &Shared,
    connect: &Connect,
    peer: &PeerInfo,
    culprit: &Culprit,
) -> Option<Duration> {
    let is_named = matches!((&shared.live().guard, &peer.word), (Guard::Proxy(_), Word::User(_)));
    let is_compared = has_shared(connect) && !is_named;
    shared.shut_out(&culprit.trying(With::Shared)).filter(|_| is_compared)
}

/// What the client proves; Tailscale's word is asked for where it counts and no secret came, or
/// none that is heard. `shut` is for how long that is.
async fn shown(
    shared: &Shared,
    connect: &Connect,
    peer: &PeerInfo,
    shut: Option<Duration>,
) -> Result<Proof, Refusal> {
    let shown = match shut {
        Some(left) => Err(admission::rate_limited(left)),
        None => admission::check(connect, &shared.live().guard, peer),
    };
    let Word::Tailscale(login) = &peer.word else { return shown };
    let is_compared = has_shared(connect) && shut.is_none();
    if shown.is_ok() || is_compared || !shared.ways.allow_tailscale {
        return shown;
    }
    match shared.whois.verify(peer.address, login).await {
        Ok(()) => Ok(Proof::User),
        Err(_) if shut.is_some() => shown,
        Err(Unverified::Unknown) => {
            Err(admission::unverified(detail::TAILSCALE_WHOIS_FAILED, "tailscale_whois_failed"))
        }
        Err(Unverified::Other) => Err(admission::unverified(
            detail::TAILSCALE_IDENTITY_MISMATCH,
            "tailscale_user_mismatch",
        )),
    }
}

async fn decide(
    shared: &Shared,
    connect: &Connect,
    (peer, culprit): (&PeerInfo, &mut Culprit),
    nonce: &str,
    now: u64,
) -> Result<Admission, Refusal> {
    let claim = admission::examine(connect, peer, nonce, now)?.capped(peer.cap.as_deref());
    admission::check_word(peer)?;
    let withdrawals = shared.withdrawals.load(Ordering::SeqCst);
    let paired = match &claim.device {
        Some(device) => {
            shared.store.devices().find(&device.id).await.map_err(|error| unstored(&error))?
        }
        None => None,
    };
    // The id is a digest of the key, so a record of another key is of no use to anybody.
    let paired = paired.filter(|paired| {
        claim.device.as_ref().is_some_and(|device| device.public_key == paired.public_key)
    });
    if let Some(paired) = &paired {
        *culprit = culprit.clone().device(&paired.id);
    }
    let shut = shut_out(shared, connect, peer, culprit);
    let (proof, code) = match (shown(shared, connect, peer, shut).await, &claim.device) {
        (Ok(proof), _) => (proof, None),
        (Err(refusal), Some(device)) if shut.is_none() => {
            if let Some(left) = own_shut_out(shared, connect, culprit) {
                // The gateway's secret was compared all the same, and counts.
                return Err(admission::rate_limited(left).after(refusal));
            }
            let before = refusal.clone();
            let proved =
                prove(shared, connect, &claim, device, paired.as_ref(), refusal, now).await?;
            count_beside(shared, connect, culprit, &before).await?;
            proved
        }
        (Err(refusal), _) => return Err(refusal),
    };
    let verdict = admission::judge(&claim, proof, paired.as_ref(), peer, shared.live().pair_local)?;
    let in_as = |scopes, device_token| Admission {
        role: claim.role,
        scopes,
        device_id: claim.device.as_ref().map(|device| device.id.clone()),
        device_token,
        by_device_token: matches!(proof, Proof::Token | Proof::FormerToken(_) | Proof::Code),
        others: Vec::new(),
        setup: None,
        withdrawals,
    };
    let asked = |device: &SignedDevice| Asked {
        device_id: device.id.clone(),
        public_key: device.public_key.clone(),
        about: about(connect, peer),
        role: claim.role,
        scopes: claim.wanted().to_vec(),
    };
    match (verdict, &claim.device) {
        (Verdict::Enter(scopes), device) => {
            if let Some(paired) = &paired {
                shown_token(shared, paired, claim.role, proof).await;
            }
            let token = paired.filter(|_| device.is_some()).and_then(|paired| {
                shared.store.devices().saw(&paired, claim.role, about(connect, peer), now);
                token_of(shared, &paired, claim.role)
            });
            Ok(in_as(scopes, token))
        }
        (Verdict::Pair, Some(device)) => {
            let asked = asked(device);
            let scopes = asked.scopes.clone();
            let paired = match &code {
                Some((code, access)) => redeem(shared, asked, (code, *access), now).await?,
                None => pair(shared, asked, now).await?,
            };
            tell_resolved(
                shared,
                &uuid::Uuid::new_v4().to_string(),
                &paired.id,
                Decision::Approved,
                now,
            );
            let admission = in_as(scopes, token_of(shared, &paired, claim.role));
            Ok(match code {
                Some((code, access)) => by_code(shared, admission, (code, access), &paired, now),
                None => admission,
            })
        }
        (Verdict::Ask(reason), Some(device)) => {
            Err(ask(shared, asked(device), reason, paired.as_ref(), now).await?)
        }
        (Verdict::Pair | Verdict::Ask(_), None) => Err(admission::deviceless(claim.role)),
    }
}

/// Counts what was wrong beside what proved good: who has a token of his own could else try out the
/// gateway's secret for as long as he likes.
async fn count_beside(
    shared: &Shared,
    connect: &Connect,
    culprit: &Culprit,
    refusal: &Refusal,
) -> Result<(), Refusal> {
    let own =
        connect.auth.as_ref().and_then(|auth| auth.device_token.as_ref().or(auth.token.as_ref()));
    // A device's token in the field of the gateway's secret is no guess at that.
    let is_own = |text: &str| own.is_some_and(|own| own.matches(text));
    let wrong = refusal.wrong.iter().map(|wrong| (wrong.with(), wrong.text(connect)));
    let wrong = wrong.filter(|(_, text)| !is_own(text));
    let verdict = wrong.map(|(with, text)| shared.failed(&culprit.trying(with), text)).max();
    match verdict {
        None | Some(throttle::Verdict::Answer) => Ok(()),
        Some(throttle::Verdict::Slow(delay)) => {
            tokio::time::sleep(delay).await;
            Ok(())
        }
        Some(throttle::Verdict::Shut(time)) => Err(admission::rate_limited(time)),
    }
}

/// How long what the client offers as a device's own token or as a setup code is not compared.
fn own_shut_out(shared: &Shared, connect: &Connect, culprit: &Culprit) -> Option<Duration> {
    let auth = connect.auth.as_ref()?;
    let token = auth.device_token.as_ref().map(|_| With::DeviceToken);
    let code = auth.bootstrap_token.as_ref().map(|_| With::Code);
    let kinds = token.into_iter().chain(code);
    kinds.filter_map(|with| shared.shut_out(&culprit.trying(with))).max()
}

/// What a device proves without the gateway's secret: its own token, or a setup code.
async fn prove(
    shared: &Shared,
    connect: &Connect,
    claim: &Claim,
    device: &SignedDevice,
    paired: Option<&Device>,
    refusal: Refusal,
    now: u64,
) -> Result<(Proof, Option<(SetupCode, Access)>), Refusal> {
    let Some(auth) = &connect.auth else { return Err(refusal) };
    let is_explicit = auth.device_token.is_some();
    // OpenClaw's client sends the token that it keeps in either field.
    if let Some(token) = auth.device_token.as_ref().or(auth.token.as_ref()) {
        let grant = paired.and_then(|paired| live(paired, claim.role));
        if let Some(proof) = grant.and_then(|grant| proof_by(grant, token)) {
            return Ok((proof, None));
        }
        let own = admission::wrong_device_token;
        return Err(if is_explicit { own().after(refusal) } else { refusal });
    }
    if let Some(token) = &auth.bootstrap_token {
        let devices = shared.store.devices();
        let found = devices.code(digest(token.expose()), &device.id, now).await;
        let found = found.map_err(|error| unstored(&error))?.and_then(|code| {
            let access = Access::parse(&code.access)?;
            access.is_for(&connect.client).then_some((code, access))
        });
        return match found {
            // Every code is redeemed by a node, which holds no scopes, whatever else it gives.
            Some(found) if claim.role == Role::Node && claim.wanted().is_empty() => {
                Ok((Proof::Code, Some(found)))
            }
            Some(_) | None => Err(admission::wrong_setup_code().after(refusal)),
        };
    }
    Err(refusal)
}

/// What a token proves of a device that is granted this.
fn proof_by(grant: &Grant, token: &Secret) -> Option<Proof> {
    if is_token_of(&grant.token_digest, token.expose()) {
        return Some(Proof::Token);
    }
    let place = grant.former.iter().position(|former| is_token_of(&former.digest, token.expose()));
    place.map(Proof::FormerToken)
}

/// Ends the tokens before the one that let a device in, before it hears that it is in: it has a
/// later one. A disk that does not take that keeps nobody out; the next time ends them.
async fn shown_token(shared: &Shared, paired: &Device, role: Role, proof: Proof) {
    let Some(grant) = live(paired, role) else { return };
    let shown = match proof {
        Proof::Token if !grant.former.is_empty() => Some(&grant.token_digest),
        Proof::FormerToken(place) if place > 0 => {
            grant.former.get(place).map(|former| &former.digest)
        }
        // The secret says nothing about which tokens its device has.
        Proof::Token
        | Proof::FormerToken(_)
        | Proof::Secret
        | Proof::Nothing
        | Proof::User
        | Proof::Code => None,
    };
    let Some(digest) = shown else { return };
    let ended = shared.store.devices().shown(&paired.id, role, digest.clone()).await;
    if let Err(error) = ended {
        tracing::warn!(%error, "a token that gave way to another is still good");
    }
}

/// Pairs a device without asking anybody, by the gateway's secret.
async fn pair(shared: &Shared, asked: Asked, now: u64) -> Result<Device, Refusal> {
    let minted = shared.mint.mint(&asked.device_id, asked.role);
    let (role, id) = (asked.role, asked.device_id.clone());
    let paired = shared.store.devices().pair(asked, "silent", minted, now).await;
    let paired =
        paired.map_err(|error| unstored(&error))?.ok_or_else(admission::wrong_setup_code)?;
    let via = "the gateway's secret on this machine";
    tracing::info!(device = id, %role, via, "device paired");
    Ok(paired)
}

/// Pairs a device by a setup code, in every role that the code gives.
async fn redeem(
    shared: &Shared,
    asked: Asked,
    (code, access): (&SetupCode, Access),
    now: u64,
) -> Result<Device, Refusal> {
    let id = asked.device_id.clone();
    let each = access.grants().iter().map(|(role, scopes)| {
        let asked = Asked { role: *role, scopes: scopes.to_vec(), ..asked.clone() };
        (asked, shared.mint.mint(&id, *role))
    });
    let redeemed = shared.store.devices().redeem(&code.id, &id, each.collect(), now).await;
    let paired =
        redeemed.map_err(|error| unstored(&error))?.ok_or_else(admission::wrong_setup_code)?;
    tracing::info!(device = id, access = access.name(), via = "setup code", "device paired");
    Ok(paired)
}

/// What a device is let in with that redeemed a setup code just now.
fn by_code(
    shared: &Shared,
    admission: Admission,
    (code, access): (SetupCode, Access),
    device: &Device,
    now: u64,
) -> Admission {
    let others = access.grants().iter().filter(|(role, _)| *role != admission.role);
    let others = others.filter_map(|(role, _)| granted(shared, device, *role)).collect();
    let is_known = code.delivered_at.is_some();
    let (device_id, redeemed_at) = (Some(device.id.clone()), Some(now));
    let setup = completion(SetupCode { device_id, redeemed_at, ..code }, Some(device));
    Admission { others, setup: setup.filter(|_| !is_known), ..admission }
}

/// A device's token in a role, as a setup code hands it over.
fn granted(shared: &Shared, device: &Device, role: Role) -> Option<GrantedToken> {
    let grant = live(device, role)?;
    let Issued { token, at } = token_of(shared, device, role)?;
    Some(GrantedToken {
        device_token: token,
        role: role.to_string(),
        scopes: grant.scopes.iter().map(ToString::to_string).collect(),
        issued_at_ms: at,
    })
}

/// Files a request, and tells approvers of it; an error frame where there is no room.
pub(super) async fn file(
    shared: &Shared,
    asked: Asked,
    now: u64,
) -> Result<Request, Box<ErrorShape>> {
    let id = uuid::Uuid::new_v4().to_string();
    let filed = shared.store.devices().ask(id, asked, now).await;
    match filed.map_err(|error| unstored(&error).error)? {
        Filed::New(request, superseded) => {
            for gone in superseded {
                tell_resolved(shared, &gone.id, &gone.asked.device_id, Decision::Rejected, now);
            }
            shared.hub.tell(event::DEVICE_PAIR_REQUESTED, &as_request(&request));
            tracing::info!(request = request.id, role = %request.asked.role, "a device asks");
            Ok(request)
        }
        Filed::Known(request) => Ok(request),
        Filed::Full => Err(ErrorShape::unavailable(
            "too many devices wait to be paired; on the gateway's machine: openclaw devices list",
            60_000,
        )
        .into()),
    }
}

/// Files a request; the refusal that says so.
async fn ask(
    shared: &Shared,
    asked: Asked,
    reason: Reason,
    paired: Option<&Device>,
    now: u64,
) -> Result<Refusal, Refusal> {
    let tries_again = admission::tries_again(&asked);
    let request = file(shared, asked, now).await.map_err(Refusal::new)?;
    let refusal = admission::pairing_required(&request, reason, paired);
    Ok(if tries_again { refusal.tried_again() } else { refusal })
}

/// What a device may do in a role, unless that was taken back.
fn live(device: &Device, role: Role) -> Option<&Grant> {
    device.grant(role).filter(|grant| grant.revoked_at.is_none())
}

/// The token that a device has; `None` if it was made with a key that is gone.
pub(super) fn token_of(shared: &Shared, device: &Device, role: Role) -> Option<Issued> {
    let grant = live(device, role)?;
    let token = shared.mint.token(&device.id, role, &grant.serial);
    let at = grant.rotated_at.unwrap_or(grant.issued_at);
    is_token_of(&grant.token_digest, token.expose()).then_some(Issued { token, at })
}

/// What a client says of itself, and where it is.
pub(super) fn about(connect: &Connect, peer: &PeerInfo) -> About {
    let client = &connect.client;
    let filled =
        |text: Option<&str>| text.filter(|text| !text.trim().is_empty()).map(str::to_owned);
    let (platform, family) = client.machine();
    About {
        display_name: filled(client.display_name.as_deref()),
        platform: Some(platform.to_owned()),
        device_family: filled(family),
        client_id: Some(client.id.clone()),
        client_mode: Some(client.mode.clone()),
        remote_ip: (!peer.is_direct_loopback()).then(|| peer.address.to_canonical().to_string()),
    }
}

/// The database could not be asked.
fn unstored(error: &store::Error) -> Refusal {
    tracing::warn!(%error, "a client could not be checked");
    let error =
        ErrorShape::unavailable(format!("devices cannot be checked: {error}"), BUSY_RETRY_MS);
    Refusal::new(error.details(json!({"recommendedNextStep": "wait_then_retry"})))
}
