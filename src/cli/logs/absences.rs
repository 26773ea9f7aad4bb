//! When a remote was out of reach and why, made of the history. Pure.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::{
    cli::phrases::span_ms,
    history::{Before, Entry, Happening},
};

/// Within which a wake or a change of the network explains what follows.
const EXPLAINS: SignedDuration = SignedDuration::from_secs(5);

/// One time that a remote was out of reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Absence {
    /// Which remote.
    pub(in crate::cli) remote: String,
    /// The last sign of life, as far as it is known.
    pub(in crate::cli) from: Timestamp,
    /// When that was noticed.
    pub(in crate::cli) noticed: Timestamp,
    /// When a path served again; `None` while none does.
    pub(in crate::cli) until: Option<Timestamp>,
    /// Why.
    pub(in crate::cli) why: String,
    /// Connections that waited for its end.
    pub(in crate::cli) waited: u64,
}

/// What explains the next loss: what it was, when it began, and when it was over.
struct Reason {
    text: String,
    from: Timestamp,
    at: Timestamp,
}

#[derive(Default)]
struct Course {
    absences: Vec<Absence>,
    /// The absence of each remote that lasts, as an index.
    open: BTreeMap<String, usize>,
    /// The remotes whose path serves.
    live: Vec<String>,
    reason: Option<Reason>,
    /// When the supervisor ended as it was told, if it has not been started since.
    ended: Option<Timestamp>,
}

/// All absences in `entries`, in the order in which they were noticed. Only the way to the gateway counts.
pub(in crate::cli) fn absences<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<Absence> {
    let mut course = Course::default();
    for entry in entries.into_iter().filter(|entry| entry.forward.is_none()) {
        match &entry.remote {
            None => course.on_machine(entry),
            Some(remote) => course.on_remote(remote, entry),
        }
    }
    course.absences
}

impl Course {
    fn on_machine(&mut self, entry: &Entry) {
        let at = entry.at;
        let reason = |text: String, from| Some(Reason { text, from, at });
        match &entry.happening {
            Happening::Slept { ms } => {
                let length = SignedDuration::from_millis(i64::try_from(*ms).unwrap_or(i64::MAX));
                let from = at.checked_sub(length).unwrap_or(at);
                self.reason = reason(format!("slept {}", span_ms(*ms)), from);
            }
            Happening::Continued => self.reason = reason("was stopped".to_owned(), at),
            Happening::Woke => self.reason = reason("slept".to_owned(), at),
            Happening::Network { up: true } => {
                // A wake tells more than the change of network that it brings.
                if self.explanation(at).is_none() {
                    self.reason = reason("the network changed".to_owned(), at);
                }
            }
            Happening::Network { up: false } => {
                self.reason = reason("there was no network".to_owned(), at);
            }
            Happening::Ended => self.ended = Some(at),
            Happening::Started { after, .. } => self.on_start(at, *after),
            Happening::GoingToSleep
            | Happening::Connected
            | Happening::Disconnected
            | Happening::Renamed { .. }
            | Happening::Lost { .. }
            | Happening::Redialled { .. }
            | Happening::Failed { .. }
            | Happening::Live { .. }
            | Happening::GatewayDown { .. }
            | Happening::GatewaySlow { .. }
            | Happening::Blocked { .. }
            | Happening::NotServed { .. } => {}
        }
    }

    fn on_start(&mut self, at: Timestamp, after: Option<Before>) {
        let (why, from) = match after {
            Some(Before::Rebooted { booted }) => ("the machine was restarted", booted),
            Some(Before::Killed) => ("the supervisor was killed, or crashed", at),
            Some(Before::Replaced) => ("another version of the supervisor took over", at),
            Some(Before::Ended) | None => {
                ("the supervisor was restarted", self.ended.unwrap_or(at))
            }
        };
        self.ended = None;
        for remote in std::mem::take(&mut self.live) {
            self.begin(remote, from.min(at), at, why.to_owned());
        }
    }

    fn on_remote(&mut self, remote: &str, entry: &Entry) {
        let at = entry.at;
        match &entry.happening {
            Happening::Lost { cause, silent_ms } => {
                let silent = i64::try_from(*silent_ms).unwrap_or(i64::MAX);
                let heard = at.checked_sub(SignedDuration::from_millis(silent)).unwrap_or(at);
                let (why, from) = match (self.explanation(at), cause.as_str()) {
                    (Some(reason), "") => (reason.text.clone(), reason.from),
                    (Some(reason), cause) => (format!("{}; {cause}", reason.text), reason.from),
                    (None, "") => ("in doubt".to_owned(), heard),
                    (None, cause) => (cause.to_owned(), heard),
                };
                self.begin(remote.to_owned(), from.min(heard), at, why);
            }
            Happening::GatewayDown { message, .. } | Happening::Blocked { message, .. } => {
                match self.open.get(remote).and_then(|open| self.absences.get_mut(*open)) {
                    Some(absence) => absence.why.clone_from(message),
                    None => self.begin(remote.to_owned(), at, at, message.clone()),
                }
            }
            Happening::Live { waited, .. } => {
                self.finish(remote, at, *waited);
                if !self.live.iter().any(|live| live == remote) {
                    self.live.push(remote.to_owned());
                }
            }
            Happening::Disconnected => {
                self.finish(remote, at, 0);
                self.live.retain(|live| live != remote);
            }
            Happening::Renamed { to } => {
                if let Some(open) = self.open.remove(remote) {
                    self.open.insert(to.clone(), open);
                }
                let known = self.absences.iter_mut().map(|absence| &mut absence.remote);
                for name in self.live.iter_mut().chain(known).filter(|name| *name == remote) {
                    name.clone_from(to);
                }
            }
            Happening::Started { .. }
            | Happening::Ended
            | Happening::Slept { .. }
            | Happening::Continued
            | Happening::GoingToSleep
            | Happening::Woke
            | Happening::Network { .. }
            | Happening::Connected
            | Happening::Redialled { .. }
            | Happening::Failed { .. }
            | Happening::GatewaySlow { .. }
            | Happening::NotServed { .. } => {}
        }
    }

    fn explanation(&self, at: Timestamp) -> Option<&Reason> {
        // The clock may have been set back in between.
        self.reason.as_ref().filter(|reason| at.duration_since(reason.at).abs() <= EXPLAINS)
    }

    fn begin(&mut self, remote: String, from: Timestamp, noticed: Timestamp, why: String) {
        self.live.retain(|live| *live != remote);
        if self.open.contains_key(&remote) {
            return;
        }
        self.open.insert(remote.clone(), self.absences.len());
        self.absences.push(Absence { remote, from, noticed, until: None, why, waited: 0 });
    }

    fn finish(&mut self, remote: &str, at: Timestamp, waited: u64) {
        let open = self.open.remove(remote).and_then(|open| self.absences.get_mut(open));
        if let Some(absence) = open {
            absence.until = Some(at);
            absence.waited = waited;
        }
    }
}
