//! `rs/remotes.json`: our remotes and the default one.

use std::{collections::BTreeMap, net::SocketAddr, ops::RangeInclusive, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{DEFAULT_PORT, Destination, Forward, Listen, Paths, file};
use crate::{
    fingerprint::Fingerprint,
    problem::{Class, Problem},
};

/// The remote that `gateway.remote` in `openclaw.json` stands for.
pub(crate) const CONFIG_REMOTE: &str = "config";
/// The longest name of a remote, bytes.
const LONGEST_NAME: usize = 64;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Remotes {
    /// The remote that commands mean when nothing else is said; `local` after `remote use local`.
    pub(crate) default: Option<String>,
    /// Whether a service was offered once; the answer does not matter.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) service_offered: bool,
    /// Definitions by name.
    pub(crate) remotes: BTreeMap<String, Remote>,
    /// Where the supervisor answers scrapes of the metrics, if it shall.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics: Option<SocketAddr>,
}

/// Which way a remote leads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// To a gateway over there (`remote connect`).
    #[default]
    Gateway,
    /// From over there to the gateway on this machine (`remote expose`).
    Exposed,
}

impl Kind {
    fn is_gateway(&self) -> bool {
        *self == Self::Gateway
    }
}

/// One remote: what `remote connect` or `remote expose` was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remote {
    /// Which way it leads.
    #[serde(default, skip_serializing_if = "Kind::is_gateway")]
    pub(crate) kind: Kind,
    /// `[user@]host[:port]` or an `ssh://` URL, as typed.
    pub(crate) target: String,
    /// The ssh options, as typed.
    #[serde(default)]
    pub(crate) ssh: SshOptions,
    /// The gateway's port on the far side; of an exposed one the port where it is published, 0
    /// until the server has chosen.
    pub(crate) remote_port: u16,
    /// The port of ours that leads there; never moves. Of an exposed one the gateway's own.
    pub(crate) local_port: u16,
    /// The gateway's TLS certificate; without one it speaks none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls_fingerprint: Option<Fingerprint>,
    /// `--companions`: whether the port after the gateway's is forwarded as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) companions: bool,
    /// `--hold`: how long a connection waits for a path, 1 to [`HOLD_SECONDS_MOST`] seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hold_seconds: Option<u16>,
    /// `--held-most`: how many connections may wait at each of its ports, 1 to [`HELD_MOST_MOST`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) held_most: Option<u16>,
    /// `--unread-most`: what its local readers may leave unread in all, MiB, [`UNREAD_MIB`]; without
    /// it they share [`UNREAD_MIB_SHARED`] with those of the other remotes without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unread_most_mib: Option<u16>,
    /// Further `-L` forwards.
    #[serde(default)]
    pub(crate) forwards: Vec<Forward>,
    /// `-R` forwards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) remote_forwards: Vec<Forward>,
    /// Whether the user wants it up.
    #[serde(default)]
    pub(crate) wanted: bool,
}

/// The longest wait for a path: whoever has gone meanwhile is found out only at its end.
pub(crate) const HOLD_SECONDS_MOST: u16 = 300;
/// The most that may wait at a port; each has a descriptor, of which a process has a few thousand.
pub(crate) const HELD_MOST_MOST: u16 = 1024;
/// What readers may be allowed to leave unread, MiB: less than one of them may leave beside others
/// would cut whoever pauses, and more is memory that nobody gets back while a reader is stuck.
pub(crate) const UNREAD_MIB: RangeInclusive<u16> = 16..=1024;
/// What the readers of all remotes without a bound of their own may leave unread together, MiB.
pub(crate) const UNREAD_MIB_SHARED: u16 = 64;

/// OpenSSH options of one remote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SshOptions {
    /// `-p`.
    pub(crate) port: Option<u16>,
    /// `-l`.
    pub(crate) user: Option<String>,
    /// `-i`, in order; absolute.
    pub(crate) identities: Vec<PathBuf>,
    /// `-J`: the hops in order, each `[user@]host[:port]`.
    pub(crate) jumps: Vec<String>,
    /// `-o Key=Value`, in order.
    pub(crate) options: Vec<(String, String)>,
    /// `-4` or `-6`.
    pub(crate) family: Family,
    /// `--accept-host-key`: the last hop's key as `SHA256:…`.
    pub(crate) host_key_pin: Option<String>,
    /// `-F`, absolute; `none` stands for no file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) config_file: Option<PathBuf>,
    /// `--no-remember`: keys that a person unlocks are forgotten after the login.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) no_remember: bool,
    /// `--low-power`: a path on which nobody waits is asked for signs of life seldom.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) low_power: bool,
}

/// Which addresses to dial.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Family {
    /// Both.
    #[default]
    Any,
    /// `-4`.
    V4,
    /// `-6`.
    V6,
}

impl Remote {
    /// The remote at `target` with a gateway at its usual port, as nothing else was said.
    pub(crate) fn new(target: impl Into<String>) -> Self {
        Self {
            kind: Kind::Gateway,
            target: target.into(),
            ssh: SshOptions::default(),
            remote_port: DEFAULT_PORT,
            local_port: 0,
            tls_fingerprint: None,
            companions: false,
            hold_seconds: None,
            held_most: None,
            unread_most_mib: None,
            forwards: Vec::new(),
            remote_forwards: Vec::new(),
            wanted: true,
        }
    }

    /// The forward to the gateway's companion, the sandbox of its widgets, if it is asked for. The
    /// gateway tells a page the port of its own machine, so ours has the same number.
    pub(crate) fn companion(&self) -> Option<Forward> {
        let port = self.remote_port.checked_add(1).filter(|_| self.companions)?;
        Some(Forward { listen: Listen::loopback(port), to: Destination::loopback(port) })
    }

    /// `ws` or `wss`, as the gateway's clients write it.
    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls_fingerprint.is_some() { "wss" } else { "ws" }
    }

    /// Whether a tunnel of it listens on port `port` of loopback while it is wanted. The port of one
    /// that is exposed is this machine's own gateway's.
    pub(crate) fn listens_on(&self, port: u16) -> bool {
        let mut forwards = self.forwards.iter();
        self.wanted
            && self.kind == Kind::Gateway
            && (self.claims(port) || forwards.any(|forward| forward.listen.takes_local(port)))
    }

    /// Whether it uses local port `port`, or is about to.
    pub(crate) fn claims(&self, port: u16) -> bool {
        let companion = self.companion().and_then(|forward| forward.listen.port());
        self.local_port == port || companion == Some(port)
    }
}

impl Remotes {
    /// Reads the file; empty without one. A broken file is an error that names it.
    pub(crate) fn load(paths: &Paths) -> Result<Self, Problem> {
        Self::load_of(paths, nix::unistd::Uid::effective())
    }

    /// The same for the file of another user, in that user's folders.
    pub(crate) fn load_of(paths: &Paths, owner: nix::unistd::Uid) -> Result<Self, Problem> {
        match file::read(&paths.remotes(), owner)? {
            Some(text) => file::parse(&paths.remotes(), &text),
            None => Ok(Self::default()),
        }
    }

    /// Changes the file under its lock; nothing is written when `change` fails or changes nothing.
    /// Blocks.
    pub(crate) fn update<T>(
        paths: &Paths,
        change: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let lock = file::lock(&paths.own().join("remotes.lock"))?;
        let old = Self::load(paths)?;
        let mut new = old.clone();
        let value = change(&mut new)?;
        if new != old {
            file::store(&paths.remotes(), &new)?;
        }
        drop(lock);
        Ok(value)
    }

    /// The remote called `name`; class `usage` if there is none, with the names that there are.
    pub(crate) fn named(&self, name: &str) -> Result<&Remote, Problem> {
        self.remotes.get(name).ok_or_else(|| {
            let known: Vec<_> = self.remotes.keys().map(String::as_str).collect();
            let known = match known.as_slice() {
                [] => "there are none yet".to_owned(),
                names => format!("there are {}", names.join(", ")),
            };
            Problem::new(Class::Usage, format!("no remote is called `{name}`; {known}"))
                .fix("openclaw remote list")
        })
    }
}

/// A remote that publishes this machine's gateway was taken for a way to one.
pub(crate) fn leads_nowhere(name: &str) -> Problem {
    Problem::new(
        Class::Usage,
        format!("`{name}` publishes the gateway of this machine; it is no way to another one"),
    )
    .fix("openclaw remote list")
}

/// Whether a remote may be called `name`: letters, digits, `-`, `_` and `.`, at most 64 of them, no
/// `-` in front, and not `local`.
pub(crate) fn check_name(name: &str) -> Result<(), Problem> {
    let wrong = if name.is_empty() {
        "is empty"
    } else if name.len() > LONGEST_NAME {
        "is longer than 64 characters"
    } else if name.starts_with('-') {
        "starts with `-`"
    } else if name == "local" {
        "means the gateway on this machine"
    } else if name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) {
        return Ok(());
    } else {
        "may hold letters, digits, `-`, `_` and `.` only"
    };
    let shown: String = name.chars().take(LONGEST_NAME).flat_map(char::escape_debug).collect();
    Err(Problem::new(Class::Usage, format!("the remote's name `{shown}` {wrong}"))
        .fix("choose another one with --name"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remote(target: &str) -> Remote {
        Remote { local_port: 18790, ..Remote::new(target) }
    }

    #[test]
    fn keeps_what_it_was_told() {
        let (_home, paths) = Paths::temporary();
        assert_eq!(Remotes::load(&paths).unwrap(), Remotes::default());
        let count = Remotes::update(&paths, |remotes| {
            remotes.remotes.insert("vps".to_owned(), remote("me@vps"));
            remotes.default = Some("vps".to_owned());
            Ok(remotes.remotes.len())
        });
        assert_eq!(count.unwrap(), 1);
        let loaded = Remotes::load(&paths).unwrap();
        assert_eq!(loaded.named("vps").unwrap(), &remote("me@vps"));
        assert_eq!(loaded.default.as_deref(), Some("vps"));
        let problem = loaded.named("other").unwrap_err();
        assert_eq!(problem.class, Class::Usage);
        assert!(problem.message.contains("vps"), "{}", problem.message);
    }

    #[test]
    fn only_a_wanted_tunnel_listens_and_an_exposed_gateway_has_its_own_port() {
        let forwards = serde_json::from_str(
            r#"[{"port":8080,"host":"127.0.0.1","hostPort":80},
                {"bind":"10.0.0.5","port":18789,"host":"127.0.0.1","hostPort":80}]"#,
        );
        let vps = Remote { wanted: true, forwards: forwards.unwrap(), ..remote("me@vps") };
        assert!(vps.listens_on(18790) && vps.listens_on(8080) && !vps.listens_on(18789));
        assert!(!Remote { wanted: false, ..vps.clone() }.listens_on(18790));
        assert!(!Remote { kind: Kind::Exposed, ..vps }.listens_on(18790));
    }

    #[test]
    fn files_of_every_age_keep_loading() {
        let first: Remotes =
            serde_json::from_str(include_str!("../../fixtures/remotes/first.json")).unwrap();
        let vps = first.named("vps").unwrap();
        let shown: Vec<String> = vps.forwards.iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["8080:127.0.0.1:80", "*:5432:db:5432"]);
        assert_eq!((vps.kind, vps.companion()), (Kind::Gateway, None));
        // A file of today is written as it was read.
        let text = include_str!("../../fixtures/remotes/both-ways.json");
        let both: Remotes = serde_json::from_str(text).unwrap();
        let vps = both.named("vps").unwrap();
        let shown: Vec<String> =
            vps.forwards.iter().chain(&vps.remote_forwards).map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "/home/me/db.sock:/run/postgresql/.s.PGSQL.5432",
                "8080:/run/web.sock",
                "0:localhost:3000",
                "/run/me/there.sock:/home/me/here.sock",
            ]
        );
        assert!(vps.claims(18790) && vps.companion().is_some());
        assert_eq!(both.named("jump-exposed").unwrap().kind, Kind::Exposed);
        let again = serde_json::to_string(&both).unwrap();
        assert_eq!(serde_json::from_str::<Remotes>(&again).unwrap(), both);
    }

    #[test]
    fn loses_nothing_to_a_change_that_fails() {
        let (_home, paths) = Paths::temporary();
        let outcome: Result<(), Problem> = Remotes::update(&paths, |remotes| {
            remotes.remotes.insert("vps".to_owned(), remote("me@vps"));
            Err(Problem::new(Class::Usage, "no"))
        });
        outcome.unwrap_err();
        assert_eq!(Remotes::load(&paths).unwrap(), Remotes::default());
    }

    #[test]
    fn never_overwrites_a_broken_file() {
        let (_home, paths) = Paths::temporary();
        file::write(&paths.remotes(), b"{ broken").unwrap();
        let problem = Remotes::update(&paths, |_| Ok(())).unwrap_err();
        assert_eq!(problem.class, Class::Config);
        assert!(problem.message.contains("remotes.json"), "{}", problem.message);
        assert_eq!(std::fs::read_to_string(paths.remotes()).unwrap(), "{ broken");
    }

    #[test]
    fn two_writers_lose_nothing() {
        let (_home, paths) = Paths::temporary();
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let paths = &paths;
                scope.spawn(move || {
                    for round in 0..5 {
                        Remotes::update(paths, |remotes| {
                            remotes.remotes.insert(format!("r{writer}-{round}"), remote("h"));
                            Ok(())
                        })
                        .unwrap();
                    }
                });
            }
        });
        assert_eq!(Remotes::load(&paths).unwrap().remotes.len(), 20);
    }

    #[test]
    fn names_are_words_without_surprises() {
        for good in ["vps", "a", "my-box_2.example", "0", ".x", &"x".repeat(64)] {
            check_name(good).unwrap();
        }
        for bad in ["", "-x", "local", "a b", "a/b", "ü", "a\u{1b}[2J", "a;b", &"x".repeat(65)] {
            let problem = check_name(bad).unwrap_err();
            assert_eq!(problem.class, Class::Usage);
            assert!(!problem.message.contains('\u{1b}'));
        }
    }
}
