//! `openclaw gateway probe`: tries every gateway that this machine knows of.

use std::process::ExitCode;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    Context,
    output::{Tone, milliseconds},
    status::tenths,
    which::{Which, block_on, left, located},
};
use crate::{
    client::{EVERYTHING, Place, Plan, Reached, Rule},
    problem::Problem,
};

/// Arguments of `gateway probe`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: Which,
}

/// One gateway that was tried.
struct Probed {
    id: &'static str,
    label: String,
    plan: Plan,
    outcome: Result<Found, Problem>,
}

/// A gateway that let us in, and what it answered to reads.
struct Found {
    reached: Reached,
    details: Result<Details, Problem>,
}

/// What a reader may know.
struct Details {
    health: Value,
    status: Value,
    presence: Value,
}

/// Runs `gateway probe`; fails only if no gateway lets us in.
pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let which = &arguments.which;
    let chosen = which.plan(context)?;
    let local = which.plan_local(context)?;
    block_on(async {
        let start = Instant::now();
        let deadline = which.deadline();
        let probed = if chosen.target.place == local.target.place {
            vec![probe(context, chosen, deadline).await]
        } else {
            let (chosen, local) =
                tokio::join!(probe(context, chosen, deadline), probe(context, local, deadline));
            vec![chosen, local]
        };
        let ok = probed.iter().any(|probed| probed.outcome.is_ok());
        if context.output.is_json() {
            let timeout = which.patience();
            context.output.value(&summary(&probed, ok, start.elapsed(), timeout))?;
        } else {
            print(context, &probed);
        }
        let problem = probed.iter().find_map(|probed| probed.outcome.as_ref().err()).cloned();
        for found in probed.into_iter().filter_map(|probed| probed.outcome.ok()) {
            found.reached.gateway.close().await;
        }
        Ok(match problem {
            Some(problem) if !ok => {
                context.output.advice(&problem);
                ExitCode::from(problem.class.exit_code())
            }
            Some(_) | None => ExitCode::SUCCESS,
        })
    })
}

async fn probe(context: &Context, plan: Plan, deadline: Instant) -> Probed {
    let (id, label) = match (&plan.target.place, plan.target.rule) {
        (Place::Local { .. }, _) => ("localLoopback", "Local loopback".to_owned()),
        (Place::Address(_), Rule::Configured) => ("configRemote", "Remote (configured)".to_owned()),
        (Place::Address(_), _) => ("explicit", "URL (explicit)".to_owned()),
        (Place::Remote(_), rule) => ("sshTunnel", format!("Remote ({rule})")),
    };
    let outcome = async {
        let reached = plan.reach(EVERYTHING, deadline).await?;
        reached.verify(left(deadline)).await?;
        let details = details(&reached, deadline).await;
        Ok(Found { reached, details })
    };
    let outcome = outcome.await;
    let outcome = outcome.map_err(|problem| located(context, &plan.target.place, problem));
    Probed { id, label, plan, outcome }
}

async fn details(reached: &Reached, deadline: Instant) -> Result<Details, Problem> {
    let call = |method| reached.call(method, None, left(deadline));
    let (health, status, presence) =
        tokio::join!(call("health"), call("status"), call("system-presence"));
    Ok(Details { health: health?, status: status?, presence: presence? })
}

/// What the granted scopes allow, in OpenClaw's words.
pub(super) fn capability(scopes: &[String]) -> &'static str {
    let has = |scope: &str| scopes.iter().any(|granted| granted == scope);
    if has("operator.admin") {
        "admin_capable"
    } else if has("operator.write") {
        "write_capable"
    } else if has("operator.read") {
        "read_only"
    } else {
        "connected_no_operator_scope"
    }
}

fn print(context: &Context, probed: &[Probed]) {
    for (index, probed) in probed.iter().enumerate() {
        if index > 0 {
            context.output.line("");
        }
        let mut rows = vec![(probed.label.as_str(), probed.plan.target.place.to_string())];
        match &probed.outcome {
            Ok(found) => {
                let hello = &found.reached.gateway.hello;
                let word = context.output.paint(Tone::Good, "ok");
                let took = milliseconds(found.reached.took);
                rows.push(("  Connect", format!("{word} · {took}")));
                rows.push(("  Version", hello.server.version.clone()));
                rows.push(("  May", capability(&hello.auth.scopes).replace('_', " ")));
                rows.push((
                    "  Reads",
                    match &found.details {
                        Ok(_) => context.output.paint(Tone::Good, "ok"),
                        Err(problem) => {
                            let word = context.output.paint(Tone::Odd, "limited");
                            format!("{word} · {}", problem.message)
                        }
                    },
                ));
            }
            Err(problem) => {
                let word = context.output.paint(Tone::Bad, "failed");
                rows.push(("  Connect", format!("{word} · {}", problem.message)));
            }
        }
        context.output.rows(&rows);
    }
}

/// OpenClaw's shape.
fn summary(
    probed: &[Probed],
    ok: bool,
    took: std::time::Duration,
    timeout: std::time::Duration,
) -> Value {
    let found = || probed.iter().filter_map(|probed| probed.outcome.as_ref().ok());
    let degraded = found().any(|found| found.details.is_err());
    let best = ["admin_capable", "write_capable", "read_only", "connected_no_operator_scope"]
        .into_iter()
        .find(|best| found().any(|f| capability(&f.reached.gateway.hello.auth.scopes) == *best));
    let limited: Vec<_> = probed
        .iter()
        .filter(|probed| probed.outcome.as_ref().is_ok_and(|found| found.details.is_err()))
        .map(|probed| probed.id)
        .collect();
    let warnings = if limited.is_empty() {
        json!([])
    } else {
        json!([{"code": "probe_scope_limited", "targetIds": limited,
            "message": "the login does not allow every read"}])
    };
    let primary = probed.iter().find(|probed| probed.outcome.is_ok());
    json!({
        "ok": ok,
        "degraded": degraded,
        "capability": best.unwrap_or("unknown"),
        "ts": jiff::Timestamp::now().as_millisecond(),
        "durationMs": milliseconds_of(took),
        "timeoutMs": milliseconds_of(timeout),
        "primaryTargetId": primary.map(|probed| probed.id),
        "warnings": warnings,
        "targets": probed.iter().map(Probed::json).collect::<Vec<_>>(),
    })
}

fn milliseconds_of(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Probed {
    fn json(&self) -> Value {
        let found = self.outcome.as_ref().ok();
        let hello = found.map(|found| &found.reached.gateway.hello);
        let details = found.and_then(|found| found.details.as_ref().ok());
        let problem = match &self.outcome {
            Ok(found) => found.details.as_ref().err(),
            Err(problem) => Some(problem),
        };
        let limited =
            found.is_some() && problem.is_some_and(|p| p.code.as_deref() == Some("FORBIDDEN"));
        json!({
            "id": self.id,
            "kind": self.id,
            "url": match &self.plan.target.place {
                Place::Remote(_) => Value::Null,
                place @ (Place::Local { .. } | Place::Address(_)) => json!(place.to_string()),
            },
            "remote": match &self.plan.target.place {
                Place::Remote(name) => json!(name),
                Place::Local { .. } | Place::Address(_) => Value::Null,
            },
            "active": true,
            "tunnel": Value::Null,
            "connect": {
                "ok": found.is_some(),
                "rpcOk": details.is_some(),
                "scopeLimited": limited,
                "latencyMs": found.map(|found| tenths(found.reached.took)),
                "error": problem.map(|problem| &problem.message),
                "class": problem.map(|problem| problem.class),
                "close": Value::Null,
            },
            "auth": {
                "role": hello.map(|hello| &hello.auth.role),
                "scopes": hello.map(|hello| hello.auth.scopes.clone()).unwrap_or_default(),
                "capability": hello.map_or("unknown", |hello| capability(&hello.auth.scopes)),
            },
            "server": {
                "version": hello.map(|hello| &hello.server.version),
                "connId": hello.map(|hello| &hello.server.conn_id),
            },
            "self": Value::Null,
            "config": Value::Null,
            "health": details.map(|details| &details.health),
            "summary": details.map(|details| &details.status),
            "presence": details.map(|details| &details.presence),
        })
    }
}
