//! Which signature algorithms may be used (`PubkeyAcceptedAlgorithms`), and which hash goes with an
//! RSA key. Pure.

use russh::keys::HashAlg;

use crate::ssh::{
    identity::{self, Identity},
    pattern,
};

/// How the name of a certificate's algorithm ends.
const CERTIFICATE: &str = "-cert-v01@openssh.com";
/// The signatures of RSA keys that are still safe, best first.
const SAFE_RSA: [(&str, Option<HashAlg>); 2] =
    [("rsa-sha2-512", Some(HashAlg::Sha512)), ("rsa-sha2-256", Some(HashAlg::Sha256))];
/// RSA with SHA-1: only for those who ask for it by name.
const OLD_RSA: (&str, Option<HashAlg>) = ("ssh-rsa", None);

/// What a server said about RSA signatures (RFC 8308, `server-sig-algs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ServerRsa {
    /// Nothing.
    Silent,
    /// It takes this hash; `None` is SHA-1.
    Best(Option<HashAlg>),
}

/// The list of the user, or our own choice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Accepted<'a>(pub(super) &'a [String]);

impl Accepted<'_> {
    /// Whether any signature with this identity is allowed.
    pub(super) fn allows(self, identity: &Identity) -> bool {
        let key = identity::key(identity);
        if key.algorithm().is_rsa() {
            return !self.rsa(identity).is_empty();
        }
        // DSA is broken, and the library cannot sign with it.
        !key.algorithm().is_dsa()
            && (self.0.is_empty() || self.names(&identity::algorithm(identity)))
    }

    /// The hash for a signature with an RSA identity; `None` if ours and theirs have none in common.
    pub(super) fn hash(self, identity: &Identity, server: ServerRsa) -> Option<Option<HashAlg>> {
        let fits = |hash: &Option<HashAlg>| match server {
            // Who takes the best of SHA-2 takes the other as well; of SHA-1 nothing is known.
            ServerRsa::Silent | ServerRsa::Best(Some(HashAlg::Sha512)) => true,
            ServerRsa::Best(None) => hash.is_none(),
            ServerRsa::Best(best) => *hash == best || hash.is_none(),
        };
        let mut fitting: Vec<_> = self.rsa(identity).into_iter().filter(fits).collect();
        // Before OpenSSH 7.2 nothing is said, and SHA-1 all there is: for whoever insists on it.
        let old_first = server == ServerRsa::Silent;
        fitting.sort_by_key(|hash| hash.is_some() == old_first);
        fitting.first().copied()
    }

    /// The hashes for an RSA identity, in order.
    fn rsa(self, identity: &Identity) -> Vec<Option<HashAlg>> {
        if self.0.is_empty() {
            return SAFE_RSA.iter().map(|(_, hash)| *hash).collect();
        }
        let suffix = if identity::is_certificate(identity) { CERTIFICATE } else { "" };
        let mut hashes = Vec::new();
        for pattern in self.0 {
            for (name, hash) in SAFE_RSA {
                let name = format!("{name}{suffix}");
                if pattern::matches(pattern, &name) && self.names(&name) {
                    hashes.push(hash);
                }
            }
            let old = format!("{}{suffix}", OLD_RSA.0);
            hashes.extend((*pattern == old && self.names(&old)).then_some(OLD_RSA.1));
        }
        hashes
    }

    fn names(self, name: &str) -> bool {
        let mut found = false;
        for pattern in self.0 {
            match pattern.strip_prefix('!') {
                Some(pattern) if pattern::matches(pattern, name) => return false,
                Some(_) => {}
                None => found |= pattern::matches(pattern, name),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::auth::order::samples::{ED25519, RSA, identity};

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn our_own_choice_has_no_sha_1() {
        let (rsa, plain) = (identity(RSA), identity(ED25519));
        let accepted = Accepted(&[]);
        assert!(accepted.allows(&rsa) && accepted.allows(&plain));
        let cases = [
            (ServerRsa::Silent, Some(Some(HashAlg::Sha512))),
            (ServerRsa::Best(Some(HashAlg::Sha512)), Some(Some(HashAlg::Sha512))),
            (ServerRsa::Best(Some(HashAlg::Sha256)), Some(Some(HashAlg::Sha256))),
            (ServerRsa::Best(None), None),
        ];
        for (server, expected) in cases {
            assert_eq!(accepted.hash(&rsa, server), expected, "{server:?}");
        }
    }

    #[test]
    fn the_list_of_the_user_filters_keys_and_picks_the_hash() {
        let (rsa, plain) = (identity(RSA), identity(ED25519));
        let names = list(&["ssh-ed25519*", "!ssh-rsa"]);
        assert!(Accepted(&names).allows(&plain) && !Accepted(&names).allows(&rsa));
        let names = list(&["rsa-sha2-256", "rsa-sha2-512"]);
        let accepted = Accepted(&names);
        assert!(accepted.allows(&rsa) && !accepted.allows(&plain));
        let best = ServerRsa::Best(Some(HashAlg::Sha512));
        assert_eq!(accepted.hash(&rsa, best), Some(Some(HashAlg::Sha256)));
        assert_eq!(accepted.hash(&rsa, ServerRsa::Best(None)), None);
        let names = list(&["rsa-sha2-512"]);
        let weak = ServerRsa::Best(Some(HashAlg::Sha256));
        assert_eq!(Accepted(&names).hash(&rsa, weak), None);
    }

    #[test]
    fn sha_1_is_used_by_those_who_name_it_with_servers_that_know_nothing_better() {
        let rsa = identity(RSA);
        let names = list(&["rsa-sha2-512", "ssh-rsa"]);
        let accepted = Accepted(&names);
        let best = ServerRsa::Best(Some(HashAlg::Sha512));
        assert_eq!(accepted.hash(&rsa, best), Some(Some(HashAlg::Sha512)));
        assert_eq!(accepted.hash(&rsa, ServerRsa::Silent), Some(None));
        assert_eq!(accepted.hash(&rsa, ServerRsa::Best(None)), Some(None));
        let only = list(&["ssh-rsa"]);
        assert_eq!(Accepted(&only).hash(&rsa, best), Some(None));
        let everything = list(&["*"]);
        assert_eq!(Accepted(&everything).hash(&rsa, ServerRsa::Best(None)), None);
    }
}
