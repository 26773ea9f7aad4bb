//! Talks to a gateway: which one, with which secret, and calls.

mod address;
mod cover;
mod credential;
mod device;
mod proof;
mod reach;
mod refusal;
mod session;
mod target;
mod tls;
mod tunnelled;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) use address::Address;
pub(crate) use cover::{Covered, cover, covered, shown, uncovered, unpinned};
pub(crate) use credential::{Credential, Source, Sources, choose as choose_credential};
pub(crate) use device::OwnDevice;
pub(crate) use proof::{NotAnswered, challenge, healthz};
pub(crate) use reach::{Plan, Reached};
pub(crate) use refusal::wants_secret;
pub(crate) use session::{EVERYTHING, Gateway, Login, READ};
pub(crate) use target::{Asked, Place, Rule, Surroundings, Target, own_port};
#[cfg(test)]
pub(crate) use tls::tests::far as far_with_tls;
pub(crate) use tls::{NoTls, own_certificate};

/// This machine, in the order of dialling.
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
