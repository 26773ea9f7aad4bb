//! Who supervises a profile: the lock that says so, and how a newcomer gets it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{FileExt, MetadataExt, OpenOptionsExt},
            net::UnixStream,
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{
    handover::{self, Estate, NotGiven},
    process::wrong,
};
use crate::{
    config::{Paths, file::make_folder},
    meeting::{Greeting, Meeting, Party, Pressure, meet},
    problem::{Class, Problem},
};

/// How long another supervisor may hold the lock without answering: starting or dying.
const DYING_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at it.
const DYING_LOOK: Duration = Duration::from_millis(10);
/// So often for the lock of one that died while it handed over.
const BURIAL_LOOKS: usize = 20;

/// What a starting supervisor finds.
#[derive(Debug)]
pub(crate) enum Place {
    /// Free or handed over, and held from now on.
    Ours(Seat),
    /// Another supervisor of this profile runs, and goes on.
    Taken,
}

/// The right to supervise a profile, with what a predecessor left.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(super) lock: Lock,
    pub(super) estate: Estate,
}

/// The lock that says who supervises a profile; ends with the process, however it ends.
#[derive(Debug)]
pub(super) struct Lock {
    path: PathBuf,
    file: File,
}

impl Lock {
    /// Takes it; `None` while another process has it.
    fn take(path: &Path) -> io::Result<Option<Self>> {
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(path);
        let file = match file {
            // What was made before can still be locked.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                File::open(path).map_err(|_| error)?
            }
            file => file?,
        };
        match file.try_lock() {
            Ok(()) => Ok(Some(Self::of(path, file))),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// The same for one whose holder has just ended, or has not: the kernel closes the files of a
    /// dead process one after the other.
    fn take_from_the_dead(path: &Path) -> io::Result<Option<Self>> {
        for _ in 0..BURIAL_LOOKS {
            if let Some(lock) = Self::take(path)? {
                return Ok(Some(lock));
            }
            std::thread::sleep(DYING_LOOK);
        }
        Ok(None)
    }

    /// One that is held already; its file tells our process from now on.
    fn of(path: &Path, file: File) -> Self {
        let lock = Self { path: path.to_owned(), file };
        lock.note();
        lock
    }

    /// Has its file tell our process, as far as it can be written; a successor that failed may have
    /// told its own.
    pub(super) fn note(&self) {
        // A file that was handed over is shared with its position.
        let pid = format!("{}\n", std::process::id());
        let noted = self.file.set_len(0).and_then(|()| self.file.write_all_at(pid.as_bytes(), 0));
        if let Err(error) = noted {
            // On a full disk or a read-only one the lock is as good.
            info!(%error, "the lock file cannot tell our process");
        }
    }

    /// A descriptor of it for a successor, who holds the same lock with it.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Takes the place anew if the file is gone with its folder; `false` if another supervisor
    /// has it by now.
    pub(super) fn mend(&mut self) -> bool {
        let id = |facts: fs::Metadata| (facts.dev(), facts.ino());
        let (there, ours) = (fs::metadata(&self.path).map(id), self.file.metadata().map(id));
        if there.is_ok() && there.ok() == ours.ok() {
            return true;
        }
        if let Some(folder) = self.path.parent()
            && let Err(problem) = make_folder(folder)
        {
            warn!(%problem, "the state directory is gone");
            return true;
        }
        match Self::take(&self.path) {
            Ok(Some(lock)) => {
                info!("the lock file was gone and is back");
                *self = lock;
                true
            }
            Ok(None) => false,
            Err(error) => {
                warn!(%error, "the lock file is gone");
                true
            }
        }
    }
}

/// Takes the profile's place, unless another process has it and is to keep it. One that is dying
/// may hold the lock a moment longer than its socket.
pub(crate) fn take_place(paths: &Paths, foreground: bool) -> Result<Place, Problem> {
    // What is handed over are descriptors.
    crate::descriptors::raise_limit();
    let own = Party::own(foreground);
    let until = Instant::now() + DYING_LIMIT;
    let path = paths.own().join("supervisor.pid");
    make_folder(&paths.own())?;
    let mut estate = Estate::default();
    loop {
        if let Some(lock) = Lock::take(&path).map_err(|error| wrong(&path, &error))? {
            return Ok(Place::Ours(Seat { lock, estate }));
        }
        // What came from one that lives on is its own.
        estate = Estate::default();
        let met = call(paths);
        match met.as_ref().map(|(_, greeting)| meet(&own, greeting)) {
            Some(Meeting::Join | Meeting::Refuse) => return Ok(Place::Taken),
            Some(Meeting::TakeOver(pressure)) => {
                if let Some((stream, greeting)) = met {
                    ask(stream, &greeting, pressure, &mut estate)?;
                }
                let lock = match estate.lock.take() {
                    Some(lock) => Ok(Some(Lock::of(&path, lock.into()))),
                    None => Lock::take_from_the_dead(&path),
                };
                if let Some(lock) = lock.map_err(|error| wrong(&path, &error))? {
                    return Ok(Place::Ours(Seat { lock, estate }));
                }
                if Instant::now() >= until {
                    return Ok(Place::Taken);
                }
            }
            None if Instant::now() >= until => return Ok(Place::Taken),
            None => {}
        }
        std::thread::sleep(DYING_LOOK);
    }
}

/// The supervisor that runs, and what it says first.
fn call(paths: &Paths) -> Option<(UnixStream, Greeting)> {
    let endpoint = paths.endpoint();
    let stream = endpoint.sockets().find_map(|path| UnixStream::connect(path).ok())?;
    if handover::peer(&stream).ok()? != nix::unistd::getuid().as_raw() {
        return None;
    }
    stream.set_read_timeout(Some(handover::PATIENCE)).ok()?;
    let greeting = handover::read(&stream).ok()?;
    Some((stream, greeting))
}

/// Asks for the place; `estate` has what came, without the lock if it was broken off in the middle.
fn ask(
    stream: UnixStream,
    greeting: &Greeting,
    pressure: Pressure,
    estate: &mut Estate,
) -> Result<(), Problem> {
    let call = handover::Call { handover: 1, must: pressure == Pressure::Must };
    match handover::ask(stream, call, estate) {
        Ok(()) | Err(NotGiven::Broken) => Ok(()),
        Err(NotGiven::Refused(why)) => Err(stays(greeting, &why)),
        Err(NotGiven::Short) => {
            let why = "it holds more files than this process may open";
            Err(stays(greeting, why).fix("ulimit -n 65536, and the same command again"))
        }
    }
}

fn stays(greeting: &Greeting, why: &str) -> Problem {
    let Greeting { pid, program, .. } = greeting;
    Problem::new(
        Class::Internal,
        format!("the supervisor that runs (pid {pid}, version {program}) stays: {why}"),
    )
    .fix(format!("the same command later, or kill {pid}, which ends its streams"))
}

/// Tells the predecessor, if there is one, that it may go. If it took its place back instead it
/// is alive and holds the lock; else it is dead, and the lock is to be had.
pub(super) fn confirm(estate: &Estate, lock: Lock) -> Result<Lock, Problem> {
    let Err(error) = estate.serving() else { return Ok(lock) };
    let path = lock.path.clone();
    drop(lock);
    let lock = Lock::take_from_the_dead(&path).map_err(|error| wrong(&path, &error))?;
    lock.ok_or_else(|| {
        Problem::new(Class::Internal, format!("the supervisor that runs took over again: {error}"))
            .fix("the same command again")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rs/supervisor.pid");
        make_folder(&folder.path().join("rs")).unwrap();
        (folder, path)
    }

    #[test]
    fn a_lock_that_was_handed_over_is_held_until_both_let_go() {
        let (_folder, path) = place();
        let old = Lock::take(&path).unwrap().unwrap();
        let new = Lock::of(&path, old.descriptor().unwrap().into());
        drop(old);
        assert!(Lock::take(&path).unwrap().is_none());
        let noted = fs::read_to_string(&path).unwrap();
        assert_eq!(noted, format!("{}\n", std::process::id()), "written from the beginning");
        drop(new);
        assert!(Lock::take(&path).unwrap().is_some());
    }

    #[test]
    fn a_lock_whose_file_is_gone_is_taken_anew_unless_another_has_it() {
        let (folder, path) = place();
        let mut lock = Lock::take(&path).unwrap().unwrap();
        assert!(lock.mend());
        fs::remove_dir_all(folder.path().join("rs")).unwrap();
        assert!(lock.mend());
        assert!(Lock::take(&path).unwrap().is_none(), "it is ours again");
        fs::remove_file(&path).unwrap();
        let _other = Lock::take(&path).unwrap().unwrap();
        assert!(!lock.mend(), "of two that believe to be the one, this one ends");
    }

    #[test]
    fn a_lock_whose_file_cannot_tell_our_process_is_held_all_the_same() {
        let (_folder, path) = place();
        fs::write(&path, "of before").unwrap();
        // What cannot be written for whatever reason, as on a full disk.
        let file = File::open(&path).unwrap();
        file.try_lock().unwrap();
        let lock = Lock::of(&path, file);
        assert_eq!(fs::read_to_string(&path).unwrap(), "of before");
        lock.note();
        assert!(Lock::take(&path).unwrap().is_none());
    }

    #[test]
    fn an_estate_without_a_predecessor_needs_no_word() {
        let (_folder, path) = place();
        let lock = Lock::take(&path).unwrap().unwrap();
        confirm(&Estate::default(), lock).unwrap();
    }

    #[test]
    fn a_newcomer_whose_predecessor_died_before_the_word_has_the_place() {
        let (_folder, path) = place();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let old = Lock::take(&path).unwrap().unwrap();
        let handed = |old: &Lock| Lock::of(&path, old.descriptor().unwrap().into());
        let estate = Estate { predecessor: Some(ours), ..Estate::default() };
        drop(theirs);
        // It took its place back: it lives, and holds the lock.
        assert_eq!(confirm(&estate, handed(&old)).unwrap_err().class, Class::Internal);
        let lock = handed(&old);
        drop(old);
        confirm(&estate, lock).unwrap();
    }
}
