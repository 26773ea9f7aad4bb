//! Settings as `ssh -G` prints them.

use super::{
    keywords::{self, Choices, Count, Keyword, Kind},
    settings::{Said, Settings},
    usual,
};

/// The order of `ssh -G`; keywords that it does not print are left out here as well.
const ORDER: &[&str] = &[
    "User",
    "HostName",
    "Port",
    "AddressFamily",
    "BatchMode",
    "CanonicalizeFallbackLocal",
    "CanonicalizeHostname",
    "CheckHostIP",
    "Compression",
    "ControlMaster",
    "EnableSSHKeysign",
    "ClearAllForwardings",
    "ExitOnForwardFailure",
    "FingerprintHash",
    "ForwardX11",
    "ForwardX11Trusted",
    "GatewayPorts",
    "HashKnownHosts",
    "HostbasedAuthentication",
    "IdentitiesOnly",
    "KbdInteractiveAuthentication",
    "NoHostAuthenticationForLocalhost",
    "PasswordAuthentication",
    "PermitLocalCommand",
    "ProxyUseFdpass",
    "PubkeyAuthentication",
    "RequestTTY",
    "SessionType",
    "StdinNull",
    "ForkAfterAuthentication",
    "StreamLocalBindUnlink",
    "StrictHostKeyChecking",
    "TCPKeepAlive",
    "Tunnel",
    "VerifyHostKeyDNS",
    "VisualHostKey",
    "UpdateHostKeys",
    "EnableEscapeCommandline",
    "CanonicalizeMaxDots",
    "ConnectionAttempts",
    "ForwardX11Timeout",
    "NumberOfPasswordPrompts",
    "ServerAliveCountMax",
    "ServerAliveInterval",
    "RequiredRSASize",
    "ObscureKeystrokeTiming",
    "BindAddress",
    "BindInterface",
    "Ciphers",
    "ControlPath",
    "HostKeyAlgorithms",
    "HostKeyAlias",
    "HostbasedAcceptedAlgorithms",
    "IdentityAgent",
    "IgnoreUnknown",
    "KbdInteractiveDevices",
    "KexAlgorithms",
    "CASignatureAlgorithms",
    "LocalCommand",
    "RemoteCommand",
    "LogLevel",
    "MACs",
    "PKCS11Provider",
    "SecurityKeyProvider",
    "PreferredAuthentications",
    "PubkeyAcceptedAlgorithms",
    "RevokedHostKeys",
    "XAuthLocation",
    "KnownHostsCommand",
    "Tag",
    "VersionAddendum",
    "DynamicForward",
    "LocalForward",
    "RemoteForward",
    "IdentityFile",
    "CanonicalDomains",
    "CertificateFile",
    "GlobalKnownHostsFile",
    "UserKnownHostsFile",
    "ChannelTimeout",
    "SendEnv",
    "SetEnv",
    "LogVerbose",
    "PermitRemoteOpen",
    "AddKeysToAgent",
    "ForwardAgent",
    "ConnectTimeout",
    "TunnelDevice",
    "CanonicalizePermittedCNAMEs",
    "ControlPersist",
    "EscapeChar",
    "IPQoS",
    "RekeyLimit",
    "StreamLocalBindMask",
    "SyslogFacility",
    "ProxyCommand",
    "ProxyJump",
];

impl Settings {
    /// The settings as `ssh -G` prints them: a line each, keywords in lower case, most with their
    /// defaults. Lists of algorithms are those of OpenSSH; what we offer is in `check`.
    pub(crate) fn dump(&self) -> String {
        let mut text = format!("host {}\n", self.asked);
        for keyword in ORDER.iter().filter_map(|name| keywords::find(name)) {
            let values = self.shown.get(keyword.name).map_or(&[][..], Vec::as_slice);
            let name = keyword.name.to_ascii_lowercase();
            for value in lines(keyword, values) {
                text.push_str(&format!("{name} {value}\n"));
            }
        }
        text
    }
}

/// What stands behind the keyword on each of its lines.
fn lines(keyword: &Keyword, values: &[Said]) -> Vec<String> {
    let Some(first) = values.first() else {
        return unsaid(keyword).into_iter().collect();
    };
    match (keyword.kind, keyword.count) {
        (Kind::Choice(choices), _) => vec![spelled(choices, first)],
        (Kind::Algorithms(list), _) => {
            first.words.first().map(|text| usual::expanded(list, text)).into_iter().collect()
        }
        (Kind::Assignments, _) => first.words.clone(),
        (Kind::AddKeys, _) => vec![add_keys(first)],
        (Kind::Forward(_), _) => values.iter().map(|said| forward(keyword, said)).collect(),
        (_, Count::Every) => values.iter().map(|said| said.words.join(" ")).collect(),
        (_, Count::First) => vec![first.words.join(" ")],
    }
}

/// What is printed where nobody said anything and there is no default.
fn unsaid(keyword: &Keyword) -> Option<String> {
    match (keyword.kind, keyword.name) {
        (Kind::Algorithms(list), _) => Some(usual::list(list).to_owned()),
        (_, "CanonicalDomains" | "CanonicalizePermittedCNAMEs" | "LogVerbose") => {
            Some("none".to_owned())
        }
        _ => None,
    }
}

fn spelled(choices: Choices, said: &Said) -> String {
    let word = said.words.first().map_or("", String::as_str);
    let spelling = choices.iter().find(|(_, meaning)| *meaning == word);
    spelling.map_or(word, |(spelling, _)| spelling).to_owned()
}

fn add_keys(said: &Said) -> String {
    match said.words.join(" ").as_str() {
        "yes" => "true".to_owned(),
        "no" => "false".to_owned(),
        other => other.to_owned(),
    }
}

/// A remote SOCKS proxy has an end without a place.
fn forward(keyword: &Keyword, said: &Said) -> String {
    let text = said.words.join(" ");
    if keyword.name == "RemoteForward" && said.words.len() == 1 {
        return format!("{text} [socks]:0");
    }
    text
}
