//! What this node offers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hardened_sandbox::{AppArmor, KernelSupport};
use nix::sys::resource::{Resource, getrlimit};

/// Asks the kernel what it offers.
#[must_use]
pub fn probe() -> KernelSupport {
    KernelSupport {
        landlock_abi: hardened_lockdown::landlock_abi(),
        seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        memfd_noexec: Path::new("/proc/sys/vm/memfd_noexec").exists(),
        user_namespaces: read("/proc/sys/user/max_user_namespaces").trim().parse::<u32>().is_ok_and(|most| most > 0),
        apparmor: apparmor(),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        may_raise_limits: caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE)
            .unwrap_or(false),
        oom_score_adj: read("/proc/self/oom_score_adj").trim().parse().unwrap_or(0),
        hard_limits: hard_limits(),
        processors: processors(),
    }
}

/// AppArmor as it is now: profiles come and go. Without securityfs containerd takes it for off too.
#[must_use]
pub fn apparmor() -> AppArmor {
    if !read("/sys/module/apparmor/parameters/enabled").starts_with('Y') {
        return AppArmor::Off;
    }
    match std::fs::read_to_string("/sys/kernel/security/apparmor/profiles") {
        // Lines such as "web (enforce)".
        Ok(list) => {
            AppArmor::On(list.lines().filter_map(|l| l.rsplit_once(" (")).map(|(name, _)| name.to_owned()).collect())
        }
        Err(_) => AppArmor::Off,
    }
}

fn read(path: &str) -> String {
    // What is not there is not on.
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Processors that have a thermal throttle counter.
fn processors() -> BTreeSet<u32> {
    let Ok(entries) = std::fs::read_dir("/sys/devices/system/cpu") else { return BTreeSet::new() };
    let number = |entry: std::fs::DirEntry| entry.file_name().to_str()?.strip_prefix("cpu")?.parse().ok();
    entries.flatten().filter(|entry| entry.path().join("thermal_throttle").exists()).filter_map(number).collect()
}

fn hard_limits() -> BTreeMap<String, u64> {
    let limits = [
        ("RLIMIT_AS", Resource::RLIMIT_AS),
        ("RLIMIT_CORE", Resource::RLIMIT_CORE),
        ("RLIMIT_CPU", Resource::RLIMIT_CPU),
        ("RLIMIT_DATA", Resource::RLIMIT_DATA),
        ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
        ("RLIMIT_LOCKS", Resource::RLIMIT_LOCKS),
        ("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
        ("RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
        ("RLIMIT_NICE", Resource::RLIMIT_NICE),
        ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
        ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
        ("RLIMIT_RSS", Resource::RLIMIT_RSS),
        ("RLIMIT_RTPRIO", Resource::RLIMIT_RTPRIO),
        ("RLIMIT_RTTIME", Resource::RLIMIT_RTTIME),
        ("RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING),
        ("RLIMIT_STACK", Resource::RLIMIT_STACK),
    ];
    limits.into_iter().filter_map(|(name, limit)| Some((name.to_owned(), getrlimit(limit).ok()?.1))).collect()
}
