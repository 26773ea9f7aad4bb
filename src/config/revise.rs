//! Turns a configuration that a client sends back into edits of the file that stands there.
//!
//! What the client saw was redacted: a placeholder that comes back stands for the old value. Only
//! what differs becomes an edit, so comments stay where nothing changes. Pure.

use std::{collections::BTreeSet, slice::from_ref};

use serde_json::{Map, Value};

use super::{
    change::Current,
    edit::Edit,
    include::INCLUDE,
    path::KeyPath,
    redact::{PLACEHOLDER, redacted},
};

/// The longest list of which single places are edited, and entries found again at other places: each
/// of both walks all of it.
const MOST_PLACES: usize = 1_000;
/// The most edits inside of one value; beyond, it is set as a whole.
const MOST_EDITS: usize = 1_000;

/// How a client may have seen a value of the file: its secrets hidden, and that with variables filled
/// in and parts included; `None` where it saw nothing.
type Views<'a> = [Option<&'a Value>; 2];

/// The edits that make the file's own value into `new`, with what is as the client saw it read as
/// what stands in its place: the secret for a placeholder, the name of a variable for its value. A
/// placeholder that hides nothing is left for the check of the change, which refuses it.
pub(crate) fn replaced(current: &Current, new: &Value) -> Vec<Edit> {
    let Current { own, whole } = current;
    let (shown, filled) = (redacted(own), redacted(whole));
    let mut edits = Vec::new();
    let new = restored(own, [Some(&shown), Some(&filled)], new);
    differences(&new, own, &KeyPath::of(&[]), &mut edits);
    edits
}

/// The same for a merge patch (RFC 7396): `null` removes. Lists of objects with an `id` merge by it
/// unless their path is in `replace`; another list loses entries only if it is there. Says which path
/// was not, otherwise.
pub(crate) fn patched(
    current: &Current,
    patch: &Value,
    replace: &[String],
) -> Result<Vec<Edit>, String> {
    let Current { own, whole } = current;
    let (shown, filled) = (redacted(own), redacted(whole));
    let mut merged = own.clone();
    let views = [Some(&shown), Some(&filled)];
    merge(&mut merged, views, patch, &KeyPath::of(&[]), replace)?;
    let mut edits = Vec::new();
    differences(&merged, own, &KeyPath::of(&[]), &mut edits);
    Ok(edits)
}

/// Whether `patch`, and the `edits` that came of it, are only about what a page keeps for its reader
/// (`ui.prefs`): nobody has to have read the file for that, and who is last wins, as at the reference
/// gateway. What takes `ui` or every preference away is more than that.
pub(crate) fn is_of_preferences(patch: &Value, edits: &[Edit]) -> bool {
    let is_section = |value: Option<&Value>| value.is_none_or(Value::is_object);
    let ui = patch.get("ui");
    let is_inside = |edit: &Edit| {
        let (Edit::Set(path, _) | Edit::Unset(path)) = edit;
        match (path.names().as_slice(), edit) {
            (["ui", "prefs", ..], _) => true,
            // The section is new.
            (["ui"], Edit::Set(_, Value::Object(keys))) => keys.keys().eq(["prefs"]),
            _ => false,
        }
    };
    is_section(ui) && is_section(ui.and_then(|ui| ui.get("prefs"))) && edits.iter().all(is_inside)
}

/// The agents of `old` that are not in `new`, two values with what they include, in the order of
/// their names.
pub(crate) fn lost_agents(old: &Value, new: &Value) -> Vec<String> {
    let kept: BTreeSet<String> = agents(new).into_iter().map(plain).collect();
    let lost = agents(old).into_iter().filter(|id| !kept.contains(&plain(id)));
    let lost: BTreeSet<&str> = lost.collect();
    lost.into_iter().map(str::to_owned).collect()
}

/// The agents in `agents.entries`, and where there is none of it those in the older `agents.list`.
fn agents(value: &Value) -> Vec<&str> {
    let Some(agents) = value.get("agents") else { return Vec::new() };
    if let Some(entries) = agents.get("entries") {
        let entries = entries.as_object().into_iter().flatten();
        return entries.map(|(id, _)| id.as_str()).collect();
    }
    let list = agents.get("list").and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|agent| agent.get("id")?.as_str()).collect()
}

/// An agent's id as OpenClaw reads it: small letters, `-` for what may not stand in one, and `main`
/// where nothing is left of it.
fn plain(id: &str) -> String {
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-';
    let id = id.trim().to_lowercase();
    if id.len() <= 64 && !id.starts_with(['_', '-']) && !id.is_empty() && id.chars().all(is_allowed)
    {
        return id;
    }
    let mut dashed = String::with_capacity(id.len());
    let mut was_allowed = true;
    for c in id.chars() {
        if is_allowed(c) {
            dashed.push(c);
        } else if was_allowed {
            dashed.push('-');
        }
        was_allowed = is_allowed(c);
    }
    let plain: String = dashed.trim_matches('-').chars().take(64).collect();
    if plain.is_empty() { "main".to_owned() } else { plain }
}

/// `new` with what stands in `own` where it holds what `views` show for that.
fn restored(own: &Value, views: Views<'_>, new: &Value) -> Value {
    if views.iter().flatten().any(|view| is_same(view, new)) {
        return own.clone();
    }
    match (own, new) {
        (Value::Object(old), Value::Object(keys)) => {
            let keys = keys.iter().map(|(key, value)| {
                let value = match old.get(key) {
                    Some(old) => restored(old, below(views, key), value),
                    None => value.clone(),
                };
                (key.clone(), value)
            });
            Value::Object(keys.collect())
        }
        (Value::Array(old), Value::Array(items)) => {
            let stood = stood(old, views, items);
            let items = items.iter().zip(stood).map(|(item, stood)| {
                match stood.and_then(|at| Some((at, old.get(at)?))) {
                    Some((at, entry)) => restored(entry, at_place(views, old.len(), at), item),
                    None => item.clone(),
                }
            });
            Value::Array(items.collect())
        }
        _ => new.clone(),
    }
}

/// What is seen of a key.
fn below<'a>(views: Views<'a>, key: &str) -> Views<'a> {
    views.map(|view| view.and_then(|view| view.get(key)))
}

/// What is seen of a place in a list of so many entries; a list with included ones shows others.
fn at_place(views: Views<'_>, length: usize, at: usize) -> Views<'_> {
    views.map(|view| view?.as_array().filter(|list| list.len() == length)?.get(at))
}

/// Where each entry of a new list stood in `old`, by the first view that tells.
fn stood(old: &[Value], views: Views<'_>, new: &[Value]) -> Vec<Option<usize>> {
    let [shown, filled] = views;
    let is_veiled = shown != filled || new.iter().any(|item| hidden(item) > 0);
    let mut all = vec![None; new.len()];
    let lists = [shown, filled.filter(|_| shown != filled)];
    let lists = lists.into_iter().flatten().filter_map(Value::as_array).map(Vec::as_slice);
    let lists: Vec<&[Value]> = lists.filter(|list| is_veiled && list.len() == old.len()).collect();
    let is_short = old.len().max(new.len()) <= MOST_PLACES;
    // Where variables stand, one view alone does not see that an entry moved.
    let has_moved = is_short && new.iter().enumerate().any(|(at, item)| is_moved(&lists, at, item));
    for list in &lists {
        for (known, found) in all.iter_mut().zip(counterparts(list, new, has_moved)) {
            *known = known.or(found);
        }
    }
    all
}

/// Where each entry of a new list stood in the old one, as that was `shown`; `None` where more than
/// one entry may be meant, whose secrets are not to be mixed up. Places count unless one `has_moved`.
fn counterparts(shown: &[Value], new: &[Value], has_moved: bool) -> Vec<Option<usize>> {
    let pairs = || shown.iter().zip(new);
    let edited = pairs().filter(|(known, item)| !is_same(known, item)).count();
    let is_long = shown.len().max(new.len()) > MOST_PLACES;
    let is_alone = new.len() == shown.len() && edited <= 1;
    // An entry that went took its placeholder along.
    let is_whole =
        new.len() >= shown.len() && pairs().all(|(known, item)| hidden(known) == hidden(item));
    let is_settled = is_whole && (edited == 0 || !is_long && !has_moved);
    let place = |(at, item): (usize, &Value)| {
        let stays = is_alone || is_settled;
        let is_there = shown.get(at).is_some_and(|known| is_same(known, item));
        if is_there && (stays || is_whole && new.len() == shown.len()) {
            return Some(at);
        }
        if is_long && !is_alone {
            return None;
        }
        let named = id(item).and_then(|id| only(shown, |known| known.get("id") == Some(id)));
        if named.is_some() {
            return named;
        }
        if stays && at < shown.len() && !shown.iter().any(|known| is_same(known, item)) {
            return Some(at);
        }
        only(shown, |known| is_same(known, item))
    };
    new.iter().enumerate().map(place).collect()
}

/// Whether an entry is more like one that was shown at another place, in any of the `lists` that a
/// client may have seen, than like the one at its own.
fn is_moved(lists: &[&[Value]], at: usize, item: &Value) -> bool {
    if lists.iter().any(|list| list.get(at).is_some_and(|known| is_same(known, item))) {
        return false;
    }
    // What is new may have any of the values of others.
    let new = (false, false, usize::MAX);
    let own = lists.iter().map(|list| list.get(at).map_or(new, |known| likeness(known, item)));
    let own = own.max().unwrap_or_default();
    lists.iter().any(|list| {
        let mut others = list.iter().enumerate().filter(|(other, _)| *other != at);
        others.any(|(_, known)| likeness(known, item) > own)
    })
}

/// How sure it is that two entries are one: the same, of one `id`, of so many common values.
fn likeness(known: &Value, item: &Value) -> (bool, bool, usize) {
    let is_named_so = id(item).is_some() && id(known) == id(item);
    let common = known.as_object().zip(item.as_object()).map_or(0, |(known, keys)| {
        let common = |(key, value): &(&String, &Value)| {
            known.get(key.as_str()).is_some_and(|known| is_same(known, value)) && hidden(value) == 0
        };
        keys.iter().filter(common).count()
    });
    (is_same(known, item), is_named_so, common)
}

/// Whether two values are one to a browser, which sends `1.0` back as `1`.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64()
        }
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(a), Value::Object(b)) => {
            let is_in = |(key, one): (&String, &Value)| {
                b.get(key.as_str()).is_some_and(|other| is_same(one, other))
            };
            a.len() == b.len() && a.iter().all(is_in)
        }
        _ => one == other,
    }
}

/// How many placeholders a value holds.
fn hidden(value: &Value) -> usize {
    match value {
        Value::String(text) => usize::from(text == PLACEHOLDER),
        Value::Array(items) => items.iter().map(hidden).sum(),
        Value::Object(keys) => keys.values().map(hidden).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// What tells an entry from the others; of a reference to a secret it is hidden, and tells nothing.
fn id(entry: &Value) -> Option<&Value> {
    entry.get("id").filter(|id| id.as_str() != Some(PLACEHOLDER))
}

/// The one place of `list` that is meant; `None` without it, and where there are more.
fn only(list: &[Value], is_meant: impl Fn(&Value) -> bool) -> Option<usize> {
    let mut found = list.iter().enumerate().filter(|(_, known)| is_meant(known));
    let (at, _) = found.next()?;
    found.next().is_none().then_some(at)
}

fn differences(new: &Value, old: &Value, path: &KeyPath, edits: &mut Vec<Edit>) {
    let before = edits.len();
    differences_inside(new, old, path, edits);
    if edits.len() - before > MOST_EDITS
        && !path.steps().is_empty()
        && keeps_included(from_ref(old), from_ref(new))
    {
        edits.truncate(before);
        edits.push(Edit::Set(path.clone(), new.clone()));
    }
}

fn differences_inside(new: &Value, old: &Value, path: &KeyPath, edits: &mut Vec<Edit>) {
    match (new, old) {
        (Value::Object(keys), Value::Object(before)) => {
            for key in before.keys().filter(|key| !keys.contains_key(*key)) {
                edits.push(Edit::Unset(path.below(key)));
            }
            for (key, value) in keys {
                match before.get(key) {
                    Some(old) => differences(value, old, &path.below(key), edits),
                    None => edits.push(Edit::Set(path.below(key), value.clone())),
                }
            }
        }
        (Value::Array(items), Value::Array(before))
            if items.len().max(before.len()) <= MOST_PLACES || !keeps_included(before, items) =>
        {
            differences_by_place(items, before, path, edits);
        }
        _ if new == old => {}
        _ => edits.push(Edit::Set(path.clone(), new.clone())),
    }
}

/// What is said beside an entry stays with it, or goes: where entries moved, or may have, the whole
/// list is set.
fn differences_by_place(new: &[Value], old: &[Value], path: &KeyPath, edits: &mut Vec<Edit>) {
    let surplus = old.len().saturating_sub(new.len());
    let (mut stay, mut gone) = (Vec::new(), Vec::new());
    for (at, entry) in old.iter().enumerate() {
        let is_next = new.get(stay.len()).is_some_and(|next| match ids(next, entry) {
            Some((next, known)) => next == known,
            None => next == entry,
        });
        if is_next || gone.len() == surplus {
            stay.push((at, entry));
        } else {
            gone.push(at);
        }
    }
    let is_another = |(item, (_, entry)): (&Value, &(usize, &Value))| match ids(item, entry) {
        Some((item, entry)) => item != entry,
        None => item != *entry && (surplus > 0 || old.contains(item) || new.contains(entry)),
    };
    if keeps_included(old, new) && new.iter().zip(&stay).any(is_another) {
        edits.push(Edit::Set(path.clone(), Value::Array(new.to_vec())));
        return;
    }
    // Every path is one of the old list: what goes, goes from the end, once the rest is done.
    for (new, (at, old)) in new.iter().zip(&stay) {
        differences(new, old, &path.at(*at), edits);
    }
    edits.extend(gone.iter().rev().map(|at| Edit::Unset(path.at(*at))));
    let more = new.iter().enumerate().skip(old.len());
    edits.extend(more.map(|(at, item)| Edit::Set(path.at(at), item.clone())));
}

/// Whether every part of `old` that stands in another file is still in `new`, and as it was. One that
/// is not is changed at its own place, where a check sees it, and never along with what is around it.
fn keeps_included(old: &[Value], new: &[Value]) -> bool {
    let kept: Vec<&Value> = new.iter().flat_map(included).collect();
    old.iter().flat_map(included).all(|part| kept.contains(&part))
}

/// The parts of a value that stand in other files, each as it names them.
fn included(value: &Value) -> Vec<&Value> {
    match value {
        Value::Object(keys) if keys.contains_key(INCLUDE) => vec![value],
        Value::Object(keys) => keys.values().flat_map(included).collect(),
        Value::Array(items) => items.iter().flat_map(included).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// The `id`s of two entries that both have one.
fn ids<'a>(one: &'a Value, other: &'a Value) -> Option<(&'a Value, &'a Value)> {
    one.get("id").zip(other.get("id"))
}

fn merge(
    value: &mut Value,
    views: Views<'_>,
    patch: &Value,
    path: &KeyPath,
    replace: &[String],
) -> Result<(), String> {
    match patch {
        Value::Object(keys) => {
            if !value.is_object() {
                *value = Value::Object(Map::new());
            }
            let Value::Object(inner) = value else { return Ok(()) };
            for (key, patch) in keys {
                if patch.is_null() {
                    let was_own = inner.shift_remove(key).is_some();
                    if !was_own && below(views, key).iter().any(Option::is_some) {
                        let path = path.below(key);
                        return Err(format!("{path} stands in an included file; change it there"));
                    }
                    continue;
                }
                // What is only seen, in an included part, is not in this file.
                let views = if inner.contains_key(key) { below(views, key) } else { [None; 2] };
                let child = inner.entry(key.clone()).or_insert(Value::Null);
                merge(child, views, patch, &path.below(key), replace)?;
            }
            Ok(())
        }
        Value::Array(items) => {
            let old = value.as_array().cloned().unwrap_or_default();
            let is_replaced = replace.iter().any(|known| *known == path.to_string());
            let items = Value::Array(items.clone());
            let mut new = restored(value, views, &items);
            if !is_replaced && has_ids(&old) && has_ids(items.as_array().map_or(&[], Vec::as_slice))
            {
                new = by_id(&old, views, &items, path, replace)?;
            } else if !is_replaced
                && let Some(lost) = old.iter().find(|item| !holds(&new, item))
                && !lost.is_null()
            {
                return Err(format!(
                    "{path} would lose entries; name it in replacePaths to mean that"
                ));
            }
            *value = new;
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            *value = restored(value, views, patch);
            Ok(())
        }
    }
}

fn has_ids(items: &[Value]) -> bool {
    !items.is_empty() && items.iter().all(|item| item.get("id").is_some_and(Value::is_string))
}

fn holds(list: &Value, item: &Value) -> bool {
    list.as_array().is_some_and(|items| items.iter().any(|known| is_same(known, item)))
}

/// A list whose entries with a known `id` are merged, the others appended.
fn by_id(
    old: &[Value],
    views: Views<'_>,
    items: &Value,
    path: &KeyPath,
    replace: &[String],
) -> Result<Value, String> {
    let mut list = old.to_vec();
    for item in items.as_array().map_or(&[] as &[Value], Vec::as_slice) {
        let Some(at) = old.iter().position(|known| known.get("id") == item.get("id")) else {
            list.push(item.clone());
            continue;
        };
        if let Some(known) = list.get_mut(at) {
            merge(
                known,
                at_place(views, old.len(), at),
                item,
                &path.below(&at.to_string()),
                replace,
            )?;
        }
    }
    Ok(Value::Array(list))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::edit;

    const FILE: &str = "// mine\n{\n  gateway: {\n    port: 1, // as ever\n    auth: { token: 'secret' },\n  },\n  \
                        list: [{ id: 'a', apiKey: 'k' }, { id: 'b' }],\n  names: ['x', 'y'],\n}\n";

    fn own() -> Value {
        crate::config::parse_json5(FILE).unwrap()
    }

    /// A file without variables and included parts.
    fn current(own: &Value) -> Current {
        Current { own: own.clone(), whole: own.clone() }
    }

    fn restored_in(own: &Value, new: &Value) -> Value {
        restored_by(&current(own), new)
    }

    fn restored_by(current: &Current, sent: &Value) -> Value {
        let (shown, filled) = (redacted(&current.own), redacted(&current.whole));
        restored(&current.own, [Some(&shown), Some(&filled)], sent)
    }

    fn read(edits: &[Edit]) -> Value {
        crate::config::parse_json5(&edit::apply(FILE, edits).unwrap()).unwrap()
    }

    #[test]
    fn what_was_shown_comes_back_as_what_it_was() {
        assert!(replaced(&current(&own()), &redacted(&own())).is_empty());
        let mut sent = redacted(&own());
        sent["gateway"]["port"] = json!(2);
        let edits = replaced(&current(&own()), &sent);
        assert_eq!(edits.len(), 1);
        assert_eq!(edit::apply(FILE, &edits).unwrap(), FILE.replace("port: 1", "port: 2"));
    }

    #[test]
    fn a_secret_follows_its_entry_and_not_its_place() {
        let mut sent = redacted(&own());
        sent["list"].as_array_mut().unwrap().reverse();
        assert_eq!(
            read(&replaced(&current(&own()), &sent))["list"][1],
            json!({"id": "a", "apiKey": "k"})
        );
    }

    /// The session keys of hooks where a client sends such of these names, with their keys hidden.
    fn keys(names: &[&str]) -> Vec<Value> {
        let mapping = |name: &str, key: &str| json!({"name": name, "sessionKey": key});
        let old = [mapping("a", "1"), mapping("b", "2"), mapping("b", "3"), mapping("c", "4")];
        let own = json!({"hooks": {"mappings": old}});
        let sent: Vec<Value> = names.iter().map(|name| mapping(name, PLACEHOLDER)).collect();
        let new = restored_in(&own, &json!({"hooks": {"mappings": sent}}));
        let list = new["hooks"]["mappings"].as_array().unwrap().iter();
        list.map(|mapping| mapping["sessionKey"].clone()).collect()
    }

    #[test]
    fn a_secret_without_an_id_beside_it_goes_to_no_other_entry() {
        for (names, found) in [
            (&["a", "b", "b", "c"][..], &["1", "2", "3", "4"][..]),
            (&["a", "b", "b", "c", "a"], &["1", "2", "3", "4", "1"]),
            (&["a", "b", "b", "new"], &["1", "2", "3", "4"]),
            (&["new", "b", "b", "c"], &["1", "2", "3", "4"]),
            (&["c", "b", "b", "a"], &["4", "2", "3", "1"]),
            (&["a", "b", "b", "a"], &["1", "2", "3", "1"]),
            (&["c", "a"], &["4", "1"]),
            // Which of the two went, and what became of the others, nobody can tell.
            (&["a", "b", "c"], &["1", PLACEHOLDER, "4"]),
            (&["new", "b", "b"], &[PLACEHOLDER; 3]),
            (&["new", "b", "b", "newer"], &["1", "2", "3", "4"]),
            (&["new", "b", "b", "c", "more"], &["1", "2", "3", "4", PLACEHOLDER]),
            (&["new", "b", "b", "c", "a"], &[PLACEHOLDER, PLACEHOLDER, PLACEHOLDER, "4", "1"]),
            (&["a", "b", "new", "b", "c"], &["1", PLACEHOLDER, PLACEHOLDER, PLACEHOLDER, "4"]),
        ] {
            assert_eq!(keys(names), found, "{names:?}");
        }
        let own = json!({"secrets": ["1", "2"]});
        let left = |sent: Value| restored_in(&own, &json!({"secrets": sent}));
        assert_eq!(left(json!([PLACEHOLDER])), json!({"secrets": [PLACEHOLDER]}));
        let more = json!([PLACEHOLDER, PLACEHOLDER, "3"]);
        assert_eq!(left(more), json!({"secrets": ["1", "2", "3"]}));
    }

    /// What becomes of the hidden keys of `old`, a list of hooks, where the list comes back as `sent`.
    fn sent_back(old: &Value, sent: &Value) -> Vec<Value> {
        let own = json!({"hooks": {"mappings": old}});
        let sent = json!({"hooks": {"mappings": sent}});
        let new = restored_in(&own, &sent);
        let list = new["hooks"]["mappings"].as_array().unwrap().iter();
        list.map(|mapping| mapping["sessionKey"].clone()).collect()
    }

    #[test]
    fn a_secret_stays_where_only_what_is_beside_it_was_edited() {
        let mapping =
            |id: &str, path: &str, key: &str| json!({"id": id, "path": path, "sessionKey": key});
        let old = json!([mapping("a", "x", "1"), mapping("a", "y", "2"), mapping("b", "z", "3")]);
        let shown = |id: &str, path: &str| mapping(id, path, PLACEHOLDER);
        for sent in [
            json!([shown("a", "x"), shown("a", "y"), shown("b", "z")]),
            json!([shown("a", "x"), shown("a", "new"), shown("b", "z")]),
            json!([shown("a", "x"), shown("a", "y"), shown("renamed", "z")]),
            json!([shown("new", "x"), shown("a", "y"), shown("renamed", "z")]),
            json!([shown("a", "new"), shown("a", "newer"), shown("b", "z")]),
        ] {
            assert_eq!(sent_back(&old, &sent), ["1", "2", "3"], "{sent}");
        }
        let more =
            json!([shown("a", "x"), shown("a", "y"), shown("b", "z"), mapping("c", "", "4")]);
        assert_eq!(sent_back(&old, &more), ["1", "2", "3", "4"]);
    }

    #[test]
    fn a_secret_goes_to_no_entry_that_may_have_moved_and_was_edited() {
        let mapping = |name: &str, path: &str, key: &str| json!({"name": name, "path": path, "sessionKey": key});
        let old = json!([mapping("a", "x", "1"), mapping("b", "y", "2")]);
        let shown = |name: &str, path: &str| mapping(name, path, PLACEHOLDER);
        for (sent, found) in [
            // The two changed places, and each was edited.
            (json!([shown("b", "new"), shown("a", "newer")]), [PLACEHOLDER, PLACEHOLDER]),
            // The first one went, the second was edited, and there is a new one.
            (json!([shown("new", "newer"), mapping("c", "z", "3")]), [PLACEHOLDER, "3"]),
        ] {
            assert_eq!(sent_back(&old, &sent), found, "{sent}");
        }
    }

    #[test]
    fn a_secret_follows_an_entry_that_a_variable_tells_from_the_others() {
        let list = |paths: [&str; 2], keys: [&str; 2]| {
            let mapping = |(path, key): (&str, &str)| json!({"path": path, "sessionKey": key});
            let list: Vec<Value> = paths.into_iter().zip(keys).map(mapping).collect();
            json!({"hooks": {"mappings": list}})
        };
        let (names, values, secrets) = (["${A}", "${B}"], ["a", "b"], ["1", "2"]);
        let current = Current { own: list(names, secrets), whole: list(values, secrets) };
        for (paths, found) in [
            (values, list(names, secrets)),
            (["b", "a"], list(["${B}", "${A}"], ["2", "1"])),
            (["${B}", "${A}"], list(["${B}", "${A}"], ["2", "1"])),
            (["a", "new"], list(["${A}", "new"], secrets)),
        ] {
            assert_eq!(restored_by(&current, &list(paths, [PLACEHOLDER; 2])), found, "{paths:?}");
        }
    }

    #[test]
    fn a_long_list_is_restored_by_place_alone() {
        let mapping = |at: usize, key: &str| json!({"name": at, "sessionKey": key});
        let list = |key: &str| (0..=MOST_PLACES).map(|at| mapping(at, key)).collect::<Vec<_>>();
        let (old, mut sent) = (json!(list("1")), list(PLACEHOLDER));
        sent[7]["name"] = json!("new");
        assert!(sent_back(&old, &json!(sent)).iter().all(|key| key == "1"));
        sent[8]["name"] = json!("newer");
        let left = sent_back(&old, &json!(sent));
        assert_eq!(left.iter().filter(|key| *key == PLACEHOLDER).count(), 2);
        sent.remove(0);
        assert!(sent_back(&old, &json!(sent)).iter().all(|key| key == PLACEHOLDER));
    }

    #[test]
    fn a_placeholder_that_hides_nothing_is_not_filled_in() {
        let mut sent = redacted(&own());
        sent["gateway"]["port"] = json!(PLACEHOLDER);
        sent["new"] = json!({"token": PLACEHOLDER});
        let left = format!("{:?}", replaced(&current(&own()), &sent));
        assert_eq!(left.matches(PLACEHOLDER).count(), 2, "{left}");
    }

    #[test]
    fn what_a_variable_filled_in_comes_back_as_its_name() {
        let text = "{ gateway: { auth: { token: '${TOK}' } }, x: '${NAME}', // mine\n  y: 1, list: [\n\
                    { name: '${NAME}' }, { name: 'b' },\n], part: { $include: './part.json' } }\n";
        let own = crate::config::parse_json5(text).unwrap();
        let mut whole = own.clone();
        whole["gateway"]["auth"]["token"] = json!("secret");
        whole["x"] = json!("value");
        whole["list"][0]["name"] = json!("value");
        whole["part"] = json!({"included": true});
        let current = Current { own: own.clone(), whole: whole.clone() };
        for mut sent in [redacted(&whole), redacted(&own)] {
            assert!(replaced(&current, &sent).is_empty(), "{sent}");
            sent["y"] = json!(2);
            sent["list"][1]["name"] = json!("c");
            let text = text.replace("y: 1", "y: 2").replace("'b'", "'c'");
            let new = crate::config::parse_json5(&text).unwrap();
            let edits = replaced(&current, &sent);
            assert_eq!((edits.len(), restored_by(&current, &sent)), (2, new));
            sent["x"] = json!("typed");
            assert_eq!(restored_by(&current, &sent)["x"], "typed");
        }
        let patch = json!({"x": "value", "y": 2, "gateway": {"auth": {"token": PLACEHOLDER}}});
        assert_eq!(patched(&current, &patch, &[]).unwrap().len(), 1);
        let edits = patched(&current, &json!({"part": {"included": true}}), &[]).unwrap();
        let [Edit::Set(path, value)] = edits.as_slice() else { panic!("{edits:?}") };
        assert_eq!((path.to_string(), value), ("part.included".to_owned(), &json!(true)));
    }

    #[test]
    fn numbers_come_back_as_a_browser_writes_them() {
        let text = "{ n: 1.0, part: { $include: './part.json' }, hooks: { mappings: [\n\
                    { n: 1e3, path: '${A}', sessionKey: '1' },\n\
                    { n: 2.5, path: '${B}', sessionKey: '2' },\n] } }\n";
        let own = crate::config::parse_json5(text).unwrap();
        let mut whole = own.clone();
        whole["part"] = json!({"list": [0.0, 1.5], "n": 1.0});
        whole["hooks"]["mappings"][0]["path"] = json!("a");
        whole["hooks"]["mappings"][1]["path"] = json!("b");
        let current = Current { own: own.clone(), whole: whole.clone() };
        let mut sent = redacted(&whole);
        sent["n"] = json!(1);
        sent["part"] = json!({"list": [0, 1.5], "n": 1});
        sent["hooks"]["mappings"][0]["n"] = json!(1000);
        assert!(replaced(&current, &sent).is_empty());
        sent["hooks"]["mappings"].as_array_mut().unwrap().reverse();
        let mut reversed = own.clone();
        reversed["hooks"]["mappings"].as_array_mut().unwrap().reverse();
        assert_eq!(restored_by(&current, &sent), reversed);
        sent["part"]["n"] = json!(2);
        assert_ne!(restored_by(&current, &sent)["part"], own["part"]);
        let more = json!({"part": {"list": [0, 1.5, 2]}});
        patched(&Current { own: whole.clone(), whole }, &more, &[]).unwrap();
        for (one, other, expected) in [
            (json!(1.0), json!(1), true),
            (json!(-0.0), json!(0), true),
            (json!({"a": [1.0], "b": 2}), json!({"b": 2.0, "a": [1]}), true),
            (json!(1.5), json!(1), false),
            (json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64), false),
            (json!([1]), json!([1, 1]), false),
            (json!({"a": 1}), json!({"b": 1}), false),
            (json!("1"), json!(1), false),
        ] {
            assert_eq!(is_same(&one, &other), expected, "{one} {other}");
        }
    }

    const LIST: &str = "{\n  list: [\n    { id: 'a', n: 1 }, // the desk\n    \
                        { id: 'b', n: 2 /* two */ }, // the kitchen\n    { id: 'c' }, // spare\n  ],\n  \
                        names: [\n    'x', // first\n    'y', // second\n    'z', // third\n  ],\n}\n";

    /// [`LIST`] with another value at a place of it.
    fn with(place: &str, value: Value) -> String {
        let own = crate::config::parse_json5(LIST).unwrap();
        let mut new = own.clone();
        *new.pointer_mut(place).unwrap() = value;
        let text = edit::apply(LIST, &replaced(&current(&own), &new)).unwrap();
        assert_eq!(crate::config::parse_json5(&text).unwrap(), new, "{text}");
        text
    }

    #[test]
    fn a_change_in_a_list_keeps_what_is_said_beside_its_entries() {
        assert_eq!(with("/list/1/n", json!(3)), LIST.replace("n: 2", "n: 3"));
        assert_eq!(with("/names/1", json!("w")), LIST.replace("'y'", "\"w\""));
        let kitchen = "    { id: 'b', n: 2 /* two */ }, // the kitchen\n";
        let without = with("/list", json!([{"id": "a", "n": 1}, {"id": "c"}]));
        assert_eq!(without, LIST.replace(kitchen, ""));
        let last = with("/list", json!([{"id": "b", "n": 3}]));
        assert!(last.contains("n: 3 /* two */ }, // the kitchen"), "{last}");
        assert!(!last.contains("the desk") && !last.contains("spare"), "{last}");
        let fewer = with("/names", json!(["y"]));
        assert!(fewer.contains("'y', // second") && !fewer.contains("first"), "{fewer}");
        assert!(with("/names", json!([])).contains("// spare"));
        let more = with("/list", json!([{"id": "a", "n": 1}, {"id": "b"}, {"id": "c"}, 5, 6]));
        for comment in ["// the desk", "// the kitchen", "// spare", "// third"] {
            assert!(more.contains(comment), "{more}");
        }
    }

    #[test]
    fn an_entry_that_moved_leaves_no_comment_beside_another_one() {
        for list in [
            json!([{"id": "b", "n": 2}, {"id": "a", "n": 1}, {"id": "c"}]),
            json!([{"id": "new"}, {"id": "a", "n": 1}, {"id": "b", "n": 2}, {"id": "c"}]),
        ] {
            let moved = with("/list", list);
            assert!(!moved.contains("the desk") && moved.contains("// second"), "{moved}");
        }
    }

    #[test]
    fn an_entry_without_an_id_gets_no_comment_of_another_one() {
        for names in [
            json!(["w", "x", "y", "z"]),
            json!(["y", "z", "w"]),
            json!(["v", "z"]),
            json!(["y", "x", "z"]),
        ] {
            let moved = with("/names", names.clone());
            assert!(!moved.contains("// first") && moved.contains("// spare"), "{names} {moved}");
        }
        for names in [json!(["x", "y", "z", "w"]), json!(["v", "y", "z"]), json!(["x", "z"])] {
            let edited = with("/names", names.clone());
            assert!(edited.contains("// first") && edited.contains("// third"), "{names} {edited}");
        }
    }

    #[test]
    fn what_is_included_goes_by_no_change_of_what_is_around_it() {
        let part = |name: &str| json!({"$include": name});
        let current = Current {
            own: json!({"list": [part("a"), {"id": "b"}], "x": {"part": part("p"), "y": 1}}),
            whole: json!({"list": [{"id": "a"}, {"id": "b"}], "x": {"part": {"z": 1}, "y": 1}}),
        };
        let paths = |list: Value| {
            let sent = json!({"list": list, "x": {"part": {"z": 1}, "y": 1}});
            let edits = replaced(&current, &sent).into_iter();
            let path = |edit: Edit| match edit {
                Edit::Set(path, _) => path.to_string(),
                Edit::Unset(path) => format!("-{path}"),
            };
            edits.map(path).collect::<Vec<_>>()
        };
        let nothing: [&str; 0] = [];
        for (list, edits) in [
            (json!([{"id": "a"}, {"id": "b"}]), &nothing[..]),
            // The parts only change places.
            (json!([{"id": "b"}, {"id": "a"}]), &["list"]),
            (json!([{"id": "b"}]), &["-list[0]"]),
        ] {
            assert_eq!(paths(list.clone()), edits, "{list}");
        }
        // Into an included entry, which is for the check of the change to refuse.
        let edits = paths(json!([{"id": "b"}, {"id": "a", "n": 1}]));
        assert!(edits.contains(&"list[0].id".to_owned()), "{edits:?}");
        let many: Map<_, _> = (0..=MOST_EDITS).map(|n| (format!("k{n}"), json!(n))).collect();
        let (mut own, mut new) = (current.own["x"].clone(), Value::Object(many));
        for (part, count) in [(part("p"), 1), (part("other"), MOST_EDITS + 3)] {
            new["part"] = part;
            let mut edits = Vec::new();
            differences(&new, &own, &KeyPath::of(&["x"]), &mut edits);
            assert_eq!(edits.len(), count);
        }
        own["part"] = json!(1);
        let mut edits = Vec::new();
        differences(&new, &own, &KeyPath::of(&["x"]), &mut edits);
        assert_eq!(edits.len(), 1);
    }

    #[test]
    fn what_changes_all_over_is_set_as_a_whole() {
        let value = |n: usize| json!({"a": vec![json!({"b": n, "c": n}); MOST_PLACES], "d": n});
        let (edits, paths) = (replaced(&current(&value(1)), &value(2)), ["a", "d"]);
        for (edit, path) in edits.iter().zip(paths) {
            let Edit::Set(found, _) = edit else { panic!("{edit:?}") };
            assert_eq!(found.names(), [path]);
        }
        assert_eq!(edits.len(), 2);
    }

    #[test]
    fn a_patch_merges_removes_and_keeps_secrets() {
        let patch = json!({
            "gateway": {"port": null, "auth": {"token": PLACEHOLDER}},
            "list": [{"id": "b", "n": 1}, {"id": "c"}],
        });
        let changed = read(&patched(&current(&own()), &patch, &[]).unwrap());
        assert_eq!(changed["gateway"], json!({"auth": {"token": "secret"}}));
        assert_eq!(
            changed["list"],
            json!([{"id": "a", "apiKey": "k"}, {"id": "b", "n": 1}, {"id": "c"}])
        );
    }

    #[test]
    fn a_patch_says_what_it_cannot_remove_for_it_is_included() {
        let current = Current {
            own: json!({"agents": {"entries": {"$include": "./a.json5", "c": {}}}}),
            whole: json!({"agents": {"entries": {"b": {}, "c": {}}}}),
        };
        let removed = |id: &str| {
            let patch = json!({"agents": {"entries": {id: null}}});
            patched(&current, &patch, &[]).map(|edits| edits.len())
        };
        let refusal = "agents.entries.b stands in an included file; change it there".to_owned();
        assert_eq!(removed("b"), Err(refusal));
        assert_eq!((removed("c"), removed("none"), removed("$include")), (Ok(1), Ok(0), Ok(1)));
    }

    #[test]
    fn a_list_loses_entries_only_on_purpose() {
        let patch = json!({"names": ["x"]});
        patched(&current(&own()), &patch, &[]).unwrap_err();
        let changed = read(&patched(&current(&own()), &patch, &["names".to_owned()]).unwrap());
        assert_eq!(changed["names"], json!(["x"]));
        assert_eq!(
            read(&patched(&current(&own()), &json!({"names": ["x", "y", "z"]}), &[]).unwrap())["names"]
                [2],
            "z"
        );
    }

    #[test]
    fn only_what_a_page_keeps_for_its_reader_is_of_preferences() {
        let with = json!({"ui": {"prefs": {"theme": "dark"}, "name": "x"}});
        for (own, patch, expected) in [
            (json!({}), json!({"ui": {"prefs": {"theme": "dark"}}}), true),
            (json!({"ui": {}}), json!({"ui": {"prefs": {}}}), true),
            (with.clone(), json!({"ui": {"prefs": {"theme": null}}}), true),
            (with.clone(), json!({"ui": {"name": "x"}}), true),
            (with.clone(), json!({"gateway": {}, "ui": {"prefs": {"a": [1]}}}), false),
            (with.clone(), json!({"ui": {"prefs": null}}), false),
            (with.clone(), json!({"ui": {"prefs": "dark"}}), false),
            (with.clone(), json!({"ui": null}), false),
            (with, json!({"ui": {"name": "y", "prefs": {"theme": "light"}}}), false),
            (json!({}), json!({"ui": {"name": "y", "prefs": {"theme": "light"}}}), false),
            (json!({}), json!({"ui": {}}), false),
            (json!({}), json!({"logging": {"level": "debug"}}), false),
        ] {
            let edits = patched(&current(&own), &patch, &[]).unwrap();
            assert_eq!(is_of_preferences(&patch, &edits), expected, "{own} {patch}");
        }
    }

    #[test]
    fn an_agent_is_lost_that_stands_in_neither_form_any_more() {
        let entries = json!({"agents": {"entries": {"b": {}, "Main": {}, "a": {}}, "list": []}});
        let list = json!({"agents": {"list": [{"id": "main"}, {"id": "a"}, {"name": "x"}]}});
        let nothing: [&str; 0] = [];
        for (own, new, lost) in [
            (&entries, &entries, &nothing[..]),
            (&entries, &list, &["b"]),
            (&list, &entries, &nothing),
            (&list, &json!({"agents": {"entries": null, "list": [{"id": "a"}]}}), &["a", "main"]),
            (&entries, &json!({}), &["Main", "a", "b"]),
            (&json!({}), &entries, &nothing),
        ] {
            assert_eq!(lost_agents(own, new), lost, "{own} {new}");
        }
    }

    #[test]
    fn ids_are_the_same_that_openclaw_reads_as_one() {
        let long = "x".repeat(70);
        for (id, expected) in [
            (" Main ", "main"),
            ("a-", "a-"),
            ("My  Agent!", "my-agent"),
            ("a -b", "a--b"),
            ("_a", "_a"),
            ("-a-", "a"),
            ("\u{e9}t\u{e9}", "t"),
            ("", "main"),
            ("!?", "main"),
            (long.as_str(), &long[..64]),
        ] {
            assert_eq!(plain(id), expected, "{id}");
        }
    }

    mod fuzz {
        use super::*;

        /// Some entries have an `id`, some have none, and the secrets are told apart.
        const LISTS: &str = "{\n  gateway: { port: 1, auth: { token: '${TOK}' } },\n  hooks: { mappings: [\n    \
                             { name: 'a', sessionKey: '1' }, // one\n    { name: 'b', sessionKey: '2' },\n  ] },\n  \
                             list: [{ id: 'a', apiKey: 'k' }, { id: 'b' }],\n  names: ['x', 'y'],\n}\n";

        fn keeps_its_word(file: &str, sent: &Value) {
            let own = crate::config::parse_json5(file).unwrap();
            let current = current(&own);
            match edit::apply(file, &replaced(&current, sent)) {
                Ok(text) => {
                    let read = crate::config::parse_json5(&text).unwrap();
                    assert_eq!(read, restored_by(&current, sent));
                }
                // Only what cannot be written anywhere, as what is too deep.
                Err(why) => {
                    let alone = Value::Array(vec![restored_by(&current, sent)]);
                    let alone = [Edit::Set(KeyPath::of(&["x"]), alone)];
                    edit::apply("{}\n", &alone).expect_err(&why);
                }
            }
            drop(patched(&current, sent, &[]));
        }

        #[test]
        fn survives_whatever_a_client_sends() {
            crate::fuzz::survives(&["openclaw"], |bytes| {
                let Ok(text) = std::str::from_utf8(bytes) else { return };
                let Ok(sent) = crate::config::parse_json5(text) else { return };
                // As a change of a file that a client has just read, and as a file by itself.
                let mut among = redacted(&crate::config::parse_json5(LISTS).unwrap());
                among["hooks"]["mappings"][0]["name"] = sent.clone();
                among["list"][1] = sent.clone();
                among["names"] = json!([sent, "x", "y"]);
                keeps_its_word(LISTS, &among);
                if sent.is_object() {
                    keeps_its_word(FILE, &sent);
                }
            });
        }
    }
}
