//! News that wait for a session's next turn (`system-event`): a few a session, the latest ones, kept
//! until they are read or a week old.
//!
//! What becomes of a line is decided by pure [`Lines`]; it is stored before it counts.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::beacons::{LONGEST, Told, cut};
use crate::{
    problem::{Class, Problem},
    store::{Error, KeptNews, Store},
};

/// How many wait for one session; the oldest goes first.
const A_SESSION: usize = 20;
/// How many sessions they wait for; the one whose news are oldest goes first.
const SESSIONS: usize = 64;
/// How long a line waits, milliseconds.
const LIFE_MS: u64 = 604_800_000;
/// Reasons to tell that are no news.
const ROUTINE: [&str; 4] = ["heartbeat", "connect", "launch", "instances-refresh"];

/// What waits for the sessions of one gateway.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Held by who changes something, in the store and here.
    telling: tokio::sync::Mutex<()>,
    lines: Mutex<Lines>,
}

impl News {
    /// Brings in what is stored; class `config` if it cannot be read.
    pub(super) async fn load(&self, store: &Store) -> Result<(), Problem> {
        let kept = store.news().all().await.map_err(|error| {
            Problem::new(Class::Config, format!("the news cannot be read: {error}"))
                .fix("openclaw doctor")
        })?;
        *self.lines() = Lines::open(kept);
        Ok(())
    }

    /// Takes a line up, unless it repeats the one before.
    pub(super) async fn tell(
        &self,
        store: &Store,
        session: &str,
        text: &str,
        now_ms: u64,
    ) -> Result<(), Error> {
        self.change(store, |lines| lines.line(session, None, text, now_ms)).await
    }

    /// Takes up what is new of a program that said that it is there; mere signs of life are not.
    pub(super) async fn tell_of(
        &self,
        store: &Store,
        session: &str,
        told: &Told,
        now_ms: u64,
    ) -> Result<(), Error> {
        self.change(store, |lines| lines.of_program(session, told, now_ms)).await
    }

    /// What waits for a session, the oldest first.
    pub(super) fn waiting(&self, session: &str, now_ms: u64) -> Vec<String> {
        self.lines().waiting(session, now_ms)
    }

    /// Whether nothing waits for anybody.
    pub(super) fn is_empty(&self) -> bool {
        self.lines().sessions.is_empty()
    }

    async fn change(
        &self,
        store: &Store,
        decide: impl FnOnce(&Lines) -> Option<Change>,
    ) -> Result<(), Error> {
        let _turn = self.telling.lock().await;
        let decided = decide(&self.lines());
        let Some(Change { line, gone }) = decided else { return Ok(()) };
        store.news().keep(line.clone(), gone.clone()).await?;
        self.lines().take_up(line, &gone);
        Ok(())
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What waits, by session.
#[derive(Debug, Default)]
struct Lines {
    sessions: BTreeMap<String, VecDeque<KeptNews>>,
    /// Of the latest line.
    number: u64,
}

/// A line that is to be kept, and the numbers of those that it drives out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    line: KeptNews,
    gone: Vec<u64>,
}

impl Lines {
    fn open(kept: Vec<KeptNews>) -> Self {
        let mut lines = Self::default();
        for line in kept {
            lines.take_up(line, &[]);
        }
        lines
    }

    /// What is new of a program, if anything is.
    fn of_program(&self, session: &str, told: &Told, now_ms: u64) -> Option<Change> {
        let has = |name| told.changed.contains(&name);
        let reason = told.line.reason.as_deref().unwrap_or("event");
        let low = reason.trim().to_lowercase();
        let is_routine = low.starts_with("periodic") || ROUTINE.contains(&&*low);
        let (is_elsewhere, has_reason) = (has("host") || has("ip"), has("reason") && !is_routine);
        if !(is_elsewhere || has("version") || has("mode") || has_reason) {
            return None;
        }
        // Whom the latest line about a program was about.
        let lines = self.sessions.get(session);
        let about = lines.and_then(|lines| lines.iter().rev().find_map(|it| it.about.as_deref()));
        let mut parts = Vec::new();
        if is_elsewhere || about != Some(&told.key) {
            let host = told.line.host.as_deref().unwrap_or("Unknown");
            let ip = told.line.ip.as_ref().map_or_else(String::new, |ip| format!(" ({ip})"));
            parts.push(format!("Node: {host}{ip}"));
        }
        if has("version") {
            parts.push(format!("app {}", told.line.version.as_deref().unwrap_or("unknown")));
        }
        if has("mode") {
            parts.push(format!("mode {}", told.line.mode.as_deref().unwrap_or("unknown")));
        }
        if has_reason {
            parts.push(format!("reason {reason}"));
        }
        self.line(session, Some(&told.key), &parts.join(" · "), now_ms)
    }

    /// A line that is no repetition: of the one before, or of any about the same program.
    fn line(&self, session: &str, about: Option<&str>, text: &str, now_ms: u64) -> Option<Change> {
        let line = KeptNews {
            number: self.number + 1,
            session: session.to_owned(),
            about: about.map(str::to_owned),
            text: cut(text.trim(), LONGEST),
            at: now_ms,
        };
        let before = self.sessions.get(session);
        let says_so = |it: &KeptNews| (&it.about, &it.text) == (&line.about, &line.text);
        let mut young = before.into_iter().flatten().filter(|it| is_young(it, now_ms));
        let repeats = match about {
            None => young.next_back().is_some_and(says_so),
            Some(_) => young.any(says_so),
        };
        if repeats {
            return None;
        }
        let all = self.sessions.values().flatten();
        let mut gone: Vec<u64> =
            all.filter(|it| !is_young(it, now_ms)).map(|it| it.number).collect();
        match before {
            Some(lines) if lines.len() >= A_SESSION => {
                gone.extend(lines.iter().take(lines.len() + 1 - A_SESSION).map(|it| it.number));
            }
            None if self.sessions.len() >= SESSIONS => {
                let latest = |lines: &&VecDeque<KeptNews>| lines.back().map(|it| it.number);
                let oldest = self.sessions.values().min_by_key(latest);
                gone.extend(oldest.into_iter().flatten().map(|it| it.number));
            }
            Some(_) | None => {}
        }
        Some(Change { line, gone })
    }

    fn take_up(&mut self, line: KeptNews, gone: &[u64]) {
        self.sessions.retain(|_, lines| {
            lines.retain(|line| !gone.contains(&line.number));
            !lines.is_empty()
        });
        self.number = self.number.max(line.number);
        self.sessions.entry(line.session.clone()).or_default().push_back(line);
    }

    fn waiting(&self, session: &str, now_ms: u64) -> Vec<String> {
        let lines = self.sessions.get(session).into_iter().flatten();
        lines.filter(|line| is_young(line, now_ms)).map(|line| line.text.clone()).collect()
    }
}

/// A line from further ahead is of a clock that ran ahead.
fn is_young(line: &KeptNews, now_ms: u64) -> bool {
    now_ms.abs_diff(line.at) < LIFE_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gateway::beacons::Beacons, protocol::SystemEventParams};

    fn tell(lines: &mut Lines, change: Option<Change>) {
        if let Some(Change { line, gone }) = change {
            lines.take_up(line, &gone);
        }
    }

    fn says(lines: &mut Lines, session: &str, text: &str, now_ms: u64) {
        let change = lines.line(session, None, text, now_ms);
        tell(lines, change);
    }

    #[test]
    fn the_latest_wait_and_a_repetition_does_not() {
        let mut lines = Lines::default();
        for n in 0..30 {
            says(&mut lines, "s", &format!(" line {n} "), 1);
            says(&mut lines, "s", &format!("line {n}"), 1);
        }
        let waiting = lines.waiting("s", 1);
        assert_eq!((waiting.len(), waiting[0].as_str()), (A_SESSION, "line 10"));
        for n in 0..SESSIONS {
            says(&mut lines, &format!("session {n}"), "x", 1);
        }
        assert!(lines.waiting("s", 1).is_empty());
        assert_eq!(lines.waiting("session 0", 1), ["x"]);
        assert_eq!(lines.sessions.len(), SESSIONS);
    }

    #[test]
    fn a_week_old_line_is_no_news_and_goes_with_the_next_one() {
        let mut lines = Lines::default();
        says(&mut lines, "s", "x", 1);
        says(&mut lines, "t", "y", 2);
        assert_eq!(lines.waiting("s", LIFE_MS), ["x"]);
        assert!(lines.waiting("s", LIFE_MS + 1).is_empty());
        let change = lines.line("s", None, "x", LIFE_MS + 2).unwrap();
        assert_eq!((change.line.number, change.gone.as_slice()), (3, &[1, 2][..]));
    }

    #[test]
    fn a_line_of_a_clock_that_ran_ahead_is_no_news_either() {
        let mut lines = Lines::default();
        says(&mut lines, "s", "x", 2 * LIFE_MS);
        assert_eq!(lines.waiting("s", 2 * LIFE_MS - 1), ["x"], "a small step back");
        assert!(lines.waiting("s", LIFE_MS).is_empty());
        let change = lines.line("s", None, "x", LIFE_MS).unwrap();
        assert_eq!((change.line.at, change.gone.as_slice()), (LIFE_MS, &[1][..]));
    }

    #[test]
    fn a_program_is_news_when_something_of_it_is_new() {
        let (mut lines, mut beacons) = (Lines::default(), Beacons::default());
        let mut hears = |lines: &mut Lines, version: &str, reason: &str| {
            let said = SystemEventParams {
                text: "Node: box".to_owned(),
                host: Some("box".to_owned()),
                version: Some(version.to_owned()),
                reason: Some(reason.to_owned()),
                device_id: Some("d".to_owned()),
                ..SystemEventParams::default()
            };
            let change = lines.of_program("s", &beacons.hear(&said, 1), 1);
            tell(lines, change);
        };
        hears(&mut lines, "1", "launch");
        hears(&mut lines, "1", "periodic-5m");
        hears(&mut lines, "2", "heartbeat");
        hears(&mut lines, "2", "woke up");
        assert_eq!(lines.waiting("s", 1), ["Node: box · app 1", "app 2", "reason woke up"]);
    }

    #[tokio::test]
    async fn what_is_told_at_the_same_time_is_kept_and_is_there_again_in_its_order() {
        let store = Store::in_memory();
        let news = News::default();
        let told = tokio::join!(
            news.tell(&store, "s", "a", 1),
            news.tell(&store, "s", "b", 1),
            news.tell(&store, "s", "b", 1),
            news.tell(&store, "t", "c", 1),
        );
        assert_eq!(told, (Ok(()), Ok(()), Ok(()), Ok(())));
        let later = News::default();
        assert!(later.is_empty());
        later.load(&store).await.unwrap();
        for news in [&news, &later] {
            assert_eq!(
                (news.waiting("s", 1), news.waiting("t", 1)),
                (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()])
            );
        }
        later.tell(&store, "s", "d", 1).await.unwrap();
        assert_eq!(store.news().all().await.unwrap().len(), 4);
    }
}
