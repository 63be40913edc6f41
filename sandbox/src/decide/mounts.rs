//! Mounts, masked and read-only paths.

use std::path::{Path, PathBuf};

use super::host_paths::{self, Verdict};
use crate::bundle::{IdMappings, Mount, MountFlag, MountFlags, MountKind, Propagation, SystemFolders, Volume};
use crate::kernel::KernelSupport;
use crate::observations::Observations;
use crate::profile::masks;
use crate::refusal::{Note, Violation};
use crate::request::{MountRequest, Request, RequestedKind};
use crate::sandbox::{Access, HostNamespace, Sandbox, grant_advice};

/// Folders that libcontainer fills, or looks below, by name: each may be mounted at by the file
/// system that belongs there, and by nothing else.
const RUNTIMES_OWN: &[(&str, &str)] = &[("/dev", "tmpfs"), ("/proc", "proc"), ("/sys", "sysfs")];

/// Folders of programs and libraries: Filesystem Hierarchy Standard.
const SYSTEM_FOLDERS: &[&str] = &[
    "/bin",
    "/boot",
    "/lib",
    "/lib32",
    "/lib64",
    "/libexec",
    "/libx32",
    "/sbin",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/libx32",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/libexec",
    "/usr/local/sbin",
    "/usr/sbin",
];

/// Flags that no volume is without: the standard devices are made in `/dev`, and setuid programs give
/// nothing.
const VOLUME_FLAGS: &[MountFlag] = &[MountFlag::NoSuid, MountFlag::NoDev];

/// Refuses paths of the host that are not the pod's to have, and mounts where nothing is mounted.
pub(crate) fn check(request: &Request, sandbox: &Sandbox, observed: &Observations, violations: &mut Vec<Violation>) {
    for mount in &request.mounts {
        check_place(mount, violations);
        if let RequestedKind::Bind { .. } = mount.kind
            && let Some(violation) = check_source(mount, request, sandbox, observed)
        {
            violations.push(violation);
        }
    }
}

fn field(mount: &MountRequest) -> String {
    format!("mounts[{}]", mount.destination.display())
}

/// Refuses another file system where procfs, sysfs or the devices belong, and those elsewhere; also
/// below procfs, whose files the runtime and the lock-down read by name.
fn check_place(mount: &MountRequest, violations: &mut Vec<Violation>) {
    let kind = match &mount.kind {
        RequestedKind::Bind { .. } => "bind",
        RequestedKind::FileSystem(MountKind::Tmpfs(_)) => "tmpfs",
        RequestedKind::FileSystem(MountKind::Proc { .. }) => "proc",
        RequestedKind::FileSystem(MountKind::Sysfs) => "sysfs",
        RequestedKind::FileSystem(_) => "",
    };
    for (place, belongs) in RUNTIMES_OWN {
        let is_there = mount.destination == Path::new(place);
        if is_there && kind != *belongs {
            violations.push(Violation::policy(
                field(mount),
                format!("a mount other than {belongs} at {place}, which the runtime sets up itself"),
                "mount it elsewhere",
            ));
        }
        if !is_there && kind == *belongs && kind != "tmpfs" {
            violations.push(Violation::policy(
                field(mount),
                format!("a second {place}, without masks"),
                format!("mount {belongs} at {place} only"),
            ));
        }
    }
    if mount.destination.starts_with("/proc") && mount.destination != Path::new("/proc") {
        violations.push(Violation::policy(
            field(mount),
            "is inside /proc, where only masks are mounted",
            "mount it elsewhere",
        ));
    }
}

/// Refuses the source of a bind mount that is not the pod's to have, or not to write to.
fn check_source(
    mount: &MountRequest,
    request: &Request,
    sandbox: &Sandbox,
    observed: &Observations,
) -> Option<Violation> {
    let RequestedKind::Bind { source, recursive, propagation, .. } = &mount.kind else { return None };
    let at = mount.destination.display();
    if is_shared_memory(&mount.destination, source, sandbox) {
        return None;
    }
    let (access, what) = match host_paths::judge(source, *recursive, request, sandbox, observed) {
        Verdict::Own { .. } => return None,
        Verdict::Hosts { access, what } => (access, what),
    };
    let violation = match access {
        None => Violation::policy(
            format!("mounts[{at}]"),
            format!("{what} of the host is mounted, which the profile does not grant"),
            grant_advice(observed.known_as(source), !mount.flags.contains(MountFlag::ReadOnly)),
        ),
        Some(Access::ReadOnly) if !mount.flags.contains(MountFlag::ReadOnly) => Violation::policy(
            format!("mounts[{at}]"),
            format!("{what} of the host is mounted writable, and the profile grants it read-only"),
            "set readOnly: true in volumeMounts",
        ),
        // The kernel keeps read-only what is mounted already, not what is mounted later.
        Some(Access::ReadOnly) if *propagation == Propagation::Slave && !sandbox.later_mounts => {
            return Some(
                Violation::policy(
                    format!("mounts[{at}]"),
                    format!(
                        "{what} of the host is granted read-only, but later mounts of the host below it would be writable"
                    ),
                    "use mountPropagation: None; or have the node's policy take it: [profile.NAME] host.later-mounts = \
                     true",
                )
                .of_container(format!("volumeMounts[{at}].mountPropagation")),
            );
        }
        Some(Access::ReadOnly | Access::ReadWrite) => return None,
    };
    Some(violation.of_container(format!("volumeMounts[{at}]")))
}

/// Whether `/sys` is to be written to.
pub(crate) fn has_writable_sysfs(request: &Request) -> bool {
    let is_writable = |mount: &MountRequest| {
        matches!(mount.kind, RequestedKind::FileSystem(MountKind::Sysfs)) && !mount.flags.contains(MountFlag::ReadOnly)
    };
    request.mounts.iter().any(is_writable)
}

/// Refuses mounts and propagation that amount to a privileged container. (Masks that are missing are added.)
pub(crate) fn check_host_view(request: &Request, sandbox: &Sandbox, violations: &mut Vec<Violation>) {
    if sandbox.privileged {
        return;
    }
    if request.shares_root_mounts {
        violations.push(Violation::policy(
            "linux.rootfsPropagation",
            "mounts would propagate to the host",
            "use mountPropagation: None or HostToContainer",
        ));
    }
    for mount in &request.mounts {
        let at = mount.destination.display();
        let kind = match &mount.kind {
            RequestedKind::FileSystem(MountKind::Sysfs) => Some("sysfs"),
            RequestedKind::FileSystem(MountKind::Cgroup) => Some("cgroup"),
            RequestedKind::FileSystem(_) | RequestedKind::Bind { .. } => None,
        };
        if let Some(kind) = kind.filter(|_| !mount.flags.contains(MountFlag::ReadOnly)) {
            violations.push(Violation::policy(
                field(mount),
                format!("{kind} is mounted writable"),
                "run without privileged; /sys and cgroups are read-only",
            ));
        }
        if mount.shared {
            violations.push(
                Violation::policy(
                    field(mount),
                    "mounts would propagate to the host (shared)",
                    "use mountPropagation: None or HostToContainer",
                )
                .of_container(format!("volumeMounts[{at}].mountPropagation")),
            );
        }
    }
}

/// Whether it refuses what is mounted at `/dev/shm`.
pub(crate) fn is_of_shared_memory(violation: &Violation) -> bool {
    violation.field == "mounts[/dev/shm]"
}

/// The host's `/dev/shm`, which comes with its IPC namespace.
fn is_shared_memory(destination: &Path, source: &Path, sandbox: &Sandbox) -> bool {
    let shm = Path::new("/dev/shm");
    destination == shm && source == shm && sandbox.host_namespaces.contains(&HostNamespace::Ipc)
}

/// The folders of an image that are read-only unless the profile says otherwise, and those from which nothing is executed.
/// What images add to `/usr` (`/usr/local/apache2`, `/usr/src/app`, `/usr/share/nginx`) is theirs to write.
pub(crate) fn system_folders(sandbox: &Sandbox, root_read_only: bool) -> SystemFolders {
    let mut folders = SystemFolders { no_execute: sandbox.no_execute_in_image(), ..SystemFolders::default() };
    // A root file system that is read-only as a whole has them read-only too.
    if !sandbox.system_writable && !root_read_only {
        folders.whole = SYSTEM_FOLDERS.iter().map(PathBuf::from).collect();
        folders.alone = vec![PathBuf::from("/usr")];
    }
    folders
}

/// The mounts, with the flags that take rights away.
pub(crate) fn harden(
    request: &Request,
    sandbox: &Sandbox,
    observed: &Observations,
    files_label: Option<&str>,
    notes: &mut Vec<Note>,
) -> Vec<Mount> {
    let mut mounts = Vec::new();
    // Nodes of the root file system are not opened: the standard ones are made in memory.
    if !sandbox.is_open() && !request.mounts.iter().any(|mount| mount.destination == Path::new("/dev")) {
        notes.push(Note::new("mounts[/dev]", "added: a tmpfs for the devices"));
        let kind = labelled(MountKind::Tmpfs(["mode=755", "size=65536k"].map(str::to_owned).to_vec()), files_label);
        let flags = MountFlags::of(&[MountFlag::NoSuid, MountFlag::NoExec]);
        mounts.push(Mount { destination: "/dev".into(), kind, flags, recursive_flags: MountFlags::EMPTY });
    }
    let asked = request.mounts.iter().map(|mount| {
        let mut flags = mount.flags.clone();
        let mut recursive_flags = mount.recursive_flags.clone();
        let kind = match &mount.kind {
            RequestedKind::FileSystem(kind) => {
                if !sandbox.is_open() {
                    flags.extend(&flags_of(kind));
                    let is_tmpfs = matches!(kind, MountKind::Tmpfs(_));
                    if is_tmpfs && mount.destination != Path::new("/dev") {
                        flags.insert(MountFlag::NoDev);
                        if !sandbox.execute_from_writable {
                            flags.insert(MountFlag::NoExec);
                        }
                    }
                }
                // libcontainer would label cgroups and message queues too, which the kernel refuses
                // for what is mounted elsewhere already.
                labelled(kind.clone(), files_label)
            }
            RequestedKind::Bind { source, recursive, propagation, mapped } => {
                let verdict = host_paths::judge(source, *recursive, request, sandbox, observed);
                if matches!(verdict, Verdict::Own { read_only: true }) && !flags.contains(MountFlag::ReadOnly) {
                    flags.insert(MountFlag::ReadOnly);
                    notes.push(Note::new(
                        field(mount),
                        "set read-only: the kubelet writes the files of this volume itself",
                    ));
                }
                if !sandbox.is_open() {
                    flags.extend(&MountFlags::of(VOLUME_FLAGS));
                    // Landlock has no right for mmap(2), by which a dynamic loader executes. What is read-only
                    // here may be writable in another container of the pod, or by another name.
                    let is_fixed = matches!(verdict, Verdict::Own { read_only: true });
                    if !sandbox.execute_from_writable && !is_fixed {
                        flags.insert(MountFlag::NoExec);
                    }
                    // What is taken away is taken away from all mounts below. Where the profile grants the whole host to be
                    // written to, `readOnly` is as with runc: of the mount itself, unless the pod says otherwise.
                    let is_wish = sandbox.access(Path::new("/")) == Some(Access::ReadWrite)
                        && matches!(verdict, Verdict::Hosts { access: Some(Access::ReadWrite), .. });
                    let below = [MountFlag::ReadOnly, MountFlag::NoSuid, MountFlag::NoDev, MountFlag::NoExec];
                    for flag in below.into_iter().filter(|flag| flags.contains(*flag)) {
                        if flag != MountFlag::ReadOnly || !is_wish {
                            recursive_flags.insert(flag);
                        }
                    }
                }
                MountKind::Bind(volume(source, *recursive, *propagation, mapped.as_ref(), request, observed))
            }
        };
        Mount { destination: mount.destination.clone(), kind, flags, recursive_flags }
    });
    mounts.extend(asked);
    mounts
}

fn volume(
    source: &Path,
    recursive: bool,
    propagation: Propagation,
    mapped: Option<&crate::request::Mapped>,
    request: &Request,
    observed: &Observations,
) -> Volume {
    let found = observed.source(source);
    Volume {
        source: found.map_or_else(|| source.to_owned(), |found| found.path.clone()),
        // A file that nobody has looked at is none that a launcher mounts.
        file: found.map_or(crate::bundle::FileId { device: 0, inode: 0 }, |found| found.file),
        recursive,
        propagation,
        id_mappings: mapped.and_then(|mapped| mapped.own.clone().or_else(|| request.id_mappings.clone())),
        map_recursively: mapped.is_some_and(|mapped| mapped.recursive),
    }
}

fn flags_of(kind: &MountKind) -> MountFlags {
    use MountFlag::{NoDev, NoExec, NoSuid, ReadOnly};
    match kind {
        MountKind::Sysfs | MountKind::Cgroup => MountFlags::of(&[ReadOnly, NoSuid, NoDev, NoExec]),
        MountKind::Proc { .. } | MountKind::Mqueue => MountFlags::of(&[NoSuid, NoDev, NoExec]),
        MountKind::Devpts(_) => MountFlags::of(&[NoSuid, NoExec]),
        MountKind::Tmpfs(_) => MountFlags::of(&[NoSuid]),
        MountKind::Bind(_) => MountFlags::EMPTY,
    }
}

fn labelled(kind: MountKind, label: Option<&str>) -> MountKind {
    let with = |mut data: Vec<String>| {
        data.extend(label.map(|label| format!("context={label}")));
        data
    };
    match kind {
        MountKind::Tmpfs(data) => MountKind::Tmpfs(with(data)),
        MountKind::Devpts(data) => MountKind::Devpts(with(data)),
        MountKind::Proc { .. } | MountKind::Sysfs | MountKind::Mqueue | MountKind::Cgroup | MountKind::Bind(_) => kind,
    }
}

/// The masked paths and the read-only ones: those of the spec, and those that are missing.
pub(crate) fn masks(
    request: &Request,
    sandbox: &Sandbox,
    kernel: &KernelSupport,
    notes: &mut Vec<Note>,
) -> (Vec<String>, Vec<String>) {
    if sandbox.is_open() {
        return (request.masked_paths.clone(), request.read_only_paths.clone());
    }
    if request.masked_paths.is_empty() {
        notes.push(Note::new("procMount", "Unmasked has no effect: the usual paths are masked"));
    }
    let throttle = kernel.processors.iter().map(|n| format!("/sys/devices/system/cpu/cpu{n}/thermal_throttle"));
    let masked = masks::masked().map(str::to_owned).chain(throttle).chain(sandbox.masked.iter().cloned());
    let read_only = masks::read_only().map(str::to_owned).chain(sandbox.read_only.iter().cloned());
    (
        complete(&request.masked_paths, masked, "linux.maskedPaths", notes),
        complete(&request.read_only_paths, read_only, "linux.readonlyPaths", notes),
    )
}

fn complete(
    present: &[String],
    wanted: impl Iterator<Item = String>,
    field: &str,
    notes: &mut Vec<Note>,
) -> Vec<String> {
    let mut paths = present.to_vec();
    for path in wanted {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    let (before, added) = (present.len(), paths.len() - present.len());
    if added > 0 {
        notes.push(Note::new(field, format!("{added} paths added to the {before} of the spec")));
    }
    paths
}

/// Refuses mounts whose ids cannot be mapped as they ask.
pub(crate) fn check_mapped(request: &Request, violations: &mut Vec<Violation>) {
    for mount in &request.mounts {
        let RequestedKind::Bind { mapped: Some(mapped), .. } = &mount.kind else { continue };
        let has_ranges = |mappings: &IdMappings| !mappings.uids.is_empty() && !mappings.gids.is_empty();
        if mapped.own.is_none() && !request.id_mappings.as_ref().is_some_and(has_ranges) {
            let problem = "ids are to be mapped, and no mapping is given";
            violations.push(Violation::invalid(field(mount), problem, "give both mappings, or leave idmap out"));
        }
    }
}
