//! Which namespaces this process is in, and whether those are the container's.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FsWord, Mode, OFlags};
use rustix::io::Errno;

use hardened_sandbox::bundle::{FileId, NamespaceKind};
use hardened_sandbox::{Namespaces, Placement};

use crate::beneath::HANDLE;
use crate::failure::Mechanism;
use crate::procfs::ProcFs;
use crate::{Failure, sys};

/// Magic number of the files of namespaces: include/uapi/linux/magic.h.
const NSFS_MAGIC: FsWord = 0x6e73_6673;

/// The namespaces of the calling process.
///
/// # Errors
/// The kernel is older than 6.11, and no procfs is at `/proc`.
pub fn own_namespaces() -> Result<Namespaces, Failure> {
    match by_pidfd() {
        Ok(namespaces) => Ok(namespaces),
        // An older kernel; or a filter around this node's runtime denies the call.
        Err(_) => by_procfs("self"),
    }
}

/// The namespaces of a process, by the procfs at `/proc`. The caller sees to it that the pid cannot be
/// given to another process meanwhile: it is that of a child which has not been waited for.
///
/// # Errors
/// No procfs is at `/proc`, or it has no such process.
pub fn namespaces_of(pid: i32) -> Result<Namespaces, Failure> {
    by_procfs(&pid.to_string())
}

/// Fails unless this process is where it must be.
pub(crate) fn verify(placement: &Placement) -> Result<(), Failure> {
    compare(placement, &own_namespaces()?)
}

fn compare(placement: &Placement, own: &Namespaces) -> Result<(), Failure> {
    for kind in NamespaceKind::ALL {
        let (wanted, foreign) = (placement.namespaces.get(&kind), placement.foreign.get(&kind));
        let problem = match (own.get(&kind), wanted, foreign) {
            // A kernel that is built without such namespaces.
            (None, None, None) => continue,
            (Some(own), Some(wanted), _) if own == wanted => continue,
            (Some(own), None, Some(foreign)) if own != foreign => continue,
            (Some(_), None, Some(_)) => "is the runtime's own",
            (Some(_), None, None) => "is not one that the container was given",
            (_, Some(_), _) | (None, None, Some(_)) => "is not the container's",
        };
        return Err(Failure::unverified(
            Mechanism::Namespaces,
            format!("the {} namespace {problem}", kind.file_name()),
        ));
    }
    Ok(())
}

/// Without any name: a pidfd has its process's namespaces since Linux 6.11.
fn by_pidfd() -> std::io::Result<Namespaces> {
    let this = sys::pidfd_of_self()?;
    let mut namespaces = Namespaces::new();
    for kind in NamespaceKind::ALL {
        match sys::namespace_of(this.as_fd(), kind) {
            Ok(namespace) => drop(namespaces.insert(kind, identity(namespace.as_fd())?)),
            // The kernel is built without such namespaces.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(namespaces)
}

fn by_procfs(process: &str) -> Result<Namespaces, Failure> {
    let fail = |what: &str, e: Errno| Failure::new(Mechanism::Namespaces, format!("open /proc{what}"), e);
    let missing = || {
        let problem = "no procfs is at /proc to show which namespaces the process is in: mount proc at /proc in the \
                       container (Linux 6.11 needs none)";
        Failure::unverified(Mechanism::Namespaces, problem)
    };
    let proc = ProcFs::open().map_err(|e| fail("", e))?.ok_or_else(missing)?;
    let folder = format!("{process}/ns");
    let folder = proc.open_file(&folder, HANDLE | OFlags::DIRECTORY).map_err(|e| fail(&format!("/{folder}"), e))?;
    let mut namespaces = Namespaces::new();
    for kind in NamespaceKind::ALL {
        let path = format!("/{process}/ns/{}", kind.file_name());
        // A magic link, by which the kernel leads to the namespace itself.
        match rustix::fs::openat(&folder, kind.file_name(), HANDLE, Mode::empty()) {
            Ok(namespace) => drop(namespaces.insert(kind, identity(namespace.as_fd()).map_err(|e| fail(&path, e))?)),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(fail(&path, error)),
        }
    }
    Ok(namespaces)
}

fn identity(namespace: BorrowedFd<'_>) -> rustix::io::Result<FileId> {
    if rustix::fs::fstatfs(namespace)?.f_type != NSFS_MAGIC {
        return Err(Errno::INVAL);
    }
    let found = rustix::fs::fstat(namespace)?;
    Ok(FileId { device: found.st_dev, inode: found.st_ino })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_the_same_by_pidfd_and_by_procfs() {
        let own = own_namespaces().unwrap();
        assert_eq!(own.len(), NamespaceKind::ALL.len());
        assert_eq!(own, by_procfs("self").unwrap());
        assert_eq!(own, namespaces_of(i32::try_from(std::process::id()).unwrap()).unwrap());
        match by_pidfd() {
            Ok(found) => assert_eq!(found, own),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOTTY), "an older kernel"),
        }
    }

    #[test]
    fn a_process_elsewhere_fails() {
        let own = own_namespaces().unwrap();
        let other = FileId { device: 4, inode: 1 };
        let exec = Placement::of_exec(own.clone());
        assert_eq!(compare(&exec, &own), Ok(()));
        for kind in NamespaceKind::ALL {
            let failure = |placement: &Placement| compare(placement, &own).unwrap_err().to_string();
            let name = kind.file_name();
            let mut placement = exec.clone();
            placement.namespaces.insert(kind, other);
            assert_eq!(failure(&placement), format!("namespaces: the {name} namespace is not the container's"));
            placement.namespaces.remove(&kind);
            assert!(failure(&placement).contains("is not one that the container was given"));
            placement.foreign.insert(kind, other);
            assert_eq!(compare(&placement, &own), Ok(()));
            placement.foreign.insert(kind, own[&kind]);
            assert_eq!(failure(&placement), format!("namespaces: the {name} namespace is the runtime's own"));
            let mut without = own.clone();
            without.remove(&kind);
            assert!(compare(&placement, &without).is_err() && compare(&exec, &without).is_err());
        }
    }
}
