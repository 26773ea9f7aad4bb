//! The seam filled with SSH: dials a remote's plan, and asks through its desk.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::timeout};
use tracing::debug;

use super::{
    desk::Desk,
    link::{Dial, Facts, Knock, Knocks, Later, Link, NotOpened, Printed, Progress, Stream},
    token,
};
use crate::{
    config::{self, Destination, Kind, Listen, SshOptions},
    control,
    problem::{Class, Problem},
    secret::Secret,
    ssh::{self, Environment, Keyring, OpenFailure},
    tunnel::{Cause, Failure},
};

/// How long resolving may take: `Match exec` runs commands, canonical names are looked up.
const RESOLVE_LIMIT: Duration = Duration::from_secs(60);

/// Between two pings of an idle path with `--low-power`: a radio may sleep meanwhile, and address
/// translators keep an idle connection longer than that.
const ALIVE_LOW_POWER: Duration = Duration::from_secs(30);

/// Where the last command's agent is.
pub(super) type Agent = Arc<Mutex<Option<PathBuf>>>;

/// `user@host:port` and the hops before it, for people.
pub(super) type Label = (String, Vec<String>);

struct SshDialer {
    target: String,
    options: SshOptions,
    agent: Agent,
    keyring: Keyring,
    desk: Arc<Desk>,
    found: watch::Sender<Vec<IpAddr>>,
}

/// The way to a remote, as it stands in its definition and the ssh configuration now.
pub(super) struct Way {
    pub(super) label: Label,
    pub(super) dialer: Arc<dyn Dial>,
    pub(super) desk: Arc<Desk>,
    /// Keys that a person unlocks.
    pub(super) keyring: Keyring,
    /// The hops, as they were found.
    pub(super) plan: ssh::Plan,
    /// What the configuration forwards beside the gateway.
    pub(super) forwards: ssh::Forwards,
    /// Where the first dial leads.
    pub(super) first: First,
    /// How often a silent server is asked for a sign of life, if somebody said (`ServerAliveInterval`).
    pub(super) alive: Option<Duration>,
    /// The port that the configuration wants for the gateway.
    pub(super) port: Option<u16>,
}

/// The way to `definition`, on a machine whose own gateway is at `own_gateway`; class `usage` or
/// `config` if its target, its options or the ssh configuration is wrong.
pub(super) async fn find(
    definition: &config::Remote,
    agent: Agent,
    own_gateway: u16,
) -> Result<Way, Problem> {
    let desk = Arc::default();
    let keyring = Keyring::default();
    let (found, addresses) = watch::channel(Vec::new());
    let dialer = SshDialer {
        target: definition.target.clone(),
        options: definition.ssh.clone(),
        agent,
        keyring: keyring.clone(),
        desk: Arc::clone(&desk),
        found,
    };
    let mut plan = dialer.plan().await?;
    let label = (plan.label(), plan.via());
    let first = plan.hops().first();
    let literal = first.and_then(|hop| hop.host.parse().ok());
    dialer.note_found(first, literal.into_iter().collect());
    let is_near = first.is_some_and(is_near);
    let port = first.map_or(0, |hop| hop.port);
    let first = First { is_near, is_name: literal.is_none(), addresses, port };
    let alive = alive(plan.alive_interval, definition.ssh.low_power);
    if definition.kind == Kind::Exposed {
        // The way to the jump host may have forwards of its own; here it is for one thing.
        plan.forwards = ssh::Forwards::default();
    }
    let port = plan.forwards.settle(definition, own_gateway);
    let (dialer, forwards) = (Arc::new(dialer), plan.forwards.clone());
    Ok(Way { label, dialer, desk, keyring, plan, forwards, first, alive, port })
}

/// Between two pings of an idle path, if somebody chose it: the ssh configuration counts before
/// `--low-power`.
fn alive(configured: Option<Duration>, low_power: bool) -> Option<Duration> {
    let configured = configured.filter(|interval| !interval.is_zero());
    configured.or(low_power.then_some(ALIVE_LOW_POWER))
}

/// Where the first dial of a remote leads: what decides whether a change of the network matters to it.
pub(super) struct First {
    /// Whether it may need no network: to this machine, or by a command.
    pub(super) is_near: bool,
    /// Whether addresses are looked up anew for each dial.
    pub(super) is_name: bool,
    /// Those that it was last dialled at, or will be; empty while nobody knows, and where the kernel
    /// alone does not choose the way.
    pub(super) addresses: watch::Receiver<Vec<IpAddr>>,
    /// The server's port there, which rules of routing may ask for.
    pub(super) port: u16,
}

/// Whether a first hop may be reached without a network.
fn is_near(hop: &ssh::Hop) -> bool {
    let host = hop.host.trim_end_matches('.').to_ascii_lowercase();
    hop.proxy_command.is_some()
        || host == "localhost"
        // Names of this machine, and of neighbours on a link that has no other addresses.
        || [".localhost", ".local"].iter().any(|end| host.ends_with(end))
        || host.contains('%')
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl SshDialer {
    /// Resolved anew for each attempt: files, the agent and who could answer may have changed.
    async fn plan(&self) -> Result<ssh::Plan, Problem> {
        let agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_batch = !self.desk.is_attended();
        let (target, options) = (self.target.clone(), self.options.clone());
        let resolving = tokio::task::spawn_blocking(move || {
            let environment = Environment::of_process().with_agent(agent).with_batch(is_batch);
            ssh::resolve(&target, &options, &environment)
        });
        match timeout(RESOLVE_LIMIT, resolving).await {
            Ok(Ok(plan)) => plan,
            Ok(Err(_)) => Err(Problem::new(Class::Internal, "resolving the target failed")),
            Err(_) => {
                let limit = RESOLVE_LIMIT.as_secs();
                let what = format!("reading the ssh configuration took more than {limit} s");
                Err(Problem::new(Class::Unreachable, what)
                    .fix("look for slow `Match exec` commands and name look-ups in it"))
            }
        }
    }
}

impl SshDialer {
    /// Remembers the addresses of the first hop, where the kernel chooses the way to them: a chosen
    /// end of ours and an interface that an address of its link needs are not asked for.
    fn note_found(&self, first: Option<&ssh::Hop>, mut found: Vec<IpAddr>) {
        let is_free = first.is_some_and(|hop| hop.bind.is_none() && !is_near(hop));
        found.retain(|address| is_free && !is_of_a_link(*address));
        self.found.send_if_modified(|known| {
            let is_news = *known != found;
            *known = found;
            is_news
        });
    }
}

/// Whether it means something only together with an interface.
fn is_of_a_link(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

impl Dial for SshDialer {
    fn dial<'a>(
        &'a self,
        stage: &'a (dyn Fn(Progress) + Send + Sync),
        awaited: &'a AtomicBool,
    ) -> Later<'a, Result<Arc<dyn Link>, Failure>> {
        Box::pin(async move {
            let plan = self.plan().await.map_err(|problem| Failure {
                cause: cause_of(&problem),
                message: problem.message,
                fix: problem.fix,
            })?;
            let watched = Watched { stage, awaited, dialer: self, first: plan.hops().first() };
            let session = ssh::connect(&plan, &self.keyring, self.desk.as_ref(), &watched).await?;
            let facts = session.facts();
            debug!(banner = facts.banner, method = facts.method, rtt = ?facts.rtt, "logged in");
            Ok(Arc::new(SshLink(session)) as Arc<dyn Link>)
        })
    }
}

/// Who looks on as a lane's session is made.
struct Watched<'a> {
    stage: &'a (dyn Fn(Progress) + Send + Sync),
    awaited: &'a AtomicBool,
    dialer: &'a SshDialer,
    first: Option<&'a ssh::Hop>,
}

impl ssh::Observer for Watched<'_> {
    fn stage(&self, at: ssh::Stage) {
        let is_reached = match at {
            ssh::Stage::Resolving { .. } | ssh::Stage::Connecting { .. } => false,
            ssh::Stage::Handshaking { .. }
            | ssh::Stage::CheckingHostKey { .. }
            | ssh::Stage::Authenticating { .. } => true,
        };
        (self.stage)(Progress { text: at.to_string(), is_reached });
    }

    fn fact(&self, fact: ssh::Fact) {
        debug!(%fact, "on the way");
        if let ssh::Fact::Addresses(found) = fact {
            self.dialer.note_found(self.first, found.iter().map(SocketAddr::ip).collect());
        }
    }

    fn is_awaited(&self) -> bool {
        self.awaited.load(Relaxed)
    }
}

/// Why there is no plan: what a network that is not back yet may explain is tried again.
fn cause_of(problem: &Problem) -> Cause {
    if problem.class == Class::Unreachable { Cause::NameNotFound } else { Cause::Configuration }
}

impl ssh::Asker for Desk {
    fn ask(&self, question: ssh::Question) -> Later<'_, Option<Secret>> {
        Box::pin(self.ask(worded(question)))
    }
}

/// The question as a person reads it.
pub(crate) fn worded(question: ssh::Question) -> control::Question {
    let (kind, text) = match question {
        ssh::Question::HostKey { host, algorithm, fingerprint } => (
            control::Answer::YesNo,
            format!(
                "{host} is not known here yet. Its {algorithm} host key has the fingerprint\n  {fingerprint}\nIs it the right one? [yes/no] "
            ),
        ),
        ssh::Question::MoreHostKeys { host, more, gone } => {
            let list = |what: &str, keys: Vec<String>| -> String {
                keys.iter().map(|key| format!("  {what} {key}\n")).collect()
            };
            let (more, gone) = (list("new ", more), list("gone", gone));
            (
                control::Answer::YesNo,
                format!(
                    "{host} has proved that its host keys have changed:\n{more}{gone}Note that in known_hosts? [yes/no] "
                ),
            )
        }
        ssh::Question::Passphrase { path, again } => (
            control::Answer::Hidden,
            format!("{}Passphrase of {}: ", once_more(again), path.display()),
        ),
        ssh::Question::AddToAgent { path } => (
            control::Answer::YesNo,
            format!("Add the key {} to the agent? [yes/no] ", path.display()),
        ),
        ssh::Question::Password { user, host, again } => {
            (control::Answer::Hidden, format!("{}Password of {user}@{host}: ", once_more(again)))
        }
        ssh::Question::Interactive { host, name, instructions, prompt, echo } => {
            let kind = if echo { control::Answer::Shown } else { control::Answer::Hidden };
            let lines = [name, instructions].into_iter().filter(|line| !line.is_empty());
            let said: String = lines.map(|line| format!("{host} says: {line}\n")).collect();
            (kind, format!("{said}({host}) {prompt}"))
        }
    };
    control::Question { kind, text }
}

fn once_more(again: bool) -> &'static str {
    if again { "That was not right. " } else { "" }
}

/// The far gateway's token and the file that held it, read over a login.
pub(crate) async fn fetch_token(session: &ssh::Session) -> Result<(Secret, String), Problem> {
    token::read(&SshLink(session.clone())).await
}

impl Knocks for ssh::Listening {
    fn at(&self) -> &Listen {
        &self.at
    }

    fn next(&mut self) -> Later<'_, Option<(Box<dyn Knock>, bool)>> {
        Box::pin(async move {
            let (knock, is_welcome) = self.next().await?;
            Some((Box::new(knock) as Box<dyn Knock>, is_welcome))
        })
    }
}

impl Knock for ssh::Knock {
    fn accept(self: Box<Self>) -> Later<'static, Box<dyn Stream>> {
        Box::pin(async move { Box::new((*self).accept().await) as Box<dyn Stream> })
    }

    fn refuse(self: Box<Self>) -> Later<'static, ()> {
        Box::pin(async move { (*self).refuse().await })
    }
}

impl Stream for ssh::Stream {
    fn until_closed(&self) -> Later<'static, io::Result<()>> {
        Box::pin(self.until_closed())
    }
}

struct SshLink(ssh::Session);

impl Link for SshLink {
    fn open<'a>(&'a self, to: &'a Destination) -> Later<'a, Result<Box<dyn Stream>, NotOpened>> {
        Box::pin(async move {
            let opened = match to {
                Destination::Port { host, port } => self.0.open(host, *port).await,
                Destination::Socket(path) => self.0.open_socket(path).await,
            };
            match opened {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Stream>),
                Err(OpenFailure::Silent) => Err(NotOpened::Silent),
                Err(OpenFailure::SessionLost) => Err(NotOpened::SessionLost),
                Err(OpenFailure::Refused(reason)) => Err(NotOpened::Refused(reason)),
                Err(failure @ OpenFailure::Prohibited) => {
                    Err(NotOpened::Prohibited(failure.to_string()))
                }
            }
        })
    }

    fn listen<'a>(
        &'a self,
        at: &'a Listen,
    ) -> Later<'a, Result<Box<dyn Knocks>, ssh::ListenFailure>> {
        Box::pin(async move {
            let listening = self.0.listen(at).await?;
            Ok(Box::new(listening) as Box<dyn Knocks>)
        })
    }

    fn unlisten<'a>(&'a self, at: &'a Listen) -> Later<'a, ()> {
        Box::pin(self.0.unlisten(at))
    }

    fn ping(&self) -> Later<'_, Result<Duration, Failure>> {
        Box::pin(self.0.ping())
    }

    fn hush(&self) -> bool {
        self.0.hush()
    }

    fn attend(&self) {
        self.0.attend();
    }

    fn closed(&self) -> Later<'_, Failure> {
        Box::pin(self.0.closed())
    }

    fn near(&self) -> Option<IpAddr> {
        self.0.near()
    }

    fn far(&self) -> Option<IpAddr> {
        self.0.far()
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    fn is_parked(&self) -> bool {
        self.0.is_parked()
    }

    fn close(&self) -> Later<'_, ()> {
        Box::pin(self.0.close())
    }

    fn kill(&self) {
        self.0.kill();
    }

    fn heard(&self) -> u64 {
        self.0.signs_of_life()
    }

    fn is_stalled(&self) -> bool {
        self.0.is_stalled()
    }

    fn facts(&self) -> Facts {
        let facts = self.0.facts();
        Facts { host_key: Some(facts.host_key.clone()), needs_person: facts.needed_person }
    }

    fn run<'a>(&'a self, command: &'a str, limit: usize) -> Later<'a, Result<Printed, Failure>> {
        Box::pin(async move {
            let ran = self.0.run(command, limit).await?;
            Ok(Printed { status: ran.status, output: ran.stdout })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configured_interval_counts_before_low_power() {
        let seconds = Duration::from_secs;
        assert_eq!(alive(None, false), None);
        assert_eq!(alive(None, true), Some(seconds(30)));
        assert_eq!(alive(Some(seconds(15)), true), Some(seconds(15)));
        assert_eq!(alive(Some(seconds(0)), true), Some(seconds(30)), "0 is OpenSSH's none");
    }
}
