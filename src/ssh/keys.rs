//! Private key files: read, judged as `ssh` judges them, unlocked.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use nix::unistd::Uid;
use russh::keys::{Algorithm, PrivateKey, PublicKey, decode_secret_key};
use zeroize::Zeroizing;

/// More than any key file holds.
const FILE_LIMIT: u64 = 256 * 1024;

/// A private key file.
pub(super) struct KeyFile {
    /// Where it stands.
    pub(super) path: PathBuf,
    /// When it was last written, to notice another key under the same name.
    pub(super) modified: Option<SystemTime>,
    /// The public half, if it can be known without a passphrase.
    pub(super) public: Option<PublicKey>,
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
}

/// Why a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum KeyFileError {
    /// It is not there.
    #[error("is not there")]
    Missing,
    /// The system refuses it.
    #[error("{}", super::dial::plain(.0))]
    Unreadable(#[from] io::Error),
    /// Others may read it, so it may be known.
    #[error("may be read by others (mode {0:04o})")]
    Unprotected(u32),
    /// Not a private key that is understood.
    #[error("is not a private key that is understood")]
    NotAKey,
    /// The key is in a device.
    #[error("is a security key, which only an agent can use")]
    SecurityKey,
}

/// Reads the key file at `path`; blocking.
pub(super) fn load(path: &Path) -> Result<KeyFile, KeyFileError> {
    let public = read_public(&beside(path));
    let info = match fs::metadata(path) {
        Ok(info) => info,
        Err(error) if error.kind() == io::ErrorKind::NotFound && public.is_some() => {
            return Ok(KeyFile {
                path: path.to_owned(),
                modified: None,
                public,
                content: Content::PublicOnly,
            });
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(KeyFileError::Missing),
        Err(error) => return Err(error.into()),
    };
    let modified = info.modified().ok();
    let text = read_text(path)?;
    if let Ok(public) = text.trim().parse::<PublicKey>() {
        let content = Content::PublicOnly;
        return Ok(KeyFile { path: path.to_owned(), modified, public: Some(public), content });
    }
    // As ssh does: only one's own file can be somebody else's to read by mistake.
    if info.uid() == Uid::current().as_raw() && info.mode() & 0o077 != 0 {
        return Err(KeyFileError::Unprotected(info.mode() & 0o777));
    }
    let (content, inner) = judge(text)?;
    Ok(KeyFile { path: path.to_owned(), modified, public: inner.or(public), content })
}

/// Unlocks the text of a key; blocking, and slow on purpose. `None` if the passphrase is wrong.
pub(super) fn unlock(text: &str, passphrase: &str) -> Option<Arc<PrivateKey>> {
    decode_secret_key(text, Some(passphrase)).ok().map(Arc::new)
}

/// The public key file that belongs to a private one.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

fn read_text(path: &Path) -> io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    io::Read::read_to_string(&mut io::Read::take(fs::File::open(path)?, FILE_LIMIT), &mut text)?;
    Ok(text)
}

fn read_public(path: &Path) -> Option<PublicKey> {
    read_text(path).ok()?.trim().parse().ok()
}

/// What a text holds, and the public half if the text shows it.
fn judge(text: Zeroizing<String>) -> Result<(Content, Option<PublicKey>), KeyFileError> {
    if let Ok(key) = PrivateKey::from_openssh(text.as_bytes()) {
        let public = Some(key.public_key().clone());
        if matches!(key.algorithm(), Algorithm::SkEd25519 | Algorithm::SkEcdsaSha2NistP256) {
            return Err(KeyFileError::SecurityKey);
        }
        if key.is_encrypted() {
            return Ok((Content::Locked(text), public));
        }
        return Ok((Content::Ready(Arc::new(key)), public));
    }
    if text.contains("ENCRYPTED") {
        return Ok((Content::Locked(text), None));
    }
    match decode_secret_key(&text, None) {
        Ok(key) => {
            let public = Some(key.public_key().clone());
            Ok((Content::Ready(Arc::new(key)), public))
        }
        Err(_) => Err(KeyFileError::NotAKey),
    }
}
