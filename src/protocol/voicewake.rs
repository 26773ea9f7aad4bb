//! The methods `voicewake.*`: the words that wake a device, one list for all of them.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Access, NoParams, Scope, method::methods};

methods! {
    /// The wake words.
    VoicewakeGet = "voicewake.get", Access::Holder(Scope::Read), NoParams => WakeWords;
    /// Puts others in their place, and tells everybody.
    VoicewakeSet = "voicewake.set", Access::Holder(Scope::Write), VoicewakeSetParams => WakeWords;
    /// Where each wake word leads.
    VoicewakeRoutingGet = "voicewake.routing.get", Access::Holder(Scope::Read), NoParams => WakeRoutingReply;
}

/// Parameters of `voicewake.set`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct VoicewakeSetParams {
    /// The new words; what is no text is left out.
    pub(crate) triggers: Vec<Value>,
}

/// The wake words; also the payload of the event `voicewake.changed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WakeWords {
    /// At least one.
    pub(crate) triggers: Vec<String>,
}

/// Reply of `voicewake.routing.get`; also the payload of the event `voicewake.routing.changed`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WakeRoutingReply {
    /// Where each leads.
    pub(crate) config: WakeRouting,
}

/// Where wake words lead. The protocol has no method that changes it: every word leads to the
/// session that the client shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WakeRouting {
    /// Of this form.
    pub(crate) version: u32,
    /// Where a word leads that has no route.
    pub(crate) default_target: WakeTarget,
    /// Words with a route of their own.
    pub(crate) routes: Vec<Value>,
    /// When it was last changed, milliseconds since 1970; 0 for never.
    pub(crate) updated_at_ms: u64,
}

impl Default for WakeRouting {
    fn default() -> Self {
        let default_target = WakeTarget { mode: "current".to_owned() };
        Self { version: 1, default_target, routes: Vec::new(), updated_at_ms: 0 }
    }
}

/// Where a word leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WakeTarget {
    /// `current`: the session that the client shows.
    pub(crate) mode: String,
}
