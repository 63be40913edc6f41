//! What of `/proc` and `/sys` no container sees, and what none can write to: runc's, containerd's and
//! Docker's lists, and what else tells of the host or of its other tenants.
//!
//! Not masked is what ordinary programs read to fit the machine or to say what they run on:
//! `/proc/{cpuinfo,meminfo,stat,loadavg,uptime,version,filesystems,mounts,net,...}`. A path that a
//! kernel does not have is passed over.

/// Paths that are masked, or read-only, for the same reason.
struct Group {
    /// Why. Reviewed like code.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by people, and by the test that demands it"))]
    reason: &'static str,
    paths: &'static [&'static str],
}

const MASKED: &[Group] = &[
    Group {
        reason: "memory of the machine: its contents, and of each page frame whose it is and what it holds (the \
                 attacks by row hammering and on page tables begin there)",
        paths: &["/proc/kcore", "/proc/kpagecgroup", "/proc/kpagecount", "/proc/kpageflags"],
    },
    Group {
        reason: "the kernel's heap: how full each cache and each order of pages is, what was allocated where and by \
                 whom. An exploit of the heap is tuned by it, and other tenants' work can be told from it",
        paths: &["/proc/allocinfo", "/proc/buddyinfo", "/proc/pagetypeinfo", "/proc/slabinfo", "/proc/vmallocinfo"],
    },
    Group {
        reason: "the kernel's code: its symbols, its modules, its configuration, what of it is traced. (Addresses in \
                 there are zero without CAP_SYSLOG; names are not)",
        paths: &[
            "/proc/config.gz",
            "/proc/kallsyms",
            "/proc/modules",
            "/sys/kernel/debug",
            "/sys/kernel/security",
            "/sys/kernel/tracing",
        ],
    },
    Group {
        reason: "switches the kernel's messages on and off, for the whole machine, and lists its source files",
        paths: &["/proc/dynamic_debug"],
    },
    Group {
        reason: "when and what the machine works: timers and waiting times of all processes, interrupts by device \
                 and processor (keystrokes and other tenants' packets are timed by them)",
        paths: &[
            "/proc/interrupts",
            "/proc/latency_stats",
            "/proc/sched_debug",
            "/proc/timer_list",
            "/proc/timer_stats",
        ],
    },
    Group {
        reason: "power and heat of the processors: side channels to what others compute (CVE-2020-8694)",
        paths: &["/sys/devices/virtual/powercap", "/sys/devices/virtual/thermal"],
    },
    Group {
        reason: "the machine's hardware and firmware: no business of a container, and some can be set",
        paths: &["/proc/acpi", "/proc/asound", "/proc/iomem", "/proc/ioports", "/proc/scsi", "/sys/firmware"],
    },
    Group {
        reason: "keyrings are not namespaced by container: names of keys, and who has how many",
        paths: &["/proc/key-users", "/proc/keys"],
    },
    Group { reason: "the node's SELinux policy, and whether it is enforced", paths: &["/sys/fs/selinux"] },
];

const READ_ONLY: &[Group] = &[
    Group {
        reason: "settings of the machine, of its file systems and its interrupts, and of namespaces by sysctl",
        paths: &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"],
    },
    Group { reason: "commands to the kernel: reboot, crash, kill", paths: &["/proc/sysrq-trigger"] },
];

/// Paths that are masked in every container.
pub(crate) fn masked() -> impl Iterator<Item = &'static str> {
    MASKED.iter().flat_map(|group| group.paths).copied()
}

/// Paths that are read-only in every container.
pub(crate) fn read_only() -> impl Iterator<Item = &'static str> {
    READ_ONLY.iter().flat_map(|group| group.paths).copied()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_path_is_one_of_proc_or_sys_and_stands_once_and_for_a_reason() {
        let mut seen = BTreeSet::new();
        for group in MASKED.iter().chain(READ_ONLY) {
            assert!(!group.reason.is_empty());
            for path in group.paths {
                assert!(path.starts_with("/proc/") || path.starts_with("/sys/"), "{path}");
                assert!(seen.insert(path), "{path}");
            }
        }
    }

    /// What a JVM, Go, Python, glibc, ps and top read.
    #[test]
    fn what_ordinary_programs_read_is_not_masked() {
        let read = [
            "cgroups",
            "cmdline",
            "cpuinfo",
            "diskstats",
            "filesystems",
            "loadavg",
            "meminfo",
            "mounts",
            "net",
            "pressure",
            "self",
            "stat",
            "swaps",
            "sys",
            "uptime",
            "version",
            "vmstat",
            "zoneinfo",
        ];
        for name in read {
            assert!(!masked().any(|path| path == format!("/proc/{name}")), "{name}");
        }
    }
}
