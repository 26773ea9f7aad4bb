//! Runs a check: resolves, makes the hops, asks the gateway, and prints what came of it.

use std::{path::Path, process::ExitCode, time::Duration};

use super::{
    forwards,
    notes::{Clock, Person, Recorder},
    report::{HopLabel, Kind, Line, Report, Step, Verdict},
    seen::News,
    settings,
    steps::{End, HopPlan, of_hops},
    text::Style,
    visit::{Visit, Visited},
};
use crate::{
    cli::{
        Context, ask,
        connect::given,
        order::{self, Order},
        output::Spinner,
        ssh_options,
    },
    client::Credential,
    config::{Forward, OpenClaw, Remote, Remotes},
    problem::Problem,
    ssh::{self, Environment, Keyring},
    tunnel::{Cause, Failure},
};

/// Arguments of `remote check`.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(in crate::cli) struct Arguments {
    /// Connect to nothing: print the resolved configuration as `ssh -G` does
    #[arg(short = 'G')]
    resolve_only: bool,
    #[command(flatten)]
    order: order::Arguments,
}

/// Runs `remote check`; the exit code is that of the step that failed.
pub(in crate::cli) async fn run(
    context: &Context,
    arguments: Arguments,
) -> anyhow::Result<ExitCode> {
    let Arguments { order: arguments, resolve_only } = arguments;
    arguments.ssh.refuse_unsupported()?;
    OpenClaw::load(&context.paths)?;
    let saved = Remotes::load(&context.paths)?;
    let order = Order::new(&arguments, &saved, &context.paths)?;
    let definition = match order.definition {
        Some(definition) => definition,
        None => saved.named_or_configured(&context.paths, &order.name)?,
    };
    if resolve_only {
        return print_settings(context, with_forwards(definition, &arguments)?).await;
    }
    let check = Check {
        context,
        given: given(&arguments)?,
        can_ask: !arguments.batch && ask::is_possible(),
        is_saved: saved.remotes.get(&order.name) == Some(&definition),
        name: order.name,
        definition,
        arguments,
    };
    let report = check.report().await?;
    check.print(&report)
}

/// The definition with its `-L` and `-R` as options, for `ssh -G` prints both alike.
fn with_forwards(mut definition: Remote, typed: &order::Arguments) -> anyhow::Result<Remote> {
    let folder = std::env::current_dir()?;
    let mut local = std::mem::take(&mut definition.forwards);
    if !typed.forward.is_empty() {
        // The gateway's own as well, which is no further forward.
        let read = |spec: &String| ssh_options::local_forward(spec, &folder);
        local = typed.forward.iter().map(read).collect::<Result<_, _>>()?;
    }
    let remote = std::mem::take(&mut definition.remote_forwards);
    let local = local.iter().map(|forward| ("LocalForward", forward));
    let remote = remote.iter().map(|forward| ("RemoteForward", forward));
    let quoted = |place: String| {
        if place.contains(char::is_whitespace) { format!("\"{place}\"") } else { place }
    };
    let options = local.chain(remote).map(|(keyword, Forward { listen, to })| {
        let value = format!("{} {}", quoted(listen.to_string()), quoted(to.to_string()));
        (keyword.to_owned(), value)
    });
    let options: Vec<_> = options.collect();
    definition.ssh.options.extend(options);
    Ok(definition)
}

/// Prints what the configuration comes to, in the format of `ssh -G`.
async fn print_settings(context: &Context, definition: Remote) -> anyhow::Result<ExitCode> {
    let resolving = tokio::task::spawn_blocking(move || {
        ssh::settings(&definition.target, &definition.ssh, &Environment::of_process())
    });
    let resolved = resolving.await??;
    if context.output.is_json() {
        context.output.value(&settings::json(&resolved))?;
    } else {
        context.output.page(&resolved.dump());
    }
    Ok(ExitCode::SUCCESS)
}

/// A check that is under way.
struct Check<'a> {
    context: &'a Context,
    arguments: order::Arguments,
    name: String,
    definition: Remote,
    given: Credential,
    can_ask: bool,
    is_saved: bool,
}

/// The hops when they are made or have failed.
struct Connected {
    steps: Vec<Step>,
    session: Result<ssh::Session, Problem>,
}

impl Check<'_> {
    async fn report(&self) -> anyhow::Result<Report> {
        let clock = Clock::start();
        let report = Report {
            target: self.definition.target.clone(),
            remote: self.is_saved.then(|| self.name.clone()),
            ..Report::default()
        };
        let resolved = self.resolve().await?;
        let resolving = Some(clock.now());
        let plan = match resolved {
            Ok(plan) => plan,
            Err(problem) => {
                let step = Step::failed(Kind::Resolve, resolving, "wrong, see below");
                return Ok(Report { steps: vec![step], ..report }.failed(problem, clock.now()));
            }
        };
        let mut steps = vec![resolve_step(&plan, resolving)];
        let said = || plan.hops().iter().map(|hop| hop.said.as_ref());
        let mut not_honoured = settings::not_honoured(said());
        // A forward that is left out is told with the first step.
        not_honoured
            .retain(|note| !plan.forwards.left_out.iter().any(|text| text.contains(&note.keyword)));
        let report = Report { not_honoured, ..report };
        let hops =
            plan.hops().iter().map(|hop| HopLabel { named: hop.named.clone(), label: hop.label() });
        let report = Report { hops: hops.collect(), ..report };
        let spinner = self.context.output.spinner();
        let connected = self.connect(&plan, &clock, &spinner).await;
        steps.extend(connected.steps);
        let session = match connected.session {
            Ok(session) => session,
            Err(problem) => return Ok(Report { steps, ..report }.failed(problem, clock.now())),
        };
        let visit = Visit {
            context: self.context,
            arguments: &self.arguments,
            name: &self.name,
            is_saved: self.is_saved,
            remote_port: self.definition.remote_port,
            pin: self.definition.tls_fingerprint,
            given: self.given.clone(),
            can_ask: self.can_ask,
            session: &session,
            clock: &clock,
            spinner: &spinner,
        };
        let visited = visit.run().await;
        let (definition, configured) = (&self.definition, &plan.forwards);
        let further =
            forwards::try_out(&session, definition, configured, self.is_saved, &spinner).await;
        session.close().await;
        let Visited { steps: behind, mut problem } = visited?;
        steps.extend(behind);
        if let Some((step, refused)) = further {
            steps.push(step);
            problem = problem.or(refused);
        }
        let report = Report { steps, took: clock.now(), ..report };
        Ok(match problem {
            Some(problem) => report.failed(problem, clock.now()),
            None => report,
        })
    }

    /// The plan as `remote connect` would make it.
    async fn resolve(&self) -> anyhow::Result<Result<ssh::Plan, Problem>> {
        let definition = self.definition.clone();
        let environment = Environment::of_process().with_batch(!self.can_ask);
        let own_gateway = OpenClaw::load(&self.context.paths)?.gateway.own_port();
        let resolving = tokio::task::spawn_blocking(move || {
            let mut plan = ssh::resolve(&definition.target, &definition.ssh, &environment)?;
            plan.forwards.settle(&definition, own_gateway);
            Ok(plan)
        });
        Ok(resolving.await?)
    }

    /// Makes every hop, each in one connection, as `remote connect` does.
    async fn connect(&self, plan: &ssh::Plan, clock: &Clock, spinner: &Spinner) -> Connected {
        let recorder = Recorder::new(clock, spinner);
        let person = Person { clock, spinner, is_there: self.can_ask };
        let keyring = Keyring::default();
        let connecting = Box::pin(ssh::connect(plan, &keyring, &person, &recorder));
        let limit = Duration::from_secs(self.arguments.timeout);
        let outcome = tokio::select! {
            outcome = connecting => outcome,
            () = clock.reaches(limit) => Err(Failure::new(
                Cause::ConnectTimedOut,
                format!("not done within {} s", limit.as_secs()),
            )
            .fix("more time: --timeout SECONDS")),
        };
        let news: Vec<News> = recorder.news();
        let end = End { at: clock.now(), failure: outcome.as_ref().err() };
        let hops: Vec<HopPlan> = plan.hops().iter().map(|hop| self.planned(hop)).collect();
        let steps = of_hops(&hops, &news, end);
        Connected { steps, session: outcome.map_err(Problem::from) }
    }

    fn planned(&self, hop: &ssh::Hop) -> HopPlan {
        HopPlan {
            host: hop.host.clone(),
            port: hop.port,
            user: hop.user.clone(),
            switched_off: settings::switched_off(&hop.said),
            batch: hop.batch || !self.can_ask,
            proxied: hop.proxy_command.is_some(),
            settings: settings::said(&hop.said),
        }
    }

    fn print(&self, report: &Report) -> anyhow::Result<ExitCode> {
        let output = &self.context.output;
        if output.is_json() {
            output.value(&report.json())?;
        } else {
            let home = Environment::of_process().home;
            let paint = |tone, text: &str| output.paint(tone, text);
            let style = Style { paint: &paint, home: Path::new(&home) };
            for line in report.lines(style) {
                output.line(line);
            }
        }
        let code = report.problem.as_ref().map(|problem| problem.class.exit_code());
        Ok(code.map_or(ExitCode::SUCCESS, ExitCode::from))
    }
}

/// The step that ends with a plan.
fn resolve_step(plan: &ssh::Plan, took: Option<Duration>) -> Step {
    let files = settings::files(plan.hops().iter().map(|hop| hop.said.as_ref()));
    let mut step = Step::ok(Kind::Resolve, took, settings::in_words(&files))
        .with("files", files.keys().map(|path| path.display().to_string()).collect::<Vec<_>>())
        .with("forwardsLeftOut", plan.forwards.left_out.clone());
    let lines = plan.forwards.left_out.iter();
    step.lines =
        lines.map(|text| Line { verdict: Some(Verdict::NotReached), text: text.clone() }).collect();
    step
}

impl Report {
    /// The report of a check that ended early, with the steps that it did not reach.
    fn failed(mut self, problem: Problem, took: Duration) -> Self {
        let behind = [Kind::Forward, Kind::Gateway, Kind::Secret];
        let hop = [Kind::Name, Kind::Connect, Kind::Server, Kind::HostKey, Kind::Login];
        let missing = if self.hops.is_empty() { hop.as_slice() } else { &[] };
        for kind in missing.iter().chain(&behind) {
            if !self.steps.iter().any(|step| step.kind == *kind) {
                self.steps.push(Step::not_reached(*kind, None));
            }
        }
        debug_assert!(self.steps.iter().any(|step| step.verdict == Verdict::Failed));
        Self { problem: Some(problem), took, ..self }
    }
}
