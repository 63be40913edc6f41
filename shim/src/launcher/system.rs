//! Folders of the image with mounts of their own over them. System folders are read-only: so not even their metadata can
//! be changed, and what lies beside them is the image's to write. From others nothing is executed: Landlock has no right
//! for mmap(2), by which a dynamic loader executes.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hardened_sandbox::bundle::{Mount, SystemFolders};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, umount2};
use nix::unistd::fchdir;
use rustix::fs::{Dir, FileType};

use super::destinations;
use crate::sys::{self, MountChange};

/// Folders in `/usr` that are kept writable. An image with more has the others read-only.
const MAX_WRITABLE: usize = 64;

/// A folder of the image that is mounted over itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cover {
    at: PathBuf,
    read_only: bool,
    no_execute: bool,
}

/// What is mounted over itself, in order, where the links of the image lead. To be called before any volume is mounted
/// there.
pub(super) fn find(root: &OwnedFd, folders: &SystemFolders) -> Result<Vec<Cover>> {
    let real = |folders: &[PathBuf]| -> Result<Vec<PathBuf>> {
        let mut real = Vec::new();
        for folder in folders {
            let at = destinations::in_image(root, folder).with_context(|| format!("look at {}", folder.display()))?;
            // The whole of the image is no folder of it.
            if at != Path::new("/") {
                real.push(at);
            }
        }
        Ok(real)
    };
    let alone = real(&folders.alone)?;
    // By path: a folder comes before those in it.
    let mut read_only: BTreeMap<PathBuf, bool> =
        real(&folders.whole)?.into_iter().chain(alone.iter().cloned()).map(|at| (at, true)).collect();
    for folder in &alone {
        for inner in folders_in(root, folder)? {
            read_only.entry(inner).or_insert(false);
        }
    }
    let no_execute = real(&folders.no_execute)?;
    for at in &no_execute {
        let around = at.ancestors().find_map(|above| read_only.get(above)).copied().unwrap_or(false);
        read_only.entry(at.clone()).or_insert(around);
    }
    let mut covers: Vec<Cover> = Vec::new();
    for (at, read_only) in read_only {
        let no_execute = no_execute.iter().any(|tree| at.starts_with(tree));
        let around = covers.iter().rfind(|cover| at.starts_with(&cover.at));
        // What lies in one with the same rights has them too.
        if around.map_or((false, false), |cover| (cover.read_only, cover.no_execute)) != (read_only, no_execute) {
            covers.push(Cover { at, read_only, no_execute });
        }
    }
    Ok(covers)
}

/// The folders in a folder of the image, but for links.
fn folders_in(root: &OwnedFd, folder: &Path) -> Result<Vec<PathBuf>> {
    let show = || format!("list the image's {}", folder.display());
    let handle = match sys::open_path_in_root(root, folder) {
        Ok(handle) => handle,
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(show),
    };
    let listing = match sys::open_in(&handle, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY) {
        Ok(listing) => listing,
        Err(error) if is_missing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(show),
    };
    let mut found = Vec::new();
    // Not by nix: its listing ends where the kernel answers with an error, as if there were no more.
    for entry in Dir::new(listing).with_context(show)? {
        let entry = entry.with_context(show)?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == FileType::Directory && name != b"." && name != b".." && found.len() < MAX_WRITABLE {
            found.push(folder.join(std::ffi::OsStr::from_bytes(name)));
        }
    }
    found.sort();
    Ok(found)
}

/// Covers them, from within the container's mounts. A volume that is mounted at one, or around it, is left as it is, and
/// so are those below.
pub(super) fn cover(root: &OwnedFd, covers: &[Cover], mounts: &[Mount]) -> Result<()> {
    let image = sys::mount_id(root).context("look at the root file system")?;
    let mut copies = Vec::new();
    for cover in covers {
        let show = || format!("look at {}", cover.at.display());
        match sys::open_path_in_root(root, &cover.at) {
            Ok(folder) if sys::mount_id(&folder).with_context(show)? == image => {
                copies.push((cover, copy(cover, &folder)?))
            }
            Ok(_) => {}
            Err(error) if is_missing(&error) => {}
            Err(error) => return Err(error).with_context(show),
        }
    }
    for (cover, copy) in copies {
        let show = || format!("mount {} over itself", cover.at.display());
        let place = sys::open_path_in_root(root, &cover.at).with_context(show)?;
        let covered = below(root, cover, sys::mount_id(&place).with_context(show)?, mounts);
        sys::cover(&place, &copy).with_context(show)?;
        for (folder, name) in &covered {
            sys::ignore(unmount(root, folder, name), "what is covered is out of reach, and only listed");
        }
    }
    Ok(())
}

/// A copy of an image's folder with all that is mounted below it, and with the cover's rights.
fn copy(cover: &Cover, folder: &OwnedFd) -> Result<OwnedFd> {
    let show = || format!("copy the mount of {}", cover.at.display());
    let copy = sys::clone_mount(folder, true).with_context(show)?;
    let flag = |is_set: bool, flag: u64| if is_set { flag } else { 0 };
    let set = flag(cover.read_only, libc::MOUNT_ATTR_RDONLY) | flag(cover.no_execute, libc::MOUNT_ATTR_NOEXEC);
    sys::change_mount(&copy, MountChange { set, ..MountChange::default() }, false).with_context(show)?;
    Ok(copy)
}

/// The mounts that a cover is to hide, by the folder that each is in: its copy of them takes their place, and a program
/// that lists mounts (`df`) is to see each once. Mounts that nobody named stay, below.
fn below<'a>(root: &OwnedFd, cover: &Cover, around: u64, mounts: &'a [Mount]) -> Vec<(OwnedFd, &'a Path)> {
    let in_cover = mounts.iter().map(|mount| mount.destination.as_path()).filter(|at| at.starts_with(&cover.at));
    in_cover
        .filter_map(|at| {
            let (folder, name) = (sys::open_path_in_root(root, at.parent()?).ok()?, Path::new(at.file_name()?));
            let mount = sys::open_path_in_root(root, at).ok()?;
            // What is mounted in a volume goes with it.
            let is_next = sys::mount_id(&folder).ok()? == around && sys::mount_id(&mount).ok()? != around;
            is_next.then_some((folder, name))
        })
        .collect()
}

/// Unmounts what is mounted at a name in a folder, wherever that is by now. No link is followed.
fn unmount(root: &OwnedFd, folder: &OwnedFd, name: &Path) -> nix::Result<()> {
    fchdir(folder.as_raw_fd())?;
    let unmounted = umount2(name, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW);
    fchdir(root.as_raw_fd())?;
    unmounted
}

/// The image has no such folder: nothing, or a file, or one in place of a folder above it.
fn is_missing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn folders_are_found_where_the_images_links_lead_and_in_order() {
        let image = tempfile::tempdir().unwrap();
        for folder in ["usr/bin", "usr/share", "usr/local/bin", "opt/lib/x"] {
            fs::create_dir_all(image.path().join(folder)).unwrap();
        }
        fs::write(image.path().join("usr/file"), "").unwrap();
        for (target, link) in [
            ("usr/bin", "bin"),
            ("../../../opt/lib", "lib"),
            ("/opt/lib/x", "lib64"),
            ("/", "boot"),
            ("/etc", "usr/etc"),
            ("tmp/x", "libx32"),
        ] {
            symlink(target, image.path().join(link)).unwrap();
        }
        let root = sys::open_path(image.path()).unwrap();
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect();
        let whole = paths(&["/bin", "/usr/bin", "/lib", "/lib64", "/libx32", "/boot", "/sbin", "/usr/local/bin"]);
        let no_execute = paths(&["/tmp", "/usr/share/x", "/usr/bin/y", "/opt"]);
        let found = find(&root, &SystemFolders { whole, alone: paths(&["/usr"]), no_execute }).unwrap();
        let found: Vec<_> = found.iter().map(|c| (c.at.to_str().unwrap(), c.read_only, c.no_execute)).collect();
        let expected = [
            ("/opt", false, true),
            ("/opt/lib", true, true),
            ("/sbin", true, false),
            // A link of the image to what is in it does not keep a folder from being one without programs.
            ("/tmp", false, true),
            ("/tmp/x", true, true),
            ("/usr", true, false),
            ("/usr/bin/y", true, true),
            ("/usr/local", false, false),
            ("/usr/local/bin", true, false),
            ("/usr/share", false, false),
            ("/usr/share/x", false, true),
        ];
        assert_eq!(found, expected);
    }
}
