//! `openclaw gateway`: run one, or ask one.

use std::process::ExitCode;

use super::{Context, gateway_run};

/// Arguments of `gateway`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Run the gateway in the foreground
    Run(gateway_run::Arguments),
}

/// Runs one of the `gateway` commands.
pub(super) fn run(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Run(arguments) => gateway_run::run(context, arguments),
    }
}
