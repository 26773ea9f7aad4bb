//! What a connection asks a person, and what it says about its progress.

use std::{fmt, path::PathBuf, pin::Pin};

use serde::{Deserialize, Serialize};

use crate::secret::Secret;

/// Whoever can answer a question while a connection is being made.
pub(crate) trait Asker: Send + Sync {
    /// Puts `question` to a person; `None` if nobody is there or the answer was declined.
    fn ask(&self, question: Question) -> Pin<Box<dyn Future<Output = Option<Secret>> + Send + '_>>;
}

/// A question; travels over the control socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Question {
    /// A host that is not on file shows its key; `yes` accepts it.
    HostKey {
        /// As known_hosts would name it.
        host: String,
        /// `ssh-ed25519` and the like.
        algorithm: String,
        /// `SHA256:…`.
        fingerprint: String,
    },
    /// A host that is known has other keys than those on file, and has proved it; `yes` has the file
    /// changed.
    MoreHostKeys {
        /// As known_hosts would name it.
        host: String,
        /// Keys to add, each as type and `SHA256:…`.
        more: Vec<String>,
        /// Keys that the host has no longer.
        gone: Vec<String>,
    },
    /// A private key file is encrypted.
    Passphrase {
        /// The file.
        path: PathBuf,
        /// Whether an earlier answer was wrong.
        again: bool,
    },
    /// Whether the agent shall have a key that was just used from its file; `yes` adds it.
    AddToAgent {
        /// The file.
        path: PathBuf,
    },
    /// The server takes passwords.
    Password {
        /// The account over there.
        user: String,
        /// The host as dialled.
        host: String,
        /// Whether an earlier answer was refused.
        again: bool,
    },
    /// One prompt of keyboard-interactive authentication (RFC 4256), in the server's words.
    Interactive {
        /// The host as dialled.
        host: String,
        /// The server's title, often empty.
        name: String,
        /// The server's explanation, often empty.
        instructions: String,
        /// The prompt itself.
        prompt: String,
        /// Whether the answer may be shown while it is typed.
        echo: bool,
    },
}

/// Where a connection is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stage", rename_all = "snake_case")]
pub(crate) enum Stage {
    /// The name is being looked up.
    Resolving {
        /// The host as dialled.
        host: String,
    },
    /// A byte stream to the SSH server is being opened, by TCP or through the hop before.
    Connecting {
        /// The host as dialled.
        host: String,
        /// The SSH server's port.
        port: u16,
    },
    /// Banner and key exchange.
    Handshaking {
        /// The host as dialled.
        host: String,
    },
    /// The host key is compared with what is on file, or a person is asked.
    CheckingHostKey {
        /// The host as dialled.
        host: String,
    },
    /// A way to log in is being tried.
    Authenticating {
        /// The host as dialled.
        host: String,
        /// The account over there.
        user: String,
        /// `publickey`, `keyboard-interactive`, `password` or `none`.
        method: String,
    },
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolving { host } => write!(f, "looking up {host}"),
            Self::Connecting { host, port } => write!(f, "connecting to {host} port {port}"),
            Self::Handshaking { host } => write!(f, "agreeing on keys with {host}"),
            Self::CheckingHostKey { host } => write!(f, "checking the host key of {host}"),
            Self::Authenticating { host, user, method } => {
                write!(f, "logging in to {host} as {user} ({method})")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_and_stages_survive_the_control_socket() {
        let question = Question::Passphrase { path: "/home/a/.ssh/id_ed25519".into(), again: true };
        let text = serde_json::to_string(&question).unwrap();
        assert_eq!(text, r#"{"kind":"passphrase","path":"/home/a/.ssh/id_ed25519","again":true}"#);
        assert_eq!(serde_json::from_str::<Question>(&text).unwrap(), question);
        let stage = Stage::Connecting { host: "box".into(), port: 22 };
        let text = serde_json::to_string(&stage).unwrap();
        assert_eq!(serde_json::from_str::<Stage>(&text).unwrap(), stage);
        assert_eq!(stage.to_string(), "connecting to box port 22");
    }
}
