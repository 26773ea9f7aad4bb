//! What the `config` commands say when they do not do it, in the shapes that OpenClaw's have.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::super::{Context, output::error_value};
use crate::{
    config::{KeyPath, Review},
    problem::{Class, Problem},
};

/// Code of a path that leads to nothing.
pub(super) const NOT_SET: &str = "NOT_SET";
/// Code of a file that is not as the caller expects.
pub(super) const CONFLICT: &str = "CONFLICT";

/// The path that a person typed; class `usage` if it is none.
pub(super) fn path(text: &str) -> Result<KeyPath, Problem> {
    KeyPath::parse(text).map_err(|why| {
        Problem::new(Class::Usage, format!("`{text}` is no path: {why}"))
            .fix("openclaw config get gateway.port, list[0], models[\"a.b\"]")
    })
}

/// Prints why; what is no error of the file or of the call exits with 1, as OpenClaw's does.
pub(super) fn refuse(context: &Context, problem: Problem) -> ExitCode {
    let exit = exit_code(&problem);
    context.output.failure_with(&problem.into(), exit)
}

/// The exit code of a problem here.
pub(super) fn exit_code(problem: &Problem) -> u8 {
    match problem.code.as_deref() {
        Some(NOT_SET | CONFLICT) => 1,
        _ => problem.class.exit_code(),
    }
}

/// Prints everything that is wrong in the file; for scripts as a list too.
pub(super) fn invalid(
    context: &Context,
    review: &Review,
    is_validating: bool,
) -> anyhow::Result<ExitCode> {
    let file = &context.paths.config;
    let Some(problem) = review.problem(file) else { return Ok(ExitCode::SUCCESS) };
    if !context.output.is_json() {
        return Err(problem.into());
    }
    let mut more = json!({"issues": review.issues});
    if let Some(more) = more.as_object_mut().filter(|_| is_validating) {
        more.insert("valid".to_owned(), false.into());
        more.insert("path".to_owned(), json!(file));
    }
    value(context, &problem, more)
}

/// Prints a failure for scripts with the keys of `more` beside it.
pub(super) fn value(context: &Context, problem: &Problem, more: Value) -> anyhow::Result<ExitCode> {
    let exit = exit_code(problem);
    let mut value = json!({"ok": false, "error": error_value(problem)});
    if let Some(error) = value.pointer_mut("/error/exitCode") {
        *error = exit.into();
    }
    if let (Some(value), Value::Object(more)) = (value.as_object_mut(), more) {
        value.extend(more);
    }
    context.output.value(&value)?;
    Ok(ExitCode::from(exit))
}
