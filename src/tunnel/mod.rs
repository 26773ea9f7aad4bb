//! What a tunnel does: phases, failures, replacement, decided without I/O and without a clock.
//!
//! ```text
//!            dial            up              proved
//!   Waiting ------> Dialing -----> Proving ---------> Serving <--> suspect
//!      ^               |              |                  |             |
//!      +--- ended -----+--------------+------------------+   replacement beside it
//! ```

mod attempt;
mod claim;
mod event;
mod failure;
mod machine;

pub(crate) use attempt::{Number, Proof, ProofKind};
pub(crate) use claim::{Claim, ClaimAction, ClaimEvent, Refusal};
pub(crate) use event::{Action, Event, News, Options, Phase, Probe, Wish};
pub(crate) use failure::{Cause, Failure, PLACE_TAKEN};
pub(crate) use machine::{PUNISHED, SILENCE, Tunnel};
