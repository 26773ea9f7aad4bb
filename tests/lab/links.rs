//! Faults of the way between laptop and far machine.

use std::{
    io::Write,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    dice::Dice,
    ground::{FAR_V4, FAR_V6, Ground, Loss},
    mounts::{mount, of_our_own},
    support::{Peer, Sshd, dial, openclaw, present, user, wait_until},
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
        let ground = Ground::connected_and_noted();
        let callers = ground.callers();
        fault(&ground);
        let lost = ground.status_when("the outage is noticed", LIMIT, |it| it["phase"] != "live");
        let dials = ground.dials();
        // While callers wait, so that every reason to dial is there; without a session as well.
        assert!(ground.scene.sshd.kill_sessions() > 0);
        thread::sleep(tier::seconds(4, 60));
        let later = ground.status();
        assert_eq!((ground.dials(), &later["attempts"]), (dials, &lost["attempts"]), "{later:#}");
        remedy(&ground);
        callers.succeed_after(Instant::now(), LIMIT);
        callers.end();
        assert!(ground.dials() > dials, "what is made is noted");
    }
}

/// A service that a boot starts before there is any network.
#[test]
fn a_service_that_starts_without_a_network_dials_nobody_and_is_live_once_there_is_one() {
    if !ready() {
        return;
    }
    for target in [FAR_V4, "far.example"] {
        of_our_own(|| starts_without_a_network(target));
    }
}

fn starts_without_a_network(target: &str) {
    let ground = Ground::new();
    let sshd = &ground.scene.sshd;
    sshd.know(&sshd.known_hosts_line_at("far.example", sshd.port()));
    let hosts = format!("127.0.0.1 localhost\n{FAR_V4} far.example\n");
    let hosts = ground.scene.laptop.write("hosts", &hosts);
    mount(&["--bind", &hosts.display().to_string(), "/etc/hosts"]);
    ground.laptop.ip("address flush dev up0");
    ground.unplug();
    let refused = ground.connect(target);
    assert_eq!(refused.code, 3, "a person is told at once\n{refused}");
    assert!(refused.stdout.contains("no route to the server"), "{refused}");
    ground.scene.laptop.stop_supervisor();
    let words = ["--foreground", "-v", "--name", "vps"];
    let run = ground.scene.dialling().args(words).arg(format!("{}@{target}", user()));
    let service = ground.laptop.inside(|| run.limit(LIMIT * 6).start());
    let remotes = || Some(ground.status()).filter(|it| it["failure"]["class"] == "unreachable");
    let waiting = wait_until("it waits", LIMIT, remotes);
    // While somebody waits, so that every reason to dial is there.
    let port = ground.scene.local_port;
    let held = ground.laptop.inside(|| dial(port, LIMIT)).expect("the port");
    ground.status_when("somebody waits", LIMIT, |it| it["held"] != 0);
    thread::sleep(tier::seconds(4, 60));
    for status in [waiting, ground.status()] {
        assert_eq!(status["attempts"], 0, "{status:#}");
        assert_eq!(status["phase"], "waiting", "{status:#}");
        let why = status["failure"]["message"].as_str().unwrap_or_default();
        assert!(why.contains("no route to the server"), "{status:#}");
    }
    ground.laptop.ip("address add 10.1.0.2/24 dev up0");
    ground.plug();
    let plugged = Instant::now();
    ground.status_when("live", LIMIT, |it| it["phase"] == "live");
    eprintln!("live {:?} after there was a network", plugged.elapsed());
    drop(held);
    ground.scene.laptop.stop_supervisor();
    let said = service.end().exits(0).stderr;
    let (before, after) = said.split_once("addresses changed").expect("the network's return");
    let dials = [before, after].map(|part| part.contains("on the way"));
    assert_eq!(dials, [false, true], "{said}");
}

/// A path that a static route or a tunnel of another kind decides, beside a default route or without.
#[test]
fn a_specific_route_that_comes_moves_and_goes_is_news_at_once() {
    if !ready() {
        return;
    }
    let ground = Ground::connected_and_noted();
    ground.unroute();
    let refused = ground.connect(FAR_V4);
    assert_eq!(refused.code, 3, "{refused}");
    ground.laptop.ip("route add 10.2.0.0/24 via 10.1.0.1");
    ground.connect(FAR_V4).exits(0);
    // Another one that leads nowhere takes its place.
    ground.laptop.ip("route add 10.2.0.2/32 via 10.1.0.77");
    let moved = Instant::now();
    ground.status_when("the outage is noticed", LIMIT, |it| it["phase"] != "live");
    eprintln!("noticed {:?} after the route moved", moved.elapsed());
    ground.laptop.ip("route delete 10.2.0.2/32");
    ground.status_when("live again", LIMIT, |it| it["phase"] == "live");
    ground.laptop.ip("route delete 10.2.0.0/24");
    let gone = Instant::now();
    let lost = ground.status_when("the outage is noticed", LIMIT, |it| it["phase"] != "live");
    let dials = ground.dials();
    eprintln!("noticed {:?} after the route was gone", gone.elapsed());
    assert!(ground.scene.sshd.kill_sessions() > 0);
    thread::sleep(tier::seconds(4, 60));
    let later = ground.status();
    assert_eq!((ground.dials(), &later["attempts"]), (dials, &lost["attempts"]), "{later:#}");
    ground.laptop.ip("route add 10.2.0.0/24 via 10.1.0.1");
    let back = Instant::now();
    ground.status_when("live again", LIMIT, |it| it["phase"] == "live");
    eprintln!("live {:?} after the route was back", back.elapsed());
}

/// What a container engine does to the routes and addresses of its host all day.
#[test]
fn containers_that_come_and_go_disturb_no_path() {
    if !ready() {
        return;
    }
    let ground = Ground::connected();
    for network in 0..tier::of(5, 100) {
        ground.laptop.ip("link add br9 type bridge");
        ground.laptop.ip(&format!("address add 172.30.{network}.1/24 dev br9"));
        ground.laptop.ip("link set br9 up");
        ground.laptop.ip("link add veth9 type veth peer name inner9");
        ground.laptop.ip("link set veth9 master br9");
        ground.laptop.ip("link set inner9 up");
        ground.laptop.ip("link set veth9 up");
        ground.laptop.ip(&format!("route add 10.77.{network}.0/24 via 172.30.{network}.9"));
        ground.laptop.ip("link delete veth9");
        ground.laptop.ip("link delete br9");
    }
    // What was told before has had its effect once a change of its own way has had it.
    ground.laptop.ip("route add 10.2.0.2/32 via 10.1.0.1");
    ground.laptop.ip("route add 10.2.0.2/32 via 10.1.0.77 metric 5");
    let undisturbed = ground.status();
    assert_eq!(undisturbed["lastOutage"], Value::Null, "{undisturbed:#}");
    assert_eq!(undisturbed["phase"], "live", "{undisturbed:#}");
    ground.laptop.ip("route delete 10.2.0.2/32 via 10.1.0.1");
    let noticed = |it: &Value| it["lastOutage"] != Value::Null;
    ground.status_when("its own way is another", LIMIT, noticed);
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
