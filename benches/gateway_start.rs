//! How long a gateway takes until it is ready, what it keeps in memory when idle, and how large the
//! program is.

use std::{process::ExitCode, thread, time::Duration};

use crate::side_by_side::{Goal, Samples, Table, rounds};
use crate::support::{
    Home, OurGateway, Peer, Program, ReferenceGateway, built, descendants, present,
    reference_version, resident_bytes,
};

/// How long a gateway has nothing to do before its memory is read.
const IDLE: Duration = Duration::from_secs(5);

/// Measures, and says whether every goal was held.
pub(crate) fn run() -> ExitCode {
    if !present(&[Peer::OpenClaw]) {
        return ExitCode::SUCCESS;
    }
    let mut ready = [Samples::default(), Samples::default()];
    let mut memory = [Samples::default(), Samples::default()];
    let [ours, theirs] = &mut ready;
    let [our_memory, their_memory] = &mut memory;
    for _ in 0..rounds(3) {
        for _ in 0..5 {
            let home = Home::new();
            let gateway = OurGateway::start(&home);
            ours.add_time(gateway.ready_after);
            thread::sleep(IDLE / 5);
            our_memory.add(resident_mebibytes(gateway.program()));
        }
        let gateway = ReferenceGateway::start();
        theirs.add_time(gateway.ready_after);
        thread::sleep(IDLE);
        their_memory.add(resident_mebibytes(gateway.program()));
    }
    let size = std::fs::metadata(built()).expect("the program").len();
    #[expect(clippy::cast_precision_loss, reason = "megabytes with two digits")]
    let size = Samples::of([size as f64 / 1e6]);
    let name = "OpenClaw";
    Table::new("gateway_start", &[(name, reference_version())])
        .compare("ready", "ms", ours, (name, theirs))
        .goal(Goal::MedianAtMost(100.0))
        .compare("memory when idle", "MiB", our_memory, (name, their_memory))
        .goal(Goal::EachAtMost(30.0))
        .alone("the whole program, one file", "MB", &size)
        .goal(Goal::EachAtMost(20.0))
        .print()
}

/// The memory of a program and its children.
fn resident_mebibytes(program: &Program) -> f64 {
    let children = descendants(program.pid());
    let all = std::iter::once(program.pid()).chain(children);
    #[expect(clippy::cast_precision_loss, reason = "mebibytes with two digits")]
    let bytes = all.filter_map(resident_bytes).sum::<u64>() as f64;
    bytes / (1024.0 * 1024.0)
}
