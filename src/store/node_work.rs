//! Work that is left for nodes, until they have it or it is old.

use rusqlite::params;

use super::{Error, Store};
use crate::protocol::Work;

/// The family of work for nodes in a [`Store`].
pub(crate) struct NodeWork<'a> {
    store: &'a Store,
}

/// One piece of work for a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Left {
    /// The node's device.
    pub(crate) node: String,
    /// How often the node's work had changed with it.
    pub(crate) revision: u64,
    /// What there is to do.
    pub(crate) work: Work,
}

impl<'a> NodeWork<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Everything that is still worth doing at `now`, in the order in which it was left.
    pub(crate) async fn all(&self, now: u64) -> Result<Vec<Left>, Error> {
        let rows = self
            .store
            .run(move |db| {
                let mut statement = db.prepare(
                    "SELECT device_id, revision, record FROM node_work WHERE expires_at > ?1
                     ORDER BY device_id, revision",
                )?;
                let rows = statement.query_map([now], |row| {
                    Ok((row.get::<_, String>(0)?, row.get(1)?, row.get::<_, String>(2)?))
                })?;
                rows.collect::<rusqlite::Result<Vec<_>>>()
            })
            .await?;
        rows.into_iter()
            .map(|(node, revision, record)| {
                let work = serde_json::from_str(&record).map_err(|error| {
                    Error::Failed(format!("work for a node cannot be read: {error}"))
                })?;
                Ok(Left { node, revision, work })
            })
            .collect()
    }

    /// Keeps a piece of work, in place of the one of the id `before`; what is old at `now` goes.
    /// False, and nothing is kept, if its node is none any more.
    pub(crate) async fn leave(
        &self,
        left: Left,
        before: Option<String>,
        now: u64,
    ) -> Result<bool, Error> {
        let record = serde_json::to_string(&left.work)
            .map_err(|error| Error::Failed(format!("work cannot be written: {error}")))?;
        let Left { node, revision, work: Work { id, expires_at_ms, .. } } = left;
        self.store
            .run(move |db| {
                db.execute(
                    "DELETE FROM node_work WHERE expires_at <= ?1 OR id = ?2",
                    params![now, before],
                )?;
                let kept = db.execute(
                    "INSERT INTO node_work (id, device_id, revision, expires_at, record)
                     SELECT ?1, ?2, ?3, ?4, ?5
                     WHERE EXISTS (SELECT 1 FROM node WHERE device_id = ?2)
                     OR EXISTS (SELECT 1 FROM device_grant WHERE device_id = ?2
                                AND role = 'node' AND revoked_at IS NULL)",
                    params![id, node, revision, expires_at_ms.unwrap_or(i64::MAX as u64), record],
                )?;
                Ok(kept > 0)
            })
            .await
    }

    /// Forgets what a node has taken up.
    pub(crate) async fn taken_up(&self, ids: Vec<String>) -> Result<(), Error> {
        self.store
            .run(move |db| {
                let mut statement = db.prepare_cached("DELETE FROM node_work WHERE id = ?1")?;
                ids.iter().try_for_each(|id| statement.execute([id]).map(drop))
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        protocol::{Priority, Role, WorkKind},
        store::{About, Asked, Minted},
    };

    const NOW: u64 = 1_795_486_176_838;

    async fn node(store: &Store, id: &str) {
        let asked = Asked {
            device_id: id.to_owned(),
            public_key: "key".to_owned(),
            about: About::default(),
            role: Role::Node,
            scopes: Vec::new(),
        };
        let minted = Minted { serial: "s".to_owned(), digest: vec![1] };
        store.devices().pair(asked, "owner", minted, NOW).await.unwrap();
    }

    fn left(node: &str, id: &str, revision: u64) -> Left {
        let work = Work {
            id: id.to_owned(),
            kind: WorkKind::Location,
            priority: Priority::High,
            created_at_ms: NOW,
            expires_at_ms: Some(NOW + 10),
        };
        Left { node: node.to_owned(), revision, work }
    }

    #[tokio::test]
    async fn work_lasts_until_it_is_taken_up_replaced_or_old() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        node(&store, "n").await;
        for (number, before) in [(1, None), (2, None), (3, Some("1".to_owned()))] {
            let it = left("n", &number.to_string(), number);
            assert_eq!(store.node_work().leave(it, before, NOW).await, Ok(true));
        }
        drop(store);
        let store = Store::open(home.path()).unwrap();
        let all = store.node_work().all(NOW).await.unwrap();
        assert_eq!(all, [left("n", "2", 2), left("n", "3", 3)]);
        store.node_work().taken_up(vec!["3".to_owned(), "no such".to_owned()]).await.unwrap();
        assert_eq!(store.node_work().all(NOW).await.unwrap(), [left("n", "2", 2)]);
        assert!(store.node_work().all(NOW + 10).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn work_goes_with_its_node_and_none_is_left_for_one_that_is_none() {
        let store = Store::in_memory();
        for id in ["a", "b", "c"] {
            node(&store, id).await;
            assert_eq!(store.node_work().leave(left(id, id, 1), None, NOW).await, Ok(true));
        }
        store.devices().remove("a").await.unwrap();
        store.devices().revoke("b", Role::Node, NOW).await.unwrap();
        store.nodes().remove("c").await.unwrap();
        assert!(store.node_work().all(NOW).await.unwrap().is_empty());
        for gone in ["a", "b", "never"] {
            assert_eq!(store.node_work().leave(left(gone, "x", 1), None, NOW).await, Ok(false));
        }
    }
}
