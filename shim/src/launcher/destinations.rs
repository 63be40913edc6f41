//! Where the mounts of a container go: the image's links on the way are followed here, inside of the image, since in
//! the jail nobody follows them. Where there is none left, nothing leads anywhere else.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use hardened_sandbox::bundle::Mount;

use super::volumes::Staged;
use crate::sys;

/// Links on one path, as many as the kernel follows: path_resolution(7).
const MAX_LINKS: u32 = 40;

/// What is mounted where, so far.
struct Mounted<'a> {
    at: PathBuf,
    /// A file system of the host's; one that libcontainer makes is empty.
    volume: Option<&'a OwnedFd>,
}

/// Rewrites the destinations of mounts so that no part of them is a link of the image.
///
/// # Errors
/// A link of a volume is on the way: the volume's other users could change it at any time.
pub(super) fn resolve(root: &OwnedFd, volumes: &[Staged], mounts: &mut [Mount]) -> Result<()> {
    let mut mounted: Vec<Mounted<'_>> = Vec::new();
    for (number, mount) in mounts.iter_mut().enumerate() {
        let at = resolve_one(root, &mounted, &mount.destination)
            .with_context(|| format!("mount at {}", mount.destination.display()))?;
        refuse_place(&mount.destination, &at)?;
        mount.destination.clone_from(&at);
        let volume = volumes.iter().find(|volume| volume.number == number).map(|volume| &volume.root);
        mounted.push(Mounted { at, volume });
    }
    Ok(())
}

/// Rewrites paths that are masked or read-only so that no part of them is a link of the image: libcontainer passes over
/// what it finds to be one, as if nothing were there. Below `/proc` and `/sys` no link is the image's.
///
/// # Errors
/// A link of a volume is on the way.
pub(super) fn resolve_masks(root: &OwnedFd, volumes: &[Staged], mounts: &[Mount], masks: &mut [String]) -> Result<()> {
    let volume = |number| volumes.iter().find(|volume| volume.number == number).map(|volume| &volume.root);
    let mounted = mounts.iter().enumerate();
    let mounted: Vec<Mounted<'_>> =
        mounted.map(|(number, mount)| Mounted { at: mount.destination.clone(), volume: volume(number) }).collect();
    for mask in masks.iter_mut().filter(|mask| !["/proc", "/sys"].iter().any(|own| Path::new(mask).starts_with(own))) {
        let at = resolve_one(root, &mounted, Path::new(mask)).with_context(|| format!("mask {mask}"))?;
        *mask = at.into_os_string().into_string().map_err(|at| anyhow!("mask {mask}: {} is no UTF-8", at.display()))?;
    }
    Ok(())
}

/// Where a path leads in the image alone.
pub(super) fn in_image(root: &OwnedFd, path: &Path) -> Result<PathBuf> {
    resolve_one(root, &[], path)
}

/// What was judged by its name must not lead where the runtime's own file systems are.
fn refuse_place(asked: &Path, at: &Path) -> Result<()> {
    if at == Path::new("/") {
        bail!("mount at {}: it leads to the root file system itself", asked.display());
    }
    match ["/dev", "/proc", "/sys"].into_iter().find(|own| at.starts_with(own) && !asked.starts_with(own)) {
        Some(own) => bail!(
            "mount at {}: the image's links lead to {}, and what is in {own} is the runtime's; mount it elsewhere",
            asked.display(),
            at.display()
        ),
        None => Ok(()),
    }
}

fn resolve_one(root: &OwnedFd, mounted: &[Mounted<'_>], destination: &Path) -> Result<PathBuf> {
    let mut real = PathBuf::from("/");
    let mut rest = names(destination);
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            real.pop();
            continue;
        }
        // The last that was mounted on the way hides the others.
        let over = mounted.iter().rev().find(|mount| real.starts_with(&mount.at));
        let next = real.join(&name);
        let (tree, path) = match over {
            None => (root, next.as_path()),
            Some(Mounted { at, volume: Some(volume) }) => (*volume, next.strip_prefix(at).unwrap_or(&next)),
            Some(Mounted { volume: None, .. }) => {
                real = next;
                continue;
            }
        };
        let found = match sys::open_path_in_root(tree, path) {
            Ok(found) => found,
            // It is made.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                real = next;
                continue;
            }
            Err(error) => return Err(error).with_context(|| format!("open {}", next.display())),
        };
        if !File::from(found.try_clone().context("duplicate its handle")?)
            .metadata()
            .context("look at it")?
            .is_symlink()
        {
            real = next;
            continue;
        }
        if over.is_some() {
            bail!(
                "{} is a symbolic link inside of a volume, which may change at any time; mount it at the place that \
                 the link leads to",
                next.display()
            );
        }
        links += 1;
        if links > MAX_LINKS {
            bail!("too many symbolic links on the way");
        }
        let target = sys::read_link(&found).with_context(|| format!("read the link {}", next.display()))?;
        if target.is_absolute() {
            real = PathBuf::from("/");
        }
        for name in names(&target).into_iter().rev() {
            rest.push_front(name);
        }
    }
    Ok(real)
}

fn names(path: &Path) -> VecDeque<OsString> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsStr::from_bytes(b"..").to_owned()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use hardened_sandbox::bundle::{FileId, MountFlags, MountKind};

    use super::*;

    fn mount(destination: &str) -> Mount {
        Mount {
            destination: destination.into(),
            kind: MountKind::Sysfs,
            flags: MountFlags::EMPTY,
            recursive_flags: MountFlags::EMPTY,
        }
    }

    #[test]
    fn links_of_the_image_are_followed_inside_of_it_and_missing_tails_are_kept() {
        let image = tempfile::tempdir().unwrap();
        let at = |name: &str| image.path().join(name);
        fs::create_dir_all(at("real/deep")).unwrap();
        fs::create_dir(at("dev")).unwrap();
        for (target, link) in [
            ("/real", "absolute"),
            ("../absolute/deep", "real/up"),
            ("../../../../etc", "outside"),
            ("nowhere/x", "broken"),
            ("/run/shm", "dev/shm"),
            ("loop", "loop"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        let root = sys::open_path(image.path()).unwrap();
        for (asked, found) in [
            ("/real/deep", "/real/deep"),
            ("/absolute/up/x", "/real/deep/x"),
            ("/outside/hosts", "/etc/hosts"),
            ("/broken/y", "/nowhere/x/y"),
            ("/dev/shm", "/run/shm"),
        ] {
            assert_eq!(resolve_one(&root, &[], Path::new(asked)).unwrap(), Path::new(found), "{asked}");
        }
        assert!(resolve_one(&root, &[], Path::new("/loop/x")).is_err());
        // What libcontainer mounts there hides the image's link.
        let mut mounts = [mount("/dev"), mount("/dev/shm"), mount("/absolute/deep")];
        resolve(&root, &[], &mut mounts).unwrap();
        assert_eq!(mounts.map(|m| m.destination), ["/dev", "/dev/shm", "/real/deep"].map(PathBuf::from));
        let mut masks = ["/absolute/up/x", "/proc/kcore", "/dev/shm/y"].map(str::to_owned);
        resolve_masks(&root, &[], &[mount("/dev")], &mut masks).unwrap();
        assert_eq!(masks, ["/real/deep/x", "/proc/kcore", "/dev/shm/y"]);
        assert!(resolve_masks(&root, &[], &[], &mut ["/loop".to_owned()]).is_err());
        for (target, link) in [("/", "top"), ("dev", "tools"), ("/proc/sys/kernel", "kernel")] {
            symlink(target, at(link)).unwrap();
            assert!(resolve(&root, &[], &mut [mount(&format!("/{link}"))]).is_err(), "{link}");
        }
    }

    #[test]
    fn a_link_inside_of_a_volume_is_not_followed() {
        let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(volume.path().join("plain")).unwrap();
        symlink("/etc", volume.path().join("link")).unwrap();
        let open = |path: &Path| sys::open_path(path).unwrap();
        let staged = Staged {
            number: 0,
            place: "/unused".into(),
            root: open(volume.path()),
            file: FileId { device: 0, inode: 0 },
            follows_no_links: false,
        };
        let root = open(image.path());
        let mut mounts = [mount("/v"), mount("/v/plain/x")];
        resolve(&root, std::slice::from_ref(&staged), &mut mounts).unwrap();
        assert_eq!(mounts[1].destination, Path::new("/v/plain/x"));
        let error = resolve(&root, &[staged], &mut [mount("/v"), mount("/v/link/x")]).unwrap_err();
        assert!(format!("{error:#}").contains("/v/link is a symbolic link inside of a volume"), "{error:#}");
    }
}
