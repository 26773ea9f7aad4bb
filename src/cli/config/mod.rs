//! `openclaw config`: look at `openclaw.json`, change it, check it.

mod look;
mod operation;
mod refusal;
mod write;

use std::process::ExitCode;

use super::Context;

/// Arguments of `config`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Print a value, without the secrets in it
    Get(look::Get),
    /// Change a value; comments and the rest of the file stay as they are
    Set(write::Set),
    /// Take a value away
    Unset(write::Unset),
    /// Tell everything that is wrong in the file
    Validate,
    /// Print where the file is
    File,
}

/// Runs one of the `config` commands.
pub(super) fn run(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Get(arguments) => look::get(context, &arguments),
        Command::Set(arguments) => write::set(context, &arguments),
        Command::Unset(arguments) => write::unset(context, &arguments),
        Command::Validate => look::validate(context),
        Command::File => look::file(context),
    }
}
