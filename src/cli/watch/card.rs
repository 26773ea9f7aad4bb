//! One remote in full, what matters most first. Pure.

use ratatui::text::{Line, Span};

use super::{
    model::{Forward, Remote},
    screen::Sheet,
    text::{coarse, fit, is_up, manner, picture, rate, spoken, trip_text, width, wrap},
};
use crate::cli::{logs::millis, output::Tone, phrases::bytes};

/// Room for the labels.
const LABEL: usize = 10;
/// The widest picture of the round trips.
const PICTURE_MOST: usize = 40;
/// The narrowest one that shows anything.
const PICTURE_LEAST: usize = 8;
/// Lines that a failure and its remedy may take each.
const WRAPPED_MOST: usize = 3;

/// The lines of `remote` on a sheet.
pub(super) fn card(sheet: &Sheet<'_>, remote: &Remote) -> Vec<Line<'static>> {
    let mut card = Card { sheet, lines: Vec::new() };
    card.phase(remote);
    card.failure(remote);
    card.proof(remote);
    card.plain("route", &format!("here → {}", remote.route.join(" → ")));
    card.plain("local", &remote.local);
    card.trips(remote);
    if remote.phase != "down" {
        let (inward, out) = remote.rates(sheet.now);
        let (received, sent) = (bytes(remote.received), bytes(remote.sent));
        card.plain("streams", &format!("{} open, {} held", remote.streams, remote.held));
        card.plain("in", &format!("{:<12} {received} in all", rate(inward)));
        card.plain("out", &format!("{:<12} {sent} in all", rate(out)));
    }
    for forward in &remote.forwards {
        card.forward(forward);
    }
    card.lines
}

struct Card<'a> {
    sheet: &'a Sheet<'a>,
    lines: Vec<Line<'static>>,
}

impl Card<'_> {
    fn room(&self) -> usize {
        self.sheet.width.saturating_sub(LABEL)
    }

    fn push(&mut self, label: &str, spans: Vec<Span<'static>>) {
        let label = self.sheet.look.span(Tone::Quiet, format!("{label:<LABEL$}"));
        self.lines.push(Line::from([vec![label], spans].concat()));
    }

    fn plain(&mut self, label: &str, text: &str) {
        if !text.is_empty() {
            let text = fit(text, self.room());
            self.push(label, vec![text.into()]);
        }
    }

    fn phase(&mut self, remote: &Remote) {
        let (tone, sign) = manner(&remote.phase);
        let mut text = String::new();
        let age = self.sheet.in_phase(remote);
        if !age.is_empty() {
            text.push_str(&format!(" for {age}"));
        }
        match (is_up(&remote.phase), remote.attempts, remote.reconnects) {
            (true, _, 1) => text.push_str(", reconnected once"),
            (true, _, count @ 2..) => text.push_str(&format!(", reconnected {count} times")),
            (false, count @ 1.., _) => text.push_str(&format!(", attempt {count}")),
            (true, _, 0) | (false, 0, _) => {}
        }
        if !remote.stage.is_empty() {
            text.push_str(&format!(": {}", remote.stage));
        }
        let phase = format!("{sign} {}", spoken(&remote.phase));
        let text = fit(&text, self.room().saturating_sub(width(&phase)));
        let phase = self.sheet.look.span(tone, phase);
        self.push("phase", vec![phase, text.into()]);
    }

    fn failure(&mut self, remote: &Remote) {
        let shown = remote.failure.as_ref().filter(|_| remote.phase != "live");
        let Some((message, fix)) = shown else { return };
        let style = self.sheet.look.style(manner(&remote.phase).0);
        for (label, text, style) in
            [("failure", message, style), ("try", fix, ratatui::style::Style::new())]
        {
            for (line, index) in wrap(text, self.room(), WRAPPED_MOST).into_iter().zip(0..) {
                let label = if index == 0 { label } else { "" };
                self.push(label, vec![Span::styled(line, style)]);
            }
        }
    }

    fn proof(&mut self, remote: &Remote) {
        let Some(proof) = &remote.proof else { return };
        let who = match (proof.is_gateway, remote.gateway.as_str()) {
            (true, "") => "gateway answered".to_owned(),
            (true, version) => format!("gateway {version} answered"),
            (false, _) => "SSH answered".to_owned(),
        };
        let age = proof.at.map(|at| millis(self.sheet.now.duration_since(at)));
        let age = age.map(|age| format!("{} ago ", coarse(age))).unwrap_or_default();
        self.plain("proof", &format!("{who} {age}in {}", trip_text(proof.rtt)));
    }

    fn trips(&mut self, remote: &Remote) {
        let Some(last) = remote.round_trips.last().copied() else { return };
        let most = remote.round_trips.iter().copied().fold(0.0, f64::max);
        let least = remote.round_trips.iter().copied().fold(f64::MAX, f64::min);
        let text = format!("  {}  ({} to {})", trip_text(last), trip_text(least), trip_text(most));
        let room = self.room().saturating_sub(width(&text)).min(PICTURE_MOST);
        if room < PICTURE_LEAST {
            return self.plain("trips", &trip_text(last));
        }
        let picture = picture(&remote.round_trips, room);
        self.push("trips", vec![self.sheet.look.span(Tone::Good, picture), text.into()]);
    }

    fn forward(&mut self, forward: &Forward) {
        let (tone, sign) = manner(&forward.phase);
        let (how, tone) = match (forward.failure.as_str(), forward.phase.as_str()) {
            ("", "down") => ("○ opened when first used".to_owned(), Tone::Quiet),
            ("", phase) => {
                let moved = match (forward.received, forward.sent) {
                    (0, 0) => String::new(),
                    (received, sent) => {
                        format!("  {} in, {} out", bytes(received), bytes(sent))
                    }
                };
                (format!("{sign} {}{moved}", spoken(phase)), tone)
            }
            (failure, _) => (format!("✕ {failure}"), Tone::Bad),
        };
        let way = fit(&format!("{} → {}  ", forward.from, forward.to), self.room());
        let how = fit(&how, self.room().saturating_sub(width(&way)));
        let how = self.sheet.look.span(tone, how);
        self.push("forward", vec![way.into(), how]);
    }
}
