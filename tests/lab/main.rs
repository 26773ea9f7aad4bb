//! The laboratory: the built program against faults of networks, servers, clocks and disks.
//!
//! It needs root, for networks and mounts of its own; elsewhere its tests say so and are skipped.
//! Nothing of the machine is touched, and the kernel removes what a killed test leaves. The quick
//! tier is a part of `cargo test`; the long one is `OPENCLAW_LAB=long cargo test --test lab`.
#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]
#![expect(clippy::print_stderr, reason = "people read how long an outage was")]

#[path = "../support/mod.rs"]
mod support;

mod both_ways;
mod callers;
mod chaos;
mod crashes;
mod dice;
mod disks;
mod ground;
mod hosts;
mod idle;
mod links;
mod logind;
mod logins;
mod machine;
mod mounts;
mod net;
mod preload;
mod sleep;
mod slow_gateway;
mod systemd;
mod systemd_gateway;
mod tier;
mod wiretap;
