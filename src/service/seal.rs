//! A seal at the end of what we write: only a file that nobody changed since is ours to remove.
//!
//! It guards against mistakes and not against malice; a checksum can be forged.

use ring::digest::{SHA256, digest};

use super::Part;

/// What the seal begins with; the group of commands that wrote the file stands in it.
const MARKS: [(Part, &str); 2] = [
    (Part::Remotes, "openclaw-remote-install sha256="),
    (Part::Gateway, "openclaw-gateway-install sha256="),
];

/// Whose a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Ours, as we wrote it.
    Ours,
    /// Ours, and changed by somebody since.
    Edited,
    /// Somebody else's.
    Foreign,
}

/// `text` with the seal as its last line, between the marks of a comment.
pub(super) fn seal(part: Part, text: &str, comment: (&str, &str)) -> String {
    let (open, close) = comment;
    format!("{text}{open} {}{}{close}\n", mark(part), sum(text))
}

fn mark(part: Part) -> &'static str {
    MARKS.iter().find(|(known, _)| *known == part).map_or("", |(_, mark)| mark)
}

/// Whose the file with this content is.
pub(crate) fn judge(content: &str) -> Owner {
    let parts = MARKS.iter().find_map(|(_, mark)| content.rsplit_once(mark));
    let Some((before, after)) = parts else { return Owner::Foreign };
    // The seal's own line begins after the text that it is the sum of.
    let text = before.rfind('\n').map_or("", |end| before.get(..=end).unwrap_or_default());
    let rest = after.strip_prefix(sum(text).as_str()).map(str::trim);
    let is_whole = matches!(rest, Some("" | "-->"));
    if is_whole { Owner::Ours } else { Owner::Edited }
}

fn sum(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_changed_is_no_longer_ours_to_remove() {
        for comment in [("#", ""), ("<!--", " -->")] {
            let sealed = seal(Part::Gateway, "[Unit]\na=b\n", comment);
            assert_eq!(judge(&sealed), Owner::Ours);
            assert_eq!(judge(&seal(Part::Remotes, "[Unit]\na=b\n", comment)), Owner::Ours);
            assert_eq!(judge(&sealed.replace("a=b", "a=c")), Owner::Edited);
            assert_eq!(judge(&format!("{sealed}more=1\n")), Owner::Edited);
            assert_eq!(judge(&format!("first=1\n{sealed}")), Owner::Edited);
        }
        assert_eq!(judge("[Unit]\na=b\n"), Owner::Foreign);
        assert_eq!(judge(""), Owner::Foreign);
        assert_eq!(judge("# openclaw-remote-install sha256="), Owner::Edited);
    }
}
