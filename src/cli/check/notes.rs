//! Takes notes while a connection is made, on a clock that stands still while a person types.

use std::{
    pin::Pin,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::{Instant, sleep};

use super::seen::{News, What};
use crate::{
    cli::{connect::answer, output::Spinner},
    secret::Secret,
    ssh::{Asker, Fact, Observer, Question, Stage},
    supervisor::worded,
};

/// How often a clock that stands still is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// The time that the check has taken, without that of a person.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    asked: Mutex<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    sum: Duration,
    since: Option<Instant>,
}

impl Clock {
    /// A clock that begins now.
    pub(super) fn start() -> Self {
        Self { start: Instant::now(), asked: Mutex::default() }
    }

    /// What it shows.
    pub(super) fn now(&self) -> Duration {
        let asked = self.asked();
        let typing = asked.since.map(|since| since.elapsed()).unwrap_or_default();
        self.start.elapsed().saturating_sub(asked.sum + typing)
    }

    /// Returns once it shows `limit`.
    pub(super) async fn reaches(&self, limit: Duration) {
        while let Some(left) = limit.checked_sub(self.now()).filter(|left| !left.is_zero()) {
            sleep(if self.asked().since.is_some() { LOOK } else { left }).await;
        }
    }

    /// Stands still while `question` is with a person.
    pub(super) async fn wait_for<T>(&self, question: impl Future<Output = T>) -> T {
        self.asked().since = Some(Instant::now());
        let answer = question.await;
        let mut asked = self.asked();
        let span = asked.since.take().map(|since| since.elapsed()).unwrap_or_default();
        asked.sum += span;
        drop(asked);
        answer
    }

    fn asked(&self) -> MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps what a connection tells, and shows its stages.
pub(super) struct Recorder<'a> {
    clock: &'a Clock,
    spinner: &'a Spinner,
    news: Mutex<Vec<News>>,
}

impl<'a> Recorder<'a> {
    /// A recorder without notes.
    pub(super) fn new(clock: &'a Clock, spinner: &'a Spinner) -> Self {
        Self { clock, spinner, news: Mutex::default() }
    }

    /// What has been told so far.
    pub(super) fn news(&self) -> Vec<News> {
        self.lines().clone()
    }

    fn note(&self, what: What) {
        let at = self.clock.now();
        self.lines().push(News { at, what });
    }

    fn lines(&self) -> MutexGuard<'_, Vec<News>> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observer for Recorder<'_> {
    fn stage(&self, stage: Stage) {
        self.spinner.stage(&stage.to_string());
        self.note(What::Stage(stage));
    }

    fn fact(&self, fact: Fact) {
        tracing::debug!(%fact, "on the way");
        self.note(What::Fact(fact));
    }
}

/// The person at the terminal, if one is there.
pub(super) struct Person<'a> {
    pub(super) clock: &'a Clock,
    pub(super) spinner: &'a Spinner,
    pub(super) is_there: bool,
}

impl Asker for Person<'_> {
    fn ask(&self, question: Question) -> Pin<Box<dyn Future<Output = Option<Secret>> + Send + '_>> {
        Box::pin(async move {
            if !self.is_there {
                return None;
            }
            let asking = answer(self.spinner, worded(question));
            let answer = self.clock.wait_for(asking).await;
            answer.inspect_err(|error| tracing::debug!(%error, "nobody answered")).ok().flatten()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_stands_still_while_a_person_types() {
        let clock = Clock::start();
        sleep(Duration::from_secs(1)).await;
        clock.wait_for(sleep(Duration::from_secs(60))).await;
        sleep(Duration::from_secs(1)).await;
        assert_eq!(clock.now(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_person_does_not_use_the_limit_up() {
        let clock = Clock::start();
        let typing = clock.wait_for(sleep(Duration::from_secs(60)));
        let limit = clock.reaches(Duration::from_secs(5));
        let began = Instant::now();
        tokio::join!(typing, limit);
        assert!(began.elapsed() >= Duration::from_secs(65), "{:?}", began.elapsed());
    }
}
