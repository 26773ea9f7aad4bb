//! One thing that is wrong in `openclaw.json`, and where.

use std::fmt;

use serde::Serialize;

/// What a problem of the whole file has for a path.
const ROOT: &str = "<root>";

/// One thing that is wrong; under `--json` an entry of `issues` or `warnings`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Issue {
    /// Where: keys joined by dots, `<root>` for the whole file.
    pub(crate) path: String,
    /// What is wrong, without a secret in it.
    pub(crate) message: String,
    /// What would be right, where it is one of a few words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) allowed_values: Vec<String>,
    /// What to type, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

impl Issue {
    /// An issue at `path`, the whole file for an empty one.
    pub(crate) fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        let path = Some(path.into()).filter(|path| !path.is_empty());
        let path = path.unwrap_or_else(|| ROOT.to_owned());
        Self { path, message: message.into(), allowed_values: Vec::new(), fix: None }
    }
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, message, fix, .. } = self;
        if path != ROOT {
            write!(f, "{path}: ")?;
        }
        f.write_str(message)?;
        fix.as_ref().map_or(Ok(()), |fix| write!(f, "; try: {fix}"))
    }
}
