//! What `config set` is asked for: paths and values out of words, references and batches.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::refusal;
use crate::{
    config::KeyPath,
    problem::{Class, Problem},
};

/// The largest batch file, bytes.
const LARGEST_BATCH: u64 = 8 * 1024 * 1024;

/// One value to be set.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) path: KeyPath,
    pub(super) value: Value,
    /// What OpenClaw calls the way in which the value was given.
    pub(super) mode: &'static str,
}

/// The value that a person typed: JSON alone if `strict`, else JSON5, else the text itself.
pub(super) fn value(text: &str, strict: bool) -> Result<Value, Problem> {
    if strict {
        return serde_json::from_str(text.trim()).map_err(|error| {
            Problem::new(Class::Usage, format!("the value is not valid JSON: {error}"))
                .fix("quote texts as '\"text\"', or leave --strict-json away")
        });
    }
    let Ok(value) = crate::config::parse_json5(text.trim()) else { return Ok(text.into()) };
    // What JSON cannot hold (Infinity, NaN, 1e999) is read as null.
    if holds_null(&value) && !text.contains("null") {
        return Err(Problem::new(
            Class::Usage,
            format!("{text} holds a number that JSON cannot hold"),
        )
        .fix(format!("for the text: '\"{}\"'", text.trim())));
    }
    Ok(value)
}

fn holds_null(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.iter().any(holds_null),
        Value::Object(keys) => keys.values().any(holds_null),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// A reference to a secret that is kept elsewhere; class `usage` if OpenClaw would refuse it.
pub(super) fn reference(source: &str, provider: &str, id: &str) -> Result<Value, Problem> {
    let refused = |why: String| Err(Problem::new(Class::Usage, why));
    let (source, provider, id) = (source.trim(), provider.trim(), id.trim());
    let within = |text: &str, first: fn(u8) -> bool, rest: fn(u8) -> bool, longest: usize| {
        text.bytes().next().is_some_and(first) && text.len() <= longest && text.bytes().all(rest)
    };
    let is_alias = within(
        provider,
        |b| b.is_ascii_lowercase(),
        |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b),
        64,
    );
    if !is_alias {
        return refused(format!(
            "`{provider}` is no name of a provider: small letters, digits, _ and -"
        ));
    }
    let is_id = match source {
        "env" | "store" => within(
            id,
            |b| b.is_ascii_uppercase(),
            |b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_',
            128,
        ),
        "file" => id == "value" || id.starts_with('/'),
        "exec" => {
            within(
                id,
                |b| b.is_ascii_alphanumeric(),
                |b| b.is_ascii_alphanumeric() || b"._:/#-".contains(&b),
                256,
            ) && !id.split('/').any(|part| part == "." || part == "..")
        }
        other => {
            return refused(format!("`{other}` is no source of secrets: env, file, exec or store"));
        }
    };
    if !is_id {
        return refused(format!("`{id}` is no id for a secret of source {source}"));
    }
    Ok(json!({"source": source, "provider": provider, "id": id}))
}

/// The operations of a batch: a list of objects with `path` and one of `value`, `ref`, `provider`.
pub(super) fn batch(text: &str) -> Result<Vec<Operation>, Problem> {
    let wrong = |why: String| Problem::new(Class::Usage, why);
    let entries: Vec<Map<String, Value>> = serde_json::from_str(text)
        .map_err(|error| wrong(format!("the batch is no list of operations in JSON: {error}")))?;
    let entries = entries.into_iter().enumerate();
    entries
        .map(|(i, entry)| {
            one(&entry).map_err(|problem| Problem {
                message: format!("batch[{i}]: {}", problem.message),
                ..problem
            })
        })
        .collect()
}

fn one(entry: &Map<String, Value>) -> Result<Operation, Problem> {
    let wrong = |why: &str| Problem::new(Class::Usage, why);
    let path =
        entry.get("path").and_then(Value::as_str).ok_or_else(|| wrong("`path` is missing"))?;
    let path = refusal::path(path)?;
    let given: Vec<_> =
        ["value", "ref", "provider"].iter().filter_map(|key| entry.get_key_value(*key)).collect();
    let [(kind, given)] = given.as_slice() else {
        return Err(wrong("it needs exactly one of `value`, `ref` and `provider`"));
    };
    let value = match kind.as_str() {
        "ref" => {
            let word = |key: &str| {
                let word = given.get(key).and_then(Value::as_str);
                word.ok_or_else(|| wrong("`ref` needs `source`, `provider` and `id`"))
            };
            reference(word("source")?, word("provider")?, word("id")?)?
        }
        "provider" if !matches!(path.names().as_slice(), ["secrets", "providers", _]) => {
            return Err(wrong("a provider stands at secrets.providers.NAME"));
        }
        _ => (*given).clone(),
    };
    Ok(Operation { path, value, mode: "json" })
}

/// The text of a batch file.
pub(super) fn batch_file(file: &Path) -> Result<String, Problem> {
    let wrong = |why: String| Problem::new(Class::Usage, format!("{}: {why}", file.display()));
    let size = std::fs::metadata(file).map_err(|error| wrong(error.to_string()))?.len();
    if size > LARGEST_BATCH {
        return Err(wrong("larger than 8 MB".to_owned()));
    }
    std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_values_as_people_type_them() {
        for (text, expected) in [
            ("19001", json!(19001)),
            ("0x10", json!(16)),
            ("true", json!(true)),
            ("null", json!(null)),
            ("lan", json!("lan")),
            ("", json!("")),
            ("2h", json!("2h")),
            ("'two words'", json!("two words")),
            ("{a: [1,], 'b': null}", json!({"a": [1], "b": null})),
            ("{broken", json!("{broken")),
            ("ws://127.0.0.1:1", json!("ws://127.0.0.1:1")),
        ] {
            assert_eq!(value(text, false).unwrap(), expected, "{text}");
        }
        for text in ["Infinity", "-NaN", "[1e999]"] {
            assert_eq!(value(text, false).unwrap_err().class, Class::Usage, "{text}");
        }
        assert_eq!(value(" [1] ", true).unwrap(), json!([1]));
        for text in ["lan", "[1,]", "'a'", "{a: 1}", ""] {
            assert_eq!(value(text, true).unwrap_err().class, Class::Usage, "{text}");
        }
    }

    #[test]
    fn refuses_references_that_openclaw_would_refuse() {
        reference("env", "default", "TOKEN_1").unwrap();
        reference("file", "vault-1", "/a/b").unwrap();
        reference("exec", "vault", "a/b#c").unwrap();
        for (source, provider, id) in [
            ("env", "default", "token"),
            ("env", "Default", "TOKEN"),
            ("env", "", "TOKEN"),
            ("file", "default", "a/b"),
            ("exec", "default", "a/../b"),
            ("web", "default", "TOKEN"),
        ] {
            assert!(reference(source, provider, id).is_err(), "{source} {provider} {id}");
        }
    }

    #[test]
    fn reads_a_batch_and_names_the_entry_that_is_wrong() {
        let text = r#"[{"path": "a.b", "value": null},
            {"path": "c", "ref": {"source": "env", "provider": "default", "id": "X"}}]"#;
        assert_eq!(batch(text).unwrap().len(), 2);
        for (text, why) in [
            ("{}", "no list"),
            (r#"[{"path": "a", "value": 1}, {"value": 1}]"#, "batch[1]: `path`"),
            (r#"[{"path": "a"}]"#, "batch[0]: it needs"),
            (r#"[{"path": "a", "value": 1, "ref": {}}]"#, "batch[0]: it needs"),
            (r#"[{"path": "a", "provider": {}}]"#, "secrets.providers"),
            (r#"[{"path": "a..b", "value": 1}]"#, "batch[0]: `a..b`"),
        ] {
            let message = batch(text).unwrap_err().message;
            assert!(message.contains(why), "{message}");
        }
    }
}
