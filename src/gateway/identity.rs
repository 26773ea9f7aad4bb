//! The gateway's Ed25519 device key, made once and kept in `rs/identity/`.

use std::path::Path;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair},
};
use serde::{Deserialize, Serialize};

use super::private;
use crate::{
    config::Paths,
    problem::{Class, Problem, shell_word},
    protocol::{GatewayIdentity, device::device_id},
    secret::Secret,
};

/// The file as it lies in `rs/identity/device.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Stored {
    version: u32,
    /// PKCS #8, base64url without padding.
    private_key: Secret,
}

/// The identity of this machine's gateway, made at the first call.
pub(super) fn load_or_make(paths: &Paths) -> Result<GatewayIdentity, Problem> {
    let file = paths.own().join("identity").join("device.json");
    let broken = || {
        let message = format!(
            "{} is not a device key; without it there is a new one, which clients are asked to trust",
            file.display()
        );
        // What was put aside before is not overwritten.
        let (mut aside, mut number) = (format!("{}.broken", file.display()), 1);
        while Path::new(&aside).exists() {
            number += 1;
            aside = format!("{}.broken-{number}", file.display());
        }
        let (word, aside) = (shell_word(&file.to_string_lossy()), shell_word(&aside));
        Problem::new(Class::Config, message).fix(format!("mv -n {word} {aside}"))
    };
    let document = if let Some(text) = private::read(&file)? {
        serde_json::from_str::<Stored>(&text)
            .ok()
            .and_then(|stored| URL_SAFE_NO_PAD.decode(stored.private_key.expose()).ok())
            .ok_or_else(broken)?
    } else {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| Problem::new(Class::Internal, "no random numbers for a device key"))?;
        let private_key = Secret::new(URL_SAFE_NO_PAD.encode(document.as_ref()));
        let text = serde_json::to_string(&Stored { version: 1, private_key })
            .map_err(|error| Problem::new(Class::Internal, error.to_string()))?;
        private::create(&file, &text)?;
        document.as_ref().to_vec()
    };
    let key = Ed25519KeyPair::from_pkcs8(&document).map_err(|_| broken())?;
    let public_key = key.public_key().as_ref();
    Ok(GatewayIdentity {
        device_id: device_id(public_key),
        public_key: URL_SAFE_NO_PAD.encode(public_key),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::paths;

    #[test]
    fn stays_the_same_and_says_when_it_is_broken() {
        let home = tempfile::tempdir().unwrap();
        let paths = paths(home.path());
        let first = load_or_make(&paths).unwrap();
        assert_eq!(load_or_make(&paths).unwrap(), first);
        assert_eq!(first.device_id.len(), 64);
        std::fs::write(home.path().join("rs/identity/device.json"), "{}").unwrap();
        for end in ["device.json.broken", "device.json.broken-2", "device.json.broken-3"] {
            let problem = load_or_make(&paths).unwrap_err();
            assert_eq!(problem.class, Class::Config);
            let fix = problem.fix.unwrap();
            assert!(fix.starts_with("mv -n ") && fix.ends_with(end), "{fix}");
            std::fs::write(home.path().join("rs/identity").join(end), "{}").unwrap();
        }
    }
}
