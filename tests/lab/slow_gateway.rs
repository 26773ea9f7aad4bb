//! A gateway that takes its time while the SSH server answers.

use std::{
    fs,
    io::{Read, Write},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    sleep::Clocks,
    support::{Peer, dial, present, signal},
};

/// Far above the ten seconds that a gateway may take: busy machines are no fault.
const LIMIT: Duration = Duration::from_secs(60);

impl Clocks {
    /// So much time has passed since the start, for the supervisor. It is asked every three minutes how
    /// the gateway is, and looks itself every two at how late it is.
    fn pass(&self, seconds: i64) {
        // In one step: a file that is half written would put them back.
        let written = self.file.with_extension("passed");
        fs::write(&written, format!("0 0 {seconds}")).expect("moving the clocks");
        fs::rename(&written, &self.file).expect("moving the clocks");
        // A reason to look, as any news of the kernel is.
        self.ground.laptop.ip("route add 10.99.0.0/24 via 10.1.0.1");
        self.ground.laptop.ip("route delete 10.99.0.0/24");
    }
}

#[test]
fn a_gateway_that_stands_still_is_called_slow_and_keeps_its_session() {
    if !present(&[Peer::OpenSsh, Peer::Namespaces]) {
        return;
    }
    let clocks = Clocks::new();
    let ground = &clocks.ground;
    let gateway = ground.scene.gateway.program().pid();
    assert!(signal(gateway, Signal::SIGSTOP));
    // In steps: a look at the clocks that is too late counts as a sleep.
    for seconds in [50, 100, 150, 200] {
        clocks.pass(seconds);
        ground.status_when("seen", LIMIT, |it| it["streams"] == 0);
    }
    let slow = ground.status_when("slow", LIMIT, |it| it["phase"] == "gateway_slow");
    assert!(slow["failure"].is_null() && slow["lastOutage"].is_null(), "{slow:#}");
    // Whoever comes is let through, and waits for the gateway's answer.
    let mut asking = ground.laptop.inside(|| dial(ground.scene.local_port, LIMIT)).expect("a port");
    asking
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .expect("asking");
    let busy = ground.status_when("it has a stream", LIMIT, |it| it["streams"] != 0);
    assert_eq!((&busy["phase"], &busy["held"]), (&"gateway_slow".into(), &0.into()), "{busy:#}");
    assert!(signal(gateway, Signal::SIGCONT));
    let mut answer = String::new();
    asking.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let live = ground.status_when("live", LIMIT, |it| it["phase"] == "live");
    assert_eq!((&live["attempts"], &live["reconnects"]), (&0.into(), &0.into()), "{live:#}");
    let log = ground.scene.sshd.log();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
    let told = ground.laptop(&["remote", "logs", "vps"]).stdout;
    for line in ["the gateway takes its time; SSH answers", "the gateway answers in time again"] {
        assert_eq!(told.matches(line).count(), 1, "{told}");
    }
}
