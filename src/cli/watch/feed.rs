//! What the supervisor pushes, across its restarts.

use std::time::Duration;

use tokio::{sync::mpsc, task::JoinSet, time::sleep};

use crate::{
    cli::remote::at_rest,
    config::{Paths, Remotes},
    control::{self, Connection, Reply, Request, Start, Watched},
    problem::Problem,
};

/// News that may wait for whoever shows them; the supervisor leaves out what comes in between.
const WAITING_MOST: usize = 4;
/// Between two looks for a supervisor that is gone.
const LOOK: Duration = Duration::from_millis(500);
/// So many looks in a row may fail before the watch does.
const FAILURES_MOST: usize = 20;

/// How it is now.
#[derive(Debug, Clone)]
pub(super) struct News {
    /// Whether a supervisor runs.
    pub(super) is_running: bool,
    /// What it said; without one, what is saved.
    pub(super) watched: Watched,
}

/// The news as they come; ends when it is dropped.
pub(super) struct Feed {
    news: mpsc::Receiver<Result<News, Problem>>,
    _task: JoinSet<()>,
}

impl Feed {
    /// Begins to watch one remote, or all. A supervisor is started if a remote is wanted and none
    /// runs, as `remote status` does; one that ends later is waited for and not replaced, since a
    /// service manager may be about to.
    pub(super) fn start(paths: Paths, name: Option<String>) -> Self {
        let (sender, news) = mpsc::channel(WAITING_MOST);
        let mut task = JoinSet::new();
        task.spawn(async move {
            if let Err(problem) = watch(&paths, name, &sender).await {
                // Whoever does not listen any more need not know.
                let _gone = sender.send(Err(problem)).await;
            }
        });
        Self { news, _task: task }
    }

    /// The next news, or why there will be none. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<News, Problem> {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }
}

async fn watch(
    paths: &Paths,
    name: Option<String>,
    news: &mpsc::Sender<Result<News, Problem>>,
) -> Result<(), Problem> {
    let endpoint = paths.endpoint();
    let is_wanted = Remotes::load(paths)?.remotes.values().any(|remote| remote.wanted);
    let mut start = if is_wanted { Start::IfNeeded } else { Start::Never };
    let mut has_said_gone = false;
    let mut failures = 0;
    loop {
        let dialled = Connection::dial(&endpoint, start).await;
        let is_first = std::mem::replace(&mut start, Start::Never) == Start::IfNeeded;
        match dialled {
            Ok(Some(mut connection)) => {
                let request = Request::Watch { name: name.clone() };
                // One that is about to end hears nothing; the next look finds its successor.
                let ended = match connection.request(request).await {
                    Ok(()) => relay(&mut connection, news).await?,
                    Err(_) => Relayed::Nothing,
                };
                match ended {
                    Relayed::Unheard => return Ok(()),
                    Relayed::Something => {
                        // Somebody else may serve already: only a look tells.
                        (has_said_gone, failures) = (false, 0);
                        continue;
                    }
                    Relayed::Nothing => {}
                }
            }
            Ok(None) if !std::mem::replace(&mut has_said_gone, true) => {
                let remotes = at_rest(paths, name.as_deref())?;
                let watched = Watched { remotes, ..Watched::default() };
                if news.send(Ok(News { is_running: false, watched })).await.is_err() {
                    return Ok(());
                }
            }
            Ok(None) => failures = 0,
            // One that starts, ends or is busy may do better at the next look.
            Err(problem) => {
                failures += 1;
                if is_first || failures >= FAILURES_MOST {
                    return Err(problem);
                }
            }
        }
        sleep(LOOK).await;
    }
}

/// How it ended that a supervisor was listened to.
enum Relayed {
    /// It is gone, and has said something.
    Something,
    /// It is gone, and had said nothing.
    Nothing,
    /// Nobody wants the news any more.
    Unheard,
}

/// Hands on what comes until the supervisor is gone, or nobody listens.
async fn relay(
    connection: &mut Connection,
    news: &mpsc::Sender<Result<News, Problem>>,
) -> Result<Relayed, Problem> {
    let mut relayed = Relayed::Nothing;
    loop {
        let watched = match connection.reply().await {
            Ok(Reply::Watched(watched)) => watched,
            // A successor, if there is one, is found at the next look.
            Ok(Reply::Moved) | Err(_) => return Ok(relayed),
            Ok(other) => return Err(control::refused(other)),
        };
        if news.send(Ok(News { is_running: true, watched })).await.is_err() {
            return Ok(Relayed::Unheard);
        }
        relayed = Relayed::Something;
    }
}
