//! Faults of the way between laptop and far machine.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use crate::{
    dice::Dice,
    ground::{FAR_V4, FAR_V6, Ground, Loss},
    mounts::{mount, of_our_own},
    support::{Peer, Sshd, dial, openclaw, present},
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
    assert!(lost["lastOutage"]["cause"].as_str().is_some_and(|it| !it.is_empty()), "{lost:#}");
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

/// What a return that nobody signals may take while somebody waits; held to where the laboratory has
/// the machine to itself.
const FOUND: Duration = Duration::from_secs(5);

#[test]
fn the_unsignalled_end_of_each_black_hole_of_a_row_is_found() {
    if !ready() {
        return;
    }
    let mut dice = Dice::cast("long black holes");
    let ground = Ground::connected();
    let callers = ground.callers();
    let mut found = Vec::new();
    for _ in 0..tier::of(2, 12) {
        ground.lose(Loss::Both);
        ground.status_when("the outage is noticed", LIMIT, |it| it["phase"] != "live");
        // The callers may all hang in streams that had been opened; this one waits, up to 30 s.
        let port = ground.scene.local_port;
        let mut waits = ground.laptop.inside(|| dial(port, LIMIT)).expect("the port");
        waits.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").expect("asking");
        ground.status_when("somebody waits", LIMIT, |it| it["held"] != 0);
        let dead = Duration::from_millis(4000 + dice.below(tier::of(4000, 20_000)));
        thread::sleep(dead);
        ground.pass();
        let served = callers.succeed_after(Instant::now(), LIMIT);
        eprintln!("served {served:?} after {dead:?} of nothing");
        found.push(served);
        ground.status_when("live again", LIMIT, |it| it["phase"] == "live");
    }
    callers.end();
    // The quick tier runs beside others.
    let late = found.iter().filter(|served| **served > FOUND).count();
    assert!(late == 0 || !tier::is_long(), "{late} of {found:?}");
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
    let unplugged = (Ground::unplug as fn(&Ground), Ground::plug as fn(&Ground));
    for (fault, remedy) in [unplugged, (Ground::unroute, Ground::route)] {
        let ground = Ground::connected();
        let callers = ground.callers();
        fault(&ground);
        let lost = ground.status_when("the outage is noticed", LIMIT, |it| it["phase"] != "live");
        // While callers wait, so that every reason to dial is there.
        thread::sleep(tier::seconds(4, 60));
        let later = ground.status();
        assert_eq!(lost["attempts"], later["attempts"], "{later:#}");
        remedy(&ground);
        callers.succeed_after(Instant::now(), LIMIT);
        callers.end();
    }
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

/// A name with addresses of both families, one of which leads nowhere.
#[test]
fn a_name_whose_first_address_is_a_black_hole_costs_a_moment_and_not_the_path() {
    if !ready() {
        return;
    }
    of_our_own(|| {
        let ground = Ground::new();
        let sshd = &ground.scene.sshd;
        sshd.know(&sshd.known_hosts_line_at("far.example", sshd.port()));
        let hosts = format!("127.0.0.1 localhost\n{FAR_V6} far.example\n{FAR_V4} far.example\n");
        let hosts = ground.scene.laptop.write("hosts", &hosts);
        mount(&["--bind", &hosts.display().to_string(), "/etc/hosts"]);
        let drop_v6 = "table inet lab { chain loss { type filter hook forward priority 0; \
                       meta nfproto ipv6 drop; }; }";
        ground.router.nft(drop_v6);
        ground.connect("far.example").exits(0);
        let callers = ground.callers();
        let before = Instant::now();
        assert!(sshd.kill_sessions() > 0);
        let after = Instant::now();
        eprintln!("served {:?} after the kill", callers.succeed_after(after, LIMIT));
        callers.end().all_served_but_those_in_flight_at(&[(before, after)]);
    });
}

/// The router is the jump host; without it nothing leads on, since it forwards no packets.
#[test]
fn the_way_behind_a_jump_host_breaks_and_the_jump_host_itself() {
    if !ready() {
        return;
    }
    let ground = Ground::new();
    ground.router.set("ipv4/ip_forward", "0");
    let jump = ground.router.inside(|| Sshd::start(&["ListenAddress 10.1.0.1"]));
    jump.know(&jump.known_hosts_line_at("10.1.0.1", jump.port()));
    let config = jump.block("jump").replace("127.0.0.1", "10.1.0.1")
        + &ground.scene.sshd.block("far").replace("127.0.0.1", FAR_V4);
    let config = ground.scene.laptop.write("ssh_config", &config);
    let run = ground.scene.dialling_by_file(&config);
    let port = ground.scene.local_port.to_string();
    ground.run(run.args(["--name", "vps", "--local-port", &port, "-J", "jump", "far"])).exits(0);
    let callers = ground.callers();
    let mut breaks = Vec::new();
    let mut broken = |fault: &dyn Fn(), remedy: &dyn Fn()| {
        let before = Instant::now();
        fault();
        breaks.push((before, Instant::now()));
        remedy();
        eprintln!("served {:?} after the remedy", callers.succeed_after(Instant::now(), LIMIT));
    };
    let deaf = "table inet lab { chain loss { type filter hook input priority 0; \
                iifname wan0 drop; }; }";
    let until_noticed = || {
        ground.status_when("the outage is noticed", LIMIT, |it| it["phase"] != "live");
        ground.pass();
    };
    broken(&|| ground.router.nft(deaf), &until_noticed);
    broken(&|| assert!(ground.scene.sshd.kill_sessions() > 0), &|| ());
    broken(&|| assert!(jump.kill_sessions() > 0), &|| ());
    callers.end().all_served_but_those_in_flight_at(&breaks);
    let status = ground.run(openclaw(&ground.scene.laptop).args(["remote", "status", "--json"]));
    let via = status.json()[0]["via"][0].as_str().unwrap_or_default().to_owned();
    assert!(via.contains("10.1.0.1") || via.contains("jump"), "{via}");
}
