//! Changes of the set of remotes: taken up, disconnected, removed, renamed.

use tracing::{info, warn};

use super::{handover::Word, lock::locked, server::Supervisor};
use crate::{
    config::{self, Credentials, Kind, OpenClaw, Paths, Remotes, check_name},
    history::Happening,
    problem::{Class, Problem},
};

/// The name of the remote that stands in `openclaw.json`.
pub(super) const CONFIGURED: &str = "config";

impl Supervisor {
    /// The right to change the set of remotes; nobody has it once another supervisor has them.
    pub(super) async fn change(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Problem> {
        let changing = self.changing.lock().await;
        if self.moved.is_cancelled() {
            return Err(Problem::new(Class::Internal, "another supervisor has taken over"));
        }
        Ok(changing)
    }

    pub(super) async fn take_up(&self, name: &str) -> Result<(), Problem> {
        let _changing = self.change().await?;
        if locked(&self.remotes).contains_key(name) {
            return Ok(());
        }
        let definition = self.save(|remotes| {
            remotes.named(name)?;
            let remote = remotes.remotes.get_mut(name);
            Ok(remote.map(|remote| {
                remote.wanted = true;
                remote.clone()
            }))
        })?;
        if let Some(definition) = definition {
            self.start(name, definition).await?;
        }
        Ok(())
    }

    /// Refuses to change a remote on trial: the trial counts on the ports of the one at work, and
    /// would bring back what is gone.
    pub(super) fn check_no_trial(&self, name: &str) -> Result<(), Problem> {
        if locked(&self.trials).contains_key(name) {
            return Err(Problem::new(
                Class::Usage,
                format!("a `remote connect` of `{name}` is under way"),
            )
            .fix("wait for it, or end it"));
        }
        Ok(())
    }

    pub(super) async fn disconnect(&self, name: &str) -> Result<(), Problem> {
        let _changing = self.change().await?;
        self.take_down(name).await
    }

    /// Takes a remote down, for whoever has the right to change. The file first: what cannot be saved
    /// leaves everything as it was.
    async fn take_down(&self, name: &str) -> Result<(), Problem> {
        self.check_no_trial(name)?;
        let is_here = locked(&self.remotes).contains_key(name)
            || locked(&self.unstarted).problem(name).is_some();
        let port = self.client_port(name);
        if !is_here || name != CONFIGURED {
            self.save(|remotes| {
                // What is here may be gone from the file by somebody's hand.
                if !is_here {
                    remotes.named(name)?;
                }
                if let Some(remote) = remotes.remotes.get_mut(name) {
                    remote.wanted = false;
                }
                Ok(())
            })?;
        }
        let running = locked(&self.remotes).remove(name);
        self.forget_unstarted(name);
        self.tell_roster();
        if let Some(port) = port {
            self.tell_predecessors(Word::EndPort { port });
        }
        if let Some(remote) = running {
            remote.end().await;
            remote.scribe.note(Happening::Disconnected);
            info!(remote = name, "disconnected");
        }
        Ok(())
    }

    /// The port at which a predecessor may still have streams of a remote, which is at work or could
    /// not be started.
    fn client_port(&self, name: &str) -> Option<u16> {
        if let Some(remote) = locked(&self.remotes).get(name) {
            return remote.port();
        }
        locked(&self.unstarted).problem(name)?;
        let saved = Remotes::load(&self.paths).ok()?.remotes.remove(name);
        let definition = match saved {
            None if name == CONFIGURED => still_configured(&self.paths).ok().flatten(),
            saved => saved,
        }?;
        let port = definition.local_port;
        let is_known = definition.kind == Kind::Gateway && port != 0;
        // Another one's streams are not this one's to end.
        let is_others = self.at_work().iter().any(|it| it.port() == Some(port));
        (is_known && !is_others).then_some(port)
    }

    pub(super) async fn remove(&self, name: &str) -> Result<(), Problem> {
        let _changing = self.change().await?;
        self.take_down(name).await?;
        self.save(|remotes| {
            remotes.remotes.remove(name);
            if remotes.default.as_deref() == Some(name) {
                remotes.default = None;
            }
            // Before this file is stored: where it fails the remote can be removed again.
            Credentials::update(&self.paths, |credentials| {
                credentials.remotes.remove(name);
                Ok(())
            })
        })
    }

    pub(super) async fn rename(&self, name: &str, to: &str) -> Result<(), Problem> {
        check_name(to)?;
        let _changing = self.change().await?;
        self.check_no_trial(name)?;
        self.check_no_trial(to)?;
        self.save_name(name, to)?;
        info!(remote = name, to, "renamed");
        let mut remotes = locked(&self.remotes);
        if let Some(remote) = remotes.remove(name) {
            remote.rename(to);
            remotes.insert(to.to_owned(), remote);
        }
        drop(remotes);
        self.tell_roster();
        locked(&self.unstarted).rename(name, to);
        self.pool.rename(name, to);
        Ok(())
    }

    /// Renames a remote in both files, or in none.
    fn save_name(&self, name: &str, to: &str) -> Result<(), Problem> {
        let mut is_moved = false;
        let saved = self.save(|remotes| {
            remotes.named(name)?;
            if remotes.remotes.contains_key(to) {
                return Err(Problem::new(
                    Class::Usage,
                    format!("a remote is called `{to}` already"),
                ));
            }
            let definition = remotes.remotes.remove(name);
            remotes.remotes.extend(definition.map(|remote| (to.to_owned(), remote)));
            if remotes.default.as_deref() == Some(name) {
                remotes.default = Some(to.to_owned());
            }
            // Before this file is stored: where it fails both are as they were.
            self.move_secret(name, to)?;
            is_moved = true;
            Ok(())
        });
        if saved.is_err()
            && is_moved
            && let Err(problem) = self.move_secret(to, name)
        {
            warn!(remote = name, class = ?problem.class, "its secret is saved for another name");
        }
        saved
    }

    fn move_secret(&self, name: &str, to: &str) -> Result<(), Problem> {
        Credentials::update(&self.paths, |credentials| {
            let credential = credentials.remotes.remove(name);
            credentials.remotes.extend(credential.map(|c| (to.to_owned(), c)));
            Ok(())
        })
    }

    pub(super) fn save<T>(
        &self,
        change: impl FnOnce(&mut Remotes) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        Remotes::update(&self.paths, change)
    }
}

/// The remote of `gateway.remote` in `openclaw.json`.
pub(super) fn configured(paths: &Paths) -> Result<config::Remote, Problem> {
    OpenClaw::load(paths)?.remote_definition()
}

/// The same for a remote at work: `None` if the file names none, an error if it cannot be read.
pub(super) fn still_configured(paths: &Paths) -> Result<Option<config::Remote>, Problem> {
    match configured(paths) {
        Ok(definition) => Ok(Some(definition)),
        Err(problem) if problem.class == Class::Usage => Ok(None),
        Err(problem) => Err(problem),
    }
}
