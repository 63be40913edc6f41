//! Paths of the host, followed to where they lead.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// Symbolic links on one path, as many as the kernel follows: path_resolution(7).
const MAX_LINKS: usize = 40;

/// A handle on what is at a path, by which it is neither read nor written, and in which no part is a
/// symbolic link: openat2(2), Linux 5.6.
///
/// # Errors
/// What openat2 says: `ELOOP` where there is a link.
pub fn open_without_links(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    Ok(openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS)?)
}

/// Where a path of the policy leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The path without links.
    pub path: PathBuf,
    /// Whether no container can have made it lead there: no link on the way lies in a place to which
    /// another of the policy's paths leads, and which a container may have for writing.
    pub is_trusted: bool,
}

/// Where paths of the policy lead, symbolic links followed. What does not exist leads nowhere.
#[must_use]
pub fn resolve_all<'a>(paths: impl Iterator<Item = &'a Path>) -> BTreeMap<PathBuf, Resolved> {
    let found: Vec<(&Path, Followed)> = paths.filter_map(|path| Some((path, follow(path).ok()?))).collect();
    let is_trusted = |followed: &Followed| {
        followed.links.iter().all(|link| found.iter().all(|(_, other)| !link.starts_with(&other.path)))
    };
    let resolve = |(path, followed): &(&Path, Followed)| {
        let resolved = Resolved { path: followed.path.clone(), is_trusted: is_trusted(followed) };
        ((*path).to_owned(), resolved)
    };
    found.iter().map(resolve).collect()
}

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
struct Followed {
    path: PathBuf,
    /// The links on the way, each without a link before it.
    links: Vec<PathBuf>,
}

fn follow(path: &Path) -> io::Result<Followed> {
    let mut followed = Followed { path: PathBuf::from("/"), links: Vec::new() };
    let mut rest = vec![path.to_owned()];
    while let Some(path) = rest.pop() {
        let mut parts = path.components();
        let Some(part) = parts.next() else { continue };
        rest.push(parts.as_path().to_owned());
        match part {
            Component::RootDir => followed.path = PathBuf::from("/"),
            Component::ParentDir => drop(followed.path.pop()),
            Component::CurDir | Component::Prefix(_) => {}
            Component::Normal(name) => {
                let next = followed.path.join(name);
                if !next.symlink_metadata()?.is_symlink() {
                    followed.path = next;
                    continue;
                }
                if followed.links.len() == MAX_LINKS {
                    return Err(io::Error::from_raw_os_error(libc::ELOOP));
                }
                rest.push(next.read_link()?);
                followed.links.push(next);
            }
        }
    }
    Ok(followed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_that_a_container_may_have_made_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let at = |name: &str| root.join(name);
        for folder in ["disk/data", "granted", "other"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        symlink(at("disk"), at("mnt")).unwrap();
        symlink("/etc", at("granted/planted")).unwrap();
        symlink("loop", at("loop")).unwrap();
        let alone = |name: &str| resolve_all(std::iter::once(at(name).as_path())).remove(&at(name));
        let leads = |path: PathBuf, is_trusted| Some(Resolved { path, is_trusted });
        assert_eq!(alone("mnt/data"), leads(at("disk/data"), true));
        assert_eq!(alone("granted/planted"), leads("/etc".into(), true));
        assert_eq!((alone("loop"), alone("nowhere")), (None, None));
        let all = ["granted", "granted/planted", "mnt/data", "other"].map(at);
        let mut found = resolve_all(all.iter().map(PathBuf::as_path));
        assert_eq!(found.remove(&at("granted/planted")), leads("/etc".into(), false));
        assert!(found.len() == 3 && found.values().all(|other| other.is_trusted), "{found:?}");
    }

    #[test]
    fn a_handle_reads_nothing_and_follows_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().canonicalize().unwrap().join("link");
        symlink("/dev/null", &link).unwrap();
        assert_eq!(open_without_links(&link).unwrap_err().raw_os_error(), Some(libc::ELOOP));
        let handle = open_without_links(Path::new("/dev/null")).unwrap();
        assert!(rustix::fs::fcntl_getfl(&handle).unwrap().contains(OFlags::PATH));
    }
}
