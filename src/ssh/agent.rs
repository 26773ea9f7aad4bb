//! The ssh-agent: which keys it holds, and signatures by them.
//!
//! Protocol: draft-ietf-sshm-ssh-agent. The list is read here and not by the library, which gives up
//! on all keys when it cannot read one.

use std::{io, path::Path, time::Duration};

use russh::keys::{
    HashAlg, PrivateKey,
    agent::{
        AgentSessionBinding, Constraint,
        client::{AgentClient, AgentStream},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, timeout},
};

use super::{
    identity::{self, Identity},
    resolve::AddToAgent,
};

/// How long the agent may take for what needs no person.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a person may take to touch a key or confirm its use.
const TOUCH_TIMEOUT: Duration = Duration::from_secs(120);
/// A signature that took longer than this has waited for a person.
const NOT_BY_MACHINE: Duration = Duration::from_millis(1500);
/// The longest list that is read.
const LIST_LIMIT: u32 = 1 << 20;
/// `SSH_AGENTC_REQUEST_IDENTITIES` in its frame.
const REQUEST_IDENTITIES: [u8; 5] = [0, 0, 0, 1, 11];
/// `SSH_AGENT_IDENTITIES_ANSWER`.
const IDENTITIES_ANSWER: u8 = 12;

/// An open connection to an agent.
pub(super) struct Agent {
    client: AgentClient<Box<dyn AgentStream + Send + Unpin>>,
    identities: Vec<Identity>,
    /// Whether it took the binding to this session.
    bound: bool,
    needed_person: bool,
    /// Whether an answer is overdue: it would be taken for the next one.
    out_of_step: bool,
}

impl Agent {
    /// Connects, binds the agent to this session (restricted keys want that) and lists its keys.
    pub(super) async fn open(
        socket: &Path,
        binding: Option<&AgentSessionBinding>,
    ) -> io::Result<Self> {
        match Self::open_bound(socket, binding).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(error),
            // Some agents hang up on an extension that they do not know.
            Err(_) if binding.is_some() => Self::open_bound(socket, None).await,
            outcome => outcome,
        }
    }

    async fn open_bound(socket: &Path, binding: Option<&AgentSessionBinding>) -> io::Result<Self> {
        let opening = async {
            let mut client = AgentClient::connect(UnixStream::connect(socket).await?);
            // An agent that does not know the extension refuses it and has no restricted keys.
            let bound = match binding {
                Some(binding) => client.bind_session(binding, false).await.is_ok(),
                None => false,
            };
            let mut stream = client.into_inner();
            let identities = list(&mut stream).await?;
            let client = AgentClient::connect(stream);
            Ok(Self { client, identities, bound, needed_person: false, out_of_step: false })
        };
        timeout(ANSWER_TIMEOUT, opening).await.unwrap_or_else(|_| {
            let why = format!("does not answer within {} s", ANSWER_TIMEOUT.as_secs());
            Err(io::Error::new(io::ErrorKind::TimedOut, why))
        })
    }

    /// The keys and certificates that can be read, in the agent's order.
    pub(super) fn identities(&self) -> &[Identity] {
        &self.identities
    }

    /// Whether it looks like a locked agent: OpenSSH's then lists nothing and refuses the rest.
    pub(super) fn seems_locked(&self) -> bool {
        self.identities.is_empty() && !self.bound
    }

    /// Whether a signature took so long that a person must have been asked.
    pub(super) fn needed_person(&self) -> bool {
        self.needed_person
    }

    /// `text` with the signature of the key that is held as `held`.
    pub(super) async fn sign(
        &mut self,
        held: &Identity,
        hash: Option<HashAlg>,
        text: Vec<u8>,
    ) -> Result<Vec<u8>, SignError> {
        if self.out_of_step {
            return Err(SignError::Late);
        }
        let started = Instant::now();
        let signed = timeout(TOUCH_TIMEOUT, self.client.sign_request(held, hash, text)).await;
        self.needed_person |= started.elapsed() > NOT_BY_MACHINE;
        match signed {
            Ok(signed) => signed.map_err(|_| SignError::Refused),
            Err(_) => {
                self.out_of_step = true;
                Err(SignError::Late)
            }
        }
    }

    /// Gives the agent a key (`AddKeysToAgent`); whether it took it.
    pub(super) async fn add(&mut self, key: &PrivateKey, how: AddToAgent) -> bool {
        let confirm = how.confirm.then_some(Constraint::Confirm);
        let lifetime = how.lifetime.map(|seconds| Constraint::KeyLifetime { seconds });
        let constraints: Vec<Constraint> = confirm.into_iter().chain(lifetime).collect();
        let adding = self.client.add_identity(key, &constraints);
        !self.out_of_step && matches!(timeout(ANSWER_TIMEOUT, adding).await, Ok(Ok(())))
    }
}

/// Why there is no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignError {
    /// The session died.
    Lost,
    /// The agent refused, or a person did.
    Refused,
    /// The agent did not answer in time: nobody touched the key.
    Late,
}

impl From<russh::SendError> for SignError {
    fn from(_: russh::SendError) -> Self {
        Self::Lost
    }
}

/// Asks for the list and reads every key that can be read.
async fn list(stream: &mut (dyn AgentStream + Send + Unpin)) -> io::Result<Vec<Identity>> {
    stream.write_all(&REQUEST_IDENTITIES).await?;
    let length = stream.read_u32().await?;
    if length > LIST_LIMIT {
        return Err(io::Error::other("sends a list that is too long"));
    }
    let mut answer = vec![0; length as usize];
    stream.read_exact(&mut answer).await?;
    parse(&answer).ok_or_else(|| io::Error::other("does not speak the agent protocol"))
}

/// The identities in an answer; `None` if it is none. Pure.
fn parse(answer: &[u8]) -> Option<Vec<Identity>> {
    let (kind, mut rest) = answer.split_first()?;
    if *kind != IDENTITIES_ANSWER {
        return None;
    }
    let count = u32::from_be_bytes(rest.split_off(..4)?.try_into().ok()?);
    let mut identities = Vec::new();
    for _ in 0..count {
        let blob = text(&mut rest)?;
        let comment = String::from_utf8_lossy(text(&mut rest)?);
        identities.extend(identity::of_blob(blob, &comment));
    }
    Some(identities)
}

/// A length-prefixed string.
fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(rest.split_off(..4)?.try_into().ok()?) as usize;
    rest.split_off(..length)
}

#[cfg(test)]
mod tests {
    use russh::keys::Algorithm;

    use super::*;

    fn string(bytes: &[u8]) -> Vec<u8> {
        let length = u32::try_from(bytes.len()).unwrap();
        [&length.to_be_bytes()[..], bytes].concat()
    }

    fn answer(identities: &[(&[u8], &str)]) -> Vec<u8> {
        let count = u32::try_from(identities.len()).unwrap();
        let mut answer = vec![IDENTITIES_ANSWER];
        answer.extend(count.to_be_bytes());
        for (blob, comment) in identities {
            answer.extend(string(blob));
            answer.extend(string(comment.as_bytes()));
        }
        answer
    }

    #[test]
    fn a_key_that_cannot_be_read_hides_no_other() {
        let good = [string(b"ssh-ed25519"), string(&[7; 32])].concat();
        let future = [string(b"ssh-future@example.com"), string(b"?")].concat();
        let broken = [string(b"ssh-ed25519"), string(&[7; 31])].concat();
        let certificate = string(b"ssh-ed25519-cert-v01@openssh.com");
        let blobs: [(&[u8], &str); 6] = [
            (&future, "a"),
            (&broken, "b"),
            (b"", "c"),
            (&[0xff; 5], "d"),
            (&certificate, "e"),
            (&good, "good"),
        ];
        let identities = parse(&answer(&blobs)).unwrap();
        let usable: Vec<&str> = identities
            .iter()
            .filter(|held| identity::key(held).algorithm() == Algorithm::Ed25519)
            .map(Identity::comment)
            .collect();
        assert_eq!(usable, ["good"]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let good = [string(b"ssh-ed25519"), string(&[7; 32])].concat();
        let whole = answer(&[(&good, "x")]);
        assert_eq!(parse(&whole).unwrap().len(), 1);
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).is_none(), "{end}");
        }
        assert!(parse(&[5]).is_none());
    }
}
