//! One thread owns the database; callers queue what they want of it and wait for the disk.
//!
//! What is queued at the same time shares one transaction, and so one wait for the disk: each has
//! a savepoint of its own, and is answered only after the commit.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

#[cfg(test)]
use std::sync::{Mutex, PoisonError};

use rusqlite::{Connection, ErrorCode, TransactionState};
use tokio::sync::{mpsc, oneshot};

use super::{
    Devices, answers::Answers, approvals::Approvals, database, host_rules::HostRules, news::News,
    node_work::NodeWork, nodes::Nodes, wake_words::WakeWords,
};
use crate::problem::{Class, Problem};

/// What may wait for the database; more is told that it is busy.
const QUEUE: usize = 1_024;
/// What may share one transaction.
const TOGETHER: usize = 64;

/// Why something was not stored or not found out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Too much waits already; the same may work in a moment.
    #[error("the database is busy")]
    Full,
    /// The database refused: the disk is full, the file is damaged.
    #[error("the database failed: {0}")]
    Failed(String),
    /// The gateway is going.
    #[error("the database is closed")]
    Closed,
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

/// One piece of work; runs inside the transaction and hands back what to do after it.
type Job = Box<dyn FnOnce(&Connection) -> Done + Send>;
/// Tells the caller; given why the transaction failed, if it did.
type Finish = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// A piece of work that was done, or not.
struct Done {
    finish: Finish,
    is_done: bool,
    /// Whether the file or its disk would not have it, whatever it was.
    is_refused: bool,
}

/// Whether the file took what was last to be written to it.
#[derive(Debug, Default)]
struct Condition {
    is_ill: AtomicBool,
}

/// A handle to what lasts; cheap to clone. The last one to go closes the database.
#[derive(Clone)]
pub(crate) struct Store {
    way: Arc<Way>,
    condition: Arc<Condition>,
}

/// How work reaches the database.
enum Way {
    Thread(Owner),
    /// On the caller's own thread, so that a test's stopped clock stays stopped.
    #[cfg(test)]
    Here(Mutex<Connection>),
}

/// The queue and the thread behind it.
struct Owner {
    queue: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens the database in `folder` and starts the thread that owns it.
    pub(crate) fn open(folder: &Path) -> Result<Self, Problem> {
        let connection = database::open(folder)?;
        let (queue, jobs) = mpsc::channel(QUEUE);
        let condition = Arc::new(Condition::default());
        let known = Arc::clone(&condition);
        let thread = thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || own(&connection, jobs, &known))
            .map_err(|error| {
                Problem::new(Class::Internal, format!("no thread for the database: {error}"))
            })?;
        let owner = Owner { queue: Some(queue), thread: Some(thread) };
        Ok(Self { way: Arc::new(Way::Thread(owner)), condition })
    }

    /// Whether the database in `folder` is in order; class `config` if not, and `Some` says what a
    /// start will mend. Blocks, and finds it in use where a gateway runs.
    pub(crate) fn look_at(folder: &Path) -> Result<Option<String>, Problem> {
        database::look_at(folder)
    }

    /// A store that forgets with the process, for tests.
    #[cfg(test)]
    pub(crate) fn in_memory() -> Self {
        let way = Way::Here(Mutex::new(database::in_memory()));
        Self { way: Arc::new(way), condition: Arc::default() }
    }

    /// Has the file refuse every write, or take them again, for tests.
    #[cfg(test)]
    pub(crate) async fn refuse_writes(&self, refuse: bool) {
        let set = move |db: &Connection| db.pragma_update(None, "query_only", refuse);
        self.run(set).await.expect("a setting that SQLite has");
    }

    /// Takes a table away, so that whoever needs it fails.
    #[cfg(test)]
    pub(crate) async fn lose(&self, table: &'static str) {
        let dropped = self.run(move |db| db.execute_batch(&format!("DROP TABLE {table}"))).await;
        dropped.expect("the table is there");
    }

    /// Whether the file took what was last to be written to it. Waits for nothing.
    pub(crate) fn takes_writes(&self) -> bool {
        !self.condition.is_ill.load(Ordering::Relaxed)
    }

    /// Writes to the file what stands there already; whether it takes that.
    pub(crate) async fn is_writable(&self) -> bool {
        let rewrite = |db: &Connection| {
            let version: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            db.pragma_update(None, "user_version", version)
        };
        let written = self.run(rewrite).await;
        tracing::debug!(is_written = written.is_ok(), "the database was tried");
        self.takes_writes()
    }

    /// The same where an answer that does not come within `limit` is one: it takes no writes, until
    /// one comes through.
    pub(crate) async fn is_writable_within(&self, limit: Duration) -> bool {
        let looked = tokio::time::timeout(limit, self.is_writable()).await;
        looked.unwrap_or_else(|_| {
            self.condition.learn(true);
            false
        })
    }

    /// Devices: who asked, who is paired, with which tokens, and setup codes.
    pub(crate) fn devices(&self) -> Devices<'_> {
        Devices::new(self)
    }

    /// Nodes: what each offers, and what of it is approved.
    pub(crate) fn nodes(&self) -> Nodes<'_> {
        Nodes::new(self)
    }

    /// Work that is left for nodes.
    pub(crate) fn node_work(&self) -> NodeWork<'_> {
        NodeWork::new(self)
    }

    /// News that wait for the chat sessions.
    pub(crate) fn news(&self) -> News<'_> {
        News::new(self)
    }

    /// What requests were answered that may come again.
    pub(crate) fn answers(&self) -> Answers<'_> {
        Answers::new(self)
    }

    /// Requests for approval of a program, and what was decided.
    pub(crate) fn approvals(&self) -> Approvals<'_> {
        Approvals::new(self)
    }

    /// The words that wake devices.
    pub(crate) fn wake_words(&self) -> WakeWords<'_> {
        WakeWords::new(self)
    }

    /// The rules by which programs may run on the gateway's own host.
    pub(crate) fn host_rules(&self) -> HostRules<'_> {
        HostRules::new(self)
    }

    /// Runs `work` in a transaction; returns once what it wrote is on the disk.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let outcome = apart(connection, work);
            let is_done = outcome.is_ok();
            let is_refused = outcome.as_ref().is_err_and(is_of_the_file);
            let finish = Box::new(move |committed: Result<(), Error>| {
                // A caller that went away needs no answer.
                let told = answer.send(committed.and(outcome.map_err(Error::from)));
                tracing::trace!(told = told.is_ok(), "stored");
            });
            Done { finish, is_done, is_refused }
        });
        match &*self.way {
            Way::Thread(owner) => owner.queue(job)?,
            #[cfg(test)]
            Way::Here(connection) => {
                let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                together(&connection, vec![job], &self.condition);
            }
        }
        answered.await.map_err(|_| Error::Closed)?
    }

    /// Runs `work` when its turn comes, without waiting; lost if the queue is full or the process
    /// is killed first.
    pub(super) fn note<F>(&self, work: F)
    where
        F: FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    {
        let job: Job = Box::new(move |connection| {
            let outcome = apart(connection, work);
            let is_done = outcome.is_ok();
            let is_refused = outcome.as_ref().is_err_and(is_of_the_file);
            let finish = Box::new(move |committed: Result<(), Error>| {
                if let Err(error) = committed.and(outcome.map_err(Error::from)) {
                    tracing::warn!(%error, "a note was not kept");
                }
            });
            Done { finish, is_done, is_refused }
        });
        match &*self.way {
            Way::Thread(owner) => {
                if let Err(error) = owner.queue(job) {
                    tracing::debug!(%error, "a note was not kept");
                }
            }
            #[cfg(test)]
            Way::Here(connection) => {
                let connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
                together(&connection, vec![job], &self.condition);
            }
        }
    }
}

impl Owner {
    fn queue(&self, job: Job) -> Result<(), Error> {
        let queue = self.queue.as_ref().ok_or(Error::Closed)?;
        queue.try_send(job).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => Error::Full,
            mpsc::error::TrySendError::Closed(_) => Error::Closed,
        })
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.queue = None;
        // What is queued is still written; it is bounded.
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the database's thread panicked");
        }
    }
}

impl Condition {
    /// Learns whether something was written, or would not be.
    fn learn(&self, is_ill: bool) {
        let before = self.is_ill.swap(is_ill, Ordering::Relaxed);
        match (before, is_ill) {
            (false, true) => tracing::error!("the database takes no writes"),
            (true, false) => tracing::info!("the database takes writes again"),
            (true, true) | (false, false) => {}
        }
    }
}

fn own(connection: &Connection, mut jobs: mpsc::Receiver<Job>, condition: &Condition) {
    while let Some(first) = jobs.blocking_recv() {
        let mut batch = vec![first];
        while batch.len() < TOGETHER
            && let Ok(next) = jobs.try_recv()
        {
            batch.push(next);
        }
        together(connection, batch, condition);
    }
}

/// One transaction for every job, then every answer.
fn together(connection: &Connection, jobs: Vec<Job>, condition: &Condition) {
    if let Err(error) = connection.execute_batch("BEGIN") {
        tracing::error!(%error, "no transaction");
        condition.learn(true);
        let error = Error::from(error);
        for job in jobs {
            (job(connection).finish)(Err(error.clone()));
        }
        return;
    }
    let done: Vec<Done> = jobs.into_iter().map(|job| job(connection)).collect();
    let state = connection.transaction_state(None::<&str>);
    let has_written = matches!(state, Ok(TransactionState::Write));
    let has_written = has_written && done.iter().any(|done| done.is_done);
    let committed = connection.execute_batch("COMMIT").map_err(|error| {
        tracing::error!(%error, "nothing was stored");
        // A commit that failed may have ended the transaction already.
        let undone = connection.execute_batch("ROLLBACK");
        tracing::debug!(undone = undone.is_ok(), "rolled back");
        Error::from(error)
    });
    let is_refused = committed.is_err() || done.iter().any(|done| done.is_refused);
    // Who only reads hears nothing of a full disk.
    if is_refused || has_written {
        condition.learn(is_refused);
    }
    for Done { finish, .. } in done {
        finish(committed.clone());
    }
}

/// Whether the file or its disk refused, and not what is to be stored.
fn is_of_the_file(error: &rusqlite::Error) -> bool {
    use ErrorCode::{
        CannotOpen, DatabaseCorrupt, DiskFull, NotADatabase, PermissionDenied, ReadOnly,
        SystemIoFailure,
    };
    matches!(
        error.sqlite_error_code(),
        Some(
            CannotOpen
                | DatabaseCorrupt
                | DiskFull
                | NotADatabase
                | PermissionDenied
                | ReadOnly
                | SystemIoFailure
        )
    )
}

/// Runs `work` so that its failure undoes its own writes and nobody else's.
fn apart<T>(
    connection: &Connection,
    work: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    if connection.is_autocommit() {
        // A full disk ended the transaction, as the commit will say of all that was in it.
        return Err(rusqlite::Error::InvalidQuery);
    }
    connection.execute_batch("SAVEPOINT job")?;
    let outcome = work(connection);
    let end = if outcome.is_ok() { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
    let ended = connection.execute_batch(end);
    // Why the work failed says more than that there was nothing left to undo.
    outcome.and_then(|value| ended.map(|()| value))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc as blocking;

    use super::*;

    const INSERT: &str = "INSERT INTO setup_code VALUES (?1, ?2, 'node', 1, 2, NULL, NULL)";

    async fn insert(store: &Store, id: u32) -> Result<(), Error> {
        store.run(move |db| db.execute(INSERT, (id.to_string(), vec![0_u8; 4])).map(drop)).await
    }

    async fn count(store: &Store) -> u32 {
        let count =
            |db: &Connection| db.query_row("SELECT count(*) FROM setup_code", [], |row| row.get(0));
        store.run(count).await.unwrap()
    }

    #[tokio::test]
    async fn what_fails_beside_others_undoes_only_itself() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        // The digest of the second is that of the first.
        let outcomes = tokio::join!(insert(&store, 1), insert(&store, 2));
        assert!(outcomes.0.is_ok() && matches!(outcomes.1, Err(Error::Failed(_))));
        assert_eq!(count(&store).await, 1);
    }

    #[tokio::test]
    async fn a_full_queue_says_so_and_works_again_later() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let (go, wait) = blocking::channel::<()>();
        let (started, running) = oneshot::channel();
        store.note(move |_| {
            started.send(()).unwrap();
            wait.recv().map_err(|_| rusqlite::Error::InvalidQuery)
        });
        running.await.unwrap();
        for _ in 0..QUEUE {
            store.note(|_| Ok(()));
        }
        assert_eq!(insert(&store, 1).await, Err(Error::Full));
        go.send(()).unwrap();
        loop {
            match insert(&store, 1).await {
                Ok(()) => break,
                Err(Error::Full) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[tokio::test]
    async fn whether_the_file_takes_writes_is_known_from_the_last_one() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        assert!(store.takes_writes() && store.is_writable().await);
        store.refuse_writes(true).await;
        assert!(matches!(insert(&store, 1).await, Err(Error::Failed(_))));
        assert!(!store.takes_writes());
        assert_eq!(count(&store).await, 0, "reading goes on");
        assert!(!store.takes_writes(), "and is no sign that writing does");
        assert!(!store.is_writable().await);
        store.refuse_writes(false).await;
        assert!(store.is_writable().await && store.takes_writes());
        insert(&store, 1).await.unwrap();
        insert(&store, 1).await.unwrap_err();
        assert!(store.takes_writes(), "what may not be stored is no fault of the file");
    }

    #[tokio::test]
    async fn a_file_that_does_not_answer_in_time_takes_no_writes_until_one_comes_through() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let (go, wait) = blocking::channel::<()>();
        store.note(move |_| wait.recv().map_err(|_| rusqlite::Error::InvalidQuery));
        assert!(!store.is_writable_within(Duration::ZERO).await);
        assert!(!store.takes_writes(), "and whoever asks meanwhile hears the same");
        go.send(()).unwrap();
        insert(&store, 1).await.unwrap();
        assert!(store.takes_writes());
    }

    #[tokio::test]
    async fn the_last_handle_writes_what_is_queued_and_closes() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        store.note(|db| db.execute(INSERT, ("1", vec![1_u8])).map(drop));
        drop(store);
        let store = Store::open(home.path()).unwrap();
        assert_eq!(count(&store).await, 1);
    }
}
