//! The program that launchers run: this one, through a handle that nobody can write through.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::sys;

/// A handle on this binary. A container's process runs from it for a moment before `execve`, and
/// `/proc/PID/exe` of that moment must lead nowhere that can be written to (CVE-2019-5736).
#[derive(Debug)]
pub(crate) struct Program(OwnedFd);

impl Program {
    /// A read-only mount of the binary.
    pub(crate) fn open() -> Result<Self> {
        sys::read_only_self().map(Self).context("make a read-only mount of this program")
    }

    /// A path that leads to the program in this process and in a child of it until it executes.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::statvfs::{FsFlags, fstatvfs};

    use super::*;

    #[test]
    fn the_program_cannot_be_written_through_its_handle() {
        // Opening it for writing would answer ETXTBSY, since it runs right now: ask the mount.
        let mount = Program(sys::read_only_self().unwrap());
        assert!(fstatvfs(&mount.0).unwrap().flags().contains(FsFlags::ST_RDONLY));
    }
}
