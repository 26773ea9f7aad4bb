//! Who is connected: the clients, presence, and events to those who may hear of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use super::outbox::{Ending, Outbox};
use crate::protocol::{PresenceEntry, Role, Scope, StateVersion, event};

/// One authenticated client.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) role: Role,
    /// The device whose key signed its connection, if one did.
    pub(super) device_id: Option<String>,
    pub(super) scopes: Vec<Scope>,
    pub(super) outbox: Arc<Outbox>,
    /// Its line of presence; `None` for programs that come and go.
    pub(super) presence: Option<PresenceEntry>,
}

/// Everybody.
#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    own: PresenceEntry,
    members: BTreeMap<u64, Arc<Member>>,
    latest: u64,
    version: StateVersion,
}

/// Whom an event is meant for, among those who may hear of it.
#[derive(Debug, Clone, Copy)]
#[allow(dead_code, reason = "the ways there are, whether an event takes each already or not")]
pub(super) enum To<'a> {
    /// Everybody.
    All,
    /// The members with these numbers.
    Members(&'a [u64]),
    /// Everybody of a role.
    Role(Role),
    /// Every connection of a device.
    Device(&'a str),
}

impl To<'_> {
    fn means(self, number: u64, member: &Member) -> bool {
        match self {
            Self::All => true,
            Self::Members(numbers) => numbers.contains(&number),
            Self::Role(role) => member.role == role,
            Self::Device(id) => member.device_id.as_deref() == Some(id),
        }
    }
}

/// A place among the members; leaves when dropped.
#[derive(Debug)]
pub(super) struct Membership {
    hub: Arc<Hub>,
    number: u64,
}

impl Membership {
    /// The member's number; no other member ever has it.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Hub {
    /// Nobody but the gateway itself.
    pub(super) fn new(own: PresenceEntry) -> Self {
        let version = StateVersion { presence: 1, health: 1 };
        Self { state: Mutex::new(State { own, members: BTreeMap::new(), latest: 0, version }) }
    }

    /// Takes `member` in. `welcome` sees presence with the newcomer in it and queues its first
    /// frame before any event can reach it.
    pub(super) fn join(
        self: &Arc<Self>,
        member: Member,
        now_ms: u64,
        welcome: impl FnOnce(Vec<PresenceEntry>, StateVersion),
    ) -> Membership {
        let is_shown = member.presence.is_some();
        let mut state = self.lock();
        state.latest += 1;
        let number = state.latest;
        if is_shown {
            state.version.presence += 1;
        }
        let others: Vec<_> = state.members.keys().copied().collect();
        state.members.insert(number, Arc::new(member));
        welcome(state.presence(now_ms), state.version);
        if is_shown {
            state.tell_presence(To::Members(&others), now_ms);
        }
        drop(state);
        Membership { hub: Arc::clone(self), number }
    }

    /// Everybody's line, the gateway's first.
    pub(super) fn presence(&self, now_ms: u64) -> Vec<PresenceEntry> {
        self.lock().presence(now_ms)
    }

    /// How many clients there are.
    pub(super) fn count(&self) -> usize {
        self.lock().members.len()
    }

    /// Tells every client of a new health summary.
    pub(super) fn tell_health(&self, health: &impl Serialize) {
        let mut state = self.lock();
        state.version.health += 1;
        state.tell(To::All, event::HEALTH, health, Some(state.version));
    }

    /// Tells those of `to` that may hear of `kind`, and says how many they are.
    pub(super) fn tell(&self, to: To<'_>, kind: event::Kind, payload: &impl Serialize) -> usize {
        self.lock().tell(to, kind, payload, None)
    }

    /// Ends the connections that `is_meant` picks by number and member, after what is queued for
    /// them; says how many.
    pub(super) fn dismiss(
        &self,
        ending: &Ending,
        is_meant: impl Fn(u64, &Member) -> bool,
    ) -> usize {
        let state = self.lock();
        let meant = state.members.iter().filter(|(number, member)| is_meant(**number, member));
        meant.map(|(_, member)| member.outbox.end(ending.clone())).count()
    }

    /// The devices that are here.
    pub(super) fn devices(&self) -> BTreeSet<String> {
        self.lock().members.values().filter_map(|member| member.device_id.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn presence(&self, now_ms: u64) -> Vec<PresenceEntry> {
        let own = PresenceEntry { ts: now_ms, ..self.own.clone() };
        let others = self.members.values().filter_map(|member| member.presence.clone());
        std::iter::once(own).chain(others).collect()
    }

    fn tell_presence(&self, to: To<'_>, now_ms: u64) {
        let change = event::PresenceChange { presence: self.presence(now_ms) };
        self.tell(to, event::PRESENCE, &change, Some(self.version));
    }

    /// Queues an event for those who may get it; its payload is written once for all.
    fn tell(
        &self,
        to: To<'_>,
        kind: event::Kind,
        payload: &impl Serialize,
        version: Option<StateVersion>,
    ) -> usize {
        let Ok(payload) = serde_json::to_string(payload) else { return 0 };
        let meant = self.members.iter().filter(|(number, member)| {
            to.means(**number, member) && kind.access.admits(member.role, &member.scopes)
        });
        meant.map(|(_, member)| member.outbox.event(kind, &payload, version)).count()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        let gone = state.members.remove(&self.number);
        if gone.is_some_and(|member| member.presence.is_some()) {
            state.version.presence += 1;
            state.tell_presence(To::All, super::clock::now_ms());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(presence: Option<PresenceEntry>) -> (Member, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::new(1 << 20, Arc::new(crate::gateway::tally::Tally::new())));
        let (role, scopes) = (Role::Operator, vec![Scope::Read]);
        (Member { role, device_id: None, scopes, outbox: Arc::clone(&outbox), presence }, outbox)
    }

    #[test]
    fn presence_counts_those_who_stay_and_its_version_grows() {
        let hub = Arc::new(Hub::new(PresenceEntry::default()));
        let (passing, _) = member(None);
        let _first = hub.join(passing, 1, |presence, version| {
            assert_eq!((presence.len(), version.presence), (1, 1));
        });
        let (staying, _) = member(Some(PresenceEntry::default()));
        let second = hub.join(staying, 1, |presence, version| {
            assert_eq!((presence.len(), version.presence), (2, 2));
        });
        assert_eq!((hub.count(), hub.presence(1).len()), (2, 2));
        drop(second);
        assert_eq!((hub.count(), hub.presence(1).len()), (1, 1));
        assert_eq!(hub.lock().version.presence, 3);
    }
    #[test]
    fn events_reach_those_they_are_meant_for_and_who_may_hear_of_them() {
        const PAIRED: event::Kind = event::Kind {
            name: "test",
            access: crate::protocol::Access::Holder(Scope::Pairing),
            drop_if_slow: false,
        };
        const INVOKED: event::Kind =
            event::Kind { access: crate::protocol::Access::Node, ..PAIRED };
        let hub = Arc::new(Hub::new(PresenceEntry::default()));
        let join = |change: fn(&mut Member)| {
            let (mut joining, _) = member(None);
            change(&mut joining);
            hub.join(joining, 1, |_, _| {})
        };
        let _reader = join(|_| {});
        let pairer = join(|member| member.scopes = vec![Scope::Pairing]);
        let node = join(|member| {
            member.role = Role::Node;
            member.device_id = Some("phone".to_owned());
        });
        assert_eq!(hub.tell(To::All, event::TICK, &1), 3);
        assert_eq!(hub.tell(To::All, event::PRESENCE, &1), 1);
        assert_eq!(hub.tell(To::All, PAIRED, &1), 1);
        assert_eq!(hub.tell(To::Members(&[node.number()]), PAIRED, &1), 0);
        assert_eq!(hub.tell(To::Members(&[pairer.number(), node.number()]), INVOKED, &1), 1);
        assert_eq!(hub.tell(To::Device("phone"), INVOKED, &1), 1);
        assert_eq!(hub.tell(To::Role(Role::Node), event::TICK, &1), 1);
        assert_eq!(hub.dismiss(&Ending::silent(), |_, member| member.device_id.is_some()), 1);
        assert_eq!(hub.lock().members[&node.number()].outbox.ending(), Some(Ending::silent()));
    }
}
