//! Forwards as ssh_config(5) writes them. Pure.

use std::fmt;

use super::keywords::Direction;

/// The longest path of a socket, bytes.
const LONGEST_PATH: usize = 107;
/// The longest host, bytes.
const LONGEST_HOST: usize = 1024;

/// One end of a forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// A port; without a host the default of that end.
    Port {
        /// A name or an address, without brackets; never with a slash.
        host: Option<String>,
        /// 0 only where the server is to choose.
        port: u16,
    },
    /// A socket; always with a slash.
    Path(String),
}

/// A forward: where it listens, and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forward {
    /// Where connections come in.
    pub(crate) listen: End,
    /// Where they go; `None` for a SOCKS proxy.
    pub(crate) connect: Option<End>,
}

impl fmt::Display for End {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { host: None, port } => write!(out, "{port}"),
            Self::Port { host: Some(host), port } => write!(out, "[{host}]:{port}"),
            Self::Path(path) => out.write_str(path),
        }
    }
}

impl End {
    fn of_word(word: &str) -> Option<Self> {
        // A path may look like a host in brackets beyond that.
        if word.contains('/') {
            return Some(Self::Path(word.to_owned()));
        }
        if let Some((host, port)) = word.strip_prefix('[').and_then(|rest| rest.rsplit_once("]:")) {
            return Some(Self::Port { host: Some(host.to_owned()), port: port.parse().ok()? });
        }
        Some(Self::Port { host: None, port: word.parse().ok()? })
    }

    fn is_short_enough(&self) -> bool {
        match self {
            Self::Port { host, .. } => host.as_ref().is_none_or(|host| host.len() <= LONGEST_HOST),
            Self::Path(path) => path.len() <= LONGEST_PATH,
        }
    }
}

impl Forward {
    /// Reads `[host:]port`, a path, and so on, `text` being both ends with a colon between.
    pub(crate) fn parse(text: &str, direction: Direction) -> Option<Self> {
        let forward = match direction {
            Direction::Dynamic => Self::socks(text)?,
            Direction::Local | Direction::Remote => Self::both(&fields(text)?)?,
        };
        forward.checked(direction == Direction::Remote)
    }

    /// A remote forward that names no end of its own: a SOCKS proxy over there.
    pub(crate) fn socks_over_there(text: &str) -> Option<Self> {
        Self::socks(text)?.checked(true)
    }

    fn socks(text: &str) -> Option<Self> {
        Some(Self { listen: listen(&fields(text)?)?, connect: None })
    }

    /// The forward if its ports and lengths are possible; `may_choose` lets the server choose a port.
    fn checked(self, may_choose: bool) -> Option<Self> {
        let is_zero = |end: &End| matches!(end, End::Port { port: 0, .. });
        let bad = (is_zero(&self.listen) && !may_choose)
            || self.connect.as_ref().is_some_and(is_zero)
            || !self.listen.is_short_enough()
            || !self.connect.iter().all(End::is_short_enough);
        (!bad).then_some(self)
    }

    fn both(fields: &[Field]) -> Option<Self> {
        let (listen_fields, connect) = match fields {
            [before @ .., path] if !before.is_empty() && path.is_path => {
                (before, End::Path(path.text.clone()))
            }
            [before @ .., host, number] if !before.is_empty() && !host.is_path => {
                (before, End::Port { host: Some(host.text.clone()), port: port(&number.text)? })
            }
            _ => return None,
        };
        Some(Self { listen: listen(listen_fields)?, connect: Some(connect) })
    }

    /// As one word for each end.
    pub(super) fn words(&self) -> Vec<String> {
        std::iter::once(&self.listen).chain(&self.connect).map(End::to_string).collect()
    }

    /// From the words that [`words`](Self::words) makes.
    pub(super) fn of_words(words: &[String]) -> Option<Self> {
        let (listen, connect) = match words {
            [listen] => (listen, None),
            [listen, connect] => (listen, Some(connect)),
            _ => return None,
        };
        let connect = match connect {
            Some(word) => Some(End::of_word(word)?),
            None => None,
        };
        Some(Self { listen: End::of_word(listen)?, connect })
    }
}

/// One part of a forward.
struct Field {
    text: String,
    is_path: bool,
}

fn listen(fields: &[Field]) -> Option<End> {
    match fields {
        [path] if path.is_path => Some(End::Path(path.text.clone())),
        [number] => Some(End::Port { host: None, port: port(&number.text)? }),
        [host, number] if !host.is_path && !number.is_path => {
            Some(End::Port { host: Some(host.text.clone()), port: port(&number.text)? })
        }
        _ => None,
    }
}

fn port(text: &str) -> Option<u16> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// The fields of `text` with colons between, at most four. Brackets keep colons, `\` takes the
/// meaning of a character.
fn fields(text: &str) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (text, after) = match rest.strip_prefix('[') {
            Some(inside) => bracketed(inside)?,
            None => plain(rest)?,
        };
        let is_path = text.contains('/');
        fields.push(Field { text, is_path });
        rest = after;
    }
    (fields.len() <= 4).then_some(fields)
}

fn bracketed(inside: &str) -> Option<(String, &str)> {
    let (field, after) = inside.split_once(']')?;
    let after = if after.is_empty() { after } else { after.strip_prefix(':')? };
    Some((field.to_owned(), after))
}

fn plain(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => return Some((field, chars.as_str())),
            '\\' => field.push(chars.next()?),
            _ => field.push(c),
        }
    }
    Some((field, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_forwards_as_ssh_does() {
        use Direction::{Dynamic, Local, Remote};
        for (text, direction, expected) in [
            ("8080:box:80", Local, Some("8080 [box]:80")),
            ("127.0.0.1:8080:box:80", Local, Some("[127.0.0.1]:8080 [box]:80")),
            ("[::1]:8080:[::2]:80", Local, Some("[::1]:8080 [::2]:80")),
            ("/tmp/a:/tmp/b", Local, Some("/tmp/a /tmp/b")),
            ("8080:/tmp/b", Local, Some("8080 /tmp/b")),
            ("/tmp/a:box:80", Local, Some("/tmp/a [box]:80")),
            ("*:8080:/tmp/b", Local, Some("[*]:8080 /tmp/b")),
            (":8080:box:80", Local, Some("[]:8080 [box]:80")),
            ("0:box:80", Remote, Some("0 [box]:80")),
            ("0:box:80", Local, None),
            ("8080:box:0", Local, None),
            ("8080:box", Local, None),
            ("1080", Dynamic, Some("1080")),
            ("localhost:1080", Dynamic, Some("[localhost]:1080")),
            ("a:b:c:d:e", Local, None),
            ("[::1:80", Local, None),
            (r"\[a]\:80/b:/tmp/b", Local, Some("[a]:80/b /tmp/b")),
            (r"\[/a]\:80:/tmp/b", Local, Some("[/a]:80 /tmp/b")),
            // Nothing is called so: ssh takes it and fails when somebody connects.
            ("8080:/tmp/b:80", Local, None),
            ("[a/b]:8080:box:80", Local, None),
            ("", Dynamic, None),
        ] {
            let forward = Forward::parse(text, direction);
            let words = forward.as_ref().map(Forward::words);
            assert_eq!(words.as_ref().map(|words| words.join(" ")).as_deref(), expected, "{text}");
            if let Some(words) = words {
                assert_eq!(Forward::of_words(&words), forward, "{text}");
            }
        }
    }
}
