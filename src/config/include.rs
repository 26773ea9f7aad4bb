//! `$include`: parts of `openclaw.json` that stand in files of their own.
//!
//! One file, or a list of files of which the later wins; the keys beside `$include` win over both.
//! Objects are merged key by key, lists are put one behind the other.

use std::{
    ffi::OsStr,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::Uid;
use serde_json::{Map, Value};

use super::{issue::Issue, syntax};

/// The key.
pub(super) const INCLUDE: &str = "$include";
/// How many files may include one another in a row.
const DEEPEST: usize = 10;
/// The longest name of a file, bytes.
const LONGEST: usize = 4095;
/// The largest file, bytes.
const LARGEST: u64 = 2 * 1024 * 1024;
/// How much one configuration may include in all, bytes: files that include others many times over
/// would multiply.
const LARGEST_IN_ALL: usize = 16 * 1024 * 1024;

/// A file that was found: where it really is, and its text.
pub(super) type Found = (PathBuf, String);
/// Finds a file by its name as written and the file that names it.
pub(super) type Finder<'a> = &'a dyn Fn(&Path, &str) -> Result<Found, String>;

/// `value`, the content of `file`, with everything included; what cannot be is an issue.
pub(super) fn resolve(value: Value, file: &Path, find: Finder<'_>) -> (Value, Vec<Issue>) {
    let mut work = Work { find, issues: Vec::new(), open: vec![file.to_owned()], read: 0 };
    let whole = work.inside(value, "");
    (whole, work.issues)
}

/// The finder of a real file system: below the folder of `config` or one of `roots`, links followed.
pub(super) fn finder(
    config: &Path,
    roots: Option<&OsStr>,
) -> impl Fn(&Path, &str) -> Result<Found, String> {
    let beside = |file: &Path| file.parent().unwrap_or(Path::new("/")).to_owned();
    let named = roots.into_iter().flat_map(std::env::split_paths);
    let roots: Vec<PathBuf> = std::iter::once(beside(config)).chain(named).collect();
    // Whoever has the file has its parts.
    let facts = std::fs::metadata(config);
    let owner = facts.map_or_else(|_| Uid::effective(), |facts| Uid::from_raw(facts.uid()));
    move |from, name| {
        let path = beside(from).join(name);
        let real = path.canonicalize().map_err(|error| format!("cannot read {name}: {error}"))?;
        let mut allowed = roots.iter().filter_map(|root| root.canonicalize().ok());
        if !allowed.any(|root| real.starts_with(root)) {
            return Err(format!(
                "{name} is outside of the folder of openclaw.json and of OPENCLAW_INCLUDE_ROOTS"
            ));
        }
        if std::fs::metadata(&real).is_ok_and(|facts| facts.len() > LARGEST) {
            return Err(format!("{name} is larger than 2 MB"));
        }
        let text = super::file::read(&real, owner).map_err(|problem| problem.message)?;
        Ok((real, text.ok_or_else(|| format!("{name} is not there"))?))
    }
}

struct Work<'a> {
    find: Finder<'a>,
    issues: Vec<Issue>,
    /// The files that we are inside of.
    open: Vec<PathBuf>,
    read: usize,
}

impl Work<'_> {
    fn inside(&mut self, value: Value, path: &str) -> Value {
        match value {
            Value::Object(keys) => self.object(keys, path),
            Value::Array(items) => {
                let items = items.into_iter().enumerate();
                items.map(|(i, item)| self.inside(item, &format!("{path}[{i}]"))).collect()
            }
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) => other,
        }
    }

    fn object(&mut self, mut keys: Map<String, Value>, path: &str) -> Value {
        let below =
            |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        let named = keys.shift_remove(INCLUDE);
        let rest: Map<_, _> = keys
            .into_iter()
            .map(|(key, value)| {
                let value = self.inside(value, &below(&key));
                (key, value)
            })
            .collect();
        let Some(named) = named else { return Value::Object(rest) };
        let included = self.named(&named, path, &below(INCLUDE));
        match included {
            _ if rest.is_empty() => included.unwrap_or(Value::Object(rest)),
            None => Value::Object(rest),
            Some(Value::Object(included)) => merged(Value::Object(included), Value::Object(rest)),
            Some(_) => {
                let message = "there are keys beside it, and the file holds no object";
                self.issues.push(Issue::new(below(INCLUDE), message));
                Value::Object(rest)
            }
        }
    }

    /// The content of the file or files that `named` names.
    fn named(&mut self, named: &Value, path: &str, at: &str) -> Option<Value> {
        let names: Option<Vec<&str>> = match named {
            Value::String(name) => Some(vec![name]),
            Value::Array(names) => names.iter().map(Value::as_str).collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        };
        let Some(names) = names else {
            self.issues.push(Issue::new(at, "must be the name of a file or a list of names"));
            return None;
        };
        let mut whole = None;
        for name in names {
            match self.file(name, path) {
                Ok(value) => whole = Some(whole.map_or(value.clone(), |w| merged(w, value))),
                Err(message) => self.issues.push(Issue::new(at, message)),
            }
        }
        whole
    }

    fn file(&mut self, name: &str, path: &str) -> Result<Value, String> {
        if name.is_empty() || name.contains('\0') || name.len() > LONGEST {
            return Err("is no name of a file".to_owned());
        }
        if self.open.len() > DEEPEST {
            return Err(format!("more than {DEEPEST} files include one another"));
        }
        let from = self.open.last().cloned().unwrap_or_default();
        let (file, text) = (self.find)(&from, name)?;
        if self.open.contains(&file) {
            return Err(format!("{name} includes itself"));
        }
        self.read += text.len();
        if self.read > LARGEST_IN_ALL {
            return Err("the included files are too much in all".to_owned());
        }
        let value =
            syntax::parse(&text).map_err(|error| format!("{name}: not valid JSON5: {error}"))?;
        self.open.push(file);
        let value = self.inside(value, path);
        self.open.pop();
        Ok(value)
    }
}

/// `over` on top of `under`.
fn merged(under: Value, over: Value) -> Value {
    match (under, over) {
        (Value::Object(mut under), Value::Object(over)) => {
            for (key, value) in over {
                let value = match under.get_mut(&key).map(Value::take) {
                    Some(old) => merged(old, value),
                    None => value,
                };
                under.insert(key, value);
            }
            Value::Object(under)
        }
        (Value::Array(mut under), Value::Array(over)) => {
            under.extend(over);
            Value::Array(under)
        }
        (_, over) => over,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find(from: &Path, name: &str) -> Result<Found, String> {
        let text = match name {
            "gateway" => "{port: 1, list: [1], auth: {mode: 'token'}, bind: 'lan'}",
            "more" => "{port: 2, list: [2], auth: {token: 't'}}",
            "nested" => "{inner: {$include: 'gateway'}}",
            "self" => "{a: {$include: 'self'}}",
            "endless" => "{a: {$include: 'endless'}}",
            "broken" => "{a: ",
            "list" => "[1]",
            _ => return Err(format!("cannot read {name}")),
        };
        let file = if name == "endless" { from.join(name) } else { PathBuf::from(name) };
        Ok((file, text.to_owned()))
    }

    fn read(value: Value) -> (Value, String) {
        let (value, issues) = resolve(value, Path::new("openclaw.json"), &find);
        let issues: Vec<_> = issues.iter().map(ToString::to_string).collect();
        (value, issues.join("\n"))
    }

    #[test]
    fn later_files_and_keys_beside_win() {
        let (value, issues) = read(json!({
            "gateway": {"$include": ["gateway", "more"], "bind": "loopback", "list": [3]},
            "other": [{"$include": "nested"}], "all": {"$include": "list"},
        }));
        assert_eq!(issues, "");
        let gateway = json!({"port": 1, "list": [1], "auth": {"mode": "token"}, "bind": "lan"});
        assert_eq!(
            value,
            json!({
                "gateway": {
                    "port": 2, "list": [1, 2, 3], "auth": {"mode": "token", "token": "t"},
                    "bind": "loopback",
                },
                "other": [{"inner": gateway}], "all": [1],
            })
        );
    }

    #[test]
    fn tells_every_file_that_cannot_be_included() {
        let (value, issues) = read(json!({
            "a": {"$include": "missing", "kept": 1}, "b": {"$include": 5}, "c": {"$include": "self"},
            "d": {"$include": ["broken", "gateway"]}, "e": {"$include": "list", "key": 1},
            "f": {"$include": "endless"}, "g": {"$include": ""},
        }));
        assert_eq!(value.pointer("/a/kept"), Some(&json!(1)));
        assert_eq!(value.pointer("/d/port"), Some(&json!(1)));
        let expected = [
            "a.$include: cannot read missing",
            "b.$include: must be the name of a file or a list of names",
            "c.a.$include: self includes itself",
            "d.$include: broken: not valid JSON5: ",
            "e.$include: there are keys beside it, and the file holds no object",
            ".$include: more than 10 files include one another",
            "g.$include: is no name of a file",
        ];
        let lines: Vec<_> = issues.lines().collect();
        assert_eq!(lines.len(), expected.len(), "{issues}");
        for line in expected {
            assert!(issues.contains(line), "{line} in {issues}");
        }
    }

    #[test]
    fn nothing_outside_of_the_folder_is_read() {
        let home = tempfile::tempdir().unwrap();
        let inside = home.path().join("state");
        std::fs::create_dir(&inside).unwrap();
        let write = |path: PathBuf| super::super::file::write(&path, b"{}").unwrap();
        write(inside.join("a.json5"));
        write(home.path().join("secret.json5"));
        std::os::unix::fs::symlink("../secret.json5", inside.join("link.json5")).unwrap();
        let config = inside.join("openclaw.json");
        let find = finder(&config, None);
        find(&config, "./a.json5").unwrap();
        find(&config, "../state/a.json5").unwrap();
        for name in ["../secret.json5", "link.json5", "/etc/passwd"] {
            assert!(find(&config, name).unwrap_err().contains("outside"), "{name}");
        }
        assert!(find(&config, "none.json5").unwrap_err().contains("cannot read none.json5"));
        finder(&config, Some(home.path().as_os_str()))(&config, "../secret.json5").unwrap();
    }
}
