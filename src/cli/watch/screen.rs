//! The view as cells: a line for each remote, one of them in full, and when it was out of reach. Pure.
//!
//! On less than 80 columns and 24 lines what matters least is left out first.

use jiff::{Timestamp, tz::TimeZone};
use ratatui::{
    Frame,
    layout::Rect,
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{
    card::card,
    model::{Model, Remote},
    text::{coarse, fit, is_up, manner, rate, spoken, trip_text, width, wrap},
};
use crate::cli::{
    logs::{Absence, millis},
    output::Tone,
    phrases::span_ms,
};

/// How it may look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Whether colours are wanted; without them nothing is lost but the colours.
    pub(super) is_colored: bool,
}

impl Look {
    pub(super) fn style(self, tone: Tone) -> Style {
        let (color, modifier) = match tone {
            Tone::Good => (Some(Color::Green), Modifier::empty()),
            Tone::Odd => (Some(Color::Yellow), Modifier::empty()),
            Tone::Bad => (Some(Color::Red), Modifier::BOLD),
            Tone::Quiet => (None, Modifier::DIM),
        };
        let style = Style::new().add_modifier(modifier);
        match color.filter(|_| self.is_colored) {
            Some(color) => style.fg(color),
            None => style,
        }
    }

    pub(super) fn span(self, tone: Tone, text: impl Into<String>) -> Span<'static> {
        Span::styled(text.into(), self.style(tone))
    }
}

/// Draws what `model` knows, as it is `now`.
pub(super) fn draw(frame: &mut Frame<'_>, model: &Model, look: Look, now: Timestamp) {
    let area = frame.area();
    let sheet = Sheet { model, look, now, width: usize::from(area.width) };
    let lines = sheet.lines(usize::from(area.height));
    for (line, y) in lines.into_iter().zip(area.y..area.bottom()) {
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
}

/// What is drawn, on what, and when.
pub(super) struct Sheet<'a> {
    model: &'a Model,
    pub(super) look: Look,
    pub(super) now: Timestamp,
    pub(super) width: usize,
}

impl Sheet<'_> {
    fn lines(&self, height: usize) -> Vec<Line<'static>> {
        let mut lines = vec![self.title()];
        lines.extend(self.banner());
        let Some(chosen) = self.model.chosen() else {
            lines.extend(self.emptiness());
            return lines;
        };
        if self.model.remotes.len() > 1 {
            lines.extend(self.list(height));
        }
        let card = card(self, chosen);
        // A few absences are worth more than the last lines of the remote.
        let room = height.saturating_sub(lines.len() + 1);
        let kept = card.len().min(room.saturating_sub(if room > 8 { 4 } else { 0 }));
        lines.push(self.rule(&chosen.name, chosen.is_default));
        lines.extend(card.into_iter().take(kept));
        let room = height.saturating_sub(lines.len());
        if room >= 2 {
            lines.push(self.rule("outages", false));
            lines.extend(self.log(chosen, room - 1));
        }
        lines
    }

    fn clock(&self, at: Timestamp) -> String {
        at.to_zoned_datetime(self.model.zone.clone()).strftime("%H:%M:%S").to_string()
    }

    fn title(&self) -> Line<'static> {
        let keys = if self.model.remotes.len() > 1 { "↑↓ choose · q quit" } else { "q quit" };
        let right = format!("{} · {keys}", self.clock(self.now));
        let left = "openclaw remote status";
        if self.width < width(left) + width(&right) + 2 {
            return self.look.span(Tone::Quiet, fit(&right, self.width)).into();
        }
        let gap = " ".repeat(self.width - width(left) - width(&right));
        let title = Span::styled(left, Modifier::BOLD);
        Line::from(vec![title, gap.into(), self.look.span(Tone::Quiet, right)])
    }

    fn banner(&self) -> Vec<Line<'static>> {
        let Some(since) = self.model.gone else { return Vec::new() };
        let since = self.clock(since);
        let text = format!(
            "No supervisor runs since {since}; waiting for one. `openclaw remote connect` starts it."
        );
        let lines = wrap(&text, self.width, 2).into_iter();
        lines.map(|line| self.look.span(Tone::Odd, line).into()).collect()
    }

    fn emptiness(&self) -> Vec<Line<'static>> {
        let text = if self.model.is_told {
            "No remotes yet; openclaw remote connect user@host makes the first."
        } else {
            "Asking the supervisor …"
        };
        wrap(text, self.width, 2).into_iter().map(Line::from).collect()
    }

    /// A line that opens a part.
    fn rule(&self, title: &str, is_default: bool) -> Line<'static> {
        let mark = if is_default { " (default)" } else { "" };
        let title = fit(title, self.width.saturating_sub(4 + mark.len()));
        let rest = self.width.saturating_sub(width(&title) + mark.len() + 4);
        Line::from(vec![
            self.look.span(Tone::Quiet, "── "),
            Span::styled(title, Modifier::BOLD),
            self.look.span(Tone::Quiet, format!("{mark} {}", "─".repeat(rest))),
        ])
    }

    /// A line a remote; around the chosen one if there are too many.
    fn list(&self, height: usize) -> Vec<Line<'static>> {
        let remotes = &self.model.remotes;
        let most = (height / 3).max(3).min(remotes.len());
        let first = self.model.chosen.saturating_sub(most / 2).min(remotes.len() - most);
        let longest = remotes.iter().map(|remote| width(&remote.name)).max().unwrap_or(0);
        let columns = Columns::of(self.width, longest);
        let mut lines = Vec::new();
        if height >= 12 {
            lines.push(self.look.span(Tone::Quiet, columns.heading()).into());
        }
        for (remote, index) in remotes.iter().zip(0..).skip(first).take(most) {
            lines.push(self.row(remote, index == self.model.chosen, &columns));
        }
        lines
    }

    fn row(&self, remote: &Remote, is_chosen: bool, columns: &Columns) -> Line<'static> {
        let mark = if is_chosen { "▸ " } else { "  " };
        let name = fit(&remote.name, columns.name);
        let pad = " ".repeat(columns.name.saturating_sub(width(&name)));
        let weight = if is_chosen { Modifier::BOLD } else { Modifier::empty() };
        let name = Span::styled(format!("{name}{pad}"), weight);
        let (tone, sign) = manner(&remote.phase);
        let phase = format!("  {sign} {:<12}", spoken(&remote.phase));
        let mut rest = String::new();
        if columns.age {
            rest.push_str(&format!("{:>11}", self.in_phase(remote)));
        }
        if columns.trip {
            let trip = remote.round_trips.last().copied().or(remote.proof.as_ref().map(|p| p.rtt));
            let trip = trip.filter(|_| is_up(&remote.phase)).map(trip_text);
            rest.push_str(&format!("{:>10}", trip.unwrap_or_else(|| "–".to_owned())));
        }
        let is_down = remote.phase == "down";
        let or_none = |text: String| if is_down { "–".to_owned() } else { text };
        if columns.rates {
            let (inward, out) = remote.rates(self.now);
            rest.push_str(&format!("{:>12}{:>12}", or_none(rate(inward)), or_none(rate(out))));
        }
        if columns.held {
            rest.push_str(&format!("{:>6}", or_none(remote.held.to_string())));
        }
        Line::from(vec![mark.into(), name, self.look.span(tone, phase), rest.into()])
    }

    /// For how long it has been in its phase.
    pub(super) fn in_phase(&self, remote: &Remote) -> String {
        let ms = remote.since.map(|since| millis(self.now.duration_since(since)));
        ms.map(coarse).unwrap_or_default()
    }

    /// When the remote was out of reach, the last time first.
    fn log(&self, remote: &Remote, most: usize) -> Vec<Line<'static>> {
        let all = self.model.absences.iter().rev();
        let own: Vec<_> = all.filter(|absence| absence.remote == remote.name).take(most).collect();
        if own.is_empty() {
            return vec![self.look.span(Tone::Quiet, "none on record").into()];
        }
        own.into_iter().map(|absence| self.absence(absence)).collect()
    }

    fn absence(&self, absence: &Absence) -> Line<'static> {
        let when = when(absence.from, self.now, &self.model.zone);
        let end = absence.until.unwrap_or(self.now);
        let length = span_ms(millis(end.duration_since(absence.from)));
        let is_over = absence.until.is_some();
        let length = if is_over { length } else { format!("{length} …") };
        let waited = match absence.waited {
            0 => String::new(),
            count => format!(" · {count} waited"),
        };
        let head = format!("{when:>12}{length:>13}");
        let room = self.width.saturating_sub(width(&head) + 2 + width(&waited));
        let text = format!("  {}{waited}", fit(&absence.why, room));
        let head = if is_over { Span::raw(head) } else { self.look.span(Tone::Bad, head) };
        Line::from(vec![head, Span::raw(text)])
    }
}

/// Which columns there is room for.
struct Columns {
    name: usize,
    age: bool,
    trip: bool,
    rates: bool,
    held: bool,
}

impl Columns {
    fn of(width: usize, longest: usize) -> Self {
        let name = longest.clamp(6, 18).min(width.saturating_sub(18).max(6));
        let mut room = width.saturating_sub(2 + name + 16);
        let mut takes = |columns: usize| {
            let has_room = room >= columns;
            room = if has_room { room - columns } else { 0 };
            has_room
        };
        let age = takes(11);
        Self { name, age, trip: takes(10), held: takes(6), rates: takes(24) }
    }

    fn heading(&self) -> String {
        let mut text = format!("  {:<width$}    {:<12}", "remote", "phase", width = self.name);
        let columns = [
            (self.age, "for", 11),
            (self.trip, "trip", 10),
            (self.rates, "in", 12),
            (self.rates, "out", 12),
            (self.held, "held", 6),
        ];
        for (_, title, width) in columns.into_iter().filter(|(is_shown, ..)| *is_shown) {
            text.push_str(&format!("{title:>width$}"));
        }
        text
    }
}

/// A time of today, or a day and a time.
fn when(at: Timestamp, now: Timestamp, zone: &TimeZone) -> String {
    let (at, now) = (at.to_zoned_datetime(zone.clone()), now.to_zoned_datetime(zone.clone()));
    let pattern = if at.date() == now.date() { "%H:%M:%S" } else { "%b %d %H:%M" };
    at.strftime(pattern).to_string()
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
