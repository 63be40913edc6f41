//! Facts about the node, for the decision.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::Context;
use hardened_sandbox::{Facts, Host};
use nix::sys::resource::{Resource, getrlimit};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::sys;

/// Asks the kernel what it offers.
pub(crate) fn probe() -> Host {
    Host {
        landlock_abi: sys::landlock_abi(),
        seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
        memfd_noexec: Path::new("/proc/sys/vm/memfd_noexec").exists(),
        apparmor: read("/sys/module/apparmor/parameters/enabled").starts_with('Y'),
        selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        may_raise_limits: caps::has_cap(None, caps::CapSet::Effective, caps::Capability::CAP_SYS_RESOURCE)
            .unwrap_or(false),
        oom_score_adj: read("/proc/self/oom_score_adj").trim().parse().unwrap_or(0),
        hard_limits: hard_limits(),
        processors: u32::try_from(processors()).unwrap_or(0),
    }
}

fn read(path: &str) -> String {
    // What is not there is not on.
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Processors that have a thermal throttle counter.
fn processors() -> usize {
    (0..).take_while(|n| Path::new(&format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle")).exists()).count()
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

/// Which namespaces that the spec joins by path are the host's own, and where its bind mounts
/// really come from.
///
/// # Errors
/// A namespace that cannot be looked at: it might be one of them.
pub(crate) fn facts(spec: &Spec, container: &str) -> anyhow::Result<Facts> {
    let mut facts = Facts { container: container.to_owned(), ..Facts::default() };
    for source in spec.mounts().iter().flatten().filter_map(|mount| mount.source().as_ref()) {
        // What does not exist cannot be mounted: libcontainer says so.
        if let Ok(real) = std::fs::canonicalize(source)
            && source.is_absolute()
        {
            facts.sources.insert(source.clone(), real);
        }
    }
    for namespace in spec.linux().as_ref().and_then(|l| l.namespaces().as_ref()).into_iter().flatten() {
        if let Some(path) = namespace.path()
            && is_own(namespace.typ(), path)
                .with_context(|| format!("config.json: linux.namespaces: look at {}", path.display()))?
        {
            facts.host_namespaces.push(namespace.typ());
        }
    }
    Ok(facts)
}

/// Whether a path leads to this process's own namespace.
fn is_own(kind: LinuxNamespaceType, path: &Path) -> std::io::Result<bool> {
    let name = match kind {
        LinuxNamespaceType::Mount => "mnt",
        LinuxNamespaceType::Cgroup => "cgroup",
        LinuxNamespaceType::Uts => "uts",
        LinuxNamespaceType::Ipc => "ipc",
        LinuxNamespaceType::User => "user",
        LinuxNamespaceType::Pid => "pid",
        LinuxNamespaceType::Network => "net",
        LinuxNamespaceType::Time => "time",
    };
    let identity = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino()));
    Ok(identity(path)? == identity(&Path::new("/proc/self/ns").join(name))?)
}
