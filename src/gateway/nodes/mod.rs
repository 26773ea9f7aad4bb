//! Nodes: who they are, which are here, and what runs on them.

mod activity;
mod approvals;
mod book;
mod catalog;
mod deciding;
mod foreground;
mod handing;
mod invocations;
mod live;
mod news;
mod pairing;
mod policy;
mod published;
mod shell;
#[cfg(test)]
mod tests;
mod work;

pub(super) use activity::Usage;
pub(super) use approvals::{
    Ask, Asker, Found, Meant, NotAsked, NotDecided, Standing, Viewer, shown,
};
pub(super) use catalog::Paired;
pub(super) use foreground::Postponed;
pub(super) use invocations::Outcome as Ran;
pub(super) use news::Heard;
pub(crate) use policy::Rules;
pub(super) use policy::{is_admin_only, is_private};
pub(super) use shell::{Arriving, Nodes, Seat, Task, key_taken};
