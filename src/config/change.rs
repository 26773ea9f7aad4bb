//! Changes of `openclaw.json`: read, changed, checked and written as one step, or not at all.

use std::path::Path;

use serde_json::Value;

use super::{
    Issue, Paths, edit,
    edit::Edit,
    file,
    include::INCLUDE,
    openclaw::{Review, read},
    path::KeyPath,
    redact::PLACEHOLDER,
    syntax,
};
use crate::problem::{Class, Problem};

/// Variables that say that somebody else manages the file.
const MANAGED: [&str; 2] = ["OPENCLAW_CONFIG_READONLY", "OPENCLAW_NIX_MODE"];

/// What stands before the reasons of a change that is refused for what the file would say.
pub(crate) const REFUSED: &str = "refused, nothing was written: ";

/// What the file holds at the moment, for whoever decides what to change.
#[derive(Debug)]
pub(crate) struct Current {
    /// The file's own value, without what it includes.
    pub(crate) own: Value,
    /// Everything, included files and variables too.
    pub(crate) whole: Value,
}

/// The file as it stands, for whoever shows it.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Its text; `None` without a file.
    pub(crate) text: Option<String>,
    /// Its own value; an empty object without a file, and where it cannot be read.
    pub(crate) own: Value,
    /// What is to be said of it.
    pub(crate) review: Review,
}

/// Reads the file; one that is wrong is a [`Review`] with issues. Class `config` if it cannot be
/// opened.
pub(crate) fn reading(paths: &Paths) -> Result<Reading, Problem> {
    let text = read(&paths.config)?;
    let filled = text.as_deref().filter(|text| !text.trim().is_empty()).unwrap_or("{}\n");
    let review = Review::of_this_machine(filled, &paths.config);
    let own = syntax::parse(filled).unwrap_or_else(|_| Value::Object(serde_json::Map::new()));
    Ok(Reading { text, own, review })
}

/// What a change would do.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Whether the file is another one than before.
    pub(crate) is_changed: bool,
    /// How the file reads now.
    pub(crate) review: Review,
}

/// Why nothing was changed.
#[derive(Debug)]
pub(crate) struct Unchanged {
    /// For people.
    pub(crate) problem: Problem,
    /// What is wrong with the file, or would be; empty where something else stands in the way.
    pub(crate) issues: Vec<Issue>,
}

impl From<Problem> for Unchanged {
    fn from(problem: Problem) -> Self {
        Self { problem, issues: Vec::new() }
    }
}

/// Whether to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Run {
    /// Write.
    Real,
    /// Only say what would come of it.
    Dry,
}

/// Changes the file by the edits that `decide` makes of what stands there. A broken file is left as
/// it is, a change that breaks it is refused with every issue, and a change of somebody else's in
/// between is not lost. Class `config`.
pub(crate) fn change(
    paths: &Paths,
    run: Run,
    decide: impl FnOnce(&Current) -> Result<Vec<Edit>, Problem>,
) -> Result<Outcome, Problem> {
    let unchanged = |unchanged: Unchanged| unchanged.problem;
    change_if(paths, run, |_| Vec::new(), decide, |_, _| Ok(())).map_err(unchanged)
}

/// The same, and nothing is written either that gives `judge` something to say which it did not have
/// to say before: what is wrong already keeps nobody from changing something else. `accept` has the
/// last word on the values before and after, each with what it includes.
pub(crate) fn change_if(
    paths: &Paths,
    run: Run,
    judge: impl Fn(&Review) -> Vec<Issue>,
    decide: impl FnOnce(&Current) -> Result<Vec<Edit>, Problem>,
    accept: impl FnOnce(&Value, &Value) -> Result<(), Problem>,
) -> Result<Outcome, Unchanged> {
    let file = &paths.config;
    if run == Run::Real {
        refuse_if_managed(|name| std::env::var(name).ok())?;
    }
    // Held until this returns.
    let _lock = match run {
        Run::Real => Some(file::lock(&paths.own().join("openclaw.lock"))?),
        Run::Dry => None,
    };
    let before = read(file)?;
    let text = before.as_deref().unwrap_or_default();
    let text = if text.trim().is_empty() { "{}\n" } else { text };
    let review = Review::of_this_machine(text, file);
    if let Some(problem) = review.problem(file) {
        return Err(Unchanged { problem, issues: review.issues });
    }
    let own = syntax::parse(text).unwrap_or_default();
    let known = judge(&review);
    let current = Current { own, whole: review.whole };
    let edits = decide(&current)?;
    refuse_what_is_included(&current.own, &edits, file)?;
    let changed = edit::apply(text, &edits).map_err(|why| {
        Problem::new(Class::Config, format!("cannot change {}: {why}", file.display()))
            .fix(format!("edit {}", file.display()))
    })?;
    let mut after = Review::of_this_machine(&changed, file);
    if after.issues.is_empty() {
        let news = judge(&after).into_iter().filter(|issue| !known.contains(issue));
        after.issues.extend(news);
    }
    if let Some(problem) = after.problem(file) {
        let message = format!("{REFUSED}{}", problem.message);
        let problem = Problem { message, fix: None, ..problem };
        return Err(Unchanged { problem, issues: after.issues });
    }
    accept(&current.whole, &after.whole)?;
    let is_changed = syntax::parse(&changed).ok().as_ref() != Some(&current.own);
    if is_changed && run == Run::Real {
        refuse_if_changed(file, before.as_deref())?;
        file::write(file, changed.as_bytes())?;
    }
    Ok(Outcome { is_changed, review: after })
}

fn refuse_if_managed(variable: impl Fn(&str) -> Option<String>) -> Result<(), Problem> {
    match MANAGED.iter().find(|name| variable(name).as_deref() == Some("1")) {
        None => Ok(()),
        Some(name) => Err(Problem::new(
            Class::Config,
            format!("{name}=1: openclaw.json is managed elsewhere, and not written here"),
        )
        .fix("change it where it comes from")),
    }
}

/// Another program that does not know our lock may have written in between.
fn refuse_if_changed(file: &Path, before: Option<&str>) -> Result<(), Problem> {
    if read(file)?.as_deref() == before {
        return Ok(());
    }
    Err(Problem::new(
        Class::Config,
        format!("{} was changed by another program meanwhile; nothing was written", file.display()),
    )
    .code("CONFLICT")
    .fix("the same command again"))
}

/// A value that comes from another file cannot be changed in this one.
fn refuse_what_is_included(own: &Value, edits: &[Edit], file: &Path) -> Result<(), Problem> {
    for edit in edits {
        let (Edit::Set(path, _) | Edit::Unset(path)) = edit;
        let mut holder = Some(own);
        for step in path.steps() {
            let Some(value) = holder else { break };
            if step.name != INCLUDE
                && let Some(included) = value.get(INCLUDE)
            {
                return Err(Problem::new(
                    Class::Config,
                    format!("{path} belongs to a part of {} that is included", file.display()),
                )
                .fix(format!("edit {included} beside it")));
            }
            holder = match value {
                Value::Object(keys) => keys.get(&step.name),
                Value::Array(items) => step.place().and_then(|place| items.get(place)),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
            };
        }
        if let Edit::Set(path, value) = edit
            && let Some(included) = path.find(own).and_then(|old| old.get(INCLUDE))
            && value.get(INCLUDE).is_none()
        {
            return Err(Problem::new(
                Class::Config,
                format!("{path} is a part of {} that is included", file.display()),
            )
            .fix(format!("edit {included} beside it")));
        }
        if let Edit::Set(path, value) = edit
            && holds_placeholder(value)
        {
            return Err(Problem::new(
                Class::Usage,
                format!(
                    "{PLACEHOLDER} is what `config get` shows for a secret, and no value for {path}"
                ),
            )
            .fix("put the secret itself there; in a list, change one entry at a time"));
        }
    }
    Ok(())
}

fn holds_placeholder(value: &Value) -> bool {
    match value {
        Value::String(text) => text == PLACEHOLDER,
        Value::Array(items) => items.iter().any(holds_placeholder),
        Value::Object(keys) => keys.values().any(holds_placeholder),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The edits that merge `new` into what stands at `path`.
pub(crate) fn merge(current: &Current, path: &KeyPath, new: &Value) -> Result<Vec<Edit>, Problem> {
    edit::merged(&current.own, path, new)
        .map_err(|why| Problem::new(Class::Usage, why).fix("--replace puts the new value there"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{lost_agents, patched, redacted, replaced};

    #[test]
    fn a_file_that_the_system_denied_may_be_readable_later() {
        let (_home, paths) = Paths::temporary();
        std::fs::create_dir_all(&paths.config).unwrap();
        assert!(!reading(&paths).unwrap_err().is_lasting());
    }

    #[test]
    fn a_placeholder_whose_secret_is_not_certain_is_refused() {
        let (_home, paths) = Paths::temporary();
        let mapping = |name: &str, key: &str| json!({"name": name, "sessionKey": key});
        let own = json!({"hooks": {"mappings": [mapping("a", "1"), mapping("b", "2")]}});
        std::fs::create_dir_all(&paths.state).unwrap();
        std::fs::write(&paths.config, own.to_string()).unwrap();
        let sends = |mappings: Value| {
            let new = json!({"hooks": {"mappings": mappings}});
            change(&paths, Run::Dry, |current| Ok(replaced(current, &new)))
        };
        let shown = redacted(&own)["hooks"]["mappings"].clone();
        assert!(sends(json!([shown[1]])).unwrap().is_changed);
        let problem = sends(json!([mapping("other", PLACEHOLDER), mapping("c", "3")])).unwrap_err();
        assert_eq!(problem.class, Class::Usage);
        let place = "no value for hooks.mappings[0].sessionKey";
        assert!(problem.message.ends_with(place), "{problem}");
    }

    #[test]
    fn an_included_part_is_taken_away_or_named_anew_but_not_written_over() {
        let (_home, paths) = Paths::temporary();
        std::fs::create_dir_all(&paths.state).unwrap();
        let part = r#"[{"id": "a"}, {"id": "b"}]"#;
        std::fs::write(paths.config.with_file_name("list.json5"), part).unwrap();
        let own = json!({"agents": {"list": {"$include": "./list.json5"}}});
        std::fs::write(&paths.config, own.to_string()).unwrap();
        let patch = json!({"agents": {"list": [{"id": "a", "name": "n"}]}});
        let decide = |current: &Current| {
            patched(current, &patch, &[]).map_err(|why| Problem::new(Class::Usage, why))
        };
        let problem = change(&paths, Run::Dry, decide).unwrap_err();
        assert_eq!(problem.class, Class::Config);
        assert!(problem.message.starts_with("agents.list is a part of "), "{problem}");
        assert_eq!(problem.fix.as_deref(), Some("edit \"./list.json5\" beside it"));
        let list = KeyPath::of(&["agents", "list"]);
        let named = json!({"$include": ["./list.json5"]});
        for edit in [Edit::Unset(list.clone()), Edit::Set(list, named)] {
            assert!(change(&paths, Run::Dry, |_| Ok(vec![edit])).unwrap().is_changed);
        }
    }

    #[test]
    fn what_is_included_counts_before_and_after_a_change() {
        let (_home, paths) = Paths::temporary();
        std::fs::create_dir_all(&paths.state).unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(paths.config.with_file_name(name), text).unwrap();
        };
        write("agents.json5", "{entries: {a: {}, b: {}}}");
        write("entries.json5", "{a: {}, b: {}}");
        write("all.json5", "{agents: {entries: {a: {}, b: {}}}}");
        let entries = json!({"agents": {"entries": {"a": {}, "b": {}}}});
        let agents = json!({"agents": {"$include": "agents.json5"}});
        let inner = json!({"agents": {"entries": {"$include": "entries.json5"}}});
        let all = json!({"$include": "all.json5"});
        for (own, new, expected) in [
            (&agents, json!({}), "a, b"),
            (&inner, json!({}), "a, b"),
            (&inner, json!({"agents": {}}), "a, b"),
            (&agents, json!({"logging": {"level": "debug"}}), "a, b"),
            (&all, json!({}), "a, b"),
            (&entries, agents.clone(), ""),
            (&entries, inner.clone(), ""),
            (&entries, all.clone(), ""),
        ] {
            std::fs::write(&paths.config, own.to_string()).unwrap();
            let decide = |current: &Current| Ok(replaced(current, &new));
            let mut lost = None;
            let accept = |before: &Value, after: &Value| {
                lost = Some(lost_agents(before, after).join(", "));
                Ok(())
            };
            let outcome = change_if(&paths, Run::Dry, |_| Vec::new(), decide, accept);
            assert!(outcome.is_ok(), "{own} {new}: {outcome:?}");
            assert_eq!(lost.as_deref(), Some(expected), "{own} {new}");
        }
    }
}
