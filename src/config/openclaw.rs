//! `openclaw.json`: the keys of OpenClaw's own configuration that we act on, every problem at once.
//!
//! The file is walked rather than deserialised: a walk can name each wrong value by its path and
//! go on, and it keeps its hands off what it does not know.

mod ingress;

use std::{
    cell::RefCell,
    io,
    path::{Path, PathBuf},
};

use ipnet::IpNet;
use serde_json::{Map, Value};

use super::{
    Paths,
    include::{self, Finder},
    issue::Issue,
    own_port::{UsualPort, profile_port},
    syntax,
};
use crate::{
    logfile::Level,
    problem::{Class, Problem},
    secret::Secret,
};

pub(crate) use ingress::{ProxyAuth, RateLimit, Tailscale, TailscaleMode, Tls};

impl Gateway {
    /// The port of this machine's own gateway.
    pub(crate) fn own_port(&self) -> u16 {
        self.port.unwrap_or(self.usual_port.0)
    }
}

/// What stands in `openclaw.json`, as far as we act on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenClaw {
    /// `gateway`.
    pub(crate) gateway: Gateway,
    /// `logging`.
    pub(crate) logging: Logging,
}

/// `logging`: how much the gateway writes down.
#[derive(Debug, Clone, Default)]
pub(crate) struct Logging {
    /// `logging.level`, of the log file.
    pub(crate) level: Option<Level>,
    /// `logging.consoleLevel`, of standard error.
    pub(crate) console_level: Option<Level>,
}

/// `gateway`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gateway {
    /// `gateway.mode`.
    pub(crate) mode: Option<Mode>,
    /// `gateway.port`.
    pub(crate) port: Option<u16>,
    /// The port of this profile where the file says none.
    pub(crate) usual_port: UsualPort,
    /// `gateway.bind`.
    pub(crate) bind: Option<Bind>,
    /// `gateway.customBindHost`, for [`Bind::Custom`].
    pub(crate) custom_bind_host: Option<String>,
    /// `gateway.auth`.
    pub(crate) auth: Auth,
    /// `gateway.remote`.
    pub(crate) remote: RemoteGateway,
    /// `gateway.controlUi`.
    pub(crate) control_ui: ControlUi,
    /// `gateway.nodes`.
    pub(crate) nodes: Nodes,
    /// `gateway.reload.mode`.
    pub(crate) reload: ReloadMode,
    /// `gateway.tls`.
    pub(crate) tls: Tls,
    /// `gateway.tailscale`.
    pub(crate) tailscale: Tailscale,
    /// `gateway.trustedProxies`: addresses and ranges of proxies whose headers count.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// `gateway.allowRealIpFallback`: whether a trusted proxy may name its client in `X-Real-IP`.
    pub(crate) allow_real_ip: bool,
}

/// `gateway.reload.mode`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ReloadMode {
    /// What is safe counts at once; what is not, from the next start on.
    #[default]
    Hybrid,
    /// Everything counts from the next start on.
    Off,
}

/// `gateway.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// A gateway runs here.
    Local,
    /// The gateway runs elsewhere.
    Remote,
}

/// `gateway.bind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bind {
    /// OpenClaw's choice.
    Auto,
    /// 127.0.0.1.
    Loopback,
    /// 0.0.0.0.
    Lan,
    /// The Tailscale address.
    Tailnet,
    /// `gateway.customBindHost`.
    Custom,
}

/// `gateway.auth`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Auth {
    /// `gateway.auth.mode`.
    pub(crate) mode: Option<AuthMode>,
    /// `gateway.auth.token`.
    pub(crate) token: Option<SecretInput>,
    /// `gateway.auth.password`.
    pub(crate) password: Option<SecretInput>,
    /// `gateway.auth.allowTailscale`: whether verified Tailscale users need no secret.
    pub(crate) allow_tailscale: Option<bool>,
    /// `gateway.auth.trustedProxy`.
    pub(crate) trusted_proxy: Option<ProxyAuth>,
    /// `gateway.auth.rateLimit`.
    pub(crate) rate_limit: RateLimit,
}

/// `gateway.auth.mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AuthMode {
    /// Nobody is asked.
    None,
    /// A shared token.
    Token,
    /// A shared password.
    Password,
    /// A proxy in front says who it is.
    TrustedProxy,
}

/// `gateway.remote`: how to call a gateway elsewhere; never what a gateway here accepts.
#[derive(Debug, Clone, Default)]
pub(crate) struct RemoteGateway {
    /// `gateway.remote.url`.
    pub(crate) url: Option<String>,
    /// `gateway.remote.transport`.
    pub(crate) transport: Option<Transport>,
    /// `gateway.remote.token`.
    pub(crate) token: Option<SecretInput>,
    /// `gateway.remote.password`.
    pub(crate) password: Option<SecretInput>,
    /// `gateway.remote.sshTarget`: `user@host` or `user@host:port`.
    pub(crate) ssh_target: Option<String>,
    /// `gateway.remote.sshIdentity`: a key file.
    pub(crate) ssh_identity: Option<String>,
    /// `gateway.remote.sshHostKeyPolicy`.
    pub(crate) ssh_host_key_policy: Option<HostKeyPolicy>,
    /// `gateway.remote.remotePort`.
    pub(crate) remote_port: Option<u16>,
    /// `gateway.remote.tlsFingerprint`: the only certificate to talk to.
    pub(crate) tls_fingerprint: Option<String>,
}

/// `gateway.remote.transport`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// Through a tunnel.
    Ssh,
    /// A `ws://` or `wss://` URL.
    Direct,
}

/// `gateway.remote.sshHostKeyPolicy`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostKeyPolicy {
    /// The key must be on file.
    Strict,
    /// As OpenSSH's own configuration says.
    OpenSsh,
}

/// `gateway.controlUi`.
#[derive(Debug, Clone, Default)]
pub(crate) struct ControlUi {
    /// `gateway.controlUi.allowedOrigins`.
    pub(crate) allowed_origins: Vec<String>,
}

/// `gateway.nodes`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Nodes {
    /// `gateway.nodes.pairing.autoApproveLocal`.
    pub(crate) pair_local: Option<bool>,
    /// `gateway.nodes.commands.allow`, or the older `gateway.nodes.allowCommands`.
    pub(crate) allow: Vec<String>,
    /// `gateway.nodes.commands.deny`, or the older `gateway.nodes.denyCommands`.
    pub(crate) deny: Vec<String>,
    /// `gateway.nodes.pluginTools.enabled`: whether tools that nodes publish count; if not said, yes.
    pub(crate) plugin_tools: Option<bool>,
    /// `gateway.nodes.allowSkills`: whether skills that nodes publish count; if not said, yes.
    pub(crate) skills: Option<bool>,
}

/// A secret as the file has it: known, or named but out of our reach.
#[derive(Debug, Clone)]
pub(crate) enum SecretInput {
    /// A plain string, or one that came from the environment.
    Known(Secret),
    /// A reference that could not be followed; a problem only for who needs it.
    Unresolved {
        /// Where it stands.
        path: String,
        /// Why it could not be followed.
        reason: String,
    },
}

impl SecretInput {
    /// The secret; class `config` where it could not be followed. Never falls back to another one.
    pub(crate) fn resolve(&self) -> Result<Secret, Problem> {
        match self {
            Self::Known(secret) => Ok(secret.clone()),
            Self::Unresolved { path, reason } => Err(Problem::new(
                Class::Config,
                format!("the secret at {path} in openclaw.json is not available: {reason}"),
            )
            .fix("pass --token-file, or make the reference resolvable in this shell")),
        }
    }
}

/// What stands in the file and in those that it includes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Review {
    /// The part that we act on; defaults where there are issues.
    pub(crate) config: OpenClaw,
    /// Everything, with variables filled in as far as they are set.
    pub(crate) whole: Value,
    /// What is wrong.
    pub(crate) issues: Vec<Issue>,
    /// Variables and references that lead nowhere, where that is no error by itself.
    pub(crate) warnings: Vec<Issue>,
    /// Keys of the sections that we read which mean nothing here.
    pub(crate) unknown: Vec<String>,
    /// The files that it includes, as far as they were found.
    pub(crate) parts: Vec<PathBuf>,
}

/// What a file may refer to.
pub(super) struct World<'a> {
    /// A variable of the environment.
    pub(super) variable: &'a dyn Fn(&str) -> Option<String>,
    /// A file for `$include`.
    pub(super) find: Finder<'a>,
}

impl Review {
    /// Reads `text`, the content of `file`.
    pub(super) fn of(text: &str, file: &Path, world: &World<'_>) -> Self {
        let value = match syntax::parse(text) {
            Ok(value) => value,
            Err(error) => {
                let issues = vec![Issue::new("", format!("not valid JSON5: {error}"))];
                return Self { issues, ..Self::default() };
            }
        };
        let parts = RefCell::new(Vec::new());
        let find = |from: &Path, name: &str| {
            let found = (world.find)(from, name)?;
            parts.borrow_mut().push(found.0.clone());
            Ok(found)
        };
        let (mut whole, issues) = include::resolve(value, file, &find);
        let inline = whole.pointer("/env/vars").cloned().unwrap_or_default();
        let variable = |name: &str| {
            let set = (world.variable)(name).filter(|value| !value.is_empty());
            set.or_else(|| inline.get(name).and_then(Value::as_str).map(str::to_owned))
        };
        let mut walk = Walk { variable: &variable, issues, unknown: Vec::new() };
        let mut root = walk.root(whole.clone());
        let gateway = walk.within(&mut root, "gateway", gateway);
        let logging = walk.within(&mut root, "logging", logging);
        walk.unknown.extend(root.keys.keys().cloned());
        let Walk { issues, unknown, .. } = walk;
        let mut warnings = Vec::new();
        fill_in(&mut whole, "", &variable, &mut warnings);
        warnings.retain(|warning| issues.iter().all(|issue| issue.path != warning.path));
        let (config, parts) = (OpenClaw { gateway, logging }, parts.into_inner());
        Self { config, whole, issues, warnings, unknown, parts }
    }

    /// Reads the file, `None` without one; class `config` if that fails.
    pub(crate) fn load(paths: &Paths) -> Result<Option<Self>, Problem> {
        let Some(text) = read(&paths.config)? else { return Ok(None) };
        Ok(Some(Self::of_this_machine(&text, &paths.config)))
    }

    /// The same of a text that may become the file.
    pub(super) fn of_this_machine(text: &str, file: &Path) -> Self {
        let roots = std::env::var_os("OPENCLAW_INCLUDE_ROOTS");
        let find = include::finder(file, roots.as_deref());
        let world = World { variable: &|name| std::env::var(name).ok(), find: &find };
        Self::of(text, file, &world)
    }

    /// All issues as one problem, class `config`.
    pub(crate) fn problem(&self, file: &Path) -> Option<Problem> {
        let shown = file.display();
        let lines: Vec<_> = self.issues.iter().map(ToString::to_string).collect();
        let message = match lines.as_slice() {
            [] => return None,
            [one] => format!("{shown}: {one}"),
            many => format!("{shown} has {} problems:\n  {}", many.len(), many.join("\n  ")),
        };
        Some(Problem::new(Class::Config, message).fix(format!("edit {shown}")))
    }

    /// The configuration; all issues as one problem if there are any.
    fn checked(self, file: &Path) -> Result<OpenClaw, Problem> {
        if !self.unknown.is_empty() {
            tracing::debug!(keys = self.unknown.join(", "), "keys of openclaw.json not used here");
        }
        match self.problem(file) {
            Some(problem) => Err(problem),
            None => Ok(self.config),
        }
    }
}

/// Fills in the variables in every text of `value`; one that is not set stays, and is a warning.
fn fill_in(
    value: &mut Value,
    path: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    warnings: &mut Vec<Issue>,
) {
    match value {
        Value::String(text) => match substitute(text, variable) {
            Ok(filled) => *text = filled,
            Err(name) => warnings.push(Issue::new(path, unset(&name))),
        },
        Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                fill_in(item, &format!("{path}[{i}]"), variable, warnings);
            }
        }
        Value::Object(keys) => {
            for (key, value) in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                fill_in(value, &path, variable, warnings);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl OpenClaw {
    /// What a review found, for the profile of `paths`; all issues as one problem, class `config`.
    pub(crate) fn of(review: Review, paths: &Paths) -> Result<Self, Problem> {
        let mut config = review.checked(&paths.config)?;
        config.gateway.usual_port = UsualPort(profile_port(paths.profile.as_deref()));
        Ok(config)
    }

    /// Reads `openclaw.json`; defaults without one. All problems at once, class `config`.
    pub(crate) fn load(paths: &Paths) -> Result<Self, Problem> {
        Self::of(Review::load(paths)?.unwrap_or_default(), paths)
    }
}

/// The text of the file, `None` without one.
pub(super) fn read(file: &Path) -> Result<Option<String>, Problem> {
    match std::fs::read(file) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => {
                Err(Problem::new(Class::Config, format!("{}: not text in UTF-8", file.display())))
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Problem::new(Class::Config, format!("cannot read {}: {error}", file.display()))
                .fix(format!("ls -ld {}", file.parent().unwrap_or(file).display())))
        }
    }
}

fn gateway(walk: &mut Walk<'_>, section: &mut Section) -> Gateway {
    let mode = walk.choice(section, "mode", &[("local", Mode::Local), ("remote", Mode::Remote)]);
    let port = walk.port(section, "port");
    let bind = walk.choice(
        section,
        "bind",
        &[
            ("auto", Bind::Auto),
            ("loopback", Bind::Loopback),
            ("lan", Bind::Lan),
            ("tailnet", Bind::Tailnet),
            ("custom", Bind::Custom),
        ],
    );
    let custom_bind_host = walk.text(section, "customBindHost");
    Gateway {
        mode,
        port,
        usual_port: UsualPort::default(),
        bind,
        custom_bind_host,
        auth: walk.within(section, "auth", auth),
        remote: walk.within(section, "remote", remote),
        control_ui: walk.within(section, "controlUi", |walk, section| ControlUi {
            allowed_origins: walk.texts(section, "allowedOrigins"),
        }),
        nodes: walk.within(section, "nodes", nodes),
        reload: walk.within(section, "reload", reload),
        tls: walk.within(section, "tls", ingress::tls),
        tailscale: walk.within(section, "tailscale", ingress::tailscale),
        trusted_proxies: walk.networks(section, "trustedProxies"),
        allow_real_ip: walk.flag(section, "allowRealIpFallback").unwrap_or(false),
    }
}

fn reload(walk: &mut Walk<'_>, section: &mut Section) -> ReloadMode {
    // The last two are from before, and meant the same.
    let modes = [
        ("hybrid", ReloadMode::Hybrid),
        ("off", ReloadMode::Off),
        ("hot", ReloadMode::Hybrid),
        ("restart", ReloadMode::Hybrid),
    ];
    walk.choice(section, "mode", &modes).unwrap_or_default()
}

fn nodes(walk: &mut Walk<'_>, section: &mut Section) -> Nodes {
    let mut nodes = Nodes {
        pair_local: walk
            .within(section, "pairing", |walk, section| walk.flag(section, "autoApproveLocal")),
        allow: walk.texts(section, "allowCommands"),
        deny: walk.texts(section, "denyCommands"),
        plugin_tools: walk
            .within(section, "pluginTools", |walk, section| walk.flag(section, "enabled")),
        skills: walk.flag(section, "allowSkills"),
    };
    let (allow, deny) = walk.within(section, "commands", |walk, section| {
        (walk.texts(section, "allow"), walk.texts(section, "deny"))
    });
    nodes.allow.extend(allow);
    nodes.deny.extend(deny);
    nodes
}

fn logging(walk: &mut Walk<'_>, section: &mut Section) -> Logging {
    let level = |word| Some((word, Level::parse(word)?));
    let levels: Vec<_> = Level::WORDS.into_iter().filter_map(level).collect();
    Logging {
        level: walk.choice(section, "level", &levels),
        console_level: walk.choice(section, "consoleLevel", &levels),
    }
}

fn auth(walk: &mut Walk<'_>, section: &mut Section) -> Auth {
    Auth {
        mode: walk.choice(
            section,
            "mode",
            &[
                ("none", AuthMode::None),
                ("token", AuthMode::Token),
                ("password", AuthMode::Password),
                ("trusted-proxy", AuthMode::TrustedProxy),
            ],
        ),
        token: walk.secret(section, "token"),
        password: walk.secret(section, "password"),
        allow_tailscale: walk.flag(section, "allowTailscale"),
        trusted_proxy: walk.within(section, "trustedProxy", ingress::proxy_auth),
        rate_limit: walk.within(section, "rateLimit", ingress::rate_limit),
    }
}

fn remote(walk: &mut Walk<'_>, section: &mut Section) -> RemoteGateway {
    RemoteGateway {
        url: walk.text(section, "url"),
        transport: walk.choice(
            section,
            "transport",
            &[("ssh", Transport::Ssh), ("direct", Transport::Direct)],
        ),
        token: walk.secret(section, "token"),
        password: walk.secret(section, "password"),
        ssh_target: walk.text(section, "sshTarget"),
        ssh_identity: walk.text(section, "sshIdentity"),
        ssh_host_key_policy: walk.choice(
            section,
            "sshHostKeyPolicy",
            &[("strict", HostKeyPolicy::Strict), ("openssh", HostKeyPolicy::OpenSsh)],
        ),
        remote_port: walk.port(section, "remotePort"),
        tls_fingerprint: walk.text(section, "tlsFingerprint"),
    }
}

/// An object of the file and the path that leads to it. Keys are taken out as they are read; what
/// is left is unknown.
struct Section {
    path: String,
    keys: Map<String, Value>,
}

impl Section {
    fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The value at `key`, `null` counting as absent.
    fn take(&mut self, key: &str) -> Option<Value> {
        #[cfg(test)]
        ASKED.with_borrow_mut(|asked| asked.insert(self.path(key)));
        self.keys.remove(key).filter(|value| !value.is_null())
    }
}

#[cfg(test)]
thread_local! {
    /// Every path that a walk of this thread asked for.
    static ASKED: RefCell<std::collections::BTreeSet<String>> = RefCell::default();
}

/// One pass over the file.
struct Walk<'a> {
    variable: &'a dyn Fn(&str) -> Option<String>,
    issues: Vec<Issue>,
    unknown: Vec<String>,
}

impl Walk<'_> {
    fn root(&mut self, value: Value) -> Section {
        let keys = if let Value::Object(keys) = value {
            keys
        } else {
            self.issues
                .push(Issue::new("", format!("must hold an object, found {}", found(&value))));
            Map::new()
        };
        Section { path: String::new(), keys }
    }

    /// Reads the object at `key` of `section`; the default without one.
    fn within<T: Default>(
        &mut self,
        section: &mut Section,
        key: &str,
        read: impl FnOnce(&mut Self, &mut Section) -> T,
    ) -> T {
        let Some(mut inner) = self.section(section, key) else { return T::default() };
        let value = read(self, &mut inner);
        self.unknown.extend(inner.keys.keys().map(|key| inner.path(key)));
        value
    }

    fn section(&mut self, section: &mut Section, key: &str) -> Option<Section> {
        let path = section.path(key);
        let value = section.take(key)?;
        let Value::Object(keys) = value else { return self.wrong(&path, "an object", &value) };
        Some(Section { path, keys })
    }

    fn wrong<T>(&mut self, path: &str, expected: &str, value: &Value) -> Option<T> {
        self.issues.push(Issue::new(path, format!("must be {expected}, found {}", found(value))));
        None
    }

    fn port(&mut self, section: &mut Section, key: &str) -> Option<u16> {
        let value = section.take(key)?;
        let number =
            value.as_u64().or_else(|| match self.substituted(&section.path(key), &value) {
                Some(text) => text.trim().parse().ok(),
                None => None,
            });
        match number.and_then(|number| u16::try_from(number).ok()).filter(|port| *port != 0) {
            // A number written as text is right only where it came from the environment.
            Some(port) if value.is_number() || value.as_str().is_some_and(|t| t.contains("${")) => {
                Some(port)
            }
            Some(_) | None => self.wrong(&section.path(key), "1..65535", &value),
        }
    }

    fn flag(&mut self, section: &mut Section, key: &str) -> Option<bool> {
        let value = section.take(key)?;
        match value.as_bool() {
            Some(flag) => Some(flag),
            None => self.wrong(&section.path(key), "true or false", &value),
        }
    }

    fn text(&mut self, section: &mut Section, key: &str) -> Option<String> {
        let path = section.path(key);
        let value = section.take(key)?;
        self.text_at(&path, &value)
    }

    fn texts(&mut self, section: &mut Section, key: &str) -> Vec<String> {
        let path = section.path(key);
        let Some(value) = section.take(key) else { return Vec::new() };
        let Some(items) = value.as_array() else {
            return self.wrong(&path, "a list of texts", &value).unwrap_or_default();
        };
        let items = items.iter().enumerate();
        items.filter_map(|(i, item)| self.text_at(&format!("{path}[{i}]"), item)).collect()
    }

    fn text_at(&mut self, path: &str, value: &Value) -> Option<String> {
        if value.is_string() {
            self.substituted(path, value)
        } else {
            self.wrong(path, "text", value)
        }
    }

    fn choice<T: Copy>(
        &mut self,
        section: &mut Section,
        key: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let value = section.take(key)?;
        let path = section.path(key);
        let is_text = value.is_string();
        let chosen = if is_text { self.substituted(&path, &value)?.into() } else { value };
        match choices.iter().find(|(name, _)| chosen == *name) {
            Some((_, choice)) => Some(*choice),
            None => {
                let message = format!("must be {}, found {}", listed(choices), found(&chosen));
                let allowed_values = choices.iter().map(|(name, _)| (*name).to_owned()).collect();
                self.issues.push(Issue { allowed_values, ..Issue::new(path, message) });
                None
            }
        }
    }

    /// A plain string, `${NAME}` or a SecretRef (`{source, provider, id}`).
    fn secret(&mut self, section: &mut Section, key: &str) -> Option<SecretInput> {
        let path = section.path(key);
        match section.take(key)? {
            Value::String(text) => match substitute(&text, self.variable) {
                Ok(text) if text.is_empty() => None,
                Ok(text) => Some(SecretInput::Known(Secret::new(text))),
                Err(name) => Some(SecretInput::Unresolved { path, reason: unset(&name) }),
            },
            Value::Object(reference) => Some(self.reference(path, &reference)),
            // The value may be a secret typed wrongly: only its kind is told.
            other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_)) => {
                let kind = kind(&other);
                let message = format!("must be text or a reference, found {kind}");
                self.issues.push(Issue::new(path, message));
                None
            }
        }
    }

    fn reference(&mut self, path: String, reference: &Map<String, Value>) -> SecretInput {
        let word = |key: &str| reference.get(key).and_then(Value::as_str);
        match (word("source"), word("id")) {
            (Some("env"), Some(name)) => match (self.variable)(name).filter(|v| !v.is_empty()) {
                Some(text) => SecretInput::Known(Secret::new(text)),
                None => SecretInput::Unresolved { path, reason: unset(name) },
            },
            (Some(source), Some(_)) => SecretInput::Unresolved {
                path,
                reason: format!("references to source `{source}` are not followed here"),
            },
            _ => {
                self.issues.push(Issue::new(&*path, "a reference needs `source` and `id`"));
                SecretInput::Unresolved { path, reason: "the reference is incomplete".to_owned() }
            }
        }
    }

    fn substituted(&mut self, path: &str, value: &Value) -> Option<String> {
        match substitute(value.as_str()?, self.variable) {
            Ok(text) => Some(text),
            Err(name) => {
                self.issues.push(Issue::new(path, unset(&name)));
                None
            }
        }
    }
}

/// `text` with each `${NAME}` replaced; `$${NAME}` stands for the text `${NAME}`. The error is the
/// name of a variable that is not set.
fn substitute(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let Some((name, behind)) = after.split_once('}').filter(|(name, _)| is_variable(name))
        else {
            result.push_str(before);
            result.push_str("${");
            rest = after;
            continue;
        };
        if let Some(literal) = before.strip_suffix('$') {
            result.push_str(literal);
            result.push_str("${");
            result.push_str(name);
            result.push('}');
        } else {
            result.push_str(before);
            match variable(name).filter(|value| !value.is_empty()) {
                Some(value) => result.push_str(&value),
                None => return Err(name.to_owned()),
            }
        }
        rest = behind;
    }
    result.push_str(rest);
    Ok(result)
}

fn is_variable(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_uppercase() || first == '_')
        && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
}

fn unset(name: &str) -> String {
    format!("the environment variable {name} is not set")
}

fn listed<T>(choices: &[(&str, T)]) -> String {
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    format!("one of {}", names.join(", "))
}

/// A wrong value as the message shows it: short ones as they are, others by their kind.
fn found(value: &Value) -> String {
    match value {
        Value::String(text) if text.chars().count() <= 40 => format!("{text:?}"),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            kind(value).to_owned()
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::keys::KEYS, *};

    fn environment(name: &str) -> Option<String> {
        match name {
            "TOKEN" => Some("from-env".to_owned()),
            "PORT" => Some("19001".to_owned()),
            _ => None,
        }
    }

    fn parse(text: &str) -> Result<OpenClaw, Problem> {
        let file = Path::new("openclaw.json");
        let find = |_: &Path, name: &str| Err(format!("cannot read {name}"));
        Review::of(text, file, &World { variable: &environment, find: &find }).checked(file)
    }

    fn text_of(input: Option<&SecretInput>) -> String {
        input.unwrap().resolve().unwrap().expose().to_owned()
    }

    #[test]
    fn reads_the_samples_of_every_release() {
        let full = parse(include_str!("../../fixtures/openclaw/full.json5")).unwrap().gateway;
        assert_eq!(full.mode, Some(Mode::Remote));
        assert_eq!(full.port, Some(18789));
        assert_eq!(full.bind, Some(Bind::Custom));
        assert_eq!(full.custom_bind_host.as_deref(), Some("192.168.1.7"));
        assert_eq!(full.auth.mode, Some(AuthMode::Token));
        assert_eq!(text_of(full.auth.token.as_ref()), "local-token");
        assert_eq!(text_of(full.remote.token.as_ref()), "from-env");
        assert_eq!(full.remote.transport, Some(Transport::Ssh));
        assert_eq!(full.remote.ssh_target.as_deref(), Some("me@vps:2222"));
        assert_eq!(full.remote.remote_port, Some(18790));
        assert_eq!(full.remote.ssh_host_key_policy, Some(HostKeyPolicy::Strict));
        assert_eq!(full.control_ui.allowed_origins, ["https://control.example.com"]);
        assert!(!full.tls.enabled);

        let minimal = parse(include_str!("../../fixtures/openclaw/minimal.json5")).unwrap();
        assert_eq!(minimal.gateway.port, Some(28911));
        parse("{}").unwrap();
    }

    #[test]
    fn the_reader_asks_for_every_key_of_the_table_and_for_no_other() {
        let mut text = serde_json::json!({});
        for key in KEYS {
            let sections = key.path.rsplit_once('.').map_or("", |(sections, _)| sections);
            let mut place = &mut text;
            for step in sections.split('.').filter(|step| !step.is_empty()) {
                place = place
                    .as_object_mut()
                    .unwrap()
                    .entry(step)
                    .or_insert_with(|| serde_json::json!({}));
            }
        }
        ASKED.with_borrow_mut(std::collections::BTreeSet::clear);
        parse(&text.to_string()).unwrap();
        let asked = ASKED.with_borrow(Clone::clone);
        let table: std::collections::BTreeSet<_> =
            KEYS.iter().map(|key| key.path.to_owned()).collect();
        let unread: Vec<_> = table.difference(&asked).collect();
        // Whole sections that the walk does not enter.
        assert_eq!(unread, ["agents", "env", "models", "session"]);
        let untold: Vec<_> =
            asked.difference(&table).filter(|path| !super::super::keys::is_section(path)).collect();
        assert!(untold.is_empty(), "{untold:?}");
    }

    #[test]
    fn every_key_of_the_table_is_of_the_kind_that_the_reader_takes() {
        use super::super::keys::Form;
        for key in KEYS {
            let (right, wrong) = match key.form {
                Form::Text => (serde_json::json!("x"), serde_json::json!(1)),
                Form::Choice(words) => (words.last().copied().into(), "moon".into()),
                Form::Flag => (true.into(), "yes".into()),
                Form::Port => (1.into(), 0.into()),
                Form::Number(least, most) => (least.into(), (most + 1).into()),
                Form::Texts => (serde_json::json!(["10.0.0.1"]), "10.0.0.1".into()),
                Form::Secret => ("x".into(), 1.into()),
                Form::Any => continue,
            };
            let with = |value: Value| {
                let steps = key.path.rsplit('.');
                steps.fold(value, |value, step| serde_json::json!({ step: value })).to_string()
            };
            parse(&with(right)).unwrap();
            let problem = parse(&with(wrong)).unwrap_err();
            assert!(problem.message.contains(key.path), "{}", problem.message);
        }
    }

    #[test]
    fn tells_every_problem_with_its_path() {
        let problem = parse(include_str!("../../fixtures/openclaw/problems.json5")).unwrap_err();
        assert_eq!(problem.class, Class::Config);
        let golden = include_str!("../../fixtures/openclaw/problems.txt");
        assert_eq!(problem.message.trim_end(), golden.trim_end());
    }

    #[test]
    fn tells_where_the_syntax_breaks() {
        let problem = parse("{\n  gateway: { port: 18789,, }\n}").unwrap_err();
        assert_eq!(problem.class, Class::Config);
        assert!(problem.message.contains("line 2 column"), "{}", problem.message);
    }

    #[test]
    fn takes_variables_from_the_environment() {
        let cases = [
            ("plain", Ok("plain")),
            ("${TOKEN}", Ok("from-env")),
            ("a-${TOKEN}-b", Ok("a-from-env-b")),
            ("$${TOKEN}", Ok("${TOKEN}")),
            ("${lower}", Ok("${lower}")),
            ("${TOKEN", Ok("${TOKEN")),
            ("${MISSING}", Err("MISSING")),
        ];
        for (text, expected) in cases {
            let outcome = substitute(text, &environment);
            assert_eq!(outcome.as_deref().map_err(String::as_str), expected, "{text}");
        }
        assert_eq!(parse("{gateway: {port: '${PORT}'}}").unwrap().gateway.port, Some(19001));
        parse("{gateway: {port: '19001'}}").unwrap_err();
    }

    #[test]
    fn a_secret_that_cannot_be_followed_is_a_problem_only_when_needed() {
        for text in [
            "{gateway: {auth: {token: '${MISSING}'}}}",
            "{gateway: {auth: {token: {source: 'exec', provider: 'vault', id: 'x'}}}}",
            "{gateway: {auth: {token: {source: 'env', provider: 'default', id: 'MISSING'}}}}",
        ] {
            let token = parse(text).unwrap().gateway.auth.token.unwrap();
            let problem = token.resolve().unwrap_err();
            assert_eq!(problem.class, Class::Config);
            assert!(problem.message.contains("gateway.auth.token"), "{}", problem.message);
        }
        let text = "{gateway: {auth: {token: {source: 'env', provider: 'default', id: 'TOKEN'}}}}";
        assert_eq!(text_of(parse(text).unwrap().gateway.auth.token.as_ref()), "from-env");
    }

    #[test]
    fn never_shows_a_secret_of_the_wrong_kind() {
        let problem = parse("{gateway: {auth: {token: 123456789}}}").unwrap_err();
        assert!(!problem.message.contains("123456789"), "{}", problem.message);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_no_missing_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(&folder.path().join("openclaw.json")).unwrap().is_none());
        let problem = read(folder.path()).unwrap_err();
        assert_eq!(problem.class, Class::Config);
        let inside_a_file = folder.path().join("file");
        std::fs::write(&inside_a_file, "").unwrap();
        read(&inside_a_file.join("openclaw.json")).unwrap_err();
    }
}
