//! From a request to its answer: lookup, scope, parameters, time and error frames, once for all.

use std::{
    collections::HashMap,
    future::{Ready, ready},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Either},
};
use serde_json::{Value, value::RawValue};
use tracing::Instrument;

use super::{
    Shared,
    caller::Caller,
    methods,
    tally::{Answers, Tally, UNKNOWN},
};
use crate::protocol::{
    Access, Asked, ErrorShape, Frame, Method, Object, Response, Row, success_text,
};

/// What a handler knows of its caller and of the gateway.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) shared: Arc<Shared>,
    pub(super) caller: Arc<Caller>,
}

/// A reply, or the error frame in its place.
pub(super) type Outcome<T> = Result<T, Box<ErrorShape>>;

/// A reply as it goes out: written once, never taken apart again.
pub(super) enum Written {
    /// Of one request.
    Own(String),
    /// Of many.
    Shared(Arc<RawValue>),
}

impl Written {
    fn text(&self) -> &str {
        match self {
            Self::Own(text) => text,
            Self::Shared(text) => text.get(),
        }
    }
}

type Reply = BoxFuture<'static, Outcome<Written>>;
/// Takes the parameters as they came.
type Handler = Box<dyn Fn(Call, &str) -> Reply + Send + Sync>;

/// The text of an answer: there at once, as of most methods, or under way.
pub(super) type Answer = Either<Ready<String>, BoxFuture<'static, String>>;

/// The methods with their handlers.
pub(super) struct Dispatcher {
    handlers: HashMap<&'static str, Entry>,
}

/// One method.
struct Entry {
    row: Row,
    handler: Handler,
    /// What is counted of its replies, from the first one on.
    replies: OnceLock<Answers>,
}

impl Dispatcher {
    /// Every method that we have.
    pub(super) fn new() -> Self {
        let mut dispatcher = Self { handlers: HashMap::new() };
        methods::register(&mut dispatcher);
        dispatcher
    }

    /// Takes up the handler of a method.
    pub(super) fn on<M, F>(&mut self, handler: fn(Call, M::Params) -> F)
    where
        M: Method + 'static,
        F: Future<Output = Outcome<M::Reply>> + Send + 'static,
    {
        self.take_up::<M>(Box::new(move |call, params| {
            let reply = handler(call, params);
            Box::pin(async move { encode(&reply.await?).map(Written::Own) })
        }));
    }

    /// The same of one that changes what is kept: once begun it comes to its end, whether or not
    /// its caller waits for that, so that nothing is taken away by half.
    pub(super) fn on_change<M, F>(&mut self, handler: fn(Call, M::Params) -> F)
    where
        M: Method + 'static,
        M::Reply: Send,
        F: Future<Output = Outcome<M::Reply>> + Send + 'static,
    {
        self.take_up::<M>(Box::new(move |call, params| {
            let finishing = call.shared.finishing.clone();
            let change = handler(call, params);
            Box::pin(async move {
                let ended = finishing.spawn(change.in_current_span()).await;
                let stopping =
                    |_| Err(ErrorShape::unavailable("the gateway is stopping", 1_000).into());
                encode(&ended.unwrap_or_else(stopping)?).map(Written::Own)
            })
        }));
    }

    /// The same of one whose reply may be written already.
    pub(super) fn on_written<M, F>(&mut self, handler: fn(Call, M::Params) -> F)
    where
        M: Method + 'static,
        F: Future<Output = Outcome<Written>> + Send + 'static,
    {
        self.take_up::<M>(Box::new(move |call, params| Box::pin(handler(call, params))));
    }

    fn take_up<M: Method + 'static>(
        &mut self,
        handler: Box<dyn Fn(Call, M::Params) -> Reply + Send + Sync>,
    ) {
        let wrapped = move |call: Call, params: &str| -> Reply {
            match serde_json::from_str::<Object<M::Params>>(params) {
                Ok(Object(params)) => handler(call, params),
                Err(error) => {
                    let why = flaw::<M::Params>(params).unwrap_or_else(|| error.to_string());
                    let message = format!("invalid {} params: {why}", M::ROW.name);
                    Box::pin(ready(Err(ErrorShape::invalid(message).into())))
                }
            }
        };
        let handler = Box::new(wrapped);
        let entry = Entry { row: M::ROW, handler, replies: OnceLock::new() };
        self.handlers.insert(M::ROW.name, entry);
    }

    /// The name of `method` as the table has it, for whoever counts.
    pub(super) fn known(&self, method: &str) -> &'static str {
        self.handlers.get_key_value(method).map_or(UNKNOWN, |(name, _)| name)
    }

    /// Answers one request.
    pub(super) fn answer(&self, call: &Call, asked: Asked<'_>) -> Answer {
        let Asked { id, method, params, expected_profile, .. } = asked;
        let id = id.into_owned();
        let tally = &call.shared.tally;
        let refuse = |id: String, error: ErrorShape| {
            tally.failed(self.known(&method), &error, Duration::ZERO);
            Either::Left(ready(failure_text(id, error)))
        };
        if expected_profile.is_some() {
            return refuse(id, ErrorShape::other_profile());
        }
        if method == "connect" {
            let error = ErrorShape::invalid("connect is only valid as the first request");
            return refuse(id, error);
        }
        let Some(Entry { row, handler, replies }) = self.handlers.get(&*method) else {
            return refuse(id, ErrorShape::invalid(format!("unknown method: {method}")));
        };
        let role = call.caller.role;
        if !row.access.is_for(role) {
            return refuse(id, ErrorShape::invalid(format!("unauthorized role: {role}")));
        }
        if let Access::Holder(scope) = row.access
            && !call.caller.holds(scope)
        {
            return refuse(id, ErrorShape::missing_scope(scope));
        }
        let span = tracing::debug_span!("request", method = row.name, id);
        let params = params.map_or("{}", RawValue::get);
        let (mut reply, since) = (handler(call.clone(), params), Instant::now());
        let method = row.name;
        if let Some(outcome) = span.in_scope(|| (&mut reply).now_or_never()) {
            let replies = replies.get_or_init(|| tally.answers(method));
            let text =
                span.in_scope(|| text(&id, outcome, since.elapsed(), (method, tally), replies));
            return Either::Left(ready(text));
        }
        let tally = Arc::clone(tally);
        let answer = async move {
            let outcome = reply.await;
            text(&id, outcome, since.elapsed(), (method, &tally), &tally.answers(method))
        };
        Either::Right(Box::pin(answer.instrument(span)))
    }
}

/// Counts an answer and writes it.
fn text(
    id: &str,
    outcome: Outcome<Written>,
    took: Duration,
    (method, tally): (&'static str, &Tally),
    replies: &Answers,
) -> String {
    let micros = took.as_micros();
    match outcome {
        Ok(payload) => {
            replies.count(took);
            tracing::debug!(micros, "answered");
            success_text(id, payload.text())
        }
        Err(error) => {
            tally.failed(method, &error, took);
            tracing::debug!(micros, code = error.code, "answered with an error");
            failure_text(id, error)
        }
    }
}

/// The text of the answer that says why there is no reply.
pub(super) fn failure_text(id: impl Into<String>, error: impl Into<Box<ErrorShape>>) -> String {
    let frame = Frame::Response(Response::failure(id, error));
    serde_json::to_string(&frame).unwrap_or_else(|error| {
        tracing::error!(%error, "an error frame cannot be written");
        String::new()
    })
}

/// Writes a reply.
pub(super) fn encode(reply: &impl serde::Serialize) -> Outcome<String> {
    serde_json::to_string(reply).map_err(|error| unwritten(&error))
}

/// What is wrong with `params`, and where: places in the text mean nothing to who gave a value, the
/// names that lead to it do.
fn flaw<T: serde::de::DeserializeOwned>(params: &str) -> Option<String> {
    let value: Value = serde_json::from_str(params).ok()?;
    serde_path_to_error::deserialize::<_, Object<T>>(value).err().map(|flaw| flaw.to_string())
}

/// Says that a reply cannot be written.
pub(super) fn unwritten(error: &serde_json::Error) -> Box<ErrorShape> {
    tracing::error!(%error, "a reply cannot be written");
    ErrorShape::unavailable("the reply cannot be written", 1_000).into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::protocol::rows;

    #[test]
    fn every_row_has_a_handler_and_every_handler_a_row() {
        let table: BTreeSet<_> = rows().map(|row| row.name).collect();
        let dispatcher = Dispatcher::new();
        let handled: BTreeSet<_> = dispatcher.handlers.keys().copied().collect();
        assert_eq!(table, handled);
        assert_eq!(table.len(), rows().count(), "a name stands there twice");
    }
}
