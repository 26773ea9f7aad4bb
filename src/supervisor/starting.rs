//! Takes saved remotes up: at the start, after a predecessor, and again where time may help.

use std::{collections::HashSet, sync::Arc, time::Instant};

use futures_util::future::join_all;
use tokio::net::TcpStream;
use tracing::{debug, info, warn};

use super::{
    changes::{CONFIGURED, still_configured},
    incoming::{Incoming, Local},
    lock::locked,
    port,
    process::Scope,
    remote::{Optional, Remote, Which},
    server::Supervisor,
};
use crate::{
    config::{self, Kind, Paths, Remotes},
    problem::Problem,
    tunnel::Wish,
};

/// What a supervisor takes up when it starts: every saved remote that the user wants up, and that of
/// `openclaw.json` if it was at work under a predecessor; in the foreground nothing, unless it
/// follows one with remotes at work.
pub(super) fn wanted(
    paths: &Paths,
    scope: Scope,
    inherited: &[String],
) -> Result<Vec<(String, config::Remote)>, Problem> {
    if scope == Scope::Told && inherited.is_empty() {
        return Ok(Vec::new());
    }
    let saved = Remotes::load(paths)?.remotes.into_iter();
    let mut wanted: Vec<_> = saved.filter(|(_, definition)| definition.wanted).collect();
    let is_configured = |name: &String| name == CONFIGURED;
    if inherited.iter().any(is_configured) && !wanted.iter().any(|(name, _)| is_configured(name)) {
        let definition = still_configured(paths)?;
        wanted.extend(definition.map(|definition| (CONFIGURED.to_owned(), definition)));
    }
    Ok(wanted)
}

impl Supervisor {
    /// Starts what is [`wanted`].
    pub(super) async fn resume(&self, wanted: Vec<(String, config::Remote)>) {
        let _changing = self.changing.lock().await;
        for (name, _) in &wanted {
            locked(&self.unstarted).begin(name);
        }
        // At once: one whose configuration takes its time keeps no other waiting.
        join_all(wanted.into_iter().map(async |(name, definition)| {
            if let Err(problem) = self.start(&name, definition).await {
                self.note_failure(&name, &problem);
            }
        }))
        .await;
        // One that could not be started finds its ports when it can.
        let unstarted: HashSet<String> = locked(&self.unstarted).names().cloned().collect();
        self.close_rest(|name| !unstarted.contains(name));
    }

    /// Closes what came from a predecessor for the remotes that `is_its`, and none of them took.
    pub(super) fn close_rest(&self, is_its: impl Fn(&str) -> bool) {
        let (ports, held) = self.pool.close(is_its);
        if ports + held > 0 {
            info!(ports, held, "what was handed over and nobody wants was closed");
        }
    }

    /// A remote that was not started is not wanted any more.
    pub(super) fn forget_unstarted(&self, name: &str) {
        locked(&self.unstarted).forget(name);
        self.close_rest(|remote| remote == name);
    }

    pub(super) fn note_failure(&self, name: &str, problem: &Problem) {
        let is_news = locked(&self.unstarted).note(name, problem.clone(), Instant::now());
        self.tell_roster();
        if is_news {
            warn!(remote = name, class = ?problem.class, "a remote was not started");
            debug!(remote = name, %problem, "why");
        }
    }

    /// Tries those again that time may help, if it is their time.
    pub(super) async fn start_again(self: Arc<Self>) {
        let due = locked(&self.unstarted).due(Instant::now());
        for name in due {
            let Ok(_changing) = self.change().await else { return };
            let definition = match self.unstarted_one(&name) {
                Ok(Some(definition)) => definition,
                Ok(None) => {
                    self.forget_unstarted(&name);
                    continue;
                }
                // The file can be mended, and a trial be taken back.
                Err(_) => {
                    locked(&self.unstarted).put_off(&name, Instant::now());
                    continue;
                }
            };
            // The port first: reading the configuration may run commands of the user's.
            let outcome = match port::check(&definition, &self.pool).await {
                Ok(()) => self.start(&name, definition).await.map(drop),
                Err(problem) => Err(problem),
            };
            match outcome {
                Ok(()) => info!(remote = name, "what kept it down is over; it is at work"),
                Err(problem) => self.note_failure(&name, &problem),
            }
        }
    }

    /// When something is to be tried again that waits for a port or for its start, or a connection
    /// that waits for one has waited long enough.
    pub(super) fn next_try(&self) -> Option<Instant> {
        let others = [locked(&self.unstarted).next(), self.pool.next_end()];
        let binds = self.bindable().into_iter().map(|remote| remote.next_bind());
        binds.chain(others).flatten().min()
    }

    /// Those at work that may take places on this machine: one that a trial may follow takes none that
    /// the trial counts on.
    fn bindable(&self) -> Vec<Arc<Remote>> {
        let on_trial: HashSet<String> = locked(&self.trials).keys().cloned().collect();
        let remotes = locked(&self.remotes);
        let bindable = remotes.iter().filter(|(name, _)| !on_trial.contains(*name));
        bindable.map(|(_, remote)| Arc::clone(remote)).collect()
    }

    /// Tries again what waits, as far as it is its time.
    pub(super) async fn try_again(self: Arc<Self>) {
        let ports = self.pool.close_late(Instant::now());
        if ports > 0 {
            info!(ports, "what was kept for a remote that was not started in time was closed");
        }
        self.bind_again().await;
        self.start_again().await;
    }

    /// Tries the forwards again whose place on this machine was taken, if it is their time.
    async fn bind_again(&self) {
        let now = Instant::now();
        let is_due = |remote: &Arc<Remote>| remote.next_bind().is_some_and(|next| next <= now);
        if !self.bindable().iter().any(is_due) {
            return;
        }
        // What is handed over or ended meanwhile opens no port any more.
        let Ok(_changing) = self.change().await else { return };
        for remote in self.bindable() {
            if remote.bind_again(&self.pool, Which::Due).await {
                self.tell_roster();
            }
        }
    }

    /// The definition of a remote that is wanted and could not be started; `None` if it is at work
    /// or not wanted by now. An error while a trial of it is under way.
    pub(super) fn unstarted_one(&self, name: &str) -> Result<Option<config::Remote>, Problem> {
        if locked(&self.remotes).contains_key(name) {
            return Ok(None);
        }
        self.check_no_trial(name)?;
        let saved = Remotes::load(&self.paths)?;
        match saved.remotes.get(name) {
            None if name == CONFIGURED => still_configured(&self.paths),
            found => Ok(found.filter(|definition| definition.wanted).cloned()),
        }
    }

    pub(super) async fn start(
        &self,
        name: &str,
        definition: config::Remote,
    ) -> Result<Arc<Remote>, Problem> {
        // A remote that has no port yet keeps the one that it gets.
        let definition_moved = definition.kind == Kind::Gateway && definition.local_port == 0;
        let way = self.find_way(&definition).await?;
        let remote = self.make(name, definition, way);
        let is_reserved = |port| self.is_reserved(port, name);
        remote.bind(None, &self.pool, is_reserved, Optional::All).await?;
        if definition_moved {
            let port = remote.definition().local_port;
            let saved = self.save(|remotes| {
                if let Some(saved) = remotes.remotes.get_mut(name) {
                    saved.local_port = port;
                }
                Ok(())
            });
            if let Err(problem) = saved {
                remote.hand_back(&self.pool).await;
                return Err(problem);
            }
        }
        remote.wish(Wish::Up).await;
        if remote.kind() == Kind::Exposed && remote.definition().remote_port == 0 {
            self.keep_choice(name, &remote).await;
        }
        locked(&self.unstarted).forget(name);
        locked(&self.remotes).insert(name.to_owned(), Arc::clone(&remote));
        self.tell_roster();
        self.inherit(name, &remote).await;
        Ok(remote)
    }

    /// Hands a remote the connections that waited at its ports under a predecessor, and closes what
    /// else came for it.
    pub(super) async fn inherit(&self, name: &str, remote: &Remote) {
        for at in remote.listens() {
            for (stream, until) in self.pool.take_held(|dialled| port::is_at(&at, dialled)) {
                let stream =
                    stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                match stream {
                    Ok(stream) => {
                        let mut incoming = Incoming::new(Local::Tcp(stream), until);
                        incoming.promise();
                        remote.admit(&at, incoming).await;
                    }
                    Err(error) => warn!(%error, "a connection that waited was lost"),
                }
            }
        }
        self.close_rest(|owner| owner == name);
    }
}
