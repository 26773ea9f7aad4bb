//! News that wait for the chat sessions' next turns.

use rusqlite::params;

use super::{Error, Store};

/// The family of news in a [`Store`].
pub(crate) struct News<'a> {
    store: &'a Store,
}

/// One line of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptNews {
    /// Its place in the order of all.
    pub(crate) number: u64,
    /// Whose next turn is to read it.
    pub(crate) session: String,
    /// Whom it is about, if it is about a program that tells of itself.
    pub(crate) about: Option<String>,
    /// The line.
    pub(crate) text: String,
    /// When it came, milliseconds since 1970.
    pub(crate) at: u64,
}

impl<'a> News<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Every line, in its order.
    pub(crate) async fn all(&self) -> Result<Vec<KeptNews>, Error> {
        self.store
            .run(|db| {
                let mut statement = db
                    .prepare("SELECT number, session, about, text, at FROM news ORDER BY number")?;
                let lines = statement.query_map([], |row| {
                    Ok(KeptNews {
                        number: row.get(0)?,
                        session: row.get(1)?,
                        about: row.get(2)?,
                        text: row.get(3)?,
                        at: row.get(4)?,
                    })
                })?;
                lines.collect()
            })
            .await
    }

    /// Keeps a line and forgets those of the numbers `gone`, all or nothing.
    pub(crate) async fn keep(&self, line: KeptNews, gone: Vec<u64>) -> Result<(), Error> {
        self.store
            .run(move |db| {
                let mut forget = db.prepare_cached("DELETE FROM news WHERE number = ?1")?;
                for number in gone {
                    forget.execute([number])?;
                }
                let KeptNews { number, session, about, text, at } = line;
                db.execute(
                    "INSERT INTO news (number, session, about, text, at)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![number, session, about, text, at],
                )
                .map(drop)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn news_are_kept_in_their_order_and_go_by_their_numbers() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let line = |number| KeptNews {
            number,
            session: "s".to_owned(),
            about: (number == 2).then(|| "a program".to_owned()),
            text: format!("line {number}"),
            at: 5,
        };
        for (number, gone) in [(1, vec![]), (2, vec![]), (3, vec![1, 7])] {
            store.news().keep(line(number), gone).await.unwrap();
        }
        // What cannot be kept takes nothing away.
        assert!(store.news().keep(line(3), vec![2]).await.is_err());
        drop(store);
        let store = Store::open(home.path()).unwrap();
        assert_eq!(store.news().all().await.unwrap(), [line(2), line(3)]);
    }
}
