//! A system bus of a test's own with a logind that says what the test wants.

use std::{
    os::unix::net::UnixListener,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    support::{
        Home, Peer, Program, Ran, Scene, alive, guarded, present, resident_bytes, run_to_end,
        signal, switches, wait_until,
    },
    tier,
};

/// Far above what the benches hold the program to: busy machines are no fault.
const LIMIT: Duration = Duration::from_secs(20);
/// The machine's own interpreter: packages of the distribution are there.
const PYTHON: &str = "/usr/bin/python3";

const POLICY: &str = r#"<policy context="default">
<allow own="*"/><allow send_destination="*"/><allow send_type="signal"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/>
<allow receive_type="error"/><allow receive_type="signal"/>
</policy>"#;

/// Sends `PrepareForSleep` as logind does.
const SAY: &str = r#"
import dbus.bus, sys
bus = dbus.bus.BusConnection(sys.argv[1])
logind = bus.get_object("org.freedesktop.login1", "/org/freedesktop/login1")
logind.EmitSignal("org.freedesktop.login1.Manager", "PrepareForSleep", "b",
    [dbus.Boolean(sys.argv[2] == "true")], dbus_interface="org.freedesktop.DBus.Mock")
"#;

/// Sends the same to everybody on the bus by name, as anybody can.
const PRETEND: &str = r#"
import dbus.bus, dbus.lowlevel, sys
bus = dbus.bus.BusConnection(sys.argv[1])
for name in bus.list_names():
    if name.startswith(":"):
        signal = dbus.lowlevel.SignalMessage("/org/freedesktop/login1",
            "org.freedesktop.login1.Manager", "PrepareForSleep")
        signal.set_destination(name)
        signal.append(dbus.Boolean(sys.argv[2] == "true"))
        bus.send_message(signal)
bus.flush()
bus.list_names()
"#;

struct Bus {
    home: Home,
    logind: Option<Program>,
    daemon: Option<Program>,
}

impl Bus {
    /// A bus without anybody on it.
    fn new() -> Self {
        let home = Home::new();
        let listen = format!("unix:path={}", home.path("bus").display());
        let config = home.write(
            "bus.conf",
            &format!(
                "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
                 \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n\
                 <busconfig><type>system</type><listen>{listen}</listen>\
                 <auth>EXTERNAL</auth>{POLICY}</busconfig>\n"
            ),
        );
        let mut command = guarded("dbus-daemon");
        command.args(["--nofork", "--print-address", "--config-file"]).arg(config);
        let mut daemon = Program::start("dbus-daemon", command);
        assert!(daemon.prints("unix:path", LIMIT), "{}", daemon.log());
        Self { home, logind: None, daemon: Some(daemon) }
    }

    /// A bus with a logind.
    fn with_logind() -> Self {
        let mut bus = Self::new();
        let mut command = guarded(PYTHON);
        command.args(["-m", "dbusmock", "--template", "logind"]);
        command.env("DBUS_SYSTEM_BUS_ADDRESS", bus.address());
        bus.logind = Some(Program::start("logind", command));
        let there = r#"
import dbus.bus, sys
sys.exit(not dbus.bus.BusConnection(sys.argv[1]).name_has_owner("org.freedesktop.login1"))
"#;
        wait_until("logind is there", LIMIT, || bus.python(there, &[]).then_some(()));
        bus
    }

    fn address(&self) -> String {
        format!("unix:path={}", self.home.path("bus").display())
    }

    fn python(&self, script: &str, words: &[&str]) -> bool {
        let mut command = Command::new(PYTHON);
        command.args(["-c", script]).arg(self.address()).args(words);
        let output = run_to_end(command, LIMIT);
        output.status.success()
    }

    #[track_caller]
    fn says(&self, sleeps: bool) {
        assert!(self.python(SAY, &[if sleeps { "true" } else { "false" }]));
    }

    #[track_caller]
    fn somebody_pretends(&self, sleeps: bool) {
        assert!(self.python(PRETEND, &[if sleeps { "true" } else { "false" }]));
    }
}

/// A remote that is live, its supervisor on the bus at `address`.
fn connected(scene: &Scene, address: &str) -> Ran {
    let run = scene.dialling().args(["--json", "--name", "vps"]).arg(scene.sshd.target());
    run.env("DBUS_SYSTEM_BUS_ADDRESS", address).env("OPENCLAW_LOG", "openclaw=debug").run().exits(0)
}

/// Waits until the supervisor's log has `text` so many times.
#[track_caller]
fn logs(scene: &Scene, text: &str, times: usize) {
    let told = || (scene.laptop.logs().matches(text).count() >= times).then_some(());
    wait_until(text, LIMIT, told);
}

#[test]
fn what_logind_says_of_sleep_is_noticed_at_once_and_told_later() {
    if !present(&[Peer::OpenSsh, Peer::Logind]) {
        return;
    }
    let bus = Bus::with_logind();
    let scene = Scene::new();
    connected(&scene, &bus.address());
    logs(&scene, "listening to logind", 1);
    bus.says(true);
    logs(&scene, "the machine goes to sleep", 1);
    let woke = Instant::now();
    bus.says(false);
    logs(&scene, "woke, as logind says", 1);
    eprintln!("noticed {:?} after it was said, Python's start included", woke.elapsed());
    // The same wake once more is no news, and the next one is.
    bus.says(false);
    bus.says(true);
    logs(&scene, "the machine goes to sleep", 2);
    bus.says(false);
    logs(&scene, "woke, as logind says", 2);
    assert_eq!(scene.laptop.logs().matches("woke, as logind says").count(), 2);
    scene.laptop(&["health"]);
    let status = scene.laptop(&["remote", "status", "--json"]).json();
    assert_eq!(status[0]["phase"], "live", "{status:#}");
    let logins = scene.sshd.log().matches("Accepted publickey").count();
    assert_eq!(logins, 1, "a session that works is kept\n{}", scene.sshd.log());
    let cause = status[0]["lastOutage"]["cause"].as_str().expect("a cause");
    assert!(cause.contains("asleep"), "{status:#}");
    let told = scene.laptop(&["remote", "logs"]).stdout;
    assert!(told.contains("going to sleep") && told.contains("woke, or did not"), "{told}");
}

#[test]
fn a_stranger_on_the_bus_says_nothing_of_sleep() {
    if !present(&[Peer::OpenSsh, Peer::Logind]) {
        return;
    }
    let bus = Bus::with_logind();
    let scene = Scene::new();
    connected(&scene, &bus.address());
    logs(&scene, "listening to logind", 1);
    bus.somebody_pretends(false);
    // What is said after it is heard after it.
    bus.says(true);
    logs(&scene, "the machine goes to sleep", 1);
    assert!(!scene.laptop.logs().contains("woke, as logind says"), "{}", scene.laptop.logs());
}

#[test]
fn a_bus_that_dies_or_never_answers_is_done_without() {
    if !present(&[Peer::OpenSsh, Peer::Logind]) {
        return;
    }
    let mut bus = Bus::with_logind();
    let scene = Scene::new();
    connected(&scene, &bus.address());
    logs(&scene, "listening to logind", 1);
    drop(bus.logind.take());
    drop(bus.daemon.take());
    logs(&scene, "nothing is heard of logind", 1);
    scene.laptop(&["health"]);
    let supervisor = scene.laptop.supervisor().expect("a supervisor");
    assert!(signal(supervisor, Signal::SIGCONT) && alive(supervisor));
    logs(&scene, "woke after a short stop", 1);
    scene.laptop.stop_supervisor().expect("it ends");

    let silent = bus.home.path("silent");
    let _listener = UnixListener::bind(&silent).expect("binding");
    let mute = Scene::new();
    connected(&mute, &format!("unix:path={}", silent.display()));
    assert!(!mute.laptop.logs().contains("nothing is heard of logind"), "nobody waited for it");
    logs(&mute, "nothing is heard of logind", 1);
    mute.laptop(&["health"]);
}

/// Long only: what the bus costs while nothing happens, for people to read.
#[test]
fn an_idle_bus_costs_no_wake() {
    if !tier::is_long() || !present(&[Peer::OpenSsh, Peer::Logind]) {
        return;
    }
    let bus = Bus::with_logind();
    let nowhere = "unix:path=/nonexistent/bus".to_owned();
    let scenes = [bus.address(), nowhere].map(|address| {
        let scene = Scene::new();
        connected(&scene, &address);
        scene
    });
    let pids = scenes.each_ref().map(|scene| scene.laptop.supervisor().expect("a supervisor"));
    thread::sleep(Duration::from_secs(20));
    let before = pids.map(switches);
    thread::sleep(Duration::from_secs(120));
    let after = pids.map(switches);
    let memory = pids.map(|pid| resident_bytes(pid).unwrap_or_default() / 1024);
    let [with, without] = [after[0] - before[0], after[1] - before[1]];
    eprintln!("wakes in 120 s: {with} with a bus, {without} without; KiB: {memory:?}");
    assert!(with <= without + 12, "{with} with a bus, {without} without");
}
