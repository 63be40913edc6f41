//! Where the node mounts cgroups.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, statfs};

/// Where cgroups are mounted, by systemd's convention.
pub(crate) const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Controllers of cgroup v1 whose hierarchies containers have a cgroup in
/// (Documentation/admin-guide/cgroup-v1). Named hierarchies, such as systemd's, have none of them.
const CONTROLLERS: [&str; 13] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

/// The hierarchies in which a container has a cgroup.
#[derive(Debug)]
pub(crate) struct Hierarchies {
    /// Whether this is cgroup v2, and nothing else. Beside v1, v2 has no controllers and is not used.
    pub(crate) unified: bool,
    pub(super) all: Vec<Hierarchy>,
}

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// The name of its mount: its controllers with commas between them; empty on v2.
    pub(super) name: String,
    pub(super) mount: PathBuf,
}

impl Hierarchy {
    /// Whether files of this controller are in it.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.name.is_empty() || self.name.split(',').any(|own| own == controller)
    }
}

/// The node's hierarchies. They are looked for once: a mounted hierarchy neither moves nor changes its
/// controllers, and the mount table, which has a line for each volume of each pod, is not read.
pub(crate) fn hierarchies() -> Result<&'static Hierarchies> {
    static FOUND: OnceLock<Hierarchies> = OnceLock::new();
    match FOUND.get() {
        Some(found) => Ok(found),
        None => find(Path::new(CGROUP_ROOT)).map(|found| FOUND.get_or_init(|| found)),
    }
}

fn find(root: &Path) -> Result<Hierarchies> {
    let show = root.display();
    let file_system = |path: &Path| statfs(path).map(|found| found.filesystem_type());
    if file_system(root).with_context(|| format!("look at {show}"))? == CGROUP2_SUPER_MAGIC {
        return Ok(Hierarchies { unified: true, all: vec![Hierarchy { name: String::new(), mount: root.to_owned() }] });
    }
    let mut all = Vec::new();
    for entry in std::fs::read_dir(root).with_context(|| format!("list {show}"))? {
        let entry = entry.with_context(|| format!("list {show}"))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if !name.split(',').all(|controller| CONTROLLERS.contains(&controller)) {
            continue;
        }
        // A hierarchy that cannot be looked at is not one that is not there: its limits would be left out.
        let look = || format!("look at {show}/{name}");
        // `cpu` is a link to `cpu,cpuacct` where both are in one hierarchy.
        let folder = entry.file_type().with_context(look)?.is_dir();
        if folder && file_system(&entry.path()).with_context(look)? == CGROUP_SUPER_MAGIC {
            all.push(Hierarchy { name, mount: entry.path() });
        }
    }
    if all.is_empty() {
        bail!("no cgroup hierarchy is mounted at {show}: expected cgroup v2 there, or folders with v1's controllers");
    }
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Hierarchies { unified: false, all })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_cgroup_mount_is_not_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("memory")).unwrap();
        assert!(find(dir.path()).unwrap_err().to_string().contains("no cgroup hierarchy"));
        assert!(find(Path::new("/nowhere")).is_err());
    }

    #[test]
    fn a_controller_is_in_the_hierarchy_that_is_called_so() {
        let hierarchy = |name: &str| Hierarchy { name: name.to_owned(), mount: PathBuf::new() };
        assert!(hierarchy("cpu,cpuacct").has("cpuacct"));
        assert!(!hierarchy("cpuset").has("cpu"));
        assert!(hierarchy("").has("memory"), "v2 has them all");
    }
}
