//! How many answers a gateway gives, how late, how fast it lets clients in, and what they cost it.

use std::{process::ExitCode, time::Duration};

use serde_json::Value;

use crate::load;
use crate::side_by_side::{Goal, Samples, Table, rounds};
use crate::support::{
    Home, OurGateway, Peer, Program, ReferenceGateway, built, descendants, free_port, guarded,
    present, reference_version, resident_bytes, run_script,
};

/// How long one load lasts.
const SPAN: Duration = Duration::from_secs(2);
/// Clients of the storm, which stay idle afterwards.
const CROWD: usize = 1_000;

/// One side's samples.
#[derive(Default)]
struct Side {
    login: Samples,
    one: Samples,
    many: Samples,
    late: Samples,
    storm: Samples,
    crowd: Samples,
    client_login: Samples,
    client_one: Samples,
}

impl Side {
    /// Takes a sample of everything from the gateway at `port`.
    fn measure(&mut self, (port, token): (u16, &str), program: &Program) {
        let runtime = load::runtime();
        runtime.block_on(async {
            load::logins(port, token, 20).await;
            for time in load::logins(port, token, 100).await {
                self.login.add_time(time);
            }
            load::health((port, token), 1, 100, SPAN / 4).await;
            self.one.add(load::health((port, token), 1, 100, SPAN).await.rate);
            let many = load::health((port, token), 50, 32, SPAN).await;
            self.many.add(many.rate);
            self.late.add(Samples::of(many.latencies).at(0.99));
        });
        let account = run_script("../../benches/load/reference.mjs", port, token);
        let account: Value = serde_json::from_slice(&account.stdout)
            .unwrap_or_else(|error| panic!("the reference client: {error}: {account:?}"));
        let logins = account.get("logins").and_then(Value::as_array);
        let logins = logins.expect("the times of its logins");
        self.client_login.extend(&Samples::of(logins.iter().filter_map(Value::as_f64)));
        let rate = account.get("rate").and_then(Value::as_f64);
        self.client_one.add(rate.expect("its rate"));
        let (wires, settled) = runtime.block_on(load::storm(port, token, CROWD));
        self.storm.add_time(settled);
        self.crowd.add(resident_mebibytes(program));
        drop(wires);
    }
}

/// Measures, and says whether every goal was held.
pub(crate) fn run() -> ExitCode {
    if !present(&[Peer::OpenClaw]) {
        return ExitCode::SUCCESS;
    }
    let (mut ours, mut theirs) = (Side::default(), Side::default());
    let mut one_core = Samples::default();
    for _ in 0..rounds(3) {
        let home = Home::new();
        let gateway = OurGateway::start(&home);
        ours.measure((gateway.port(), &gateway.token()), gateway.program());
        drop(gateway);
        let mut command = guarded("taskset");
        command.args(["-c", "0"]).arg(built());
        let gateway = OurGateway::start_by(&home, free_port(), command);
        let runtime = load::runtime();
        let token = gateway.token();
        let storm = load::storm(gateway.port(), &token, CROWD);
        let (wires, settled) = runtime.block_on(storm);
        one_core.add_time(settled);
        drop((wires, gateway));
        let gateway = ReferenceGateway::start();
        theirs.measure((gateway.port(), ReferenceGateway::TOKEN), gateway.program());
    }
    let name = "OpenClaw";
    let mut table = Table::new("gateway_load", &[(name, reference_version())]);
    table
        .compare("dial to hello-ok", "ms", &ours.login, (name, &theirs.login))
        .goal(Goal::MedianAtMost(2.0))
        .compare("health, 1 connection, 100 in flight", "/s", &ours.one, (name, &theirs.one))
        .goal(Goal::RatioAtLeast(20.0))
        .compare("health, 50 connections × 32 in flight", "/s", &ours.many, (name, &theirs.many))
        .compare("its 99th percentile", "ms", &ours.late, (name, &theirs.late))
        .goal(Goal::MedianAtMost(5.0))
        .compare(
            "reference client, to hello-ok",
            "ms",
            &ours.client_login,
            (name, &theirs.client_login),
        )
        .compare("its health, 100 in flight", "/s", &ours.client_one, (name, &theirs.client_one))
        .compare("1,000 clients at once are all in", "ms", &ours.storm, (name, &theirs.storm))
        .alone("the same with the gateway on one core", "ms", &one_core)
        .goal(Goal::EachAtMost(5_000.0))
        .compare("memory with 1,000 idle clients", "MiB", &ours.crowd, (name, &theirs.crowd))
        .goal(Goal::EachAtMost(60.0));
    table.print()
}

/// The memory of a program and its children.
fn resident_mebibytes(program: &Program) -> f64 {
    let children = descendants(program.pid());
    let all = std::iter::once(program.pid()).chain(children);
    #[expect(clippy::cast_precision_loss, reason = "mebibytes with two digits")]
    let bytes = all.filter_map(resident_bytes).sum::<u64>() as f64;
    bytes / (1024.0 * 1024.0)
}
