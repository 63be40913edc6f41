//! What the node's kernel offers, as facts that a decision is made from.

use std::collections::BTreeMap;

/// Least Landlock ABI that containers are started under: 2 (Linux 5.19), the first that lets a
/// program move files between directories. Every later one is used where the kernel has it.
pub const LEAST_LANDLOCK_ABI: u32 = 2;

/// Facts about the kernel and about this process. Gathered once, by the shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Landlock's ABI; 0 where it is not built in or switched off.
    pub landlock_abi: u32,
    /// Whether the kernel runs seccomp filters (`CONFIG_SECCOMP_FILTER`).
    pub seccomp: bool,
    /// Whether `vm.memfd_noexec` exists (Linux 6.3).
    pub memfd_noexec: bool,
    /// Whether AppArmor is enabled.
    pub apparmor: bool,
    /// Whether SELinux is enabled.
    pub selinux: bool,
    /// Whether this process may raise limits and lower OOM scores (CAP_SYS_RESOURCE).
    pub may_raise_limits: bool,
    /// OOM score of this process (-1000 to 1000): the least that can be set without
    /// `may_raise_limits`.
    pub oom_score_adj: i32,
    /// Hard limits of this process by OCI name (`RLIMIT_NOFILE`): the most that can be set
    /// without `may_raise_limits`.
    pub hard_limits: BTreeMap<String, u64>,
    /// How many processors have a thermal throttle counter to mask.
    pub processors: u32,
}
