//! Our own device: its key in `rs/device.json`, and in `rs/device-tokens.json` the tokens that
//! gateways gave it, each found again only by the very way on which it came.
//!
//! A gateway on this machine, or behind a tunnel to its own, takes the shared secret alone; one that
//! is reached over a network wants a device that somebody approved.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde::{Deserialize, Serialize};

use super::{Address, Credential, Source};
use crate::{
    config::{Paths, file},
    control::Opened,
    problem::{Class, Problem},
    protocol::{
        Challenge, Connect,
        device::{Device, TextVersion, device_id, signed_text},
    },
    secret::Secret,
};

/// The key that says who we are.
pub(crate) struct OwnDevice {
    key: Ed25519KeyPair,
}

/// The key's file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    version: u32,
    /// PKCS #8, base64url without padding.
    private_key: Secret,
}

/// The tokens' file.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Tokens {
    /// By everything that was proved on the way.
    ways: BTreeMap<String, Secret>,
}

/// What a token is bound to: the gateway's name or address, and what its transport proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way(String);

impl std::fmt::Debug for OwnDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnDevice").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl OwnDevice {
    /// The device of these files, made at the first call. Blocks.
    pub(super) fn load_or_make(paths: &Paths) -> Result<Self, Problem> {
        let path = paths.own().join("device.json");
        let _lock = file::lock(&paths.own().join("device.lock"))?;
        let broken = || {
            Problem::new(Class::Config, format!("{} is not a device key", path.display())).fix(
                format!(
                    "mv {0} {0}.broken (gateways will have to approve a new one)",
                    path.display()
                ),
            )
        };
        let document = if let Some(text) = file::read_private(&path)? {
            let stored = serde_json::from_str::<Stored>(&text).map_err(|_| broken())?;
            URL_SAFE_NO_PAD.decode(stored.private_key.expose()).map_err(|_| broken())?
        } else {
            let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
                .map_err(|_| Problem::new(Class::Internal, "no random numbers for a device key"))?;
            let private_key = Secret::new(URL_SAFE_NO_PAD.encode(document.as_ref()));
            file::store(&path, &Stored { version: 1, private_key })?;
            document.as_ref().to_vec()
        };
        Ok(Self { key: Ed25519KeyPair::from_pkcs8(&document).map_err(|_| broken())? })
    }

    /// SHA-256 of its key.
    pub(super) fn id(&self) -> String {
        device_id(self.key.public_key().as_ref())
    }

    /// Adds itself to `connect`, which must not change any more, for this challenge alone.
    pub(super) fn sign(&self, connect: &mut Connect, challenge: &Challenge) {
        let (id, signed_at, nonce) = (self.id(), challenge.ts, challenge.nonce.clone());
        let text = signed_text(TextVersion::V3, connect, &id, signed_at, &nonce);
        connect.device = Some(Device {
            id,
            public_key: URL_SAFE_NO_PAD.encode(self.key.public_key()),
            signature: URL_SAFE_NO_PAD.encode(self.key.sign(text.as_bytes())),
            signed_at,
            nonce,
        });
    }
}

impl Way {
    /// To a remote whose last hop proved its host key.
    pub(super) fn through(remote: &str, opened: &Opened) -> Option<Self> {
        let Opened { host_key, remote_port, .. } = opened;
        Some(Self(format!("{remote} {} {remote_port}", host_key.as_ref()?)))
    }

    /// To the address that `openclaw.json` names, with its pin.
    pub(super) fn to(address: &Address) -> Self {
        let pin = address.pin.map(|pin| format!(" {pin}")).unwrap_or_default();
        Self(format!("{address}{pin}"))
    }

    /// The token that came on this way, in place of `credential`.
    pub(super) fn credential(
        &self,
        paths: &Paths,
        credential: Credential,
    ) -> Result<Credential, Problem> {
        let token = Tokens::load(paths)?.ways.remove(&self.0);
        Ok(match token {
            Some(token) => Credential {
                device_token: Some(token),
                source: Source::Device,
                ..Credential::default()
            },
            None => credential,
        })
    }

    /// Keeps the token that came on this way; with `None`, forgets what did.
    pub(super) fn keep(&self, paths: &Paths, token: Option<&Secret>) -> Result<(), Problem> {
        let _lock = file::lock(&paths.own().join("device.lock"))?;
        let mut tokens = Tokens::load(paths)?;
        let before = tokens.ways.get(&self.0);
        match token {
            Some(token) if before.is_some_and(|before| before.matches(token.expose())) => {
                return Ok(());
            }
            Some(token) => tokens.ways.insert(self.0.clone(), token.clone()),
            None => tokens.ways.remove(&self.0),
        };
        file::store(&Tokens::path(paths), &tokens)
    }
}

impl Tokens {
    fn path(paths: &Paths) -> std::path::PathBuf {
        paths.own().join("device-tokens.json")
    }

    fn load(paths: &Paths) -> Result<Self, Problem> {
        match file::read_private(&Self::path(paths))? {
            Some(text) => file::parse(&Self::path(paths), &text),
            None => Ok(Self::default()),
        }
    }
}

/// Whether a device may get us in where we were refused without one. Blocks.
pub(super) fn may_help(paths: &Paths, problem: &Problem) -> bool {
    match problem.code.as_deref() {
        Some("DEVICE_IDENTITY_REQUIRED") => true,
        // A token of its own may do where the shared secret is missing or has changed.
        Some("AUTH_TOKEN_MISSING" | "AUTH_TOKEN_MISMATCH" | "AUTH_REQUIRED") => {
            Tokens::load(paths).is_ok_and(|tokens| !tokens.ways.is_empty())
        }
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn opened(host_key: Option<&str>, remote_port: u16) -> Opened {
        let host_key = host_key.map(str::to_owned);
        Opened { host_key, remote_port, tls_fingerprint: None }
    }

    #[test]
    fn the_key_stays_the_same_and_is_its_owners_alone() {
        let (home, paths) = Paths::temporary();
        let first = OwnDevice::load_or_make(&paths).unwrap().id();
        assert_eq!(OwnDevice::load_or_make(&paths).unwrap().id(), first);
        let path = paths.own().join("device.json");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "{}").unwrap();
        assert_eq!(OwnDevice::load_or_make(&paths).unwrap_err().class, Class::Config);
        drop(home);
    }

    #[test]
    fn a_token_is_found_by_the_very_way_on_which_it_came() {
        let (home, paths) = Paths::temporary();
        let way =
            |name: &str, key: &str, port| Way::through(name, &opened(Some(key), port)).unwrap();
        let vps = way("vps", "SHA256:a", 1);
        vps.keep(&paths, Some(&Secret::new("token"))).unwrap();
        let shared = || Credential::new(Some(Secret::new("shared")), None, Source::Saved);
        let found = |way: &Way| way.credential(&paths, shared()).unwrap();
        assert!(found(&vps).device_token.is_some_and(|token| token.matches("token")));
        assert!(found(&vps).token.is_none(), "the shared secret stays at home");
        for other in [way("vps", "SHA256:b", 1), way("vps", "SHA256:a", 2), way("x", "SHA256:a", 1)]
        {
            assert_eq!(found(&other).source, Source::Saved, "{other:?}");
        }
        assert_eq!(Way::through("vps", &opened(None, 1)), None, "nothing was proved");
        let mode = std::fs::metadata(Tokens::path(&paths)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        vps.keep(&paths, None).unwrap();
        assert_eq!(found(&vps).source, Source::Saved);
        drop(home);
    }
}
