//! The remotes as OpenMetrics text. Pure.

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::text::encode,
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};

use crate::tunnel::Phase;

use super::super::lane::word;

/// Every phase, so that each has a series of its own and none is left behind when it changes.
const PHASES: [Phase; 8] = [
    Phase::Live,
    Phase::Connecting,
    Phase::Suspect,
    Phase::Waiting,
    Phase::GatewaySlow,
    Phase::GatewayDown,
    Phase::Blocked,
    Phase::Down,
];

/// What one remote has come to; a remote that is not at work has its name and its phase.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::supervisor) struct Reading {
    pub(in crate::supervisor) name: String,
    pub(in crate::supervisor) phase: Phase,
    /// The age of the last proof.
    pub(in crate::supervisor) proof_age: Option<Duration>,
    /// The last round trip.
    pub(in crate::supervisor) round_trip: Option<Duration>,
    pub(in crate::supervisor) reconnects: u64,
    /// How long the path was away in all, the absence that lasts included.
    pub(in crate::supervisor) away: Duration,
    pub(in crate::supervisor) received: u64,
    pub(in crate::supervisor) sent: u64,
    pub(in crate::supervisor) streams: u64,
    pub(in crate::supervisor) held: u64,
    pub(in crate::supervisor) forwards: Vec<Carried>,
}

/// What one further forward has come to; the remote's numbers count it in.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::supervisor) struct Carried {
    /// As it is typed: `-L …`.
    pub(in crate::supervisor) forward: String,
    pub(in crate::supervisor) received: u64,
    pub(in crate::supervisor) sent: u64,
    pub(in crate::supervisor) streams: u64,
}

impl Reading {
    /// A remote that is not at work.
    pub(in crate::supervisor) fn resting(name: &str, phase: Phase) -> Self {
        Self {
            name: name.to_owned(),
            phase,
            proof_age: None,
            round_trip: None,
            reconnects: 0,
            away: Duration::ZERO,
            received: 0,
            sent: 0,
            streams: 0,
            held: 0,
            forwards: Vec::new(),
        }
    }
}

/// Names and values of labels.
type Labels = Vec<(&'static str, String)>;
/// A number that goes up and down, one a remote.
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
/// A whole number that grows, one a remote.
type Counts = Family<Labels, Counter>;
/// A time that grows, one a remote.
type Times = Family<Labels, Counter<f64, AtomicU64>>;

/// The metrics of `remotes`; `started` is when the supervisor began, seconds since 1970.
pub(in crate::supervisor) fn exposition(
    remotes: &[Reading],
    started: f64,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("openclaw");
    build(&mut registry, started);
    let remotes_only = registry.sub_registry_with_prefix("remote");
    gauges(remotes_only, remotes);
    counters(remotes_only, remotes);
    forwards(remotes_only, remotes);
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(text)
}

fn build(registry: &mut Registry, started: f64) {
    let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register("build", "The program that answers", version);
    let start = Gauge::<f64, AtomicU64>::default();
    start.set(started);
    let help = "When the supervisor began, since 1970";
    registry.register_with_unit("supervisor_start_time", help, Unit::Seconds, start);
}

fn of(reading: &Reading) -> Labels {
    vec![("remote", reading.name.clone())]
}

fn gauges(registry: &mut Registry, remotes: &[Reading]) {
    let gauge = |value: fn(&Reading) -> Option<f64>| {
        let family = Gauges::default();
        for reading in remotes {
            if let Some(value) = value(reading) {
                family.get_or_create(&of(reading)).set(value);
            }
        }
        family
    };
    let up = gauge(|r| Some(f64::from(matches!(r.phase, Phase::Live | Phase::GatewaySlow))));
    registry.register("up", "Whether a gateway is within reach through the remote", up);
    registry.register("phase", "Where the remote is: 1 at its phase", phases(remotes));
    let seconds = |registry: &mut Registry, name: &str, help: &str, family: Gauges| {
        registry.register_with_unit(name, help, Unit::Seconds, family);
    };
    let age = gauge(|r| r.proof_age.map(|age| age.as_secs_f64()));
    seconds(registry, "proof_age", "Age of the last proof that the path works", age);
    let trip = gauge(|r| r.round_trip.map(|trip| trip.as_secs_f64()));
    seconds(registry, "rtt", "Last round trip to the SSH server or the gateway", trip);
    let streams = gauge(|r| Some(r.streams as f64));
    registry.register("open_streams", "Connections that are open through the remote", streams);
    let held = gauge(|r| Some(r.held as f64));
    registry.register("held_connections", "Connections that wait for a path", held);
}

fn phases(remotes: &[Reading]) -> Gauges {
    let family = Gauges::default();
    for reading in remotes {
        for phase in PHASES {
            let mut labels = of(reading);
            labels.push(("phase", word(phase).to_owned()));
            family.get_or_create(&labels).set(f64::from(reading.phase == phase));
        }
    }
    family
}

fn counters(registry: &mut Registry, remotes: &[Reading]) {
    let count = |value: fn(&Reading) -> u64| {
        let family = Counts::default();
        for reading in remotes {
            family.get_or_create(&of(reading)).inc_by(value(reading));
        }
        family
    };
    let help = "Times that the path was put back";
    registry.register("reconnects", help, count(|reading| reading.reconnects));
    let away = Times::default();
    for reading in remotes {
        away.get_or_create(&of(reading)).inc_by(reading.away.as_secs_f64());
    }
    let help = "Time without a path since the remote was first live";
    registry.register_with_unit("outage", help, Unit::Seconds, away);
    let mut bytes = |name: &str, help: &str, family: Counts| {
        registry.register_with_unit(name, help, Unit::Bytes, family);
    };
    bytes("received", "Bytes from the far side through streams", count(|r| r.received));
    bytes("sent", "Bytes to the far side through streams", count(|r| r.sent));
}

fn forwards(registry: &mut Registry, remotes: &[Reading]) {
    let each = remotes.iter().flat_map(|reading| {
        reading.forwards.iter().map(|carried| {
            let mut labels = of(reading);
            labels.push(("forward", carried.forward.clone()));
            (labels, carried)
        })
    });
    let streams = Gauges::default();
    let (received, sent) = (Counts::default(), Counts::default());
    for (labels, carried) in each {
        streams.get_or_create(&labels).set(carried.streams as f64);
        received.get_or_create(&labels).inc_by(carried.received);
        sent.get_or_create(&labels).inc_by(carried.sent);
    }
    let help = "Connections that are open through the forward";
    registry.register("forward_open_streams", help, streams);
    let help = "Bytes from the far side through the forward";
    registry.register_with_unit("forward_received", help, Unit::Bytes, received);
    let help = "Bytes to the far side through the forward";
    registry.register_with_unit("forward_sent", help, Unit::Bytes, sent);
}

#[cfg(test)]
#[path = "exposition_tests.rs"]
mod tests;
