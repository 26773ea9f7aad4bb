//! `remote connect` on the supervisor's side: a trial beside what runs, kept or taken back.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    net::{UnixStream, unix::OwnedWriteHalf},
    sync::mpsc,
    task::JoinSet,
    time::{sleep_until, timeout},
};
use tracing::{debug, info};

use super::{
    answers::say,
    changes::{CONFIGURED, configured},
    lane::State,
    lock::locked,
    remote::{Optional, Remote, Which},
    server::Supervisor,
    trial::{Verdict, judge},
};
use crate::{
    config::{self, Kind, Remotes, check_name},
    control::{self, Note, Reply},
    problem::{Class, Problem},
    tunnel::{PUNISHED, Phase, Wish},
};

/// How long a command may take between `Live` and `Keep`: a login and an answer or two.
const KEEP_LIMIT: Duration = Duration::from_secs(600);

/// How long a command waits for the forwards that begin over there, once the rest is up.
const FORWARDS_LIMIT: Duration = Duration::from_secs(10);

/// What a `remote connect` asked for.
pub(super) struct Ask {
    pub(super) name: String,
    pub(super) definition: Option<Value>,
    pub(super) batch: bool,
    pub(super) make_default: bool,
    pub(super) limit: Duration,
}

/// Counts a command among the connects under way until it is dropped.
pub(super) struct Counted<'a> {
    supervisor: &'a Supervisor,
    name: String,
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut connects = locked(&self.supervisor.connects);
        if let Some(place) = connects.iter().position(|name| *name == self.name) {
            connects.swap_remove(place);
        }
    }
}

/// A remote that a command waits for.
pub(super) struct Trial<'a> {
    pub(super) remote: Arc<Remote>,
    /// Whether it is on trial, rather than at work already.
    pub(super) is_new: bool,
    /// Nobody else gets our place meanwhile: the command would wait for what only drains.
    pub(super) _counted: Counted<'a>,
}

/// How long a command has waited, and in which phase.
struct Waited {
    since: Instant,
    limit: Duration,
    phase: Phase,
    in_phase: Instant,
}

impl Waited {
    fn new(limit: Duration) -> Self {
        let now = Instant::now();
        Self { since: now, limit, phase: Phase::Down, in_phase: now }
    }

    fn judge(&mut self, name: &str, state: &State) -> Verdict {
        if std::mem::replace(&mut self.phase, state.phase) != state.phase {
            self.in_phase = Instant::now();
        }
        judge(name, state, self.since.elapsed(), self.in_phase.elapsed(), self.limit)
    }

    /// Time in which a person typed does not count.
    fn forgive(&mut self, span: Duration) {
        self.since += span;
    }

    /// When to look again though nothing changed.
    fn next_look(&self) -> Instant {
        (self.since + self.limit).min(Instant::now() + Duration::from_millis(500))
    }
}

impl Supervisor {
    pub(super) async fn connect(&self, stream: UnixStream, ask: Ask) {
        let (mut read, mut write) = stream.into_split();
        let (notes, mut note) = mpsc::channel(4);
        // Reading a message cannot be given up half way, so it has a task of its own.
        let mut reader = JoinSet::new();
        reader.spawn(async move {
            while let Ok(message) = control::read::<Note>(&mut read).await {
                if notes.send(message).await.is_err() {
                    return;
                }
            }
        });
        let trial = match self.begin(&ask).await {
            Ok(trial) => trial,
            Err(problem) => return say(&mut write, self.failed(problem)).await,
        };
        let outcome = self.accompany(&ask, &trial.remote, &mut write, &mut note).await;
        let kept = match outcome {
            Ok(keep) => self.keep(&ask, &trial, keep).await,
            Err(Some(problem)) if trial.is_new => Err(without_next_attempt(problem)),
            Err(Some(problem)) => Err(problem),
            // The command went away.
            Err(None) => Err(Problem::new(Class::Internal, "the command went away")),
        };
        self.end(&ask.name, &trial).await;
        let reply = kept.map_or_else(Reply::Failed, |()| Reply::Done);
        say(&mut write, reply).await;
    }

    /// The remote that a `remote connect` is about: one at work that is the same, one on trial
    /// that is the same, or a new one on trial.
    pub(super) async fn begin(&self, ask: &Ask) -> Result<Trial<'_>, Problem> {
        check_name(&ask.name)?;
        let definition = self.definition(ask)?;
        // Reading the configuration may take a while, and nobody else waits for it.
        let way = self.find_way(&definition).await?;
        let _changing = self.change().await?;
        let _counted = self.counted(&ask.name);
        let running = locked(&self.remotes).get(&ask.name).cloned();
        if let Some(remote) = &running
            && remote.is_same(&definition, &way)
        {
            // Somebody looks: what waits for a port is tried now.
            remote.bind_again(&self.pool, Which::All).await;
            return Ok(Trial { remote: Arc::clone(remote), is_new: false, _counted });
        }
        let mut waiting = locked(&self.trials).get(&ask.name).map(|(remote, _)| remote.clone());
        if let Some(remote) = &waiting
            && !remote.is_same(&definition, &way)
        {
            return Err(Problem::new(
                Class::Usage,
                format!("another `remote connect` of `{}` is under way", ask.name),
            )
            .fix("wait for it, or end it"));
        }
        if waiting.is_none() {
            let remote = self.make(&ask.name, definition, way);
            remote.scribe.on_trial();
            let saved = Remotes::load(&self.paths).unwrap_or_default();
            let optional = Optional::Known(saved.remotes.get(&ask.name));
            let is_reserved = |port| self.is_reserved(port, &ask.name);
            remote.bind(running.as_deref(), &self.pool, is_reserved, optional).await?;
            waiting = Some(remote);
        }
        let Some(remote) = waiting else {
            return Err(Problem::new(Class::Internal, "no remote to connect"));
        };
        let mut trials = locked(&self.trials);
        trials.entry(ask.name.clone()).or_insert_with(|| (Arc::clone(&remote), 0)).1 += 1;
        Ok(Trial { remote, is_new: true, _counted })
    }

    /// Counts one more.
    pub(super) fn counted(&self, name: &str) -> Counted<'_> {
        locked(&self.connects).push(name.to_owned());
        Counted { supervisor: self, name: name.to_owned() }
    }

    fn definition(&self, ask: &Ask) -> Result<config::Remote, Problem> {
        match &ask.definition {
            Some(value) => serde_json::from_value(value.clone()).map_err(|error| {
                Problem::new(Class::Internal, format!("reading the remote's definition: {error}"))
            }),
            None => {
                let saved = Remotes::load(&self.paths)?;
                match saved.remotes.get(&ask.name) {
                    None if ask.name == CONFIGURED => configured(&self.paths),
                    _ => saved.named(&ask.name).cloned(),
                }
            }
        }
    }

    /// Tells the command how it goes until it keeps the remote; `Err(None)` if it goes away.
    async fn accompany(
        &self,
        ask: &Ask,
        remote: &Arc<Remote>,
        write: &mut OwnedWriteHalf,
        note: &mut mpsc::Receiver<Note>,
    ) -> Result<Option<Value>, Option<Problem>> {
        let mut questions = (!ask.batch).then(|| remote.desk.sit());
        let old = locked(&self.remotes).get(&ask.name).cloned();
        let old = old.filter(|old| !Arc::ptr_eq(old, remote));
        if remote.kind() == Kind::Exposed
            && let Some(old) = &old
        {
            // Both want the same listener; what is on trial gives it back if it is not kept.
            old.release().await;
        }
        remote.try_out(Wish::Up).await;
        let mut watch = remote.watch();
        let mut raised = None;
        let mut waited = Waited::new(ask.limit);
        let mut shown = String::new();
        loop {
            let state = watch.borrow_and_update().clone();
            match waited.judge(&ask.name, &state) {
                Verdict::Live => {
                    let since = match raised {
                        Some(since) => since,
                        None => {
                            remote.raise(old.as_deref()).await;
                            *raised.insert(Instant::now())
                        }
                    };
                    if remote.is_settled() || since.elapsed() >= FORWARDS_LIMIT {
                        break;
                    }
                }
                Verdict::Failed(problem) => return Err(Some(problem)),
                Verdict::Wait => {}
            }
            if !state.stage.is_empty() && state.stage != shown {
                shown.clone_from(&state.stage);
                tell(write, Reply::Stage { text: state.stage }).await?;
            }
            let asked = async {
                match &mut questions {
                    Some(questions) => questions.recv().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = watch.changed() => {
                    changed.map_err(|_| Problem::new(Class::Internal, "the remote ended"))?;
                }
                () = sleep_until(waited.next_look().into()) => {}
                () = remote.settled(), if raised.is_some() => {}
                Some((question, answer)) = asked => {
                    let begun = Instant::now();
                    tell(write, Reply::Question(question)).await?;
                    match note.recv().await {
                        Some(Note::Answer { text }) => { let _gone = answer.send(text); }
                        Some(Note::Keep { .. }) | None => return Err(None),
                    }
                    waited.forgive(begun.elapsed());
                }
                said = note.recv() => if said.is_none() { return Err(None) },
            }
        }
        if let Some(problem) = remote.forward_failure() {
            return Err(Some(problem));
        }
        let status = remote.status(false);
        tell(write, Reply::Live { status, opened: remote.opened() }).await?;
        match timeout(KEEP_LIMIT, note.recv()).await {
            Ok(Some(Note::Keep { gateway })) => Ok(gateway),
            Ok(Some(Note::Answer { .. }) | None) | Err(_) => Err(None),
        }
    }

    /// Saves the remote, and lets it take its predecessor's place.
    pub(super) async fn keep(
        &self,
        ask: &Ask,
        trial: &Trial<'_>,
        said: Option<Value>,
    ) -> Result<(), Problem> {
        let _changing = self.changing.lock().await;
        trial.remote.remember(said);
        let definition = config::Remote { wanted: true, ..trial.remote.definition() };
        let is_configured = ask.name == CONFIGURED && ask.definition.is_none();
        self.save(|remotes| {
            if !is_configured {
                remotes.remotes.insert(ask.name.clone(), definition);
            }
            if ask.make_default {
                remotes.default = Some(ask.name.clone());
            }
            Ok(())
        })?;
        locked(&self.unstarted).forget(&ask.name);
        if trial.is_new {
            let old = locked(&self.remotes).insert(ask.name.clone(), Arc::clone(&trial.remote));
            if let Some(old) = old.filter(|old| !Arc::ptr_eq(old, &trial.remote)) {
                old.scribe.fall_silent();
                trial.remote.succeed(&old).await;
                let mut retiring = self.retiring.lock().await;
                while retiring.try_join_next().is_some() {}
                retiring.spawn(async move { old.retire().await });
            }
            trial.remote.scribe.keep();
            self.inherit(&ask.name, &trial.remote).await;
        }
        self.tell_roster();
        info!(remote = ask.name, "connected");
        Ok(())
    }

    /// Ends a trial; a remote that nobody kept goes with it.
    pub(super) async fn end(&self, name: &str, trial: &Trial<'_>) {
        if !trial.is_new {
            return;
        }
        // What goes back to the pool is seen by whoever starts or takes down.
        let _changing = self.changing.lock().await;
        let over = {
            let mut trials = locked(&self.trials);
            match trials.get_mut(name) {
                Some((_, 1)) => trials.remove(name).is_some(),
                Some((_, count)) => {
                    *count -= 1;
                    false
                }
                None => false,
            }
        };
        let kept = locked(&self.remotes).get(name).is_some_and(|r| Arc::ptr_eq(r, &trial.remote));
        if over && !kept {
            debug!(remote = name, "a trial was taken back");
            trial.remote.hand_back(&self.pool).await;
            // Whose it was may be gone by now.
            let unstarted: HashSet<String> = locked(&self.unstarted).names().cloned().collect();
            self.close_rest(|owner| !unstarted.contains(owner));
            let old = locked(&self.remotes).get(name).cloned();
            if let Some(old) = old.filter(|old| old.kind() == Kind::Exposed) {
                old.wish(Wish::Up).await;
            }
        }
    }
}

/// The same problem where nothing is tried any more: the trial is over.
fn without_next_attempt(problem: Problem) -> Problem {
    Problem { message: problem.message.replace(PUNISHED, ""), ..problem }
}

/// Writes a reply while the command still matters.
async fn tell(write: &mut OwnedWriteHalf, reply: Reply) -> Result<(), Option<Problem>> {
    control::write(write, &reply).await.map_err(|_| None)
}
