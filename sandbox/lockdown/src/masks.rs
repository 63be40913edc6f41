//! Checks that procfs and sysfs are where they belong, masked and read-only as planned.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, PROC_SUPER_MAGIC, SYSFS_MAGIC, TMPFS_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use hardened_sandbox::MaskPlan;

use crate::{Failure, sys};

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

fn open_root(root: &str, magic: FsType) -> Result<File, Failure> {
    let step = || format!("open {root}");
    let folder = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_NOFOLLOW | libc::O_DIRECTORY | libc::O_CLOEXEC)
        .open(root)
        .map_err(|e| Failure::new("masks", step(), &e))?;
    let found = fstatfs(&folder).map_err(|e| Failure::new("masks", format!("fstatfs {root}"), &e.into()))?;
    if found.filesystem_type() == magic {
        Ok(folder)
    } else {
        Err(Failure::unverified("masks", format!("something else is mounted at {root}, or nothing")))
    }
}

/// A handle on a path below; `None` where the kernel has no such file.
fn open(folder: &File, root: &str, path: &Path) -> Result<Option<File>, Failure> {
    match sys::open_beneath(folder.as_fd(), path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(error) => Err(Failure::new("masks", format!("open {root}/{}", path.display()), &error)),
    }
}

fn verify_masked(file: &File, root: &str, path: &Path) -> Result<(), Failure> {
    let fail = |e: &std::io::Error| Failure::new("masks", format!("stat {root}/{}", path.display()), e);
    let found = file.metadata().map_err(|e| fail(&e))?;
    let hides = if found.is_dir() {
        fstatfs(file).map_err(|e| fail(&e.into()))?.filesystem_type() == TMPFS_MAGIC
    } else {
        found.file_type().is_char_device() && found.rdev() == NULL
    };
    if hides && sys::is_mount_root(file.as_fd()).map_err(|e| fail(&e))? {
        Ok(())
    } else {
        Err(Failure::unverified("masks", format!("{root}/{} is not masked", path.display())))
    }
}

fn verify_read_only(file: &File, root: &str, path: &Path) -> Result<(), Failure> {
    let found =
        fstatvfs(file).map_err(|e| Failure::new("masks", format!("fstatvfs {root}/{}", path.display()), &e.into()))?;
    if found.flags().contains(FsFlags::ST_RDONLY) {
        Ok(())
    } else {
        Err(Failure::unverified("masks", format!("{root}/{} is not read-only", path.display())))
    }
}
