//! The metrics on request: what is measured, as OpenMetrics text, and the small server that hands it out.

mod exposition;
mod server;

pub(super) use exposition::{Carried, Reading, exposition};
pub(super) use server::Exporter;
