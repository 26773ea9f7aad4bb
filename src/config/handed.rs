//! Secrets that a service manager, or whoever runs a container, hands over as files of one folder.
//!
//! `CREDENTIALS_DIRECTORY` of systemd.exec(5), which `LoadCredential=` and `LoadCredentialEncrypted=`
//! fill; anybody may set it to a folder of their own, such as /run/secrets.

use std::path::{Path, PathBuf};

use tracing::warn;

use crate::secret::Secret;

/// A file of that folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handed {
    /// The gateway's shared token.
    GatewayToken,
    /// The gateway's shared password.
    GatewayPassword,
    /// A private key that is offered to SSH servers first.
    SshKey,
    /// The passphrase of private key files.
    SshPassphrase,
}

impl Handed {
    /// Its name in the folder.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GatewayToken => "openclaw-gateway-token",
            Self::GatewayPassword => "openclaw-gateway-password",
            Self::SshKey => "openclaw-ssh-key",
            Self::SshPassphrase => "openclaw-ssh-passphrase",
        }
    }

    /// Where it is, if it was handed over.
    pub(crate) fn file(self) -> Option<PathBuf> {
        self.file_in(Path::new(&std::env::var_os("CREDENTIALS_DIRECTORY")?))
    }

    /// Its text without the blanks and the end of line around it, if it was handed over.
    pub(crate) fn secret(self) -> Option<Secret> {
        read(&self.file()?)
    }

    fn file_in(self, folder: &Path) -> Option<PathBuf> {
        let path = folder.join(self.name());
        (folder.is_absolute() && path.is_file()).then_some(path)
    }
}

/// The text of such a file; one that cannot be read or is empty counts as none, with a warning.
pub(crate) fn read(path: &Path) -> Option<Secret> {
    match std::fs::read_to_string(path) {
        Ok(text) if !text.trim().is_empty() => Some(Secret::new(text.trim())),
        Ok(_) => {
            warn!("a credential that was handed over is empty");
            None
        }
        Err(error) => {
            warn!(%error, "a credential that was handed over cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let kinds =
            [Handed::GatewayToken, Handed::GatewayPassword, Handed::SshKey, Handed::SshPassphrase];
        for kind in kinds {
            assert_eq!(kind.file_in(folder.path()), None);
            std::fs::write(folder.path().join(kind.name()), format!("{}\n", kind.name())).unwrap();
            let path = kind.file_in(folder.path()).unwrap();
            assert_eq!(read(&path).unwrap().expose(), kind.name());
            assert_eq!(kind.file_in(Path::new("relative")), None);
        }
        std::fs::write(folder.path().join("openclaw-ssh-key"), " \n").unwrap();
        assert!(read(&folder.path().join("openclaw-ssh-key")).is_none());
    }
}
