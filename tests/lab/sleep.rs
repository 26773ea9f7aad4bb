//! The machine sleeps, is stopped, or has its clock set.

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{
    ground::{FAR_V4, Ground, Loss},
    preload::library,
    support::{Peer, openclaw, present, signal, user, wait_until},
    tier,
};

/// Far above what the benches hold the program to: busy machines are no fault.
const LIMIT: Duration = Duration::from_secs(20);
/// A night.
const NIGHT: i64 = 8 * 3600 + 41 * 60;

fn ready() -> bool {
    present(&[Peer::OpenSsh, Peer::Namespaces])
}

/// A ground whose supervisor sees clocks that the test moves.
pub(crate) struct Clocks {
    pub(crate) ground: Ground,
    pub(crate) file: PathBuf,
}

impl Clocks {
    pub(crate) fn new() -> Self {
        let ground = Ground::new();
        let library = library(&ground.scene.laptop, "clock.c");
        let file = ground.scene.laptop.write("clocks", "0 0");
        let target = format!("{}@{FAR_V4}", user());
        let run = ground.scene.dialling().args(["--name", "vps", &target]);
        ground.run(run.env("LD_PRELOAD", &library).env("LAB_CLOCK", &file)).exits(0);
        Self { ground, file }
    }

    /// The clocks run on by so many seconds, and the kernel has something to say, as after a night.
    fn run_on(&self, boot: i64, wall: i64) {
        // In one step: a file that is half written would put them back.
        let written = self.file.with_extension("new");
        fs::write(&written, format!("{boot} {wall}")).expect("moving the clocks");
        fs::rename(&written, &self.file).expect("moving the clocks");
        // Neither an address nor a default route: only a reason to look.
        self.ground.laptop.ip("route add 10.99.0.0/24 via 10.1.0.1");
        self.ground.laptop.ip("route delete 10.99.0.0/24");
    }

    /// Waits for a line of the supervisor's log.
    #[track_caller]
    fn logs(&self, text: &str) {
        self.logs_times(1, text);
    }

    /// Waits for so many of them.
    #[track_caller]
    fn logs_times(&self, times: usize, text: &str) {
        let logs = || self.ground.scene.laptop.logs();
        wait_until(text, LIMIT, || (logs().matches(text).count() >= times).then_some(()));
    }
}

#[test]
fn a_night_asleep_is_noticed_and_a_dead_session_replaced() {
    if !ready() {
        return;
    }
    let clocks = Clocks::new();
    let ground = &clocks.ground;
    // The far side has given the session up long ago, and says nothing.
    ground.lose(Loss::In);
    ground.scene.sshd.kill_sessions();
    let woke = Instant::now();
    clocks.run_on(NIGHT, NIGHT);
    clocks.logs(&format!("woke seconds={NIGHT}"));
    ground.pass();
    let callers = ground.callers();
    eprintln!("served {:?} after the wake", callers.succeed_after(woke, LIMIT));
    callers.end().all_served_but_those_in_flight_at(&[]);
    let status = ground.status_when("live again", LIMIT, |it| it["phase"] == "live");
    eprintln!("{}", status["lastOutage"]);
    // So a person reads it, whether asking for all of it or for a moment of that night.
    let told = ground.laptop(&["remote", "logs", "vps"]).stdout;
    let story = ["slept 8 h 41 min, until ", "redialled", "live again after "];
    let order: Vec<_> = story.iter().map(|part| told.find(part)).collect();
    assert!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?} in:\n{told}");
    let entries = ground.laptop(&["remote", "logs", "vps", "--json"]).json();
    let entries = entries.as_array().expect("an array").clone();
    let of = |event: &str| entries.iter().rfind(|entry| entry["event"] == event);
    let woke = of("slept").and_then(|entry| entry["at"].as_str()).expect("a sleep");
    let verdict = ground.laptop(&["remote", "logs", "vps", "--at", woke]).stdout;
    assert!(verdict.contains("slept 8 h 41 min"), "{verdict}");
}

#[test]
fn a_session_that_outlived_the_night_is_kept() {
    if !ready() {
        return;
    }
    let clocks = Clocks::new();
    let ground = &clocks.ground;
    let mut nights = 0;
    kept_at_one_of_three(ground, || {
        nights += 1;
        let slept = NIGHT * i64::try_from(nights).expect("a few");
        clocks.run_on(slept, slept);
        clocks.logs_times(nights, &format!("woke seconds={NIGHT}"));
        ground.status_when("live again", LIMIT, |it| it["phase"] == "live");
        let callers = ground.callers();
        callers.end().all_served_but_those_in_flight_at(&[]);
    });
}

/// Whether `pause` leaves a session that works as it was. A machine so busy that no answer comes in
/// time makes a new one, and rightly; not three times.
fn kept_at_one_of_three(ground: &Ground, mut pause: impl FnMut()) {
    let logins = || ground.scene.sshd.log().matches("Accepted publickey").count();
    let kept = (0..3).any(|_| {
        let before = logins();
        pause();
        logins() == before
    });
    assert!(kept, "{}", ground.scene.sshd.log());
}

#[test]
fn a_wall_clock_that_jumps_back_is_no_fault() {
    if !ready() {
        return;
    }
    let clocks = Clocks::new();
    let ground = &clocks.ground;
    let callers = ground.callers();
    for wall in [-24 * 3600, -3600 * 24 * 365 * 20, 0] {
        clocks.run_on(0, wall);
        callers.succeed_after(Instant::now(), LIMIT);
        let status = ground.status_when("live", LIMIT, |it| it["phase"] == "live");
        assert!(status["since"].is_string(), "{status:#}");
    }
    // Twenty years forward are a wake, and a wake is no reason to drop anybody.
    clocks.logs("woke seconds=");
    let before = Instant::now();
    clocks.run_on(0, -24 * 3600);
    assert!(ground.scene.sshd.kill_sessions() > 0);
    let after = Instant::now();
    callers.succeed_after(after, LIMIT);
    callers.end().all_served_but_those_in_flight_at(&[(before, after)]);
    let status = ground.status_when("live again", LIMIT, |it| it["phase"] == "live");
    assert!(status["lastOutage"]["restoredMs"].is_number(), "{status:#}");
}

#[test]
fn a_stopped_program_goes_on_where_it_was_and_mends_what_broke_meanwhile() {
    if !ready() {
        return;
    }
    let ground = Ground::connected();
    let callers = ground.callers();
    let supervisor = ground.scene.laptop.supervisor().expect("a supervisor");
    let stop = |meanwhile: &dyn Fn()| {
        assert!(signal(supervisor, Signal::SIGSTOP));
        let before = Instant::now();
        meanwhile();
        thread::sleep(tier::seconds(3, 30));
        assert!(signal(supervisor, Signal::SIGCONT));
        let after = Instant::now();
        let served = callers.succeed_after(after, LIMIT);
        eprintln!("served {served:?} after it went on");
        (before, after)
    };
    let mut breaks = Vec::new();
    kept_at_one_of_three(&ground, || breaks.push(stop(&|| ())));
    let logins = || ground.scene.sshd.log().matches("Accepted publickey").count();
    let before = logins();
    let killed = stop(&|| assert!(ground.scene.sshd.kill_sessions() > 0));
    let moved = stop(&|| ground.move_to(99));
    let account = callers.end();
    // Whoever waited meanwhile was served, unless the session had to be made anew.
    let is_kept = breaks.len() == 1;
    breaks.extend([killed, moved]);
    if tier::is_long() {
        account.all_served_or_held_to_the_end(&breaks);
    } else if is_kept {
        account.all_served_but_those_in_flight_at(&[killed, moved]);
    } else {
        account.all_served_but_those_in_flight_at(&breaks);
    }
    assert!(logins() >= before + 2, "{}", ground.scene.sshd.log());
    let status = openclaw(&ground.scene.laptop).args(["remote", "status", "--json"]);
    let status: Value = ground.run(status).exits(0).json();
    assert_eq!(status[0]["phase"], "live", "{status:#}");
}
