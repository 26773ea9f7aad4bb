//! News that wait for a session's next turn (`system-event`): a few a session, the latest ones.

use std::collections::{BTreeMap, VecDeque};

use super::beacons::Told;

/// How many wait for one session; the oldest goes first.
const A_SESSION: usize = 20;
/// How many sessions they wait for; the one whose news are oldest goes first.
const SESSIONS: usize = 64;
/// The longest line that is kept, UTF-16 code units.
const LONGEST: usize = 4_096;
/// Reasons to tell that are no news.
const ROUTINE: [&str; 4] = ["heartbeat", "connect", "launch", "instances-refresh"];

/// What waits, by session.
#[derive(Debug, Default)]
pub(super) struct News {
    sessions: BTreeMap<String, Waiting>,
    count: u64,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<(Option<String>, String)>,
    /// Whom the latest line with a context was about.
    about: Option<String>,
    /// When the latest came, in lines.
    at: u64,
}

impl News {
    /// Takes a line up, unless it repeats the one before.
    pub(super) fn tell(&mut self, session: &str, text: &str) {
        self.push(session, None, text);
    }

    /// Takes up what is new of a program that said that it is there; mere signs of life are not.
    pub(super) fn tell_of(&mut self, session: &str, told: &Told) {
        let has = |name| told.changed.contains(&name);
        let reason = told.line.reason.as_deref().unwrap_or("event");
        let low = reason.trim().to_lowercase();
        let is_routine = low.starts_with("periodic") || ROUTINE.contains(&&*low);
        let (is_elsewhere, has_reason) = (has("host") || has("ip"), has("reason") && !is_routine);
        if !(is_elsewhere || has("version") || has("mode") || has_reason) {
            return;
        }
        let about = self.sessions.get(session).and_then(|waiting| waiting.about.as_deref());
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
        self.push(session, Some(&told.key), &parts.join(" · "));
    }

    /// Whether nothing waits for anybody.
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// What waits for a session, the oldest first.
    pub(super) fn waiting(&self, session: &str) -> Vec<String> {
        let lines = self.sessions.get(session).map(|waiting| &waiting.lines);
        lines.into_iter().flatten().map(|(_, text)| text.clone()).collect()
    }

    fn push(&mut self, session: &str, about: Option<&str>, text: &str) {
        self.count += 1;
        let waiting = self.sessions.entry(session.to_owned()).or_default();
        let line = (about.map(str::to_owned), super::beacons::cut(text.trim(), LONGEST));
        let repeats = match about {
            None => waiting.lines.back() == Some(&line),
            Some(_) => waiting.lines.contains(&line),
        };
        if repeats {
            return;
        }
        if about.is_some() {
            waiting.about.clone_from(&line.0);
        }
        waiting.lines.push_back(line);
        waiting.at = self.count;
        if waiting.lines.len() > A_SESSION {
            waiting.lines.pop_front();
        }
        while self.sessions.len() > SESSIONS {
            let oldest = self.sessions.iter().min_by_key(|(_, waiting)| waiting.at);
            let Some(oldest) = oldest.map(|(session, _)| session.clone()) else { break };
            self.sessions.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{gateway::beacons::Beacons, protocol::SystemEventParams};

    #[test]
    fn the_latest_wait_and_a_repetition_does_not() {
        let mut news = News::default();
        for n in 0..30 {
            news.tell("s", &format!(" line {n} "));
            news.tell("s", &format!("line {n}"));
        }
        let lines = news.waiting("s");
        assert_eq!((lines.len(), lines[0].as_str()), (A_SESSION, "line 10"));
        for n in 0..SESSIONS {
            news.tell(&format!("session {n}"), "x");
        }
        assert!(news.waiting("s").is_empty());
        assert_eq!(news.waiting("session 0"), ["x"]);
    }

    #[test]
    fn a_program_is_news_when_something_of_it_is_new() {
        let (mut news, mut beacons) = (News::default(), Beacons::default());
        let mut hears = |news: &mut News, version: &str, reason: &str| {
            let said = SystemEventParams {
                text: "Node: box".to_owned(),
                host: Some("box".to_owned()),
                version: Some(version.to_owned()),
                reason: Some(reason.to_owned()),
                device_id: Some("d".to_owned()),
                ..SystemEventParams::default()
            };
            news.tell_of("s", &beacons.hear(&said, 1));
        };
        hears(&mut news, "1", "launch");
        hears(&mut news, "1", "periodic-5m");
        hears(&mut news, "2", "heartbeat");
        hears(&mut news, "2", "woke up");
        assert_eq!(news.waiting("s"), ["Node: box · app 1", "app 2", "reason woke up"]);
    }
}
