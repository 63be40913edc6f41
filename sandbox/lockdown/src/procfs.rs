//! `/proc`, as far as it can be trusted in a container's mount namespace.
//!
//! The kernel makes `/proc/self` for the process that asks, no matter who mounted the procfs and for
//! whichever pid namespace. So it cannot lie as long as it is the root of a procfs, and no other mount
//! covers a part of it on the way (CVE-2019-16884, CVE-2025-52881). Both are looked at here.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, FsWord, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::beneath::HANDLE;

/// Inode of a procfs's root: `PROC_ROOT_INO`, include/linux/proc_fs.h.
const ROOT_INODE: u64 = 1;

/// A handle on the root of a procfs.
#[derive(Debug)]
pub(crate) struct ProcFs(OwnedFd);

impl ProcFs {
    /// The procfs at `/proc`; `None` where something else is there, or nothing.
    pub(crate) fn open() -> rustix::io::Result<Option<Self>> {
        let Some(root) = open_root("/proc", rustix::fs::PROC_SUPER_MAGIC)? else { return Ok(None) };
        Ok((rustix::fs::fstat(&root)?.st_ino == ROOT_INODE).then_some(Self(root)))
    }

    /// Opens a file or folder of it, such as `self/attr/exec`.
    pub(crate) fn open_file(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        const RESOLVE: ResolveFlags =
            ResolveFlags::BENEATH.union(ResolveFlags::NO_XDEV).union(ResolveFlags::NO_MAGICLINKS);
        rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), RESOLVE)
    }

    /// Reads a file of it, and one byte more than `most` where it has them.
    pub(crate) fn read(&self, path: &str, most: u64) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::from(self.open_file(path, OFlags::RDONLY)?).take(most + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// A handle on the folder at an absolute path; `None` where it is not of that file system.
pub(crate) fn open_root(path: &str, magic: FsWord) -> rustix::io::Result<Option<OwnedFd>> {
    let flags = HANDLE | OFlags::DIRECTORY;
    match rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(root) => Ok((rustix::fs::fstatfs(&root)?.f_type == magic).then_some(root)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error),
    }
}
