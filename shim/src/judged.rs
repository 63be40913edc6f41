//! Files by their identity: what is used is the very file that was judged, whatever its path leads to by now.

use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use hardened_sandbox::bundle::FileId;

use nix::fcntl::OFlag;

use crate::sys;

/// Which file was looked at.
pub(crate) fn identity(found: &Metadata) -> FileId {
    FileId { device: found.dev(), inode: found.ino() }
}

/// Which file a handle is on.
pub(crate) fn identity_of(file: &OwnedFd) -> Result<FileId> {
    Ok(identity(&File::from(file.try_clone().context("duplicate its handle")?).metadata().context("look at it")?))
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

/// Folders on the way up that are looked at.
const MAX_DEPTH: usize = 4096;

/// Whether a folder lies in another one, or is it, whatever mount it was found by: by the tree of their file system.
///
/// # Errors
/// They are of different file systems, or of one that cannot tell.
pub(crate) fn is_inside(folder: &OwnedFd, other: &OwnedFd) -> Result<bool> {
    let other = sys::open_in(other, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY).context("open it")?;
    let top = identity(&other.metadata().context("look at it")?);
    let mut at = sys::reopen_in_mount(&other, folder).context("open it by its handle")?;
    if identity_of(&at)? != identity_of(folder)? {
        bail!("another file system");
    }
    for _ in 0..MAX_DEPTH {
        let here = identity_of(&at)?;
        if here == top {
            return Ok(true);
        }
        // Not further than the root of the file system.
        at = sys::parent(&at).context("open the folder above")?;
        if identity_of(&at)? == here {
            return Ok(false);
        }
    }
    bail!("too many folders above it")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_inside_of_those_above_it_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = std::fs::canonicalize(folder.path()).unwrap();
        std::fs::create_dir_all(path.join("a/b/c")).unwrap();
        std::fs::create_dir_all(path.join("x")).unwrap();
        let open = |name: &str| sys::open_path(&path.join(name)).unwrap();
        for (inner, outer, expected) in
            [("a/b/c", "a", true), ("a", "a", true), ("a", "a/b", false), ("x", "a", false), ("a/b", "x", false)]
        {
            assert_eq!(is_inside(&open(inner), &open(outer)).unwrap(), expected, "{inner} in {outer}");
        }
        assert!(is_inside(&sys::open_path(Path::new("/proc")).unwrap(), &open("a")).is_err());
    }

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
