//! What the node's kernel offers, as facts that a decision is made from.

use std::collections::{BTreeMap, BTreeSet};

/// Least Landlock ABI that containers are started under: 2 (Linux 5.19), the first that lets a
/// program move files between directories. Every later one is used where the kernel has it.
pub const LEAST_LANDLOCK_ABI: u32 = 2;

/// Landlock ABI that has rules for TCP ports (Linux 6.7).
pub(crate) const PORTS_LANDLOCK_ABI: u32 = 4;

/// Facts about the kernel and about this process. Gathered once, by the shim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelSupport {
    /// Landlock's ABI; 0 where it is not built in or switched off.
    pub landlock_abi: u32,
    /// Whether the kernel runs seccomp filters (`CONFIG_SECCOMP_FILTER`).
    pub seccomp: bool,
    /// Whether `vm.memfd_noexec` exists (Linux 6.3).
    pub memfd_noexec: bool,
    /// Whether user namespaces can be made (`user.max_user_namespaces`).
    pub user_namespaces: bool,
    /// AppArmor.
    pub apparmor: AppArmor,
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
    /// Numbers of the processors that have a thermal throttle counter to mask.
    pub processors: BTreeSet<u32>,
}

impl KernelSupport {
    /// A node with everything that a current kernel offers, and this process's rights: what
    /// somebody decides for who is not on the node.
    #[must_use]
    pub const fn assumed() -> Self {
        Self {
            landlock_abi: 7,
            seccomp: true,
            memfd_noexec: true,
            user_namespaces: true,
            apparmor: AppArmor::Assumed,
            selinux: true,
            may_raise_limits: true,
            oom_score_adj: 0,
            hard_limits: BTreeMap::new(),
            processors: BTreeSet::new(),
        }
    }
}

/// AppArmor on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppArmor {
    /// The kernel does not run it.
    Off,
    /// The names of the profiles that are loaded.
    On(BTreeSet<String>),
    /// It runs, with every profile loaded.
    Assumed,
}
