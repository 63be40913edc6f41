//! The jail: a root of the launcher's own, in memory and read-only, that holds what libcontainer needs and nothing
//! else of the host. A plain path, `..` and an absolute link lead to nothing but the container's own folder.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use hardened_sandbox::bundle::DeviceNode;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::pivot_root;

use super::stage::{attach_at, clone};
use crate::sys::{self, MountChange};

/// Where libcontainer finds nothing of cgroups.
const CGROUPS: &str = "sys/fs/cgroup";

/// What the kernel asks for before root of a user namespace may mount procfs and sysfs: that both are mounted already
/// (fs/namespace.c, `mount_too_revealing`). Nobody reaches them: something is mounted over them.
const COVERED: &str = "covered";

/// Device nodes that libcontainer binds from its own `/dev` into a container in a user namespace, where none can be
/// made: runtime-spec `config-linux.md`, "Default Devices".
const DEVICES: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

/// The device nodes of a container that can make none itself.
pub(super) struct Devices<'a> {
    pub(super) own: &'a [DeviceNode],
    /// SELinux label of the container's files, where it has one. Other containers get theirs from their `/dev`.
    pub(super) label: Option<&'a str>,
}

/// Moves this process into the jail.
///
/// libcontainer's state can be written in it, its config.json cannot.
///
/// `inside` is there for a container that is made in a user namespace.
pub(super) fn enter(state: &Path, runtime: &Path, inside: Option<&Devices<'_>>) -> Result<()> {
    let trees = [
        (clone(state, true)?, state, MountChange { set: libc::MOUNT_ATTR_RDONLY, ..MountChange::default() }),
        (clone(runtime, false)?, runtime, MountChange::default()),
    ];
    // Over the container's own folder, in this namespace.
    mount(Some("tmpfs"), state, Some("tmpfs"), MsFlags::MS_NOSUID, Some("mode=755")).context("mount the jail")?;
    std::env::set_current_dir(state).context("go to the jail")?;
    for directory in ["dev", "proc", CGROUPS] {
        fs::create_dir_all(directory).with_context(|| format!("make {directory}"))?;
    }
    mount_procfs()?;
    if let Some(devices) = inside {
        make_devices(devices)?;
        cover_file_systems()?;
    }
    for (tree, path, change) in &trees {
        let place = path.strip_prefix("/").with_context(|| format!("{} is not absolute", path.display()))?;
        fs::create_dir_all(place).with_context(|| format!("make {}", place.display()))?;
        sys::change_mount(tree, *change, false).with_context(|| format!("make {} read-only", path.display()))?;
        attach_at(tree, place)?;
    }
    pivot_root(".", ".").context("pivot into the jail")?;
    umount2(".", MntFlags::MNT_DETACH).context("leave the host's mounts behind")?;
    std::env::set_current_dir("/").context("go to the jail's root")?;
    let mut flags =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    if inside.is_none() {
        flags |= MsFlags::MS_NODEV;
    }
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).context("make the jail read-only")?;
    verify(state)
}

/// libcontainer looks at itself and at its children, and pathrs panics where `/proc` is no procfs. There are no
/// sysctls in this one, and nothing to write.
fn mount_procfs() -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY;
    mount(Some("proc"), "proc", Some("proc"), flags, Some("subset=pid,hidepid=ptraceable")).context("mount procfs")
}

fn make_devices(&Devices { own, label }: &Devices<'_>) -> Result<()> {
    let number = |n: i64| u64::try_from(n).context("a negative device number");
    let mut nodes: Vec<(PathBuf, SFlag, u64)> = Vec::new();
    for (path, major, minor) in DEVICES {
        if !own.iter().any(|device| device.path == Path::new(path)) {
            nodes.push((path.into(), SFlag::S_IFCHR, makedev(major, minor)));
        }
    }
    for device in own {
        let kind = if device.block { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
        nodes.push((device.path.clone(), kind, makedev(number(device.major)?, number(device.minor)?)));
    }
    for (path, kind, device) in nodes {
        let show = path.display();
        let below = path.strip_prefix("/dev").with_context(|| format!("device {show} is not below /dev"))?;
        if below.components().any(|part| !matches!(part, std::path::Component::Normal(_))) {
            bail!("device {show}: expected a path without ..");
        }
        let place = Path::new("dev").join(below);
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).with_context(|| format!("make the folder of {show}"))?;
        }
        mknod(&place, kind, Mode::empty(), device).with_context(|| format!("make {show}"))?;
        // As every container has it: the cgroup's rules say who may use it.
        fs::set_permissions(&place, Permissions::from_mode(0o666)).with_context(|| format!("open {show} to all"))?;
        if let Some(label) = label {
            sys::set_attribute(&place, c"security.selinux", label.as_bytes())
                .with_context(|| format!("label {show} {label}"))?;
        }
    }
    Ok(())
}

fn cover_file_systems() -> Result<()> {
    for kind in ["proc", "sysfs"] {
        let place = Path::new(COVERED).join(kind);
        fs::create_dir_all(&place).with_context(|| format!("make {}", place.display()))?;
        mount(Some(kind), &place, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mount {kind}"))?;
    }
    mount(Some("tmpfs"), COVERED, Some("tmpfs"), MsFlags::MS_RDONLY, Some("mode=000")).context("cover procfs and sysfs")
}

/// Looks for a mount of the host that is still there.
fn verify(state: &Path) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("read the jail's mount table")?;
    match table.lines().find(|line| !is_expected(line, state)) {
        Some(line) => bail!("the jail has a mount that does not belong there: {line}"),
        None => Ok(()),
    }
}

/// Whether a line of mountinfo is one of the jail's: proc_pid_mountinfo(5).
fn is_expected(line: &str, state: &Path) -> bool {
    let mut fields = line.split(' ');
    let (Some(point), Some(kind)) = (fields.nth(4), fields.skip_while(|field| *field != "-").nth(1)) else {
        return false;
    };
    // Names in the table are escaped; those of the state folder are ids, which need none.
    let point = Path::new(point);
    match kind {
        "tmpfs" if point == Path::new("/") || point == Path::new("/covered") => true,
        "proc" if point == Path::new("/proc") || point == Path::new("/covered/proc") => true,
        "sysfs" if point == Path::new("/covered/sysfs") => true,
        _ => point.starts_with(state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_of_the_host_does_not_belong_into_the_jail() {
        let state = Path::new("/run/hardened/k8s.io/a");
        let line = |point: &str, kind: &str| format!("30 23 0:26 / {point} rw,relatime shared:9 - {kind} none rw");
        for (point, kind) in [
            ("/", "tmpfs"),
            ("/proc", "proc"),
            ("/covered", "tmpfs"),
            ("/covered/sysfs", "sysfs"),
            ("/run/hardened/k8s.io/a", "tmpfs"),
            ("/run/hardened/k8s.io/a/mounts/volume.3/sub", "ext4"),
        ] {
            assert!(is_expected(&line(point, kind), state), "{point}");
        }
        for (point, kind) in [
            ("/", "ext4"),
            ("/proc", "ext4"),
            ("/sys", "sysfs"),
            ("/sys/kernel/tracing", "tracefs"),
            ("/run/hardened/k8s.io/ab", "tmpfs"),
        ] {
            assert!(!is_expected(&line(point, kind), state), "{point}");
        }
        assert!(!is_expected("nonsense", state));
    }
}
