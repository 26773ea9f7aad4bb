//! Sessions: dialled, asked, drained and ended as the machine wants it.

use std::{sync::Arc, time::Instant};

use tokio::time::timeout;
use tracing::{debug, info};

use super::{Actor, Message, PING_LIMIT, Session, Voice, ask::ask_gateway};
use crate::{
    supervisor::{
        link::{Link, Progress},
        path::{Path, clock},
        wake::own_addresses,
    },
    tunnel::{Event, Failure, News, Number, Probe},
};

impl Actor {
    pub(super) fn on_dialled(&mut self, number: Number, outcome: Result<Arc<dyn Link>, Failure>) {
        let Some(Session::Dialling { draining, .. }) = self.sessions.remove(&number) else {
            if let Ok(link) = outcome {
                link.kill();
            }
            return;
        };
        let link = match outcome {
            Ok(link) => link,
            Err(failure) => {
                debug!(attempt = number.0, cause = ?failure.cause, "attempt failed");
                self.account.failed(&failure);
                self.step(Event::News(number, News::Ended(failure)));
                return;
            }
        };
        let path = Path::new(number, link, Arc::clone(&self.totals), self.news.clone());
        let path = Arc::new(path);
        let watcher = {
            let (path, news) = (Arc::clone(&path), self.news.clone());
            self.tasks.spawn(async move {
                let failure = path.link.closed().await;
                path.retired.cancel();
                let _ended = news.send((number, News::Ended(failure))).await;
            })
        };
        let facts = path.link.facts();
        let needs_person = facts.needs_person;
        self.state.send_modify(|state| state.facts = Some(facts));
        self.sessions.insert(number, Session::Up(path, watcher));
        self.step(Event::News(number, News::SessionUp { needs_person }));
        if draining {
            self.step(Event::News(number, News::Empty));
        }
    }

    /// What the sessions kept to themselves, with when it was.
    pub(super) fn late_news(&mut self) -> Vec<(Number, News, Instant)> {
        let paths = self.sessions.values().filter_map(|session| match session {
            Session::Up(path, _) => Some(path),
            Session::Dialling { .. } => None,
        });
        let late = paths.filter_map(|path| Some((path.number, path.late_news()?)));
        late.flat_map(|(number, (heard, is_awaited))| {
            let heard = Some((number, News::Heard, heard));
            let awaited = is_awaited.then(|| (number, News::Awaited, clock()));
            [heard, awaited].into_iter().flatten()
        })
        .collect()
    }

    pub(super) fn signs_of_life(&mut self) -> Vec<(Number, bool)> {
        let paths = self.sessions.values().filter_map(|session| match session {
            Session::Up(path, _) => Some(path),
            Session::Dialling { .. } => None,
        });
        paths.map(|path| (path.number, path.has_heard())).collect()
    }

    /// The sessions whose own address is known, and whether this machine has it no more.
    pub(super) fn stranded(&self) -> Vec<(Number, bool)> {
        let Some(ours) = own_addresses() else { return Vec::new() };
        let paths = self.sessions.values().filter_map(|session| match session {
            Session::Up(path, _) => Some(path),
            Session::Dialling { .. } => None,
        });
        let known = paths.filter_map(|path| Some((path.number, path.link.near()?)));
        known.map(|(number, near)| (number, !ours.contains(&near))).collect()
    }

    /// Tells the machine which sessions those are.
    pub(super) fn tell_stranded(&mut self) {
        for (number, stranded) in self.stranded() {
            self.step(Event::News(number, News::Stranded(stranded)));
        }
    }

    pub(super) fn dial(&mut self, number: Number) {
        let (dialer, inner) = (Arc::clone(&self.dialer), self.inner.clone());
        let awaited = Arc::clone(&self.awaited);
        debug!(attempt = number.0, "attempt begins");
        let task = self.tasks.spawn(async move {
            let stages = inner.clone();
            let stage = move |progress: Progress| {
                let _full = stages.try_send(Message::Stage(number, progress));
            };
            let outcome = dialer.dial(&stage, &awaited).await;
            let _ended = inner.send(Message::Dialled(number, outcome)).await;
        });
        self.sessions.insert(number, Session::Dialling { task, draining: false });
    }

    pub(super) fn ping(&mut self, number: Number, voice: Voice) {
        let Some(Session::Up(path, _)) = self.sessions.get(&number) else { return };
        let path = Arc::clone(path);
        path.listen();
        // Whoever watches wants to see how long each answer takes.
        let is_quiet = voice == Voice::Quiet && !self.totals.is_watched() && path.link.hush();
        if !is_quiet {
            path.link.attend();
        }
        self.asked.push(Box::pin(async move {
            let answered = timeout(PING_LIMIT, path.link.ping()).await;
            let rtt = answered.ok()?.ok()?;
            path.stop_listening();
            Some((number, if is_quiet { News::Found } else { News::Pong { rtt } }))
        }));
    }

    pub(super) fn prove(&mut self, number: Number, probe: Probe) {
        let Some(Session::Up(path, _)) = self.sessions.get(&number) else { return };
        let path = Arc::clone(path);
        let (destination, pin) = (self.destination.clone(), self.pin);
        self.asked.push(Box::pin(async move {
            let begun = clock();
            let news = match ask_gateway(&path, &destination, pin, probe).await {
                Ok(()) => News::Proved { rtt: clock() - begun },
                Err(Some(failure)) => News::NotProved(failure),
                // The machine's own deadline or the session's end says the rest.
                Err(None) => return None,
            };
            Some((number, news))
        }));
    }

    pub(super) fn drain(&mut self, number: Number) {
        match self.sessions.get_mut(&number) {
            Some(Session::Dialling { draining, .. }) => *draining = true,
            Some(Session::Up(path, _)) => {
                path.retired.cancel();
                if path.is_empty() {
                    path.tell(News::Empty);
                }
            }
            None => {}
        }
    }

    pub(super) fn kill(&mut self, number: Number) {
        match self.sessions.remove(&number) {
            Some(Session::Dialling { task, .. }) => task.abort(),
            Some(Session::Up(path, watcher)) => {
                watcher.abort();
                path.retired.cancel();
                let streams = path.streams();
                if streams == 0 && !path.link.is_closed() {
                    self.tasks.spawn(async move { path.link.close().await });
                    return;
                }
                if streams > 0 {
                    info!(attempt = number.0, streams, "a session is ended with its streams");
                }
                path.ended.cancel();
                path.link.kill();
            }
            None => {}
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let numbers: Vec<Number> = self.sessions.keys().copied().collect();
        for number in numbers {
            self.kill(number);
        }
    }
}
