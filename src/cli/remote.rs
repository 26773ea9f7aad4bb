//! `openclaw remote`.

use std::process::ExitCode;

use super::Context;

/// Arguments of `remote`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

/// Runs `remote`.
pub(super) fn run(_context: &Context, _arguments: Arguments) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}

/// Runs the supervisor of this profile.
pub(super) fn supervise(_context: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not built yet")
}
