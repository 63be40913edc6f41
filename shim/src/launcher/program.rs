//! The program that launchers run: this one, through a handle that nobody can write through.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::sys;

/// A handle on this binary. A container's process runs from it for a moment before `execve`, and
/// `/proc/PID/exe` of that moment must lead nowhere that can be written to (CVE-2019-5736).
#[derive(Debug)]
pub(crate) struct Program(OwnedFd);

impl Program {
    /// A read-only mount of the binary; where the kernel cannot make one (before Linux 5.12), a
    /// sealed copy in memory.
    pub(crate) fn open() -> Result<Self> {
        sys::read_only_self().map(Self).or_else(|_| Self::sealed_copy())
    }

    fn sealed_copy() -> Result<Self> {
        let mut binary = File::open("/proc/self/exe").context("open this program")?;
        let mut copy = sys::executable_memfd().context("make a memfd")?;
        std::io::copy(&mut binary, &mut copy).context("copy this program into a memfd")?;
        sys::seal(&copy).context("seal the copy of this program")?;
        Ok(Self(copy.into()))
    }

    /// A path that leads to the program in this process and in a child of it until it executes.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use super::*;

    #[test]
    fn the_program_cannot_be_written_through_its_handle() {
        for (program, errno) in [
            (Program::open().unwrap(), libc::EROFS),
            // A sealed memfd may be opened for writing where it is not running, and not written.
            (Program::sealed_copy().unwrap(), libc::EPERM),
        ] {
            let written = OpenOptions::new().write(true).open(program.path()).and_then(|f| f.set_len(0));
            assert_eq!(written.unwrap_err().raw_os_error(), Some(errno));
        }
    }
}
