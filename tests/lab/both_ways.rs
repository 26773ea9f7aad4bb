//! Faults under everything that a tunnel carries: forwards from here, from over there, and a gateway
//! of this machine that is published over there.

use std::time::Duration;

use serde_json::Value;

use crate::{
    ground::{FAR_V4, FAR_V6, Ground, Loss},
    support::{
        OurGateway, Peer, answers, echo, echo_at, echoes, free_port, openclaw, present, user,
        wait_until, way_in,
    },
};

/// Far above what the benches hold the program to: busy machines are no fault. A server notices a
/// dead session after four seconds here, and keeps its listeners until then.
const LIMIT: Duration = Duration::from_secs(60);

type Fault = (&'static str, fn(&mut Ground), fn(&Ground));

/// What breaks, and what mends it.
const FAULTS: [Fault; 6] = [
    ("killed sessions", |it| assert!(it.scene.sshd.kill_sessions() > 0), |_| {}),
    ("a restart", |it| it.far.inside(|| it.scene.sshd.restart()), |_| {}),
    ("a black hole", |it| it.lose(Loss::Both), Ground::pass),
    ("a switched-off interface", |it| it.unplug(), Ground::plug),
    ("a lost route", |it| it.unroute(), Ground::route),
    ("another address", |it| it.move_to(80), |_| {}),
];

#[test]
fn forwards_both_ways_and_a_published_gateway_outlive_what_the_tunnel_does() {
    if !present(&[Peer::OpenSsh, Peer::Namespaces]) {
        return;
    }
    let [v4, v6] = [FAR_V4, FAR_V6].map(|address| format!("ListenAddress {address}"));
    let lines = ["ClientAliveInterval 2", "ClientAliveCountMax 2", &v4, &v6];
    let mut ground = Ground::with(&lines);
    let target = format!("{}@{FAR_V4}", user());
    let (there, here) = (free_port(), ground.laptop.inside(echo));
    ground.far.inside(|| echo_at(there));
    let (near, wanted) = (free_port(), free_port());
    let specs = [format!("{near}:127.0.0.1:{there}"), format!("{wanted}:127.0.0.1:{here}")];
    let run = ground.scene.dialling().args(["--name", "vps", "-L", &specs[0], "-R", &specs[1]]);
    ground.run(run.arg(&target)).exits(0);
    let gateway = free_port();
    let config = format!("{{ gateway: {{ port: {gateway} }} }}");
    ground.scene.laptop.write("home/.openclaw/openclaw.json", &config);
    let _gateway = ground.laptop.inside(|| OurGateway::start_at(&ground.scene.laptop, gateway));
    let sshd = &ground.scene.sshd;
    let way = way_in(sshd.port(), &sshd.key(), &sshd.known_hosts());
    let run = openclaw(&ground.scene.laptop).args(["remote", "expose", "--batch"]).args(way);
    let exposed = ground.run(run.args(["--json", "--name", "home", &target])).exits(0).json();
    let published = u16::try_from(exposed["remotePort"].as_u64().expect("a port")).expect("a port");

    let of = |ground: &Ground, name: &str| -> Value {
        ground.laptop(&["remote", "status", name, "--json"]).json()[0].clone()
    };
    let all_is_well = |ground: &Ground| {
        ground.laptop.inside(|| echoes(near))
            && ground.far.inside(|| echoes(wanted) && answers(published, "/healthz"))
    };
    assert!(all_is_well(&ground), "{:#}\n{:#}", of(&ground, "vps"), of(&ground, "home"));
    for (name, fault, remedy) in FAULTS {
        fault(&mut ground);
        if name == "a black hole" {
            ground.status_when("the outage is noticed", LIMIT, |it| it["phase"] != "live");
        }
        // Whoever comes in between is held, not refused.
        let caller = ground.laptop.spawn(move || echoes(near));
        remedy(&ground);
        assert!(caller.join().expect("the caller"), "{name}: who came meanwhile was not served");
        wait_until(name, LIMIT, || all_is_well(&ground).then_some(()));
        for remote in ["vps", "home"] {
            let status = wait_until(name, LIMIT, || {
                Some(of(&ground, remote)).filter(|it| it["phase"] == "live")
            });
            let forwards = status["forwards"].as_array().expect("forwards");
            let healthy = forwards.iter().all(|forward| forward["failure"].is_null());
            assert!(healthy, "after {name}: {status:#}");
        }
        assert_eq!(of(&ground, "home")["remotePort"], published, "the port stays after {name}");
    }
}
