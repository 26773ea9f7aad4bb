//! Whole configurations over a world that is made up.

mod against_ssh;
mod generator;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Mutex,
};

use super::{
    Mistake, Origin, Request, Settings, World, pattern, resolve,
    world::{Found, Source},
};
use crate::config::Family;

const HOME: &str = "/home/anna";
const USER_FILE: &str = "/home/anna/.ssh/config";
const UID: u32 = 1000;

/// A machine of which everything is known.
#[derive(Default)]
pub(super) struct Fake {
    files: BTreeMap<PathBuf, Source>,
    variables: BTreeMap<String, String>,
    /// What `Match exec` was asked to run.
    ran: Mutex<Vec<String>>,
    names: BTreeMap<String, Found>,
}

impl Fake {
    /// A machine whose user has this file.
    pub(super) fn with(text: impl AsRef<[u8]>) -> Self {
        Self::default().file(USER_FILE, text)
    }

    fn file(self, path: &str, text: impl AsRef<[u8]>) -> Self {
        self.file_of(path, text, UID, 0o100_600)
    }

    fn file_of(mut self, path: &str, text: impl AsRef<[u8]>, owner: u32, mode: u32) -> Self {
        let source = Source { bytes: text.as_ref().to_vec(), owner, mode };
        self.files.insert(path.into(), source);
        self
    }

    fn variable(mut self, name: &str, value: &str) -> Self {
        self.variables.insert(name.to_owned(), value.to_owned());
        self
    }

    fn name(mut self, name: &str, canonical: Option<&str>) -> Self {
        let canonical = canonical.map(str::to_owned);
        self.names.insert(name.to_owned(), Found { canonical });
        self
    }

    fn resolve(&self, host: &str) -> Result<Settings, Vec<Mistake>> {
        resolve(&Request { host, ..Request::default() }, self)
    }

    fn settings(&self, host: &str) -> Settings {
        self.resolve(host).unwrap_or_else(|mistakes| panic!("{}", sentences(&mistakes)))
    }

    fn mistakes(&self, host: &str) -> Vec<String> {
        match self.resolve(host) {
            Ok(settings) => panic!("taken:\n{}", settings.dump()),
            Err(mistakes) => mistakes.iter().map(Mistake::to_string).collect(),
        }
    }

    fn ran(&self) -> Vec<String> {
        self.ran.lock().expect("nobody panicked").clone()
    }
}

fn sentences(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

impl World for Fake {
    fn read(&self, path: &Path) -> Result<Option<Source>, String> {
        match path.to_str() {
            Some(path) if path.contains("unreadable") => Err("permission denied".to_owned()),
            _ => Ok(self.files.get(path).cloned()),
        }
    }

    fn glob(&self, wanted: &str) -> Result<Vec<PathBuf>, String> {
        let is_wanted = |path: &&PathBuf| pattern::matches(path.to_str().unwrap_or(""), wanted);
        Ok(self.files.keys().filter(is_wanted).cloned().collect())
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }

    fn succeeds(&self, command: &str) -> Result<bool, String> {
        self.ran.lock().expect("nobody panicked").push(command.to_owned());
        match command {
            "hang" => Err("it took longer than 10 seconds".to_owned()),
            _ => Ok(command.starts_with("true")),
        }
    }

    fn addresses(&self) -> Vec<IpAddr> {
        vec!["127.0.0.1".parse().expect("an address"), "10.1.2.3".parse().expect("an address")]
    }

    fn look_up(&self, name: &str, _family: Family) -> Option<Found> {
        self.names.get(name).cloned()
    }

    fn local_host(&self) -> String {
        "laptop.example".to_owned()
    }

    fn home(&self, user: Option<&str>) -> Option<PathBuf> {
        match user {
            None | Some("anna") => Some(HOME.into()),
            Some("root") => Some("/root".into()),
            Some(_) => None,
        }
    }

    fn user(&self) -> String {
        "anna".to_owned()
    }

    fn uid(&self) -> u32 {
        UID
    }
}

#[test]
fn the_first_value_wins_and_says_where_it_stands() {
    let world = Fake::with("Host box\n  Port 2222\n  User me\nHost *\n  Port 22\n")
        .file("/etc/ssh/ssh_config", "User other\nHashKnownHosts yes\n");
    let settings = world.settings("box");
    assert_eq!(settings.word("port"), Some("2222"));
    assert_eq!(settings.word("User"), Some("me"));
    assert!(settings.is_yes("hashknownhosts"));
    assert_eq!(settings.origin("Port"), Some(&Origin::file(Path::new(USER_FILE), 2)));
    assert_eq!(settings.origin("ConnectTimeout"), Some(&Origin::Default));
    assert_eq!(world.settings("other").word("Port"), Some("22"));
}
