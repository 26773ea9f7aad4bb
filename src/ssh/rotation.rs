//! Writes down the further host keys of a server that is known, once it has proved to hold them
//! (`UpdateHostKeys`, OpenSSH's PROTOCOL section 2.5).

use std::{path::PathBuf, sync::Arc, time::Duration};

use russh::{client, keys::PublicKey};
use tokio::{sync::mpsc, time::timeout};

use super::{
    ask::{Asker, Question},
    known_hosts::{self, Change, Known, Name, Source},
    observe::{Fact, Observer},
    resolve::{Hop, UpdateHostKeys},
    session::End,
    watcher::Watcher,
};

/// How long the server may take to announce its keys where a person is to be asked about them.
const ANNOUNCED_WITHIN: Duration = Duration::from_millis(500);
/// How long all of it may take where nobody is asked.
const ALL_WITHIN: Duration = Duration::from_secs(30);
/// How long the server may take to prove its keys.
const PROVED_WITHIN: Duration = Duration::from_secs(10);
/// More keys than any server has; OpenSSH has no limit, but each costs a signature.
const MOST_KEYS: usize = 32;

/// What the announced keys mean for the files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rotation {
    /// The file in which the key in use stands.
    path: PathBuf,
    /// New keys in the SSH wire form: to be proved, then added.
    add: Vec<Vec<u8>>,
    /// Keys that the server no longer has.
    remove: Vec<Vec<u8>>,
}

/// A server whose host key is on file by its own right.
#[derive(Debug, Clone)]
pub(super) struct Rotating {
    name: Name,
    /// The key that the server used.
    used: Vec<u8>,
    /// The files that we may write.
    user: Vec<PathBuf>,
    /// All of them.
    files: Vec<PathBuf>,
    /// The types of keys that would be taken.
    kinds: Vec<String>,
    hash: bool,
}

impl Rotating {
    /// The server of `hop` that is known as `name` and used the key `used`; `None` where the
    /// configuration wants no further keys. `kinds` are the types of keys that were asked for.
    pub(super) fn new(hop: &Hop, name: &Name, used: &[u8], kinds: Vec<String>) -> Option<Self> {
        let wanted = match hop.update_host_keys {
            UpdateHostKeys::No => false,
            UpdateHostKeys::Ask => !hop.batch,
            UpdateHostKeys::Yes => true,
        };
        (wanted && hop.pin.is_none()).then(|| Self {
            name: name.clone(),
            used: used.to_vec(),
            user: hop.user_known_hosts.clone(),
            files: hop.user_known_hosts.iter().chain(&hop.global_known_hosts).cloned().collect(),
            kinds,
            hash: hop.hash_known_hosts,
        })
    }

    /// Waits for what the server announces, and writes it down: for a task of its own. Ends with the
    /// session, or after half a minute.
    pub(super) async fn follow(
        self,
        handle: Arc<client::Handle<Watcher>>,
        mut announced: mpsc::Receiver<Vec<PublicKey>>,
        end: Arc<End>,
    ) {
        let work = async {
            let keys = announced.recv().await?;
            let rotation = self.decide(&keys).await?;
            proved(&handle, &rotation, &keys).await.then_some(())?;
            self.write(rotation).await
        };
        tokio::select! {
            _ = end.wait() => {}
            // Late or not, the files are whole.
            _ = timeout(ALL_WITHIN, work) => {}
        }
    }

    /// Waits a moment for what the server announces, and asks a person whether to write it down.
    pub(super) async fn ask(
        &self,
        handle: &client::Handle<Watcher>,
        announced: &mut mpsc::Receiver<Vec<PublicKey>>,
        asker: &dyn Asker,
        observer: &dyn Observer,
    ) -> Option<()> {
        let keys = timeout(ANNOUNCED_WITHIN, announced.recv()).await.ok()??;
        let rotation = self.decide(&keys).await?;
        if !proved(handle, &rotation, &keys).await {
            return None;
        }
        let told = |keys: &[Vec<u8>]| {
            let kind = |key: &[u8]| known_hosts::key_type(key).unwrap_or("?").to_owned();
            keys.iter()
                .map(|key| format!("{} {}", kind(key), known_hosts::fingerprint(key)))
                .collect()
        };
        let (host, path) = (self.name.text(), rotation.path.clone());
        let question = Question::MoreHostKeys {
            host,
            more: told(&rotation.add),
            gone: told(&rotation.remove),
        };
        let answer = asker.ask(question).await?;
        if !answer.expose().trim().eq_ignore_ascii_case("yes") {
            return None;
        }
        self.write(rotation).await?;
        observer.fact(Fact::HostKeyRecorded(path));
        Some(())
    }

    /// Reads the files as they are now and decides.
    async fn decide(&self, announced: &[PublicKey]) -> Option<Rotation> {
        let keys: Vec<Vec<u8>> =
            announced.iter().filter_map(|key| key.to_bytes().ok()).take(MOST_KEYS + 1).collect();
        let (this, files) = (self.clone(), self.files.clone());
        let deciding = tokio::task::spawn_blocking(move || {
            let sources: Vec<Source> =
                files.iter().map(|path| known_hosts::read(path)).collect::<Result<_, _>>().ok()?;
            this.rotation(&sources, &keys)
        });
        deciding.await.ok()?
    }

    /// What the announced keys mean, if they mean anything; as careful as OpenSSH. Pure.
    fn rotation(&self, sources: &[Source], announced: &[Vec<u8>]) -> Option<Rotation> {
        let known = known_hosts::keys_on_file(sources, &self.name.text());
        let is_ours = |known: &Known| self.user.contains(&known.entry.path);
        let used = known.iter().find(|known| known.key == self.used && is_ours(known))?;
        // A server that leaves out the key it just used is not to be followed.
        if announced.len() > MOST_KEYS || !announced.contains(&self.used) {
            return None;
        }
        // Lines that mean more than this host, or more than a key, are for a person to change.
        if known.iter().any(|known| known.marked || !known.alone || !is_ours(known)) {
            return None;
        }
        let is_new = |key: &&Vec<u8>| !known.iter().any(|known| known.key == **key);
        let is_taken = |key: &&Vec<u8>| {
            known_hosts::key_type(key).is_some_and(|kind| self.kinds.iter().any(|it| it == kind))
        };
        let mut add: Vec<Vec<u8>> =
            announced.iter().filter(is_new).filter(is_taken).cloned().collect();
        add.sort();
        add.dedup();
        // A key that is on file elsewhere may belong to another host that answers in its place.
        if add.iter().any(|key| known_hosts::is_anywhere(sources, key)) {
            return None;
        }
        let path = used.entry.path.clone();
        let is_gone = |known: &&Known| {
            known.entry.path == path
                && !announced.contains(&known.key)
                && self.kinds.contains(&known.entry.algorithm)
        };
        let remove: Vec<Vec<u8>> =
            known.iter().filter(is_gone).map(|known| known.key.clone()).collect();
        (!add.is_empty() || !remove.is_empty()).then_some(Rotation { path, add, remove })
    }

    async fn write(&self, rotation: Rotation) -> Option<()> {
        let (name, hash) = (self.name.clone(), self.hash);
        let Rotation { path, add, remove } = rotation;
        let (more, gone) = (add.len(), remove.len());
        let writing = tokio::task::spawn_blocking(move || {
            known_hosts::change(&path, &name, &Change { add, remove, hash })
        });
        if let Err(error) = writing.await.ok()? {
            tracing::warn!(%error, "the server's host keys could not be written down");
            return None;
        }
        tracing::info!(more, gone, "wrote down which host keys the server has");
        Some(())
    }
}

/// Whether the server proves to hold every key that would be added.
async fn proved(
    handle: &client::Handle<Watcher>,
    rotation: &Rotation,
    announced: &[PublicKey],
) -> bool {
    let is_added = |key: &&PublicKey| key.to_bytes().is_ok_and(|key| rotation.add.contains(&key));
    let mut keys: Vec<PublicKey> = announced.iter().filter(is_added).cloned().collect();
    keys.dedup();
    if keys.len() < rotation.add.len() {
        return false;
    }
    if keys.is_empty() {
        return true;
    }
    match timeout(PROVED_WITHIN, handle.hostkeys_prove(keys)).await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the server did not prove a host key that it announced");
            false
        }
        Err(_) => {
            tracing::warn!("the server did not prove the host keys that it announced in time");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::ssh::known_hosts::line;

    /// A key in its SSH wire form, told from others by `mark`.
    fn key(kind: &str, mark: u8) -> Vec<u8> {
        let field = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
        [field(kind.as_bytes()), field(&[mark; 32])].concat()
    }

    fn ed25519(mark: u8) -> Vec<u8> {
        key("ssh-ed25519", mark)
    }

    fn rotating() -> Rotating {
        Rotating {
            name: Name::new("box.example", 2222, None),
            used: ed25519(1),
            user: vec!["user".into(), "second".into()],
            files: vec!["user".into(), "second".into(), "global".into()],
            kinds: vec!["ssh-ed25519".into(), "ssh-rsa".into()],
            hash: false,
        }
    }

    fn file(path: &str, lines: &[String]) -> Source {
        Source { path: path.into(), text: lines.join("\n") }
    }

    fn here(key: &[u8]) -> String {
        line(&Name::new("box.example", 2222, None), key, None)
    }

    #[test]
    fn adds_what_is_new_and_removes_what_is_gone() {
        let sources = [
            file("user", &[here(&ed25519(9))]),
            file("second", &[here(&ed25519(1)), here(&ed25519(2)), here(&key("ssh-dss", 3))]),
        ];
        let rsa = key("ssh-rsa", 4);
        let announced = [rsa.clone(), ed25519(1), rsa.clone(), key("sk-strange", 5)];
        let expected = Rotation { path: "second".into(), add: vec![rsa], remove: vec![ed25519(2)] };
        assert_eq!(rotating().rotation(&sources, &announced), Some(expected));
    }

    #[test]
    fn changes_nothing_where_there_is_doubt() {
        let known = file("user", &[here(&ed25519(1))]);
        let all = [ed25519(1), ed25519(2)];
        let of =
            |sources: &[Source], announced: &[Vec<u8>]| rotating().rotation(sources, announced);
        assert!(of(slice::from_ref(&known), &all).is_some());
        assert_eq!(of(slice::from_ref(&known), &[ed25519(1)]), None, "nothing is new");
        assert_eq!(of(slice::from_ref(&known), &[ed25519(2)]), None, "the key in use is left out");
        let many: Vec<Vec<u8>> = (0..40).map(ed25519).collect();
        assert_eq!(of(slice::from_ref(&known), &many), None, "too many");
        let with = |line: String| [known.clone(), file("second", &[line])];
        let plain = |name: &str, key: &[u8]| line(&Name::new(name, 22, None), key, None);
        for doubtful in [
            plain("other.example", &ed25519(2)),
            plain("box.example", &ed25519(2)),
            here(&ed25519(3)).replace("[box", "*,[box"),
            format!("@cert-authority {}", here(&ed25519(3))),
            format!("@revoked {}", here(&ed25519(2))),
            here(&ed25519(3)).replace("[box", "other,[box"),
        ] {
            assert_eq!(of(&with(doubtful.clone()), &all), None, "{doubtful}");
        }
        let global = file("global", &[here(&ed25519(1))]);
        assert_eq!(of(&[global], &all), None, "not our file");
        let portless = file("user", &[plain("box.example", &ed25519(1))]);
        assert_eq!(of(&[portless], &all), None, "known under another name");
        let hashed = line(&Name::new("box.example", 2222, None), &ed25519(1), Some(&[7; 20]));
        assert!(of(&[file("user", &[hashed])], &all).is_some());
    }
}
