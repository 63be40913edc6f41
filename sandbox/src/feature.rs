//! Which kernel features the sandbox uses, and what is lost without each.
//!
//! SECURITY.md shows this table (`hardenctl doctor --features`), and a test holds it to that.

use crate::kernel::{AppArmor, KernelSupport};

/// Something of the kernel that the sandbox uses.
#[derive(Debug)]
pub struct Feature {
    /// What it is called.
    pub name: &'static str,
    /// The first Linux that has it.
    pub since: &'static str,
    /// What happens without it.
    pub fallback: &'static str,
    /// What is not enforced, or does not work, in containers that are started without it.
    pub lost: &'static str,
    /// Who can do without it.
    pub demand: Demand,
    missing: fn(&KernelSupport) -> bool,
}

/// Whether containers start without a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// None does.
    Always,
    /// They do where the policy says `landlock = "best-effort"`.
    Policy,
    /// They do, but for those that ask for it.
    Asked,
}

const NOTHING: &str = "nothing";

/// Every feature, the mandatory ones first.
pub const FEATURES: &[Feature] = &[
    Feature {
        name: "seccomp filters",
        since: "3.17",
        fallback: "containers are refused",
        lost: NOTHING,
        demand: Demand::Always,
        missing: |host| !host.seccomp,
    },
    Feature {
        name: "device program on cgroup v2",
        since: "4.15",
        fallback: "containers are refused",
        lost: NOTHING,
        demand: Demand::Always,
        // The create finds out.
        missing: |_| false,
    },
    Feature {
        name: "Landlock",
        since: "5.13",
        fallback: "containers are refused; with landlock = \"best-effort\" in the policy, those whose profile or \
                   annotations name files or exec rules that only Landlock keeps",
        lost: "device ioctls are not restricted, exec can look into init",
        demand: Demand::Policy,
        missing: |host| host.landlock_abi == 0,
    },
    Feature {
        name: "Landlock ABI 2 (moves between directories)",
        since: "5.19",
        fallback: "containers are refused, but with landlock = \"best-effort\" in the policy",
        lost: "programs cannot move files from one directory to another (EXDEV)",
        demand: Demand::Policy,
        missing: |host| lacks_landlock(host, 2),
    },
    Feature {
        name: "Landlock ABI 3 (truncate)",
        since: "6.2",
        fallback: "containers start",
        lost: "truncate(2) of a file that the profile makes read-only is not denied",
        demand: Demand::Asked,
        missing: |host| lacks_landlock(host, 3),
    },
    Feature {
        name: "Landlock ABI 4 (TCP ports)",
        since: "6.7",
        fallback: "containers whose profile or annotations name TCP ports are refused",
        lost: NOTHING,
        demand: Demand::Asked,
        missing: |host| lacks_landlock(host, 4),
    },
    Feature {
        name: "Landlock ABI 5 (device ioctls)",
        since: "6.10",
        fallback: "containers start",
        lost: "ioctls on devices of the container are not restricted",
        demand: Demand::Asked,
        missing: |host| lacks_landlock(host, 5),
    },
    Feature {
        name: "Landlock ABI 6 (abstract sockets)",
        since: "6.12",
        fallback: "containers start",
        lost: "abstract sockets are kept apart by the network namespace alone",
        demand: Demand::Asked,
        missing: |host| lacks_landlock(host, 6),
    },
    Feature {
        name: "Landlock ABI 7 (audit)",
        since: "6.15",
        fallback: "containers start",
        lost: "denials are not in the audit log",
        demand: Demand::Asked,
        missing: |host| lacks_landlock(host, 7),
    },
    Feature {
        name: "AppArmor or SELinux",
        since: "4.13",
        fallback: "containers that ask for a profile or a label are refused",
        lost: "a second layer behind the others",
        demand: Demand::Asked,
        missing: |host| host.apparmor == AppArmor::Off && !host.selinux,
    },
    Feature {
        name: "user namespaces",
        since: "3.8",
        fallback: "containers that ask for one are refused",
        lost: NOTHING,
        demand: Demand::Asked,
        missing: |host| !host.user_namespaces,
    },
    Feature {
        name: "id-mapped mounts",
        since: "5.12",
        fallback: "containers whose volumes are to have mapped owners are refused, and those whose image is (overlayfs: \
                   5.19, with layers on tmpfs: 6.3)",
        lost: NOTHING,
        demand: Demand::Asked,
        // It depends on each file system: the create finds out.
        missing: |_| false,
    },
    Feature {
        name: "vm.memfd_noexec",
        since: "6.3",
        fallback: "containers start",
        lost: "programs can be executed from a memfd",
        demand: Demand::Asked,
        missing: |host| !host.memfd_noexec,
    },
    Feature {
        name: "cgroup.kill on cgroup v2",
        since: "5.14",
        fallback: "processes are killed one by one until none is left",
        lost: NOTHING,
        demand: Demand::Asked,
        // Tried each time.
        missing: |_| false,
    },
];

/// Whether the kernel has a Landlock, and one that is older than this ABI.
fn lacks_landlock(host: &KernelSupport, abi: u32) -> bool {
    (1..abi).contains(&host.landlock_abi)
}

impl Feature {
    /// Whether containers that start without it lack something.
    #[must_use]
    pub fn costs(&self) -> bool {
        self.lost != NOTHING
    }
}

impl KernelSupport {
    /// What this kernel does not have.
    pub fn missing(&self) -> impl Iterator<Item = &'static Feature> {
        FEATURES.iter().filter(|feature| (feature.missing)(self))
    }
}
