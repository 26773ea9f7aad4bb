//! JSON5 text to a value, whatever the text is: a person's file, or one from another machine.

use serde_json::Value;

/// How deep objects and lists may stand in each other. The reader calls itself once a level.
const DEEPEST: usize = 100;
/// What some editors put before the first character.
pub(super) const MARK: char = '\u{feff}';

/// The value that `text` stands for; the error says what is wrong and at which line and column.
pub(crate) fn parse(text: &str) -> Result<Value, String> {
    if is_too_deep(text) {
        return Err(format!("more than {DEEPEST} objects and lists inside each other"));
    }
    json5::from_str(text.strip_prefix(MARK).unwrap_or(text)).map_err(|error| error.to_string())
}

/// Whether brackets outside of texts and comments stand deeper than the reader may go.
fn is_too_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            '"' | '\'' => skip_text(&mut rest, character),
            '/' if rest.as_str().starts_with('/') => skip_line(&mut rest),
            '/' if rest.as_str().starts_with('*') => {
                let inside = rest.as_str().get(1..).unwrap_or_default();
                rest = inside.split_once("*/").map_or("", |(_, behind)| behind).chars();
            }
            _ => {}
        }
        if depth > DEEPEST {
            return true;
        }
    }
    false
}

fn skip_text(rest: &mut std::str::Chars<'_>, quote: char) {
    while let Some(character) = rest.next() {
        if character == '\\' {
            rest.next();
        } else if character == quote {
            return;
        }
    }
}

fn skip_line(rest: &mut std::str::Chars<'_>) {
    // The end itself means nothing, whatever it is.
    let _end = rest.find(|character| ['\n', '\r', '\u{2028}', '\u{2029}'].contains(character));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_json5_allows() {
        let text = "\u{feff}// one\n{a: 'b\\'{', \"c\": [0x1F, +1, .5,], /* [ */ $d_1: null,}";
        let value = parse(text).unwrap();
        assert_eq!(value, serde_json::json!({"a": "b'{", "c": [31, 1, 0.5], "$d_1": null}));
    }

    #[test]
    fn refuses_what_json5_does_not_allow() {
        for text in ["", "{a:1 b:2}", "{a-b:1}", "{1:2}", "{a:1,,}", "{a:undefined}", "{a:'x\ny'}"]
        {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_bottomless_file_is_an_error_and_no_overflow() {
        for (open, close) in
            [("[", "]"), ("{a:", "}"), ("['}',", "]"), ("[/*]*/", "]"), ("[//]\n", "]")]
        {
            let deep = |levels| format!("{}1{}", open.repeat(levels), close.repeat(levels));
            parse(&deep(DEEPEST)).unwrap();
            assert!(parse(&deep(DEEPEST + 1)).unwrap_err().contains("inside each other"));
            parse(&deep(200_000)).unwrap_err();
            parse(&open.repeat(200_000)).unwrap_err();
        }
    }
}
