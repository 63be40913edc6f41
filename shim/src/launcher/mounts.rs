//! The root file system and the volumes of a container, in a mount namespace of the launcher's
//! own, of which the container's is a copy: nothing is ever mounted on the host, and nothing can
//! be left there.
//!
//! The sources of its bind mounts are mounted below the bundle first, by a handle on what was judged:
//! a path could lead elsewhere a moment later. A container in a user namespace reaches neither those
//! nor its image's layers by itself, since its root is nobody on the host; owners are mapped where
//! containerd asks for that.

use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

use super::wire::{Owners, RootfsMount, Volume};
use crate::sys;

/// A user namespace that is made for the container, in [`places`].
pub(crate) const USERS: &str = "user";

/// Where volumes and layers are mounted: a folder of the bundle's.
pub(crate) fn places(bundle: &Path) -> PathBuf {
    bundle.join("mounts")
}

/// Gives this process a mount namespace of its own.
pub(super) fn make_private() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("unshare the mount namespace")?;
    // Slave: volumes with HostToContainer propagation still see what the host mounts later.
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .context("cut the launcher's mounts off from the host's")
}

/// Mounts a root file system.
pub(super) fn mount_rootfs(bundle: &Path, rootfs: &Path, mounts: &[RootfsMount]) -> Result<()> {
    let show = rootfs.display();
    let found = fs::symlink_metadata(rootfs).with_context(|| format!("root file system {show}"))?;
    if !found.is_dir() {
        bail!("root file system {show} is not a directory, or is a symbolic link");
    }
    if fs::canonicalize(rootfs).with_context(|| format!("root file system {show}"))? == Path::new("/") {
        bail!("root file system {show} is the host's");
    }
    for m in mounts {
        let (owners, mut options) = owners_of(&m.options)?;
        let namespace = owners.map(|owners| user_namespace(&owners)).transpose()?;
        if let (Some(namespace), "overlay") = (&namespace, m.kind.as_str()) {
            map_layers(&mut options, namespace, bundle)?;
        }
        containerd_shim::mount::mount_rootfs(Some(&m.kind), Some(&m.source), &options, rootfs)
            .with_context(|| format!("mount {} {} at {show}", m.kind, m.source))?;
        if let Some(namespace) = namespace.filter(|_| m.kind != "overlay") {
            mount_again(&open(rootfs)?, rootfs, Some(&namespace))?;
        }
    }
    Ok(())
}

/// Makes a user namespace, mounted where the container finds it.
pub(super) fn make_users(bundle: &Path, users: &Owners) -> Result<()> {
    let namespace = user_namespace(users)?;
    mount_again(&namespace, &place(bundle, USERS)?, None)
}

/// Mounts what the container is to find below the bundle.
pub(super) fn mount_volumes(bundle: &Path, volumes: &[Volume]) -> Result<()> {
    for volume in volumes {
        mount_volume(bundle, volume).with_context(|| format!("mount {}", volume.source.display()))?;
    }
    Ok(())
}

fn mount_volume(bundle: &Path, volume: &Volume) -> Result<()> {
    let source = if volume.links { open(&volume.source)? } else { open_judged(&volume.source)? };
    let mount = sys::clone_mount(&source, volume.recursive).context("copy the mount")?;
    if let Some(owners) = &volume.owners {
        map_owners(&mount, &user_namespace(owners)?, volume.map_all)?;
    }
    if !volume.slave {
        // libcontainer leaves it as it is: it asks for this in the call that binds.
        sys::make_private(&mount).context("make the mount private")?;
    }
    attach(&mount, &place(bundle, &volume.name)?)
}

/// A place for a volume or a layer, in a folder that is made at its first use: in memory, so it is
/// gone with this namespace.
fn place(bundle: &Path, name: &str) -> Result<PathBuf> {
    let places = places(bundle);
    if !places.exists() {
        fs::create_dir(&places).with_context(|| format!("make {}", places.display()))?;
        mount(Some("tmpfs"), &places, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))
            .with_context(|| format!("mount a tmpfs at {}", places.display()))?;
    }
    Ok(places.join(name))
}

/// Makes the working directory where the image lacks it, as runc does, and as the container's
/// root. Where that cannot be, the lock-down says that it is missing.
pub(super) fn make_directory(rootfs: &Path, directory: &Path, (uid, gid): (u32, u32)) {
    let permissions = Permissions::from_mode(0o755);
    let _ = (setfsgid(Gid::from_raw(gid)), setfsuid(Uid::from_raw(uid)));
    drop(pathrs::Root::open(rootfs).and_then(|root| root.mkdir_all(directory, &permissions)));
    let _ = (setfsuid(Uid::from_raw(0)), setfsgid(Gid::from_raw(0)));
}

/// Mounts each layer of an overlay once more with mapped owners, and makes the overlay of those.
/// Its upper folder has mapped owners on disk: containerd makes it so.
fn map_layers(options: &mut [String], namespace: &OwnedFd, bundle: &Path) -> Result<()> {
    let Some(option) = options.iter_mut().find(|o| o.starts_with("lowerdir=")) else { return Ok(()) };
    let mut mapped = Vec::new();
    for (number, layer) in option.trim_start_matches("lowerdir=").split(':').enumerate() {
        let place = place(bundle, &format!("layer-{number}"))?;
        mount_again(&open(Path::new(layer))?, &place, Some(namespace)).with_context(|| layer.to_owned())?;
        mapped.push(place.display().to_string());
    }
    *option = format!("lowerdir={}", mapped.join(":"));
    Ok(())
}

fn open(source: &Path) -> Result<OwnedFd> {
    sys::open_path(source).with_context(|| format!("open {}", source.display()))
}

/// Opens what was judged at this path, which had no symbolic link in it then.
fn open_judged(source: &Path) -> Result<OwnedFd> {
    sys::open_path_without_links(source).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => anyhow!("it became a symbolic link after it was judged"),
        _ => anyhow!(error).context("open it"),
    })
}

/// Mounts once more what a handle is on, by itself, with its owners mapped or not.
fn mount_again(source: &OwnedFd, place: &Path, owners: Option<&OwnedFd>) -> Result<()> {
    let mount = sys::clone_mount(source, false).with_context(|| format!("copy the mount for {}", place.display()))?;
    if let Some(namespace) = owners {
        map_owners(&mount, namespace, false)?;
    }
    attach(&mount, place)
}

fn map_owners(mount: &OwnedFd, namespace: &OwnedFd, all: bool) -> Result<()> {
    sys::map_owners(mount, namespace, all)
        .context("map the owners (the file system, or this kernel, has no id-mapped mounts)")
}

/// Mounts a copy at a place, which is made where it is missing.
fn attach(mount: &OwnedFd, place: &Path) -> Result<()> {
    let show = place.display();
    if !place.exists() {
        let found = File::from(mount.try_clone()?).metadata().context("look at what is mounted")?;
        let made = if found.is_dir() { fs::create_dir(place) } else { File::create(place).map(drop) };
        made.with_context(|| format!("make {show}"))?;
    }
    sys::attach_mount(mount, place).with_context(|| format!("mount it at {show}"))
}

fn user_namespace(owners: &Owners) -> Result<OwnedFd> {
    sys::user_namespace(&owners.uids, &owners.gids)
        .context("make a user namespace (user.max_user_namespaces says how many there may be)")
}

/// containerd's `uidmap=` and `gidmap=`, and the options without them. No file system knows those.
fn owners_of(options: &[String]) -> Result<(Option<Owners>, Vec<String>)> {
    let value =
        |key: &str| options.iter().find_map(|o| o.strip_prefix(key)).map(|v| v.replace(':', " ").replace(',', "\n"));
    let owners = match (value("uidmap="), value("gidmap=")) {
        (Some(uids), Some(gids)) => Some(Owners { uids, gids }),
        (None, None) => None,
        _ => bail!("root file system: the mount options have one of uidmap and gidmap; both are expected, or none"),
    };
    let rest = options.iter().filter(|o| !o.starts_with("uidmap=") && !o.starts_with("gidmap="));
    Ok((owners, rest.cloned().collect()))
}
