//! The keys that we know as a JSON Schema, and what changed between two readings of the file. Pure.

use serde_json::{Map, Value, json};

use super::keys::{Form, KEYS, Key, is_section};

/// A variable in place of a value, as the file may have it.
const VARIABLE: &str = r"\$\{[A-Z_][A-Z0-9_]*\}";

/// Every key as one schema of draft 7. What it does not name is kept and not checked.
pub(crate) fn whole() -> Value {
    let mut root =
        json!({ "$schema": "http://json-schema.org/draft-07/schema#", "type": "object" });
    for key in KEYS {
        put(&mut root, key.path, schema_of(key));
    }
    root
}

/// Puts a schema at a path below that of an object.
fn put(object: &mut Value, path: &str, schema: Value) {
    let (step, rest) = path.split_once('.').map_or((path, None), |(step, rest)| (step, Some(rest)));
    let Value::Object(object) = object else { return };
    object.entry("type").or_insert_with(|| "object".into());
    let properties = object.entry("properties").or_insert_with(|| Map::new().into());
    let Value::Object(properties) = properties else { return };
    match rest {
        Some(rest) => {
            put(properties.entry(step).or_insert_with(|| Map::new().into()), rest, schema);
        }
        None => {
            properties.insert(step.to_owned(), schema);
        }
    }
}

/// One place of the schema.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Place {
    /// Its path; `.` for the whole file.
    pub(crate) path: String,
    /// Its schema, without what is below it.
    pub(crate) schema: Value,
    /// The keys right below it with their schemas.
    pub(crate) children: Vec<(String, Value)>,
}

/// The schema at `path` without what is below it, and the keys right below it; `.` is the whole
/// file. `None` for a path that we do not know.
pub(crate) fn place(path: &str) -> Option<Place> {
    let whole = whole();
    let path = if path == "." { "" } else { path };
    let mut place = &whole;
    for step in path.split('.').filter(|step| !step.is_empty()) {
        place = place.get("properties")?.get(step)?;
    }
    let mut shallow = place.clone();
    let below = shallow.as_object_mut().and_then(|keys| keys.shift_remove("properties"));
    let children = below.as_ref().and_then(Value::as_object).cloned().unwrap_or_default();
    let children = children.into_iter().collect();
    let path = if path.is_empty() { "." } else { path }.to_owned();
    Some(Place { path, schema: shallow, children })
}

/// The paths at which two readings differ: keys that we know, and the outermost others.
pub(crate) fn changed(old: &Value, new: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    compare(old, new, "", &mut paths);
    paths
}

fn compare(old: &Value, new: &Value, path: &str, paths: &mut Vec<String>) {
    if old == new {
        return;
    }
    let keys = |value: &Value| match value {
        Value::Object(keys) => Some(keys.clone()),
        Value::Null => Some(Map::new()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => None,
    };
    let (Some(before), Some(after)) = (keys(old), keys(new)) else {
        paths.push(path.to_owned());
        return;
    };
    let is_open = path.is_empty() || is_section(path);
    if !is_open {
        paths.push(path.to_owned());
        return;
    }
    let added = after.keys().filter(|key| !before.contains_key(*key));
    for key in before.keys().chain(added) {
        let inner = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let value = |keys: &Map<String, Value>| keys.get(key).cloned().unwrap_or_default();
        compare(&value(&before), &value(&after), &inner, paths);
    }
}

fn schema_of(key: &Key) -> Value {
    let variable = json!({ "type": "string", "pattern": VARIABLE });
    let mut schema = match key.form {
        Form::Text => json!({ "type": "string" }),
        Form::Choice(words) => json!({ "anyOf": [{ "type": "string", "enum": words }, variable] }),
        Form::Flag => json!({ "type": "boolean" }),
        Form::Port => {
            let number = json!({ "type": "integer", "minimum": 1, "maximum": 65_535 });
            json!({ "anyOf": [number, variable] })
        }
        Form::Number(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Form::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Form::Secret => {
            let word = json!({ "type": "string" });
            let reference = json!({
                "type": "object", "required": ["source", "id"],
                "properties": { "source": word, "provider": word, "id": word },
            });
            json!({ "anyOf": [word, reference] })
        }
        Form::Any => json!({}),
    };
    if let Some(keys) = schema.as_object_mut() {
        keys.insert("description".to_owned(), key.help.into());
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_takes_the_samples_and_refuses_what_the_reader_refuses() {
        let schema = jsonschema::draft7::new(&whole()).unwrap();
        let full = crate::config::parse_json5(include_str!("../../fixtures/openclaw/full.json5"));
        assert!(schema.is_valid(&full.unwrap()));
        for (text, is_right) in [
            ("{gateway: {port: 1, bind: 'lan', auth: {token: 'x'}}}", true),
            ("{gateway: {port: '${PORT}', auth: {token: {source: 'env', id: 'T'}}}}", true),
            ("{gateway: {unknown: 1}, other: []}", true),
            ("{gateway: {port: 0}}", false),
            ("{gateway: {port: '19001'}}", false),
            ("{gateway: {bind: 'moon'}}", false),
            ("{gateway: {auth: {token: 1}}}", false),
            ("{gateway: []}", false),
            ("{gateway: {trustedProxies: 'x'}}", false),
            ("{gateway: {auth: {rateLimit: {windowMs: 0}}}}", false),
            ("{gateway: {auth: {rateLimit: {windowMs: 1000, maxAttempts: 1000}}}}", true),
        ] {
            let value = crate::config::parse_json5(text).unwrap();
            assert_eq!(schema.is_valid(&value), is_right, "{text}");
        }
    }

    #[test]
    fn a_place_has_what_is_right_below_it() {
        let Place { path, schema, children } = place("gateway.auth").unwrap();
        assert_eq!((path.as_str(), &schema["type"]), ("gateway.auth", &json!("object")));
        assert!(children.iter().any(|(key, _)| key == "token"));
        let Place { path, children, .. } = place(".").unwrap();
        assert_eq!(path, ".");
        assert!(children.iter().any(|(key, _)| key == "logging"));
        assert!(place("gateway.auth.token").unwrap().children.is_empty());
        assert!(place("gateway.nope").is_none() && place("agents.entries").is_none());
    }

    #[test]
    fn changes_are_named_by_the_keys_that_we_know() {
        let old =
            json!({"gateway": {"port": 1, "nodes": {"commands": {"deny": ["a"]}}}, "x": {"y": 1}});
        let new = json!({"gateway": {"port": 2, "auth": {"token": "t"}}, "x": {"y": 2}, "z": 1});
        let mut paths = changed(&old, &new);
        paths.sort();
        assert_eq!(
            paths,
            ["gateway.auth.token", "gateway.nodes.commands.deny", "gateway.port", "x", "z"]
        );
        assert!(changed(&old, &old).is_empty());
        assert_eq!(changed(&json!({}), &json!({"gateway": 1})), ["gateway"]);
    }
}
