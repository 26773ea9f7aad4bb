//! The places of a remote on this machine: bound once, handed to its successor, and what waits there.

use std::{io, os::fd::OwnedFd, time::Instant};

use tracing::{info, warn};

use super::{FIRST_PORT, Remote};
use crate::{
    config::{self, Kind, Listen},
    problem::{Class, Problem},
    supervisor::{
        handover::Pool,
        incoming::Incoming,
        lane::{Command, Lane},
        lock::locked,
        port::Port,
    },
};

/// Which forwards are no failure of the remote while their place on this machine is taken.
#[derive(Debug, Clone, Copy)]
pub(in crate::supervisor) enum Optional<'a> {
    /// Every one: the user may not be there to choose another place.
    All,
    /// Those that the remote had as it was saved, and those of the ssh configuration; none where
    /// `ExitOnForwardFailure` is set.
    Known(Option<&'a config::Remote>),
}

/// Which places are tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::supervisor) enum Which {
    /// Those whose time has come.
    Due,
    /// All that wait.
    All,
}

impl Remote {
    /// Binds the ports that `old` does not hold already; chooses the gateway's port if none is
    /// named, one that `is_reserved` does not claim. A forward that is `optional` waits for its
    /// place ([`Self::bind_again`]). Where it fails `pool` has what came from it.
    pub(in crate::supervisor) async fn bind(
        &self,
        old: Option<&Self>,
        pool: &Pool,
        is_reserved: impl Fn(u16) -> bool,
        optional: Optional<'_>,
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
                // As with ssh: what the gateway does not need is no reason not to connect.
                // Time does not help where no place is named.
                Err(problem)
                    if problem.class != Class::Usage && self.is_optional(&listen, optional) =>
                {
                    self.note_unbound(&listen, problem);
                    continue;
                }
                Err(problem) => {
                    locked(&self.ports).extend(bound);
                    self.hand_back(pool).await;
                    return Err(problem);
                }
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

    /// Whether a place that cannot be bound is its forward's own failure.
    fn is_optional(&self, listen: &Listen, optional: Optional<'_>) -> bool {
        if !self.forwards.iter().any(|(forward, _)| forward.listen == *listen) {
            return false;
        }
        match optional {
            Optional::All => true,
            Optional::Known(_) if self.configured.all_or_nothing => false,
            Optional::Known(saved) => {
                let companion = saved.and_then(config::Remote::companion);
                let saved = saved.into_iter().flat_map(|saved| &saved.forwards);
                let mut known = saved.chain(&companion).chain(&self.configured.local);
                known.any(|forward| forward.listen == *listen)
            }
        }
    }

    /// Tries places again that were taken; whether anything is otherwise than before.
    pub(in crate::supervisor) async fn bind_again(&self, pool: &Pool, which: Which) -> bool {
        let waiting = match which {
            Which::Due => locked(&self.unbound).due(Instant::now()),
            Which::All => locked(&self.unbound).all(),
        };
        let mut is_news = false;
        for listen in waiting {
            let Some(lane) = self.lane_at(&listen) else {
                locked(&self.unbound).forget(&listen);
                continue;
            };
            let outlet = lane.accepted.clone();
            match Port::open(&listen, self.configured.sockets, outlet, pool).await {
                Ok(port) => {
                    info!(at = %listen, "the place of a forward is free, and had");
                    locked(&self.ports).push((listen.clone(), port));
                    locked(&self.unbound).forget(&listen);
                    is_news = true;
                }
                Err(problem) => is_news |= self.note_unbound(&listen, problem),
            }
        }
        is_news
    }

    /// When one of them is to be tried again; `None` if each has its place.
    pub(in crate::supervisor) fn next_bind(&self) -> Option<Instant> {
        locked(&self.unbound).next()
    }

    fn note_unbound(&self, at: &Listen, problem: Problem) -> bool {
        let class = problem.class;
        let is_news = locked(&self.unbound).note(at, problem, Instant::now());
        if is_news {
            warn!(%at, ?class, "a forward waits for its place on this machine");
        }
        is_news
    }

    /// Takes over the ports that both have, the connections that wait for a path, and the listeners
    /// over there; the rest of `old`'s are freed.
    pub(in crate::supervisor) async fn succeed(&self, old: &Self) {
        let mut ports = std::mem::take(&mut *locked(&old.ports));
        for (listen, lane) in self.places() {
            let outlet = lane.accepted.clone();
            if self.holds(&listen) {
                continue;
            }
            if let Some(place) = ports.iter().position(|(held, _)| *held == listen) {
                let (listen, port) = ports.swap_remove(place);
                port.outlet().turn(outlet);
                locked(&self.unbound).forget(&listen);
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

    /// Ends, and gives what came from `pool` back to it: ports, and the connections that wait at them.
    pub(in crate::supervisor) async fn hand_back(&self, pool: &Pool) {
        if !locked(&self.ports).iter().any(|(_, port)| port.is_inherited()) {
            return self.end().await;
        }
        self.pause().await;
        let held = self.surrender().await;
        let ports = std::mem::take(&mut *locked(&self.ports));
        let inherited = ports.iter().filter(|(_, port)| port.is_inherited());
        let inherited: Vec<Listen> = inherited.map(|(at, _)| at.clone()).collect();
        for (at, incoming) in held {
            match incoming.descriptor() {
                Ok(Some(stream)) if inherited.contains(&at) => {
                    let left = incoming.until.saturating_duration_since(Instant::now());
                    pool.put_held(stream.into(), left);
                }
                // It is told that the remote is down.
                Ok(_) | Err(_) => self.admit(&at, incoming).await,
            }
        }
        for (_, port) in ports {
            port.give_back(pool).await;
        }
        self.end().await;
    }

    /// Accepts nothing more at its ports for now.
    pub(in crate::supervisor) async fn pause(&self) {
        let mut ports = std::mem::take(&mut *locked(&self.ports));
        for (_, port) in &mut ports {
            port.pause().await;
        }
        locked(&self.ports).extend(ports);
    }

    /// Accepts again.
    pub(in crate::supervisor) fn go_on(&self) {
        locked(&self.ports).iter_mut().for_each(|(_, port)| port.go_on());
    }

    /// Descriptors of its listening ports, for a successor.
    pub(in crate::supervisor) fn descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let ports = locked(&self.ports);
        let each = ports.iter().map(|(_, port)| port.descriptors());
        each.collect::<io::Result<Vec<_>>>().map(|all| all.into_iter().flatten().collect())
    }

    /// Lets go of its ports, which a successor has.
    pub(in crate::supervisor) fn forget_ports(&self) {
        let ports = std::mem::take(&mut *locked(&self.ports));
        ports.into_iter().for_each(|(_, port)| port.leave());
    }

    /// Takes the connections that wait for a path, each with the place that it came in at.
    pub(in crate::supervisor) async fn surrender(&self) -> Vec<(Listen, Incoming)> {
        let mut all = Vec::new();
        for (at, lane) in self.places() {
            let held = lane.surrender().await;
            all.extend(held.into_iter().map(|incoming| (at.clone(), incoming)));
        }
        all
    }

    /// Hands a connection to the lane behind a place; dropped if there is none.
    pub(in crate::supervisor) async fn admit(&self, at: &Listen, incoming: Incoming) {
        if let Some(lane) = self.lane_at(at) {
            lane.tell(Command::Open(incoming)).await;
        }
    }

    /// Its places on this machine.
    pub(in crate::supervisor) fn listens(&self) -> Vec<Listen> {
        self.places().into_iter().map(|(listen, _)| listen).collect()
    }

    /// The port of the gateway's clients, if it has one; no two remotes have the same.
    pub(in crate::supervisor) fn port(&self) -> Option<u16> {
        (self.kind() == Kind::Gateway).then(|| self.definition().local_port)
    }

    /// Whether it, or the one that it shall follow, listens on a port of loopback.
    pub(in crate::supervisor) fn is_bound_to(&self, port: u16) -> bool {
        let unbound = locked(&self.unbound);
        let is_bound = |at: &Listen| at.takes_local(port) && unbound.problem(at).is_none();
        self.listens().iter().any(is_bound)
    }

    fn lane_at(&self, at: &Listen) -> Option<&Lane> {
        self.places().into_iter().find(|(listen, _)| listen == at).map(|(_, lane)| lane)
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
}
