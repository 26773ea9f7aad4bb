//! What waits to be sent to one client: bounded, in order, numbered, written by one future.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{FutureExt, Sink, SinkExt};
use serde_json::Value;
use tokio::{
    sync::Notify,
    time::{Instant, timeout},
};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::tally::Tally;
use crate::protocol::{Event, Frame, Response, StateVersion, close, event};

/// Unsent bytes from which on events that may be missed are missed.
const SLOW: usize = 1024 * 1024;
/// How long one write may stand still.
const STALL: Duration = Duration::from_secs(60);
/// What the frame of an event adds to its payload, about.
const FRAME: usize = 128;
/// The longest reason that fits a close frame.
const MAX_REASON: usize = 123;

/// A queue with one writer.
#[derive(Debug)]
pub(super) struct Outbox {
    limit: usize,
    tally: Arc<Tally>,
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Item>,
    /// Of what waits.
    bytes: usize,
    /// Of what is being written.
    under_way: usize,
    seq: u64,
    /// Nothing is taken after this, and it is sent last.
    ending: Option<Ending>,
    pinged: Option<Instant>,
}

#[derive(Debug)]
enum Item {
    Text(String),
    Event(Numbered),
    /// With what it carries.
    Ping(String),
}

/// An event of one client, written out only when its turn comes: many clients may wait for the
/// same payload.
#[derive(Debug)]
struct Numbered {
    name: &'static str,
    payload: Arc<str>,
    seq: u64,
    version: Option<StateVersion>,
}

impl Numbered {
    fn text(&self) -> String {
        let Self { name, payload, seq, version } = self;
        let version = version.map_or_else(String::new, |StateVersion { presence, health }| {
            format!(r#","stateVersion":{{"presence":{presence},"health":{health}}}"#)
        });
        format!(r#"{{"type":"event","event":"{name}","payload":{payload},"seq":{seq}{version}}}"#)
    }
}

/// How a connection ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ending {
    /// The close code; `None` to go without a close frame.
    pub(super) code: Option<u16>,
    pub(super) reason: String,
}

impl Ending {
    /// Ends with a close frame.
    pub(super) fn close(code: u16, reason: impl Into<String>) -> Self {
        Self { code: Some(code), reason: reason.into() }
    }

    /// Ends without a word: the other side is gone, or has said goodbye.
    pub(super) fn silent() -> Self {
        Self { code: None, reason: String::new() }
    }
}

impl Outbox {
    /// An empty queue that holds at most `limit` bytes.
    pub(super) fn new(limit: usize, tally: Arc<Tally>) -> Self {
        Self { limit, tally, queue: Mutex::default(), changed: Notify::new() }
    }

    /// Queues an answer; a client that does not read its answers is closed.
    pub(super) fn response(&self, response: Response) {
        self.push(&mut self.lock(), &Frame::Response(response));
    }

    /// Queues an answer that is written already; a client that does not read its answers is closed.
    pub(super) fn text(&self, text: String) {
        self.push_text(&mut self.lock(), text);
    }

    /// Queues the one event that carries no number, before authentication.
    pub(super) fn challenge(&self, payload: Value) {
        let event = event::CHALLENGE.name.to_owned();
        let frame = Event { event, payload: Some(payload), seq: None, state_version: None };
        self.push(&mut self.lock(), &Frame::Event(frame));
    }

    /// Queues an event, its payload being JSON already, with this client's next number. A missed
    /// event has used its number up, so that the client sees the gap.
    pub(super) fn event(&self, kind: event::Kind, payload: &str, version: Option<StateVersion>) {
        self.shared_event(kind, &payload.into(), version);
    }

    /// The same of a payload that others wait for as well.
    pub(super) fn shared_event(
        &self,
        kind: event::Kind,
        payload: &Arc<str>,
        version: Option<StateVersion>,
    ) {
        let mut queue = self.lock();
        queue.seq += 1;
        if kind.drop_if_slow && queue.bytes + queue.under_way > SLOW {
            self.tally.missed(kind.name);
            return;
        }
        let (payload, seq) = (Arc::clone(payload), queue.seq);
        let length = payload.len() + FRAME;
        let event = Numbered { name: kind.name, payload, seq, version };
        self.push_item(&mut queue, length, Item::Event(event));
    }

    /// Queues a ping that carries `text`.
    pub(super) fn ping(&self, text: String) {
        let mut queue = self.lock();
        queue.pinged = None;
        queue.items.push_back(Item::Ping(text));
        drop(queue);
        self.changed.notify_one();
    }

    /// When the latest ping went out; `None` while it waits.
    pub(super) fn pinged(&self) -> Option<Instant> {
        self.lock().pinged
    }

    /// Ends the queue: what is in it is still sent, then `ending`. The first ending counts.
    pub(super) fn end(&self, ending: Ending) {
        self.lock().ending.get_or_insert(ending);
        self.changed.notify_one();
    }

    /// How the queue ended, if it did.
    pub(super) fn ending(&self) -> Option<Ending> {
        self.lock().ending.clone()
    }

    /// Writes what is queued until the queue has ended or the other side takes nothing any more.
    pub(super) async fn write_to<S>(&self, mut sink: S)
    where
        S: Sink<Message, Error = Error> + Unpin,
    {
        loop {
            let (items, ending) = self.take();
            if items.is_empty() && ending.is_none() {
                self.changed.notified().await;
                continue;
            }
            let has_ping = items.iter().any(|item| matches!(item, Item::Ping(_)));
            for item in items {
                let message = match item {
                    Item::Text(text) => Message::text(text),
                    Item::Event(event) => Message::text(event.text()),
                    Item::Ping(text) => Message::Ping(text.into()),
                };
                if !written(sink.feed(message)).await {
                    return;
                }
            }
            if !written(sink.flush()).await {
                return;
            }
            self.flushed(has_ping);
            if let Some(ending) = ending {
                say_goodbye(Pin::new(&mut sink), ending).await;
                return;
            }
        }
    }

    fn flushed(&self, has_ping: bool) {
        let mut queue = self.lock();
        queue.under_way = 0;
        if has_ping {
            queue.pinged = Some(Instant::now());
        }
    }

    fn take(&self) -> (VecDeque<Item>, Option<Ending>) {
        let mut queue = self.lock();
        queue.under_way = std::mem::take(&mut queue.bytes);
        (std::mem::take(&mut queue.items), queue.ending.clone())
    }

    fn push(&self, queue: &mut Queue, frame: &Frame) {
        if let (None, Ok(text)) = (&queue.ending, serde_json::to_string(frame)) {
            self.push_text(queue, text);
        }
    }

    fn push_text(&self, queue: &mut Queue, text: String) {
        self.push_item(queue, text.len(), Item::Text(text));
    }

    fn push_item(&self, queue: &mut Queue, length: usize, item: Item) {
        if queue.ending.is_some() {
            return;
        }
        if queue.bytes + queue.under_way + length > self.limit {
            self.tally.slow();
            queue.items.clear();
            queue.ending = Some(Ending::close(close::POLICY, "slow consumer"));
        } else {
            queue.bytes += length;
            queue.items.push_back(item);
        }
        self.changed.notify_one();
    }

    /// How many items wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lock().items.len()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a write went through in time.
async fn written(write: impl Future<Output = Result<(), Error>> + Unpin) -> bool {
    let mut write = write;
    // Mostly there is room; a limit is set where there is none.
    match (&mut write).now_or_never() {
        Some(outcome) => outcome.is_ok(),
        None => matches!(timeout(STALL, write).await, Ok(Ok(()))),
    }
}

async fn say_goodbye<S>(mut sink: Pin<&mut S>, ending: Ending)
where
    S: Sink<Message, Error = Error>,
{
    let Some(code) = ending.code else { return };
    let frame =
        CloseFrame { code: CloseCode::from(code), reason: shortened(&ending.reason).into() };
    let sent = written(sink.send(Message::Close(Some(frame)))).await;
    tracing::trace!(code, sent, "closed");
}

/// `reason` as far as it fits a close frame.
fn shortened(reason: &str) -> &str {
    let end = (0..=reason.len().min(MAX_REASON)).rev().find(|end| reason.is_char_boundary(*end));
    reason.get(..end.unwrap_or_default()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(outbox: &Outbox) -> Vec<String> {
        let (items, _) = outbox.take();
        items
            .into_iter()
            .map(|item| match item {
                Item::Text(text) => text,
                Item::Event(event) => event.text(),
                Item::Ping(text) => format!("ping {text}"),
            })
            .collect()
    }

    #[test]
    fn numbers_events_and_leaves_out_what_a_slow_client_may_miss() {
        let outbox = Outbox::new(4 * SLOW, Arc::new(Tally::new()));
        outbox.event(event::TICK, r#"{"ts":1}"#, None);
        outbox.response(Response::success("1", json!("x".repeat(SLOW))));
        outbox.event(event::TICK, r#"{"ts":2}"#, None);
        outbox.event(event::SHUTDOWN, r#"{"reason":"r"}"#, None);
        let texts = texts(&outbox);
        assert_eq!(texts.len(), 3);
        assert_eq!(texts[0], r#"{"type":"event","event":"tick","payload":{"ts":1},"seq":1}"#);
        assert!(texts[2].contains(r#""seq":3"#), "{}", texts[2]);
    }

    #[test]
    fn a_client_that_reads_nothing_is_closed_and_takes_no_more_memory() {
        let outbox = Outbox::new(1_000, Arc::new(Tally::new()));
        outbox.response(Response::success("1", json!("x".repeat(2_000))));
        outbox.response(Response::success("2", json!("y")));
        assert!(texts(&outbox).is_empty());
        assert_eq!(outbox.ending(), Some(Ending::close(close::POLICY, "slow consumer")));
    }

    #[test]
    fn reasons_fit_a_close_frame() {
        assert_eq!(shortened("short"), "short");
        assert!(shortened(&"ä".repeat(100)).len() <= MAX_REASON);
    }
}
