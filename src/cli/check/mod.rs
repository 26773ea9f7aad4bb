//! `openclaw remote check`: what `remote connect` would do, step by step, and what came of it.
//!
//! `run` goes the way: `notes` are taken on the hops, `visit` looks behind them,
//! and `forwards` at what is wanted besides. `seen`, `steps` and
//! `login` make steps of the notes, `settings` says what the configuration has to do with them;
//! `report` holds them as scripts see them, `text` as people do.

mod forwards;
mod login;
mod notes;
mod report;
mod run;
mod seen;
mod settings;
mod steps;
mod text;
mod visit;
mod words;

pub(super) use run::{Arguments, run};
