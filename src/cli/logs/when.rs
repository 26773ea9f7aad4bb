//! Times as people type them: `08:03`, `yesterday`, `2026-11-26 08:03`, `2h` ago.

use jiff::{
    Span, Timestamp, ToSpan, ZonedDateTime,
    civil::{Date, DateTime, Time},
};

use crate::problem::{Class, Problem};

/// A stretch of time that somebody means: `08:03` is a minute, `2026-11-26` a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Moment {
    /// Its first instant.
    pub(super) from: Timestamp,
    /// Its end, not part of it.
    pub(super) until: Timestamp,
    /// As a person reads it.
    pub(super) shown: String,
}

/// The moment that `text` means, as seen `now`: a time of day is the last one that has begun.
pub(super) fn moment(text: &str, now: &ZonedDateTime) -> Result<Moment, Problem> {
    let text = text.trim();
    let found = day(text, now).or_else(|| date_and_time(text, now)).or_else(|| time(text, now));
    let (from, length) = found.ok_or_else(|| {
        Problem::new(Class::Usage, format!("`{text}` is no time"))
            .fix("a time such as 08:03, yesterday, 2026-11-26 or \"2026-11-26 08:03\"")
    })?;
    let until = from.checked_add(length).unwrap_or_else(|_| from.clone());
    let shown = match (from.date() == now.date(), from.time() == Time::midnight()) {
        (_, true) if length.get_days() == 1 => from.date().to_string(),
        (true, _) => text.to_owned(),
        (false, _) => from.strftime("%Y-%m-%d %H:%M:%S").to_string(),
    };
    Ok(Moment { from: from.timestamp(), until: until.timestamp(), shown })
}

/// The instant that `--since` means: a moment's first one, or so long ago (`90s`, `30min`, `2h`, `1d`).
pub(super) fn since(text: &str, now: &ZonedDateTime) -> Result<Timestamp, Problem> {
    if let Ok(span) = text.trim().parse::<Span>()
        && let Ok(then) = now.checked_sub(span.abs())
    {
        return Ok(then.timestamp());
    }
    let moment = moment(text, now);
    moment.map(|moment| moment.from).map_err(|problem| {
        problem.fix("a time such as 08:03, yesterday or \"2026-11-26 08:03\", or 30min, 2h, 1d")
    })
}

fn day(text: &str, now: &ZonedDateTime) -> Option<(ZonedDateTime, Span)> {
    let date = match text {
        "today" => now.date(),
        "yesterday" => now.date().yesterday().ok()?,
        text if text.len() == 10 => text.parse::<Date>().ok()?,
        _ => return None,
    };
    Some((date.to_zoned_datetime(now.time_zone().clone()).ok()?, 1.day()))
}

fn date_and_time(text: &str, now: &ZonedDateTime) -> Option<(ZonedDateTime, Span)> {
    let length = precision(text.get(11..)?);
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Some((instant.to_zoned_datetime(now.time_zone().clone()), 1.second()));
    }
    let at = text.parse::<DateTime>().ok()?;
    Some((at.to_zoned_datetime(now.time_zone().clone()).ok()?, length))
}

fn time(text: &str, now: &ZonedDateTime) -> Option<(ZonedDateTime, Span)> {
    // One digit of an hour is what people type.
    let padded = if text.find(':') == Some(1) { format!("0{text}") } else { text.to_owned() };
    if !padded.contains(':') {
        return None;
    }
    let time = padded.parse::<Time>().ok()?;
    let at = |date: Date| date.to_datetime(time).to_zoned_datetime(now.time_zone().clone()).ok();
    let today = at(now.date())?;
    let last = if today <= *now { today } else { at(now.date().yesterday().ok()?)? };
    Some((last, precision(&padded)))
}

/// A minute for `08:03`, a second for `08:03:02`.
fn precision(time: &str) -> Span {
    if time.matches(':').count() >= 2 { 1.second() } else { 1.minute() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> ZonedDateTime {
        "2026-11-26T09:30:00+01:00[Europe/Berlin]".parse().unwrap()
    }

    fn of(text: &str) -> (String, String) {
        let moment = moment(text, &now()).unwrap();
        (moment.from.to_string(), moment.until.to_string())
    }

    #[test]
    fn times_are_those_of_the_clock_on_the_wall() {
        let cases = [
            ("08:03", "2026-11-26T07:03:00Z", "2026-11-26T07:04:00Z"),
            ("8:03", "2026-11-26T07:03:00Z", "2026-11-26T07:04:00Z"),
            ("08:03:02", "2026-11-26T07:03:02Z", "2026-11-26T07:03:03Z"),
            ("23:59", "2026-11-25T22:59:00Z", "2026-11-25T23:00:00Z"),
            ("yesterday", "2026-11-24T23:00:00Z", "2026-11-25T23:00:00Z"),
            ("2026-11-20", "2026-11-19T23:00:00Z", "2026-11-20T23:00:00Z"),
            ("2026-11-20 08:03", "2026-11-20T07:03:00Z", "2026-11-20T07:04:00Z"),
            ("2026-11-20T08:03:02Z", "2026-11-20T08:03:02Z", "2026-11-20T08:03:03Z"),
        ];
        for (text, from, until) in cases {
            assert_eq!(of(text), (from.to_owned(), until.to_owned()), "{text}");
        }
    }

    #[test]
    fn since_takes_a_length_as_well() {
        let cases = [
            ("2h", "2026-11-26T06:30:00Z"),
            ("30min", "2026-11-26T08:00:00Z"),
            ("1d", "2026-11-25T08:30:00Z"),
            ("08:03", "2026-11-26T07:03:00Z"),
        ];
        for (text, instant) in cases {
            assert_eq!(since(text, &now()).unwrap().to_string(), instant, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_said_with_an_example() {
        for text in ["", "soon", "25:00", "8", "2026-13-01", "08:03 Uhr"] {
            let problem = moment(text, &now()).unwrap_err();
            assert_eq!(problem.class, Class::Usage, "{text}");
            assert!(since(text, &now()).unwrap_err().fix.unwrap().contains("2h"), "{text}");
        }
    }
}
