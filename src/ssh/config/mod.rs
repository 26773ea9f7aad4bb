//! ssh_config(5): what a person's configuration says of a host, as `ssh` understands it.
//!
//! Reading order: `table` and `keywords` (what there is), `lexer` and `values` (a line), `pattern`,
//! `criteria` and `tokens` (conditions), `reader`, `blocks` and `keep` (files), `canonical` (names), `resolve`, `fill` and
//! `review` (what comes of it), `settings` and `dump` (how it is told), `world` and `machine` (where
//! it comes from).

mod address;
mod blocks;
mod canonical;
mod criteria;
mod dump;
mod fill;
mod forward;
mod jump;
mod keep;
mod keywords;
mod lexer;
mod machine;
mod numbers;
mod pattern;
mod reader;
mod resolve;
mod review;
mod settings;
mod table;
mod tokens;
mod usual;
mod values;
mod world;

pub(crate) use forward::{End, Forward};
pub(crate) use keywords::Direction;
pub(in crate::ssh) use lexer::words;
pub(crate) use machine::Machine;
pub(crate) use resolve::{Request, resolve};
pub(crate) use settings::{Mistake, Origin, Settings};
pub(crate) use world::World;
#[cfg(test)]
pub(crate) use world::{Found, Source};

#[cfg(test)]
mod tests;
