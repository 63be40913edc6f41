//! The host's mount table: where files lie, by whatever path they are seen.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hardened_sandbox::Location;
use rustix::fs::{AtFlags, StatxFlags, statx};

/// The mounts of this mount namespace.
#[derive(Debug)]
pub struct MountTable(Vec<Mount>);

/// File systems whose mounts tell which part of them is mounted. NFS, for one, tells `/` for each
/// (fs/nfs/super.c, `nfs_show_path`), and has one device for all mounts of a server's file system.
const TELL_THEIR_ROOT: &[&str] = &[
    "9p", "bcachefs", "btrfs", "ceph", "devtmpfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "fuse", "fuseblk",
    "iso9660", "overlay", "ramfs", "rootfs", "squashfs", "tmpfs", "vfat", "virtiofs", "xfs", "zfs",
];

/// A mount: proc_pid_mountinfo(5).
#[derive(Debug)]
struct Mount {
    id: u64,
    /// `major:minor`; of a file system that does not tell its root, of this mount alone.
    device: String,
    /// Which part of its file system is mounted.
    root: PathBuf,
    point: PathBuf,
}

impl MountTable {
    /// Reads it.
    ///
    /// # Errors
    /// procfs cannot be read.
    pub fn read() -> Result<Self> {
        Ok(Self::parse(&std::fs::read("/proc/self/mountinfo").context("read /proc/self/mountinfo")?))
    }

    /// Reads a table as proc_pid_mountinfo(5) has it. A line of another form is no mount.
    #[must_use]
    pub fn parse(table: &[u8]) -> Self {
        Self(table.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect())
    }

    /// Where what a handle is on lies: its file system, and the path in it. `path` is the handle's own,
    /// without any symbolic link.
    ///
    /// In a file system whose mounts do not tell which part of it they are, a place is known by its mount:
    /// the same file by another mount lies elsewhere.
    ///
    /// # Errors
    /// The mount of the handle is not in the table.
    pub fn locate(&self, handle: impl AsFd, path: &Path) -> Result<Location> {
        let found = statx(handle, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
            .with_context(|| format!("statx {}", path.display()))?;
        self.location(found.stx_mnt_id, path)
            .with_context(|| format!("{}: mount {} is not in the mount table", path.display(), found.stx_mnt_id))
    }

    /// The mounts below a path, and where they lie.
    pub fn below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = (PathBuf, Location)> + 'a {
        let below = self.0.iter().filter(move |mount| mount.point != path && mount.point.starts_with(path));
        below.map(|mount| (mount.point.clone(), mount.location(Path::new(""))))
    }

    /// Every path at which what lies at a place is shown.
    pub fn shown_at<'a>(&'a self, place: &'a Location) -> impl Iterator<Item = PathBuf> + 'a {
        let same = self.0.iter().filter(|mount| mount.device == place.file_system);
        same.filter_map(|mount| Some(join(&mount.point, place.path.strip_prefix(&mount.root).ok()?)))
    }

    fn location(&self, id: u64, path: &Path) -> Option<Location> {
        let mount = self.0.iter().find(|mount| mount.id == id)?;
        Some(mount.location(path.strip_prefix(&mount.point).ok()?))
    }
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let text = |field: &[u8]| std::str::from_utf8(field).ok().map(str::to_owned);
        let id = text(fields.next()?)?.parse().ok()?;
        let device = text(fields.nth(1)?)?;
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        let kind = text(fields.skip_while(|field| *field != b"-").nth(1)?)?;
        let device = if TELL_THEIR_ROOT.contains(&kind.as_str()) { device } else { format!("{device}, mount {id}") };
        Some(Self { id, device, root, point })
    }

    /// Of what lies below its root.
    fn location(&self, below: &Path) -> Location {
        Location { file_system: self.device.clone(), path: join(&self.root, below) }
    }
}

/// As [`Path::join`], but for nothing, which would add a slash.
fn join(path: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { path.to_owned() } else { path.join(below) }
}

/// Space, tab, newline and backslash are written as `\` and three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut path = Vec::new();
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if *first == b'\\' => {
                path.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                path.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(path).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = br"22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /run rw shared:5 - tmpfs tmpfs rw
40 22 8:17 / /var/lib/kubelet/plugins/csi/v1/globalmount rw - xfs /dev/sdb1 rw
41 22 8:17 / /var/lib/kubelet/pods/0aa/volumes/csi/v1/mount rw - xfs /dev/sdb1 rw
50 22 8:1 /etc/a\040b /var/lib/kubelet/pods/0aa/volume-subpaths/v/web/0 rw - ext4 /dev/sda1 rw
51 22 8:17 /sub /var/lib/kubelet/pods/0aa/volume-subpaths/v/web/1 rw - xfs /dev/sdb1 rw
52 22 8:1 / /var/lib/kubelet/pods/0aa/volume-subpaths/v/web/2 rw - ext4 /dev/sda1 rw
";

    #[test]
    fn two_mounts_of_nfs_are_two_places() {
        let table = MountTable::parse(
            b"60 22 0:45 / /mnt/a rw - nfs4 server:/a rw\n61 22 0:45 / /mnt/b rw - nfs4 server:/b rw\n",
        );
        let (a, b) = (table.location(60, Path::new("/mnt/a/x")), table.location(61, Path::new("/mnt/b/x")));
        assert_eq!(a.as_ref().map(|place| place.path.as_path()), Some(Path::new("/x")));
        assert!(a.is_some() && b.is_some() && a != b);
        let whole = table.location(60, Path::new("/mnt/a"));
        assert!(a.is_some_and(|a| whole.is_some_and(|whole| a.is_within(&whole))));
    }

    #[test]
    fn a_file_is_located_by_its_file_system_and_the_path_in_it() {
        let table = MountTable::parse(TABLE);
        let at = |id: u64, path: &str| {
            table.location(id, Path::new(path)).map(|place| format!("{} {}", place.file_system, place.path.display()))
        };
        let subpath = |n: u32| format!("/var/lib/kubelet/pods/0aa/volume-subpaths/v/web/{n}");
        assert_eq!(at(22, "/etc/ssh").as_deref(), Some("8:1 /etc/ssh"));
        assert_eq!(at(50, &subpath(0)).as_deref(), Some("8:1 /etc/a b"));
        assert_eq!(at(51, &subpath(1)).as_deref(), Some("8:17 /sub"));
        assert_eq!(at(52, &subpath(2)).as_deref(), Some("8:1 /"));
        assert_eq!((at(99, "/x"), at(30, "/x")), (None, None));
        let etc = Location { file_system: "8:1".into(), path: "/etc/a b/c".into() };
        let shown: Vec<_> = table.shown_at(&etc).collect();
        assert_eq!(
            shown,
            ["/etc/a b/c".into(), format!("{}/c", subpath(0)).into(), format!("{}/etc/a b/c", subpath(2)).into()]
                as [PathBuf; 3]
        );
        let below: Vec<_> = table.below(Path::new("/var/lib/kubelet/pods/0aa/volumes")).collect();
        let volume = "/var/lib/kubelet/pods/0aa/volumes/csi/v1/mount";
        assert_eq!(below, [(volume.into(), Location { file_system: "8:17".into(), path: "/".into() })]);
    }

    #[test]
    fn this_machines_own_table_is_read() {
        let table = MountTable::read().unwrap();
        let file = std::fs::File::open("/proc/version").unwrap();
        assert_eq!(table.locate(&file, Path::new("/proc/version")).unwrap().path, Path::new("/version"));
        assert!(table.below(Path::new("/")).count() > 0);
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(br"/a\040b\134c\011d\x"), Path::new("/a b\\c\td\\x"));
        assert_eq!(unescape(br"/end\04"), Path::new("/end\\04"));
    }
}
