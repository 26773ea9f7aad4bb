//! Requests under an idempotency key: done once, answered alike as often as they come, also by the
//! next process.
//!
//! A request is noted before anything is done, and its answer before it is given. So after a crash
//! in between nobody does it again: what came of it is not known, and that is what is said.
//!
//! What has begun goes on when its client goes, with one exception: a command on a node that can stop
//! it is stopped, and its answer is then that it was (`ABORTED`). A telephone cannot; what it did is
//! kept.

use ring::digest::{Context, SHA256};

use super::{
    caller::Caller,
    clock::now_ms,
    dispatch::{Call, Outcome, Written, encode},
};
use crate::{
    protocol::{ErrorShape, code},
    store::{Error, KeptAnswer, LONGEST_ANSWER, Repeatable, Repeated},
};

/// The longest key, bytes.
const LONGEST_KEY: usize = 256;
/// How long a client should wait that cannot be served now, milliseconds.
const RETRY_MS: u64 = 500;

/// A request that may come again.
pub(super) struct Repeat<'a> {
    /// The method.
    pub(super) method: &'static str,
    /// What the client chose.
    pub(super) key: &'a str,
    /// What is asked, written out.
    pub(super) request: &'a str,
    /// What is done while the same is under way.
    pub(super) meanwhile: Meanwhile,
}

/// What is done with a repetition while the first is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meanwhile {
    /// It is run as well: the work itself knows that it is the same.
    Join,
    /// It is asked to come again.
    Wait,
}

/// How a request ended.
pub(super) enum Ended {
    /// It was done, or has failed for good: whoever repeats it hears the same.
    Final(Outcome<String>),
    /// Nothing was done: the key is free again.
    Void(Box<ErrorShape>),
}

/// Does `run` unless it was done before under this key, and answers alike. What has begun comes to
/// its end even when the client goes.
pub(super) async fn once(
    call: &Call,
    repeat: Repeat<'_>,
    run: impl Future<Output = Ended> + Send + 'static,
) -> Outcome<Written> {
    let Repeat { method, key, request, meanwhile } = repeat;
    if key.is_empty() || key.len() > LONGEST_KEY {
        let message =
            format!("invalid {method} params: idempotencyKey wants 1 to {LONGEST_KEY} bytes");
        return Err(ErrorShape::invalid(message).into());
    }
    let shared = &call.shared;
    let asked = Repeatable {
        id: digest(&[&principal(&call.caller), method, key]),
        request: digest(&[request]),
        boot: shared.boot_id.clone(),
    };
    let id = asked.id;
    let begun = shared.store.answers().begin(asked, now_ms()).await.map_err(|e| unstored(&e))?;
    match begun {
        Repeated::New => {}
        Repeated::UnderWay if meanwhile == Meanwhile::Join => {}
        Repeated::UnderWay => {
            return Err(ErrorShape::unavailable("the same is under way", RETRY_MS).into());
        }
        Repeated::Unknown => return Err(unknown().into()),
        Repeated::Answered(answer) => return given_again(answer),
        Repeated::Taken => {
            let message = "the idempotency key was used for something else";
            return Err(ErrorShape::invalid(message).into());
        }
    }
    let store = shared.store.clone();
    let is_first = begun == Repeated::New;
    let finish = async move {
        let kept = |error: Error| {
            // It was done, and the client hears so; only a repetition would not.
            tracing::error!(%error, method, "an answer was not kept");
        };
        match run.await {
            Ended::Final(outcome) => {
                if let Err(error) = store.answers().end(id, answer(&outcome)).await {
                    kept(error);
                }
                outcome.map(Written::Own)
            }
            Ended::Void(error) => {
                if is_first && let Err(error) = store.answers().forget(id).await {
                    kept(error);
                }
                Err(error)
            }
        }
    };
    let finished = shared.finishing.spawn(finish).await;
    finished
        .unwrap_or_else(|_| Err(ErrorShape::unavailable("the gateway is stopping", 1_000).into()))
}

/// Who asks, as long as the same one may ask again: a device, or whoever has the gateway's secret.
pub(super) fn principal(caller: &Caller) -> String {
    caller.device_id.as_ref().map_or_else(|| "secret".to_owned(), |id| format!("device {id}"))
}

fn answer(outcome: &Outcome<String>) -> KeptAnswer {
    let (is_error, text) = match outcome {
        Ok(text) => (false, text.clone()),
        Err(error) => (true, encode(error).unwrap_or_default()),
    };
    if text.len() <= LONGEST_ANSWER {
        return KeptAnswer { is_error, text };
    }
    let message = "this was done before, and its answer was too long to be kept";
    let error = ErrorShape::new(code::UNAVAILABLE, message);
    KeptAnswer { is_error: true, text: encode(&error).unwrap_or_default() }
}

fn given_again(answer: KeptAnswer) -> Outcome<Written> {
    if !answer.is_error {
        return Ok(Written::Own(answer.text));
    }
    let error = serde_json::from_str::<ErrorShape>(&answer.text);
    Err(error.unwrap_or_else(|_| unknown()).into())
}

fn unknown() -> ErrorShape {
    ErrorShape::new(
        code::UNAVAILABLE,
        "the gateway ended while this was under way, and whether it was done is not known; look, \
         and ask again under a new idempotency key",
    )
    .details(serde_json::json!({ "code": "OUTCOME_UNKNOWN" }))
}

fn unstored(error: &Error) -> Box<ErrorShape> {
    tracing::warn!(%error, "a request was not noted");
    ErrorShape::unavailable(error.to_string(), RETRY_MS).into()
}

/// A digest of texts that tells where each ends.
pub(super) fn digest(texts: &[&str]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for text in texts {
        context.update(&(text.len() as u64).to_be_bytes());
        context.update(text.as_bytes());
    }
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}
