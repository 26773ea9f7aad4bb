//! Words, signs and pictures of the view, cut to the room there is. Pure.

use ratatui::text::Span;

use crate::cli::{
    output::Tone,
    phrases::{bytes, span_ms},
};

/// The height of a bar, in eighths.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// How a phase is meant, and its sign: nothing is told by colour alone.
pub(super) fn manner(phase: &str) -> (Tone, &'static str) {
    match phase {
        "live" => (Tone::Good, "●"),
        "gateway_slow" | "suspect" => (Tone::Odd, "◐"),
        "connecting" | "waiting" => (Tone::Odd, "◌"),
        "gateway_down" | "blocked" => (Tone::Bad, "✕"),
        _ => (Tone::Quiet, "○"),
    }
}

/// Whether a gateway is within reach.
pub(super) fn is_up(phase: &str) -> bool {
    matches!(phase, "live" | "gateway_slow")
}

/// A phase as people say it.
pub(super) fn spoken(phase: &str) -> String {
    phase.replace('_', " ")
}

/// Bars for the last values that there is room for, the highest value a full one.
pub(super) fn picture(values: &[f64], room: usize) -> String {
    let shown = values.get(values.len().saturating_sub(room)..).unwrap_or_default();
    let most = shown.iter().copied().fold(0.0, f64::max);
    let bar = |value: &f64| {
        let share = if most > 0.0 { value / most } else { 0.0 };
        let index = (share * 7.0).round().clamp(0.0, 7.0) as usize;
        BARS.get(index).copied().unwrap_or('▁')
    };
    shown.iter().map(bar).collect()
}

/// A round trip in milliseconds.
pub(super) fn trip_text(ms: f64) -> String {
    if ms < 100.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

/// Bytes a second.
pub(super) fn rate(a_second: u64) -> String {
    format!("{}/s", bytes(a_second))
}

/// A length that is looked at while it grows: whole seconds.
pub(super) fn coarse(ms: u64) -> String {
    if ms < 10_000 { format!("{} s", ms / 1000) } else { span_ms(ms) }
}

/// The columns that `text` takes.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// As much of `text` as fits, with an ellipsis for the rest.
pub(super) fn fit(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut fitted = String::new();
    for character in text.chars() {
        if width(&fitted) + width(character.encode_utf8(&mut [0; 4])) >= room {
            break;
        }
        fitted.push(character);
    }
    if room > 0 {
        fitted.push('…');
    }
    fitted
}

/// `text` in lines of at most `room`, broken at blanks; what does not fit into `most` lines is cut.
pub(super) fn wrap(text: &str, room: usize, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let count = lines.len();
        match lines.last_mut() {
            Some(line) if width(line) + 1 + width(word) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            Some(line) if count >= most => {
                *line = fit(&format!("{line} {word}"), room);
                return lines;
            }
            Some(_) | None => lines.push(fit(word, room)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_to_the_room_there_is() {
        assert_eq!(fit("abcdef", 6), "abcdef");
        assert_eq!(fit("abcdef", 4), "abc…");
        assert_eq!(fit("日本語", 5), "日本…");
        assert_eq!(fit("abc", 0), "");
        assert_eq!(wrap("one two three four", 8, 3), ["one two", "three", "four"]);
        assert_eq!(wrap("one two three four", 8, 2), ["one two", "three f…"]);
        assert_eq!(wrap("unbreakable", 4, 2), ["unb…"]);
    }

    #[test]
    fn the_picture_shows_the_last_values() {
        assert_eq!(picture(&[0.0, 5.0, 10.0], 8), "▁▅█");
        assert_eq!(picture(&[1.0, 2.0, 4.0], 2), "▅█");
        assert_eq!(picture(&[0.0], 8), "▁");
        assert_eq!(picture(&[], 8), "");
    }
}
