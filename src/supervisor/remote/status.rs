//! What is said of a remote: to scripts and people, and to the metrics.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Remote;
use crate::{
    config::{self, Destination, Forward, Kind, Listen},
    problem::Problem,
    supervisor::{
        dialer::Label,
        lane::{Lane, Limits, State, millis, word},
        lock::locked,
        metrics::{Carried, Reading},
        path::clock,
        unstarted::Unstarted,
    },
    tunnel::{Failure, Phase},
};

impl Remote {
    /// The object of `remote status --json`.
    pub(in crate::supervisor) fn status(&self, is_default: bool) -> Value {
        let state = self.state();
        let definition = self.definition();
        let (hold, held_most) = waits(&definition);
        let unread_most = Limits::default().of(&definition).unread.most_mib();
        let port = definition.local_port;
        let sum = |count: fn(&Lane) -> u64| self.lanes().map(count).sum::<u64>();
        let proof = state.proof.map(|proof| {
            let age = clock().saturating_duration_since(proof.at);
            json!({
                "kind": proof.kind,
                "at": SystemTime::now().checked_sub(age).and_then(time),
                "ageMs": millis(age),
                "rttMs": tenths(proof.rtt),
            })
        });
        let outage = state.outage.as_ref().map(|outage| {
            json!({
                "cause": outage.cause, "startedAt": time(outage.started),
                "detectedMs": millis(outage.detected), "restoredMs": outage.restored.map(millis),
            })
        });
        let local = self.forwards.iter().map(|(forward, lane)| {
            let unbound = locked(&self.unbound);
            forward_status("local", forward, lane, unbound.problem(&forward.listen))
        });
        let remote = self.reverses.iter();
        let remote = remote.map(|(forward, lane)| forward_status("remote", forward, lane, None));
        let forwards: Vec<Value> = local.chain(remote).collect();
        json!({
            "name": *locked(&self.name), "target": self.label.0, "via": self.label.1,
            "default": is_default, "kind": self.kind(), "remotePort": definition.remote_port,
            "othersType": others_type(&definition, &self.label),
            "phase": word(state.phase), "since": time(state.since), "stage": state.stage,
            "localUrl": format!("{}://127.0.0.1:{port}", definition.scheme()), "localPort": port,
            "tlsFingerprint": definition.tls_fingerprint,
            "route": "ssh", "relay": false, "lowPower": definition.ssh.low_power,
            "holdSeconds": hold, "heldMost": held_most, "unreadMostMib": unread_most,
            "proof": proof, "roundTripMs": self.round_trip(&state).map(tenths),
            "gateway": *locked(&self.said),
            "attempts": state.attempts, "reconnects": state.reconnects, "held": state.held,
            "streams": sum(|lane| lane.totals.streams.load(Relaxed) as u64),
            "bytesIn": sum(|lane| lane.totals.bytes_in.load(Relaxed)),
            "bytesOut": sum(|lane| lane.totals.bytes_out.load(Relaxed)),
            "lastOutage": outage,
            "failure": state.failure.as_ref().map(failure),
            "forwards": forwards,
        })
    }

    /// What it has come to, for the metrics.
    pub(in crate::supervisor) fn reading(&self) -> Reading {
        let state = self.state();
        let now = clock();
        let sum = |count: fn(&Lane) -> u64| self.lanes().map(count).sum::<u64>();
        let proof = state.proof;
        Reading {
            name: locked(&self.name).clone(),
            phase: state.phase,
            proof_age: proof.map(|proof| now.saturating_duration_since(proof.at)),
            round_trip: self.round_trip(&state),
            reconnects: state.reconnects,
            away: state.away + state.lost.map(|lost| now - lost).unwrap_or_default(),
            received: sum(|lane| lane.totals.bytes_in.load(Relaxed)),
            sent: sum(|lane| lane.totals.bytes_out.load(Relaxed)),
            streams: sum(|lane| lane.totals.streams.load(Relaxed) as u64),
            held: self.lanes().map(|lane| lane.state.borrow().held as u64).sum(),
            forwards: self.carried(),
        }
    }

    /// What each further forward has come to.
    fn carried(&self) -> Vec<Carried> {
        let local = self.forwards.iter().map(|of| ("-L", of));
        let remote = self.reverses.iter().map(|of| ("-R", of));
        let read = |(option, (forward, lane)): (&str, &(Forward, Lane))| Carried {
            forward: format!("{option} {forward}"),
            received: lane.totals.bytes_in.load(Relaxed),
            sent: lane.totals.bytes_out.load(Relaxed),
            streams: lane.totals.streams.load(Relaxed) as u64,
        };
        local.chain(remote).map(read).collect()
    }

    /// The last round trips to its SSH server, milliseconds, the oldest first.
    pub(in crate::supervisor) fn round_trips(&self) -> Vec<f64> {
        self.gateway.totals.round_trips().into_iter().map(tenths).collect()
    }

    /// That of the last ping; of the last proof before the first.
    fn round_trip(&self, state: &State) -> Option<Duration> {
        let last = self.gateway.totals.round_trips().pop();
        state.proof.map(|proof| last.unwrap_or(proof.rtt))
    }
}

/// The status object of a remote that is saved and not at work: down, or failed to start.
pub(in crate::supervisor) fn resting(
    name: &str,
    definition: &config::Remote,
    is_default: bool,
    unstarted: &Unstarted,
) -> Value {
    let (phase, problem) = (unstarted.phase(name), unstarted.problem(name));
    let port = definition.local_port;
    let (hold, held_most) = waits(definition);
    let unread_most = Limits::default().of(definition).unread.most_mib();
    let via: Vec<&String> = definition.ssh.jumps.iter().filter(|jump| *jump != "none").collect();
    json!({
        "name": name, "target": definition.target, "via": via,
        "default": is_default, "kind": definition.kind, "remotePort": definition.remote_port,
        "othersType": null,
        "phase": word(phase), "since": null, "stage": "",
        "localUrl": format!("{}://127.0.0.1:{port}", definition.scheme()), "localPort": port,
        "tlsFingerprint": definition.tls_fingerprint,
        "route": "ssh", "relay": false, "lowPower": definition.ssh.low_power,
        "holdSeconds": hold, "heldMost": held_most, "unreadMostMib": unread_most,
        "proof": null, "roundTripMs": null, "gateway": null,
        "attempts": 0, "reconnects": 0, "held": 0, "streams": 0, "bytesIn": 0, "bytesOut": 0,
        "lastOutage": null, "failure": problem, "forwards": [],
    })
}

/// How many seconds, and how many connections, wait for a path; nothing waits at an exposed gateway.
fn waits(definition: &config::Remote) -> (Option<u64>, Option<usize>) {
    let waits = (definition.kind == Kind::Gateway).then(|| Limits::default().of(definition));
    (waits.as_ref().map(|it| it.hold.as_secs()), waits.map(|it| it.held_most))
}

/// What other machines type to reach a gateway that is published there.
fn others_type(definition: &config::Remote, (target, via): &Label) -> Option<String> {
    if definition.kind != Kind::Exposed || definition.remote_port == 0 {
        return None;
    }
    let bare = |label: &str| label.strip_suffix(":22").unwrap_or(label).to_owned();
    let jumps: Vec<String> = via.iter().map(|label| bare(label)).collect();
    let jumps = if jumps.is_empty() { String::new() } else { format!("-J {} ", jumps.join(",")) };
    let port = definition.remote_port;
    let pin = definition.tls_fingerprint;
    let pin = pin.map(|pin| format!("--tls-fingerprint {pin} ")).unwrap_or_default();
    Some(format!("openclaw remote connect --remote-port {port} {pin}{jumps}{}", bare(target)))
}

/// One entry of `forwards`.
fn forward_status(kind: &str, forward: &Forward, lane: &Lane, unbound: Option<&Problem>) -> Value {
    let state = lane.state.borrow();
    let (bind, port, socket) = match &forward.listen {
        Listen::Port { bind, port } => (bind.as_ref(), Some(*port), None),
        Listen::Socket(path) => (None, None, Some(path)),
    };
    let (host, host_port, host_socket) = match &forward.to {
        Destination::Port { host, port } => (Some(host), Some(*port), None),
        Destination::Socket(path) => (None, None, Some(path)),
    };
    let chosen = state.port.filter(|_| port == Some(0));
    // Its lane waits to be used, and nobody can.
    let phase = if unbound.is_some() { Phase::Waiting } else { state.phase };
    json!({
        "kind": kind, "bind": bind, "port": port, "socket": socket,
        "host": host, "hostPort": host_port, "hostSocket": host_socket,
        "allocatedPort": chosen, "reach": state.reach, "phase": word(phase),
        "streams": lane.totals.streams.load(Relaxed),
        "bytesIn": lane.totals.bytes_in.load(Relaxed),
        "bytesOut": lane.totals.bytes_out.load(Relaxed),
        "failure": match unbound {
            Some(problem) => json!(problem),
            None => json!(state.failure.as_ref().map(failure)),
        },
    })
}

fn failure(failure: &Failure) -> Value {
    json!({"class": failure.cause.class(), "message": failure.message, "fix": failure.fix})
}

fn time(at: SystemTime) -> Option<String> {
    let stamp = Timestamp::try_from(at).ok()?;
    let millisecond = stamp.round(jiff::Unit::Millisecond).unwrap_or(stamp);
    Some(millisecond.to_string())
}

/// Milliseconds with one decimal.
fn tenths(span: Duration) -> f64 {
    (span.as_secs_f64() * 10_000.0).round() / 10.0
}
