//! Who is connected: the clients, presence, and events to those who may hear of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use tokio::{sync::Notify, time::sleep};

use super::{
    beacons::{Beacons, Told},
    outbox::{Ending, Outbox},
};
use crate::protocol::{PresenceEntry, Role, Scope, StateVersion, SystemEventParams, event};

/// Presence goes out whole, to everybody: the least time between two rounds.
const ROUND: Duration = Duration::from_millis(100);
/// The longest time between two rounds, however large they are.
const LONGEST_ROUND: Duration = Duration::from_secs(5);
/// What rounds may come to, in bytes a second.
const ROUND_RATE: u64 = 32 << 20;

/// One authenticated client.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) role: Role,
    /// `hello-ok.server.connId`.
    pub(super) connection: String,
    /// The device whose key signed its connection, if one did.
    pub(super) device_id: Option<String>,
    pub(super) scopes: Vec<Scope>,
    /// Whether the gateway's secret let it in, and not a token of its device.
    pub(super) by_secret: bool,
    /// Whether it shows requests for approval to a person.
    pub(super) shows_approvals: bool,
    pub(super) outbox: Arc<Outbox>,
    /// Its line of presence; `None` for programs that come and go.
    pub(super) presence: Option<PresenceEntry>,
}

/// Everybody.
#[derive(Debug)]
pub(super) struct Hub {
    state: Mutex<State>,
    /// Presence is not what was told of it last.
    changed: Notify,
}

#[derive(Debug)]
struct State {
    own: PresenceEntry,
    members: BTreeMap<u64, Arc<Member>>,
    /// The members' lines of presence as they are written.
    lines: BTreeMap<u64, Box<RawValue>>,
    /// Programs that are not connected and say that they are there.
    beacons: Beacons,
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
        let (members, lines, beacons) = Default::default();
        let state = Mutex::new(State { own, members, lines, beacons, latest: 0, version });
        Self { state, changed: Notify::new() }
    }

    /// Takes `member` in. `welcome` sees presence with the newcomer in it, each line as it is
    /// written, and queues its first frame before any event can reach it. The others hear of it in
    /// the next round.
    pub(super) fn join(
        self: &Arc<Self>,
        member: Member,
        now_ms: u64,
        welcome: impl FnOnce(Vec<Box<RawValue>>, StateVersion),
    ) -> Membership {
        let line = member.presence.as_ref().and_then(|entry| to_raw_value(entry).ok());
        let mut state = self.lock();
        state.latest += 1;
        let number = state.latest;
        state.members.insert(number, Arc::new(member));
        if let Some(line) = line {
            state.lines.insert(number, line);
            state.version.presence += 1;
            self.changed.notify_one();
        }
        welcome(state.written_presence(now_ms), state.version);
        drop(state);
        Membership { hub: Arc::clone(self), number }
    }

    /// Tells everybody of presence whenever it has changed, for ever: the first change at once,
    /// what follows it in rounds that come to a bounded rate.
    pub(super) async fn tell_rounds(&self) {
        loop {
            self.changed.notified().await;
            let bytes = self.lock().tell_presence(super::clock::now_ms());
            sleep(pause_after(bytes)).await;
        }
    }

    /// Everybody's line, the gateway's first.
    pub(super) fn presence(&self, now_ms: u64) -> Vec<PresenceEntry> {
        self.lock().presence(now_ms)
    }

    /// Hears of a program that says that it is there, and tells the others in the next round.
    pub(super) fn hear(&self, said: &SystemEventParams, now_ms: u64) -> Told {
        let mut state = self.lock();
        let told = state.beacons.hear(said, now_ms);
        state.version.presence += 1;
        self.changed.notify_one();
        told
    }

    /// How many clients there are.
    pub(super) fn count(&self) -> usize {
        self.lock().members.len()
    }

    /// Tells every client of a new health summary.
    pub(super) fn tell_health(&self, health: &impl Serialize) {
        let mut state = self.lock();
        state.version.health += 1;
        state.tell(event::HEALTH, health, Some(state.version), |_| true);
    }

    /// Tells those that may hear of `kind`, and says how many they are.
    pub(super) fn tell(&self, kind: event::Kind, payload: &impl Serialize) -> usize {
        self.lock().tell(kind, payload, None, |_| true)
    }

    /// Tells those of them whom it is meant for.
    pub(super) fn tell_those(
        &self,
        kind: event::Kind,
        payload: &impl Serialize,
        is_meant: impl Fn(&Member) -> bool,
    ) -> usize {
        self.lock().tell(kind, payload, None, is_meant)
    }

    /// Whether anybody but `asker`, a member's number, hears of a request for approval that
    /// `is_meant` picks members for, and shows it.
    pub(super) fn has_approver_beside(
        &self,
        asker: u64,
        is_meant: impl Fn(&Member) -> bool,
    ) -> bool {
        let access = event::EXEC_APPROVAL_REQUESTED.access;
        self.lock().members.iter().any(|(number, member)| {
            *number != asker
                && member.shows_approvals
                && access.admits(member.role, &member.scopes)
                && is_meant(member)
        })
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

    /// How many connections of `device` there are in this role.
    pub(super) fn connections_of(&self, device: &str, role: Role) -> usize {
        let is_its = |member: &&Arc<Member>| {
            member.device_id.as_deref() == Some(device) && member.role == role
        };
        self.lock().members.values().filter(is_its).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn presence(&self, now_ms: u64) -> Vec<PresenceEntry> {
        let own = PresenceEntry { ts: now_ms, ..self.own.clone() };
        let others = self.members.values().filter_map(|member| member.presence.clone());
        let beacons = self.beacons.lines(now_ms).into_iter().cloned();
        std::iter::once(own).chain(others).chain(beacons).collect()
    }

    fn written_presence(&self, now_ms: u64) -> Vec<Box<RawValue>> {
        let own = to_raw_value(&PresenceEntry { ts: now_ms, ..self.own.clone() }).ok();
        let beacons = self.beacons.lines(now_ms).into_iter();
        let beacons = beacons.filter_map(|line| to_raw_value(line).ok());
        own.into_iter().chain(self.lines.values().cloned()).chain(beacons).collect()
    }

    /// Queues presence for everybody, and says how many bytes that comes to.
    fn tell_presence(&self, now_ms: u64) -> u64 {
        let change = event::PresenceChange { presence: self.written_presence(now_ms) };
        let size: usize = change.presence.iter().map(|line| line.get().len() + 1).sum();
        (size * self.tell(event::PRESENCE, &change, Some(self.version), |_| true)) as u64
    }

    /// Queues an event for those who may get it and are meant; its payload is written once for all.
    fn tell(
        &self,
        kind: event::Kind,
        payload: &impl Serialize,
        version: Option<StateVersion>,
        is_meant: impl Fn(&Member) -> bool,
    ) -> usize {
        let Ok(payload) = serde_json::to_string(payload) else { return 0 };
        let payload: Arc<str> = payload.into();
        let meant = self
            .members
            .values()
            .filter(|member| kind.access.admits(member.role, &member.scopes) && is_meant(member));
        meant.map(|member| member.outbox.shared_event(kind, &payload, version)).count()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let mut state = self.hub.lock();
        state.members.remove(&self.number);
        if state.lines.remove(&self.number).is_some() {
            state.version.presence += 1;
            self.hub.changed.notify_one();
        }
    }
}

/// How long to wait after a round of so many bytes.
fn pause_after(bytes: u64) -> Duration {
    let millis = bytes.saturating_mul(1_000) / ROUND_RATE;
    Duration::from_millis(millis).clamp(ROUND, LONGEST_ROUND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(presence: Option<PresenceEntry>) -> (Member, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::new(1 << 20, Arc::new(crate::gateway::tally::Tally::new())));
        let (role, scopes) = (Role::Operator, vec![Scope::Read]);
        let member = Member {
            role,
            connection: String::new(),
            device_id: None,
            scopes,
            by_secret: true,
            shows_approvals: false,
            outbox: Arc::clone(&outbox),
            presence,
        };
        (member, outbox)
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

    #[tokio::test(start_paused = true)]
    async fn a_thousand_newcomers_at_once_are_told_of_in_a_few_rounds() {
        let hub = Arc::new(Hub::new(PresenceEntry::default()));
        let rounds = tokio::spawn({
            let hub = Arc::clone(&hub);
            async move { hub.tell_rounds().await }
        });
        let (mut inside, mut outboxes) = (Vec::new(), Vec::new());
        let tick = Duration::from_millis(1);
        for _ in 0..1_000 {
            let (newcomer, outbox) = member(Some(PresenceEntry::default()));
            inside.push(hub.join(newcomer, 1, |_, _| {}));
            outboxes.push(outbox);
            sleep(tick).await;
        }
        sleep(LONGEST_ROUND).await;
        let told: Vec<_> = outboxes.iter().map(|outbox| outbox.waiting()).collect();
        assert!(told.iter().all(|told| (1..=11).contains(told)), "{told:?}");
        // Who came last has heard of everybody, and nothing more is said until something changes.
        sleep(LONGEST_ROUND).await;
        assert_eq!(outboxes.last().unwrap().waiting(), 1);
        rounds.abort();
    }

    #[test]
    fn rounds_wait_for_one_another_as_long_as_they_are_large() {
        assert_eq!(pause_after(0), ROUND);
        assert_eq!(pause_after(ROUND_RATE), Duration::from_secs(1));
        assert_eq!(pause_after(u64::MAX), LONGEST_ROUND);
    }

    #[test]
    fn events_reach_those_who_may_hear_of_them() {
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
        let _pairer = join(|member| member.scopes = vec![Scope::Pairing]);
        let node = join(|member| {
            member.role = Role::Node;
            member.device_id = Some("phone".to_owned());
        });
        assert_eq!(hub.tell(event::TICK, &1), 3);
        assert_eq!(hub.tell(event::PRESENCE, &1), 1);
        assert_eq!(hub.tell(PAIRED, &1), 1);
        assert_eq!(hub.tell(INVOKED, &1), 1);
        assert_eq!(hub.dismiss(&Ending::silent(), |_, member| member.device_id.is_some()), 1);
        assert_eq!(hub.lock().members[&node.number()].outbox.ending(), Some(Ending::silent()));
    }
}
