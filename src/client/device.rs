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
        Challenge, Connect, detail,
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

/// Who we say we are at a login, in the order in which it is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Who {
    /// The device whose token came on this way; without one, like `Anyone`.
    Known,
    /// Anyone who has the shared secret.
    Anyone,
    /// Our device, with the shared secret.
    Device,
}

/// What a login shows.
pub(super) struct Papers {
    /// The secret.
    pub(super) credential: Credential,
    /// Who we are.
    pub(super) device: Option<OwnDevice>,
    /// What that was made of.
    pub(super) offered: Offered,
}

/// What a login had to offer.
#[derive(Debug, Default)]
pub(super) struct Offered {
    /// The way that was proved.
    pub(super) way: Option<Way>,
    /// The device's token, where that was offered and the shared secret was not.
    pub(super) token: Option<Secret>,
    /// Whether there is a shared secret.
    secret: bool,
}

/// What a login taught about our device's token, to be kept once the gateway is known to be the one
/// that was meant.
#[derive(Debug)]
pub(super) struct News {
    paths: Paths,
    way: Way,
    lesson: Lesson,
}

#[derive(Debug)]
enum Lesson {
    /// The token to keep.
    Given(Secret),
    /// The token that is not taken any more.
    Refused(Secret),
}

impl std::fmt::Debug for OwnDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OwnDevice").field("id", &self.id()).finish_non_exhaustive()
    }
}

impl OwnDevice {
    /// The device of these files, made at the first call. Blocks.
    pub(crate) fn load_or_make(paths: &Paths) -> Result<Self, Problem> {
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

    /// The device of these files, if there is one that can be read. Blocks.
    pub(crate) fn known(paths: &Paths) -> Option<Self> {
        let text = file::read_private(&paths.own().join("device.json")).ok()??;
        let stored = serde_json::from_str::<Stored>(&text).ok()?;
        let document = URL_SAFE_NO_PAD.decode(stored.private_key.expose()).ok()?;
        Some(Self { key: Ed25519KeyPair::from_pkcs8(&document).ok()? })
    }

    /// SHA-256 of its key.
    pub(crate) fn id(&self) -> String {
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

    /// The token that came on this way.
    pub(super) fn token(&self, paths: &Paths) -> Result<Option<Secret>, Problem> {
        Ok(Tokens::load(paths)?.ways.remove(&self.0))
    }

    /// Keeps the token that came on this way.
    pub(super) fn keep(&self, paths: &Paths, token: &Secret) -> Result<(), Problem> {
        let _lock = file::lock(&paths.own().join("device.lock"))?;
        let mut tokens = Tokens::load(paths)?;
        if tokens.holds(self, token) {
            return Ok(());
        }
        tokens.ways.insert(self.0.clone(), token.clone());
        file::store(&Tokens::path(paths), &tokens)
    }

    /// Forgets the token that was refused on this way; another one that came meanwhile stays.
    pub(super) fn forget(&self, paths: &Paths, refused: &Secret) -> Result<(), Problem> {
        let _lock = file::lock(&paths.own().join("device.lock"))?;
        let mut tokens = Tokens::load(paths)?;
        if !tokens.holds(self, refused) {
            return Ok(());
        }
        tokens.ways.remove(&self.0);
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

    fn holds(&self, way: &Way, token: &Secret) -> bool {
        self.ways.get(&way.0).is_some_and(|held| held.matches(token.expose()))
    }
}

impl Who {
    /// What is shown on `way` by one who has the shared secret `shared`. Blocks.
    ///
    /// A secret from the command line is meant: no token goes in its place. Files of the device that
    /// cannot be read are an error only where the gateway wants the device.
    pub(super) fn papers(
        self,
        paths: &Paths,
        way: Option<Way>,
        shared: Credential,
    ) -> Result<Papers, Problem> {
        let offered = Offered { way, token: None, secret: !shared.is_empty() };
        let device = match self {
            Self::Anyone => None,
            Self::Device => Some(OwnDevice::load_or_make(paths)?),
            Self::Known if shared.source == Source::Given => None,
            Self::Known => match known(paths, offered.way.as_ref()) {
                Ok(Some((device, token))) => {
                    let offered = Offered { token: Some(token.clone()), ..offered };
                    let credential = Credential {
                        device_token: Some(token),
                        source: Source::Device,
                        ..Credential::default()
                    };
                    return Ok(Papers { credential, device: Some(device), offered });
                }
                Ok(None) => None,
                Err(problem) => {
                    tracing::warn!(%problem, "the tokens of this device are left aside");
                    None
                }
            },
        };
        Ok(Papers { credential: shared, device, offered })
    }

    /// Who to come as next, where a login that offered `offered` ended in `problem`, or without one
    /// in being allowed nothing.
    pub(super) fn next(self, offered: &Offered, problem: Option<&Problem>) -> Option<Self> {
        let code = problem.and_then(|problem| problem.code.as_deref());
        if offered.token.is_some() {
            let is_refused = problem.is_none_or(|problem| problem.class == Class::GatewayRefused);
            // A token that is not taken any more is as good as none.
            let may_help = offered.secret || code == Some(detail::DEVICE_TOKEN_MISMATCH);
            return (is_refused && may_help).then_some(Self::Anyone);
        }
        let is_wanted = problem.is_none() || code == Some(detail::DEVICE_REQUIRED);
        (self != Self::Device && is_wanted).then_some(Self::Device)
    }
}

/// Our device and the token that came on `way`, if one did.
fn known(paths: &Paths, way: Option<&Way>) -> Result<Option<(OwnDevice, Secret)>, Problem> {
    let Some(way) = way else { return Ok(None) };
    let Some(token) = way.token(paths)? else { return Ok(None) };
    Ok(Some((OwnDevice::load_or_make(paths)?, token)))
}

impl News {
    /// What a gateway on `way` taught by letting us in: the token that it gave, else that it no
    /// longer takes the one that was `refused` on the same way.
    pub(super) fn of(
        paths: &Paths,
        way: Option<Way>,
        token: Option<Secret>,
        refused: Option<&Offered>,
    ) -> Option<Self> {
        let way = way?;
        let refused = refused.filter(|refused| refused.way.as_ref() == Some(&way));
        let lesson = match token {
            Some(token) => Lesson::Given(token),
            None => Lesson::Refused(refused?.token.clone()?),
        };
        Some(Self { paths: paths.clone(), way, lesson })
    }

    /// Writes it down. What cannot be written is a warning: the login has worked. Blocks.
    pub(super) fn keep(&self) {
        let kept = match &self.lesson {
            Lesson::Given(token) => self.way.keep(&self.paths, token),
            Lesson::Refused(token) => self.way.forget(&self.paths, token),
        };
        if let Err(problem) = kept {
            tracing::warn!(%problem, "the gateway's token for this device is not kept");
        }
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
        vps.keep(&paths, &Secret::new("token")).unwrap();
        let shared = || Credential::new(Some(Secret::new("shared")), None, Source::Saved);
        let found =
            |way: &Way| Who::Known.papers(&paths, Some(way.clone()), shared()).unwrap().credential;
        assert!(found(&vps).device_token.is_some_and(|token| token.matches("token")));
        assert!(found(&vps).token.is_none(), "the shared secret stays at home");
        for other in [way("vps", "SHA256:b", 1), way("vps", "SHA256:a", 2), way("x", "SHA256:a", 1)]
        {
            assert_eq!(found(&other).source, Source::Saved, "{other:?}");
        }
        assert_eq!(Way::through("vps", &opened(None, 1)), None, "nothing was proved");
        let mode = std::fs::metadata(Tokens::path(&paths)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        vps.forget(&paths, &Secret::new("another")).unwrap();
        assert_eq!(found(&vps).source, Source::Device, "it is not the one that was refused");
        vps.forget(&paths, &Secret::new("token")).unwrap();
        assert_eq!(found(&vps).source, Source::Saved);
        drop(home);
    }
    #[test]
    fn a_refused_token_gives_way_to_the_shared_secret_and_that_to_the_device() {
        let refused = |code: &str| Problem::new(Class::GatewayRefused, "no").code(code);
        let offered = |token: bool, secret| {
            let token = token.then(|| Secret::new("token"));
            Offered { way: None, token, secret }
        };
        let next = |who: Who, offered: Offered, code| who.next(&offered, Some(&refused(code)));
        let codes = ["AUTH_SCOPE_MISMATCH", "AUTH_RATE_LIMITED", "PAIRING_REQUIRED"];
        for code in codes {
            assert_eq!(next(Who::Known, offered(true, true), code), Some(Who::Anyone));
            assert_eq!(next(Who::Known, offered(true, false), code), None, "there is no secret");
            assert_eq!(next(Who::Anyone, offered(false, true), code), None);
        }
        let lost = "AUTH_DEVICE_TOKEN_MISMATCH";
        assert_eq!(next(Who::Known, offered(true, false), lost), Some(Who::Anyone));
        let wanted = "DEVICE_IDENTITY_REQUIRED";
        for who in [Who::Known, Who::Anyone] {
            assert_eq!(next(who, offered(false, true), wanted), Some(Who::Device));
            assert_eq!(who.next(&offered(false, true), None), Some(Who::Device));
        }
        assert_eq!(next(Who::Device, offered(false, true), wanted), None, "it was shown");
        assert_eq!(Who::Device.next(&offered(false, true), None), None);
        let down = Problem::new(Class::GatewayDown, "gone");
        assert_eq!(Who::Known.next(&offered(true, true), Some(&down)), None);
    }

    #[test]
    fn a_secret_from_the_command_line_is_used_and_not_the_token() {
        let (_home, paths) = Paths::temporary();
        let way = Way::through("vps", &opened(Some("SHA256:a"), 1)).unwrap();
        way.keep(&paths, &Secret::new("token")).unwrap();
        let given = || Credential::new(Some(Secret::new("given")), None, Source::Given);
        for who in [Who::Known, Who::Anyone, Who::Device] {
            let papers = who.papers(&paths, Some(way.clone()), given()).unwrap();
            assert_eq!(papers.credential.source, Source::Given, "{who:?}");
            assert_eq!(papers.device.is_some(), who == Who::Device);
        }
    }

    #[test]
    fn tokens_that_cannot_be_read_do_not_lock_out_the_shared_secret() {
        let (_home, paths) = Paths::temporary();
        let way = Way::through("vps", &opened(Some("SHA256:a"), 1)).unwrap();
        file::write(&Tokens::path(&paths), b"{ broken").unwrap();
        let shared = Credential::new(Some(Secret::new("shared")), None, Source::Saved);
        let papers = Who::Known.papers(&paths, Some(way), shared).unwrap();
        assert_eq!(papers.credential.source, Source::Saved);
    }
}
