//! Where our files are, from the environment and the profile.

use std::{
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{
    control::Endpoint,
    problem::{Class, Problem},
};

/// The control socket's name in our own folder.
const SOCKET: &str = "supervisor.sock";
/// The longest path of a socket that every system takes, bytes.
const LONGEST_SOCKET: usize = 103;

/// The folders of one profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Paths {
    /// `OPENCLAW_STATE_DIR`, else `~/.openclaw` or `~/.openclaw-<profile>`; may belong to an
    /// OpenClaw installation as well.
    pub(crate) state: PathBuf,
    /// `OPENCLAW_CONFIG_PATH`, else `<state>/openclaw.json`.
    pub(crate) config: PathBuf,
    /// The control socket: in `XDG_RUNTIME_DIR` if there is one, else in [`Paths::own`].
    pub(crate) socket: PathBuf,
    /// The profile, if not the default one.
    pub(crate) profile: Option<String>,
}

impl Paths {
    /// The folders of `profile`, from the environment of this process.
    pub(crate) fn find(profile: Option<&str>) -> Result<Self, Problem> {
        Self::resolve(profile, |name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    /// The folders of `profile` of another user, who has that home; variables of this process that
    /// name folders of ours count for that user as well.
    pub(crate) fn of_user(profile: Option<&str>, home: &Path) -> Result<Self, Problem> {
        Self::resolve(profile, |name| match name {
            "HOME" => Some(home.as_os_str().to_owned()),
            "XDG_RUNTIME_DIR" => None,
            _ => std::env::var_os(name).filter(|value| !value.is_empty()),
        })
    }

    /// The folders of `profile`, from an environment.
    fn resolve(
        profile: Option<&str>,
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Self, Problem> {
        let profile = profile.filter(|name| !name.is_empty() && *name != "default");
        if let Some(name) = profile
            && !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
        {
            let like = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
            return Err(Problem::new(
                Class::Usage,
                format!("the profile name `{name}` may hold letters, digits, - and _ only"),
            )
            .fix(format!("--profile={}", name.chars().map(like).collect::<String>())));
        }
        let state = match variable("OPENCLAW_STATE_DIR") {
            Some(folder) => std::path::absolute(folder).map_err(|error| {
                Problem::new(Class::Config, format!("OPENCLAW_STATE_DIR: {error}"))
            })?,
            None => {
                let home = variable("HOME").map(PathBuf::from).or_else(|| {
                    directories::BaseDirs::new().map(|dirs| dirs.home_dir().to_owned())
                });
                let Some(home) = home else {
                    return Err(Problem::new(Class::Config, "no home folder")
                        .fix("set HOME or OPENCLAW_STATE_DIR"));
                };
                home.join(profile.map_or(".openclaw".to_owned(), |p| format!(".openclaw-{p}")))
            }
        };
        let config = variable("OPENCLAW_CONFIG_PATH")
            .map_or_else(|| state.join("openclaw.json"), PathBuf::from);
        let beside = state.join("rs").join(SOCKET);
        let socket = match variable("XDG_RUNTIME_DIR").map(PathBuf::from) {
            Some(folder) if folder.is_dir() && folder.is_absolute() => {
                let digest =
                    ring::digest::digest(&ring::digest::SHA256, state.as_os_str().as_bytes());
                let hash: String =
                    digest.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect();
                folder
                    .join("openclaw")
                    .join(format!("{}-{hash}.sock", profile.unwrap_or("default")))
            }
            Some(_) | None => beside.clone(),
        };
        let socket = if socket.as_os_str().len() > LONGEST_SOCKET { beside } else { socket };
        Ok(Self { state, config, socket, profile: profile.map(str::to_owned) })
    }

    /// Where the supervisor of this profile is.
    pub(crate) fn endpoint(&self) -> Endpoint {
        let other = Some(self.own().join(SOCKET)).filter(|other| *other != self.socket);
        Endpoint { socket: self.socket.clone(), other, profile: self.profile.clone() }
    }

    /// How a person calls this program for the profile.
    pub(crate) fn command(&self) -> String {
        match &self.profile {
            Some(name) => format!("openclaw --profile {name}"),
            None => "openclaw".to_owned(),
        }
    }

    /// `<state>/rs`: everything that we write.
    pub(crate) fn own(&self) -> PathBuf {
        self.state.join("rs")
    }

    /// `rs/remotes.json`.
    pub(crate) fn remotes(&self) -> PathBuf {
        self.own().join("remotes.json")
    }

    /// `rs/credentials.json`.
    pub(crate) fn credentials(&self) -> PathBuf {
        self.own().join("credentials.json")
    }

    /// `rs/gateway-token`.
    pub(crate) fn gateway_token(&self) -> PathBuf {
        self.own().join("gateway-token")
    }

    /// `rs/metrics-token`.
    pub(crate) fn metrics_token(&self) -> PathBuf {
        self.own().join("metrics-token")
    }

    /// `rs/tls`: the certificate that a gateway made for itself.
    pub(crate) fn tls(&self) -> PathBuf {
        self.own().join("tls")
    }

    /// `rs/logs`.
    pub(crate) fn logs(&self) -> PathBuf {
        self.own().join("logs")
    }

    /// The folders of a fresh home that is gone with the returned handle.
    #[cfg(test)]
    pub(crate) fn temporary() -> (tempfile::TempDir, Self) {
        let home = tempfile::tempdir().expect("a temporary folder can be made");
        let state = home.path().join(".openclaw");
        let paths = Self {
            config: state.join("openclaw.json"),
            socket: state.join("rs").join("supervisor.sock"),
            state,
            profile: None,
        };
        (home, paths)
    }
}
