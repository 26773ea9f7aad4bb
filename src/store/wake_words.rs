//! The words that wake devices.

use super::{Error, Store};

/// The family of wake words in a [`Store`].
pub(crate) struct WakeWords<'a> {
    store: &'a Store,
}

impl<'a> WakeWords<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// The words that somebody chose, in their order; none if nobody did.
    pub(crate) async fn all(&self) -> Result<Vec<String>, Error> {
        self.store
            .run(|db| {
                let mut statement = db.prepare("SELECT word FROM wake_word ORDER BY place")?;
                let words = statement.query_map([], |row| row.get(0))?;
                words.collect()
            })
            .await
    }

    /// Puts `words` in the place of all others.
    pub(crate) async fn replace(&self, words: Vec<String>) -> Result<(), Error> {
        self.store
            .run(move |db| {
                db.execute("DELETE FROM wake_word", [])?;
                for (place, word) in words.iter().enumerate() {
                    db.execute("INSERT INTO wake_word VALUES (?1, ?2)", (place, word))?;
                }
                Ok(())
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn words_are_kept_in_their_order_and_replaced_as_a_whole() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        assert!(store.wake_words().all().await.unwrap().is_empty());
        for words in [["b", "a", "c"].as_slice(), &["d", "b"]] {
            store
                .wake_words()
                .replace(words.iter().map(ToString::to_string).collect())
                .await
                .unwrap();
        }
        drop(store);
        let store = Store::open(home.path()).unwrap();
        assert_eq!(store.wake_words().all().await.unwrap(), ["d", "b"]);
    }
}
