//! `openclaw remote connect`: bring a remote up, log in to its gateway, save both.

use std::{process::ExitCode, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Context, ask, metrics,
    order::{Arguments, GATEWAY_PORT, Order},
    output::{Spinner, Tone},
    remote::describe,
    remote_install,
    which::{left, read_secret},
    written,
};
use crate::{
    client::{Credential, Plan, READ, Source, wants_secret},
    config::{self, Bound, CONFIG_REMOTE, Credentials, OpenClaw, Remotes},
    control::{self, Connection, Note, Opened, Reply, Request},
    problem::{Class, Problem},
    secret::Secret,
    ssh,
};

/// What the login gets at least, however long the path took.
const SHORTEST_LOGIN: Duration = Duration::from_secs(1);
/// Between two looks at a gateway that is still starting.
const STARTING_PAUSE: Duration = Duration::from_millis(500);

/// Runs `remote connect`; a service is told when another try cannot help.
pub(super) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let is_service = arguments.foreground;
    match connect(context, arguments).await {
        Err(error) if is_service => Ok(super::foreground::refusal(context, &error)),
        outcome => outcome,
    }
}

async fn connect(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    arguments.ssh.refuse_unsupported()?;
    // The file may hold the secret: better to say now that it is broken than after the login.
    OpenClaw::load(&context.paths)?;
    let saved = Remotes::load(&context.paths)?;
    let order = Order::new(&arguments, &saved, &context.paths)?;
    if arguments.write_config && order.name == CONFIG_REMOTE {
        let why = format!("`{CONFIG_REMOTE}` stands in openclaw.json already");
        return Err(Problem::new(Class::Usage, why).fix("leave --write-config away").into());
    }
    let given = given(&arguments)?;
    let scraped = arguments.metrics.as_deref().map(metrics::address).transpose()?;
    if let Some(definition) = order.definition.clone() {
        // A wrong target, option or configuration is said before anything is started.
        warn_of_forwards(context, definition).await?;
    }
    hint_at_files(context, &order);
    if arguments.foreground {
        let scraped = scraped.flatten();
        let limit = arguments.timeout;
        let run = super::foreground::run(context, limit, order, given, scraped);
        return Box::pin(run).await;
    }
    let limit = Duration::from_secs(arguments.timeout);
    let mut deadline = Instant::now() + limit;
    let manner = Manner { batch: arguments.batch, timeout: arguments.timeout };
    let (status, opened, connection) = bring_up(context, manner, &order, &mut deadline).await?;
    let mut held = Held { connection, opened };
    let login = match log_in(context, &arguments, &order, &held, given, deadline).await {
        Ok(login) => login,
        Err(problem) => {
            held.connection.give_up().await;
            return Err(problem);
        }
    };
    // Before anything is kept: a port that is taken fails the command as a whole.
    if let Some(address) = scraped
        && let Err(problem) = metrics::set(context, address, true).await
    {
        held.connection.give_up().await;
        return Err(problem.into());
    }
    // The secret first: a full disk must not leave a remote without it.
    let former = match save_credential(context, &order.name, &held.opened, &login) {
        Ok(former) => former,
        Err(problem) => {
            held.connection.give_up().await;
            return Err(problem.into());
        }
    };
    if let Err(problem) = keep(&mut held.connection, &login).await {
        restore_credential(context, &order.name, former);
        return Err(problem.into());
    }
    if arguments.write_config {
        let port = status.get("localPort").and_then(Value::as_u64).unwrap_or_default();
        let way = written::Way { port, tls_fingerprint: held.opened.tls_fingerprint };
        written::write(context, &order.name, way, &login.credential)?;
    }
    finish(context, &order, status, &login.gateway).await?;
    if !arguments.batch {
        remote_install::offer(context).await;
    }
    Ok(ExitCode::SUCCESS)
}

async fn keep(connection: &mut Connection, login: &LoggedIn) -> Result<(), Problem> {
    connection.note(&Note::Keep { gateway: Some(login.gateway.clone()) }).await?;
    connection.done().await
}

/// A remote that is up and not yet kept.
struct Held {
    connection: Connection,
    opened: Opened,
}

/// A login that worked.
struct LoggedIn {
    credential: Credential,
    identity: Option<String>,
    gateway: Value,
}

/// The secret on the command line.
pub(super) fn given(arguments: &Arguments) -> Result<Credential, Problem> {
    let token = match (&arguments.token, &arguments.token_file) {
        (Some(token), _) => Some(Secret::new(token)),
        (None, Some(file)) => Some(read_secret(file)?),
        (None, None) => None,
    };
    let password = arguments.password_file.as_deref().map(read_secret).transpose()?;
    Ok(Credential::new(token, password, Source::Given))
}

/// Resolves the target, and says which forwards of the ssh configuration are not made.
async fn warn_of_forwards(context: &Context, definition: config::Remote) -> anyhow::Result<()> {
    let own_gateway = OpenClaw::load(&context.paths)?.gateway.own_port();
    let resolving = tokio::task::spawn_blocking(move || {
        let environment = ssh::Environment::of_process();
        let mut plan = ssh::resolve(&definition.target, &definition.ssh, &environment)?;
        plan.forwards.settle(&definition, own_gateway);
        Ok::<_, Problem>(plan.forwards.left_out)
    });
    for left_out in resolving.await?? {
        context.output.note(format!("warning: {left_out}"));
    }
    Ok(())
}

/// Says what a person would otherwise wonder about.
fn hint_at_files(context: &Context, order: &Order) {
    let configured = OpenClaw::load(&context.paths).and_then(|file| file.remote_definition());
    if let (Ok(configured), Some(definition)) = (configured, &order.definition)
        && configured.target != definition.target
        && order.make_default
    {
        context.output.note(format!(
            "note: openclaw.json names another remote, {}; the one connected here comes first from now on",
            configured.target
        ));
    }
}

/// How a remote is brought up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// Whether nobody may be asked.
    pub(super) batch: bool,
    /// How long it may take, seconds.
    pub(super) timeout: u64,
}

/// Has the supervisor bring the remote up, and passes its questions on.
pub(super) async fn bring_up(
    context: &Context,
    manner: Manner,
    order: &Order,
    deadline: &mut Instant,
) -> anyhow::Result<(Value, Opened, Connection)> {
    let spinner = context.output.spinner();
    spinner.stage("starting the supervisor");
    let mut connection = control::started(&context.paths.endpoint()).await?;
    let definition = order.definition.as_ref().map(serde_json::to_value).transpose()?;
    connection
        .request(Request::Connect {
            name: order.name.clone(),
            definition,
            batch: manner.batch || !ask::is_possible(),
            make_default: order.make_default,
            timeout_ms: manner.timeout * 1000,
        })
        .await?;
    loop {
        match connection.reply().await? {
            Reply::Stage { text } => spinner.stage(&text),
            Reply::Question(question) => {
                let asked = Instant::now();
                let text = answer(&spinner, question).await?;
                *deadline += asked.elapsed();
                connection.note(&Note::Answer { text }).await?;
            }
            Reply::Live { status, opened } => return Ok((status, opened, connection)),
            reply @ (Reply::Opened(_)
            | Reply::Statuses { .. }
            | Reply::Held { .. }
            | Reply::Watched(_)
            | Reply::Token { .. }
            | Reply::Moved
            | Reply::Done
            | Reply::Failed(_)) => return Err(control::refused(reply).into()),
        }
    }
}

/// Puts a question to the person at the terminal.
pub(super) async fn answer(
    spinner: &Spinner,
    question: control::Question,
) -> anyhow::Result<Option<Secret>> {
    // A person may take as long as they like; the terminal blocks a thread of its own.
    spinner.pause();
    let answer = tokio::task::spawn_blocking(move || ask::question(&question)).await?;
    spinner.resume();
    answer.context("asking at the terminal")
}

/// Logs in to the gateway through the tunnel with the first secret there is, by `deadline`; what a
/// person takes to answer does not count.
async fn log_in(
    context: &Context,
    arguments: &Arguments,
    order: &Order,
    held: &Held,
    given: Credential,
    mut deadline: Instant,
) -> anyhow::Result<LoggedIn> {
    let plan = Plan::on_trial(&context.paths, &order.name, given)?;
    let mut credential = plan.credential(Some(&held.opened))?;
    if arguments.fetch_token && credential.source != Source::Given {
        credential = fetch(context, order).await?;
    }
    let plan = plan.with(credential.clone());
    let mut outcome = attempt(context, &plan, held, deadline).await;
    if let (true, Err(problem)) = (credential.is_empty(), &outcome) {
        let asked = Instant::now();
        credential = missing(context, arguments, order, problem.clone()).await?;
        deadline += asked.elapsed();
        outcome = attempt(context, &plan.with(credential.clone()), held, deadline).await;
    }
    let Answer { mut identity, gateway } = outcome?;
    let saved = Credentials::load(&context.paths)?;
    let known = saved.remotes.get(&order.name).and_then(|saved| saved.gateway.clone());
    if identity.is_none() {
        identity = known;
    } else if known.is_some() && known != identity {
        accept_other_gateway(arguments, order).await?;
    }
    Ok(LoggedIn { credential, identity, gateway })
}

/// Another gateway than before answers: a person may say that this is right.
async fn accept_other_gateway(arguments: &Arguments, order: &Order) -> anyhow::Result<()> {
    let name = order.name.clone();
    let problem = other_gateway(&name);
    if arguments.batch || !ask::is_possible() {
        return Err(problem.into());
    }
    let text =
        format!("Another gateway than before answers at `{name}`. Was it reinstalled? [y/N] ");
    let yes = tokio::task::spawn_blocking(move || ask::yes(&text, false)).await??;
    if yes { Ok(()) } else { Err(problem.into()) }
}

/// What it means that another gateway than before answers.
pub(super) fn other_gateway(name: &str) -> Problem {
    Problem::new(
        Class::GatewayRefused,
        format!("another gateway than before answers at remote `{name}`"),
    )
    .code("GATEWAY_IDENTITY_CHANGED")
    .fix(format!("if it was reinstalled on purpose: openclaw remote remove {name}, then connect"))
}

/// Where no gateway answers and nothing better is known: look over there.
pub(super) fn with_look_over_there(problem: Problem, port: u16) -> Problem {
    if problem.class == Class::GatewayDown && problem.fix.is_none() {
        return problem.fix(format!("on the far machine: openclaw gateway status --port {port}"));
    }
    problem
}

/// What to do without a secret: ask whether to read it over the login, or say what to type.
async fn missing(
    context: &Context,
    arguments: &Arguments,
    order: &Order,
    problem: Problem,
) -> anyhow::Result<Credential> {
    if !wants_secret(&problem) {
        return Err(problem.into());
    }
    if arguments.batch || context.output.is_json() || !ask::is_possible() {
        let fix = match order.is_new {
            true => "the same command with --fetch-token (reads it over this login), or with \
                     --token-file FILE"
                .to_owned(),
            false => format!("openclaw remote connect {} --fetch-token", order.name),
        };
        return Err(problem.fix(fix).into());
    }
    let yes = tokio::task::spawn_blocking(|| {
        ask::yes("The gateway wants its token. Read it over this login? [Y/n] ", true)
    })
    .await??;
    if yes {
        return fetch(context, order).await;
    }
    let token = tokio::task::spawn_blocking(|| ask::hidden("Token of the gateway: ")).await??;
    Ok(Credential::new(Some(token), None, Source::Given))
}

async fn fetch(context: &Context, order: &Order) -> anyhow::Result<Credential> {
    let mut connection = control::started(&context.paths.endpoint()).await?;
    connection.request(Request::FetchToken { name: order.name.clone() }).await?;
    let reply = connection.reply().await?;
    let Reply::Token { token, source } = reply else { return Err(control::refused(reply).into()) };
    context.output.note(format!("read the gateway's token from {source} over this login"));
    Ok(Credential::new(Some(token), None, Source::Given))
}

/// What a gateway said of itself.
struct Answer {
    identity: Option<String>,
    gateway: Value,
}

/// Logs in by `deadline`; a gateway that is still starting is asked again.
async fn attempt(
    context: &Context,
    plan: &Plan,
    held: &Held,
    deadline: Instant,
) -> Result<Answer, Problem> {
    let mut waiting = None;
    loop {
        // However long the path took, the gateway gets its moment.
        let patience = left(deadline).max(SHORTEST_LOGIN);
        match answer_of(plan, Instant::now() + patience).await {
            Err(problem) if is_starting(&problem) && left(deadline) > STARTING_PAUSE => {
                let spinner = waiting.get_or_insert_with(|| context.output.spinner());
                spinner.stage(&problem.message);
                sleep(STARTING_PAUSE).await;
            }
            outcome => {
                let port = held.opened.remote_port;
                return outcome.map_err(|problem| with_look_over_there(problem, port));
            }
        }
    }
}

/// Whether a gateway answered that it does not let anybody in yet.
fn is_starting(problem: &Problem) -> bool {
    problem.class == Class::GatewayDown && problem.code.as_deref() == Some("UNAVAILABLE")
}

async fn answer_of(plan: &Plan, deadline: Instant) -> Result<Answer, Problem> {
    // Nobody has said yet that this is the right gateway: no more is asked for than to look.
    let reached = Box::pin(plan.reach(READ, deadline)).await?;
    let identity = reached.gateway.identity(left(deadline)).await?;
    let hello = &reached.gateway.hello;
    let gateway = json!({ "version": hello.server.version, "protocol": hello.protocol });
    reached.gateway.close().await;
    Ok(Answer { identity, gateway })
}

/// Binds the secret to what the transport proved; gives back what was saved before.
fn save_credential(
    context: &Context,
    name: &str,
    opened: &Opened,
    login: &LoggedIn,
) -> Result<Option<config::Credential>, Problem> {
    let bound =
        opened.host_key.clone().map(|host_key| Bound { host_key, remote_port: opened.remote_port });
    let credential = config::Credential {
        token: login.credential.token.clone(),
        password: login.credential.password.clone(),
        bound,
        gateway: login.identity.clone(),
    };
    Credentials::update(&context.paths, |credentials| {
        Ok(credentials.remotes.insert(name.to_owned(), credential))
    })
}

/// Puts back what was saved before a remote that was not kept.
fn restore_credential(context: &Context, name: &str, former: Option<config::Credential>) {
    let restored = Credentials::update(&context.paths, |credentials| {
        credentials.remotes.remove(name);
        credentials.remotes.extend(former.map(|former| (name.to_owned(), former)));
        Ok(())
    });
    if let Err(problem) = restored {
        context.output.note(format!("warning: the secret of {name} stays saved: {problem}"));
    }
}

/// Prints how it stands now.
async fn finish(
    context: &Context,
    order: &Order,
    status: Value,
    gateway: &Value,
) -> anyhow::Result<()> {
    let now = control::statuses(&context.paths.endpoint(), Some(&order.name)).await;
    let mut status = now.ok().and_then(|remotes| remotes.into_iter().next()).unwrap_or(status);
    if let Some(status) = status.as_object_mut() {
        status.insert("gateway".to_owned(), gateway.clone());
    }
    if context.output.is_json() {
        return context.output.value(&status);
    }
    let port = status.get("localPort").and_then(Value::as_u64).unwrap_or(0);
    let is_open = order.definition.as_ref().is_some_and(|definition| definition.local_port == 0);
    if is_open && port != u64::from(GATEWAY_PORT) {
        context.output.note(format!("local port {port} was chosen, and stays this remote's"));
    }
    for line in describe(context, &status) {
        context.output.line(line);
    }
    let next = match status.get("name").and_then(Value::as_str) {
        Some(name) if status.get("default") == Some(&Value::Bool(false)) => {
            format!("next: openclaw --remote {name} health")
        }
        Some(_) | None => "next: openclaw health".to_owned(),
    };
    context.output.line(context.output.paint(Tone::Quiet, &next));
    Ok(())
}
