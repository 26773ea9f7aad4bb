//! The command itself: reads the files, chooses the entries, prints them, and goes on if asked.

use std::time::Duration;

use anyhow::Context as _;
use jiff::{Timestamp, ZonedDateTime};
use serde_json::Value;
use tokio::time::sleep;

use super::{
    raw, story,
    when::{self, Moment},
};
use crate::{
    cli::{Context, output::Tone},
    config::Remotes,
    history::{self, Entry, Follower, Happening},
};

/// Between two looks at the file; nobody tells of its growth.
const LOOK: Duration = Duration::from_millis(300);
/// What is shown around the moment of `--at`.
const AROUND: jiff::SignedDuration = jiff::SignedDuration::from_mins(15);

/// Arguments of `remote logs`.
#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Arguments {
    /// Only of this remote
    pub(super) name: Option<String>,
    /// Go on with what happens from now on
    #[arg(short, long)]
    pub(super) follow: bool,
    /// So many lines
    #[arg(short = 'n', long, default_value_t = 200, value_name = "COUNT")]
    pub(super) lines: usize,
    /// Since this time (08:03, yesterday, 2026-11-26, "2026-11-26 08:03") or so long ago (30min, 2h)
    #[arg(long, value_name = "TIME", conflicts_with = "raw")]
    pub(super) since: Option<String>,
    /// Say how it was at this time, and what happened around it
    #[arg(long, value_name = "TIME", conflicts_with_all = ["since", "follow", "raw"])]
    pub(super) at: Option<String>,
    /// Show the supervisor's own log, as it stands in the file
    #[arg(long)]
    pub(super) raw: bool,
}

/// Runs `remote logs`.
pub(in crate::cli) async fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<()> {
    let name = arguments.name.as_deref();
    if arguments.raw {
        return raw::run(context, name, arguments.follow, arguments.lines).await;
    }
    let now = ZonedDateTime::now();
    let moment = arguments.at.as_deref().map(|text| when::moment(text, &now)).transpose()?;
    let since = arguments.since.as_deref().map(|text| when::since(text, &now)).transpose()?;
    let folder = context.paths.logs();
    let mut follower = Follower::at_the_end(&folder);
    let all = history::read(&folder).context("reading the history")?;
    let latest = name.map(|name| latest_name(&all, name));
    let names = names_of(&all, latest.as_deref());
    if let Some(name) = name
        && !all.iter().any(|entry| entry.remote.as_deref() == Some(name))
    {
        Remotes::load(&context.paths)?.named_or_configured(&context.paths, name)?;
    }
    let meant = all.iter().filter(|entry| is_meant(entry, names.as_deref()));
    let chosen: Vec<&Entry> = match &moment {
        Some(moment) => meant.filter(|entry| is_around(entry.at, moment)).collect(),
        None => meant.filter(|entry| since.is_none_or(|since| entry.at >= since)).collect(),
    };
    let shown = chosen.get(chosen.len().saturating_sub(arguments.lines)..).unwrap_or_default();
    let mut page = Page { context, name, now, day: None };
    let names = names.as_deref();
    if context.output.is_json() && !arguments.follow {
        return context.output.value(&shown);
    }
    if let Some(moment) = &moment {
        for sentence in story::verdict(&all, latest.as_deref(), moment, page.now.time_zone()) {
            context.output.line(sentence);
        }
    }
    for entry in shown {
        if !page.show(entry)? {
            return Ok(());
        }
    }
    if shown.is_empty() && moment.is_none() && !arguments.follow {
        context.output.line(nothing(all.is_empty()));
    }
    if arguments.follow {
        tokio::select! {
            followed = follow(&mut follower, &mut page, names) => followed?,
            // Its reader may be gone long before the next line.
            () = context.output.abandoned() => {}
        }
    }
    Ok(())
}

/// Shows what is noted from now on, until nobody reads any more.
async fn follow(
    follower: &mut Follower,
    page: &mut Page<'_>,
    names: Option<&[String]>,
) -> anyhow::Result<()> {
    loop {
        for entry in follower.next().context("reading the history")? {
            if is_meant(&entry, names) && !page.show(&entry)? {
                return Ok(());
            }
        }
        sleep(LOOK).await;
    }
}

fn nothing(ever: bool) -> &'static str {
    if ever {
        "nothing has happened yet; openclaw remote logs --raw shows the supervisor's own log"
    } else {
        "nothing happened in that time"
    }
}

/// What the remote that was once called `name` is called now.
fn latest_name(entries: &[Entry], name: &str) -> String {
    let mut latest = name.to_owned();
    for entry in entries {
        if let Happening::Renamed { to } = &entry.happening
            && entry.remote.as_ref() == Some(&latest)
        {
            latest.clone_from(to);
        }
    }
    latest
}

/// A remote's name, and those that it had before.
fn names_of(entries: &[Entry], name: Option<&str>) -> Option<Vec<String>> {
    let mut names = vec![name?.to_owned()];
    for entry in entries.iter().rev() {
        if let (Some(before), Happening::Renamed { to }) = (&entry.remote, &entry.happening)
            && names.last() == Some(to)
        {
            names.push(before.clone());
        }
    }
    Some(names)
}

/// What concerns the machine concerns every remote.
fn is_meant(entry: &Entry, names: Option<&[String]>) -> bool {
    match (&entry.remote, names) {
        (Some(remote), Some(names)) => names.contains(remote),
        (None, _) | (_, None) => true,
    }
}

fn is_around(at: Timestamp, moment: &Moment) -> bool {
    at.duration_since(moment.from) >= -AROUND && at.duration_since(moment.until) <= AROUND
}

/// Where the lines go.
struct Page<'a> {
    context: &'a Context,
    name: Option<&'a str>,
    now: ZonedDateTime,
    /// The day of the last line.
    day: Option<jiff::civil::Date>,
}

impl Page<'_> {
    /// Shows an entry; false once nobody reads any more.
    fn show(&mut self, entry: &Entry) -> anyhow::Result<bool> {
        let output = &self.context.output;
        if output.is_json() {
            return Ok(output.endless_line(&serde_json::to_string(entry)?));
        }
        let line = story::line(entry, self.now.time_zone());
        let date = line.at.date();
        if self.day != Some(date) {
            self.day = Some(date);
            let heading = output.paint(Tone::Quiet, &story::day(date, self.now.date()));
            if !output.endless_line(&heading) {
                return Ok(false);
            }
        }
        // With one remote asked for its name says nothing, but a forward's does.
        let who = match self.name {
            Some(name) => line.who.strip_prefix(name).unwrap_or(&line.who),
            None => &line.who,
        };
        let who = if who.is_empty() { String::new() } else { format!("{who}  ") };
        let text = crate::cli::output::plain(&format!("{who}{}", line.text), false);
        let text = line.tone.map_or(text.clone(), |tone| output.paint(tone, &text));
        Ok(output.endless_line(&format!("{}  {text}", line.at.strftime("%H:%M:%S"))))
    }
}

/// An entry as the control socket carries it.
pub(in crate::cli) fn entry(value: &Value) -> Option<Entry> {
    serde_json::from_value(value.clone()).ok()
}
