//! The algorithm names of OpenSSH, which of them we use, and what a user's list makes of that.
//! Pure.
//!
//! Three kinds of names: good ones make up our own lists; weak ones count only where a list holds
//! their very name; missing ones OpenSSH has and we do not.

use super::pattern;

/// A keyword of ssh_config(5) whose value is a list of algorithm names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    /// `KexAlgorithms`.
    Kex,
    /// `Ciphers`.
    Ciphers,
    /// `MACs`.
    Macs,
    /// `HostKeyAlgorithms`.
    HostKey,
    /// `PubkeyAcceptedAlgorithms`.
    PublicKey,
    /// `CASignatureAlgorithms`.
    CaSignature,
}

/// What a user's list comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// The names to use, best first; never empty.
    pub(crate) names: Vec<String>,
    /// Names that the list holds and we do not have: worth a note.
    pub(crate) dropped: Vec<String>,
}

/// How far a name can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grade {
    Good,
    Weak,
    Missing,
}

use Grade::{Good, Missing, Weak};

/// Every name that OpenSSH has known since 9.0, ours in the order in which we want them.
type Table = &'static [(&'static str, Grade)];

const KEX: Table = &[
    ("mlkem768x25519-sha256", Good),
    ("curve25519-sha256", Good),
    ("curve25519-sha256@libssh.org", Good),
    ("ecdh-sha2-nistp256", Good),
    ("ecdh-sha2-nistp384", Good),
    ("ecdh-sha2-nistp521", Good),
    ("diffie-hellman-group-exchange-sha256", Good),
    ("diffie-hellman-group16-sha512", Good),
    ("diffie-hellman-group18-sha512", Good),
    ("diffie-hellman-group14-sha256", Good),
    ("diffie-hellman-group-exchange-sha1", Weak),
    ("diffie-hellman-group14-sha1", Weak),
    ("diffie-hellman-group1-sha1", Weak),
    ("sntrup761x25519-sha512", Missing),
    ("sntrup761x25519-sha512@openssh.com", Missing),
];

/// As if AES were the faster one: [`own`] leaves the order to who has measured.
const CIPHERS: Table = &[
    ("aes256-gcm@openssh.com", Good),
    ("aes128-gcm@openssh.com", Good),
    (CHACHA, Good),
    ("aes256-ctr", Good),
    ("aes192-ctr", Good),
    ("aes128-ctr", Good),
    ("aes256-cbc", Weak),
    ("aes192-cbc", Weak),
    ("aes128-cbc", Weak),
    ("3des-cbc", Missing),
];

/// The one cipher without AES in it.
const CHACHA: &str = "chacha20-poly1305@openssh.com";

const MACS: Table = &[
    ("hmac-sha2-512-etm@openssh.com", Good),
    ("hmac-sha2-256-etm@openssh.com", Good),
    ("hmac-sha2-512", Good),
    ("hmac-sha2-256", Good),
    ("hmac-sha1-etm@openssh.com", Weak),
    ("hmac-sha1", Weak),
    ("umac-128-etm@openssh.com", Missing),
    ("umac-128@openssh.com", Missing),
    ("umac-64-etm@openssh.com", Missing),
    ("umac-64@openssh.com", Missing),
    ("hmac-sha1-96-etm@openssh.com", Missing),
    ("hmac-sha1-96", Missing),
    ("hmac-md5-etm@openssh.com", Missing),
    ("hmac-md5-96-etm@openssh.com", Missing),
    ("hmac-md5", Missing),
    ("hmac-md5-96", Missing),
];

const HOST_KEY: Table = &[
    ("ssh-ed25519-cert-v01@openssh.com", Good),
    ("ecdsa-sha2-nistp256-cert-v01@openssh.com", Good),
    ("ecdsa-sha2-nistp384-cert-v01@openssh.com", Good),
    ("ecdsa-sha2-nistp521-cert-v01@openssh.com", Good),
    ("rsa-sha2-512-cert-v01@openssh.com", Good),
    ("rsa-sha2-256-cert-v01@openssh.com", Good),
    ("ssh-ed25519", Good),
    ("ecdsa-sha2-nistp256", Good),
    ("ecdsa-sha2-nistp384", Good),
    ("ecdsa-sha2-nistp521", Good),
    ("rsa-sha2-512", Good),
    ("rsa-sha2-256", Good),
    ("ssh-rsa-cert-v01@openssh.com", Weak),
    ("ssh-rsa", Weak),
    ("sk-ssh-ed25519-cert-v01@openssh.com", Missing),
    ("sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", Missing),
    ("sk-ssh-ed25519@openssh.com", Missing),
    ("sk-ecdsa-sha2-nistp256@openssh.com", Missing),
    ("webauthn-sk-ecdsa-sha2-nistp256@openssh.com", Missing),
    ("ssh-dss-cert-v01@openssh.com", Missing),
    ("ssh-dss", Missing),
];

const PUBLIC_KEY: Table = &[
    ("ssh-ed25519-cert-v01@openssh.com", Good),
    ("ecdsa-sha2-nistp256-cert-v01@openssh.com", Good),
    ("ecdsa-sha2-nistp384-cert-v01@openssh.com", Good),
    ("ecdsa-sha2-nistp521-cert-v01@openssh.com", Good),
    ("sk-ssh-ed25519-cert-v01@openssh.com", Good),
    ("sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", Good),
    ("rsa-sha2-512-cert-v01@openssh.com", Good),
    ("rsa-sha2-256-cert-v01@openssh.com", Good),
    ("ssh-ed25519", Good),
    ("ecdsa-sha2-nistp256", Good),
    ("ecdsa-sha2-nistp384", Good),
    ("ecdsa-sha2-nistp521", Good),
    ("sk-ssh-ed25519@openssh.com", Good),
    ("sk-ecdsa-sha2-nistp256@openssh.com", Good),
    ("rsa-sha2-512", Good),
    ("rsa-sha2-256", Good),
    ("ssh-rsa-cert-v01@openssh.com", Weak),
    ("ssh-rsa", Weak),
    ("webauthn-sk-ecdsa-sha2-nistp256@openssh.com", Missing),
    ("ssh-dss-cert-v01@openssh.com", Missing),
    ("ssh-dss", Missing),
];

const CA_SIGNATURE: Table = &[
    ("ssh-ed25519", Good),
    ("ecdsa-sha2-nistp256", Good),
    ("ecdsa-sha2-nistp384", Good),
    ("ecdsa-sha2-nistp521", Good),
    ("sk-ssh-ed25519@openssh.com", Good),
    ("sk-ecdsa-sha2-nistp256@openssh.com", Good),
    ("rsa-sha2-512", Good),
    ("rsa-sha2-256", Good),
    ("ssh-rsa", Weak),
    ("webauthn-sk-ecdsa-sha2-nistp256@openssh.com", Missing),
    ("ssh-dss", Missing),
];

impl Keyword {
    /// Every one of them.
    pub(crate) const ALL: [Self; 6] =
        [Self::Kex, Self::Ciphers, Self::Macs, Self::HostKey, Self::PublicKey, Self::CaSignature];

    /// As ssh_config(5) writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kex => "KexAlgorithms",
            Self::Ciphers => "Ciphers",
            Self::Macs => "MACs",
            Self::HostKey => "HostKeyAlgorithms",
            Self::PublicKey => "PubkeyAcceptedAlgorithms",
            Self::CaSignature => "CASignatureAlgorithms",
        }
    }

    fn table(self) -> Table {
        match self {
            Self::Kex => KEX,
            Self::Ciphers => CIPHERS,
            Self::Macs => MACS,
            Self::HostKey => HOST_KEY,
            Self::PublicKey => PUBLIC_KEY,
            Self::CaSignature => CA_SIGNATURE,
        }
    }

    /// Whether OpenSSH takes `*` and `?` in a list that names what to use.
    fn takes_wildcards(self) -> bool {
        matches!(self, Self::HostKey | Self::PublicKey | Self::CaSignature)
    }
}

/// Whether a name counts only where a list holds it: it is used as it was asked for, and weak.
pub(crate) fn is_weak(name: &str) -> bool {
    let tables = Keyword::ALL.into_iter().map(Keyword::table);
    tables.flatten().any(|(known, grade)| *known == name && *grade == Weak)
}

/// Our own list, best first; the ciphers by what is faster on this machine.
pub(crate) fn own(keyword: Keyword) -> Vec<String> {
    let mut names: Vec<String> = keyword
        .table()
        .iter()
        .filter(|(_, grade)| *grade == Good)
        .map(|(name, _)| (*name).to_owned())
        .collect();
    if keyword == Keyword::Ciphers && super::cipher_speed::chacha_is_faster() {
        // The sort is stable: false comes first.
        names.sort_by_key(|name| name != CHACHA);
    }
    names
}

/// The names to use where a plan says `given`: that, or our own where it says nothing.
pub(crate) fn or_own(keyword: Keyword, given: &[String]) -> Vec<String> {
    if given.is_empty() { own(keyword) } else { given.to_vec() }
}

/// Of the names that a server offers those that a list could ask us to use.
pub(crate) fn usable(keyword: Keyword, offered: &[String]) -> Vec<&str> {
    let is_usable = |name: &&str| {
        keyword.table().iter().any(|(known, grade)| known == name && *grade != Missing)
    };
    offered.iter().map(String::as_str).filter(is_usable).collect()
}

/// Whether `list` is one that `ssh` would take for the keyword; the error says what is wrong.
pub(crate) fn check(keyword: Keyword, list: &str) -> Result<(), String> {
    let (sign, rest) = split(list);
    if sign == Some('-') {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(format!("{}: the list is empty", keyword.name()));
    }
    for part in rest.split(',').filter(|part| !part.is_empty()) {
        let known = keyword.table().iter().any(|(name, _)| {
            if keyword.takes_wildcards() { pattern::matches(part, name) } else { part == *name }
        });
        if !known {
            let (keyword, part) = (keyword.name(), part.escape_debug());
            return Err(format!("{keyword}: {part} is no algorithm of OpenSSH"));
        }
    }
    if sign.is_none() && filled_in(keyword, rest).is_empty() {
        return Err(format!("{}: the list is empty", keyword.name()));
    }
    Ok(())
}

/// What `ssh` makes of `list` where `default` is its own: `+` appends, `-` takes away, `^` puts in
/// front, anything else replaces; patterns are filled in from what the keyword knows.
pub(crate) fn expand<D: AsRef<str>>(keyword: Keyword, list: &str, default: &[D]) -> Vec<String> {
    let (sign, rest) = split(list);
    let default = || default.iter().map(|name| name.as_ref().to_owned());
    let mut names = match sign {
        Some('-') => return default().filter(|name| !is_listed(rest, name)).collect(),
        // What is appended ends at an empty name: `+,b` appends nothing.
        Some('+') => {
            let whole = rest.split(',').take_while(|part| !part.is_empty());
            let named = whole.collect::<Vec<_>>().join(",");
            default().chain(filled_in(keyword, &named)).collect()
        }
        Some('^') => filled_in(keyword, rest).into_iter().chain(default()).collect(),
        _ => filled_in(keyword, rest),
    };
    keep_first(&mut names);
    names
}

/// What a user's `list` makes of our own: the algorithms to use, never more than the list allows.
///
/// Weak algorithms need their exact name in the list. The error, of a list that `ssh` would refuse
/// or that leaves nothing we have, names the keyword and what would do.
pub(crate) fn choose(keyword: Keyword, list: &str) -> Result<Choice, String> {
    check(keyword, list)?;
    let (sign, rest) = split(list);
    let grade = |wanted: &str| {
        keyword.table().iter().find(|(name, _)| *name == wanted).map(|(_, grade)| *grade)
    };
    let is_named = |wanted: &str| rest.split(',').any(|part| part == wanted);
    let own = own(keyword);
    let mut names = expand(keyword, list, &own);
    names.retain(|name| match grade(name) {
        Some(Good) => true,
        Some(Weak) => is_named(name),
        Some(Missing) | None => false,
    });
    let dropped = match sign {
        Some('-') => Vec::new(),
        _ => {
            rest.split(',').filter(|part| grade(part) == Some(Missing)).map(str::to_owned).collect()
        }
    };
    if names.is_empty() {
        return Err(format!(
            "{} {}: leaves no algorithm that is built in; there are {}",
            keyword.name(),
            list.escape_debug(),
            own.join(", ")
        ));
    }
    Ok(Choice { names, dropped })
}

/// The sign in front of a list, and the rest.
fn split(list: &str) -> (Option<char>, &str) {
    match list.chars().next() {
        Some(sign @ ('+' | '-' | '^')) => (Some(sign), list.get(1..).unwrap_or_default()),
        _ => (None, list),
    }
}

/// The known names that each pattern of a list stands for, in its order.
fn filled_in(keyword: Keyword, list: &str) -> Vec<String> {
    let of = |part| {
        let fits = move |(name, _): &&(&'static str, Grade)| pattern::matches(part, name);
        keyword.table().iter().filter(fits).map(|(name, _)| (*name).to_owned())
    };
    list.split(',').flat_map(of).collect()
}

/// Whether a list of patterns, some of them perhaps negated, covers `name`.
fn is_listed(list: &str, name: &str) -> bool {
    let mut found = false;
    for part in list.split(',') {
        match part.strip_prefix('!') {
            Some(part) if pattern::matches(part, name) => return false,
            Some(_) => {}
            None => found |= pattern::matches(part, name),
        }
    }
    found
}

fn keep_first(names: &mut Vec<String>) {
    let mut seen: Vec<String> = Vec::with_capacity(names.len());
    names.retain(|name| {
        let new = !seen.contains(name);
        if new {
            seen.push(name.clone());
        }
        new
    });
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn chosen(keyword: Keyword, list: &str) -> String {
        choose(keyword, list).unwrap().names.join(",")
    }

    #[test]
    fn our_own_lists_hold_nothing_broken() {
        for keyword in Keyword::ALL {
            let own = own(keyword);
            for broken in ["sha1", "cbc", "3des", "arcfour", "umac-64", "md5", "dss", "none"] {
                assert!(!own.iter().any(|name| name.contains(broken)), "{own:?}");
            }
            assert!(!own.iter().any(|name| name.starts_with("ssh-rsa")), "{own:?}");
        }
        assert_eq!(own(Keyword::Kex).first().unwrap(), "mlkem768x25519-sha256");
    }

    #[test]
    fn a_list_appends_takes_away_goes_in_front_or_replaces() {
        let host = |list| chosen(Keyword::HostKey, list);
        assert!(host("+ssh-rsa").ends_with("rsa-sha2-256,ssh-rsa"));
        assert!(host("^ssh-rsa").starts_with("ssh-rsa,ssh-ed25519-cert"));
        assert!(host("+ssh-ed25519").starts_with("ssh-ed25519-cert"), "it stays where it is");
        assert!(host("^rsa-sha2-512,ssh-ed25519").starts_with("rsa-sha2-512,ssh-ed25519,ssh-ed"));
        assert_eq!(host("-*cert*,ecdsa*,rsa*"), "ssh-ed25519");
        assert_eq!(host("rsa-sha2-???"), "rsa-sha2-512,rsa-sha2-256");
        assert_eq!(chosen(Keyword::Ciphers, "aes256-gcm@openssh.com"), "aes256-gcm@openssh.com");
        let kex = chosen(Keyword::Kex, "-diffie*,ecdh*");
        assert_eq!(kex, "mlkem768x25519-sha256,curve25519-sha256,curve25519-sha256@libssh.org");
        let kept = chosen(Keyword::Kex, "-!curve25519-sha256,*25519*");
        assert!(kept.starts_with("curve25519-sha256,ecdh"), "{kept}");
    }

    #[test]
    fn weak_ones_are_known_as_such() {
        for (name, expected) in [
            ("hmac-sha1", true),
            ("diffie-hellman-group1-sha1", true),
            ("aes256-gcm@openssh.com", false),
            ("ssh-ed25519", false),
        ] {
            assert_eq!(is_weak(name), expected, "{name}");
        }
    }

    #[test]
    fn weak_ones_need_their_very_name() {
        assert!(!chosen(Keyword::HostKey, "*").split(',').any(|name| name == "ssh-rsa"));
        assert_eq!(chosen(Keyword::HostKey, "ssh-rsa"), "ssh-rsa");
        assert_eq!(chosen(Keyword::Ciphers, "aes128-cbc"), "aes128-cbc");
        assert_eq!(chosen(Keyword::Macs, "hmac-sha1"), "hmac-sha1");
        assert!(chosen(Keyword::Kex, "+diffie-hellman-group14-sha1").ends_with("group14-sha1"));
        let refused = choose(Keyword::HostKey, "ssh-rsa*").unwrap_err();
        assert!(refused.contains("HostKeyAlgorithms ssh-rsa*: leaves no"), "{refused}");
    }

    #[test]
    fn names_that_are_not_built_in_are_dropped_and_told() {
        let list = "sntrup761x25519-sha512@openssh.com,curve25519-sha256";
        let choice = choose(Keyword::Kex, list).unwrap();
        assert_eq!(choice.names, ["curve25519-sha256"]);
        assert_eq!(choice.dropped, ["sntrup761x25519-sha512@openssh.com"]);
        let refused = choose(Keyword::Macs, "umac-64@openssh.com").unwrap_err();
        assert!(refused.starts_with("MACs umac-64@openssh.com: leaves no"), "{refused}");
        assert!(refused.contains("hmac-sha2-512"), "it says what there is: {refused}");
        let refused = choose(Keyword::Ciphers, "-*").unwrap_err();
        assert!(refused.starts_with("Ciphers -*"), "{refused}");
    }

    #[test]
    fn refuses_the_lists_that_ssh_refuses() {
        let Ok(version) = Command::new("ssh").arg("-V").output() else { return };
        assert!(version.status.success());
        let lists = [
            "",
            "+",
            "-",
            "^",
            "foo",
            "+foo",
            "-foo",
            "^foo",
            ",",
            "+,",
            "aes*",
            "ssh-*",
            "*",
            "ssh-ed25519",
            "aes128-ctr",
            "aes128-ctr,foo",
            "aes128-ctr,",
            "hmac-sha2-256",
            "curve25519-sha256",
            "CURVE25519-SHA256",
            "!ssh-rsa,ssh-ed25519",
            "sk-*,webauthn*",
            "ssh-dss",
            "diffie-hellman-group1-sha1",
            "3des-cbc",
            "-aes*,!aes128-ctr",
        ];
        let mut differ = Vec::new();
        for keyword in Keyword::ALL {
            for list in lists {
                // An empty word is a matter of the configuration's grammar, not of the list.
                if list.is_empty() {
                    continue;
                }
                let option = format!("{}={list}", keyword.name());
                let ssh = Command::new("ssh")
                    .args(["-F", "none", "-G", "-o", &option, "host"])
                    .output()
                    .unwrap();
                // `ssh` finds nothing left later, and for host keys only when it connects.
                let told = String::from_utf8_lossy(&ssh.stderr).into_owned();
                let late =
                    keyword == Keyword::HostKey && [",", "!ssh-rsa,ssh-ed25519"].contains(&list);
                let taken = ssh.status.success() && !told.contains("invalid argument") && !late;
                if check(keyword, list).is_ok() != taken {
                    differ.push((option, told));
                }
            }
        }
        assert!(differ.is_empty(), "{differ:#?}");
    }

    #[test]
    fn expands_lists_as_ssh_does() {
        let ask = |option: &str| {
            let ssh = Command::new("ssh")
                .args(["-F", "none", "-G", "-o", option, "host"])
                .output()
                .unwrap();
            String::from_utf8(ssh.stdout).unwrap()
        };
        if Command::new("ssh").arg("-V").output().is_err() {
            return;
        }
        let lists = [
            (Keyword::Kex, vec!["-diffie*", "+diffie-hellman-group1-sha1", "^curve25519-sha256"]),
            (Keyword::Ciphers, vec!["-aes*,!aes128-ctr", "+aes128-cbc,3des-cbc", "aes128-ctr"]),
            (Keyword::Macs, vec!["-hmac*", "^hmac-md5", "-*512*,*-64*"]),
            (Keyword::HostKey, vec!["+ssh-rsa", "^ssh-*", "-*cert*", "sk-*,ssh-ed25519"]),
            (Keyword::PublicKey, vec!["+ssh-rsa*", "rsa-sha2-512", "-ecdsa*,!*cert*"]),
            (Keyword::CaSignature, vec!["-ecdsa*", "+ssh-rsa", "^rsa*"]),
        ];
        for (keyword, lists) in lists {
            let value = |text: &str| -> Vec<String> {
                let key = keyword.name().to_ascii_lowercase();
                let line = text.lines().find(|line| line.split(' ').next() == Some(&key)).unwrap();
                line.split(' ').nth(1).unwrap_or_default().split(',').map(str::to_owned).collect()
            };
            let default = value(&ask("LogLevel=INFO"));
            for list in lists {
                let theirs = value(&ask(&format!("{}={list}", keyword.name())));
                let mut ours = expand(keyword, list, &default);
                let is_theirs = |name: &String| theirs.contains(name);
                assert!(theirs.iter().all(|name| ours.contains(name)), "{list}: {ours:?}");
                if list.contains('*') && !list.starts_with('-') {
                    // A pattern is filled in from a table whose order is not ours.
                    ours.retain(is_theirs);
                    ours.sort();
                    let mut theirs = theirs.clone();
                    theirs.sort();
                    assert_eq!(ours, theirs, "{list}");
                } else {
                    assert_eq!(ours, theirs, "{list}");
                }
            }
        }
    }

    #[test]
    fn knows_every_name_of_the_installed_ssh() {
        let queries = [
            (Keyword::Kex, "kex"),
            (Keyword::Ciphers, "cipher"),
            (Keyword::Macs, "mac"),
            (Keyword::HostKey, "HostKeyAlgorithms"),
            (Keyword::PublicKey, "PubkeyAcceptedAlgorithms"),
            (Keyword::CaSignature, "CASignatureAlgorithms"),
        ];
        for (keyword, query) in queries {
            let Ok(output) = Command::new("ssh").args(["-Q", query]).output() else { return };
            let text = String::from_utf8(output.stdout).unwrap();
            let known = |name: &&str| keyword.table().iter().any(|(known, _)| known == name);
            let missed: Vec<&str> = text.lines().filter(|name| !known(name)).collect();
            assert!(missed.is_empty(), "{} {missed:?}", keyword.name());
        }
    }
}
