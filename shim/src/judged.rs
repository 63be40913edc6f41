//! Files by their identity: what is used is the very file that was judged, whatever its path leads to by now.

use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use hardened_sandbox::bundle::FileId;

use crate::sys;

/// Which file was looked at.
pub(crate) fn identity(found: &Metadata) -> FileId {
    FileId { device: found.dev(), inode: found.ino() }
}

/// Which file a handle is on.
pub(crate) fn identity_of(file: &OwnedFd) -> Result<FileId> {
    Ok(identity(&File::from(file.try_clone()?).metadata().context("look at it")?))
}

/// Opens what was judged at this path, which had no symbolic link in it then.
pub(crate) fn open(path: &Path, judged: FileId) -> Result<OwnedFd> {
    let file = sys::open_without_links(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => anyhow!("it became a symbolic link after it was judged"),
        _ => anyhow!(error).context("open it"),
    })?;
    if identity_of(&file)? == judged {
        Ok(file)
    } else {
        bail!("it is another file than the one that was judged: it was replaced meanwhile")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_that_was_replaced_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = std::fs::canonicalize(folder.path()).unwrap().join("v");
        std::fs::create_dir(&path).unwrap();
        let judged = identity_of(&sys::open_path(&path).unwrap()).unwrap();
        open(&path, judged).unwrap();
        std::fs::rename(&path, path.with_extension("old")).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(open(&path, judged).unwrap_err().to_string().contains("another file than the one"));
        std::fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink(path.with_extension("old"), &path).unwrap();
        assert!(open(&path, judged).unwrap_err().to_string().contains("symbolic link"));
    }
}
