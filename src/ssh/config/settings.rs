//! What holds for one host, and where each value was said.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use super::{
    forward::Forward,
    keywords::{self, Keyword},
};

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// An option of the command.
    CommandLine,
    /// A line of a file.
    File {
        /// The file as it was found.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// Nobody said anything.
    Default,
}

impl Origin {
    /// The place of `line` in the file at `path`.
    pub(crate) fn file(path: &Path, line: usize) -> Self {
        Self::File { path: path.to_owned(), line }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => out.write_str("the command line"),
            Self::File { path, line: 0 } => write!(out, "{}", path.display()),
            Self::File { path, line } => write!(out, "{} line {line}", path.display()),
            Self::Default => out.write_str("the default"),
        }
    }
}

/// A keyword that somebody set and that is not honoured, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// As ssh_config(5) spells it.
    pub(crate) keyword: String,
    /// What it was set to.
    pub(crate) value: String,
    /// Where.
    pub(crate) origin: Origin,
    /// What we do instead, and why: a sentence.
    pub(crate) reason: &'static str,
}

/// Something that makes a configuration unusable for a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Mistake {
    /// `None` on the command line.
    pub(crate) file: Option<PathBuf>,
    /// Counted from 1; 0 if it is about the whole file.
    pub(crate) line: usize,
    /// The keyword, as it was written; empty if it is about the line or the file.
    pub(crate) keyword: String,
    /// What is wrong, and what would be right: a lower-case fragment.
    pub(crate) what: String,
    /// Whether it may pass without a person: a name that nobody knows now, a command that is late.
    pub(crate) is_passing: bool,
}

impl Mistake {
    /// A mistake about `keyword`, said at `origin`.
    pub(crate) fn new(origin: &Origin, keyword: &str, what: impl Into<String>) -> Self {
        let (file, line) = match origin {
            Origin::File { path, line } => (Some(path.clone()), *line),
            Origin::CommandLine | Origin::Default => (None, 0),
        };
        let keyword = keyword.escape_debug().to_string();
        Self { file, line, keyword, what: what.into(), is_passing: false }
    }

    /// The same, which may pass by itself.
    pub(crate) fn passing(origin: &Origin, keyword: &str, what: impl Into<String>) -> Self {
        Self { is_passing: true, ..Self::new(origin, keyword, what) }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.line) {
            (None, _) => out.write_str("command line: ")?,
            (Some(path), 0) => write!(out, "{}: ", path.display())?,
            (Some(path), line) => write!(out, "{} line {line}: ", path.display())?,
        }
        match self.keyword.as_str() {
            "" => out.write_str(&self.what),
            keyword => write!(out, "{keyword}: {}", self.what),
        }
    }
}

/// One value of a keyword.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Said {
    /// Its words, normalised: `yes` for `true`, seconds for `5m`.
    pub(crate) words: Vec<String>,
    /// Where it stands.
    pub(crate) origin: Origin,
    /// Whether that is the user's own file or the command line, not the machine's file.
    pub(crate) users_own: bool,
}

/// Values by keyword: one for most, several for the cumulative ones.
pub(super) type Values = BTreeMap<&'static str, Vec<Said>>;

/// What holds for one host; made by [`resolve`](fn@super::resolve).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The host as it was asked for.
    pub(super) asked: String,
    /// As `ssh -G` shows them: some with their tokens.
    pub(super) shown: Values,
    /// With every token filled in.
    pub(super) filled: Values,
    pub(super) notes: Vec<Note>,
}

impl Settings {
    /// The value of a keyword that takes one, tokens filled in, defaults included.
    ///
    /// Flags are `yes` or `no`, times are seconds or `none`, names of choices are in lower case.
    /// `None` if nothing was said and there is no default, or if what was said means "nothing".
    pub(crate) fn word(&self, keyword: &str) -> Option<&str> {
        self.said(keyword)?.words.first().map(String::as_str)
    }

    /// Whether a flag is set; false for what is no flag.
    pub(crate) fn is_yes(&self, keyword: &str) -> bool {
        self.word(keyword) == Some("yes")
    }

    /// A number or a time in seconds; `None` for `none`.
    pub(crate) fn number(&self, keyword: &str) -> Option<u64> {
        self.word(keyword)?.parse().ok()
    }

    /// The words of a keyword that takes several on its line; none for `none`.
    pub(crate) fn words(&self, keyword: &str) -> Vec<String> {
        let words = self.said(keyword).map(|said| said.words.clone()).unwrap_or_default();
        if words.len() == 1 && words.first().is_some_and(|word| word.eq_ignore_ascii_case("none")) {
            return Vec::new();
        }
        words
    }

    /// Every value of a cumulative keyword, in order, each with where it was said.
    pub(crate) fn all(&self, keyword: &str) -> &[Said] {
        self.values(keyword).map_or(&[], Vec::as_slice)
    }

    /// The forwards of `LocalForward`, `RemoteForward` or `DynamicForward`, in order.
    pub(crate) fn forwards(&self, keyword: &str) -> Vec<(Forward, Origin)> {
        self.all(keyword)
            .iter()
            .filter_map(|said| Some((Forward::of_words(&said.words)?, said.origin.clone())))
            .collect()
    }

    /// Where the value of a keyword was said; for a cumulative one the first.
    pub(crate) fn origin(&self, keyword: &str) -> Option<&Origin> {
        self.said(keyword).map(|said| &said.origin)
    }

    /// Keywords that somebody set and that are not honoured.
    pub(crate) fn notes(&self) -> &[Note] {
        &self.notes
    }

    fn said(&self, keyword: &str) -> Option<&Said> {
        self.values(keyword)?.first()
    }

    fn values(&self, keyword: &str) -> Option<&Vec<Said>> {
        let Keyword { name, .. } = keywords::find(keyword)?;
        self.filled.get(name)
    }
}
