//! The options that say which gateway is meant, shared by every command that talks to one.

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::Instant;

use super::Context;
use crate::{
    client::{Asked, Credential, Place, Plan, Reached, Source, Target},
    control,
    fingerprint::Fingerprint,
    gateway,
    problem::{Class, Problem},
    secret::Secret,
};

/// Shorter waits pass unnoticed.
const NOTICED: Duration = Duration::from_millis(300);

/// Which gateway, with which secret, for how long.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Which gateway")]
pub(super) struct Which {
    /// Talk to the gateway at this address; needs its own --token or --password
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// The only certificate that a gateway at a wss://… address may show, its SHA-256 in hex
    #[arg(long, value_name = "SHA256", value_parser = fingerprint)]
    tls_fingerprint: Option<Fingerprint>,
    /// Talk to the gateway on this machine at this port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// The gateway's token (other users can see arguments; rather use --token-file)
    #[arg(long, value_parser = secret)]
    token: Option<Secret>,
    /// A file that holds the gateway's token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// The gateway's password (other users can see arguments; rather use --password-file)
    #[arg(long, value_parser = secret)]
    password: Option<Secret>,
    /// A file that holds the gateway's password
    #[arg(long, value_name = "FILE", conflicts_with = "password")]
    password_file: Option<PathBuf>,
    /// How long the command may take, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000,
        value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    timeout: u64,
}

#[expect(clippy::unnecessary_wraps, reason = "clap's value parsers return a result")]
fn secret(text: &str) -> Result<Secret, std::convert::Infallible> {
    Ok(Secret::new(text))
}

fn fingerprint(text: &str) -> Result<Fingerprint, &'static str> {
    Fingerprint::parse(text).ok_or("not a certificate's SHA-256, 64 hex digits")
}

impl Which {
    /// Reads the files and decides; sends nothing.
    pub(super) fn plan(&self, context: &Context) -> Result<Plan, Problem> {
        let credential = self.credential()?;
        Plan::make(&context.paths, &self.asked(context, &credential), credential)
    }

    /// As [`Self::plan`], for the gateway on this machine and nothing else.
    pub(super) fn plan_local(&self, context: &Context) -> Result<Plan, Problem> {
        let asked = Asked { local_gateway: true, port: self.port, ..Asked::default() };
        Plan::make(&context.paths, &asked, Credential::default())
    }

    /// When the command must be done.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.patience()
    }

    /// How long the command may take.
    pub(super) fn patience(&self) -> Duration {
        Duration::from_millis(self.timeout)
    }

    /// `--port`.
    pub(super) fn port(&self) -> Option<u16> {
        self.port
    }

    fn asked(&self, context: &Context, credential: &Credential) -> Asked {
        Asked {
            url: self.url.clone(),
            remote: context.globals.remote.clone(),
            local_gateway: context.globals.local_gateway,
            port: self.port,
            pin: self.tls_fingerprint,
            with_credential: !credential.is_empty(),
        }
    }

    fn credential(&self) -> Result<Credential, Problem> {
        let from = |text: &Option<Secret>, file: &Option<PathBuf>| match (text, file) {
            (Some(secret), _) => Ok(Some(secret.clone())),
            (None, Some(file)) => read_secret(file).map(Some),
            (None, None) => Ok(None),
        };
        let token = from(&self.token, &self.token_file)?;
        let password = from(&self.password, &self.password_file)?;
        Ok(Credential::new(token, password, Source::Given))
    }
}

/// A secret's file, without the line's end.
pub(super) fn read_secret(file: &Path) -> Result<Secret, Problem> {
    let shown = file.display();
    let text = std::fs::read_to_string(file).map(zeroize::Zeroizing::new).map_err(|error| {
        Problem::new(Class::Usage, format!("cannot read {shown}: {error}"))
            .fix(format!("ls -l {shown}"))
    })?;
    match text.trim() {
        "" => Err(Problem::new(Class::Usage, format!("{shown} is empty")).fix(
            "put the gateway's secret into it; its owner has it from: openclaw gateway auth-token --show",
        )),
        secret => Ok(Secret::new(secret)),
    }
}

/// Runs `work` on a runtime of this thread.
pub(super) fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)?
        .block_on(work)
}

/// Goes to the gateway and logs in; a wait that takes a person's notice shows what for. A supervisor
/// that goes away meanwhile is started anew, once.
pub(super) async fn reach(
    context: &Context,
    plan: &Plan,
    scopes: &[&str],
    deadline: Instant,
) -> Result<Reached, Problem> {
    let outcome = match reach_once(context, plan, scopes, deadline).await {
        Err(problem) if is_gone(&problem) => reach_once(context, plan, scopes, deadline).await,
        outcome => outcome,
    };
    outcome.map_err(|problem| located(context, &plan.target.place, problem))
}

/// Says where this profile's gateway listens if nothing does where it was tried.
pub(super) fn located(context: &Context, place: &Place, problem: Problem) -> Problem {
    let Place::Local { port, .. } = place else { return problem };
    if problem.code.as_deref() != Some("ECONNREFUSED") {
        return problem;
    }
    match gateway::running(&context.paths).and_then(|runner| runner.port) {
        Some(other) if other != *port => Problem {
            message: format!(
                "nothing listens on port {port}: the gateway of this profile is on port {other}"
            ),
            ..problem
        }
        .fix(format!("--port {other}, or: openclaw config set gateway.port {other}")),
        Some(_) | None => problem,
    }
}

async fn reach_once(
    context: &Context,
    plan: &Plan,
    scopes: &[&str],
    deadline: Instant,
) -> Result<Reached, Problem> {
    let Target { rule, place } = &plan.target;
    tracing::debug!(%rule, %place, "the gateway is chosen");
    let mut way = std::pin::pin!(plan.reach(scopes, deadline));
    if let Ok(outcome) = tokio::time::timeout(NOTICED, &mut way).await {
        return outcome;
    }
    let spinner = context.output.spinner();
    spinner.stage(&format!("reaching {place}"));
    way.await
}

/// Goes to the gateway and has `work` done there, which only reads: where the supervisor goes away
/// meanwhile, both are done again, once.
pub(super) async fn ask<T>(
    context: &Context,
    plan: &Plan,
    scopes: &[&str],
    deadline: Instant,
    work: impl AsyncFn(&Reached) -> Result<T, Problem>,
) -> Result<(Reached, T), Problem> {
    let reached = reach(context, plan, scopes, deadline).await?;
    match work(&reached).await {
        Ok(answer) => return Ok((reached, answer)),
        Err(problem) if is_gone(&problem) => {}
        Err(problem) => return Err(problem),
    }
    let reached = reach(context, plan, scopes, deadline).await?;
    let answer = work(&reached).await?;
    Ok((reached, answer))
}

fn is_gone(problem: &Problem) -> bool {
    problem.code.as_deref() == Some(control::SUPERVISOR_GONE)
}

/// What is left until `deadline`.
pub(super) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// Calls `method`, which only reads, while the gateway's identity is compared.
pub(super) async fn read(
    reached: &Reached,
    method: &str,
    deadline: Instant,
) -> Result<serde_json::Value, Problem> {
    let (verified, answer) =
        tokio::join!(reached.verify(left(deadline)), reached.call(method, None, left(deadline)));
    verified?;
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_secret_that_holds_none_is_an_error_with_what_to_type() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let refused = || read_secret(&file).map(drop).unwrap_err();
        let missing = refused();
        std::fs::write(&file, " \n").unwrap();
        let empty = refused();
        for problem in [missing, empty] {
            assert_eq!(problem.class, Class::Usage);
            assert!(problem.message.contains("token") && problem.fix.is_some(), "{problem}");
        }
        std::fs::write(&file, "secret\n").unwrap();
        assert!(read_secret(&file).unwrap().matches("secret"));
    }
}
