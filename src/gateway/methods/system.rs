//! `system-presence` and `gateway.identity.get`.

use crate::{
    gateway::{
        clock::now_ms,
        dispatch::{Call, Dispatcher, Outcome},
    },
    protocol::{GatewayIdentity, GatewayIdentityGet, NoParams, PresenceEntry, SystemPresence},
};

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on::<SystemPresence, _>(presence);
    dispatcher.on::<GatewayIdentityGet, _>(identity);
}

async fn presence(call: Call, _params: NoParams) -> Outcome<Vec<PresenceEntry>> {
    Ok(call.shared.hub.presence(now_ms()))
}

async fn identity(call: Call, _params: NoParams) -> Outcome<GatewayIdentity> {
    Ok(call.shared.identity.clone())
}
