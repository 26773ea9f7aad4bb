//! `config get`, `config validate` and `config file`: what stands in the file, and where it is.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    super::{Context, gateway_origin::Origin},
    refusal,
};
use crate::{
    config::{Issue, KeyPath, Mode, Review, SecretInput, redacted},
    gateway::{Refusal, Source},
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
    let Some(mut review) = Review::load(&context.paths)? else {
        let problem = Problem::new(Class::Config, format!("there is no {}", file.display()))
            .fix("openclaw config set gateway.mode local");
        if output.is_json() {
            return refusal::value(context, &problem, json!({"valid": false, "path": file}));
        }
        return Err(problem.into());
    };
    add_refusals(context, &mut review);
    if !review.issues.is_empty() {
        return refusal::invalid(context, &review, true);
    }
    let strangers = review.strangers();
    review.warnings.extend(strangers);
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

/// Adds what keeps a gateway from starting with the file, where one is to start on this machine. A
/// secret that is out of reach from here may be within reach of a service: that is a warning.
pub(super) fn add_refusals(context: &Context, review: &mut Review) {
    if review.config.gateway.mode == Some(Mode::Remote) {
        return;
    }
    let auth = &review.config.gateway.auth;
    let is_elsewhere = |path: &str| {
        let secret = match path {
            "gateway.auth.token" => &auth.token,
            "gateway.auth.password" => &auth.password,
            _ => return false,
        };
        matches!(secret, Some(SecretInput::Unresolved { .. }))
    };
    let refusals = Origin::plain(context).refusals(review);
    let (elsewhere, here): (Vec<_>, Vec<_>) =
        refusals.iter().partition(|refusal| is_elsewhere(refusal.path));
    review.issues.extend(here.into_iter().map(Refusal::issue));
    let is_told = |issue: &Issue| review.warnings.iter().any(|known| known.path == issue.path);
    let more: Vec<_> =
        elsewhere.into_iter().map(Refusal::issue).filter(|it| !is_told(it)).collect();
    review.warnings.extend(more);
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
