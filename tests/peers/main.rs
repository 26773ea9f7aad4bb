//! The programs that nobody here wrote and that ours stand beside: the reference gateway, its CLI, its
//! client library and its node host.
#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

#[path = "../support/mod.rs"]
mod support;
#[path = "../lab/tier.rs"]
#[allow(dead_code, reason = "the laboratory uses the rest")]
mod tier;

mod approvals;
mod cli;
mod clients;
mod devices;
mod nodes;
mod oldest;
mod owner;
mod pairing;
mod replies;
mod ways;
