//! The steps behind the last hop: the forward, the gateway, its secret. Saves nothing.

use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{
    notes::Clock,
    report::{Kind, Line, Step, Verdict},
    words::answers_in,
};
use crate::{
    cli::{
        Context, ask,
        connect::{other_gateway, with_look_over_there},
        order::Arguments,
        output::Spinner,
        status::tenths,
    },
    client::{
        self, Credential, EVERYTHING, Gateway, Login, Place, Rule, Source, Sources, Target,
        choose_credential, covered, wants_secret,
    },
    config::{Credentials, OpenClaw},
    control::Opened,
    fingerprint::Fingerprint,
    problem::{Class, Problem},
    ssh::{OpenFailure, Session},
    supervisor,
    tunnel::Failure,
};

/// How long a gateway may take to let us in, at least.
const SHORTEST_LOGIN: Duration = Duration::from_secs(2);
/// How long a gateway may take for its first word where no secret can be sent.
const CHALLENGE: Duration = Duration::from_secs(5);

/// A look at what is behind a session.
pub(super) struct Visit<'a> {
    pub(super) context: &'a Context,
    pub(super) arguments: &'a Arguments,
    pub(super) name: &'a str,
    pub(super) is_saved: bool,
    pub(super) remote_port: u16,
    /// The gateway's certificate, where it speaks TLS.
    pub(super) pin: Option<Fingerprint>,
    pub(super) given: Credential,
    pub(super) can_ask: bool,
    pub(super) session: &'a Session,
    pub(super) clock: &'a Clock,
    pub(super) spinner: &'a Spinner,
}

/// What was found, as far as it went.
pub(super) struct Visited {
    pub(super) steps: Vec<Step>,
    pub(super) problem: Option<Problem>,
}

/// The secret, and how people know it.
struct Offer {
    credential: Credential,
    source: String,
}

/// What a gateway that let us in said.
struct Welcome {
    version: String,
    protocol: Value,
    identity: Option<String>,
    trip: Option<Duration>,
}

impl Visited {
    fn failed(steps: Vec<Step>, problem: Problem) -> Self {
        Self { steps, problem: Some(problem) }
    }
}

impl Visit<'_> {
    /// Goes as far as it gets.
    pub(super) async fn run(&self) -> anyhow::Result<Visited> {
        let port = self.remote_port;
        self.spinner.stage(&format!("opening the forward to port {port}"));
        let begun = self.clock.now();
        let opened = self.session.open("127.0.0.1", port).await;
        let took = Some(self.clock.now().saturating_sub(begun));
        let place = |step: Step| step.with("host", "127.0.0.1").with("port", port);
        let allowed = place(Step::ok(Kind::Forward, took, format!("to 127.0.0.1 port {port}")));
        let stream = match opened {
            Ok(stream) => stream,
            Err(OpenFailure::Refused(_)) => {
                let step = Step::failed(Kind::Gateway, None, "nothing listens there");
                let problem = supervisor::absent(port).into();
                return Ok(Visited::failed(vec![allowed, step], problem));
            }
            Err(failure) => {
                let (text, problem) = self.no_forward(failure).await;
                let step = place(Step::failed(Kind::Forward, took, text));
                return Ok(Visited::failed(vec![step], problem));
            }
        };
        self.spinner.stage("asking the gateway");
        let begun = self.clock.now();
        let mut offer = match self.offer().await {
            Ok(offer) => offer,
            Err(problem) => return Ok(self.withheld(allowed, stream, problem).await),
        };
        let mut outcome = self.log_in(stream, &offer).await;
        if offer.credential.is_empty()
            && outcome.as_ref().is_err_and(wants_secret)
            && let Some(other) = self.ask_for_one().await.transpose()
        {
            outcome = match other {
                Ok(other) => {
                    offer = other;
                    self.log_in_again(&offer).await
                }
                Err(problem) => Err(problem),
            };
        }
        if let Err(problem) = outcome {
            outcome = Err(self.look(problem).await);
        }
        let took = Some(self.clock.now().saturating_sub(begun));
        let mut steps = vec![allowed];
        let problem = self.judge(outcome, &offer, took, &mut steps)?;
        Ok(Visited { steps, problem })
    }

    /// Whether what does not answer as a gateway speaks TLS, which nobody said.
    async fn look(&self, problem: Problem) -> Problem {
        if self.pin.is_some() || problem.class != Class::GatewayDown {
            return problem;
        }
        let Ok(stream) = self.session.open("127.0.0.1", self.remote_port).await else {
            return problem;
        };
        let shown = client::shown(stream, CHALLENGE).await;
        shown.map_or(problem, |shown| client::unpinned(self.remote_port, shown))
    }

    /// Why there is no forward, in a few words and in full.
    async fn no_forward(&self, failure: OpenFailure) -> (String, Problem) {
        let port = self.remote_port;
        match failure {
            OpenFailure::Prohibited => {
                let full = supervisor::prohibited(port, &failure.to_string());
                ("the server's policy forbids it".to_owned(), full.into())
            }
            OpenFailure::SessionLost => {
                let failure: Failure = self.session.closed().await;
                ("the connection broke".to_owned(), failure.into())
            }
            OpenFailure::Silent | OpenFailure::Refused(_) => {
                let problem = Problem::new(Class::Unreachable, failure.to_string());
                ("the server does not answer".to_owned(), problem)
            }
        }
    }

    /// What is offered to this gateway, given what the login proved.
    async fn offer(&self) -> Result<Offer, Problem> {
        let credential = self.choose()?;
        if self.arguments.fetch_token && credential.source != Source::Given {
            return self.fetch().await;
        }
        Ok(self.described(credential))
    }

    /// The first secret that there is.
    fn choose(&self) -> Result<Credential, Problem> {
        let saved = Credentials::load(&self.context.paths)?;
        let file = OpenClaw::load(&self.context.paths)?;
        let target = Target { rule: Rule::Remote, place: Place::Remote(self.name.to_owned()) };
        let host_key = Some(self.session.facts().host_key.clone());
        let (remote_port, tls_fingerprint) = (self.remote_port, self.pin);
        let opened = Opened { host_key, remote_port, tls_fingerprint };
        let sources = Sources {
            given: self.given.clone(),
            environment: Credential::from_environment(),
            saved: saved.remotes.get(self.name),
            gateway: Some(&file.gateway),
            own_token: None,
        };
        choose_credential(&target, Some(&opened), sources)
    }

    fn described(&self, credential: Credential) -> Offer {
        let arguments = self.arguments;
        let file = arguments.token_file.as_ref().or(arguments.password_file.as_ref());
        let source = match (credential.source, file) {
            _ if credential.is_empty() => Source::None.to_string(),
            (Source::Given, Some(file)) if arguments.token.is_none() => file.display().to_string(),
            (source, _) => source.to_string(),
        };
        Offer { credential, source }
    }

    async fn fetch(&self) -> Result<Offer, Problem> {
        let (token, file) = supervisor::fetch_token(self.session).await?;
        let credential = Credential::new(Some(token), None, Source::Given);
        Ok(Offer { credential, source: format!("{file} over there, read over this login") })
    }

    /// Asks whether to read the secret over the login, as `remote connect` does.
    async fn ask_for_one(&self) -> Result<Option<Offer>, Problem> {
        if !self.can_ask || self.context.output.is_json() {
            return Ok(None);
        }
        self.spinner.pause();
        let question = "The gateway wants its token. Read it over this login? [Y/n] ";
        let asking = tokio::task::spawn_blocking(move || ask::yes(question, true));
        let answer = self.clock.wait_for(asking).await;
        let yes = answer.is_ok_and(|answer| answer.unwrap_or(false));
        self.spinner.resume();
        Ok(if yes { Some(self.fetch().await?) } else { None })
    }

    async fn log_in_again(&self, offer: &Offer) -> Result<Welcome, Problem> {
        match self.session.open("127.0.0.1", self.remote_port).await {
            Ok(stream) => self.log_in(stream, offer).await,
            Err(failure) => Err(self.no_forward(failure).await.1),
        }
    }

    async fn log_in<S>(&self, stream: S, offer: &Offer) -> Result<Welcome, Problem>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limit = Duration::from_secs(self.arguments.timeout);
        let patience = limit.saturating_sub(self.clock.now()).max(SHORTEST_LOGIN);
        let login = Login {
            url: "ws://127.0.0.1/",
            name: self.name,
            credential: &offer.credential,
            scopes: EVERYTHING,
            device: None,
        };
        let deadline = Instant::now() + patience;
        let stream = covered(stream, self.pin, self.remote_port, deadline).await?;
        let gateway = Gateway::log_in(stream, login, deadline).await?;
        let asked = Instant::now();
        let identity = gateway.identity(patience).await?;
        let welcome = Welcome {
            version: gateway.hello.server.version.clone(),
            protocol: gateway.hello.protocol.into(),
            trip: identity.is_some().then(|| asked.elapsed()),
            identity,
        };
        gateway.close().await;
        Ok(welcome)
    }

    /// The steps of a login that was tried, and the problem if it failed.
    fn judge(
        &self,
        outcome: Result<Welcome, Problem>,
        offer: &Offer,
        took: Option<Duration>,
        steps: &mut Vec<Step>,
    ) -> anyhow::Result<Option<Problem>> {
        let source = |step: Step| step.with("source", offer.source.as_str());
        let welcome = match outcome {
            Ok(welcome) => welcome,
            Err(problem) if problem.class == Class::GatewayRefused => {
                steps.push(Step::ok(Kind::Gateway, took, "answers"));
                let is_missing = offer.credential.is_empty() && wants_secret(&problem);
                let (text, problem) = if is_missing {
                    (
                        "there is none, and the gateway wants one or a paired device".to_owned(),
                        self.missing(problem),
                    )
                } else if offer.credential.is_empty() {
                    ("there is none".to_owned(), problem)
                } else {
                    (format!("{}: refused", offer.source), problem)
                };
                steps.push(source(Step::failed(Kind::Secret, None, text)).with("accepted", false));
                return Ok(Some(problem));
            }
            Err(problem) => {
                steps.push(Step::failed(Kind::Gateway, took, "no gateway answers"));
                return Ok(Some(with_look_over_there(problem, self.remote_port)));
            }
        };
        let mut step = Step::ok(Kind::Gateway, took, welcome.text())
            .with("version", welcome.version.as_str())
            .with("protocol", welcome.protocol.clone())
            .with("rttMs", welcome.trip.map(tenths));
        let saved = Credentials::load(&self.context.paths)?;
        let known = saved.remotes.get(self.name).and_then(|saved| saved.gateway.clone());
        let is_other = known.is_some() && welcome.identity.is_some() && known != welcome.identity;
        if is_other {
            step = Step { text: "another gateway than before answers".to_owned(), ..step };
            step.verdict = Verdict::Failed;
            step.lines.push(Line::plain(welcome.text()));
        }
        steps.push(step);
        let text = if offer.credential.is_empty() {
            "none, and none is wanted".to_owned()
        } else {
            format!("{}: accepted", offer.source)
        };
        steps.push(source(Step::ok(Kind::Secret, None, text)).with("accepted", true));
        Ok(is_other.then(|| other_gateway(self.name)))
    }

    /// The steps where no secret may be sent or can be read: whether a gateway is there can be seen
    /// all the same.
    async fn withheld<S>(&self, forward: Step, stream: S, problem: Problem) -> Visited
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let begun = self.clock.now();
        let deadline = Instant::now() + CHALLENGE;
        let answer = match covered(stream, self.pin, self.remote_port, deadline).await {
            Ok(stream) => client::challenge(stream, CHALLENGE)
                .await
                .map_err(|why| Problem::new(Class::GatewayDown, why.to_string())),
            Err(problem) => Err(problem),
        };
        let took = Some(self.clock.now().saturating_sub(begun));
        if let Err(problem) = answer {
            let gateway = Step::failed(Kind::Gateway, took, "no gateway answers");
            let problem = self.look(problem).await;
            let problem = with_look_over_there(problem, self.remote_port);
            return Visited::failed(vec![forward, gateway], problem);
        }
        let gateway = Step::ok(Kind::Gateway, took, "answers");
        let secret = Step::failed(Kind::Secret, None, "not sent").with("accepted", false);
        Visited::failed(vec![forward, gateway, secret], problem)
    }

    /// What to type where the gateway wants a secret and there is none.
    fn missing(&self, problem: Problem) -> Problem {
        if self.is_saved {
            return problem.fix(format!("openclaw remote connect {} --fetch-token", self.name));
        }
        problem.fix(
            "--token-file FILE; with `connect` also --fetch-token, which reads it over this login",
        )
    }
}

impl Welcome {
    fn text(&self) -> String {
        let trip = self.trip.map(|trip| format!(", {}", answers_in(trip))).unwrap_or_default();
        format!("openclaw {}, protocol {}{trip}", self.version, self.protocol)
    }
}
