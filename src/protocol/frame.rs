//! The three frames: request, response, event (`RequestFrame`, `ResponseFrame`, `EventFrame`).

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, value::RawValue};

use super::StateVersion;

/// The most characters of `traceparent`.
pub(super) const LONGEST_TRACE: usize = 128;
/// The most characters of `expectedProfileId`.
pub(super) const LONGEST_PROFILE: usize = 128;

/// Any frame; `type` tells which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum Frame {
    /// A call.
    #[serde(rename = "req")]
    Request(Request),
    /// Its answer.
    #[serde(rename = "res")]
    Response(Response),
    /// News nobody asked for by id.
    #[serde(rename = "event")]
    Event(Event),
}

/// A call of `method`; its answer carries the same `id`. Of fields that the schema does not have there
/// are none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Request {
    /// Chosen by the caller, unique on its connection.
    pub(crate) id: String,
    /// `health`, `chat.send`, …
    pub(crate) method: String,
    /// The method's parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) params: Option<Value>,
    /// Where the caller's trace goes on (W3C), which nobody does here.
    #[serde(default, deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    pub(crate) traceparent: Option<Trace>,
    /// The user's profile that it is meant for, which a `connect` may name in vain.
    #[serde(default, deserialize_with = "there", skip_serializing_if = "Option::is_none")]
    expected_profile_id: Option<Profile>,
}

impl Request {
    /// The call of a method, without a trace.
    pub(crate) fn new(id: impl Into<String>, method: &str, params: Option<Value>) -> Self {
        Self {
            id: id.into(),
            method: method.to_owned(),
            params,
            traceparent: None,
            expected_profile_id: None,
        }
    }
}

/// A trace's text, 128 characters at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Trace(String);

impl TryFrom<String> for Trace {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let is_short = text.chars().nth(LONGEST_TRACE).is_none();
        if is_short { Ok(Self(text)) } else { Err("traceparent is too long") }
    }
}

/// The id of a user's profile, 1 to 128 characters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Profile(String);

impl TryFrom<String> for Profile {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = !text.is_empty() && text.chars().nth(LONGEST_PROFILE).is_none();
        if fits { Ok(Self(text)) } else { Err("expectedProfileId has 1 to 128 characters") }
    }
}

/// What is there has to be one: null is none.
fn there<'de, T: Deserialize<'de>, D: Deserializer<'de>>(value: D) -> Result<Option<T>, D::Error> {
    T::deserialize(value).map(Some)
}

/// A request as it stands in its text: its parameters are read once it is known what they should
/// be.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked<'a> {
    /// `req`.
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    /// Chosen by the caller, unique on its connection.
    #[serde(borrow)]
    pub(crate) id: Cow<'a, str>,
    /// `health`, `chat.send`, …
    #[serde(borrow)]
    pub(crate) method: Cow<'a, str>,
    /// The method's parameters; `None` for null, too.
    #[serde(default, borrow)]
    pub(crate) params: Option<&'a RawValue>,
    /// As in [`Request`].
    #[serde(default, deserialize_with = "there", rename = "traceparent")]
    _trace: Option<Trace>,
    /// The user's profile that it is meant for. OpenClaw has the field and the published schema of
    /// its client does not: a client may say it, so it is heard.
    #[serde(default, deserialize_with = "there", rename = "expectedProfileId")]
    pub(crate) expected_profile: Option<Profile>,
}

impl<'a> Asked<'a> {
    /// Reads a request; `None` for what is no request frame.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|asked: &Self| asked.kind == "req")
    }
}

/// The text of the answer with a reply that is written already.
pub(crate) fn success_text(id: &str, payload: &str) -> String {
    let mut text = String::with_capacity(payload.len() + id.len() + 64);
    text.push_str(r#"{"type":"res","id":"#);
    text.push_str(&Value::from(id).to_string());
    text.push_str(r#","ok":true,"payload":"#);
    text.push_str(payload);
    text.push('}');
    text
}

/// The answer to the request with the same `id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Response {
    /// The request's id.
    pub(crate) id: String,
    /// Whether `payload` or `error` counts.
    pub(crate) ok: bool,
    /// The reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<Value>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<Box<ErrorShape>>,
}

/// Why a request failed (`ErrorShape`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorShape {
    /// `INVALID_REQUEST`, `UNAVAILABLE`, `FORBIDDEN`, …
    pub(crate) code: String,
    /// For people.
    pub(crate) message: String,
    /// For programs: often an object with a `code` and a `recommendedNextStep`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<Value>,
    /// Whether the same request may succeed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retryable: Option<bool>,
    /// How long to wait before that, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) retry_after_ms: Option<u64>,
}

impl Response {
    /// The answer that carries a reply; the gateway writes its own with [`success_text`].
    #[cfg(test)]
    pub(crate) fn success(id: impl Into<String>, payload: Value) -> Self {
        Self { id: id.into(), ok: true, payload: Some(payload), error: None }
    }

    /// The answer that says why there is no reply.
    pub(crate) fn failure(id: impl Into<String>, error: impl Into<Box<ErrorShape>>) -> Self {
        Self { id: id.into(), ok: false, payload: None, error: Some(error.into()) }
    }
}

/// News from the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Event {
    /// `tick`, `presence`, `shutdown`, …
    pub(crate) event: String,
    /// What happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<Value>,
    /// Counts the events of one connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) seq: Option<u64>,
    /// The versions of presence and health that the event leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) state_version: Option<StateVersion>,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::de::DeserializeOwned;

    use super::*;
    use crate::protocol::{
        Challenge, GatewayIdentity, Health, HelloOk, PresenceEntry, VERSION, close, detail,
    };

    /// A frame as the reference gateway sent it.
    macro_rules! captured {
        ($name:literal) => {
            include_str!(concat!("../../fixtures/frames/openclaw-2026.9.6/", $name, ".json"))
        };
    }

    /// A refusal as the reference gateway sent it, and the close that followed.
    #[derive(Deserialize)]
    struct Refused {
        frame: Frame,
        close: u16,
    }

    fn reply<T: DeserializeOwned>(text: &str) -> T {
        let Frame::Response(response) = serde_json::from_str(text).unwrap() else {
            panic!("not a response: {text}")
        };
        serde_json::from_value(response.payload.unwrap()).unwrap()
    }

    #[test]
    fn reads_what_the_reference_gateway_says() {
        let challenge: Frame = serde_json::from_str(captured!("connect.challenge")).unwrap();
        let Frame::Event(Event { payload: Some(payload), seq: None, .. }) = challenge else {
            panic!("not a challenge")
        };
        assert!(serde_json::from_value::<Challenge>(payload).unwrap().ts > 0);
        let hello: HelloOk = reply(captured!("hello-ok"));
        assert_eq!((hello.protocol, hello.policy.max_payload), (VERSION, 26_214_400));
        assert!(hello.auth.device_token.is_some());
        assert_eq!(reply::<Health>(captured!("health")).ok, Some(true));
        assert_eq!(reply::<GatewayIdentity>(captured!("gateway.identity.get")).device_id.len(), 64);
        let presence: Vec<PresenceEntry> = reply(captured!("system-presence"));
        assert_eq!(presence.first().and_then(|entry| entry.mode.as_deref()), Some("gateway"));
    }

    #[test]
    fn a_request_and_its_answer_are_read_and_written_as_the_frames_are() {
        let text = r#"{"type":"req","id":"a\"1","method":"health","params":{"probe":true}}"#;
        let asked = Asked::read(text).unwrap();
        assert_eq!((&*asked.id, &*asked.method), ("a\"1", "health"));
        assert_eq!(asked.params.map(RawValue::get), Some(r#"{"probe":true}"#));
        let null = Asked::read(r#"{"type":"req","id":"1","method":"m","params":null}"#);
        assert!(null.unwrap().params.is_none());
        for wrong in [
            r#"{"type":"res","id":"1","method":"m"}"#,
            r#"{"type":"req","id":"1"}"#,
            r#"{"type":"req","id":"1","method":"m","also":1}"#,
            r#"{"type":"req","id":"1","method":"m","traceparent":1}"#,
            r#"{"type":"req","id":"1","method":"m","traceparent":null}"#,
            "{",
        ] {
            assert!(Asked::read(wrong).is_none(), "{wrong}");
            assert!(serde_json::from_str::<Request>(wrong).is_err(), "{wrong}");
        }
        let traced = |length: usize| {
            format!(
                r#"{{"type":"req","id":"1","method":"m","traceparent":"{}"}}"#,
                "é".repeat(length)
            )
        };
        let read = |text: &str| serde_json::from_str::<Frame>(text).is_ok();
        assert!(Asked::read(&traced(128)).is_some() && read(&traced(128)));
        assert!(Asked::read(&traced(129)).is_none() && !read(&traced(129)));
        let payload = serde_json::json!({"ok": true});
        let frame = Frame::Response(Response::success("a\"1", payload.clone()));
        let whole = serde_json::to_string(&frame).unwrap();
        assert_eq!(success_text("a\"1", &payload.to_string()), whole);
    }

    #[test]
    fn our_codes_are_the_reference_gateways() {
        let refused: BTreeMap<String, Refused> =
            serde_json::from_str(captured!("refusals")).unwrap();
        for (case, code, close) in [
            ("wrong token", detail::TOKEN_MISMATCH, close::POLICY),
            ("no token, with a device", detail::TOKEN_MISSING, close::POLICY),
            ("version 3 only", detail::PROTOCOL_MISMATCH, close::PROTOCOL),
            ("a node without a device", detail::DEVICE_REQUIRED, close::POLICY),
            ("a node that is not approved", detail::PAIRING_REQUIRED, close::POLICY),
        ] {
            let refused = &refused[case];
            let Frame::Response(Response { error: Some(error), .. }) = &refused.frame else {
                panic!("{case}: not an error")
            };
            assert_eq!(error.details.as_ref().unwrap()["code"], code, "{case}");
            assert_eq!(refused.close, close, "{case}");
        }
        let Frame::Response(ours) = serde_json::from_str(captured!("missing-scope")).unwrap()
        else {
            panic!("not a response")
        };
        assert_eq!(*ours.error.unwrap(), ErrorShape::missing_scope(crate::protocol::Scope::Read));
    }
}
