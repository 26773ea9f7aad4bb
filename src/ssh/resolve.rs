//! Makes a plan of a target and its options: which hops, as whom, with which keys and files. Pure,
//! given its [`Environment`] and its world.
//!
//! `options` are the words of the command, `route` finds the hops, `hop` reads what the
//! configuration says of each, `forwards` what it forwards.

use std::{path::PathBuf, sync::Arc, time::Duration};

use nix::unistd::{Uid, User};

use super::{
    config::{self, Origin, Settings, World},
    forwards::{self, Forwards},
    options,
    proxy::ProxyCommand,
    route,
    target::Target,
};
use crate::{
    config::{Family, Handed, SshOptions},
    problem::{Class, Problem},
};

/// The shell where the environment names none (ssh_config(5), `ProxyCommand`).
const SHELL: &str = "/bin/sh";

/// What a plan depends on beside its options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Environment {
    /// The home of the password database: `ssh` does not look at `HOME` either.
    pub(crate) home: PathBuf,
    /// The account that runs us.
    pub(crate) user: String,
    /// `SSH_AUTH_SOCK` of the command that asks.
    pub(crate) agent: Option<PathBuf>,
    /// A private key that a service manager handed over.
    pub(crate) handed_key: Option<PathBuf>,
    /// The file with the passphrase of key files that it handed over.
    pub(crate) passphrase: Option<PathBuf>,
    /// The shell that runs a `ProxyCommand`.
    pub(crate) shell: PathBuf,
    /// Whether nobody can be asked anything, whatever `BatchMode` says.
    pub(crate) batch: bool,
}

impl Environment {
    /// The user of this process and its `SSH_AUTH_SOCK`.
    pub(crate) fn of_process() -> Self {
        let entry = User::from_uid(Uid::current()).ok().flatten();
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        Self {
            home: entry.as_ref().map(|user| user.dir.clone()).unwrap_or_else(|| "/".into()),
            user: entry.map_or_else(|| Uid::current().to_string(), |user| user.name),
            agent: variable("SSH_AUTH_SOCK").map(PathBuf::from),
            handed_key: Handed::SshKey.file(),
            passphrase: Handed::SshPassphrase.file(),
            shell: variable("SHELL").map_or_else(|| SHELL.into(), PathBuf::from),
            batch: false,
        }
    }

    /// The same with the agent of another process.
    #[must_use]
    pub(crate) fn with_agent(self, agent: Option<PathBuf>) -> Self {
        Self { agent, ..self }
    }

    /// The same where nobody can be asked, if `batch`.
    #[must_use]
    pub(crate) fn with_batch(self, batch: bool) -> Self {
        Self { batch, ..self }
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

/// When keys are made anew (`RekeyLimit`); without a limit our own holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Rekey {
    /// After so many bytes.
    pub(crate) bytes: Option<u64>,
    /// After so much time.
    pub(crate) time: Option<Duration>,
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
    /// A file with the passphrase of those that are locked.
    pub(crate) passphrase: Option<PathBuf>,
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
    /// Whether the key on file for the address has to be the same (`CheckHostIP`).
    pub(crate) check_host_ip: bool,
    /// What happens to a key that is not on file.
    pub(crate) policy: HostKeyPolicy,
    /// The only key that may be taken, as `SHA256:…`.
    pub(crate) pin: Option<String>,
    /// Whether a server that is known may announce further keys.
    pub(crate) update_host_keys: UpdateHostKeys,
    /// Which algorithms may be used.
    pub(crate) algorithms: Algorithms,
    /// The command whose standard input and output stand in for a TCP connection (`ProxyCommand`).
    pub(crate) proxy_command: Option<ProxyCommand>,
    /// From where to dial.
    pub(crate) bind: Option<Bind>,
    /// Whether what the session carries is compressed if the server agrees (`Compression`).
    pub(crate) compression: bool,
    /// Whether the operating system probes the TCP connection (`TCPKeepAlive`).
    pub(crate) tcp_keep_alive: bool,
    /// How long each silent stage may take.
    pub(crate) connect_timeout: Duration,
    /// How many dials before giving up.
    pub(crate) connection_attempts: u32,
    /// Which addresses to dial.
    pub(crate) family: Family,
    /// When keys are made anew.
    pub(crate) rekey: Rekey,
    /// Ways to log in, in the order in which they are tried.
    pub(crate) methods: Vec<Method>,
    /// How often a person may mistype.
    pub(crate) password_prompts: u32,
    /// Whether nobody may be asked anything.
    pub(crate) batch: bool,
    /// The configuration that all this comes from, with where each value was said.
    pub(crate) said: Arc<Settings>,
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
        let options = SshOptions {
            user: Some("me".into()),
            config_file: Some("none".into()),
            ..SshOptions::default()
        };
        let environment = Environment::of_process().with_agent(None);
        resolve(host, &options, &environment).map(|plan| plan.target().clone()).unwrap()
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
    /// The forwards that the configuration asks for.
    pub(crate) forwards: Forwards,
}

impl Plan {
    /// Whether both lead to the same place in the same way, wherever it was said and whoever could
    /// be asked.
    pub(crate) fn leads_alike(&self, other: &Self) -> bool {
        let said = &self.target().said;
        let bare = |plan: &Self| {
            let mut plan = plan.clone();
            for hop in &mut plan.hops {
                (hop.agent, hop.batch, hop.said) = (None, false, Arc::clone(said));
            }
            plan
        };
        bare(self) == bare(other)
    }

    /// The connections in the order in which they are made; the last is the target.
    pub(crate) fn hops(&self) -> &[Hop] {
        &self.hops
    }

    /// The last hop.
    pub(crate) fn target(&self) -> &Hop {
        self.hops.last().expect("a plan is made with its target")
    }

    /// The last hop, to be changed.
    #[cfg(test)]
    pub(crate) fn target_mut(&mut self) -> &mut Hop {
        self.hops.last_mut().expect("a plan is made with its target")
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

/// The plan for `target`; class `usage` or `config`, with everything that is wrong. Reads files, and
/// may look up names and run `Match exec` commands: it blocks.
pub(crate) fn resolve(
    target: &str,
    options: &SshOptions,
    environment: &Environment,
) -> Result<Plan, Problem> {
    resolve_in(target, options, environment, &machine(environment))
}

/// What the configuration says of `target` alone, as `ssh -G` does; as [`resolve`] otherwise.
pub(crate) fn settings(
    target: &str,
    options: &SshOptions,
    environment: &Environment,
) -> Result<Settings, Problem> {
    route::settings(&harmless(target, options)?, options, environment, &machine(environment))
}

fn machine(environment: &Environment) -> config::Machine {
    let agent = environment.agent.as_ref().map(|path| path.to_string_lossy().into_owned());
    config::Machine::default().with_variable("SSH_AUTH_SOCK", agent)
}

/// The same in a world that a test made.
pub(super) fn resolve_in(
    target: &str,
    options: &SshOptions,
    environment: &Environment,
    world: &dyn World,
) -> Result<Plan, Problem> {
    let target = harmless(target, options)?;
    let hops = route::hops(&target, options, environment, world)?;
    let Some(last) = hops.last() else {
        return Err(Problem::new(Class::Internal, "a plan without a hop"));
    };
    let said = Arc::clone(&last.said);
    let is_said = |keyword: &str| said.origin(keyword).is_some_and(|at| *at != Origin::Default);
    let number = |keyword: &str| said.number(keyword).filter(|_| is_said(keyword));
    Ok(Plan {
        alive_interval: number("ServerAliveInterval").map(Duration::from_secs),
        alive_count: number("ServerAliveCountMax")
            .map(|count| u32::try_from(count).unwrap_or(u32::MAX)),
        forwards: forwards::of(&said)?,
        hops,
    })
}

/// The target taken apart; class `usage` if it or an option could do harm.
fn harmless(target: &str, options: &SshOptions) -> Result<Target, Problem> {
    let mut wrong = options::mistakes(options);
    match Target::parse(target) {
        Ok(target) if wrong.is_empty() => Ok(target),
        Ok(_) => Err(usage(&wrong, "leave it out, or write it as in ssh_config(5)")),
        Err(why) => {
            wrong.insert(0, why);
            Err(usage(&wrong, Target::FIX))
        }
    }
}

/// What is wrong, and what to type: how to print a fingerprint if one is among it, else `fix`.
fn usage(wrong: &[String], fix: &str) -> Problem {
    let problem = Problem::new(Class::Usage, wrong.join("; "));
    if wrong.iter().any(|text| text.contains("SHA256:")) {
        let print = "print it over there: ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub";
        return problem.fix(print);
    }
    problem.fix(fix)
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
