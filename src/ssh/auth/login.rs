//! Method after method, until the server lets us in or nothing is left.
//!
//! One failed login is the end: the server counts every attempt, and may punish the address for the
//! user's other sessions as well.

use std::{collections::HashSet, time::Duration};

use russh::{
    MethodKind, MethodSet,
    client::{AuthResult, Handle},
};
use tokio::time::{error::Elapsed, timeout};

use super::{accepted::ServerRsa, refusal::Story};
use crate::{
    secret::Secret,
    ssh::{
        ask::{Asker, Question, Stage},
        identity::Identity,
        keyring::{Keyring, WayIn},
        observe::{Answer, Fact, Observer},
        resolve::{Hop, Method},
        session::End,
        watcher::Watcher,
    },
    tunnel::{Cause, Failure},
};

/// How long the server may think about a login; PAM takes its time.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a dead session may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How many methods a server may want one after the other.
const MOST_METHODS: usize = 8;
/// `MaxAuthTries` of sshd_config(5) where nobody says otherwise; the refusal with this number ends
/// the connection.
pub(super) const USUAL_TRIES: usize = 6;

/// What a login needs beside its session.
#[derive(Clone, Copy)]
pub(in crate::ssh) struct Context<'a> {
    /// Where and as whom.
    pub(in crate::ssh) hop: &'a Hop,
    /// Under which name the keyring remembers the server.
    pub(in crate::ssh) route: &'a str,
    /// How the session ends.
    pub(in crate::ssh) end: &'a End,
    /// What is remembered.
    pub(in crate::ssh) keyring: &'a Keyring,
    /// Who answers questions.
    pub(in crate::ssh) asker: &'a dyn Asker,
    /// Who is told how far it is, and what came of it.
    pub(in crate::ssh) observer: &'a dyn Observer,
}

/// How a login went well.
#[derive(Debug)]
pub(in crate::ssh) struct Outcome {
    /// The methods that let us in, with commas.
    pub(in crate::ssh) method: String,
    /// Whether a repetition would need a person again.
    pub(in crate::ssh) needed_person: bool,
}

/// Logs in over a fresh handshake and gives the handle back.
pub(in crate::ssh) async fn login(
    context: Context<'_>,
    handle: Handle<Watcher>,
) -> Result<(Handle<Watcher>, Outcome), Failure> {
    let mut login = Login {
        context,
        handle,
        story: Story::default(),
        way_in: WayIn::default(),
        needed_person: false,
        spent: HashSet::new(),
        declined: Vec::new(),
        rsa: None,
    };
    if let Some(methods) = login.run().await? {
        return Err(login.refused(&methods));
    }
    context.keyring.note_way_in(context.route, login.way_in);
    let method = match login.story.passed.as_slice() {
        [] => "none".to_owned(),
        passed => passed.join(","),
    };
    Ok((login.handle, Outcome { method, needed_person: login.needed_person }))
}

/// What an attempt led to.
pub(super) enum Verdict {
    /// We are in.
    In,
    /// Right, and more is wanted: one of these.
    More(MethodSet),
    /// Refused; these are left.
    No(MethodSet),
}

/// A login under way.
pub(super) struct Login<'a> {
    pub(super) context: Context<'a>,
    pub(super) handle: Handle<Watcher>,
    pub(super) story: Story,
    pub(super) way_in: WayIn,
    pub(super) needed_person: bool,
    /// Wire forms of what the server has judged.
    pub(super) spent: HashSet<Vec<u8>>,
    /// Keys with which the agent did not sign: nobody is asked to touch one twice.
    pub(super) declined: Vec<Identity>,
    /// What the server takes of RSA, once asked for.
    pub(super) rsa: Option<ServerRsa>,
}

impl Login<'_> {
    /// Tries what the server offers until it lets us in (`None`) or nothing is left (the methods).
    async fn run(&mut self) -> Result<Option<MethodSet>, Failure> {
        self.stage("none");
        let sent = self.handle.authenticate_none(self.context.hop.user.clone());
        let first = timeout(ANSWER_TIMEOUT, sent).await;
        let first = self.answered(first).await?;
        let mut offered = match self.verdict(first).await? {
            Verdict::In => return Ok(None),
            Verdict::More(methods) | Verdict::No(methods) => methods,
        };
        // It was no more than the question for the methods.
        self.story.counted = 0;
        let mut used: Vec<Method> = Vec::new();
        loop {
            self.tell(Fact::Methods(offered.iter().map(String::from).collect()));
            // The keys that were put off come last, if the server is still there.
            let put_off = self.story.unoffered > 0 && offered.contains(&MethodKind::PublicKey);
            let next = self.next_method(&offered, &used);
            let Some(method) = next.or(put_off.then_some(Method::PublicKey)) else {
                return Ok(Some(offered));
            };
            used.push(method);
            if self.context.hop.batch && method != Method::PublicKey {
                let answer = Answer::NotTried("nobody may be asked".to_owned());
                self.tell(Fact::Method { name: method.name(), answer });
                continue;
            }
            self.stage(method.name());
            let verdict = match method {
                Method::PublicKey => self.keys(offered.clone(), &used).await?,
                Method::KeyboardInteractive => self.questions(offered.clone()).await?,
                Method::Password => self.password(offered.clone()).await?,
            };
            if method != Method::PublicKey {
                self.tell(Fact::Method { name: method.name(), answer: answer(&verdict) });
            }
            match verdict {
                Verdict::In => {
                    self.story.passed.push(method.name());
                    return Ok(None);
                }
                Verdict::More(methods) => {
                    self.story.passed.push(method.name());
                    offered = methods;
                    // The server may want a second key.
                    used.retain(|used| *used != method);
                }
                Verdict::No(methods) => offered = methods,
            }
            if self.story.passed.len() > MOST_METHODS {
                return Ok(Some(offered));
            }
        }
    }

    /// The first of our methods that the server offers and that was not used up.
    pub(super) fn next_method(&self, offered: &MethodSet, used: &[Method]) -> Option<Method> {
        let hop = self.context.hop;
        let mut methods = hop.methods.iter().copied();
        methods.find(|method| offered.contains(&kind(*method)) && !used.contains(method))
    }

    fn stage(&self, method: &str) {
        self.context.observer.stage(Stage::Authenticating {
            host: self.context.hop.host.clone(),
            user: self.context.hop.user.clone(),
            method: method.to_owned(),
        });
    }

    pub(super) fn tell(&self, fact: Fact) {
        self.context.observer.fact(fact);
    }

    pub(super) async fn ask(&self, question: Question) -> Option<Secret> {
        self.context.ask(question).await
    }

    /// The library's answer, or what its absence means.
    pub(super) async fn answered<T, E>(
        &self,
        answer: Result<Result<T, E>, Elapsed>,
    ) -> Result<T, Failure> {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.lost().await),
            Err(_) => Err(self.silent()),
        }
    }

    /// What an answer means; a link that was cut looks like a refusal without methods.
    pub(super) async fn verdict(&mut self, result: AuthResult) -> Result<Verdict, Failure> {
        match result {
            AuthResult::Success => {
                self.story.tried.pop();
                Ok(Verdict::In)
            }
            AuthResult::Failure { remaining_methods, partial_success: true } => {
                // What was tried last was not refused.
                self.story.tried.pop();
                Ok(Verdict::More(remaining_methods))
            }
            AuthResult::Failure { remaining_methods, partial_success: false } => {
                self.story.counted += 1;
                let over = self.context.end.is_over() || self.handle.is_closed();
                if over || remaining_methods.is_empty() {
                    return Err(self.lost().await);
                }
                Ok(Verdict::No(remaining_methods))
            }
        }
    }

    /// The failure of a session that died under the login.
    pub(super) async fn lost(&self) -> Failure {
        let cause = timeout(LAST_WORDS, self.context.end.wait()).await;
        let failure = cause.unwrap_or_else(|_| self.broke());
        if failure.cause == Cause::Authentication {
            return self.refused(&MethodSet::empty());
        }
        let said = failure.message.to_lowercase().contains("too many authentication failures");
        // Not every server says so before it hangs up.
        if said || self.story.counted + 1 >= USUAL_TRIES {
            return self.story.thrown_out(self.context.hop);
        }
        failure
    }

    fn broke(&self) -> Failure {
        Failure::new(
            Cause::LinkLost,
            format!("the connection to {} broke during the login", self.context.hop.place()),
        )
    }

    pub(super) fn silent(&self) -> Failure {
        Failure::new(
            Cause::HandshakeTimedOut,
            format!(
                "{} said nothing during the login for {} s",
                self.context.hop.place(),
                ANSWER_TIMEOUT.as_secs()
            ),
        )
    }

    /// What to say when nothing is left to try.
    pub(super) fn refused(&self, offered: &MethodSet) -> Failure {
        let offered: Vec<String> = offered.iter().map(String::from).collect();
        self.story.refusal(self.context.hop, &offered)
    }
}

impl Context<'_> {
    /// Asks a person, unless nobody may be asked.
    pub(super) async fn ask(&self, question: Question) -> Option<Secret> {
        if self.hop.batch {
            return None;
        }
        self.asker.ask(question).await
    }
}

/// A verdict without the methods that are left.
pub(super) fn answer(verdict: &Verdict) -> Answer {
    match verdict {
        Verdict::In => Answer::Accepted,
        Verdict::More(_) => Answer::Partly,
        Verdict::No(_) => Answer::Refused,
    }
}

fn kind(method: Method) -> MethodKind {
    match method {
        Method::PublicKey => MethodKind::PublicKey,
        Method::KeyboardInteractive => MethodKind::KeyboardInteractive,
        Method::Password => MethodKind::Password,
    }
}
