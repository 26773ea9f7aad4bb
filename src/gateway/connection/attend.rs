//! A client that is in: its requests and their answers, ticks and pings, until something ends it.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, Either},
    stream::FuturesUnordered,
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::{Handle, RuntimeFlavor},
    task::{block_in_place, coop::consume_budget, yield_now},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::Instrument;

use super::{
    super::{
        clock::now_ms, dispatch::Call, methods::voicewake::first_words, outbox::Ending,
        tally::Malformed,
    },
    Conversation, Welcome,
    texts::asked,
};
use crate::protocol::{ErrorShape, Response, Role, WakeRoutingReply, close, event};

/// Requests of one client that may be under way.
const MAX_IN_FLIGHT: usize = 128;
/// How long a client that is not answered should wait, milliseconds.
const BUSY_RETRY_MS: u64 = 250;
/// Messages of one client that are taken up in a row where they are there.
const BURST: usize = 32;
/// Bytes of a message from which on it takes longer than a turn.
const LARGE: usize = 256 * 1024;
/// How long after its ping a pong may come.
const PONG_WINDOW: Duration = Duration::from_secs(25);
/// How long requests under way may take once the gateway stops.
const DRAIN: Duration = Duration::from_secs(3);

/// What happened to a client that has been let in.
enum News {
    Message(Option<Result<Message, Error>>),
    Answer(String),
    Tick,
    PongDue,
    Stop,
}

impl<S> Conversation<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    /// Tells a node which words wake it, and where they lead.
    async fn tell_wake_words(&self) {
        if let Some(words) = first_words(&self.shared).await {
            self.outbox.event(event::VOICEWAKE_CHANGED, &json!(words).to_string(), None);
        }
        let routing = json!(WakeRoutingReply::default()).to_string();
        self.outbox.event(event::VOICEWAKE_ROUTING_CHANGED, &routing, None);
    }

    /// Answers requests, ticks and pings until something ends it.
    pub(super) async fn attend(&mut self, welcome: Welcome) -> Ending {
        if welcome.call.caller.role == Role::Node {
            self.tell_wake_words().await;
        }
        let every = Duration::from_millis(self.shared.policy.tick_interval_ms);
        let mut answers: FuturesUnordered<BoxFuture<'static, String>> = FuturesUnordered::new();
        let stop = self.stop.clone();
        let mut stop = pin!(stop.cancelled());
        let mut tick = pin!(sleep(every));
        let mut pong: Option<Instant> = None;
        loop {
            let news = tokio::select! {
                message = self.stream.next() => News::Message(message),
                Some(answer) = answers.next() => News::Answer(answer),
                () = &mut tick => News::Tick,
                () = sleep_until(pong.unwrap_or_else(Instant::now)), if pong.is_some() => News::PongDue,
                () = &mut stop => News::Stop,
            };
            // Who was sent away is heard no more, however slowly it takes what was queued before.
            if let Some(ending) = self.outbox.ending() {
                return ending;
            }
            match news {
                News::Message(message) => {
                    if let Some(ending) =
                        self.hear(message, &welcome, &mut answers, &mut pong).await
                    {
                        return ending;
                    }
                }
                News::Answer(answer) => self.answered(answer, &welcome.call),
                News::Tick => {
                    let next = tick.deadline() + every;
                    tick.as_mut().reset(next);
                    let tick = json!(event::Tick { ts: now_ms() }).to_string();
                    self.outbox.event(event::TICK, &tick, None);
                    if pong.is_none() {
                        self.outbox.ping(welcome.call.caller.receipts.in_ping());
                        pong = Some(Instant::now() + PONG_WINDOW);
                    }
                }
                // The window counts from the moment the ping went out, which a slow reader delays.
                News::PongDue => match self.outbox.pinged() {
                    Some(sent) if sent + PONG_WINDOW <= Instant::now() => {
                        tracing::debug!("no pong");
                        return Ending::close(close::POLICY, "pong timeout");
                    }
                    Some(sent) => pong = Some(sent + PONG_WINDOW),
                    None => pong = Some(Instant::now() + PONG_WINDOW),
                },
                News::Stop => return self.drain(answers).await,
            }
            if let Some(ending) = self.outbox.ending() {
                return ending;
            }
        }
    }

    /// A message, and those that came with it, up to a whole burst; then it is others' turn.
    async fn hear(
        &mut self,
        mut message: Option<Result<Message, Error>>,
        welcome: &Welcome,
        answers: &mut FuturesUnordered<BoxFuture<'static, String>>,
        pong: &mut Option<Instant>,
    ) -> Option<Ending> {
        let mut heard = 0;
        loop {
            let said = match message {
                Some(Ok(said)) => said,
                Some(Err(error)) => return Some(self.broken(&error)),
                None => return Some(Ending::silent()),
            };
            if let Message::Pong(said) = &said {
                *pong = None;
                self.arrived(said, welcome);
            }
            let ending = self.received(said, &welcome.call, answers);
            if let Some(ending) = ending.or_else(|| self.outbox.ending()) {
                return Some(ending);
            }
            consume_budget().await;
            heard += 1;
            if heard == BURST {
                yield_now().await;
                return None;
            }
            message = self.stream.next().now_or_never()?;
        }
    }

    /// One message of a client that has been let in.
    fn received(
        &self,
        message: Message,
        call: &Call,
        answers: &mut FuturesUnordered<BoxFuture<'static, String>>,
    ) -> Option<Ending> {
        let text = match message {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => return None,
            Message::Binary(_) => {
                self.shared.tally.malformed(Malformed::Binary);
                return Some(Ending::close(close::POLICY, "invalid request frame"));
            }
            Message::Close(_) => return Some(Ending::silent()),
        };
        let asked = match aside(text.len(), || asked(&text)) {
            Ok(asked) => asked,
            Err(answer) => {
                self.shared.tally.malformed(Malformed::Frame);
                self.outbox.response(answer);
                return None;
            }
        };
        if answers.len() >= MAX_IN_FLIGHT {
            let error = ErrorShape::unavailable("too many requests under way", BUSY_RETRY_MS);
            let method = self.shared.dispatcher.known(&asked.method);
            self.shared.tally.failed(method, &error, Duration::ZERO);
            self.outbox.response(Response::failure(asked.id, error));
            return None;
        }
        // Most methods answer at once and never take a place among those under way.
        match aside(text.len(), || self.shared.dispatcher.answer(call, asked)) {
            Either::Left(there) => self.answered(there.into_inner(), call),
            Either::Right(under_way) => answers.push(under_way),
        }
        None
    }

    /// A pong: whatever tokens and work were given to a node before its ping are the node's now.
    fn arrived(&self, pong: &[u8], welcome: &Welcome) {
        let Call { shared, caller } = &welcome.call;
        let Some(arrived) = caller.receipts.hear(pong) else { return };
        if let Some(handoff) = &welcome.handoff {
            handoff.arrived();
        }
        let Some(node) = caller.device_id.clone() else { return };
        let (own, member) = (Arc::clone(shared), caller.member);
        let forget = async move { own.nodes.has_arrived(&node, member, arrived).await };
        shared.finishing.spawn(forget.in_current_span());
    }

    /// Queues an answer, a ping behind it where its arrival matters, and the end where that was the
    /// last.
    fn answered(&self, text: String, call: &Call) {
        self.outbox.text(text);
        let receipts = &call.caller.receipts;
        if receipts.is_due() {
            self.outbox.ping(receipts.in_ping());
        }
        if let Some(ending) = call.caller.farewell.get() {
            self.outbox.end(ending.clone());
        }
    }

    /// Says that the gateway goes and waits a moment for what is under way.
    async fn drain(&self, mut answers: FuturesUnordered<BoxFuture<'static, String>>) -> Ending {
        let shutdown =
            event::Shutdown { reason: "gateway stopping".to_owned(), restart_expected_ms: None };
        self.outbox.event(event::SHUTDOWN, &json!(shutdown).to_string(), None);
        let rest = async {
            while let Some(answer) = answers.next().await {
                self.outbox.text(answer);
            }
        };
        if timeout(DRAIN, rest).await.is_err() {
            tracing::warn!("gave up requests under way");
        }
        Ending::close(close::RESTART, "service restart")
    }
}

/// Does what takes a while with a message of so many bytes; meanwhile others are served elsewhere.
fn aside<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    let is_served_elsewhere = || Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    if bytes > LARGE && is_served_elsewhere() { block_in_place(work) } else { work() }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn others_are_served_while_a_large_message_is_looked_at() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build();
        let runtime = runtime.unwrap();
        let others_are_served = |bytes, limit| {
            let (served, is_served) = channel();
            let look = async move {
                tokio::spawn(async move { served.send(()) });
                aside(bytes, || is_served.recv_timeout(limit).is_ok())
            };
            runtime.block_on(runtime.spawn(look)).unwrap()
        };
        // The one thread looks at it itself.
        assert!(!others_are_served(LARGE, Duration::from_millis(50)));
        assert!(others_are_served(LARGE + 1, Duration::from_secs(20)));
    }
}
