//! `openclaw gateway call METHOD`.

use std::process::ExitCode;

use serde_json::Value;

use super::{
    Context,
    which::{Which, block_on, left, reach},
};
use crate::{
    client::EVERYTHING,
    problem::{Class, Problem},
};

/// Arguments of `gateway call`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The method, as in the gateway protocol: `health`, `system-presence`, …
    #[arg(value_name = "METHOD")]
    method: String,
    /// Its parameters
    #[arg(long, value_name = "JSON", default_value = "{}", hide_default_value = true)]
    params: String,
    #[command(flatten)]
    which: Which,
}

/// Runs `gateway call`.
pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let params: Value = serde_json::from_str(&arguments.params).map_err(|error| {
        Problem::new(Class::Usage, format!("--params is not valid JSON: {error}"))
            .fix(r#"--params '{"limit": 10}'"#)
    })?;
    let plan = arguments.which.plan(context)?;
    block_on(async {
        let deadline = arguments.which.deadline();
        let reached = reach(context, &plan, EVERYTHING, deadline).await?;
        // The call may change something: the gateway must be the right one first.
        reached.verify(left(deadline)).await?;
        let answer = reached.call(&arguments.method, Some(params), left(deadline)).await?;
        context.output.value(&answer)?;
        reached.gateway.close().await;
        Ok(ExitCode::SUCCESS)
    })
}
