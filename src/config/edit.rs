//! Changes in the text of `openclaw.json` that leave everything else as a person wrote it.
//!
//! The text is changed by a library that knows comments and blanks, the value by our own few lines;
//! if the changed text does not stand for the changed value, nothing is given back.

use jsonc_parser::{
    ParseOptions,
    cst::{CstArray, CstInputValue, CstNode, CstObject, CstObjectProp, CstRootNode},
};
use serde_json::{Map, Value};

use super::{
    path::{KeyPath, Step},
    syntax::{self, MARK},
};

/// One change.
#[derive(Debug, Clone)]
pub(crate) enum Edit {
    /// This value stands there; what is missing on the way is made.
    Set(KeyPath, Value),
    /// Nothing stands there.
    Unset(KeyPath),
}

/// What `edits` make of `text`, in their order; an empty text counts as `{}`.
pub(super) fn apply(text: &str, edits: &[Edit]) -> Result<String, String> {
    let body = text.strip_prefix(MARK).unwrap_or(text);
    let mark = text.get(..text.len() - body.len()).unwrap_or_default();
    let body = if body.trim().is_empty() { "{}\n" } else { body };
    let mut value = syntax::parse(body)?;
    let options = ParseOptions { allow_missing_commas: false, ..ParseOptions::default() };
    let root = CstRootNode::parse(body, &options).map_err(|error| error.to_string())?;
    for edit in edits {
        match edit {
            Edit::Set(path, new) => {
                set_value(&mut value, path.steps(), new)?;
                set_text(&root, path.steps(), new)?;
            }
            Edit::Unset(path) => {
                unset_value(&mut value, path)?;
                unset_text(&root, path)?;
            }
        }
    }
    let text = root.to_string();
    match syntax::parse(&text) {
        Ok(read) if read == value => Ok(format!("{mark}{text}")),
        Ok(_) | Err(_) => {
            Err("this file is written in a way that cannot be edited safely".to_owned())
        }
    }
}

/// Merges `new` into what stands at `path`, as edits that touch only what changes. Lists merge only
/// where they hold objects with an `id`.
pub(super) fn merged(root: &Value, path: &KeyPath, new: &Value) -> Result<Vec<Edit>, String> {
    let mut edits = Vec::new();
    match (path.find(root), new) {
        (None, _) => edits.push(Edit::Set(path.clone(), new.clone())),
        (Some(Value::Object(_)), Value::Object(keys)) => {
            for (key, value) in keys {
                let below = path.below(key);
                match (below.find(root), value) {
                    (Some(Value::Object(_)), Value::Object(_)) => {
                        edits.extend(merged(root, &below, value)?);
                    }
                    (Some(Value::Array(_)), Value::Array(_)) if is_models(&below) => {
                        edits.extend(merged(root, &below, value)?);
                    }
                    _ => edits.push(Edit::Set(below, value.clone())),
                }
            }
        }
        (Some(Value::Array(old)), Value::Array(items)) if is_models(path) => {
            edits.extend(merged_models(path, old, items));
        }
        _ => return Err(format!("{path} cannot be merged with that")),
    }
    Ok(edits)
}

/// The list of a provider's models, which are told apart by their `id`.
fn is_models(path: &KeyPath) -> bool {
    matches!(path.names().as_slice(), ["models", "providers", _, "models"])
}

fn merged_models(path: &KeyPath, old: &[Value], items: &[Value]) -> Vec<Edit> {
    let id = |item: &Value| item.get("id").and_then(Value::as_str).map(str::to_owned);
    let mut ids: Vec<_> = old.iter().map(id).collect();
    let mut edits = Vec::new();
    for item in items {
        let known =
            id(item).and_then(|id| ids.iter().position(|known| known.as_ref() == Some(&id)));
        let place = path.below(&known.unwrap_or(ids.len()).to_string());
        match (known, item) {
            (Some(_), Value::Object(keys)) => {
                edits.extend(keys.iter().map(|(k, v)| Edit::Set(place.below(k), v.clone())));
            }
            _ => {
                edits.push(Edit::Set(place, item.clone()));
                ids.push(id(item));
            }
        }
    }
    edits
}

/// The containers that `rest` needs, with `new` in the innermost.
fn wrapped(rest: &[Step], new: &Value) -> Result<Value, String> {
    rest.iter().rev().try_fold(new.clone(), |inner, step| match step.place() {
        Some(0) if step.wants_a_list() => Ok(Value::Array(vec![inner])),
        Some(place) if step.wants_a_list() => Err(beyond(place, 0)),
        _ => Ok(Value::Object(Map::from_iter([(step.name.clone(), inner)]))),
    })
}

fn beyond(place: usize, length: usize) -> String {
    format!("place {place} is beyond the end of the list, which has {length}; the next is {length}")
}

fn no_place(step: &Step) -> String {
    format!("`{}` is no place in a list", step.name)
}

fn set_value(value: &mut Value, steps: &[Step], new: &Value) -> Result<(), String> {
    let Some((step, rest)) = steps.split_first() else {
        *value = new.clone();
        return Ok(());
    };
    match value {
        Value::Object(keys) => match keys.get_mut(&step.name) {
            Some(child) => set_value(child, rest, new),
            None => {
                keys.insert(step.name.clone(), wrapped(rest, new)?);
                Ok(())
            }
        },
        Value::Array(items) => {
            let (place, length) = (step.place().ok_or_else(|| no_place(step))?, items.len());
            match items.get_mut(place) {
                Some(child) => set_value(child, rest, new),
                None if place == length => {
                    items.push(wrapped(rest, new)?);
                    Ok(())
                }
                None => Err(beyond(place, length)),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            *value = wrapped(steps, new)?;
            Ok(())
        }
    }
}

fn unset_value(value: &mut Value, path: &KeyPath) -> Result<(), String> {
    let missing = || format!("{path} is not there");
    let (last, way) = path.steps().split_last().ok_or_else(missing)?;
    let mut inner = value;
    for step in way {
        inner = match inner {
            Value::Object(keys) => keys.get_mut(&step.name),
            Value::Array(items) => step.place().and_then(|place| items.get_mut(place)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        }
        .ok_or_else(missing)?;
    }
    match inner {
        Value::Object(keys) => keys.shift_remove(&last.name).map(drop).ok_or_else(missing),
        Value::Array(items) => {
            let place = last.place().filter(|place| *place < items.len()).ok_or_else(missing)?;
            items.remove(place);
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(missing()),
    }
}

/// A container in the text.
enum Holder {
    Object(CstObject),
    List(CstArray),
}

impl Holder {
    fn of(node: &CstNode) -> Option<Self> {
        let list = || node.as_array().map(Self::List);
        node.as_object().map(Self::Object).or_else(list)
    }
}

/// The property that counts: of two with one name it is the last.
fn property(object: &CstObject, name: &str) -> Option<CstObjectProp> {
    let properties = object.properties().into_iter().rev();
    properties.into_iter().find(|property| property.decoded_name().as_deref() == Some(name))
}

fn set_text(root: &CstRootNode, steps: &[Step], new: &Value) -> Result<(), String> {
    let Some(mut node) = root.value() else { return Err("the file is empty".to_owned()) };
    let mut rest = steps;
    loop {
        let Some((step, behind)) = rest.split_first() else {
            replace(&node, new);
            return Ok(());
        };
        let child = match Holder::of(&node) {
            Some(Holder::Object(object)) => match property(&object, &step.name) {
                Some(property) => property.value(),
                None => {
                    object.append(&step.name, input(&wrapped(behind, new)?));
                    return Ok(());
                }
            },
            Some(Holder::List(list)) => {
                let elements = list.elements();
                let place = step.place().ok_or_else(|| no_place(step))?;
                if place == elements.len() {
                    list.append(input(&wrapped(behind, new)?));
                    return Ok(());
                }
                elements.into_iter().nth(place)
            }
            None => {
                replace(&node, &wrapped(rest, new)?);
                return Ok(());
            }
        };
        node = child.ok_or_else(|| no_place(step))?;
        rest = behind;
    }
}

fn unset_text(root: &CstRootNode, path: &KeyPath) -> Result<(), String> {
    let missing = || format!("{path} is not there");
    let (last, way) = path.steps().split_last().ok_or_else(missing)?;
    let mut node = root.value().ok_or_else(missing)?;
    for step in way {
        node = match Holder::of(&node).ok_or_else(missing)? {
            Holder::Object(object) => property(&object, &step.name).and_then(|it| it.value()),
            Holder::List(list) => step.place().and_then(|at| list.elements().into_iter().nth(at)),
        }
        .ok_or_else(missing)?;
    }
    match Holder::of(&node).ok_or_else(missing)? {
        Holder::Object(object) => {
            // An earlier one of the same name would come to light.
            while let Some(property) = property(&object, &last.name) {
                property.remove();
            }
        }
        Holder::List(list) => {
            let at = last.place().ok_or_else(missing)?;
            list.elements().into_iter().nth(at).ok_or_else(missing)?.remove();
        }
    }
    Ok(())
}

fn replace(node: &CstNode, new: &Value) {
    let new = input(new);
    // Each gives back the node that took the place.
    let _replaced = match node {
        CstNode::Container(_) => match Holder::of(node) {
            Some(Holder::Object(object)) => object.replace_with(new),
            Some(Holder::List(list)) => list.replace_with(new),
            None => None,
        },
        CstNode::Leaf(_) => {
            if let Some(text) = node.as_string_lit() {
                text.replace_with(new)
            } else if let Some(number) = node.as_number_lit() {
                number.replace_with(new)
            } else if let Some(flag) = node.as_boolean_lit() {
                flag.replace_with(new)
            } else if let Some(null) = node.as_null_keyword() {
                null.replace_with(new)
            } else if let Some(word) = node.as_word_lit() {
                word.replace_with(new)
            } else {
                None
            }
        }
    };
}

fn input(value: &Value) -> CstInputValue {
    match value {
        Value::Null => CstInputValue::Null,
        Value::Bool(flag) => CstInputValue::Bool(*flag),
        Value::Number(number) => CstInputValue::Number(number.to_string()),
        Value::String(text) => CstInputValue::String(text.clone()),
        Value::Array(items) => CstInputValue::Array(items.iter().map(input).collect()),
        Value::Object(keys) => {
            CstInputValue::Object(keys.iter().map(|(key, v)| (key.clone(), input(v))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn path(text: &str) -> KeyPath {
        KeyPath::parse(text).unwrap()
    }

    fn set(text: &str, at: &str, value: Value) -> String {
        apply(text, &[Edit::Set(path(at), value)]).unwrap()
    }

    fn unset(text: &str, at: &str) -> String {
        apply(text, &[Edit::Unset(path(at))]).unwrap()
    }

    const FILE: &str = "// mine\n{\n  // the door\n  gateway: {\n    port: 18789, // as ever\n    \
                        'mode': 'local',\n    hosts: [\n      \"a\", // first\n      'b',\n    ],\n  },\n  \
                        /* kept */ other: 0x1F,\n}\n// end\n";

    #[test]
    fn a_value_changes_and_nothing_else_does() {
        let changed = set(FILE, "gateway.port", json!(19001));
        assert_eq!(changed, FILE.replace("18789", "19001"));
        let changed = set(FILE, "gateway.hosts[1]", json!("c"));
        assert_eq!(changed, FILE.replace("'b'", "\"c\""));
        assert_eq!(set(FILE, "other", json!({"x": [1]})).matches("//").count(), 5);
    }

    #[test]
    fn what_is_new_follows_what_is_there() {
        let changed = set(FILE, "gateway.bind", json!("lan"));
        assert_eq!(changed, FILE.replace("    ],\n", "    ],\n    \"bind\": \"lan\",\n"));
        let changed = set(FILE, "gateway.hosts[2]", json!("c"));
        assert_eq!(changed, FILE.replace("'b',\n", "'b',\n      \"c\",\n"));
        assert_eq!(set("", "a.b[0]", json!(1)), "{\n  \"a\": {\n    \"b\": [1]\n  }\n}\n");
        assert_eq!(set("{a: null}", "a.b", json!(1)), "{a: {\n    \"b\": 1\n  }}");
    }

    #[test]
    fn a_line_that_grows_is_broken_up_and_keeps_its_comments() {
        let changed =
            set("{a: {b: 1 /* one */, /* two */ c: [2]}, d: 3 /* four */}", "a.e", json!(5));
        for comment in ["/* one */", "/* two */", "/* four */", "c: [2]"] {
            assert!(changed.contains(comment), "{changed}");
        }
    }

    #[test]
    fn what_goes_leaves_the_rest() {
        let changed = unset(FILE, "gateway.port");
        assert_eq!(changed, FILE.replace("    port: 18789, // as ever\n", ""));
        let changed = unset(FILE, "gateway.hosts[0]");
        assert_eq!(changed, FILE.replace("      \"a\", // first\n", ""));
    }

    #[test]
    fn line_ends_and_the_mark_of_an_editor_stay() {
        let changed = set("\u{feff}{\r\n  a: 1,\r\n}\r\n", "b", json!(2));
        assert_eq!(changed, "\u{feff}{\r\n  a: 1,\r\n  \"b\": 2,\r\n}\r\n");
    }

    #[test]
    fn of_two_keys_with_one_name_the_last_counts() {
        assert_eq!(set("{a: 1, a: 2}", "a", json!(3)), "{a: 1, a: 3}");
        assert_eq!(syntax::parse(&unset("{a: 1, b: 0, a: 2}", "a")).unwrap(), json!({"b": 0}));
    }

    #[test]
    fn refuses_what_cannot_be_done() {
        for (text, edit) in [
            ("{a: ", Edit::Set(path("a"), json!(1))),
            ("{a: []}", Edit::Set(path("a[1]"), json!(1))),
            ("{a: []}", Edit::Set(path("a.b"), json!(1))),
            ("{}", Edit::Set(path("a[3]"), json!(1))),
            ("{}", Edit::Unset(path("a"))),
            ("{a: [1]}", Edit::Unset(path("a[1]"))),
            ("{a: 1}", Edit::Unset(path("a.b"))),
        ] {
            assert!(apply(text, std::slice::from_ref(&edit)).is_err(), "{text} {edit:?}");
        }
    }

    #[test]
    fn merging_touches_only_what_it_names() {
        let text = "{models: {providers: {x: {url: 'u', models: [{id: 'a', n: 1}]}}}}";
        let root = syntax::parse(text).unwrap();
        let new = json!({"x": {"key": "k", "models": [{"id": "a", "m": 2}, {"id": "b"}]}, "y": {}});
        let edits = merged(&root, &path("models.providers"), &new).unwrap();
        assert_eq!(
            syntax::parse(&apply(text, &edits).unwrap()).unwrap(),
            json!({"models": {"providers": {"x": {
                "url": "u", "models": [{"id": "a", "n": 1, "m": 2}, {"id": "b"}], "key": "k"
            }, "y": {}}}})
        );
        assert!(merged(&root, &path("models.providers.x.url"), &json!({})).is_err());
    }
}
