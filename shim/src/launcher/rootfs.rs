//! The root file system of a container, as containerd asks for it.
//!
//! A container in a user namespace does not reach its image's layers by itself, since its root is nobody on the host;
//! owners are mapped where containerd asks for that.

use std::fs::{self, File, Permissions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use hardened_node::mountinfo::MountTable;

use super::namespaces::user_namespace;
use super::stage::{FOLLOW_NO_LINKS, PRIVATE, Stage, attach_at};
use super::wire::{Create, RootfsMount};
use crate::judged::{identity, identity_of};
use crate::sys::{self, MountChange, ignore};

/// File systems that containerd's snapshotters have root file systems on.
const KINDS: [&str; 7] = ["bind", "btrfs", "erofs", "ext4", "overlay", "xfs", "zfs"];

/// Options of overlay mounts that are understood (Documentation/filesystems/overlayfs.rst). Layers are given by the
/// first two alone.
const OVERLAY_OPTIONS: [&str; 14] = [
    "lowerdir",
    "upperdir",
    "workdir",
    "context",
    "gidmap",
    "index",
    "metacopy",
    "nfs_export",
    "redirect_dir",
    "ro",
    "uidmap",
    "userxattr",
    "volatile",
    "xino",
];

/// Folders that libcontainer mounts or makes nodes in, by path. The image must not say where they are.
const OWN_FOLDERS: [&str; 3] = ["dev", "proc", "sys"];

/// Mounts the root file system, and gives a handle on it. It is not the host's, is cut off from the host's mounts, and
/// has folders where libcontainer needs some.
pub(super) fn mount(stage: &Stage, task: &Create) -> Result<OwnedFd> {
    // Relative to the bundle: OCI runtime spec, "Root".
    let path = task.folder.join(&task.bundle.root);
    let show = path.display();
    let folder = open_folder(&path).with_context(|| format!("root file system {show}"))?;
    if task.rootfs.is_empty() {
        refuse_host(&folder, &path)?;
        refuse_aliases(&path)?;
        let root = sys::clone_mount(&folder, false).with_context(|| format!("copy the mount of {show}"))?;
        attach_at(&root, &stage.rootfs())?;
    } else {
        // containerd's shims mount there, whatever the spec says.
        let expected = task.folder.join("rootfs");
        if path != expected {
            bail!("root file system {show}: root.path is not {}, where containerd has it mounted", expected.display());
        }
        for mount in &task.rootfs {
            mount_one(stage, mount, task.bundle.files_label.as_deref())
                .with_context(|| format!("mount {} {} as the root file system", mount.kind, mount.source))?;
        }
    }
    let root = open_folder(&stage.rootfs()).context("open the root file system")?;
    refuse_host(&root, &path)?;
    sys::change_mount(&root, PRIVATE, true).context("make the root file system's mounts private")?;
    if !task.bundle.root_devices {
        // setuid programs give nothing anyway (no_new_privs), but those with file capabilities that the container does
        // not have cannot be executed at all, unless the kernel passes over the capabilities: capabilities(7).
        let set = libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOSUID;
        let change = MountChange { set, ..MountChange::default() };
        sys::change_mount(&root, change, true)
            .context("open no device of the image, and honour no file capabilities")?;
    }
    refuse_odd_image(&root)?;
    Ok(root)
}

/// From here on no link of the image is followed, magic or not, by whatever code of the host.
pub(super) fn follow_no_links(root: &OwnedFd) -> Result<()> {
    sys::change_mount(root, FOLLOW_NO_LINKS, true).context("follow no links of the image")
}

fn open_folder(path: &Path) -> Result<OwnedFd> {
    let folder = sys::open_without_links(path).map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => anyhow!("it is a symbolic link, or has one on the way"),
        _ => anyhow!(error),
    })?;
    let folder = File::from(folder);
    if !folder.metadata()?.is_dir() {
        bail!("it is not a directory");
    }
    Ok(folder.into())
}

/// Refuses the folder that is the host's `/`, by whichever mount it is seen.
fn refuse_host(folder: &OwnedFd, path: &Path) -> Result<()> {
    let own = fs::metadata("/").context("look at /")?;
    if identity(&own) == identity_of(folder)? {
        bail!("root file system {} is the host's", path.display());
    }
    Ok(())
}

/// Refuses a folder from which the host's `/` is reached: the file system that holds it, mounted elsewhere.
fn refuse_aliases(path: &Path) -> Result<()> {
    let table = MountTable::read().context("read the mount table")?;
    let host = table.locate(sys::open_path(Path::new("/"))?, Path::new("/"))?;
    match table.shown_at(&host).find(|seen| seen != Path::new("/") && seen.starts_with(path)) {
        Some(seen) => bail!("root file system {}: the host's is in it, at {}", path.display(), seen.display()),
        None => Ok(()),
    }
}

/// libcontainer would resolve these names on the host, or fail with less to say.
fn refuse_odd_image(root: &OwnedFd) -> Result<()> {
    for name in OWN_FOLDERS {
        let found = match sys::open_path_in_root(root, Path::new(name)) {
            Ok(found) => File::from(found).metadata().with_context(|| format!("look at the image's /{name}"))?,
            // It is made.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("open the image's /{name}")),
        };
        let what = match () {
            () if found.is_dir() => continue,
            () if found.is_symlink() => "a symbolic link",
            () => "not a folder",
        };
        bail!("the image's /{name} is {what}; a container needs a folder there: rebuild the image with a real /{name}");
    }
    Ok(())
}

fn mount_one(stage: &Stage, mount: &RootfsMount, label: Option<&str>) -> Result<()> {
    refuse_unknown(mount)?;
    let (owners, options) = owners_of(&mount.options)?;
    let mut options = labelled(options, &mount.kind, label);
    for source in sources(mount) {
        let folder = sys::open_path(Path::new(source)).with_context(|| format!("open {source}"))?;
        refuse_host(&folder, Path::new(source))?;
    }
    if mount.kind == "bind" {
        refuse_aliases(Path::new(&mount.source))?;
    }
    let namespace = owners.map(|(uids, gids)| user_namespace(&uids, &gids)).transpose()?;
    if let (Some(namespace), "overlay") = (&namespace, mount.kind.as_str()) {
        map_layers(&mut options, namespace, stage)?;
    }
    let place = stage.rootfs();
    let mounted = containerd_shim::mount::mount_rootfs(Some(&mount.kind), Some(&mount.source), &options, &place);
    // Many layers are mounted from their common folder.
    std::env::set_current_dir("/").context("leave the layers' folder")?;
    mounted?;
    if let Some(namespace) = namespace.filter(|_| mount.kind != "overlay") {
        let whole = sys::open_path(&place)?;
        attach_at(&mapped(&whole, &namespace)?, &place)?;
    }
    Ok(())
}

/// Refuses what may show files of the host in a way that nobody looks at.
fn refuse_unknown(mount: &RootfsMount) -> Result<()> {
    if !KINDS.contains(&mount.kind.as_str()) {
        bail!("a root file system of type {:?} is not supported; expected one of {}", mount.kind, KINDS.join(", "));
    }
    let key = |option: &String| option.split_once('=').map_or(option.as_str(), |(key, _)| key).to_owned();
    let unknown = |key: &String| mount.kind == "overlay" && !OVERLAY_OPTIONS.contains(&key.as_str());
    match mount.options.iter().map(key).find(unknown) {
        Some(key) => bail!("the overlay option {key:?} is not known; expected some of {}", OVERLAY_OPTIONS.join(", ")),
        None => Ok(()),
    }
}

/// Files and folders of the host that a mount makes visible.
fn sources(mount: &RootfsMount) -> impl Iterator<Item = &str> {
    let source = (mount.kind == "bind").then_some(mount.source.as_str());
    let layers = |key: &'static str| mount.options.iter().filter_map(move |o| o.strip_prefix(key));
    let layers = layers("lowerdir=").flat_map(|list| list.split(':')).chain(layers("upperdir="));
    source.into_iter().chain(layers.filter(|_| mount.kind == "overlay"))
}

/// containerd labels a root file system where it knows the label; the sandbox's own it does not.
fn labelled(mut options: Vec<String>, kind: &str, label: Option<&str>) -> Vec<String> {
    if let Some(label) = label
        && kind != "bind"
        && !options.iter().any(|o| o.starts_with("context="))
    {
        options.push(format!("context=\"{label}\""));
    }
    options
}

/// Makes the working directory where the image lacks it, as runc does, and as the container's root. Where that cannot
/// be, the lock-down says that it is missing.
///
/// Before anything follows no links: an image may have one on the way.
pub(super) fn make_directory(root: &OwnedFd, directory: &Path, (uid, gid): (u32, u32)) -> Result<()> {
    sys::become_for_files(uid, gid).context("become the container's root, to make the working directory")?;
    let root = pathrs::Root::from_fd(root.try_clone().context("duplicate the root's handle")?);
    ignore(root.mkdir_all(directory, &Permissions::from_mode(0o755)), "the lock-down says that it is missing");
    sys::become_for_files(0, 0).context("become root again")
}

/// Mounts each layer of an overlay once more with mapped owners, and makes the overlay of those.
/// Its upper folder has mapped owners on disk: containerd makes it so.
fn map_layers(options: &mut [String], namespace: &OwnedFd, stage: &Stage) -> Result<()> {
    let Some(option) = options.iter_mut().find(|o| o.starts_with("lowerdir=")) else { return Ok(()) };
    let mut layers = Vec::new();
    for (number, layer) in option.trim_start_matches("lowerdir=").split(':').enumerate() {
        let folder = sys::open_path(Path::new(layer)).with_context(|| format!("open {layer}"))?;
        let place = stage.attach(&mapped(&folder, namespace)?, &format!("layer.{number}"));
        layers.push(place.with_context(|| layer.to_owned())?.display().to_string());
    }
    *option = format!("lowerdir={}", layers.join(":"));
    Ok(())
}

/// What a handle is on once more, by itself, with its owners mapped.
fn mapped(source: &OwnedFd, namespace: &OwnedFd) -> Result<OwnedFd> {
    let mount = sys::clone_mount(source, false).context("copy the mount")?;
    map_owners(&mount, namespace, false)?;
    Ok(mount)
}

pub(super) fn map_owners(mount: &OwnedFd, namespace: &OwnedFd, all: bool) -> Result<()> {
    sys::map_owners(mount, namespace, all)
        .context("map the owners (the file system, or this kernel, has no id-mapped mounts)")
}

/// Mappings of users and of groups, in lines of user_namespaces(7).
type Owners = (String, String);

/// containerd's `uidmap=` and `gidmap=`, and the options without them. No file system knows those.
fn owners_of(options: &[String]) -> Result<(Option<Owners>, Vec<String>)> {
    let value =
        |key: &str| options.iter().find_map(|o| o.strip_prefix(key)).map(|v| v.replace(':', " ").replace(',', "\n"));
    let owners = match (value("uidmap="), value("gidmap=")) {
        (Some(uids), Some(gids)) => Some((uids, gids)),
        (None, None) => None,
        _ => bail!("the mount options have one of uidmap and gidmap; both are expected, or none"),
    };
    let rest = options.iter().filter(|o| !o.starts_with("uidmap=") && !o.starts_with("gidmap="));
    Ok((owners, rest.cloned().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(list: &[&str]) -> Vec<String> {
        list.iter().map(|&s| s.to_owned()).collect()
    }

    #[test]
    fn containerds_id_mappings_are_no_options_of_the_file_system() {
        let (owners, rest) = owners_of(&strings(&["uidmap=0:65536:9,9:1:1", "ro", "gidmap=0:7:9"])).unwrap();
        assert_eq!(owners, Some(("0 65536 9\n9 1 1".to_owned(), "0 7 9".to_owned())));
        assert_eq!(rest, ["ro"]);
        assert_eq!(owners_of(&strings(&["ro"])).unwrap().0, None);
        assert!(owners_of(&strings(&["uidmap=0:1:1"])).is_err());
    }

    #[test]
    fn the_folders_that_a_mount_shows_are_its_source_or_its_layers() {
        let mount = |kind: &str, options: &[&str]| RootfsMount {
            kind: kind.into(),
            source: "/s".into(),
            options: strings(options),
        };
        let overlay = mount("overlay", &["workdir=/w", "upperdir=/u", "lowerdir=/a:/b"]);
        assert_eq!(sources(&overlay).collect::<Vec<_>>(), ["/a", "/b", "/u"]);
        assert_eq!(sources(&mount("bind", &["rbind"])).collect::<Vec<_>>(), ["/s"]);
    }

    #[test]
    fn layers_are_given_by_options_that_are_looked_at() {
        let refused = |kind: &str, options: &[&str]| {
            refuse_unknown(&RootfsMount { kind: kind.into(), source: "/s".into(), options: strings(options) }).is_err()
        };
        assert!(!refused("overlay", &["index=off", "workdir=/w", "upperdir=/u", "lowerdir=/a:/b", "userxattr", "ro"]));
        assert!(!refused("bind", &["rbind", "nosuid"]));
        assert!(refused("overlay", &["lowerdir+=/"]) && refused("overlay", &["datadir+=/etc"]));
        assert!(refused("devtmpfs", &[]) && refused("", &[]));
    }

    #[test]
    fn the_hosts_root_is_no_containers() {
        let root = sys::open_path(Path::new("/")).unwrap();
        assert!(refuse_host(&root, Path::new("/x")).unwrap_err().to_string().contains("the host's"));
        let other = tempfile::tempdir().unwrap();
        refuse_host(&sys::open_path(other.path()).unwrap(), other.path()).unwrap();
    }

    #[test]
    fn an_image_whose_dev_is_a_link_is_refused_by_name() {
        let image = tempfile::tempdir().unwrap();
        let root = sys::open_path(image.path()).unwrap();
        fs::create_dir(image.path().join("proc")).unwrap();
        refuse_odd_image(&root).unwrap();
        std::os::unix::fs::symlink("/srv/x", image.path().join("dev")).unwrap();
        let error = refuse_odd_image(&root).unwrap_err().to_string();
        assert!(error.starts_with("the image's /dev is a symbolic link"), "{error}");
        fs::remove_file(image.path().join("dev")).unwrap();
        File::create(image.path().join("sys")).unwrap();
        assert!(refuse_odd_image(&root).unwrap_err().to_string().contains("/sys is not a folder"));
    }
}
