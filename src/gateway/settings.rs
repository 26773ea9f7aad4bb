//! What a gateway was told: flags, environment and `openclaw.json`, decided before anything starts.

mod bind;

pub(crate) use bind::{Listen, Machine};

use super::{nodes::Rules, tls::Files};
use crate::{
    config::{AuthMode, Mode, OpenClaw, Paths, SecretInput, port_variable},
    logfile,
    problem::{Class, Problem},
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
        }
    }

    /// The secret that it compares with, once it is known.
    pub(super) fn secret(&self) -> Option<&Secret> {
        match self {
            Self::Token(secret) | Self::Password(secret) => Some(secret),
            Self::Open | Self::OwnToken => None,
        }
    }
}

impl Settings {
    /// Decides from flags, then the environment, then `openclaw.json`, on this `machine`; class
    /// `config` if refused.
    pub(crate) fn decide(
        flags: &Flags,
        variable: impl Fn(&str) -> Option<String>,
        config: &OpenClaw,
        paths: Paths,
        machine: &Machine,
    ) -> Result<Self, Problem> {
        let file = paths.config.display().to_string();
        let gateway = &config.gateway;
        if gateway.mode == Some(Mode::Remote) {
            return Err(Problem::new(
                Class::Config,
                format!("gateway.mode is `remote` in {file}: the gateway runs elsewhere"),
            )
            .fix(format!("set gateway.mode to \"local\" in {file} to run one here")));
        }
        let tls = gateway.tls.enabled.then(|| Files::decide(&gateway.tls, &paths)).transpose()?;
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let port = match (flags.port, variable("OPENCLAW_GATEWAY_PORT")) {
            (Some(port), _) => port,
            (None, Some(text)) => parse_port(&text)?,
            (None, None) => gateway.own_port(),
        };
        let listen = Listen::decide(flags.bind.as_deref(), &config.gateway, machine)?;
        let guard = guard(flags, &variable, config)?;
        if !listen.is_loopback() {
            refuse_unguarded(&guard, config)?;
        }
        let allowed_origins = gateway.control_ui.allowed_origins.clone();
        let node_rules = Rules::of(&gateway.nodes);
        let pair_local = gateway.nodes.pair_local;
        let log = logfile::Handle::default();
        Ok(Self { paths, port, listen, tls, guard, allowed_origins, node_rules, pair_local, log })
    }
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
) -> Result<Guard, Problem> {
    let auth = &config.gateway.auth;
    let token = flags.token.clone().map(SecretInput::Known).or_else(|| auth.token.clone());
    let token = token
        .or_else(|| variable("OPENCLAW_GATEWAY_TOKEN").map(|t| SecretInput::Known(Secret::new(t))));
    let password = flags.password.clone().map(SecretInput::Known).or_else(|| auth.password.clone());
    let password = password.or_else(|| {
        variable("OPENCLAW_GATEWAY_PASSWORD").map(|t| SecretInput::Known(Secret::new(t)))
    });
    let told = flags.auth.or(auth.mode);
    let mode = told.unwrap_or(match (&flags.token, &flags.password, &token, &password) {
        (None, Some(_), _, _) | (None, None, None, Some(_)) => AuthMode::Password,
        _ => AuthMode::Token,
    });
    match (mode, token, password) {
        (AuthMode::None, _, _) => Ok(Guard::Open),
        (AuthMode::Token, Some(token), _) => usable(&token, "token").map(Guard::Token),
        (AuthMode::Token, None, _) => Ok(Guard::OwnToken),
        (AuthMode::Password, _, Some(password)) => {
            usable(&password, "password").map(Guard::Password)
        }
        (AuthMode::Password, _, None) => {
            Err(Problem::new(Class::Config, "the auth mode is `password`, and there is none")
                .fix("set OPENCLAW_GATEWAY_PASSWORD or gateway.auth.password"))
        }
        (AuthMode::TrustedProxy, _, _) => {
            Err(Problem::new(Class::Config, "the auth mode `trusted-proxy` is not built yet")
                .fix("set gateway.auth.mode to \"token\""))
        }
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

/// Beyond loopback a gateway starts only with a secret that somebody chose for it.
fn refuse_unguarded(guard: &Guard, config: &OpenClaw) -> Result<(), Problem> {
    let why = match guard {
        Guard::Token(_) | Guard::Password(_) => return Ok(()),
        Guard::Open => "the auth mode is `none`",
        Guard::OwnToken => "no token or password is configured for it",
    };
    let remote = &config.gateway.remote;
    let hint = if remote.token.is_some() || remote.password.is_some() {
        " (gateway.remote.* is for calling another gateway and opens none)"
    } else {
        ""
    };
    Err(Problem::new(
        Class::Config,
        format!("refusing to listen beyond loopback: {why}{hint}"),
    )
    .fix("set OPENCLAW_GATEWAY_TOKEN or gateway.auth.token; or stay on loopback and reach it with: openclaw remote connect user@host"))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::gateway::tests::paths;

    fn decide(
        flags: &Flags,
        environment: &[(&str, &str)],
        config: &OpenClaw,
    ) -> Result<Settings, Problem> {
        let variable = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        Settings::decide(flags, variable, config, paths(Path::new("/state")), &Machine::default())
    }

    fn known(text: &str) -> Option<SecretInput> {
        Some(SecretInput::Known(Secret::new(text)))
    }

    fn lan() -> Flags {
        Flags { bind: Some("lan".to_owned()), ..Flags::default() }
    }

    #[test]
    fn the_port_comes_from_the_flag_then_the_environment_then_the_file() {
        let mut config = OpenClaw::default();
        let port = |flag, environment: &[(&str, &str)], config: &OpenClaw| {
            decide(&Flags { port: flag, ..Flags::default() }, environment, config).map(|s| s.port)
        };
        assert_eq!(port(None, &[], &config), Ok(18_789));
        config.gateway.port = Some(3);
        assert_eq!(port(None, &[], &config), Ok(3));
        let environment = [("OPENCLAW_GATEWAY_PORT", "2")];
        assert_eq!(port(None, &environment, &config), Ok(2));
        assert_eq!(port(Some(1), &environment, &config), Ok(1));
        let broken = [("OPENCLAW_GATEWAY_PORT", "many")];
        assert_eq!(port(None, &broken, &config).unwrap_err().class, Class::Config);
        assert_eq!(port(None, &[("OPENCLAW_GATEWAY_PORT", "")], &config), Ok(3));
    }

    #[test]
    fn a_named_profile_listens_on_a_port_of_its_own_unless_told_otherwise() {
        let (home, paths) = Paths::temporary();
        let work = Paths { profile: Some("work".to_owned()), ..paths };
        let config = OpenClaw::load(&work).unwrap();
        let port = |environment, config: &OpenClaw| {
            decide(&Flags::default(), environment, config).map(|settings| settings.port)
        };
        assert_eq!(port(&[], &config), Ok(41_984));
        assert_eq!(port(&[("OPENCLAW_GATEWAY_PORT", "127.0.0.1:7")], &config), Ok(7));
        std::fs::create_dir_all(&work.state).unwrap();
        std::fs::write(&work.config, "{gateway: {port: 8}}").unwrap();
        assert_eq!(port(&[], &OpenClaw::load(&work).unwrap()), Ok(8));
        drop(home);
    }

    #[test]
    fn a_gateway_that_runs_elsewhere_does_not_start_here() {
        let mut config = OpenClaw::default();
        config.gateway.mode = Some(Mode::Remote);
        let problem = decide(&Flags::default(), &[], &config).unwrap_err();
        assert_eq!(problem.class, Class::Config);
        assert!(problem.message.contains("gateway.mode"));
    }

    #[test]
    fn beyond_loopback_wants_a_configured_secret() {
        let mut config = OpenClaw::default();
        config.gateway.remote.token = known("for calling others");
        config.gateway.remote.password = known("for calling others");
        let problem = decide(&lan(), &[], &config).unwrap_err();
        assert_eq!(problem.class, Class::Config);
        assert!(problem.message.contains("gateway.remote"), "{}", problem.message);
        assert!(problem.fix.is_some());

        config.gateway.auth.mode = Some(AuthMode::None);
        assert_eq!(decide(&lan(), &[], &config).unwrap_err().class, Class::Config);
        config.gateway.auth.mode = None;

        assert!(decide(&lan(), &[("OPENCLAW_GATEWAY_TOKEN", "t")], &config).is_ok());
        assert!(decide(&lan(), &[("OPENCLAW_GATEWAY_TOKEN", " ")], &config).is_err());
        let guard = decide(&lan(), &[("OPENCLAW_GATEWAY_PASSWORD", "p")], &config).unwrap().guard;
        assert!(matches!(guard, Guard::Password(_)));
        config.gateway.auth.token = known("t");
        assert!(matches!(decide(&lan(), &[], &config).unwrap().guard, Guard::Token(_)));
    }

    #[test]
    fn loopback_without_a_secret_uses_its_own_token_and_never_a_remotes() {
        let mut config = OpenClaw::default();
        config.gateway.remote.token = known("for calling others");
        let settings = decide(&Flags::default(), &[], &config).unwrap();
        assert!(matches!(settings.guard, Guard::OwnToken));
        assert_eq!(settings.listen, Listen::Loopback);
    }

    #[test]
    fn a_reference_that_leads_nowhere_is_not_replaced_by_another_secret() {
        let mut config = OpenClaw::default();
        config.gateway.auth.token = Some(SecretInput::Unresolved {
            path: "gateway.auth.token".to_owned(),
            reason: "gone".to_owned(),
        });
        let environment = [("OPENCLAW_GATEWAY_TOKEN", "t")];
        assert!(decide(&Flags::default(), &environment, &config).is_err());
    }

    #[test]
    fn authentication_is_asked_where_the_mode_ends_up_and_not_by_its_name() {
        let decide_on = |bind: &str, machine: &Machine| {
            let flags = Flags { bind: Some(bind.to_owned()), ..Flags::default() };
            let state = paths(Path::new("/state"));
            Settings::decide(&flags, |_| None, &OpenClaw::default(), state, machine)
        };
        let inside = Machine::default();
        let outside = Machine { tailnet: Some("100.64.0.7".parse().unwrap()), has_loopback: false };
        for bind in ["auto", "tailnet"] {
            assert!(decide_on(bind, &inside).is_ok(), "{bind}");
            let problem = decide_on(bind, &outside).unwrap_err();
            assert!(problem.message.contains("beyond loopback"), "{}", problem.message);
        }
    }
}
