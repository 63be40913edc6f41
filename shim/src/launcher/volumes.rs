//! The volumes of a container: what was judged, and nothing that its path leads to by now. What is staged has its
//! final flags, so nothing in reach of libcontainer can be written that the container may not write.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use anyhow::{Context, Result};
use hardened_sandbox::bundle::{Bundle, FileId, Mount, MountFlag, MountFlags, Propagation, Volume};

use super::namespaces;
use super::rootfs::map_owners;
use super::stage::{FOLLOW_NO_LINKS, PRIVATE, Stage};
use crate::judged;
use crate::sys::{self, MountChange};

/// A volume that is mounted on the stage.
#[derive(Debug)]
pub(super) struct Staged {
    /// Of the mount, in the bundle.
    pub(super) number: usize,
    pub(super) place: PathBuf,
    /// A handle on its root.
    pub(super) root: OwnedFd,
    /// Which file that is.
    pub(super) file: FileId,
    /// Whether the container follows no links in it either: the host does not, or the spec says so.
    pub(super) follows_no_links: bool,
}

/// Mounts all volumes of a bundle. What is mounted is the very file that was judged; its flags are final, and no link
/// in it is followed for now.
pub(super) fn mount(stage: &Stage, bundle: &Bundle) -> Result<Vec<Staged>> {
    let one = |(number, mount, volume): (usize, &Mount, &Volume)| {
        stage_one(stage, number, mount, volume)
            .with_context(|| format!("volume {} at {}", volume.source.display(), mount.destination.display()))
    };
    bundle.volumes().map(one).collect()
}

fn stage_one(stage: &Stage, number: usize, mount: &Mount, volume: &Volume) -> Result<Staged> {
    let source = judged::open(&volume.source, volume.file)?;
    let tree = sys::clone_mount(&source, volume.recursive).context("copy the mount")?;
    if let Some(mappings) = &volume.id_mappings {
        let namespace = namespaces::of_mappings(mappings)?;
        map_owners(&tree, &namespace, volume.map_recursively)?;
    }
    // Of the copy: libcontainer leaves propagation as it is, since it asks for it in the call that binds.
    match volume.propagation {
        Propagation::Private => sys::change_mount(&tree, PRIVATE, true).context("make the mount private")?,
        // A copy of a mount that is a slave, as all of this process's are.
        Propagation::Slave => {}
    }
    sys::change_mount(&tree, change(&mount.recursive_flags), true).context("set the flags of the mounts below")?;
    sys::change_mount(&tree, change(&mount.flags), false).context("set the mount's flags")?;
    let follows_no_links = sys::follows_no_links(&tree).context("look at the mount's flags")?;
    sys::change_mount(&tree, FOLLOW_NO_LINKS, true).context("follow no links in the volume")?;
    let place = stage.attach(&tree, &format!("volume.{number}"))?;
    Ok(Staged { number, place, root: tree, file: volume.file, follows_no_links })
}

/// Flags as mount_setattr(2) takes them.
fn change(flags: &MountFlags) -> MountChange {
    let bit = |flag| match flag {
        MountFlag::ReadOnly => libc::MOUNT_ATTR_RDONLY,
        MountFlag::NoSuid => libc::MOUNT_ATTR_NOSUID,
        MountFlag::NoDev => libc::MOUNT_ATTR_NODEV,
        MountFlag::NoExec => libc::MOUNT_ATTR_NOEXEC,
        MountFlag::NoSymFollow => libc::MOUNT_ATTR_NOSYMFOLLOW,
        MountFlag::NoDirAtime => libc::MOUNT_ATTR_NODIRATIME,
        MountFlag::NoAtime | MountFlag::StrictAtime | MountFlag::RelAtime => 0,
    };
    // One of three, which is no set of bits: without one the mount keeps its own.
    let (atime, clear) = match () {
        () if flags.contains(MountFlag::StrictAtime) => (libc::MOUNT_ATTR_STRICTATIME, libc::MOUNT_ATTR__ATIME),
        () if flags.contains(MountFlag::NoAtime) => (libc::MOUNT_ATTR_NOATIME, libc::MOUNT_ATTR__ATIME),
        () if flags.contains(MountFlag::RelAtime) => (libc::MOUNT_ATTR_RELATIME, libc::MOUNT_ATTR__ATIME),
        () => (0, 0),
    };
    MountChange { set: flags.iter().fold(atime, |all, flag| all | bit(flag)), clear, propagation: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_set_and_of_the_access_times_one() {
        let of = |flags: &[MountFlag]| {
            let change = change(&MountFlags::of(flags));
            (change.set, change.clear)
        };
        assert_eq!(of(&[]), (0, 0));
        assert_eq!(of(&[MountFlag::ReadOnly, MountFlag::NoExec]), (0b1001, 0));
        assert_eq!(of(&[MountFlag::RelAtime]), (0, libc::MOUNT_ATTR__ATIME));
        assert_eq!(of(&[MountFlag::NoAtime, MountFlag::RelAtime]), (0x10, libc::MOUNT_ATTR__ATIME));
    }
}
