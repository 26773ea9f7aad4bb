//! The supervisor as a service runs it: of one remote (`openclaw remote connect --foreground`), or of
//! all that are wanted (`openclaw supervisor --foreground`).

use std::{net::SocketAddr, process::ExitCode, time::Duration};

use tracing_subscriber::fmt::writer::{MakeWriterExt, OptionalWriter};

use super::{Context, metrics, order::Order};
use crate::{
    client::Credential,
    config::Remotes,
    control::{self, Note, Reply, Request},
    logfile::Writer,
    problem::{Class, Problem},
    supervisor,
    tunnel::PLACE_TAKEN,
};

/// The exit code that keeps systemd from starting again what cannot work.
const CONFIGURATION: u8 = 78;
/// The exit code that says: start me again.
const TRY_AGAIN: u8 = 75;

/// Runs until a signal; exits with the class of what makes the remote hopeless.
pub(super) async fn run(
    context: &Context,
    timeout: u64,
    order: Order,
    given: Credential,
    scraped: Option<SocketAddr>,
) -> anyhow::Result<ExitCode> {
    if !given.is_empty() {
        context.output.note("note: --foreground only keeps the path; the secret is not used");
    }
    let seat = match supervisor::take_place(&context.paths, true)? {
        supervisor::Place::Ours(seat) => seat,
        supervisor::Place::Taken => return Ok(taken(context)),
    };
    let _log = log(context);
    let (ready, started) = tokio::sync::oneshot::channel();
    let supervise = supervisor::run(&context.paths, seat, supervisor::Scope::Told, move || {
        // Whoever waits for it has gone if it cannot be told.
        let _gone = ready.send(());
    });
    let connect = async {
        started.await.map_err(|_| Problem::new(Class::Internal, "the supervisor ended"))?;
        if scraped.is_some() {
            metrics::set(context, scraped, false).await?;
        }
        match keep(context, Duration::from_secs(timeout), &order).await {
            Err(problem) if heals_by_itself(&problem) => {
                // What time may heal is no reason to end: save it, and go on trying.
                context.output.note(format!("openclaw: {}; trying on", problem.message));
                resume(context, &order).await
            }
            outcome => outcome,
        }
    };
    // The supervisor must run on while it is talked to, so neither is awaited alone.
    tokio::pin!(supervise, connect);
    let outcome = tokio::select! {
        ended = &mut supervise => return ended.map(exit_code).map_err(Into::into),
        outcome = &mut connect => outcome,
    };
    let Err(problem) = outcome else {
        return Ok(exit_code(supervise.await?));
    };
    // The supervisor frees its ports and its socket before it is gone.
    let (_told, _ended) = tokio::join!(stop(context), supervise);
    Err(problem.into())
}

/// Whether time may heal it: a path that is away, a gateway that is not there yet, a port over there
/// that a connection of before still holds.
fn heals_by_itself(problem: &Problem) -> bool {
    matches!(problem.class, Class::Unreachable | Class::GatewayDown)
        || problem.code.as_deref() == Some(PLACE_TAKEN)
}

/// Runs the supervisor of this profile with every wanted remote, until a signal.
pub(super) fn all(context: &Context) -> anyhow::Result<ExitCode> {
    let seat = match supervisor::take_place(&context.paths, true) {
        Ok(supervisor::Place::Ours(seat)) => seat,
        Ok(supervisor::Place::Taken) => return Ok(taken(context)),
        Err(problem) => return Ok(refusal(context, &problem.into())),
    };
    let _log = log(context);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let run = supervisor::run(&context.paths, seat, supervisor::Scope::Service, || {});
    let outcome = runtime.block_on(run);
    runtime.shutdown_timeout(Duration::from_secs(2));
    Ok(outcome.map_or_else(|problem| refusal(context, &problem.into()), exit_code))
}

/// Another one has the place; it may end, so a service manager tries again.
fn taken(context: &Context) -> ExitCode {
    let what = "a supervisor of this profile runs in the foreground already";
    let problem = Problem::new(Class::Config, what)
        .fix("openclaw remote connect without --foreground, or another --profile");
    context.output.failure(&problem.into())
}

/// Logs to standard error, and to the file that `remote logs` reads if it can be written. What is
/// returned writes the rest of that file when it goes.
fn log(context: &Context) -> Option<Writer> {
    let verbose = context.globals.verbose;
    let console = context.output.console();
    let seen = console.cloned();
    let seen = move || OptionalWriter::from(seen.clone());
    match supervisor::begin_log(&context.paths, console) {
        Ok((lines, writer)) => {
            super::log_to(seen.and(move || lines.clone()), verbose);
            Some(writer)
        }
        Err(problem) => {
            context.output.note(format!("openclaw: no log file: {}", problem.message));
            super::log_to(seen, verbose);
            None
        }
    }
}

/// A service that another supervisor took over from is to be started again, from the file that is
/// there now; it then takes its place back.
fn exit_code(ended: supervisor::Ended) -> ExitCode {
    match ended {
        supervisor::Ended::Done => ExitCode::SUCCESS,
        supervisor::Ended::Moved => ExitCode::from(TRY_AGAIN),
    }
}

/// Prints why it ends; what is configured wrongly gets a code that systemd does not retry. What the
/// system denied for now has the code of its class as on the command line, and is started again.
pub(super) fn refusal(context: &Context, error: &anyhow::Error) -> ExitCode {
    let problem = error.downcast_ref::<Problem>();
    if let Some(problem) = problem {
        supervisor::last_words(problem);
    }
    match problem {
        Some(problem) if problem.is_lasting() => context.output.failure_with(error, CONFIGURATION),
        Some(_) | None => context.output.failure(error),
    }
}

/// Has our own supervisor end as if asked by a signal: no socket is left.
async fn stop(context: &Context) -> Result<(), Problem> {
    let mut connection = control::started(&context.paths.endpoint()).await?;
    connection.request(Request::Stop).await?;
    connection.done().await
}

/// Connects through our own socket, as any command would, and keeps the remote.
async fn keep(context: &Context, limit: Duration, order: &Order) -> Result<(), Problem> {
    let mut connection = control::started(&context.paths.endpoint()).await?;
    connection
        .request(Request::Connect {
            name: order.name.clone(),
            definition: value(order)?,
            batch: true,
            make_default: order.make_default,
            timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
        })
        .await?;
    let mut live = String::new();
    loop {
        match connection.reply().await? {
            Reply::Stage { text } => context.output.note(text),
            Reply::Live { status, .. } => {
                let url = status.get("localUrl").and_then(serde_json::Value::as_str);
                live = format!("live: {}", url.unwrap_or_default());
                connection.note(&Note::Keep { gateway: None }).await?;
            }
            Reply::Done => {
                // Only now do other commands find it.
                context.output.note(live);
                return Ok(());
            }
            reply @ (Reply::Question(_)
            | Reply::Opened(_)
            | Reply::Statuses { .. }
            | Reply::Held { .. }
            | Reply::Watched(_)
            | Reply::Token { .. }
            | Reply::Moved
            | Reply::Failed(_)) => return Err(control::refused(reply)),
        }
    }
}

/// Saves the definition as wanted and has the supervisor take it up.
async fn resume(context: &Context, order: &Order) -> Result<(), Problem> {
    if let Some(definition) = &order.definition {
        Remotes::update(&context.paths, |remotes| {
            remotes.remotes.insert(order.name.clone(), definition.clone());
            if order.make_default {
                remotes.default = Some(order.name.clone());
            }
            Ok(())
        })?;
    }
    let mut connection = control::started(&context.paths.endpoint()).await?;
    connection.request(Request::Resume { name: order.name.clone() }).await?;
    connection.done().await
}

fn value(order: &Order) -> Result<Option<serde_json::Value>, Problem> {
    order
        .definition
        .as_ref()
        .map(serde_json::to_value)
        .transpose()
        .map_err(|error| Problem::new(Class::Internal, format!("writing the definition: {error}")))
}
