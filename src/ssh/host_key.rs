//! Checks the key that a host shows: files, policy, pin, and at last a person.

use std::path::PathBuf;

use super::{
    ask::{Asker, Question},
    known_hosts::{self, Entry, Name, OnFile, Source, Verdict},
    observe::{Fact, Line, Observer, Standing},
    resolve::{Hop, HostKeyPolicy},
};
use crate::tunnel::{Cause, Failure};

/// The known_hosts files of a hop, read once a connection.
#[derive(Debug, Clone)]
pub(super) struct Files {
    name: Name,
    sources: Vec<Source>,
}

/// What to do with a key that the files do not refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Accept,
    AcceptAndRecord,
    Ask,
}

impl Files {
    /// Reads the files of `hop`; one that cannot be read is a failure, not an empty file.
    pub(super) async fn read(hop: &Hop) -> Result<Self, Failure> {
        let paths: Vec<PathBuf> =
            hop.user_known_hosts.iter().chain(&hop.global_known_hosts).cloned().collect();
        let name = Name::new(&hop.host, hop.port, hop.host_key_alias.as_deref());
        let reading = tokio::task::spawn_blocking(move || {
            let read =
                |path: &PathBuf| known_hosts::read(path).map_err(|error| (path.clone(), error));
            paths.iter().map(read).collect::<Result<Vec<_>, _>>()
        });
        match reading.await {
            Ok(Ok(sources)) => Ok(Self { name, sources }),
            Ok(Err((path, error))) => Err(Failure::new(
                Cause::Configuration,
                format!("cannot read the host keys in {}: {error}", path.display()),
            )
            .fix(format!("make the file readable: chmod u+r {}", path.display()))),
            Err(_) => Err(Failure::new(Cause::Configuration, "reading the host keys was ended")),
        }
    }

    /// What is on file for the host, so that it can be asked for.
    pub(super) fn on_file(&self) -> OnFile {
        known_hosts::on_file(&self.sources, &self.name)
    }

    /// Decides about the key that `hop` shows, asking if the policy says so.
    pub(super) async fn check(
        &self,
        hop: &Hop,
        key: &[u8],
        asker: &dyn Asker,
        observer: &dyn Observer,
    ) -> Result<(), Failure> {
        let fingerprint = known_hosts::fingerprint(key);
        let verdict = known_hosts::decide(&self.sources, &self.name, key);
        let tell = |standing| {
            let (algorithm, fingerprint) = (kind(key), fingerprint.clone());
            observer.fact(Fact::HostKey { algorithm, fingerprint, standing });
        };
        let step = self.step(hop, &verdict, &fingerprint, key).inspect_err(|failure| {
            tell(refused(&verdict, failure.cause));
        })?;
        match step {
            Step::Accept => {
                let line = known_hosts::line_of(&self.sources, &self.name, key);
                tell(line.map_or(Standing::Pinned, |entry| Standing::OnFile(line_at(&entry))));
                return Ok(());
            }
            Step::AcceptAndRecord if hop.pin.is_some() => tell(Standing::Pinned),
            Step::AcceptAndRecord => tell(Standing::TakenAsNew),
            Step::Ask => {
                let question = Question::HostKey {
                    host: self.name.text(),
                    algorithm: kind(key),
                    fingerprint: fingerprint.clone(),
                };
                let answer = if hop.batch { None } else { asker.ask(question).await };
                if !answer.is_some_and(|text| text.expose().trim().eq_ignore_ascii_case("yes")) {
                    tell(Standing::Unknown);
                    return Err(self.unknown(&fingerprint, key));
                }
                tell(Standing::TakenByPerson);
            }
        }
        self.record(hop, key, observer).await
    }

    /// What the verdict means under the hop's policy and pin. Pure.
    fn step(
        &self,
        hop: &Hop,
        verdict: &Verdict,
        fingerprint: &str,
        key: &[u8],
    ) -> Result<Step, Failure> {
        match verdict {
            Verdict::Revoked(entry) => return Err(self.revoked(entry, fingerprint)),
            Verdict::Changed(others) => return Err(self.changed(others, fingerprint, key)),
            Verdict::Known | Verdict::Unknown | Verdict::Authority(_) => {}
        }
        if let Some(pin) = &hop.pin
            && pin != fingerprint
        {
            return Err(self.not_the_pinned(pin, fingerprint));
        }
        match (verdict, hop.policy) {
            (Verdict::Known, _) => Ok(Step::Accept),
            (_, _) if hop.pin.is_some() => Ok(Step::AcceptAndRecord),
            (_, HostKeyPolicy::Ask) => Ok(Step::Ask),
            (Verdict::Authority(entry), _) => Err(self.wants_certificate(entry, fingerprint)),
            (_, HostKeyPolicy::AcceptNew) => Ok(Step::AcceptAndRecord),
            (_, HostKeyPolicy::Strict) => Err(self.unknown(fingerprint, key)),
        }
    }

    /// Writes an accepted key down, in the user's first file.
    async fn record(&self, hop: &Hop, key: &[u8], observer: &dyn Observer) -> Result<(), Failure> {
        let Some(path) = hop.user_known_hosts.first().cloned() else { return Ok(()) };
        let (name, key, hash) = (self.name.clone(), key.to_vec(), hop.hash_known_hosts);
        let shown = path.display().to_string();
        let recorded = Fact::HostKeyRecorded(path.clone());
        let writing =
            tokio::task::spawn_blocking(move || known_hosts::record(&path, &name, &key, hash));
        match writing.await {
            Ok(Ok(())) => observer.fact(recorded),
            // As with ssh: the key was accepted, only the next login will ask again.
            Ok(Err(error)) => {
                tracing::warn!(%error, "the host key could not be written down");
                tracing::debug!(path = shown, "known_hosts file");
            }
            Err(error) => tracing::warn!(%error, "writing the host key down was ended"),
        }
        Ok(())
    }

    fn unknown(&self, fingerprint: &str, key: &[u8]) -> Failure {
        Failure::new(
            Cause::HostKeyUnknown,
            format!(
                "the host key of {} is not on file; it shows {} {fingerprint}",
                self.name.text(),
                kind(key)
            ),
        )
        .fix(format!(
            "compare it with what the host itself prints \
             (ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub), then add \
             --accept-host-key {fingerprint}"
        ))
    }

    fn wants_certificate(&self, entry: &Entry, fingerprint: &str) -> Failure {
        Failure::new(
            Cause::HostKeyUnknown,
            format!(
                "{} should prove itself by a certificate ({} line {}), which is not understood \
                 yet; its key {fingerprint} is not on file",
                self.name.text(),
                entry.path.display(),
                entry.line
            ),
        )
        .fix(format!("make sure of the key, then add --accept-host-key {fingerprint}"))
    }

    fn not_the_pinned(&self, pin: &str, fingerprint: &str) -> Failure {
        Failure::new(
            Cause::HostKeyChanged,
            format!(
                "{} shows the host key {fingerprint}, not the {pin} of --accept-host-key",
                self.name.text()
            ),
        )
        .fix("find out which host answers before trying again")
    }

    fn revoked(&self, entry: &Entry, fingerprint: &str) -> Failure {
        Failure::new(
            Cause::HostKeyRevoked,
            format!(
                "the host key {fingerprint} of {} is marked as revoked ({} line {})",
                self.name.text(),
                entry.path.display(),
                entry.line
            ),
        )
        .fix("do not connect; ask whoever runs the host for its new key")
    }

    fn changed(&self, others: &[Entry], fingerprint: &str, key: &[u8]) -> Failure {
        let on_file: Vec<String> = others
            .iter()
            .map(|entry| {
                format!(
                    "{} {} ({} line {})",
                    entry.algorithm,
                    entry.fingerprint,
                    entry.path.display(),
                    entry.line
                )
            })
            .collect();
        let file = others.first().map(|entry| entry.path.display().to_string()).unwrap_or_default();
        Failure::new(
            Cause::HostKeyChanged,
            format!(
                "the host key of {} has changed, or somebody listens in: on file is {}, it shows \
                 {} {fingerprint}",
                self.name.text(),
                on_file.join(", "),
                kind(key)
            ),
        )
        .fix(format!(
            "only if you know why it changed (StrictHostKeyChecking=no does not help here): ssh-keygen -R '{}' -f {file}",
            self.name.text()
        ))
    }
}

/// The type of a key in its SSH wire form, for people.
fn kind(key: &[u8]) -> String {
    known_hosts::key_type(key).unwrap_or("unknown").to_owned()
}

/// What a key that was refused is worth.
fn refused(verdict: &Verdict, cause: Cause) -> Standing {
    match verdict {
        Verdict::Revoked(entry) => Standing::Revoked(line_at(entry)),
        Verdict::Changed(others) => Standing::Changed(others.iter().map(line_at).collect()),
        Verdict::Known | Verdict::Unknown | Verdict::Authority(_) => {
            if cause == Cause::HostKeyChanged {
                Standing::Changed(Vec::new())
            } else {
                Standing::Unknown
            }
        }
    }
}

fn line_at(entry: &Entry) -> Line {
    Line { path: entry.path.clone(), number: entry.line }
}
