//! What the operating system's service manager is told about us: units of systemd, agents of launchd.
//!
//! Pure: texts and names. Writing, starting and asking is `cli`'s.

mod launchd;
mod linger;
mod name;
mod seal;
mod unit;

use std::path::PathBuf;

pub(crate) use launchd::{label, plist};
pub(crate) use linger::{Logout, Manager};
pub(crate) use name::unit_name;
pub(crate) use seal::{Owner, judge};
pub(crate) use unit::{Kept, kept, unit};

/// What a service runs, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// This program; absolute.
    pub(crate) program: PathBuf,
    /// `--profile`, if not the default one.
    pub(crate) profile: Option<String>,
    /// The one remote that it keeps; all that are wanted if `None`.
    pub(crate) remote: Option<String>,
    /// Whether that one publishes this machine's gateway (`remote expose`).
    pub(crate) is_exposed: bool,
    /// Folders and files that differ from the usual ones: names and values of variables.
    pub(crate) environment: Vec<(String, PathBuf)>,
    /// `<state>/rs`: the only folder that it writes.
    pub(crate) own: PathBuf,
    /// Who starts it.
    pub(crate) manager: Starter,
}

/// Who starts a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Starter {
    /// The service manager of the user: lives as long as somebody is logged in, or lingers.
    User,
    /// The machine's own.
    System {
        /// As whom the service runs.
        user: String,
    },
}

impl Service {
    /// The arguments of the program.
    fn arguments(&self) -> Vec<String> {
        let profile = self.profile.iter().flat_map(|name| ["--profile", name]);
        let profile = profile.map(str::to_owned);
        let words: Vec<&str> = match &self.remote {
            Some(name) if self.is_exposed => {
                vec!["remote", "expose", "--foreground", "--batch", name]
            }
            Some(name) => {
                vec!["remote", "connect", "--foreground", "--batch", "--no-default", name]
            }
            None => vec!["supervisor", "--foreground"],
        };
        profile.chain(words.into_iter().map(str::to_owned)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A service of all remotes, of the user `ann`.
    pub(super) fn ann() -> Service {
        Service {
            program: "/usr/local/bin/openclaw".into(),
            profile: None,
            remote: None,
            is_exposed: false,
            environment: Vec::new(),
            own: "/home/ann/.openclaw/rs".into(),
            manager: Starter::User,
        }
    }

    /// The same by the machine's service manager, odd in every way.
    pub(super) fn odd() -> Service {
        Service {
            program: "/opt/open claw/100%/open$claw".into(),
            profile: Some("work".to_owned()),
            remote: Some("vps".to_owned()),
            is_exposed: false,
            environment: vec![("OPENCLAW_STATE_DIR".to_owned(), "/srv/a b%/$x&<>\\".into())],
            own: "/srv/a b%/$x&<>\\/rs".into(),
            manager: Starter::System { user: "deploy".to_owned() },
        }
    }

    /// Compares with a golden file; `OPENCLAW_WRITE_DOCS=1` writes it anew.
    pub(super) fn golden(name: &str, text: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/service").join(name);
        if std::env::var_os("OPENCLAW_WRITE_DOCS").is_some() {
            std::fs::write(&path, text).unwrap();
        }
        assert_eq!(text, std::fs::read_to_string(&path).unwrap(), "{}", path.display());
    }
}
