//! What is known of nodes: what each offers, what of it a person approved, and what waits for one.
//!
//! Pure: the shell stores a record whenever one is returned, before anybody hears of it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::store::Kept;

/// How many nodes are kept; pairing a device comes first, so a stranger cannot fill this.
const MAX_NODES: usize = 4_096;
/// How often it is stored that a node is alive, milliseconds.
const ALIVE_EVERY_MS: u64 = 60_000;

/// What a node can do for others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Surface {
    /// `system`, `camera`, …
    pub(crate) caps: BTreeSet<String>,
    /// `system.run`, …
    pub(crate) commands: BTreeSet<String>,
    /// `{"accessibility": true}`, …
    pub(crate) permissions: BTreeMap<String, bool>,
}

/// What a node says of itself; never a reason to let it do anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Facts {
    /// For people.
    pub(crate) display_name: Option<String>,
    /// `linux`, `iOS 26.4.0`, …
    pub(crate) platform: String,
    /// Its program's version.
    pub(crate) version: String,
    /// `node-host`, `openclaw-ios`, …
    pub(crate) client_id: String,
    /// `node`.
    pub(crate) client_mode: String,
    /// `Linux`, `iPhone`, …
    pub(crate) device_family: Option<String>,
    /// The hardware's model.
    pub(crate) model_identifier: Option<String>,
    /// From where it came, if not from this machine.
    pub(crate) remote_ip: Option<String>,
}

/// A surface that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    /// What the person names.
    pub(crate) request_id: String,
    /// What would be approved.
    pub(crate) surface: Surface,
    /// Milliseconds since 1970.
    pub(crate) ts: u64,
}

/// What a person approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Approved {
    /// The most that the node may do.
    pub(crate) surface: Surface,
    /// The first time, milliseconds since 1970.
    pub(crate) created_at_ms: u64,
    /// The last time.
    pub(crate) approved_at_ms: u64,
}

/// One node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Record {
    /// Its device.
    pub(crate) node_id: String,
    /// What a person calls it; before what it calls itself.
    pub(crate) label: Option<String>,
    /// What it said of itself last.
    pub(crate) facts: Facts,
    /// The ceiling of what it may do.
    pub(crate) approved: Option<Approved>,
    /// What waits for a person.
    pub(crate) asked: Option<Asked>,
    /// Milliseconds since 1970.
    pub(crate) last_connected_at_ms: Option<u64>,
    /// When it last said that it is alive, milliseconds since 1970, and on which occasion.
    pub(crate) last_alive: Option<(u64, String)>,
    /// Whether it said that it hosts workers.
    pub(crate) session_host: bool,
}

/// What a connect of a node changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    /// To be stored.
    pub(super) record: Record,
    /// A request that is new.
    pub(super) requested: Option<Asked>,
    /// A request that its node no longer makes.
    pub(super) withdrawn: Option<Asked>,
}

/// Every node.
#[derive(Debug, Default)]
pub(super) struct Book {
    records: BTreeMap<String, Record>,
}

impl Surface {
    /// Whether all of this is in `other`.
    fn is_within(&self, other: &Self) -> bool {
        self.caps.is_subset(&other.caps)
            && self.commands.is_subset(&other.commands)
            && self.permissions.iter().all(|(name, is_granted)| {
                !is_granted || other.permissions.get(name).copied().unwrap_or(false)
            })
    }

    /// What is in both.
    pub(super) fn meet(&self, approved: &Self) -> Self {
        Self {
            caps: self.caps.intersection(&approved.caps).cloned().collect(),
            commands: self.commands.intersection(&approved.commands).cloned().collect(),
            permissions: self
                .permissions
                .iter()
                .map(|(name, is_granted)| {
                    let may = approved.permissions.get(name).copied().unwrap_or(false);
                    (name.clone(), *is_granted && may)
                })
                .collect(),
        }
    }
}

impl Kept for Record {
    fn id(&self) -> &str {
        &self.node_id
    }
}

impl Record {
    /// When it was last heard of, milliseconds since 1970, and on which occasion.
    pub(super) fn last_seen(&self) -> Option<(u64, &str)> {
        let connected = self.last_connected_at_ms.map(|at| (at, "connect"));
        let alive = self.last_alive.as_ref().map(|(at, occasion)| (*at, occasion.as_str()));
        connected.max(alive)
    }

    /// What people call it.
    pub(super) fn name(&self) -> Option<&str> {
        self.label.as_deref().or(self.facts.display_name.as_deref())
    }

    /// What it may do if it declares `declared`.
    pub(super) fn effective(&self, declared: &Surface) -> Surface {
        self.approved.as_ref().map(|approved| declared.meet(&approved.surface)).unwrap_or_default()
    }
}

impl Book {
    /// What was stored.
    pub(super) fn open(records: impl IntoIterator<Item = Record>) -> Self {
        let records = records.into_iter().map(|record| (record.node_id.clone(), record));
        Self { records: records.collect() }
    }

    /// Every node, by its id.
    pub(super) fn all(&self) -> impl Iterator<Item = &Record> {
        self.records.values()
    }

    /// The node with this id.
    pub(super) fn find(&self, node: &str) -> Option<&Record> {
        self.records.get(node)
    }

    /// The node of which this request is.
    pub(super) fn asking(&self, request: &str) -> Option<&Record> {
        let is_it = |record: &&Record| {
            record.asked.as_ref().is_some_and(|asked| asked.request_id == request)
        };
        self.records.values().find(is_it)
    }

    /// A paired node connected and declares `declared`. `request_id` names a request if one must
    /// be made. `None` if there are too many nodes.
    pub(super) fn arrived(
        &self,
        node: &str,
        facts: Facts,
        declared: &Surface,
        request_id: String,
        now_ms: u64,
    ) -> Option<Arrival> {
        let known = self.records.get(node).cloned();
        if known.is_none() && self.records.len() >= MAX_NODES {
            return None;
        }
        let mut record = known.unwrap_or_default();
        node.clone_into(&mut record.node_id);
        record.facts = facts;
        record.last_connected_at_ms = Some(now_ms);
        let ceiling = record.approved.as_ref().map(|approved| &approved.surface);
        let needs_person = ceiling.is_none_or(|ceiling| !declared.is_within(ceiling));
        let before = record.asked.take();
        let (mut requested, mut withdrawn) = (None, None);
        if needs_person {
            let same = before.as_ref().filter(|asked| asked.surface == *declared).cloned();
            if same.is_none() {
                withdrawn = before;
                requested = Some(Asked { request_id, surface: declared.clone(), ts: now_ms });
            }
            record.asked = same.or_else(|| requested.clone());
        } else {
            withdrawn = before;
        }
        Some(Arrival { record, requested, withdrawn })
    }

    /// The record with this request approved.
    pub(super) fn approved(&self, request: &str, now_ms: u64) -> Option<Record> {
        let mut record = self.asking(request)?.clone();
        let asked = record.asked.take()?;
        let created_at_ms =
            record.approved.as_ref().map_or(now_ms, |approved| approved.created_at_ms);
        record.approved =
            Some(Approved { surface: asked.surface, created_at_ms, approved_at_ms: now_ms });
        Some(record)
    }

    /// The record without this request.
    pub(super) fn rejected(&self, request: &str) -> Option<Record> {
        let record = self.asking(request)?.clone();
        Some(Record { asked: None, ..record })
    }

    /// The record under another name.
    pub(super) fn renamed(&self, node: &str, label: &str) -> Option<Record> {
        let record = self.records.get(node)?.clone();
        Some(Record { label: Some(label.to_owned()), ..record })
    }

    /// The record of a node that says that it is alive; `None` if it said so a moment ago, or is
    /// not known.
    pub(super) fn alive(&self, node: &str, occasion: &str, now_ms: u64) -> Option<Record> {
        let record = self.records.get(node)?;
        let last = record.last_alive.as_ref().map(|(at, _)| *at);
        // Either way: the clock may have run ahead.
        if last.is_some_and(|at| now_ms.abs_diff(at) < ALIVE_EVERY_MS) {
            return None;
        }
        Some(Record { last_alive: Some((now_ms, occasion.to_owned())), ..record.clone() })
    }

    /// The record of a node that says whether it hosts workers; `None` if that is no news.
    pub(super) fn hosting(&self, node: &str, session_host: bool) -> Option<Record> {
        let record = self.records.get(node).filter(|it| it.session_host != session_host)?;
        Some(Record { session_host, ..record.clone() })
    }

    /// Takes up what has been stored.
    pub(super) fn keep(&mut self, record: Record) {
        self.records.insert(record.node_id.clone(), record);
    }

    /// Forgets what is stored no longer.
    pub(super) fn forget(&mut self, node: &str) -> Option<Record> {
        self.records.remove(node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surface(commands: &[&str]) -> Surface {
        Surface {
            caps: BTreeSet::from(["system".to_owned()]),
            commands: commands.iter().map(|name| (*name).to_owned()).collect(),
            permissions: BTreeMap::new(),
        }
    }

    /// What a node may do that is known and declares `declared`.
    fn may(book: &Book, declared: &Surface) -> Surface {
        book.find("n").unwrap().effective(declared)
    }

    fn arrive(book: &mut Book, declared: &Surface, request: &str) -> Arrival {
        let arrival = book.arrived("n", Facts::default(), declared, request.to_owned(), 5).unwrap();
        book.keep(arrival.record.clone());
        arrival
    }

    #[test]
    fn a_new_node_may_nothing_until_a_person_approves() {
        let mut book = Book::default();
        let declared = surface(&["system.run", "system.which"]);
        let arrival = arrive(&mut book, &declared, "r1");
        assert_eq!(may(&book, &declared), Surface::default());
        assert_eq!(arrival.requested.unwrap().request_id, "r1");
        book.keep(book.approved("r1", 9).unwrap());
        assert!(book.asking("r1").is_none());
        let again = arrive(&mut book, &declared, "r2");
        assert_eq!((may(&book, &declared), again.requested), (declared, None));
    }

    #[test]
    fn the_same_surface_keeps_its_request_and_another_one_replaces_it() {
        let mut book = Book::default();
        arrive(&mut book, &surface(&["system.run"]), "r1");
        let same = arrive(&mut book, &surface(&["system.run"]), "r2");
        assert_eq!((same.requested, same.withdrawn), (None, None));
        assert!(book.asking("r1").is_some());
        let other = arrive(&mut book, &surface(&["system.which"]), "r3");
        assert_eq!(other.withdrawn.unwrap().request_id, "r1");
        assert_eq!(other.requested.unwrap().request_id, "r3");
        assert!(book.approved("r1", 9).is_none(), "an old request approves nothing");
    }

    #[test]
    fn more_than_approved_asks_and_what_was_approved_goes_on() {
        let mut book = Book::default();
        arrive(&mut book, &surface(&["system.which"]), "r1");
        book.keep(book.approved("r1", 9).unwrap());
        let both = surface(&["system.run", "system.which"]);
        let wider = arrive(&mut book, &both, "r2");
        assert_eq!(may(&book, &both), surface(&["system.which"]));
        assert!(wider.requested.is_some());
        book.keep(book.rejected("r2").unwrap());
        let narrower = arrive(&mut book, &surface(&[]), "r3");
        assert_eq!((may(&book, &surface(&[])), narrower.requested), (surface(&[]), None));
    }

    #[test]
    fn a_permission_that_was_not_approved_is_not_there() {
        let mut book = Book::default();
        let mut declared = surface(&[]);
        declared.permissions = BTreeMap::from([("camera".to_owned(), false)]);
        arrive(&mut book, &declared, "r1");
        book.keep(book.approved("r1", 9).unwrap());
        declared.permissions.insert("camera".to_owned(), true);
        let arrival = arrive(&mut book, &declared, "r2");
        assert_eq!(may(&book, &declared).permissions.get("camera"), Some(&false));
        assert!(arrival.requested.is_some());
    }

    #[test]
    fn a_label_outlives_what_the_node_calls_itself() {
        let mut book = Book::default();
        arrive(&mut book, &surface(&[]), "r1");
        book.keep(book.renamed("n", "Desk").unwrap());
        arrive(&mut book, &surface(&[]), "r2");
        assert_eq!(book.find("n").unwrap().name(), Some("Desk"));
        assert!(book.renamed("nobody", "x").is_none());
    }

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        let mut book = Book::default();
        arrive(&mut book, &surface(&["system.run"]), "r1");
        let record = book.find("n").unwrap();
        let text = serde_json::to_string(record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), *record);
    }

    #[test]
    fn a_node_is_alive_once_a_minute_and_was_last_seen_on_the_later_occasion() {
        let mut book = Book::default();
        arrive(&mut book, &surface(&[]), "r1");
        assert_eq!(book.find("n").unwrap().last_seen(), Some((5, "connect")));
        let record = book.alive("n", "silent_push", 7).unwrap();
        assert_eq!(record.last_seen(), Some((7, "silent_push")));
        book.keep(record);
        assert!(book.alive("n", "manual", 7 + ALIVE_EVERY_MS - 1).is_none());
        assert!(book.alive("n", "manual", 7 + ALIVE_EVERY_MS).is_some());
        assert!(book.alive("nobody", "manual", 7).is_none());
        book.keep(book.alive("n", "manual", 7 + 9 * ALIVE_EVERY_MS).unwrap());
        let record = book.alive("n", "manual", 9).expect("the clock ran ahead");
        assert_eq!(record.last_seen(), Some((9, "manual")));
    }

    #[test]
    fn a_record_of_an_earlier_version_is_read() {
        let text = r#"{"nodeId":"n","facts":{},"lastConnectedAtMs":5}"#;
        let record: Record = serde_json::from_str(text).unwrap();
        assert_eq!((record.session_host, record.last_alive), (false, None));
    }
}
