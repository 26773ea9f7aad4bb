//! A network of a test's own, which the kernel removes with the last that holds it.

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    panic::resume_unwind,
    process::Command,
    thread::{self, JoinHandle},
    time::Duration,
};

use nix::{
    sched::{CloneFlags, setns, unshare},
    unistd::Pid,
};

use crate::support::run_to_end;

/// A network namespace without a name; it ends with this value and the processes in it.
pub(crate) struct Net(File);

impl Net {
    /// One with nothing but loopback.
    pub(crate) fn new() -> Self {
        let made = thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a network of our own");
            File::open("/proc/thread-self/ns/net").expect("opening it")
        });
        let net = Self(made.join().expect("the thread that makes a network"));
        net.ip("link set lo up");
        net
    }

    /// That of a process.
    pub(crate) fn of(pid: Pid) -> Self {
        Self(File::open(format!("/proc/{pid}/ns/net")).expect("the network of a process"))
    }

    /// Another handle of the same network.
    pub(crate) fn share(&self) -> Self {
        Self(self.0.try_clone().expect("another handle of a network"))
    }

    /// Does `work` in this network; what it starts stays in there.
    pub(crate) fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let entered = scope.spawn(|| {
                enter(&self.0);
                work()
            });
            entered.join().unwrap_or_else(|panic| resume_unwind(panic))
        })
    }

    /// Begins `work` in this network on a thread of its own.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let own = self.share();
        thread::spawn(move || {
            enter(&own.0);
            work()
        })
    }

    /// Runs `ip` with arguments that are parted by blanks, and fails unless it succeeds.
    #[track_caller]
    pub(crate) fn ip(&self, arguments: &str) {
        self.run("ip", arguments.split(' '));
    }

    /// Runs one command of `nft`.
    #[track_caller]
    pub(crate) fn nft(&self, command: &str) {
        self.run("nft", [command]);
    }

    /// Runs one command of `nft` that may fail, since what it removes may not be there.
    pub(crate) fn try_nft(&self, command: &str) {
        self.inside(|| drop(run_to_end(system("nft", [command]), LIMIT)));
    }

    /// Sets a switch below `/proc/sys/net`.
    pub(crate) fn set(&self, switch: &str, value: &str) {
        let path = format!("/proc/sys/net/{switch}");
        let set = self.inside(|| fs::write(&path, value));
        assert!(set.is_ok(), "{path}: {set:?}");
    }

    /// Joins this network and another by a pair of interfaces.
    pub(crate) fn join(&self, name: &str, other: &Self, other_name: &str) {
        // `ip` takes any path for a network, and ours are files that this process holds open.
        let place = format!("/proc/{}/fd/{}", std::process::id(), other.0.as_raw_fd());
        self.ip(&format!("link add {name} type veth peer name {other_name} netns {place}"));
        self.ip(&format!("link set {name} up"));
        other.ip(&format!("link set {other_name} up"));
    }

    #[track_caller]
    fn run<'a>(&self, program: &str, arguments: impl IntoIterator<Item = &'a str>) {
        let command = system(program, arguments);
        let name = format!("{command:?}");
        let output = self.inside(|| run_to_end(command, LIMIT));
        assert!(output.status.success(), "{name}: {output:?}");
    }
}

/// How long a command of the system may take.
const LIMIT: Duration = Duration::from_secs(20);

fn enter(net: &File) {
    setns(net, CloneFlags::CLONE_NEWNET).expect("entering a network");
}

/// A program that may be where only the system's own users look.
pub(crate) fn system<'a>(program: &str, arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/sbin:/sbin")).args(arguments);
    command
}
