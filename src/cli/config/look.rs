//! `config get`, `config validate` and `config file`: what stands in the file, and where it is.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{super::Context, refusal};
use crate::{
    config::{KeyPath, Review, redacted},
    problem::{Class, Problem},
};

/// Arguments of `config get`.
#[derive(Debug, clap::Args)]
pub(super) struct Get {
    /// Dots and brackets: `gateway.port`, `list[0]`, `models["a.b"]`
    path: String,
}

/// Runs `config get`.
pub(super) fn get(context: &Context, arguments: &Get) -> anyhow::Result<ExitCode> {
    let path = refusal::path(&arguments.path)?;
    let review = Review::load(&context.paths)?.unwrap_or_default();
    if !review.issues.is_empty() {
        return refusal::invalid(context, &review, false);
    }
    let shown = redacted(&review.whole);
    let Some(value) = path.find(&shown) else {
        return Ok(refusal::refuse(context, unset(&path)));
    };
    match value {
        Value::String(text) if !context.output.is_json() => context.output.line(text),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => context.output.value(value)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn unset(path: &KeyPath) -> Problem {
    Problem::new(Class::Config, format!("{path} is not set in openclaw.json"))
        .code(refusal::NOT_SET)
        .fix(format!("openclaw config set '{path}' VALUE"))
}

/// Runs `config validate`.
pub(super) fn validate(context: &Context) -> anyhow::Result<ExitCode> {
    let (output, file) = (&context.output, &context.paths.config);
    let Some(review) = Review::load(&context.paths)? else {
        let problem = Problem::new(Class::Config, format!("there is no {}", file.display()))
            .fix("openclaw config set gateway.mode local");
        if output.is_json() {
            return refusal::value(context, &problem, json!({"valid": false, "path": file}));
        }
        return Err(problem.into());
    };
    if !review.issues.is_empty() {
        return refusal::invalid(context, &review, true);
    }
    if output.is_json() {
        output.value(&json!({"valid": true, "path": file, "warnings": review.warnings}))?;
        return Ok(ExitCode::SUCCESS);
    }
    output.line(format!("{} is in order", file.display()));
    for warning in &review.warnings {
        output.line(format!("  warning: {warning}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `config file`.
pub(super) fn file(context: &Context) -> anyhow::Result<ExitCode> {
    let file = &context.paths.config;
    if context.output.is_json() {
        context.output.value(&json!({"path": file}))?;
    } else {
        context.output.line(file.display().to_string());
    }
    Ok(ExitCode::SUCCESS)
}
