//! What the stories and the measurements stand on: homes, servers, a path that can be frozen.
//!
//! Everything that is started here ends with the value that stands for it, and at the latest with
//! the process that started it. Every wait has a limit and fails with a message.
#![allow(dead_code, unused_imports, reason = "each program that includes this uses a part of it")]
#![allow(clippy::print_stderr, reason = "people read what was skipped, and why")]

mod agent;
mod cover;
mod ear;
mod echo;
mod forward;
mod freezer;
mod gateways;
mod home;
mod meter;
mod moment;
mod net;
mod peers;
mod processes;
mod program;
mod reference;
mod scene;
mod schema;
mod sshd;
mod tap;
mod terminal;
mod wire;

pub(crate) use agent::Agent;
pub(crate) use ear::{Ear, Judge, Talk};
pub(crate) use echo::{echo, echo_at, echo_socket, echoes, echoes_at, echoes_over};
pub(crate) use forward::{KEEPALIVE, ssh_forward, ssh_forward_by};
pub(crate) use freezer::Freezer;
pub(crate) use gateways::OurGateway;
pub(crate) use home::{Home, Ran, Run, Started, built, openclaw};
pub(crate) use meter::Meter;
pub(crate) use moment::Moment;
pub(crate) use net::{answers, dial, free_port, listens, status_of, wait_until};
pub(crate) use peers::{Peer, present, skipped};
pub(crate) use processes::{
    alive, cpu_time, descendants, peak_bytes, proportional_bytes, resident_bytes, signal, switches,
    with_variable,
};
pub(crate) use program::{Program, end_of, guarded, run_to_end};
pub(crate) use reference::{
    ReferenceCli, ReferenceGateway, ReferenceNode, reference_version, run_script,
    run_script_of_the_oldest, start_script,
};
pub(crate) use scene::{Scene, dialling, request_of, way_in};
pub(crate) use schema::Schema;
pub(crate) use sshd::{Sshd, user};
pub(crate) use tap::{Behind, Tap};
pub(crate) use terminal::Terminal;
pub(crate) use wire::{Asked, Device, Wire, connect};
