//! What stands in a text that is or may become `openclaw.json`: its values, every issue, every warning.
//!
//! The file is walked rather than deserialised: a walk can name each wrong value by its path and
//! go on, and it keeps its hands off what it does not know.

use std::{
    cell::RefCell,
    io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{
    OpenClaw, forms,
    sections::{gateway, logging},
    walk::{Walk, substitute, unset},
};
use crate::{
    config::{
        Paths,
        include::{self, Finder},
        issue::Issue,
        syntax,
    },
    problem::{Class, Problem},
};

/// What stands in the file and in those that it includes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Review {
    /// The part that we act on; defaults where there are issues.
    pub(crate) config: OpenClaw,
    /// Everything, with variables filled in as far as they are set.
    pub(crate) whole: Value,
    /// What is wrong.
    pub(crate) issues: Vec<Issue>,
    /// What leads nowhere or lets nobody in, where that is no error by itself.
    pub(crate) warnings: Vec<Issue>,
    /// Keys of the sections that we read which mean nothing here.
    pub(crate) unknown: Vec<String>,
    /// The files that it includes, as far as they were found.
    pub(crate) parts: Vec<PathBuf>,
}

/// What a file may refer to.
pub(in crate::config) struct World<'a> {
    /// A variable of the environment.
    pub(in crate::config) variable: &'a dyn Fn(&str) -> Option<String>,
    /// A file for `$include`.
    pub(in crate::config) find: Finder<'a>,
}

impl Review {
    /// Reads `text`, the content of `file`.
    pub(in crate::config) fn of(text: &str, file: &Path, world: &World<'_>) -> Self {
        let value = match syntax::parse(text) {
            Ok(value) => value,
            Err(error) => {
                let issues = vec![Issue::new("", format!("not valid JSON5: {error}"))];
                return Self { issues, ..Self::default() };
            }
        };
        let parts = RefCell::new(Vec::new());
        let find = |from: &Path, name: &str| {
            let found = (world.find)(from, name)?;
            parts.borrow_mut().push(found.0.clone());
            Ok(found)
        };
        let (mut whole, issues) = include::resolve(value, file, &find);
        let inline = whole.pointer("/env/vars").cloned().unwrap_or_default();
        let variable = |name: &str| {
            let set = (world.variable)(name).filter(|value| !value.is_empty());
            set.or_else(|| inline.get(name).and_then(Value::as_str).map(str::to_owned))
        };
        let mut walk = Walk { variable: &variable, issues, unknown: Vec::new() };
        let mut root = walk.root(whole.clone());
        let gateway = walk.within(&mut root, "gateway", gateway);
        let logging = walk.within(&mut root, "logging", logging);
        walk.unknown.extend(root.keys.keys().cloned());
        walk.issues.extend(forms::sections(&whole));
        let Walk { issues, unknown, .. } = walk;
        let mut warnings = Vec::new();
        fill_in(&mut whole, "", &variable, &mut warnings);
        warnings.extend(forms::doubts(&gateway));
        warnings.retain(|warning| issues.iter().all(|issue| issue.path != warning.path));
        let (config, parts) = (OpenClaw { gateway, logging }, parts.into_inner());
        Self { config, whole, issues, warnings, unknown, parts }
    }

    /// Reads the file, `None` without one; class `config` if that fails.
    pub(crate) fn load(paths: &Paths) -> Result<Option<Self>, Problem> {
        let Some(text) = read(&paths.config)? else { return Ok(None) };
        Ok(Some(Self::of_this_machine(&text, &paths.config)))
    }

    /// The same of a text that may become the file.
    pub(in crate::config) fn of_this_machine(text: &str, file: &Path) -> Self {
        let roots = std::env::var_os("OPENCLAW_INCLUDE_ROOTS");
        let find = include::finder(file, roots.as_deref());
        let world = World { variable: &|name| std::env::var(name).ok(), find: &find };
        Self::of(text, file, &world)
    }

    /// What is said of keys below `gateway` that mean nothing here: misspelt ones, and those of
    /// OpenClaw's that we do not act on.
    pub(crate) fn strangers(&self) -> Vec<Issue> {
        let below = self.unknown.iter().filter(|key| key.starts_with("gateway."));
        below
            .map(|key| Issue::new(key, "means nothing to this program; it is kept as it is"))
            .collect()
    }

    /// All issues as one problem, class `config`.
    pub(crate) fn problem(&self, file: &Path) -> Option<Problem> {
        let shown = file.display();
        let lines: Vec<_> = self.issues.iter().map(ToString::to_string).collect();
        let message = match lines.as_slice() {
            [] => return None,
            [one] => format!("{shown}: {one}"),
            many => format!("{shown} has {} problems:\n  {}", many.len(), many.join("\n  ")),
        };
        Some(Problem::new(Class::Config, message).fix(format!("edit {shown}")))
    }

    /// The configuration; all issues as one problem if there are any.
    pub(super) fn checked(self, file: &Path) -> Result<OpenClaw, Problem> {
        if !self.unknown.is_empty() {
            tracing::debug!(keys = self.unknown.join(", "), "keys of openclaw.json not used here");
        }
        match self.problem(file) {
            Some(problem) => Err(problem),
            None => Ok(self.config),
        }
    }
}

/// Fills in the variables in every text of `value`; one that is not set stays, and is a warning.
fn fill_in(
    value: &mut Value,
    path: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<Issue>,
) {
    match value {
        Value::String(text) => match substitute(text, variable) {
            Ok(filled) => *text = filled,
            Err(name) => warnings.push(Issue::new(path, unset(&name))),
        },
        Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                fill_in(item, &format!("{path}[{i}]"), variable, warnings);
            }
        }
        Value::Object(keys) => {
            for (key, value) in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                fill_in(value, &path, variable, warnings);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The text of the file, `None` without one.
pub(in crate::config) fn read(file: &Path) -> Result<Option<String>, Problem> {
    match std::fs::read(file) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => {
                Err(Problem::new(Class::Config, format!("{}: not text in UTF-8", file.display())))
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Problem::new(Class::Config, format!("cannot read {}: {error}", file.display()))
                .fix(format!("ls -ld {}", file.parent().unwrap_or(file).display()))
                .denied(&error))
        }
    }
}
