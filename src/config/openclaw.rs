//! `openclaw.json`: the keys of OpenClaw's own configuration that we act on, every problem at once.
//!
//! What each key means stands here; `review` reads the file by a `walk`, `sections` and `ingress` say
//! which keys it asks for.
mod forms;
mod ingress;
mod review;
mod sections;
#[cfg(test)]
mod tests;
mod walk;

use ipnet::IpNet;

use super::{
    Paths,
    own_port::{UsualPort, profile_port},
};
use crate::{
    logfile::Level,
    problem::{Class, Problem},
    secret::Secret,
};

pub(crate) use ingress::{ProxyAuth, RateLimit, Tailscale, TailscaleMode, Tls};
pub(crate) use review::Review;
#[cfg(test)]
pub(super) use review::World;
pub(super) use review::read;

/// What stands in `openclaw.json`, as far as we act on it.
#[derive(Debug, Clone, Default)]
pub(crate) struct OpenClaw {
    /// `gateway`.
    pub(crate) gateway: Gateway,
    /// `logging`.
    pub(crate) logging: Logging,
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
    /// Whether `gateway.roles` bounds what named users may do, which nothing here follows.
    pub(crate) has_roles: bool,
}

impl Gateway {
    /// The port of this machine's own gateway.
    pub(crate) fn own_port(&self) -> u16 {
        self.port.unwrap_or(self.usual_port.0)
    }
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
