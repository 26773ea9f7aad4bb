//! Texts without the secrets in them: those that are known, and what has the form of one. Pure.
//!
//! A second line of defence: nothing logs a secret on purpose, but errors quote what they refuse.

use std::borrow::Cow;

use crate::secret::Secret;

/// What stands for a secret.
pub(super) const MASK: &str = "***";
/// Known secrets shorter than this are not looked for: a password `on` would blacken every line.
const SHORTEST: usize = 6;
/// Ends of names whose values are secrets, without `-` and `_`.
const NAMES: [&str; 9] = [
    "token",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "apikey",
    "privatekey",
    "authorization",
    "cookie",
];
/// Beginnings of what can be nothing but a secret.
const FORMS: [&str; 10] =
    ["sk-", "ghp_", "gho_", "ghs_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "AIza", "eyJ"];
/// Words after which a secret comes, in headers.
const SCHEMES: [&str; 2] = ["bearer", "basic"];
const PEM: (&str, &str) = ("-----BEGIN", "-----END");

/// `text` with `***` in the place of every secret.
pub(super) fn masked<'a>(text: &'a str, known: &[Secret]) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    for secret in known.iter().map(Secret::expose).filter(|secret| secret.len() >= SHORTEST) {
        if text.contains(secret) {
            text = Cow::Owned(text.replace(secret, MASK));
        }
    }
    let bare = without_forms(&without_keys(&text));
    if bare == text { text } else { Cow::Owned(bare) }
}

/// Whether a field of this name holds a secret.
pub(super) fn is_name_of_a_secret(name: &str) -> bool {
    let plain: String =
        name.chars().filter(|c| !matches!(c, '-' | '_')).collect::<String>().to_ascii_lowercase();
    NAMES.iter().any(|end| plain.ends_with(end))
}

/// Without the private keys in PEM.
fn without_keys(text: &str) -> Cow<'_, str> {
    let Some((before, rest)) = text.split_once(PEM.0) else { return Cow::Borrowed(text) };
    let after = rest.split_once(PEM.1).and_then(|(_, end)| end.split_once("-----"));
    let rest = after.map_or(Cow::Borrowed(""), |(_, after)| without_keys(after));
    Cow::Owned(format!("{before}{MASK}{rest}"))
}

/// Without what follows the name of a secret, a scheme of authorization, or has a secret's form.
fn without_forms(text: &str) -> String {
    let mut bare = String::with_capacity(text.len());
    let mut expected = Expected::Nothing;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c| !is_of_a_word(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let gap_end = after.find(is_of_a_word).unwrap_or(after.len());
        let (gap, mut next) = after.split_at(gap_end);
        if word.is_empty() {
            bare.push_str(gap);
        } else {
            let is_scheme = SCHEMES.iter().any(|scheme| word.eq_ignore_ascii_case(scheme));
            let is_secret = expected == Expected::Secret && !is_scheme;
            bare.push_str(if is_secret || has_form(word) { MASK } else { word });
            bare.push_str(gap);
            expected = expected_after(word, is_scheme, gap);
            if gap == ":"
                && word.contains("//")
                && let Some(after) = after_login(next)
            {
                bare.push_str(MASK);
                (next, expected) = (after, Expected::Nothing);
            }
        }
        rest = next;
    }
    bare
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Nothing,
    Secret,
}

fn expected_after(word: &str, is_scheme: bool, gap: &str) -> Expected {
    let assigns = gap.contains(['=', ':']) && !gap.contains([',', ';', '&', '}', ')', '\n']);
    // `invalid type: string "…", expected …`: the text is the client's.
    let quotes = word == "string" && gap.trim_start().starts_with(['"', '\\']);
    if is_scheme || quotes || (assigns && is_name_of_a_secret(word)) {
        Expected::Secret
    } else {
        Expected::Nothing
    }
}

/// What comes after the rest of an address whose `name:` was just read, if a password is in it.
fn after_login(rest: &str) -> Option<&str> {
    let end = rest.find(|c: char| c.is_whitespace() || "\"<>".contains(c)).unwrap_or(rest.len());
    let (address, after) = rest.split_at(end);
    address.contains('@').then_some(after)
}

fn is_of_a_word(c: char) -> bool {
    c.is_alphanumeric() || "-_.~+/%$*@!#|".contains(c)
}

fn has_form(word: &str) -> bool {
    word.len() >= 16 && FORMS.iter().any(|form| word.starts_with(form))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_or_looks_like_a_secret_is_masked() {
        let known = [Secret::new("correct horse"), Secret::new("on")];
        for (text, shown) in [
            ("he said correct horse, twice: correct horse", "he said ***, twice: ***"),
            ("it goes on", "it goes on"),
            ("Authorization: Bearer abc.def-1", "Authorization: Bearer ***"),
            ("authorization: basic YTpi", "authorization: basic ***"),
            (r#"{"token":"abc","port":1}"#, r#"{"token":"***","port":1}"#),
            (r#"{\"password\": \"abc\"}"#, r#"{\"password\": \"***\"}"#),
            ("gateway_token=abc&x=1", "gateway_token=***&x=1"),
            ("ws://h/?token=abc", "ws://h/?token=***"),
            ("https://ann:pass@host/x", "https://ann:***"),
            ("at https://ann:pa:s'/s@host:1/x now", "at https://ann:*** now"),
            ("https://x-access-token:a@host/x is", "https://x-access-token:*** is"),
            ("OPENCLAW_GATEWAY_PASSWORD=abc", "OPENCLAW_GATEWAY_PASSWORD=***"),
            ("key sk-abcdefghijklmnopqr here", "key *** here"),
            ("eyJhbGciOiJIUzI1NiJ9.e30.x", "***"),
            (
                "a -----BEGIN OPENSSH PRIVATE KEY-----\nx\n-----END OPENSSH PRIVATE KEY----- b",
                "a *** b",
            ),
            (
                "invalid type: string \"abc\", expected u64",
                "invalid type: string \"***\", expected u64",
            ),
        ] {
            assert_eq!(masked(text, &known), shown);
        }
    }

    #[test]
    fn what_is_no_secret_stays_as_it_is() {
        for text in [
            "unauthorized: gateway token mismatch",
            "maxTokens: 12, totalTokens=3",
            "listening on 127.0.0.1:18789",
            "live: ws://127.0.0.1:18789 and http://[::1]:9464/metrics",
            "sk-short, eyJ",
            "",
            "ünïcode \u{1f980} = fine",
        ] {
            assert!(matches!(masked(text, &[]), Cow::Borrowed(_)), "{text}");
        }
        assert!(is_name_of_a_secret("api_key") && is_name_of_a_secret("deviceToken"));
        assert!(!is_name_of_a_secret("tokens") && !is_name_of_a_secret("method"));
    }
}
