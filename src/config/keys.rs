//! Every key of `openclaw.json` that we know: its form, what a change of it takes, what it is for.
//!
//! From this table come the schema that clients ask for and the plan of a reload. A test holds it
//! to the reader of the file, so neither knows a key that the other does not.

use crate::logfile::Level;

/// One key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key {
    /// Keys joined by dots.
    pub(crate) path: &'static str,
    /// What may stand there.
    pub(crate) form: Form,
    /// What a change of it takes.
    pub(crate) reload: ReloadKind,
    /// What it is for.
    pub(crate) help: &'static str,
}

/// What may stand at a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// True or false.
    Flag,
    /// A TCP port.
    Port,
    /// A whole number between these.
    Number(u64, u64),
    /// A list of texts.
    Texts,
    /// A text, or a reference to one that stands elsewhere.
    Secret,
    /// Anything: we read parts of it where they are needed, and do not check the rest.
    Any,
}

/// What a change takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReloadKind {
    /// It counts at once.
    Hot,
    /// It counts from the next start of the gateway on.
    Restart,
    /// Nothing: the gateway does not hold it, or does not use it.
    None,
}

impl ReloadKind {
    /// Its word in the protocol.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Restart => "restart",
            Self::None => "none",
        }
    }
}

use Form::{Any, Choice, Flag, Number, Port, Secret, Text, Texts};
use ReloadKind::{Hot, None as Nothing, Restart};

/// Thirty days in milliseconds: the longest time that a limit may name.
const MONTH_MS: u64 = 30 * 24 * 3_600 * 1_000;

const fn key(path: &'static str, form: Form, reload: ReloadKind, help: &'static str) -> Key {
    Key { path, form, reload, help }
}

/// The keys, sections together.
pub(crate) const KEYS: &[Key] = &[
    key(
        "gateway.mode",
        Choice(&["local", "remote"]),
        Restart,
        "Whether the gateway runs on this machine or elsewhere.",
    ),
    key("gateway.port", Port, Restart, "The port it listens on; 18789, or the profile's own."),
    key(
        "gateway.bind",
        Choice(&["auto", "loopback", "lan", "tailnet", "custom"]),
        Restart,
        "Where it listens.",
    ),
    key("gateway.customBindHost", Text, Restart, "The address for bind: custom."),
    key(
        "gateway.auth.mode",
        Choice(&["none", "token", "password", "trusted-proxy"]),
        Restart,
        "What lets a client in.",
    ),
    key(
        "gateway.auth.token",
        Secret,
        Hot,
        "The token that lets a client in; who came in with the old one has to come again.",
    ),
    key(
        "gateway.auth.password",
        Secret,
        Hot,
        "The password that lets a client in; who came in with the old one has to come again.",
    ),
    key(
        "gateway.auth.allowTailscale",
        Flag,
        Restart,
        "Whether users whom Tailscale proves need no secret.",
    ),
    key(
        "gateway.auth.trustedProxy.userHeader",
        Text,
        Restart,
        "The header in which a proxy names the user.",
    ),
    key(
        "gateway.auth.trustedProxy.requiredHeaders",
        Texts,
        Restart,
        "Headers that a proxy must send as well.",
    ),
    key(
        "gateway.auth.trustedProxy.allowUsers",
        Texts,
        Restart,
        "Users of a proxy that may come in.",
    ),
    key(
        "gateway.auth.trustedProxy.allowLoopback",
        Flag,
        Restart,
        "Whether the proxy may run on this machine.",
    ),
    key(
        "gateway.auth.trustedProxy.deviceAutoApprove.enabled",
        Flag,
        Nothing,
        "Not done here: devices of a proxy's users ask.",
    ),
    key(
        "gateway.auth.rateLimit.maxAttempts",
        Number(1, 1_000),
        Hot,
        "Wrong secrets within the window until the lockout.",
    ),
    key(
        "gateway.auth.rateLimit.windowMs",
        Number(1_000, MONTH_MS),
        Hot,
        "How long a wrong secret counts, milliseconds.",
    ),
    key(
        "gateway.auth.rateLimit.lockoutMs",
        Number(1_000, MONTH_MS),
        Hot,
        "How long a lockout lasts, milliseconds.",
    ),
    key(
        "gateway.auth.rateLimit.exemptLoopback",
        Flag,
        Hot,
        "Whether programs on this machine are only slowed.",
    ),
    key(
        "gateway.remote.url",
        Text,
        Nothing,
        "The address of a gateway elsewhere, for commands here.",
    ),
    key(
        "gateway.remote.transport",
        Choice(&["ssh", "direct"]),
        Nothing,
        "How commands reach it: through a tunnel, or straight.",
    ),
    key("gateway.remote.token", Secret, Nothing, "Its token; opens no gateway here."),
    key("gateway.remote.password", Secret, Nothing, "Its password; opens no gateway here."),
    key("gateway.remote.sshTarget", Text, Nothing, "user@host or user@host:port of the tunnel."),
    key("gateway.remote.sshIdentity", Text, Nothing, "The key file of the tunnel."),
    key(
        "gateway.remote.sshHostKeyPolicy",
        Choice(&["strict", "openssh"]),
        Nothing,
        "Whether the host key has to be on file.",
    ),
    key("gateway.remote.remotePort", Port, Nothing, "The gateway's port on the far side."),
    key("gateway.remote.tlsFingerprint", Text, Nothing, "The only certificate to talk to."),
    key("gateway.controlUi.allowedOrigins", Texts, Hot, "Origins of web pages that may connect."),
    key(
        "gateway.nodes.pairing.autoApproveLocal",
        Flag,
        Hot,
        "Whether who is on this machine is paired without a question.",
    ),
    key(
        "gateway.nodes.commands.allow",
        Texts,
        Hot,
        "Commands of nodes that may run beside the usual ones.",
    ),
    key("gateway.nodes.commands.deny", Texts, Hot, "Commands of nodes that may not run."),
    key(
        "gateway.nodes.allowCommands",
        Texts,
        Hot,
        "The older name of gateway.nodes.commands.allow.",
    ),
    key("gateway.nodes.denyCommands", Texts, Hot, "The older name of gateway.nodes.commands.deny."),
    key("gateway.nodes.pluginTools.enabled", Flag, Hot, "Whether tools that nodes publish count."),
    key("gateway.nodes.allowSkills", Flag, Hot, "Whether skills that nodes publish count."),
    key("gateway.tls.enabled", Flag, Restart, "Whether it speaks TLS."),
    key("gateway.tls.autoGenerate", Flag, Restart, "Whether missing files are made."),
    key(
        "gateway.tls.certPath",
        Text,
        Restart,
        "The certificate; a renewed file is taken up by itself.",
    ),
    key("gateway.tls.keyPath", Text, Restart, "Its key; a renewed file is taken up by itself."),
    key(
        "gateway.tls.caPath",
        Text,
        Restart,
        "More certificates of the chain that it shows; no client is asked for one.",
    ),
    key(
        "gateway.tailscale.mode",
        Choice(&["off", "serve", "funnel"]),
        Restart,
        "What Tailscale publishes of it.",
    ),
    key("gateway.trustedProxies", Texts, Restart, "Addresses of proxies."),
    key(
        "gateway.allowRealIpFallback",
        Flag,
        Restart,
        "Whether such a proxy may name its client in X-Real-IP.",
    ),
    key(
        "gateway.roles",
        Any,
        Restart,
        "Bounds of named users. Not followed: where a proxy or Tailscale names users, a gateway with it does not start.",
    ),
    key(
        "gateway.reload.mode",
        Choice(&["hybrid", "off", "hot", "restart"]),
        Hot,
        "Whether edits of this file are taken up while the gateway runs; off leaves them for the next start.",
    ),
    key("logging.level", Choice(&Level::WORDS), Hot, "How much goes into the log file."),
    key("logging.consoleLevel", Choice(&Level::WORDS), Hot, "How much goes to standard error."),
    key("agents", Any, Nothing, "The agents: read whenever somebody asks for them."),
    key(
        "models",
        Any,
        Nothing,
        "Models and their providers: read whenever somebody asks for them.",
    ),
    key("session", Any, Nothing, "Chat sessions: read whenever somebody asks for agents."),
    key("env", Any, Restart, "Variables (env.vars) that the texts of this file may name."),
];

/// What a change at `path` takes: of the key itself, of the one that it is in, or the most that a
/// key below it takes.
pub(crate) fn reload_of(path: &str) -> ReloadKind {
    let is_in = |inner: &str, outer: &str| {
        inner
            .strip_prefix(outer)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    if let Some(key) = KEYS.iter().find(|key| is_in(path, key.path)) {
        return key.reload;
    }
    let below = || KEYS.iter().filter(|key| is_in(key.path, path)).map(|key| key.reload);
    [Restart, Hot].into_iter().find(|kind| below().any(|it| it == *kind)).unwrap_or(Nothing)
}

/// Whether keys that we know stand below `path`.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_takes_what_its_key_takes_or_the_most_below_it() {
        for (path, kind) in [
            ("gateway.port", Restart),
            ("gateway.auth.token", Hot),
            ("gateway.auth.token.id", Hot),
            ("gateway.auth", Restart),
            ("gateway.nodes", Hot),
            ("gateway.nodes.commands.allow[2]", Hot),
            ("gateway.remote", Nothing),
            ("gateway.portable", Nothing),
            ("agents.entries.main", Nothing),
            ("meta", Nothing),
        ] {
            assert_eq!(reload_of(path), kind, "{path}");
        }
    }
}
