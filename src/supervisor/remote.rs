//! One remote at work: its lanes, and what the user wants of them.

use std::{
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::sleep,
};
use tracing::Instrument;

use super::{
    account::Scribe,
    desk::Desk,
    dialer::{Label, Way},
    lane::{Command, Lane, Limits, Purpose, Reverse, State},
    lock::locked,
    path::clock,
    port::Port,
    surroundings::{Listener, Surroundings},
    unbound::Unbound,
};
use crate::{
    config::{self, Destination, Forward, Kind, Listen},
    control::Opened,
    problem::Problem,
    ssh,
    tunnel::{Options, Phase, ProofKind, Wish},
};

mod ports;
mod status;

pub(super) use ports::{Optional, Which};
pub(super) use status::resting;

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
    /// To the gateway; of an exposed remote, from over there to the one of this machine.
    gateway: Lane,
    /// Those of the definition, then those of the ssh configuration.
    forwards: Vec<(Forward, Lane)>,
    /// The same for those that begin over there.
    reverses: Vec<(Forward, Lane)>,
    /// What the ssh configuration said of forwards when the remote was made.
    configured: ssh::Forwards,
    /// Its forwards that wait for a place on this machine.
    unbound: Mutex<Unbound>,
    ports: Mutex<Vec<(Listen, Port)>>,
    /// Where questions go.
    pub(super) desk: Arc<Desk>,
    /// Keys that a person unlocked.
    keyring: ssh::Keyring,
    /// What the gateway last said of itself.
    said: Mutex<Option<Value>>,
    /// Writes its history.
    pub(super) scribe: Scribe,
    /// Tells its lanes what happens to the machine.
    _listening: JoinSet<()>,
}

/// What a remote is given beside its definition and its way.
pub(super) struct Terms<'a> {
    /// The bounds of its lanes.
    pub(super) limits: &'a Limits,
    /// Writes its history.
    pub(super) scribe: Scribe,
    /// What the machine around it is.
    pub(super) surroundings: watch::Receiver<Surroundings>,
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
        Terms { limits, scribe, surroundings }: Terms<'_>,
    ) -> Self {
        let Way { label, dialer, desk, keyring, plan, forwards: configured, first, alive, port } =
            way;
        if definition.local_port == 0 {
            definition.local_port = port.unwrap_or(0);
        }
        let limits = &limits.of(&definition);
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
        let forwards: Vec<(Forward, Lane)> =
            forwards.map(|it| start(it, Purpose::Forward(it.to.clone()))).collect();
        let reverses = definition.remote_forwards.iter().chain(&configured.remote);
        let reverses = reverses.map(|it| {
            let (listen, to) = (it.listen.clone(), it.to.clone());
            start(it, Purpose::Reverse(Reverse { listen, to, proves: false, pin: None }))
        });
        let reverses: Vec<(Forward, Lane)> = reverses.collect();
        let further = [&forwards, &reverses].into_iter().flatten().map(|(_, lane)| lane);
        let lanes = std::iter::once(&gateway).chain(further);
        let lanes = lanes.map(|lane| lane.commands.clone()).collect();
        let ear = Listener::new(first, surroundings, gateway.state.clone(), lanes);
        let mut listening = JoinSet::new();
        listening.spawn(ear.listen().instrument(span));
        Self {
            name: Mutex::new(name.to_owned()),
            definition: Mutex::new(definition),
            plan,
            label,
            gateway,
            forwards,
            reverses,
            configured,
            unbound: Mutex::default(),
            ports: Mutex::new(Vec::new()),
            desk,
            keyring,
            said: Mutex::new(None),
            scribe,
            _listening: listening,
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
        let unbound = || locked(&self.unbound).first().cloned();
        let problem = failure.map(Problem::from).or_else(unbound);
        problem.filter(|_| self.configured.all_or_nothing).map(|mut problem| {
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
            lane.tell(Command::Wish(Wish::Last)).await;
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
}

/// Whether a lane that listens over there does, or says why not, or is not wanted up.
fn is_settled(state: &State) -> bool {
    state.failure.is_some() || matches!(state.phase, Phase::Live | Phase::Blocked | Phase::Down)
}
