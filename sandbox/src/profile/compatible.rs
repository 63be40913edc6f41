//! `compatible`: what containerd's default profile lets a container do that is not privileged, for moving a cluster over.
//! Against `baseline` it gives away the host's paths and namespaces, system folders, and the kernel's less used parts.

use super::baseline::allow;
use super::{ALLOW, Group, StaticRule};
use crate::capability::CapabilitySet;
use crate::pattern::Patterns;
use crate::seccomp::socket::NO_FAMILY;
use crate::seccomp::{Action, Condition};

/// containerd's default set.
pub(super) const CAPABILITIES: CapabilitySet = CapabilitySet::CONTAINERD_DEFAULT;

const ALG: Condition = Condition::int(0, libc::AF_ALG as u32);
const VSOCK: Condition = Condition::int(0, libc::AF_VSOCK as u32);

pub(super) const UNLIKE_BASELINE: &[Group] = &[
    Group {
        reason: "debuggers and profilers of the container's own processes, as far as uid, capabilities and Landlock let them",
        calls: &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
        rules: ALLOW,
    },
    Group { reason: "daemons that lock themselves in; CAP_SYS_CHROOT decides", calls: &["chroot"], rules: ALLOW },
    Group {
        reason: "reading the clock's state; setting it takes CAP_SYS_TIME",
        calls: &["adjtimex", "clock_adjtime"],
        rules: ALLOW,
    },
    Group { reason: "segment descriptors: Wine and dosemu", calls: &["modify_ldt"], rules: ALLOW },
    Group {
        reason: "every family but the two by which containers reached the hypervisor and the kernel's ciphers \
                 (CVE-2021-26708)",
        calls: &["socket"],
        rules: &[
            StaticRule { conditions: &[ALG], action: NO_FAMILY },
            StaticRule { conditions: &[VSOCK], action: NO_FAMILY },
            StaticRule { conditions: &[], action: Action::Allow },
        ],
    },
    Group {
        reason: "what uname says to old and 32-bit programs, and nothing of how a program is protected",
        calls: &["personality"],
        rules: &[
            allow(&[Condition::int(0, 0)]),
            allow(&[Condition::int(0, 0x8)]),
            allow(&[Condition::int(0, 0x2_0000)]),
            allow(&[Condition::int(0, 0x2_0008)]),
            allow(&[Condition::int(0, u32::MAX)]),
            StaticRule { conditions: &[], action: Action::EPERM },
        ],
    },
];

/// Those of the pod's own namespaces: safe or not, they do not affect the host.
pub(super) fn sysctls() -> Patterns {
    let own = ["kernel.msg*", "kernel.sem", "kernel.shm*", "fs.mqueue.*", "net.*"];
    Patterns::Any(own.map(str::to_owned).to_vec())
}
