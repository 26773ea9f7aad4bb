//! What a gateway was told: flags, environment and `openclaw.json`, decided before anything starts.

mod bind;
mod proxy;
mod refusal;

pub(super) use bind::is_own_address;
pub(crate) use bind::{Listen, Machine};
use refusal::Refusals;
pub(crate) use refusal::{Refusal, as_problem};

use super::{
    ingress::{ProxyRules, Ways},
    nodes::Rules,
    tls::Files,
};
use crate::{
    config::{
        AuthMode, Mode, OpenClaw, Paths, RateLimit, SecretInput, TailscaleMode, port_variable,
    },
    logfile,
    problem::{Class, Problem, shell_word},
    secret::Secret,
};

/// What stood on the command line.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    /// `--port`.
    pub(crate) port: Option<u16>,
    /// `--bind`.
    pub(crate) bind: Option<String>,
    /// `--auth`.
    pub(crate) auth: Option<AuthMode>,
    /// `--token` or `--token-file`.
    pub(crate) token: Option<Secret>,
    /// `--password` or `--password-file`.
    pub(crate) password: Option<Secret>,
    /// `--tailscale`.
    pub(crate) tailscale: Option<TailscaleMode>,
}

/// Everything that a gateway needs to start.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where its files are.
    pub(crate) paths: Paths,
    /// The port; 0 for any.
    pub(crate) port: u16,
    /// Where it listens.
    pub(crate) listen: Listen,
    /// The certificate and the key, where it speaks TLS.
    pub(crate) tls: Option<Files>,
    /// What opens it.
    pub(crate) guard: Guard,
    /// Origins of web pages that may connect beside its own.
    pub(crate) allowed_origins: Vec<String>,
    /// Which commands of nodes may run.
    pub(crate) node_rules: Rules,
    /// Whether an operator (and, said outright, a node) on this machine is paired without asking:
    /// `gateway.nodes.pairing.autoApproveLocal`.
    pub(crate) pair_local: Option<bool>,
    /// Whose word about others counts.
    pub(crate) ways: Ways,
    /// How failed attempts are counted.
    pub(crate) rate_limit: RateLimit,
    /// `gateway.tailscale.mode`.
    pub(crate) tailscale: TailscaleMode,
    /// Whether the Tailscale address is listened on once there is one.
    pub(crate) awaits_tailnet: bool,
    /// Its log.
    pub(crate) log: logfile::Handle,
}

/// What opens a gateway.
#[derive(Debug, Clone)]
pub(crate) enum Guard {
    /// Nothing is asked; only ever on loopback.
    Open,
    /// This token.
    Token(Secret),
    /// This password.
    Password(Secret),
    /// The word of a trusted proxy; a password for programs of this machine.
    Proxy(Box<ProxyRules>),
    /// The token in `rs/gateway-token`, made at the first start; only ever on loopback.
    OwnToken,
}

impl Guard {
    /// What it asks for, in a word.
    pub(super) fn mode(&self) -> &'static str {
        match self {
            Self::Open => "none",
            Self::Token(_) | Self::OwnToken => "token",
            Self::Password(_) => "password",
            Self::Proxy(_) => "trusted-proxy",
        }
    }

    /// The secret that it compares with, once it is known.
    pub(crate) fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Token(secret) | Self::Password(secret) => Some(secret),
            Self::Proxy(rules) => rules.password.as_ref(),
            Self::Open | Self::OwnToken => None,
        }
    }
}

impl Settings {
    /// Decides from flags, then the environment, then `openclaw.json`, on this `machine`; class
    /// `config` if refused, with every reason.
    pub(crate) fn decide(
        flags: &Flags,
        variable: impl Fn(&str) -> Option<String>,
        config: &OpenClaw,
        paths: Paths,
        machine: &Machine,
    ) -> Result<Self, Problem> {
        Self::judge(flags, variable, config, paths, machine).map_err(as_problem)
    }

    /// The same, with every reason at its key.
    pub(crate) fn judge(
        flags: &Flags,
        variable: impl Fn(&str) -> Option<String>,
        config: &OpenClaw,
        paths: Paths,
        machine: &Machine,
    ) -> Result<Self, Vec<Refusal>> {
        let gateway = &config.gateway;
        let mut refusals = Refusals::default();
        if gateway.mode == Some(Mode::Remote) {
            refusals.push("gateway.mode", elsewhere(&paths));
        }
        let half =
            if gateway.tls.key.is_none() { "gateway.tls.keyPath" } else { "gateway.tls.certPath" };
        let tls = gateway.tls.enabled.then(|| Files::decide(&gateway.tls, &paths));
        let tls = tls.map(|tls| refusals.note(half, tls));
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let port = match (flags.port, variable("OPENCLAW_GATEWAY_PORT")) {
            (Some(port), _) => Some(port),
            (None, Some(text)) => refusals.note("", parse_port(&text)),
            (None, None) => Some(gateway.own_port()),
        };
        let listen = Listen::decide(flags.bind.as_deref(), &config.gateway, machine);
        let is_flag = matches!(&listen, Err(problem) if problem.class == Class::Usage);
        let listen = refusals.note(if is_flag { "" } else { "gateway.customBindHost" }, listen);
        let guard = match guard(flags, &variable, config) {
            Ok(guard) => Some(guard),
            Err(more) => {
                refusals.0.extend(more);
                None
            }
        };
        // An address that cannot be read is no loopback, as far as anybody knows.
        let is_beyond = listen.is_none_or(|listen| !listen.is_loopback()) && !is_flag;
        if let Some(guard) = guard.as_ref().filter(|_| is_beyond) {
            refusals.note("gateway.bind", refuse_unguarded(guard, flags, config, &paths));
        }
        let tailscale = flags.tailscale.unwrap_or(gateway.tailscale.mode);
        if let Some(guard) = &guard {
            refuse_publishing(tailscale, guard, listen, &mut refusals);
        }
        let ways = guard.as_ref().map(|guard| ways(config, guard, tailscale));
        if gateway.has_roles && ways.as_ref().is_some_and(Ways::names_users) {
            refusals.push("gateway.roles", unbounded());
        }
        let (Some(port), Some(listen), Some(guard), Some(ways), true) =
            (port, listen, guard, ways, refusals.0.is_empty())
        else {
            return Err(refusals.0);
        };
        let awaits_tailnet = listen.awaits_tailnet(flags.bind.as_deref(), gateway)
            && refuse_unguarded(&guard, flags, config, &paths).is_ok();
        Ok(Self {
            port,
            listen,
            tls: tls.flatten(),
            ways,
            guard,
            allowed_origins: gateway.control_ui.allowed_origins.clone(),
            node_rules: Rules::of(&gateway.nodes),
            pair_local: gateway.nodes.pair_local,
            rate_limit: gateway.auth.rate_limit,
            tailscale,
            awaits_tailnet,
            log: logfile::Handle::default(),
            paths,
        })
    }

    /// Whether who is not paired yet finds nobody who may let them in: there is no secret to come by,
    /// and nobody is paired without asking.
    pub(crate) fn shuts_newcomers_out(&self) -> bool {
        matches!(self.guard, Guard::Open) && self.pair_local == Some(false)
    }

    /// What a start would find wrong with the files that these settings name. Blocks; makes none.
    pub(crate) fn missing(&self) -> Option<Refusal> {
        let problem = self.tls.as_ref()?.refused()?;
        Some(Refusal { path: "gateway.tls", problem })
    }
}

/// The gateway runs on another machine.
fn elsewhere(paths: &Paths) -> Problem {
    let file = paths.config.display();
    let message = format!("gateway.mode is `remote` in {file}: the gateway runs elsewhere");
    Problem::new(Class::Config, message)
        .fix(format!("set gateway.mode to \"local\" in {file} to run one here"))
}

fn parse_port(text: &str) -> Result<u16, Problem> {
    port_variable(text).ok_or_else(|| {
        Problem::new(Class::Config, format!("OPENCLAW_GATEWAY_PORT is no port: {text:?}"))
            .fix("export OPENCLAW_GATEWAY_PORT=18789")
    })
}

/// Which secret opens the gateway. What stands at `gateway.remote` is for calling others, and is
/// not looked at.
fn guard(
    flags: &Flags,
    variable: &impl Fn(&str) -> Option<String>,
    config: &OpenClaw,
) -> Result<Guard, Vec<Refusal>> {
    let auth = &config.gateway.auth;
    let token = flags.token.clone().map(SecretInput::Known).or_else(|| auth.token.clone());
    let token = token
        .or_else(|| variable("OPENCLAW_GATEWAY_TOKEN").map(|t| SecretInput::Known(Secret::new(t))));
    let password = flags.password.clone().map(SecretInput::Known).or_else(|| auth.password.clone());
    let password = password.or_else(|| {
        variable("OPENCLAW_GATEWAY_PASSWORD").map(|t| SecretInput::Known(Secret::new(t)))
    });
    let at = |path, problem| vec![Refusal { path, problem }];
    let told = flags.auth.or(auth.mode);
    let mode = match (told, &flags.token, &flags.password) {
        (Some(mode), ..) => mode,
        (None, Some(_), None) => AuthMode::Token,
        (None, None, Some(_)) => AuthMode::Password,
        (None, Some(_), Some(_)) => {
            let message =
                "--token and --password are both given, and nothing says which one counts";
            let problem =
                Problem::new(Class::Usage, message).fix("--auth token, or --auth password");
            return Err(at("", problem));
        }
        // Whichever of them were taken, somebody may count on the other.
        (None, None, None) if auth.token.is_some() && auth.password.is_some() => {
            return Err(at("gateway.auth.mode", undecided()));
        }
        // Of two in different places the password counts, as at OpenClaw.
        (None, None, None) if password.is_some() => AuthMode::Password,
        (None, None, None) => AuthMode::Token,
    };
    match (mode, token, password) {
        (AuthMode::None, _, _) => Ok(Guard::Open),
        (AuthMode::Token, Some(token), _) => usable(&token, "token")
            .map(Guard::Token)
            .map_err(|problem| at("gateway.auth.token", problem)),
        (AuthMode::Token, None, _) => Ok(Guard::OwnToken),
        (AuthMode::Password, _, Some(password)) => usable(&password, "password")
            .map(Guard::Password)
            .map_err(|problem| at("gateway.auth.password", problem)),
        (AuthMode::Password, _, None) => Err(at(
            "gateway.auth.password",
            Problem::new(Class::Config, "the auth mode is `password`, and there is none")
                .fix("set OPENCLAW_GATEWAY_PASSWORD or gateway.auth.password"),
        )),
        (AuthMode::TrustedProxy, token, password) => {
            proxy::rules(config, token.is_some(), password)
        }
    }
}

/// Two secrets in the file, and nothing that says which one opens the gateway.
fn undecided() -> Problem {
    Problem::new(
        Class::Config,
        "gateway.auth.token and gateway.auth.password are both set, and gateway.auth.mode does not \
         say which one counts",
    )
    .fix("openclaw config set gateway.auth.mode token, or password")
}

/// Whose word counts.
fn ways(config: &OpenClaw, guard: &Guard, tailscale: TailscaleMode) -> Ways {
    let gateway = &config.gateway;
    let rules = match guard {
        Guard::Proxy(rules) => Some((**rules).clone()),
        Guard::Open | Guard::Token(_) | Guard::Password(_) | Guard::OwnToken => None,
    };
    // A password and a proxy stay what they are unless somebody says otherwise.
    let usually = matches!(guard, Guard::Token(_) | Guard::OwnToken);
    let is_allowed = gateway.auth.allow_tailscale.unwrap_or(usually);
    Ways {
        proxies: gateway.trusted_proxies.clone(),
        allow_real_ip: gateway.allow_real_ip,
        rules,
        allow_tailscale: is_allowed && tailscale == TailscaleMode::Serve,
    }
}

/// Users are named, and nothing here holds them to the bounds that the file sets.
fn unbounded() -> Problem {
    Problem::new(
        Class::Config,
        "gateway.roles bounds what users may do whom a proxy or Tailscale names, and this gateway \
         follows no roles: each of them might do more than the file says",
    )
    .fix(
        "openclaw config unset gateway.roles, if they may; or have nobody named: \
         openclaw config set gateway.auth.allowTailscale false, and gateway.auth.mode token",
    )
}

/// What is not published by Tailscale, by the name of the key that is in the way.
fn refuse_publishing(
    tailscale: TailscaleMode,
    guard: &Guard,
    listen: Option<Listen>,
    refusals: &mut Refusals,
) {
    let (word, is_guarded) = match tailscale {
        TailscaleMode::Off => return,
        TailscaleMode::Serve => ("serve", !matches!(guard, Guard::Open)),
        TailscaleMode::Funnel => ("funnel", matches!(guard, Guard::Password(_))),
    };
    if !is_guarded && tailscale == TailscaleMode::Funnel {
        refusals.push(
            "gateway.tailscale.mode",
            Problem::new(
                Class::Config,
                "gateway.tailscale.mode is `funnel`, which opens the gateway to the internet: \
                 only with gateway.auth.mode `password`",
            )
            .fix("openclaw config set gateway.auth.mode password, and OPENCLAW_GATEWAY_PASSWORD"),
        );
    } else if !is_guarded {
        refusals.push(
            "gateway.tailscale.mode",
            Problem::new(
                Class::Config,
                "gateway.tailscale.mode is `serve`, and gateway.auth.mode `none` asks nobody \
                 anything",
            )
            .fix("openclaw config set gateway.auth.mode token"),
        );
    }
    if listen.is_none_or(|listen| !listen.is_loopback()) {
        let message = format!(
            "gateway.tailscale.mode is `{word}`, which leads to loopback, and gateway.bind goes \
             beyond it"
        );
        refusals.push(
            "gateway.tailscale.mode",
            Problem::new(Class::Config, message).fix("openclaw config set gateway.bind loopback"),
        );
    }
}

fn usable(input: &SecretInput, name: &str) -> Result<Secret, Problem> {
    let secret = input.resolve()?;
    if secret.expose().trim().is_empty() {
        return Err(Problem::new(Class::Config, format!("the gateway's {name} is empty"))
            .fix("openssl rand -hex 32 > FILE, then: openclaw gateway run --token-file FILE"));
    }
    Ok(secret)
}

/// Beyond loopback a gateway starts only with a secret that somebody chose for it. One that it made
/// for itself counts once somebody says so: it opened loopback alone when it was made.
fn refuse_unguarded(
    guard: &Guard,
    flags: &Flags,
    config: &OpenClaw,
    paths: &Paths,
) -> Result<(), Problem> {
    let why = match guard {
        Guard::Token(_) | Guard::Password(_) | Guard::Proxy(_) => return Ok(()),
        Guard::Open => "the auth mode is `none`",
        Guard::OwnToken => "no token or password is configured for it",
    };
    let remote = &config.gateway.remote;
    let hint = if remote.token.is_some() || remote.password.is_some() {
        " (gateway.remote.* is for calling another gateway and opens none)"
    } else {
        ""
    };
    let what = format!("refusing to listen beyond loopback: {why}{hint}");
    Err(Problem::new(Class::Config, what).fix(format!(
        "{}; or stay on loopback and reach it with: openclaw remote connect user@host",
        how_to_guard(guard, flags, config, paths)
    )))
}

/// What to type so that it may listen beyond loopback.
fn how_to_guard(guard: &Guard, flags: &Flags, config: &OpenClaw, paths: &Paths) -> String {
    let profile: String = paths.profile.iter().map(|name| format!(" --profile {name}")).collect();
    let set = format!("openclaw{profile} config set gateway.auth");
    let choose = format!("{set}.token \"$(openssl rand -base64 32)\"");
    let own = paths.gateway_token();
    match guard {
        Guard::Open if flags.auth.is_some() => "leave `--auth none` away".to_owned(),
        Guard::Open if config.gateway.auth.token.is_some() => format!("{set}.mode token"),
        Guard::Open => format!("{choose} && {set}.mode token"),
        Guard::OwnToken if own.is_file() => {
            let port = flags.port.iter().map(|port| format!(" --port {port}"));
            let bind = flags.bind.iter().map(|bind| format!(" --bind {}", shell_word(bind)));
            let tailscale = flags.tailscale.iter().map(|mode| match mode {
                TailscaleMode::Off => " --tailscale off".to_owned(),
                TailscaleMode::Serve => " --tailscale serve".to_owned(),
                TailscaleMode::Funnel => " --tailscale funnel".to_owned(),
            });
            let auth = flags.auth.iter().map(|_| " --auth token".to_owned());
            let given: String = port.chain(bind).chain(auth).chain(tailscale).collect();
            let own = shell_word(&own.to_string_lossy());
            format!("openclaw{profile} gateway run{given} --token-file {own}")
        }
        Guard::OwnToken | Guard::Token(_) | Guard::Password(_) | Guard::Proxy(_) => choose,
    }
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
