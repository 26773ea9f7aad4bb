//! Reads a target as people type it: `[user@]host[:port]` or an `ssh://` URL. Pure.

use std::net::Ipv6Addr;

/// A target, taken apart and found harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The account, if one was named.
    pub(crate) user: Option<String>,
    /// A name or an address, without brackets.
    pub(crate) host: String,
    /// The port, if one was named.
    pub(crate) port: Option<u16>,
}

impl Target {
    /// What to type instead of a target that is none.
    pub(crate) const FIX: &str =
        "name it as ssh does: an alias, user@host, user@host:2222 or user@[::1]:2222";

    /// Takes `text` apart; the error says what is wrong with it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("the target `{}` {why}", text.escape_debug()));
        if text.is_empty() {
            return Err("the target is empty".to_owned());
        }
        if text.starts_with('-') {
            return refuse("starts with `-`");
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refuse("holds blanks or control characters");
        }
        let rest = match text.split_once("://") {
            None => text,
            Some(("ssh", rest)) => rest.strip_suffix('/').unwrap_or(rest),
            Some(_) => return refuse("is a URL of another kind than ssh://"),
        };
        let (user, place) = match rest.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, rest),
        };
        if user.is_some_and(|user| !is_user(user)) {
            return refuse("holds a user name that is empty or has shell characters");
        }
        let Some((host, port)) = split_port(place) else {
            return refuse("is not [user@]host[:port] with a port from 1 to 65535");
        };
        if !is_host(host) {
            return refuse(
                "holds a host name that is empty, starts with `-` or has characters \
                           that no host name has",
            );
        }
        Ok(Self { user: user.map(str::to_owned), host: host.to_owned(), port })
    }
}

/// Whether `name` is an account name that nothing on the way could take for an option or a command.
pub(crate) fn is_user(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with('-')
        && name.chars().all(|c| c.is_alphanumeric() || "._-+@".contains(c))
}

/// Whether `name` is a host name or an address (an IPv6 one may have a zone).
pub(crate) fn is_host(name: &str) -> bool {
    if name.contains(':') {
        return is_ipv6(name);
    }
    !name.is_empty()
        && name.len() <= 253
        && !name.starts_with('-')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// `fe80::1%eth0` and the like.
fn is_ipv6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').unwrap_or((text, "0"));
    address.parse::<Ipv6Addr>().is_ok()
        && !zone.is_empty()
        && zone.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// The host and the port of `host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address.
fn split_port(place: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        if after.is_empty() {
            return Some((host, None));
        }
        return Some((host, Some(port(after.strip_prefix(':')?)?)));
    }
    if is_ipv6(place) {
        return Some((place, None));
    }
    match place.split_once(':') {
        None => Some((place, None)),
        Some((host, number)) => Some((host, Some(port(number)?))),
    }
}

/// A port number as people write it: digits only, not zero.
pub(crate) fn port(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_people_type() {
        let cases = [
            ("box", None, "box", None),
            ("me@box", Some("me"), "box", None),
            ("me@box:2222", Some("me"), "box", Some(2222)),
            ("me@corp.example@box", Some("me@corp.example"), "box", None),
            ("10.0.0.1:22", None, "10.0.0.1", Some(22)),
            ("::1", None, "::1", None),
            ("me@[::1]:22", Some("me"), "::1", Some(22)),
            ("[fe80::1%eth0]", None, "fe80::1%eth0", None),
            ("ssh://me@box:2200/", Some("me"), "box", Some(2200)),
            ("ssh://box", None, "box", None),
            ("a_b-c.d", None, "a_b-c.d", None),
        ];
        for (text, user, host, port) in cases {
            let target = Target::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(
                (target.user.as_deref(), target.host.as_str(), target.port),
                (user, host, port),
                "{text}"
            );
        }
    }

    #[test]
    fn refuses_what_could_be_an_option_a_command_or_a_trick() {
        let cases = [
            "",
            "-oProxyCommand=x",
            "-p",
            "me@-box",
            "-me@box",
            "box name",
            "box\n",
            "box\0",
            "@box",
            "me@",
            "box:",
            "box:0",
            "box:65536",
            "box:+22",
            "box:2 2",
            "box;id",
            "$(id)",
            "`id`",
            "box|x",
            "box&",
            "a>b",
            "a'b",
            "a\"b",
            "a\\b",
            "me;x@box",
            "$USER@box",
            "[::1",
            "[::1]x",
            "[::1]:",
            "::1:99999:",
            "http://box",
            "ssh://",
            "ssh://box/path",
            "ssh://me@",
            "box%20x",
            "bücher",
            "me@box/..",
            "\u{a0}box",
            "[box;]:22",
            "~root@box",
            "*",
        ];
        for text in cases {
            assert!(Target::parse(text).is_err(), "{text:?} was taken");
        }
    }

    mod fuzz {
        use super::*;
        use crate::fuzz;

        /// What no shell may find in a name, and no program at its beginning.
        fn is_tame(name: &str) -> bool {
            let is_special = |c: char| "$`;|&<>\"'\\(){}*?~#!,/ ".contains(c) || c.is_control();
            !name.starts_with('-') && !name.chars().any(is_special)
        }

        #[test]
        fn whatever_is_typed_is_a_tame_target_or_none() {
            fuzz::survives(&["targets"], |bytes| {
                let text = String::from_utf8_lossy(bytes);
                match Target::parse(&text) {
                    Ok(target) => {
                        assert!(is_tame(&target.host) && is_host(&target.host), "{target:?}");
                        assert!(target.user.as_deref().is_none_or(is_tame), "{target:?}");
                        let user = target.user.as_ref().map(|user| format!("{user}@"));
                        let port = target.port.map(|port| format!(":{port}"));
                        let (user, port) = (user.unwrap_or_default(), port.unwrap_or_default());
                        let again = format!("{user}[{}]{port}", target.host);
                        assert_eq!(Target::parse(&again).as_ref(), Ok(&target), "{again}");
                    }
                    Err(why) => assert!(!why.chars().any(char::is_control), "{why:?}"),
                }
            });
        }
    }
}
