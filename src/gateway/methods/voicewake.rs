//! `voicewake.*`: the words that wake devices, kept in the store and told to everybody.

use serde_json::Value;

use crate::{
    gateway::{
        Shared,
        beacons::cut,
        dispatch::{Call, Dispatcher, Outcome},
    },
    protocol::{
        ErrorShape, NoParams, VoicewakeGet, VoicewakeRoutingGet, VoicewakeSet, VoicewakeSetParams,
        WakeRoutingReply, WakeWords, event,
    },
    store::Error,
};

/// The words of a gateway whose owner chose none.
const BUILT_IN: [&str; 3] = ["openclaw", "claude", "computer"];
/// How many there may be.
const MOST: usize = 32;
/// The longest, UTF-16 code units.
const LONGEST: usize = 64;

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on::<VoicewakeGet, _>(words);
    dispatcher.on_change::<VoicewakeSet, _>(set);
    dispatcher.on::<VoicewakeRoutingGet, _>(routing);
}

/// What a node is told as soon as it is here.
pub(in crate::gateway) async fn first_words(shared: &Shared) -> Option<WakeWords> {
    // Without the store nobody could set them either; the node asks again when it wants.
    known(shared).await.ok()
}

async fn words(call: Call, _params: NoParams) -> Outcome<WakeWords> {
    known(&call.shared).await
}

async fn set(call: Call, params: VoicewakeSetParams) -> Outcome<WakeWords> {
    let words = normalised(&params.triggers);
    let shared = &call.shared;
    shared.store.wake_words().replace(words.clone()).await.map_err(|error| unstored(&error))?;
    let caller = &call.caller;
    let (device, connection) = (caller.device_id.as_deref(), &caller.connection);
    let client = &caller.client.id;
    tracing::info!(device, connection, client, words = words.len(), "wake words changed");
    let reply = WakeWords { triggers: spoken(words) };
    shared.hub.tell(event::VOICEWAKE_CHANGED, &reply);
    Ok(reply)
}

async fn routing(_call: Call, _params: NoParams) -> Outcome<WakeRoutingReply> {
    Ok(WakeRoutingReply::default())
}

async fn known(shared: &Shared) -> Outcome<WakeWords> {
    let words = shared.store.wake_words().all().await.map_err(|error| unstored(&error))?;
    Ok(WakeWords { triggers: spoken(words) })
}

/// The words, or the built-in ones if there are none.
fn spoken(words: Vec<String>) -> Vec<String> {
    if words.is_empty() { BUILT_IN.map(str::to_owned).to_vec() } else { words }
}

/// As the reference gateway does: no blanks at the ends, nothing empty, the first 32, each cut to
/// 64 code units; what is no text is left out.
fn normalised(words: &[Value]) -> Vec<String> {
    let words = words.iter().filter_map(Value::as_str).map(str::trim);
    let words = words.filter(|word| !word.is_empty()).take(MOST);
    words.map(|word| cut(word, LONGEST)).collect()
}

fn unstored(error: &Error) -> Box<ErrorShape> {
    tracing::warn!(%error, "the wake words were not found or kept");
    ErrorShape::unavailable(error.to_string(), 1_000).into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn words_are_trimmed_cut_and_counted_as_the_reference_gateway_does() {
        let long = "x".repeat(70);
        let words = [json!("  Hey  "), json!(""), json!(long), json!(5), json!(" ")];
        assert_eq!(normalised(&words), ["Hey".to_owned(), "x".repeat(64)]);
        assert_eq!(normalised(&vec![json!("a"); 40]).len(), MOST);
        assert_eq!(spoken(normalised(&[])), BUILT_IN);
    }
}
