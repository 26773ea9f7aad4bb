//! What a lane's history says of it: each absence with its beginning, its causes and its end, in few
//! entries however long it lasts.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    history::{Book, Happening},
    tunnel::{Cause, Failure, Phase},
};

/// Different failures that are noted of one absence.
const FAILURES_MOST: usize = 8;

/// Why the path is lost where nothing has failed.
pub(super) const SLOW_READER: &str = "a program here that does not read blocks the session";

/// A slow reader's session that is replaced sooner than this is no news.
pub(super) const BRIEF: Duration = Duration::from_secs(3);

/// Notes what happens to one remote.
#[derive(Debug, Clone)]
pub(super) struct Scribe {
    book: Arc<Book>,
    /// Its name now.
    remote: Arc<Mutex<String>>,
    voice: Arc<Mutex<Voice>>,
    forward: Option<String>,
}

/// Whether what happens to a remote is news of the remote of its name.
#[derive(Debug, Default)]
enum Voice {
    /// It is.
    #[default]
    Heard,
    /// Not yet: it is on trial. What is to be told if it is kept: that its path serves.
    Unheard(Option<Happening>),
    /// No more: another has taken its place.
    Silent,
}

impl Scribe {
    /// Notes of the remote called `name`.
    pub(super) fn new(book: Arc<Book>, name: &str) -> Self {
        let remote = Arc::new(Mutex::new(name.to_owned()));
        Self { book, remote, voice: Arc::default(), forward: None }
    }

    /// Notes nothing until the remote is kept.
    pub(super) fn on_trial(&self) {
        *self.voice() = Voice::Unheard(None);
    }

    /// The remote is kept: notes that, and that its path serves if it does.
    pub(super) fn keep(&self) {
        let before = std::mem::take(&mut *self.voice());
        self.note(Happening::Connected);
        if let Voice::Unheard(Some(live)) = before {
            self.note(live);
        }
    }

    /// The same for one forward of the remote.
    pub(super) fn of_forward(&self, forward: String) -> Self {
        Self { forward: Some(forward), ..self.clone() }
    }

    /// The remote goes by another name from now on.
    pub(super) fn rename(&self, to: &str) {
        self.note(Happening::Renamed { to: to.to_owned() });
        to.clone_into(&mut self.remote.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Notes nothing more: what still happens is no news of the remote of this name.
    pub(super) fn fall_silent(&self) {
        *self.voice() = Voice::Silent;
    }

    /// Notes something.
    pub(super) fn note(&self, happening: Happening) {
        match &mut *self.voice() {
            Voice::Heard => {}
            Voice::Unheard(told) => return self.note_unheard(told, &happening),
            Voice::Silent => return,
        }
        let remote = self.remote.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.book.note_of(Some(remote), self.forward.clone(), happening);
    }

    fn note_unheard(&self, told: &mut Option<Happening>, happening: &Happening) {
        if self.forward.is_some() {
            return;
        }
        match happening {
            // To whoever reads the history no path of this remote has served before.
            &Happening::Live { attempts, waited, refused, .. } => {
                *told = Some(Happening::Live { away_ms: None, attempts, waited, refused });
            }
            Happening::Lost { .. } | Happening::GatewayDown { .. } | Happening::Blocked { .. } => {
                *told = None;
            }
            Happening::Started { .. }
            | Happening::Ended
            | Happening::Slept { .. }
            | Happening::Continued
            | Happening::GoingToSleep
            | Happening::Woke
            | Happening::Network { .. }
            | Happening::Connected
            | Happening::Disconnected
            | Happening::Renamed { .. }
            | Happening::Redialled { .. }
            | Happening::Failed { .. }
            | Happening::GatewaySlow { .. }
            | Happening::NotServed { .. } => {}
        }
    }

    fn voice(&self) -> MutexGuard<'_, Voice> {
        self.voice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a phase ended with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) before: Phase,
    pub(super) after: Phase,
    /// The last failure.
    pub(super) failure: Option<&'a Failure>,
    /// How long nothing had been heard when the path stopped serving.
    pub(super) silent: Duration,
    /// How long the path had been away.
    pub(super) away: Option<Duration>,
}

/// The account of one lane.
#[derive(Debug)]
pub(super) struct Account {
    scribe: Scribe,
    /// Whether a path serves.
    is_live: bool,
    /// Whether one has served before.
    was_live: bool,
    /// Whether the first attempt of this absence was noted.
    redialled: bool,
    /// What was said of this absence already.
    said: Vec<String>,
    /// That the path was lost to a slow reader, until it is news.
    unsaid: Option<Happening>,
    waited: u64,
    refused: u64,
    attempts: u64,
}

impl Account {
    pub(super) fn new(scribe: Scribe) -> Self {
        Self {
            scribe,
            is_live: false,
            was_live: false,
            redialled: false,
            said: Vec::new(),
            unsaid: None,
            waited: 0,
            refused: 0,
            attempts: 0,
        }
    }

    /// An attempt begins, the `attempt`th since the path was last live.
    pub(super) fn dialled(&mut self, attempt: u64) {
        self.attempts = attempt;
        let is_told = self.was_live && self.unsaid.is_none();
        if !self.is_live && is_told && !std::mem::replace(&mut self.redialled, true) {
            self.scribe.note(Happening::Redialled { attempt });
        }
    }

    /// An attempt failed.
    pub(super) fn failed(&mut self, failure: &Failure) {
        self.say_loss();
        // What a person must mend is said by the phase that follows.
        if !self.is_live && failure.cause.is_transient() && self.is_new(&failure.message) {
            self.scribe.note(Happening::Failed {
                attempt: self.attempts,
                class: failure.cause.class(),
                message: failure.message.clone(),
            });
        }
    }

    /// So many connections that had waited are served now.
    pub(super) fn served(&mut self, count: usize) {
        self.waited += count as u64;
    }

    /// A connection was not served.
    pub(super) fn refused(&mut self, reason: &str) {
        self.refused += 1;
        self.say_loss();
        if self.refused == 1 {
            self.scribe.note(Happening::NotServed { reason: reason.to_owned() });
        }
    }

    /// The phase changed.
    pub(super) fn turned(&mut self, turn: Turn<'_>) {
        let message = || turn.failure.map(|failure| failure.message.clone()).unwrap_or_default();
        let fix = || turn.failure.and_then(|failure| failure.fix.clone());
        let serves = |phase| matches!(phase, Phase::Live | Phase::GatewaySlow);
        let slow = |phase| phase == Phase::GatewaySlow;
        match (serves(turn.before), serves(turn.after)) {
            (true, true) if slow(turn.before) != slow(turn.after) => {
                self.scribe.note(Happening::GatewaySlow { slow: slow(turn.after) });
            }
            (false, true) => self.on_live(turn.away),
            (true, false) => {
                self.is_live = false;
                self.redialled = false;
                // A remote that was taken down, or a forward that nobody uses any more.
                if turn.after != Phase::Down {
                    let silent_ms = u64::try_from(turn.silent.as_millis()).unwrap_or(u64::MAX);
                    let cause = match turn.failure {
                        // What made it doubtful has an entry of its own.
                        Some(failure) if failure.cause == Cause::Doubted => "",
                        Some(failure) => &failure.message,
                        None => SLOW_READER,
                    };
                    let cause = cause.to_owned();
                    self.is_new(&cause);
                    self.unsaid = Some(Happening::Lost { cause, silent_ms });
                }
            }
            (true, true) | (false, false) => {}
        }
        if turn.failure.is_some() {
            self.say_loss();
        }
        if turn.after == Phase::GatewayDown && self.is_new(&message()) {
            self.scribe.note(Happening::GatewayDown { message: message(), fix: fix() });
        }
        if turn.after == Phase::Blocked {
            self.scribe.note(Happening::Blocked { message: message(), fix: fix() });
        }
        if turn.before == Phase::Down || turn.after == Phase::Down {
            // What its user took down begins anew.
            (self.was_live, self.waited, self.refused) = (false, 0, 0);
            self.said.clear();
            self.unsaid = None;
        }
    }

    /// Notes that the path was lost, if that was not worth it yet.
    fn say_loss(&mut self) {
        if let Some(lost) = self.unsaid.take() {
            self.scribe.note(lost);
        }
    }

    fn on_live(&mut self, away: Option<Duration>) {
        if self.unsaid.take_if(|_| away.is_some_and(|away| away < BRIEF)).is_some() {
            (self.is_live, self.attempts, self.waited) = (true, 0, 0);
            self.said.clear();
            return;
        }
        self.say_loss();
        let away_ms = away.map(|away| u64::try_from(away.as_millis()).unwrap_or(u64::MAX));
        self.scribe.note(Happening::Live {
            away_ms,
            attempts: std::mem::take(&mut self.attempts),
            waited: std::mem::take(&mut self.waited),
            refused: std::mem::take(&mut self.refused),
        });
        self.is_live = true;
        self.was_live = true;
        self.said.clear();
    }

    /// Whether `message` was not said of this absence yet, and may be.
    fn is_new(&mut self, message: &str) -> bool {
        let is_new = !self.said.iter().any(|said| said == message);
        if is_new && self.said.len() < FAILURES_MOST {
            self.said.push(message.to_owned());
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Desk {
        book: Arc<Book>,
        account: Account,
    }

    impl Desk {
        fn new() -> Self {
            let book = Arc::new(Book::unwritten());
            let account = Account::new(Scribe::new(Arc::clone(&book), "vps"));
            Self { book, account }
        }

        fn turn(&mut self, before: Phase, after: Phase, failure: Option<&Failure>) {
            self.account.turned(Turn {
                before,
                after,
                failure,
                silent: Duration::from_millis(810),
                away: self.account.was_live.then_some(Duration::from_millis(143)),
            });
        }

        fn told(&self) -> Vec<Happening> {
            self.book.at_hand(usize::MAX).into_iter().map(|entry| entry.happening).collect()
        }
    }

    fn refused() -> Failure {
        Failure::new(Cause::Refused, "203.0.113.7 port 22 refuses the connection")
    }

    #[test]
    fn an_absence_has_a_beginning_a_cause_and_an_end() {
        let mut desk = Desk::new();
        desk.account.dialled(1);
        desk.turn(Phase::Connecting, Phase::Live, None);
        let lost = Failure::new(Cause::LinkLost, "the SSH server does not answer");
        desk.turn(Phase::Live, Phase::Suspect, Some(&lost));
        desk.account.dialled(1);
        desk.account.served(2);
        desk.turn(Phase::Suspect, Phase::Live, None);
        let cause = lost.message;
        assert_eq!(
            desk.told(),
            [
                Happening::Live { away_ms: None, attempts: 1, waited: 0, refused: 0 },
                Happening::Lost { cause, silent_ms: 810 },
                Happening::Redialled { attempt: 1 },
                Happening::Live { away_ms: Some(143), attempts: 1, waited: 2, refused: 0 },
            ]
        );
    }

    #[test]
    fn a_mere_doubt_does_not_repeat_what_the_history_says_of_the_machine() {
        let mut desk = Desk::new();
        desk.turn(Phase::Connecting, Phase::Live, None);
        let doubt = Failure::new(Cause::Doubted, "this machine was asleep or stopped");
        desk.turn(Phase::Live, Phase::Suspect, Some(&doubt));
        let lost = Happening::Lost { cause: String::new(), silent_ms: 810 };
        assert_eq!(desk.told().last(), Some(&lost));
    }

    #[test]
    fn a_slow_readers_session_that_is_replaced_at_once_is_no_news() {
        let mut desk = Desk::new();
        desk.turn(Phase::Connecting, Phase::Live, None);
        for _ in 0..3 {
            desk.turn(Phase::Live, Phase::Connecting, None);
            desk.account.dialled(1);
            desk.account.served(1);
            desk.turn(Phase::Connecting, Phase::Live, None);
        }
        assert_eq!(desk.told().len(), 1, "{:?}", desk.told());
    }

    #[test]
    fn a_path_lost_without_a_failure_is_blocked_by_a_reader_and_news_once_something_comes_of_it() {
        type Sequel = fn(&mut Desk);
        let sequels: [Sequel; 4] = [
            |desk| desk.account.failed(&refused()),
            |desk| desk.account.refused("no path was live in time"),
            |desk| desk.turn(Phase::Connecting, Phase::GatewayDown, Some(&refused())),
            |desk| {
                desk.account.turned(Turn {
                    before: Phase::Connecting,
                    after: Phase::Live,
                    failure: None,
                    silent: Duration::ZERO,
                    away: Some(BRIEF),
                });
            },
        ];
        for sequel in sequels {
            let mut desk = Desk::new();
            desk.turn(Phase::Connecting, Phase::Live, None);
            desk.turn(Phase::Live, Phase::Connecting, None);
            assert_eq!(desk.told().len(), 1);
            sequel(&mut desk);
            let lost = Happening::Lost { cause: SLOW_READER.to_owned(), silent_ms: 810 };
            assert_eq!(desk.told().get(1), Some(&lost));
            assert_eq!(desk.told().len(), 3, "{:?}", desk.told());
        }
    }

    #[test]
    fn a_long_absence_takes_few_entries() {
        let mut desk = Desk::new();
        desk.account.dialled(1);
        desk.turn(Phase::Connecting, Phase::Live, None);
        desk.turn(Phase::Live, Phase::Waiting, Some(&refused()));
        for attempt in 1..=3000 {
            desk.turn(Phase::Waiting, Phase::Connecting, Some(&refused()));
            desk.account.dialled(attempt);
            let failure =
                Failure::new(Cause::ConnectTimedOut, format!("no answer {}", attempt % 20));
            desk.account.failed(&failure);
            desk.account.refused("no path was live in time");
            desk.turn(Phase::Connecting, Phase::Waiting, Some(&failure));
        }
        desk.account.dialled(3001);
        desk.turn(Phase::Connecting, Phase::Live, None);
        let told = desk.told();
        assert!(told.len() <= 5 + FAILURES_MOST, "{told:#?}");
        let last = Happening::Live { away_ms: Some(143), attempts: 3001, waited: 0, refused: 3000 };
        assert_eq!(told.last(), Some(&last));
    }

    #[test]
    fn says_what_to_type_where_trying_again_cannot_help() {
        let mut desk = Desk::new();
        desk.account.dialled(1);
        let failure = Failure::new(Cause::Authentication, "nobody lets us in").fix("ssh-add");
        desk.account.failed(&failure);
        desk.turn(Phase::Connecting, Phase::Blocked, Some(&failure));
        let (message, fix) = (failure.message, failure.fix);
        assert_eq!(desk.told(), [Happening::Blocked { message, fix }]);
    }

    #[test]
    fn a_trial_leaves_no_trace_unless_it_is_kept() {
        let mut desk = Desk::new();
        desk.account.scribe.on_trial();
        desk.account.dialled(1);
        desk.account.failed(&refused());
        desk.turn(Phase::Connecting, Phase::Live, None);
        desk.turn(Phase::Live, Phase::Waiting, Some(&refused()));
        desk.account.dialled(2);
        desk.turn(Phase::Connecting, Phase::Live, None);
        assert_eq!(desk.told(), []);
        let live = |away_ms, attempts| Happening::Live { away_ms, attempts, waited: 0, refused: 0 };
        desk.account.scribe.keep();
        assert_eq!(desk.told(), [Happening::Connected, live(None, 2)]);

        let mut desk = Desk::new();
        desk.account.scribe.on_trial();
        desk.turn(Phase::Connecting, Phase::Live, None);
        desk.turn(Phase::Live, Phase::Waiting, Some(&refused()));
        desk.account.scribe.keep();
        desk.account.dialled(1);
        desk.turn(Phase::Connecting, Phase::Live, None);
        let redialled = Happening::Redialled { attempt: 1 };
        assert_eq!(desk.told(), [Happening::Connected, redialled, live(Some(143), 1)]);
    }

    #[test]
    fn a_remote_taken_down_is_no_absence_and_one_replaced_says_nothing() {
        let mut desk = Desk::new();
        desk.turn(Phase::Connecting, Phase::Live, None);
        desk.turn(Phase::Live, Phase::Down, None);
        assert_eq!(desk.told().len(), 1);
        desk.account.scribe.fall_silent();
        desk.turn(Phase::Down, Phase::Connecting, None);
        desk.account.failed(&refused());
        assert_eq!(desk.told().len(), 1);
    }
}
