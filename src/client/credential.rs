//! Which secret is offered to a gateway.

use std::fmt;

use super::{Place, Rule, Target};
use crate::{
    config::{self, AuthMode, CONFIG_REMOTE, Gateway, Handed, SecretInput},
    control::Opened,
    problem::{Class, Problem},
    protocol,
    secret::Secret,
};

/// What is offered: a token, a password, both or nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Credential {
    /// The shared token.
    pub(crate) token: Option<Secret>,
    /// The shared password.
    pub(crate) password: Option<Secret>,
    /// Our own device's token, in place of both.
    pub(crate) device_token: Option<Secret>,
    /// Where it comes from.
    pub(crate) source: Source,
}

/// Where a secret comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Source {
    /// The command line.
    Given,
    /// `rs/credentials.json`.
    Saved,
    /// `gateway.remote`.
    ConfiguredRemote,
    /// `OPENCLAW_GATEWAY_TOKEN` or `_PASSWORD`.
    Environment,
    /// `gateway.auth`.
    ConfiguredLocal,
    /// `rs/gateway-token`.
    OwnToken,
    /// The gateway gave it to our own device.
    Device,
    /// There is none.
    #[default]
    None,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Given => "command line",
            Self::Saved => "saved for this remote",
            Self::ConfiguredRemote => "gateway.remote in openclaw.json",
            Self::Environment => "environment",
            Self::ConfiguredLocal => "gateway.auth in openclaw.json",
            Self::OwnToken => "rs/gateway-token",
            Self::Device => "this device's own",
            Self::None => "none",
        })
    }
}

impl Credential {
    /// A credential from `source`; empty texts count as none.
    pub(crate) fn new(token: Option<Secret>, password: Option<Secret>, source: Source) -> Self {
        let filled = |secret: Option<Secret>| secret.filter(|text| !text.expose().is_empty());
        Self { token: filled(token), password: filled(password), device_token: None, source }
    }

    /// Reads `OPENCLAW_GATEWAY_TOKEN` and `OPENCLAW_GATEWAY_PASSWORD`, or what a service manager
    /// handed over in their place.
    pub(crate) fn from_environment() -> Self {
        let read = |name, handed: Handed| {
            super::target::variable(name).map(Secret::new).or_else(|| handed.secret())
        };
        Self::new(
            read("OPENCLAW_GATEWAY_TOKEN", Handed::GatewayToken),
            read("OPENCLAW_GATEWAY_PASSWORD", Handed::GatewayPassword),
            Source::Environment,
        )
    }

    /// Whether there is nothing to offer.
    pub(crate) fn is_empty(&self) -> bool {
        self.token.is_none() && self.password.is_none() && self.device_token.is_none()
    }

    /// As `connect` carries it; `None` when there is nothing to offer.
    pub(super) fn auth(&self) -> Option<protocol::Auth> {
        (!self.is_empty()).then(|| protocol::Auth {
            token: self.token.clone(),
            password: self.password.clone(),
            device_token: self.device_token.clone(),
            ..protocol::Auth::default()
        })
    }

    fn or(self, other: impl FnOnce() -> Result<Self, Problem>) -> Result<Self, Problem> {
        if self.is_empty() { other() } else { Ok(self) }
    }
}

/// Everything that may hold a secret.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources<'a> {
    /// From the command line.
    pub(crate) given: Credential,
    /// Of the environment.
    pub(crate) environment: Credential,
    /// What is saved for the remote.
    pub(crate) saved: Option<&'a config::Credential>,
    /// `gateway` of `openclaw.json`.
    pub(crate) gateway: Option<&'a Gateway>,
    /// `rs/gateway-token`.
    pub(crate) own_token: Option<Secret>,
}

/// The secret for `target`, reached through a transport that proved `opened`.
///
/// A saved secret that belongs elsewhere is an error, never a reason to try the next source.
pub(crate) fn choose(
    target: &Target,
    opened: Option<&Opened>,
    sources: Sources<'_>,
) -> Result<Credential, Problem> {
    let Sources { given, environment, saved, gateway, own_token } = sources;
    if !given.is_empty() {
        return Ok(given);
    }
    match (&target.place, target.rule) {
        // The rule of `--url` has refused already; nothing else is offered there.
        (Place::Address(_), Rule::Url) => Ok(Credential::default()),
        (Place::Address(_), Rule::Configured) => of_remote(gateway)?.or(|| Ok(environment)),
        (Place::Address(_), _) => Ok(environment),
        (Place::Remote(name), _) => {
            let saved = match saved {
                Some(saved) => release(name, saved, opened)?,
                None => Credential::default(),
            };
            saved
                .or(|| if name == CONFIG_REMOTE { of_remote(gateway) } else { Ok(empty()) })?
                .or(|| Ok(environment))
        }
        (Place::Local { .. }, _) => of_local(gateway, environment, own_token),
    }
}

fn empty() -> Credential {
    Credential::default()
}

/// The saved secret, if the transport proved what it is bound to.
fn release(
    name: &str,
    saved: &config::Credential,
    opened: Option<&Opened>,
) -> Result<Credential, Problem> {
    let credential = Credential::new(saved.token.clone(), saved.password.clone(), Source::Saved);
    if credential.is_empty() {
        return Ok(credential);
    }
    let proved = opened.and_then(|opened| {
        let host_key = opened.host_key.clone()?;
        Some(config::Bound { host_key, remote_port: opened.remote_port })
    });
    if proved.is_some() && saved.bound == proved {
        return Ok(credential);
    }
    let told = |bound: Option<&config::Bound>| match bound {
        Some(bound) => format!("host key {} and port {}", bound.host_key, bound.remote_port),
        None => "no host key".to_owned(),
    };
    Err(Problem::new(
        Class::HostKey,
        format!(
            "the secret saved for `{name}` was not sent: it belongs to {}, the path leads to {}",
            told(saved.bound.as_ref()),
            told(proved.as_ref()),
        ),
    )
    .fix(format!(
        "if the host changed on purpose: openclaw remote remove {name}, then connect again"
    )))
}

/// `gateway.remote.token` and `.password`.
fn of_remote(gateway: Option<&Gateway>) -> Result<Credential, Problem> {
    let Some(remote) = gateway.map(|gateway| &gateway.remote) else { return Ok(empty()) };
    Ok(Credential::new(
        resolve(remote.token.as_ref())?,
        resolve(remote.password.as_ref())?,
        Source::ConfiguredRemote,
    ))
}

/// `gateway.auth`, then the environment, then the token that our gateway made; for token and
/// password each. `gateway.remote` plays no part.
fn of_local(
    gateway: Option<&Gateway>,
    environment: Credential,
    own_token: Option<Secret>,
) -> Result<Credential, Problem> {
    let auth = gateway.map(|gateway| &gateway.auth);
    let mode = auth.and_then(|auth| auth.mode);
    let wants = |kind| mode.is_none_or(|mode| mode == kind);
    let configured = Credential::new(
        resolve(auth.and_then(|auth| auth.token.as_ref()).filter(|_| wants(AuthMode::Token)))?,
        resolve(
            auth.and_then(|auth| auth.password.as_ref()).filter(|_| wants(AuthMode::Password)),
        )?,
        Source::ConfiguredLocal,
    );
    if mode == Some(AuthMode::None) {
        return Ok(empty());
    }
    configured.or(|| {
        Credential {
            token: environment.token.filter(|_| wants(AuthMode::Token)),
            password: environment.password.filter(|_| wants(AuthMode::Password)),
            device_token: None,
            source: Source::Environment,
        }
        .or(|| {
            let token = own_token.filter(|_| wants(AuthMode::Token));
            let source = if token.is_some() { Source::OwnToken } else { Source::None };
            Ok(Credential::new(token, None, source))
        })
    })
}

fn resolve(input: Option<&SecretInput>) -> Result<Option<Secret>, Problem> {
    input.map(SecretInput::resolve).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::Address,
        config::{Auth, Bound, RemoteGateway},
    };

    fn secret(text: &str) -> Option<Secret> {
        Some(Secret::new(text))
    }

    fn known(text: &str) -> Option<SecretInput> {
        Some(SecretInput::Known(Secret::new(text)))
    }

    fn token(text: &str, source: Source) -> Credential {
        Credential::new(secret(text), None, source)
    }

    fn saved() -> config::Credential {
        config::Credential {
            token: secret("saved"),
            bound: Some(Bound { host_key: "SHA256:a".to_owned(), remote_port: 18789 }),
            ..config::Credential::default()
        }
    }

    fn opened(host_key: Option<&str>, remote_port: u16) -> Opened {
        let host_key = host_key.map(str::to_owned);
        Opened { host_key, remote_port, tls_fingerprint: None }
    }

    fn gateway() -> Gateway {
        Gateway {
            auth: Auth { token: known("local"), ..Auth::default() },
            remote: RemoteGateway { token: known("remote"), ..RemoteGateway::default() },
            ..Gateway::default()
        }
    }

    fn target(rule: Rule, place: Place) -> Target {
        Target { rule, place }
    }

    fn remote(name: &str) -> Target {
        target(Rule::Remote, Place::Remote(name.to_owned()))
    }

    fn address(rule: Rule) -> Target {
        target(rule, Place::Address(Address::local(1).unwrap()))
    }

    fn local() -> Target {
        target(Rule::Local, Place::Local { port: 1, is_tls: false })
    }

    /// The chosen token and its source, with everything on offer but what `without` takes away.
    fn chosen(target: &Target, without: &[Source]) -> (String, Source) {
        let has = |source| !without.contains(&source);
        let mut gateway = gateway();
        if !has(Source::ConfiguredLocal) {
            gateway.auth.token = None;
        }
        if !has(Source::ConfiguredRemote) {
            gateway.remote.token = None;
        }
        let saved = saved();
        let sources = Sources {
            given: if has(Source::Given) { token("given", Source::Given) } else { empty() },
            environment: if has(Source::Environment) {
                token("environment", Source::Environment)
            } else {
                empty()
            },
            saved: has(Source::Saved).then_some(&saved),
            gateway: Some(&gateway),
            own_token: if has(Source::OwnToken) { secret("own") } else { None },
        };
        let credential = choose(target, Some(&opened(Some("SHA256:a"), 18789)), sources).unwrap();
        let text = credential.token.map(|token| token.expose().to_owned()).unwrap_or_default();
        (text, credential.source)
    }

    #[test]
    fn follows_the_order_of_each_place() {
        use Source::{
            ConfiguredLocal, ConfiguredRemote, Environment, Given, None, OwnToken, Saved,
        };
        let orders: [(Target, &[Source]); 6] = [
            (remote("vps"), &[Given, Saved, Environment, None]),
            (remote("config"), &[Given, Saved, ConfiguredRemote, Environment, None]),
            (address(Rule::Url), &[Given, None]),
            (address(Rule::UrlVariable), &[Given, Environment, None]),
            (address(Rule::Configured), &[Given, ConfiguredRemote, Environment, None]),
            (local(), &[Given, ConfiguredLocal, Environment, OwnToken, None]),
        ];
        for (target, order) in orders {
            for (index, expected) in order.iter().enumerate() {
                let (text, source) = chosen(&target, &order[..index]);
                if *expected == None {
                    assert_eq!(text, "", "{target:?}");
                } else {
                    assert_eq!(source, *expected, "{target:?}");
                }
            }
        }
    }

    #[test]
    fn a_saved_secret_goes_where_it_belongs_and_nowhere_else() {
        for elsewhere in [
            None,
            Some(opened(Some("SHA256:b"), 18789)),
            Some(opened(Some("SHA256:a"), 18790)),
            Some(opened(None, 18789)),
        ] {
            let saved = saved();
            let sources = Sources {
                saved: Some(&saved),
                environment: token("environment", Source::Environment),
                ..Sources::default()
            };
            let problem = choose(&remote("vps"), elsewhere.as_ref(), sources).unwrap_err();
            assert_eq!(problem.class, Class::HostKey);
            assert!(!problem.message.contains("saved for `vps` was sent"));
        }
        let unbound = config::Credential { bound: None, ..saved() };
        let sources = Sources { saved: Some(&unbound), ..Sources::default() };
        let opened = opened(None, 18789);
        choose(&remote("vps"), Some(&opened), sources).unwrap_err();
    }

    #[test]
    fn a_reference_that_cannot_be_followed_falls_back_to_nothing() {
        let mut gateway = gateway();
        gateway.auth.token = Some(SecretInput::Unresolved {
            path: "gateway.auth.token".to_owned(),
            reason: "no".to_owned(),
        });
        let sources = Sources {
            gateway: Some(&gateway),
            environment: token("environment", Source::Environment),
            ..Sources::default()
        };
        assert_eq!(choose(&local(), None, sources).unwrap_err().class, Class::Config);
    }

    #[test]
    fn the_mode_picks_among_a_local_gateways_secrets() {
        let mut gateway = gateway();
        gateway.auth.password = known("password");
        for (mode, expected) in [
            (AuthMode::Token, (true, false)),
            (AuthMode::Password, (false, true)),
            (AuthMode::None, (false, false)),
        ] {
            gateway.auth.mode = Some(mode);
            let sources = Sources { gateway: Some(&gateway), ..Sources::default() };
            let credential = choose(&local(), None, sources).unwrap();
            assert_eq!((credential.token.is_some(), credential.password.is_some()), expected);
        }
    }
}
