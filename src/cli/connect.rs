//! `openclaw remote connect`: bring a remote up, log in to its gateway, save both.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Context, ask,
    output::{Spinner, Tone},
    remote::{LOCAL, describe},
    which::left,
};
use crate::{
    client::{
        Credential, EVERYTHING, Gateway, Login, Place, Rule, Source, Sources, Target,
        choose_credential,
    },
    config::{
        self, Bound, Credentials, Family, Forward, OpenClaw, Remote, Remotes, SshOptions,
        check_name,
    },
    control::{self, Connection, Edition, Note, Opened, Reply, Request},
    problem::{Class, Problem},
    secret::Secret,
    ssh,
};

/// From the gateway's port to that of its browser control.
const BROWSER_CONTROL: u16 = 2;
/// The gateway's port where nothing else is said.
const GATEWAY_PORT: u16 = 18789;
/// What the login gets at least, however long the path took.
const SHORTEST_LOGIN: Duration = Duration::from_secs(1);
/// Between two looks at a gateway that is still starting.
const STARTING_PAUSE: Duration = Duration::from_millis(500);
/// The name of the remote that stands in `openclaw.json`.
const CONFIGURED: &str = "config";

/// Arguments of `remote connect`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// `[user@]host[:port]`, or the name of a saved remote; without it the default one
    target: Option<String>,
    /// Port of the SSH server
    #[arg(short, value_name = "PORT")]
    port: Option<u16>,
    /// Private key file; may be repeated
    #[arg(short, value_name = "FILE")]
    identity: Vec<PathBuf>,
    /// Jump hosts, comma-separated: `[user@]host[:port],…`
    #[arg(short = 'J', value_name = "HOPS")]
    jump: Option<String>,
    /// Another ssh configuration file (not read yet)
    #[arg(short = 'F', value_name = "FILE")]
    config_file: Option<PathBuf>,
    /// An option as in ssh_config, Key=Value; may be repeated
    #[arg(short = 'o', value_name = "KEY=VALUE")]
    option: Vec<String>,
    /// A further forward, `[bind:]port:host:hostport`; may be repeated
    #[arg(short = 'L', value_name = "SPEC")]
    forward: Vec<String>,
    /// A remote forward (not yet)
    #[arg(short = 'R', value_name = "SPEC")]
    remote_forward: Vec<String>,
    /// User on the SSH server
    #[arg(short = 'l', value_name = "USER")]
    login: Option<String>,
    /// IPv4 only
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6 only
    #[arg(short = '6')]
    ipv6: bool,
    /// Agent forwarding (refused)
    #[arg(short = 'A', hide = true)]
    forward_agent: bool,
    /// Accepted and ignored, as in `ssh -N -f -T -n -q`
    #[arg(short = 'N', hide = true, action = clap::ArgAction::Count)]
    no_command: u8,
    #[arg(short = 'f', hide = true, action = clap::ArgAction::Count)]
    background: u8,
    #[arg(short = 'T', hide = true, action = clap::ArgAction::Count)]
    no_terminal: u8,
    #[arg(short = 'n', hide = true, action = clap::ArgAction::Count)]
    no_input: u8,
    #[arg(short = 'q', hide = true, action = clap::ArgAction::Count)]
    quiet: u8,
    /// What to call the remote; its host otherwise
    #[arg(long)]
    name: Option<String>,
    /// Local port that leads to the gateway; 18789 or the next free one otherwise
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    local_port: Option<u16>,
    /// The gateway's port on the far side [default: 18789]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    remote_port: Option<u16>,
    /// The gateway's token (others can see it in the process list; prefer --token-file)
    #[arg(long)]
    token: Option<String>,
    /// File that holds the gateway's token
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// File that holds the gateway's password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Read the gateway's token over this login
    #[arg(long)]
    fetch_token: bool,
    /// Accept this host key of the last hop
    #[arg(long, value_name = "SHA256:…")]
    accept_host_key: Option<String>,
    /// Never ask a person
    #[arg(long)]
    batch: bool,
    /// How long to try, seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    /// Be the supervisor, for this remote, in the foreground
    #[arg(long)]
    foreground: bool,
    /// Do not make it the default remote
    #[arg(long)]
    no_default: bool,
}

/// Runs `remote connect`; a service is told when another try cannot help.
pub(super) async fn run(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let is_service = arguments.foreground;
    match connect(context, arguments).await {
        Err(error) if is_service => Ok(super::foreground::refusal(context, &error)),
        outcome => outcome,
    }
}

async fn connect(context: &Context, arguments: Arguments) -> anyhow::Result<ExitCode> {
    refuse_unsupported(&arguments)?;
    // The file may hold the secret: better to say now that it is broken than after the login.
    OpenClaw::load(&context.paths)?;
    let saved = Remotes::load(&context.paths)?;
    let order = Order::new(&arguments, &saved, &context.paths)?;
    let given = given(&arguments)?;
    if let Some(definition) = &order.definition {
        // A wrong target or option is said before anything is started.
        ssh::resolve(&definition.target, &definition.ssh, &ssh::Environment::of_process())?;
    }
    hint_at_files(context, &order);
    if arguments.foreground {
        return super::foreground::run(context, arguments.timeout, order, given).await;
    }
    let limit = Duration::from_secs(arguments.timeout);
    let mut deadline = Instant::now() + limit;
    let (status, opened, connection) = bring_up(context, &arguments, &order, &mut deadline).await?;
    let mut held = Held { connection, opened };
    let login = match log_in(context, &arguments, &order, &held, given, deadline).await {
        Ok(login) => login,
        Err(problem) => {
            held.connection.give_up().await;
            return Err(problem);
        }
    };
    held.connection.note(&Note::Keep { gateway: Some(login.gateway.clone()) }).await?;
    held.connection.done().await?;
    save_credential(context, &order.name, &held.opened, &login)?;
    finish(context, &order, status, &login.gateway).await
}

/// What is asked of the supervisor.
pub(super) struct Order {
    pub(super) name: String,
    /// `None`: the saved definition as it is.
    pub(super) definition: Option<Remote>,
    pub(super) make_default: bool,
    is_new: bool,
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

fn refuse_unsupported(arguments: &Arguments) -> Result<(), Problem> {
    let refused = |what: &str, fix: &str| Err(Problem::new(Class::Usage, what).fix(fix));
    if arguments.forward_agent {
        return refused(
            "-A is refused: a forwarded agent lets the far host log in as you elsewhere",
            "use -J to go through a host without lending it your agent",
        );
    }
    if arguments.config_file.is_some() {
        return refused(
            "-F: ssh_config files are not read yet",
            "give the options on the command line: -p, -i, -J, -l, -o",
        );
    }
    if !arguments.remote_forward.is_empty() {
        return refused("-R: remote forwards are not built yet", "use ssh -R beside the tunnel");
    }
    Ok(())
}

impl Order {
    fn new(arguments: &Arguments, saved: &Remotes, paths: &config::Paths) -> Result<Self, Problem> {
        let (name, base) = subject(arguments, saved, paths)?;
        let is_new = !saved.remotes.contains_key(&name);
        let make_default = !arguments.no_default;
        let before = saved.remotes.get(&name);
        if name == CONFIGURED && is_new {
            return Ok(Self { name, definition: None, make_default: false, is_new });
        }
        let definition = definition(arguments, base, before)?;
        let is_unchanged = before == Some(&definition);
        Ok(Self { name, definition: (!is_unchanged).then_some(definition), make_default, is_new })
    }
}

/// The name of the remote meant, and the definition that the options change.
fn subject(
    arguments: &Arguments,
    saved: &Remotes,
    paths: &config::Paths,
) -> Result<(String, Option<Remote>), Problem> {
    let Some(target) = &arguments.target else {
        let default = || saved.default.clone().filter(|name| name != LOCAL);
        let Some(name) = arguments.name.clone().or_else(default) else {
            OpenClaw::load(paths)?.remote_definition().map_err(|_| {
                Problem::new(Class::Usage, "no target, and there is no default remote")
                    .fix("openclaw remote connect user@host")
            })?;
            return Ok((CONFIGURED.to_owned(), None));
        };
        let definition = saved.named(&name)?.clone();
        return Ok((name, Some(definition)));
    };
    if arguments.name.is_none()
        && let Some(definition) = saved.remotes.get(target)
    {
        return Ok((target.clone(), Some(definition.clone())));
    }
    let name = arguments.name.clone().unwrap_or_else(|| name_of(target));
    check_name(&name)?;
    if name == CONFIGURED && target != CONFIGURED {
        return Err(Problem::new(
            Class::Usage,
            format!("`{CONFIGURED}` is the name of the remote in openclaw.json, not of {target}"),
        )
        .fix("choose another one with --name"));
    }
    Ok((name, None))
}

/// The host of a target, as a name.
fn name_of(target: &str) -> String {
    let rest = target.strip_prefix("ssh://").unwrap_or(target);
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host).trim_end_matches('/');
    let host = match host.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((v6, _)) => v6,
        _ if host.matches(':').count() == 1 => host.split(':').next().unwrap_or(host),
        None => host,
    };
    let name: String = host.chars().map(|c| if c == ':' || c == '%' { '-' } else { c }).collect();
    // `::1` and its like: a name starts with no `-`.
    if host.starts_with(':') { format!("v6{name}") } else { name }
}

fn definition(
    arguments: &Arguments,
    base: Option<Remote>,
    before: Option<&Remote>,
) -> Result<Remote, Problem> {
    let mut remote = match base {
        Some(remote) => remote,
        None => Remote {
            target: arguments.target.clone().unwrap_or_default(),
            ssh: SshOptions::default(),
            remote_port: GATEWAY_PORT,
            local_port: before.map_or(0, |before| before.local_port),
            forwards: Vec::new(),
            wanted: true,
        },
    };
    remote.remote_port = arguments.remote_port.unwrap_or(remote.remote_port);
    let options = &mut remote.ssh;
    options.port = arguments.port.or(options.port);
    options.user = arguments.login.clone().or(options.user.take());
    if !arguments.identity.is_empty() {
        options.identities.clone_from(&arguments.identity);
    }
    if let Some(hops) = &arguments.jump {
        options.jumps = hops.split(',').filter(|hop| *hop != "none").map(str::to_owned).collect();
    }
    if !arguments.option.is_empty() {
        options.options =
            arguments.option.iter().map(|option| key_value(option)).collect::<Result<_, _>>()?;
    }
    options.family = match (arguments.ipv4, arguments.ipv6) {
        (true, _) => Family::V4,
        (_, true) => Family::V6,
        _ => options.family,
    };
    options.host_key_pin = arguments.accept_host_key.clone().or(options.host_key_pin.take());
    let folder = std::env::current_dir().map_err(|error| {
        Problem::new(Class::Usage, format!("the current folder is not there: {error}"))
    })?;
    ssh::anchor(options, &folder);
    let mut local_port = arguments.local_port;
    if !arguments.forward.is_empty() {
        let forwards = arguments
            .forward
            .iter()
            .map(|spec| parse_forward(spec))
            .collect::<Result<Vec<_>, _>>()?;
        // What people type today, `-L 18789:127.0.0.1:18789`, is the forward that we make anyway.
        let (own, further): (Vec<_>, Vec<_>) =
            forwards.into_iter().partition(|forward| leads_to_gateway(forward, remote.remote_port));
        local_port = local_port.or(own.first().map(|forward| forward.port));
        remote.forwards = further;
    }
    remote.local_port = local_port.unwrap_or(remote.local_port);
    check_ports(&remote)?;
    check_destinations(&remote)?;
    remote.wanted = true;
    Ok(remote)
}

fn leads_to_gateway(forward: &Forward, remote_port: u16) -> bool {
    forward.host_port == remote_port
        && forward.bind.is_none()
        && matches!(forward.host.as_str(), "localhost" | "127.0.0.1" | "::1")
}

/// The gateway's companion port for browser control is operator access, and never forwarded.
fn check_destinations(remote: &Remote) -> Result<(), Problem> {
    let Some(control) = remote.remote_port.checked_add(BROWSER_CONTROL) else { return Ok(()) };
    let is_near = |host: &str| {
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    match remote.forwards.iter().find(|f| f.host_port == control && is_near(&f.host)) {
        None => Ok(()),
        Some(forward) => Err(Problem::new(
            Class::Usage,
            format!(
                "-L {}:{}:{control}: the gateway's browser control is as good as its owner's login, and is not forwarded",
                forward.port, forward.host
            ),
        )
        .fix("leave that -L out; the gateway itself needs none")),
    }
}

/// Whether each local port leads to one place.
fn check_ports(remote: &Remote) -> Result<(), Problem> {
    let mut taken = vec![(None, remote.local_port)];
    for forward in &remote.forwards {
        let is_loopback = |bind: &&str| matches!(*bind, "127.0.0.1" | "::1");
        let bind = forward.bind.as_deref().filter(|bind| !is_loopback(bind));
        if taken.contains(&(bind, forward.port)) {
            let port = forward.port;
            return Err(Problem::new(
                Class::Usage,
                format!("local port {port} would lead to two places of this remote"),
            )
            .fix("give every -L a port of its own"));
        }
        taken.push((bind, forward.port));
    }
    Ok(())
}

fn key_value(option: &str) -> Result<(String, String), Problem> {
    let split = option.split_once('=').or_else(|| option.split_once(' '));
    match split {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok((key.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(Problem::new(Class::Usage, format!("-o {option}: not Key=Value"))),
    }
}

/// `[bind:]port:host:hostport`, as `ssh -L` has it; IPv6 addresses in brackets.
fn parse_forward(spec: &str) -> Result<Forward, Problem> {
    let wrong = || {
        Problem::new(Class::Usage, format!("-L {spec}: not [bind:]port:host:hostport"))
            .fix("-L 8080:127.0.0.1:8080")
    };
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut bracketed = false;
    for c in spec.chars() {
        match c {
            '[' => bracketed = true,
            ']' => bracketed = false,
            ':' if !bracketed => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    fields.push(field);
    let port = |text: &String| text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    match fields.as_slice() {
        [local, host, far] if !host.is_empty() => Ok(Forward {
            bind: None,
            port: port(local)?,
            host: host.clone(),
            host_port: port(far)?,
        }),
        [bind, local, host, far] if !host.is_empty() => Ok(Forward {
            bind: Some(bind.clone()).filter(|bind| bind != "localhost"),
            port: port(local)?,
            host: host.clone(),
            host_port: port(far)?,
        }),
        _ => Err(wrong()),
    }
}

/// The secret on the command line.
fn given(arguments: &Arguments) -> Result<Credential, Problem> {
    let token = match (&arguments.token, &arguments.token_file) {
        (Some(token), _) => Some(Secret::new(token)),
        (None, Some(file)) => Some(secret_file(file)?),
        (None, None) => None,
    };
    let password = arguments.password_file.as_deref().map(secret_file).transpose()?;
    Ok(Credential::new(token, password, Source::Given))
}

fn secret_file(path: &Path) -> Result<Secret, Problem> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Problem::new(Class::Usage, format!("{}: {error}", path.display())))?;
    let text = text.trim();
    if text.is_empty() {
        return Err(Problem::new(Class::Usage, format!("{} is empty", path.display())));
    }
    Ok(Secret::new(text))
}

/// Says what a person would otherwise wonder about.
fn hint_at_files(context: &Context, order: &Order) {
    let home = ssh::Environment::of_process().home;
    if order.definition.is_some() && home.join(".ssh/config").is_file() {
        context.output.note(
            "note: ~/.ssh/config is not read yet; only what stands on the command line counts",
        );
    }
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

/// Has the supervisor bring the remote up, and passes its questions on.
async fn bring_up(
    context: &Context,
    arguments: &Arguments,
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
            batch: arguments.batch || !ask::is_possible(),
            make_default: order.make_default,
            timeout_ms: arguments.timeout * 1000,
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
            | Reply::Token { .. }
            | Reply::Done
            | Reply::Failed(_)) => return Err(control::refused(reply).into()),
        }
    }
}

async fn answer(spinner: &Spinner, question: control::Question) -> anyhow::Result<Option<Secret>> {
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
    let saved = Credentials::load(&context.paths)?;
    let saved = saved.remotes.get(&order.name);
    let mut credential = choose(context, order, held, given, saved)?;
    if arguments.fetch_token && credential.source != Source::Given {
        credential = fetch(context, order).await?;
    }
    let mut outcome = attempt(context, order, held, &credential, deadline).await;
    if let (true, Err(problem)) = (credential.is_empty(), &outcome) {
        let asked = Instant::now();
        let credential = missing(context, arguments, order, problem.clone()).await?;
        deadline += asked.elapsed();
        outcome = attempt(context, order, held, &credential, deadline).await;
    }
    let mut login = outcome?;
    let known = saved.and_then(|saved| saved.gateway.clone());
    if login.identity.is_none() {
        login.identity = known;
    } else if known.is_some() && known != login.identity {
        accept_other_gateway(arguments, order).await?;
    }
    Ok(login)
}

/// Another gateway than before answers: a person may say that this is right.
async fn accept_other_gateway(arguments: &Arguments, order: &Order) -> anyhow::Result<()> {
    let name = order.name.clone();
    let problem = Problem::new(
        Class::GatewayRefused,
        format!("another gateway than before answers at remote `{name}`"),
    )
    .code("GATEWAY_IDENTITY_CHANGED")
    .fix(format!("if it was reinstalled on purpose: openclaw remote remove {name}, then connect"));
    if arguments.batch || !ask::is_possible() {
        return Err(problem.into());
    }
    let text =
        format!("Another gateway than before answers at `{name}`. Was it reinstalled? [y/N] ");
    let yes = tokio::task::spawn_blocking(move || ask::yes(&text, false)).await??;
    if yes { Ok(()) } else { Err(problem.into()) }
}

fn choose(
    context: &Context,
    order: &Order,
    held: &Held,
    given: Credential,
    saved: Option<&config::Credential>,
) -> Result<Credential, Problem> {
    let file = OpenClaw::load(&context.paths)?;
    let target = Target { rule: Rule::Remote, place: Place::Remote(order.name.clone()) };
    let sources = Sources {
        given,
        environment: Credential::from_environment(),
        saved,
        gateway: Some(&file.gateway),
        own_token: None,
    };
    choose_credential(&target, Some(&held.opened), sources)
}

/// What to do without a secret: ask whether to read it over the login, or say what to type.
async fn missing(
    context: &Context,
    arguments: &Arguments,
    order: &Order,
    problem: Problem,
) -> anyhow::Result<Credential> {
    let is_refusal = problem.class == Class::GatewayRefused;
    if !is_refusal || arguments.batch || context.output.is_json() || !ask::is_possible() {
        let fix = match order.is_new {
            true => "the same command with --fetch-token (reads it over this login), or with \
                     --token-file FILE"
                .to_owned(),
            false => format!("openclaw remote connect {} --fetch-token", order.name),
        };
        return Err(if is_refusal { problem.fix(fix).into() } else { problem.into() });
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

/// Logs in by `deadline`; a gateway that is still starting is asked again.
async fn attempt(
    context: &Context,
    order: &Order,
    held: &Held,
    credential: &Credential,
    deadline: Instant,
) -> Result<LoggedIn, Problem> {
    let mut waiting = None;
    loop {
        // However long the path took, the gateway gets its moment.
        let patience = left(deadline).max(SHORTEST_LOGIN);
        match log_in_once(context, order, credential, patience).await {
            Err(problem) if is_starting(&problem) && left(deadline) > STARTING_PAUSE => {
                let spinner = waiting.get_or_insert_with(|| context.output.spinner());
                spinner.stage(&problem.message);
                sleep(STARTING_PAUSE).await;
            }
            Err(problem) if problem.class == Class::GatewayDown && problem.fix.is_none() => {
                let port = held.opened.remote_port;
                return Err(problem
                    .fix(format!("on the far machine: openclaw gateway status --port {port}")));
            }
            outcome => return outcome,
        }
    }
}

/// Whether a gateway answered that it does not let anybody in yet.
fn is_starting(problem: &Problem) -> bool {
    problem.class == Class::GatewayDown && problem.code.as_deref() == Some("UNAVAILABLE")
}

async fn log_in_once(
    context: &Context,
    order: &Order,
    credential: &Credential,
    patience: Duration,
) -> Result<LoggedIn, Problem> {
    let endpoint = context.paths.endpoint();
    let (stream, _) = control::open(&endpoint, &order.name, Edition::Trial, patience).await?;
    let login = Login { url: "ws://127.0.0.1/", name: &order.name, credential, scopes: EVERYTHING };
    let gateway = Gateway::log_in(stream, login, Instant::now() + patience).await?;
    let identity = gateway.identity(patience).await?;
    let said = json!({
        "version": gateway.hello.server.version, "protocol": gateway.hello.protocol,
    });
    gateway.close().await;
    Ok(LoggedIn { credential: credential.clone(), identity, gateway: said })
}

/// Binds the secret to what the transport proved.
fn save_credential(
    context: &Context,
    name: &str,
    opened: &Opened,
    login: &LoggedIn,
) -> Result<(), Problem> {
    let bound =
        opened.host_key.clone().map(|host_key| Bound { host_key, remote_port: opened.remote_port });
    let credential = config::Credential {
        token: login.credential.token.clone(),
        password: login.credential.password.clone(),
        bound,
        gateway: login.identity.clone(),
    };
    Credentials::update(&context.paths, |credentials| {
        credentials.remotes.insert(name.to_owned(), credential);
        Ok(())
    })
}

/// Prints how it stands now.
async fn finish(
    context: &Context,
    order: &Order,
    status: Value,
    gateway: &Value,
) -> anyhow::Result<ExitCode> {
    let now = control::statuses(&context.paths.endpoint(), Some(&order.name)).await;
    let mut status = now.ok().and_then(|remotes| remotes.into_iter().next()).unwrap_or(status);
    if let Some(status) = status.as_object_mut() {
        status.insert("gateway".to_owned(), gateway.clone());
    }
    if context.output.is_json() {
        context.output.value(&status)?;
        return Ok(ExitCode::SUCCESS);
    }
    let port = status.get("localPort").and_then(Value::as_u64).unwrap_or(0);
    let is_open = order.definition.as_ref().is_some_and(|definition| definition.local_port == 0);
    if is_open && port != u64::from(GATEWAY_PORT) {
        context.output.note(format!("local port {port} was chosen, and stays this remote's"));
    }
    for line in describe(context, &status) {
        context.output.line(line);
    }
    let next = context.output.paint(Tone::Quiet, "next: openclaw health");
    context.output.line(next);
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

    #[test]
    fn names_a_remote_after_its_host() {
        for (target, name) in [
            ("me@vps.example.com", "vps.example.com"),
            ("vps:2222", "vps"),
            ("ssh://me@vps:22/", "vps"),
            ("me@[fe80::1%eth0]:22", "fe80--1-eth0"),
            ("::1", "v6--1"),
            ("me@[::1]:22", "v6--1"),
            ("-x", "-x"),
        ] {
            assert_eq!(name_of(target), name);
        }
    }

    #[test]
    fn reads_forwards_as_ssh_does() {
        let forward = parse_forward("[::1]:8080:[fe80::2]:80").unwrap();
        assert_eq!(forward.bind.as_deref(), Some("::1"));
        assert_eq!((forward.port, forward.host.as_str(), forward.host_port), (8080, "fe80::2", 80));
        assert_eq!(parse_forward("8080:db:5432").unwrap().bind, None);
        assert_eq!(parse_forward("localhost:8080:db:5432").unwrap().bind, None);
        for wrong in ["", "8080", "8080:db", "0:db:1", "8080:db:99999", "8080::1", "/tmp/s:db:1"] {
            let problem = parse_forward(wrong).unwrap_err();
            assert_eq!(problem.class, Class::Usage, "{wrong}");
        }
    }

    #[test]
    fn a_local_port_leads_to_one_place() {
        let ports = |words: &str| {
            let words = ["connect", "me@vps"].into_iter().chain(words.split(' '));
            let line = Line::parse_from(words);
            definition(&line.arguments, None, None).map(|remote| remote.forwards.len())
        };
        assert_eq!(ports("--local-port 8000 -L 8001:db:1 -L 127.0.0.2:8001:db:2").unwrap(), 2);
        assert_eq!(ports("-L 18789:127.0.0.1:18789 -L 8001:db:1").unwrap(), 1);
        for twice in [
            "--local-port 8000 -L 8000:db:1",
            "-L 8000:127.0.0.1:18789 -L 127.0.0.1:8000:db:1",
            "-L 8000:db:1 -L localhost:8000:db:2",
        ] {
            let problem = ports(twice).unwrap_err();
            assert_eq!(problem.class, Class::Usage, "{twice}");
            assert!(problem.message.contains("8000"), "{problem}");
        }
    }

    #[test]
    fn the_name_of_the_configured_remote_is_given_to_no_other() {
        let (_home, paths) = config::Paths::temporary();
        for words in
            [["connect", "me@config"].as_slice(), &["connect", "me@vps", "--name", "config"]]
        {
            let line = Line::parse_from(words);
            let outcome = Order::new(&line.arguments, &Remotes::default(), &paths);
            assert_eq!(outcome.map(|order| order.name).unwrap_err().class, Class::Usage);
        }
    }

    #[test]
    fn the_forward_that_people_type_today_is_ours() {
        let own = parse_forward("18789:127.0.0.1:18789").unwrap();
        assert!(leads_to_gateway(&own, 18789));
        assert!(!leads_to_gateway(&own, 19000));
        assert!(!leads_to_gateway(&parse_forward("1:db:18789").unwrap(), 18789));
    }

    #[test]
    fn never_forwards_the_browser_control() {
        let remote = |spec: &str| Remote {
            target: "me@vps".to_owned(),
            ssh: SshOptions::default(),
            remote_port: 18789,
            local_port: 18789,
            forwards: vec![parse_forward(spec).unwrap()],
            wanted: true,
        };
        for refused in ["1:127.0.0.1:18791", "1:localhost:18791", "1:[::1]:18791"] {
            assert_eq!(check_destinations(&remote(refused)).unwrap_err().class, Class::Usage);
        }
        check_destinations(&remote("1:db:18791")).unwrap();
        check_destinations(&remote("1:127.0.0.1:18790")).unwrap();
    }

    #[test]
    fn splits_options_at_the_first_sign() {
        let split = |text| key_value(text).map(|(key, value)| format!("{key}|{value}"));
        assert_eq!(split("Port=22").unwrap(), "Port|22");
        assert_eq!(split("Port 22").unwrap(), "Port|22");
        assert_eq!(split("ProxyCommand=a=b").unwrap(), "ProxyCommand|a=b");
        assert!(split("Port").is_err() && split("=22").is_err());
    }
}
