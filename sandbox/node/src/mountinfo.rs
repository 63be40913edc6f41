//! The host's mount table: by which paths the same files are seen.

use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// The mounts of this mount namespace.
#[derive(Debug)]
pub struct MountTable(Vec<Mount>);

/// A mount: proc_pid_mountinfo(5).
#[derive(Debug)]
struct Mount {
    id: Vec<u8>,
    device: Vec<u8>,
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
        Ok(Self::parse(&read("/proc/self/mountinfo")?))
    }

    fn parse(table: &[u8]) -> Self {
        Self(table.split(|byte| *byte == b'\n').filter_map(Mount::parse).collect())
    }

    /// Every path by which what is at a path is seen, that one among them: where the file lies in its
    /// file system, and wherever a part of that file system is mounted which has it.
    ///
    /// # Errors
    /// The path cannot be opened, has a link in it, or is in no mount of the table.
    pub fn seen_at(&self, path: &Path) -> Result<Vec<PathBuf>> {
        let show = path.display();
        let file = openat2(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::NO_SYMLINKS)
            .with_context(|| format!("open {show}"))?;
        let info = read(&format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
        let info = String::from_utf8_lossy(&info);
        let mount = info.lines().find_map(|line| line.strip_prefix("mnt_id:")).context("no mnt_id in fdinfo")?.trim();
        self.aliases(mount, path).with_context(|| format!("{show}: mount {mount} is not in /proc/self/mountinfo"))
    }

    /// Paths that show what is at `path` in the mount of that id.
    fn aliases(&self, id: &str, path: &Path) -> Option<Vec<PathBuf>> {
        let own = self.0.iter().find(|mount| mount.id == id.as_bytes())?;
        let file = join(&own.root, path.strip_prefix(&own.point).ok()?);
        let same = self.0.iter().filter(|mount| mount.device == own.device);
        Some(same.filter_map(|mount| Some(join(&mount.point, file.strip_prefix(&mount.root).ok()?))).collect())
    }
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let id = fields.next()?.to_owned();
        let device = fields.nth(1)?.to_owned();
        Some(Self { id, device, root: unescape(fields.next()?), point: unescape(fields.next()?) })
    }
}

fn read(name: &str) -> Result<Vec<u8>> {
    std::fs::read(name).with_context(|| format!("read {name}"))
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
    fn what_a_subpath_shows_is_found_by_its_file_system() {
        let of = |id: &str, path: &str| -> Vec<String> {
            let found = MountTable::parse(TABLE).aliases(id, Path::new(path)).unwrap_or_default();
            found.iter().map(|path| path.display().to_string()).collect()
        };
        let subpath = |n: u32| format!("/var/lib/kubelet/pods/0aa/volume-subpaths/v/web/{n}");
        let host = of("50", &subpath(0));
        assert!(host.contains(&"/etc/a b".to_owned()) && host.contains(&subpath(0)), "{host:?}");
        let volume = of("51", &subpath(1));
        assert!(volume.contains(&"/var/lib/kubelet/pods/0aa/volumes/csi/v1/mount/sub".to_owned()), "{volume:?}");
        assert_eq!(volume.len(), 3);
        assert!(of("52", &subpath(2)).contains(&"/".to_owned()));
        assert!(of("99", "/x").is_empty() && of("30", "/x").is_empty());
    }

    #[test]
    fn this_machines_own_table_is_read() {
        let table = MountTable::read().unwrap();
        let found = table.seen_at(Path::new("/proc/self")).unwrap_err();
        assert!(format!("{found:#}").contains("open /proc/self"), "{found:#}");
        assert!(table.seen_at(Path::new("/proc/version")).unwrap().contains(&"/proc/version".into()));
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(unescape(br"/a\040b\134c\011d\x"), Path::new("/a b\\c\td\\x"));
        assert_eq!(unescape(br"/end\04"), Path::new("/end\\04"));
    }
}
