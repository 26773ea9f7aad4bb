//! The sections of `openclaw.json`: which keys are asked for, and what each may be.

use super::{
    Auth, AuthMode, Bind, ControlUi, Gateway, HostKeyPolicy, Logging, Mode, Nodes, ReloadMode,
    RemoteGateway, Transport, ingress,
    walk::{Section, Walk},
};
use crate::{config::own_port::UsualPort, logfile::Level};

/// `gateway`.
pub(super) fn gateway(walk: &mut Walk<'_>, section: &mut Section) -> Gateway {
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
        has_roles: walk.section(section, "roles").is_some(),
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

/// `logging`.
pub(super) fn logging(walk: &mut Walk<'_>, section: &mut Section) -> Logging {
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
