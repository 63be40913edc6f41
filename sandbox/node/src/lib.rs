//! What the shim and `hardenctl` both look up on a node. All of it is I/O, and gives values that
//! [`hardened_sandbox`] decides from.

#![forbid(unsafe_code)]

mod bounded;
pub mod events;
pub mod mountinfo;
pub mod paths;
pub mod policy_files;
mod probe;
pub mod process;

pub use bounded::read_bounded;
pub use probe::{apparmor, probe};
