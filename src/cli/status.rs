//! `openclaw status`.

use std::process::ExitCode;

use super::Context;

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

/// Runs `status`.
pub(super) fn run(_context: &Context, _arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
