//! Records of denials, counted and written down: by each shim for its pod, and by the node's agent.

mod file;
mod tally;

pub use file::{EventFile, Writer};
pub use tally::Tally;

use chrono::{SecondsFormat, Utc};

/// The present time, as records have it: RFC 3339 with microseconds.
#[must_use]
pub fn now() -> String {
    Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true)
}
