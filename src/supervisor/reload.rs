//! Takes up edits of `rs/remotes.json` and of the ssh configuration without dropping a stream.
//!
//! What works is kept until its successor works: a remote that was edited comes up beside the old
//! one, and takes its ports over once it is live.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::time::timeout;
use tracing::{info, warn};

use super::{
    Scope,
    changes::{CONFIGURED, still_configured},
    connecting::Ask,
    lane::{hopeless, serves},
    lock::locked,
    remote::{Optional, Remote},
    server::Supervisor,
};
use crate::{
    config::{self, Kind, Remotes},
    problem::{Class, Problem},
    tunnel::Wish,
};

/// How long the successor of a remote that serves may take to be live.
const LIMIT: Duration = Duration::from_secs(30);

impl Supervisor {
    /// Reads everything again. What cannot be taken up is noted, and what was there goes on.
    pub(super) async fn reload(&self) {
        let saved = match Remotes::load(&self.paths) {
            Ok(saved) => saved,
            Err(problem) => {
                warn!(class = ?problem.class, "remotes.json was not read; all goes on as it was");
                return;
            }
        };
        for remote in self.at_work() {
            let name = remote.name();
            let outcome = match self.wish_for(&name, &saved) {
                Ok(Some(definition)) => self.renew(&name, &remote, definition).await,
                Ok(None) => self.drop_unwanted(&name).await,
                Err(problem) => Err(problem),
            };
            if let Err(problem) = outcome {
                warn!(remote = name, class = ?problem.class, "an edit was not taken up");
                tracing::debug!(remote = name, %problem, "why");
            }
        }
        if self.scope != Scope::Told {
            self.start_wanted(saved).await;
        }
        self.tell_roster();
        info!("reloaded");
    }

    /// The definition of a remote at work as it is now; `None` if it is not wanted any more.
    fn wish_for(&self, name: &str, saved: &Remotes) -> Result<Option<config::Remote>, Problem> {
        match saved.remotes.get(name) {
            Some(definition) => Ok(definition.wanted.then(|| definition.clone())),
            None if name == CONFIGURED => still_configured(&self.paths),
            None => Ok(None),
        }
    }

    async fn drop_unwanted(&self, name: &str) -> Result<(), Problem> {
        let _changing = self.change().await?;
        self.check_no_trial(name)?;
        let running = locked(&self.remotes).remove(name);
        if let Some(remote) = running {
            remote.end().await;
            info!(remote = name, "not wanted any more");
        }
        Ok(())
    }

    /// Puts a remote by its new definition in the place of the old one, if anything changed.
    async fn renew(
        &self,
        name: &str,
        old: &Arc<Remote>,
        definition: config::Remote,
    ) -> Result<(), Problem> {
        let way = self.find_way(&definition).await?;
        if old.is_same(&definition, &way) && old.leads_alike(&way) {
            // A person has looked: what was given up is tried again.
            if !serves(old.state().phase) {
                old.wish(Wish::Up).await;
            }
            return Ok(());
        }
        let (trial, _counted) = {
            let _changing = self.change().await?;
            self.check_no_trial(name)?;
            let remote = self.make(name, definition.clone(), way);
            remote.scribe.on_trial();
            let is_reserved = |port| self.is_reserved(port, name);
            // What works is not given up for a place that is taken.
            let known = old.definition();
            remote.bind(Some(old), &self.pool, is_reserved, Optional::Known(Some(&known))).await?;
            locked(&self.trials).insert(name.to_owned(), (Arc::clone(&remote), 1));
            (remote, self.counted(name))
        };
        if trial.kind() == Kind::Exposed {
            // Both want the same listener; what is on trial gives it back if it is not kept.
            old.release().await;
        }
        trial.try_out(Wish::Up).await;
        let outcome = if serves(old.state().phase) { lives(name, &trial).await } else { Ok(()) };
        let ask = Ask {
            name: name.to_owned(),
            definition: (name != CONFIGURED).then(|| serde_json::json!(definition)),
            batch: true,
            make_default: false,
            limit: LIMIT,
        };
        let trial = super::connecting::Trial { remote: trial, is_new: true, _counted };
        let outcome = match outcome {
            Ok(()) => self.keep(&ask, &trial, old.said()).await,
            Err(problem) => Err(problem),
        };
        self.end(name, &trial).await;
        outcome
    }

    /// Starts what is wanted and not at work, by the file as it is when its turn comes: what came before
    /// took its time, and a person may have changed something meanwhile.
    async fn start_wanted(&self, saved: Remotes) {
        let unstarted: Vec<String> = locked(&self.unstarted).names().cloned().collect();
        let names: BTreeSet<String> = saved.remotes.into_keys().chain(unstarted).collect();
        for name in names {
            let Ok(_changing) = self.change().await else { return };
            let Ok(mut saved) = Remotes::load(&self.paths) else { return };
            let is_there = locked(&self.remotes).contains_key(&name)
                || locked(&self.trials).contains_key(&name);
            match saved.remotes.remove(&name) {
                Some(definition) if definition.wanted => {
                    if !is_there && let Err(problem) = self.start(&name, definition).await {
                        self.note_failure(&name, &problem);
                    }
                }
                None if name == CONFIGURED => {}
                Some(_) | None => self.forget_unstarted(&name),
            }
        }
    }
}

/// Waits until a successor serves.
async fn lives(name: &str, remote: &Remote) -> Result<(), Problem> {
    let mut watch = remote.watch();
    let settled = watch.wait_for(|state| serves(state.phase) || hopeless(state).is_some());
    let state = match timeout(LIMIT, settled).await {
        Ok(Ok(state)) => state.clone(),
        Ok(Err(_)) | Err(_) => remote.state(),
    };
    if serves(state.phase) {
        return Ok(());
    }
    Err(hopeless(&state).unwrap_or_else(|| {
        Problem::new(
            Class::Unreachable,
            format!("`{name}` was not live in time by its new definition"),
        )
        .fix(format!("openclaw remote check {name}"))
    }))
}
