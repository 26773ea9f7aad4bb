//! What a command is answered: its first word read, and a reply or a stream given.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{net::UnixStream, sync::oneshot, time::timeout};
use tracing::{debug, info, warn};

use super::{
    changes::{CONFIGURED, configured},
    connecting::Ask,
    handover,
    incoming::{Incoming, Local},
    lane::{Command, hopeless},
    lock::locked,
    remote::{self, Remote},
    server::Supervisor,
    token,
    unstarted::Unstarted,
};
use crate::{
    config::{self, Kind, Remotes},
    control::{self, Call, Edition, Reply, Request},
    meeting::{Greeting, Party},
    problem::{Class, Problem},
    tunnel::Phase,
};

/// How long a command may take to say what it wants: less than one that comes after it waits.
pub(super) const REQUEST_LIMIT: Duration = Duration::from_secs(3);

/// How long whoever asks about a port waits for a change of the remotes: less than a client does.
const CHANGE_LIMIT: Duration = Duration::from_secs(1);

/// What a command may say first.
#[derive(serde::Deserialize)]
#[serde(untagged)]
enum First {
    HandOver(handover::Call),
    Call(Call),
}

impl Supervisor {
    /// Serves one command.
    pub(super) async fn attend(self: Arc<Self>, mut stream: UnixStream) {
        let own = nix::unistd::getuid().as_raw();
        match stream.peer_cred() {
            Ok(peer) if peer.uid() == own => {}
            Ok(peer) => {
                warn!(uid = peer.uid(), "another user's command was turned away");
                return;
            }
            Err(error) => {
                warn!(%error, "a command's user is unknown; it was turned away");
                return;
            }
        }
        if control::write(&mut stream, &self.greeting()).await.is_err() {
            return;
        }
        let first = timeout(REQUEST_LIMIT, control::read::<First>(&mut stream)).await;
        match first {
            Ok(Ok(First::HandOver(call))) => {
                // Of two that ask at once the second finds the first in our place.
                let _busy = self.newcomers.0.try_send((stream, call));
            }
            Ok(Ok(First::Call(call))) => {
                if let Some(agent) = call.agent {
                    *locked(&self.agent) = Some(agent);
                }
                self.answer(stream, call.request).await;
            }
            Ok(Err(error)) => debug!(%error, "what a command said makes no sense"),
            Err(_) => debug!("a command said nothing"),
        }
    }

    fn greeting(&self) -> Greeting {
        let Party { version, program, .. } = Party::own(self.foreground);
        let (pid, replaced) = (std::process::id(), self.program.is_replaced());
        Greeting { version, pid, program, replaced, foreground: self.foreground }
    }

    async fn answer(self: &Arc<Self>, mut stream: UnixStream, request: Request) {
        if self.moved.is_cancelled() {
            return say(&mut stream, Reply::Moved).await;
        }
        let reply = match request {
            Request::Connect { name, definition, batch, make_default, timeout_ms } => {
                let limit = Duration::from_millis(timeout_ms);
                let ask = Ask { name, definition, batch, make_default, limit };
                return self.connect(stream, ask).await;
            }
            Request::Open { name, edition, timeout_ms } => {
                let limit = Duration::from_millis(timeout_ms);
                return self.open(stream, &name, edition, limit).await;
            }
            Request::Status { name } => {
                self.statuses(name.as_deref()).map(|remotes| Reply::Statuses { remotes })
            }
            Request::Holder { port } => {
                self.holder(port).await.map(|remote| Reply::Held { remote })
            }
            Request::Watch { name } => {
                return self.accompany_watcher(stream, name.as_deref()).await;
            }
            Request::Metrics { address, keep } => {
                self.answer_scrapes(address, keep).await.map(|()| Reply::Done)
            }
            Request::Resume { name } => self.take_up(&name).await.map(|()| Reply::Done),
            Request::Disconnect { name } => self.disconnect(&name).await.map(|()| Reply::Done),
            Request::Remove { name } => self.remove(&name).await.map(|()| Reply::Done),
            Request::Rename { name, to } => self.rename(&name, &to).await.map(|()| Reply::Done),
            Request::FetchToken { name } => self.fetch_token(&name).await,
            Request::Stop => {
                info!("told to end");
                self.ending.cancel();
                Ok(Reply::Done)
            }
        };
        say(&mut stream, reply.unwrap_or_else(|problem| self.failed(problem))).await;
    }

    /// The answer that something was not done; whoever took over may do it.
    pub(super) fn failed(&self, problem: Problem) -> Reply {
        if self.moved.is_cancelled() { Reply::Moved } else { Reply::Failed(problem) }
    }

    pub(super) fn statuses(&self, name: Option<&str>) -> Result<Vec<Value>, Problem> {
        let saved = Remotes::load(&self.paths)?;
        let is_default = |name: &str| saved.default.as_deref() == Some(name);
        let mut names: Vec<String> = saved.remotes.keys().cloned().collect();
        let running = locked(&self.remotes);
        names.extend(running.keys().cloned());
        names.sort();
        names.dedup();
        if let Some(name) = name {
            if !names.iter().any(|known| known == name) {
                drop(running);
                let definition = saved.named_or_configured(&self.paths, name)?;
                let unstarted = Unstarted::default();
                return Ok(vec![remote::resting(name, &definition, is_default(name), &unstarted)]);
            }
            names.retain(|known| known == name);
        }
        let unstarted = locked(&self.unstarted);
        Ok(names
            .iter()
            .filter_map(|name| match (running.get(name), saved.remotes.get(name)) {
                (Some(remote), _) => Some(remote.status(is_default(name))),
                (None, Some(definition)) => {
                    Some(remote::resting(name, definition, is_default(name), &unstarted))
                }
                (None, None) => None,
            })
            .collect())
    }

    /// The remote that a port of this machine leads to, or will once its start under way has bound it;
    /// one on trial, which no status shows, as well. An error where a change takes too long to know.
    pub(super) async fn holder(&self, port: u16) -> Result<Option<String>, Problem> {
        if let Some(name) = self.listener(port)? {
            return Ok(Some(name));
        }
        // Whoever binds a port holds this until its remote is known.
        let Ok(changing) = timeout(CHANGE_LIMIT, self.change()).await else {
            return Err(Problem::new(Class::Internal, "a remote is being changed"));
        };
        let _changing = changing?;
        self.listener(port)
    }

    /// The same as far as it is known now.
    fn listener(&self, port: u16) -> Result<Option<String>, Problem> {
        let everything = self.everything();
        let here = everything.iter().find(|remote| remote.is_bound_to(port));
        let held = here.map(|remote| remote.name()).or_else(|| self.pool.owner(port));
        if held.is_some() {
            return Ok(held);
        }
        let saved = Remotes::load(&self.paths)?.remotes;
        let unstarted = locked(&self.unstarted);
        let is_coming = |name: &str, remote: &config::Remote| {
            unstarted.phase(name) == Phase::Connecting && remote.listens_on(port)
        };
        Ok(saved.into_iter().find(|(name, it)| is_coming(name, it)).map(|(name, _)| name))
    }

    /// The remote at work called `name`; one on trial comes first.
    pub(super) async fn find(&self, name: &str, edition: Edition) -> Result<Arc<Remote>, Problem> {
        if edition == Edition::Trial
            && let Some((trial, _)) = locked(&self.trials).get(name)
        {
            return Ok(Arc::clone(trial));
        }
        let at_work = || locked(&self.remotes).get(name).map(Arc::clone);
        // What is at work need not wait for another remote's slow start.
        if let Some(remote) = at_work() {
            return Ok(remote);
        }
        let _changing = self.change().await?;
        if let Some(remote) = at_work() {
            return Ok(remote);
        }
        let failed = {
            let unstarted = locked(&self.unstarted);
            unstarted.problem(name).cloned().map(|problem| (problem, unstarted.may_pass(name)))
        };
        if let Some((problem, may_pass)) = failed {
            // Somebody waits: the next look is now.
            return match self.unstarted_one(name)? {
                Some(definition) if may_pass => self.start(name, definition).await,
                Some(_) | None => Err(problem),
            };
        }
        let saved = Remotes::load(&self.paths)?;
        if name == CONFIGURED && !saved.remotes.contains_key(name) {
            let definition = configured(&self.paths)?;
            return self.start(name, definition).await;
        }
        saved.named(name)?;
        Err(Problem::new(Class::Unreachable, format!("the remote `{name}` is disconnected"))
            .fix(format!("openclaw remote connect {name}")))
    }

    /// Makes the connection a stream to the remote's gateway.
    async fn open(&self, mut stream: UnixStream, name: &str, edition: Edition, limit: Duration) {
        let remote = match self.find(name, edition).await {
            Ok(remote) => remote,
            Err(problem) => return say(&mut stream, self.failed(problem)).await,
        };
        if remote.kind() == Kind::Exposed {
            return say(&mut stream, Reply::Failed(config::leads_nowhere(name))).await;
        }
        if let Some(problem) = hopeless(&remote.state()) {
            return say(&mut stream, Reply::Failed(problem)).await;
        }
        let until = Instant::now() + limit;
        remote.tell(Command::Open(Incoming::new(Local::Command(stream), until))).await;
    }

    /// Reads the far gateway's token over the login.
    async fn fetch_token(&self, name: &str) -> Result<Reply, Problem> {
        let remote = self.find(name, Edition::Trial).await?;
        if remote.kind() == Kind::Exposed {
            return Err(config::leads_nowhere(name));
        }
        let (answer, link) = oneshot::channel();
        remote.tell(Command::Session(answer)).await;
        let link = link.await.ok().flatten().ok_or_else(|| {
            Problem::new(Class::Unreachable, format!("the remote `{name}` is not live"))
                .fix(format!("openclaw remote status {name}"))
        })?;
        token::fetch(link.as_ref()).await
    }
}

/// Writes the last reply; a command that is gone does not need it.
pub(super) async fn say(stream: &mut (impl tokio::io::AsyncWrite + Unpin), reply: Reply) {
    if let Err(error) = control::write(stream, &reply).await {
        debug!(%error, "a command went away before its answer");
    }
}
