//! Every keyword of ssh_config(5), OpenSSH 9.2 to 10, with what we do about it: the one table that the
//! reader, `-G` and `docs/ssh_config.md` come from.

use super::keywords::{Choices, Count, Direction, Keyword, Kind, Treatment};
use crate::ssh::algorithms::Keyword as List;
use Treatment::{Ignored, Obsolete, Refused, Reported, Used};

const FAMILIES: Choices = &[("inet", "inet"), ("inet6", "inet6"), ("any", "any")];
const CANONICALIZE: Choices =
    &[("true", "yes"), ("false", "no"), ("yes", "yes"), ("no", "no"), ("always", "always")];
const STRICT: Choices = &[
    ("true", "yes"),
    ("false", "no"),
    ("yes", "yes"),
    ("no", "no"),
    ("ask", "ask"),
    ("off", "no"),
    ("accept-new", "accept-new"),
];
const ASK: Choices =
    &[("true", "yes"), ("false", "no"), ("yes", "yes"), ("no", "no"), ("ask", "ask")];
const HASHES: Choices = &[
    ("SHA256", "sha256"),
    ("MD5", "md5"),
    ("SHA1", "sha1"),
    ("SHA384", "sha384"),
    ("SHA512", "sha512"),
];
const PUBKEY: Choices = &[
    ("true", "yes"),
    ("false", "no"),
    ("yes", "yes"),
    ("no", "no"),
    ("unbound", "unbound"),
    ("host-bound", "host-bound"),
];
const PLAIN: Choices = &[("yes", "yes"), ("no", "no")];
const TUNNEL: Choices = &[
    ("ethernet", "ethernet"),
    ("point-to-point", "point-to-point"),
    ("true", "yes"),
    ("yes", "yes"),
    ("false", "no"),
    ("no", "no"),
];
const MASTER: Choices = &[
    ("true", "yes"),
    ("yes", "yes"),
    ("false", "no"),
    ("no", "no"),
    ("auto", "auto"),
    ("ask", "ask"),
    ("autoask", "autoask"),
];
const TTY: Choices = &[
    ("true", "yes"),
    ("yes", "yes"),
    ("false", "no"),
    ("no", "no"),
    ("force", "force"),
    ("auto", "auto"),
];
const SESSION: Choices = &[("none", "none"), ("subsystem", "subsystem"), ("default", "default")];
const LEVELS: Choices = &[
    ("SILENT", "quiet"),
    ("QUIET", "quiet"),
    ("FATAL", "fatal"),
    ("ERROR", "error"),
    ("INFO", "info"),
    ("VERBOSE", "verbose"),
    ("DEBUG", "debug1"),
    ("DEBUG1", "debug1"),
    ("DEBUG2", "debug2"),
    ("DEBUG3", "debug3"),
];
const FACILITIES: Choices = &[
    ("DAEMON", "daemon"),
    ("USER", "user"),
    ("AUTH", "auth"),
    ("AUTHPRIV", "authpriv"),
    ("LOCAL0", "local0"),
    ("LOCAL1", "local1"),
    ("LOCAL2", "local2"),
    ("LOCAL3", "local3"),
    ("LOCAL4", "local4"),
    ("LOCAL5", "local5"),
    ("LOCAL6", "local6"),
    ("LOCAL7", "local7"),
];

/// A row whose first value counts.
const fn first(
    name: &'static str,
    kind: Kind,
    treatment: Treatment,
    default: &'static [&'static str],
    says: &'static str,
) -> Keyword {
    Keyword { name, also: &[], kind, count: Count::First, treatment, default, says }
}

impl Keyword {
    /// The same row under older names as well.
    const fn also(self, also: &'static [&'static str]) -> Self {
        Self { also, ..self }
    }

    /// The same row, every value of which counts.
    const fn every(self) -> Self {
        Self { count: Count::Every, ..self }
    }
}

/// The table.
pub(super) static KEYWORDS: &[Keyword] = &[
    first(
        "Host",
        Kind::Structure,
        Used,
        &[],
        "Opens a block for hosts that match a pattern; `!` excludes.",
    ),
    first(
        "Match",
        Kind::Structure,
        Used,
        &[],
        "Opens a block for what all its criteria say: `all`, `host`, `originalhost`, `user`, \
         `localuser`, `localnetwork`, `tagged`, `version`, `sessiontype` (`none`: a tunnel \
         runs no shell), `command` (empty), `canonical`, `final` and `exec`. A command of \
         `exec` runs only from a file that belongs to you or root and that nobody else can \
         write, for 10 seconds at most, and names with shell characters never reach it.",
    ),
    first(
        "Include",
        Kind::Structure,
        Used,
        &[],
        "Reads other files here, with wildcards, `~`, tokens and `${NAME}`; 16 deep at most. \
         Each must belong to you or root and be writable by nobody else.",
    ),
    first(
        "IgnoreUnknown",
        Kind::Word,
        Used,
        &[],
        "Unknown keywords that match these patterns are passed over from here on.",
    ),
    first("Tag", Kind::Word, Used, &[], "Is what `Match tagged` asks for."),
    first(
        "HostName",
        Kind::Word,
        Used,
        &[],
        "The name or address that is dialled; `%h` is the name as typed.",
    ),
    first(
        "User",
        Kind::Word,
        Used,
        &[],
        "The account over there; tokens and `${NAME}` as in OpenSSH 10.",
    ),
    first("Port", Kind::Port, Used, &["22"], "The port of the SSH server."),
    first("AddressFamily", Kind::Choice(FAMILIES), Used, &["any"], "Which addresses are dialled."),
    first("BindAddress", Kind::Word, Used, &[], "The address of this machine to dial from."),
    first("BindInterface", Kind::Word, Used, &[], "The interface of this machine to dial from."),
    first(
        "ConnectTimeout",
        Kind::Time,
        Used,
        &["none"],
        "How long each silent step of connecting may take.",
    ),
    first(
        "ConnectionAttempts",
        Kind::Number,
        Used,
        &["1"],
        "How many dials before a connection counts as failed.",
    ),
    first(
        "TCPKeepAlive",
        Kind::Flag,
        Used,
        &["yes"],
        "Whether the operating system probes the connection.",
    )
    .also(&["KeepAlive"]),
    first(
        "ProxyJump",
        Kind::Jump,
        Used,
        &[],
        "The jump hosts on the way, each with its own part of this configuration; tokens as in \
         `ProxyCommand`.",
    ),
    first(
        "ProxyCommand",
        Kind::Rest,
        Used,
        &[],
        "A command that stands in for the connection. Only from the command line or a file \
         that belongs to you or root and that nobody else can write; names with shell \
         characters never reach it.",
    ),
    first(
        "ProxyUseFdpass",
        Kind::Flag,
        Refused(&[]),
        &["no"],
        "A proxy command that hands over a socket is not supported; together with \
         `ProxyCommand` the host is refused.",
    ),
    first(
        "CanonicalizeHostname",
        Kind::Choice(CANONICALIZE),
        Used,
        &["no"],
        "Whether short names are completed before the configuration is read again.",
    ),
    first("CanonicalDomains", Kind::Domains, Used, &[], "The domains that are tried."),
    first(
        "CanonicalizeMaxDots",
        Kind::Number,
        Used,
        &["1"],
        "How many dots a name may have and still be completed.",
    ),
    first(
        "CanonicalizeFallbackLocal",
        Kind::Flag,
        Used,
        &["yes"],
        "Whether a name that no domain knows is left as it is; `no` refuses it.",
    ),
    first(
        "CanonicalizePermittedCNAMEs",
        Kind::Aliases,
        Used,
        &[],
        "Which aliases of the domain name system are followed.",
    ),
    first(
        "StrictHostKeyChecking",
        Kind::Choice(STRICT),
        Used,
        &["ask"],
        "What happens to a host key that is not on file. A changed key is refused whatever \
         this says.",
    ),
    first(
        "UserKnownHostsFile",
        Kind::Words(32),
        Used,
        &["~/.ssh/known_hosts", "~/.ssh/known_hosts2"],
        "Where known host keys stand; new ones go to the first.",
    ),
    first(
        "GlobalKnownHostsFile",
        Kind::Words(32),
        Used,
        &["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"],
        "Known host keys of the machine.",
    ),
    first(
        "HostKeyAlias",
        Kind::Word,
        Used,
        &[],
        "The name under which the host key stands on file.",
    ),
    first(
        "HashKnownHosts",
        Kind::Flag,
        Used,
        &["no"],
        "Whether new lines of known hosts hide the name.",
    ),
    first(
        "UpdateHostKeys",
        Kind::Choice(ASK),
        Used,
        &[],
        "Whether further keys that a known server proves to hold are written down.",
    ),
    first("CheckHostIP", Kind::Flag, Used, &["no"], "Whether the key must not contradict the one on file for the address."),
    first(
        "VerifyHostKeyDNS",
        Kind::Choice(ASK),
        Reported(&["no"]),
        &["no"],
        "Fingerprints in the domain name system are not asked for; known hosts decide, which \
         is stricter.",
    ),
    first(
        "NoHostAuthenticationForLocalhost",
        Kind::Flag,
        Reported(&["no"]),
        &["no"],
        "The host key is checked for this machine as for any other, which is stricter.",
    ),
    first(
        "KnownHostsCommand",
        Kind::Rest,
        Refused(&["none"]),
        &[],
        "Host keys from a command are not read, revoked ones among them: the host is refused.",
    ),
    first(
        "RevokedHostKeys",
        Kind::Word,
        Refused(&["none"]),
        &[],
        "The list of revoked host keys is not read: the host is refused. `@revoked` lines in \
         known hosts are honoured.",
    ),
    first("CASignatureAlgorithms", Kind::Algorithms(List::CaSignature), Used, &[], "Which signatures an authority may use in the certificate of a host, with `+`, `-` and `^`."),
    first(
        "HostKeyAlgorithms",
        Kind::Algorithms(List::HostKey),
        Used,
        &[],
        "Which host keys are accepted, best first, with `+`, `-` and `^`.",
    ),
    first(
        "FingerprintHash",
        Kind::Choice(HASHES),
        Reported(&["sha256"]),
        &["sha256"],
        "Fingerprints are always shown as SHA256.",
    ),
    first(
        "VisualHostKey",
        Kind::Flag,
        Ignored,
        &["no"],
        "Host keys are shown as fingerprints, never as pictures.",
    ),
    first(
        "IdentityFile",
        Kind::Word,
        Used,
        &[
            "~/.ssh/id_rsa",
            "~/.ssh/id_ecdsa",
            "~/.ssh/id_ecdsa_sk",
            "~/.ssh/id_ed25519",
            "~/.ssh/id_ed25519_sk",
            "~/.ssh/id_xmss",
            "~/.ssh/id_dsa",
        ],
        "A private key, or the public key of one in the agent.",
    )
    .also(&["IdentityFile2"])
    .every(),
    first("CertificateFile", Kind::Word, Used, &[], "A certificate of a key.").every(),
    first(
        "IdentitiesOnly",
        Kind::Flag,
        Used,
        &["no"],
        "Whether keys of the agent count only if a file names them.",
    ),
    first(
        "IdentityAgent",
        Kind::Socket,
        Used,
        &[],
        "The agent's socket, `SSH_AUTH_SOCK`, `$NAME` or `none`.",
    ),
    first("AddKeysToAgent", Kind::AddKeys, Used, &["no"], "Whether the agent gets the keys that were unlocked from files."),
    first(
        "UseKeychain",
        Kind::Flag,
        Reported(&["no"]),
        &[],
        "Apple's keychain is not asked for passphrases; we ask, once.",
    ),
    first("PubkeyAuthentication", Kind::Choice(PUBKEY), Used, &["yes"], "Whether keys are tried.")
        .also(&["DSAAuthentication"]),
    first("PasswordAuthentication", Kind::Flag, Used, &["yes"], "Whether a password is tried."),
    first(
        "KbdInteractiveAuthentication",
        Kind::Flag,
        Used,
        &["yes"],
        "Whether the server's questions are answered.",
    )
    .also(&["ChallengeResponseAuthentication", "SkeyAuthentication", "TISAuthentication"]),
    first(
        "KbdInteractiveDevices",
        Kind::Word,
        Ignored,
        &[],
        "The server chooses its own ways of asking.",
    ),
    first(
        "PreferredAuthentications",
        Kind::Word,
        Used,
        &[],
        "The order in which ways to log in are tried.",
    ),
    first(
        "PubkeyAcceptedAlgorithms",
        Kind::Algorithms(List::PublicKey),
        Used,
        &[],
        "Which signatures our keys may make, with `+`, `-` and `^`.",
    )
    .also(&["PubkeyAcceptedKeyTypes"]),
    first("NumberOfPasswordPrompts", Kind::Number, Used, &["3"], "How often a person may mistype."),
    first("BatchMode", Kind::Flag, Used, &["no"], "Whether nobody may be asked anything."),
    first(
        "RequiredRSASize",
        Kind::Number,
        Used,
        &["1024"],
        "The fewest bits that an RSA key may have, of a server and of ours.",
    ),
    first(
        "HostbasedAuthentication",
        Kind::Flag,
        Reported(&["no"]),
        &["no"],
        "Logging in by host is not supported; the other ways are tried.",
    ),
    first(
        "HostbasedAcceptedAlgorithms",
        Kind::Algorithms(List::HostKey),
        Ignored,
        &[],
        "Logging in by host is not supported.",
    )
    .also(&["HostbasedKeyTypes"]),
    first("EnableSSHKeysign", Kind::Flag, Ignored, &["no"], "Logging in by host is not supported."),
    first(
        "PKCS11Provider",
        Kind::Word,
        Refused(&["none"]),
        &[],
        "Keys of a smart card are reached through an agent (`ssh-add -s`); with a provider of \
         its own the host is refused.",
    )
    .also(&["SmartcardDevice"]),
    first(
        "SecurityKeyProvider",
        Kind::Word,
        Refused(&["internal", "none", "$SSH_SK_PROVIDER"]),
        &["internal"],
        "Security keys are reached through an agent; with a provider of its own the host is \
         refused.",
    ),
    first(
        "GSSAPIAuthentication",
        Kind::Flag,
        Reported(&["no"]),
        &[],
        "Kerberos is not supported; the other ways to log in are tried.",
    ),
    first(
        "GSSAPIDelegateCredentials",
        Kind::Flag,
        Reported(&["no"]),
        &[],
        "Kerberos is not supported; the other ways to log in are tried.",
    ),
    first(
        "GSSAPIKeyExchange",
        Kind::Flag,
        Ignored,
        &[],
        "Kerberos is not supported; the other ways to log in are tried.",
    ),
    first(
        "GSSAPITrustDNS",
        Kind::Flag,
        Ignored,
        &[],
        "Kerberos is not supported; the other ways to log in are tried.",
    ),
    first(
        "GSSAPIRenewalForcesRekey",
        Kind::Flag,
        Ignored,
        &[],
        "Kerberos is not supported; the other ways to log in are tried.",
    ),
    first(
        "GSSAPIClientIdentity",
        Kind::Word,
        Ignored,
        &[],
        "Kerberos is not supported; the other ways to log in are tried.",
    ),
    first(
        "GSSAPIServerIdentity",
        Kind::Word,
        Ignored,
        &[],
        "Kerberos is not supported; the other ways to log in are tried.",
    ),
    first(
        "GSSAPIKexAlgorithms",
        Kind::Word,
        Ignored,
        &[],
        "Kerberos is not supported; the other ways to log in are tried.",
    ),
    first(
        "Ciphers",
        Kind::Algorithms(List::Ciphers),
        Used,
        &[],
        "Which ciphers may be used, best first, with `+`, `-` and `^`.",
    ),
    first(
        "MACs",
        Kind::Algorithms(List::Macs),
        Used,
        &[],
        "Which message authentication codes may be used, with `+`, `-` and `^`.",
    ),
    first(
        "KexAlgorithms",
        Kind::Algorithms(List::Kex),
        Used,
        &[],
        "Which key exchanges may be used, best first, with `+`, `-` and `^`.",
    ),
    first(
        "Compression",
        Kind::Choice(PLAIN),
        Used,
        &["no"],
        "Whether what a session carries is compressed after the login (`zlib@openssh.com`), where \
         the server does that.",
    ),
    first(
        "RekeyLimit",
        Kind::Rekey,
        Used,
        &["0", "0"],
        "How many bytes, and how much time, until keys are made anew.",
    ),
    first(
        "ServerAliveInterval",
        Kind::Time,
        Used,
        &["0"],
        "How often a silent server is asked for a sign of life; ours is quicker where nothing \
         is set.",
    )
    .also(&["ProtocolKeepAlives", "SetupTimeOut"]),
    first(
        "ServerAliveCountMax",
        Kind::Number,
        Used,
        &["3"],
        "How many of those may stay unanswered.",
    ),
    first(
        "IPQoS",
        Kind::Traffic,
        Ignored,
        &["lowdelay", "throughput"],
        "The operating system's traffic class is used.",
    ),
    first("VersionAddendum", Kind::Rest, Ignored, &[], "Our version says nothing but what we are."),
    first("WarnWeakCrypto", Kind::Anything, Ignored, &[], "What is weak is said by `check`."),
    first("LocalForward", Kind::Forward(Direction::Local), Used, &[], "Further forwards, between ports and sockets. One that leads to the gateway's own port is the \
         forward that we make anyway.").every(),
    first("RemoteForward", Kind::Forward(Direction::Remote), Used, &[], "Ports and sockets over there that lead back here, each held up by a session of its own. A SOCKS \
         proxy over there is not supported.").every(),
    first(
        "DynamicForward",
        Kind::Forward(Direction::Dynamic),
        Reported(&[]),
        &[],
        "A SOCKS proxy is not supported; run `ssh -D` beside us for it.",
    )
    .every(),
    first(
        "GatewayPorts",
        Kind::Flag,
        Used,
        &["no"],
        "Whether other machines may use our local forwards.",
    ),
    first(
        "ExitOnForwardFailure",
        Kind::Flag,
        Used,
        &["no"],
        "Whether a forward that cannot be made when you connect is a failure; later it is tried \
         again like everything else.",
    ),
    first(
        "ClearAllForwardings",
        Kind::Flag,
        Used,
        &["no"],
        "Whether the forwards of this configuration are dropped.",
    ),
    first(
        "PermitRemoteOpen",
        Kind::Places,
        Ignored,
        &["any"],
        "Restricts a remote SOCKS proxy, which we never offer.",
    ),
    first(
        "StreamLocalBindMask",
        Kind::Mask,
        Used,
        &["0177"],
        "Who else may use the sockets that forwards listen on.",
    ),
    first(
        "StreamLocalBindUnlink",
        Kind::Flag,
        Used,
        &["no"],
        "Whether a socket in the way of one that a forward listens on is removed though somebody \
         listens there; one that you own and nobody listens on is removed anyway, and nothing but \
         sockets ever.",
    ),
    first(
        "Tunnel",
        Kind::Choice(TUNNEL),
        Reported(&["no"]),
        &["no"],
        "Network devices are not tunnelled.",
    ),
    first(
        "TunnelDevice",
        Kind::Device,
        Ignored,
        &["any:any"],
        "Network devices are not tunnelled.",
    ),
    first(
        "ForwardAgent",
        Kind::FlagOrSocket,
        Reported(&["no"]),
        &["no"],
        "Refused: an agent is never forwarded, since whoever rules the server could use every \
         key in it. The connection is made without.",
    ),
    first("ForwardX11", Kind::Flag, Reported(&["no"]), &["no"], "Windows are not forwarded."),
    first("ForwardX11Trusted", Kind::Flag, Ignored, &["yes"], "Windows are not forwarded."),
    first("ForwardX11Timeout", Kind::Time, Ignored, &["1200"], "Windows are not forwarded."),
    first("XAuthLocation", Kind::Word, Ignored, &["/usr/bin/xauth"], "Windows are not forwarded."),
    first(
        "ChannelTimeout",
        Kind::Timeouts,
        Ignored,
        &[],
        "A stream stays until one of its ends closes it.",
    ),
    first(
        "ControlMaster",
        Kind::Choice(MASTER),
        Reported(&["no"]),
        &["no"],
        "By design: sessions are ours and shared among our own commands, never with ssh's.",
    ),
    first(
        "ControlPath",
        Kind::Word,
        Ignored,
        &[],
        "By design: sessions are never shared with ssh's.",
    ),
    first(
        "ControlPersist",
        Kind::Persist,
        Ignored,
        &["no"],
        "By design: a remote stays up until `remote disconnect`.",
    ),
    first("RemoteCommand", Kind::Rest, Ignored, &[], "No command is run over there."),
    first("RequestTTY", Kind::Choice(TTY), Ignored, &["auto"], "No command is run over there."),
    first(
        "SessionType",
        Kind::Choice(SESSION),
        Ignored,
        &["default"],
        "A tunnel is what `ssh -N` is.",
    ),
    first(
        "StdinNull",
        Kind::Flag,
        Ignored,
        &["no"],
        "Nothing is read from the terminal but answers.",
    ),
    first(
        "ForkAfterAuthentication",
        Kind::Flag,
        Ignored,
        &["no"],
        "The supervisor is in the background anyway.",
    ),
    first("PermitLocalCommand", Kind::Flag, Ignored, &["no"], "No local command is run."),
    first(
        "LocalCommand",
        Kind::Rest,
        Reported(&["none"]),
        &[],
        "No local command is run, whatever `PermitLocalCommand` says.",
    ),
    first("EscapeChar", Kind::Escape, Ignored, &["~"], "There is no terminal to escape from."),
    first(
        "EnableEscapeCommandline",
        Kind::Flag,
        Ignored,
        &["no"],
        "There is no terminal to escape from.",
    ),
    first(
        "ObscureKeystrokeTiming",
        Kind::Keystrokes,
        Ignored,
        &[],
        "There is no terminal whose keystrokes could be timed.",
    ),
    first("SendEnv", Kind::Environment, Ignored, &[], "No shell is run that could see variables.")
        .every(),
    first("SetEnv", Kind::Assignments, Ignored, &[], "No shell is run that could see variables."),
    first("LogLevel", Kind::Choice(LEVELS), Ignored, &["info"], "`-v` and `remote logs` say how much is told."),
    first("LogVerbose", Kind::Words(1000), Ignored, &[], "Names places in ssh's own source."),
    first(
        "SyslogFacility",
        Kind::Choice(FACILITIES),
        Ignored,
        &["user"],
        "We write log files of our own.",
    ),
    first(
        "RefuseConnection",
        Kind::Rest,
        Refused(&[]),
        &[],
        "The host is refused with this message, as `ssh` does.",
    ),
    first("Protocol", Kind::Anything, Obsolete, &[], "Has had no effect in `ssh` for years."),
    first("Cipher", Kind::Anything, Obsolete, &[], "Has had no effect in `ssh` for years."),
    first("FallBackToRsh", Kind::Anything, Obsolete, &[], "Has had no effect in `ssh` for years."),
    first(
        "GlobalKnownHostsFile2",
        Kind::Anything,
        Obsolete,
        &[],
        "Has had no effect in `ssh` for years.",
    ),
    first(
        "RhostsAuthentication",
        Kind::Anything,
        Obsolete,
        &[],
        "Has had no effect in `ssh` for years.",
    ),
    first(
        "UseBlacklistedKeys",
        Kind::Anything,
        Obsolete,
        &[],
        "Has had no effect in `ssh` for years.",
    ),
    first(
        "UserKnownHostsFile2",
        Kind::Anything,
        Obsolete,
        &[],
        "Has had no effect in `ssh` for years.",
    ),
    first("UseRoaming", Kind::Anything, Obsolete, &[], "Has had no effect in `ssh` for years."),
    first("UseRsh", Kind::Anything, Obsolete, &[], "Has had no effect in `ssh` for years."),
    first(
        "UsePrivilegedPort",
        Kind::Anything,
        Obsolete,
        &[],
        "Has had no effect in `ssh` for years.",
    ),
    first(
        "AFSTokenPassing",
        Kind::Anything,
        Obsolete,
        &[],
        "Has had no effect in `ssh` for years.",
    ),
    first(
        "KerberosAuthentication",
        Kind::Anything,
        Obsolete,
        &[],
        "Has had no effect in `ssh` for years.",
    ),
    first(
        "KerberosTgtPassing",
        Kind::Anything,
        Obsolete,
        &[],
        "Has had no effect in `ssh` for years.",
    ),
    first(
        "RSAAuthentication",
        Kind::Anything,
        Obsolete,
        &[],
        "Has had no effect in `ssh` for years.",
    ),
    first(
        "RhostsRSAAuthentication",
        Kind::Anything,
        Obsolete,
        &[],
        "Has had no effect in `ssh` for years.",
    ),
    first(
        "CompressionLevel",
        Kind::Anything,
        Obsolete,
        &[],
        "Has had no effect in `ssh` for years.",
    ),
];
