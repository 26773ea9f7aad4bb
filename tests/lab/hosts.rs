//! Faults of the far machine: servers that restart, reboot, go silent, or refuse.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::{
    ground::{FAR_V4, FAR_V6, Ground, Loss},
    support::{
        OurGateway, Peer, echo, echo_at, echoes, echoes_over, free_port, listens, openclaw,
        present, signal, user, wait_until,
    },
    tier,
};

/// Far above what the benches hold the program to: busy machines are no fault.
const LIMIT: Duration = Duration::from_secs(25);

fn ready() -> bool {
    present(&[Peer::OpenSsh, Peer::Namespaces])
}

/// How often sshd has been connected to, by its log, since it was started.
fn connections(ground: &Ground) -> usize {
    ground.scene.sshd.log().matches("Connection from").count()
}

#[test]
fn killed_sessions_and_restarts_refuse_nobody() {
    if !ready() {
        return;
    }
    let mut ground = Ground::connected();
    let callers = ground.callers();
    let mut breaks = Vec::new();
    for round in 0..tier::of(6, 100) {
        let before = Instant::now();
        if round % 3 == 2 {
            ground.far.inside(|| ground.scene.sshd.restart());
        } else {
            assert!(ground.scene.sshd.kill_sessions() > 0, "{}", ground.scene.sshd.log());
        }
        let after = Instant::now();
        breaks.push((before, after));
        callers.succeed_after(after, LIMIT);
    }
    let account = callers.end();
    account.all_served_but_those_in_flight_at(&breaks);
    eprintln!("{account}");
}

/// Loses its power: whoever it talked to hears nothing, then refusals, then it is back.
#[test]
fn a_host_that_reboots_is_found_again() {
    if !ready() {
        return;
    }
    let away = tier::seconds(8, 60);
    let mut ground = Ground::connected();
    let callers = ground.callers();
    let before = Instant::now();
    ground.lose(Loss::Both);
    ground.scene.sshd.stop();
    signal(ground.scene.gateway.program().pid(), Signal::SIGKILL);
    let after = Instant::now();
    thread::sleep(away / 2);
    ground.pass();
    thread::sleep(away / 2);
    let scene = &mut ground.scene;
    let port = scene.gateway.port();
    ground.far.inside(|| {
        wait_until("the old gateway is gone", LIMIT, || (!listens(port)).then_some(()));
        scene.sshd.restart();
        scene.gateway = OurGateway::start_at(&scene.far, port);
    });
    let back = Instant::now();
    let served = callers.succeed_after(back, LIMIT);
    let account = callers.end();
    let breaks = [(before, after)];
    if away < Duration::from_secs(20) {
        account.all_served_but_those_in_flight_at(&breaks);
    } else {
        account.all_served_or_held_to_the_end(&breaks);
    }
    eprintln!("{account}; served {served:?} after it was back; {}", ground.status()["lastOutage"]);
}

#[test]
fn a_server_that_refuses_the_key_is_asked_once() {
    if !ready() {
        return;
    }
    let ground = Ground::connected();
    let allowed = ground.scene.sshd.key().with_file_name("authorized_keys");
    let keys = fs::read_to_string(&allowed).expect("authorized_keys");
    fs::write(&allowed, "").expect("authorized_keys");
    let before = connections(&ground);
    assert!(ground.scene.sshd.kill_sessions() > 0);
    let status = ground.status_when("it is blocked", LIMIT, |it| it["phase"] == "blocked");
    assert_eq!(status["failure"]["class"], "ssh_auth", "{status:#}");
    assert!(status["failure"]["fix"].is_string(), "{status:#}");
    let refused = Instant::now();
    while refused.elapsed() < tier::seconds(12, 600) {
        // Whoever asks meanwhile is told at once, and nobody is dialled for it.
        let told = ground.run(openclaw(&ground.scene.laptop).args(["health"]));
        assert_eq!(told.code, 4, "{told}");
        thread::sleep(tier::seconds(3, 20));
    }
    assert_eq!(connections(&ground) - before, 1, "{}", ground.scene.sshd.log());
    fs::write(&allowed, keys).expect("authorized_keys");
    ground.connect(FAR_V4).exits(0);
    ground.laptop(&["health"]);
}

/// Long only: it takes ten minutes to see what happens in ten minutes.
#[test]
fn a_host_that_is_away_for_long_is_dialled_seldom_while_nobody_waits() {
    if !ready() || !tier::is_long() {
        return;
    }
    let ground = Ground::connected_and_noted();
    ground.lose(Loss::Both);
    ground.status_when("the outage is noticed", LIMIT, |it| it["phase"] != "live");
    let before = ground.dials();
    thread::sleep(Duration::from_secs(600));
    let dials = ground.dials() - before;
    assert!((1..=40).contains(&dials), "{dials} dials\n{:#}", ground.status());
    ground.pass();
    ground.laptop(&["health"]);
}

#[test]
fn the_companion_of_the_gateway_has_the_same_number_here_and_carries_bytes() {
    if !ready() {
        return;
    }
    let ground = Ground::new();
    let companion = ground.scene.gateway.port() + 1;
    ground.far.inside(|| echo_at(companion));
    let run = ground.scene.dialling().args(["--json", "--companions"]);
    ground.run(run.arg(format!("{}@{FAR_V4}", user()))).exits(0);
    assert!(ground.laptop.inside(|| echoes(companion)));
}

/// OpenSSH grants `-R 0.0.0.0:…` either way, and says nothing of where it listens.
#[test]
fn a_server_that_keeps_to_itself_what_was_to_be_open_is_found_out() {
    if !ready() {
        return;
    }
    let [v4, v6] = [FAR_V4, FAR_V6].map(|address| format!("ListenAddress {address}"));
    for (gateway_ports, is_open) in [("no", false), ("clientspecified", true)] {
        let ground = Ground::with(&[&format!("GatewayPorts {gateway_ports}"), &v4, &v6]);
        let service = ground.laptop.inside(echo);
        let binds = ["0.0.0.0", "*", FAR_V4].map(|bind| (bind, free_port()));
        let mut run = ground.scene.dialling().args(["--json", "--name", "vps"]);
        for (bind, port) in binds {
            run = run.args(["-R", &format!("{bind}:{port}:127.0.0.1:{service}")]);
        }
        let status = ground.run(run.arg(format!("{}@{FAR_V4}", user()))).exits(0).json();
        for ((bind, port), forward) in binds.iter().zip(0..) {
            let far = format!("{FAR_V4}:{port}").parse().expect("an address");
            assert_eq!(ground.laptop.inside(|| echoes_over(far)), is_open, "{bind}");
            let forward = &status["forwards"][forward];
            let reach = if is_open { "others" } else { "itself" };
            assert_eq!((&forward["phase"], &forward["reach"]), (&"live".into(), &reach.into()));
            let why = forward["failure"].to_string();
            assert_eq!(why.contains("GatewayPorts no"), !is_open, "{forward:#}");
        }
    }
}

#[test]
fn a_server_that_opens_a_private_listener_to_all_lets_nobody_in_from_elsewhere() {
    if !ready() {
        return;
    }
    let [v4, v6] = [FAR_V4, FAR_V6].map(|address| format!("ListenAddress {address}"));
    let ground = Ground::with(&["GatewayPorts yes", &v4, &v6]);
    let (service, wanted) = (ground.laptop.inside(echo), free_port());
    let run = ground.scene.dialling().args(["--json", "--name", "vps", "-R"]);
    let run = run.arg(format!("{wanted}:127.0.0.1:{service}"));
    ground.run(run.arg(format!("{}@{FAR_V4}", user()))).exits(0);
    assert!(ground.far.inside(|| echoes(wanted)), "who is over there is served");
    let far = format!("{FAR_V4}:{wanted}").parse().expect("an address");
    assert!(!ground.laptop.inside(|| echoes_over(far)), "somebody elsewhere was let in");
    let status = ground.status_when("the reason is said", LIMIT, |status| {
        status["forwards"][0]["failure"].to_string().contains("GatewayPorts")
    });
    assert_eq!(status["phase"], "live", "{status:#}");
    assert!(ground.far.inside(|| echoes(wanted)), "who is over there is still served");
}
