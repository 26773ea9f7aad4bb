//! `system-presence` and `gateway.identity.get`.

use crate::{
    gateway::{
        clock::now_ms,
        dispatch::{Call, Dispatcher},
    },
    protocol::{
        ErrorShape, GatewayIdentity, GatewayIdentityGet, NoParams, PresenceEntry, SystemPresence,
    },
};

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on::<SystemPresence, _>(presence);
    dispatcher.on::<GatewayIdentityGet, _>(identity);
}

async fn presence(call: Call, _params: NoParams) -> Result<Vec<PresenceEntry>, ErrorShape> {
    Ok(call.shared.hub.presence(now_ms()))
}

async fn identity(call: Call, _params: NoParams) -> Result<GatewayIdentity, ErrorShape> {
    Ok(call.shared.identity.clone())
}
