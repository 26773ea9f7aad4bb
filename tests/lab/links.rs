//! Faults of the way between laptop and far machine.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    ground::{FAR_V4, FAR_V6, Ground, Loss},
    support::{Peer, present},
    tier,
};

/// Far above what the benches hold the program to: busy machines are no fault.
const LIMIT: Duration = Duration::from_secs(20);

fn ready() -> bool {
    present(&[Peer::OpenSsh, Peer::Namespaces])
}

/// Breaks the way by `fault` for a while, mends it by `remedy`, and counts what callers saw.
fn outage(fault: impl FnOnce(&Ground), remedy: impl FnOnce(&Ground)) {
    let ground = Ground::connected();
    let callers = ground.callers();
    let before = Instant::now();
    fault(&ground);
    let after = Instant::now();
    let lost = ground.status_when("the outage is noticed", LIMIT, |it| it["phase"] != "live");
    let detected = lost["lastOutage"]["detectedMs"].as_u64();
    assert!(detected.is_some_and(|it| it < 10_000), "{lost:#}");
    assert!(lost["held"].as_u64().is_some_and(|held| held <= 4), "{lost:#}");
    remedy(&ground);
    let mended = Instant::now();
    let served = callers.succeed_after(mended, LIMIT);
    let account = callers.end();
    account.all_served_but_those_in_flight_at(&[(before, after)]);
    let status = ground.status_when("live again", LIMIT, |it| it["phase"] == "live");
    let outage = &status["lastOutage"];
    assert!(outage["restoredMs"].is_number(), "{status:#}");
    eprintln!("{account}; served {served:?} after the remedy; {outage}");
}

#[test]
fn a_black_hole_is_noticed_and_its_unsignalled_end_found() {
    if ready() {
        outage(|it| it.lose(Loss::Both), Ground::pass);
    }
}

#[test]
fn a_way_that_loses_only_what_the_laptop_sends() {
    if ready() {
        outage(|it| it.lose(Loss::Out), Ground::pass);
    }
}

#[test]
fn a_way_that_loses_only_what_the_laptop_should_get() {
    if ready() {
        outage(|it| it.lose(Loss::In), Ground::pass);
    }
}

#[test]
fn an_interface_that_goes_and_comes_back() {
    if ready() {
        outage(Ground::unplug, Ground::plug);
    }
}

#[test]
fn a_route_that_goes_and_comes_back() {
    if ready() {
        outage(Ground::unroute, Ground::route);
    }
}

#[test]
fn another_address_while_callers_call() {
    if !ready() {
        return;
    }
    let ground = Ground::connected();
    let callers = ground.callers();
    let mut moves = Vec::new();
    for host in 70..73 {
        let before = Instant::now();
        ground.move_to(host);
        let after = Instant::now();
        moves.push((before, after));
        let served = callers.succeed_after(after, LIMIT);
        eprintln!("served {served:?} after the move");
    }
    callers.end().all_served_but_those_in_flight_at(&moves);
    let status = ground.status_when("live again", LIMIT, |it| it["phase"] == "live");
    assert!(status["lastOutage"]["restoredMs"].is_number(), "{status:#}");
}

#[test]
fn nobody_is_dialled_without_a_network_and_no_attempt_counts() {
    if !ready() {
        return;
    }
    let ground = Ground::connected();
    let callers = ground.callers();
    ground.unplug();
    let lost = ground.status_when("the outage is noticed", LIMIT, |it| it["phase"] != "live");
    // While callers wait, so that every reason to dial is there.
    thread::sleep(tier::seconds(4, 60));
    let later = ground.status();
    assert_eq!(lost["attempts"], later["attempts"], "{later:#}");
    ground.plug();
    let plugged = Instant::now();
    callers.succeed_after(plugged, LIMIT);
    callers.end();
}

#[test]
fn a_far_machine_with_addresses_of_one_family() {
    if !ready() {
        return;
    }
    for (address, other) in [(FAR_V4, FAR_V6), (FAR_V6, FAR_V4)] {
        let ground = Ground::listening(&[address]);
        let refused = ground.connect(other);
        assert_eq!(refused.code, 3, "{refused}");
        ground.connect(address).exits(0);
        ground.laptop(&["health"]);
        let callers = ground.callers();
        let before = Instant::now();
        assert!(ground.scene.sshd.kill_sessions() > 0);
        let after = Instant::now();
        callers.succeed_after(after, LIMIT);
        callers.end().all_served_but_those_in_flight_at(&[(before, after)]);
    }
}
