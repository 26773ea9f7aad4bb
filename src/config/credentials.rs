//! `rs/credentials.json`: the secrets of remotes, each bound to what the transport proved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Paths, file};
use crate::{problem::Problem, secret::Secret};

/// The whole file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Credentials {
    /// By the remote's name.
    pub(crate) remotes: BTreeMap<String, Credential>,
}

/// What we keep for one remote.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Credential {
    /// The gateway's shared token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token: Option<Secret>,
    /// The gateway's shared password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<Secret>,
    /// Where the secrets belong; sent nowhere else, and nowhere at all without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bound: Option<Bound>,
    /// `deviceId` of `gateway.identity.get`, once it was seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) gateway: Option<String>,
}

/// What the transport proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Bound {
    /// The last hop's host key, `SHA256:…`.
    pub(crate) host_key: String,
    /// The gateway's port on the far side.
    pub(crate) remote_port: u16,
}

impl Credentials {
    /// Reads the file; empty without one. A file that others can read is refused.
    pub(crate) fn load(paths: &Paths) -> Result<Self, Problem> {
        match file::read_private(&paths.credentials())? {
            Some(text) => file::parse(&paths.credentials(), &text),
            None => Ok(Self::default()),
        }
    }

    /// Changes the file under its lock; nothing is written when `change` fails. Blocks.
    pub(crate) fn update<T>(
        paths: &Paths,
        change: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let lock = file::lock(&paths.own().join("credentials.lock"))?;
        let mut credentials = Self::load(paths)?;
        let value = change(&mut credentials)?;
        file::store(&paths.credentials(), &credentials)?;
        drop(lock);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn keeps_what_it_was_told() {
        let (_home, paths) = Paths::temporary();
        assert!(Credentials::load(&paths).unwrap().remotes.is_empty());
        let credential = Credential {
            token: Some(Secret::new("hunter2")),
            bound: Some(Bound { host_key: "SHA256:abc".to_owned(), remote_port: 18789 }),
            ..Credential::default()
        };
        Credentials::update(&paths, |credentials| {
            credentials.remotes.insert("vps".to_owned(), credential);
            Ok(())
        })
        .unwrap();
        let loaded = Credentials::load(&paths).unwrap();
        let vps = loaded.remotes.get("vps").unwrap();
        assert!(vps.token.as_ref().unwrap().matches("hunter2"));
        assert_eq!(vps.bound.as_ref().unwrap().remote_port, 18789);
        assert!(!format!("{loaded:?}").contains("hunter2"));
    }

    #[test]
    fn is_not_read_where_others_could() {
        let (_home, paths) = Paths::temporary();
        Credentials::update(&paths, |_| Ok(())).unwrap();
        std::fs::set_permissions(paths.credentials(), Permissions::from_mode(0o644)).unwrap();
        Credentials::load(&paths).unwrap_err();
        Credentials::update(&paths, |_| Ok(())).unwrap_err();
    }
}
