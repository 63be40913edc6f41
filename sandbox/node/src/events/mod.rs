//! Records of denials, counted and written down: by each shim for its pod, and by the node's agent.

mod file;
mod tally;

pub use file::{EventFile, Writer, make};
pub use tally::Tally;
