//! `device.pair.setupCode` and `device.pair.setupStatus`: codes that pair a device without asking
//! anybody again.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::device::unstored;
use crate::{
    gateway::{
        clock::now_ms,
        device_token,
        dispatch::{Call, Dispatcher, Outcome},
        joining, picture,
        settings::Guard,
        setup::{Access, completion},
    },
    protocol::{
        DevicePairSetupCode, DevicePairSetupCodeParams, DevicePairSetupStatus,
        DevicePairSetupStatusParams, ErrorShape, IssuedSetupCode, SetupPayload, SetupStatus,
    },
    secret::Secret,
    store::{JoinOffer, SetupCode},
};

/// How long a setup code is good, milliseconds.
const SETUP_LIFE_MS: u64 = 600_000;

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on_change::<DevicePairSetupCode, _>(setup_code);
    dispatcher.on::<DevicePairSetupStatus, _>(setup_status);
}

async fn setup_code(call: Call, params: DevicePairSetupCodeParams) -> Outcome<IssuedSetupCode> {
    let (shared, now) = (&call.shared, now_ms());
    let auth = match &shared.live().guard {
        Guard::Password(_) => "password",
        Guard::Proxy(rules) if rules.has_password() => "password",
        Guard::Token(_) | Guard::OwnToken => "token",
        Guard::Open | Guard::Proxy(_) => {
            let message = "setup codes need a gateway with gateway.auth.mode token or password";
            return Err(ErrorShape::invalid(message).into());
        }
    };
    let wanted = wanted(&params)?;
    let url = joining::gateway_url(params.public_url.as_deref()).map_err(ErrorShape::invalid)?;
    let access = wanted.at(&url);
    let setup_id = uuid::Uuid::new_v4().to_string();
    let token = shared.mint.setup_token(&setup_id);
    let expires_at_ms = now + SETUP_LIFE_MS;
    let code = SetupCode {
        id: setup_id.clone(),
        access: access.name().to_owned(),
        expires_at: expires_at_ms,
        device_id: None,
        redeemed_at: None,
        delivered_at: None,
    };
    let digest = device_token::digest(token.expose());
    let name = (params.join_url == Some(true)).then(joining::new_name);
    let offer = name.as_deref().and_then(joining::name_digest);
    let offer = offer.map(|name_digest| JoinOffer { name_digest, url: url.clone() });
    let kept = shared.store.devices().keep_code(code, digest, offer, now).await;
    if !kept.map_err(|error| unstored(&error))? {
        let message = "too many join codes wait to be fetched";
        return Err(ErrorShape::unavailable(message, 60_000).into());
    }
    let payload = SetupPayload { url: url.clone(), bootstrap_token: token, expires_at_ms };
    let text = serde_json::to_string(&payload)
        .map_err(|error| ErrorShape::unavailable(error.to_string(), 1_000))?;
    let setup_code = Secret::new(URL_SAFE_NO_PAD.encode(&text));
    let is_shown = params.include_qr != Some(false);
    let picture = is_shown.then(|| picture::data_url(setup_code.expose())).flatten();
    let join_url = name.map(|name| joining::join_url(&url, &name));
    Ok(IssuedSetupCode {
        setup_id,
        setup_code,
        join_url,
        qr_data_url: picture.map(Secret::new),
        gateway_url: url,
        auth: auth.to_owned(),
        url_source: "request.publicUrl".to_owned(),
        access: access.name().to_owned(),
        access_downgraded: (access != wanted).then_some(true),
        expires_at_ms,
    })
}

/// What the code is to make of a device: whoever asks for no less may do everything himself.
fn wanted(params: &DevicePairSetupCodeParams) -> Outcome<Access> {
    match (params.bootstrap_profile.as_deref(), params.join_url) {
        (None | Some("node"), Some(true)) | (Some("node"), _) => Ok(Access::Node),
        (_, Some(true)) => {
            let message = "a join URL is for a node: bootstrapProfile \"node\", or none";
            Err(ErrorShape::invalid(message).into())
        }
        (Some("limited"), _) => Ok(Access::Limited),
        (None, _) => Ok(Access::Full),
        (Some(_), _) => {
            let message =
                "invalid device.pair.setupCode params: bootstrapProfile wants limited or node";
            Err(ErrorShape::invalid(message).into())
        }
    }
}

async fn setup_status(call: Call, params: DevicePairSetupStatusParams) -> Outcome<SetupStatus> {
    let devices = call.shared.store.devices();
    let code = devices.code_of(&params.setup_id).await.map_err(|error| unstored(&error))?;
    let Some(code) = code else { return Ok(SetupStatus::default()) };
    let device = match &code.device_id {
        Some(id) => devices.find(id).await.map_err(|error| unstored(&error))?,
        None => None,
    };
    let is_delivered = code.delivered_at.is_some();
    let known = completion(code, device.as_ref());
    let (completion, delivery_uncertain) = if is_delivered { (known, None) } else { (None, known) };
    Ok(SetupStatus { completion, delivery_uncertain })
}
