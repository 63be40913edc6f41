//! What a program says.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A fifo for a program's output.
pub(super) struct Stream {
    pub(super) path: PathBuf,
    file: File,
}

impl Stream {
    pub(super) fn make(path: &Path) -> Result<Self> {
        nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).with_context(|| format!("make {}", path.display()))?;
        let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// What has come.
    pub(super) fn read(&self) -> Result<String> {
        let mut said = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match (&self.file).read(&mut buffer) {
                Ok(count) => said.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(String::from_utf8_lossy(&said).into_owned())
    }
}
