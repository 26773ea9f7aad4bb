//! One remote at work: its lanes, its ports, and what `remote status` says of it.

use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    sync::{oneshot, watch},
    time::sleep,
};
use tracing::warn;

use super::{
    account::Scribe,
    desk::Desk,
    dialer::{Label, Way},
    handover::Pool,
    incoming::Incoming,
    lane::{Command, Lane, Limits, Purpose, Reverse, State, millis, word},
    lock::locked,
    metrics::{Carried, Reading},
    path::clock,
    port::Port,
    unstarted::Unstarted,
};
use crate::{
    config::{self, Destination, Forward, Kind, Listen},
    control::Opened,
    problem::Problem,
    ssh,
    tunnel::{Failure, Options, Phase, ProofKind, Wish},
};

/// How long the streams of a remote that was replaced may live on.
const RETIRE: Duration = Duration::from_secs(600);
/// Between two looks at whether they have ended.
const RETIRE_LOOK: Duration = Duration::from_millis(500);
/// Where the search for a free local port begins: the gateway's own port.
pub(super) const FIRST_PORT: u16 = 18789;

/// One remote at work; dropping it ends everything of it.
pub(super) struct Remote {
    name: Mutex<String>,
    /// As saved, with the local port in use.
    definition: Mutex<config::Remote>,
    /// `user@host:port` and the hops before it, for people.
    label: Label,
    /// The way that was found when the remote was made.
    plan: ssh::Plan,
    /// Whether the first dial may need no network.
    is_near: bool,
    /// To the gateway; of an exposed remote, from over there to the one of this machine.
    gateway: Lane,
    /// Those of the definition, then those of the ssh configuration.
    forwards: Vec<(Forward, Lane)>,
    /// The same for those that begin over there.
    reverses: Vec<(Forward, Lane)>,
    /// What the ssh configuration said of forwards when the remote was made.
    configured: ssh::Forwards,
    /// Ports of the ssh configuration's forwards that could not be bound.
    unbound: Mutex<Vec<(Listen, Problem)>>,
    ports: Mutex<Vec<(Listen, Port)>>,
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
        limits: &Limits,
        scribe: Scribe,
    ) -> Self {
        let Way { label, dialer, desk, keyring, plan, forwards: configured, is_near, alive, port } =
            way;
        if definition.local_port == 0 {
            definition.local_port = port.unwrap_or(0);
        }
        let span = tracing::info_span!("remote", name);
        let (proof, purpose) = match definition.kind {
            Kind::Gateway => {
                let to = Destination::loopback(definition.remote_port);
                (ProofKind::Gateway, Purpose::Gateway(to, definition.tls_fingerprint))
            }
            Kind::Exposed => (
                ProofKind::Ssh,
                Purpose::Reverse(Reverse {
                    listen: Listen::loopback(definition.remote_port),
                    to: Destination::loopback(definition.local_port),
                    proves: true,
                    pin: definition.tls_fingerprint,
                }),
            ),
        };
        let seed = uuid::Uuid::new_v4().as_u64_pair().0;
        let options = Options { proof, alive, seed };
        let gateway = Lane::start(
            span.clone(),
            options,
            purpose,
            limits,
            Arc::clone(&dialer),
            scribe.clone(),
        );
        let mut seeds = (1..).map(|index| seed.wrapping_add(index));
        let mut start = |forward: &Forward, purpose| {
            let span = tracing::info_span!(parent: &span, "forward", at = %forward.listen);
            let seed = seeds.next().unwrap_or(seed);
            let options = Options { proof: ProofKind::Ssh, alive, seed };
            let scribe = scribe.of_forward(forward.listen.to_string());
            let lane = Lane::start(span, options, purpose, limits, Arc::clone(&dialer), scribe);
            (forward.clone(), lane)
        };
        let companion = definition.companion();
        let forwards = definition.forwards.iter().chain(&companion).chain(&configured.local);
        let forwards = forwards.map(|it| start(it, Purpose::Forward(it.to.clone()))).collect();
        let reverses = definition.remote_forwards.iter().chain(&configured.remote);
        let reverses = reverses.map(|it| {
            let (listen, to) = (it.listen.clone(), it.to.clone());
            start(it, Purpose::Reverse(Reverse { listen, to, proves: false, pin: None }))
        });
        let reverses = reverses.collect();
        Self {
            name: Mutex::new(name.to_owned()),
            definition: Mutex::new(definition),
            plan,
            is_near,
            label,
            gateway,
            forwards,
            reverses,
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

    /// The definition, with the local port in use, and with the one over there that the server
    /// chose where a gateway of this machine is published.
    pub(super) fn definition(&self) -> config::Remote {
        let mut definition = locked(&self.definition).clone();
        if definition.kind == Kind::Exposed && definition.remote_port == 0 {
            definition.remote_port = self.state().port.unwrap_or(0);
        }
        definition
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
        let taken = |port| {
            let mut forwards = self.forwards.iter().map(|(forward, _)| &forward.listen);
            is_reserved(port) || forwards.any(|listen| listen.port() == Some(port))
        };
        for (mut listen, lane) in self.places() {
            let outlet = lane.accepted.clone();
            if old.is_some_and(|old| old.holds(&listen)) {
                continue;
            }
            let is_free_choice = listen.port() == Some(0);
            let port = if is_free_choice {
                Port::bind_free(FIRST_PORT, taken, &outlet).await
            } else {
                Port::open(&listen, self.configured.sockets, outlet, pool).await
            };
            let port = match port {
                Ok(port) => port,
                // As with ssh: a forward of the configuration is no reason not to connect.
                Err(problem) if self.is_optional(&listen) => {
                    warn!(at = %listen, "a LocalForward of the ssh configuration is not made");
                    locked(&self.unbound).push((listen, problem));
                    continue;
                }
                Err(problem) => return Err(problem),
            };
            if is_free_choice {
                locked(&self.definition).local_port = port.number;
                listen = Listen::loopback(port.number);
            }
            bound.push((listen, port));
        }
        locked(&self.ports).extend(bound);
        Ok(())
    }

    /// Whether a place that cannot be bound is no failure.
    fn is_optional(&self, listen: &Listen) -> bool {
        let mut configured = self.configured.local.iter();
        !self.configured.all_or_nothing && configured.any(|forward| forward.listen == *listen)
    }

    /// Takes over the ports that both have, the connections that wait for a path, and the listeners
    /// over there; the rest of `old`'s are freed.
    pub(super) async fn succeed(&self, old: &Self) {
        let mut ports = std::mem::take(&mut *locked(&old.ports));
        for (listen, lane) in self.places() {
            let outlet = lane.accepted.clone();
            if self.holds(&listen) {
                continue;
            }
            if let Some(place) = ports.iter().position(|(held, _)| *held == listen) {
                let (listen, port) = ports.swap_remove(place);
                port.outlet().turn(outlet);
                locked(&self.ports).push((listen, port));
            }
        }
        for (_, port) in ports {
            port.close().await;
        }
        for (at, incoming) in old.surrender().await {
            match self.lane_at(&at) {
                Some(lane) => lane.tell(Command::Open(incoming)).await,
                None => old.admit(&at, incoming).await,
            }
        }
        old.release().await;
        self.raise(None).await;
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
        let ports = std::mem::take(&mut *locked(&self.ports));
        ports.into_iter().for_each(|(_, port)| port.leave());
    }

    /// Takes the connections that wait for a path, each with the place that it came in at.
    pub(super) async fn surrender(&self) -> Vec<(Listen, Incoming)> {
        let mut all = Vec::new();
        for (at, lane) in self.places() {
            let held = lane.surrender().await;
            all.extend(held.into_iter().map(|incoming| (at.clone(), incoming)));
        }
        all
    }

    /// Hands a connection to the lane behind a place; dropped if there is none.
    pub(super) async fn admit(&self, at: &Listen, incoming: Incoming) {
        if let Some(lane) = self.lane_at(at) {
            lane.tell(Command::Open(incoming)).await;
        }
    }

    /// Its places on this machine.
    pub(super) fn listens(&self) -> Vec<Listen> {
        self.places().into_iter().map(|(listen, _)| listen).collect()
    }

    /// The port of the gateway's clients, if it has one; no two remotes have the same.
    pub(super) fn port(&self) -> Option<u16> {
        (self.kind() == Kind::Gateway).then(|| self.definition().local_port)
    }

    fn lane_at(&self, at: &Listen) -> Option<&Lane> {
        self.places().into_iter().find(|(listen, _)| listen == at).map(|(_, lane)| lane)
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

    /// Gives its listeners over there back: one cannot overlap with itself. Another wish asks for
    /// them again.
    pub(super) async fn release(&self) {
        let mut released = Vec::new();
        for lane in self.listening() {
            let (done, release) = oneshot::channel();
            lane.tell(Command::Release(done)).await;
            released.push(release);
        }
        for release in released {
            // Answered or dropped, it is given back, or nothing can be done about it.
            let _done = release.await;
        }
    }

    fn holds(&self, listen: &Listen) -> bool {
        locked(&self.ports).iter().any(|(held, _)| held == listen)
    }

    /// Every place of this machine that the definition names, with the lane behind it.
    fn places(&self) -> Vec<(Listen, &Lane)> {
        let port = self.definition().local_port;
        let gateway =
            (self.kind() == Kind::Gateway).then(|| (Listen::loopback(port), &self.gateway));
        let forwards = self.forwards.iter();
        let forwards = forwards.map(|(forward, lane)| (forward.listen.clone(), lane));
        gateway.into_iter().chain(forwards).collect()
    }

    /// Which way it leads.
    pub(super) fn kind(&self) -> Kind {
        locked(&self.definition).kind
    }

    /// The lanes that listen over there.
    fn listening(&self) -> impl Iterator<Item = &Lane> {
        let exposed = (self.kind() == Kind::Exposed).then_some(&self.gateway);
        exposed.into_iter().chain(self.reverses.iter().map(|(_, lane)| lane))
    }

    /// Says what the user wants of all its lanes; the state shows it when this returns, so that
    /// nobody judges by what was before.
    pub(super) async fn wish(&self, wish: Wish) {
        self.try_out(wish).await;
        for (_, lane) in &self.reverses {
            lane.tell(Command::Wish(wish)).await;
        }
    }

    /// The same without the forwards that begin over there: the remote before this one may have
    /// their places still.
    pub(super) async fn try_out(&self, wish: Wish) {
        self.gateway.tell(Command::Wish(wish)).await;
        self.gateway.settle().await;
        let wish = if wish == Wish::Up { Wish::OnDemand } else { wish };
        for (_, lane) in &self.forwards {
            lane.tell(Command::Wish(wish)).await;
        }
    }

    /// Wants the forwards up that begin over there, but for those that `old` has.
    pub(super) async fn raise(&self, old: Option<&Self>) {
        for (forward, lane) in &self.reverses {
            let mut held = old.into_iter().flat_map(|old| &old.reverses);
            if !held.any(|(other, _)| other.listen.collides(&forward.listen)) {
                lane.tell(Command::Wish(Wish::Up)).await;
                lane.settle().await;
            }
        }
    }

    /// Waits until each forward that begins over there and is wanted up is, or has failed.
    pub(super) async fn settled(&self) {
        for (_, lane) in &self.reverses {
            let mut state = lane.state.clone();
            // A lane that has ended has settled.
            let _ended = state.wait_for(is_settled).await;
        }
    }

    /// Whether each of them is, or has failed.
    pub(super) fn is_settled(&self) -> bool {
        self.reverses.iter().all(|(_, lane)| is_settled(&lane.state.borrow()))
    }

    /// What went wrong with one, if that is a reason not to connect (`ExitOnForwardFailure`).
    pub(super) fn forward_failure(&self) -> Option<Problem> {
        let mut states = self.reverses.iter().map(|(_, lane)| lane.state.borrow().clone());
        let failure = states.find_map(|state| state.failure.filter(|_| state.phase != Phase::Live));
        failure.filter(|_| self.configured.all_or_nothing).map(|failure| {
            let mut problem = Problem::from(failure);
            problem.message.push_str(", and ExitOnForwardFailure is set");
            problem
        })
    }

    /// Goes by another name from now on.
    pub(super) fn rename(&self, to: &str) {
        self.scribe.rename(to);
        to.clone_into(&mut locked(&self.name));
    }

    /// Lets its streams end, for ten minutes at most, and then ends itself. It dials for what still waits
    /// at it, and else no more.
    pub(super) async fn retire(&self) {
        self.scribe.fall_silent();
        // Another one wants its listeners over there, if anybody does.
        self.release().await;
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
            tls_fingerprint: self.definition().tls_fingerprint,
        }
    }

    /// Remembers what the gateway said of itself.
    pub(super) fn remember(&self, said: Option<Value>) {
        if said.is_some() {
            *locked(&self.said) = said;
        }
    }

    fn lanes(&self) -> impl Iterator<Item = &Lane> {
        let further = self.forwards.iter().chain(&self.reverses);
        std::iter::once(&self.gateway).chain(further.map(|(_, lane)| lane))
    }

    /// The object of `remote status --json`.
    pub(super) fn status(&self, is_default: bool) -> Value {
        let state = self.state();
        let definition = self.definition();
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
            let unbound = unbound.iter().find(|(other, _)| *other == forward.listen);
            forward_status("local", forward, lane, unbound.map(|(_, problem)| problem))
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
    unstarted: &Unstarted,
) -> Value {
    let (phase, problem) = (unstarted.phase(name), unstarted.problem(name));
    let port = definition.local_port;
    let via: Vec<&String> = definition.ssh.jumps.iter().filter(|jump| *jump != "none").collect();
    json!({
        "name": name, "target": definition.target, "via": via,
        "default": is_default, "kind": definition.kind, "remotePort": definition.remote_port,
        "othersType": null,
        "phase": word(phase), "since": null, "stage": "",
        "localUrl": format!("{}://127.0.0.1:{port}", definition.scheme()), "localPort": port,
            "tlsFingerprint": definition.tls_fingerprint,
        "route": "ssh", "relay": false, "lowPower": definition.ssh.low_power,
        "proof": null, "roundTripMs": null, "gateway": null,
        "attempts": 0, "reconnects": 0, "held": 0, "streams": 0, "bytesIn": 0, "bytesOut": 0,
        "lastOutage": null, "failure": problem, "forwards": [],
    })
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

/// Whether a lane that listens over there does, or says why not, or is not wanted up.
fn is_settled(state: &State) -> bool {
    state.failure.is_some() || matches!(state.phase, Phase::Live | Phase::Blocked | Phase::Down)
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
    json!({
        "kind": kind, "bind": bind, "port": port, "socket": socket,
        "host": host, "hostPort": host_port, "hostSocket": host_socket,
        "allocatedPort": chosen, "phase": word(state.phase),
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
