//! `config set` and `config unset`: change the file, or say why not.

use std::{path::PathBuf, process::ExitCode};

use serde_json::{Value, json};

use super::{
    super::Context,
    look,
    operation::{Operation, batch, batch_file, reference, value},
    refusal,
};
use crate::{
    config::{
        self, Current, Edit, Form, KEYS, KeyPath, OpenClaw, Outcome, REFUSED, ReloadKind,
        ReloadMode, Run, change, merge,
    },
    problem::{Class, Problem, shell_word},
};

/// Choices that nobody is advised to make: they let more people in.
const OPEN_WORDS: [&str; 2] = ["none", "auto"];

/// Arguments of `config set`. `--json` means `--strict-json` too.
#[derive(Debug, clap::Args)]
pub(super) struct Set {
    /// Dots and brackets: `gateway.port`, `list[0]`, `models["a.b"]`
    #[arg(required_unless_present_any = ["batch_json", "batch_file"])]
    path: Option<String>,
    /// JSON5 where it can be read as that, else the text itself
    #[arg(required_unless_present_any = ["batch_json", "batch_file", "ref_id"], allow_hyphen_values = true)]
    value: Option<String>,
    /// The value must be JSON (also with --json)
    #[arg(long)]
    strict_json: bool,
    /// Check only, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Accepted: nothing is executed here
    #[arg(long, hide = true, requires = "dry_run")]
    allow_exec: bool,
    /// Merge an object into the one that stands there
    #[arg(long, conflicts_with = "replace")]
    merge: bool,
    /// Yes, entries of models, agents, plugins and profiles that are missing in the value shall go
    #[arg(long)]
    replace: bool,
    /// Only if nothing stands there yet
    #[arg(long, conflicts_with_all = ["dry_run", "batch_json", "batch_file", "expect_current_json"])]
    expect_current_absent: bool,
    /// Only if this value (JSON) stands there
    #[arg(long, value_name = "JSON", conflicts_with_all = ["dry_run", "batch_json", "batch_file"])]
    expect_current_json: Option<String>,
    /// Set a reference to a secret: where it comes from (env, file, exec, store)
    #[arg(long, value_name = "SOURCE", requires_all = ["ref_provider", "ref_id"])]
    ref_source: Option<String>,
    /// Which provider has it
    #[arg(long, value_name = "NAME", requires_all = ["ref_source", "ref_id"])]
    ref_provider: Option<String>,
    /// What it is called there
    #[arg(long, value_name = "ID", requires_all = ["ref_source", "ref_provider"], conflicts_with_all = ["value", "batch_json", "batch_file"])]
    ref_id: Option<String>,
    /// Several at once: a list of {path, value}, {path, ref} or {path, provider}
    #[arg(long, value_name = "JSON", conflicts_with_all = ["path", "batch_file"])]
    batch_json: Option<String>,
    /// The same from a file
    #[arg(long, value_name = "FILE", conflicts_with = "path")]
    batch_file: Option<PathBuf>,
}

/// Arguments of `config unset`.
#[derive(Debug, clap::Args)]
pub(super) struct Unset {
    /// Dots and brackets: `gateway.port`, `list[0]`, `models["a.b"]`
    path: String,
    /// Check only, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Accepted: nothing is executed here
    #[arg(long, hide = true, requires = "dry_run")]
    allow_exec: bool,
}

/// What was asked for, for the report.
struct Asked {
    paths: Vec<KeyPath>,
    modes: Vec<&'static str>,
    verb: &'static str,
    run: Run,
}

/// Runs `config set`.
pub(super) fn set(context: &Context, arguments: &Set) -> anyhow::Result<ExitCode> {
    let operations = operations(arguments, context.output.is_json())?;
    let expected =
        arguments.expect_current_json.as_deref().map(|text| value(text, true)).transpose()?;
    let mut modes: Vec<_> = operations.iter().map(|operation| operation.mode).collect();
    modes.dedup();
    let asked = Asked {
        paths: operations.iter().map(|operation| operation.path.clone()).collect(),
        modes,
        verb: "set",
        run: if arguments.dry_run { Run::Dry } else { Run::Real },
    };
    let command = context.paths.command();
    let outcome = change(&context.paths, asked.run, |current| {
        for operation in &operations {
            expect(arguments, expected.as_ref(), current, &operation.path).map_err(|problem| {
                let path = shell_word(&operation.path.to_string());
                problem.fix(format!("{command} config get {path}"))
            })?;
        }
        let mut edits = Vec::new();
        for operation in &operations {
            edits.extend(edits_of(arguments, current, operation)?);
        }
        Ok(edits)
    });
    report(
        context,
        &asked,
        outcome.map_err(|problem| with_right_value(problem, &asked.paths, &command)),
    )
}

/// Runs `config unset`.
pub(super) fn unset(context: &Context, arguments: &Unset) -> anyhow::Result<ExitCode> {
    let path = refusal::path(&arguments.path)?;
    let asked = Asked {
        paths: vec![path.clone()],
        modes: vec!["unset"],
        verb: "took away",
        run: if arguments.dry_run { Run::Dry } else { Run::Real },
    };
    let outcome = change(&context.paths, asked.run, |current| {
        let is_there = path.find(&current.own).is_some() || path.find(&current.whole).is_some();
        if is_there {
            return Ok(vec![Edit::Unset(path.clone())]);
        }
        Err(Problem::new(
            Class::Config,
            format!("{path} is not set in openclaw.json, nothing was changed"),
        )
        .code(refusal::NOT_SET)
        .fix(format!("{} config get PATH", context.paths.command())))
    });
    report(context, &asked, outcome)
}

fn operations(arguments: &Set, is_json: bool) -> Result<Vec<Operation>, Problem> {
    if let Some(text) = &arguments.batch_json {
        return batch(text);
    }
    if let Some(file) = &arguments.batch_file {
        return batch(&batch_file(file)?);
    }
    let path = refusal::path(arguments.path.as_deref().unwrap_or_default())?;
    if let (Some(source), Some(provider), Some(id)) =
        (&arguments.ref_source, &arguments.ref_provider, &arguments.ref_id)
    {
        let value = reference(source, provider, id)?;
        return Ok(vec![Operation { path, value, mode: "builder" }]);
    }
    let is_strict = arguments.strict_json || is_json;
    let value = value(arguments.value.as_deref().unwrap_or_default(), is_strict)?;
    let mode = if is_strict { "json" } else { "value" };
    Ok(vec![Operation { path, value, mode }])
}

/// Whether what stands there is what the caller last saw. Neither value is shown.
fn expect(
    arguments: &Set,
    expected: Option<&Value>,
    current: &Current,
    path: &KeyPath,
) -> Result<(), Problem> {
    let found = path.find(&current.whole);
    let is_as_expected = match expected {
        Some(expected) => found == Some(expected),
        None => !arguments.expect_current_absent || found.is_none(),
    };
    if is_as_expected {
        return Ok(());
    }
    Err(Problem::new(
        Class::Config,
        format!("{path} is not what was expected; nothing was changed"),
    )
    .code(refusal::CONFLICT))
}

fn edits_of(
    arguments: &Set,
    current: &Current,
    operation: &Operation,
) -> Result<Vec<Edit>, Problem> {
    let Operation { path, value, .. } = operation;
    if arguments.merge {
        return merge(current, path, value);
    }
    if !arguments.replace {
        keep_entries(current, path, value)?;
    }
    let mut edits = vec![Edit::Set(path.clone(), value.clone())];
    // The other secret would lie there for nothing, and OpenClaw takes it away too.
    if let (["gateway", "auth", "mode"], Some(mode)) = (path.names().as_slice(), value.as_str()) {
        let idle: &[&str] = match mode {
            "token" => &["password"],
            "password" => &["token"],
            "trusted-proxy" => &["token", "password"],
            _ => &[],
        };
        let idle = idle.iter().map(|key| KeyPath::of(&["gateway", "auth", key]));
        edits.extend(idle.filter(|path| path.find(&current.own).is_some()).map(Edit::Unset));
    }
    Ok(edits)
}

/// Refuses a value that would silently take entries of a person's own lists away.
fn keep_entries(current: &Current, path: &KeyPath, value: &Value) -> Result<(), Problem> {
    let is_protected = matches!(
        path.names().as_slice(),
        ["agents", "defaults", "models"]
            | ["models", "providers"]
            | ["models", "providers", _]
            | ["models", "providers", _, "models"]
            | ["agents" | "plugins", "entries"]
            | ["auth", "profiles"]
    );
    let Some(old) = path.find(&current.whole).filter(|_| is_protected) else { return Ok(()) };
    let kept = entries(value);
    let lost: Vec<_> = entries(old).into_iter().filter(|name| !kept.contains(name)).collect();
    if lost.is_empty() {
        return Ok(());
    }
    Err(Problem::new(Class::Usage, format!("{path} would lose {}", lost.join(", ")))
        .fix("--merge to add, --replace to let them go"))
}

/// The names of what an object or a list of objects with an `id` holds.
fn entries(value: &Value) -> Vec<String> {
    match value {
        Value::Object(keys) => keys.keys().cloned().collect(),
        Value::Array(items) => {
            let ids = items.iter().filter_map(|item| item.get("id").and_then(Value::as_str));
            ids.map(str::to_owned).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

/// The same problem with what to type, where one value was refused whose form we know; what else may
/// stand there is in the message. `command` calls this program.
fn with_right_value(problem: Problem, paths: &[KeyPath], command: &str) -> Problem {
    let [path] = paths else { return problem };
    let path = path.to_string();
    let known = KEYS.iter().find(|key| key.path == path);
    let is_refused = problem.fix.is_none() && problem.message.starts_with(REFUSED);
    let Some(value) = known.filter(|_| is_refused).and_then(|key| right_value(key.form)) else {
        return problem;
    };
    problem.fix(format!("{command} config set {path} {value}"))
}

/// A value of a form that opens nothing.
fn right_value(form: Form) -> Option<String> {
    match form {
        Form::Choice(words) => {
            let word = words.iter().find(|word| !OPEN_WORDS.contains(word))?;
            Some((*word).to_owned())
        }
        Form::Flag => Some("true".to_owned()),
        Form::Port => Some("18789".to_owned()),
        Form::Number(least, _) => Some(least.to_string()),
        Form::Text | Form::Secret => Some("'\"TEXT\"'".to_owned()),
        Form::Texts => Some("'[\"TEXT\"]'".to_owned()),
        Form::Any => None,
    }
}

fn report(
    context: &Context,
    asked: &Asked,
    outcome: Result<Outcome, Problem>,
) -> anyhow::Result<ExitCode> {
    let output = &context.output;
    if asked.run == Run::Dry && output.is_json() {
        return report_dry_run(context, asked, outcome);
    }
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(problem) => return Ok(refusal::refuse(context, problem)),
    };
    let paths: Vec<_> = asked.paths.iter().map(ToString::to_string).collect();
    for path in paths.iter().filter(|path| is_unknown(&outcome, path)) {
        output.note(format!("warning: {path} means nothing to this program; it is kept as it is"));
    }
    let mut review = outcome.review.clone();
    look::add_refusals(context, &mut review);
    for issue in &review.issues {
        output.note(format!("warning: a gateway does not start with this: {issue}"));
    }
    let taken = outcome.is_changed.then(|| taken_up(&asked.paths, &outcome.review.config));
    let restart = taken == Some(ReloadKind::Restart);
    if output.is_json() {
        output.value(&json!({
            "ok": true, "changed": outcome.is_changed, "paths": paths,
            "configPath": context.paths.config, "restart": restart,
        }))?;
        return Ok(ExitCode::SUCCESS);
    }
    let paths = paths.join(", ");
    output.line(match (asked.run, taken) {
        (Run::Dry, _) => format!("{paths}: the file would be in order; nothing was written"),
        (Run::Real, None) => format!("no change: {paths} is as it was"),
        (Run::Real, Some(ReloadKind::Restart)) => {
            format!("{} {paths}; a gateway that runs must be started again to use it", asked.verb)
        }
        (Run::Real, Some(ReloadKind::Hot)) => {
            format!("{} {paths}; a gateway that runs takes it up within seconds", asked.verb)
        }
        (Run::Real, Some(ReloadKind::None)) => format!("{} {paths}", asked.verb),
    });
    Ok(ExitCode::SUCCESS)
}

/// The shape that OpenClaw gives a dry run.
fn report_dry_run(
    context: &Context,
    asked: &Asked,
    outcome: Result<Outcome, Problem>,
) -> anyhow::Result<ExitCode> {
    let is_checked = outcome.is_ok();
    let mut value = json!({
        "ok": is_checked, "operations": asked.paths.len(), "configPath": context.paths.config,
        "inputModes": asked.modes,
        // References are not followed here, as little as where nothing refers to anything.
        "checks": {"schema": true, "resolvability": false, "resolvabilityComplete": false},
        "refsChecked": 0, "skippedExecRefs": 0,
    });
    let Err(problem) = outcome else {
        context.output.value(&value)?;
        return Ok(ExitCode::SUCCESS);
    };
    let kind = match problem.code.as_deref() {
        Some(refusal::NOT_SET) => "missing-path",
        Some(refusal::CONFLICT) => "conflict",
        _ => "schema",
    };
    let errors = json!([{"kind": kind, "message": problem.message}]);
    if let Some(value) = value.as_object_mut() {
        value.insert("errors".to_owned(), errors);
    }
    refusal::value(context, &problem, value)
}

/// Whether the key is one of a section that we read, and means nothing there.
fn is_unknown(outcome: &Outcome, path: &str) -> bool {
    let is_inside = |key: &String| path == key || path.starts_with(&format!("{key}."));
    path.starts_with("gateway.") && outcome.review.unknown.iter().any(is_inside)
}

/// What a gateway that runs makes of a change at `paths`: the most that one of them takes.
fn taken_up(paths: &[KeyPath], config: &OpenClaw) -> ReloadKind {
    let is_off = config.gateway.reload == ReloadMode::Off;
    // Where no mode is set the first password makes another one of the gateway, which waits.
    let may_turn = config.gateway.auth.mode.is_none();
    let kind = |path: &KeyPath| match config::reload_of(&path.to_string()) {
        ReloadKind::Hot if is_off => ReloadKind::Restart,
        ReloadKind::Hot if may_turn && path.names() == ["gateway", "auth", "password"] => {
            ReloadKind::Restart
        }
        kind @ (ReloadKind::Hot | ReloadKind::Restart | ReloadKind::None) => kind,
    };
    let kinds: Vec<ReloadKind> = paths.iter().map(kind).collect();
    let most = [ReloadKind::Restart, ReloadKind::Hot].into_iter().find(|kind| kinds.contains(kind));
    most.unwrap_or(ReloadKind::None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_value_is_answered_with_a_right_one() {
        let fix = |path: &str, message: &str| {
            let problem = Problem::new(Class::Config, message);
            let paths = [KeyPath::parse(path).unwrap()];
            with_right_value(problem, &paths, "openclaw --profile work").fix
        };
        for (path, expected) in [
            ("gateway.port", Some("gateway.port 18789")),
            ("gateway.mode", Some("gateway.mode local")),
            ("gateway.auth.mode", Some("gateway.auth.mode token")),
            ("gateway.bind", Some("gateway.bind loopback")),
            ("gateway.auth.token", Some("gateway.auth.token '\"TEXT\"'")),
            ("gateway", None),
            ("channels", None),
        ] {
            let expected =
                expected.map(|expected| format!("openclaw --profile work config set {expected}"));
            assert_eq!(fix(path, &format!("{REFUSED}x")), expected, "{path}");
        }
        assert_eq!(fix("gateway.port", "cannot read it"), None);
    }
}
