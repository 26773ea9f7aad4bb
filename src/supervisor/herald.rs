//! Tells the service manager how it goes: ready, the phases, the watchdog, a reload, the end.
//!
//! Where no service manager listens nothing is said; what it does not take is said again later.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use futures_util::{StreamExt, future::join_all, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use super::{Scope, server::Supervisor, standing::Standing};
use crate::{
    notice::{self, Message},
    problem::Problem,
};

/// Between two signs of life where no watchdog says how often.
const BEAT: Duration = Duration::from_secs(30);
/// The same where nobody listens.
const UNHEARD: Duration = Duration::from_secs(86_400);
/// How much longer the start may take after a sign of life.
const START_MORE: Duration = Duration::from_secs(90);
/// The longest text that is said, bytes.
const LONGEST: usize = 400;

/// Tells the service manager why the process ends.
pub(crate) fn last_words(problem: &Problem) {
    // Anybody may read the status of a service; the message names hosts, users and files.
    say(&[Message::Status(&format!("ended: {}", class(problem)))]);
}

/// What a service manager has been told.
#[derive(Debug, Default)]
pub(super) struct Herald {
    is_ready: AtomicBool,
}

impl Herald {
    /// Tells how it goes whenever that changes, and shows signs of life; ends with the reason why
    /// going on is of no use, if there is one.
    pub(super) async fn run(&self, supervisor: &Supervisor) -> Problem {
        let every = every();
        let mut roster = supervisor.roster.subscribe();
        let mut said = String::new();
        let mut beat = Instant::now();
        loop {
            roster.mark_unchanged();
            let standings = supervisor.standings();
            if let Some(problem) = hopeless(supervisor.scope, &standings) {
                return problem;
            }
            let text = summary(&standings);
            if text != said && say(&[Message::Status(&text)]) {
                said = text;
            }
            if !self.is_ready.load(Relaxed) && is_ready(supervisor.scope, &standings) {
                self.is_ready.store(say(&[Message::Ready]), Relaxed);
            }
            tokio::select! {
                () = changed(supervisor, &standings) => {}
                _ = roster.changed() => {}
                () = sleep_until(beat) => {
                    beat = Instant::now() + every;
                    self.show_life(supervisor, every).await;
                }
            }
        }
    }

    /// Tells that we run, if every loop that keeps a path answers; otherwise the service manager
    /// finds out by our silence.
    async fn show_life(&self, supervisor: &Supervisor, limit: Duration) {
        if timeout(limit, supervisor.pulse()).await.is_err() {
            warn!(
                "a part of the supervisor does not answer; the watchdog is not told that it runs"
            );
            return;
        }
        self.lives();
    }

    fn lives(&self) {
        // The watchdog counts from the readiness on; before that the start has its own limit.
        let _told = match self.is_ready.load(Relaxed) {
            true => say(&[Message::Watchdog]),
            false => say(&[Message::Watchdog, Message::ExtendTimeout(START_MORE)]),
        };
    }

    /// Shows signs of life after another supervisor took our place, while what is open ends.
    pub(super) async fn outlast(&self) -> Infallible {
        let every = every();
        say(&[Message::Status("handed over; what is open ends")]);
        loop {
            self.lives();
            sleep(every).await;
        }
    }

    /// A reload begins; before the readiness there is nothing to tell.
    pub(super) fn reloading(&self) {
        if self.is_ready.load(Relaxed) {
            say(&[Message::Reloading]);
        }
    }

    /// A reload is over.
    pub(super) fn reloaded(&self) {
        if self.is_ready.load(Relaxed) {
            self.is_ready.store(say(&[Message::Ready]), Relaxed);
        }
    }

    /// The end begins.
    pub(super) fn stopping(&self) {
        say(&[Message::Stopping]);
    }
}

/// Between two signs of life.
fn every() -> Duration {
    let usual = if notice::is_heard() { BEAT } else { UNHEARD };
    notice::watchdog().map_or(usual, |limit| limit / 3)
}

impl Supervisor {
    /// Waits until every lane, and the loop that takes commands, has answered.
    async fn pulse(&self) {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let remotes = self.everything();
        let lanes = join_all(remotes.iter().map(|remote| remote.settle()));
        let commands = async {
            // Whoever has ended is not stuck.
            if self.pulses.send(answer).await.is_ok() {
                let _ended = answered.await;
            }
        };
        tokio::join!(lanes, commands);
    }
}

/// Waits until a remote is no longer in the phase that was seen.
async fn changed(supervisor: &Supervisor, seen: &[Standing]) {
    let mut waits: FuturesUnordered<_> = supervisor
        .at_work()
        .into_iter()
        .map(|remote| {
            let mut watch = remote.watch();
            let phase = seen.iter().find(|it| it.name == remote.name()).map(|it| it.phase);
            async move {
                let is_other = watch.wait_for(|state| Some(state.phase) != phase).await.is_ok();
                if !is_other {
                    // Its end changes the roster.
                    std::future::pending::<()>().await;
                }
            }
        })
        .collect();
    if waits.next().await.is_none() {
        std::future::pending::<()>().await;
    }
}

/// Whether the service is up: all that can be live without a person is live.
fn is_ready(scope: Scope, standings: &[Standing]) -> bool {
    let is_live = standings.iter().any(Standing::serves);
    let is_open = standings.iter().any(|it| !it.serves() && !it.needs_person());
    let is_idle = standings.is_empty() && scope != Scope::Told;
    is_idle || (is_live && !is_open)
}

/// Why a supervisor of one remote has nothing left to do.
fn hopeless(scope: Scope, standings: &[Standing]) -> Option<Problem> {
    if scope != Scope::Told || !standings.iter().all(Standing::needs_person) {
        return None;
    }
    standings.first()?.failure.clone()
}

/// How it goes, in one line that anybody may read: no hosts, users or files.
fn summary(standings: &[Standing]) -> String {
    let live = standings.iter().filter(|it| it.serves()).count();
    let mut text = match standings {
        [] => "no remote is wanted".to_owned(),
        [only] => format!("{}: {}", only.name, only.word()),
        several => format!("{live} of {} live", several.len()),
    };
    for other in standings.iter().filter(|it| standings.len() > 1 && !it.serves()) {
        text.push_str(&format!("; {}: {}", other.name, other.word()));
    }
    for (standing, problem) in standings.iter().filter_map(|it| Some((it, it.failure.as_ref()?))) {
        if standing.needs_person() {
            let name = &standing.name;
            text.push_str(&format!(" ({}; see: openclaw remote status {name})", class(problem)));
            break;
        }
    }
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}

/// The class of a problem, as `--json` writes it.
fn class(problem: &Problem) -> String {
    let value = serde_json::to_value(problem.class).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

/// Whether it could be said.
fn say(messages: &[Message<'_>]) -> bool {
    notice::send(messages)
        .inspect_err(|error| debug!(%error, "the service manager was not told"))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{problem::Class, tunnel::Phase};

    fn at(name: &str, phase: Phase) -> Standing {
        let failure = (phase == Phase::Blocked)
            .then(|| Problem::new(Class::SshAuth, "me@secret.example did not let me in"));
        Standing { name: name.to_owned(), phase, failure }
    }

    #[test]
    fn is_ready_once_all_that_can_be_live_is_live() {
        let ready = |phases: &[Phase]| {
            let standings: Vec<_> = phases.iter().map(|phase| at("a", *phase)).collect();
            is_ready(Scope::Service, &standings)
        };
        assert!(ready(&[]));
        assert!(ready(&[Phase::Live]));
        assert!(ready(&[Phase::Live, Phase::GatewaySlow]));
        assert!(ready(&[Phase::Live, Phase::Blocked]));
        for phase in [Phase::Connecting, Phase::Waiting, Phase::GatewayDown, Phase::Suspect] {
            assert!(!ready(&[phase]), "{phase:?}");
            assert!(!ready(&[Phase::Live, phase]), "{phase:?}");
        }
        assert!(!ready(&[Phase::Blocked]));
        assert!(!is_ready(Scope::Told, &[]), "the one remote has not come yet");
    }

    #[test]
    fn only_the_supervisor_of_one_remote_ends_when_a_person_is_needed() {
        let blocked = [at("a", Phase::Blocked)];
        assert_eq!(hopeless(Scope::Told, &blocked).unwrap().class, Class::SshAuth);
        assert_eq!(hopeless(Scope::Service, &blocked), None);
        assert_eq!(hopeless(Scope::Told, &[at("a", Phase::Waiting)]), None);
        assert_eq!(hopeless(Scope::Told, &[]), None);
    }

    #[test]
    fn the_summary_names_phases_and_no_hosts() {
        assert_eq!(summary(&[]), "no remote is wanted");
        assert_eq!(summary(&[at("vps", Phase::Live)]), "vps: live");
        let blocked = summary(&[at("vps", Phase::Blocked)]);
        assert_eq!(blocked, "vps: blocked (ssh_auth; see: openclaw remote status vps)");
        let several = [at("a", Phase::Live), at("b", Phase::Waiting), at("c", Phase::Live)];
        assert_eq!(summary(&several), "2 of 3 live; b: waiting");
        let many: Vec<_> = (0..100).map(|_| at("name-of-a-remote", Phase::Waiting)).collect();
        assert!(summary(&many).len() <= LONGEST);
    }
}
