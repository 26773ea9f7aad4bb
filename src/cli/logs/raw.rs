//! `remote logs --raw`: the supervisor's own log, a file a day.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;

use crate::{
    cli::Context,
    config::{Paths, Remotes},
    supervisor,
};

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
    let matches = |line: &&str| {
        filter.as_ref().is_none_or(|name| {
            ["name=", "remote="].iter().any(|field| line.contains(&format!("{field}{name}")))
        })
    };
    let mut seen = read_log(&context.paths)?;
    let lines: Vec<&str> = seen.lines().filter(matches).collect();
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
    loop {
        sleep(LOOK).await;
        let now = read_log(&context.paths)?;
        let fresh = now.get(seen.len()..).unwrap_or(&now);
        for line in fresh.lines().filter(matches) {
            if !context.output.endless_line(line) {
                return Ok(());
            }
        }
        seen = now;
    }
}

/// All log files in the order of their days.
fn read_log(paths: &Paths) -> anyhow::Result<String> {
    let folder = paths.logs();
    if !folder.exists() {
        return Ok(String::new());
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).context("reading the log folder")? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        if name.is_some_and(|name| name.starts_with(supervisor::LOG_PREFIX)) {
            files.push(path);
        }
    }
    files.sort();
    let mut text = String::new();
    for file in files {
        let bytes = std::fs::read(&file).with_context(|| format!("reading {}", file.display()))?;
        text.push_str(&String::from_utf8_lossy(&bytes));
    }
    Ok(text)
}
