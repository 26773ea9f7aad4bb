//! The method `logs.tail`: the end of the gateway's log.

use serde::{Deserialize, Serialize};

use super::{Access, Scope, method::methods};

methods! {
    /// The newest lines of the log, or those behind a cursor.
    LogsTail = "logs.tail", Access::Holder(Scope::Read), LogsTailParams => LogsTailResult;
}

/// Parameters of `logs.tail` (`LogsTailParams`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(crate) struct LogsTailParams {
    /// Where the last answer ended, bytes.
    pub(crate) cursor: Option<u64>,
    /// At most so many lines, 1 to 5,000; 500 if it is not said.
    pub(crate) limit: Option<u64>,
    /// At most so many bytes, 1 to 1,000,000; 250,000 if it is not said.
    pub(crate) max_bytes: Option<u64>,
}

/// Reply of `logs.tail` (`LogsTailResult`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LogsTailResult {
    /// The file; the one of today where there is none.
    pub(crate) file: String,
    /// Where the next call goes on, bytes.
    pub(crate) cursor: u64,
    /// The file's length, bytes.
    pub(crate) size: u64,
    /// Whole lines, oldest first.
    pub(crate) lines: Vec<String>,
    /// Whether lines before these were left out.
    pub(crate) truncated: bool,
    /// Whether the cursor could not be followed.
    pub(crate) reset: bool,
    /// How much behind the cursor was left out, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) skipped_bytes: Option<u64>,
}
