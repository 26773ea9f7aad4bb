//! Matches names against patterns with `*` and `?`, as ssh_config(5) has them. Pure.

/// Whether `pattern` covers all of `name`; letters of another case are other letters.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // Where to go on when the text after the last star turns out not to fit.
    let mut star: Option<(usize, usize)> = None;
    while let Some(byte) = name.get(seen) {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at + 1, seen));
                at += 1;
            }
            Some(wanted) if *wanted == b'?' || wanted == byte => {
                at += 1;
                seen += 1;
            }
            Some(_) | None => {
                let Some((after, from)) = star else { return false };
                star = Some((after, from + 1));
                at = after;
                seen = from + 1;
            }
        }
    }
    pattern.get(at..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_like_those_of_a_shell() {
        let cases = [
            ("*", "", true),
            ("*", "a.b", true),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "aXbYd", false),
            ("*.a.a", "x.a.a.a", true),
            ("?", "", false),
            ("a?", "ab", true),
            ("A.b", "a.b", false),
            ("", "", true),
            ("", "a", false),
            ("a**", "a", true),
            ("a", "ab", false),
        ];
        for (pattern, name, expected) in cases {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }
}
