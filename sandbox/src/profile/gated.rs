//! What a capability is of no use without: a grant in a policy is one line, not three.
//!
//! Of SYS_ADMIN nothing is here. Most of what it gates is another's (BPF, PERFMON, SYSLOG); the rest, mounts above all,
//! Landlock withholds from every sandbox.

use crate::capability::CapabilitySet;
use crate::seccomp::Condition;

/// System calls that the kernel or a profile denies without a capability: capabilities(7).
const CALLS: &[(&str, &[&str])] = &[
    ("BPF", &["bpf"]),
    ("CHOWN", &["chown", "fchown", "fchownat", "lchown"]),
    ("DAC_READ_SEARCH", &["name_to_handle_at", "open_by_handle_at"]),
    ("IPC_LOCK", &["mlock", "mlock2", "mlockall", "munlock", "munlockall"]),
    ("MKNOD", &["mknod", "mknodat"]),
    ("PERFMON", &["perf_event_open"]),
    ("SETGID", &["setfsgid", "setgid", "setgroups", "setregid", "setresgid"]),
    ("SETPCAP", &["capset"]),
    ("SETUID", &["setfsuid", "setresuid", "setreuid", "setuid"]),
    ("SYSLOG", &["syslog"]),
    ("SYS_BOOT", &["reboot"]),
    ("SYS_CHROOT", &["chroot"]),
    ("SYS_MODULE", &["delete_module", "finit_module", "init_module"]),
    (
        "SYS_NICE",
        &[
            "get_mempolicy",
            "ioprio_set",
            "mbind",
            "migrate_pages",
            "move_pages",
            "sched_setattr",
            "sched_setparam",
            "sched_setscheduler",
            "set_mempolicy",
            "set_mempolicy_home_node",
            "setpriority",
        ],
    ),
    ("SYS_PACCT", &["acct"]),
    ("SYS_PTRACE", &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"]),
    ("SYS_RAWIO", &["ioperm", "iopl"]),
    ("SYS_TIME", &["adjtimex", "clock_adjtime", "clock_settime", "settimeofday"]),
    ("SYS_TTY_CONFIG", &["vhangup"]),
];

/// With the capability, raw IP sockets can be opened; link-layer sockets are a separate family.
pub(crate) const PACKET_SOCKETS: Condition = Condition::int(0, libc::AF_PACKET as u32);

/// The calls that come with these capabilities.
pub(crate) fn calls(granted: CapabilitySet) -> impl Iterator<Item = &'static str> {
    let granted = move |name: &str| CapabilitySet::of(&[name]).is_subset(granted);
    CALLS.iter().filter(move |(name, _)| granted(name)).flat_map(|(_, calls)| calls.iter().copied())
}

/// The capability that brings a call.
pub(crate) fn capability_of(call: &str) -> Option<&'static str> {
    CALLS.iter().find(|(_, calls)| calls.contains(&call)).map(|(capability, _)| *capability)
}

/// Whether link layer sockets come with these capabilities.
pub(crate) fn has_packet_sockets(granted: CapabilitySet) -> bool {
    CapabilitySet::of(&["NET_RAW"]).is_subset(granted)
}
