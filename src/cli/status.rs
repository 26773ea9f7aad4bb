//! `openclaw status`: which gateway is meant and why, how one gets there, and how it is.

use std::process::ExitCode;

use serde_json::{Map, Value, json, value::RawValue};
use tokio::time::Instant;

use super::{
    Context, health,
    output::{Tone, error_value, milliseconds, period},
    which::{self, Which, block_on, left, read},
};
use crate::{
    client::{Place, Plan, READ, Reached, Rule},
    control,
    problem::Problem,
};

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Also ask for the gateway's health and who is connected
    #[arg(long)]
    deep: bool,
}

/// What was found out.
struct Report {
    plan: Plan,
    /// The remote's status object, if a remote is meant and a supervisor runs.
    remote: Option<Value>,
    answers: Result<Answers, Problem>,
}

/// What the gateway said.
struct Answers {
    reached: Reached,
    status: Value,
    /// Under `--deep`.
    health: Option<Value>,
    /// Under `--deep`.
    presence: Option<Value>,
}

/// Runs `status`. The report is printed in any case; the exit code tells whether the gateway
/// answered.
pub(super) fn run(context: &Context, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let plan = arguments.which.plan(context)?;
    block_on(async {
        let deadline = arguments.which.deadline();
        let answers = ask(context, &plan, arguments.deep, deadline).await;
        let remote = remote_status(context, &plan).await;
        let report = Report { plan, remote, answers };
        if context.output.is_json() {
            context.output.value(&report.json())?;
        } else {
            context.output.rows(&report.rows(context));
        }
        Ok(match report.answers {
            Ok(answers) => {
                answers.reached.gateway.close().await;
                ExitCode::SUCCESS
            }
            Err(problem) => {
                context.output.advice(&problem);
                ExitCode::from(problem.class.exit_code())
            }
        })
    })
}

async fn ask(
    context: &Context,
    plan: &Plan,
    deep: bool,
    deadline: Instant,
) -> Result<Answers, Problem> {
    let (reached, (status, health, presence)) =
        which::ask(context, plan, READ, deadline, async |reached| {
            let call = |method| reached.call(method, None, left(deadline));
            let deeper = async {
                if deep {
                    let (health, presence) = tokio::join!(call("health"), call("system-presence"));
                    Ok::<_, Problem>((Some(health?), Some(presence?)))
                } else {
                    Ok((None, None))
                }
            };
            let (status, deeper) = tokio::join!(read(reached, "status", deadline), deeper);
            let (health, presence) = deeper?;
            Ok((status?, health, presence))
        })
        .await?;
    Ok(Answers { reached, status, health, presence })
}

/// The status object of the remote that is meant.
async fn remote_status(context: &Context, plan: &Plan) -> Option<Value> {
    let Place::Remote(name) = &plan.target.place else { return None };
    match control::statuses(&context.paths.endpoint(), Some(name)).await {
        Ok(statuses) => statuses.into_iter().next(),
        Err(problem) => {
            tracing::debug!(%problem, "the supervisor gives no status");
            None
        }
    }
}

impl Report {
    fn rows(&self, context: &Context) -> Vec<(&'static str, String)> {
        let target = &self.plan.target;
        let mut rows = vec![("Gateway", format!("{} ({})", target.place, target.rule))];
        if let Some(remote) = &self.remote {
            rows.push(("Tunnel", tunnel_text(context, remote)));
            if let Some(url) = remote.get("localUrl").and_then(Value::as_str) {
                rows.push(("Local URL", url.to_owned()));
            }
        }
        match &self.answers {
            Ok(answers) => rows.extend(answers.rows(context)),
            Err(problem) => {
                let word = context.output.paint(Tone::Bad, "no");
                rows.push(("Reachable", format!("{word} · {}", problem.message)));
            }
        }
        rows
    }

    /// OpenClaw's shape: the gateway's own status, with `gateway` and more beside it.
    fn json(&self) -> Value {
        let mut report = match &self.answers {
            Ok(Answers { status: Value::Object(status), .. }) => status.clone(),
            Ok(_) | Err(_) => Map::new(),
        };
        if let Err(problem) = &self.answers {
            report.insert("ok".to_owned(), json!(false));
            report.insert("error".to_owned(), error_value(problem));
            report.insert("runtimeVersion".to_owned(), Value::Null);
        }
        report.insert(
            "os".to_owned(),
            json!({"platform": std::env::consts::OS, "arch": std::env::consts::ARCH}),
        );
        report.insert("gateway".to_owned(), self.gateway_json());
        report.insert("remote".to_owned(), self.remote.clone().unwrap_or_default());
        if let Ok(Answers { health: Some(health), presence: Some(presence), .. }) = &self.answers {
            report.insert("health".to_owned(), health.clone());
            report.insert("presence".to_owned(), presence.clone());
        }
        Value::Object(report)
    }

    fn gateway_json(&self) -> Value {
        let target = &self.plan.target;
        let far = match &target.place {
            Place::Remote(_) => true,
            Place::Local { .. } => false,
            Place::Address(_) => target.rule == Rule::Configured,
        };
        let tunnel = self.remote.as_ref().and_then(|remote| remote.get("localUrl")).cloned();
        let url = match &target.place {
            Place::Remote(_) => tunnel.unwrap_or_default(),
            place @ (Place::Local { .. } | Place::Address(_)) => json!(place.to_string()),
        };
        let answers = self.answers.as_ref().ok();
        let hello = answers.map(|answers| &answers.reached.gateway.hello);
        json!({
            "mode": if far { "remote" } else { "local" },
            "url": url,
            "urlSource": target.rule.to_string(),
            "misconfigured": false,
            "reachable": answers.is_some(),
            "connectLatencyMs": answers.map(|a| tenths(a.reached.took)),
            "self": hello.map(|hello| own_presence(&hello.snapshot.presence)),
            "version": hello.map(|hello| &hello.server.version),
            "protocol": hello.map(|hello| hello.protocol),
            "auth": hello.map(|hello| json!({
                "role": hello.auth.role, "scopes": hello.auth.scopes,
                "source": answers.map(|answers| answers.reached.source.to_string()),
            })),
            "error": self.answers.as_ref().err().map(|problem| &problem.message),
            "authWarning": Value::Null,
        })
    }
}

impl Answers {
    fn rows(&self, context: &Context) -> Vec<(&'static str, String)> {
        let hello = &self.reached.gateway.hello;
        let yes = context.output.paint(Tone::Good, "yes");
        let mut rows = vec![
            ("Reachable", format!("{yes} · in {}", milliseconds(self.reached.took))),
            (
                "Version",
                format!(
                    "{} · protocol {} · up {}",
                    hello.server.version,
                    hello.protocol,
                    period(hello.snapshot.uptime_ms)
                ),
            ),
            ("Login", format!("{} · secret: {}", hello.auth.role, self.reached.source)),
        ];
        if let Some(bytes) = self.status.pointer("/processMemory/rssBytes").and_then(Value::as_u64)
        {
            rows.push(("Memory", format!("{} MB", bytes / 1_000_000)));
        }
        if let Some(health) = &self.health {
            rows.extend(health::rows_of(context, health));
        } else if let Some(count) = self.status.pointer("/sessions/count").and_then(Value::as_u64) {
            rows.push(("Sessions", count.to_string()));
        }
        if let Some(Value::Array(entries)) = &self.presence {
            rows.extend(
                entries.iter().filter_map(|entry| Some(("Connected", presence_text(entry)?))),
            );
        }
        rows
    }
}

/// One line about the path: its phase, the proof and its age, the hops.
fn tunnel_text(context: &Context, remote: &Value) -> String {
    let word = |key: &str| remote.get(key).and_then(Value::as_str);
    let phase = word("phase").unwrap_or("unknown");
    let tone = match phase {
        "live" => Tone::Good,
        "blocked" | "gateway_down" => Tone::Bad,
        "down" => Tone::Quiet,
        _ => Tone::Odd,
    };
    let mut parts = vec![context.output.paint(tone, phase)];
    if let Some(proof) = remote.get("proof").filter(|proof| proof.is_object()) {
        let number = |key: &str| proof.get(key).and_then(Value::as_f64).unwrap_or_default();
        let kind = proof.get("kind").and_then(Value::as_str).unwrap_or("no");
        let age = number("ageMs") / 1000.0;
        parts.push(format!("{kind} proof {age:.1} s old, {:.1} ms", number("rttMs")));
    }
    if let Some(target) = word("target") {
        let hops = remote.get("via").and_then(Value::as_array);
        let hops: Vec<_> = hops.into_iter().flatten().filter_map(Value::as_str).collect();
        let via = if hops.is_empty() { String::new() } else { format!(" via {}", hops.join(", ")) };
        parts.push(format!("{target}{via}"));
    }
    parts.join(" · ")
}

fn presence_text(entry: &Value) -> Option<String> {
    let word = |key: &str| entry.get(key).and_then(Value::as_str);
    let host = word("host").or_else(|| word("instanceId"))?;
    let parts = [word("mode"), word("version"), word("platform")];
    let parts: Vec<_> = std::iter::once(host).chain(parts.into_iter().flatten()).collect();
    Some(parts.join(" · "))
}

/// The gateway's own entry among the connected.
fn own_presence(presence: &[Box<RawValue>]) -> Value {
    let mut entries = presence.iter().filter_map(|entry| serde_json::from_str(entry.get()).ok());
    let own = |entry: &Value| entry.get("mode").and_then(Value::as_str) == Some("gateway");
    entries.find(own).map_or(Value::Null, |entry| {
        let field = |key: &str| entry.get(key).cloned().unwrap_or_default();
        json!({
            "host": field("host"), "ip": field("ip"),
            "version": field("version"), "platform": field("platform"),
        })
    })
}

/// Milliseconds with one decimal.
pub(super) fn tenths(duration: std::time::Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
