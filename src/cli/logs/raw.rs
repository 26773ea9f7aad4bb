//! `remote logs --raw`: the supervisor's own log, a file a day.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::sleep;

use crate::{cli::Context, config::Remotes, supervisor};

/// Between two looks at the files.
const LOOK: Duration = Duration::from_millis(300);

/// Prints the last `count` lines of the log, and those to come if asked.
pub(super) async fn run(
    context: &Context,
    name: Option<&str>,
    follow: bool,
    count: usize,
) -> anyhow::Result<()> {
    if let Some(name) = name {
        Remotes::load(&context.paths)?.named_or_configured(&context.paths, name)?;
    }
    let filter = name.map(|name| format!("\"{name}\""));
    let is_meant = |line: &String| {
        filter.as_ref().is_none_or(|name| {
            ["name=", "remote="].iter().any(|field| line.contains(&format!("{field}{name}")))
        })
    };
    let mut tail = Tail::of(&context.paths.logs());
    let mut lines = tail.next()?;
    if !follow {
        lines.extend(tail.unfinished());
    }
    lines.retain(is_meant);
    let last = lines.get(lines.len().saturating_sub(count)..).unwrap_or_default();
    if context.output.is_json() {
        return context.output.value(&last);
    }
    for line in last {
        context.output.line(line);
    }
    if !follow {
        return Ok(());
    }
    let followed = async {
        loop {
            sleep(LOOK).await;
            for line in tail.next()?.iter().filter(|line| is_meant(line)) {
                if !context.output.endless_line(line) {
                    return Ok(());
                }
            }
        }
    };
    tokio::select! {
        followed = followed => followed,
        // Its reader may be gone long before the next line.
        () = context.output.abandoned() => Ok(()),
    }
}

/// The log as it grows.
struct Tail {
    folder: PathBuf,
    /// The file of the last line, and how much of it is known.
    place: Option<(PathBuf, u64)>,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Tail {
    /// Begins with the first line that is there.
    fn of(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), place: None, rest: Vec::new() }
    }

    /// The whole lines written since the last call.
    fn next(&mut self) -> anyhow::Result<Vec<String>> {
        for path in log_files(&self.folder)? {
            let known = match &self.place {
                Some((last, _)) if path < *last => continue,
                Some((last, known)) if path == *last => *known,
                // The day before has no more to say.
                Some(_) if self.rest.last().is_some_and(|byte| *byte != b'\n') => {
                    self.rest.push(b'\n');
                    0
                }
                Some(_) | None => 0,
            };
            let read = || format!("reading {}", path.display());
            let mut file = File::open(&path).with_context(read)?;
            // One that is shorter than it was is another one.
            let from = Some(known).filter(|known| file.metadata().is_ok_and(|m| m.len() >= *known));
            let from = file.seek(SeekFrom::Start(from.unwrap_or(0))).with_context(read)?;
            let count = file.read_to_end(&mut self.rest).with_context(read)?;
            self.place = Some((path, from + count as u64));
        }
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        Ok(String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect())
    }

    /// The beginning of the last line, if its end is missing.
    fn unfinished(&self) -> Option<String> {
        let is_there = !self.rest.is_empty();
        is_there.then(|| String::from_utf8_lossy(&self.rest).into_owned())
    }
}

/// All log files in the order of their days.
fn log_files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).context("reading the log folder")? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if name.is_some_and(|name| name.starts_with(supervisor::LOG_PREFIX)) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write};

    use super::*;

    #[test]
    fn every_line_comes_once_though_midnight_passes_and_old_days_go() {
        let home = tempfile::tempdir().unwrap();
        let path = |day: &str| home.path().join(format!("{}{day}.log", supervisor::LOG_PREFIX));
        let write = |day: &str, text: &str| {
            let file = OpenOptions::new().create(true).append(true).open(path(day));
            file.unwrap().write_all(text.as_bytes()).unwrap();
        };
        let mut tail = Tail::of(home.path());
        assert!(tail.next().unwrap().is_empty());
        write("2026-11-25", "one\n");
        write("2026-11-26", "two\nthr");
        std::fs::write(home.path().join("history.jsonl"), "{}\n").unwrap();
        assert_eq!(tail.next().unwrap(), ["one", "two"]);
        assert_eq!(tail.unfinished().as_deref(), Some("thr"));
        write("2026-11-26", "ee\n");
        assert_eq!(tail.next().unwrap(), ["three"]);
        write("2026-11-26", "four\ncut off");
        write("2026-11-27", "five\n");
        std::fs::remove_file(path("2026-11-25")).unwrap();
        assert_eq!(tail.next().unwrap(), ["four", "cut off", "five"]);
        assert!(tail.next().unwrap().is_empty());
        // The folder was lost, and is made anew.
        std::fs::remove_file(path("2026-11-27")).unwrap();
        write("2026-11-27", "6\n");
        assert_eq!(tail.next().unwrap(), ["6"]);
    }
}
