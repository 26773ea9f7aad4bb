//! Stories of the built program: what a person types, on real servers, and what comes of it.
#![expect(clippy::indexing_slicing, reason = "a missing key of a JSON value reads as null")]

#[path = "../support/mod.rs"]
mod support;

mod adversity;
mod bad_input;
mod binds;
mod check;
mod config;
mod connect;
mod demo;
mod doctor;
mod expose;
mod forwards;
mod gateway_logs;
mod handed;
mod handover;
mod healing;
mod hops;
mod manners;
mod readers;
mod restraint;
mod service;
mod service_manager;
mod slow_gateway;
mod ssh_config;
mod stage;
mod supervisor;
mod tailscale;
mod tls;
mod unheard;
mod watching;
