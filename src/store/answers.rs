//! What requests were answered that may come again under the same key.
//!
//! The rule: an answer is kept for an hour, 1,024 of them, 64 KiB each; where there are more the
//! oldest goes first. A request that is under way is not counted among them, and is never let go.
//! Which is older is told by their order, whatever is done to the clock.

use rusqlite::{Connection, OptionalExtension, params};

use super::{Error, Store};

/// How long an answer is kept, milliseconds.
const LIFE_MS: u64 = 3_600_000;
/// How many are kept.
const MOST: u32 = 1_024;
/// The longest that is kept, bytes.
pub(crate) const LONGEST_ANSWER: usize = 64 * 1024;

/// A request that may come again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Repeatable {
    /// SHA-256 of who asks, for what, under which key.
    pub(crate) id: [u8; 32],
    /// SHA-256 of what is asked.
    pub(crate) request: [u8; 32],
    /// The process that takes it up.
    pub(crate) boot: String,
}

/// How a request stands that is about to be taken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Repeated {
    /// It is new, and noted as begun.
    New,
    /// This process is at it.
    UnderWay,
    /// A process that is gone was at it; whether it came to its end is not known.
    Unknown,
    /// It was answered.
    Answered(KeptAnswer),
    /// The key was used for something else.
    Taken,
}

/// An answer as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptAnswer {
    /// Whether it is an error.
    pub(crate) is_error: bool,
    /// The reply, or the error, as it was written.
    pub(crate) text: String,
}

/// The family of answers in a [`Store`].
pub(crate) struct Answers<'a> {
    store: &'a Store,
}

impl<'a> Answers<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store }
    }

    /// Notes that a request is begun, unless it was before.
    pub(crate) async fn begin(&self, asked: Repeatable, now_ms: u64) -> Result<Repeated, Error> {
        self.store.run(move |db| begin(db, &asked, now_ms)).await
    }

    /// Keeps what a request was answered; the first answer stays.
    pub(crate) async fn end(&self, id: [u8; 32], answer: KeptAnswer) -> Result<(), Error> {
        self.store
            .run(move |db| {
                db.execute(
                    "UPDATE answer SET is_error = ?2, text = ?3 WHERE id = ?1 AND text IS NULL",
                    params![id, answer.is_error, answer.text],
                )
                .map(drop)
            })
            .await
    }

    /// Forgets a request of which nothing was done: its key is free.
    pub(crate) async fn forget(&self, id: [u8; 32]) -> Result<(), Error> {
        let forget = "DELETE FROM answer WHERE id = ?1 AND text IS NULL";
        self.store.run(move |db| db.execute(forget, params![id]).map(drop)).await
    }
}

fn begin(db: &Connection, asked: &Repeatable, now_ms: u64) -> rusqlite::Result<Repeated> {
    let boot = &asked.boot;
    db.execute(
        "DELETE FROM answer WHERE at < ?1 AND (text IS NOT NULL OR boot <> ?2)",
        params![now_ms.saturating_sub(LIFE_MS), boot],
    )?;
    let known = db
        .query_row(
            "SELECT request, boot, is_error, text FROM answer WHERE id = ?1",
            params![asked.id],
            |row| {
                let answer: (Option<bool>, Option<String>) = (row.get(2)?, row.get(3)?);
                Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, String>(1)?, answer))
            },
        )
        .optional()?;
    match known {
        Some((request, ..)) if request != asked.request => return Ok(Repeated::Taken),
        Some((_, _, (Some(is_error), Some(text)))) => {
            return Ok(Repeated::Answered(KeptAnswer { is_error, text }));
        }
        Some((_, by, _)) if by == *boot => return Ok(Repeated::UnderWay),
        Some(_) => return Ok(Repeated::Unknown),
        None => {}
    }
    db.execute(
        "DELETE FROM answer WHERE id IN (
             SELECT id FROM answer WHERE text IS NOT NULL OR boot <> ?1
             ORDER BY at DESC LIMIT -1 OFFSET ?2)",
        params![boot, MOST - 1],
    )?;
    // The youngest is ahead where the clock was set back, and this one is younger all the same.
    let youngest: Option<u64> = db.query_row("SELECT max(at) FROM answer", [], |row| row.get(0))?;
    let at = youngest.filter(|at| *at > now_ms).map_or(now_ms, |at| at + 1);
    db.execute(
        "INSERT INTO answer (id, request, boot, at) VALUES (?1, ?2, ?3, ?4)",
        params![asked.id, asked.request, boot, at],
    )?;
    Ok(Repeated::New)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(id: u32, request: u8, boot: &str) -> Repeatable {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&id.to_be_bytes());
        Repeatable { id: key, request: [request; 32], boot: boot.to_owned() }
    }

    fn answer(text: &str) -> KeptAnswer {
        KeptAnswer { is_error: false, text: text.to_owned() }
    }

    #[tokio::test]
    async fn the_first_answer_is_given_again_also_by_the_next_process() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let first = asked(1, 1, "a");
        assert_eq!(store.answers().begin(first.clone(), 1).await, Ok(Repeated::New));
        assert_eq!(store.answers().begin(first.clone(), 2).await, Ok(Repeated::UnderWay));
        assert_eq!(store.answers().begin(asked(1, 2, "a"), 2).await, Ok(Repeated::Taken));
        store.answers().end(first.id, answer("x")).await.unwrap();
        store.answers().end(first.id, answer("y")).await.unwrap();
        drop(store);
        let store = Store::open(home.path()).unwrap();
        let again = store.answers().begin(asked(1, 1, "b"), 3).await;
        assert_eq!(again, Ok(Repeated::Answered(answer("x"))));
        let later = store.answers().begin(asked(1, 1, "b"), LIFE_MS + 2).await;
        assert_eq!(later, Ok(Repeated::New));
    }

    #[tokio::test]
    async fn what_a_process_left_unfinished_is_not_done_again() {
        let store = Store::in_memory();
        let first = asked(1, 1, "a");
        store.answers().begin(first.clone(), 1).await.unwrap();
        assert_eq!(store.answers().begin(asked(1, 1, "b"), 2).await, Ok(Repeated::Unknown));
        store.answers().forget(first.id).await.unwrap();
        assert_eq!(store.answers().begin(asked(1, 1, "b"), 3).await, Ok(Repeated::New));
    }

    #[tokio::test]
    async fn answers_are_bounded_and_what_is_under_way_stays() {
        let store = Store::in_memory();
        let old = asked(0, 1, "a");
        store.answers().begin(old.clone(), 0).await.unwrap();
        for n in 1..=MOST + 10 {
            let asked = asked(n, 1, "a");
            store.answers().begin(asked.clone(), u64::from(n)).await.unwrap();
            store.answers().end(asked.id, answer("x")).await.unwrap();
        }
        assert_eq!(store.answers().begin(old, 9_999).await, Ok(Repeated::UnderWay));
        assert_eq!(store.answers().begin(asked(10, 1, "a"), 9_999).await, Ok(Repeated::New));
        let young = store.answers().begin(asked(MOST, 1, "a"), 9_999).await;
        assert_eq!(young, Ok(Repeated::Answered(answer("x"))));
    }

    #[tokio::test]
    async fn the_oldest_answer_goes_first_also_where_the_clock_was_set_back() {
        let store = Store::in_memory();
        for n in 0..MOST + 10 {
            let now = if n < MOST { 1_000_000 + u64::from(n) } else { 5 };
            let asked = asked(n, 1, "a");
            assert_eq!(store.answers().begin(asked.clone(), now).await, Ok(Repeated::New));
            store.answers().end(asked.id, answer("x")).await.unwrap();
        }
        for n in 10..MOST + 10 {
            let kept = store.answers().begin(asked(n, 1, "a"), 5).await;
            assert_eq!(kept, Ok(Repeated::Answered(answer("x"))), "{n}");
        }
        assert_eq!(store.answers().begin(asked(9, 1, "a"), 5).await, Ok(Repeated::New));
    }
}
