//! The command: chooses between the live view and lines, and runs the view.

use std::{io::IsTerminal, process::ExitCode, time::Duration};

use crossterm::event::{Event, EventStream, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use futures_util::StreamExt;
use jiff::{Timestamp, tz::TimeZone};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    feed::Feed,
    lines,
    model::Model,
    screen::{Look, draw},
    terminal::{Signals, Terminal},
};
use crate::{cli::Context, config::Remotes};

/// Ages and rates are worked out anew so often.
const TICK: Duration = Duration::from_secs(1);

/// What a key means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Quit,
    Suspend,
    Up,
    Down,
    Other,
}

/// Runs `remote status --watch`.
pub(in crate::cli) async fn run(context: &Context, name: Option<&str>) -> anyhow::Result<ExitCode> {
    if let Some(name) = name {
        Remotes::load(&context.paths)?.named_or_configured(&context.paths, name)?;
    }
    let feed = Feed::start(context.paths.clone(), name.map(str::to_owned));
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
    let is_view = !context.output.is_json() && std::io::stdout().is_terminal() && !is_dumb;
    if !is_view {
        return lines::run(context, feed).await.map(|()| ExitCode::SUCCESS);
    }
    // Heard from here on: a signal that came first would leave the terminal as the view needs it.
    let mut signals = Signals::new()?;
    if let Ok(terminal) = Terminal::open() {
        return view(context, feed, terminal, signals).await;
    }
    tokio::select! {
        ended = lines::run(context, feed) => ended.map(|()| ExitCode::SUCCESS),
        code = signals.end() => Ok(ExitCode::from(code?)),
    }
}

/// The live view, until a key or a signal ends it.
async fn view(
    context: &Context,
    mut feed: Feed,
    mut terminal: Terminal,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let look = Look { is_colored: context.output.is_colored() };
    let mut model = Model::new(TimeZone::system());
    let mut keys = EventStream::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let key = tokio::select! {
            news = feed.next() => {
                model.learn(&news?, Timestamp::now());
                Key::Other
            }
            event = keys.next() => match event {
                Some(Ok(Event::Key(key))) => meaning(&key),
                Some(Ok(_)) => Key::Other,
                // The terminal is gone.
                Some(Err(_)) | None => Key::Quit,
            },
            signal = signals.next() => match signal {
                Some(code) => return Ok(ExitCode::from(code)),
                None => Key::Suspend,
            },
            _ = tick.tick() => Key::Other,
        };
        match key {
            Key::Quit => return Ok(ExitCode::SUCCESS),
            Key::Suspend => terminal.suspend()?,
            Key::Up => model.choose(-1),
            Key::Down => model.choose(1),
            Key::Other => {}
        }
        terminal.draw(|frame| draw(frame, &model, look, Timestamp::now()))?;
    }
}

fn meaning(key: &KeyEvent) -> Key {
    if key.kind == KeyEventKind::Release {
        return Key::Other;
    }
    let is_control = key.modifiers.contains(KeyModifiers::CONTROL);
    let is = |codes: &[KeyCode]| codes.contains(&key.code);
    let is_end = is_control && is(&[KeyCode::Char('c'), KeyCode::Char('d')]);
    if is_control && is(&[KeyCode::Char('z')]) {
        Key::Suspend
    } else if is_end || is(&[KeyCode::Char('q'), KeyCode::Char('Q'), KeyCode::Esc]) {
        Key::Quit
    } else if is(&[KeyCode::Char('k'), KeyCode::Up, KeyCode::BackTab]) {
        Key::Up
    } else if is(&[KeyCode::Char('j'), KeyCode::Down, KeyCode::Tab]) {
        Key::Down
    } else {
        Key::Other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_way_out_is_one() {
        let key = |code, modifiers| meaning(&KeyEvent::new(code, modifiers));
        for (code, modifiers) in [
            (KeyCode::Char('q'), KeyModifiers::NONE),
            (KeyCode::Esc, KeyModifiers::NONE),
            (KeyCode::Char('c'), KeyModifiers::CONTROL),
            (KeyCode::Char('d'), KeyModifiers::CONTROL),
        ] {
            assert_eq!(key(code, modifiers), Key::Quit);
        }
        assert_eq!(key(KeyCode::Char('z'), KeyModifiers::CONTROL), Key::Suspend);
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), Key::Other);
        assert_eq!(key(KeyCode::Down, KeyModifiers::NONE), Key::Down);
    }
}
