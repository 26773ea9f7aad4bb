//! `openclaw health`.

use std::process::ExitCode;

use super::Context;

/// Arguments of `health`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

/// Runs `health`.
pub(super) fn run(_context: &Context, _arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
