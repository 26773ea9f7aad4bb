//! What a connection tells about itself while it is made: stages for whoever waits, facts for
//! whoever asks why.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use super::{ask::Stage, preferred::Negotiated};

/// Whoever listens while a connection is made. Facts belong to the hop named last.
pub(crate) trait Observer: Send + Sync {
    /// A stage begins.
    fn stage(&self, stage: Stage);

    /// Something is certain; a line in the log unless somebody makes more of it.
    fn fact(&self, fact: Fact) {
        tracing::debug!(%fact, "on the way");
    }

    /// Whether somebody waits for the connection, so that an answer is worth asking for again.
    fn is_awaited(&self) -> bool {
        true
    }
}

impl<F: Fn(Stage) + Send + Sync> Observer for F {
    fn stage(&self, stage: Stage) {
        self(stage);
    }
}

/// Something that a connection found out or did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fact {
    /// The hop of this number in the plan, from 0, begins.
    Hop(usize),
    /// The name has these addresses, in the order in which they are dialled.
    Addresses(Vec<SocketAddr>),
    /// One address did not take the connection.
    NotConnected {
        /// The address.
        address: SocketAddr,
        /// Why, in the system's words.
        why: String,
    },
    /// An address took the connection.
    Connected {
        /// The address.
        address: SocketAddr,
        /// How long its TCP handshake took.
        took: Duration,
    },
    /// A command stands in for the TCP connection (`ProxyCommand`).
    Proxied {
        /// The command, tokens filled in.
        command: String,
    },
    /// The hop before opened the connection to this one.
    Through {
        /// How long it took.
        took: Duration,
    },
    /// The server said who it is.
    Banner {
        /// Its identification: `SSH-2.0-OpenSSH_9.2` and the like.
        text: String,
        /// How long after the connection it came.
        after: Duration,
    },
    /// What the key exchange agreed on.
    Algorithms(Negotiated),
    /// The server proved to hold this host key, and this is what it is worth here.
    HostKey {
        /// `ssh-ed25519` and the like.
        algorithm: String,
        /// `SHA256:…`.
        fingerprint: String,
        /// What the files, the policy or a person say about it.
        standing: Standing,
    },
    /// The host key was written down.
    HostKeyRecorded(PathBuf),
    /// The methods that the server takes now, named as in RFC 4252.
    Methods(Vec<String>),
    /// The agent answered and holds so many keys.
    Agent {
        /// Its socket.
        socket: PathBuf,
        /// How many keys can be read.
        keys: usize,
    },
    /// The agent is of no use.
    AgentFailed {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        why: String,
    },
    /// What came of a key.
    Key {
        /// Which one.
        key: Key,
        /// What the server said, or why it was not asked.
        answer: Answer,
    },
    /// What came of another method than keys.
    Method {
        /// Its name as in RFC 4252.
        name: &'static str,
        /// What the server said, or why it was not asked.
        answer: Answer,
    },
    /// The server let us in.
    LoggedIn {
        /// The methods that did it, with commas.
        method: String,
    },
}

/// A line of a known_hosts file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The file.
    pub(crate) path: PathBuf,
    /// The line's number, from 1.
    pub(crate) number: usize,
}

/// What a host key is worth here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is on file.
    OnFile(Line),
    /// A certificate by the authority on this line vouches for it.
    Certified {
        /// The authority.
        authority: Line,
        /// The certificate's identity, its maker's words.
        identity: String,
    },
    /// It is the one that `--accept-host-key` names.
    Pinned,
    /// Nothing is on file, and the policy takes new keys.
    TakenAsNew,
    /// Nothing is on file, and a person said yes.
    TakenByPerson,
    /// Nothing is on file, and nobody took it.
    Unknown,
    /// Other keys are on file, or `--accept-host-key` names another.
    Changed(Vec<Line>),
    /// This line marks it as revoked.
    Revoked(Line),
}

/// A key that may be offered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    /// `ssh-ed25519` and the like; `None` while the file cannot be read.
    pub(crate) algorithm: Option<String>,
    /// `SHA256:…`; `None` while the public half is not known.
    pub(crate) fingerprint: Option<String>,
    /// Its file, if it is one of those that are named or looked for.
    pub(crate) file: Option<PathBuf>,
    /// Whether the agent holds it.
    pub(crate) in_agent: bool,
}

/// What came of a way to log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It let us in.
    Accepted,
    /// It was right, and the server wants another one as well.
    Partly,
    /// The server refused it.
    Refused,
    /// It was not tried, for this reason.
    NotTried(String),
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hop(number) => write!(f, "hop {number} begins"),
            Self::Addresses(addresses) => {
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                write!(f, "addresses: {}", texts.join(", "))
            }
            Self::NotConnected { address, why } => write!(f, "{address} did not connect: {why}"),
            Self::Connected { address, took } => {
                write!(f, "{address} connected in {} ms", took.as_millis())
            }
            // The command may hold a secret, and this is what the log shows.
            Self::Proxied { .. } => f.write_str("a ProxyCommand was started"),
            Self::Through { took } => {
                write!(f, "the hop before connected it in {} ms", took.as_millis())
            }
            Self::Banner { text, after } => {
                write!(f, "banner: {} after {} ms", text.escape_debug(), after.as_millis())
            }
            Self::Algorithms(agreed) => write!(f, "algorithms: {agreed}"),
            Self::HostKey { algorithm, fingerprint, standing } => {
                write!(f, "host key {algorithm} {fingerprint}: {standing}")
            }
            Self::HostKeyRecorded(path) => write!(f, "host key written to {}", path.display()),
            Self::Methods(methods) => write!(f, "methods: {}", methods.join(", ")),
            Self::Agent { socket, keys } => {
                write!(f, "agent {} holds {keys} keys", socket.display())
            }
            Self::AgentFailed { socket, why } => write!(f, "agent {} {why}", socket.display()),
            Self::Key { key, answer } => write!(f, "key {key}: {answer}"),
            Self::Method { name, answer } => write!(f, "method {name}: {answer}"),
            Self::LoggedIn { method } => write!(f, "logged in by {method}"),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.number)
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OnFile(line) => write!(f, "on file, {line}"),
            Self::Certified { authority, .. } => write!(f, "certified by {authority}"),
            Self::Pinned => f.write_str("the one of --accept-host-key"),
            Self::TakenAsNew => f.write_str("new, taken by the policy"),
            Self::TakenByPerson => f.write_str("new, taken by a person"),
            Self::Unknown => f.write_str("not on file"),
            Self::Changed(lines) => match lines.first() {
                Some(line) => write!(f, "changed, {line} has another"),
                None => f.write_str("not the expected one"),
            },
            Self::Revoked(line) => write!(f, "revoked, {line}"),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.as_ref().map(|path| path.display().to_string());
        let agent = self.in_agent.then(|| "(agent)".to_owned());
        let parts = [self.algorithm.clone(), self.fingerprint.clone(), file, agent];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted => f.write_str("accepted"),
            Self::Partly => f.write_str("accepted, another method is wanted as well"),
            Self::Refused => f.write_str("refused"),
            Self::NotTried(why) => write!(f, "not tried: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_shows_no_command_that_may_hold_a_secret() {
        let fact = Fact::Proxied { command: "nc --proxy-auth me:hunter2 box 22".to_owned() };
        assert_eq!(fact.to_string(), "a ProxyCommand was started");
    }

    #[test]
    fn a_banner_steers_no_terminal() {
        let text = "SSH-2.0-x\u{1b}[2J".to_owned();
        let fact = Fact::Banner { text, after: Duration::ZERO };
        assert!(!fact.to_string().contains('\u{1b}'), "{fact}");
    }
}
