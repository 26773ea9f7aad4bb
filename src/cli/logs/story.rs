//! The history as a person reads it: one line an entry, in the time of the clock on the wall. Pure.

use jiff::{SignedDuration, Timestamp, ZonedDateTime, civil::Date, tz::TimeZone};

use super::{
    absences::{Absence, absences},
    when::Moment,
};
use crate::{
    cli::{output::Tone, phrases::span_ms},
    history::{Before, Entry, Happening},
};

/// One line of the story.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Line {
    /// When.
    pub(in crate::cli) at: ZonedDateTime,
    /// The remote, with the forward if it is one; empty for the machine.
    pub(in crate::cli) who: String,
    /// What happened.
    pub(in crate::cli) text: String,
    /// How it is meant.
    pub(in crate::cli) tone: Option<Tone>,
}

/// An entry's line.
pub(in crate::cli) fn line(entry: &Entry, zone: &TimeZone) -> Line {
    // A sleep stands where it began, which is when the person was last there.
    let at =
        if let Happening::Slept { ms } = entry.happening { before(entry.at, ms) } else { entry.at };
    let forward = entry.forward.as_ref().map(|forward| format!(":{forward}")).unwrap_or_default();
    let who = entry.remote.as_ref().map(|remote| format!("{remote}{forward}")).unwrap_or_default();
    let (text, tone) = sentence(entry, zone);
    Line { at: at.to_zoned_datetime(zone.clone()), who, text, tone }
}

fn before(at: Timestamp, ms: u64) -> Timestamp {
    let length = SignedDuration::from_millis(i64::try_from(ms).unwrap_or(i64::MAX));
    at.checked_sub(length).unwrap_or(at)
}

fn sentence(entry: &Entry, zone: &TimeZone) -> (String, Option<Tone>) {
    let clock = |at: Timestamp| at.to_zoned_datetime(zone.clone()).strftime("%H:%M:%S").to_string();
    match &entry.happening {
        Happening::Started { after, .. } => {
            let after = match after {
                None | Some(Before::Ended) => String::new(),
                Some(Before::Replaced) => "; another version of it handed over".to_owned(),
                Some(Before::Killed) => "; the one before it was killed, or crashed".to_owned(),
                Some(Before::Rebooted { booted }) => {
                    format!("; the machine was started at {}", clock(*booted))
                }
            };
            (format!("the supervisor started{after}"), Some(Tone::Quiet))
        }
        Happening::Ended => ("the supervisor ended".to_owned(), Some(Tone::Quiet)),
        Happening::Slept { ms } => {
            (format!("slept {}, until {}", span_ms(*ms), clock(entry.at)), Some(Tone::Quiet))
        }
        Happening::Continued => ("went on after it had been stopped".to_owned(), Some(Tone::Quiet)),
        Happening::GoingToSleep => ("going to sleep".to_owned(), Some(Tone::Quiet)),
        Happening::Woke => ("woke, or did not sleep after all".to_owned(), Some(Tone::Quiet)),
        Happening::Network { up: true } => ("the network changed".to_owned(), Some(Tone::Quiet)),
        Happening::Network { up: false } => ("no network".to_owned(), Some(Tone::Odd)),
        Happening::Connected => ("connected by its user".to_owned(), Some(Tone::Quiet)),
        Happening::Disconnected => ("disconnected by its user".to_owned(), Some(Tone::Quiet)),
        Happening::Renamed { to } => (format!("renamed to {to}"), Some(Tone::Quiet)),
        Happening::Lost { cause, silent_ms } => (lost(cause, *silent_ms), Some(Tone::Odd)),
        Happening::Redialled { attempt } => (format!("redialled (attempt {attempt})"), None),
        Happening::Failed { attempt, message, .. } => {
            (format!("attempt {attempt} failed: {message}"), Some(Tone::Odd))
        }
        Happening::Live { away_ms, attempts, waited, refused } => {
            (live(*away_ms, *attempts, *waited, *refused), Some(Tone::Good))
        }
        Happening::GatewayDown { message, fix } => {
            (advised(&format!("no gateway: {message}"), fix.as_deref()), Some(Tone::Bad))
        }
        Happening::GatewaySlow { slow: true } => {
            ("the gateway takes its time; SSH answers".to_owned(), Some(Tone::Odd))
        }
        Happening::GatewaySlow { slow: false } => {
            ("the gateway answers in time again".to_owned(), Some(Tone::Good))
        }
        Happening::Blocked { message, fix } => {
            (advised(&format!("gave up: {message}"), fix.as_deref()), Some(Tone::Bad))
        }
        Happening::NotServed { reason } => {
            (format!("a connection waited in vain: {reason}"), Some(Tone::Bad))
        }
    }
}

fn lost(cause: &str, silent_ms: u64) -> String {
    let noticed = match silent_ms {
        0 => "noticed at once".to_owned(),
        ms => format!("noticed {} after the last sign of life", span_ms(ms)),
    };
    match cause {
        "" => format!(
            "in doubt: is the path still there? (last sign of life {} ago)",
            span_ms(silent_ms)
        ),
        cause => format!("lost: {cause} ({noticed})"),
    }
}

fn live(away_ms: Option<u64>, attempts: u64, waited: u64, refused: u64) -> String {
    let mut parts = vec![match away_ms {
        Some(ms) => format!("live again after {}", span_ms(ms)),
        None => "live".to_owned(),
    }];
    if attempts > 1 {
        parts.push(format!("at attempt {attempts}"));
    }
    if waited > 0 {
        parts.push(format!("{} waited", counted(waited, "connection")));
    }
    if refused > 0 {
        parts.push(format!("{} had waited in vain", counted(refused, "connection")));
    }
    parts.join(", ")
}

fn counted(count: u64, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}

fn advised(text: &str, fix: Option<&str>) -> String {
    match fix {
        Some(fix) => format!("{text}; try: {fix}"),
        None => text.to_owned(),
    }
}

/// What is known of a moment: who was out of reach then, from when to when, and why.
pub(super) fn verdict(
    entries: &[Entry],
    name: Option<&str>,
    moment: &Moment,
    zone: &TimeZone,
) -> Vec<String> {
    let Some(first) = entries.first() else {
        return vec![format!("{}: nothing was noted so far", moment.shown)];
    };
    let meant = |absence: &&Absence| {
        name.is_none_or(|name| name == absence.remote)
            && absence.from < moment.until
            && absence.until.is_none_or(|until| until >= moment.from)
    };
    let all = absences(entries);
    let found: Vec<_> = all.iter().filter(meant).map(|a| away(a, moment, zone)).collect();
    if !found.is_empty() {
        return found;
    }
    let who = name.unwrap_or("every remote that was up");
    vec![if moment.until <= first.at {
        let begins =
            first.at.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string();
        format!("{}: not known; the history begins at {begins}", moment.shown)
    } else {
        format!("{}: {who} was within reach, as far as is known", moment.shown)
    }]
}

fn away(absence: &Absence, moment: &Moment, zone: &TimeZone) -> String {
    // The moment's own day need not be said.
    let today = moment.from.to_zoned_datetime(zone.clone()).date();
    let format = |at: Timestamp| {
        let at = at.to_zoned_datetime(zone.clone());
        let pattern = if at.date() == today { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
        at.strftime(pattern).to_string()
    };
    let (name, why) = (&absence.remote, &absence.why);
    let begun = format(absence.from);
    let end = match absence.until {
        None => "and still is".to_owned(),
        Some(until) => {
            let length = span_ms(millis(until.duration_since(absence.from)));
            format!("to {} ({length})", format(until))
        }
    };
    format!("{}: {name} was out of reach from {begun} {end}: {why}", moment.shown)
}

/// A day as a heading.
pub(super) fn day(date: Date, today: Date) -> String {
    let word = match today.since(date).map(|span| span.get_days()) {
        Ok(0) => ", today",
        Ok(1) => ", yesterday",
        Ok(_) | Err(_) => "",
    };
    format!("{}{word}", date.strftime("%A %Y-%m-%d"))
}

/// A length in milliseconds; none if it is negative.
pub(in crate::cli) fn millis(length: SignedDuration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(0)
}

#[cfg(test)]
#[path = "story_tests.rs"]
mod tests;
