//! Hostile images and pods, made from a seed, and what the runtime makes of them.
//!
//! A [`Case`] is what an attacker controls: an image's files, a pod's spec, and volumes that another
//! container of the pod changes meanwhile. [`Range`] runs it as containerd would, and holds the host
//! against what it was. To refuse a case is fine; to wait for ever, or to touch the host, is not.

mod case;
mod drive;
mod generate;
mod host;
mod node;
mod plant;
mod random;
mod swap;

pub use case::{Case, Entry, Kind, Swap, Volume};
pub use drive::{Outcome, Range, class};
pub use generate::generate;
pub use host::{Host, Sentinels};
pub use swap::{Swapper, exchange};
