//! Stories of the built program: what a person types, on real servers, and what comes of it.

#[path = "../support/mod.rs"]
mod support;

mod stage;
