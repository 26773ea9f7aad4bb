//! The ssh-agent: which keys it holds, and signatures by them.
//!
//! Protocol: draft-ietf-sshm-ssh-agent. The list is read here and not by the library, which gives up
//! on all keys when it cannot read one.

use std::{io, path::Path, time::Duration};

use russh::keys::{
    Certificate, HashAlg, PublicKey,
    agent::{
        AgentIdentity, AgentSessionBinding,
        client::{AgentClient, AgentStream},
    },
    key::parse_public_key,
    ssh_encoding::Decode,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{Instant, timeout},
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
    identities: Vec<AgentIdentity>,
    needed_person: bool,
}

impl Agent {
    /// Connects, binds the agent to this session (restricted keys want that) and lists its keys.
    pub(super) async fn open(
        socket: &Path,
        binding: Option<&AgentSessionBinding>,
    ) -> io::Result<Self> {
        match Self::open_bound(socket, binding).await {
            // Some agents hang up on an extension that they do not know.
            Err(_) if binding.is_some() => Self::open_bound(socket, None).await,
            outcome => outcome,
        }
    }

    async fn open_bound(socket: &Path, binding: Option<&AgentSessionBinding>) -> io::Result<Self> {
        let opening = async {
            let mut client = AgentClient::connect(UnixStream::connect(socket).await?);
            if let Some(binding) = binding {
                // An agent that does not know the extension refuses it and has no restricted keys.
                drop(client.bind_session(binding, false).await);
            }
            let mut stream = client.into_inner();
            let identities = list(&mut stream).await?;
            let client = AgentClient::connect(stream);
            Ok(Self { client, identities, needed_person: false })
        };
        timeout(ANSWER_TIMEOUT, opening)
            .await
            .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::TimedOut, "does not answer")))
    }

    /// The keys and certificates that can be read, in the agent's order.
    pub(super) fn identities(&self) -> &[AgentIdentity] {
        &self.identities
    }

    /// Whether a signature took so long that a person must have been asked.
    pub(super) fn needed_person(&self) -> bool {
        self.needed_person
    }
}

/// Why there is no signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SignError {
    /// The session died.
    Lost,
    /// The agent refused, or nobody touched the key.
    Refused,
}

impl From<russh::SendError> for SignError {
    fn from(_: russh::SendError) -> Self {
        Self::Lost
    }
}

impl russh::Signer for Agent {
    type Error = SignError;

    async fn auth_sign(
        &mut self,
        key: &AgentIdentity,
        hash: Option<HashAlg>,
        text: Vec<u8>,
    ) -> Result<Vec<u8>, Self::Error> {
        let started = Instant::now();
        let signed = timeout(TOUCH_TIMEOUT, self.client.sign_request(key, hash, text)).await;
        self.needed_person |= started.elapsed() > NOT_BY_MACHINE;
        match signed {
            Ok(Ok(signature)) => Ok(signature),
            Ok(Err(_)) | Err(_) => Err(SignError::Refused),
        }
    }
}

/// The public key of an identity.
pub(super) fn public_key(identity: &AgentIdentity) -> PublicKey {
    identity.public_key().into_owned()
}

/// Asks for the list and reads every key that can be read.
async fn list(stream: &mut (dyn AgentStream + Send + Unpin)) -> io::Result<Vec<AgentIdentity>> {
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
fn parse(answer: &[u8]) -> Option<Vec<AgentIdentity>> {
    let (kind, mut rest) = answer.split_first()?;
    if *kind != IDENTITIES_ANSWER {
        return None;
    }
    let count = u32::from_be_bytes(rest.split_off(..4)?.try_into().ok()?);
    let mut identities = Vec::new();
    for _ in 0..count {
        let blob = text(&mut rest)?;
        let comment = String::from_utf8_lossy(text(&mut rest)?).into_owned();
        identities.extend(identity(blob, comment));
    }
    Some(identities)
}

/// A length-prefixed string.
fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = u32::from_be_bytes(rest.split_off(..4)?.try_into().ok()?) as usize;
    rest.split_off(..length)
}

fn identity(blob: &[u8], comment: String) -> Option<AgentIdentity> {
    // Refuses blobs that are built to overflow the stack, before the certificate is read.
    let key = parse_public_key(blob);
    let kind = super::known_hosts::key_type(blob)?;
    if kind.ends_with("-cert-v01@openssh.com") {
        key.ok()?;
        let certificate = Certificate::decode(&mut &*blob).ok()?;
        return Some(AgentIdentity::Certificate { certificate, comment });
    }
    key.ok().map(|key| AgentIdentity::PublicKey { key, comment })
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
            .filter(|held| public_key(held).algorithm() == Algorithm::Ed25519)
            .map(AgentIdentity::comment)
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
