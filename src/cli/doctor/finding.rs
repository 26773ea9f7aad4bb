//! One thing that a person should know. Pure.

use std::path::PathBuf;

use serde_json::{Value, json};

/// How bad it is, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// Something is open to others, or does not work.
    Error,
    /// Something may go wrong, or is weaker than it should be.
    Warning,
    /// Good to know.
    Note,
}

impl Severity {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// What `--fix` may do about it, without asking and without taking anything away from anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mend {
    /// Take away what the mode gives to others.
    Narrow {
        /// The file or folder.
        path: PathBuf,
        /// The bits that may stay.
        mode: u32,
    },
    /// Empty the lock of a process that is gone.
    Unlock(PathBuf),
    /// Put a new token in the place of this one; only when asked for, since clients have the old.
    Renew(PathBuf),
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// Which check it is of; stays the same from version to version.
    pub(super) check: &'static str,
    pub(super) severity: Severity,
    /// What was found.
    pub(super) what: String,
    /// Why that matters.
    pub(super) why: String,
    /// What to type.
    pub(super) fix: String,
    pub(super) mend: Option<Mend>,
    /// What `--fix` did, once it did.
    pub(super) mended: Option<String>,
}

impl Finding {
    pub(super) fn new(check: &'static str, severity: Severity, what: impl Into<String>) -> Self {
        let (why, fix) = (String::new(), String::new());
        Self { check, severity, what: what.into(), why, fix, mend: None, mended: None }
    }

    pub(super) fn why(self, why: impl Into<String>) -> Self {
        Self { why: why.into(), ..self }
    }

    pub(super) fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    pub(super) fn mend(self, mend: Mend) -> Self {
        Self { mend: Some(mend), ..self }
    }

    /// Whether a new token was made for it.
    pub(super) fn is_renewed(&self) -> bool {
        self.mended.is_some() && matches!(self.mend, Some(Mend::Renew(_)))
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "check": self.check, "severity": self.severity.word(), "what": self.what,
            "why": self.why, "fix": self.fix, "fixable": self.mend.is_some(),
            "fixed": self.mended,
        })
    }
}

/// The exit code: 0 when nothing of error severity is left, so that a script may go on after a
/// warning; 1 otherwise. A check that could not be made is a warning, not a success by silence.
pub(super) fn exit_code(findings: &[Finding]) -> u8 {
    let is_left = |it: &Finding| it.severity == Severity::Error && it.mended.is_none();
    u8::from(findings.iter().any(is_left))
}

/// The last line for people.
pub(super) fn summary(findings: &[Finding]) -> String {
    let left: Vec<&Finding> = findings.iter().filter(|it| it.mended.is_none()).collect();
    let count = |severity, one: &str| {
        let many = left.iter().filter(|it| it.severity == severity).count();
        (many > 0).then(|| format!("{many} {one}{}", if many == 1 { "" } else { "s" }))
    };
    let counts = [
        count(Severity::Error, "error"),
        count(Severity::Warning, "warning"),
        count(Severity::Note, "note"),
    ];
    let mended = findings.len() - left.len();
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    let mut text = match (counts.is_empty(), mended) {
        (true, 0) => "nothing found that is unsafe or broken".to_owned(),
        (true, _) => format!("all of {mended} mended"),
        (false, 0) => counts.join(", "),
        (false, _) => format!("{mended} mended, {} left", counts.join(", ")),
    };
    let is_easy = |it: &&&Finding| matches!(&it.mend, Some(Mend::Narrow { .. } | Mend::Unlock(_)));
    match left.iter().filter(is_easy).count() {
        0 => {}
        easy => text.push_str(&format!("; `openclaw doctor --fix` mends {easy}")),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_error_that_is_left_fails_the_command() {
        let of = |severity| Finding::new("x", severity, "what");
        assert_eq!(exit_code(&[]), 0);
        assert_eq!(exit_code(&[of(Severity::Warning), of(Severity::Note)]), 0);
        assert_eq!(exit_code(&[of(Severity::Warning), of(Severity::Error)]), 1);
        let mended = Finding { mended: Some("done".to_owned()), ..of(Severity::Error) };
        assert_eq!(exit_code(std::slice::from_ref(&mended)), 0);
        assert_eq!(summary(&[]), "nothing found that is unsafe or broken");
        assert_eq!(summary(&[of(Severity::Error), of(Severity::Error)]), "2 errors");
        assert_eq!(summary(std::slice::from_ref(&mended)), "all of 1 mended");
        let lock = of(Severity::Note).mend(Mend::Unlock("/x".into()));
        let text = summary(&[mended, lock]);
        assert_eq!(text, "1 mended, 1 note left; `openclaw doctor --fix` mends 1");
    }
}
