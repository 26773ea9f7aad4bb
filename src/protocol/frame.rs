//! The three frames: request, response, event (`RequestFrame`, `ResponseFrame`, `EventFrame`).

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::StateVersion;

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

/// A call of `method`; its answer carries the same `id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Chosen by the caller, unique on its connection.
    pub(crate) id: String,
    /// `health`, `chat.send`, …
    pub(crate) method: String,
    /// The method's parameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) params: Option<Value>,
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
    pub(crate) error: Option<ErrorShape>,
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
    /// The answer that carries a reply.
    pub(crate) fn success(id: impl Into<String>, payload: Value) -> Self {
        Self { id: id.into(), ok: true, payload: Some(payload), error: None }
    }

    /// The answer that says why there is no reply.
    pub(crate) fn failure(id: impl Into<String>, error: ErrorShape) -> Self {
        Self { id: id.into(), ok: false, payload: None, error: Some(error) }
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
