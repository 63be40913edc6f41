//! The lock-down plan: what a process of the container applies to itself before `execve`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::capability::Capabilities;
use crate::landlock_plan::{ExecRestriction, LandlockPlan};
use crate::mask_plan::MaskPlan;
use crate::seccomp::Program;

/// Everything that the child needs, compiled by the parent. What is absent is said to be: a field
/// that is missing is no plan.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LockdownPlan {
    /// What the runtime has masked; absent for an exec, which joins init's mounts, where nothing
    /// can be unmounted.
    #[serde(deserialize_with = "Option::deserialize")]
    pub masks: Option<MaskPlan>,
    /// Exactly the sets that the process has when the payload starts.
    pub capabilities: Capabilities,
    /// AppArmor profiles to enter on `execve`, stacked; none where the node runs no AppArmor.
    pub apparmor: BTreeSet<String>,
    /// SELinux label to take on `execve`.
    pub selinux: Option<String>,
    /// Rights to files and ports: the ruleset that the launcher makes of them, once, is init's and
    /// every exec's. Absent for a privileged container alone.
    #[serde(deserialize_with = "Option::deserialize")]
    pub landlock: Option<LandlockPlan>,
    /// What an exec has less than its container; absent for init, and where that is nothing.
    #[serde(deserialize_with = "Option::deserialize")]
    pub exec: Option<ExecRestriction>,
    /// System calls.
    pub seccomp: Program,
    /// Working directory. The lock-down goes there itself: as the container's user, and with an
    /// error that names it.
    pub cwd: PathBuf,
    /// `HOME` is to be looked up for this uid in the image's `/etc/passwd`, inside the sandbox;
    /// absent where the spec brings a `HOME`.
    pub home: Option<u32>,
}
