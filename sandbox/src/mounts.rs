//! Mounts, masked and read-only paths.

use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, Mount};

use crate::host::Host;
use crate::refusal::{Note, Violation};

/// Masked in every container: runc's, containerd's and Docker's lists of today, and what else
/// under `/proc` and `/sys` tells of the host or of its other tenants. Paths that do not exist
/// are passed over.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/config.gz",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/devices/virtual/thermal",
    "/sys/firmware",
    "/sys/fs/selinux",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
];

/// Read-only in every container.
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// Files and folders of the host that amount to the host itself, with all below them. `/` only
/// by itself.
const HOST: &[&str] = &[
    "/boot",
    "/dev",
    "/proc",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/docker.sock",
    "/run/hardened",
    "/sys",
    "/var/run/containerd/containerd.sock",
    "/var/run/docker.sock",
];

/// Refuses mounts, propagation and masks that amount to a privileged container.
pub(crate) fn check(linux: &Linux, mounts: &[Mount], violations: &mut Vec<Violation>) {
    if linux.masked_paths().as_ref().is_none_or(Vec::is_empty) {
        violations.push(Violation::policy(
            "linux.maskedPaths",
            "no path of /proc is masked",
            "run without privileged and with procMount: Default",
        ));
    }
    if linux.rootfs_propagation().as_deref().is_some_and(|p| p.contains("shared")) {
        violations.push(Violation::policy(
            "linux.rootfsPropagation",
            "mounts would propagate to the host",
            "use mountPropagation: None or HostToContainer",
        ));
    }
    for mount in mounts {
        let at = mount.destination().display();
        let field = format!("mounts[{at}]");
        let options = || mount.options().iter().flatten().map(String::as_str);
        let kind = mount.typ().as_deref().unwrap_or_default();
        if matches!(kind, "sysfs" | "cgroup" | "cgroup2") && !options().any(|o| o == "ro" || o == "rro") {
            violations.push(Violation::policy(
                field.clone(),
                format!("{kind} is mounted writable"),
                "run without privileged; /sys and cgroups are read-only",
            ));
        }
        if options().any(|o| matches!(o, "shared" | "rshared")) {
            violations.push(Violation::policy(
                field.clone(),
                "mounts would propagate to the host (shared)",
                "use mountPropagation: None or HostToContainer",
            ));
        }
        for (file_system, place) in [("proc", "/proc"), ("sysfs", "/sys")] {
            if kind == file_system && mount.destination() != Path::new(place) {
                violations.push(Violation::policy(
                    field.clone(),
                    format!("a second {place}, without masks"),
                    format!("mount {file_system} at {place} only"),
                ));
            }
        }
        if is_bind(mount)
            && let Some(source) = mount.source()
            && is_host(source)
        {
            violations.push(Violation::policy(
                field,
                format!("{} of the host is mounted", source.display()),
                "use a volume of another kind (emptyDir, configMap, a folder of the workload's own)",
            ));
        }
    }
}

/// Whether the mount shows files of the host.
pub(crate) fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || mount.options().iter().flatten().any(|o| matches!(o.as_str(), "bind" | "rbind"))
}

/// Whether the mount is read-only, by its last word on it.
pub(crate) fn is_read_only(mount: &Mount) -> bool {
    mount
        .options()
        .iter()
        .flatten()
        .filter_map(|o| match o.as_str() {
            "ro" | "rro" => Some(true),
            "rw" | "rrw" => Some(false),
            _ => None,
        })
        .next_back()
        .unwrap_or(false)
}

fn is_host(source: &Path) -> bool {
    source == Path::new("/") || HOST.iter().any(|host| source.starts_with(host))
}

/// Adds the options that take rights away, and the masks that are missing.
pub(crate) fn harden(linux: &mut Linux, mounts: &mut [Mount], host: &Host, notes: &mut Vec<Note>) {
    for mount in mounts {
        let wanted: &[&str] = match mount.typ().as_deref() {
            Some("sysfs" | "cgroup" | "cgroup2") => &["ro", "nosuid", "nodev", "noexec"],
            Some("proc" | "mqueue") => &["nosuid", "nodev", "noexec"],
            // No mount brings devices: the standard ones are made in /dev by the runtime itself.
            _ if is_bind(mount) => &["nosuid", "nodev"],
            _ => &[],
        };
        let mut options = mount.options().clone().unwrap_or_default();
        for option in wanted {
            if !options.iter().any(|o| o == option) {
                options.push((*option).to_owned());
            }
            options.retain(|o| Some(o.as_str()) != opposite(option));
        }
        mount.set_options(Some(options));
    }
    let throttle = (0..host.processors).map(|n| format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle"));
    let masked = MASKED.iter().map(|p| (*p).to_owned()).chain(throttle);
    linux.set_masked_paths(Some(complete(linux.masked_paths().as_deref(), masked, "linux.maskedPaths", notes)));
    let read_only = READ_ONLY.iter().map(|p| (*p).to_owned());
    linux.set_readonly_paths(Some(complete(
        linux.readonly_paths().as_deref(),
        read_only,
        "linux.readonlyPaths",
        notes,
    )));
}

fn opposite(option: &str) -> Option<&'static str> {
    match option {
        "ro" => Some("rw"),
        "nosuid" => Some("suid"),
        "nodev" => Some("dev"),
        "noexec" => Some("exec"),
        _ => None,
    }
}

fn complete(
    present: Option<&[String]>,
    wanted: impl Iterator<Item = String>,
    field: &str,
    notes: &mut Vec<Note>,
) -> Vec<String> {
    let mut paths = present.unwrap_or_default().to_vec();
    let before = paths.len();
    for path in wanted {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    if paths.len() > before {
        notes.push(Note::new(field, format!("{} paths added to the {before} of the spec", paths.len() - before)));
    }
    paths
}

/// Where writable volumes are mounted, in the container.
pub(crate) fn writable(mounts: &[Mount]) -> impl Iterator<Item = PathBuf> {
    mounts.iter().filter(|m| is_bind(m) && !is_read_only(m)).map(|m| m.destination().clone())
}
