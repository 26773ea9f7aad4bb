//! Gathers what may be offered: the agent, the key files, the certificates; and notes what of it is of
//! no use.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    accepted::Accepted,
    login::Login,
    order::{Candidate, Choice, File, LeftOut, order},
};
use crate::{
    ssh::{
        agent::Agent,
        dial::plain,
        identity::{self, Identity},
        keys::{self, Content, KeyFile, KeyFileError},
        known_hosts,
        observe::{self, Answer, Fact},
    },
    tunnel::{Cause, Failure},
};

impl Login<'_> {
    /// The agent, if there is one that answers.
    pub(super) async fn agent(&mut self) -> Option<Agent> {
        let socket = self.context.hop.agent.as_ref()?;
        let shown = socket.display();
        let agent = match Agent::open(socket, self.handle.agent_session_binding()).await {
            Ok(agent) => {
                let keys = agent.identities().len();
                self.tell(Fact::Agent { socket: socket.clone(), keys });
                agent
            }
            Err(error) => {
                let why = plain(&error);
                self.tell(Fact::AgentFailed { socket: socket.clone(), why });
                let fix = if error.kind() == ErrorKind::TimedOut {
                    "start the agent again, or do without: -o IdentityAgent=none"
                } else {
                    "start an agent and add the key: eval \"$(ssh-agent)\"; ssh-add"
                };
                let message = format!("the agent at {shown}: {}", plain(&error));
                self.story.aside(Failure::new(Cause::Agent, message).fix(fix));
                return None;
            }
        };
        if !agent.identities().is_empty() {
            return Some(agent);
        }
        let fix = "unlock it: ssh-add -X; or add the key: ssh-add";
        let before = self.context.keyring.server(self.context.route).way_in;
        if before.by_agent {
            let message = format!("the agent at {shown} has no key any more: locked, or emptied");
            self.story.decisive(Failure::new(Cause::Agent, message).fix(fix));
        } else if agent.seems_locked() {
            let message = format!("the agent at {shown} has no key, or is locked");
            self.story.aside(Failure::new(Cause::Agent, message).fix(fix));
        }
        Some(agent)
    }

    /// The key files of the configuration; one that was named and cannot be used is noted later.
    pub(super) async fn files(&self) -> Vec<KeyFile> {
        let paths = self.context.hop.identities.clone();
        let reading = tokio::task::spawn_blocking(move || {
            paths.iter().map(|path| keys::load(path)).collect::<Vec<_>>()
        });
        let mut files = reading.await.unwrap_or_default();
        for file in &mut files {
            if matches!(file.content, Content::Locked(_))
                && let Some(key) = self.context.keyring.key(&file.path, file.modified)
            {
                file.public = Some(key.public_key().clone().into());
                file.content = Content::Ready(key);
            }
        }
        files
    }

    /// What to offer, in order.
    pub(super) async fn candidates(
        &mut self,
        files: &[KeyFile],
        held: &[Identity],
    ) -> Vec<Candidate> {
        self.note_unusable(files, held);
        let certificates = self.certificates().await;
        let known: Vec<File> = files
            .iter()
            .map(|file| File {
                public: file.public.clone(),
                certificate: file.certificate.clone(),
                signs: matches!(file.content, Content::Ready(_) | Content::Locked(_)),
            })
            .collect();
        let last = self.context.keyring.server(self.context.route).way_in.blobs;
        let hop = self.context.hop;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (candidates, left_out) = order(&Choice {
            files: &known,
            files_named: hop.identities_named,
            certificates: &certificates,
            held,
            only: hop.identities_only,
            accepted: Accepted(&hop.algorithms.public_key),
            last: &last,
            now: now.as_secs(),
        });
        for LeftOut { certificate, why } in left_out {
            let in_agent = held.iter().any(|held| identity::same_key(held, &certificate));
            let key = described(Some(&certificate), files, in_agent);
            self.tell(Fact::Key { key, answer: Answer::NotTried(why.to_owned()) });
            let message = format!("the {} {why}", identity::shown(&certificate));
            self.story.aside(Failure::new(Cause::Authentication, message));
        }
        candidates
    }

    /// The certificates that were named by themselves.
    async fn certificates(&mut self) -> Vec<Identity> {
        let paths = self.context.hop.certificates.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let read = |path: PathBuf| (keys::load_certificate(&path), path);
            paths.into_iter().map(read).collect::<Vec<_>>()
        });
        let mut certificates = Vec::new();
        for (read, path) in reading.await.unwrap_or_default() {
            match read {
                Ok(certificate) => certificates.push(certificate),
                Err(error) => self.note_file("certificate", &path, &error),
            }
        }
        certificates
    }

    /// Notes the files that cannot sign and whose keys the agent does not hold either.
    fn note_unusable(&mut self, files: &[KeyFile], held: &[Identity]) {
        let named = self.context.hop.identities_named;
        for file in files {
            let public = file.public.as_ref();
            let in_agent = |public| held.iter().any(|held| identity::same_key(held, public));
            if public.is_some_and(in_agent) {
                continue;
            }
            match &file.content {
                Content::Ready(_) | Content::Locked(_) => {}
                Content::Unusable(KeyFileError::Missing) | Content::PublicOnly if !named => {}
                Content::Unusable(error) => self.note_file("key", &file.path, error),
                Content::PublicOnly => {
                    let shown = file.path.display();
                    self.story.aside(
                        Failure::new(
                            Cause::Agent,
                            format!("of {shown} only the public half is here, and no agent has it"),
                        )
                        .fix("add the key to the agent with ssh-add, or name its private half: -i FILE"),
                    );
                }
            }
        }
    }

    fn note_file(&mut self, what: &str, path: &Path, error: &KeyFileError) {
        let key = observe::Key {
            algorithm: None,
            fingerprint: None,
            file: Some(path.to_owned()),
            in_agent: false,
        };
        self.tell(Fact::Key { key, answer: Answer::NotTried(error.to_string()) });
        let message = format!("the {what} {} {error}", path.display());
        self.story.aside(Failure::new(Cause::Configuration, message).fix(error.fix(path)));
    }
}

/// A key as reports name it, with the file of its public half.
pub(super) fn described(
    identity: Option<&Identity>,
    files: &[KeyFile],
    in_agent: bool,
) -> observe::Key {
    let of_it = |file: &&KeyFile| match (identity, &file.public) {
        (Some(identity), Some(public)) => identity::same_key(identity, public),
        (Some(_) | None, _) => false,
    };
    let blob = identity.and_then(|identity| identity::key(identity).to_bytes().ok());
    observe::Key {
        algorithm: identity.map(identity::algorithm),
        fingerprint: blob.map(|blob| known_hosts::fingerprint(&blob)),
        file: files.iter().find(of_it).map(|file| file.path.clone()),
        in_agent,
    }
}
