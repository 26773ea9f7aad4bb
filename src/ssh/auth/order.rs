//! Which keys are offered, and in which order: the server counts them. Pure.
//!
//! First what let us in last time, then what somebody named, then the rest; certificates before
//! plain keys; what the agent holds is signed by the agent. A server throws out whoever offers too
//! many (`MaxAuthTries`, six by default).

use std::collections::HashSet;

use super::accepted::Accepted;
use crate::ssh::identity::{self, Identity};

/// What is known of a key file.
#[derive(Debug, Clone)]
pub(super) struct File {
    /// Its public half, if that can be known without a passphrase.
    pub(super) public: Option<Identity>,
    /// The certificate that lies beside it.
    pub(super) certificate: Option<Identity>,
    /// Whether it can sign, once unlocked.
    pub(super) signs: bool,
}

/// What there is to choose from.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    /// The key files in the order of the configuration.
    pub(super) files: &'a [File],
    /// Whether somebody named them.
    pub(super) files_named: bool,
    /// Certificates that were named by themselves.
    pub(super) certificates: &'a [Identity],
    /// What the agent holds.
    pub(super) held: &'a [Identity],
    /// `IdentitiesOnly`.
    pub(super) only: bool,
    /// Which algorithms may be used.
    pub(super) accepted: Accepted<'a>,
    /// The wire forms of what let us in last time.
    pub(super) last: &'a [Vec<u8>],
    /// Seconds since 1970.
    pub(super) now: u64,
}

/// Who signs.
#[derive(Debug, Clone)]
pub(super) enum By {
    /// The agent, under the identity it lists.
    Agent(Box<Identity>),
    /// The key file with this place in the list.
    File(usize),
}

/// What is offered.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// What the server sees; `None` for a file that must be unlocked to know.
    pub(super) identity: Option<Identity>,
    /// Who signs for it.
    pub(super) by: By,
}

/// A certificate that is not offered.
#[derive(Debug, Clone)]
pub(super) struct LeftOut {
    pub(super) certificate: Identity,
    /// Why: `has expired` and the like.
    pub(super) why: &'static str,
}

/// What to offer, in order, and which certificates not.
pub(super) fn order(choice: &Choice<'_>) -> (Vec<Candidate>, Vec<LeftOut>) {
    let mut draft = Draft { choice, found: Vec::new(), left_out: Vec::new() };
    draft.certificates();
    let of_agent = draft.named_in_agent();
    let own = draft.own_files();
    let others = draft.others();
    let tiers = match choice.files_named {
        true => [of_agent, own, others],
        false => [of_agent, others, own],
    };
    let plain: Vec<Candidate> = tiers.into_iter().flatten().collect();
    draft.found.extend(plain);
    let Draft { found, mut left_out, .. } = draft;
    let mut said = HashSet::new();
    left_out.retain(|left_out| said.insert(identity::blob(&left_out.certificate)));
    (last_first(without_repeats(found, choice), choice.last), left_out)
}

struct Draft<'a> {
    choice: &'a Choice<'a>,
    found: Vec<Candidate>,
    left_out: Vec<LeftOut>,
}

impl Draft<'_> {
    /// Certificates that were named or lie beside a named key, with whoever can sign for them.
    fn certificates(&mut self) {
        let beside = self.choice.files.iter().filter_map(|file| file.certificate.as_ref());
        // As ssh does: the default name counts where no other was given.
        let beside = beside.filter(|_| self.choice.certificates.is_empty());
        for certificate in self.choice.certificates.iter().chain(beside) {
            if !self.is_good(certificate) {
                continue;
            }
            match self.signer(certificate) {
                Some(by) => {
                    self.found.push(Candidate { identity: Some(certificate.clone()), by });
                }
                None => self.leave_out(certificate, "has no private key here"),
            }
        }
    }

    /// Whether a certificate may be offered; a note says why not.
    fn is_good(&mut self, certificate: &Identity) -> bool {
        let flaw = identity::flaw(certificate, self.choice.now);
        if let Some(why) = flaw {
            self.leave_out(certificate, why);
        }
        flaw.is_none()
    }

    fn leave_out(&mut self, certificate: &Identity, why: &'static str) {
        self.left_out.push(LeftOut { certificate: certificate.clone(), why });
    }

    /// Who can sign for `certificate`: the agent with the very certificate, the agent with its key,
    /// a file.
    fn signer(&self, certificate: &Identity) -> Option<By> {
        let held = |exact: bool| {
            self.choice.held.iter().find(|held| {
                identity::same_key(held, certificate)
                    && (!exact || identity::blob(held) == identity::blob(certificate))
                    && (exact || !identity::is_certificate(held))
            })
        };
        let agent =
            held(true).or_else(|| held(false)).map(|held| By::Agent(Box::new(held.clone())));
        agent.or_else(|| {
            self.choice
                .files
                .iter()
                .position(|file| {
                    let public = file.public.as_ref();
                    file.signs
                        && public.is_some_and(|public| identity::same_key(public, certificate))
                })
                .map(By::File)
        })
    }

    /// What the agent holds of the named files, certificates first.
    fn named_in_agent(&mut self) -> Vec<Candidate> {
        let publics: Vec<&Identity> =
            self.choice.files.iter().filter_map(|file| file.public.as_ref()).collect();
        let mut found = Vec::new();
        for certificates in [true, false] {
            for public in &publics {
                let same = self.choice.held.iter().filter(|held| {
                    identity::is_certificate(held) == certificates
                        && identity::same_key(held, public)
                });
                found.extend(same.cloned());
            }
        }
        self.offered(found)
    }

    /// The files that can sign, and whose keys the agent does not hold.
    fn own_files(&self) -> Vec<Candidate> {
        let files = self.choice.files.iter().enumerate();
        let own = files.filter(|(_, file)| file.signs).filter(|(_, file)| {
            let held = |held: &Identity| {
                let public = file.public.as_ref();
                !identity::is_certificate(held)
                    && public.is_some_and(|public| identity::same_key(held, public))
            };
            !self.choice.held.iter().any(held)
        });
        own.map(|(place, file)| Candidate { identity: file.public.clone(), by: By::File(place) })
            .collect()
    }

    /// What the agent holds beside.
    fn others(&mut self) -> Vec<Candidate> {
        if self.choice.only {
            return Vec::new();
        }
        let (mut found, plain): (Vec<_>, Vec<_>) =
            self.choice.held.iter().cloned().partition(identity::is_certificate);
        found.extend(plain);
        self.offered(found)
    }

    /// Candidates of the agent, without certificates that let nobody in.
    fn offered(&mut self, held: Vec<Identity>) -> Vec<Candidate> {
        let good: Vec<Identity> = held.into_iter().filter(|held| self.is_good(held)).collect();
        good.into_iter()
            .map(|held| Candidate { identity: Some(held.clone()), by: By::Agent(Box::new(held)) })
            .collect()
    }
}

/// Each identity once, and only those whose algorithm may be used.
fn without_repeats(found: Vec<Candidate>, choice: &Choice<'_>) -> Vec<Candidate> {
    let mut seen = HashSet::new();
    let wanted = |candidate: &Candidate| {
        let Some(identity) = &candidate.identity else { return true };
        let fresh = identity::blob(identity).is_some_and(|blob| seen.insert(blob));
        fresh && choice.accepted.allows(identity)
    };
    found.into_iter().filter(wanted).collect()
}

/// What let us in last time comes first, in the order in which it did.
fn last_first(mut found: Vec<Candidate>, last: &[Vec<u8>]) -> Vec<Candidate> {
    found.sort_by_key(|candidate| {
        let blob = candidate.identity.as_ref().and_then(identity::blob);
        let place = blob.and_then(|blob| last.iter().position(|known| *known == blob));
        place.unwrap_or(last.len())
    });
    found
}

/// Real public keys and certificates: the user's runs until 2030, the other one is for hosts.
#[cfg(test)]
pub(super) mod samples {
    use super::Identity;

    pub(in crate::ssh::auth) const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDe77D+iwwZDCaZfA1DZq7L6wZ6sBEe2p7ToPlxjSMX1 ed";
    pub(in crate::ssh::auth) const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGVBuO5W1FW+Hyu9t2dH4Z0ISfhhCxw4o93TcvHx/cgk8Khkrow+Kru/lRTe/yn//ktKcx9wR5hkPrAYiSdfaus= ecdsa";
    pub(in crate::ssh::auth) const RSA: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQCvbndgfdoGDtY+MhV2TiYe6r9IZx3oGaWB7cJOwF0D6uyX6hTYIx45N3Na8yUp2a7nBcJso4/2dcELmh0ppwqIhbvdPf2P02l1Mn0JDg/FX8iYIlMj1uMqULtv0c7uEoU7cWU0+MMGQiacKrfwSFbU0li5Kpsljj0nmuHaGSNDcw== me@here";
    pub(in crate::ssh::auth) const CERTIFICATE: &str = "ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1lZDI1NTE5LWNlcnQtdjAxQG9wZW5zc2guY29tAAAAILjDEu4/WFq3Q/3+T6lJsrTIKZBZQY8ITO4zBLUy4UmJAAAAIDe77D+iwwZDCaZfA1DZq7L6wZ6sBEe2p7ToPlxjSMX1AAAAAAAAAAAAAAABAAAABHVzZXIAAAAGAAAAAm1lAAAAAF4L4QAAAAAAcNvYgAAAAAAAAACCAAAAFXBlcm1pdC1YMTEtZm9yd2FyZGluZwAAAAAAAAAXcGVybWl0LWFnZW50LWZvcndhcmRpbmcAAAAAAAAAFnBlcm1pdC1wb3J0LWZvcndhcmRpbmcAAAAAAAAACnBlcm1pdC1wdHkAAAAAAAAADnBlcm1pdC11c2VyLXJjAAAAAAAAAAAAAAAzAAAAC3NzaC1lZDI1NTE5AAAAIMTGNMb+VoMBY6oUo3ct4d4rcNexugiCjmfm9OujQDqkAAAAUwAAAAtzc2gtZWQyNTUxOQAAAEDVW7Aw6QpO7ApSprmIuQw892W25yrYyr0Md2PWqus82tNqbRwCIHnbUGG/da2QaplWxSRk0oJyrrVER1fI6dgB ed";
    pub(in crate::ssh::auth) const OF_HOSTS: &str = "ecdsa-sha2-nistp256-cert-v01@openssh.com AAAAKGVjZHNhLXNoYTItbmlzdHAyNTYtY2VydC12MDFAb3BlbnNzaC5jb20AAAAglmDrs6vTspqdVIYwKkr6uV/6299IXGS2VagWY8tVuW0AAAAIbmlzdHAyNTYAAABBBGVBuO5W1FW+Hyu9t2dH4Z0ISfhhCxw4o93TcvHx/cgk8Khkrow+Kru/lRTe/yn//ktKcx9wR5hkPrAYiSdfausAAAAAAAAAAAAAAAIAAAAEaG9zdAAAAAAAAAAAXgvhAAAAAABw29iAAAAAAAAAAAAAAAAAAAAAMwAAAAtzc2gtZWQyNTUxOQAAACDExjTG/laDAWOqFKN3LeHeK3DXsboIgo5n5vTro0A6pAAAAFMAAAALc3NoLWVkMjU1MTkAAABAuwoDblIeI+Y1F5IZ929hPIxRJnexU32loWL+wlCjZ4opqYpV1kJd2894w3B+60+JfnLgcuP/Tpdo6ND2xAGdCg== ecdsa";

    /// Reads one.
    pub(in crate::ssh::auth) fn identity(text: &str) -> Identity {
        crate::ssh::identity::of_text(text).expect("a public key or certificate")
    }
}

#[cfg(test)]
mod tests {
    use super::{
        samples::{CERTIFICATE, ECDSA, ED25519, OF_HOSTS, RSA, identity},
        *,
    };

    /// In the year 2025.
    const NOW: u64 = 1_750_000_000;

    fn file(text: &str) -> File {
        File { public: Some(identity(text)), certificate: None, signs: true }
    }

    /// Only the `.pub` file is here.
    fn public_file(text: &str) -> File {
        File { signs: false, ..file(text) }
    }

    fn choice<'a>(files: &'a [File], held: &'a [Identity]) -> Choice<'a> {
        Choice {
            files,
            files_named: true,
            certificates: &[],
            held,
            only: false,
            accepted: Accepted(&[]),
            last: &[],
            now: NOW,
        }
    }

    /// `agent` or `file`, the type, and `+` for a certificate, of each candidate.
    fn offered(choice: &Choice<'_>) -> Vec<String> {
        let (found, _) = order(choice);
        let line = |candidate: &Candidate| {
            let by = match candidate.by {
                By::Agent(_) => "agent",
                By::File(_) => "file",
            };
            let Some(identity) = &candidate.identity else { return format!("{by} ?") };
            let kind = identity::key(identity).algorithm().to_string();
            let kind = kind.split('-').take(2).collect::<Vec<_>>().join("-");
            format!("{by} {kind}{}", if identity::is_certificate(identity) { "+" } else { "" })
        };
        found.iter().map(line).collect()
    }

    #[test]
    fn named_keys_come_before_the_rest_of_the_agent() {
        let files = [file(RSA), public_file(ECDSA)];
        let held = [identity(ED25519), identity(ECDSA)];
        let mut choice = choice(&files, &held);
        assert_eq!(offered(&choice), ["agent ecdsa-sha2", "file ssh-rsa", "agent ssh-ed25519"]);
        choice.only = true;
        assert_eq!(offered(&choice), ["agent ecdsa-sha2", "file ssh-rsa"]);
    }

    #[test]
    fn the_default_files_come_after_the_agent() {
        let files = [file(RSA), file(ECDSA)];
        let held = [identity(ED25519), identity(ECDSA)];
        let choice = Choice { files_named: false, ..choice(&files, &held) };
        assert_eq!(offered(&choice), ["agent ecdsa-sha2", "agent ssh-ed25519", "file ssh-rsa"]);
    }

    #[test]
    fn a_key_that_the_agent_holds_is_signed_by_the_agent_and_offered_once() {
        let files = [file(RSA), file(RSA)];
        let held = [identity(RSA), identity(RSA)];
        assert_eq!(offered(&choice(&files, &held)), ["agent ssh-rsa"]);
        assert_eq!(offered(&choice(&files, &[])), ["file ssh-rsa"]);
    }

    #[test]
    fn a_public_half_alone_is_nothing_to_offer() {
        assert_eq!(offered(&choice(&[public_file(RSA)], &[])), Vec::<String>::new());
        let locked = File { public: None, certificate: None, signs: true };
        assert_eq!(offered(&choice(&[locked], &[])), ["file ?"]);
    }

    #[test]
    fn certificates_come_before_plain_keys() {
        let certificate = [identity(CERTIFICATE)];
        let beside = File { certificate: Some(identity(CERTIFICATE)), ..file(ED25519) };
        let files = [file(RSA), beside];
        let expected = ["file ssh-ed25519+", "file ssh-rsa", "file ssh-ed25519"];
        assert_eq!(offered(&choice(&files, &[])), expected);
        let files = [file(RSA), file(ED25519)];
        let named = Choice { certificates: &certificate, ..choice(&files, &[]) };
        assert_eq!(offered(&named), expected);
        let held = [identity(RSA), identity(ED25519), identity(CERTIFICATE)];
        let files = [public_file(ED25519)];
        let expected = ["agent ssh-ed25519+", "agent ssh-ed25519", "agent ssh-rsa"];
        assert_eq!(offered(&choice(&files, &held)), expected);
    }

    #[test]
    fn a_named_certificate_is_signed_by_the_agent_that_holds_its_key() {
        let certificate = [identity(CERTIFICATE)];
        let held = [identity(RSA), identity(ED25519)];
        let choice = Choice { certificates: &certificate, only: true, ..choice(&[], &held) };
        let (found, left_out) = order(&choice);
        assert_eq!((found.len(), left_out.len()), (1, 0));
        assert!(matches!(&found[0].by, By::Agent(held) if !identity::is_certificate(held)));
        let (found, left_out) = order(&Choice { held: &[], ..choice });
        assert!(found.is_empty());
        assert_eq!(left_out[0].why, "has no private key here");
    }

    #[test]
    fn certificates_that_let_nobody_in_are_left_out_and_named_once() {
        let beside = File { certificate: Some(identity(CERTIFICATE)), ..file(ED25519) };
        let cases = [(0, "is not valid yet"), (2_000_000_000, "has expired")];
        for (now, why) in cases {
            let files = [beside.clone()];
            let held = [identity(CERTIFICATE)];
            let choice = Choice { now, ..choice(&files, &held) };
            assert_eq!(offered(&choice), ["file ssh-ed25519"]);
            let (_, left_out) = order(&choice);
            assert!(left_out.len() == 1 && left_out[0].why == why, "{left_out:?}");
        }
        let held = [identity(OF_HOSTS)];
        let (found, left_out) = order(&choice(&[], &held));
        assert!(found.is_empty() && left_out[0].why == "is for hosts, not for users");
    }

    #[test]
    fn what_let_us_in_last_time_comes_first_in_its_order() {
        let held = [identity(ED25519), identity(RSA), identity(ECDSA)];
        let last = [ECDSA, RSA].map(|text| identity::blob(&identity(text)).unwrap());
        let choice = Choice { last: &last, ..choice(&[], &held) };
        assert_eq!(offered(&choice), ["agent ecdsa-sha2", "agent ssh-rsa", "agent ssh-ed25519"]);
        let choice = Choice { only: true, ..choice };
        assert_eq!(offered(&choice), Vec::<String>::new(), "it is no reason to offer more");
    }

    #[test]
    fn the_accepted_algorithms_filter_keys_and_certificates() {
        let names = ["ssh-ed25519-cert-v01@openssh.com".to_owned(), "ecdsa-*".to_owned()];
        let held = [identity(ED25519), identity(CERTIFICATE), identity(RSA), identity(ECDSA)];
        let choice = Choice { accepted: Accepted(&names), ..choice(&[], &held) };
        assert_eq!(offered(&choice), ["agent ssh-ed25519+", "agent ecdsa-sha2"]);
    }
}
