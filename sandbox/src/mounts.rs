//! Mounts, masked and read-only paths.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::{Linux, Mount, Spec};

use crate::decision::Observations;
use crate::identity::Identity;
use crate::kernel::KernelSupport;
use crate::profile::masks;
use crate::refusal::{Note, Violation};
use crate::sandbox::{Access, HostNamespace, Sandbox, grant_advice};

/// Where systems by OSTree mount the disk of which `/` and `/var` are parts: all is there once more.
const WHOLE_DISK: &str = "/sysroot";

/// File systems of a container's own. All others show the host's kernel, disks or network.
const FILE_SYSTEMS: &[&str] = &["cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs", "tmpfs"];

/// Refuses mounts, propagation and masks that amount to a privileged container, and paths of the
/// host that are not the pod's to have.
pub(crate) fn check(
    linux: &Linux,
    mounts: &[Mount],
    sandbox: &Sandbox,
    identity: &Identity,
    facts: &Observations,
    violations: &mut Vec<Violation>,
) {
    if !sandbox.privileged {
        check_host_view(linux, mounts, violations);
    }
    for mount in mounts.iter().filter(|mount| is_bind(mount)) {
        let Some(source) = mount.source() else { continue };
        let at = mount.destination().display();
        let real = facts.sources.get(source).unwrap_or(source);
        if !real.is_absolute() || real.components().any(|part| part == Component::ParentDir) {
            let found = format!("source {}", source.display());
            violations.push(Violation::invalid(format!("mounts[{at}]"), found, "give an absolute path without .."));
            continue;
        }
        if is_shared_memory(mount, sandbox) {
            continue;
        }
        let Some((access, what)) = judge(source, real, sandbox, identity, facts) else { continue };
        let violation = match access {
            None => Violation::policy(
                format!("mounts[{at}]"),
                format!("{what} of the host is mounted"),
                grant_advice(real, !is_read_only(mount)),
            ),
            Some(Access::ReadOnly) if !is_read_only(mount) => Violation::policy(
                format!("mounts[{at}]"),
                format!("{what} of the host is mounted writable"),
                "set readOnly: true in volumeMounts",
            ),
            Some(Access::ReadOnly | Access::ReadWrite) => continue,
        };
        violations.push(violation.of_container(format!("volumeMounts[{at}]")));
    }
}

/// How the source of a bind mount may be had, and what it is; `None` for what is the pod's own.
fn judge(
    source: &PathBuf,
    real: &PathBuf,
    sandbox: &Sandbox,
    identity: &Identity,
    facts: &Observations,
) -> Option<(Option<Access>, String)> {
    let mut places = places_of(real, facts);
    if places.iter().any(|path| is_own(path, identity, facts)) {
        return None;
    }
    let is_part = facts.shown_at.contains_key(real);
    places.extend((!is_part).then_some(source));
    let names = places.into_iter().flat_map(|place| names_of(place, facts).map(move |name| (place, name)));
    let judged = names.map(|(place, name)| (sandbox.access(&name), place, name));
    // `None`, not at all, is less than any access.
    let Some((access, place, name)) = judged.min_by_key(|(access, ..)| *access) else {
        // It is shown nowhere else, so nobody can tell what it is.
        return Some((None, real.display().to_string()));
    };
    let asked = if is_part { place } else { source };
    let what = match () {
        () if name == *asked => name.display().to_string(),
        () if name == *place => format!("{} (which is {})", asked.display(), name.display()),
        () => format!("{} (which shows {})", asked.display(), name.display()),
    };
    Some((access, what))
}

fn check_host_view(linux: &Linux, mounts: &[Mount], violations: &mut Vec<Violation>) {
    if linux.masked_paths().as_ref().is_none_or(Vec::is_empty) {
        violations.push(
            Violation::policy(
                "linux.maskedPaths",
                "no path of /proc is masked",
                "run without privileged and with procMount: Default",
            )
            .of_container("securityContext.procMount"),
        );
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
        if !is_bind(mount) && !FILE_SYSTEMS.contains(&kind) {
            violations.push(Violation::policy(
                field.clone(),
                format!("a file system of type {kind:?} is mounted"),
                format!("mount it on the host, and that folder here (bind); or one of {}", FILE_SYSTEMS.join(", ")),
            ));
        }
        if matches!(kind, "sysfs" | "cgroup" | "cgroup2") && !options().any(|o| o == "ro" || o == "rro") {
            violations.push(Violation::policy(
                field.clone(),
                format!("{kind} is mounted writable"),
                "run without privileged; /sys and cgroups are read-only",
            ));
        }
        if options().any(|o| matches!(o, "shared" | "rshared")) {
            violations.push(
                Violation::policy(
                    field.clone(),
                    "mounts would propagate to the host (shared)",
                    "use mountPropagation: None or HostToContainer",
                )
                .of_container(format!("volumeMounts[{at}].mountPropagation")),
            );
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
    }
}

/// Whether a path is one that the kubelet or containerd keeps for this very pod: its volumes, those
/// made of images, `/etc/hosts`, termination log. They are known by the pod's UID and by the ids of
/// its sandbox and container, which nobody can know before they exist. A part of a volume is the
/// pod's where the volume is.
fn is_own(path: &Path, identity: &Identity, facts: &Observations) -> bool {
    let own = [
        ("pods", identity.pod_uid.as_deref()),
        ("sandboxes", identity.sandbox_id.as_deref()),
        ("image-volumes", identity.sandbox_id.as_deref()),
        ("containers", identity.pod_uid.is_some().then_some(facts.container.as_str())),
    ];
    let names: Vec<&str> = path.components().filter_map(|c| c.as_os_str().to_str()).collect();
    let is_kept =
        names.windows(2).any(|pair| own.iter().any(|(folder, id)| pair[0] == *folder && Some(pair[1]) == *id));
    is_kept && !is_subpath(path)
}

/// Sources of bind mounts that are not the pod's own, as far as the facts tell, and so are judged by
/// the policy.
pub fn foreign_sources<'a>(spec: &'a Spec, facts: &'a Observations) -> impl Iterator<Item = &'a PathBuf> {
    let identity = Identity::from_annotations(spec.annotations().as_ref());
    let sources = spec.mounts().iter().flatten().filter(|mount| is_bind(mount)).filter_map(|m| m.source().as_ref());
    sources
        .map(|source| facts.sources.get(source).unwrap_or(source))
        .filter(move |real| !places_of(real, facts).into_iter().any(|place| is_own(place, &identity, facts)))
}

/// A path of the host, and what else the policy calls it, or calls what lies below it.
fn names_of<'a>(place: &'a Path, facts: &'a Observations) -> impl Iterator<Item = PathBuf> + 'a {
    let pairs = facts.also_at.iter().flat_map(|(name, paths)| paths.iter().map(move |path| (name, path)));
    let others = pairs.filter_map(move |(name, path)| match place.strip_prefix(path) {
        Ok(below) => Some(name.join(below).components().collect()),
        Err(_) => path.starts_with(place).then(|| name.clone()),
    });
    std::iter::once(place.to_owned()).chain(others)
}

/// Where a source really is. For a part of a volume, those of the paths that show it which tell what
/// it is.
fn places_of<'a>(real: &'a PathBuf, facts: &'a Observations) -> Vec<&'a PathBuf> {
    let Some(paths) = facts.shown_at.get(real) else { return vec![real] };
    let (whole, told): (Vec<_>, Vec<_>) =
        paths.iter().filter(|path| !is_subpath(path)).partition(|path| path.starts_with(WHOLE_DISK));
    if told.is_empty() { whole } else { told }
}

/// Whether the kubelet keeps a part of a volume there, for `subPath`: it mounts it anew, also where
/// the volume is a `hostPath`, so the path does not tell what it is (Kubernetes
/// `pkg/volume/util/subpath`).
#[must_use]
pub fn is_subpath(path: &Path) -> bool {
    let names: Vec<_> = path.components().map(Component::as_os_str).collect();
    names.windows(3).any(|names| names[0] == "pods" && names[2] == "volume-subpaths")
}

/// The host's `/dev/shm`, which comes with its IPC namespace.
fn is_shared_memory(mount: &Mount, sandbox: &Sandbox) -> bool {
    let shm = Path::new("/dev/shm");
    mount.destination() == shm
        && mount.source().as_deref() == Some(shm)
        && sandbox.host_namespaces.contains(&HostNamespace::Ipc)
}

/// Whether the mount shows files of the host.
#[must_use]
pub fn is_bind(mount: &Mount) -> bool {
    mount.typ().as_deref() == Some("bind")
        || mount.options().iter().flatten().any(|o| matches!(o.as_str(), "bind" | "rbind"))
}

/// Whether the mount's files are to have other owners than on their file system (runtime-spec
/// `config.md`, "Mounts": `idmap`, `ridmap`, `uidMappings`).
#[must_use]
pub fn is_id_mapped(mount: &Mount) -> bool {
    mount.uid_mappings().is_some()
        || mount.gid_mappings().is_some()
        || mount.options().iter().flatten().any(|o| matches!(o.as_str(), "idmap" | "ridmap"))
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

/// Labels the file systems that are made for this container alone. libcontainer would label cgroups
/// and message queues too, which the kernel refuses for what is mounted elsewhere already.
pub(crate) fn label(linux: &mut Linux, mounts: &mut [Mount], label: Option<&str>) {
    linux.set_mount_label(None);
    let Some(label) = label.filter(|label| !label.is_empty()) else { return };
    for mount in mounts.iter_mut().filter(|m| matches!(m.typ().as_deref(), Some("tmpfs" | "devpts"))) {
        let mut options = mount.options().clone().unwrap_or_default();
        options.push(format!("context={label}"));
        mount.set_options(Some(options));
    }
}

/// Adds the options that take rights away, and the masks that are missing.
pub(crate) fn harden(
    linux: &mut Linux,
    mounts: &mut [Mount],
    sandbox: &Sandbox,
    facts: &Observations,
    host: &KernelSupport,
    notes: &mut Vec<Note>,
) {
    for mount in mounts.iter_mut().filter(|mount| is_bind(mount)) {
        // What was judged is what is mounted, though a link may lead elsewhere by then.
        if let Some(real) = mount.source().as_ref().and_then(|source| facts.sources.get(source)) {
            mount.set_source(Some(real.clone()));
        }
    }
    if sandbox.is_open() {
        return;
    }
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
    let masked = masks::masked().map(str::to_owned).chain(throttle).chain(sandbox.masked.iter().cloned());
    linux.set_masked_paths(Some(complete(linux.masked_paths().as_deref(), masked, "linux.maskedPaths", notes)));
    let read_only = masks::read_only().map(str::to_owned).chain(sandbox.read_only.iter().cloned());
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
