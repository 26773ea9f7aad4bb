//! `openclaw gateway run`.

use std::process::ExitCode;

use super::Context;

/// Arguments of `gateway run`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

/// Runs `gateway run`.
pub(super) fn run(_context: &Context, _arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
