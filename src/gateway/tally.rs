//! What the gateway counts: the one place of every number that `/metrics` hands out.
//!
//! Labels are words of our own: names of methods that we have, codes of our error frames, the
//! enums below. Nothing that a client writes becomes a label, so the number of series is bounded.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

use crate::protocol::{ErrorShape, code};

/// Upper bounds of the latencies, seconds.
const LATENCIES: [f64; 12] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10.0];
/// The outcome of a request that was answered with a payload.
const OK: &str = "ok";
/// The method of requests that name none of ours.
pub(super) const UNKNOWN: &str = "unknown";

/// One label with its value.
type Label = [(&'static str, &'static str); 1];
/// A number that grows, one a label.
type Counts = Family<Label, Counter>;
/// A number that goes up and down.
type Level = Gauge<u64, AtomicU64>;

/// Why bytes made no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    /// Text that is no frame of the protocol, or an empty id or method.
    Frame,
    /// A binary message.
    Binary,
    /// Text that is not UTF-8.
    Utf8,
    /// A message beyond `maxPayload`.
    TooLarge,
    /// More bytes than an unauthenticated client may send.
    TooMuch,
    /// Not WebSocket.
    Protocol,
    /// Not HTTP.
    Http,
    /// Not TLS, where TLS is spoken.
    Tls,
    /// `connect` with parameters that the schema does not allow, or another first request.
    Connect,
}

/// Why somebody was turned away before the protocol began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnedAway {
    /// No place is left for another socket, or for another one of that address.
    NoPlace,
    /// The `Host` header names something else.
    Host,
    /// A web page of a foreign origin asks.
    Origin,
    /// The head of the request, or `connect`, did not come in time.
    TooLate,
    /// `/metrics` without its token.
    Scrape,
}

/// Levels at the moment of a scrape.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Levels {
    pub(super) clients: u64,
    pub(super) sockets: u64,
    pub(super) waiting: u64,
    pub(super) uptime: Duration,
}

/// The counters of one gateway.
#[derive(Debug)]
pub(super) struct Tally {
    registry: Registry,
    requests: Family<[(&'static str, &'static str); 2], Counter>,
    latencies: Family<Label, Histogram, fn() -> Histogram>,
    admitted: Counter,
    refused: Family<[(&'static str, String); 1], Counter>,
    malformed: Counts,
    turned_away: Counts,
    missed: Counts,
    slow: Counter,
    received: Counter,
    sent: Counter,
    lost_lines: Counter,
    levels: Gauges,
}

/// What is looked up at each scrape.
#[derive(Debug, Default)]
struct Gauges {
    clients: Level,
    sockets: Level,
    waiting: Level,
    uptime: Gauge<f64, AtomicU64>,
    memory: Level,
    descriptors: Level,
}

/// What is counted of one method's replies.
#[derive(Debug)]
pub(super) struct Answers {
    ok: Counter,
    latencies: Histogram,
}

impl Answers {
    /// Counts a reply, and how long it took.
    pub(super) fn count(&self, took: Duration) {
        self.ok.inc();
        self.latencies.observe(took.as_secs_f64());
    }
}

impl Tally {
    /// Everything at zero.
    pub(super) fn new() -> Self {
        let tally = Self {
            registry: Registry::default(),
            requests: Family::default(),
            latencies: Family::new_with_constructor(|| Histogram::new(LATENCIES)),
            admitted: Counter::default(),
            refused: Family::default(),
            malformed: Counts::default(),
            turned_away: Counts::default(),
            missed: Counts::default(),
            slow: Counter::default(),
            received: Counter::default(),
            sent: Counter::default(),
            lost_lines: Counter::default(),
            levels: Gauges::default(),
        };
        let registry = tally.registered();
        Self { registry, ..tally }
    }

    /// Counts an error that answered a request: its method (one of the table, or [`UNKNOWN`]), and
    /// how long it took.
    pub(super) fn failed(&self, method: &'static str, error: &ErrorShape, took: Duration) {
        let outcome = known_code(&error.code);
        self.requests.get_or_create(&[("method", method), ("outcome", outcome)]).inc();
        self.latencies.get_or_create(&[("method", method)]).observe(took.as_secs_f64());
    }

    /// What is counted of the replies of a method of the table: for whoever answers often, without
    /// a look for their places each time.
    pub(super) fn answers(&self, method: &'static str) -> Answers {
        let ok = self.requests.get_or_create(&[("method", method), ("outcome", OK)]).clone();
        Answers { ok, latencies: self.latencies.get_or_create(&[("method", method)]).clone() }
    }

    /// Counts a client that was let in.
    pub(super) fn admitted(&self) {
        self.admitted.inc();
    }

    /// Counts a `connect` that was refused, by the code in the details of its error, or the code.
    pub(super) fn refused(&self, error: &ErrorShape) {
        let detail = error.details.as_ref().and_then(|details| details.get("code"));
        let reason = detail.and_then(serde_json::Value::as_str).unwrap_or(&error.code);
        self.refused.get_or_create(&[("reason", reason.to_owned())]).inc();
    }

    /// Counts what made no sense.
    pub(super) fn malformed(&self, kind: Malformed) {
        let kind = match kind {
            Malformed::Frame => "frame",
            Malformed::Binary => "binary",
            Malformed::Utf8 => "utf8",
            Malformed::TooLarge => "too_large",
            Malformed::TooMuch => "too_much_before_auth",
            Malformed::Protocol => "websocket",
            Malformed::Http => "http",
            Malformed::Tls => "tls",
            Malformed::Connect => "connect",
        };
        self.malformed.get_or_create(&[("kind", kind)]).inc();
    }

    /// Counts somebody who was turned away before the protocol began.
    pub(super) fn turned_away(&self, why: TurnedAway) {
        let reason = match why {
            TurnedAway::NoPlace => "no_place",
            TurnedAway::Host => "host",
            TurnedAway::Origin => "origin",
            TurnedAway::TooLate => "too_late",
            TurnedAway::Scrape => "scrape_without_token",
        };
        self.turned_away.get_or_create(&[("reason", reason)]).inc();
    }

    /// Counts an event that a slow client did not get.
    pub(super) fn missed(&self, event: &'static str) {
        self.missed.get_or_create(&[("event", event)]).inc();
    }

    /// Counts a client that was closed because it did not read.
    pub(super) fn slow(&self) {
        self.slow.inc();
    }

    /// The counters of bytes that came and that went.
    pub(super) fn bytes(&self) -> (Counter, Counter) {
        (self.received.clone(), self.sent.clone())
    }

    /// The metrics as OpenMetrics text.
    pub(super) fn exposition(&self, levels: Levels, lost_lines: u64) -> Result<String, fmt::Error> {
        self.levels.clients.set(levels.clients);
        self.levels.sockets.set(levels.sockets);
        self.levels.waiting.set(levels.waiting);
        self.levels.uptime.set(levels.uptime.as_secs_f64());
        self.levels.memory.set(memory().unwrap_or_default());
        self.levels.descriptors.set(descriptors().unwrap_or_default());
        self.lost_lines.inner().store(lost_lines, Ordering::Relaxed);
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn registered(&self) -> Registry {
        let mut all = Registry::with_prefix("openclaw");
        let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        all.register("build", "The program that answers", version);
        let gateway = all.sub_registry_with_prefix("gateway");
        self.register_counters(gateway);
        let levels = &self.levels;
        gateway.register("clients", "Clients that are let in", levels.clients.clone());
        gateway.register("open_sockets", "Sockets that are open", levels.sockets.clone());
        let help = "Sockets whose client is not authenticated yet";
        gateway.register("waiting_sockets", help, levels.waiting.clone());
        let help = "Since the gateway began";
        gateway.register_with_unit("uptime", help, Unit::Seconds, levels.uptime.clone());
        let help = "Memory of the process that is resident";
        gateway.register_with_unit("resident_memory", help, Unit::Bytes, levels.memory.clone());
        let help = "File descriptors of the process that are open";
        gateway.register("open_descriptors", help, levels.descriptors.clone());
        all
    }

    fn register_counters(&self, to: &mut Registry) {
        to.register("requests", "Requests that were answered", self.requests.clone());
        let help = "From a request to its answer";
        to.register_with_unit("request", help, Unit::Seconds, self.latencies.clone());
        to.register("admitted", "Clients that were let in", self.admitted.clone());
        to.register("refused", "Clients that were refused", self.refused.clone());
        let help = "Bytes that are no frame, no WebSocket or no HTTP";
        to.register("malformed", help, self.malformed.clone());
        let help = "Sockets and requests turned away before the protocol began";
        to.register("turned_away", help, self.turned_away.clone());
        let help = "Events that a slow client did not get";
        to.register("dropped_events", help, self.missed.clone());
        let help = "Clients closed because they did not read";
        to.register("slow_consumers", help, self.slow.clone());
        let help = "Bytes from clients, TLS aside";
        to.register_with_unit("received", help, Unit::Bytes, self.received.clone());
        let help = "Bytes to clients, TLS aside";
        to.register_with_unit("sent", help, Unit::Bytes, self.sent.clone());
        let help = "Log lines that could not be written to the log file";
        to.register("lost_log_lines", help, self.lost_lines.clone());
    }
}

/// A code of error frames as a label.
fn known_code(code: &str) -> &'static str {
    match code {
        code::INVALID_REQUEST => code::INVALID_REQUEST,
        code::UNAVAILABLE => code::UNAVAILABLE,
        code::FORBIDDEN => code::FORBIDDEN,
        code::NOT_PAIRED => code::NOT_PAIRED,
        _ => "other",
    }
}

/// Resident memory of this process, bytes; Linux only.
fn memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    pages.checked_mul(page)
}

/// How many files and sockets this process has open; Linux only.
fn descriptors() -> Option<u64> {
    let count = std::fs::read_dir("/proc/self/fd").ok()?.count();
    u64::try_from(count).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_stand_in_the_text_by_method_outcome_and_reason() {
        let tally = Tally::new();
        let answers = tally.answers("health");
        answers.count(Duration::from_micros(300));
        answers.count(Duration::from_micros(300));
        let invalid = ErrorShape::invalid("unknown method: x");
        tally.failed(UNKNOWN, &invalid, Duration::ZERO);
        tally.refused(&invalid.clone().details(json!({"code": "AUTH_TOKEN_MISMATCH"})));
        tally.refused(&invalid);
        tally.malformed(Malformed::Frame);
        tally.turned_away(TurnedAway::NoPlace);
        tally.missed("tick");
        tally.bytes().0.inc_by(12);
        let levels = Levels { clients: 3, ..Levels::default() };
        let text = tally.exposition(levels, 2).unwrap();
        for line in [
            r#"openclaw_gateway_requests_total{method="health",outcome="ok"} 2"#,
            r#"openclaw_gateway_requests_total{method="unknown",outcome="INVALID_REQUEST"} 1"#,
            r#"openclaw_gateway_request_seconds_bucket{le="0.00025",method="health"} 0"#,
            r#"openclaw_gateway_request_seconds_bucket{le="0.0005",method="health"} 2"#,
            r#"openclaw_gateway_refused_total{reason="AUTH_TOKEN_MISMATCH"} 1"#,
            r#"openclaw_gateway_refused_total{reason="INVALID_REQUEST"} 1"#,
            r#"openclaw_gateway_malformed_total{kind="frame"} 1"#,
            r#"openclaw_gateway_turned_away_total{reason="no_place"} 1"#,
            r#"openclaw_gateway_dropped_events_total{event="tick"} 1"#,
            "openclaw_gateway_received_bytes_total 12",
            "openclaw_gateway_lost_log_lines_total 2",
            "openclaw_gateway_clients 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_code_of_nobody_is_no_label() {
        assert_eq!(known_code("{\"x\"}"), "other");
        assert_eq!(known_code("UNAVAILABLE"), "UNAVAILABLE");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_says_how_much_the_process_takes() {
        assert!(memory().unwrap() > 1 << 20);
        assert!(descriptors().unwrap() >= 3);
    }
}
