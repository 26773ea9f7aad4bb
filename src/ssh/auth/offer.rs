//! Offers keys, one after the other: each is shown first, and signed with only if the server would
//! take it. So nobody is asked for a passphrase or a touch in vain.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use russh::{
    MethodKind, MethodSet,
    keys::{HashAlg, PrivateKey},
};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    accepted::{Accepted, ServerRsa},
    gather::described,
    login::{ANSWER_TIMEOUT, Login, USUAL_TRIES, Verdict, answer},
    order::{By, Candidate},
    signer::{Hand, Signing, Unlocking},
};
use crate::{
    ssh::{
        agent::{Agent, SignError},
        ask::Question,
        identity::{self, Identity},
        keys::KeyFile,
        observe::{Answer, Fact},
        resolve::Method,
        rsa_size,
    },
    tunnel::{Cause, Failure},
};

impl Login<'_> {
    /// Offers every key once.
    pub(super) async fn keys(
        &mut self,
        mut offered: MethodSet,
        used: &[Method],
    ) -> Result<Verdict, Failure> {
        self.story.unoffered = 0;
        let mut agent = self.agent().await;
        let files = self.files().await;
        let held = agent.as_ref().map(|agent| agent.identities().to_vec()).unwrap_or_default();
        let candidates = self.candidates(&files, &held).await;
        let total = candidates.len();
        for (place, candidate) in candidates.into_iter().enumerate() {
            let left = total - place;
            if self.must_stop(total, &offered, used) {
                self.story.unoffered = left;
                break;
            }
            self.story.unoffered = left - 1;
            let verdict = self.offer(&candidate, &files, agent.as_mut()).await?;
            match verdict {
                None => {}
                Some(Verdict::No(methods)) => offered = methods,
                Some(verdict) => {
                    self.story.unoffered = 0;
                    return Ok(verdict);
                }
            }
            if !offered.contains(&MethodKind::PublicKey) {
                break;
            }
        }
        Ok(Verdict::No(offered))
    }

    /// Whether one more refusal would end the login while there is another way in.
    fn must_stop(&self, total: usize, offered: &MethodSet, used: &[Method]) -> bool {
        total > USUAL_TRIES
            && self.story.counted + 1 >= USUAL_TRIES
            && self.next_method(offered, used).is_some()
    }

    /// Offers one key and tells what came of it; `None` if it could not be offered.
    async fn offer(
        &mut self,
        candidate: &Candidate,
        files: &[KeyFile],
        agent: Option<&mut Agent>,
    ) -> Result<Option<Verdict>, Failure> {
        let noted = self.story.notes.len();
        let outcome = self.try_key(candidate, files, agent).await;
        let answer = match &outcome {
            Ok(Some(verdict)) => Some(answer(verdict)),
            // With this one the server lost its patience.
            Err(failure) if failure.cause == Cause::Authentication => Some(Answer::Refused),
            Err(_) => None,
            // The first note since says why; without one the server has judged it before.
            Ok(None) => {
                let note = self.story.notes.get(noted);
                note.map(|note| Answer::NotTried(note.failure.message.clone()))
            }
        };
        if let Some(answer) = answer {
            let in_agent = matches!(candidate.by, By::Agent(_));
            let mut key = described(candidate.identity.as_ref(), files, in_agent);
            if let By::File(place) = candidate.by {
                key.file = files.get(place).map(|file| file.path.clone());
            }
            self.tell(Fact::Key { key, answer });
        }
        outcome
    }

    async fn try_key(
        &mut self,
        candidate: &Candidate,
        files: &[KeyFile],
        mut agent: Option<&mut Agent>,
    ) -> Result<Option<Verdict>, Failure> {
        let Some(mut hand) = self.hand(&candidate.by, files, agent.as_deref_mut()) else {
            return Ok(None);
        };
        let identity = match &candidate.identity {
            Some(identity) => identity.clone(),
            // Nothing shows whose key it is before it is unlocked.
            None => match hand.key().await {
                Ok(key) => key.public_key().clone().into(),
                Err(failure) => {
                    self.story.decisive(failure);
                    return Ok(None);
                }
            },
        };
        let shown = hand.shown(&identity);
        if self.is_too_short(&identity, &shown) {
            return Ok(None);
        }
        let Some(hash) = self.hash(&identity, &shown).await? else { return Ok(None) };
        if !self.is_fresh(&identity) {
            return Ok(None);
        }
        let verdict = self.attempt(&identity, hash, &shown, &mut hand).await?;
        if let Some(Verdict::In | Verdict::More(_)) = &verdict {
            self.way_in.by_agent |= matches!(candidate.by, By::Agent(_));
            self.way_in.blobs.extend(identity::blob(&identity));
            self.needed_person |= hand.needed_person() || identity::needs_touch(&identity);
            if let Some((path, unlocked)) = hand.into_key() {
                let added = self.add_to_agent(agent, &path, &unlocked.key).await;
                self.needed_person |= unlocked.typed && !self.context.hop.remember && !added;
            }
        }
        Ok(verdict)
    }

    /// Whether a key is shorter than the configuration allows; a note says so.
    fn is_too_short(&mut self, identity: &Identity, shown: &str) -> bool {
        let key = identity::key(identity).to_bytes().unwrap_or_default();
        let flaw = rsa_size::flaw(self.context.hop, &key);
        if let Some(flaw) = &flaw {
            let message = format!("{shown} {flaw}");
            self.story.aside(Failure::new(Cause::Authentication, message));
        }
        flaw.is_some()
    }

    /// Who signs for a candidate.
    fn hand<'h>(
        &self,
        by: &'h By,
        files: &'h [KeyFile],
        agent: Option<&'h mut Agent>,
    ) -> Option<Hand<'h>>
    where
        Self: 'h,
    {
        match by {
            By::Agent(held) => agent.map(|agent| Hand::Agent { agent, held }),
            By::File(place) => {
                let unlocking = Unlocking::new(self.context, files.get(*place)?);
                Some(Hand::File { unlocking, key: None })
            }
        }
    }

    /// Whether neither the server nor a person has said no to it in this login.
    fn is_fresh(&mut self, identity: &Identity) -> bool {
        let declined = self.declined.iter().any(|known| identity::same_key(known, identity));
        !declined && identity::blob(identity).is_some_and(|blob| self.spent.insert(blob))
    }

    /// Shows the key, and signs if the server would take it; `None` if there was no signature.
    async fn attempt(
        &mut self,
        identity: &Identity,
        hash: Option<HashAlg>,
        shown: &str,
        hand: &mut Hand<'_>,
    ) -> Result<Option<Verdict>, Failure> {
        self.story.tried.push(shown.to_owned());
        let busy = AtomicBool::new(false);
        let mut signing = Signing { hand, busy: &busy, why: None };
        let user = self.context.hop.user.clone();
        let trying = async {
            match identity.clone() {
                Identity::PublicKey { key, .. } => {
                    self.handle.authenticate_publickey_with(user, key, hash, &mut signing).await
                }
                Identity::Certificate { certificate, .. } => {
                    self.handle
                        .authenticate_certificate_with(user, certificate, hash, &mut signing)
                        .await
                }
            }
        };
        let answer = patient(Box::pin(trying), &busy).await;
        let why = signing.why.take();
        match answer {
            None => Err(self.silent()),
            Some(Err(SignError::Lost)) => Err(self.lost().await),
            Some(Err(error @ (SignError::Refused | SignError::Late))) => {
                self.story.tried.pop();
                self.declined.push(identity.clone());
                let failure = why.unwrap_or_else(|| unsigned(shown, identity, error));
                self.story.decisive(failure);
                Ok(None)
            }
            Some(Ok(result)) => self.verdict(result).await.map(Some),
        }
    }

    /// Gives the agent the key of a file, if the user wants that; whether it has it now.
    async fn add_to_agent(&self, agent: Option<&mut Agent>, path: &Path, key: &PrivateKey) -> bool {
        let (Some(agent), Some(how)) = (agent, self.context.hop.add_keys_to_agent) else {
            return false;
        };
        if how.ask {
            let question = Question::AddToAgent { path: path.to_owned() };
            let answer = self.ask(question).await;
            if !answer.is_some_and(|answer| answer.expose().eq_ignore_ascii_case("yes")) {
                return false;
            }
        }
        let added = agent.add(key, how).await;
        if !added {
            tracing::debug!(key = %path.display(), "the agent did not take the key");
        }
        added
    }

    /// The hash for a key's signatures; `None` if ours and the server's have none in common.
    async fn hash(
        &mut self,
        identity: &Identity,
        shown: &str,
    ) -> Result<Option<Option<HashAlg>>, Failure> {
        if !identity::key(identity).algorithm().is_rsa() {
            return Ok(Some(None));
        }
        let server = match self.rsa {
            Some(server) => server,
            None => {
                let asked = timeout(ANSWER_TIMEOUT, self.handle.best_supported_rsa_hash()).await;
                let best = self.answered(asked).await?;
                *self.rsa.insert(best.map_or(ServerRsa::Silent, ServerRsa::Best))
            }
        };
        let hash = Accepted(&self.context.hop.algorithms.public_key).hash(identity, server);
        if hash.is_none() {
            let wants = match server {
                ServerRsa::Best(None) => "the server wants it with SHA-1, which is broken",
                ServerRsa::Best(Some(_)) | ServerRsa::Silent => {
                    "PubkeyAcceptedAlgorithms leaves no hash that the server takes"
                }
            };
            self.story.aside(Failure::new(
                Cause::Authentication,
                format!("the RSA key {shown} was not tried: {wants}"),
            ));
        }
        Ok(hash)
    }
}

/// What it means that the agent did not sign with a key that the server would take.
fn unsigned(shown: &str, identity: &Identity, error: SignError) -> Failure {
    let touch = identity::needs_touch(identity);
    let (why, fix) = match (touch, error) {
        (true, SignError::Late) => ("was not touched in time", "connect again and touch the key"),
        (true, _) => (
            "did not sign: it was not touched, or is not plugged in",
            "plug the key in, connect again and touch it when it blinks",
        ),
        (false, SignError::Late) => (
            "was not used: the agent did not answer in time",
            "answer the agent's question, or start the agent again",
        ),
        (false, _) => (
            "was not used: the agent refused to sign",
            "allow it when the agent asks; unlock a locked one: ssh-add -X; look: ssh-add -T FILE",
        ),
    };
    Failure::new(Cause::Agent, format!("the key {shown} {why}")).fix(fix)
}

/// Waits for the server's answer, without counting the time in which a person may be asked.
async fn patient<T>(mut trying: impl Future<Output = T> + Unpin, busy: &AtomicBool) -> Option<T> {
    let mut deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        tokio::select! {
            answer = &mut trying => return Some(answer),
            () = sleep_until(deadline) => {
                if !busy.load(Ordering::SeqCst) {
                    return None;
                }
                deadline = Instant::now() + ANSWER_TIMEOUT;
            }
        }
    }
}
