//! `openclaw gateway auth-token`: the one command that prints a secret, and only when told so.

use std::process::ExitCode;

use super::Context;
use crate::{
    client::{Asked, Credential, Plan},
    config::{AuthMode, Bind, Credentials, OpenClaw, Remotes},
    problem::{Class, Problem},
    secret::Secret,
};

/// Arguments of `gateway auth-token`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Yes, print it
    #[arg(long)]
    show: bool,
}

/// Runs `gateway auth-token`.
pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let again = format!("{} gateway auth-token --show", context.paths.command());
    if !arguments.show {
        return Err(Problem::new(Class::Usage, "this prints the gateway's token as it is")
            .fix(again)
            .into());
    }
    if context.output.is_json() {
        return Err(Problem::new(Class::Usage, "secrets are not printed as JSON")
            .fix(again)
            .into());
    }
    let token = match context.globals.remote.as_deref() {
        Some(name) if name != "local" => of_remote(context, name)?,
        Some(_) | None => of_this_machine(context)?,
    };
    context.output.line(token.expose());
    Ok(ExitCode::SUCCESS)
}

fn of_this_machine(context: &Context) -> Result<Secret, Problem> {
    let asked = Asked { local_gateway: true, ..Asked::default() };
    let credential = Plan::make(&context.paths, &asked, Credential::default())?.credential(None)?;
    credential.token.ok_or_else(|| {
        let problem =
            |what| Problem::new(Class::Config, format!("the gateway on this machine {what}"));
        let gateway =
            OpenClaw::load(&context.paths).map(|config| config.gateway).unwrap_or_default();
        // Beyond loopback it makes itself none.
        let is_beyond = matches!(gateway.bind, Some(Bind::Lan | Bind::Tailnet | Bind::Custom));
        let command = context.paths.command();
        let next = if is_beyond {
            format!("{command} config set gateway.auth.token \"$(openssl rand -base64 32)\"")
        } else {
            format!("{command} gateway run")
        };
        match gateway.auth.mode {
            Some(AuthMode::None) => problem("asks for no secret (gateway.auth.mode is `none`)"),
            Some(AuthMode::TrustedProxy) => {
                problem("takes its users from a proxy, and has no token")
            }
            _ if credential.password.is_some() => problem("has a password, no token"),
            Some(AuthMode::Password) => {
                problem("asks for a password (gateway.auth.mode is `password`), not for a token")
            }
            Some(AuthMode::Token) | None => problem("has no token yet").fix(next),
        }
    })
}

fn of_remote(context: &Context, name: &str) -> Result<Secret, Problem> {
    Remotes::load(&context.paths)?.named(name)?;
    let saved = Credentials::load(&context.paths)?.remotes.remove(name);
    saved.and_then(|saved| saved.token).ok_or_else(|| {
        Problem::new(Class::Config, format!("no token is saved for the remote `{name}`"))
            .fix(format!("{} remote connect {name}", context.paths.command()))
    })
}
