//! Says why a host key is refused, and what to type next. Pure.

use std::path::Path;

use super::{
    host_certificate::Flaw,
    known_hosts::{Entry, Name},
};
use crate::{
    problem::shell_word,
    tunnel::{Cause, Failure},
};

/// A key that is not taken.
#[derive(Debug)]
pub(super) struct Refusal {
    host: String,
    fingerprint: String,
    kind: String,
}

impl Refusal {
    /// About the key with this fingerprint and type, shown by the host called `name`.
    pub(super) fn new(name: &Name, fingerprint: &str, kind: &str) -> Self {
        Self { host: name.text(), fingerprint: fingerprint.to_owned(), kind: kind.to_owned() }
    }

    /// It is not on file.
    pub(super) fn unknown(&self) -> Failure {
        let Self { host, fingerprint, kind } = self;
        Failure::new(
            Cause::HostKeyUnknown,
            format!("the host key of {host} is not on file; it shows {kind} {fingerprint}"),
        )
        .fix(format!(
            "compare it with what the host itself prints \
             (ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub), then add \
             --accept-host-key {fingerprint}"
        ))
    }

    /// Only an authority is on file, and it did not vouch.
    pub(super) fn wants_certificate(&self, authority: &Entry) -> Failure {
        let Self { host, fingerprint, .. } = self;
        Failure::new(
            Cause::HostKeyUnknown,
            format!(
                "{host} should show a certificate of the authority in {} and shows none; its key \
                 {fingerprint} is not on file",
                place(authority)
            ),
        )
        .fix(format!("make sure of the key, then add --accept-host-key {fingerprint}"))
    }

    /// The authority's certificate does not hold.
    pub(super) fn flawed(&self, authority: &Entry, flaw: &Flaw) -> Failure {
        let Self { host, fingerprint, .. } = self;
        Failure::new(
            Cause::HostKeyUnknown,
            format!(
                "the certificate of {host}, by the authority in {}, does not hold: {flaw}",
                place(authority)
            ),
        )
        .fix(format!(
            "have a new one made (ssh-keygen -s … -h -n {}); or make sure of the key itself, then \
             add --accept-host-key {fingerprint}",
            shell_word(host)
        ))
    }

    /// `--accept-host-key` names another one.
    pub(super) fn not_the_pinned(&self, pin: &str) -> Failure {
        let Self { host, fingerprint, .. } = self;
        Failure::new(
            Cause::HostKeyChanged,
            format!("{host} shows the host key {fingerprint}, not the {pin} of --accept-host-key"),
        )
        .fix("find out which host answers before trying again")
    }

    /// A line takes it, or the authority behind it, back.
    pub(super) fn revoked(&self, entry: &Entry) -> Failure {
        let Self { host, fingerprint, .. } = self;
        let what = if entry.fingerprint == *fingerprint {
            format!("the host key {fingerprint} of {host}")
        } else {
            format!("the authority {} of the certificate of {host}", entry.fingerprint)
        };
        Failure::new(
            Cause::HostKeyRevoked,
            format!("{what} is marked as revoked ({})", place(entry)),
        )
        .fix("do not connect; ask whoever runs the host for its new key")
    }

    /// A line takes some key of the host back, and nobody can tell which.
    pub(super) fn unreadable(&self, path: &Path, line: usize) -> Failure {
        Failure::new(
            Cause::Configuration,
            format!(
                "{} line {line} revokes a key of {} that cannot be read",
                path.display(),
                self.host
            ),
        )
        .fix("put the line right: @revoked, host names, key type, key; blanks between them")
    }

    /// It has too few bits.
    pub(super) fn too_short(&self, flaw: &str) -> Failure {
        let Self { host, fingerprint, .. } = self;
        Failure::new(
            Cause::HostKeyUnknown,
            format!("the host key {fingerprint} of {host} {flaw}"),
        )
        .fix("have the host make a longer one (ssh-keygen -A), or ask for less: -o RequiredRSASize=1024")
    }

    /// Other keys are on file.
    pub(super) fn changed(&self, others: &[Entry]) -> Failure {
        let Self { host, fingerprint, kind } = self;
        let on_file: Vec<String> = others
            .iter()
            .map(|entry| format!("{} {} ({})", entry.algorithm, entry.fingerprint, place(entry)))
            .collect();
        Failure::new(
            Cause::HostKeyChanged,
            format!(
                "the host key of {host} has changed, or somebody listens in: on file is {}, it \
                 shows {kind} {fingerprint}",
                on_file.join(", ")
            ),
        )
        .fix(format!(
            "only if you know why it changed (StrictHostKeyChecking=no does not help here): {}",
            self.removal(others)
        ))
    }

    /// How to forget what is on file. A line with patterns speaks of other hosts, too, and
    /// `ssh-keygen -R` would take it away whole.
    fn removal(&self, others: &[Entry]) -> String {
        match (others.iter().find(|entry| !entry.literal), others.first()) {
            (Some(entry), _) => {
                format!(
                    "edit {} line {}",
                    shell_word(&entry.path.display().to_string()),
                    entry.line
                )
            }
            (None, Some(entry)) => {
                let file = entry.path.display().to_string();
                format!("ssh-keygen -R {} -f {}", shell_word(&self.host), shell_word(&file))
            }
            (None, None) => "remove the old key from known_hosts".to_owned(),
        }
    }
}

fn place(entry: &Entry) -> String {
    format!("{} line {}", entry.path.display(), entry.line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, literal: bool) -> Entry {
        Entry {
            path: path.into(),
            line: 7,
            algorithm: "ssh-ed25519".into(),
            fingerprint: "SHA256:old".into(),
            literal,
        }
    }

    fn refusal(port: u16) -> Refusal {
        Refusal::new(&Name::new("box.example", port, None), "SHA256:new", "ssh-rsa")
    }

    #[test]
    fn a_changed_key_shows_both_fingerprints_the_line_and_one_safe_command() {
        let failure = refusal(2222).changed(&[entry("/home/o'neil/known hosts", true)]);
        assert_eq!(failure.cause, Cause::HostKeyChanged);
        for part in ["SHA256:old", "SHA256:new", "known hosts line 7", "ssh-rsa", "ssh-ed25519"] {
            assert!(failure.message.contains(part), "{failure}");
        }
        let fix = failure.fix.unwrap();
        let command = r"ssh-keygen -R '[box.example]:2222' -f '/home/o'\''neil/known hosts'";
        assert!(fix.ends_with(command), "{fix}");
        let fix = refusal(22).changed(&[entry("/home/a/.ssh/known_hosts", true)]).fix.unwrap();
        assert!(fix.ends_with("ssh-keygen -R box.example -f /home/a/.ssh/known_hosts"), "{fix}");
    }

    #[test]
    fn a_line_that_means_other_hosts_too_is_to_be_edited() {
        let failure = refusal(22).changed(&[entry("/k", true), entry("/k", false)]);
        let fix = failure.fix.unwrap();
        assert!(fix.ends_with("edit /k line 7") && !fix.contains("ssh-keygen"), "{fix}");
    }

    #[test]
    fn a_revoked_authority_is_called_one() {
        let failure = refusal(22).revoked(&entry("/k", true));
        assert!(failure.message.starts_with("the authority SHA256:old of the certificate"));
        let key = Entry { fingerprint: "SHA256:new".into(), ..entry("/k", true) };
        assert!(refusal(22).revoked(&key).message.starts_with("the host key SHA256:new of box"));
    }
}
