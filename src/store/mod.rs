//! What lasts: the one database, its migrations, and what the gateway keeps in it.
//!
//! Its interface names what is stored, a family a file, and no caller sees SQL. Nothing else opens
//! the database, in this process or another.

mod answers;
mod approvals;
mod database;
mod devices;
mod host_rules;
mod news;
mod node_work;
mod nodes;
mod owner;
mod steps;
mod wake_words;

pub(crate) use answers::{KeptAnswer, LONGEST_ANSWER, Repeatable, Repeated};
pub(crate) use approvals::KeptApproval;
#[cfg(test)]
pub(crate) use devices::FormerToken;
pub(crate) use devices::{
    About, Asked, Device, Devices, Filed, Grant, JoinOffer, Minted, Request, SetupCode,
};
pub(crate) use news::KeptNews;
pub(crate) use node_work::Left;
pub(crate) use nodes::Kept;
pub(crate) use owner::{Error, Store};
