//! Nodes: what each said of itself, what a person approved, and what waits for one.

use rusqlite::{Connection, params};
use serde::{Serialize, de::DeserializeOwned};

use super::{Error, Store};

/// The family of nodes in a [`Store`].
pub(crate) struct Nodes<'a> {
    store: &'a Store,
}

/// What is kept of a node under its device's id.
pub(crate) trait Kept: Serialize + DeserializeOwned + Send + 'static {
    /// The node's device.
    fn id(&self) -> &str;
}

impl<'a> Nodes<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Every node, by its id.
    pub(crate) async fn all<T: Kept>(&self) -> Result<Vec<T>, Error> {
        let texts = self
            .store
            .run(|db| {
                let mut statement = db.prepare("SELECT record FROM node ORDER BY device_id")?;
                let texts = statement.query_map([], |row| row.get::<_, String>(0))?;
                texts.collect::<rusqlite::Result<Vec<_>>>()
            })
            .await?;
        texts
            .iter()
            .map(|text| {
                serde_json::from_str(text)
                    .map_err(|error| Error::Failed(format!("a node cannot be read: {error}")))
            })
            .collect()
    }

    /// Keeps what is known of a node in place of what was.
    pub(crate) async fn keep<T: Kept>(&self, record: &T) -> Result<(), Error> {
        let id = record.id().to_owned();
        let text = serde_json::to_string(record)
            .map_err(|error| Error::Failed(format!("a node cannot be written: {error}")))?;
        self.store
            .run(move |db| {
                db.execute(
                    "INSERT INTO node (device_id, record) VALUES (?1, ?2)
                     ON CONFLICT (device_id) DO UPDATE SET record = excluded.record",
                    params![id, text],
                )
                .map(drop)
            })
            .await
    }

    /// Forgets a node, and what was left for it.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), Error> {
        let id = id.to_owned();
        self.store.run(move |db| forget(db, &id)).await
    }
}

/// Forgets what was known of a device as a node, what was left for it, and what was to run on it.
pub(super) fn forget(db: &Connection, id: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM node_work WHERE device_id = ?1", [id])?;
    db.execute("DELETE FROM approval WHERE node_id = ?1", [id])?;
    db.execute("DELETE FROM node WHERE device_id = ?1", [id]).map(drop)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::protocol::Role;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Thing {
        id: String,
        name: String,
    }

    impl Kept for Thing {
        fn id(&self) -> &str {
            &self.id
        }
    }

    fn thing(id: &str, name: &str) -> Thing {
        Thing { id: id.to_owned(), name: name.to_owned() }
    }

    #[tokio::test]
    async fn a_node_is_kept_replaced_and_forgotten() {
        let store = Store::in_memory();
        for it in [thing("b", "1"), thing("a", "2"), thing("b", "3")] {
            store.nodes().keep(&it).await.unwrap();
        }
        let all: Vec<Thing> = store.nodes().all().await.unwrap();
        assert_eq!(all, [thing("a", "2"), thing("b", "3")]);
        store.nodes().remove("a").await.unwrap();
        assert_eq!(store.nodes().all::<Thing>().await.unwrap(), [thing("b", "3")]);
    }

    #[tokio::test]
    async fn a_node_goes_with_its_device_and_with_its_role() {
        let store = Store::in_memory();
        for it in [thing("a", "1"), thing("b", "2"), thing("c", "3")] {
            store.nodes().keep(&it).await.unwrap();
        }
        store.devices().remove("a").await.unwrap();
        store.devices().revoke("b", Role::Node, 1).await.unwrap();
        store.devices().revoke("c", Role::Operator, 1).await.unwrap();
        assert_eq!(store.nodes().all::<Thing>().await.unwrap(), [thing("c", "3")]);
    }
}
