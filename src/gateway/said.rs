//! What strangers say of themselves, as a line of the log may have it.

/// The most characters of a word that a stranger chose: a device's id has 64.
const LONGEST: usize = 80;

/// `text` as one short word: what could break a line, move a cursor or fill a disk is not in it.
pub(super) fn word(text: &str) -> String {
    let visible = |letter: char| if letter.is_ascii_graphic() { letter } else { '?' };
    let mut letters = text.chars();
    let mut word: String = letters.by_ref().take(LONGEST).map(visible).collect();
    if letters.next().is_some() {
        word.push('…');
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stranger_says_is_one_short_word() {
        assert_eq!(word("openclaw-tui"), "openclaw-tui");
        assert_eq!(word("a\nb\u{1b}[2J c\u{202e}"), "a?b?[2J?c?");
        assert_eq!(word(&"é".repeat(1_000)).chars().count(), LONGEST + 1);
    }
}
