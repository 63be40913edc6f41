//! Landlock: the container's ruleset, enforced on this process; and for an exec one of its own on top.

use std::os::fd::{AsFd, OwnedFd};

use hardened_sandbox::landlock_plan::ExecRestriction;

use crate::failure::Mechanism;
use crate::{Failure, ruleset, sys};

/// First ABI that logs denials, and can be asked to do so after the first `execve`.
const LOGGING_ABI: u32 = 7;

/// `LANDLOCK_RESTRICT_SELF_LOG_NEW_EXEC_ON`, include/uapi/linux/landlock.h: without it no denial after
/// the first `execve` is ever logged.
const LOG_NEW_EXEC_ON: u32 = 1 << 1;

/// A descriptor is enough: its rules are the files that were granted when the ruleset was made, whatever
/// the container calls them by now.
pub(crate) fn restrict(abi: u32, ruleset: OwnedFd, exec: Option<&ExecRestriction>) -> Result<(), Failure> {
    let narrower = exec.map(|exec| ruleset::build_for_exec(exec, abi)).transpose()?;
    enforce(abi, &ruleset, "the container's ruleset")?;
    match narrower {
        Some(ruleset) => enforce(abi, &ruleset, "the exec's ruleset"),
        None => Ok(()),
    }
}

/// There is no read-back, and no need for one: landlock_restrict_self(2) has no partial success. It
/// takes a ruleset as a whole, and whatever could not be a part of it has failed when it was made.
fn enforce(abi: u32, ruleset: &OwnedFd, what: &str) -> Result<(), Failure> {
    let flags = if abi >= LOGGING_ABI { LOG_NEW_EXEC_ON } else { 0 };
    sys::landlock_restrict_self(ruleset.as_fd(), flags)
        .map_err(|e| Failure::new(Mechanism::Landlock, format!("enforce {what}"), e))
}
