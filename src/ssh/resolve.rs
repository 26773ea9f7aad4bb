//! Makes a plan of a target and its options: which hops, as whom, with which keys and files. Pure,
//! given its [`Environment`].
//!
//! Options have the meaning of ssh_config(5): the first value of a keyword wins, and what stands in
//! an option wins over what stands in the target. `HostName`, `User`, `Port`, `HostKeyAlias` and the
//! pin mean the target alone; everything else means every hop, since there is no file yet that could
//! say otherwise for a jump host.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::{Uid, User};

use super::{
    proxy::ProxyCommand,
    target::{self, Target},
};
use crate::{
    config::{Family, SshOptions},
    problem::{Class, Problem},
};

/// `Port` of ssh_config(5) when nobody says otherwise.
const SSH_PORT: u16 = 22;
/// How long a hop may take to answer when nobody says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// More hops than anybody uses; each costs a session.
const MOST_HOPS: usize = 8;
/// The keywords of `-o` that mean something here, for the message about those that do not.
const UNDERSTOOD: &str = "AddressFamily, BatchMode, Compression, ConnectionAttempts, \
     ConnectTimeout, ExitOnForwardFailure, GlobalKnownHostsFile, HashKnownHosts, HostKeyAlias, \
     HostName, IdentitiesOnly, IdentityAgent, IdentityFile, KbdInteractiveAuthentication, LogLevel, \
     NumberOfPasswordPrompts, PasswordAuthentication, Port, PreferredAuthentications, ProxyJump, \
     PubkeyAuthentication, ServerAliveCountMax, ServerAliveInterval, StrictHostKeyChecking, \
     TCPKeepAlive, User, UserKnownHostsFile";

/// What a plan depends on beside its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Environment {
    /// The home of the password database: `ssh` does not look at `HOME` either.
    pub(crate) home: PathBuf,
    /// The account that runs us.
    pub(crate) user: String,
    /// `SSH_AUTH_SOCK` of the command that asks.
    pub(crate) agent: Option<PathBuf>,
}

impl Environment {
    /// The user of this process and its `SSH_AUTH_SOCK`.
    pub(crate) fn of_process() -> Self {
        let entry = User::from_uid(Uid::current()).ok().flatten();
        let agent = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty());
        Self {
            home: entry.as_ref().map(|user| user.dir.clone()).unwrap_or_else(|| "/".into()),
            user: entry.map_or_else(|| Uid::current().to_string(), |user| user.name),
            agent: agent.map(PathBuf::from),
        }
    }

    /// The same with the agent of another process.
    #[must_use]
    pub(crate) fn with_agent(self, agent: Option<PathBuf>) -> Self {
        Self { agent, ..self }
    }
}

/// A way to log in, named as in RFC 4252 and RFC 4256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    /// A key, from the agent or a file.
    PublicKey,
    /// Questions of the server.
    KeyboardInteractive,
    /// A password.
    Password,
}

impl Method {
    /// The name on the wire.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PublicKey => "publickey",
            Self::KeyboardInteractive => "keyboard-interactive",
            Self::Password => "password",
        }
    }
}

/// A list of algorithm names as the user's configuration or we ourselves want it, best first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Algorithms {
    /// `KexAlgorithms`; empty for our own choice, and so below.
    pub(crate) kex: Vec<String>,
    /// `Ciphers`.
    pub(crate) ciphers: Vec<String>,
    /// `MACs`.
    pub(crate) macs: Vec<String>,
    /// `HostKeyAlgorithms`.
    pub(crate) host_key: Vec<String>,
    /// `PubkeyAcceptedAlgorithms`.
    pub(crate) public_key: Vec<String>,
    /// `CASignatureAlgorithms`, for the certificates of hosts.
    pub(crate) ca_signature: Vec<String>,
}

/// From where a connection leaves this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Bind {
    /// `BindAddress`: a numeric address or a name of this machine.
    Address(String),
    /// `BindInterface`: the first address of this interface.
    Interface(String),
}

/// Whether further host keys that the server proves to hold are written down (`UpdateHostKeys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UpdateHostKeys {
    /// Never.
    No,
    /// After asking a person.
    Ask,
    /// Without asking.
    Yes,
}

/// How a key that was unlocked from a file is given to the agent (`AddKeysToAgent`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AddToAgent {
    /// Whether a person is asked first (`ask`).
    pub(crate) ask: bool,
    /// Whether the agent asks before each use (`confirm`).
    pub(crate) confirm: bool,
    /// After how many seconds the agent forgets the key.
    pub(crate) lifetime: Option<u32>,
}

/// What happens to a host key that is not on file; one that differs from the file is always refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HostKeyPolicy {
    /// Ask a person.
    Ask,
    /// Refuse it (`yes`).
    Strict,
    /// Take it and write it down (`accept-new`, `no`, `off`).
    AcceptNew,
}

/// One SSH connection of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hop {
    /// The account over there.
    pub(crate) user: String,
    /// The host as dialled (`HostName` applied).
    pub(crate) host: String,
    /// The host as it was written in the target or the jump.
    pub(crate) named: String,
    /// The SSH server's port.
    pub(crate) port: u16,
    /// Under which name the host key stands on file, if not under its own.
    pub(crate) host_key_alias: Option<String>,
    /// Private key files in the order in which they are tried.
    pub(crate) identities: Vec<PathBuf>,
    /// Whether somebody named those files; the default ones may be missing.
    pub(crate) identities_named: bool,
    /// Whether keys of the agent count only if they are among the files.
    pub(crate) identities_only: bool,
    /// Certificates of our keys beside those that lie next to a key file (`CertificateFile`).
    pub(crate) certificates: Vec<PathBuf>,
    /// The agent's socket.
    pub(crate) agent: Option<PathBuf>,
    /// Whether an unlocked key stays in memory for the next login (not with `--no-remember`).
    pub(crate) remember: bool,
    /// Whether, and how, the agent gets the keys that are read from files.
    pub(crate) add_keys_to_agent: Option<AddToAgent>,
    /// Known hosts of the user; new keys go to the first.
    pub(crate) user_known_hosts: Vec<PathBuf>,
    /// Known hosts of the machine; never written.
    pub(crate) global_known_hosts: Vec<PathBuf>,
    /// Whether new lines hide the host's name.
    pub(crate) hash_known_hosts: bool,
    /// What happens to a key that is not on file.
    pub(crate) policy: HostKeyPolicy,
    /// The only key that may be taken, as `SHA256:…`.
    pub(crate) pin: Option<String>,
    /// Whether the address must not be on file with another key (`CheckHostIP`).
    pub(crate) check_host_ip: bool,
    /// Whether a server that is known may announce further keys.
    pub(crate) update_host_keys: UpdateHostKeys,
    /// Which algorithms may be used.
    pub(crate) algorithms: Algorithms,
    /// The command whose standard input and output stand in for a TCP connection (`ProxyCommand`).
    pub(crate) proxy_command: Option<ProxyCommand>,
    /// From where to dial.
    pub(crate) bind: Option<Bind>,
    /// Whether the operating system probes the TCP connection (`TCPKeepAlive`).
    pub(crate) tcp_keep_alive: bool,
    /// How long each silent stage may take.
    pub(crate) connect_timeout: Duration,
    /// How many dials before giving up.
    pub(crate) connection_attempts: u32,
    /// Which addresses to dial.
    pub(crate) family: Family,
    /// Ways to log in, in the order in which they are tried.
    pub(crate) methods: Vec<Method>,
    /// How often a person may mistype.
    pub(crate) password_prompts: u32,
    /// Whether nobody may be asked anything.
    pub(crate) batch: bool,
}

impl Hop {
    /// `host port N`, for sentences.
    pub(crate) fn place(&self) -> String {
        format!("{} port {}", self.host, self.port)
    }

    /// `user@host:port`.
    pub(crate) fn label(&self) -> String {
        if self.host.contains(':') {
            format!("{}@[{}]:{}", self.user, self.host, self.port)
        } else {
            format!("{}@{}:{}", self.user, self.host, self.port)
        }
    }
}

#[cfg(test)]
impl Hop {
    /// What a bare host name makes without any file or option.
    pub(crate) fn example(host: &str) -> Self {
        let environment = Environment { home: "/home/me".into(), user: "me".into(), agent: None };
        let plan = resolve(host, &SshOptions::default(), &environment);
        plan.map(|plan| plan.target().clone()).unwrap()
    }
}

#[cfg(test)]
impl Plan {
    /// The last hop, to be changed.
    pub(crate) fn target_mut(&mut self) -> &mut Hop {
        self.hops.last_mut().unwrap()
    }
}

/// How to reach a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The jump hosts in order, then the target: never empty.
    hops: Vec<Hop>,
    /// `ServerAliveInterval`, if somebody set one.
    pub(crate) alive_interval: Option<Duration>,
    /// `ServerAliveCountMax`, if somebody set one.
    pub(crate) alive_count: Option<u32>,
}

impl Plan {
    /// The connections in the order in which they are made; the last is the target.
    pub(crate) fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// The last hop.
    pub(crate) fn target(&self) -> &Hop {
        self.hops.last().expect("a plan is made with its target")
    }

    /// `user@host:port` of the target.
    pub(crate) fn label(&self) -> String {
        self.target().label()
    }

    /// The jump hosts in order, each as `user@host:port`.
    pub(crate) fn via(&self) -> Vec<String> {
        let jumps = self.hops.len().saturating_sub(1);
        self.hops.iter().take(jumps).map(Hop::label).collect()
    }
}

/// Makes the relative paths in `options` absolute, so that they mean the same in another process.
///
/// For the command that reads its arguments: `folder` is where the person stands.
pub(crate) fn anchor(options: &mut SshOptions, folder: &Path) {
    for path in &mut options.identities {
        if !path.starts_with("~") {
            *path = folder.join(&*path);
        }
    }
    for (key, value) in &mut options.options {
        let holds_paths = ["identityfile", "identityagent", "userknownhostsfile"]
            .iter()
            .chain(&["globalknownhostsfile"])
            .any(|name| key.eq_ignore_ascii_case(name));
        if holds_paths {
            let words: Vec<String> =
                words(value).into_iter().map(|word| anchored(word, folder)).collect();
            *value = words.join(" ");
        }
    }
}

fn anchored(word: String, folder: &Path) -> String {
    let named = ["none", "SSH_AUTH_SOCK"].contains(&word.as_str());
    let absolute = if named || word.starts_with(['/', '~', '%', '$']) {
        word
    } else {
        folder.join(word).to_string_lossy().into_owned()
    };
    if absolute.contains(' ') { format!("\"{absolute}\"") } else { absolute }
}

/// The plan for `target`; the problem lists everything that is wrong.
pub(crate) fn resolve(
    target: &str,
    options: &SshOptions,
    environment: &Environment,
) -> Result<Plan, Problem> {
    let mut draft = Draft::new(environment);
    for (key, value) in &options.options {
        draft.set(key, value);
    }
    let target = draft.target(target);
    let jumps = draft.jumps(options);
    draft.check_pin(options.host_key_pin.as_deref());
    let template = draft.hop(options, environment);
    let target = target.map(|target| draft.last(&template, options, &target));
    match target {
        Some(last) if draft.problems.is_empty() => {
            let mut hops: Vec<Hop> = jumps
                .into_iter()
                .map(|jump| Hop {
                    user: jump.user.unwrap_or_else(|| environment.user.clone()),
                    named: jump.host.clone(),
                    host: jump.host,
                    port: jump.port.unwrap_or(SSH_PORT),
                    host_key_alias: None,
                    pin: None,
                    ..template.clone()
                })
                .collect();
            hops.push(last);
            Ok(Plan {
                hops,
                alive_interval: draft.given.alive_interval,
                alive_count: draft.given.alive_count,
            })
        }
        Some(_) | None => {
            let problem = Problem::new(Class::Usage, draft.problems.join("; "));
            Err(match draft.fix {
                Some(fix) => problem.fix(fix),
                None => problem,
            })
        }
    }
}

/// The options while they are read.
struct Draft<'a> {
    environment: &'a Environment,
    problems: Vec<String>,
    fix: Option<String>,
    given: Given,
}

/// What `-o` said; the first value of each keyword stays.
#[derive(Default)]
struct Given {
    host_name: Option<String>,
    user: Option<String>,
    port: Option<u16>,
    host_key_alias: Option<String>,
    identities: Vec<PathBuf>,
    no_identities: bool,
    identities_only: Option<bool>,
    agent: Option<Option<PathBuf>>,
    user_known_hosts: Option<Vec<PathBuf>>,
    global_known_hosts: Option<Vec<PathBuf>>,
    hash_known_hosts: Option<bool>,
    policy: Option<HostKeyPolicy>,
    connect_timeout: Option<Duration>,
    connection_attempts: Option<u32>,
    family: Option<Family>,
    jump: Option<String>,
    batch: Option<bool>,
    preferred: Option<Vec<Method>>,
    public_key: Option<bool>,
    password: Option<bool>,
    interactive: Option<bool>,
    password_prompts: Option<u32>,
    alive_interval: Option<Duration>,
    alive_count: Option<u32>,
}

impl<'a> Draft<'a> {
    fn new(environment: &'a Environment) -> Self {
        Self { environment, problems: Vec::new(), fix: None, given: Given::default() }
    }

    /// One `-o Key=Value`.
    fn set(&mut self, key: &str, value: &str) {
        let value = value.trim();
        if value.is_empty() {
            self.problems.push(format!("-o {key} has no value"));
            return;
        }
        match key.to_ascii_lowercase().as_str() {
            "port" => {
                let port = self.read(key, value, "a port from 1 to 65535", target::port);
                self.given.port = self.given.port.or(port);
            }
            "user" => {
                let user = self.read(key, value, "an account name", user_name);
                self.given.user = self.given.user.take().or(user);
            }
            "hostname" => {
                let name = self.read(key, value, "a host name or address", host_name);
                self.given.host_name = self.given.host_name.take().or(name);
            }
            "hostkeyalias" => {
                let alias = self.read(key, value, "a host name", host_name);
                self.given.host_key_alias = self.given.host_key_alias.take().or(alias);
            }
            "identityfile" if value.eq_ignore_ascii_case("none") => self.given.no_identities = true,
            "identityfile" => {
                let files = self.paths(key, value);
                self.given.identities.extend(files);
            }
            "identitiesonly" => {
                let only = self.flag(key, value);
                self.given.identities_only = self.given.identities_only.or(only);
            }
            "identityagent" => {
                let agent = self.agent(key, value);
                self.given.agent = self.given.agent.take().or(agent);
            }
            "userknownhostsfile" => {
                let files = self.known_hosts(key, value);
                self.given.user_known_hosts = self.given.user_known_hosts.take().or(files);
            }
            "globalknownhostsfile" => {
                let files = self.known_hosts(key, value);
                self.given.global_known_hosts = self.given.global_known_hosts.take().or(files);
            }
            "stricthostkeychecking" => {
                let policy = self.read(key, value, "yes, no, ask, accept-new or off", policy);
                self.given.policy = self.given.policy.or(policy);
            }
            "connecttimeout" => {
                let time = self.read(key, value, "a time such as 10 or 1m", seconds);
                self.given.connect_timeout =
                    self.given.connect_timeout.or(time.filter(|time| !time.is_zero()));
            }
            "connectionattempts" => {
                let number = self.read(key, value, "a number from 1 to 100", |text| {
                    text.parse().ok().filter(|number| (1..=100).contains(number))
                });
                self.given.connection_attempts = self.given.connection_attempts.or(number);
            }
            "addressfamily" => {
                let family = self.read(key, value, "any, inet or inet6", family);
                self.given.family = self.given.family.or(family);
            }
            "proxyjump" => {
                self.given.jump.get_or_insert_with(|| value.to_owned());
            }
            "hashknownhosts" => {
                let hash = self.flag(key, value);
                self.given.hash_known_hosts = self.given.hash_known_hosts.or(hash);
            }
            "serveraliveinterval" => {
                let time = self.read(key, value, "a time such as 15", seconds);
                self.given.alive_interval = self.given.alive_interval.or(time);
            }
            "serveralivecountmax" => {
                let count = self.read(key, value, "a number", |text| text.parse().ok());
                self.given.alive_count = self.given.alive_count.or(count);
            }
            other => self.set_login(key, other, value),
        }
    }

    /// The keywords about logging in, and those that ask for what is so anyway.
    fn set_login(&mut self, key: &str, lower: &str, value: &str) {
        match lower {
            "batchmode" => {
                let batch = self.flag(key, value);
                self.given.batch = self.given.batch.or(batch);
            }
            "preferredauthentications" => {
                let methods = self.read(
                    key,
                    value,
                    "a list of publickey, keyboard-interactive and password",
                    methods,
                );
                self.given.preferred = self.given.preferred.take().or(methods);
            }
            "pubkeyauthentication" => {
                let wanted = self.flag(key, value);
                self.given.public_key = self.given.public_key.or(wanted);
            }
            "passwordauthentication" => {
                let wanted = self.flag(key, value);
                self.given.password = self.given.password.or(wanted);
            }
            "kbdinteractiveauthentication" | "challengeresponseauthentication" => {
                let wanted = self.flag(key, value);
                self.given.interactive = self.given.interactive.or(wanted);
            }
            "numberofpasswordprompts" => {
                let number = self.read(key, value, "a number from 1 to 10", |text| {
                    text.parse().ok().filter(|number| (1..=10).contains(number))
                });
                self.given.password_prompts = self.given.password_prompts.or(number);
            }
            "compression" => {
                if self.flag(key, value) == Some(true) {
                    self.problems.push("-o Compression=yes: compression is not built in".into());
                }
            }
            "tcpkeepalive" | "exitonforwardfailure" => {
                self.flag(key, value);
            }
            "loglevel" => {}
            _ => {
                self.problems.push(format!("-o {}: not understood", key.escape_debug()));
                self.fix.get_or_insert_with(|| format!("leave it out; -o takes {UNDERSTOOD}"));
            }
        }
    }

    /// A value that `parse` understands.
    fn read<T>(
        &mut self,
        key: &str,
        value: &str,
        wanted: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let parsed = parse(value);
        if parsed.is_none() {
            self.problems.push(format!("-o {key}={}: is not {wanted}", value.escape_debug()));
        }
        parsed
    }

    fn flag(&mut self, key: &str, value: &str) -> Option<bool> {
        self.read(key, value, "yes or no", |text| match text.to_ascii_lowercase().as_str() {
            "yes" | "true" => Some(true),
            "no" | "false" => Some(false),
            _ => None,
        })
    }

    /// The files of a list; `~/` and `%d` are the home, `%u` is the user.
    fn paths(&mut self, key: &str, value: &str) -> Vec<PathBuf> {
        words(value).iter().filter_map(|word| self.path(key, word)).collect()
    }

    fn path(&mut self, key: &str, word: &str) -> Option<PathBuf> {
        let home = self.environment.home.to_string_lossy().into_owned();
        let mut expanded = match word.strip_prefix('~') {
            None => word.to_owned(),
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{home}{rest}"),
            Some(_) => {
                self.problems.push(format!("-o {key}={word}: write the home folder in full"));
                return None;
            }
        };
        expanded = expanded.replace("%d", &home).replace("%u", &self.environment.user);
        if expanded.replace("%%", "").contains('%') || expanded.contains("${") {
            self.problems.push(format!("-o {key}={word}: of the tokens only %d and %u are known"));
            return None;
        }
        let path = PathBuf::from(expanded.replace("%%", "%"));
        if path.is_relative() {
            self.problems.push(format!("-o {key}={word}: needs an absolute path"));
            return None;
        }
        Some(path)
    }

    fn known_hosts(&mut self, key: &str, value: &str) -> Option<Vec<PathBuf>> {
        if value.eq_ignore_ascii_case("none") {
            return Some(Vec::new());
        }
        Some(self.paths(key, value))
    }

    fn agent(&mut self, key: &str, value: &str) -> Option<Option<PathBuf>> {
        match value {
            "none" => Some(None),
            "SSH_AUTH_SOCK" | "$SSH_AUTH_SOCK" => Some(self.environment.agent.clone()),
            other => {
                let word = words(other).into_iter().next()?;
                self.path(key, &word).map(Some)
            }
        }
    }

    fn target(&mut self, text: &str) -> Option<Target> {
        Target::parse(text).map_err(|why| self.problems.push(why)).ok()
    }

    /// `-J`, else `ProxyJump`.
    fn jumps(&mut self, options: &SshOptions) -> Vec<Target> {
        let named = self.given.jump.clone().into_iter();
        let texts: Vec<String> =
            if options.jumps.is_empty() { named.collect() } else { options.jumps.clone() };
        let texts: Vec<&str> = texts.iter().flat_map(|text| text.split(',')).collect();
        if texts.len() == 1 && texts.iter().all(|text| text.eq_ignore_ascii_case("none")) {
            return Vec::new();
        }
        if texts.len() >= MOST_HOPS {
            self.problems.push(format!("-J: more than {} jump hosts", MOST_HOPS - 1));
        }
        let mut jumps = Vec::new();
        for text in texts {
            match Target::parse(text) {
                Ok(jump) => jumps.push(jump),
                Err(why) => self.problems.push(format!("-J: {why}")),
            }
        }
        jumps
    }

    fn check_pin(&mut self, pin: Option<&str>) {
        let Some(pin) = pin else { return };
        let good = pin.strip_prefix("SHA256:").is_some_and(|hash| {
            hash.len() == 43
                && hash.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/".contains(&b))
        });
        if !good {
            self.problems.push(format!(
                "--accept-host-key `{}`: is not a fingerprint of the form SHA256:…",
                pin.escape_debug()
            ));
            self.fix.get_or_insert_with(|| {
                "print it over there: ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub".into()
            });
        }
    }

    /// What all hops have in common.
    fn hop(&mut self, options: &SshOptions, environment: &Environment) -> Hop {
        let ssh = environment.home.join(".ssh");
        let mut identities: Vec<PathBuf> = Vec::new();
        let given: Vec<String> =
            options.identities.iter().map(|path| path.to_string_lossy().into_owned()).collect();
        for word in given {
            identities.extend(self.path("IdentityFile", &word));
        }
        identities.append(&mut self.given.identities);
        let named = !identities.is_empty() || self.given.no_identities;
        if !named {
            identities = ["id_ed25519", "id_ecdsa", "id_rsa"].map(|name| ssh.join(name)).into();
        }
        Hop {
            user: String::new(),
            host: String::new(),
            named: String::new(),
            port: SSH_PORT,
            host_key_alias: None,
            identities,
            identities_named: named,
            identities_only: self.given.identities_only.unwrap_or(false),
            certificates: Vec::new(),
            remember: true,
            add_keys_to_agent: None,
            agent: self.given.agent.clone().unwrap_or_else(|| environment.agent.clone()),
            user_known_hosts: self
                .given
                .user_known_hosts
                .clone()
                .unwrap_or_else(|| vec![ssh.join("known_hosts"), ssh.join("known_hosts2")]),
            global_known_hosts: self.given.global_known_hosts.clone().unwrap_or_else(|| {
                vec!["/etc/ssh/ssh_known_hosts".into(), "/etc/ssh/ssh_known_hosts2".into()]
            }),
            hash_known_hosts: self.given.hash_known_hosts.unwrap_or(false),
            policy: self.given.policy.unwrap_or(HostKeyPolicy::Ask),
            pin: None,
            check_host_ip: false,
            update_host_keys: UpdateHostKeys::No,
            algorithms: Algorithms::default(),
            proxy_command: None,
            bind: None,
            tcp_keep_alive: true,
            connect_timeout: self.given.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            connection_attempts: self.given.connection_attempts.unwrap_or(1),
            family: match options.family {
                Family::Any => self.given.family.unwrap_or_default(),
                Family::V4 | Family::V6 => options.family,
            },
            methods: self.methods(),
            password_prompts: self.given.password_prompts.unwrap_or(3),
            batch: self.given.batch.unwrap_or(false),
        }
    }

    fn methods(&self) -> Vec<Method> {
        let batch = self.given.batch.unwrap_or(false);
        let preferred = self.given.preferred.clone().unwrap_or_else(|| {
            vec![Method::PublicKey, Method::KeyboardInteractive, Method::Password]
        });
        let wanted = |method: &Method| match method {
            Method::PublicKey => self.given.public_key.unwrap_or(true),
            Method::KeyboardInteractive => self.given.interactive.unwrap_or(true) && !batch,
            Method::Password => self.given.password.unwrap_or(true) && !batch,
        };
        preferred.into_iter().filter(wanted).collect()
    }

    /// The target's own hop.
    fn last(&mut self, template: &Hop, options: &SshOptions, target: &Target) -> Hop {
        if let Some(user) = &options.user
            && !target::is_user(user)
        {
            self.problems.push(format!("-l `{}`: is not an account name", user.escape_debug()));
        }
        if options.port == Some(0) {
            self.problems.push("-p 0: is not a port".to_owned());
        }
        let user = options.user.clone().or_else(|| self.given.user.clone());
        let port = options.port.or(self.given.port).or(target.port);
        Hop {
            user: user
                .or_else(|| target.user.clone())
                .unwrap_or_else(|| self.environment.user.clone()),
            host: self.given.host_name.clone().unwrap_or_else(|| target.host.clone()),
            named: target.host.clone(),
            port: port.unwrap_or(SSH_PORT),
            host_key_alias: self.given.host_key_alias.clone(),
            pin: options.host_key_pin.clone(),
            ..template.clone()
        }
    }
}

fn user_name(text: &str) -> Option<String> {
    target::is_user(text).then(|| text.to_owned())
}

fn host_name(text: &str) -> Option<String> {
    target::is_host(text).then(|| text.to_owned())
}

fn policy(text: &str) -> Option<HostKeyPolicy> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" => Some(HostKeyPolicy::Strict),
        "ask" => Some(HostKeyPolicy::Ask),
        "accept-new" | "no" | "off" | "false" => Some(HostKeyPolicy::AcceptNew),
        _ => None,
    }
}

fn family(text: &str) -> Option<Family> {
    match text.to_ascii_lowercase().as_str() {
        "any" => Some(Family::Any),
        "inet" => Some(Family::V4),
        "inet6" => Some(Family::V6),
        _ => None,
    }
}

/// The methods of a list that we have; others in it are left to those who have them.
fn methods(text: &str) -> Option<Vec<Method>> {
    let known = |name: &str| match name.trim() {
        "publickey" => Some(Some(Method::PublicKey)),
        "keyboard-interactive" => Some(Some(Method::KeyboardInteractive)),
        "password" => Some(Some(Method::Password)),
        "none" | "hostbased" | "gssapi-with-mic" => Some(None),
        _ => None,
    };
    let found: Option<Vec<_>> = text.split(',').map(known).collect();
    found.map(|found| found.into_iter().flatten().collect())
}

/// A time as in sshd_config(5), TIME FORMATS: `90`, `90s`, `1m30s`; at most a day.
fn seconds(text: &str) -> Option<Duration> {
    let mut total: u64 = 0;
    let mut number: Option<u64> = None;
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            let grown = number.unwrap_or(0).checked_mul(10)?.checked_add(u64::from(digit))?;
            number = Some(grown);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    total = total.checked_add(number.unwrap_or(0))?;
    (total <= 86_400).then(|| Duration::from_secs(total))
}

/// The words of a value; double quotes hold blanks together.
fn words(value: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quoted = false;
    for c in value.chars() {
        if c == '"' {
            quoted = !quoted;
        } else if c.is_whitespace() && !quoted {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
        } else {
            word.push(c);
        }
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Environment {
        Environment { home: "/home/me".into(), user: "me".into(), agent: Some("/run/agent".into()) }
    }

    fn with(options: &[(&str, &str)]) -> SshOptions {
        SshOptions {
            options: options.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect(),
            ..SshOptions::default()
        }
    }

    fn plan(target: &str, options: &SshOptions) -> Plan {
        resolve(target, options, &environment()).unwrap_or_else(|problem| panic!("{problem}"))
    }

    fn problem(target: &str, options: &SshOptions) -> Problem {
        resolve(target, options, &environment()).unwrap_err()
    }

    #[test]
    fn a_bare_host_gets_what_ssh_would_use() {
        let plan = plan("box", &SshOptions::default());
        let hop = plan.target();
        assert_eq!(plan.label(), "me@box:22");
        assert_eq!(plan.via(), Vec::<String>::new());
        assert_eq!(hop.identities.len(), 3);
        assert_eq!(hop.identities.first().unwrap(), Path::new("/home/me/.ssh/id_ed25519"));
        assert!(!hop.identities_named && !hop.identities_only && !hop.batch);
        assert_eq!(hop.agent.as_deref(), Some(Path::new("/run/agent")));
        assert_eq!(hop.user_known_hosts.first().unwrap(), Path::new("/home/me/.ssh/known_hosts"));
        assert_eq!(hop.policy, HostKeyPolicy::Ask);
        assert_eq!(hop.connect_timeout, Duration::from_secs(10));
        assert_eq!(hop.methods, [Method::PublicKey, Method::KeyboardInteractive, Method::Password]);
    }

    #[test]
    fn options_win_over_the_target_and_the_first_over_the_rest() {
        let mut options = with(&[("PORT", "2200"), ("port", "2201"), ("User", "you")]);
        assert_eq!(plan("other@box:22", &options).label(), "you@box:2200");
        options.port = Some(2222);
        options.user = Some("flag".into());
        assert_eq!(plan("other@box:22", &options).label(), "flag@box:2222");
        let options = with(&[("HostName", "10.0.0.1"), ("HostKeyAlias", "name")]);
        let hop = plan("box", &options).target().clone();
        assert_eq!((hop.host.as_str(), hop.host_key_alias.as_deref()), ("10.0.0.1", Some("name")));
    }

    #[test]
    fn jumps_are_hops_with_the_keys_but_not_the_place_of_the_target() {
        let mut options = with(&[("HostKeyAlias", "alias"), ("IdentityFile", "~/k")]);
        options.port = Some(2222);
        options.user = Some("you".into());
        options.jumps = vec!["a@one:2200".into(), "two,[::1]:23".into()];
        options.host_key_pin = Some(format!("SHA256:{}", "a".repeat(43)));
        let plan = plan("box", &options);
        assert_eq!(plan.via(), ["a@one:2200", "me@two:22", "me@[::1]:23"]);
        assert_eq!(plan.label(), "you@box:2222");
        for hop in &plan.hops()[..3] {
            assert_eq!((hop.host_key_alias.as_deref(), hop.pin.as_deref()), (None, None));
            assert_eq!(hop.identities, [Path::new("/home/me/k")]);
        }
        assert!(plan.target().pin.is_some());
        let named = with(&[("ProxyJump", "one,two")]);
        assert_eq!(resolve("box", &named, &environment()).unwrap().via().len(), 2);
        assert_eq!(
            resolve("box", &with(&[("ProxyJump", "none")]), &environment()).unwrap().via().len(),
            0
        );
    }

    #[test]
    fn paths_come_from_the_password_database() {
        let options = with(&[
            ("IdentityFile", "~/one"),
            ("IdentityFile", "%d/two %%%u"),
            ("UserKnownHostsFile", "~/a \"/b c/d\""),
            ("GlobalKnownHostsFile", "none"),
            ("IdentityAgent", "~/agent"),
        ]);
        let problem = problem("box", &options);
        assert!(problem.message.contains("absolute"), "{problem}");
        let options = with(&[
            ("IdentityFile", "~/one"),
            ("IdentityFile", "%d/two/%u%%"),
            ("UserKnownHostsFile", "~/a \"/b c/d\""),
            ("GlobalKnownHostsFile", "none"),
            ("IdentityAgent", "~/agent"),
        ]);
        let hop = plan("box", &options).target().clone();
        assert_eq!(hop.identities, [Path::new("/home/me/one"), Path::new("/home/me/two/me%")]);
        assert_eq!(hop.user_known_hosts, [Path::new("/home/me/a"), Path::new("/b c/d")]);
        assert!(hop.global_known_hosts.is_empty());
        assert_eq!(hop.agent.as_deref(), Some(Path::new("/home/me/agent")));
        let none = plan("box", &with(&[("IdentityAgent", "none"), ("IdentityFile", "none")]));
        assert_eq!((none.target().agent.clone(), none.target().identities.len()), (None, 0));
    }

    #[test]
    fn anchoring_makes_paths_mean_the_same_elsewhere() {
        let mut options = with(&[
            ("IdentityFile", "key"),
            ("userknownhostsfile", "~/a b /c \"d e\""),
            ("IdentityAgent", "SSH_AUTH_SOCK"),
            ("GlobalKnownHostsFile", "none"),
            ("Port", "22"),
        ]);
        options.identities = vec!["k".into(), "/abs".into(), "~/home".into()];
        anchor(&mut options, Path::new("/w"));
        let values: Vec<&str> = options.options.iter().map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, ["/w/key", "~/a /w/b /c \"/w/d e\"", "SSH_AUTH_SOCK", "none", "22"]);
        assert_eq!(options.identities, [Path::new("/w/k"), Path::new("/abs"), Path::new("~/home")]);
    }

    #[test]
    fn batch_mode_leaves_only_keys() {
        let options = with(&[("BatchMode", "yes"), ("NumberOfPasswordPrompts", "1")]);
        let hop = plan("box", &options).target().clone();
        assert!(hop.batch);
        assert_eq!(hop.methods, [Method::PublicKey]);
        let options = with(&[("PreferredAuthentications", "password,gssapi-with-mic,publickey")]);
        let hop = plan("box", &options).target().clone();
        assert_eq!(hop.methods, [Method::Password, Method::PublicKey]);
        let options = with(&[("PasswordAuthentication", "no"), ("PubkeyAuthentication", "no")]);
        let hop = plan("box", &options).target().clone();
        assert_eq!(hop.methods, [Method::KeyboardInteractive]);
    }

    #[test]
    fn the_policies_of_openssh() {
        let cases = [
            ("yes", HostKeyPolicy::Strict),
            ("ASK", HostKeyPolicy::Ask),
            ("accept-new", HostKeyPolicy::AcceptNew),
            ("no", HostKeyPolicy::AcceptNew),
            ("off", HostKeyPolicy::AcceptNew),
        ];
        for (value, policy) in cases {
            let options = with(&[("StrictHostKeyChecking", value)]);
            assert_eq!(plan("box", &options).target().policy, policy, "{value}");
        }
    }

    #[test]
    fn times_have_units() {
        let cases =
            [("15", Some(15)), ("1m30s", Some(90)), ("2h", Some(7200)), ("1d", None), ("m", None)];
        for (text, expected) in cases {
            assert_eq!(seconds(text).map(|time| time.as_secs()), expected, "{text}");
        }
        let options = with(&[("ServerAliveInterval", "15"), ("ServerAliveCountMax", "2")]);
        let plan = plan("box", &options);
        assert_eq!(
            (plan.alive_interval, plan.alive_count),
            (Some(Duration::from_secs(15)), Some(2))
        );
    }

    #[test]
    fn everything_wrong_is_listed() {
        let mut options = with(&[
            ("ProxyCommand", "nc"),
            ("Port", "0"),
            ("BatchMode", "maybe"),
            ("Compression", "yes"),
            ("LogLevel", "DEBUG"),
            ("TCPKeepAlive", "no"),
        ]);
        options.host_key_pin = Some("MD5:00".into());
        options.jumps = vec!["-oX".into()];
        let problem = problem("-box", &options);
        assert_eq!(problem.class, Class::Usage);
        for part in [
            "`-box`",
            "ProxyCommand",
            "Port=0",
            "maybe",
            "Compression",
            "MD5:00",
            "-J: the target `-oX`",
        ] {
            assert!(problem.message.contains(part), "{part} is missing in: {problem}");
        }
        assert!(!problem.message.contains("LogLevel") && !problem.message.contains("TCPKeepAlive"));
        assert!(problem.fix.unwrap().contains("UserKnownHostsFile"));
    }

    #[test]
    fn names_that_could_do_harm_are_refused_wherever_they_stand() {
        for options in [
            SshOptions { user: Some("-x".into()), ..SshOptions::default() },
            SshOptions { user: Some("a b".into()), ..SshOptions::default() },
            SshOptions { port: Some(0), ..SshOptions::default() },
            with(&[("User", "$(id)")]),
            with(&[("HostName", "-oProxyCommand=x")]),
            with(&[("HostName", "a;b")]),
            with(&[("HostKeyAlias", "a b")]),
            with(&[("ProxyJump", "a b")]),
            with(&[("ConnectTimeout", "-1")]),
            with(&[("IdentityFile", "~other/key")]),
            with(&[("IdentityFile", "/k/%h")]),
            with(&[("IdentityFile", "${HOME}/k")]),
        ] {
            assert!(resolve("box", &options, &environment()).is_err(), "{options:?}");
        }
    }

    #[test]
    fn this_process_has_a_home_and_a_user() {
        let environment = Environment::of_process().with_agent(None);
        assert!(environment.home.is_absolute() && !environment.user.is_empty());
        assert_eq!(environment.agent, None);
    }
}
