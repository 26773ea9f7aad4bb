//! `logs.tail`: a window of the log file, whole lines, and where the next one starts.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

use super::config::aside;
use crate::{
    gateway::dispatch::{Call, Dispatcher, Outcome},
    logfile,
    protocol::{ErrorShape, LogsTail, LogsTailParams, LogsTailResult},
};

const LIMIT: u64 = 500;
const MAX_LIMIT: u64 = 5_000;
const BYTES: u64 = 250_000;
const MAX_BYTES: u64 = 1_000_000;

pub(super) fn register(dispatcher: &mut Dispatcher) {
    dispatcher.on::<LogsTail, _>(tail);
}

async fn tail(call: Call, params: LogsTailParams) -> Outcome<LogsTailResult> {
    let is_within =
        |value: Option<u64>, most| value.is_none_or(|value| (1..=most).contains(&value));
    if !is_within(params.limit, MAX_LIMIT) || !is_within(params.max_bytes, MAX_BYTES) {
        let message = format!(
            "invalid logs.tail params: limit wants 1 to {MAX_LIMIT}, maxBytes 1 to {MAX_BYTES}"
        );
        return Err(ErrorShape::invalid(message).into());
    }
    let folder = call.shared.paths.logs();
    aside(move || {
        let file = logfile::newest(&folder, logfile::GATEWAY).unwrap_or_else(|| {
            let today = jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::now()).date();
            folder.join(format!("{}{today}.log", logfile::GATEWAY))
        });
        read(&file, &params).map_err(|error| {
            ErrorShape::unavailable(format!("log read failed: {error}"), 1_000).into()
        })
    })
    .await
}

fn read(file: &Path, params: &LogsTailParams) -> io::Result<LogsTailResult> {
    let name = file.display().to_string();
    let mut log = match File::open(file) {
        Ok(log) => log,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let reset = params.cursor.is_some_and(|cursor| cursor > 0);
            return Ok(LogsTailResult { file: name, reset, ..LogsTailResult::default() });
        }
        Err(error) => return Err(error),
    };
    let size = log.metadata()?.len();
    let window = Window::of(size, params.cursor, params.max_bytes.unwrap_or(BYTES));
    // One byte more in front says whether the window starts with a line.
    let from = window.start.saturating_sub(1);
    log.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    log.take(size - from).read_to_end(&mut bytes)?;
    let starts_within = window.start > 0 && bytes.first() != Some(&b'\n');
    let bytes = bytes.get(usize::from(window.start > 0)..).unwrap_or_default();
    let (mut lines, end) = whole_lines(bytes, starts_within);
    let limit = usize::try_from(params.limit.unwrap_or(LIMIT)).unwrap_or(usize::MAX);
    let left_out = lines.len().saturating_sub(limit);
    lines.drain(..left_out);
    Ok(LogsTailResult {
        file: name,
        cursor: window.start + end,
        size,
        lines,
        truncated: window.is_cut || left_out > 0,
        reset: window.is_reset,
        skipped_bytes: window.skipped,
    })
}

/// Which part of a file is read.
#[derive(Debug, PartialEq, Eq)]
struct Window {
    start: u64,
    is_cut: bool,
    is_reset: bool,
    skipped: Option<u64>,
}

impl Window {
    fn of(size: u64, cursor: Option<u64>, most: u64) -> Self {
        let last = size.saturating_sub(most);
        match cursor {
            Some(cursor) if cursor <= size && size - cursor <= most => {
                Self { start: cursor, is_cut: false, is_reset: false, skipped: None }
            }
            Some(cursor) if cursor <= size => {
                Self { start: last, is_cut: true, is_reset: true, skipped: Some(last - cursor) }
            }
            Some(_) => Self { start: last, is_cut: last > 0, is_reset: true, skipped: None },
            None => Self { start: last, is_cut: last > 0, is_reset: false, skipped: None },
        }
    }
}

/// The lines in `bytes` that are whole, and where the last one ends.
fn whole_lines(bytes: &[u8], starts_within: bool) -> (Vec<String>, u64) {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
    let lines = text.split_terminator('\n').skip(usize::from(starts_within));
    (lines.map(str::to_owned).collect(), end as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(text: &str, params: LogsTailParams) -> LogsTailResult {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        std::fs::write(&file, text).unwrap();
        read(&file, &params).unwrap()
    }

    #[test]
    fn the_newest_lines_come_first_and_then_what_follows_them() {
        let first =
            tail("one\ntwo\nthree\n", LogsTailParams { limit: Some(2), ..Default::default() });
        assert_eq!(first.lines, ["two", "three"]);
        assert_eq!((first.cursor, first.size, first.truncated, first.reset), (14, 14, true, false));
        let cursor = Some(first.cursor);
        let next = tail("one\ntwo\nthree\nfour\n", LogsTailParams { cursor, ..Default::default() });
        assert_eq!(next.lines, ["four"]);
        assert!(!next.truncated && !next.reset);
    }

    #[test]
    fn a_line_that_is_being_written_waits_for_its_end() {
        let half = tail("one\ntw", LogsTailParams::default());
        assert_eq!((half.lines, half.cursor, half.size), (vec!["one".to_owned()], 4, 6));
    }

    #[test]
    fn a_window_starts_with_a_whole_line() {
        let most = |bytes| LogsTailParams { max_bytes: Some(bytes), ..Default::default() };
        assert_eq!(tail("one\ntwo\nthree\n", most(6)).lines, ["three"]);
        assert_eq!(tail("one\ntwo\nthree\n", most(7)).lines, ["three"]);
        assert_eq!(tail("one\ntwo\nthree\n", most(10)).lines, ["two", "three"]);
    }

    #[test]
    fn a_cursor_that_cannot_be_followed_is_told() {
        let at = |cursor, bytes| LogsTailParams {
            cursor: Some(cursor),
            max_bytes: Some(bytes),
            ..Default::default()
        };
        let rotated = tail("one\n", at(100, 50));
        assert_eq!((rotated.lines, rotated.reset), (vec!["one".to_owned()], true));
        let far = tail("one\ntwo\nthree\n", at(0, 6));
        assert_eq!(
            (far.lines, far.skipped_bytes, far.truncated),
            (vec!["three".to_owned()], Some(8), true)
        );
        let missing = read(Path::new("/no/such/log"), &at(5, 6)).unwrap();
        assert!(missing.reset && missing.lines.is_empty() && missing.size == 0);
    }
}
