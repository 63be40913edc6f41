//! Paths in a folder, in which the kernel follows no symbolic link: anyone who controls the folder
//! cannot lead elsewhere what is opened.

use std::ffi::OsString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use crate::Failure;
use crate::failure::Mechanism;

/// Symbolic links on one path, as many as the kernel follows: path_resolution(7).
const MAX_LINKS: u32 = 40;

/// A handle on a file: it is looked at, and never opened itself. A device is left alone, and a FIFO
/// has nobody wait.
pub(crate) const HANDLE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// A handle on the root of this process.
pub(crate) fn root() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/", HANDLE | OFlags::DIRECTORY, Mode::empty())?)
}

/// Opens an absolute path below a root; `ELOOP` where a symbolic link is on it: openat2(2), Linux 5.6.
pub(crate) fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    const RESOLVE: ResolveFlags =
        ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);
    let below = path.strip_prefix("/").unwrap_or(path);
    let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    rustix::fs::openat2(root, below, flags | OFlags::CLOEXEC, Mode::empty(), RESOLVE)
}

/// Whether a handle is on the root of a mount: statx(2), Linux 5.8.
pub(crate) fn is_mount_root(file: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let found = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Where a path lies below a root, also where its last parts do not exist yet. Links are read here, and
/// lead no further than to the root.
pub(crate) fn real_path(root: BorrowedFd<'_>, path: &Path) -> Result<PathBuf, Failure> {
    let mut real = PathBuf::from("/");
    let mut followed = 0;
    let mut rest: Vec<PathBuf> = vec![path.to_owned()];
    while let Some(path) = rest.pop() {
        let mut parts = path.components();
        let Some(part) = parts.next() else { continue };
        rest.push(parts.as_path().to_owned());
        match part {
            Component::RootDir => real = PathBuf::from("/"),
            Component::ParentDir => drop(real.pop()),
            Component::CurDir | Component::Prefix(_) => {}
            Component::Normal(name) => {
                let next = real.join(name);
                let target = read_link(root, &next)
                    .map_err(|e| Failure::new(Mechanism::Landlock, format!("look at {}", next.display()), e))?;
                match target {
                    Some(target) if followed < MAX_LINKS => {
                        followed += 1;
                        rest.push(target);
                    }
                    Some(_) | None => real = next,
                }
            }
        }
    }
    Ok(real)
}

/// What a symbolic link says; `None` for what is no link, or not there.
fn read_link(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<Option<PathBuf>> {
    let link = match open(root, path, HANDLE | OFlags::NOFOLLOW) {
        Ok(link) => link,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(error) => return Err(error),
    };
    if FileType::from_raw_mode(rustix::fs::fstat(&link)?.st_mode) != FileType::Symlink {
        return Ok(None);
    }
    match rustix::fs::readlinkat(&link, "", Vec::new()) {
        Ok(target) => Ok(Some(OsString::from_vec(target.into_bytes()).into())),
        // Such as /proc/self of a pid namespace in which this process is not.
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn links_are_followed_as_in_a_root_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir_all(at("real/deep")).unwrap();
        for (target, link) in [
            ("/real", "absolute"),
            ("../absolute/deep", "real/up"),
            ("loop", "loop"),
            ("nowhere/x", "broken"),
            ("../../../real", "out"),
        ] {
            std::os::unix::fs::symlink(target, at(link)).unwrap();
        }
        let root = std::fs::File::open(dir.path()).unwrap();
        for (path, real) in [
            ("/real/deep", "/real/deep"),
            ("/absolute/up/x/../y/./z", "/real/deep/y/z"),
            ("/broken/y", "/nowhere/x/y"),
            ("/real/none/../deep", "/real/deep"),
            ("/out/../../real", "/real"),
            ("/loop", "/loop"),
            ("/", "/"),
        ] {
            assert_eq!(real_path(root.as_fd(), Path::new(path)).unwrap(), Path::new(real), "{path}");
        }
    }

    /// musl's `O_ACCMODE` has the bit of `O_PATH`, which std masks out of custom flags: a handle made
    /// by std would be a file that is open, and waits for a FIFO's other end.
    #[test]
    fn a_handle_opens_nothing_on_any_libc() {
        let dir = tempfile::tempdir().unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        let folder = std::fs::File::open(dir.path()).unwrap();
        let fifo = open(folder.as_fd(), Path::new("/fifo"), HANDLE).unwrap();
        for handle in [fifo, root().unwrap()] {
            assert!(rustix::fs::fcntl_getfl(&handle).unwrap().contains(OFlags::PATH));
        }
    }

    #[test]
    fn a_link_on_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("real")).unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        for path in ["/link", "/link/x", "/real/../link"] {
            assert_eq!(open(root.as_fd(), Path::new(path), HANDLE).unwrap_err(), Errno::LOOP, "{path}");
        }
        assert!(open(root.as_fd(), Path::new("/real/../.."), HANDLE).is_err());
    }
}
