//! Private key files: read, judged as `ssh` judges them, unlocked.
//!
//! The library's keys are wiped when they are dropped; so are the texts here.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use nix::unistd::Uid;
use russh::keys::{
    Algorithm, PrivateKey, decode_secret_key,
    ssh_key::{self, Cipher},
};
use zeroize::Zeroizing;

use super::{
    identity::{self, Identity},
    pem, short_scalar,
};

/// More than any key file holds.
const FILE_LIMIT: u64 = 256 * 1024;
/// How an encrypted key in PKCS#8 begins.
const PKCS8: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// A private key file.
pub(super) struct KeyFile {
    /// Where it stands.
    pub(super) path: PathBuf,
    /// When it was last written, to notice another key under the same name.
    pub(super) modified: Option<SystemTime>,
    /// The public half, if it can be known without a passphrase.
    pub(super) public: Option<Identity>,
    /// The certificate that lies beside it.
    pub(super) certificate: Option<Identity>,
    /// The key itself, or its text while it is locked.
    pub(super) content: Content,
}

/// What a key file holds.
pub(super) enum Content {
    /// A key ready to sign.
    Ready(Arc<PrivateKey>),
    /// A key behind a passphrase.
    Locked(Zeroizing<String>),
    /// Only the public half is here; the agent may hold the rest.
    PublicOnly,
    /// Nothing that can sign; the agent may hold the key, if its public half is known.
    Unusable(KeyFileError),
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyFileError {
    /// It is not there.
    #[error("is not there")]
    Missing,
    /// The system refuses it.
    #[error("{}", super::dial::plain(.0))]
    Unreadable(io::Error),
    /// Others may read it, so it may be known.
    #[error("may be read by others (mode {0:04o})")]
    Unprotected(u32),
    /// Not a private key that is understood.
    #[error("is not a private key that is understood")]
    NotAKey,
    /// Encrypted in a way that nobody else uses.
    #[error("is encrypted in a way that is not understood")]
    OddCipher,
    /// A type that servers stopped taking.
    #[error("is a DSA key, which is no longer safe")]
    Outdated,
    /// The key is in a device.
    #[error("is a security key, which only an agent can use")]
    SecurityKey,
    /// Not a certificate, where one was named.
    #[error("is not a certificate")]
    NotACertificate,
}

impl From<io::Error> for KeyFileError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            Self::Missing
        } else {
            Self::Unreadable(error)
        }
    }
}

impl KeyFileError {
    /// What to type about `path`.
    pub(super) fn fix(&self, path: &Path) -> String {
        let shown = path.display();
        match self {
            Self::Unprotected(_) => format!("chmod 600 {shown}"),
            Self::SecurityKey => format!("ssh-add {shown}"),
            Self::Missing => "check the path after -i, or IdentityFile and CertificateFile".into(),
            Self::OddCipher => format!("write it anew: ssh-keygen -p -f {shown}"),
            Self::Outdated => "make another one: ssh-keygen -t ed25519".into(),
            Self::NotAKey => format!("look at it: ssh-keygen -l -f {shown}"),
            Self::NotACertificate => format!("look at it: ssh-keygen -L -f {shown}"),
            Self::Unreadable(_) => format!("ls -l {shown}"),
        }
    }
}

/// Reads the key file at `path` and what lies beside it; blocking.
pub(super) fn load(path: &Path) -> KeyFile {
    let stem = path.to_str().and_then(|text| text.strip_suffix(".pub")).map_or(path, Path::new);
    let mut file = KeyFile {
        path: path.to_owned(),
        modified: None,
        public: read_identity(&beside(path, ".pub")),
        certificate: read_identity(&beside(stem, "-cert.pub")).filter(identity::is_certificate),
        content: Content::PublicOnly,
    };
    if let Err(error) = file.read() {
        let known = file.public.is_some() && matches!(error, KeyFileError::Missing);
        file.content = if known { Content::PublicOnly } else { Content::Unusable(error) };
    }
    file
}

impl KeyFile {
    /// Reads the file itself, after those beside it.
    fn read(&mut self) -> Result<(), KeyFileError> {
        let info = fs::metadata(&self.path)?;
        self.modified = info.modified().ok();
        let text = read_text(&self.path)?;
        if let Some(own) = identity::of_text(&text) {
            self.public = Some(Identity::from(identity::key(&own)));
            if identity::is_certificate(&own) {
                self.certificate = Some(own);
            }
            return Ok(());
        }
        // As ssh does: only one's own file can be somebody else's to read by mistake.
        if info.uid() == Uid::current().as_raw() && info.mode() & 0o077 != 0 {
            return Err(KeyFileError::Unprotected(info.mode() & 0o777));
        }
        let (content, inner) = judge(text)?;
        self.public = inner.or(self.public.take());
        self.content = content;
        Ok(())
    }
}

/// Reads a certificate that was named by itself; blocking.
pub(super) fn load_certificate(path: &Path) -> Result<Identity, KeyFileError> {
    let identity = identity::of_text(&read_text(path)?).filter(identity::is_certificate);
    identity.ok_or(KeyFileError::NotACertificate)
}

/// Unlocks the text of a key; blocking, and slow on purpose. `None` if the passphrase is wrong.
pub(super) fn unlock(
    text: &str,
    passphrase: &str,
) -> Result<Option<Arc<PrivateKey>>, KeyFileError> {
    let unlocked = if pem::is_encrypted(text) {
        let Some(plain) = pem::decrypt(text, passphrase) else { return Ok(None) };
        decode_secret_key(&plain, None)
    } else {
        decode_secret_key(text, Some(passphrase))
    };
    match unlocked {
        Ok(key) => Ok(Some(Arc::new(key))),
        Err(error) if is_odd(text, &error) => Err(KeyFileError::OddCipher),
        // It opened, or its first two numbers would differ.
        Err(russh::keys::Error::SshKey(ssh_key::Error::Encoding(_))) => {
            Ok(short_scalar::read(text, Some(passphrase)).map(Arc::new))
        }
        Err(_) => Ok(None),
    }
}

/// Whether no passphrase would help: PKCS#8 names its cipher where the library reads it. What a
/// wrong passphrase makes of the key is an error of another kind, or one that says so.
fn is_odd(text: &str, error: &russh::keys::Error) -> bool {
    use pkcs8::{Error::EncryptedPrivateKey, pkcs5::Error::DecryptFailed};
    use russh::keys::Error::{Der, Pkcs8};
    let is_unread = matches!(error, Der(_))
        || matches!(error, Pkcs8(EncryptedPrivateKey(error)) if *error != DecryptFailed);
    is_unread && text.contains(PKCS8)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn read_text(path: &Path) -> io::Result<Zeroizing<String>> {
    // A pipe might never end.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("is not a file"));
    }
    let mut text = Zeroizing::new(String::new());
    io::Read::read_to_string(&mut io::Read::take(fs::File::open(path)?, FILE_LIMIT), &mut text)?;
    Ok(text)
}

fn read_identity(path: &Path) -> Option<Identity> {
    identity::of_text(&read_text(path).ok()?)
}

/// What a text holds, and the public half if the text shows it.
fn judge(text: Zeroizing<String>) -> Result<(Content, Option<Identity>), KeyFileError> {
    let key = PrivateKey::from_openssh(text.as_bytes()).ok();
    if let Some(key) = key.or_else(|| short_scalar::read(&text, None)) {
        return judge_openssh(text, key);
    }
    if pem::is_encrypted(&text) {
        let known = pem::is_understood(&text);
        return if known {
            Ok((Content::Locked(text), None))
        } else {
            Err(KeyFileError::OddCipher)
        };
    }
    if text.contains(PKCS8) {
        return Ok((Content::Locked(text), None));
    }
    if text.contains("-----BEGIN DSA PRIVATE KEY-----") {
        return Err(KeyFileError::Outdated);
    }
    let key = decode_secret_key(&text, None).map_err(|_| KeyFileError::NotAKey)?;
    let public = Identity::from(key.public_key().clone());
    Ok((Content::Ready(Arc::new(key)), Some(public)))
}

fn judge_openssh(
    text: Zeroizing<String>,
    key: PrivateKey,
) -> Result<(Content, Option<Identity>), KeyFileError> {
    let public = Identity::from(key.public_key().clone());
    let content = if identity::needs_touch(&public) {
        Content::Unusable(KeyFileError::SecurityKey)
    } else if key.algorithm() == Algorithm::Dsa {
        return Err(KeyFileError::Outdated);
    } else if key.cipher() == Cipher::TdesCbc {
        Content::Unusable(KeyFileError::OddCipher)
    } else if key.is_encrypted() {
        Content::Locked(text)
    } else {
        Content::Ready(Arc::new(key))
    };
    Ok((content, Some(public)))
}
