//! One pass over the values of `openclaw.json`: each is taken out by its key, and a wrong one is noted
//! with its path.

#[cfg(test)]
use std::{cell::RefCell, collections::BTreeSet};

use serde_json::{Map, Value};

use super::SecretInput;
use crate::{config::issue::Issue, secret::Secret};

/// An object of the file and the path that leads to it. Keys are taken out as they are read; what
/// is left is unknown.
pub(super) struct Section {
    path: String,
    pub(super) keys: Map<String, Value>,
}

impl Section {
    pub(super) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value at `key`, `null` counting as absent.
    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        #[cfg(test)]
        ASKED.with_borrow_mut(|asked| asked.insert(self.path(key)));
        self.keys.remove(key).filter(|value| !value.is_null())
    }
}

#[cfg(test)]
thread_local! {
    /// Every path that a walk of this thread asked for.
    pub(super) static ASKED: RefCell<BTreeSet<String>> = RefCell::default();
}

/// One pass over the file.
pub(super) struct Walk<'a> {
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    pub(super) issues: Vec<Issue>,
    pub(super) unknown: Vec<String>,
}

impl Walk<'_> {
    pub(super) fn root(&mut self, value: Value) -> Section {
        let keys = if let Value::Object(keys) = value {
            keys
        } else {
            self.issues
                .push(Issue::new("", format!("must hold an object, found {}", found(&value))));
            Map::new()
        };
        Section { path: String::new(), keys }
    }

    /// Reads the object at `key` of `section`; the default without one.
    pub(super) fn within<T: Default>(
        &mut self,
        section: &mut Section,
        key: &str,
        read: impl FnOnce(&mut Self, &mut Section) -> T,
    ) -> T {
        let Some(mut inner) = self.section(section, key) else { return T::default() };
        let value = read(self, &mut inner);
        self.unknown.extend(inner.keys.keys().map(|key| inner.path(key)));
        value
    }

    pub(super) fn section(&mut self, section: &mut Section, key: &str) -> Option<Section> {
        let path = section.path(key);
        let value = section.take(key)?;
        let Value::Object(keys) = value else { return self.wrong(&path, "an object", &value) };
        Some(Section { path, keys })
    }

    pub(super) fn wrong<T>(&mut self, path: &str, expected: &str, value: &Value) -> Option<T> {
        self.issues.push(Issue::new(path, format!("must be {expected}, found {}", found(value))));
        None
    }

    pub(super) fn port(&mut self, section: &mut Section, key: &str) -> Option<u16> {
        let value = section.take(key)?;
        let number =
            value.as_u64().or_else(|| match self.substituted(&section.path(key), &value) {
                Some(text) => text.trim().parse().ok(),
                None => None,
            });
        match number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0) {
            // A number written as text is right only where it came from the environment.
            Some(port) if value.is_number() || value.as_str().is_some_and(|t| t.contains("${")) => {
                Some(port)
            }
            Some(_) | None => self.wrong(&section.path(key), "1..65535", &value),
        }
    }

    pub(super) fn flag(&mut self, section: &mut Section, key: &str) -> Option<bool> {
        let value = section.take(key)?;
        match value.as_bool() {
            Some(flag) => Some(flag),
            None => self.wrong(&section.path(key), "true or false", &value),
        }
    }

    pub(super) fn text(&mut self, section: &mut Section, key: &str) -> Option<String> {
        let path = section.path(key);
        let value = section.take(key)?;
        self.text_at(&path, &value)
    }

    pub(super) fn texts(&mut self, section: &mut Section, key: &str) -> Vec<String> {
        let path = section.path(key);
        let Some(value) = section.take(key) else { return Vec::new() };
        let Some(items) = value.as_array() else {
            return self.wrong(&path, "a list of texts", &value).unwrap_or_default();
        };
        let items = items.iter().enumerate();
        items.filter_map(|(i, item)| self.text_at(&format!("{path}[{i}]"), item)).collect()
    }

    pub(super) fn text_at(&mut self, path: &str, value: &Value) -> Option<String> {
        if value.is_string() {
            self.substituted(path, value)
        } else {
            self.wrong(path, "text", value)
        }
    }

    pub(super) fn choice<T: Copy>(
        &mut self,
        section: &mut Section,
        key: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let value = section.take(key)?;
        let path = section.path(key);
        let is_text = value.is_string();
        let chosen = if is_text { self.substituted(&path, &value)?.into() } else { value };
        match choices.iter().find(|(name, _)| chosen == *name) {
            Some((_, choice)) => Some(*choice),
            None => {
                let message = format!("must be {}, found {}", listed(choices), found(&chosen));
                let allowed_values = choices.iter().map(|(name, _)| (*name).to_owned()).collect();
                self.issues.push(Issue { allowed_values, ..Issue::new(path, message) });
                None
            }
        }
    }

    /// A plain string, `${NAME}` or a SecretRef (`{source, provider, id}`).
    pub(super) fn secret(&mut self, section: &mut Section, key: &str) -> Option<SecretInput> {
        let path = section.path(key);
        match section.take(key)? {
            Value::String(text) => match substitute(&text, self.variable) {
                Ok(text) if text.is_empty() => None,
                Ok(text) => Some(SecretInput::Known(Secret::new(text))),
                Err(name) => Some(SecretInput::Unresolved { path, reason: unset(&name) }),
            },
            Value::Object(reference) => Some(self.reference(path, &reference)),
            // The value may be a secret typed wrongly: only its kind is told.
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) => {
                let kind = kind(&other);
                let message = format!("must be text or a reference, found {kind}");
                self.issues.push(Issue::new(path, message));
                None
            }
        }
    }

    pub(super) fn reference(
        &mut self,
        path: String,
        reference: &Map<String, Value>,
    ) -> SecretInput {
        let word = |key: &str| reference.get(key).and_then(Value::as_str);
        match (word("source"), word("id")) {
            (Some("env"), Some(name)) => match (self.variable)(name).filter(|v| !v.is_empty()) {
                Some(text) => SecretInput::Known(Secret::new(text)),
                None => SecretInput::Unresolved { path, reason: unset(name) },
            },
            (Some(source), Some(_)) => SecretInput::Unresolved {
                path,
                reason: format!("references to source `{source}` are not followed here"),
            },
            _ => {
                self.issues.push(Issue::new(&*path, "a reference needs `source` and `id`"));
                SecretInput::Unresolved { path, reason: "the reference is incomplete".to_owned() }
            }
        }
    }

    pub(super) fn substituted(&mut self, path: &str, value: &Value) -> Option<String> {
        match substitute(value.as_str()?, self.variable) {
            Ok(text) => Some(text),
            Err(name) => {
                self.issues.push(Issue::new(path, unset(&name)));
                None
            }
        }
    }
}

/// `text` with each `${NAME}` replaced; `$${NAME}` stands for the text `${NAME}`. The error is the
/// name of a variable that is not set.
pub(super) fn substitute(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}').filter(|(name, _)| is_variable(name))
        else {
            result.push_str(before);
            result.push_str("${");
            rest = after;
            continue;
        };
        if let Some(literal) = before.strip_suffix('$') {
            result.push_str(literal);
            result.push_str("${");
            result.push_str(name);
            result.push('}');
        } else {
            result.push_str(before);
            match variable(name).filter(|value| !value.is_empty()) {
                Some(value) => result.push_str(&value),
                None => return Err(name.to_owned()),
            }
        }
        rest = behind;
    }
    result.push_str(rest);
    Ok(result)
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase() || first == '_')
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

pub(super) fn unset(name: &str) -> String {
    format!("the environment variable {name} is not set")
}

fn listed<T>(choices: &[(&str, T)]) -> String {
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    format!("one of {}", names.join(", "))
}

/// A wrong value as the message shows it: short ones as they are, others by their kind.
pub(super) fn found(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() <= 40 => format!("{text:?}"),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            kind(value).to_owned()
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
