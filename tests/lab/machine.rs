//! A small Debian of its own, booted with a real systemd in namespaces of its own.
//!
//! `ann` types there, and reaches the gateway of `far` through the SSH server of the same machine.
//! Its root is made once, below `target/lab` or where `OPENCLAW_LAB_DEBIAN` says; what a test writes
//! lies in memory and is gone with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use nix::{sys::signal::Signal, unistd::Pid};

use crate::{
    net::Net,
    support::{Program, built, descendants, guarded, run_to_end, signal, wait_until},
    wiretap::Wiretap,
};

const LIMIT: Duration = Duration::from_secs(60);
/// How long the root may take to be made: a mirror far away, a busy machine.
const MAKING_LIMIT: Duration = Duration::from_secs(900);

/// A booted machine; ends with its value. All that gateways say in it is held against the published
/// schema.
pub(crate) struct Machine {
    program: Program,
    init: Pid,
    group: String,
    wiretap: Option<Wiretap>,
}

/// What a command inside printed.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl Machine {
    /// Boots one, with `ann`, `far` and the gateway in it.
    pub(crate) fn boot() -> Self {
        // cgroups know no owner among tests: each machine gets a group of its own.
        let group = format!("openclaw-lab-{}", uuid());
        let mut command = guarded("sh");
        command.arg("-c").arg(JOIN).arg("boot").arg(&group).arg(script("boot.sh"));
        command.arg(root()).arg(built());
        let program = Program::start("a machine", command);
        let init = wait_until("systemd starts", LIMIT, || {
            descendants(program.pid()).into_iter().find(is_init)
        });
        let wiretap = Wiretap::on(&Net::of(init));
        let machine = Self { program, init, group, wiretap };
        // Degraded is fine: what Debian starts beside us is not the point.
        wait_until("the machine is up", LIMIT, || {
            let state = machine.root("systemctl is-system-running");
            ["running", "degraded"].contains(&state.text.trim()).then_some(())
        });
        let setup = fs::read_to_string(script("setup.sh")).expect("the script");
        machine.root(&setup).succeeds();
        machine
    }

    /// How many frames of gateways were held against the schema; `None` where nobody listens in.
    pub(crate) fn held(&self) -> Option<usize> {
        self.wiretap.as_ref().map(Wiretap::held)
    }

    /// Runs a script as root.
    pub(crate) fn root(&self, script: &str) -> Said {
        let mut command = Command::new("nsenter");
        command.args([
            "-t",
            &self.init.to_string(),
            "-m",
            "-p",
            "-u",
            "-i",
            "-n",
            "-C",
            "-r",
            "-w",
        ]);
        command.args(["sh", "-c", script]).env_clear();
        command.env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", "/root");
        let output = run_to_end(command, LIMIT);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            text: text(&output.stdout) + &text(&output.stderr),
        }
    }

    /// Runs a script in a login of `ann`, which ends with it.
    pub(crate) fn ann(&self, script: &str) -> Said {
        let quoted = script.replace('\'', r"'\''");
        self.root(&format!("ssh -n -i /root/key -o BatchMode=yes ann@127.0.0.1 '{quoted}'"))
    }

    /// Has `ann` connect to `far` as `vps`, and leaves no supervisor.
    pub(crate) fn connect(&self) {
        let connect = "openclaw remote connect --batch --token-file token --name vps far@127.0.0.1";
        self.ann(connect).succeeds();
    }

    /// Waits until a property of a unit is as wanted.
    #[track_caller]
    pub(crate) fn unit(&self, unit: &str, property: &str, wanted: &str) {
        let show = format!("systemctl show -p {property} --value {unit}");
        let mut last = String::new();
        let start = std::time::Instant::now();
        while start.elapsed() < LIMIT {
            self.root(&show).text.trim().clone_into(&mut last);
            if last == wanted {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let journal = self.root(&format!("journalctl -q --no-pager -n 40 -u {unit}")).text;
        panic!("{property} of {unit} is `{last}`, not `{wanted}`\n{journal}");
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The first process of the machine dies, and all of it.
        signal(self.init, Signal::SIGKILL);
        wait_until("the machine ends", LIMIT, || self.program.has_ended().then_some(()));
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", LEAVE, "leave", &self.group]);
        drop(command.stdin(Stdio::null()).output());
    }
}

impl Said {
    /// Fails unless it succeeded.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        self.exits(0)
    }

    /// Fails unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}", self.text);
        self
    }

    /// Fails unless it printed `text`.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(self.text.contains(text), "no `{text}` in:\n{}", self.text);
        self
    }
}

/// Joins a new group of cgroups version 2, wherever that hierarchy is, and boots in it.
const JOIN: &str = "\
set -eu
exec unshare --mount sh -c '
    set -eu
    mount --make-rprivate /
    mount -t cgroup2 cgroup2 /mnt
    mkdir \"/mnt/$1\"
    echo 0 >\"/mnt/$1/cgroup.procs\"
    umount /mnt
    shift
    exec unshare --pid --mount --uts --ipc --net --cgroup --fork --kill-child sh \"$@\"
' join \"$@\"";

/// Removes that group with all that systemd made in it.
const LEAVE: &str = "\
mount --make-rprivate /
mount -t cgroup2 cgroup2 /mnt
tries=0
while test -d \"/mnt/$1\" && test $tries -lt 50; do
    find \"/mnt/$1\" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
    tries=$((tries + 1))
done";

/// Whether a process is the first one of a machine, and has become systemd.
fn is_init(pid: &Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let is_first = field("NSpid:").is_some_and(|ids| ids.split_whitespace().last() == Some("1"));
    is_first && field("Name:") == Some("systemd")
}

/// The root of the Debian, made if it is not there.
fn root() -> &'static Path {
    static ROOT: OnceLock<PathBuf> = OnceLock::new();
    ROOT.get_or_init(|| {
        let named = std::env::var_os("OPENCLAW_LAB_DEBIAN").filter(|folder| !folder.is_empty());
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = package.join(named.unwrap_or_else(|| "target/lab/debian".into()));
        fs::create_dir_all(root.parent().expect("below a folder")).expect("making the folder");
        let lock = fs::File::create(root.with_extension("lock")).expect("a lock file");
        lock.lock().expect("the lock");
        if !root.exists() {
            let mut command = Command::new(script("debian"));
            command.arg(&root);
            let output = run_to_end(command, MAKING_LIMIT);
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success(), "debootstrap: {said}");
        }
        root
    })
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab").join(name)
}

/// A name that no other test has.
fn uuid() -> String {
    let folder = tempfile::tempdir().expect("making a folder");
    let name = folder.path().file_name().expect("a name").to_string_lossy().into_owned();
    format!("{}{}", std::process::id(), name.replace('.', "-"))
}
