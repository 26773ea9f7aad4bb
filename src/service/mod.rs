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
pub(crate) use unit::{Kept, command_of, kept, unit};

/// What a service runs, and whose it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Service {
    /// This program; absolute.
    pub(crate) program: PathBuf,
    /// `--profile`, if not the default one.
    pub(crate) profile: Option<String>,
    /// What it does.
    pub(crate) work: Work,
    /// Folders and files that differ from the usual ones: names and values of variables.
    pub(crate) environment: Vec<(String, PathBuf)>,
    /// The only folder that it writes.
    pub(crate) own: PathBuf,
    /// Who starts it.
    pub(crate) manager: Starter,
}

/// What a service does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// Keeps every remote that is wanted.
    Remotes,
    /// Keeps this one.
    Remote(String),
    /// Publishes this machine's gateway (`remote expose`) by this one.
    Exposed(String),
    /// Is the gateway.
    Gateway {
        /// Where it listens.
        port: u16,
        /// Secrets that the service manager hands over: names in its folder, and their files.
        credentials: Vec<(&'static str, PathBuf)>,
    },
}

/// Which of the program's services it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The supervisor of the remotes.
    Remotes,
    /// The gateway.
    Gateway,
}

impl Part {
    /// The group of commands that installs it.
    pub(crate) fn group(self) -> &'static str {
        match self {
            Self::Remotes => "remote",
            Self::Gateway => "gateway",
        }
    }

    /// How the names of its units begin.
    fn stem(self) -> &'static str {
        match self {
            Self::Remotes => "openclaw-remote",
            Self::Gateway => "openclaw-rs-gateway",
        }
    }
}

impl Work {
    /// Whose work it is.
    pub(crate) fn part(&self) -> Part {
        match self {
            Self::Remotes | Self::Remote(_) | Self::Exposed(_) => Part::Remotes,
            Self::Gateway { .. } => Part::Gateway,
        }
    }
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
        let words = match &self.work {
            Work::Exposed(name) => vec!["remote", "expose", "--foreground", "--batch", name],
            Work::Remote(name) => {
                vec!["remote", "connect", "--foreground", "--batch", "--no-default", name]
            }
            Work::Remotes => vec!["supervisor", "--foreground"],
            Work::Gateway { port, .. } => {
                let words = ["gateway", "run", "--port", &port.to_string()].map(str::to_owned);
                return profile.chain(words).collect();
            }
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
            work: Work::Remotes,
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
            work: Work::Remote("vps".to_owned()),
            environment: vec![("OPENCLAW_STATE_DIR".to_owned(), "/srv/a b%/$x&<>\\".into())],
            own: "/srv/a b%/$x&<>\\/rs".into(),
            manager: Starter::System { user: "deploy".to_owned() },
        }
    }

    /// The gateway of `ann`.
    pub(super) fn gateway(service: Service) -> Service {
        let own = service.own.parent().unwrap().to_owned();
        let credentials = Vec::new();
        Service { work: Work::Gateway { port: 18_789, credentials }, own, ..service }
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
