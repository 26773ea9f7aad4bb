//! The way to the gateway that is meant: files, transport, secret, login.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    net::{TcpStream, UnixStream},
    time::{Instant, timeout_at},
};

use super::{
    Address, Asked, Credential, Gateway, Login, OwnDevice, Place, READ, Rule, Source, Sources,
    Surroundings, Target,
    address::Host,
    cover::covered,
    credential,
    device::{News, Offered, Way, Who},
    own_certificate, target,
    tls::{self, NoTls, Trust},
    tunnelled::refuse_tunnel,
};
use crate::{
    config::{self, Credentials, DEFAULT_PORT, OpenClaw, Paths, Remotes, file},
    control::{self, Edition},
    plaintext::may_go_to,
    problem::{Class, Problem},
    protocol::detail,
    secret::Secret,
};

/// Which gateway is meant, with what the files know of it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The gateway.
    pub(crate) target: Target,
    /// `openclaw.json`; defaults where the command line alone decided.
    pub(crate) settings: OpenClaw,
    paths: Paths,
    given: Credential,
    edition: Edition,
}

/// What a login offers and asks for.
#[derive(Clone, Copy)]
struct Asks<'a> {
    credential: &'a Credential,
    scopes: &'a [&'a str],
    device: Option<&'a OwnDevice>,
}

/// What a login goes through.
enum Road {
    /// A connection that is yet to be made.
    Address(Address),
    /// A stream of the supervisor's.
    Remote(UnixStream, control::Bearer, control::Opened),
}

/// Why we were not let in, and with what.
struct NotIn {
    problem: Problem,
    offered: Offered,
}

impl From<Problem> for NotIn {
    /// Nothing was offered.
    fn from(problem: Problem) -> Self {
        Self { problem, offered: Offered::default() }
    }
}

/// A gateway that let us in.
#[derive(Debug)]
pub(crate) struct Reached {
    /// The conversation.
    pub(crate) gateway: Gateway,
    /// Where the secret came from.
    pub(crate) source: Source,
    /// How long the way here took: transport, WebSocket and login.
    pub(crate) took: Duration,
    /// The remote's name and the gateway that answered there before.
    known: Option<(String, String)>,
    /// Whose supervision the conversation hangs on.
    bearer: Option<control::Bearer>,
    /// What the login offered.
    offered: Offered,
    /// What it taught, kept only after [`verify`](Self::verify).
    news: Option<News>,
}

impl Plan {
    /// Reads the files and chooses. Blocks; sends nothing.
    pub(crate) fn make(paths: &Paths, asked: &Asked, given: Credential) -> Result<Self, Problem> {
        Self::make_in(paths, asked, given, &Surroundings::read())
    }

    fn make_in(
        paths: &Paths,
        asked: &Asked,
        given: Credential,
        surroundings: &Surroundings,
    ) -> Result<Self, Problem> {
        let (settings, remotes) = if target::needs_no_file(asked) {
            (OpenClaw::default(), Remotes::default())
        } else {
            (OpenClaw::load(paths)?, Remotes::load(paths)?)
        };
        let target = target::choose(asked, surroundings, &remotes, &settings.gateway)?;
        let (paths, edition) = (paths.clone(), Edition::Kept);
        let plan = Self { target, settings, paths, given, edition };
        // What is wrong with the file is said before anything is dialled.
        plan.saved()?;
        Ok(plan)
    }

    /// To the remote that the supervisor has on trial under `name`. Blocks; sends nothing.
    pub(crate) fn on_trial(paths: &Paths, name: &str, given: Credential) -> Result<Self, Problem> {
        let target = Target { rule: Rule::Remote, place: Place::Remote(name.to_owned()) };
        let (settings, paths) = (OpenClaw::load(paths)?, paths.clone());
        Ok(Self { target, settings, paths, given, edition: Edition::Trial })
    }

    /// The same with this secret before all others.
    pub(crate) fn with(self, given: Credential) -> Self {
        Self { given, ..self }
    }

    /// What is saved for the remote that is meant: read anew each time, since a `remote connect`
    /// may have changed it.
    fn saved(&self) -> Result<Option<config::Credential>, Problem> {
        match &self.target.place {
            Place::Remote(name) => Ok(Credentials::load(&self.paths)?.remotes.remove(name)),
            Place::Local { .. } | Place::Address(_) => Ok(None),
        }
    }

    /// Goes there and logs in, asking for `scopes`; all of it by `deadline`.
    ///
    /// The token that this gateway gave our device goes first: it has a count of failed logins of
    /// its own, which nobody else can fill. Then comes the shared secret alone, and then our device
    /// with it, where the gateway wants one. What the gateway gave is kept by
    /// [`Reached::verify`]. On trial a secret goes before the token, since it is what will be kept.
    pub(crate) async fn reach(
        &self,
        scopes: &[&str],
        deadline: Instant,
    ) -> Result<Reached, Problem> {
        // A secret from the command line is for whatever is there.
        if let (Place::Local { port, .. }, true) = (&self.target.place, self.given.is_empty()) {
            Box::pin(refuse_tunnel(&self.paths, *port, deadline)).await?;
        }
        let is_tried = self.edition == Edition::Trial && !self.given.is_empty();
        let (mut who, mut refused) = (if is_tried { Who::Anyone } else { Who::Known }, None);
        loop {
            let outcome = Box::pin(self.reach_as(who, refused.as_ref(), scopes, deadline)).await;
            let next = match outcome {
                Ok(reached) if reached.gateway.may_nothing() && !scopes.is_empty() => {
                    let Some(next) = who.next(&reached.offered, None) else { return Ok(reached) };
                    reached.gateway.close().await;
                    next
                }
                Ok(reached) => return Ok(reached),
                Err(NotIn { problem, offered }) => {
                    let Some(next) = who.next(&offered, Some(&problem)) else {
                        return Err(problem);
                    };
                    if problem.code.as_deref() == Some(detail::DEVICE_TOKEN_MISMATCH) {
                        refused = Some(offered);
                    }
                    next
                }
            };
            tracing::debug!(?who, ?next, "the gateway wants somebody else");
            who = next;
        }
    }

    /// Whether the gateway lets anyone in who has the shared secret of this plan; no device of ours
    /// is shown, whose own token would let it in. Keeps nothing. By `deadline`.
    pub(crate) async fn opens(&self, deadline: Instant) -> Result<bool, Problem> {
        match Box::pin(self.reach_as(Who::Anyone, None, READ, deadline)).await {
            Ok(reached) => {
                reached.gateway.close().await;
                Ok(true)
            }
            Err(NotIn { problem, .. }) => match problem.code.as_deref() {
                // The secret was compared before.
                Some(detail::DEVICE_REQUIRED) => Ok(true),
                Some(detail::TOKEN_MISMATCH) => Ok(false),
                _ => Err(problem),
            },
        }
    }

    async fn reach_as(
        &self,
        who: Who,
        refused: Option<&Offered>,
        scopes: &[&str],
        deadline: Instant,
    ) -> Result<Reached, NotIn> {
        let start = Instant::now();
        let (road, shared, way) = self.road(deadline).await?;
        let papers = who.papers(&self.paths, way, shared)?;
        let (source, offered) = (papers.credential.source, papers.offered);
        let device = papers.device.as_ref();
        let asks = Asks { credential: &papers.credential, scopes, device };
        let (outcome, bearer) = match road {
            Road::Address(address) => (self.log_in_at(&address, asks, deadline).await, None),
            Road::Remote(stream, bearer, opened) => {
                let outcome = match self.log_in_through(stream, &opened, asks, deadline).await {
                    Err(problem) => Err(bearer.explain(problem).await),
                    outcome => outcome,
                };
                (outcome, Some(bearer))
            }
        };
        let gateway = match outcome {
            Ok(gateway) => gateway,
            Err(problem) => return Err(NotIn { problem: self.advise(problem), offered }),
        };
        let known = match (&self.target.place, self.saved()?.and_then(|saved| saved.gateway)) {
            (Place::Remote(name), Some(id)) => Some((name.clone(), id)),
            _ => None,
        };
        let token = device.and_then(|_| gateway.hello.auth.device_token.clone());
        let news = News::of(&self.paths, offered.way.clone(), token, refused);
        Ok(Reached { gateway, source, took: start.elapsed(), known, bearer, offered, news })
    }

    /// What leads there, the shared secret for it, and what a device's token is bound to.
    async fn road(&self, deadline: Instant) -> Result<(Road, Credential, Option<Way>), Problem> {
        match &self.target.place {
            Place::Local { port, .. } => {
                Ok((Road::Address(self.local(*port)?), self.credential(None)?, None))
            }
            Place::Address(address) => {
                // Nothing that is saved goes to an address that came from elsewhere.
                let way = (self.target.rule == Rule::Configured).then(|| Way::to(address));
                Ok((Road::Address(address.clone()), self.credential(None)?, way))
            }
            Place::Remote(remote) => {
                let limit = deadline.saturating_duration_since(Instant::now());
                let (stream, bearer, opened) =
                    control::open(&self.paths.endpoint(), remote, self.edition, limit).await?;
                let way = Way::through(remote, &opened);
                let credential = self.credential(Some(&opened))?;
                Ok((Road::Remote(stream, bearer, opened), credential, way))
            }
        }
    }

    /// The address of this machine's gateway, as `openclaw.json` describes it.
    fn local(&self, port: u16) -> Result<Address, Problem> {
        let tls = &self.settings.gateway.tls;
        if tls.enabled {
            Address::local_tls(port, own_certificate(tls, &self.paths))
        } else {
            Address::local(port)
        }
    }

    async fn log_in_through(
        &self,
        stream: UnixStream,
        opened: &control::Opened,
        asks: Asks<'_>,
        deadline: Instant,
    ) -> Result<Gateway, Problem> {
        let port = opened.remote_port;
        let (url, name) = (format!("ws://127.0.0.1:{port}"), self.target.place.to_string());
        let Asks { credential, scopes, device } = asks;
        let login = Login { url: &url, name: &name, credential, scopes, device };
        let stream = covered(stream, opened.tls_fingerprint, port, deadline).await?;
        Gateway::log_in(stream, login, deadline).await
    }

    async fn log_in_at(
        &self,
        address: &Address,
        asks: Asks<'_>,
        deadline: Instant,
    ) -> Result<Gateway, Problem> {
        let url = address.to_string();
        let Asks { credential, scopes, device } = asks;
        let login = Login { url: &url, name: &url, credential, scopes, device };
        let stream = dial(address, deadline).await.map_err(|error| self.no_way(&error))?;
        if !address.is_tls {
            return Gateway::log_in(stream, login, deadline).await;
        }
        let Some(name) = address.server_name() else {
            return Err(Problem::new(Class::Usage, format!("{url} names no host for TLS")));
        };
        let trust = address.pin.map_or(Trust::Authorities, Trust::Pin);
        let timed_out = || NoTls::Failed(io::ErrorKind::TimedOut.into());
        let shaken = timeout_at(deadline, tls::connect(stream, name, trust)).await;
        let (stream, _) =
            shaken.unwrap_or_else(|_| Err(timed_out())).map_err(|why| no_tls(&url, &why))?;
        Gateway::log_in(stream, login, deadline).await
    }

    /// The secret for this gateway, given what the transport proved.
    pub(crate) fn credential(
        &self,
        opened: Option<&control::Opened>,
    ) -> Result<Credential, Problem> {
        let own_token = match self.target.place {
            Place::Local { .. } => file::read_private(&self.paths.gateway_token())?
                .map(|text| Secret::new(text.trim())),
            Place::Address(_) | Place::Remote(_) => None,
        };
        let saved = self.saved()?;
        let sources = Sources {
            given: self.given.clone(),
            environment: Credential::from_environment(),
            saved: saved.as_ref(),
            gateway: Some(&self.settings.gateway),
            own_token,
        };
        credential::choose(&self.target, opened, sources)
    }

    /// Why the address could not be dialled.
    fn no_way(&self, error: &io::Error) -> Problem {
        let place = &self.target.place;
        let kind = error.kind();
        if kind == io::ErrorKind::TimedOut {
            return Problem::new(Class::Unreachable, format!("{place} does not answer in time"))
                .code("ETIMEDOUT");
        }
        if kind != io::ErrorKind::ConnectionRefused {
            return Problem::new(Class::Unreachable, format!("cannot reach {place}: {error}"));
        }
        match place {
            Place::Local { port, .. } => Problem::new(
                Class::GatewayDown,
                format!("no gateway runs on this machine: nothing listens on port {port}"),
            )
            .fix(start_command(*port)),
            Place::Address(_) | Place::Remote(_) => {
                Problem::new(Class::Unreachable, format!("nothing listens at {place}"))
            }
        }
        .code("ECONNREFUSED")
    }

    /// Adds what to type where the problem alone cannot know it.
    fn advise(&self, problem: Problem) -> Problem {
        if self.edition == Edition::Trial {
            return problem;
        }
        let is_secret = problem.code.as_deref().is_some_and(|code| code.starts_with("AUTH_TOKEN"));
        if let (true, Place::Remote(name)) = (is_secret, &self.target.place) {
            return problem.fix(format!("openclaw remote connect {name} --fetch-token"));
        }
        if problem.fix.is_some() || problem.class != Class::GatewayDown {
            return problem;
        }
        match &self.target.place {
            Place::Local { .. } => problem.fix("openclaw gateway status"),
            Place::Address(_) => problem,
            Place::Remote(name) => problem.fix(format!(
                "on the far machine: openclaw gateway run; here: openclaw remote status {name}"
            )),
        }
    }
}

impl Reached {
    fn learn(&self) {
        if let Some(news) = &self.news {
            news.keep();
        }
    }

    /// [Calls](Gateway::call) `method`; a supervisor that goes away meanwhile is an error of its
    /// own, with the code [`control::SUPERVISOR_GONE`].
    pub(crate) async fn call(
        &self,
        method: &str,
        params: Option<Value>,
        patience: Duration,
    ) -> Result<Value, Problem> {
        let problem = match self.gateway.call(method, params, patience).await {
            Ok(answer) => return Ok(answer),
            Err(problem) => problem,
        };
        Err(self.explain(problem).await)
    }

    async fn explain(&self, problem: Problem) -> Problem {
        match &self.bearer {
            Some(bearer) => bearer.explain(problem).await,
            None => problem,
        }
    }

    /// Compares the gateway's identity with the one that answered at this remote before; sends
    /// nothing where there is nothing to compare. Only then is a token kept, or forgotten: another
    /// program behind the same port must not take the good one away.
    pub(crate) async fn verify(&self, patience: Duration) -> Result<(), Problem> {
        let Some((name, known)) = &self.known else {
            self.learn();
            return Ok(());
        };
        let identity = match self.gateway.identity(patience).await {
            Ok(identity) => identity,
            Err(problem) => return Err(self.explain(problem).await),
        };
        match identity {
            Some(id) if id == *known => {
                self.learn();
                Ok(())
            }
            // Too old to tell, and nothing to learn from.
            None => Ok(()),
            Some(_) => Err(Problem::new(
                Class::GatewayRefused,
                format!("another gateway than before answers at remote `{name}`"),
            )
            .code("GATEWAY_IDENTITY_CHANGED")
            .fix(format!(
                "if it was reinstalled on purpose: openclaw remote remove {name}, then connect again"
            ))),
        }
    }
}

fn start_command(port: u16) -> String {
    if port == DEFAULT_PORT {
        "openclaw gateway run".to_owned()
    } else {
        format!("openclaw gateway run --port {port}")
    }
}

/// Why the certificate or the handshake was not good enough, and what to type.
fn no_tls(url: &str, why: &NoTls) -> Problem {
    match why {
        NoTls::OtherCertificate { shown, .. } => {
            Problem::new(Class::HostKey, format!("nothing was sent to {url}: {why}"))
                .code("TLS_PIN_MISMATCH")
                .fix(format!(
                    "if the certificate was renewed on purpose (openclaw gateway status over there \
             prints it), set the pin to {shown}"
                ))
        }
        NoTls::Untrusted { shown, .. } => {
            Problem::new(Class::HostKey, format!("nothing was sent to {url}: {why}"))
                .code("TLS_UNTRUSTED")
                .fix(format!(
                    "compare it with what openclaw gateway status prints over there, then: \
             --tls-fingerprint {shown}"
                ))
        }
        NoTls::Failed(error) if error.kind() == io::ErrorKind::TimedOut => {
            Problem::new(Class::Unreachable, format!("{url} does not answer in time"))
                .code("ETIMEDOUT")
        }
        NoTls::Failed(_) => Problem::new(Class::GatewayDown, format!("no gateway at {url}: {why}"))
            .fix("ws:// if the gateway does not speak TLS"),
    }
}

/// What the address leads to; of a name in plain text only what may be spoken to in plain text.
async fn resolve(address: &Address) -> io::Result<Vec<IpAddr>> {
    let name = match &address.host {
        Host::Addresses(addresses) => return Ok(addresses.clone()),
        Host::Name(name) => name.as_str(),
    };
    let found = tokio::net::lookup_host((name, address.port)).await?;
    usable(address, name, &found.map(|found| found.ip()).collect::<Vec<_>>())
}

/// Those of the addresses that `name` leads to that may be dialled.
fn usable(address: &Address, name: &str, found: &[IpAddr]) -> io::Result<Vec<IpAddr>> {
    let may = |found: &IpAddr| address.is_tls || may_go_to(*found);
    let usable: Vec<_> = found.iter().copied().filter(may).collect();
    match found.first() {
        Some(public) if usable.is_empty() => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("{name} leads to {public}, where nothing is sent in plain text; use wss://"),
        )),
        _ => Ok(usable),
    }
}

/// The first of the address's hosts that takes a connection.
async fn dial(address: &Address, deadline: Instant) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    let hosts = timeout_at(deadline, resolve(address))
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    for host in &hosts {
        let socket = SocketAddr::new(*host, address.port);
        match timeout_at(deadline, TcpStream::connect(socket)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        }
    }
    Err(last)
}

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;
