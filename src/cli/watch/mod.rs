//! `openclaw remote status --watch`: the remotes as they are, and as they change.
//!
//! ```text
//! supervisor ──Watch──> feed ──┬── lines: text or JSON at each change
//!                              └── model ──> screen (cells) ──> terminal
//! ```

mod card;
mod feed;
mod lines;
mod model;
mod run;
mod screen;
mod terminal;
mod text;

pub(super) use run::run;
