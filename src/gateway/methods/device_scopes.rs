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
        clock::now_ms,
        dispatch::{Call, Dispatcher, Outcome},
        pairing::{file, token_of},
        upgrades::{Decision, End, Upgrade},
    },
    protocol::{
        DeviceScopesRequest, DeviceScopesWait, ErrorShape, Role, Scope, ScopeUpgradeRegistration,
        ScopeUpgradeRequest, ScopeUpgradeResult, ScopeUpgradeWait, detail,
    },
    store::{Asked, Device, Grant},
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
        about: caller.about.clone(),
        device_id: device.id,
        public_key: device.public_key,
        role: Role::Operator,
        scopes,
    };
    let request = file(shared, asked, now).await?;
    shared.upgrades.keep(&request, now).ok_or_else(stopping)?;
    let (from, to) = (names(&caller.scopes).join(" "), params.scopes.join(" "));
    tracing::info!(device = request.asked.device_id, from, to, "a device that is in asks for more");
    Ok(ScopeUpgradeRegistration { request_id: request.id })
}

async fn wait(call: Call, params: ScopeUpgradeWait) -> Outcome<ScopeUpgradeResult> {
    let request_id = params.request_id;
    let device = owner(&call).await?.id;
    let found = call.shared.upgrades.find(&request_id, &device, now_ms());
    let upgrade = found.ok_or_else(|| ErrorShape::invalid("scope upgrade expired or not found"))?;
    let wanted = upgrade.scopes.clone();
    match ended(&call, &request_id, upgrade).await? {
        End::Decided(Decision::Approved) => approved(&call, request_id, &wanted).await,
        End::Decided(Decision::Rejected) => Ok(ScopeUpgradeResult::Rejected { request_id }),
        End::Expired => Ok(ScopeUpgradeResult::Expired { request_id }),
    }
}

/// Waits for the end of a request, for as long as it stands in the store: clocks are put back,
/// machines sleep, and the device may ask for the same again meanwhile.
async fn ended(call: &Call, id: &str, mut upgrade: Upgrade) -> Outcome<End> {
    let (upgrades, store) = (&call.shared.upgrades, &call.shared.store);
    let mut is_due = false;
    loop {
        let told = *upgrade.end.borrow();
        if let Some(end) = told {
            return Ok(end);
        }
        let now = now_ms();
        let request = store.devices().request(id, now).await.map_err(|error| unstored(&error))?;
        let Some(request) = request else { return untold(call, id, &upgrade, is_due).await };
        upgrade.expires_at = request.expires_at;
        let left = Duration::from_millis(request.expires_at.saturating_sub(now));
        // Asking again is a change as well: how long the request stands is looked up anew.
        let waited = timeout(left, upgrade.end.changed()).await;
        // An error is that it was forgotten, as it is while a machine sleeps.
        let waited = waited.map(|told| told.is_ok());
        is_due = waited.is_err();
        if waited == Ok(false) {
            upgrade = upgrades.keep(&request, now_ms()).ok_or_else(stopping)?;
        }
    }
}

/// How a request ended that is gone, while nobody was told: somebody approved it just before it
/// was waited for, or its time is over.
async fn untold(call: &Call, id: &str, upgrade: &Upgrade, is_due: bool) -> Outcome<End> {
    let (device, now) = (owner(call).await?, now_ms());
    let end = if granted(&device, &upgrade.scopes).is_some() {
        End::Decided(Decision::Approved)
    } else if is_due || upgrade.expires_at <= now {
        End::Expired
    } else {
        End::Decided(Decision::Rejected)
    };
    call.shared.upgrades.ended(id, end, now);
    // Somebody may have been a moment quicker.
    let told = *upgrade.end.borrow();
    Ok(told.unwrap_or(end))
}

/// What a device holds as an operator, if that is all that it wanted.
fn granted<'a>(device: &'a Device, wanted: &[Scope]) -> Option<&'a Grant> {
    let grant = device.grant(Role::Operator).filter(|grant| grant.revoked_at.is_none())?;
    wanted.iter().all(|scope| scope.is_within(&grant.scopes)).then_some(grant)
}

/// What an approved device gets; turned down if its rights were taken back meanwhile.
async fn approved(
    call: &Call,
    request_id: String,
    wanted: &[Scope],
) -> Outcome<ScopeUpgradeResult> {
    let device = owner(call).await?;
    let Some(grant) = granted(&device, wanted) else {
        return Ok(ScopeUpgradeResult::Rejected { request_id });
    };
    let issued = token_of(&call.shared, &device, Role::Operator).ok_or_else(|| {
        let message = "the scopes are approved; connect again with the gateway's secret";
        ErrorShape::unavailable(message, RETRY_MS)
    })?;
    let scopes = names(&grant.scopes);
    Ok(ScopeUpgradeResult::Approved { request_id, device_token: issued.token, scopes })
}

fn stopping() -> ErrorShape {
    ErrorShape::unavailable("the gateway is stopping", RETRY_MS)
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
        let error = ErrorShape::invalid(message).details(json!({
            "code": detail::DEVICE_REQUIRED,
            "recommendedNextStep": "reopen_control_ui_securely",
        }));
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
