//! `openclaw gateway status`: the gateway's settings, its port, and whether it lets us in.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::{
    Context,
    gateway_probe::capability,
    gateway_unit::Standing,
    output::{Tone, error_value, milliseconds},
    which::{self, Which, block_on, left},
};
use crate::{
    client::{EVERYTHING, Place, Plan, Reached, own_certificate},
    config::{Bind, OpenClaw, Tls, port_variable, profile_port},
    fingerprint::Fingerprint,
    problem::Problem,
};

/// Arguments of `gateway status`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Do not connect
    #[arg(long, conflicts_with = "require_rpc")]
    no_probe: bool,
    /// Fail unless the gateway also answers a read
    #[arg(long)]
    require_rpc: bool,
    /// As in OpenClaw; there is nothing deeper to look at yet
    #[arg(long, hide = true)]
    deep: bool,
}

/// What was found out.
struct Report {
    file: Result<OpenClaw, Problem>,
    /// Its service.
    service: Standing,
    /// Who listens on the gateway's port of this machine.
    holder: Option<String>,
    /// `None` without a probe.
    probe: Option<Result<(Plan, Reached), Problem>>,
}

/// Runs `gateway status`. A broken `openclaw.json` is reported, and so is a gateway that does not
/// answer; only the latter decides the exit code when there is a target at all.
pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let which = &arguments.which;
    let file = OpenClaw::load(&context.paths);
    let port = port(which, file.as_ref().ok(), context.paths.profile.as_deref());
    let holder = listeners::get_process_by_port(port, listeners::Protocol::TCP)
        .ok()
        .map(|process| format!("{} (pid {})", process.name, process.pid));
    let plan = if arguments.no_probe { None } else { Some(which.plan(context)) };
    block_on(async {
        let deadline = which.deadline();
        let probe = async {
            let plan = plan?;
            Some(match plan {
                Ok(plan) => Box::pin(ask(context, plan, arguments.require_rpc, deadline)).await,
                Err(problem) => Err(problem),
            })
        };
        let service = Standing::find(context).await;
        let report = Report { file, service, holder, probe: probe.await };
        if context.output.is_json() {
            context.output.value(&report.json(context, port, arguments.require_rpc))?;
        } else {
            context.output.rows(&report.rows(context, port));
        }
        Ok(match report.probe {
            Some(Ok((_, reached))) => {
                reached.gateway.close().await;
                ExitCode::SUCCESS
            }
            Some(Err(problem)) => {
                context.output.advice(&problem);
                ExitCode::from(problem.class.exit_code())
            }
            None => ExitCode::SUCCESS,
        })
    })
}

async fn ask(
    context: &Context,
    plan: Plan,
    read: bool,
    deadline: tokio::time::Instant,
) -> Result<(Plan, Reached), Problem> {
    let (reached, ()) = which::ask(context, &plan, EVERYTHING, deadline, async |reached| {
        reached.verify(left(deadline)).await?;
        if read {
            reached.call("status", None, left(deadline)).await?;
        }
        Ok(())
    })
    .await?;
    Ok((plan, reached))
}

/// The port of this machine's gateway.
fn port(which: &Which, file: Option<&OpenClaw>, profile: Option<&str>) -> u16 {
    let variable = || std::env::var("OPENCLAW_GATEWAY_PORT").ok().and_then(|p| port_variable(&p));
    which.port().or_else(variable).unwrap_or_else(|| match file {
        Some(file) => file.gateway.own_port(),
        None => profile_port(profile),
    })
}

fn bind_text(bind: Bind) -> &'static str {
    match bind {
        Bind::Auto => "auto",
        Bind::Loopback => "loopback",
        Bind::Lan => "lan",
        Bind::Tailnet => "tailnet",
        Bind::Custom => "custom",
    }
}

impl Report {
    fn bind(&self) -> &'static str {
        let bind = self.file.as_ref().ok().and_then(|file| file.gateway.bind);
        bind_text(bind.unwrap_or(Bind::Loopback))
    }

    /// What is said of TLS, where the gateway of this machine speaks it.
    fn tls(&self) -> Option<&Tls> {
        self.file.as_ref().ok().map(|file| &file.gateway.tls).filter(|tls| tls.enabled)
    }

    /// The certificate that it shows.
    fn fingerprint(&self, context: &Context) -> Option<Fingerprint> {
        own_certificate(self.tls()?, &context.paths)
    }

    fn rows(&self, context: &Context, port: u16) -> Vec<(&'static str, String)> {
        let config = context.paths.config.display();
        let config = match &self.file {
            Ok(_) if context.paths.config.exists() => format!("{config}"),
            Ok(_) => format!("{config} (none; defaults)"),
            Err(_) => format!("{config} ({})", context.output.paint(Tone::Bad, "broken")),
        };
        let listener = match &self.holder {
            Some(holder) => format!("held by {holder}"),
            None => "nothing listens".to_owned(),
        };
        let mut rows = vec![
            ("Service", self.service.text()),
            ("Config", config),
            ("Bind", format!("{}, port {port}", self.bind())),
            ("Port", listener),
        ];
        if self.tls().is_some() {
            let shown = self.fingerprint(context);
            let shown = shown.map_or_else(|| "no certificate yet".to_owned(), |it| it.to_string());
            rows.push(("TLS", shown));
        }
        match &self.probe {
            None => rows.push(("Probe", "skipped".to_owned())),
            Some(Ok((plan, reached))) => {
                let hello = &reached.gateway.hello;
                let word = context.output.paint(Tone::Good, "ok");
                let target = &plan.target;
                rows.push(("Target", format!("{} ({})", target.place, target.rule)));
                rows.push(("Probe", format!("{word} · {}", milliseconds(reached.took))));
                rows.push(("Version", hello.server.version.clone()));
                rows.push(("May", capability(&hello.auth.scopes).replace('_', " ")));
            }
            Some(Err(problem)) => {
                let word = context.output.paint(Tone::Bad, "failed");
                rows.push(("Probe", format!("{word} · {}", problem.message)));
            }
        }
        rows
    }

    /// OpenClaw's shape.
    fn json(&self, context: &Context, port: u16, read: bool) -> Value {
        let config = json!({
            "path": context.paths.config,
            "exists": context.paths.config.exists(),
            "valid": self.file.is_ok(),
            "issues": self.file.as_ref().err().map(|problem| vec![&problem.message]),
        });
        let mut report = json!({
            "cli": {
                "version": env!("CARGO_PKG_VERSION"),
                "entrypoint": std::env::current_exe().ok(),
            },
            "service": self.service.json(),
            "config": {"cli": config, "daemon": config},
            "gateway": {
                "bindMode": self.bind(),
                "port": port,
                "tls": self.tls().map(|_| json!({
                    "enabled": true, "fingerprint": self.fingerprint(context),
                })),
                "probeUrl": self.probe_url(),
                "version": self.hello().map(|(_, reached)| &reached.gateway.hello.server.version),
            },
            "port": {
                "port": port,
                "status": if self.holder.is_some() { "busy" } else { "free" },
                "listeners": self.holder.iter().collect::<Vec<_>>(),
            },
            "extraServices": self.service.extra(),
        });
        if let (Some(probe), Some(report)) = (&self.probe, report.as_object_mut()) {
            report.insert("rpc".to_owned(), rpc(probe, read));
        }
        report
    }

    fn hello(&self) -> Option<&(Plan, Reached)> {
        self.probe.as_ref().and_then(|probe| probe.as_ref().ok())
    }

    fn probe_url(&self) -> Option<String> {
        match &self.hello()?.0.target.place {
            Place::Remote(_) => None,
            place @ (Place::Local { .. } | Place::Address(_)) => Some(place.to_string()),
        }
    }
}

fn rpc(probe: &Result<(Plan, Reached), Problem>, read: bool) -> Value {
    let kind = if read { "read" } else { "connect" };
    match probe {
        Ok((_, reached)) => {
            let hello = &reached.gateway.hello;
            let capability = capability(&hello.auth.scopes);
            json!({
                "ok": true,
                "kind": kind,
                "capability": capability,
                "auth": {
                    "role": hello.auth.role, "scopes": hello.auth.scopes,
                    "capability": capability,
                },
                "server": {"version": hello.server.version, "connId": hello.server.conn_id},
                "version": hello.server.version,
            })
        }
        Err(problem) => json!({
            "ok": false, "kind": kind, "capability": "unknown",
            "error": problem.message, "problem": error_value(problem),
        }),
    }
}
