//! Names of algorithms as OpenSSH knows them, and what a list of them comes to. Pure.
//!
//! What we ourselves offer is decided elsewhere; this is what a configuration may say.

use super::{keywords::Family, pattern};

const CIPHERS: &[&str] = &[
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
];
const OLD_CIPHERS: &[&str] =
    &["3des-cbc", "aes128-cbc", "aes192-cbc", "aes256-cbc", "rijndael-cbc@lysator.liu.se"];
const MACS: &[&str] = &[
    "umac-64-etm@openssh.com",
    "umac-128-etm@openssh.com",
    "hmac-sha2-256-etm@openssh.com",
    "hmac-sha2-512-etm@openssh.com",
    "hmac-sha1-etm@openssh.com",
    "umac-64@openssh.com",
    "umac-128@openssh.com",
    "hmac-sha2-256",
    "hmac-sha2-512",
    "hmac-sha1",
];
const OLD_MACS: &[&str] = &[
    "hmac-sha1-96",
    "hmac-md5",
    "hmac-md5-96",
    "hmac-sha1-96-etm@openssh.com",
    "hmac-md5-etm@openssh.com",
    "hmac-md5-96-etm@openssh.com",
];
const KEX: &[&str] = &[
    "sntrup761x25519-sha512",
    "sntrup761x25519-sha512@openssh.com",
    "curve25519-sha256",
    "curve25519-sha256@libssh.org",
    "ecdh-sha2-nistp256",
    "ecdh-sha2-nistp384",
    "ecdh-sha2-nistp521",
    "diffie-hellman-group-exchange-sha256",
    "diffie-hellman-group16-sha512",
    "diffie-hellman-group18-sha512",
    "diffie-hellman-group14-sha256",
];
const OTHER_KEX: &[&str] = &[
    "mlkem768x25519-sha256",
    "diffie-hellman-group1-sha1",
    "diffie-hellman-group14-sha1",
    "diffie-hellman-group-exchange-sha1",
];
const KEYS: &[&str] = &[
    "ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "rsa-sha2-512-cert-v01@openssh.com",
    "rsa-sha2-256-cert-v01@openssh.com",
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
];
/// All of them, in the order in which a pattern picks them.
const ALL_KEYS: &[&str] = &[
    "ssh-ed25519",
    "ssh-ed25519-cert-v01@openssh.com",
    "sk-ssh-ed25519@openssh.com",
    "sk-ssh-ed25519-cert-v01@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp384-cert-v01@openssh.com",
    "ecdsa-sha2-nistp521",
    "ecdsa-sha2-nistp521-cert-v01@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
    "webauthn-sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-dss",
    "ssh-dss-cert-v01@openssh.com",
    "ssh-rsa",
    "ssh-rsa-cert-v01@openssh.com",
    "rsa-sha2-256",
    "rsa-sha2-256-cert-v01@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-512-cert-v01@openssh.com",
];
const AUTHORITIES: &[&str] = &[
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
];

impl Family {
    /// What OpenSSH offers when nobody says otherwise, best first.
    pub(super) fn defaults(self) -> &'static [&'static str] {
        match self {
            Self::Cipher => CIPHERS,
            Self::Mac => MACS,
            Self::Kex => KEX,
            Self::Key => KEYS,
            Self::Authority => AUTHORITIES,
        }
    }

    /// What it knows: all of it for those that take patterns, and so in the order of patterns.
    fn known(self) -> impl Iterator<Item = &'static str> {
        let (some, more) = match self {
            Self::Cipher => (CIPHERS, OLD_CIPHERS),
            Self::Mac => (MACS, OLD_MACS),
            Self::Kex => (KEX, OTHER_KEX),
            Self::Key | Self::Authority => (ALL_KEYS, &[][..]),
        };
        some.iter().chain(more).copied()
    }

    fn takes_patterns(self) -> bool {
        matches!(self, Self::Key | Self::Authority)
    }
}

/// Checks a list with or without `+`, `-` or `^` in front; the error names what is unknown.
pub(super) fn check(list: &str, family: Family) -> Result<(), String> {
    if list.starts_with('-') {
        return Ok(());
    }
    let names = list.strip_prefix(['+', '^']).unwrap_or(list);
    if names.is_empty() {
        return Err("names no algorithm".to_owned());
    }
    let is_known = |name: &str| {
        family.known().any(|known| {
            known == name || (family.takes_patterns() && pattern::matches(known, name))
        })
    };
    match names.split(',').find(|name| !is_known(name)) {
        Some(unknown) => Err(format!("`{}` is no known algorithm", unknown.escape_debug())),
        None => Ok(()),
    }
}

/// What a list comes to, given OpenSSH's defaults; the error says why nothing is left.
pub(super) fn expand(list: &str, family: Family) -> Result<Vec<&'static str>, String> {
    let defaults = || family.defaults().iter().copied();
    let chosen = |list: &str| -> Vec<&'static str> {
        let matching = |pattern| family.known().filter(move |name| pattern::matches(name, pattern));
        list.split(',').flat_map(matching).collect()
    };
    let all: Vec<&'static str> = if let Some(more) = list.strip_prefix('+') {
        defaults().chain(chosen(more)).collect()
    } else if let Some(first) = list.strip_prefix('^') {
        chosen(first).into_iter().chain(defaults()).collect()
    } else if let Some(gone) = list.strip_prefix('-') {
        defaults().filter(|name| !pattern::includes(gone, name)).collect()
    } else {
        chosen(list)
    };
    let mut names: Vec<&'static str> = Vec::new();
    for name in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    if names.is_empty() { Err("leaves no algorithm".to_owned()) } else { Ok(names) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_add_remove_and_prefer() {
        let expand = |list| expand(list, Family::Cipher).map(|names| names.join(","));
        assert_eq!(expand("aes256-cbc,aes128-ctr").as_deref(), Ok("aes256-cbc,aes128-ctr"));
        assert!(expand("+aes256-cbc").is_ok_and(|names| names.ends_with(",aes256-cbc")));
        assert!(expand("^aes256-ctr").is_ok_and(|names| names.starts_with("aes256-ctr,chacha")));
        assert_eq!(expand("-chacha*,*-gcm@*,aes1*").as_deref(), Ok("aes256-ctr"));
        assert!(expand("-*").is_err());
    }

    #[test]
    fn unknown_names_are_named() {
        assert!(
            check("aes256-ctr,nonsense", Family::Cipher).is_err_and(|e| e.contains("nonsense"))
        );
        assert!(check("aes*", Family::Cipher).is_err());
        assert_eq!(check("ssh-ed*", Family::Key), Ok(()));
        assert_eq!(check("-nonsense", Family::Kex), Ok(()));
        assert!(check("+", Family::Kex).is_err());
    }
}
