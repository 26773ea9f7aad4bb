//! Jump hosts as `ProxyJump` writes them: `[user@]host[:port]` or `ssh://`, commas between. Pure.
//!
//! Tokens such as `%r` may stand in them. A `%` may also begin the zone of an IPv6 address, so a jump
//! that is one as it stands is not filled in.

use std::fmt;

use super::tokens;
use crate::ssh::target;

/// How a jump host as a URL begins.
const URL: &str = "ssh://";

/// One jump host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Jump {
    pub(super) user: Option<String>,
    pub(super) host: String,
    pub(super) port: Option<u16>,
}

impl fmt::Display for Jump {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(user) = &self.user {
            write!(out, "{user}@")?;
        }
        let is_number = self.host.contains(':')
            || self.host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if is_number {
            write!(out, "[{}]", self.host)?;
        } else {
            out.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(out, ":{port}"))
    }
}

/// The jump hosts of `text` in order, tokens and all; none for `none`; the error says what is wrong.
pub(super) fn parse(text: &str) -> Result<Vec<Jump>, String> {
    let text = text.split('#').next().unwrap_or_default().trim_end();
    if text.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    text.split(',').map(one).collect()
}

/// `text` with the tokens of each jump filled in by `fill`; what that makes must be jump hosts.
pub(super) fn filled(
    text: &str,
    fill: impl Fn(&str) -> Result<String, String>,
) -> Result<String, String> {
    let one = |text: &str| {
        if is_plain(text) {
            return Ok(text.to_owned());
        }
        let filled = fill(text)?;
        if is_plain(&filled) { Ok(filled) } else { Err(wrong(&filled)) }
    };
    let jumps: Vec<String> = text.split(',').map(one).collect::<Result<_, _>>()?;
    Ok(jumps.join(","))
}

/// `text` as `ssh -G` shows it: the last host in one form, those before it as they were written.
pub(super) fn normal(text: &str) -> Result<String, String> {
    let jumps = parse(text)?;
    let Some(last) = jumps.last() else { return Ok("none".to_owned()) };
    let text = text.split('#').next().unwrap_or_default();
    Ok(match text.rsplit_once(',') {
        Some((before, _)) => format!("{before},{last}"),
        None => last.to_string(),
    })
}

/// The name of the last host of `text`, as `%j` stands for it.
pub(super) fn last_host(text: &str) -> String {
    parse(text).ok().and_then(|mut jumps| jumps.pop()).map(|jump| jump.host).unwrap_or_default()
}

fn wrong(text: &str) -> String {
    format!("`{}` is no [user@]host[:port]", text.escape_debug())
}

/// Whether a jump is one as it stands.
fn is_plain(text: &str) -> bool {
    taken_apart(text).is_some_and(|jump| is_harmless(&jump))
}

fn is_harmless(Jump { user, host, .. }: &Jump) -> bool {
    user.as_deref().is_none_or(target::is_user) && target::is_host(host)
}

/// One jump; what its tokens stand for is looked at once they are filled in. In a URL a `%` begins a
/// byte instead.
fn one(text: &str) -> Result<Jump, String> {
    let jump = taken_apart(text).ok_or_else(|| wrong(text))?;
    let has_tokens =
        || !text.starts_with(URL) && tokens::in_place(text).is_some_and(|it| is_plain(&it));
    if is_harmless(&jump) || has_tokens() { Ok(jump) } else { Err(wrong(text)) }
}

fn taken_apart(text: &str) -> Option<Jump> {
    let (user, place) = match text.strip_prefix(URL) {
        Some(rest) => of_url(rest),
        None => text.rsplit_once('@').map_or((None, text), |(user, place)| (Some(user), place)),
    };
    let (host, port) = host_and_port(place)?;
    Some(Jump { user: user.map(str::to_owned), host: host.to_owned(), port })
}

/// The user and the place of a URL; what follows a `;` after the user means nothing.
fn of_url(rest: &str) -> (Option<&str>, &str) {
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    match rest.split_once('@') {
        Some((user, place)) => (user.split(';').next(), place),
        None => (None, rest),
    }
}

fn host_and_port(place: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = match place.strip_prefix('[') {
        Some(inside) => {
            let (host, after) = inside.split_once(']')?;
            (host, if after.is_empty() { None } else { Some(after.strip_prefix(':')?) })
        }
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    match port {
        None | Some("") => Some((host, None)),
        Some(port) => Some((host, Some(target::port(port)?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_jump_hosts_as_ssh_does() {
        for (text, expected) in [
            ("a", "a"),
            ("u@a:22,b", "u@a:22 b"),
            ("[::1]:2222", "[::1]:2222"),
            ("10.0.0.1", "[10.0.0.1]"),
            ("ssh://u@a:22/", "u@a:22"),
            ("ssh://u;x=y@a", "u@a"),
            ("a:", "a"),
            ("a # b", "a"),
            ("NONE", ""),
            ("%r@gate.%h:22", "%r@gate.%h:22"),
            ("[fe80::1%eth0]", "[fe80::1%eth0]"),
        ] {
            let jumps = parse(text).expect(text);
            let shown: Vec<String> = jumps.iter().map(Jump::to_string).collect();
            assert_eq!(shown.join(" "), expected, "{text}");
        }
        for text in [
            "",
            "a,",
            ",a",
            "@a",
            "a:0",
            "a:x",
            "::1",
            "-oProxyCommand=x",
            "$(id)",
            "u;id@a",
            "[a",
            "%x@a",
            "%r;id@a",
            "ssh://%r@a",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_are_filled_in_where_a_jump_is_none_without() {
        let fill = |text: &str| Ok(text.replace("%r", "anna").replace("%h", "box;id"));
        assert_eq!(filled("%r@a:22,[::1%r]", fill).as_deref(), Ok("anna@a:22,[::1%r]"));
        assert!(filled("gate.%h", fill).is_err(), "what a token stands for is looked at as well");
    }
}
