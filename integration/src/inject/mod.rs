//! Fault injection: each system call of a create and of an exec fails once, or a process is killed after it.
//!
//! A shim is driven by its Task API, and followed by ptrace(2): one call of one of its launchers' processes is disturbed,
//! and the others go on as they would. What comes of it is a container that is refused, of which nothing is left, or one
//! whose sandbox is the same as ever, from inside and from outside.

mod about;
mod campaign;
mod driver;
mod follow;
mod left;
mod limits;
mod look;
mod ptrace;
mod report;
mod stand;
mod stream;

pub use campaign::{ERRNOS, Job, VICTIMS, Verdict, calls, disturbed, problem, run};
pub use follow::{Call, Deed, Phase, Role, Seen};
pub use limits::{Limit, limits};
pub use report::{line, ranges, sum, table, victim};
pub use stand::{Outcome, Stand};
