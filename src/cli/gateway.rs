//! `openclaw gateway`: run one, or ask one.

use std::process::ExitCode;

use super::{
    Context, gateway_auth_token, gateway_call, gateway_probe, gateway_run,
    gateway_service::{self, Verb},
    gateway_status, health,
    which::block_on,
};

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
    /// Run the gateway as a service of systemd or launchd
    Install(gateway_service::Install),
    /// End the service and remove what `install` wrote
    Uninstall(gateway_service::Arguments),
    /// Start the service
    Start(gateway_service::Arguments),
    /// Stop the service
    Stop(gateway_service::Arguments),
    /// Stop the service and start it again
    Restart(gateway_service::Arguments),
    /// Show the gateway's settings, its port, and whether it lets us in
    Status(gateway_status::Arguments),
    /// Ask the gateway whether it is well
    Health(health::Arguments),
    /// Try every gateway that this machine knows of
    Probe(gateway_probe::Arguments),
    /// Call a method of the gateway and print its answer
    Call(gateway_call::Arguments),
    /// Print the gateway's token
    AuthToken(gateway_auth_token::Arguments),
}

impl Arguments {
    /// Whether the gateway itself runs, which writes a log of its own.
    pub(super) fn is_run(&self) -> bool {
        matches!(self.command, Command::Run(_))
    }
}

/// Runs one of the `gateway` commands.
pub(super) fn run(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Run(arguments) => gateway_run::run(context, arguments),
        Command::Install(arguments) => block_on(gateway_service::install(context, arguments)),
        Command::Uninstall(arguments) => block_on(gateway_service::uninstall(context, arguments)),
        Command::Start(arguments) => {
            block_on(gateway_service::control(context, Verb::Start, arguments))
        }
        Command::Stop(arguments) => {
            block_on(gateway_service::control(context, Verb::Stop, arguments))
        }
        Command::Restart(arguments) => {
            block_on(gateway_service::control(context, Verb::Restart, arguments))
        }
        Command::Status(arguments) => gateway_status::run(context, &arguments),
        Command::Health(arguments) => health::run(context, &arguments),
        Command::Probe(arguments) => gateway_probe::run(context, &arguments),
        Command::Call(arguments) => gateway_call::run(context, &arguments),
        Command::AuthToken(arguments) => gateway_auth_token::run(context, &arguments),
    }
}
