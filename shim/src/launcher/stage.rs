//! Where the parts of a container are mounted before libcontainer binds them: below the container's own folder, in
//! the launcher's mount namespace alone. So nothing is ever mounted on the host, and nothing can be left there.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};

use crate::sys::{self, MountChange};

/// A folder in memory, `mounts`, and one for the root file system, `rootfs`.
///
/// libcontainer resolves the latter's path at each exec again, when nothing is mounted here any more: it is on disk.
#[derive(Debug)]
pub(super) struct Stage {
    state: PathBuf,
}

impl Stage {
    /// Makes both. This process's mounts must be its own.
    pub(super) fn make(state: &Path) -> Result<Self> {
        let stage = Self { state: state.to_owned() };
        let mounts = stage.mounts();
        for folder in [&mounts, &stage.rootfs()] {
            fs::create_dir(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        mount(Some("tmpfs"), &mounts, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some("mode=755"))
            .with_context(|| format!("mount a tmpfs at {}", mounts.display()))?;
        Ok(stage)
    }

    /// The container's own folder.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// Where the root file system is mounted.
    pub(super) fn rootfs(&self) -> PathBuf {
        self.state.join("rootfs")
    }

    fn mounts(&self) -> PathBuf {
        self.state.join("mounts")
    }

    /// A place in memory, whose name is ours.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        self.mounts().join(name)
    }

    /// Mounts at a place what is mounted nowhere yet.
    pub(super) fn attach(&self, mount: &OwnedFd, name: &str) -> Result<PathBuf> {
        let place = self.place(name);
        let found = File::from(mount.try_clone().context("duplicate a mount's handle")?)
            .metadata()
            .context("look at what is mounted")?;
        let made = if found.is_dir() { fs::create_dir(&place) } else { File::create_new(&place).map(drop) };
        made.with_context(|| format!("make {}", place.display()))?;
        attach_at(mount, &place)?;
        Ok(place)
    }

    /// Nothing can be added from here on.
    pub(super) fn close(&self) -> Result<()> {
        let mounts = sys::open_path(&self.mounts()).context("open the stage")?;
        let change = MountChange { set: libc::MOUNT_ATTR_RDONLY, ..MountChange::default() };
        sys::change_mount(&mounts, change, false).context("make the stage read-only")
    }
}

/// A copy of what is mounted at a path of ours, with the mounts below it or without.
pub(super) fn clone(folder: &Path, recursive: bool) -> Result<OwnedFd> {
    let show = folder.display();
    let handle = sys::open_without_links(folder).with_context(|| format!("open {show}"))?;
    sys::clone_mount(&handle, recursive).with_context(|| format!("copy the mounts at {show}"))
}

/// Mounts what is mounted nowhere yet at a path of ours.
pub(super) fn attach_at(mount: &OwnedFd, place: &Path) -> Result<()> {
    sys::attach_mount(mount, place).with_context(|| format!("mount it at {}", place.display()))
}

/// Cut off from what is mounted or unmounted elsewhere, with the mounts below.
pub(super) const PRIVATE: MountChange = MountChange { set: 0, clear: 0, propagation: libc::MS_PRIVATE };

/// No symbolic link in it is followed, magic or not, by whatever code: `MOUNT_ATTR_NOSYMFOLLOW`, Linux 5.14.
pub(super) const FOLLOW_NO_LINKS: MountChange =
    MountChange { set: libc::MOUNT_ATTR_NOSYMFOLLOW, clear: 0, propagation: 0 };
