//! Another supervisor takes our place: what it gets, and what we do afterwards.

use std::{collections::HashMap, io, os::fd::AsFd, sync::Arc};

use tokio::{
    net::UnixStream,
    task::{JoinSet, spawn_blocking},
    time::timeout,
};
use tracing::{info, warn};

use super::{
    answers::REQUEST_LIMIT,
    door::Doors,
    handover::{self, Item, Part, Word},
    incoming::Incoming,
    lock::locked,
    place::Lock,
    remote::Remote,
    server::Supervisor,
};
use crate::{config::Listen, control};

/// A connection that waits for a path, and where it came in.
struct Held {
    remote: Arc<Remote>,
    at: Listen,
    incoming: Incoming,
}

impl Supervisor {
    /// Hands everything over to a newcomer; `None` if it stays ours.
    pub(super) async fn hand_over(
        &self,
        stream: UnixStream,
        call: handover::Call,
        doors: &Doors,
        lock: &Lock,
    ) -> Option<UnixStream> {
        let changing = timeout(handover::PATIENCE, self.changing.lock()).await;
        let refusal = match &changing {
            Err(_) => Some("it is changing a remote".to_owned()),
            Ok(_) => self.reason_to_stay(call.must),
        };
        let stream = stream.into_std().ok()?;
        if let Some(why) = refusal {
            info!(why, "another supervisor asked for our place, and did not get it");
            let _told = spawn_blocking(move || handover::refuse(&stream, &why)).await;
            return None;
        }
        let remotes = locked(&self.remotes).clone();
        for remote in remotes.values() {
            remote.pause().await;
        }
        let mut held = Vec::new();
        for remote in remotes.values() {
            for (at, incoming) in remote.surrender().await {
                held.push(Held { remote: Arc::clone(remote), at, incoming });
            }
        }
        // A command's own stream speaks our version, and stays.
        let given = match self.parts(&remotes, &held, doors, lock) {
            Ok(parts) => spawn_blocking(move || handover::give(stream, &parts)).await,
            Err(error) => Ok(Err(error)),
        };
        let successor = given.unwrap_or_else(|_| Err(io::ErrorKind::Other.into()));
        let successor = successor.and_then(|stream| {
            stream.set_nonblocking(true)?;
            UnixStream::from_std(stream)
        });
        let is_over = successor.is_ok();
        for Held { remote, at, incoming } in held {
            if !is_over || !incoming.is_tcp() {
                remote.admit(&at, incoming).await;
            }
        }
        match successor {
            Ok(successor) => {
                self.moved.cancel();
                remotes.values().for_each(|remote| remote.forget_ports());
                self.pool.clear();
                Some(successor)
            }
            Err(error) => {
                warn!(%error, "a newcomer did not take our place; all is ours again");
                remotes.values().for_each(|remote| remote.go_on());
                lock.note();
                None
            }
        }
    }

    /// Why nobody gets our place now.
    pub(super) fn reason_to_stay(&self, must: bool) -> Option<String> {
        if let Some(name) = locked(&self.connects).first() {
            return Some(format!("a `remote connect` of `{name}` is under way"));
        }
        let remotes = locked(&self.remotes);
        let unlocked = remotes.iter().find(|(_, remote)| !must && remote.needs_person());
        unlocked.map(|(name, _)| format!("a person let `{name}` in, and would be asked again"))
    }

    /// What a successor gets, in the order in which it gets it.
    fn parts(
        &self,
        remotes: &HashMap<String, Arc<Remote>>,
        held: &[Held],
        doors: &Doors,
        lock: &Lock,
    ) -> io::Result<Vec<Part>> {
        let agent = locked(&self.agent).clone();
        let mut parts: Vec<Part> =
            agent.map(|path| (Item::Agent { path }, None)).into_iter().collect();
        for door in doors.descriptors()? {
            parts.push((Item::Door, Some(door)));
        }
        for (name, remote) in remotes {
            for port in remote.descriptors()? {
                parts.push((Item::Port { remote: name.clone() }, Some(port)));
            }
        }
        // What no remote has taken yet goes on with its name and what is left of its patience.
        parts.extend(self.pool.parts()?);
        for former in self.predecessors.iter().filter(|former| handover::is_there(former)) {
            parts.push((Item::Former, Some(former.as_fd().try_clone_to_owned()?)));
        }
        for Held { incoming, .. } in held {
            if let Some(stream) = incoming.descriptor()? {
                parts.push((Item::held(incoming.until), Some(stream)));
            }
        }
        parts.push((Item::Lock, Some(lock.descriptor()?)));
        Ok(parts)
    }

    /// Lets what is open end, after another supervisor has taken over; until then or until that
    /// one is told to end.
    pub(super) async fn drain(&self, mut successor: UnixStream, mut commands: JoinSet<()>) {
        let mut retiring = std::mem::take(&mut *self.retiring.lock().await);
        for remote in self.at_work() {
            retiring.spawn(async move { remote.retire().await });
        }
        let drained = async {
            while retiring.join_next().await.is_some() {}
            let answered = async { while commands.join_next().await.is_some() {} };
            let _late = timeout(REQUEST_LIMIT, answered).await;
        };
        let told = async {
            while let Ok(word) = control::read::<Word>(&mut successor).await {
                match word {
                    Word::End => return,
                    Word::EndPort { port } => self.end_port(port).await,
                    Word::Serving | Word::Unknown => {}
                }
            }
            // It is gone, and that is no reason to cut anything.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = drained => info!("drained"),
            () = told => {
                info!("the successor was told to end, and so are we");
                self.tell_predecessors(Word::End);
            }
        }
    }

    /// Ends what is still open of a remote that was taken down after it was handed over.
    async fn end_port(&self, port: u16) {
        for remote in self.at_work() {
            if remote.port() == Some(port) {
                remote.end().await;
            }
        }
        self.tell_predecessors(Word::EndPort { port });
    }

    /// Tells those that handed over to us something, as far as they still drain.
    pub(super) fn tell_predecessors(&self, word: Word) {
        for predecessor in &self.predecessors {
            handover::tell(predecessor, word);
        }
    }
}
