//! `device.scopes.*`: a device that is in asks for more than it holds, and waits until somebody has
//! decided.
//!
//! Whose request it is follows from the key that signed the connection, never from parameters; the
//! answer is the token that the device would be told when it connects next.

use std::{collections::BTreeSet, time::Duration};

use serde_json::json;
use tokio::time::timeout;

use super::device::{names, unstored};
use crate::{
    gateway::{
        caller::Caller,
        clock::now_ms,
        dispatch::{Call, Dispatcher, Outcome},
        pairing::{file, token_of},
        upgrades::{End, Upgrade},
    },
    protocol::{
        DeviceScopesRequest, DeviceScopesWait, ErrorShape, Role, Scope, ScopeUpgradeRegistration,
        ScopeUpgradeRequest, ScopeUpgradeResult, ScopeUpgradeWait, detail,
    },
    store::{About, Asked, Device},
};

/// How many scopes may be asked for.
const SCOPES: std::ops::RangeInclusive<usize> = 1..=8;
/// How long a client should wait that cannot be served now, milliseconds.
const RETRY_MS: u64 = 1_000;

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on_change::<DeviceScopesRequest, _>(request);
    dispatcher.on::<DeviceScopesWait, _>(wait);
}

async fn request(call: Call, params: ScopeUpgradeRequest) -> Outcome<ScopeUpgradeRegistration> {
    let (shared, caller, now) = (&call.shared, &call.caller, now_ms());
    let scopes = checked(&params.scopes)?;
    let device = owner(&call).await?;
    if !caller.scopes.iter().all(|scope| scope.is_within(&scopes)) {
        let message = "requested scopes must include the connection's current scopes";
        return Err(ErrorShape::invalid(message).into());
    }
    let asked = Asked {
        about: about(caller, &device),
        device_id: device.id,
        public_key: device.public_key,
        role: Role::Operator,
        scopes,
    };
    let request = file(shared, asked, now).await?;
    if !shared.upgrades.keep(&request, now) {
        let message = "too many scope upgrades are waited for";
        return Err(ErrorShape::unavailable(message, RETRY_MS).into());
    }
    let (from, to) = (names(&caller.scopes).join(" "), params.scopes.join(" "));
    tracing::info!(device = request.asked.device_id, from, to, "a device that is in asks for more");
    Ok(ScopeUpgradeRegistration { request_id: request.id })
}

async fn wait(call: Call, params: ScopeUpgradeWait) -> Outcome<ScopeUpgradeResult> {
    let (upgrades, request_id) = (&call.shared.upgrades, params.request_id);
    let device = owner(&call).await?.id;
    loop {
        let upgrade = upgrades.find(&request_id, &device, now_ms());
        let upgrade =
            upgrade.ok_or_else(|| ErrorShape::invalid("scope upgrade expired or not found"))?;
        match ended(&call, &request_id, upgrade.clone()).await? {
            Some(End::Approved) => return approved(&call, request_id, &upgrade.scopes).await,
            Some(End::Rejected) => return Ok(ScopeUpgradeResult::Rejected { request_id }),
            Some(End::Expired) => return Ok(ScopeUpgradeResult::Expired { request_id }),
            // The device asked for the same again meanwhile, and so waits longer.
            None => {}
        }
    }
}

/// Waits for the end of a request; `None` if there is more time for it than was known.
async fn ended(call: &Call, id: &str, mut upgrade: Upgrade) -> Outcome<Option<End>> {
    let (upgrades, store) = (&call.shared.upgrades, &call.shared.store);
    let left = Duration::from_millis(upgrade.expires_at.saturating_sub(now_ms()));
    match timeout(left, upgrade.end.wait_for(Option::is_some)).await {
        Ok(Ok(end)) => return Ok(*end),
        Ok(Err(_)) => {
            return Err(ErrorShape::unavailable("the gateway is stopping", RETRY_MS).into());
        }
        Err(_) => {}
    }
    let now = now_ms();
    let request = store.devices().request(id, now).await.map_err(|error| unstored(&error))?;
    match request.filter(|request| request.expires_at > upgrade.expires_at) {
        Some(request) => {
            upgrades.keep(&request, now);
            Ok(None)
        }
        None => {
            upgrades.ended(id, End::Expired, now);
            // Somebody may have been a moment quicker.
            let end = *upgrade.end.borrow();
            Ok(end.or(Some(End::Expired)))
        }
    }
}

/// What an approved device gets; turned down if its rights were taken back meanwhile.
async fn approved(
    call: &Call,
    request_id: String,
    wanted: &[Scope],
) -> Outcome<ScopeUpgradeResult> {
    let device = owner(call).await?;
    let grant = device.grant(Role::Operator).filter(|grant| grant.revoked_at.is_none());
    let grant = grant.filter(|grant| wanted.iter().all(|scope| scope.is_within(&grant.scopes)));
    let Some(grant) = grant else { return Ok(ScopeUpgradeResult::Rejected { request_id }) };
    let device_token = token_of(&call.shared, &device, Role::Operator).ok_or_else(|| {
        let message = "the scopes are approved; connect again with the gateway's secret";
        ErrorShape::unavailable(message, RETRY_MS)
    })?;
    let scopes = names(&grant.scopes);
    Ok(ScopeUpgradeResult::Approved { request_id, device_token, scopes })
}

/// The paired device whose key signed the connection.
async fn owner(call: &Call) -> Outcome<Device> {
    let found = match &call.caller.device_id {
        Some(id) => call.shared.store.devices().find(id).await.map_err(|error| unstored(&error))?,
        None => None,
    };
    found.ok_or_else(|| {
        let message =
            "device scope upgrade requires a paired device; connect with a device identity";
        let error =
            ErrorShape::invalid(message).details(json!({ "code": detail::DEVICE_REQUIRED }));
        error.into()
    })
}

fn checked(names: &[String]) -> Outcome<Vec<Scope>> {
    let different: BTreeSet<_> = names.iter().collect();
    if !SCOPES.contains(&names.len()) || different.len() != names.len() {
        let message =
            "invalid device.scopes.requestUpgrade params: scopes wants 1 to 8 different names";
        return Err(ErrorShape::invalid(message).into());
    }
    let known: Option<Vec<Scope>> = names.iter().map(|name| Scope::parse(name)).collect();
    let unknown = || ErrorShape::invalid("requested scopes contain an unknown operator scope");
    Ok(known.ok_or_else(unknown)?)
}

/// What the program that asks says of itself; where the device is, it was asked when it came in.
fn about(caller: &Caller, device: &Device) -> About {
    let client = &caller.client;
    About {
        display_name: client.display_name.clone(),
        platform: Some(client.platform.clone()),
        device_family: client.device_family.clone(),
        client_id: Some(client.id.clone()),
        client_mode: Some(client.mode.clone()),
        remote_ip: device.about.remote_ip.clone(),
    }
}
