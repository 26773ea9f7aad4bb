//! `device.pair.*` and `device.token.*`: who is paired and may do what.
//!
//! A device that came in with its own token minds itself alone, unless it holds `operator.admin`;
//! nobody gives, replaces or takes back more than they hold.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use serde_json::json;

use crate::{
    gateway::{
        Shared,
        caller::Caller,
        clock::now_ms,
        dispatch::{Call, Dispatcher, Outcome},
        outbox::Ending,
        upgrades::{Decision, End},
    },
    protocol::{
        ApprovedDevice, DeviceAbout, DeviceId, DeviceLabel, DevicePairApprove, DevicePairList,
        DevicePairListParams, DevicePairReject, DevicePairRemove, DevicePairRename, DevicePairing,
        DeviceRequest, DeviceRequestId, DeviceResolved, DeviceToken, DeviceTokenRevoke,
        DeviceTokenRevokeParams, DeviceTokenRotate, DeviceTokenRotateParams, ErrorShape,
        PairedDevice, RejectedDevice, RevokedToken, Role, RotatedToken, Scope, close, event,
    },
    store::{self, About, Device, Grant, Request},
};

/// The longest name of a device, characters.
const MAX_LABEL: usize = 64;

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on::<DevicePairList, _>(list);
    dispatcher.on_change::<DevicePairApprove, _>(approve);
    dispatcher.on_change::<DevicePairReject, _>(reject);
    dispatcher.on_change::<DevicePairRemove, _>(remove);
    dispatcher.on_change::<DevicePairRename, _>(rename);
    dispatcher.on_change::<DeviceTokenRotate, _>(rotate);
    dispatcher.on_change::<DeviceTokenRevoke, _>(revoke);
}

async fn list(call: Call, _params: DevicePairListParams) -> Outcome<DevicePairing> {
    let (shared, caller) = (&call.shared, &call.caller);
    let found = shared.store.devices().list(now_ms()).await.map_err(|error| unstored(&error))?;
    let here = shared.hub.devices();
    let pending = found.pending.iter().filter(|request| minds(caller, &request.asked.device_id));
    let paired = found.paired.iter().filter(|device| minds(caller, &device.id));
    Ok(DevicePairing {
        pending: pending.map(as_request).collect(),
        paired: paired
            .map(|device| PairedDevice {
                connected: Some(here.contains(&device.id)),
                ..as_paired(device)
            })
            .collect(),
    })
}

async fn approve(call: Call, params: DeviceRequestId) -> Outcome<ApprovedDevice> {
    let (shared, caller, now) = (&call.shared, &call.caller, now_ms());
    let devices = shared.store.devices();
    let id = params.request_id.trim();
    let request =
        devices.request(id, now).await.map_err(|error| unstored(&error))?.ok_or_else(no_request)?;
    let asked = &request.asked;
    if !minds(caller, &asked.device_id) || !manages(caller, asked.role) {
        return Err(denied("device pairing approval denied").into());
    }
    if let Some(scope) = asked.scopes.iter().find(|scope| !caller.holds(**scope)) {
        // What it asks for under this id never changes, so this holds when it is approved.
        return Err(ErrorShape::missing_scope(*scope).into());
    }
    let minted = shared.mint.mint(&asked.device_id, asked.role);
    let approved =
        devices.approve(id, "owner", minted, now).await.map_err(|error| unstored(&error))?;
    let device = approved.ok_or_else(no_request)?;
    tracing::info!(device = device.id, role = %asked.role, "device approved");
    tell_resolved(shared, id, &device.id, Decision::Approved, now);
    Ok(ApprovedDevice { request_id: id.to_owned(), device: as_paired(&device) })
}

async fn reject(call: Call, params: DeviceRequestId) -> Outcome<RejectedDevice> {
    let (shared, now) = (&call.shared, now_ms());
    let devices = shared.store.devices();
    let id = params.request_id.trim();
    let request =
        devices.request(id, now).await.map_err(|error| unstored(&error))?.ok_or_else(no_request)?;
    if !minds(&call.caller, &request.asked.device_id) {
        return Err(denied("device pairing rejection denied").into());
    }
    let rejected =
        devices.reject(id, now).await.map_err(|error| unstored(&error))?.ok_or_else(no_request)?;
    let device_id = rejected.asked.device_id;
    tell_resolved(shared, id, &device_id, Decision::Rejected, now);
    Ok(RejectedDevice { request_id: id.to_owned(), device_id })
}

async fn remove(call: Call, params: DeviceId) -> Outcome<DeviceId> {
    let shared = &call.shared;
    let id = params.device_id.trim();
    let device = own_device(&call, id, "device pairing removal denied").await?;
    if !shared.store.devices().remove(&device.id).await.map_err(|error| unstored(&error))? {
        return Err(no_device().into());
    }
    tracing::info!(device = device.id, "device removed");
    shared.upgrades.forget(&device.id, now_ms());
    cut(&call, &device.id, None, "the device was removed");
    shared.nodes.forget_asker(&device.id).await;
    shared.nodes.forget(&shared.hub, &device.id).await?;
    Ok(DeviceId { device_id: device.id })
}

async fn rename(call: Call, params: DeviceLabel) -> Outcome<DeviceLabel> {
    let label = params.label.trim();
    if label.is_empty() || label.chars().count() > MAX_LABEL {
        let message = format!("label must have 1 to {MAX_LABEL} characters");
        return Err(ErrorShape::invalid(message).into());
    }
    let id = params.device_id.trim();
    let device = own_device(&call, id, "device pairing rename denied").await?;
    if !call
        .shared
        .store
        .devices()
        .rename(&device.id, label)
        .await
        .map_err(|error| unstored(&error))?
    {
        return Err(no_device().into());
    }
    call.shared.hub.tell(event::DEVICE_PAIR_CHANGED, &json!({}));
    Ok(DeviceLabel { device_id: device.id, label: label.to_owned() })
}

async fn rotate(call: Call, params: DeviceTokenRotateParams) -> Outcome<RotatedToken> {
    const DENIED: &str = "device token rotation denied";
    let (shared, caller, now) = (&call.shared, &call.caller, now_ms());
    let (device, grant) = own_grant(&call, &params.device_id, &params.role, DENIED).await?;
    if grant.revoked_at.is_some() {
        return Err(denied(DENIED).into());
    }
    let scopes = match params.scopes {
        None => grant.scopes.clone(),
        Some(names) => {
            let known: Option<Vec<Scope>> = names.iter().map(|name| Scope::parse(name)).collect();
            let within = |scope: &Scope| scope.is_within(&grant.approved);
            known.filter(|known| known.iter().all(within)).ok_or_else(|| denied(DENIED))?
        }
    };
    if !scopes.iter().all(|scope| caller.holds(*scope)) {
        return Err(denied(DENIED).into());
    }
    let minted = shared.mint.mint(&device.id, grant.role);
    let token = shared.mint.token(&device.id, grant.role, &minted.serial);
    let role = grant.role;
    let rotated = shared.store.devices().rotate(&device.id, grant, scopes, minted, now).await;
    let rotated = rotated.map_err(|error| unstored(&error))?.ok_or_else(|| {
        let message = "what the device may do has changed just now; look, and try again";
        ErrorShape::unavailable(message, 500)
    })?;
    tracing::info!(device = device.id, %role, "device token rotated");
    cut(&call, &device.id, Some(role), "the device's token was replaced");
    let is_own = caller.by_device_token && caller.device_id.as_ref() == Some(&device.id);
    Ok(RotatedToken {
        device_id: device.id,
        role: role.to_string(),
        token: is_own.then_some(token),
        scopes: names(&rotated.scopes),
        rotated_at_ms: rotated.rotated_at.unwrap_or(now),
        token_delivery: if is_own { "in-band" } else { "withheld-cross-device" }.to_owned(),
    })
}

async fn revoke(call: Call, params: DeviceTokenRevokeParams) -> Outcome<RevokedToken> {
    const DENIED: &str = "device token revocation denied";
    let (shared, now) = (&call.shared, now_ms());
    let (device, grant) = own_grant(&call, &params.device_id, &params.role, DENIED).await?;
    if !grant.scopes.iter().all(|scope| call.caller.holds(*scope)) {
        return Err(denied(DENIED).into());
    }
    let revoked = shared.store.devices().revoke(&device.id, grant.role, now).await;
    let revoked = revoked.map_err(|error| unstored(&error))?.ok_or_else(|| denied(DENIED))?;
    tracing::info!(device = device.id, role = %grant.role, "device token revoked");
    cut(&call, &device.id, Some(grant.role), "the device's token was taken back");
    match grant.role {
        Role::Node => drop(shared.nodes.forget(&shared.hub, &device.id).await?),
        Role::Operator => shared.nodes.forget_asker(&device.id).await,
    }
    Ok(RevokedToken {
        device_id: device.id,
        role: grant.role.to_string(),
        revoked_at_ms: revoked.revoked_at.unwrap_or(now),
    })
}

/// Whether a caller may look after this device at all.
pub(super) fn minds(caller: &Caller, device: &str) -> bool {
    !caller.by_device_token
        || caller.device_id.as_deref() == Some(device)
        || caller.holds(Scope::Admin)
}

/// Whether a caller may decide about this role of a device.
fn manages(caller: &Caller, role: Role) -> bool {
    role == Role::Operator || caller.holds(Scope::Admin)
}

/// A paired device that the caller may change as a whole.
async fn own_device(call: &Call, id: &str, denial: &str) -> Outcome<Device> {
    if !minds(&call.caller, id) {
        return Err(denied(denial).into());
    }
    let found = call.shared.store.devices().find(id).await.map_err(|error| unstored(&error))?;
    let device = found.ok_or_else(no_device)?;
    let is_own = call.caller.by_device_token;
    if is_own && !device.grants.iter().all(|grant| manages(&call.caller, grant.role)) {
        return Err(denied(denial).into());
    }
    Ok(device)
}

/// A grant that the caller may change; who may not learns nothing about what there is.
async fn own_grant(call: &Call, id: &str, role: &str, denial: &str) -> Outcome<(Device, Grant)> {
    let role = Role::parse(role.trim()).filter(|role| manages(&call.caller, *role));
    let (id, Some(role)) = (id.trim(), role) else { return Err(denied(denial).into()) };
    if !minds(&call.caller, id) {
        return Err(denied(denial).into());
    }
    let device = call.shared.store.devices().find(id).await.map_err(|error| unstored(&error))?;
    let found = device.and_then(|device| {
        let grant = device.grant(role)?.clone();
        Some((device, grant))
    });
    found.ok_or_else(|| denied(denial).into())
}

/// Ends the connections of a device whose right is gone, and those that are coming in just now;
/// the caller's own once it has its answer.
pub(super) fn cut(call: &Call, device: &str, role: Option<Role>, why: &str) {
    let Call { shared, caller } = call;
    shared.withdrawals.fetch_add(1, Ordering::SeqCst);
    let ending = Ending::close(close::POLICY, why);
    let ended = shared.hub.dismiss(&ending, |number, member| {
        let is_meant = member.device_id.as_deref() == Some(device)
            && role.is_none_or(|role| member.role == role);
        if is_meant && number == caller.member {
            caller.farewell.get_or_init(|| ending.clone());
        }
        is_meant && number != caller.member
    });
    tracing::debug!(ended, why, "connections cut");
}

/// Tells approvers that a request is over, and the device if it waits for that.
pub(in crate::gateway) fn tell_resolved(
    shared: &Shared,
    request: &str,
    device: &str,
    decision: Decision,
    now: u64,
) {
    shared.upgrades.ended(request, End::Decided(decision), now);
    let decision = match decision {
        Decision::Approved => "approved",
        Decision::Rejected => "rejected",
    };
    let resolved = DeviceResolved {
        request_id: request.to_owned(),
        device_id: device.to_owned(),
        decision: decision.to_owned(),
        ts: now,
    };
    shared.hub.tell(event::DEVICE_PAIR_RESOLVED, &resolved);
}

/// A request as the wire has it.
pub(in crate::gateway) fn as_request(request: &Request) -> DeviceRequest {
    let asked = &request.asked;
    DeviceRequest {
        request_id: request.id.clone(),
        device_id: asked.device_id.clone(),
        public_key: asked.public_key.clone(),
        about: as_about(&asked.about),
        role: asked.role.to_string(),
        roles: vec![asked.role.to_string()],
        scopes: names(&asked.scopes),
        silent: false,
        is_repair: request.is_repair,
        ts: request.at,
    }
}

fn as_paired(device: &Device) -> PairedDevice {
    let scopes: BTreeSet<Scope> =
        device.grants.iter().flat_map(|grant| grant.approved.iter().copied()).collect();
    PairedDevice {
        device_id: device.id.clone(),
        public_key: device.public_key.clone(),
        about: as_about(&device.about),
        operator_label: device.label.clone(),
        role: device.grants.first().map(|grant| grant.role.to_string()),
        roles: device.grants.iter().map(|grant| grant.role.to_string()).collect(),
        scopes: scopes.iter().map(ToString::to_string).collect(),
        tokens: device.grants.iter().map(as_token).collect(),
        approved_via: device.approved_via.clone(),
        created_at_ms: device.created_at,
        approved_at_ms: device.approved_at,
        last_seen_at_ms: device.seen_at,
        last_seen_reason: device.seen_at.map(|_| "connect".to_owned()),
        connected: None,
    }
}

fn as_token(grant: &Grant) -> DeviceToken {
    DeviceToken {
        role: grant.role.to_string(),
        scopes: names(&grant.scopes),
        created_at_ms: grant.issued_at,
        rotated_at_ms: grant.rotated_at,
        revoked_at_ms: grant.revoked_at,
        last_used_at_ms: grant.used_at,
    }
}

fn as_about(about: &About) -> DeviceAbout {
    let About { display_name, platform, device_family, client_id, client_mode, remote_ip } =
        about.clone();
    DeviceAbout { display_name, platform, device_family, client_id, client_mode, remote_ip }
}

pub(super) fn names(scopes: &[Scope]) -> Vec<String> {
    scopes.iter().map(ToString::to_string).collect()
}

fn no_request() -> ErrorShape {
    ErrorShape::invalid("unknown requestId")
}

fn no_device() -> ErrorShape {
    ErrorShape::invalid("unknown deviceId")
}

fn denied(what: &str) -> ErrorShape {
    ErrorShape::invalid(what)
}

pub(super) fn unstored(error: &store::Error) -> ErrorShape {
    ErrorShape::unavailable(error.to_string(), 500)
}
