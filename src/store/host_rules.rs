//! The rules by which programs may run on the gateway's own host, kept as one text.

use rusqlite::{Connection, OptionalExtension};

use super::{Error, Store};

/// The family of the host's rules in a [`Store`].
pub(crate) struct HostRules<'a> {
    store: &'a Store,
}

impl<'a> HostRules<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// The rules as they were last written; `None` if nobody ever gave any.
    pub(crate) async fn text(&self) -> Result<Option<String>, Error> {
        self.store.run(text).await
    }

    /// Puts `next` in the place of `known`; false, and nothing is changed, if somebody else was
    /// faster.
    pub(crate) async fn replace(&self, known: Option<String>, next: String) -> Result<bool, Error> {
        self.store
            .run(move |db| {
                if text(db)? != known {
                    return Ok(false);
                }
                db.execute("INSERT OR REPLACE INTO host_rules VALUES (1, ?1)", [next])?;
                Ok(true)
            })
            .await
    }
}

fn text(db: &Connection) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT text FROM host_rules", [], |row| row.get(0)).optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rules_are_replaced_only_by_who_knows_them_and_are_there_after_a_restart() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let rules = store.host_rules();
        let replace = async |known: Option<&str>, next: &str| {
            rules.replace(known.map(str::to_owned), next.to_owned()).await.unwrap()
        };
        assert_eq!(rules.text().await, Ok(None));
        assert!(!replace(Some("a"), "b").await, "there are none yet");
        assert!(replace(None, "a").await);
        assert!(!replace(None, "b").await, "there are some by now");
        assert!(replace(Some("a"), "b").await);
        assert!(!replace(Some("a"), "c").await, "they changed meanwhile");
        drop(store);
        let store = Store::open(home.path()).unwrap();
        assert_eq!(store.host_rules().text().await, Ok(Some("b".to_owned())));
    }
}
