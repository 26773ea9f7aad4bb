//! Checks the key that a host shows: files, certificate, policy, pin, and at last a person.

use std::{net::IpAddr, path::PathBuf, time::SystemTime};

use russh::keys::Certificate;

use super::{
    algorithms::{Keyword, or_own},
    ask::{Asker, Question},
    host_certificate::{self, Demands, Flaw, Vouched, vouched},
    host_key_refusal::Refusal,
    known_hosts::{self, Entry, Name, OnFile, Source, Verdict},
    observe::{Fact, Line, Observer, Standing},
    resolve::{Hop, HostKeyPolicy},
    rsa_size,
};
use crate::tunnel::{Cause, Failure};

/// The known_hosts files of a hop, read once a connection.
#[derive(Debug, Clone)]
pub(super) struct Files {
    name: Name,
    /// The name of the address itself, where it must not contradict (`CheckHostIP`).
    address: Option<Name>,
    sources: Vec<Source>,
}

/// What a host showed, having proved that it holds the key.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// The key in its SSH wire form, also that inside a certificate.
    pub(super) key: Vec<u8>,
    /// The certificate.
    pub(super) certificate: Option<Certificate>,
    /// When.
    pub(super) at: SystemTime,
}

/// Why a host key was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// It was on file, or a person took it.
    Own,
    /// Nobody made sure of this very key: a certificate, a pin or the policy let it in.
    Lent,
}

/// What to do with a key that the files do not refuse.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Accept(Entry),
    AcceptAndRecord,
    Ask,
}

impl Files {
    /// Reads the files of `hop`, dialled at `address` if that is known; a file that cannot be read
    /// is a failure, not an empty file.
    pub(super) async fn read(hop: &Hop, address: Option<IpAddr>) -> Result<Self, Failure> {
        let paths: Vec<PathBuf> =
            hop.user_known_hosts.iter().chain(&hop.global_known_hosts).cloned().collect();
        let name = Name::new(&hop.host, hop.port, hop.host_key_alias.as_deref());
        let address = address
            .filter(|address| hop.check_host_ip && !address.is_loopback())
            .map(|address| Name::new(&address.to_string(), hop.port, None));
        let reading = tokio::task::spawn_blocking(move || {
            let read =
                |path: &PathBuf| known_hosts::read(path).map_err(|error| (path.clone(), error));
            paths.iter().map(read).collect::<Result<Vec<_>, _>>()
        });
        match reading.await {
            Ok(Ok(sources)) => Ok(Self { name, address, sources }),
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

    /// Under which name the host stands there.
    pub(super) fn name(&self) -> &Name {
        &self.name
    }

    /// Decides about what `hop` shows, asking if the policy says so.
    pub(super) async fn check(
        &self,
        hop: &Hop,
        shown: &Shown,
        asker: &dyn Asker,
        observer: &dyn Observer,
    ) -> Result<Trust, Failure> {
        let (key, fingerprint) = (&shown.key, known_hosts::fingerprint(&shown.key));
        let tell = |standing| {
            let (algorithm, fingerprint) = (kind(key), fingerprint.clone());
            observer.fact(Fact::HostKey { algorithm, fingerprint, standing });
        };
        let verdict = self.verdict(shown);
        let refused_anyway =
            !matches!(verdict, Verdict::Known(_) | Verdict::Unknown | Verdict::Authority(_));
        if let Some(flaw) = rsa_size::flaw(hop, key).filter(|_| !refused_anyway) {
            tell(Standing::Unknown);
            return Err(self.refusal(key).too_short(&flaw));
        }
        let flaw = match self.vouched(hop, shown, &verdict) {
            Vouched::Yes(entry) => {
                self.pinned(hop, &fingerprint).inspect_err(|_| tell(Standing::Changed(vec![])))?;
                let certificate = shown.certificate.as_ref();
                let identity = certificate.map(|it| it.key_id().to_owned()).unwrap_or_default();
                tell(Standing::Certified { authority: line_at(&entry), identity });
                return Ok(Trust::Lent);
            }
            Vouched::Flawed(entry, flaw) => Some((entry, flaw)),
            Vouched::ByStranger => None,
        };
        let step = self
            .step(hop, &verdict, flaw.as_ref(), key)
            .inspect_err(|failure| tell(refused(&verdict, failure.cause)))?;
        let trust = match step {
            Step::Accept(entry) => {
                tell(Standing::OnFile(line_at(&entry)));
                return Ok(Trust::Own);
            }
            Step::AcceptAndRecord if hop.pin.is_some() => {
                tell(Standing::Pinned);
                Trust::Lent
            }
            Step::AcceptAndRecord => {
                tell(Standing::TakenAsNew);
                Trust::Lent
            }
            Step::Ask => {
                let question = Question::HostKey {
                    host: self.name.text(),
                    algorithm: kind(key),
                    fingerprint: fingerprint.clone(),
                };
                let answer = if hop.batch { None } else { asker.ask(question).await };
                if !answer.is_some_and(|text| text.expose().trim().eq_ignore_ascii_case("yes")) {
                    tell(Standing::Unknown);
                    return Err(self.refusal(key).unknown());
                }
                tell(Standing::TakenByPerson);
                Trust::Own
            }
        };
        self.record(hop, key, observer).await;
        Ok(trust)
    }

    /// What the files say of the key, and of the authority behind it if one vouches. Pure.
    fn verdict(&self, shown: &Shown) -> Verdict {
        let signer = shown.certificate.as_ref().and_then(host_certificate::signer);
        let keys: Vec<&[u8]> =
            [Some(shown.key.as_slice()), signer.as_deref()].into_iter().flatten().collect();
        known_hosts::revocation(&self.sources, &self.name, &keys)
            .unwrap_or_else(|| known_hosts::decide(&self.sources, &self.name, &shown.key))
    }

    /// Whether an authority on file vouches for the host. Pure.
    fn vouched(&self, hop: &Hop, shown: &Shown, verdict: &Verdict) -> Vouched {
        let Some(certificate) = &shown.certificate else { return Vouched::ByStranger };
        if matches!(verdict, Verdict::Revoked(_) | Verdict::Unreadable { .. }) {
            return Vouched::ByStranger;
        }
        let signatures = or_own(Keyword::CaSignature, &hop.algorithms.ca_signature);
        let demands = Demands { host: self.name.host(), now: shown.at, signatures: &signatures };
        let authorities = known_hosts::authorities(&self.sources, &self.name);
        vouched(certificate, &authorities, &demands)
    }

    /// What the verdict means under the hop's policy and pin. Pure.
    fn step(
        &self,
        hop: &Hop,
        verdict: &Verdict,
        flaw: Option<&(Entry, Flaw)>,
        key: &[u8],
    ) -> Result<Step, Failure> {
        let refusal = self.refusal(key);
        match verdict {
            Verdict::Revoked(entry) => return Err(refusal.revoked(entry)),
            Verdict::Unreadable { path, line } => return Err(refusal.unreadable(path, *line)),
            Verdict::Changed(others) => return Err(refusal.changed(others)),
            Verdict::Known(_) | Verdict::Unknown | Verdict::Authority(_) => {}
        }
        self.pinned(hop, &known_hosts::fingerprint(key))?;
        self.at_address(key)?;
        match (verdict, flaw, hop.policy) {
            (Verdict::Known(entry), _, _) => Ok(Step::Accept(entry.clone())),
            (_, _, _) if hop.pin.is_some() => Ok(Step::AcceptAndRecord),
            (_, Some((entry, flaw)), _) => Err(refusal.flawed(entry, flaw)),
            (_, _, HostKeyPolicy::Ask) => Ok(Step::Ask),
            (Verdict::Authority(entry), _, _) => Err(refusal.wants_certificate(entry)),
            (_, _, HostKeyPolicy::AcceptNew) => Ok(Step::AcceptAndRecord),
            (_, _, HostKeyPolicy::Strict) => Err(refusal.unknown()),
        }
    }

    /// Fails unless the key is the only one that may be taken, where one is named.
    fn pinned(&self, hop: &Hop, fingerprint: &str) -> Result<(), Failure> {
        match &hop.pin {
            Some(pin) if pin != fingerprint => {
                Err(Refusal::new(&self.name, fingerprint, "").not_the_pinned(pin))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Fails if another key is on file for the address, where that counts.
    fn at_address(&self, key: &[u8]) -> Result<(), Failure> {
        let Some(address) = &self.address else { return Ok(()) };
        let fingerprint = known_hosts::fingerprint(key);
        let refusal = Refusal::new(address, &fingerprint, &kind(key));
        match known_hosts::decide(&self.sources, address, key) {
            Verdict::Revoked(entry) => Err(refusal.revoked(&entry)),
            Verdict::Unreadable { path, line } => Err(refusal.unreadable(&path, line)),
            Verdict::Changed(others) => Err(refusal.changed(&others)),
            Verdict::Known(_) | Verdict::Unknown | Verdict::Authority(_) => Ok(()),
        }
    }

    fn refusal(&self, key: &[u8]) -> Refusal {
        Refusal::new(&self.name, &known_hosts::fingerprint(key), &kind(key))
    }

    /// Writes an accepted key down, in the user's first file.
    async fn record(&self, hop: &Hop, key: &[u8], observer: &dyn Observer) {
        let Some(path) = hop.user_known_hosts.first().cloned() else { return };
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
        Verdict::Unreadable { path, line } => {
            Standing::Revoked(Line { path: path.clone(), number: *line })
        }
        Verdict::Changed(others) => Standing::Changed(others.iter().map(line_at).collect()),
        Verdict::Known(_) | Verdict::Unknown | Verdict::Authority(_) => {
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
