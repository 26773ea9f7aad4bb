//! What the product promises in numbers, each beside the program that people use today.
//!
//! `cargo bench` measures everything, one program after the other; `cargo bench -- NAME…` some of it.
//! Each runs in a process of its own, so that none sees what another left behind.

#[path = "load/mod.rs"]
mod load;
#[path = "../tests/lab/preload.rs"]
mod preload;
#[path = "side_by_side/mod.rs"]
mod side_by_side;
#[path = "../tests/support/mod.rs"]
mod support;

mod connect;
mod echo_beside_flood;
mod frozen_link;
mod gateway_load;
mod gateway_start;
mod health;
mod many_tunnels;
mod reconnects;
mod recovery;
mod teardown;
mod ten_minutes;
mod throughput;
mod wake;

use std::{
    env,
    process::{Command, ExitCode},
};

/// Tells a process which one to measure itself.
const ONE: &str = "OPENCLAW_BENCH";
type Measurement = fn() -> ExitCode;
/// The measurements.
const ALL: &[(&str, Measurement)] = &[
    ("connect", connect::run),
    ("echo_beside_flood", echo_beside_flood::run),
    ("frozen_link", frozen_link::run),
    ("gateway_load", gateway_load::run),
    ("gateway_start", gateway_start::run),
    ("health", health::run),
    ("many_tunnels", many_tunnels::run),
    ("reconnects", reconnects::run),
    ("recovery", recovery::run),
    ("teardown", teardown::run),
    ("ten_minutes", ten_minutes::run),
    ("throughput", throughput::run),
    ("wake", wake::run),
];

fn main() -> ExitCode {
    if let Ok(name) = env::var(ONE)
        && let Some((_, run)) = ALL.iter().find(|(known, _)| *known == name)
    {
        return run();
    }
    // Cargo adds words of its own, such as `--bench`.
    let wanted: Vec<String> = env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let known: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(&name.as_str())) {
        side_by_side::say(&format!("no measurement `{unknown}`; there are: {}", known.join(", ")));
        return ExitCode::from(2);
    }
    let chosen =
        known.into_iter().filter(|name| wanted.is_empty() || wanted.iter().any(|it| it == name));
    let failed: Vec<&str> = chosen.filter(|name| !measures(name)).collect();
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    side_by_side::say(&format!("not held: {}", failed.join(", ")));
    ExitCode::FAILURE
}

/// Runs one of them; whether its goals were held.
fn measures(name: &str) -> bool {
    let exe = env::current_exe().expect("this program");
    // As cargo says it: nothing stands between a measurement and what is measured.
    let mut again = Command::new(exe);
    again.arg("--bench").env(ONE, name);
    again.status().expect("starting this program again").success()
}
