//! The places of a remote on this machine: bound once, handed to its successor, and what waits there.

use std::{io, os::fd::OwnedFd};

use tracing::warn;

use super::{FIRST_PORT, Remote};
use crate::{
    config::{Kind, Listen},
    problem::Problem,
    supervisor::{
        handover::Pool,
        incoming::Incoming,
        lane::{Command, Lane},
        lock::locked,
        port::Port,
    },
};

impl Remote {
    /// Binds the ports that `old` does not hold already; chooses the gateway's port if none is
    /// named, one that `is_reserved` does not claim.
    pub(in crate::supervisor) async fn bind(
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
