//! What only the node can tell about a container. All of it is looked up here, before the decision.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hardened_node::mountinfo::MountTable;
use hardened_node::paths;
use hardened_sandbox::bundle::{DeviceNode, NamespaceKind};
use hardened_sandbox::policy::Policy;
use hardened_sandbox::{
    Joined, Location, Mark, Observations, Request, VolumeSource, folder_of_volumes, handler_of, sources_to_locate,
};

use crate::judged::{self, identity};

/// Where the kernel tells whether it knows a label: selinuxfs.
const SELINUX_CONTEXT: &str = "/sys/fs/selinux/context";

/// Looks at what a container asks for: where its volumes really are, and what the policy grants; which
/// namespaces it joins; labels and devices.
///
/// # Errors
/// A volume or a namespace that cannot be looked at: it might be anything.
pub(crate) fn observe(request: &Request, policy: &Policy, namespace: &str, container: &str) -> Result<Observations> {
    let mut observed = Observations {
        container: container.to_owned(),
        namespace: namespace.to_owned(),
        handler: handler(),
        mark: policy.logs_landlock_denials().then(mark).transpose().context("draw a mark for audit records")?,
        ..Observations::default()
    };
    for (spelled, _) in request.sources() {
        let source = look_at(spelled).with_context(|| format!("config.json: mounts: source {}", spelled.display()))?;
        observed.sources.insert(spelled.to_owned(), source);
    }
    locate(request, policy, &mut observed)?;
    for (kind, path) in request.joined() {
        let joined =
            joined(kind, path).with_context(|| format!("config.json: linux.namespaces: look at {}", path.display()))?;
        observed.namespaces.insert(kind, joined);
    }
    observed.unknown_labels.extend(request.selinux_labels().filter(|label| is_unknown(label)).map(str::to_owned));
    let others = request.devices().iter().filter(|device| !is_on_host(device));
    observed.other_devices.extend(others.map(|device| device.path.clone()));
    Ok(observed)
}

/// A mark of the kernel's choice (random(4)).
fn mark() -> Result<Mark> {
    let random = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    Mark::from_random(&random).context("the kernel's answer is no UUID")
}

/// What is at the source of a bind mount. What is not there yet could be anything when it is mounted.
fn look_at(spelled: &Path) -> Result<VolumeSource> {
    let path = spelled.canonicalize().context("follow it")?;
    let handle = paths::open_without_links(&path).context("open it")?;
    let found = fs::File::from(handle).metadata().context("look at it")?;
    Ok(VolumeSource {
        path,
        file: identity(&found),
        is_directory: found.is_dir(),
        location: None,
        known_as: None,
        below: Vec::new(),
    })
}

/// Finds where sources lie that are not kept for the pod, with what is mounted below them, and where the
/// paths are that the policy has rules for. The mount table is read only for those.
fn locate(request: &Request, policy: &Policy, observed: &mut Observations) -> Result<()> {
    let foreign: Vec<(PathBuf, bool)> =
        sources_to_locate(request, observed).map(|(path, recursive)| (path.to_owned(), recursive)).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    let table = MountTable::read()?;
    for (spelled, recursive) in &foreign {
        let Some(source) = observed.sources.get_mut(spelled) else { continue };
        let handle = judged::open(&source.path, source.file)
            .with_context(|| format!("config.json: mounts: source {}", spelled.display()))?;
        let location = table.locate(&handle, &source.path)?;
        if folder_of_volumes(request, spelled).is_some() {
            // The shortest is what the others are mounted from, as a rule.
            let others = table.shown_at(&location).filter(|path| *path != source.path);
            source.known_as = others.min_by_key(|path| path.components().count());
        }
        source.location = Some(location);
        if *recursive {
            source.below = table.below(&source.path).collect();
        }
    }
    for spelled in foreign.iter().map(|(spelled, _)| spelled) {
        let Some(folder) = folder_of_volumes(request, spelled) else { continue };
        for volume in volumes(&folder) {
            let handle = paths::open_without_links(&volume).with_context(|| format!("open {}", volume.display()))?;
            let location = table.locate(&handle, &volume)?;
            if let Some(source) = observed.sources.get_mut(spelled) {
                locate_part(source, &handle, &location)?;
            }
            observed.volumes.push((volume, location));
        }
    }
    for (path, resolved) in paths::resolve_all(policy.host_paths().into_iter()) {
        // It may have gone meanwhile: then nothing is there to be granted.
        let Ok(handle) = paths::open_without_links(&resolved.path) else { continue };
        observed.places.insert(path.clone(), table.locate(&handle, &resolved.path)?);
        if !resolved.is_trusted {
            observed.untrusted.insert(path);
        }
    }
    Ok(())
}

/// Says of a part of a volume that it lies there, where the mount table cannot tell: NFS is mounted separately for it.
/// A file has no folder above it that a handle leads to, and is left where it is.
fn locate_part(part: &mut VolumeSource, volume: &OwnedFd, at: &Location) -> Result<()> {
    if !part.is_directory || part.location.as_ref().is_some_and(|location| location.is_within(at)) {
        return Ok(());
    }
    let handle = judged::open(&part.path, part.file)?;
    // Most are of other file systems.
    if judged::is_inside(&handle, volume).unwrap_or(false) {
        part.location = Some(Location { path: at.path.join("(part)"), ..at.clone() });
    }
    Ok(())
}

/// The volumes that the kubelet keeps in a pod's folder: `PLUGIN/NAME`, or `PLUGIN/NAME/mount` of CSI.
fn volumes(folder: &Path) -> Vec<PathBuf> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        // What is not there holds nothing.
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
    };
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    let volumes = entries(&folder).into_iter().flat_map(|plugin| entries(&plugin));
    // What lies beside a CSI driver's mount is the kubelet's own.
    let is_csi = |volume: &Path| volume.parent().is_some_and(|plugin| plugin.ends_with("kubernetes.io~csi"));
    let whole = volumes.map(|volume| if is_csi(&volume) { volume.join("mount") } else { volume });
    whole.filter(|volume| volume.symlink_metadata().is_ok_and(|found| found.is_dir())).collect()
}

/// The runtime handler, which `start` has passed on by this program's name.
pub(crate) fn handler() -> Option<String> {
    let name = std::env::args_os().next()?;
    handler_of(Path::new(&name)).map(str::to_owned)
}

/// Whether the device is the one that has its path on the host.
fn is_on_host(device: &DeviceNode) -> bool {
    let Ok(found) = fs::metadata(&device.path) else { return false };
    let kind = found.file_type();
    let same_kind = if device.block { kind.is_block_device() } else { kind.is_char_device() };
    let numbers = (i64::from(libc::major(found.rdev())), i64::from(libc::minor(found.rdev())));
    same_kind && numbers == (device.major, device.minor)
}

/// Whether SELinux is there and does not know the label.
fn is_unknown(label: &str) -> bool {
    fs::write(SELINUX_CONTEXT, label).is_err_and(|e| e.kind() == std::io::ErrorKind::InvalidInput)
}

/// Which namespace a path leads to, and whether it is this process's own: the host's.
fn joined(kind: NamespaceKind, path: &Path) -> std::io::Result<Joined> {
    let file = identity(&fs::metadata(path)?);
    let own = fs::metadata(Path::new("/proc/self/ns").join(kind.file_name()))?;
    Ok(Joined { file, is_hosts: file == identity(&own) })
}
