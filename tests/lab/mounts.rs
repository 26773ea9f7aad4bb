//! Mounts of a test's own, which the kernel removes with the last that sees them.

use std::{
    fs::{self, File},
    io::Write,
    panic::resume_unwind,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};

use crate::{
    net::system,
    support::{Home, run_to_end},
};

/// How long a command of the system may take.
const LIMIT: Duration = Duration::from_secs(20);

/// Does `work` where what is mounted is seen by nobody else.
pub(crate) fn of_our_own<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let apart = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).expect("mounts of our own");
            mount(&["--make-rprivate", "/"]);
            work()
        });
        apart.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Runs `mount` and fails unless it succeeds.
#[track_caller]
pub(crate) fn mount(arguments: &[&str]) {
    let output = run_to_end(system("mount", arguments.iter().copied()), LIMIT);
    assert!(output.status.success(), "mount {arguments:?}: {output:?}");
}

/// A disk of a few megabytes below a home; taken away, after the supervisor, when this ends.
pub(crate) struct SmallDisk<'a> {
    home: &'a Home,
    place: PathBuf,
}

impl<'a> SmallDisk<'a> {
    /// Lays one under everything that the program writes.
    pub(crate) fn under(home: &'a Home) -> Self {
        let place = home.path("home");
        mount(&["-t", "tmpfs", "-o", "size=4m", "none", &place.display().to_string()]);
        Self { home, place }
    }

    /// Fills it to the last byte.
    pub(crate) fn fill(&self) {
        let mut file = File::create(self.ballast()).expect("making the ballast");
        for size in [64 * 1024, 1024, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
    }

    /// Takes out what filled it.
    pub(crate) fn clear(&self) {
        fs::remove_file(self.ballast()).expect("removing the ballast");
    }

    /// Nothing can be written any more.
    pub(crate) fn lock(&self) {
        mount(&["-o", "remount,ro", &self.place.display().to_string()]);
    }

    /// It can be written again.
    pub(crate) fn unlock(&self) {
        mount(&["-o", "remount,rw", &self.place.display().to_string()]);
    }

    fn ballast(&self) -> PathBuf {
        self.place.join("ballast")
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        // One that does not end is the home's to complain about.
        let _ended = self.home.stop_supervisor();
        let place: &Path = &self.place;
        drop(run_to_end(system("umount", ["-l", &place.display().to_string()]), LIMIT));
    }
}
