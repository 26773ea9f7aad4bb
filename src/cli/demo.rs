//! `openclaw demo`.

use std::process::ExitCode;

use super::Context;

/// Arguments of `demo`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

/// Runs `demo`.
pub(super) fn run(_context: &Context, _arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
