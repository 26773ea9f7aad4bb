//! Logs in: keys of the agent and of files, then questions and passwords if a person is there.
//!
//! One failed login is the end: the server counts every attempt, and may punish the address for the
//! user's other sessions as well.

use std::{
    collections::HashSet,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use russh::{
    MethodKind, MethodSet,
    client::{AuthResult, Handle, KeyboardInteractiveAuthResponse},
    keys::{
        Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey, agent::AgentIdentity,
    },
};
use tokio::time::{Instant, error::Elapsed, sleep_until, timeout};

use super::{
    agent::{Agent, SignError, public_key},
    ask::{Asker, Question, Stage},
    connect::Watcher,
    dial::plain,
    keyring::Keyring,
    keys::{self, Content, KeyFile, KeyFileError},
    known_hosts,
    observe::{self, Fact, Observer},
    resolve::{Hop, Method},
    session::End,
};
use crate::{
    secret::Secret,
    tunnel::{Cause, Failure},
};

/// How long the server may think about a login; PAM takes its time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a dead session may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How often a passphrase may be mistyped.
const PASSPHRASE_TRIES: u32 = 3;
/// How many rounds of questions a server may ask.
const MOST_ROUNDS: u32 = 20;
/// How many methods a server may want one after the other.
const MOST_METHODS: usize = 8;

/// How a login went well.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The methods that let us in, with commas.
    pub(super) method: String,
    /// Whether a repetition would need a person again.
    pub(super) needed_person: bool,
}

/// Logs in to `hop` over a fresh handshake and gives the handle back.
pub(super) async fn login(
    hop: &Hop,
    handle: Handle<Watcher>,
    end: &End,
    keyring: &Keyring,
    asker: &dyn Asker,
    observer: &dyn Observer,
) -> Result<(Handle<Watcher>, Outcome), Failure> {
    let mut login = Login {
        hop,
        handle,
        end,
        keyring,
        asker,
        observer,
        tried: Vec::new(),
        notes: Vec::new(),
        passed: Vec::new(),
        needed_person: false,
        spent: HashSet::new(),
        rsa: None,
    };
    let methods = login.run().await?;
    match methods {
        None => {
            let method =
                if login.passed.is_empty() { "none".to_owned() } else { login.passed.join(",") };
            let needed_person = login.needed_person;
            Ok((login.handle, Outcome { method, needed_person }))
        }
        Some(methods) => Err(login.refused(&methods)),
    }
}

/// What an attempt led to.
enum Verdict {
    /// We are in.
    In,
    /// Right, and more is wanted: one of these.
    More(MethodSet),
    /// Refused; these are left.
    No(MethodSet),
}

/// A key that may be tried.
enum Candidate {
    Agent(Box<AgentIdentity>),
    File(Box<KeyFile>),
}

/// A login under way.
struct Login<'a> {
    hop: &'a Hop,
    handle: Handle<Watcher>,
    end: &'a End,
    keyring: &'a Keyring,
    asker: &'a dyn Asker,
    observer: &'a dyn Observer,
    /// What the server refused, for people.
    tried: Vec<String>,
    /// Why something could not be tried.
    notes: Vec<Failure>,
    /// Methods that the server was content with.
    passed: Vec<&'static str>,
    needed_person: bool,
    /// Keys that the server has judged.
    spent: HashSet<Vec<u8>>,
    /// The hash for RSA keys once asked for: `None` inside if the server takes no safe one.
    rsa: Option<Option<HashAlg>>,
}

impl Login<'_> {
    /// Tries what the server offers until it lets us in (`None`) or nothing is left (the methods).
    async fn run(&mut self) -> Result<Option<MethodSet>, Failure> {
        self.stage("none");
        let sent = self.handle.authenticate_none(self.hop.user.clone());
        let first = timeout(ANSWER_TIMEOUT, sent).await;
        let first = self.answered(first).await?;
        let mut offered = match self.verdict(first).await? {
            Verdict::In => return Ok(None),
            Verdict::More(methods) | Verdict::No(methods) => methods,
        };
        let mut used: Vec<Method> = Vec::new();
        loop {
            self.observer.fact(Fact::Methods(offered.iter().map(String::from).collect()));
            let next = self
                .hop
                .methods
                .iter()
                .copied()
                .find(|method| offered.contains(&kind(*method)) && !used.contains(method));
            let Some(method) = next else { return Ok(Some(offered)) };
            self.stage(method.name());
            let verdict = match method {
                Method::PublicKey => self.keys(offered.clone()).await?,
                Method::KeyboardInteractive => self.questions(offered.clone()).await?,
                Method::Password => self.password(offered.clone()).await?,
            };
            self.tell_method(method, &verdict);
            match verdict {
                Verdict::In => {
                    self.passed.push(method.name());
                    return Ok(None);
                }
                // The server may want a second key, so this method stays.
                Verdict::More(methods) => {
                    self.passed.push(method.name());
                    offered = methods;
                }
                Verdict::No(methods) => {
                    used.push(method);
                    offered = methods;
                }
            }
            if self.passed.len() > MOST_METHODS {
                return Ok(Some(offered));
            }
        }
    }

    fn stage(&self, method: &str) {
        self.observer.stage(Stage::Authenticating {
            host: self.hop.host.clone(),
            user: self.hop.user.clone(),
            method: method.to_owned(),
        });
    }

    /// Tells what came of a method that keys have not told of already.
    fn tell_method(&self, method: Method, verdict: &Verdict) {
        if method == Method::PublicKey {
            return;
        }
        let answer = if self.hop.batch {
            observe::Answer::NotTried("nobody may be asked".to_owned())
        } else {
            answer(verdict)
        };
        self.observer.fact(Fact::Method { name: method.name(), answer });
    }

    /// Tries every key once.
    async fn keys(&mut self, mut offered: MethodSet) -> Result<Verdict, Failure> {
        let mut agent = self.agent().await;
        let held = agent.as_ref().map(|agent| agent.identities().to_vec()).unwrap_or_default();
        for candidate in self.candidates(&held).await {
            if candidate.blob().is_some_and(|blob| !self.spent.insert(blob)) {
                continue;
            }
            let key = candidate.described();
            let noted = self.notes.len();
            let verdict = match (candidate, agent.as_mut()) {
                (Candidate::Agent(identity), Some(agent)) => {
                    self.agent_key(agent, *identity).await?
                }
                (Candidate::Agent(_), None) => None,
                (Candidate::File(file), _) => self.file_key(*file).await?,
            };
            let answer = verdict.as_ref().map_or_else(|| self.not_tried(noted), answer);
            self.observer.fact(Fact::Key { key, answer });
            match verdict {
                None => {}
                Some(Verdict::No(methods)) => offered = methods,
                Some(verdict) => return Ok(verdict),
            }
            if !offered.contains(&MethodKind::PublicKey) {
                break;
            }
        }
        Ok(Verdict::No(offered))
    }

    /// Why a key was not tried: the first note since there were `noted`.
    fn not_tried(&self, noted: usize) -> observe::Answer {
        let why = self.notes.get(noted).map(|note| note.message.clone());
        observe::Answer::NotTried(why.unwrap_or_else(|| "only its public half is here".to_owned()))
    }

    async fn agent(&mut self) -> Option<Agent> {
        let socket = self.hop.agent.clone()?;
        match Agent::open(&socket, self.handle.agent_session_binding()).await {
            Ok(agent) => {
                let keys = agent.identities().len();
                self.observer.fact(Fact::Agent { socket, keys });
                Some(agent)
            }
            Err(error) => {
                let why = plain(&error);
                self.observer.fact(Fact::AgentFailed { socket: socket.clone(), why });
                self.notes.push(
                    Failure::new(
                        Cause::Agent,
                        format!("the agent at {} {}", socket.display(), plain(&error)),
                    )
                    .fix("start an agent and add the key: eval \"$(ssh-agent)\"; ssh-add"),
                );
                None
            }
        }
    }

    /// The keys in the order in which they are tried: named files first, since the server counts.
    async fn candidates(&mut self, held: &[AgentIdentity]) -> Vec<Candidate> {
        let mut files = Vec::new();
        for path in self.hop.identities.clone() {
            files.extend(self.load(path).await);
        }
        let mut matched = Vec::new();
        let mut own = Vec::new();
        for file in files {
            let same: Vec<&AgentIdentity> = held
                .iter()
                .filter(|held| {
                    let key = public_key(held);
                    file.public.as_ref().is_some_and(|own| own.key_data() == key.key_data())
                })
                .collect();
            if !same.is_empty() {
                matched.extend(same.into_iter().cloned().map(Candidate::held));
            } else if !matches!(file.content, Content::PublicOnly) {
                own.push(Candidate::File(Box::new(file)));
            }
        }
        let of_agent: HashSet<Vec<u8>> = matched.iter().filter_map(Candidate::blob).collect();
        let others: Vec<Candidate> = held
            .iter()
            .filter(|_| !self.hop.identities_only)
            .cloned()
            .map(Candidate::held)
            .filter(|other| other.blob().is_none_or(|blob| !of_agent.contains(&blob)))
            .collect();
        if self.hop.identities_named {
            matched.into_iter().chain(own).chain(others).collect()
        } else {
            matched.into_iter().chain(others).chain(own).collect()
        }
    }

    /// Reads a key file; one that was named and cannot be used is noted.
    async fn load(&mut self, path: PathBuf) -> Option<KeyFile> {
        let reading = {
            let path = path.clone();
            tokio::task::spawn_blocking(move || keys::load(&path))
        };
        let error = match reading.await {
            Ok(Ok(file)) => return Some(file),
            Ok(Err(KeyFileError::Missing)) if !self.hop.identities_named => return None,
            Ok(Err(error)) => error,
            Err(_) => return None,
        };
        let why = observe::Answer::NotTried(error.to_string());
        let key = observe::Key {
            algorithm: None,
            fingerprint: None,
            file: Some(path.clone()),
            in_agent: false,
        };
        self.observer.fact(Fact::Key { key, answer: why });
        let shown = path.display();
        let fix = match &error {
            KeyFileError::Unprotected(_) => format!("chmod 600 {shown}"),
            KeyFileError::SecurityKey => format!("ssh-add {shown}"),
            KeyFileError::Missing => "check the path after -i".to_owned(),
            KeyFileError::Unreadable(_) | KeyFileError::NotAKey => format!("ls -l {shown}"),
        };
        self.notes
            .push(Failure::new(Cause::Configuration, format!("the key {shown} {error}")).fix(fix));
        None
    }

    /// Tries one key of the agent; `None` if it could not be offered.
    async fn agent_key(
        &mut self,
        agent: &mut Agent,
        identity: AgentIdentity,
    ) -> Result<Option<Verdict>, Failure> {
        let public = public_key(&identity);
        let shown = format!("{} (agent)", shown(&public));
        let Some(hash) = self.hash_for(&public, &shown).await? else { return Ok(None) };
        let user = self.hop.user.clone();
        let touch =
            matches!(public.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256);
        let signing = Arc::new(AtomicBool::new(false));
        let mut signer = Announced { agent, signing: Arc::clone(&signing) };
        let trying = async {
            match identity {
                AgentIdentity::PublicKey { key, .. } => {
                    self.handle.authenticate_publickey_with(user, key, hash, &mut signer).await
                }
                AgentIdentity::Certificate { certificate, .. } => {
                    self.handle
                        .authenticate_certificate_with(user, certificate, hash, &mut signer)
                        .await
                }
            }
        };
        self.tried.push(shown.clone());
        let answer = patient(trying, &signing).await;
        match answer {
            None => Err(self.silent()),
            Some(Err(SignError::Lost)) => Err(self.lost().await),
            Some(Err(SignError::Refused)) => {
                self.tried.pop();
                self.notes.push(
                    Failure::new(Cause::Agent, format!("the agent did not sign with {shown}"))
                        .fix("unlock or touch the key when the agent asks, or: ssh-add -l"),
                );
                Ok(None)
            }
            Some(Ok(result)) => {
                let verdict = self.verdict(result).await?;
                if !matches!(verdict, Verdict::No(_)) {
                    self.needed_person |= touch || agent.needed_person();
                }
                Ok(Some(verdict))
            }
        }
    }

    /// Tries one key file, asking for its passphrase only when the server would take the key.
    async fn file_key(&mut self, file: KeyFile) -> Result<Option<Verdict>, Failure> {
        let shown = file.path.display().to_string();
        let key = match &file.content {
            Content::Ready(key) => Some(Arc::clone(key)),
            Content::PublicOnly => None,
            Content::Locked(_) => match self.keyring.key(&file.path, file.modified) {
                Some(key) => Some(key),
                None => match self.wants(&file, &shown).await? {
                    Some(no) => return Ok(Some(no)),
                    None => self.unlock(&file).await,
                },
            },
        };
        let Some(key) = key else { return Ok(None) };
        let Some(hash) = self.hash_for(key.public_key(), &shown).await? else { return Ok(None) };
        self.offer(key, hash, shown).await.map(Some)
    }

    async fn offer(
        &mut self,
        key: Arc<PrivateKey>,
        hash: Option<HashAlg>,
        shown: String,
    ) -> Result<Verdict, Failure> {
        self.tried.push(shown);
        let key = PrivateKeyWithHashAlg::new(key, hash);
        let trying = self.handle.authenticate_publickey(self.hop.user.clone(), key);
        let result = timeout(ANSWER_TIMEOUT, trying).await;
        let result = self.answered(result).await?;
        self.verdict(result).await
    }

    /// Asks the server whether it would take a locked key; its refusal if not.
    async fn wants(&mut self, file: &KeyFile, shown: &str) -> Result<Option<Verdict>, Failure> {
        let Some(public) = file.public.clone() else { return Ok(None) };
        let Some(hash) = self.hash_for(&public, shown).await? else { return Ok(None) };
        let user = self.hop.user.clone();
        self.tried.push(shown.to_owned());
        let mut unsigned = Unsigned;
        let trying = self.handle.authenticate_publickey_with(user, public, hash, &mut unsigned);
        match timeout(ANSWER_TIMEOUT, trying).await {
            Err(_) => Err(self.silent()),
            Ok(Err(SignError::Refused)) => {
                self.tried.pop();
                Ok(None)
            }
            Ok(Err(SignError::Lost)) => Err(self.lost().await),
            Ok(Ok(result)) => self.verdict(result).await.map(Some),
        }
    }

    /// Asks for the passphrase; `None`, and a note, if nobody knows it.
    async fn unlock(&mut self, file: &KeyFile) -> Option<Arc<PrivateKey>> {
        let Content::Locked(text) = &file.content else { return None };
        let path = &file.path;
        for number in 0..PASSPHRASE_TRIES {
            let question = Question::Passphrase { path: path.clone(), again: number > 0 };
            let Some(passphrase) = self.ask(question).await else { break };
            let text = text.clone();
            let unlocking =
                tokio::task::spawn_blocking(move || keys::unlock(&text, passphrase.expose()));
            if let Ok(Some(key)) = unlocking.await {
                self.keyring.keep(path, file.modified, &key);
                return Some(key);
            }
        }
        let shown = path.display();
        self.notes.push(
            Failure::new(Cause::NeedsPerson, format!("the key {shown} is locked by a passphrase"))
                .fix(format!("unlock it in the agent: ssh-add {shown}")),
        );
        None
    }

    /// The questions of keyboard-interactive (RFC 4256).
    async fn questions(&mut self, offered: MethodSet) -> Result<Verdict, Failure> {
        if self.hop.batch {
            return Ok(Verdict::No(offered));
        }
        let user = self.hop.user.clone();
        self.tried.push("answers to its questions".to_owned());
        let start = self.handle.authenticate_keyboard_interactive_start(user, None);
        let mut reply = timeout(ANSWER_TIMEOUT, start).await;
        for _ in 0..MOST_ROUNDS {
            let (name, instructions, prompts) = match self.answered(reply).await? {
                KeyboardInteractiveAuthResponse::Success => {
                    return self.verdict(AuthResult::Success).await;
                }
                KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                    let result = AuthResult::Failure { remaining_methods, partial_success };
                    return self.verdict(result).await;
                }
                KeyboardInteractiveAuthResponse::InfoRequest { name, instructions, prompts } => {
                    (name, instructions, prompts)
                }
            };
            let mut answers = Vec::new();
            for prompt in prompts {
                self.needed_person = true;
                let question = Question::Interactive {
                    host: self.hop.host.clone(),
                    name: name.clone(),
                    instructions: instructions.clone(),
                    prompt: prompt.prompt,
                    echo: prompt.echo,
                };
                let Some(answer) = self.ask(question).await else {
                    return Err(self.needs_person("asks questions"));
                };
                answers.push(answer.expose().to_owned());
            }
            let respond = self.handle.authenticate_keyboard_interactive_respond(answers);
            reply = timeout(ANSWER_TIMEOUT, respond).await;
        }
        Err(Failure::new(
            Cause::Protocol,
            format!("{} asks without end while logging in", self.hop.place()),
        ))
    }

    async fn password(&mut self, mut offered: MethodSet) -> Result<Verdict, Failure> {
        if self.hop.batch {
            return Ok(Verdict::No(offered));
        }
        for number in 0..self.hop.password_prompts {
            let question = Question::Password {
                user: self.hop.user.clone(),
                host: self.hop.host.clone(),
                again: number > 0,
            };
            self.needed_person = true;
            let Some(password) = self.ask(question).await else {
                return Err(self.needs_person("wants a password"));
            };
            self.tried.push("a password".to_owned());
            let trying =
                self.handle.authenticate_password(self.hop.user.clone(), password.expose());
            let result = timeout(ANSWER_TIMEOUT, trying).await;
            let result = self.answered(result).await?;
            match self.verdict(result).await? {
                Verdict::No(methods) => {
                    offered = methods;
                    if !offered.contains(&MethodKind::Password) {
                        break;
                    }
                }
                verdict @ (Verdict::In | Verdict::More(_)) => return Ok(verdict),
            }
        }
        Ok(Verdict::No(offered))
    }

    async fn ask(&self, question: Question) -> Option<Secret> {
        if self.hop.batch {
            return None;
        }
        self.asker.ask(question).await
    }

    /// The hash for a key's signatures; `None` if the server wants RSA with SHA-1.
    async fn hash_for(
        &mut self,
        key: &PublicKey,
        shown: &str,
    ) -> Result<Option<Option<HashAlg>>, Failure> {
        if !key.algorithm().is_rsa() {
            return Ok(Some(None));
        }
        if self.rsa.is_none() {
            let asked = timeout(ANSWER_TIMEOUT, self.handle.best_supported_rsa_hash()).await;
            self.rsa = Some(match self.answered(asked).await? {
                // A server that does not say (before OpenSSH 7.2) takes SHA-2 or nothing of ours.
                None => Some(HashAlg::Sha512),
                Some(hash) => hash,
            });
        }
        let hash = self.rsa.flatten();
        if hash.is_none() {
            self.notes.push(Failure::new(
                Cause::Authentication,
                format!("the RSA key {shown} was not tried: the server wants it with SHA-1"),
            ));
        }
        Ok(hash.map(Some))
    }

    /// The library's answer, or what its absence means.
    async fn answered<T, E>(&self, answer: Result<Result<T, E>, Elapsed>) -> Result<T, Failure> {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.lost().await),
            Err(_) => Err(self.silent()),
        }
    }

    /// What an answer means; a link that was cut looks like a refusal without methods.
    async fn verdict(&mut self, result: AuthResult) -> Result<Verdict, Failure> {
        match result {
            AuthResult::Success => Ok(Verdict::In),
            AuthResult::Failure { remaining_methods, partial_success: true } => {
                // What was tried last was not refused.
                self.tried.pop();
                Ok(Verdict::More(remaining_methods))
            }
            AuthResult::Failure { remaining_methods, partial_success: false } => {
                if self.end.is_over() || self.handle.is_closed() {
                    return Err(self.lost().await);
                }
                Ok(Verdict::No(remaining_methods))
            }
        }
    }

    /// The failure of a session that died under the login.
    async fn lost(&self) -> Failure {
        let cause = timeout(LAST_WORDS, self.end.wait()).await;
        let failure = cause.unwrap_or_else(|_| self.broke());
        if failure.cause == Cause::Authentication {
            return self.refused(&MethodSet::empty());
        }
        if failure.message.to_lowercase().contains("too many authentication failures") {
            return Failure::new(
                Cause::Authentication,
                format!(
                    "{} ended the login after too many keys; it refused {}",
                    self.hop.place(),
                    self.tried.join(", ")
                ),
            )
            .fix("name the right key: -i FILE -o IdentitiesOnly=yes");
        }
        failure
    }

    fn broke(&self) -> Failure {
        Failure::new(
            Cause::LinkLost,
            format!("the connection to {} broke during the login", self.hop.place()),
        )
    }

    fn silent(&self) -> Failure {
        Failure::new(
            Cause::HandshakeTimedOut,
            format!(
                "{} said nothing during the login for {} s",
                self.hop.place(),
                ANSWER_TIMEOUT.as_secs()
            ),
        )
    }

    fn needs_person(&self, what: &str) -> Failure {
        Failure::new(
            Cause::NeedsPerson,
            format!("{} {what}, and nobody is there to answer", self.hop.place()),
        )
        .fix(format!("openclaw remote connect {} on a terminal, or use a key", self.hop.label()))
    }

    /// What to say when nothing is left to try.
    fn refused(&self, offered: &MethodSet) -> Failure {
        let methods: Vec<String> = offered.iter().map(String::from).collect();
        let methods = if methods.is_empty() { "nothing".to_owned() } else { methods.join(", ") };
        let person = self.notes.iter().find(|note| note.cause == Cause::NeedsPerson);
        let other = self.notes.iter().find(|note| note.cause != Cause::Authentication);
        if self.tried.is_empty()
            && let Some(note) = person.or(other)
        {
            return note.clone();
        }
        let tried = if self.tried.is_empty() {
            "there was no key to try".to_owned()
        } else {
            format!("refused: {}", self.tried.join(", "))
        };
        let notes: Vec<String> =
            self.notes.iter().map(|note| format!("; {}", note.message)).collect();
        let message = format!(
            "{} did not let {} in; it offers {methods}; {tried}{}",
            self.hop.place(),
            self.hop.user,
            notes.concat()
        );
        match person {
            Some(note) => Failure { message, ..note.clone() },
            None => Failure::new(Cause::Authentication, message).fix(format!(
                "name the right key with -i FILE or add it with ssh-add; to install one over \
                 there: ssh-copy-id -p {} {}@{}",
                self.hop.port, self.hop.user, self.hop.host
            )),
        }
    }
}

impl Candidate {
    fn held(identity: AgentIdentity) -> Self {
        Self::Agent(Box::new(identity))
    }

    /// The SSH wire form of the public key, if it is known yet.
    fn blob(&self) -> Option<Vec<u8>> {
        match self {
            Self::Agent(identity) => public_key(identity).to_bytes().ok(),
            Self::File(file) => file.public.as_ref()?.to_bytes().ok(),
        }
    }

    /// As reports name it.
    fn described(&self) -> observe::Key {
        let (public, file) = match self {
            Self::Agent(identity) => (Some(public_key(identity)), None),
            Self::File(file) => (file.public.clone(), Some(file.path.clone())),
        };
        let blob = public.as_ref().and_then(|key| key.to_bytes().ok());
        observe::Key {
            algorithm: public.map(|key| key.algorithm().to_string()),
            fingerprint: blob.map(|blob| known_hosts::fingerprint(&blob)),
            file,
            in_agent: matches!(self, Self::Agent(_)),
        }
    }
}

/// A verdict without the methods that are left.
fn answer(verdict: &Verdict) -> observe::Answer {
    match verdict {
        Verdict::In => observe::Answer::Accepted,
        Verdict::More(_) => observe::Answer::Partly,
        Verdict::No(_) => observe::Answer::Refused,
    }
}

/// The agent, saying when it is at work: it may wait for a person then.
struct Announced<'a> {
    agent: &'a mut Agent,
    signing: Arc<AtomicBool>,
}

impl russh::Signer for Announced<'_> {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        key: &AgentIdentity,
        hash: Option<HashAlg>,
        text: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        self.signing.store(true, Ordering::SeqCst);
        let signed = self.agent.auth_sign(key, hash, text).await;
        self.signing.store(false, Ordering::SeqCst);
        signed
    }
}

/// Never signs: finds out whether the server would take a key.
struct Unsigned;

impl russh::Signer for Unsigned {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _: &AgentIdentity,
        _: Option<HashAlg>,
        _: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        Err(SignError::Refused)
    }
}

/// Waits for the server's answer, without counting the time in which a person may be asked.
async fn patient<T>(trying: impl Future<Output = T>, signing: &AtomicBool) -> Option<T> {
    let mut trying = std::pin::pin!(trying);
    let mut deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        tokio::select! {
            answer = &mut trying => return Some(answer),
            () = sleep_until(deadline) => {
                if !signing.load(Ordering::SeqCst) {
                    return None;
                }
                deadline = Instant::now() + ANSWER_TIMEOUT;
            }
        }
    }
}

fn kind(method: Method) -> MethodKind {
    match method {
        Method::PublicKey => MethodKind::PublicKey,
        Method::KeyboardInteractive => MethodKind::KeyboardInteractive,
        Method::Password => MethodKind::Password,
    }
}

/// A key for people: its type and fingerprint.
fn shown(key: &PublicKey) -> String {
    let fingerprint = key.to_bytes().map(|blob| known_hosts::fingerprint(&blob));
    format!("{} {}", key.algorithm(), fingerprint.unwrap_or_default())
}
