//! The way to the gateway that is meant: files, transport, secret, login.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::{
    Address, Asked, Credential, Gateway, Login, OwnDevice, Place, Rule, Source, Sources,
    Surroundings, Target,
    address::Host,
    cover::covered,
    credential,
    device::{self, Way},
    own_certificate, target,
    tls::{self, NoTls, Trust},
};
use crate::{
    config::{self, Credentials, DEFAULT_PORT, OpenClaw, Paths, Remotes, file},
    control,
    plaintext::may_go_to,
    problem::{Class, Problem},
    secret::Secret,
};

/// The code of a device's token that the gateway does not take.
const WRONG_TOKEN: &str = "AUTH_DEVICE_TOKEN_MISMATCH";

/// Which gateway is meant, with what the files know of it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The gateway.
    pub(crate) target: Target,
    /// `openclaw.json`; defaults where the command line alone decided.
    pub(crate) settings: OpenClaw,
    paths: Paths,
    given: Credential,
}

/// What a login offers and asks for.
#[derive(Clone, Copy)]
struct Asks<'a> {
    credential: &'a Credential,
    scopes: &'a [&'a str],
    device: Option<&'a OwnDevice>,
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
        let plan = Self { target, settings, paths: paths.clone(), given };
        // What is wrong with the file is said before anything is dialled.
        plan.saved()?;
        Ok(plan)
    }

    /// What is saved for the remote that is meant: read anew each time, since a `remote connect`
    /// may have changed it.
    fn saved(&self) -> Result<Option<config::Credential>, Problem> {
        match &self.target.place {
            Place::Remote(name) => Ok(Credentials::load(&self.paths)?.remotes.remove(name)),
            Place::Local { .. } | Place::Address(_) => Ok(None),
        }
    }

    /// Goes there and logs in, asking for `scopes`; all of it by `deadline`. A gateway that wants to
    /// know who we are is told at the second try, and given a token of its own where it gave one.
    pub(crate) async fn reach(
        &self,
        scopes: &[&str],
        deadline: Instant,
    ) -> Result<Reached, Problem> {
        match Box::pin(self.reach_as(None, scopes, deadline)).await {
            Err(problem) if device::may_help(&self.paths, &problem) => {}
            // OpenClaw's gateway lets a stranger in and lets it do nothing.
            Ok(reached) if reached.may_nothing() && !scopes.is_empty() => {
                reached.gateway.close().await;
            }
            outcome => return outcome,
        }
        tracing::debug!("the gateway wants a device");
        let device = OwnDevice::load_or_make(&self.paths)?;
        match Box::pin(self.reach_as(Some(&device), scopes, deadline)).await {
            // The token is forgotten by now.
            Err(problem) if problem.code.as_deref() == Some(WRONG_TOKEN) => {
                Box::pin(self.reach_as(Some(&device), scopes, deadline)).await
            }
            outcome => outcome,
        }
    }

    async fn reach_as(
        &self,
        device: Option<&OwnDevice>,
        scopes: &[&str],
        deadline: Instant,
    ) -> Result<Reached, Problem> {
        let start = Instant::now();
        let mut way = None;
        let own = |way: &Option<Way>, credential| match (way, device) {
            (Some(way), Some(_)) => way.credential(&self.paths, credential),
            _ => Ok(credential),
        };
        let name = self.target.place.to_string();
        let mut carried = None;
        let reached = match &self.target.place {
            Place::Local { port, .. } => {
                let address = self.local(*port)?;
                let credential = self.credential(None)?;
                let asks = Asks { credential: &credential, scopes, device };
                (self.log_in_at(&address, asks, deadline).await, credential.source)
            }
            Place::Address(address) => {
                // Nothing that is saved goes to an address that came from elsewhere.
                way = (self.target.rule == Rule::Configured).then(|| Way::to(address));
                let credential = own(&way, self.credential(None)?)?;
                let asks = Asks { credential: &credential, scopes, device };
                (self.log_in_at(address, asks, deadline).await, credential.source)
            }
            Place::Remote(remote) => {
                let limit = deadline.saturating_duration_since(start);
                let (stream, bearer, opened) =
                    control::open(&self.paths.endpoint(), remote, control::Edition::Kept, limit)
                        .await?;
                way = Way::through(remote, &opened);
                let credential = own(&way, self.credential(Some(&opened))?)?;
                let (pin, port) = (opened.tls_fingerprint, opened.remote_port);
                let url = format!("ws://127.0.0.1:{port}");
                let (credential, source) = (&credential, credential.source);
                let login = Login { url: &url, name: &name, credential, scopes, device };
                let outcome = match covered(stream, pin, port, deadline).await {
                    Ok(stream) => Gateway::log_in(stream, login, deadline).await,
                    Err(problem) => Err(problem),
                };
                let gateway = match outcome {
                    Ok(gateway) => Ok(gateway),
                    Err(problem) => Err(bearer.explain(problem).await),
                };
                carried = Some(bearer);
                (gateway, source)
            }
        };
        let (gateway, source) = reached;
        if let Some(way) = way.filter(|_| device.is_some()) {
            self.learn(&way, &gateway)?;
        }
        let gateway = gateway.map_err(|problem| self.advise(problem))?;
        let known = match (&self.target.place, self.saved()?.and_then(|saved| saved.gateway)) {
            (Place::Remote(name), Some(id)) => Some((name.clone(), id)),
            _ => None,
        };
        Ok(Reached { gateway, source, took: start.elapsed(), known, bearer: carried })
    }

    /// Keeps the token that the gateway gave our device, and forgets one that it no longer takes.
    fn learn(&self, way: &Way, outcome: &Result<Gateway, Problem>) -> Result<(), Problem> {
        match outcome {
            Ok(gateway) => match &gateway.hello.auth.device_token {
                Some(token) => way.keep(&self.paths, Some(token)),
                None => Ok(()),
            },
            Err(problem) if problem.code.as_deref() == Some(WRONG_TOKEN) => {
                way.keep(&self.paths, None)
            }
            Err(_) => Ok(()),
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
    /// Whether the gateway granted no scope at all.
    fn may_nothing(&self) -> bool {
        self.gateway.hello.auth.scopes.is_empty()
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
    /// nothing where there is nothing to compare.
    pub(crate) async fn verify(&self, patience: Duration) -> Result<(), Problem> {
        let Some((name, known)) = &self.known else { return Ok(()) };
        let identity = match self.gateway.identity(patience).await {
            Ok(identity) => identity,
            Err(problem) => return Err(self.explain(problem).await),
        };
        match identity {
            Some(id) if id == *known => Ok(()),
            // Too old to tell.
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
    let found: Vec<_> =
        tokio::net::lookup_host((name, address.port)).await?.map(|found| found.ip()).collect();
    let usable = |found: &IpAddr| address.is_tls || may_go_to(*found);
    let usable: Vec<_> = found.iter().copied().filter(usable).collect();
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
mod tests {
    use serde_json::json;
    use tokio::net::{UnixListener, UnixStream};

    use super::{
        super::{READ, session::tests::Far},
        *,
    };
    use crate::config::{Bound, Remote};

    const PATIENCE: Duration = Duration::from_secs(10);

    fn write(paths: &Paths, text: &str) {
        file::write(&paths.config, text.as_bytes()).unwrap();
    }

    fn plan(paths: &Paths, asked: &Asked) -> Result<Plan, Problem> {
        Plan::make_in(paths, asked, Credential::default(), &Surroundings::default())
    }

    #[test]
    fn a_url_from_the_command_line_needs_no_files() {
        let (_home, paths) = Paths::temporary();
        write(&paths, "{ broken");
        let asked = Asked {
            url: Some("ws://127.0.0.1:1".to_owned()),
            with_credential: true,
            ..Asked::default()
        };
        plan(&paths, &asked).unwrap();
        assert_eq!(plan(&paths, &Asked::default()).unwrap_err().class, Class::Config);
    }

    #[tokio::test]
    async fn a_port_without_a_listener_says_how_to_start_a_gateway() {
        let (_home, paths) = Paths::temporary();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let plan = plan(&paths, &Asked { port: Some(port), ..Asked::default() }).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let problem = plan.reach(READ, deadline).await.unwrap_err();
        assert_eq!(problem.class, Class::GatewayDown);
        assert_eq!(problem.fix.unwrap(), format!("openclaw gateway run --port {port}"));
    }

    /// A home with the remote `vps`, its saved token bound to host key `SHA256:a`, and a scripted
    /// supervisor.
    fn home_with_remote() -> (tempfile::TempDir, Paths, UnixListener) {
        let (home, paths) = Paths::temporary();
        Remotes::update(&paths, |remotes| {
            let remote = Remote { local_port: 18789, ..Remote::new("me@vps") };
            remotes.remotes.insert("vps".to_owned(), remote);
            remotes.default = Some("vps".to_owned());
            Ok(())
        })
        .unwrap();
        Credentials::update(&paths, |credentials| {
            let credential = config::Credential {
                token: Some(Secret::new("hunter2")),
                password: None,
                bound: Some(Bound { host_key: "SHA256:a".to_owned(), remote_port: 18789 }),
                gateway: Some("gateway-1".to_owned()),
            };
            credentials.remotes.insert("vps".to_owned(), credential);
            Ok(())
        })
        .unwrap();
        let supervisor = UnixListener::bind(&paths.socket).unwrap();
        (home, paths, supervisor)
    }

    /// Answers one `open` with what the transport proved; the stream follows.
    async fn open_once(supervisor: &UnixListener, host_key: &str) -> UnixStream {
        let mut stream = greet(supervisor).await;
        let call: control::Call = control::read(&mut stream).await.unwrap();
        assert!(matches!(call.request, control::Request::Open { name, .. } if name == "vps"));
        let opened = control::Opened {
            host_key: Some(host_key.to_owned()),
            remote_port: 18789,
            tls_fingerprint: None,
        };
        control::write(&mut stream, &control::Reply::Opened(opened)).await.unwrap();
        stream
    }

    /// The next command's connection, greeted.
    async fn greet(supervisor: &UnixListener) -> UnixStream {
        let (mut stream, _) = supervisor.accept().await.unwrap();
        let greeting = crate::meeting::Greeting {
            version: control::VERSION,
            pid: 1,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            replaced: false,
            foreground: false,
        };
        control::write(&mut stream, &greeting).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_remote_gets_its_saved_secret_and_nothing_else_does() {
        let (_home, paths, supervisor) = home_with_remote();
        let plan = plan(&paths, &Asked::default()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let far = async {
            let mut far = Far::accept(open_once(&supervisor, "SHA256:a").await).await;
            let token = far.admit().await.params.unwrap()["auth"]["token"].clone();
            let request = far.hear().await.unwrap();
            far.answer(&request.id, &json!({"deviceId": "gateway-1"})).await;
            token
        };
        let near = async {
            let reached = plan.reach(READ, deadline).await.unwrap();
            reached.verify(PATIENCE).await.unwrap();
            reached.source
        };
        let (source, token) = tokio::join!(near, far);
        assert_eq!((source, token), (Source::Saved, json!("hunter2")));
    }

    #[tokio::test]
    async fn a_supervisor_that_goes_away_is_no_missing_gateway() {
        for is_gone in [true, false] {
            let (_home, paths, supervisor) = home_with_remote();
            let plan = plan(&paths, &Asked::default()).unwrap();
            let deadline = Instant::now() + PATIENCE;
            let (reached, mut far) = tokio::join!(plan.reach(READ, deadline), async {
                let mut far = Far::accept(open_once(&supervisor, "SHA256:a").await).await;
                far.admit().await;
                far
            });
            let reached = reached.unwrap();
            let end = async {
                far.hear().await.unwrap();
                drop(far);
                if is_gone {
                    drop(supervisor);
                } else {
                    greet(&supervisor).await;
                }
            };
            let (outcome, ()) = tokio::join!(reached.call("health", None, PATIENCE), end);
            let problem = outcome.unwrap_err();
            let told = problem.code.as_deref() == Some(control::SUPERVISOR_GONE);
            assert_eq!(told, is_gone, "{problem}");
            let class = if is_gone { Class::Internal } else { Class::GatewayDown };
            assert_eq!(problem.class, class);
        }
    }

    #[tokio::test]
    async fn a_secret_that_was_changed_meanwhile_is_read_again() {
        let (_home, paths, supervisor) = home_with_remote();
        let plan = plan(&paths, &Asked::default()).unwrap();
        let mut sent = Vec::new();
        for secret in ["hunter2", "hunter3"] {
            Credentials::update(&paths, |credentials| {
                let saved = credentials.remotes.get_mut("vps").unwrap();
                saved.token = Some(Secret::new(secret));
                Ok(())
            })
            .unwrap();
            let deadline = Instant::now() + PATIENCE;
            let far = async {
                let mut far = Far::accept(open_once(&supervisor, "SHA256:a").await).await;
                far.admit().await.params.unwrap()["auth"]["token"].clone()
            };
            let (reached, token) = tokio::join!(plan.reach(READ, deadline), far);
            reached.unwrap();
            sent.push(token);
        }
        assert_eq!(sent, [json!("hunter2"), json!("hunter3")]);
    }

    #[tokio::test]
    async fn sends_nothing_to_another_host() {
        let (_home, paths, supervisor) = home_with_remote();
        let plan = plan(&paths, &Asked::default()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let far = async {
            let mut stream = open_once(&supervisor, "SHA256:b").await;
            let mut heard = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut heard).await.unwrap();
            heard
        };
        let (outcome, heard) = tokio::join!(plan.reach(READ, deadline), far);
        assert_eq!(outcome.unwrap_err().class, Class::HostKey);
        assert!(heard.is_empty());
    }

    #[tokio::test]
    async fn another_gateway_at_the_same_remote_is_refused() {
        let (_home, paths, supervisor) = home_with_remote();
        let plan = plan(&paths, &Asked::default()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let far = async {
            let mut far = Far::accept(open_once(&supervisor, "SHA256:a").await).await;
            far.admit().await;
            let request = far.hear().await.unwrap();
            far.answer(&request.id, &json!({"deviceId": "gateway-2"})).await;
        };
        let near = async {
            let reached = plan.reach(READ, deadline).await.unwrap();
            reached.verify(PATIENCE).await.unwrap_err()
        };
        let (problem, ()) = tokio::join!(near, far);
        assert_eq!(problem.class, Class::GatewayRefused);
        assert_eq!(problem.code.as_deref(), Some("GATEWAY_IDENTITY_CHANGED"));
    }
}
