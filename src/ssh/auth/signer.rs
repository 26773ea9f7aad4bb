//! Who signs: the agent, or a key file that is unlocked when the server would take its key.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use russh::keys::{
    HashAlg, PrivateKey, signature::Signer as _, ssh_encoding::Encode, ssh_key::Signature,
};
use zeroize::Zeroizing;

use super::login::Context;
use crate::{
    config::handed,
    secret::Secret,
    ssh::{
        agent::{Agent, SignError},
        ask::Question,
        identity::{self, Identity},
        keys::{self, Content, KeyFile},
    },
    tunnel::{Cause, Failure},
};

/// How often a passphrase may be mistyped.
const PASSPHRASE_TRIES: u32 = 3;

/// Who signs.
pub(super) enum Hand<'a> {
    /// The agent, under the identity that it lists.
    Agent { agent: &'a mut Agent, held: &'a Identity },
    /// A key file.
    File { unlocking: Unlocking<'a>, key: Option<Unlocked> },
}

/// A key that is ready to sign.
#[derive(Clone)]
pub(super) struct Unlocked {
    pub(super) key: Arc<PrivateKey>,
    /// Whether a person typed its passphrase.
    pub(super) typed: bool,
}

impl Hand<'_> {
    /// The key of a file, unlocked.
    pub(super) async fn key(&mut self) -> Result<Arc<PrivateKey>, Failure> {
        match self {
            Self::Agent { .. } => Err(Failure::new(Cause::Agent, "the agent keeps its keys")),
            Self::File { key: Some(unlocked), .. } => Ok(Arc::clone(&unlocked.key)),
            Self::File { unlocking, key } => {
                let unlocked = unlocking.key().await?;
                Ok(Arc::clone(&key.insert(unlocked).key))
            }
        }
    }

    /// For people: which key, and whence.
    pub(super) fn shown(&self, identity: &Identity) -> String {
        match self {
            Self::Agent { .. } => format!("{} (agent)", identity::shown(identity)),
            Self::File { unlocking, .. } => {
                let path = unlocking.file.path.display();
                let certificate = identity::is_certificate(identity);
                if certificate { format!("the certificate of {path}") } else { path.to_string() }
            }
        }
    }

    /// The file and its key, if one was used.
    pub(super) fn into_key(self) -> Option<(PathBuf, Unlocked)> {
        match self {
            Self::Agent { .. } => None,
            Self::File { unlocking, key } => Some((unlocking.file.path.clone(), key?)),
        }
    }

    /// Whether the agent seems to have asked a person.
    pub(super) fn needed_person(&self) -> bool {
        match self {
            Self::Agent { agent, .. } => agent.needed_person(),
            Self::File { .. } => false,
        }
    }
}

/// A hand at work; the library asks it for signatures.
pub(super) struct Signing<'a, 'b> {
    pub(super) hand: &'a mut Hand<'b>,
    /// Set while a person may be at it.
    pub(super) busy: &'a AtomicBool,
    /// Why there is no signature, if that is known here.
    pub(super) why: Option<Failure>,
}

impl russh::Signer for Signing<'_, '_> {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        _: &Identity,
        hash: Option<HashAlg>,
        text: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        self.busy.store(true, Ordering::SeqCst);
        let signed = match &mut *self.hand {
            Hand::Agent { agent, held } => agent.sign(held, hash, text).await,
            hand @ Hand::File { .. } => match hand.key().await {
                Ok(key) => signed(&key, hash, text).ok_or(SignError::Refused),
                Err(failure) => {
                    self.why = Some(failure);
                    Err(SignError::Refused)
                }
            },
        };
        self.busy.store(false, Ordering::SeqCst);
        signed
    }
}

/// A key file whose passphrase a person may know.
pub(super) struct Unlocking<'a> {
    context: Context<'a>,
    file: &'a KeyFile,
}

impl<'a> Unlocking<'a> {
    pub(super) fn new(context: Context<'a>, file: &'a KeyFile) -> Self {
        Self { context, file }
    }

    /// The key, after asking for its passphrase if it is locked; kept for the next login unless the
    /// user does not want that.
    async fn key(&self) -> Result<Unlocked, Failure> {
        let text = match &self.file.content {
            Content::Ready(key) => {
                return Ok(Unlocked { key: Arc::clone(key), typed: false });
            }
            Content::Locked(text) => text,
            Content::PublicOnly | Content::Unusable(_) => return Err(self.locked("is not here")),
        };
        if let Some(path) = self.context.hop.passphrase.clone()
            && let Ok(Some(passphrase)) =
                tokio::task::spawn_blocking(move || handed::read(&path)).await
            && let Some(key) = self.unlocked(text, passphrase).await?
        {
            return Ok(Unlocked { key, typed: false });
        }
        for number in 0..PASSPHRASE_TRIES {
            let path = self.file.path.clone();
            let question = Question::Passphrase { path, again: number > 0 };
            let Some(passphrase) = self.context.ask(question).await else {
                return Err(self.locked("is locked by a passphrase"));
            };
            if let Some(key) = self.unlocked(text, passphrase).await? {
                return Ok(Unlocked { key, typed: true });
            }
        }
        Err(self.locked("stays locked: the passphrase was wrong three times"))
    }

    /// The key by this passphrase; `None` if that is the wrong one.
    async fn unlocked(
        &self,
        text: &Zeroizing<String>,
        passphrase: Secret,
    ) -> Result<Option<Arc<PrivateKey>>, Failure> {
        let text = text.clone();
        let unlocking =
            tokio::task::spawn_blocking(move || keys::unlock(&text, passphrase.expose()));
        match unlocking.await {
            Ok(Ok(Some(key))) => {
                if self.context.hop.remember {
                    self.context.keyring.keep(&self.file.path, self.file.modified, &key);
                }
                Ok(Some(key))
            }
            Ok(Err(error)) => {
                let message = format!("the key {} {error}", self.file.path.display());
                let fix = error.fix(&self.file.path);
                Err(Failure::new(Cause::Configuration, message).fix(fix))
            }
            Ok(Ok(None)) | Err(_) => Ok(None),
        }
    }

    fn locked(&self, why: &str) -> Failure {
        let shown = self.file.path.display();
        Failure::new(Cause::NeedsPerson, format!("the key {shown} {why}"))
            .fix(format!("unlock it in the agent: ssh-add {shown}"))
    }
}

/// `text` with its signature (RFC 4253, section 6.6).
fn signed(key: &PrivateKey, hash: Option<HashAlg>, mut text: Vec<u8>) -> Option<Vec<u8>> {
    let signature: Signature = match key.key_data().rsa() {
        Some(pair) => (pair, hash).try_sign(&text).ok()?,
        None => key.try_sign(&text).ok()?,
    };
    signature.encode_vec().ok()?.encode(&mut text).ok()?;
    Some(text)
}
