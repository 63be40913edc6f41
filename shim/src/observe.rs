//! What only the node can tell about a spec.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use anyhow::Context;
use hardened_node::mountinfo::MountTable;
use hardened_sandbox::policy::Policy;
use hardened_sandbox::{Observations, foreign_sources, handler_of, is_bind, is_subpath};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, LinuxNamespaceType, Spec};

/// Where the kernel tells whether it knows a label: selinuxfs.
const SELINUX_CONTEXT: &str = "/sys/fs/selinux/context";

/// Which namespaces that the spec joins by path are the host's own, where its bind mounts really
/// come from, and which of its SELinux labels the node does not know.
///
/// # Errors
/// A namespace or a source that cannot be looked at: it might be one of them.
pub(crate) fn facts(spec: &Spec, container: &str) -> anyhow::Result<Observations> {
    let mut facts = Observations { container: container.to_owned(), handler: handler(), ..Observations::default() };
    for mount in spec.mounts().iter().flatten().filter(|mount| is_bind(mount)) {
        let Some(source) = mount.source().clone().filter(|source| source.is_absolute()) else { continue };
        // What is not there yet could be anything when it is mounted.
        let real = std::fs::canonicalize(&source).with_context(|| {
            format!("config.json: mounts[{}]: source {}", mount.destination().display(), source.display())
        })?;
        facts.sources.insert(source, real);
    }
    let process = spec.process().as_ref().and_then(|p| p.selinux_label().clone());
    let files = spec.linux().as_ref().and_then(|l| l.mount_label().clone());
    facts.unknown_labels.extend([process, files].into_iter().flatten().filter(|label| is_unknown(label)));
    let devices = spec.linux().as_ref().and_then(|l| l.devices().as_ref()).into_iter().flatten();
    facts.other_devices.extend(devices.filter(|device| !is_on_host(device)).map(|device| device.path().clone()));
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

/// By which other paths the host shows parts of volumes, and what the policy has rules for, where a
/// source is judged by those.
///
/// # Errors
/// The mount table cannot be read, or does not have a source.
pub(crate) fn look_at_paths(facts: &mut Observations, spec: &Spec, policy: &Policy) -> anyhow::Result<()> {
    if foreign_sources(spec, facts).next().is_none() {
        return Ok(());
    }
    let table = MountTable::read()?;
    for real in facts.sources.values().filter(|real| is_subpath(real)) {
        let paths = table.seen_at(real).with_context(|| format!("config.json: mounts: source {}", real.display()))?;
        facts.shown_at.insert(real.clone(), paths);
    }
    // A part of the pod's own volume is the pod's.
    if foreign_sources(spec, facts).next().is_none() {
        return Ok(());
    }
    for path in policy.host_paths() {
        // What is not there is seen nowhere.
        let Ok(real) = std::fs::canonicalize(path) else { continue };
        let mut others = table.seen_at(&real)?;
        others.retain(|other| other != path);
        facts.also_at.insert(path.to_owned(), others);
    }
    Ok(())
}

/// The runtime handler, which `start` has passed on by this program's name.
fn handler() -> Option<String> {
    let name = std::env::args_os().next()?;
    handler_of(Path::new(&name)).map(str::to_owned)
}

/// Whether the device is the one that has its path on the host.
fn is_on_host(device: &LinuxDevice) -> bool {
    let Ok(found) = std::fs::metadata(device.path()) else { return false };
    let same_kind = match device.typ() {
        LinuxDeviceType::B => found.file_type().is_block_device(),
        LinuxDeviceType::C | LinuxDeviceType::U => found.file_type().is_char_device(),
        LinuxDeviceType::A | LinuxDeviceType::P => false,
    };
    let numbers = (i64::from(libc::major(found.rdev())), i64::from(libc::minor(found.rdev())));
    same_kind && numbers == (device.major(), device.minor())
}

/// Whether SELinux is there and does not know the label.
fn is_unknown(label: &str) -> bool {
    !label.is_empty()
        && std::fs::write(SELINUX_CONTEXT, label).is_err_and(|e| e.kind() == std::io::ErrorKind::InvalidInput)
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
