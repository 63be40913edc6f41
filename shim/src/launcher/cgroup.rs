//! The container's cgroup: made and entered by the launcher, so that libcontainer touches none; and what the
//! container sees of it.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hardened_sandbox::bundle::{Bundle, MountKind};
use nix::mount::{MntFlags, MsFlags, mount as mount_at, umount2};

use super::stage::{PRIVATE, Stage, clone};
use crate::cgroup::{CGROUP_ROOT, Cgroup, DeviceProgram};
use crate::sys::{self, MountChange};

/// Makes the cgroup with its limits, moves this process into it, and sets its OOM score.
///
/// On cgroup v2 the device rules are a program, to be attached when init is parked: libcontainer makes nodes before
/// that which the rules may deny.
pub(super) fn make(cgroup: &Cgroup, bundle: &Bundle) -> Result<Option<DeviceProgram>> {
    cgroup.make(&bundle.resources, &bundle.device_rules)?;
    cgroup.enter()?;
    set_oom_score(bundle.oom_score_adj)?;
    cgroup.device_program(&bundle.device_rules)
}

/// Sets this process's OOM score, which its children inherit.
pub(super) fn set_oom_score(score: Option<i32>) -> Result<()> {
    match score {
        Some(score) => {
            fs::write("/proc/self/oom_score_adj", score.to_string()).with_context(|| format!("set OOM score {score}"))
        }
        None => Ok(()),
    }
}

/// Has libcontainer find no cgroup: it would write a pid to `cgroup.procs` of each v1 hierarchy, for which the kernel
/// stops all forks and waits for an RCU grace period each time: 23 of the 27 ms of an exec, measured with 8
/// hierarchies. On v2 it would ask systemd, or change the parents' controllers.
pub(super) fn hide() -> Result<()> {
    umount2(CGROUP_ROOT, MntFlags::MNT_DETACH).context("hide the cgroup mounts")?;
    mount_at(Some("tmpfs"), CGROUP_ROOT, Some("tmpfs"), MsFlags::MS_RDONLY, None::<&str>)
        .context("hide the cgroup mounts")
}

/// Stages what the container sees at a cgroup mount: read-only, and its own folders alone. libcontainer would mount
/// v1 hierarchies writable, and those in which the container has no folder from their roots.
///
/// Each with where it goes below the mount's destination.
pub(super) fn mount(stage: &Stage, cgroup: &Cgroup, bundle: &Bundle) -> Result<Vec<(PathBuf, PathBuf)>> {
    if !bundle.mounts.iter().any(|mount| mount.kind == MountKind::Cgroup) {
        return Ok(Vec::new());
    }
    let folders = cgroup.folders()?;
    if let [(name, folder)] = &folders[..]
        && name.is_empty()
    {
        let place = stage.attach(&read_only(folder)?, &place_name(0))?;
        return Ok(vec![(place, PathBuf::new())]);
    }
    let mut all = vec![(mount_top(stage, folders.iter().map(|(name, _)| name.as_str()))?, PathBuf::new())];
    for (number, (name, folder)) in folders.iter().enumerate() {
        all.push((stage.attach(&read_only(folder)?, &place_name(number + 1))?, name.into()));
    }
    Ok(all)
}

/// Numbers: libcgroups takes every cgroup mount that is called as a controller for that hierarchy.
fn place_name(number: usize) -> String {
    format!("cgroup.{number}")
}

/// What v1's hierarchies are mounted in: a folder for each, and links by the names of controllers that share one.
fn mount_top<'a>(stage: &Stage, names: impl Iterator<Item = &'a str>) -> Result<PathBuf> {
    let top = stage.place(&place_name(0));
    fs::create_dir(&top).with_context(|| format!("make {}", top.display()))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_at(Some("tmpfs"), &top, Some("tmpfs"), flags, Some("mode=755")).context("mount a tmpfs for the cgroups")?;
    for name in names {
        fs::create_dir(top.join(name)).with_context(|| format!("make a folder for cgroup {name}"))?;
        for controller in name.split(',').filter(|controller| *controller != name) {
            std::os::unix::fs::symlink(name, top.join(controller)).with_context(|| format!("link {controller}"))?;
        }
    }
    let root = sys::open_path(&top).context("open the tmpfs for the cgroups")?;
    sys::change_mount(&root, READ_ONLY, false).context("make the tmpfs for the cgroups read-only")?;
    Ok(top)
}

const READ_ONLY: MountChange = MountChange {
    set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
    clear: 0,
    propagation: 0,
};

fn read_only(folder: &Path) -> Result<OwnedFd> {
    let show = folder.display();
    let mount = clone(folder, false)?;
    sys::change_mount(&mount, READ_ONLY, true).with_context(|| format!("make {show} read-only"))?;
    sys::change_mount(&mount, PRIVATE, true).with_context(|| format!("make the mount of {show} private"))?;
    Ok(mount)
}
