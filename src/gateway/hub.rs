//! Who is connected: the clients, presence, and events to all of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;
use serde_json::Value;

use super::outbox::Outbox;
use crate::protocol::{PresenceEntry, Scope, StateVersion, event};

/// One authenticated client.
#[derive(Debug)]
pub(super) struct Member {
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
        let others: Vec<_> = state.members.values().cloned().collect();
        state.members.insert(number, Arc::new(member));
        welcome(state.presence(now_ms), state.version);
        if is_shown {
            state.tell_presence(&others, now_ms);
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
        let members: Vec<_> = state.members.values().cloned().collect();
        tell(&members, event::HEALTH, health, Some(state.version));
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

    fn tell_presence(&self, members: &[Arc<Member>], now_ms: u64) {
        let change = event::PresenceChange { presence: self.presence(now_ms) };
        tell(members, event::PRESENCE, &change, Some(self.version));
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        let gone = state.members.remove(&self.number);
        if gone.is_some_and(|member| member.presence.is_some()) {
            state.version.presence += 1;
            let members: Vec<_> = state.members.values().cloned().collect();
            state.tell_presence(&members, super::clock::now_ms());
        }
    }
}

/// Queues an event for those who may get it.
fn tell(
    members: &[Arc<Member>],
    kind: event::Kind,
    payload: &impl Serialize,
    version: Option<StateVersion>,
) {
    let payload = serde_json::to_value(payload).unwrap_or(Value::Null);
    for member in members {
        if kind.scope.is_none_or(|scope| scope.is_within(&member.scopes)) {
            member.outbox.event(kind, payload.clone(), version);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(presence: Option<PresenceEntry>) -> (Member, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::new(1 << 20, Arc::new(crate::gateway::tally::Tally::new())));
        (Member { scopes: Vec::new(), outbox: Arc::clone(&outbox), presence }, outbox)
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
}
