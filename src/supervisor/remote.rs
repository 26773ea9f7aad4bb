//! One remote at work: its lanes, its ports, and what `remote status` says of it.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::{mpsc, watch},
    time::sleep,
};
use tracing::warn;

use super::{
    account::Scribe,
    desk::Desk,
    dialer::Way,
    handover::Pool,
    incoming::Incoming,
    lane::{Command, Destination, Lane, Limits, State, word},
    metrics::Reading,
    path::clock,
    port::Port,
    unread::Unread,
};
use crate::{
    config,
    control::Opened,
    problem::{Class, Problem},
    ssh,
    tunnel::{Failure, Options, Phase, ProofKind, Wish},
};

/// How long a connection waits for a path.
const HOLD: Duration = Duration::from_secs(30);
/// How long the streams of a remote that was replaced may live on.
const RETIRE: Duration = Duration::from_secs(600);
/// Between two looks at whether they have ended.
const RETIRE_LOOK: Duration = Duration::from_millis(500);
/// Where the search for a free local port begins: the gateway's own port.
pub(super) const FIRST_PORT: u16 = 18789;

/// The address of a port: what a user's program dials.
type Address = (Option<String>, u16);

/// One remote at work; dropping it ends everything of it.
pub(super) struct Remote {
    name: Mutex<String>,
    /// As saved, with the local port in use.
    definition: Mutex<config::Remote>,
    /// `user@host:port` and the hops before it, for people.
    label: (String, Vec<String>),
    /// The way that was found when the remote was made.
    plan: ssh::Plan,
    /// Whether the first dial may need no network.
    is_near: bool,
    gateway: Lane,
    /// Those of the definition, then those of the ssh configuration.
    forwards: Vec<(config::Forward, Lane)>,
    /// What the ssh configuration said of forwards when the remote was made.
    configured: ssh::Forwards,
    /// Ports of the ssh configuration's forwards that could not be bound.
    unbound: Mutex<Vec<(Address, Problem)>>,
    ports: Mutex<Vec<(Address, Port)>>,
    /// Where questions go.
    pub(super) desk: Arc<Desk>,
    /// Keys that a person unlocked.
    keyring: ssh::Keyring,
    /// What the gateway last said of itself.
    said: Mutex<Option<Value>>,
    /// Writes its history.
    pub(super) scribe: Scribe,
}

/// Two definitions that say the same.
fn is_same(old: &config::Remote, new: &config::Remote) -> bool {
    let port = if new.local_port == 0 { old.local_port } else { new.local_port };
    let new = config::Remote { local_port: port, wanted: old.wanted, ..new.clone() };
    *old == new
}

impl Remote {
    /// Makes the lanes; nothing is bound and nothing dialled yet.
    pub(super) fn new(
        name: &str,
        mut definition: config::Remote,
        way: Way,
        unread: &Arc<Unread>,
        scribe: Scribe,
    ) -> Self {
        let Way { label, dialer, desk, keyring, plan, forwards: configured, is_near, alive, port } =
            way;
        if definition.local_port == 0 {
            definition.local_port = port.unwrap_or(0);
        }
        let span = tracing::info_span!("remote", name);
        let destination =
            Destination { host: "127.0.0.1".to_owned(), port: definition.remote_port };
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let options = Options { proof: ProofKind::Gateway, alive, seed };
        let limits = Limits { hold: HOLD, unread: Arc::clone(unread) };
        let gateway = Lane::start(
            span.clone(),
            options,
            destination,
            &limits,
            Arc::clone(&dialer),
            scribe.clone(),
        );
        let all = definition.forwards.iter().chain(&configured.local);
        let forwards = all.zip(1..).map(|(forward, index)| {
            let span = tracing::info_span!(parent: &span, "forward", port = forward.port);
            let destination = Destination { host: forward.host.clone(), port: forward.host_port };
            let options = Options { proof: ProofKind::Ssh, alive, seed: seed.wrapping_add(index) };
            let (dialer, scribe) =
                (Arc::clone(&dialer), scribe.of_forward(forward.port.to_string()));
            let lane = Lane::start(span, options, destination, &limits, dialer, scribe);
            (forward.clone(), lane)
        });
        let forwards = forwards.collect();
        Self {
            name: Mutex::new(name.to_owned()),
            definition: Mutex::new(definition),
            plan,
            is_near,
            label,
            gateway,
            forwards,
            configured,
            unbound: Mutex::new(Vec::new()),
            ports: Mutex::new(Vec::new()),
            desk,
            keyring,
            said: Mutex::new(None),
            scribe,
        }
    }

    /// Whether `definition`, found to lead that way, means what is at work here.
    pub(super) fn is_same(&self, definition: &config::Remote, way: &Way) -> bool {
        is_same(&self.definition(), definition)
            && (&self.label, &self.configured) == (&way.label, &way.forwards)
    }

    /// Whether its next dial, by what the ssh configuration says now, would go as the first one.
    pub(super) fn leads_alike(&self, way: &Way) -> bool {
        self.plan.leads_alike(&way.plan)
    }

    /// Its name.
    pub(super) fn name(&self) -> String {
        locked(&self.name).clone()
    }

    /// What the gateway last said of itself.
    pub(super) fn said(&self) -> Option<Value> {
        locked(&self.said).clone()
    }

    /// Waits until every lane has answered.
    pub(super) async fn settle(&self) {
        for lane in self.lanes() {
            lane.settle().await;
        }
    }

    /// The definition, with the local port in use.
    pub(super) fn definition(&self) -> config::Remote {
        locked(&self.definition).clone()
    }

    /// Binds the ports that `old` does not hold already; chooses the gateway's port if none is
    /// named, one that `is_reserved` does not claim.
    pub(super) async fn bind(
        &self,
        old: Option<&Self>,
        pool: &Pool,
        is_reserved: impl Fn(u16) -> bool,
    ) -> Result<(), Problem> {
        if self.definition().local_port == 0
            && let Some(old) = old
        {
            locked(&self.definition).local_port = old.definition().local_port;
        }
        let mut bound = Vec::new();
        for (address, outlet) in self.addresses() {
            if old.is_some_and(|old| old.holds(&address)) {
                continue;
            }
            let port = match &address {
                (None, 0) => Port::bind_free(FIRST_PORT, &is_reserved, &outlet).await,
                (bind, number) => Port::bind(bind.as_deref(), *number, outlet, pool).await,
            };
            let port = match port {
                Ok(port) => port,
                // As with ssh: a forward of the configuration is no reason not to connect.
                Err(problem) if self.is_optional(&address) => {
                    warn!(port = address.1, "a LocalForward of the ssh configuration is not made");
                    locked(&self.unbound).push((address, problem));
                    continue;
                }
                Err(problem) => return Err(problem),
            };
            if address.1 == 0 {
                locked(&self.definition).local_port = port.number;
            }
            bound.push(((address.0, port.number), port));
        }
        locked(&self.ports).extend(bound);
        Ok(())
    }

    /// Whether an address that cannot be bound is no failure.
    fn is_optional(&self, address: &Address) -> bool {
        let is_it = |forward: &config::Forward| *address == (forward.bind.clone(), forward.port);
        !self.configured.all_or_nothing && self.configured.local.iter().any(is_it)
    }

    /// Takes over the ports that both have, and the connections that wait for a path; the rest of
    /// `old`'s ports are freed.
    pub(super) async fn succeed(&self, old: &Self) {
        let mut ports = std::mem::take(&mut *locked(&old.ports));
        for (address, outlet) in self.addresses() {
            if self.holds(&address) {
                continue;
            }
            if let Some(place) = ports.iter().position(|(held, _)| *held == address) {
                let (address, port) = ports.swap_remove(place);
                port.outlet().turn(outlet);
                locked(&self.ports).push((address, port));
            }
        }
        for (_, port) in ports {
            port.close().await;
        }
        let gateway = old.definition().local_port;
        for (number, incoming) in old.surrender().await {
            let lane = if number == gateway { Some(&self.gateway) } else { self.lane_of(number) };
            match lane {
                Some(lane) => lane.tell(Command::Open(incoming)).await,
                None => old.admit(number, incoming).await,
            }
        }
    }

    /// Accepts nothing more at its ports for now.
    pub(super) async fn pause(&self) {
        let mut ports = std::mem::take(&mut *locked(&self.ports));
        for (_, port) in &mut ports {
            port.pause().await;
        }
        locked(&self.ports).extend(ports);
    }

    /// Accepts again.
    pub(super) fn go_on(&self) {
        locked(&self.ports).iter_mut().for_each(|(_, port)| port.go_on());
    }

    /// Descriptors of its listening ports, for a successor.
    pub(super) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let ports = locked(&self.ports);
        let each = ports.iter().map(|(_, port)| port.descriptors());
        each.collect::<io::Result<Vec<_>>>().map(|all| all.into_iter().flatten().collect())
    }

    /// Lets go of its ports, which a successor has.
    pub(super) fn forget_ports(&self) {
        locked(&self.ports).clear();
    }

    /// Takes the connections that wait for a path, each with the local port that it came in at.
    pub(super) async fn surrender(&self) -> Vec<(u16, Incoming)> {
        let gateway = (self.definition().local_port, &self.gateway);
        let forwards = self.forwards.iter().map(|(forward, lane)| (forward.port, lane));
        let mut all = Vec::new();
        for (number, lane) in std::iter::once(gateway).chain(forwards) {
            all.extend(lane.surrender().await.into_iter().map(|incoming| (number, incoming)));
        }
        all
    }

    /// Hands a connection to the lane behind port `number`; dropped if there is none.
    pub(super) async fn admit(&self, number: u16, incoming: Incoming) {
        if let Some(lane) = self.lane_of(number) {
            lane.tell(Command::Open(incoming)).await;
        }
    }

    /// Its local ports.
    pub(super) fn numbers(&self) -> Vec<u16> {
        self.addresses().into_iter().map(|((_, number), _)| number).collect()
    }

    fn lane_of(&self, number: u16) -> Option<&Lane> {
        if self.definition().local_port == number {
            return Some(&self.gateway);
        }
        let forward = self.forwards.iter().find(|(forward, _)| forward.port == number);
        forward.map(|(_, lane)| lane)
    }

    /// Whether it is up and another process would need a person to bring it up.
    pub(super) fn needs_person(&self) -> bool {
        self.lanes().any(|lane| {
            let state = lane.state.borrow();
            let needed = state.facts.as_ref().is_some_and(|facts| facts.needs_person);
            let is_up = !matches!(state.phase, Phase::Blocked | Phase::Down);
            is_up && (needed || self.keyring.is_unlocked())
        })
    }

    fn holds(&self, address: &Address) -> bool {
        locked(&self.ports).iter().any(|(held, _)| held == address)
    }

    /// Every address that the definition names, with the lane behind it.
    fn addresses(&self) -> Vec<(Address, mpsc::Sender<TcpStream>)> {
        let gateway = ((None, self.definition().local_port), self.gateway.accepted.clone());
        let forwards = self
            .forwards
            .iter()
            .map(|(forward, lane)| ((forward.bind.clone(), forward.port), lane.accepted.clone()));
        std::iter::once(gateway).chain(forwards).collect()
    }

    /// Says what the user wants of all its lanes; the state shows it when this returns, so that
    /// nobody judges by what was before.
    pub(super) async fn wish(&self, wish: Wish) {
        self.gateway.tell(Command::Wish(wish)).await;
        self.gateway.settle().await;
        let wish = if wish == Wish::Up { Wish::OnDemand } else { wish };
        for (_, lane) in &self.forwards {
            lane.tell(Command::Wish(wish)).await;
        }
    }

    /// Goes by another name from now on.
    pub(super) fn rename(&self, to: &str) {
        self.scribe.rename(to);
        to.clone_into(&mut locked(&self.name));
    }

    /// Lets its streams end, for ten minutes at most, and then ends itself. It dials no more.
    pub(super) async fn retire(&self) {
        self.scribe.fall_silent();
        for lane in self.lanes() {
            lane.tell(Command::Wish(Wish::OnDemand)).await;
        }
        let busy =
            |lane: &Lane| lane.totals.streams.load(Relaxed) > 0 || lane.state.borrow().held > 0;
        let until = clock() + RETIRE;
        // Idle twice: a connection on its way back to its lane counts nowhere for a moment.
        let mut idle = 0;
        while idle < 2 && clock() < until {
            idle = if self.lanes().any(busy) { 0 } else { idle + 1 };
            sleep(RETIRE_LOOK).await;
        }
        self.end().await;
    }

    /// Takes all its lanes down and frees its ports.
    pub(super) async fn end(&self) {
        self.wish(Wish::Down).await;
        let ports = std::mem::take(&mut *locked(&self.ports));
        for (_, port) in ports {
            port.close().await;
        }
    }

    /// The machine woke after so long.
    pub(super) async fn woke(&self, slept: Duration) {
        for lane in self.lanes() {
            lane.tell(Command::Woke { slept }).await;
        }
    }

    /// The machine's addresses changed; `up` tells whether it has any. A target on this machine
    /// needs none.
    pub(super) async fn network(&self, up: bool) {
        let up = up || self.is_near;
        for lane in self.lanes() {
            lane.tell(Command::Network { up }).await;
        }
    }

    /// Hands the gateway's lane something.
    pub(super) async fn tell(&self, command: Command) {
        self.gateway.tell(command).await;
    }

    /// The gateway lane's state, as it changes.
    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.gateway.state.clone()
    }

    /// The states of all its lanes, as they change.
    pub(super) fn states(&self) -> Vec<watch::Receiver<State>> {
        self.lanes().map(|lane| lane.state.clone()).collect()
    }

    /// The last round trips to its SSH server, milliseconds, the oldest first.
    pub(super) fn round_trips(&self) -> Vec<f64> {
        self.gateway.totals.round_trips().into_iter().map(tenths).collect()
    }

    /// What it has come to, for the metrics.
    pub(super) fn reading(&self) -> Reading {
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
        }
    }

    /// That of the last ping; of the last proof before the first.
    fn round_trip(&self, state: &State) -> Option<Duration> {
        let last = self.gateway.totals.round_trips().pop();
        state.proof.map(|proof| last.unwrap_or(proof.rtt))
    }

    /// The gateway lane's state.
    pub(super) fn state(&self) -> State {
        self.gateway.state.borrow().clone()
    }

    /// What the transport of the gateway's lane proved.
    pub(super) fn opened(&self) -> Opened {
        Opened {
            host_key: self.state().facts.and_then(|facts| facts.host_key),
            remote_port: self.definition().remote_port,
        }
    }

    /// Remembers what the gateway said of itself.
    pub(super) fn remember(&self, said: Option<Value>) {
        if said.is_some() {
            *locked(&self.said) = said;
        }
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        std::iter::once(&self.gateway).chain(self.forwards.iter().map(|(_, lane)| lane))
    }

    /// The object of `remote status --json`.
    pub(super) fn status(&self, is_default: bool) -> Value {
        let state = self.state();
        let port = self.definition().local_port;
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
        let forwards: Vec<Value> = self
            .forwards
            .iter()
            .map(|(forward, lane)| {
                let state = lane.state.borrow();
                let address = (forward.bind.clone(), forward.port);
                let unbound = locked(&self.unbound);
                let unbound = unbound.iter().find(|(other, _)| *other == address);
                json!({
                    "bind": forward.bind, "port": forward.port, "host": forward.host,
                    "hostPort": forward.host_port, "phase": word(state.phase),
                    "failure": match unbound {
                        Some((_, problem)) => json!(problem),
                        None => json!(state.failure.as_ref().map(failure)),
                    },
                })
            })
            .collect();
        json!({
            "name": *locked(&self.name), "target": self.label.0, "via": self.label.1,
            "default": is_default,
            "phase": word(state.phase), "since": time(state.since), "stage": state.stage,
            "localUrl": format!("ws://127.0.0.1:{port}"), "localPort": port,
            "route": "ssh", "relay": false, "lowPower": self.definition().ssh.low_power,
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
}

/// The status object of a remote that is saved and not at work: down, or failed to start.
pub(super) fn resting(
    name: &str,
    definition: &config::Remote,
    is_default: bool,
    problem: Option<&Problem>,
) -> Value {
    let phase = match problem {
        // Tried again until the port is free.
        Some(problem) if problem.class == Class::PortInUse => Phase::Waiting,
        Some(_) => Phase::Blocked,
        None => Phase::Down,
    };
    let port = definition.local_port;
    let via: Vec<&String> = definition.ssh.jumps.iter().filter(|jump| *jump != "none").collect();
    json!({
        "name": name, "target": definition.target, "via": via,
        "default": is_default,
        "phase": word(phase), "since": null, "stage": "",
        "localUrl": format!("ws://127.0.0.1:{port}"), "localPort": port,
        "route": "ssh", "relay": false, "lowPower": definition.ssh.low_power,
        "proof": null, "roundTripMs": null, "gateway": null,
        "attempts": 0, "reconnects": 0, "held": 0, "streams": 0, "bytesIn": 0, "bytesOut": 0,
        "lastOutage": null, "failure": problem, "forwards": [],
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

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Milliseconds with one decimal.
fn tenths(span: Duration) -> f64 {
    (span.as_secs_f64() * 10_000.0).round() / 10.0
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
