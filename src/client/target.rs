//! Which gateway is meant: the first rule that matches.

use std::fmt;

use super::Address;
use crate::{
    config::{
        CONFIG_REMOTE, Gateway, Kind, Mode, RemoteGateway, Remotes, Transport, leads_nowhere,
        port_variable,
    },
    fingerprint::Fingerprint,
    problem::{Class, Problem},
};

/// What the command line says about the gateway.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    /// `--url`.
    pub(crate) url: Option<String>,
    /// `--remote`.
    pub(crate) remote: Option<String>,
    /// `--local-gateway`.
    pub(crate) local_gateway: bool,
    /// `--port`.
    pub(crate) port: Option<u16>,
    /// `--tls-fingerprint`.
    pub(crate) pin: Option<Fingerprint>,
    /// Whether a token or password is given on the command line.
    pub(crate) with_credential: bool,
}

/// What the environment says about the gateway.
#[derive(Debug, Clone, Default)]
pub(crate) struct Surroundings {
    /// `OPENCLAW_GATEWAY_URL`.
    pub(crate) url: Option<String>,
    /// `OPENCLAW_REMOTE`.
    pub(crate) remote: Option<String>,
    /// `OPENCLAW_GATEWAY_PORT`.
    pub(crate) port: Option<String>,
}

impl Surroundings {
    /// Reads the environment of this process; an empty variable counts as none.
    pub(crate) fn read() -> Self {
        Self {
            url: variable("OPENCLAW_GATEWAY_URL"),
            remote: variable("OPENCLAW_REMOTE"),
            port: variable("OPENCLAW_GATEWAY_PORT"),
        }
    }
}

/// A variable of the environment; an empty one counts as none.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// The gateway that is meant, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// What decided.
    pub(crate) rule: Rule,
    /// Where it is.
    pub(crate) place: Place,
}

/// Where a gateway is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this machine.
    Local {
        /// Its port.
        port: u16,
        /// Whether it speaks TLS, as `openclaw.json` says.
        is_tls: bool,
    },
    /// At an address.
    Address(Address),
    /// Behind the remote of this name.
    Remote(String),
}

/// The rules, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// `--url`.
    Url,
    /// `--remote`.
    Remote,
    /// `--local-gateway`.
    LocalGateway,
    /// `--port`.
    Port,
    /// `OPENCLAW_GATEWAY_URL`.
    UrlVariable,
    /// `OPENCLAW_REMOTE`.
    RemoteVariable,
    /// `OPENCLAW_GATEWAY_PORT`.
    PortVariable,
    /// `remote connect` or `remote use`.
    DefaultRemote,
    /// `gateway.mode: "remote"` in `openclaw.json`.
    Configured,
    /// Nothing said otherwise.
    Local,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => "--url",
            Self::Remote => "--remote",
            Self::LocalGateway => "--local-gateway",
            Self::Port => "--port",
            Self::UrlVariable => "env OPENCLAW_GATEWAY_URL",
            Self::RemoteVariable => "env OPENCLAW_REMOTE",
            Self::PortVariable => "env OPENCLAW_GATEWAY_PORT",
            Self::DefaultRemote => "default remote",
            Self::Configured => "gateway.mode in openclaw.json",
            Self::Local => "local gateway",
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local { port, is_tls } => {
                let scheme = if *is_tls { "wss" } else { "ws" };
                write!(f, "{scheme}://127.0.0.1:{port}")
            }
            Self::Address(address) => address.fmt(f),
            Self::Remote(name) => write!(f, "remote `{name}`"),
        }
    }
}

/// Whether the command line alone decides, so that no file need be read.
pub(crate) fn needs_no_file(asked: &Asked) -> bool {
    asked.url.is_some()
}

/// The gateway that is meant. Class `usage` for contradictions, for `--url` without a secret, and for
/// a pin where no address is dialled.
pub(crate) fn choose(
    asked: &Asked,
    surroundings: &Surroundings,
    remotes: &Remotes,
    gateway: &Gateway,
) -> Result<Target, Problem> {
    let target = decide(asked, surroundings, remotes, gateway)?;
    match (&target.place, asked.pin) {
        (Place::Address(_), _) | (_, None) => Ok(target),
        (Place::Local { .. } | Place::Remote(_), Some(_)) => Err(Problem::new(
            Class::Usage,
            "--tls-fingerprint says which certificate --url must show, and there is no --url",
        )
        .fix("--url wss://HOST:PORT, or gateway.remote.url in openclaw.json")),
    }
}

/// The first rule that speaks.
fn decide(
    asked: &Asked,
    surroundings: &Surroundings,
    remotes: &Remotes,
    gateway: &Gateway,
) -> Result<Target, Problem> {
    let local = |rule, port: Option<u16>| {
        let port = port.unwrap_or_else(|| gateway.own_port());
        Ok(Target { rule, place: Place::Local { port, is_tls: gateway.tls.enabled } })
    };
    if let Some(url) = &asked.url {
        return explicit_url(asked, url);
    }
    if let Some(name) = &asked.remote {
        if asked.port.is_some() || asked.local_gateway {
            return Err(contradiction("--remote", "--port"));
        }
        return named(Rule::Remote, name, remotes, gateway);
    }
    if let Some(port) = asked.port {
        return local(Rule::Port, Some(port));
    }
    let port = || surroundings.port.as_deref().map(parse_port).transpose();
    if asked.local_gateway {
        return local(Rule::LocalGateway, port()?);
    }
    if let Some(url) = &surroundings.url {
        let address = Address::parse(url).and_then(|address| address.pinned(asked.pin));
        let address = address.map_err(|problem| Problem {
            message: format!("OPENCLAW_GATEWAY_URL: {}", problem.message),
            ..problem
        })?;
        return Ok(Target { rule: Rule::UrlVariable, place: Place::Address(address) });
    }
    if let Some(name) = &surroundings.remote {
        return named(Rule::RemoteVariable, name, remotes, gateway);
    }
    if let Some(port) = port()? {
        return local(Rule::PortVariable, Some(port));
    }
    if let Some(name) = &remotes.default {
        return named(Rule::DefaultRemote, name, remotes, gateway);
    }
    if gateway.mode == Some(Mode::Remote) {
        return configured(gateway, asked.pin);
    }
    local(Rule::Local, None)
}

/// The port of this machine's gateway: the one `asked` for, or the first that is said elsewhere.
pub(crate) fn own_port(
    asked: Option<u16>,
    surroundings: &Surroundings,
    gateway: &Gateway,
) -> Result<u16, Problem> {
    let said = || surroundings.port.as_deref().map(parse_port).transpose();
    let port = if asked.is_some() { asked } else { said()? };
    Ok(port.unwrap_or_else(|| gateway.own_port()))
}

fn explicit_url(asked: &Asked, url: &str) -> Result<Target, Problem> {
    if asked.remote.is_some() {
        return Err(contradiction("--url", "--remote"));
    }
    if asked.port.is_some() || asked.local_gateway {
        return Err(contradiction("--url", "--port"));
    }
    if !asked.with_credential {
        return Err(Problem::new(
            Class::Usage,
            "--url needs its own --token or --password: saved secrets and those of the \
             environment are not sent to an address from the command line",
        )
        .code("GATEWAY_CREDENTIALS_REQUIRED")
        .fix("add --token-file FILE, or leave --url out"));
    }
    let address = Address::parse(url)?.pinned(asked.pin)?;
    Ok(Target { rule: Rule::Url, place: Place::Address(address) })
}

fn contradiction(one: &str, other: &str) -> Problem {
    Problem::new(Class::Usage, format!("{one} and {other} name two gateways"))
}

fn parse_port(text: &str) -> Result<u16, Problem> {
    port_variable(text).ok_or_else(|| {
        Problem::new(
            Class::Config,
            format!("OPENCLAW_GATEWAY_PORT must be 1..65535, found {text:?}"),
        )
        .fix("unset OPENCLAW_GATEWAY_PORT")
    })
}

/// The remote called `name`, `local` being this machine.
fn named(rule: Rule, name: &str, remotes: &Remotes, gateway: &Gateway) -> Result<Target, Problem> {
    if name == "local" {
        let place = Place::Local { port: gateway.own_port(), is_tls: gateway.tls.enabled };
        return Ok(Target { rule, place });
    }
    if name != CONFIG_REMOTE || !is_ssh(&gateway.remote) {
        remotes.named(name)?;
    }
    if remotes.remotes.get(name).is_some_and(|remote| remote.kind == Kind::Exposed) {
        return Err(leads_nowhere(name));
    }
    Ok(Target { rule, place: Place::Remote(name.to_owned()) })
}

/// Whether `gateway.remote` is reached through a tunnel of ours.
fn is_ssh(remote: &RemoteGateway) -> bool {
    remote.transport == Some(Transport::Ssh) && remote.ssh_target.is_some()
}

/// The gateway of `gateway.remote`; a pin from the command line stands for the one in the file.
fn configured(gateway: &Gateway, asked: Option<Fingerprint>) -> Result<Target, Problem> {
    let rule = Rule::Configured;
    let remote = &gateway.remote;
    if is_ssh(remote) {
        return Ok(Target { rule, place: Place::Remote(CONFIG_REMOTE.to_owned()) });
    }
    let Some(url) = &remote.url else {
        return Err(Problem::new(
            Class::Config,
            "gateway.mode is \"remote\" in openclaw.json, but neither gateway.remote.url nor \
             gateway.remote.transport \"ssh\" with gateway.remote.sshTarget says where",
        )
        .fix("openclaw remote connect user@host"));
    };
    let pin = if asked.is_some() { asked } else { remote.pin()? };
    let address = Address::parse(url).and_then(|address| address.pinned(pin));
    let address = address.map_err(|problem| Problem {
        class: Class::Config,
        message: format!("gateway.remote.url in openclaw.json: {}", problem.message),
        ..problem
    })?;
    Ok(Target { rule, place: Place::Address(address) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Remote;

    fn remotes(default: Option<&str>) -> Remotes {
        let remote = Remote { local_port: 18789, ..Remote::new("me@vps") };
        let names = ["vps", "home"];
        Remotes {
            default: default.map(str::to_owned),
            service_offered: false,
            remotes: names.map(|name| (name.to_owned(), remote.clone())).into(),
            ..Remotes::default()
        }
    }

    fn remote_mode(remote: RemoteGateway) -> Gateway {
        Gateway { mode: Some(Mode::Remote), remote, ..Gateway::default() }
    }

    fn text(value: &str) -> Option<String> {
        Some(value.to_owned())
    }

    #[test]
    fn a_pin_is_never_dropped_for_a_gateway_that_it_is_not_for() {
        let surroundings =
            Surroundings { url: text("wss://127.0.0.1:2"), ..Surroundings::default() };
        let pin = Fingerprint::parse(&format!("sha256:{}", "ab".repeat(32)));
        let asked = Asked { pin, ..Asked::default() };
        let chosen =
            |asked: &Asked| choose(asked, &surroundings, &remotes(None), &Gateway::default());
        assert!(chosen(&asked).is_ok());
        for elsewhere in [
            Asked { remote: text("vps"), ..asked.clone() },
            Asked { port: Some(9), ..asked.clone() },
            Asked { local_gateway: true, ..asked },
        ] {
            assert_eq!(chosen(&elsewhere).unwrap_err().class, Class::Usage);
        }
    }

    #[test]
    fn the_pin_of_the_file_is_for_its_address_and_one_from_the_command_line_comes_first() {
        let pin = |byte: &str| format!("sha256:{}", byte.repeat(32));
        let there = |pin: &str| RemoteGateway {
            url: text("wss://127.0.0.1:5"),
            tls_fingerprint: text(pin),
            ..RemoteGateway::default()
        };
        let chosen = |asked: Option<&str>, configured: &str| {
            let asked = asked.map(|text| Fingerprint::parse(text).unwrap());
            let asked = Asked { pin: asked, ..Asked::default() };
            let (none, gateway) = (Surroundings::default(), remote_mode(there(configured)));
            let target = choose(&asked, &none, &remotes(None), &gateway)?;
            let Place::Address(address) = target.place else { panic!("an address") };
            Ok(address.pin.unwrap().to_string())
        };
        let refused = |outcome: Result<String, Problem>| {
            let problem = outcome.unwrap_err();
            assert_eq!(problem.class, Class::Config);
            problem.message
        };
        assert_eq!(chosen(None, &pin("ab")).unwrap(), pin("ab"));
        assert_eq!(chosen(Some(&pin("cd")), &pin("ab")).unwrap(), pin("cd"));
        assert_eq!(chosen(Some(&pin("cd")), "no pin").unwrap(), pin("cd"));
        let message = refused(chosen(None, "no pin"));
        assert!(message.starts_with("gateway.remote.tlsFingerprint "), "{message}");
        // Behind a tunnel the pin belongs to the remote.
        let ssh = RemoteGateway {
            transport: Some(Transport::Ssh),
            ssh_target: text("me@config"),
            ..there(&pin("ab"))
        };
        let asked = Asked { pin: Fingerprint::parse(&pin("ab")), ..Asked::default() };
        let outcome = choose(&asked, &Surroundings::default(), &remotes(None), &remote_mode(ssh));
        assert_eq!(outcome.unwrap_err().class, Class::Usage);
    }

    #[test]
    fn the_first_rule_wins() {
        // Every rule speaks at once; one after the other falls silent.
        let mut asked =
            Asked { url: text("ws://127.0.0.1:1"), with_credential: true, ..Asked::default() };
        let mut surroundings =
            Surroundings { url: text("ws://127.0.0.1:2"), remote: text("home"), port: text("3") };
        let mut remotes = remotes(Some("vps"));
        let mut gateway = remote_mode(RemoteGateway {
            transport: Some(Transport::Ssh),
            ssh_target: text("me@config"),
            url: text("ws://127.0.0.1:5"),
            ..RemoteGateway::default()
        });
        gateway.port = Some(4);
        let address = |text: &str| Place::Address(Address::parse(text).unwrap());
        let remote = |name: &str| Place::Remote(name.to_owned());
        macro_rules! wins {
            ($rule:ident, $place:expr) => {
                let target = choose(&asked, &surroundings, &remotes, &gateway).unwrap();
                assert_eq!(target, Target { rule: Rule::$rule, place: $place });
            };
        }
        wins!(Url, address("ws://127.0.0.1:1"));
        asked = Asked { remote: text("home"), ..Asked::default() };
        wins!(Remote, remote("home"));
        asked = Asked { local_gateway: true, ..Asked::default() };
        wins!(LocalGateway, Place::Local { port: 3, is_tls: false });
        asked = Asked { local_gateway: true, port: Some(9), ..Asked::default() };
        wins!(Port, Place::Local { port: 9, is_tls: false });
        asked = Asked::default();
        wins!(UrlVariable, address("ws://127.0.0.1:2"));
        surroundings.url = None;
        wins!(RemoteVariable, remote("home"));
        surroundings.remote = None;
        wins!(PortVariable, Place::Local { port: 3, is_tls: false });
        surroundings.port = None;
        wins!(DefaultRemote, remote("vps"));
        remotes.default = text("local");
        wins!(DefaultRemote, Place::Local { port: 4, is_tls: false });
        remotes.default = None;
        wins!(Configured, remote("config"));
        gateway.remote.transport = Some(Transport::Direct);
        wins!(Configured, address("ws://127.0.0.1:5"));
        gateway.mode = Some(Mode::Local);
        wins!(Local, Place::Local { port: 4, is_tls: false });
        gateway.port = None;
        wins!(Local, Place::Local { port: 18789, is_tls: false });
    }

    #[test]
    fn a_url_from_the_command_line_needs_its_own_secret() {
        let asked = Asked { url: text("ws://127.0.0.1:1"), ..Asked::default() };
        let outcome =
            choose(&asked, &Surroundings::default(), &Remotes::default(), &Gateway::default());
        let problem = outcome.unwrap_err();
        assert_eq!(problem.class, Class::Usage);
        assert_eq!(problem.code.as_deref(), Some("GATEWAY_CREDENTIALS_REQUIRED"));
    }

    #[test]
    fn two_gateways_at_once_are_refused() {
        let url = text("ws://127.0.0.1:1");
        for asked in [
            Asked { url: url.clone(), remote: text("vps"), ..Asked::default() },
            Asked { url: url.clone(), port: Some(1), ..Asked::default() },
            Asked { url, local_gateway: true, ..Asked::default() },
            Asked { remote: text("vps"), port: Some(1), ..Asked::default() },
        ] {
            let asked = Asked { with_credential: true, ..asked };
            let outcome =
                choose(&asked, &Surroundings::default(), &remotes(None), &Gateway::default());
            assert_eq!(outcome.unwrap_err().class, Class::Usage);
        }
    }

    #[test]
    fn nothing_falls_back_to_this_machine() {
        let unknown = Asked { remote: text("nope"), ..Asked::default() };
        let none = Surroundings::default();
        choose(&unknown, &none, &remotes(None), &Gateway::default()).unwrap_err();
        let gone = remotes(Some("gone"));
        choose(&Asked::default(), &none, &gone, &Gateway::default()).unwrap_err();
        let nowhere = remote_mode(RemoteGateway::default());
        let problem = choose(&Asked::default(), &none, &Remotes::default(), &nowhere).unwrap_err();
        assert_eq!(problem.class, Class::Config);
        let bad_port = Surroundings { port: text("abc"), ..Surroundings::default() };
        let problem =
            choose(&Asked::default(), &bad_port, &Remotes::default(), &Gateway::default());
        assert_eq!(problem.unwrap_err().class, Class::Config);
        let public = Surroundings { url: text("ws://8.8.8.8"), ..Surroundings::default() };
        choose(&Asked::default(), &public, &Remotes::default(), &Gateway::default()).unwrap_err();
    }
}
