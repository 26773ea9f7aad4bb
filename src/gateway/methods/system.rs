//! Who is here (`system-presence`, `system-event`, `users.self`), and the gateway's own key.

use super::{
    catalog::{configured, main_session, roster},
    device::unstored,
};
use crate::{
    gateway::{
        clock::now_ms,
        dispatch::{Call, Dispatcher, Outcome, Written, encode},
        repeats::{Ended, Meanwhile, Repeat, once},
    },
    protocol::{
        Done, ErrorShape, GatewayIdentity, GatewayIdentityGet, NoParams, Nobody, PresenceEntry,
        Strictly, SystemEvent, SystemEventParams, SystemPresence, UsersSelf, code,
    },
};

/// The longest that anything may be but the text, of which the beginning is kept; bytes.
const LONGEST: usize = 512;
/// How the line of a program begins that tells of itself.
const PROGRAM: &str = "Node:";

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on::<SystemPresence, _>(presence);
    dispatcher.on::<GatewayIdentityGet, _>(identity);
    dispatcher.on_written::<SystemEvent, _>(event);
    dispatcher.on::<UsersSelf, _>(user);
}

async fn presence(call: Call, _params: NoParams) -> Outcome<Vec<PresenceEntry>> {
    Ok(call.shared.hub.presence(now_ms()))
}

async fn identity(call: Call, _params: NoParams) -> Outcome<GatewayIdentity> {
    Ok(call.shared.identity.clone())
}

async fn user(_call: Call, _params: Strictly) -> Outcome<Nobody> {
    let message = "users.self requires an authenticated user";
    Err(ErrorShape::new(code::FORBIDDEN, message).into())
}

async fn event(call: Call, params: SystemEventParams) -> Outcome<Written> {
    let Some(key) = params.idempotency_key.clone() else {
        // Once begun it comes to its end, so that what is stored is what is shown.
        let finishing = call.shared.finishing.clone();
        let told = finishing.spawn(async move { tell(&call, &params).await }).await;
        told.unwrap_or_else(|_| {
            Err(ErrorShape::unavailable("the gateway is stopping", 1_000).into())
        })?;
        return encode(&Done { ok: true }).map(Written::Own);
    };
    let request = encode(&params)?;
    let repeat =
        Repeat { method: "system-event", key: &key, request: &request, meanwhile: Meanwhile::Wait };
    let run = {
        let call = call.clone();
        async move {
            match tell(&call, &params).await {
                Ok(()) => Ended::Final(encode(&Done { ok: true })),
                Err(error) => Ended::Void(error),
            }
        }
    };
    once(&call, repeat, run).await
}

/// Shows who tells, and lets the session's next turn read what is news.
async fn tell(call: &Call, params: &SystemEventParams) -> Outcome<()> {
    let shared = &call.shared;
    if let Some(name) = too_long(params) {
        let message = format!("invalid system-event params: {name} wants at most {LONGEST} bytes");
        return Err(ErrorShape::invalid(message).into());
    }
    let text = params.text.trim();
    if text.is_empty() {
        return Err(ErrorShape::invalid("text required").into());
    }
    let is_program = text.starts_with(PROGRAM);
    if params.wake == Some(true) {
        return Err(if is_program {
            ErrorShape::invalid("wake is not supported for node presence events")
        } else {
            ErrorShape::new(code::UNAVAILABLE, "this gateway runs no agent that could be woken")
        }
        .into());
    }
    let session = params.session_key.as_deref().map(str::trim).filter(|key| !key.is_empty());
    let session = match session {
        Some(session) => session.to_owned(),
        None => main_session(&roster(&configured(&shared.paths).await?)),
    };
    let (store, now) = (&shared.store, now_ms());
    let told = shared.hub.hear(params, now);
    let kept = if is_program {
        shared.news.tell_of(store, &session, &told, now).await
    } else {
        shared.news.tell(store, &session, text, now).await
    };
    Ok(kept.map_err(|error| unstored(&error))?)
}

/// The first field that is longer than anything is kept of a program or a session.
fn too_long(params: &SystemEventParams) -> Option<&'static str> {
    let one = [
        ("sessionKey", &params.session_key),
        ("deviceId", &params.device_id),
        ("instanceId", &params.instance_id),
        ("host", &params.host),
        ("ip", &params.ip),
        ("mode", &params.mode),
        ("version", &params.version),
        ("platform", &params.platform),
        ("deviceFamily", &params.device_family),
        ("modelIdentifier", &params.model_identifier),
        ("reason", &params.reason),
    ];
    let many = [("roles", &params.roles), ("scopes", &params.scopes), ("tags", &params.tags)];
    let is_long = |text: &String| text.len() > LONGEST;
    let one = one.into_iter().filter(|(_, text)| text.as_ref().is_some_and(is_long));
    let many = many.into_iter().filter(|(_, texts)| texts.iter().any(is_long));
    one.map(|(name, _)| name).chain(many.map(|(name, _)| name)).next()
}
