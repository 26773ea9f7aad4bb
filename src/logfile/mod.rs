//! Log files by day: bounded, for their owner alone, without secrets, and never waited for.

mod day;
mod form;
mod level;
mod line;
mod panic;
mod queue;
mod redact;

/// The beginning of the names of the gateway's log files.
pub(crate) const GATEWAY: &str = "gateway-";

pub(crate) use day::{DayFile, newest};
pub(crate) use level::Level;
pub(crate) use line::JsonLines;
pub(crate) use queue::{Handle, PlainLines, Writer, open, open_console, open_plain};
