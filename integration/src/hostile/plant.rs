//! A case on disk: image, volumes and bundle.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::case::{Case, Entry, Kind, bytes};
use super::host::{Sentinels, mark};
use super::node::node;

/// Folders of every image.
const FOLDERS: &[&str] =
    &["bin", "dev", "proc", "sys", "etc", "run", "tmp", "var", "srv", "root", "usr/bin", "lib", "work"];

/// Makes an image's files: busybox by a hard link, and what is hostile about them.
pub(super) fn image(root: &Path, busybox: &Path, case: &Case, sentinels: &Sentinels) -> Result<()> {
    for folder in FOLDERS {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::hard_link(busybox, root.join("bin/busybox")).context("link busybox")?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\n")?;
    fs::write(root.join("etc/hosts"), "127.0.0.1 localhost\n")?;
    if case.mirrored {
        for folder in sentinels.all() {
            fs::create_dir_all(root.join(folder.strip_prefix("/")?).join("folder"))?;
        }
    }
    entries(root, &case.image, sentinels)
}

/// Makes these entries in a folder. What cannot be in a folder, such as a name that is too long, is
/// left out.
pub(super) fn entries(root: &Path, entries: &[Entry], sentinels: &Sentinels) -> Result<()> {
    for entry in entries {
        match make(root, entry, sentinels) {
            Ok(()) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENAMETOOLONG | libc::ENOTDIR | libc::EEXIST)) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {}
            Err(error) => return Err(error).with_context(|| format!("make {entry:?} in {}", root.display())),
        }
    }
    Ok(())
}

/// Never follows a link, which may lead to the host.
fn make(root: &Path, entry: &Entry, sentinels: &Sentinels) -> io::Result<()> {
    let mut path = root.to_owned();
    let name = bytes(&entry.path);
    let mut parts = Path::new(&name).components().filter(|part| matches!(part, Component::Normal(_))).peekable();
    while let Some(part) = parts.next() {
        path.push(part);
        let found = fs::symlink_metadata(&path);
        match (parts.peek(), found) {
            (Some(_), Ok(found)) if found.is_dir() => {}
            (Some(_), Ok(_)) => return Err(io::Error::from_raw_os_error(libc::ENOTDIR)),
            (Some(_), Err(_)) => fs::create_dir(&path)?,
            (None, Ok(found)) if found.is_dir() => fs::remove_dir_all(&path)?,
            (None, Ok(_)) => fs::remove_file(&path)?,
            (None, Err(_)) => {}
        }
    }
    match &entry.kind {
        Kind::Link(target) => symlink(link(target, sentinels), &path),
        Kind::Fifo => node(&path, libc::S_IFIFO, 0),
        Kind::Socket => node(&path, libc::S_IFSOCK, 0),
        Kind::Character(major, minor) => node(&path, libc::S_IFCHR, libc::makedev(*major, *minor)),
        Kind::Block(major, minor) => node(&path, libc::S_IFBLK, libc::makedev(*major, *minor)),
        Kind::File => fs::write(&path, "of the image\n"),
        Kind::Folder => fs::create_dir(&path),
    }
}

/// The target of a link, with the host's folders in place of their names.
pub(super) fn link(target: &str, sentinels: &Sentinels) -> OsString {
    bytes(&sentinels.name_in(target))
}

/// Who a container is, and where its files are.
pub(super) struct Container<'a> {
    pub(super) id: &'a str,
    pub(super) namespace: &'a str,
    pub(super) pod: &'a str,
    pub(super) volumes: &'a [PathBuf],
}

/// What the container runs: it leaves a mark wherever it may write, then waits.
const PROGRAM: &str = "for d in / /dev /dev/pts /dev/shm /etc /run /tmp /var /srv /data /data/deep /data/sub; do \
                       echo x >$d/.escaped; done 2>/dev/null; exec sleep 1000";

/// The `config.json` of a case, from containerd's default one.
pub(super) fn config(default: &Value, case: &Case, container: &Container<'_>) -> Value {
    let mut spec = default.clone();
    spec["annotations"] = json!({
        "io.kubernetes.cri.container-type": "container",
        "io.kubernetes.cri.container-name": "hostile",
        "io.kubernetes.cri.sandbox-id": container.pod,
        "io.kubernetes.cri.sandbox-uid": container.pod,
        "io.kubernetes.cri.sandbox-name": container.pod,
        "io.kubernetes.cri.sandbox-namespace": "hostile",
    });
    if case.restricted {
        spec["annotations"]["io.containerd.hardened.v1/profile"] = json!("restricted");
    }
    spec["root"] = json!({"path": "rootfs", "readonly": case.read_only});
    // The mark tells whose processes these are.
    spec["process"]["args"] = json!(["/bin/busybox", "sh", "-c", PROGRAM, mark(container.namespace)]);
    spec["process"]["terminal"] = json!(case.terminal);
    spec["process"]["cwd"] = json!(case.cwd);
    spec["process"]["user"] = json!({"uid": case.uid, "gid": case.uid});
    spec["process"]["env"] = environment(case);
    spec["linux"]["cgroupsPath"] = json!(format!("/{}/{}", container.namespace, container.id));
    spec["linux"]["devices"] = case
        .devices
        .iter()
        .enumerate()
        .map(|(n, path)| {
            let minor = if n % 2 == 0 { 3 } else { 5 };
            json!({"path": path, "type": "c", "major": 1, "minor": minor, "fileMode": 0o666})
        })
        .collect();
    if let Some(masked) = spec["linux"]["maskedPaths"].as_array_mut() {
        masked.extend(case.masked.iter().map(|path| json!(path)));
    }
    if let Some(mounts) = spec["mounts"].as_array_mut() {
        mounts.retain(|mount| !case.without.iter().any(|at| mount["destination"] == *at));
        if case.cgroups {
            let options = ["nosuid", "noexec", "nodev", "relatime", "ro"];
            mounts.push(
                json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options}),
            );
        }
        mounts.extend(case.volumes.iter().zip(container.volumes).map(|(volume, source)| {
            let access = if volume.read_only { "ro" } else { "rw" };
            json!({"destination": volume.at, "type": "bind", "source": source,
                "options": ["rbind", "rprivate", access]})
        }));
    }
    spec
}

/// The process of a case's exec.
pub(super) fn process(case: &Case, cwd: &str, namespace: &str) -> Value {
    json!({
        "args": ["/bin/busybox", "sh", "-c", "[ ! -f /etc/passwd ] || cat .escaped /etc/passwd >/dev/null 2>&1; echo x >.escaped", mark(namespace)],
        "cwd": cwd,
        "user": {"uid": case.uid, "gid": case.uid},
        "env": environment(case),
    })
}

fn environment(case: &Case) -> Value {
    if case.home { json!(["PATH=/bin", "HOME=/tmp"]) } else { json!(["PATH=/bin"]) }
}
