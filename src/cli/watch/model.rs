//! What the view knows: the remotes as last told, and what it works out of them. Pure.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use serde_json::Value;

use super::feed::News;
use crate::cli::{
    logs::{Absence, absences, entry},
    output::plain,
    phrases::places,
};

/// Over how long a rate is taken.
const RATE_SPAN: SignedDuration = SignedDuration::from_secs(4);
/// Samples kept of one remote; they may come up to ten times a second.
const SAMPLES_MOST: usize = 64;

/// What the view knows.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) zone: TimeZone,
    pub(super) remotes: Vec<Remote>,
    /// All that is known, the oldest first.
    pub(super) absences: Vec<Absence>,
    /// Since when no supervisor runs, while none does.
    pub(super) gone: Option<Timestamp>,
    /// Whether anything was told yet.
    pub(super) is_told: bool,
    /// Which remote is looked at.
    pub(super) chosen: usize,
}

/// One remote.
#[derive(Debug, Default)]
pub(super) struct Remote {
    pub(super) name: String,
    pub(super) is_default: bool,
    pub(super) phase: String,
    pub(super) since: Option<Timestamp>,
    pub(super) stage: String,
    /// The hops, this machine apart.
    pub(super) route: Vec<String>,
    pub(super) local: String,
    pub(super) proof: Option<Proof>,
    /// Milliseconds, the oldest first.
    pub(super) round_trips: Vec<f64>,
    pub(super) gateway: String,
    pub(super) streams: u64,
    pub(super) held: u64,
    pub(super) received: u64,
    pub(super) sent: u64,
    pub(super) attempts: u64,
    pub(super) reconnects: u64,
    pub(super) forwards: Vec<Forward>,
    /// What is wrong, and what to type.
    pub(super) failure: Option<(String, String)>,
    samples: VecDeque<Sample>,
}

/// The last evidence that the path works.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) is_gateway: bool,
    pub(super) at: Option<Timestamp>,
    pub(super) rtt: f64,
}

/// One forward beside that to the gateway.
#[derive(Debug)]
pub(super) struct Forward {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) phase: String,
    pub(super) failure: String,
    pub(super) received: u64,
    pub(super) sent: u64,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Timestamp,
    received: u64,
    sent: u64,
}

impl Model {
    pub(super) fn new(zone: TimeZone) -> Self {
        let (remotes, absences) = (Vec::new(), Vec::new());
        Self { zone, remotes, absences, gone: None, is_told: false, chosen: 0 }
    }

    /// Takes in what was told `now`.
    pub(super) fn learn(&mut self, news: &News, now: Timestamp) {
        let chosen = self.chosen().map(|remote| remote.name.clone());
        let mut before = std::mem::take(&mut self.remotes);
        for value in &news.watched.remotes {
            let mut remote = Remote::read(value);
            if let Some(trips) = news.watched.round_trips.get(&remote.name) {
                remote.round_trips.clone_from(trips);
            }
            if let Some(old) = before.iter_mut().find(|old| old.name == remote.name) {
                remote.samples = std::mem::take(&mut old.samples);
            }
            remote.sample(now);
            self.remotes.push(remote);
        }
        // Without a supervisor nobody tells the history, and what was known of it still holds.
        if news.is_running {
            let entries: Vec<_> = news.watched.history.iter().filter_map(entry).collect();
            self.absences = absences(&entries);
        }
        self.gone = if news.is_running { None } else { Some(self.gone.unwrap_or(now)) };
        let place = |name: String| self.remotes.iter().position(|remote| remote.name == name);
        let default = || self.remotes.iter().position(|remote| remote.is_default);
        self.chosen = chosen.and_then(place).or_else(default).unwrap_or(0);
        self.is_told = true;
    }

    /// The remote that is looked at.
    pub(super) fn chosen(&self) -> Option<&Remote> {
        self.remotes.get(self.chosen)
    }

    /// Looks at the next remote, or at the one before.
    pub(super) fn choose(&mut self, step: isize) {
        let last = self.remotes.len().saturating_sub(1);
        self.chosen = self.chosen.saturating_add_signed(step).min(last);
    }
}

impl Remote {
    fn read(value: &Value) -> Self {
        let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        let list = |pointer: &str| value.pointer(pointer).and_then(Value::as_array);
        let hops = list("/via").into_iter().flatten().filter_map(Value::as_str);
        let target = text(value, "/target");
        let failure = value.pointer("/failure").filter(|failure| failure.is_object());
        let proof = value.pointer("/proof").filter(|proof| proof.is_object());
        Self {
            name: text(value, "/name"),
            is_default: value.pointer("/default").and_then(Value::as_bool).unwrap_or(false),
            phase: text(value, "/phase"),
            since: time(value, "/since"),
            stage: text(value, "/stage"),
            route: hops.map(clean).chain([target]).collect(),
            local: match text(value, "/kind").as_str() {
                "exposed" => format!("published at port {} over there", text(value, "/remotePort")),
                _ => text(value, "/localUrl"),
            },
            proof: proof.map(|proof| Proof {
                is_gateway: text(proof, "/kind") == "gateway",
                at: time(proof, "/at"),
                rtt: proof.pointer("/rttMs").and_then(Value::as_f64).unwrap_or(0.0),
            }),
            round_trips: Vec::new(),
            gateway: text(value, "/gateway/version"),
            streams: number("/streams"),
            held: number("/held"),
            received: number("/bytesIn"),
            sent: number("/bytesOut"),
            attempts: number("/attempts"),
            reconnects: number("/reconnects"),
            forwards: list("/forwards").into_iter().flatten().map(Forward::read).collect(),
            failure: failure.map(|failure| (text(failure, "/message"), text(failure, "/fix"))),
            samples: VecDeque::new(),
        }
    }

    fn sample(&mut self, at: Timestamp) {
        let (received, sent) = (self.received, self.sent);
        // Counters of a remote that was made anew begin anew.
        if self.samples.back().is_some_and(|last| last.received > received || last.sent > sent) {
            self.samples.clear();
        }
        if self.samples.len() >= SAMPLES_MOST {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at, received, sent });
    }

    /// Bytes a second from and to the far side, over the last seconds before `now`.
    pub(super) fn rates(&self, now: Timestamp) -> (u64, u64) {
        let begin = now.checked_sub(RATE_SPAN).unwrap_or(now);
        let known = self.samples.iter().rfind(|sample| sample.at <= begin);
        let Some(first) = known.or(self.samples.front()) else { return (0, 0) };
        let seconds = now.duration_since(first.at.max(begin)).as_secs_f64().max(1.0);
        let rate = |now: u64, then: u64| (now.saturating_sub(then) as f64 / seconds) as u64;
        (rate(self.received, first.received), rate(self.sent, first.sent))
    }
}

impl Forward {
    fn read(value: &Value) -> Self {
        let (from, to) = places(value);
        let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
        Self {
            from: clean(&from),
            to: clean(&to),
            phase: text(value, "/phase"),
            failure: text(value, "/failure/message"),
            received: number("/bytesIn"),
            sent: number("/bytesOut"),
        }
    }
}

/// A field as text that steers no terminal; empty if it is missing.
fn text(value: &Value, pointer: &str) -> String {
    match value.pointer(pointer) {
        Some(Value::String(text)) => clean(text),
        None | Some(Value::Null) => String::new(),
        Some(other) => other.to_string(),
    }
}

fn clean(text: &str) -> String {
    plain(text, false).replace(['\n', '\t'], " ")
}

fn time(value: &Value, pointer: &str) -> Option<Timestamp> {
    value.pointer(pointer)?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control::Watched;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn told(names: &[(&str, u64)]) -> News {
        let remotes = names.iter().map(|(name, bytes)| {
            json!({"name": name, "phase": "live", "default": *name == "b", "bytesIn": bytes})
        });
        let watched = Watched { remotes: remotes.collect(), ..Watched::default() };
        News { is_running: true, watched }
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_dies_down_by_itself() {
        let mut model = Model::new(TimeZone::UTC);
        for second in 0..10 {
            model.learn(&told(&[("a", second * 1000)]), at(second as i64));
        }
        let rate = |model: &Model, now| model.remotes[0].rates(at(now)).0;
        assert_eq!(rate(&model, 9), 1000);
        assert_eq!(rate(&model, 11), 500, "two seconds of it were silent");
        assert_eq!(rate(&model, 14), 0);
        model.learn(&told(&[("a", 10)]), at(20));
        assert_eq!(rate(&model, 20), 0, "the counter began anew");
    }

    #[test]
    fn what_is_looked_at_stays_so_when_others_come_and_go() {
        let mut model = Model::new(TimeZone::UTC);
        model.learn(&told(&[("a", 0), ("b", 0)]), at(0));
        assert_eq!(model.chosen().unwrap().name, "b", "the default one at first");
        model.choose(-1);
        model.choose(-1);
        assert_eq!(model.chosen().unwrap().name, "a");
        model.learn(&told(&[("0", 0), ("a", 0), ("b", 0)]), at(1));
        assert_eq!(model.chosen().unwrap().name, "a");
        model.learn(&told(&[("b", 0)]), at(2));
        assert_eq!(model.chosen().unwrap().name, "b");
        model.learn(&told(&[]), at(3));
        assert!(model.chosen().is_none());
    }
}
