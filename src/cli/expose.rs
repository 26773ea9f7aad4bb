//! `openclaw remote expose`: publish this machine's gateway on the loopback of a jump host.

use std::{process::ExitCode, time::Duration};

use serde_json::Value;
use tokio::time::Instant;

use super::{
    Context,
    connect::{Manner, bring_up},
    foreground,
    order::{Order, current_folder, name_of},
    output::Tone,
    remote::describe,
    ssh_options,
};
use crate::{
    client::{self, Credential, Surroundings},
    config::{Kind, OpenClaw, Remote, Remotes, Tls, check_name},
    control::{self, Note},
    fingerprint::Fingerprint,
    problem::{Class, Problem},
    ssh,
};

/// Arguments of `remote expose`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// `[user@]jump[:port]`, or the name of what was exposed before; without it the only one
    target: Option<String>,
    #[command(flatten)]
    ssh: ssh_options::Arguments,
    /// What to call it; the host with `-exposed` otherwise
    #[arg(long)]
    name: Option<String>,
    /// The port on the jump host's loopback; the server chooses one otherwise, which is kept
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    remote_port: Option<u16>,
    /// The port of this machine's gateway, if it is not the configured one
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    gateway_port: Option<u16>,
    /// Never ask a person
    #[arg(long)]
    batch: bool,
    /// How long to try, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Be the supervisor, for this one, in the foreground
    #[arg(long)]
    pub(super) foreground: bool,
}

/// Runs `remote expose`; a service is told when another try cannot help.
pub(super) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let is_service = arguments.foreground;
    match expose(context, arguments).await {
        Err(error) if is_service => Ok(foreground::refusal(context, &error)),
        outcome => outcome,
    }
}

async fn expose(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    arguments.ssh.refuse_unsupported()?;
    let gateway = OpenClaw::load(&context.paths)?.gateway;
    let own_port = client::own_port(arguments.gateway_port, &Surroundings::read(), &gateway)?;
    let saved = Remotes::load(&context.paths)?;
    let own = Own { port: own_port, certificate: certificate(&gateway.tls, context)? };
    let order = order(&arguments, &saved, own)?;
    if let Some(definition) = order.definition.clone() {
        // A wrong target, option or configuration is said before anything is started.
        let resolving = tokio::task::spawn_blocking(move || {
            ssh::resolve(&definition.target, &definition.ssh, &ssh::Environment::of_process())
        });
        resolving.await??;
    }
    if arguments.foreground {
        let nothing = Credential::default();
        let run = foreground::run(context, arguments.timeout, order, nothing, None);
        return Box::pin(run).await;
    }
    let manner = Manner { batch: arguments.batch, timeout: arguments.timeout };
    let mut deadline = Instant::now() + Duration::from_secs(arguments.timeout);
    let (status, _, mut connection) = bring_up(context, manner, &order, &mut deadline).await?;
    connection.note(&Note::Keep { gateway: None }).await?;
    connection.done().await?;
    let now = control::statuses(&context.paths.endpoint(), Some(&order.name)).await;
    let status = now.ok().and_then(|remotes| remotes.into_iter().next()).unwrap_or(status);
    finish(context, &status)
}

/// The gateway of this machine.
#[derive(Debug, Clone, Copy)]
struct Own {
    port: u16,
    /// What it shows, where it speaks TLS.
    certificate: Option<Fingerprint>,
}

/// The certificate of this machine's gateway, which others are told; class `gateway_down` where it
/// speaks TLS and has none yet.
fn certificate(tls: &Tls, context: &Context) -> Result<Option<Fingerprint>, Problem> {
    if !tls.enabled {
        return Ok(None);
    }
    client::own_certificate(tls, &context.paths).map(Some).ok_or_else(|| {
        Problem::new(Class::GatewayDown, "the gateway of this machine has no TLS certificate yet")
            .fix("openclaw gateway run, which makes one, or gateway.tls.certPath")
    })
}

/// What is asked of the supervisor, with `own` as the gateway.
fn order(arguments: &Arguments, saved: &Remotes, own: Own) -> Result<Order, Problem> {
    let (name, base) = subject(arguments, saved)?;
    let before = saved.remotes.get(&name);
    if before.is_some_and(|before| before.kind != Kind::Exposed) {
        return Err(Problem::new(
            Class::Usage,
            format!("`{name}` is the name of a remote that leads to a gateway"),
        )
        .fix("choose another one with --name"));
    }
    let mut remote = base.unwrap_or_else(|| Remote {
        kind: Kind::Exposed,
        // The port that others were told stays, whatever else changes.
        remote_port: before.map_or(0, |before| before.remote_port),
        ..Remote::new(arguments.target.clone().unwrap_or_default())
    });
    remote.remote_port = arguments.remote_port.unwrap_or(remote.remote_port);
    remote.local_port = own.port;
    remote.tls_fingerprint = own.certificate;
    remote.wanted = true;
    arguments.ssh.change(&mut remote.ssh, &current_folder()?)?;
    let is_unchanged = before == Some(&remote);
    Ok(Order {
        name,
        definition: (!is_unchanged).then_some(remote),
        make_default: false,
        is_new: before.is_none(),
    })
}

/// The name of what is meant, and the definition that the options change.
fn subject(arguments: &Arguments, saved: &Remotes) -> Result<(String, Option<Remote>), Problem> {
    let Some(target) = &arguments.target else {
        if arguments.ssh.is_given() {
            return Err(Problem::new(Class::Usage, "ssh options, and no target that they are for")
                .fix("openclaw remote expose [ssh options] [user@]jump"));
        }
        let exposed = saved.remotes.iter().filter(|(_, remote)| remote.kind == Kind::Exposed);
        let exposed: Vec<_> = exposed.collect();
        return match (&arguments.name, exposed.as_slice()) {
            (Some(name), _) => Ok((name.clone(), Some(saved.named(name)?.clone()))),
            (None, [(name, remote)]) => Ok(((*name).clone(), Some((*remote).clone()))),
            (None, []) => Err(Problem::new(Class::Usage, "no target, and nothing is exposed yet")
                .fix("openclaw remote expose [user@]jump")),
            (None, [_, ..]) => {
                Err(Problem::new(Class::Usage, "this machine is exposed more than once")
                    .fix("name the one that is meant; openclaw remote list"))
            }
        };
    };
    if arguments.name.is_none()
        && let Some(definition) = saved.remotes.get(target)
        && definition.kind == Kind::Exposed
    {
        return Ok((target.clone(), Some(definition.clone())));
    }
    if let Err(why) = ssh::Target::parse(target) {
        return Err(Problem::new(Class::Usage, why).fix(ssh::Target::FIX));
    }
    let name = arguments.name.clone().unwrap_or_else(|| format!("{}-exposed", name_of(target)));
    check_name(&name)?;
    Ok((name, None))
}

/// Prints how it stands now, and what the other machines type.
fn finish(context: &Context, status: &Value) -> anyhow::Result<ExitCode> {
    if context.output.is_json() {
        context.output.value(status)?;
        return Ok(ExitCode::SUCCESS);
    }
    for line in describe(context, status) {
        context.output.line(line);
    }
    let next = "its token, for them: openclaw gateway auth-token --show";
    context.output.line(context.output.paint(Tone::Quiet, next));
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn order_of(words: &[&str], saved: &Remotes) -> Result<Order, Problem> {
        let line = Line::parse_from(["expose"].iter().chain(words));
        order(&line.arguments, saved, Own { port: 18789, certificate: None })
    }

    fn saved(name: &str, remote: Remote) -> Remotes {
        Remotes { remotes: [(name.to_owned(), remote)].into(), ..Remotes::default() }
    }

    #[test]
    fn a_first_exposure_leaves_the_port_to_the_server_and_is_no_default() {
        let order = order_of(&["-p2222", "me@jump"], &Remotes::default()).unwrap();
        let remote = order.definition.unwrap();
        assert_eq!((order.name.as_str(), order.make_default), ("jump-exposed", false));
        assert_eq!((remote.kind, remote.remote_port, remote.local_port), (Kind::Exposed, 0, 18789));
        assert_eq!(remote.ssh.port, Some(2222));
    }

    #[test]
    fn the_port_that_others_were_told_stays() {
        let known = Remote {
            kind: Kind::Exposed,
            remote_port: 4711,
            local_port: 18789,
            ..Remote::new("me@jump")
        };
        let saved = saved("jump-exposed", known);
        for words in [&[][..], &["jump-exposed"], &["--name", "jump-exposed"]] {
            assert_eq!(order_of(words, &saved).unwrap().definition, None, "{words:?}");
        }
        let edited = order_of(&["you@jump"], &saved).unwrap().definition.unwrap();
        assert_eq!((edited.remote_port, edited.target.as_str()), (4711, "you@jump"));
        let moved = order_of(&["--remote-port", "4712"], &saved).unwrap().definition.unwrap();
        assert_eq!(moved.remote_port, 4712);
    }

    #[test]
    fn a_remote_that_leads_to_a_gateway_is_not_exposed() {
        let saved = saved("vps", Remote::new("me@vps"));
        for words in [&["--name", "vps", "me@jump"][..], &["--name", "vps"]] {
            assert_eq!(order_of(words, &saved).map(|it| it.name).unwrap_err().class, Class::Usage);
        }
        // The same host may be both.
        assert_eq!(order_of(&["vps"], &saved).unwrap().name, "vps-exposed");
        for words in [&[][..], &["-p2222"]] {
            let problem = order_of(words, &saved).map(|it| it.name).unwrap_err();
            assert!(problem.fix.is_some_and(|fix| fix.contains("jump")));
        }
    }
}
