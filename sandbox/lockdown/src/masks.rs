//! Checks that procfs and sysfs are where they belong, masked and read-only as planned.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, FsWord, Mode, PROC_SUPER_MAGIC, ResolveFlags, StatVfsMountFlags};
use rustix::io::Errno;

use hardened_sandbox::MaskPlan;

use crate::Failure;
use crate::beneath::{self, HANDLE};
use crate::failure::Mechanism;
use crate::procfs;

/// Magic numbers of file systems: include/uapi/linux/magic.h.
const SYSFS_MAGIC: FsWord = 0x6265_6572;
const TMPFS_MAGIC: FsWord = 0x0102_1994;

/// The device number of `/dev/null`, which masks a file: a folder is masked by an empty tmpfs.
const NULL: u64 = libc::makedev(1, 3);

pub(crate) fn verify(plan: &MaskPlan) -> Result<(), Failure> {
    for (mounted, root, magic) in [(plan.proc, "/proc", PROC_SUPER_MAGIC), (plan.sys, "/sys", SYSFS_MAGIC)] {
        if !mounted {
            continue;
        }
        // A handle on the very file system: what is renamed from now on changes nothing.
        let folder = open_root(root, magic)?;
        for path in below(&plan.masked, root) {
            if let Some(file) = open(&folder, root, path)? {
                verify_masked(&file, root, path)?;
            }
        }
        for path in below(&plan.read_only, root) {
            if let Some(file) = open(&folder, root, path)? {
                verify_read_only(&file, root, path)?;
            }
        }
    }
    Ok(())
}

fn below<'a>(paths: &'a [PathBuf], root: &'a str) -> impl Iterator<Item = &'a Path> {
    paths.iter().filter_map(move |path| path.strip_prefix(root).ok()).filter(|path| !path.as_os_str().is_empty())
}

fn open_root(root: &str, magic: FsWord) -> Result<OwnedFd, Failure> {
    procfs::open_root(root, magic).map_err(|e| Failure::new(Mechanism::Masks, format!("open {root}"), e))?.ok_or_else(
        || Failure::unverified(Mechanism::Masks, format!("something else is mounted at {root}, or nothing")),
    )
}

/// A handle on a path below; `None` where the kernel has no such file. Links of procfs and sysfs are the
/// kernel's.
fn open(folder: &OwnedFd, root: &str, path: &Path) -> Result<Option<OwnedFd>, Failure> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(folder, path, HANDLE, Mode::empty(), resolve) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(Failure::new(Mechanism::Masks, format!("open {root}/{}", path.display()), error)),
    }
}

fn verify_masked(file: &OwnedFd, root: &str, path: &Path) -> Result<(), Failure> {
    let hides = || {
        let found = rustix::fs::fstat(file)?;
        let hides = match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => rustix::fs::fstatfs(file)?.f_type == TMPFS_MAGIC,
            FileType::CharacterDevice => found.st_rdev == NULL,
            FileType::RegularFile
            | FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::BlockDevice
            | FileType::Unknown => false,
        };
        Ok::<_, Errno>(hides && beneath::is_mount_root(file.as_fd())?)
    };
    match hides() {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::unverified(Mechanism::Masks, format!("{root}/{} is not masked", path.display()))),
        Err(error) => Err(Failure::new(Mechanism::Masks, format!("stat {root}/{}", path.display()), error)),
    }
}

fn verify_read_only(file: &OwnedFd, root: &str, path: &Path) -> Result<(), Failure> {
    match rustix::fs::fstatvfs(file) {
        Ok(found) if found.f_flag.contains(StatVfsMountFlags::RDONLY) => Ok(()),
        Ok(_) => Err(Failure::unverified(Mechanism::Masks, format!("{root}/{} is not read-only", path.display()))),
        Err(error) => Err(Failure::new(Mechanism::Masks, format!("fstatvfs {root}/{}", path.display()), error)),
    }
}
