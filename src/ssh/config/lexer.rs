//! Takes a configuration file apart: lines, keywords, words. Pure.

/// Blanks between words, as OpenSSH counts them.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// One line that says something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// The keyword as it was written.
    pub(super) keyword: String,
    /// Everything after it, without the blanks around.
    pub(super) rest: &'a str,
}

/// What is wrong with a line as such.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::ssh) enum BadLine {
    #[error("the line holds a NUL byte")]
    Nul,
    #[error("the line is not UTF-8")]
    Encoding,
    #[error("a quote is never closed")]
    Quote,
}

/// The lines of a file that say something, each with its number.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, Result<Line<'_>, BadLine>)> {
    bytes
        .split(|byte| *byte == b'\n')
        .enumerate()
        .filter_map(|(at, line)| Some((at + 1, line_of_bytes(line)?)))
}

/// The line in `bytes`; `None` if it is empty or a comment.
fn line_of_bytes(bytes: &[u8]) -> Option<Result<Line<'_>, BadLine>> {
    let start = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    if start == Some(&b'#') {
        return None;
    }
    if bytes.contains(&0) {
        return Some(Err(BadLine::Nul));
    }
    match str::from_utf8(bytes) {
        Ok(text) => line(text),
        Err(_) => Some(Err(BadLine::Encoding)),
    }
}

/// The line in `text`; `None` if it is empty or a comment.
pub(super) fn line(text: &str) -> Option<Result<Line<'_>, BadLine>> {
    let text = text.trim_end_matches([' ', '\t', '\r', '\n', '\x0c']);
    let (mut keyword, mut rest) = match delimited(text) {
        Ok(parts) => parts,
        Err(bad) => return Some(Err(bad)),
    };
    if keyword.is_empty() {
        (keyword, rest) = match delimited(rest) {
            Ok(parts) => parts,
            Err(bad) => return Some(Err(bad)),
        };
    }
    if keyword.is_empty() || keyword.starts_with('#') {
        return None;
    }
    Some(Ok(Line { keyword, rest: rest.trim_start_matches(BLANKS) }))
}

/// The first word of `text`, and what follows it and its delimiter: blanks, one `=`, or a quote.
fn delimited(text: &str) -> Result<(String, &str), BadLine> {
    let is_end = |c: char| BLANKS.contains(&c) || c == '"' || c == '=';
    let Some((head, delimiter, tail)) = cut(text, is_end) else {
        return Ok((text.to_owned(), ""));
    };
    if delimiter == '"' {
        let (quoted, tail) = tail.split_once('"').ok_or(BadLine::Quote)?;
        return Ok((format!("{head}{quoted}"), tail.trim_start_matches(BLANKS)));
    }
    let tail = tail.trim_start_matches(BLANKS);
    let tail = match tail.strip_prefix('=') {
        Some(after) if delimiter != '=' => after.trim_start_matches(BLANKS),
        Some(_) | None => tail,
    };
    Ok((head.to_owned(), tail))
}

/// `text` before, at and after the first character that `is_end` holds for.
fn cut(text: &str, is_end: impl Fn(char) -> bool) -> Option<(&str, char, &str)> {
    let (at, found) = text.char_indices().find(|(_, c)| is_end(*c))?;
    Some((text.get(..at)?, found, text.get(at + found.len_utf8()..)?))
}

/// The words of `text`: blanks part them, quotes of both kinds join them, `\` takes the meaning of a
/// quote, a blank or itself, and a word that starts with `#` ends them.
pub(in crate::ssh) fn words(text: &str) -> Result<Vec<String>, BadLine> {
    let mut words = Vec::new();
    let mut rest = text.chars().peekable();
    loop {
        while rest.next_if(|c| matches!(c, ' ' | '\t')).is_some() {}
        match rest.peek() {
            None | Some('#') => return Ok(words),
            Some(_) => words.push(word(&mut rest)?),
        }
    }
}

fn word(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, BadLine> {
    let mut word = String::new();
    let mut quote = None;
    while let Some(c) = rest.next_if(|c| quote.is_some() || !matches!(c, ' ' | '\t')) {
        match (c, quote) {
            ('\\', _) => {
                let escaped =
                    |c: &char| matches!(c, '\'' | '"' | '\\') || (quote.is_none() && *c == ' ');
                word.push(rest.next_if(escaped).unwrap_or('\\'));
            }
            ('"' | '\'', None) => quote = Some(c),
            (_, Some(open)) if c == open => quote = None,
            _ => word.push(c),
        }
    }
    if quote.is_some() { Err(BadLine::Quote) } else { Ok(word) }
}

/// The rest of a line that is a command: blanks and `=` in front of it are not part of it.
pub(super) fn command(rest: &str) -> &str {
    rest.trim_start_matches(|c| BLANKS.contains(&c) || c == '=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(String, String)> {
        line(text).map(|line| {
            let line = line.expect("a good line");
            (line.keyword, line.rest.to_owned())
        })
    }

    #[test]
    fn parts_keyword_and_value_however_they_are_joined() {
        for text in
            ["Port 22", "Port=22", "Port = 22", " \tPort\t22\r", "\"Port\" 22 \x0c", "=Port 22"]
        {
            assert_eq!(parts(text), Some(("Port".into(), "22".into())), "{text:?}");
        }
        assert_eq!(parts("Port==22"), Some(("Port".into(), "=22".into())));
        assert_eq!(parts("Port"), Some(("Port".into(), String::new())));
        for text in ["", "  ", "# x", "\t#x", "\r"] {
            assert_eq!(parts(text), None, "{text:?}");
        }
        assert_eq!(line("\"Port 22"), Some(Err(BadLine::Quote)));
    }

    #[test]
    fn splits_words_with_quotes_escapes_and_comments() {
        let cases: &[(&str, &[&str])] = &[
            ("a  b\tc", &["a", "b", "c"]),
            ("\"a b\" 'c d'", &["a b", "c d"]),
            ("a\"b c\"d", &["ab cd"]),
            (r#"a\ b "c\"d" e\f"#, &["a b", "c\"d", "e\\f"]),
            ("a # b", &["a"]),
            ("a#b", &["a#b"]),
            ("\"#a\" b", &["#a", "b"]),
            ("\"\" a", &["", "a"]),
            ("", &[]),
            (r"a\", &["a\\"]),
        ];
        for (text, expected) in cases {
            assert_eq!(&words(text).expect("closed quotes"), expected, "{text:?}");
        }
        assert_eq!(words("\"a"), Err(BadLine::Quote));
        assert_eq!(words("'a\""), Err(BadLine::Quote));
    }

    #[test]
    fn counts_lines_and_passes_over_comments_in_any_encoding() {
        let text = b"# \xff\nPort 22\r\n\nUser \xff\nHost\0 a\n";
        let found: Vec<_> = lines(text).map(|(at, line)| (at, line.map(|l| l.keyword))).collect();
        assert_eq!(
            found,
            [(2, Ok("Port".into())), (4, Err(BadLine::Encoding)), (5, Err(BadLine::Nul))]
        );
    }
}
